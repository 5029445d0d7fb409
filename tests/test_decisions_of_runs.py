"""The script that decides anew on finished runs, from the margins that they kept."""

import json
import re

import numpy as np
import pytest
import torch
from helpers import SAMPLE

from dataset_scripts.builder import relation_labels
from experiments import decisions, one_run
from modeling_comm.decoding import DecisionSettings, Predictions, official_predictions
from modeling_comm.evaluation.scoring import score
from modeling_comm.incomplete_labels.rules import Fact, Rule, facts_of
from modeling_comm.utils.files import file_sha256, write_json

NAME = "mixed-atl-seed1"
FILES = {
    "train": "docred-mini/train_annotated.json",
    "validation": "redocred-mini/dev_revised.json",
    "test": "redocred-mini/test_revised.json",
}


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def predicted(documents, labels, seed):
    """Predictions of a model that ranks facts well, and lower than its threshold."""
    draw, results = np.random.default_rng(seed), []
    for document in documents:
        entities = len(document["vertexSet"])
        pairs = torch.tensor([[head, tail] for head in range(entities) for tail in range(entities) if head != tail])
        logits = torch.from_numpy(draw.normal(-6, 1.5, (len(pairs), len(labels))).astype(np.float32))
        logits[:, 0] = 0
        rows = {tuple(pair): row for row, pair in enumerate(pairs.tolist())}
        for fact in facts_of(document):
            logits[rows[fact.head, fact.tail], labels.index(fact.relation)] += 4.5
        results.append(Predictions.from_logits(logits, pairs, DecisionSettings()))
    return results


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Data, a record and margins as a grid leaves them; the second ruler is the test documents, turned around."""
    folder = tmp_path_factory.mktemp("decisions")
    documents = {split: read(SAMPLE / f"{split}_revised.json") for split in ("train", "dev", "test")}
    documents["validation"] = documents.pop("dev")
    for split, name in FILES.items():
        (folder / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "data" / name).write_text(json.dumps(documents[split]))
    (folder / "data" / "meta").mkdir()
    (folder / "data" / "meta" / "rel_info.json").write_text(json.dumps(read(SAMPLE / "rel_info.json")))
    labels, _ = relation_labels(folder / "data" / "redocred-mini")
    results = {"dev": predicted(documents["validation"], labels, 0), "test": predicted(documents["test"], labels, 1)}
    one_run.write_margins(folder / "results" / "margins" / f"{NAME}.npz", {**results, "blind": results["test"]})
    (folder / "results" / "runs").mkdir()
    hashes = {split: file_sha256(folder / "data" / name) for split, name in FILES.items()}
    record = {
        "axes": {"setting": "mixed"},
        "sha256": {**hashes, "weights": "any"},
        "data": {"files": {split: {"source": FILES[split], "sha256": sha256} for split, sha256 in hashes.items()}},
        "offset": -2.5,
        "commit": "abc",
        "name": NAME,
    }
    record["command"] = "python run_docre.py --loss atl"
    (folder / "results" / "runs" / f"{NAME}.json").write_text(json.dumps(record))
    (folder / "scratch.json").write_text(json.dumps([*map(turned, documents["test"]), documents["validation"][0]]))
    return folder, documents, results, labels


def turned(document):
    """The same document with its entities in another order, and one that nobody else has."""
    entities = len(document["vertexSet"])
    labels = [{**one, "h": entities - one["h"], "t": entities - one["t"]} for one in document["labels"]]
    stranger = [{"name": "?", "sent_id": 0, "pos": [999, 1000], "type": "MISC"}]
    labels.append({"h": 0, "t": 1, "r": "P17", "evidence": []})
    return {**document, "vertexSet": [stranger, *document["vertexSet"][::-1]], "labels": labels}


def test_all_ways_are_compared(work, capsys):
    folder, documents, results, labels = work
    places = [
        "--results_dir",
        folder / "results",
        "--output",
        folder / "out.json",
        "--scratch",
        folder / "scratch.json",
    ]
    decisions.main([str(word) for word in (folder / "data", *places)])
    found = read(folder / "out.json")["runs"][NAME]
    ways = found["ways"]
    assert set(ways) == {"own threshold", "one offset", "map", "one offset, rules", "map, rules"}
    official = official_predictions(results["test"], documents["test"], dict(enumerate(labels)))
    own = score(official, documents["test"], ign_reference=documents["train"])
    for key in ("f1", "ign_f1", "precision", "recall", "macro_f1"):
        assert ways["own threshold"][f"test_{key}"] == pytest.approx(own[key])
    assert ways["one offset"]["test_f1"] > ways["own threshold"]["test_f1"] + 0.2
    assert ways["one offset"]["dev_f1"] > 0.5 and ways["map"]["dev_f1"] > 0.5
    assert "test_average_precision" in ways["map"] and "test_average_precision" not in ways["map, rules"]
    ruler, gold = found["second_ruler"], sum(len(facts_of(one)) for one in documents["test"])
    number = len(documents["test"])
    assert ruler["documents"] == ruler["unmatched_entities"] == ruler["unmatched_facts"] == number
    correct = ways["one offset"]["test_recall"] * gold
    given = correct / ways["one offset"]["test_precision"]
    assert ways["one offset"]["ruler_f1"] == pytest.approx(2 * correct / (given + gold + number)), (
        "the same labels, and one fact more"
    )
    assert ways["one offset"]["ruler_minus_one_offset"] == [0, 0, 0]
    printed = capsys.readouterr().out
    assert f"{100 * ways['map']['test_f1']:.1f}" in printed and "second ruler" in printed


def test_a_run_that_was_trained_on_dev_takes_the_offset_of_another(work):
    folder, documents, results, labels = work
    results_dir, trained_on_dev = folder / "results", "mixed-atl-dev1-seed1"
    one_run.write_margins(results_dir / "margins" / f"{trained_on_dev}.npz", {"test": results["test"]})
    record = read(results_dir / "runs" / f"{NAME}.json")
    (results_dir / "runs" / f"{trained_on_dev}.json").write_text(json.dumps({**record, "offset": None}))
    words = (NAME, f"{trained_on_dev}={NAME}", "--results_dir", results_dir, "--output", folder / "two.json")
    decisions.main([str(word) for word in (folder / "data", *words)])
    first, second = read(folder / "two.json")["runs"].values()
    assert second["offset_of"] == NAME and set(second["ways"]) == {"own threshold", "one offset", "one offset, rules"}
    with_offset = second["ways"]["one offset"]
    at_offset = [one.at_offset(-2.5) for one in results["test"]]
    expected = score(official_predictions(at_offset, documents["test"], dict(enumerate(labels))), documents["test"])
    assert with_offset["test_f1"] == pytest.approx(expected["f1"]) and "dev_f1" not in with_offset
    expected = with_offset["test_f1"] - first["ways"]["one offset"]["test_f1"]
    assert with_offset["test_minus_first"][0] == pytest.approx(expected)
    assert first["ways"]["one offset"]["test_minus_first"] == [0, 0, 0]


def test_runs_that_cannot_learn_from_all_dev_documents_are_named(work, tmp_path, capsys):
    """Margins of other dev documents than the setting's are not laid on these, and there may be none at all."""
    folder, _, results, _ = work
    record = read(folder / "results" / "runs" / f"{NAME}.json")
    validation = {"source": "dev_20.json", "sha256": "other"}
    other_dev = {
        **record,
        "name": "other-dev",
        "data": {"files": {**record["data"]["files"], "validation": validation}},
    }
    records = {NAME: record, "other-dev": other_dev, "no-dev": {**record, "name": "no-dev", "offset": None}}
    for name, content in records.items():
        write_json(tmp_path / "runs" / f"{name}.json", content)
        of_dev = {} if name == "no-dev" else {"dev": results["dev"]}
        one_run.write_margins(tmp_path / "margins" / f"{name}.npz", {**of_dev, "test": results["test"]})

    def run(*names):
        decisions.main([str(folder / "data"), *names, "--results_dir", str(tmp_path)])

    refused = {
        "other-dev": "other-dev: found validation documents of dev_20.json .*expected other-dev=OTHER",
        "no-dev": "no-dev: found no margins of dev documents; expected no-dev=OTHER",
        f"{NAME}=no-dev": "no-dev has no offset",
    }
    for name, said in refused.items():
        with pytest.raises(ValueError, match=said):
            run(name)
    with pytest.raises(ValueError, match="other-dev: found validation documents"):
        decisions.check_official(other_dev, "test", "validation")
    run(f"other-dev={NAME}")
    capsys.readouterr()
    run()
    printed = capsys.readouterr().out
    assert "no-dev: left out, with no margins" in printed and "other-dev: left out, with validation" in printed
    assert f"| {NAME} | one offset |" in printed


