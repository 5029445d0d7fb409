"""Errors by relation: false positives, false negatives, and the sentences to read."""

import csv
import io
import json

import pytest
from helpers import LABELS, random_document

import comm_docre
from modeling_comm.candidate_pairs import CandidatePairs
from modeling_comm.evaluation.relation_errors import COLUMNS, error_rows, relation_errors, write_errors
from modeling_comm.evaluation.scoring import score

SENTS = [["Ada", "lived", "in", "Oslo", "."], ["It", "rained", "."], ["Norway", "was", "far", "."], ["Oslo", "Norway"]]


def mention(name, sent_id, start, kind):
    return {"name": name, "sent_id": sent_id, "pos": [start, start + 1], "type": kind}


DOCUMENT = {
    "title": "A",
    "sents": SENTS,
    "vertexSet": [
        [mention("Ada", 0, 0, "PER")],
        [mention("Oslo", 0, 3, "LOC"), mention("Oslo", 3, 0, "LOC")],
        [mention("Norway", 2, 0, "LOC"), mention("Norway", 3, 1, "LOC")],
    ],
    "labels": [
        {"h": 0, "t": 1, "r": "P551", "evidence": [1]},
        {"h": 1, "t": 2, "r": "P17"},
        {"h": 0, "t": 2, "r": "P27", "evidence": []},
    ],
}
PREDICTIONS = [
    {"title": "A", "h_idx": 1, "t_idx": 2, "r": "P17"},
    {"title": "A", "h_idx": 0, "t_idx": 1, "r": "P19"},
    {"title": "A", "h_idx": 0, "t_idx": 1, "r": "P19", "evidence": [2]},  # repeats it
    {"title": "A", "h_idx": 2, "t_idx": 1, "r": "P36", "evidence": [2]},
    {"title": "Z", "h_idx": 0, "t_idx": 1, "r": "P17"},
]
NAMES = {"P19": "place of birth", "P551": "residence"}


def test_errors_by_hand():
    errors = {one["relation"]: one for one in relation_errors(PREDICTIONS, [DOCUMENT], NAMES)}
    assert errors.keys() == {"P17", "P19", "P27", "P36", "P551"}
    assert (
        errors["P17"]["false_positives"] == errors["P17"]["false_negatives"] == []
    )  # no such document is no sentence
    (wrong,), (missed,) = errors["P19"]["false_positives"], errors["P551"]["false_negatives"]
    assert wrong == {
        "document": "A",
        "h_idx": 0,
        "t_idx": 1,
        "head": "Ada",
        "head_type": "PER",
        "tail": "Oslo",
        "tail_type": "LOC",
        "other_relations": ["residence"],  # confused
        "sentences": ["Ada lived in Oslo ."],  # mentions both
    }
    assert missed["other_relations"] == ["place of birth"] and missed["sentences"] == [
        "It rained ."
    ]  # labelled evidence
    (apart,) = errors["P27"]["false_negatives"]
    assert apart["sentences"] == ["Ada lived in Oslo .", "Norway was far ."] and apart["other_relations"] == []
    assert errors["P36"]["false_positives"][0]["sentences"] == ["Norway was far ."]  # predicted evidence
    assert errors["P19"]["relation_name"] == "place of birth" and errors["P27"]["relation_name"] == "P27"


def test_other_relations_of_the_same_pair():
    """A symmetric one is of both directions, and an inverse one of the other."""
    candidates = CandidatePairs(symmetric=["P26"], inverse={"P40": "P22"})

    def others(predicted, labelled):
        facts = [{"title": "A", "h_idx": predicted[0], "t_idx": predicted[1], "r": predicted[2]}]
        labels = [dict(zip(("h", "t", "r"), labelled, strict=True))]
        errors = relation_errors(facts, [{**DOCUMENT, "labels": labels}], candidates=candidates)
        kinds = ("false_positives", "false_negatives")
        return {one["relation"]: [e["other_relations"] for kind in kinds for e in one[kind]] for one in errors}

    assert others((1, 0, "P1"), (1, 0, "P26")) == {"P1": [["P26"]], "P26": [["P1"]]}
    assert others((1, 0, "P1"), (0, 1, "P26")) == {"P1": [["P26"]], "P26": [["P1"]]}
    assert others((1, 0, "P1"), (1, 0, "P40"))["P1"] == [["P40"]]
    assert others((0, 1, "P1"), (1, 0, "P1")) == {"P1": [[], []]}


def test_counts_are_those_of_the_scorer():
    documents = [random_document(5, 40, seed=seed) for seed in range(6)]
    other = [random_document(5, 40, seed=seed, title=f"Document {seed - 50}") for seed in range(50, 56)]
    predictions = [
        {"title": document["title"], "h_idx": fact["h"], "t_idx": fact["t"], "r": fact["r"]}
        for document in (*documents, *other)
        for fact in document["labels"][::2]
    ]
    scores = score(predictions, documents)["per_relation"]
    errors = relation_errors(predictions, documents)
    assert {one["relation"] for one in errors} == scores.keys() <= set(LABELS.values())
    for one in errors:
        counts = scores[one["relation"]]
        assert {key: one[key] for key in counts} == counts
        assert len(one["false_positives"]) == counts["predictions"] - counts["correct"]
        assert len(one["false_negatives"]) == counts["gold"] - counts["correct"]
    numbers = [len(one["false_positives"]) + len(one["false_negatives"]) for one in errors]
    assert numbers == sorted(numbers, reverse=True) and sum(numbers)


@pytest.mark.parametrize("ending", ["csv", "json"])
def test_files_of_the_command(tmp_path, capsys, ending):
    for name, content in (("truth", [DOCUMENT]), ("predictions", PREDICTIONS), ("rel_info", NAMES)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    path = tmp_path / "errors" / f"errors.{ending}"
    files = [f"--{name}={tmp_path / name}.json" for name in ("predictions", "truth")]
    assert comm_docre.main(["evaluate", *files, "--errors", str(path)]) == 0
    expected = relation_errors(PREDICTIONS, [DOCUMENT], NAMES)
    if ending == "json":
        assert json.loads(path.read_text(encoding="utf-8")) == expected
    else:
        rows = list(csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")))
        assert rows == list(error_rows(expected)) and tuple(rows[0]) == COLUMNS
        assert ["false positive", "P19", "place of birth", "A", "Ada", "PER", "Oslo", "LOC", "residence"] in [
            list(row.values())[:9] for row in rows
        ]
    assert comm_docre.main(["evaluate", *files, "--errors", str(tmp_path / "errors.txt")]) == 2
    assert "errors.txt" in capsys.readouterr().err
    assert comm_docre.main(["evaluate", *files, "--errors", str(tmp_path / "truth.json")]) == 2


def test_documents_without_text(tmp_path):
    bare = {key: value for key, value in DOCUMENT.items() if key != "sents"}
    bare["vertexSet"] = [[{"name": "Ada", "sent_id": 0}], *bare["vertexSet"][1:]]
    errors = relation_errors(PREDICTIONS, [bare])
    assert {tuple(entry["sentences"]) for one in errors for entry in one["false_negatives"]} == {()}
    write_errors(tmp_path / "errors.csv", errors)
    with pytest.raises(ValueError):
        write_errors(tmp_path / "errors.xlsx", errors)
