"""The kinds of change that the fuzzer makes to a document, a prediction or a file. Each says what has to come of it: that is
the oracle, which knows nothing of the validator."""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

LONE = "\ud800"


class Kind(NamedTuple):
    """A kind of change.

    Attributes:
        name (`str`): what is changed and how.
        change (`Callable`): changes a document in place; draws numbers by its second argument, `draw(limit)`.
        field (`str`, *optional*): the field that is wrong afterwards, without numbers; None for a document that is still right.
        read_by (`frozenset[str]`): what reads the field: `"text"` (what encodes or predicts), `"labels"`, `"scorer"`.
    """

    name: str
    change: Callable
    field: str | None
    read_by: frozenset


def nested(depth=3000):
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def _put(path, value):
    """A change that puts a value at a path: names, numbers, or `None` for a number that is drawn."""

    def change(document, draw):
        place, *rest = document, *path
        for step in rest[:-1]:
            place = place[draw(len(place)) if step is None else step]
        last = draw(len(place)) if rest[-1] is None else rest[-1]
        place[last] = value(place, document) if callable(value) else copy.deepcopy(value)

    return change


def _delete(path):
    def change(document, draw):
        place, *rest = document, *path
        for step in rest[:-1]:
            place = place[draw(len(place)) if step is None else step]
        del place[rest[-1]]

    return change


def _sentence(mention, document):
    return document["sents"][mention["sent_id"]]


_TEXT, _LABELS, _ALL = frozenset({"text"}), frozenset({"labels", "scorer"}), frozenset({"text", "labels", "scorer"})
_MENTION, _FACT = ("vertexSet", None, None), ("labels", None)
_NO_TEXT = {
    "missing": _delete,
    "None": None,
    "a number": 3,
    "a list": [],
    "an object": {},
    "half a character": f"a{LONE}",
}


def _wrong(name, field, read_by, *path, values):
    for how, value in values.items():
        change = value(path) if value is _delete else _put(path, value)
        yield Kind(f"{name}: {how}", change, field, read_by)


WRONG = [
    *_wrong(
        "title",
        "title",
        _ALL,
        "title",
        values={**_NO_TEXT, "empty": "", "blank": " \t", "nested deep": lambda *_: nested()},
    ),
    *_wrong("sents", "sents", _TEXT, "sents", values={"missing": _delete}),
    *_wrong("sents", "sents", _ALL, "sents", values={"None": None, "a text": "Oslo", "empty": [], "an object": {}}),
    *_wrong("sentence", "sents[]", _ALL, "sents", None, values={"a text": "Oslo", "None": None, "a number": 1}),
    *_wrong(
        "token",
        "sents[][]",
        _ALL,
        "sents",
        None,
        None,
        values={"a number": 7, "None": None, "nested deep": lambda *_: nested()},
    ),
    *_wrong("token", "sents[]", _ALL, "sents", None, None, values={"half a character": LONE}),
    *_wrong("vertexSet", "vertexSet", _ALL, "vertexSet", values={"missing": _delete, "None": None, "an object": {}}),
    *_wrong("entity", "vertexSet[]", _ALL, "vertexSet", None, values={"empty": [], "an object": {}, "None": None}),
    *_wrong("mention", "vertexSet[][]", _ALL, *_MENTION, values={"a text": "Oslo", "a list": [], "None": None}),
    *_wrong("name", "vertexSet[][].name", _ALL, *_MENTION, "name", values=_NO_TEXT),
    *_wrong("type", "vertexSet[][].type", _TEXT, *_MENTION, "type", values={"missing": _delete}),
    *_wrong("type", "vertexSet[][].type", _ALL, *_MENTION, "type", values={"None": None, "a number": 3}),
    *_wrong(
        *("sent_id", "vertexSet[][].sent_id", _ALL, *_MENTION, "sent_id"),
        values={
            **{"missing": _delete, "negative": -1, "a text": "0", "a fraction": 0.5, "true": True, "huge": 10**30},
            "one too many": lambda mention, document: len(document["sents"]),
        },
    ),
    *_wrong("pos", "vertexSet[][].pos", _TEXT, *_MENTION, "pos", values={"missing": _delete}),
    *_wrong(
        *("pos", "vertexSet[][].pos", _ALL, *_MENTION, "pos"),
        values={
            **{"None": None, "a number": 0, "empty": [], "texts": ["0", "1"], "fractions": [0.0, 1.0]},
            **{"booleans": [False, True], "negative": [-1, 1], "of no word": [1, 1], "three numbers": [0, 1, 2]},
            "reversed": lambda mention, document: mention["pos"][::-1],
            "one too many": lambda mention, document: [0, len(_sentence(mention, document)) + 1],
        },
    ),
    *_wrong("labels", "labels", _LABELS, "labels", values={"a text": "P17", "an object": {}, "a number": 3}),
    *_wrong("fact", "labels[]", _LABELS, *_FACT, values={"a list": [0, 1, "P17"], "None": None}),
    *_wrong(
        *("head", "labels[].h", _LABELS, *_FACT, "h"),
        values={
            **{"missing": _delete, "negative": -1, "a text": "0", "a fraction": 1.0, "true": True},
            "one too many": lambda fact, document: len(document["vertexSet"]),
        },
    ),
    *_wrong(
        *("tail", "labels[].t", _LABELS, *_FACT, "t"),
        values={"missing": _delete, "huge": 10**30, "the head": lambda fact, document: fact["h"]},
    ),
    *_wrong("relation", "labels[].r", _LABELS, *_FACT, "r", values={**_NO_TEXT, "empty": "", "blank": " "}),
    *_wrong("relation", "labels[].r", frozenset({"labels"}), *_FACT, "r", values={"unknown": "P99999", "Na": "Na"}),
    *_wrong("evidence", "labels[].evidence", _LABELS, *_FACT, "evidence", values={"a number": 0, "a text": "0"}),
    *_wrong(
        *("evidence", "labels[].evidence[]", _LABELS, *_FACT, "evidence"),
        values={
            **{"negative": [-1], "a fraction": [0.5], "true": [True], "a list": [[0]]},
            "one too many": lambda fact, document: [len(document["sents"])],
        },
    ),
]


