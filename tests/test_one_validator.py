"""Whatever reads documents refuses the same, and what one command writes the next one reads."""

import copy
import json
import math
import os
from collections import Counter

import pytest
from helpers import random_document, save_backbone

import comm_docre
from dataset_scripts.builder import load_splits, to_document
from dataset_scripts.provenance import read_provenance
from modeling_comm.data.bad_parts import drop_bad_parts
from modeling_comm.documents import DocumentError, validate_document
from modeling_comm.evaluation.scoring import PredictionError, score
from modeling_comm.prediction_record import parse_record
from modeling_comm.utils.files import read_json, write_json


def documents(number):
    return [random_document(5, 30, seed=seed, title=f"Title {seed}") for seed in range(number)]


def run(*words):
    return comm_docre.main([str(word) for word in words])


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("vertexSet[0][0].sent_id", lambda document: document["vertexSet"][0][0].update(sent_id=-1)),
        ("labels[0].evidence[0]", lambda document: document["labels"][0].update(evidence=[3])),
        ("labels[0].r", lambda document: document["labels"][0].update(r=" ")),
        ("title", lambda document: document.update(title="")),
    ],
)
def test_the_scorer_refuses_what_the_validator_refuses(field, change):
    document = documents(1)[0]
    change(document)
    found = []
    for check in (validate_document, lambda document: score([], [document])):
        with pytest.raises(DocumentError) as refused:
            check(document)
        found.append((refused.value.field, refused.value.found, refused.value.expected))
    assert found[0] == found[1] and found[0][0] == field


@pytest.mark.parametrize(("field", "value"), [("title", ""), ("r", ""), ("h_idx", -1), ("evidence", [-1])])
def test_the_scorer_refuses_wrong_predictions(field, value):
    with pytest.raises(PredictionError) as refused:
        score([{"title": "Title 0", "h_idx": 0, "t_idx": 1, "r": "P17", field: value}], documents(1))
    assert refused.value.field.startswith(field)


def test_view_shows_what_predict_wrote(model, tmp_path):
    """A mention of one empty token has no characters."""
    given = documents(1)
    given[0]["sents"][0][0] = ""
    given[0]["vertexSet"] = [
        [{"name": "", "sent_id": 0, "pos": [0, 1], "type": "PER"}],
        *documents(1)[0]["vertexSet"][1:],
    ]
    given[0]["vertexSet"] = [
        [mention for mention in mentions if number == 0 or mention["sent_id"]]
        for number, mentions in enumerate(given[0]["vertexSet"])
    ]
    given[0]["vertexSet"] = [mentions for mentions in given[0]["vertexSet"] if mentions]
    del given[0]["labels"]
    validate_document(given[0])
    (tmp_path / "in.jsonl").write_text(json.dumps(given[0]))
    words = [
        "--model",
        model,
        "--input",
        tmp_path / "in.jsonl",
        "--format",
        "docred",
        "--output",
        tmp_path / "out.jsonl",
    ]
    assert run("predict", *words) == 0
    record = json.loads((tmp_path / "out.jsonl").read_text())
    (mention,) = record["entities"][0]["mentions"]
    assert mention["start"] == mention["end"]
    parse_record(record)
    assert run("view", "--input", tmp_path / "out.jsonl", "--output", tmp_path / "page.html") == 0
    assert "Title 0" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize("labels", ["text", [3], [{"h": 0, "t": 0, "r": "P17"}], [{"h": 0, "t": 1, "r": "unknown"}]])
def test_predict_does_not_look_at_labels(model, tmp_path, labels):
    outputs = []
    for number, given in enumerate(({**documents(1)[0], "labels": labels}, documents(1)[0])):
        source, output = tmp_path / f"{number}.json", tmp_path / f"{number}.jsonl"
        write_json(source, [given])
        assert run("predict", "--model", model, "--input", source, "--format", "docred", "--output", output) == 0
        outputs.append(output.read_bytes())
    assert outputs[0] == outputs[1]


