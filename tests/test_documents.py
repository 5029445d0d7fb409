"""The check of documents: everything that the published files contain passes, everything else is named exactly."""

import ast
import copy
import doctest
import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import SHARED, requires_shared

from modeling_comm import documents
from modeling_comm.documents import DocumentError, entity_name, validate_document


def make_document():
    def mention(name, sent_id, start, end, kind):
        return {"name": name, "sent_id": sent_id, "pos": [start, end], "type": kind}

    return {
        "title": "Ada Quill",
        "sents": [["Ada", "Quill", "was", "born", "in", "Port", "Venn", "."], ["She", "left", "Port", "Venn", "."]],
        "vertexSet": [
            [mention("Ada Quill", 0, 0, 2, "PER")],
            [mention("Port Venn", 0, 5, 7, "LOC"), mention("Port Venn", 1, 2, 4, "LOC")],
        ],
        "labels": [{"h": 0, "t": 1, "r": "P19", "evidence": [0]}],
    }


@requires_shared
@pytest.mark.parametrize(
    "name",
    [
        "redocred-mini/train_revised.json",
        "redocred-mini/dev_revised.json",
        "redocred-mini/test_revised.json",
        "redocred-mini/test_blind.json",
        "docred-mini/train_annotated.json",
        "docred-mini/test.json",
    ],
)
def test_accepts_every_published_document(name):
    relations = set(json.loads((SHARED / "data" / "meta" / "rel2id.json").read_text(encoding="utf-8")))
    for index, document in enumerate(json.loads((SHARED / "data" / name).read_text(encoding="utf-8"))):
        validate_document(document, index=index, source=name, relations=relations)


ABSENT = object()


def put(document, path, value):
    *way, last = path
    for step in way:
        document = document[step]
    if value is ABSENT:
        del document[last]
    else:
        document[last] = value


ACCEPTED = {
    "nothing unusual": [],
    "fields beyond DocRED's": [(("id",), 1), (("vertexSet", 0, 0, "global_pos"), [0, 1]), (("labels", 0, "in"), "x")],
    "no labels": [(("labels",), None)],
    "nothing related": [(("labels",), [])],
    "no evidence": [(("labels", 0, "evidence"), None)],
    "tokens of white space": [(("sents", 0, 2), "\xa0"), (("sents", 0, 3), " ")],
    "an empty sentence": [(("sents",), [*make_document()["sents"], []])],
    "no entities": [(("vertexSet",), []), (("labels",), [])],
    "a name that differs from its tokens": [(("vertexSet", 0, 0, "name"), "1.\nAda Quill")],
    "an empty name": [(("vertexSet", 0, 0, "name"), "")],
    "a mention listed twice": [(("vertexSet", 0), make_document()["vertexSet"][0] * 2)],
    "tuples and NumPy integers": [(("vertexSet", 0, 0, "pos"), (np.int64(0), np.int64(2)))],
}


@pytest.mark.parametrize("changes", ACCEPTED.values(), ids=ACCEPTED)
def test_accepts_what_can_be_read(changes):
    document = make_document()
    for path, value in changes:
        put(document, path, value)
    before = copy.deepcopy(document)
    validate_document(document, relations={"P19"})
    assert document == before


