"""A saved model carries its code: it loads with the package and, as remote code, without it; and saved again it still does."""

import ast
import sys

import pytest
from fresh_process import run_fresh, save_again, write_expected
from helpers import ROOT, byte_level_tokenizer, random_document, tiny_config, tiny_model, tiny_processor
from safetensors.torch import load_file

# What to read before trusting a saved model: the root of the package, and nothing else.
MODULES = {file.stem for file in (ROOT / "modeling_comm").glob("*.py")} - {"__init__"}
# Transformers needs all of them.
ALLOWED_PACKAGES = {"torch", "transformers", "huggingface_hub", "numpy", "safetensors"} | sys.stdlib_module_names


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with a saved model and processor, and one with what they predict; a long document is among the documents."""
    folder = tmp_path_factory.mktemp("remote_code")
    tokenizer = byte_level_tokenizer()
    config = tiny_config("roberta", text_fields={"tokenizer": tokenizer})
    settings = {"word_leading_space": False, "relation_names": {"P17": "country"}}
    model, processor = tiny_model(config), tiny_processor(config, tokenizer, **settings)
    documents = [random_document(entities=4, words=words, seed=words) for words in (9, 60)]
    write_expected(folder / "expected", model, processor, documents)
    save_again(folder / "model", model, processor)
    return folder


def test_a_saved_model_carries_the_root_of_the_package_and_nothing_else(saved):
    assert {file.stem for file in (saved / "model").glob("*.py")} == MODULES


@pytest.mark.parametrize("module", sorted(MODULES))
def test_the_saved_code_needs_no_optional_package(saved, module):
    tree = ast.parse((saved / "model" / f"{module}.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            # The only form that Transformers follows when it gathers files.
            assert node.level == 1 and node.module in MODULES, ast.unparse(node)
        elif isinstance(node, ast.ImportFrom):
            assert node.module.partition(".")[0] in ALLOWED_PACKAGES, ast.unparse(node)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                assert alias.name.partition(".")[0] in ALLOWED_PACKAGES, ast.unparse(node)


def test_nothing_that_is_saved_is_a_pickle(saved):
    for file in (saved / "model").iterdir():
        assert file.suffix in {".json", ".py", ".safetensors"}, file.name
        if file.suffix == ".safetensors":
            load_file(file)  # a header of JSON and plain numbers
        else:
            file.read_text(encoding="utf-8")


def test_the_model_loads_with_and_without_the_package_and_saved_again(saved, tmp_path):
    # Each process imports Transformers, which takes seconds, so they check several things.
    run_fresh(
        """
import modeling_comm
saved, again = map(Path, sys.argv[1:])
model, processor = load_and_compare(saved / "model", saved / "expected")
assert type(model) is modeling_comm.CommForDocumentRelationExtraction
assert type(processor) is modeling_comm.CommProcessor
save_again(again / "by_the_package", model, processor)
""",
        saved,
        tmp_path,
        home=tmp_path,
    )
    run_fresh(
        """
saved, again = map(Path, sys.argv[1:])
model, processor = load_and_compare(saved / "model", saved / "expected", trust_remote_code=True)
assert type(model).__module__.startswith("transformers_modules.")
save_again(again / "by_remote_code", model, processor)
""",
        saved,
        tmp_path,
        home=tmp_path,
        package=False,
    )
    names = {file.name for file in (saved / "model").iterdir()}
    for again in ("by_the_package", "by_remote_code"):
        assert {file.name for file in (tmp_path / again).iterdir()} == names
    # As if uploaded: Transformers then puts all modules of a repository into one package.
    run_fresh(
        """
saved, again = map(Path, sys.argv[1:])
load_and_compare(again / "by_the_package", saved / "expected", trust_remote_code=True)
as_hub_cache(again / "by_remote_code", again, "someone/comm-tiny")
model, processor = load_and_compare("someone/comm-tiny", saved / "expected", trust_remote_code=True)
save_again(again / "from_the_hub", model, processor)
load_and_compare(again / "from_the_hub", saved / "expected", trust_remote_code=True)
""",
        saved,
        tmp_path,
        home=tmp_path,
        package=False,
    )
    assert {file.name for file in (tmp_path / "from_the_hub").iterdir()} == names


def test_without_trust_the_code_is_refused_at_once(saved, tmp_path):
    run_fresh(
        """
from transformers import AutoConfig, AutoModel, AutoProcessor
for options in ({}, {"trust_remote_code": False}):
    for auto_class in (AutoConfig, AutoModel, AutoProcessor):
        message = refused(auto_class.from_pretrained, sys.argv[1], **options)
        assert "`trust_remote_code=True`" in message, message
assert not list(Path(sys.argv[2]).rglob("*_comm.py")), "code was copied to where it runs from"
""",
        saved / "model",
        tmp_path,
        home=tmp_path,
        package=False,
    )