def test_empty_lines_are_skipped_by_all(model, tmp_path):
    write_json(tmp_path / "truth.json", documents(2))
    lines = "".join(f"\n{json.dumps(document)}\n \n" for document in documents(2))
    (tmp_path / "in.jsonl").write_text(lines)
    output = tmp_path / "out.jsonl"
    words = ["--model", model, "--input", tmp_path / "in.jsonl", "--format", "docred", "--output", output]
    assert run("predict", *words) == 0
    gaps = tmp_path / "gaps.jsonl"
    gaps.write_text("\n" + output.read_text().replace("\n", "\n\n"))
    for name in (output, gaps):
        scores, page = tmp_path / f"{name.name}.json", tmp_path / f"{name.name}.html"
        assert run("evaluate", "--predictions", name, "--truth", tmp_path / "truth.json", "--output", scores) == 0
        assert run("view", "--input", name, "--output", page, "--title", "A") == 0
    assert (tmp_path / "out.jsonl.json").read_bytes() == (tmp_path / "gaps.jsonl.json").read_bytes()
    assert (tmp_path / "out.jsonl.html").read_bytes() == (tmp_path / "gaps.jsonl.html").read_bytes()


# ---------------------------------------------------------------------------------------------------- parts left out


def spoil(document):
    """The document with one wrong mention, one entity without a mention and two wrong facts; and what is right of it."""
    right = {**document, "labels": [{"h": 0, "t": 2, "r": "P17"}, {"h": 2, "t": 3, "r": "P131", "evidence": [0]}]}
    wrong = copy.deepcopy(right)
    wrong["vertexSet"].insert(1, [])
    wrong["vertexSet"][3].append({"name": "", "sent_id": 0, "pos": [2, 2], "type": "PER"})
    new = [0, 2, 3, 4, 5]
    wrong["labels"] = [{**fact, "h": new[fact["h"]], "t": new[fact["t"]]} for fact in right["labels"]]
    wrong["labels"].insert(1, {"h": 0, "t": 0, "r": "P17"})
    wrong["labels"].insert(0, {"h": 1, "t": 2, "r": "P17"})
    wrong["ignored_pairs"], right["ignored_pairs"] = [[0, 2], [1, 2], [5, 0]], [[0, 1], [4, 0]]
    wrong["untyped_entities"], right["untyped_entities"] = [0, 1, 5], [0, 4]
    return wrong, right


def test_parts_that_do_not_fit_are_left_out():
    wrong, right = spoil(documents(1)[0])
    before = copy.deepcopy(wrong)
    assert drop_bad_parts(wrong) == (right, Counter(mentions=1, entities=1, facts=2, ignored_pairs=1))
    assert wrong == before
    assert drop_bad_parts(right) == (right, Counter())
    with pytest.raises(DocumentError) as refused:
        drop_bad_parts(wrong, keep_entities=True)
    assert refused.value.field == "vertexSet[1]"
    with pytest.raises(DocumentError) as refused:
        drop_bad_parts({**wrong, "sents": []}, index=7)
    assert (refused.value.field, refused.value.index) == ("sents", 7)
    unknown, dropped = drop_bad_parts(right, relations={"P131"})
    assert unknown["labels"] == right["labels"][1:] and dropped == Counter(facts=1)


def test_parts_are_left_out_of_a_data_set_and_counted(tmp_path, caplog):
    pairs = [spoil(document) for document in documents(3)]
    for name in ("train", "test"):
        write_json(tmp_path / f"{name}.json", [*(wrong for wrong, _ in pairs), {"title": ""}, *documents(1)])
    files = {name: str(tmp_path / f"{name}.json") for name in ("train", "test")}
    with caplog.at_level("WARNING"):
        loaded = load_splits("local", data_files=files, on_bad_document="drop_part", cache_dir=str(tmp_path / "cache"))
    found = list(map(to_document, loaded["train"]))
    assert [document["vertexSet"] for document in found[:3]] == [right["vertexSet"] for _, right in pairs]
    assert [document["labels"] for document in found[:3]] == [right["labels"] for _, right in pairs]
    provenance = read_provenance(loaded)
    assert provenance["train"]["dropped"] == {
        **{"mentions": 3, "entities": 3, "facts": 6, "ignored_pairs": 3},
        "documents": 3,
    }
    assert [skipped["index"] for skipped in provenance["train"]["skipped"]] == [3]
    # Predictions name the entities of a test document by their numbers.
    assert "dropped" not in provenance["test"]
    assert [skipped["index"] for skipped in provenance["test"]["skipped"]] == [0, 1, 2, 3]
    assert "left out 3 mentions, 3 entities, 6 facts, 3 ignored pairs of 3 documents" in caplog.text