FITS_AS_TOKENS = {"name": "Ada", "sent_id": 0, "pos": [0, 3], "type": "PER"}
# Where the document is changed, to what, the field that the error names, and words of what was found and expected.
REJECTED = [
    (("title",), ABSENT, "title", "no such field", "a title"),
    (("title",), 7, "title", "7", "a title"),
    (("title",), "  ", "title", "'  '", "not empty"),
    (("sents",), ABSENT, "sents", "no such field", "a list of sentences"),
    (("sents",), [], "sents", "[]", "at least one sentence"),
    (("sents", 1), "She left", "sents[1]", "'She left'", "a list of tokens"),
    (("sents", 1, 2), None, "sents[1][2]", "None", "a token"),
    (("vertexSet",), None, "vertexSet", "None", "a list of entities"),
    (("vertexSet", 0), [], "vertexSet[0]", "[]", "at least one mention"),
    (("vertexSet", 0), {"name": "Ada"}, "vertexSet[0]", "{'name': 'Ada'}", "a list of mentions"),
    (("vertexSet", 1, 1), "Ada", "vertexSet[1][1]", "'Ada'", "a mention"),
    (("vertexSet", 1, 1, "name"), ABSENT, "vertexSet[1][1].name", "no such field", "text"),
    (("vertexSet", 1, 1, "type"), None, "vertexSet[1][1].type", "None", "entity type"),
    (("vertexSet", 1, 1, "sent_id"), ABSENT, "vertexSet[1][1].sent_id", "no such field", "0 <= sent_id < 2"),
    (("vertexSet", 1, 1, "sent_id"), 2, "vertexSet[1][1].sent_id", "2", "0 <= sent_id < 2"),
    (("vertexSet", 1, 1, "sent_id"), -1, "vertexSet[1][1].sent_id", "-1", "0 <= sent_id < 2"),
    (("vertexSet", 1, 1, "sent_id"), True, "vertexSet[1][1].sent_id", "True", "an integer"),
    (("vertexSet", 1, 1, "sent_id"), 1.0, "vertexSet[1][1].sent_id", "1.0", "an integer"),
    (("vertexSet", 1, 1, "pos"), ABSENT, "vertexSet[1][1].pos", "no such field", "0 <= start < end <= 5"),
    (("vertexSet", 1, 1, "pos"), [2], "vertexSet[1][1].pos", "[2]", "0 <= start < end <= 5"),
    (("vertexSet", 1, 1, "pos"), [2, "4"], "vertexSet[1][1].pos", "[2, '4']", "0 <= start < end <= 5"),
    (("vertexSet", 1, 1, "pos"), [False, True], "vertexSet[1][1].pos", "[False, True]", "0 <= start < end <= 5"),
    (("vertexSet", 1, 1, "pos"), [2, 2], "vertexSet[1][1].pos", "[2, 2]", "0 <= start < end <= 5"),
    (("vertexSet", 1, 1, "pos"), [-1, 2], "vertexSet[1][1].pos", "[-1, 2]", "0 <= start < end <= 5"),
    (("vertexSet", 1, 1, "pos"), [4, 99], "vertexSet[1][1].pos", "[4, 99]", "of sentence 1"),
    (("vertexSet", 1, 1, "pos"), [9, 18], "vertexSet[1][1].pos", "[9, 18]", "look like character offsets"),
    (("vertexSet", 0, 0), FITS_AS_TOKENS, "vertexSet[0][0].pos", "[0, 3]", "look like character offsets"),
    (("labels",), {}, "labels", "{}", "a list of labels"),
    (("labels", 0), [0, 1, "P19"], "labels[0]", "[0, 1, 'P19']", "a fact"),
    (("labels", 0, "h"), ABSENT, "labels[0].h", "no such field", "0 <= h < 2"),
    (("labels", 0, "h"), 2, "labels[0].h", "2", "0 <= h < 2"),
    (("labels", 0, "t"), True, "labels[0].t", "True", "0 <= t < 2"),
    (("labels", 0, "t"), 0, "labels[0].t", "0", "other than h"),
    (("labels", 0, "r"), 19, "labels[0].r", "19", "a relation"),
    (("labels", 0, "r"), " ", "labels[0].r", "' '", "not empty"),
    (("labels", 0, "r"), "P\ud800", "labels[0].r", "'P\\ud800'", "lone surrogates"),
    (("title",), "\udfff", "title", "'\\udfff'", "lone surrogates"),
    (("sents", 0), ["a", "\ud800"], "sents[0]", "'a \\ud800'", "lone surrogates"),
    (("vertexSet", 0, 0, "name"), "\ud800", "vertexSet[0][0].name", "'\\ud800'", "lone surrogates"),
    (("labels", 0, "r"), "P9999", "labels[0].r", "'P9999'", "one of the 2 known relations (P17, P19"),
    (("labels", 0, "evidence"), 0, "labels[0].evidence", "0", "a list of sentence indices"),
    (("labels", 0, "evidence"), [0, 2], "labels[0].evidence[1]", "2", "0 <= index < 2"),
    (("labels", 0, "evidence"), [True], "labels[0].evidence[0]", "True", "an integer"),
]


