"""Documents published as a data set: in a folder, with its card, and on the Hub, over HTTP, with a server on this machine."""

import json
import re
import shutil
from pathlib import Path

import datasets
import pytest
from datasets.info import DatasetInfosDict
from datasets.utils.metadata import MetadataConfigs
from fresh_process import run_fresh
from helpers import ROOT, SAMPLE, random_document
from hub_server import HubServer
from huggingface_hub import DatasetCard

from dataset_scripts import publish as module
from dataset_scripts.builder import FEATURES, relation_labels, to_document
from dataset_scripts.describe import describe_documents
from dataset_scripts.provenance import read_provenance
from dataset_scripts.publish import load_published, publish
from modeling_comm.data import get_dataset
from modeling_comm.documents import DocumentError
from modeling_comm.utils.files import file_sha256

NAME = "org/redocred"
CARD = """---
pretty_name: Sample documents
license: cc-by-4.0
language: [en, pt]
---
Invented people and places. Cite this project.
"""


def write(folder, **documents):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in documents.items():
        (folder / f"{name}.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return folder


def documents(first, number=3, **arguments):
    return [
        random_document(entities=3, seed=seed, title=f"Łódź {seed}", **arguments)
        for seed in range(first, first + number)
    ]


# Known and empty, unknown, and no evidence given, which all mean different things; the other documents have empty evidence.
TRAIN = documents(0)
VALIDATION = [{**document, "labels": []} for document in documents(10)]
TEST = documents(20, labels=False)
MIXED = documents(30, 5)
for fact in TRAIN[1]["labels"]:
    del fact["evidence"]
TRAIN[2]["labels"][0]["evidence"] = [0, 3]


@pytest.fixture
def data(tmp_path):
    """A folder with all official files of `redocred` and `docred_mixed`."""
    files = {"train_revised": TRAIN, "dev_revised": VALIDATION, "test_revised": TEST, "train_annotated": MIXED}
    return write(
        tmp_path / "data", rel_info={f"P{number}": f"relation {number}" for number in (17, 27, 131, 569)}, **files
    )


@pytest.fixture
def write_to(tmp_path, data):
    """Publishes to a folder."""

    def call(config="redocred", **arguments):
        return publish(
            config,
            **{"data_dir": data, "output_dir": tmp_path / "out", "cache_dir": str(tmp_path / "cache"), **arguments},
        )

    return call


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ------------------------------------------------------------------------------------------------------------ the folder


def test_rows_are_the_documents(tmp_path, data, write_to):
    write_to()
    loaded, folder = load_published(tmp_path / "out", "redocred", cache_dir=str(tmp_path / "cache"))
    expected = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
    assert {split: list(map(to_document, rows)) for split, rows in loaded.items()} == expected
    assert loaded["test"]["has_labels"] == [False] * 3 and loaded["test"]["labels"] == [None] * 3
    assert loaded["validation"]["has_labels"] == [True] * 3 and loaded["validation"]["labels"] == [[]] * 3
    assert {label["evidence"] for label in loaded["train"][1]["labels"]} == {None}
    by_name = datasets.load_dataset(str(tmp_path / "out"), "redocred", cache_dir=str(tmp_path / "cache"))
    assert {split: rows.to_list() for split, rows in by_name.items()} == {
        s: rows.to_list() for s, rows in loaded.items()
    }
    assert all(rows.features == FEATURES for rows in (*by_name.values(), *loaded.values()))
    assert relation_labels(folder, loaded["train"]) == relation_labels(data, TRAIN)
    files = {split: Path(folder) / f"{split}.parquet" for split in expected}
    assert read_provenance(loaded) == {
        split: {"source": f"{tmp_path}/out/redocred/{split}.parquet", "sha256": file_sha256(path), "skipped": []}
        for split, path in files.items()
    }


def test_files_of_an_earlier_version(tmp_path, write_to):
    write_to()
    for path in (tmp_path / "out" / "redocred").glob("*.parquet"):
        rows = datasets.Dataset.from_parquet(str(path), cache_dir=str(tmp_path / "rows"))
        rows.remove_columns(["ignored_pairs", "entity_ids", "untyped_entities"]).to_parquet(str(path))
    loaded, _ = load_published(tmp_path / "out", "redocred", cache_dir=str(tmp_path / "cache"))
    assert list(map(to_document, loaded["train"])) == TRAIN


def test_the_record(tmp_path, data, write_to):
    record = write_to()
    assert json.loads((tmp_path / "out" / "redocred" / "record.json").read_text(encoding="utf-8")) == record
    names = {"train": "train_revised.json", "validation": "dev_revised.json", "test": "test_revised.json"}
    for (split, name), content in zip(names.items(), (TRAIN, VALIDATION, TEST), strict=True):
        file = record["files"][split]
        assert (file["source"], file["sha256"]) == (name, file_sha256(data / name))
        assert file["statistics"] == describe_documents(content)
    for path, content in contents(tmp_path / "out").items():
        assert str(tmp_path).encode() not in content, f"{path} tells where the files lay"
        assert Path(path).suffix in (".json", ".md", ".parquet")


def test_the_card(tmp_path, data, write_to):
    write_to(repo_id=None)
    card = DatasetCard.load(tmp_path / "out" / "README.md")
    assert card.data.license == "mit" and card.data.language == "en" and card.data.size_categories == "n<1K"
    assert card.data.pretty_name == "Re-DocRED"
    (info,) = DatasetInfosDict.from_dataset_card_data(card.data).values()
    assert info.features == FEATURES
    assert {name: split.num_examples for name, split in info.splits.items()} == {
        "train": 3,
        "validation": 3,
        "test": 3,
    }
    configs = MetadataConfigs.from_dataset_card_data(card.data)
    assert configs.get_default_config_name() == "redocred"
    for file in configs["redocred"]["data_files"]:
        assert (tmp_path / "out" / file["path"]).is_file()
    facts, tokens = describe_documents(TRAIN)["triples"], describe_documents(TEST)["tokens"]
    table = {cells[0]: cells[1:] for line in card.text.splitlines() if (cells := re.findall(r"[^|]+", line)[:4])}
    assert [cell.strip() for cell in table[" facts "]] == [str(facts), "0", "0"]
    assert table[" tokens "][2].strip() == str(tokens)
    assert [cell.strip() for cell in table[" ... with labels "]] == ["3", "3", "0"]
    assert [cell.strip() for cell in table[" ... of the labelled ones "]][1:] == ["0.0 %", "-"]
    assert "* `train`: **not the official file**, which has 3,053 documents; this one has 3." in card.text
    assert all(
        file_sha256(data / f"{name}.json") in card.text for name in ("train_revised", "dev_revised", "test_revised")
    )
    fields = [*FEATURES, "`vertexSet[][].pos`", "`labels[].evidence`"]
    assert all(field.strip("`") in card.text for field in fields)
    assert "tan-etal-2022-revisiting" in card.text and "yao-etal-2019-docred" not in card.text
    assert not re.search(r"\$\w", card.text), "a blank of the template is left"


def test_configurations_stay_beside_each_other(tmp_path, write_to):
    write_to("docred_mixed")
    before = contents(tmp_path / "out" / "docred_mixed")
    write_to("redocred")
    assert contents(tmp_path / "out" / "docred_mixed") == before
    write_to("redocred", splits=["train"], config_name="part")
    for config, expected in (("redocred", TRAIN), ("docred_mixed", MIXED), ("part", TRAIN)):
        loaded = datasets.load_dataset(str(tmp_path / "out"), config, cache_dir=str(tmp_path / "cache"))
        assert list(map(to_document, loaded["train"])) == expected
    default = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert list(map(to_document, default["train"])) == MIXED, "the first one that was published stays the default"
    card = DatasetCard.load(tmp_path / "out" / "README.md")
    assert card.data.pretty_name == "DocRED and Re-DocRED" and card.data.license == "mit"
    assert "tan-etal-2022-revisiting" in card.text and "yao-etal-2019-docred" in card.text
    # Once more, with fewer splits: nothing of the splits before is left.
    write_to("docred_mixed", splits=["train"])
    assert {path.name for path in (tmp_path / "out" / "docred_mixed").glob("*.parquet")} == {"train.parquet"}
    assert contents(tmp_path / "out" / "redocred").keys() >= {"test.parquet", "record.json"}


def test_an_interruption_keeps_what_was_published(tmp_path, data, write_to, monkeypatch):
    write_to()
    before = contents(tmp_path / "out")
    write(data, train_revised=MIXED)
    copytree = shutil.copytree

    def interrupted(*arguments, **options):
        copytree(*arguments, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "copytree", interrupted)
        write_to()
    assert contents(tmp_path / "out") == before
    assert write_to()["files"]["train"]["statistics"]["documents"] == len(MIXED)


def test_malformed_documents_are_reported(tmp_path, data, write_to, capsys):
    broken = [TRAIN[0], {**TRAIN[1], "sents": []}, TRAIN[2]]
    write(data, train_revised=broken)
    with pytest.raises(DocumentError, match=r"document 1 \('Łódź 1'\), field sents: found \[\]"):
        write_to()
    assert not (tmp_path / "out").exists()
    arguments = [
        "--dataset_config",
        "redocred",
        "--data_dir",
        data,
        "--output_dir",
        tmp_path / "out",
        "--cache_dir",
        tmp_path / "cache",
    ]
    assert module.main([*map(str, arguments), "--on_bad_document", "skip"]) == 0
    printed = capsys.readouterr().out
    assert "train: 2 documents" in printed and "malformed documents that are left out: 1" in printed
    record = json.loads((tmp_path / "out" / "redocred" / "record.json").read_text(encoding="utf-8"))
    (skipped,) = record["files"]["train"]["skipped"]
    assert (skipped["index"], skipped["field"]) == (1, "sents") and "source" not in skipped
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "* `train`: malformed documents that are left out: 1" in card
    assert "which has 3,053 documents; this one has 3." in card
    loaded, _ = load_published(tmp_path / "out", "redocred", cache_dir=str(tmp_path / "cache"))
    assert list(map(to_document, loaded["train"])) == [TRAIN[0], TRAIN[2]]
    assert read_provenance(loaded)["train"]["skipped"] == [skipped]


def test_parts_that_are_left_out_are_reported(tmp_path, data, write_to):
    fact = {"h": 0, "t": 99, "r": "P17", "evidence": []}
    write(data, train_revised=[TRAIN[0], {**TRAIN[1], "labels": [*TRAIN[1]["labels"], fact]}, TRAIN[2]])
    record = write_to(on_bad_document="drop_part")
    assert (
        record["files"]["train"]["dropped"] == {"facts": 1, "documents": 1}
        and "dropped" not in record["files"]["test"]
    )
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "* `train`: left out of documents of the file are 0 mentions, 0 entities, 1 fact of 1 document." in card
    loaded, _ = load_published(tmp_path / "out", "redocred", cache_dir=str(tmp_path / "cache"))
    assert read_provenance(loaded)["train"]["dropped"] == {"facts": 1, "documents": 1}


def test_ignored_pairs_that_are_left_out_are_reported(data, write_to, caplog):
    write(data, train_revised=[{**TRAIN[0], "ignored_pairs": [[0, 1], [0, 99]]}, *TRAIN[1:]])
    record = write_to(on_bad_document="drop_part")
    assert record["files"]["train"]["dropped"] == {"ignored_pairs": 1, "documents": 1}
    assert "left out 0 mentions, 0 entities, 0 facts, 1 ignored pair of 1 document" in caplog.text


def test_relations_beside_the_folder_of_a_data_set_with_its_own_format_are_not_published(tmp_path, write_to):
    """A folder `meta` beside that of the data set has DocRED's relations."""
    write(tmp_path / "meta", rel2id={"Na": 0, "P17": 1}, rel_info={"P17": "country"})
    (tmp_path / "cdr").mkdir()
    for file in get_dataset("cdr").files.values():
        shutil.copy(ROOT / "tests/fixtures/formats/two_texts.pubtator", tmp_path / "cdr" / file.name)
    assert write_to("cdr", data_dir=tmp_path / "cdr")["null_label"] == "NR"
    ids = json.loads((tmp_path / "out" / "cdr" / "rel2id.json").read_text())
    assert ids == {"NR": 0, "Association": 1, "CID": 2}


def test_documents_of_ones_own(tmp_path, write_to):
    (tmp_path / "about.md").write_text(CARD, encoding="utf-8")
    files = {"train_revised": "train", "dev_revised": "dev", "test_revised": "test"}
    for name in ("rel_info", *files):
        (tmp_path / "own").mkdir(exist_ok=True)
        shutil.copy(SAMPLE / f"{name}.json", tmp_path / "own" / f"{files.get(name, name)}.json")
    shutil.copy(SAMPLE / "LICENSE", tmp_path / "own")
    with pytest.raises(ValueError, match="card"):
        write_to("local", data_dir=tmp_path / "own")
    write_to("local", data_dir=tmp_path / "own", card=tmp_path / "about.md", config_name="sample")
    card = DatasetCard.load(tmp_path / "out" / "README.md")
    assert card.data.license == "cc-by-4.0" and card.data.language == ["en", "pt"]
    assert "## Sample documents\n\nInvented people and places. Cite this project." in card.text
    assert "DocRED" not in card.text.replace("DocRED's JSON format", "") and "official" not in card.text
    assert (tmp_path / "out" / "sample" / "LICENSE").read_bytes() == (SAMPLE / "LICENSE").read_bytes()
    loaded, folder = load_published(tmp_path / "out", "sample", cache_dir=str(tmp_path / "cache"))
    for split, name in (("train", "train"), ("validation", "dev"), ("test", "test")):
        expected = json.loads((SAMPLE / f"{name}_revised.json").read_text(encoding="utf-8"))
        assert list(map(to_document, loaded[split])) == expected
    assert relation_labels(folder) == relation_labels(SAMPLE)


@pytest.mark.parametrize(
    ("prepare", "arguments", "message"),
    [
        (None, {"output_dir": None}, "found neither repo_id nor output_dir"),
        (None, {"config_name": "a/b"}, "config_name is 'a/b'; expected letters"),
        ({"out/README.md": "# Mine\n"}, {}, "out has a README.md that something else wrote and that would be lost"),
        ({"out/redocred/train_revised.json": "[]"}, {}, "redocred was not written by this command"),
        ({"out/redocred/record.json": '{"id": 1}'}, {}, "redocred was not written by this command"),
        ({"out/other/record.json": '{"id": '}, {}, "record.json: found no valid JSON"),
        (
            {"about.md": "---\nlicense: mit\n---\nMine"},
            {"card": "about.md"},
            "found no language, pretty_name in the YAML",
        ),
    ],
    ids=[
        "no_place",
        "config_name",
        "card_of_others",
        "folder_of_others",
        "record_of_others",
        "half_a_record",
        "own_card",
    ],
)
def test_refused(tmp_path, write_to, monkeypatch, prepare, arguments, message):
    monkeypatch.chdir(tmp_path)
    for path, content in (prepare or {}).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content, encoding="utf-8")
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=re.escape(message)):
        write_to(**arguments)
    assert contents(tmp_path) == before