def test_entities_of_test_documents_in_a_format_of_their_own_keep_their_numbers(tmp_path):
    wrong, right = spoil(documents(1)[0])
    write_json(tmp_path / "wrong.json", [wrong, right])
    files = {split: str(tmp_path / "wrong.json") for split in ("train", "test")}
    loaded = load_splits("dwie", data_files=files, on_bad_document="drop_part", cache_dir=str(tmp_path / "cache"))
    entities = {split: [to_document(row)["vertexSet"] for row in rows] for split, rows in loaded.items()}
    assert entities == {"train": [right["vertexSet"]] * 2, "test": [right["vertexSet"]]}
    provenance = read_provenance(loaded)
    assert provenance["train"]["left_out"]["entities that do not fit"] == 1
    assert [skipped["field"] for skipped in provenance["test"]["skipped"]] == ["vertexSet[1]"]


def test_parts_that_a_stream_leaves_out_are_said(tmp_path, caplog):
    pairs = [spoil(document) for document in documents(3)]
    write_json(tmp_path / "train.json", [wrong for wrong, _ in pairs])
    files = {"train": str(tmp_path / "train.json")}
    stream = load_splits("local", data_files=files, on_bad_document="drop_part", streaming=True)["train"]
    assert len(list(stream)) == 3
    assert caplog.messages == [
        f"{files['train']}: left out 3 mentions, 3 entities, 6 facts, 3 ignored pairs of 3 documents"
    ]
    caplog.clear()
    assert len(list(stream.take(1))) == 1
    assert "left out" in caplog.text, "also of a pass that ends early"
    caplog.clear()
    lines = ["1|t|Aspirin heals", "1|a|Pain.", "1\t0\t7\tAspirin\tChemical\tD1", "1\tCID\tD1\tD1", "", ""]
    (tmp_path / "train.pubtator").write_text("\n".join(lines), encoding="utf-8")
    files = {"train": str(tmp_path / "train.pubtator")}
    assert len(list(load_splits("local", data_files=files, streaming=True)["train"])) == 1
    assert caplog.messages == [f"{files['train']}: left out facts of an entity with itself (1)"]


# ------------------------------------------------------------------------------------------ names that are not UTF-8