def test_what_a_score_does_not_read_may_be_left_out():
    document = make_document()
    for path in (("sents",), ("vertexSet", 0, 0, "pos"), ("vertexSet", 0, 0, "type")):
        put(document, path, ABSENT)
    validate_document(document, require=())
    validate_document(document, require=("labels",))
    with pytest.raises(DocumentError) as caught:
        validate_document(document, require=("type",))
    assert caught.value.field == "vertexSet[0][0].type"


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        (("title",), "", "title"),
        (("labels",), ABSENT, "labels"),
        (("labels", 0, "r"), "", "labels[0].r"),
        (("labels", 0, "evidence"), [2], "labels[0].evidence[0]"),
        (("vertexSet", 0, 0, "sent_id"), -1, "vertexSet[0][0].sent_id"),
        (("vertexSet", 0, 0, "pos"), [0, 99], "vertexSet[0][0].pos"),
        (("vertexSet", 0, 0, "type"), None, "vertexSet[0][0].type"),
        (("sents",), [], "sents"),
    ],
)
def test_what_is_there_is_checked_whether_it_is_required_or_not(path, value, field):
    document = make_document()
    put(document, path, value)
    with pytest.raises(DocumentError) as caught:
        validate_document(document, require=("labels",))
    assert caught.value.field == field


@pytest.mark.parametrize(("path", "value", "field", "found", "expected"), REJECTED)
def test_names_what_is_wrong(path, value, field, found, expected):
    document = make_document()
    put(document, path, value)
    with pytest.raises(DocumentError) as caught:
        validate_document(document, index=3, source="train.json", relations={"P17", "P19"})
    error = caught.value
    title = document["title"] if isinstance(document.get("title"), str) else None
    assert (error.source, error.index, error.title, error.field) == ("train.json", 3, title, field)
    assert error.found == found
    assert expected in error.expected
    named = (
        f"train.json: document 3{'' if title is None else f' ({title!r})'}, field {field}: found {found}, expected "
    )
    assert str(error) == named + error.expected


@pytest.mark.parametrize("document", [None, [], "text", 3])
def test_rejects_what_is_no_object(document):
    with pytest.raises(DocumentError, match="document 0: found"):
        validate_document(document, index=0)


def test_any_relation_is_accepted_where_none_are_given():
    document = make_document()
    document["labels"][0]["r"] = "my:relation"
    validate_document(document)


def test_error_is_short_and_survives_pickling():
    document = make_document() | {"vertexSet": "x" * 10_000}
    with pytest.raises(DocumentError) as caught:
        validate_document(document)
    assert len(str(caught.value)) < 250
    assert str(caught.value).startswith("document ('Ada Quill'), field vertexSet: found 'xxx")
    copied = pickle.loads(pickle.dumps(caught.value))
    assert str(copied) == str(caught.value)
    assert vars(copied) == vars(caught.value)


def test_an_entity_has_the_name_of_its_first_mention():
    document = make_document()
    assert [entity_name(document, entity) for entity in (0, 1)] == ["Ada Quill", "Port Venn"]


def test_needs_the_standard_library_alone():
    """It travels with a checkpoint's code."""
    tree = ast.parse(Path(documents.__file__).read_text(encoding="utf-8"))
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert {module.split(".")[0] for module in modules} <= sys.stdlib_module_names


def test_examples():
    assert doctest.testmod(documents).failed == 0