def test_folders_of_other_programs_beside_it_stay_and_are_not_in_the_card(tmp_path, write_to):
    for name, content in (("fields", '{"id": 1}'), ("list", "[]")):
        (tmp_path / "out" / name).mkdir(parents=True)
        (tmp_path / "out" / name / "record.json").write_text(content)
    before = contents(tmp_path / "out")
    write_to()
    assert before.items() <= contents(tmp_path / "out").items()
    card = DatasetCard.load(tmp_path / "out" / "README.md")
    assert [config["config_name"] for config in card.data.configs] == ["redocred"]


def test_published_rows_are_checked(tmp_path, write_to):
    write_to()
    row = {**datasets.Dataset.from_parquet(str(tmp_path / "out/redocred/train.parquet"))[0], "sents": []}
    datasets.Dataset.from_list([row], FEATURES).to_parquet(tmp_path / "out/redocred/train.parquet")
    with pytest.raises(DocumentError, match=r"redocred/train\.parquet: document 0 .* field sents: found \[\]"):
        load_published(tmp_path / "out", "redocred", cache_dir=str(tmp_path / "cache"))
    with pytest.raises(FileNotFoundError, match=r"docred/record\.json"):
        load_published(tmp_path / "out", "docred")


def test_a_mistake_is_one_line_and_with_a_flag_its_place_too(tmp_path, capsys):
    words = ["--dataset_config", "redocred", "--output_dir", str(tmp_path / "out")]
    words += ["--data_dir", str(tmp_path / "absent")]
    assert module.main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert module.main([*words, "--traceback"]) == 2
    assert capsys.readouterr().err.startswith("Traceback (most recent call last):")
    with pytest.raises(SystemExit, match="2"):
        module.main([*words[:-2], "--data_di", str(tmp_path)])


