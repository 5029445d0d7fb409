"""The record of a prediction: what is accepted, which field is named otherwise, and that `docs/record.md` has every field."""

import copy
import json
import re

import pytest
from helpers import ROOT

from modeling_comm import prediction_record
from modeling_comm.documents import DocumentError
from modeling_comm.prediction_record import parse_record

REFERENCE = (ROOT / "docs" / "record.md").read_text(encoding="utf-8")


@pytest.fixture
def record():
    """The example of the reference, which has every field."""
    namespace = {}
    exec(re.search(r"(?s)```python\n(record = .*?)```", REFERENCE)[1], namespace)
    return namespace["record"]


def test_the_example_has_every_field_and_is_accepted(record):
    assert parse_record(record) is record
    assert parse_record(json.loads(json.dumps(record))) == record
    (triple,), entities = record["triples"], record["entities"]
    parts = {
        "PredictionRecord": record,
        "RecordEntity": entities[1],
        "RecordMention": entities[0]["mentions"][0],
        "RecordTriple": triple,
        "RecordExplanation": triple["explanation"][0],
    }
    for name, part in parts.items():
        assert part.keys() == getattr(prediction_record, name).__annotations__.keys(), name


@pytest.mark.parametrize(
    ("heading", "name"),
    [
        ("Document", "PredictionRecord"),
        ("Entity", "RecordEntity"),
        ("Mention", "RecordMention"),
        ("Triple", "RecordTriple"),
        ("Explanation", "RecordExplanation"),
    ],
)
def test_the_reference_has_every_field(heading, name):
    section = re.search(rf"(?s)\n## {heading}\n(.*?)(\n## |\Z)", REFERENCE)[1]
    rows = dict(re.findall(r"(?m)^\| `(\w+)` \| ([^|]*) \|", section))
    kind = getattr(prediction_record, name)
    assert rows.keys() == kind.__annotations__.keys()
    assert {field for field, type_ in rows.items() if "optional" in type_} == kind.__optional_keys__


def test_optional_fields_may_be_left_out(record):
    del record["id"], record["entities"][1]["ids"]
    del record["triples"][0]["probability"], record["triples"][0]["evidence"], record["triples"][0]["symmetric"]
    assert parse_record(record) is record
    assert parse_record({**record, "of_ones_own": 1})


BROKEN = {
    "version of an earlier record": (lambda r: r.pop("version"), "version"),
    "version of a later record": (lambda r: r.update(version=2), "version"),
    "version true": (lambda r: r.update(version=True), "version"),
    "id": (lambda r: r.update(id=[]), "id"),
    "title": (lambda r: r.pop("title"), "title"),
    "text": (lambda r: r.update(text=None), "text"),
    "no sentences": (lambda r: r.pop("sentences"), "sentences"),
    "sentence before the one before": (lambda r: r["sentences"][1].__setitem__(0, 5), "sentences[1]"),
    "sentence outside": (lambda r: r["sentences"][1].__setitem__(1, 53), "sentences[1]"),
    "name": (lambda r: r["entities"][0].update(name=3), "entities[0].name"),
    "ids": (lambda r: r["entities"][1].update(ids=["Q1", 2]), "entities[1].ids[1]"),
    "mention outside": (lambda r: r["entities"][0]["mentions"][0].update(end=99), "entities[0].mentions[0]"),
    "mention reversed": (lambda r: r["entities"][0]["mentions"][0].update(end=-1), "entities[0].mentions[0]"),
    "mention's sentence": (
        lambda r: r["entities"][0]["mentions"][1].update(sentence=2),
        "entities[0].mentions[1].sentence",
    ),
    "offset false": (lambda r: r["entities"][0]["mentions"][0].update(start=False), "entities[0].mentions[0].start"),
    "head outside": (lambda r: r["triples"][0].update(head=2), "triples[0].head"),
    "tail of the old form": (lambda r: r["triples"][0].update(tail={"entity": 1}), "triples[0].tail"),
    "score": (lambda r: r["triples"][0].update(score=1.2), "triples[0].score"),
    "score not a number": (lambda r: r["triples"][0].update(score=float("nan")), "triples[0].score"),
    "probability": (lambda r: r["triples"][0].update(probability=-0.1), "triples[0].probability"),
    "evidence": (lambda r: r["triples"][0].update(evidence=[0, 2]), "triples[0].evidence[1]"),
    "symmetric": (lambda r: r["triples"][0].update(symmetric="yes"), "triples[0].symmetric"),
    "explanation's sentence": (
        lambda r: r["triples"][0]["explanation"][1].update(sentence=2),
        "triples[0].explanation[1].sentence",
    ),
    "weight": (
        lambda r: r["triples"][0]["explanation"][0].update(weight=float("inf")),
        "triples[0].explanation[0].weight",
    ),
    "lost": (lambda r: r.update(lost={"lost_tokens": "many"}), "lost.lost_tokens"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_the_wrong_field_is_named(record, case):
    spoil, field = BROKEN[case]
    whole = copy.deepcopy(record)
    spoil(record)
    assert parse_record(whole)
    with pytest.raises(DocumentError) as error:
        parse_record(record, index=7, source="records.jsonl")
    assert (error.value.field, error.value.index, error.value.source) == (field, 7, "records.jsonl")


def test_what_is_no_object_is_refused():
    with pytest.raises(DocumentError) as error:
        parse_record("Oslo")
    assert error.value.field is None
