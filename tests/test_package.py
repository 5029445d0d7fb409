"""Imports of the package: what they need, and what they offer."""

import ast
import configparser
import pickle
import subprocess
import sys

import pytest
from fresh_process import run_fresh
from helpers import ROOT, tiny_model, tiny_processor

import modeling_comm
from modeling_comm.losses import available_losses, get_loss, is_built_in_loss
from modeling_comm.required_versions import NEEDED, check_transformers

# They take seconds to import, and `TrainingArguments` does without them.
SLOW = {
    *(
        "transformers.generation.utils",
        "transformers.modeling_utils",
        "transformers.pipelines",
        "transformers.trainer",
    ),
    *("transformers.processing_utils", "torch._dynamo", "sympy", "datasets", "evaluate"),
}
OPTIONAL = ("accelerate", "datasets", "evaluate", "spacy", "matplotlib", "sklearn", "scipy")


def run(code, missing):
    """Runs code in a fresh process in which the packages `missing` are not there."""
    start = f"""
import importlib.machinery
find = importlib.machinery.PathFinder.find_spec
def find_others(name, *arguments):
    return None if name.partition(".")[0] in {missing!r} else find(name, *arguments)
importlib.machinery.PathFinder.find_spec = staticmethod(find_others)
"""
    return subprocess.run([sys.executable, "-c", start + code], cwd=ROOT, capture_output=True, text=True)


def test_import_needs_torch_and_transformers_only():
    found = run("from modeling_comm import CommConfig, cmm_loss; print(CommConfig().model_type)", missing=OPTIONAL)
    assert found.stdout.strip() == "comm", found.stderr