def test_help_teaches(capsys):
    with pytest.raises(SystemExit, match="0"):
        module.main(["--help"])
    printed = capsys.readouterr().out
    assert "--repo_id ORG/redocred --private" in printed and 'load_dataset("ORG/redocred", "redocred")' in printed
    assert all(len(line) <= 130 for line in printed.splitlines())


# --------------------------------------------------------------------------------------------------------------- the Hub


def test_pushed_and_loaded_by_its_name(tmp_path, data):
    """Two configurations, one after the other. Neither what is pushed again nor a push that breaks off changes anything."""
    write(tmp_path / "expected", redocred=TRAIN, docred_mixed=MIXED, unlabelled=TEST)
    with HubServer(tmp_path / "server") as server:
        server.fail("POST .*/commit/main", after=2)
        server.fail("PUT /uploads", status=403, after=4)  # three files first, the changed one next
        run_fresh(
            """
from hub_server import use_hub
use_hub(sys.argv[1])
import datasets
from huggingface_hub import HfApi
from dataset_scripts import publish
from dataset_scripts.builder import to_document
from dataset_scripts.provenance import read_provenance
name, data, expected = sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])
expected = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in expected.iterdir()}

def push(config, *flags):
    assert publish.main(["--dataset_config", config, "--data_dir", str(data), "--repo_id", name, *flags]) == 0
    return HfApi().dataset_info(name).sha

def rows(config, **options):
    return {split: list(map(to_document, rows)) for split, rows in datasets.load_dataset(name, config, **options).items()}

first = push("redocred")
assert rows("redocred") == rows(None)
assert rows("redocred")["train"] == expected["redocred"] and rows("redocred")["test"] == expected["unlabelled"]
second = push("docred_mixed")
assert second != first
assert rows("docred_mixed")["train"] == expected["docred_mixed"]
assert rows("redocred")["train"] == expected["redocred"] == rows(None)["train"]
assert push("redocred") == second, "what has not changed is not pushed again"

(data / "train_revised.json").write_text(json.dumps(expected["redocred"][:2]), encoding="utf-8")
for _ in range(2):
    try:
        push("redocred")
    except Exception as error:  # the library passes on whatever its transport raises
        print(repr(error))
    else:
        raise AssertionError("the push did not fail")
    assert HfApi().dataset_info(name).sha == second
    assert rows("redocred")["train"] == expected["redocred"]
third = push("redocred")
assert rows("redocred")["train"] == expected["redocred"][:2]

loaded, folder = publish.load_published(name, "redocred", revision=second)
assert list(map(to_document, loaded["train"])) == expected["redocred"]
assert read_provenance(loaded)["train"]["source"] == f"{name}@{second}/redocred/train.parquet"
assert Path(folder, "rel2id.json").is_file()
""",
            *(server.address, NAME, data, tmp_path / "expected"),
            home=tmp_path,
        )
        assert not server.faults_left()
        repository = server.repositories[f"datasets/{NAME}"]
        assert not repository.private and len(repository.commits) == 4
        files = server.files(f"datasets/{NAME}")
        assert {path.partition("/")[0] for path in files} == {"README.md", "redocred", "docred_mixed"}
        assert f'load_dataset("{NAME}", "redocred")["train"]' in files["README.md"].decode()