@pytest.mark.skipif(os.name == "nt" or os.uname().sysname == "Darwin", reason="file systems with names in UTF-8 only")
def test_names_of_files_that_are_not_utf_8(commands, model, tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    write_json(folder / "train.json", documents(2))
    (folder / "in.jsonl").write_text("".join(json.dumps(document) + "\n" for document in documents(2)))
    predict = ["comm-docre", "predict", "--input", folder / "in.jsonl", "--format", "jsonl", "--output"]
    evaluate = ["comm-docre", "evaluate", "--predictions", folder / "out.jsonl", "--truth", folder / "train.json"]
    train = ["run_docre.py", "--use_cpu", "--train_file", folder / "train.json", "--test_file", folder / "train.json"]
    train += ["--cache_dir", tmp_path / "cache", "--model_name_or_path", save_backbone(tmp_path / "encoder")]
    train += ["--emb_size", "16", "--block_size", "4", "--report_to", "none", "--max_steps", "1"]
    for finished in commands(
        [*predict, folder / "out.jsonl", "--model", model],
        ["comm-docre", "view", "--input", folder / "out.jsonl", "--output", folder / "page.html"],
        [*evaluate, "--output", folder / "scores.json"],
        [*train, "--do_train", "--do_predict", "--output_dir", tmp_path / "run"],
        ["comm-docre", "card", "--run", tmp_path / "run", "--output", folder / "card.md"],
    ):
        assert finished.status == 0, finished.err[-2000:]
    assert read_json(tmp_path / "run" / "run.json")["data"]["files"]["train"]["source"] == str(folder / "train.json")
    # Weights and tokenizers are opened by libraries that take UTF-8 only.
    for finished in commands(
        [*predict, tmp_path / "other.jsonl", "--model", folder],
        [*train, "--do_train", "--output_dir", folder / "run"],
    ):
        (line,) = (line for line in finished.err.splitlines() if line.startswith("error: "))
        assert finished.status == 2 and "caf\\udce9" in line and "UTF-8" in line and "Traceback" not in finished.err


# ------------------------------------------------------------------------------------------ what annotators have not said


def test_an_id_that_a_table_leaves_empty_is_none_given(model, tmp_path):
    lines = [{"text": "Oslo is in Norway.", "mentions": [[0, 4], [11, 17]], "id": value} for value in (math.nan, 7)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = [
        "--model",
        model,
        "--format",
        "jsonl",
        "--input",
        tmp_path / "in.jsonl",
        "--output",
        tmp_path / "out.jsonl",
    ]
    assert run("predict", *words) == 0
    assert [json.loads(line)["id"] for line in (tmp_path / "out.jsonl").read_text().splitlines()] == ["#1", 7]


def test_what_an_annotator_did_not_accept_is_left_out_and_counted(model, tmp_path, capsys):
    line = {"text": "Oslo is in Norway.", "spans": [{"start": 0, "end": 4, "label": "LOC"}]}
    answers = ["accept", "reject", None, "ignore", "reject"]
    lines = [{**line, "answer": answer, "id": number} for number, answer in enumerate(answers)]
    lines.append({"text": "Oslo is in Norway.", "mentions": [[0, 4]], "answer": "reject", "id": 5})  # one's own field
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = [
        "--model",
        model,
        "--format",
        "jsonl",
        "--input",
        tmp_path / "in.jsonl",
        "--output",
        tmp_path / "out.jsonl",
    ]
    for batch_size in (1, 4):
        assert run("predict", *words, "--batch_size", batch_size, "--restart") == 0
        records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
        assert [record["id"] for record in records] == [0, 2, 5]
        assert "documents 3, triples" in (said := capsys.readouterr().err)
        assert "not accepted by their annotator 3" in said


# -------------------------------------------------------------------------------------------- what predict has written


def test_predictions_without_a_triple_come_with_what_helps(model, tmp_path, capsys):
    write_json(tmp_path / "in.json", documents(3))
    words = [
        "--model",
        model,
        "--format",
        "docred",
        "--input",
        tmp_path / "in.json",
        "--output",
        tmp_path / "out.jsonl",
    ]
    assert run("predict", *words, "--threshold_offset", 1000) == 0
    said = capsys.readouterr().err
    assert "no triple clears the model's threshold in 3 documents" in said and "--threshold_offset" in said
    for flags in (["--threshold_offset", -1000], ["--threshold_offset", -1000, "--min_score", 0.9999999]):
        assert run("predict", *words, *flags, "--restart") == 0
        assert "no triple" not in capsys.readouterr().err


def test_files_of_predict_that_other_commands_cannot_read(model, tmp_path, capsys):
    write_json(tmp_path / "in.json", documents(2))
    (tmp_path / "none.json").write_text("[]")
    words = ["predict", "--model", model, "--format", "docred", "--input"]
    assert run(*words, tmp_path / "in.json", "--output", tmp_path / "out.csv") == 0
    assert run(*words, tmp_path / "none.json", "--output", tmp_path / "none.csv") == 0
    assert run(*words, tmp_path / "none.json", "--output", tmp_path / "none.jsonl") == 0
    evaluate, view = (
        ["evaluate", "--truth", tmp_path / "in.json", "--predictions"],
        ["view", "--output", tmp_path / "p"],
    )
    for name, expected in (("out.csv", "CSV"), ("none.csv", "CSV"), ("none.jsonl", "found nothing")):
        capsys.readouterr()
        assert run(*evaluate, tmp_path / name) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert name in line and expected in line
        status = run(*view, "--input", tmp_path / name)
        said = capsys.readouterr().err
        assert name in said and (status, expected == "CSV") in ((2, True), (0, False))
        assert ("CSV" if status else "has no record in it") in said


def test_scores_of_a_selection_are_called_that(model, tmp_path, capsys):
    write_json(tmp_path / "in.json", documents(2))
    words = [
        "--model",
        model,
        "--format",
        "docred",
        "--input",
        tmp_path / "in.json",
        "--output",
        tmp_path / "out.jsonl",
    ]
    for flags, is_selected in (([], False), (["--top_k", 1], True)):
        assert run("predict", *words, "--threshold_offset", -100, *flags, "--restart") == 0
        capsys.readouterr()
        assert run("evaluate", "--truth", tmp_path / "in.json", "--predictions", tmp_path / "out.jsonl") == 0
        assert ("--min_score or --top_k left out" in capsys.readouterr().err) == is_selected
