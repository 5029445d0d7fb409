"""A data set of one's own: an entry in a file of its own, three documents with other entity types and another null label."""

import json
import shutil
import subprocess
import sys

import pytest
from helpers import ROOT, registries_kept, run_script, save_backbone

import dataset_scripts  # noqa: F401  (registers the data sets)
from modeling_comm import CommConfig, CommProcessor
from modeling_comm.data import DatasetEntry, DatasetFile, available_datasets, get_dataset, register_dataset
from modeling_comm.settings import NameTakenError, SettingError

ENTRY = """
from modeling_comm.data import DatasetEntry, DatasetFile, register_dataset

register_dataset(
    DatasetEntry(
        name="letters",
        title="Letters",
        files={split: DatasetFile(name=f"{split}_letters.json") for split in ("train", "validation", "test")},
        null_label="no_relation",
        entity_types=("Writer", "Town"),
        frequent_relations=frozenset({"lives_in"}),
    )
)
"""


def make_document(title, relations):
    """A writer and two towns; `relations` by the index of the town."""
    towns = ["Varn", "Ost"]
    return {
        "title": title,
        "sents": [["Ida", "wrote", "from", towns[0], "to", towns[1], "."]],
        "vertexSet": [
            [{"name": "Ida", "sent_id": 0, "pos": [0, 1], "type": "Writer"}],
            [{"name": towns[0], "sent_id": 0, "pos": [3, 4], "type": "Town"}],
            [{"name": towns[1], "sent_id": 0, "pos": [5, 6], "type": "Town"}],
        ],
        "labels": [{"h": 0, "t": town, "r": relation, "evidence": [0]} for town, relation in relations.items()],
    }


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with the entry, its documents, the same documents under the names of local files, and a tiny encoder."""
    folder = tmp_path_factory.mktemp("entry")
    (folder / "letters_entry.py").write_text(ENTRY, encoding="utf-8")
    save_backbone(folder / "encoder")
    for name in ("letters", "local"):
        (folder / name).mkdir()
    documents = [make_document(f"Letter {number}", {1: "lives_in", 2: "writes_to"}) for number in range(3)]
    names = {"train": "train", "validation": "dev", "test": "test"}
    for (split, name), document in zip(names.items(), documents, strict=True):
        for path in (folder / "letters" / f"{split}_letters.json", folder / "local" / f"{name}.json"):
            path.write_text(json.dumps([document]), encoding="utf-8")
    with registries_kept():
        yield folder


def train(work, output, *data):
    flags = ["--model_name_or_path", work / "encoder", "--emb_size", "16", "--block_size", "4", "--use_cpu"]
    flags += ["--do_train", "--do_eval", "--do_predict", "--max_steps", "2", "--disable_tqdm", "true"]
    (metrics,) = run_script(*flags, *data, "--cache_dir", work / "cache", "--output_dir", output)
    return metrics


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_trains_scores_and_predicts(work, capsys):
    data = ["--extensions", work / "letters_entry.py", "--dataset_config", "letters", "--data_dir", work / "letters"]
    metrics = train(work, work / "out", *data)
    assert "letters" in available_datasets()
    config = CommConfig.from_pretrained(work / "out")
    assert config.id2label == {0: "no_relation", 1: "lives_in", 2: "writes_to"}
    assert CommProcessor.from_pretrained(work / "out").id2label == config.id2label
    assert {prediction["r"] for prediction in read(work / "out" / "results.json")} <= {"lives_in", "writes_to"}
    scores = read(work / "out" / "test_scores.json")["scores"]
    assert scores["f1"] == metrics["test_f1"]
    assert (scores["frequent"]["gold"], scores["long_tail"]["gold"]) == (1, 1)
    assert "frequent" in capsys.readouterr().out
    record, card = read(work / "out" / "run.json"), (work / "out" / "README.md").read_text(encoding="utf-8")
    assert record["data"]["config"] == "letters" and record["data"]["published"] == {}
    assert "DocRED" not in card.replace("DocRED's format", "")


def test_files_of_ones_own_need_no_entry(work, capsys):
    """Neither their names nor anything else is taken for those of a published data set."""
    files = [f"--{split}_file={work / 'letters' / split}_letters.json" for split in ("train", "validation", "test")]
    by_file = train(work, work / "by_file", *files)
    assert "frequent" not in capsys.readouterr().out
    by_folder = train(work, work / "by_folder", "--data_dir", work / "local")
    assert by_file["test_f1"] == by_folder["test_f1"]
    assert CommConfig.from_pretrained(work / "by_file").id2label[0] == "Na"
    scores = read(work / "by_file" / "test_scores.json")["scores"]
    assert scores["frequent"] is scores["long_tail"] is None
    card = (work / "by_file" / "README.md").read_text(encoding="utf-8")
    assert "Files of somebody's own" in card and "DocRED" not in card.replace("DocRED's format", "")


def test_description_has_no_figures_of_other_data(work, capsys):
    run_script("--data_dir", work / "local", "--describe_data", "--cache_dir", work / "cache")
    assert capsys.readouterr().out.splitlines()[0].split() == ["train", "validation", "test"]


def test_a_split_whose_file_is_missing_is_said(work, tmp_path):
    for split in ("train", "test"):
        shutil.copy(work / "local" / f"{split}.json", tmp_path)
    words = [sys.executable, ROOT / "run_docre.py", "--data_dir", tmp_path, "--describe_data"]
    done = subprocess.run([*words, "--cache_dir", work / "cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.splitlines()[0].split() == ["train", "test"]
    (line,) = (line for line in done.stderr.splitlines() if "dev.json" in line)
    assert "validation" in line and str(tmp_path) in line
    named = ["--validation_file", work / "local" / "dev.json", "--cache_dir", work / "cache"]
    done = subprocess.run([*words, *named], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines()[0].split() == ["train", "validation", "test"] and "dev.json" not in done.stderr


def test_a_name_is_given_once():
    entry = DatasetEntry(name="twice", title="Twice", files={"test": DatasetFile(name="a.json")})
    assert register_dataset(entry) is register_dataset(entry) is get_dataset("twice")
    with pytest.raises(NameTakenError) as taken:
        register_dataset(DatasetEntry(name="twice", title="Twice", files={"test": DatasetFile(name="b.json")}))
    assert taken.value.name == "twice"
    with pytest.raises(SettingError) as error:
        get_dataset("thrice")
    assert error.value.value == "thrice"


def test_only_files_at_their_public_address_are_the_published_ones():
    redocred = get_dataset("redocred")
    addresses = {split: {"source": file.address} for split, file in redocred.files.items()}
    assert redocred.published_sources(addresses)["test"]["hub_name"] == "tonytan48/Re-DocRED"
    assert redocred.published_sources({"test": {"source": "/data/test_revised.json"}}) == {}
    assert get_dataset("local").published_sources({"test": {"source": "test.json"}}) == {}


def test_no_module_of_the_package_imports_an_entry():
    for path in (ROOT / "modeling_comm").rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        assert "import dataset_scripts" not in source and "from dataset_scripts" not in source, path