def test_private_and_refused(tmp_path, data):
    with HubServer(tmp_path / "server") as server:
        (tmp_path / "card").mkdir()
        (tmp_path / "card" / "README.md").write_text("# Mine\n", encoding="utf-8")
        server.add_folder("datasets/org/mine", tmp_path / "card")
        run_fresh(
            """
from hub_server import TOKEN, use_hub
use_hub(sys.argv[1], token=None)
import datasets
from huggingface_hub import HfApi
from dataset_scripts.publish import load_published, publish

def error_of(call, *arguments, **options):
    try:
        call(*arguments, **options)
    except Exception as error:  # of several libraries
        return f"{type(error).__name__}: {error}"
    raise AssertionError(f"{call} was not refused")

name, data = sys.argv[2:]
message = error_of(publish, "redocred", data_dir=data, repo_id=name)
assert "401 Unauthorized" in message and "Invalid credentials in Authorization header" in message, message
os.environ["HF_TOKEN"] = TOKEN
publish("redocred", data_dir=data, repo_id=name, private=True)
message = error_of(publish, "redocred", data_dir=data, repo_id="org/mine", private=True)
assert message.startswith("ValueError: org/mine exists already and is public; expected a private or a new"), message
message = error_of(publish, "redocred", data_dir=data, repo_id="org/mine")
assert message.startswith("ValueError: org/mine has a README.md that something else wrote and that would be"), message
del os.environ["HF_TOKEN"]
message = error_of(datasets.load_dataset, name, "redocred")
assert f"Dataset '{name}' doesn't exist on the Hub or cannot be accessed" in message, message
message = error_of(load_published, name, "redocred")
assert "RepositoryNotFoundError" in message and "make sure you are authenticated" in message, message
splits = {"train", "validation", "test"}
assert load_published(name, "redocred", token=TOKEN)[0].keys() == datasets.load_dataset(name, token=TOKEN).keys() == splits
""",
            *(server.address, NAME, data),
            home=tmp_path,
        )
        assert server.repositories[f"datasets/{NAME}"].private
        assert server.files("datasets/org/mine").keys() == {"README.md"}


def test_two_at_once_do_not_lose_each_other(tmp_path, data):
    """Each has read the repository before the other one pushes: a card of its own configuration alone would be wrong."""
    with HubServer(tmp_path / "server") as server:
        run_fresh(
            """
from hub_server import use_hub
use_hub(sys.argv[1])
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError
from dataset_scripts.publish import publish
name, data = sys.argv[2:]
upload_folder = HfApi.upload_folder

def upload_after_another(api, **arguments):
    HfApi.upload_folder = upload_folder
    publish("docred_mixed", data, name)
    return api.upload_folder(**arguments)

HfApi.upload_folder = upload_after_another
try:
    publish("redocred", data, name)
except HfHubHTTPError as error:
    assert "412" in str(error) and "A commit has happened since" in str(error), error
else:
    raise AssertionError("the later push was not refused")
assert not HfApi().file_exists(name, "redocred/record.json", repo_type="dataset")
publish("redocred", data, name)
""",
            *(server.address, NAME, data),
            home=tmp_path,
        )
        card = server.files(f"datasets/{NAME}")["README.md"].decode()
        assert "### `redocred`" in card and "### `docred_mixed`" in card