def test_help_imports_little_more_than_training_arguments(tmp_path):
    run_fresh(
        """
from transformers import TrainingArguments
assert not SLOW & set(sys.modules)
import comm_docre
try:
    comm_docre.main(["train", "--help"])  # the help of `run_docre.py`
except SystemExit as stopped:
    assert stopped.code == 0
assert "run_docre" in sys.modules
assert not SLOW & set(sys.modules), SLOW & set(sys.modules)
""".replace("SLOW", repr(SLOW)),
        home=tmp_path,
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    model, processor = tiny_model(), tiny_processor()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


# What of Transformers comes first, and what it has to know of COMM then.
FIRST_USES = {
    "model": """
import pickle
config = pickle.loads(Path(folder, "config.pickle").read_bytes())  # without a call of its class
from transformers import AutoModel
import modeling_comm
assert type(AutoModel.from_config(config)) is modeling_comm.CommForDocumentRelationExtraction
assert type(AutoModel.from_pretrained(folder)) is modeling_comm.CommForDocumentRelationExtraction
""",
    "processor": """
import modeling_comm
from transformers import AutoProcessor
assert "modeling_comm.modeling_comm" not in sys.modules
assert type(AutoProcessor.from_pretrained(folder)) is modeling_comm.CommProcessor
""",
    "pipeline": """
import modeling_comm
from transformers import pipeline
found = pipeline("document-relation-extraction", model=folder)
assert type(found) is modeling_comm.DocumentRelationExtractionPipeline
""",
    "all of it, before the package": """
from transformers import AutoModel, AutoProcessor, pipelines
import modeling_comm
assert type(AutoProcessor.from_pretrained(folder)) is modeling_comm.CommProcessor
assert modeling_comm.configuration_comm.TASK in pipelines.get_supported_tasks()
""",
    "tasks, after a part that imports what imports it": """
import modeling_comm.pipeline_comm
from transformers.pipelines import get_supported_tasks
assert modeling_comm.configuration_comm.TASK in get_supported_tasks()
model = modeling_comm.CommForDocumentRelationExtraction.from_pretrained(folder)
model.save_pretrained("again")
assert Path("again/modeling_comm.py").is_file()
""",
}


@pytest.mark.parametrize("code", FIRST_USES.values(), ids=FIRST_USES)
def test_what_transformers_asks_for_first_is_registered(code, saved, tmp_path):
    (saved / "config.pickle").write_bytes(pickle.dumps(tiny_model().config))
    run_fresh(f"folder = sys.argv[1]\n{code}", saved, home=tmp_path)


def test_troubleshooting_has_what_transformers_says_without_this_library(saved, tmp_path):
    message = "contains custom code which must be executed"
    assert f"`{message}`" in (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    run_fresh(
        f"""
from transformers import AutoModel, pipeline
for load in (AutoModel.from_pretrained, lambda folder: pipeline("document-relation-extraction", model=folder)):
    try:
        load(sys.argv[1])
    except ValueError as error:
        assert {message!r} in str(error), error
    else:
        raise AssertionError("it works")
""",
        saved,
        home=tmp_path,
        package=False,
    )


def test_names_on_demand_are_those_that_type_checkers_see():
    tree = ast.parse((ROOT / "modeling_comm/__init__.py").read_text(encoding="utf-8"))
    condition = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in condition.body for alias in node.names}
    assert seen == modeling_comm._ON_DEMAND
    assert set(modeling_comm.__all__) <= set(dir(modeling_comm))


def test_losses_are_offered_for_a_loop_of_ones_own():
    built_in = filter(is_built_in_loss, available_losses())  # other tests of this process may have registered more
    for name in built_in:
        function = get_loss(name).function
        assert getattr(modeling_comm, function.__name__) is function
        assert function.__name__ in modeling_comm.__all__


def test_what_training_lacks_is_named():
    found = run("from modeling_comm import CommTrainer", missing=("accelerate",))
    assert "CommTrainer needs 'accelerate', of the extra 'training': pip install -e \".[training]\"" in found.stderr


def test_trainer_is_offered():
    from modeling_comm.training.trainer import CommTrainer

    assert modeling_comm.CommTrainer is CommTrainer
    with pytest.raises(AttributeError) as refused:
        modeling_comm.CommTrainr  # noqa: B018
    assert refused.value.name == "CommTrainr"


def test_files_beside_the_code_are_installed():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    beside = {}
    for package in ("modeling_comm", "dataset_scripts"):
        for path in (ROOT / package).rglob("*"):
            if path.is_file() and path.suffix not in (".py", ".pyc"):
                owner = next(folder for folder in path.parents if (folder / "__init__.py").is_file())
                name = ".".join(owner.relative_to(ROOT).parts)
                beside.setdefault(name, set()).add(path.relative_to(owner).as_posix())
    assert {package: set(names.split()) for package, names in setup["options.package_data"].items()} == beside


PACKAGES = [
    folder.parent
    for root in ("modeling_comm", "dataset_scripts", "experiments")
    for folder in (ROOT / root).rglob("__init__.py")
]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda folder: folder.name)
def test_a_folder_holds_several_modules_and_none_is_longer_than_500_lines(package):
    modules = [file for file in package.glob("*.py") if file.name != "__init__.py"]
    assert len(modules) > 1
    lengths = {file.name: len(file.read_text(encoding="utf-8").splitlines()) for file in modules}
    assert {name: length for name, length in lengths.items() if length > 500} == {}


@pytest.mark.parametrize("version", ["4.57.3", "5.16.1", "6.0.0", "6.0.0.dev0"])
def test_another_version_of_transformers_is_named(version):
    with pytest.raises(ImportError) as error:
        check_transformers(version)
    assert version in str(error.value) and ">=5.17,<6" in str(error.value)


def test_needed_versions_are_those_of_the_package():
    check_transformers("5.17.0")
    check_transformers("5.23.0.dev0")
    assert f"transformers>={NEEDED[0]},<{NEEDED[1]}" in (ROOT / "setup.cfg").read_text(encoding="utf-8")


def test_another_version_is_named_before_its_classes_are_missed():
    run(
        """
import sys, types
old = types.ModuleType("transformers")
old.__version__, old.__path__ = "4.57.3", []
sys.modules["transformers"] = old
try:
    import modeling_comm
except ImportError as error:
    assert "4.57.3" in str(error), error
else:
    raise AssertionError("imported")
""",
        missing=(),
    )