def test_predictions_of_unlabelled_documents_say_what_made_them(work, capsys):
    folder, documents, *_ = work
    write_json(
        folder / "data" / "redocred-mini" / "test_blind.json", [dict(one, labels=[]) for one in documents["test"]]
    )
    words = [
        folder / "data",
        NAME,
        "--results_dir",
        folder / "results",
        "--blind",
        "map",
        folder / "blind" / "map.json",
    ]
    decisions.main([*map(str, words), "--output", str(folder / "three.json")])
    predictions, said = read(folder / "blind" / "map.json"), (folder / "blind" / "map.txt").read_text()
    scores = score(predictions, documents["test"])
    assert scores["f1"] == pytest.approx(read(folder / "three.json")["runs"][NAME]["ways"]["map"]["test_f1"])
    assert f"results/runs/{NAME}.json" in said and "decided by: map" in said and "trained at abc" in said
    assert f"those of the {len(documents['validation'])} dev documents" in said
    offset_of = {"rules.json": (NAME, "one offset, rules"), "other.json": (f"other={NAME}", "one offset")}
    write_json(folder / "results" / "runs" / "other.json", read(folder / "results" / "runs" / f"{NAME}.json"))
    margins = folder / "results" / "margins"
    (margins / "other.npz").write_bytes((margins / f"{NAME}.npz").read_bytes())
    for file, (name, way) in offset_of.items():
        decisions.main([*map(str, [words[0], name, *words[2:5], way, folder / "blind" / file])])
        said = (folder / "blind" / file).with_suffix(".txt").read_text()
        assert re.search(rf"decided by: {way} \(([+-]\d\.\d{{3}}), of {NAME}\)", said), "which offset, and whose"
    assert "(-2.500, of" in said
    (margins / "other.npz").unlink()
    for words_of_run, found in ((["nosuchrun"], "'nosuchrun'"), ([f"{NAME}="], "no run ''")):
        with pytest.raises(ValueError, match=found):
            decisions.main([str(folder / "data"), *words_of_run, "--results_dir", str(folder / "results")])
    with pytest.raises(ValueError, match="expected ways to decide"):
        decisions.main([*map(str, [*words[:5], "nosuchway", folder / "blind" / "none.json"])])
    with pytest.raises(SystemExit):
        decisions.main([*map(str, [*words[:2], "another", *words[2:]])])
    with pytest.raises(SystemExit):
        decisions.main([str(folder / "nodata"), NAME])
    assert "found no folder" in capsys.readouterr().err


def test_a_rule_completes_predictions(work):
    rules = [Rule.parse("a(x, y) => b(y, x)")]
    assert decisions.completed({Fact(0, 1, "a")}, rules) == {Fact(0, 1, "a"), Fact(1, 0, "b")}


def test_other_data_than_the_runs_are_refused(work):
    folder, *_ = work
    with pytest.raises(ValueError, match="sha256"):
        decisions.read_checked(folder / "data" / FILES["test"], "0")


def test_margins_that_were_not_kept_are_the_lowest(work):
    folder, documents, results, labels = work
    with np.load(folder / "results" / "margins" / f"{NAME}.npz") as arrays:
        some = {key: value[::3] if value.ndim else value for key, value in arrays.items()}
    split = decisions.Split.read(some, "test", documents["test"], labels[1:])
    lowest = some["test_margin"].min()
    for one, result in zip(split.margins, results["test"], strict=True):
        assert np.isclose(one, result.margins, atol=0.01).sum() >= (one != lowest).sum() and one.min() == lowest
    assert 0 < split.kept < 1