def _right(name, change):
    return Kind(name, change, None, frozenset())


def _used_tokens(document):
    return {
        (mention["sent_id"], position)
        for mentions in document["vertexSet"]
        for mention in mentions
        for position in range(*mention["pos"])
    }


def _free_tokens(value):
    """Puts a value at every second token that no mention has."""

    def change(document, draw):
        used, first = _used_tokens(document), draw(2)
        for number, sentence in enumerate(document["sents"]):
            for position in range(first, len(sentence), 2):
                if (number, position) not in used:
                    sentence[position] = value
        document["sents"].append([value])

    return change


def _keep_entities(number):
    def change(document, draw):
        document["vertexSet"] = document["vertexSet"][:number]
        document["labels"] = [fact for fact in document["labels"] if max(fact["h"], fact["t"]) < number]

    return change


def _many_entities(document, draw):
    document["vertexSet"] = [copy.deepcopy(document["vertexSet"][draw(4)]) for _ in range(12)]


def _more_mentions(document, draw):
    document["vertexSet"][draw(4)] *= 5


def _longer_mention(document, draw):
    mention = document["vertexSet"][draw(4)][0]
    mention["pos"] = [0, len(_sentence(mention, document))]
    mention["name"] = " ".join(_sentence(mention, document))


def _repeat_facts(document, draw):
    document["labels"] *= 3


RIGHT = [
    _right("fields of no meaning", _put(("x",), {"a": [1]})),
    _right("a field of no meaning in a mention", _put((*_MENTION, "global_pos"), [5, 6])),
    _right("labels: missing", _delete(("labels",))),
    _right("labels: None", _put(("labels",), None)),
    _right("labels: empty", _put(("labels",), [])),
    _right("evidence: missing", _delete((*_FACT, "evidence"))),
    _right("evidence: None", _put((*_FACT, "evidence"), None)),
    _right("evidence: repeated", _put((*_FACT, "evidence"), [0, 0, 1])),
    _right("facts repeated", _repeat_facts),
    _right("no entity", _keep_entities(0)),
    _right("one entity", _keep_entities(1)),
    _right("many entities in the same place", _many_entities),
    _right("mentions repeated", _more_mentions),
    _right("a mention of a whole sentence", _longer_mention),
    _right("type: empty", _put((*_MENTION, "type"), "")),
    _right("type: another", _put((*_MENTION, "type"), "ACTINIDE")),
    _right("an empty sentence", lambda document, draw: document["sents"].append([])),
    *(
        _right(f"tokens: {name}", _free_tokens(value))
        for name, value in {
            **{"empty": "", "white space": " \t", "a line break": "\n", "no-break space": "\xa0", "zero": "\0"},
            **{
                "an accent alone": "\u0301",
                "right to left": "\u202eשלום",
                "emoji": "👩‍👩‍👧",
                "a mark of bytes": "\ufeff",
            },
            **{"special tokens": "[SEP]", "a marker": "*", "long": "Donaudampfschiff" * 40, "HTML": "</script><!--"},
        }.items()
    ),
]
KINDS = [*WRONG, *RIGHT]
assert len({kind.name for kind in KINDS}) == len(KINDS)

# ------------------------------------------------------------------------------------------------------- predictions

_EVIDENCE = {"a number": 0, "negative": [-1], "a fraction": [0.5], "true": [True]}
WRONG_PREDICTIONS = [
    *_wrong("title", "title", _ALL, "title", values={**_NO_TEXT, "empty": ""}),
    *_wrong("h_idx", "h_idx", _ALL, "h_idx", values={"missing": _delete, "negative": -1, "a text": "0", "true": True}),
    *_wrong("t_idx", "t_idx", _ALL, "t_idx", values={"missing": _delete, "huge": 10**30, "a fraction": 1.0}),
    *_wrong("t_idx", "t_idx", _ALL, "t_idx", values={"the head": lambda fact, _: fact["h_idx"]}),
    *_wrong("r", "r", _ALL, "r", values={**_NO_TEXT, "empty": "", "blank": " "}),
    *_wrong("evidence", "evidence", _ALL, "evidence", values=_EVIDENCE),
]
