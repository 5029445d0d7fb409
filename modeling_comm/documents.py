"""Documents in DocRED's format: the one check that everything which reads documents relies on."""

import re
from collections.abc import Mapping
from numbers import Integral

_LIST = (list, tuple)
_LONGEST_SHOWN = 100
_SURROGATE = re.compile("[\ud800-\udfff]")


class DocumentError(ValueError):
    """
    A document is not in DocRED's format. All arguments are attributes, and the message has them all.

    Args:
        source (`str`, *optional*): the file that holds the document.
        index (`int`, *optional*): the document's position there, from 0.
        title (`str`, *optional*): its title, if it has one.
        field (`str`, *optional*): path of the wrong field, such as `"vertexSet[3][0].pos"`; nothing if the document is
            no object at all.
        found (`str`): what is there.
        expected (`str`): what should be there.
    """

    def __init__(self, source, index, title, field, found, expected):
        super().__init__(
            source, index, title, field, found, expected
        )  # as arguments, so that the error can be pickled
        self.source = source
        self.index = index
        self.title = title
        self.field = field
        self.found = found
        self.expected = expected

    def __str__(self):
        field = f", field {self.field}" if self.field else ""
        name = _document_name(self.source, self.index, self.title)
        return f"{name}{field}: found {self.found}, expected {self.expected}"


def _document_name(source, index, title):
    source = f"{source}: " if source else ""
    index = "" if index is None else f" {index}"
    title = "" if title is None else f" ({title!r})"
    return f"{source}document{index}{title}"


class _Absent:
    def __repr__(self):
        return "no such field"


_ABSENT = _Absent()


class DocumentChecker:
    """Raises [`DocumentError`] for the document that it was built for."""

    def __init__(self, document, index, source):
        title = document.get("title") if isinstance(document, Mapping) else None
        self.where = (source, index, title if isinstance(title, str) else None)
        self.name = _document_name(*self.where)

    def fail(self, field, found, expected, text=""):
        """`text` says more about what was found."""
        shown = repr(found)
        if len(shown) > _LONGEST_SHOWN:
            shown = f"{shown[:_LONGEST_SHOWN]}... ({type(found).__name__})"
        raise DocumentError(*self.where, field, f"{shown}{text}", expected)

    def check(self, value, kind, field, expected):
        # JSON's true and false are integers to Python.
        if not isinstance(value, kind) or isinstance(value, bool):
            self.fail(field, value, expected)
        return value

    def read(self, record, name, kind, path, expected):
        return self.check(record.get(name, _ABSENT), kind, f"{path}{name}", expected)

    def check_text(self, text, field):
        # Half of a character: JSON has escapes for it, files in UTF-8 and tokenizers have none.
        if _SURROGATE.search(text):
            self.fail(field, text, "text that UTF-8 can hold, without lone surrogates")
        return text

    def read_text(self, record, name, path, expected):
        return self.check_text(self.read(record, name, str, path, expected), f"{path}{name}")

    def read_index(self, record, name, size, path, what):
        expected = f"the index of {what} (an integer, 0 <= {name} < {size})"
        index = self.read(record, name, Integral, path, expected)
        if not 0 <= index < size:
            self.fail(f"{path}{name}", index, expected)
        return index


def validate_document(document, *, index=None, source=None, relations=None) -> None:
    """
    Checks one document; fields beyond those named here are allowed and not looked at.

    Args:
        document (`dict`): `title` (a text), `sents` (at least one list of tokens; empty ones and tokens of white space
            occur in the published files), `vertexSet` (entities as lists of at least one mention: `name`, `sent_id`,
            `pos` as token indices `[start, end)` of that sentence, `type`) and optionally `labels` (facts: entity
            indices `h != t`, relation `r` and optionally `evidence`, a list of sentence indices). A document without
            labels, or with `None`, is unlabelled; one with an empty list has no relation.
        index (`int`, *optional*): the document's position, for the message.
        source (`str`, *optional*): where the document comes from, for the message.
        relations (`Collection[str]`, *optional*): the known relations. Any is accepted by default.

    Raises:
        DocumentError: the first thing that is wrong.

    Example:

    ```python
    >>> from modeling_comm.documents import validate_document
    >>> validate_document({"title": "Oslo", "sents": []}, index=7)
    Traceback (most recent call last):
        ...
    modeling_comm.documents.DocumentError: document 7 ('Oslo'), field sents: found [], expected at least one sentence

    ```
    """
    checker = DocumentChecker(document, index, source)
    checker.check(document, Mapping, None, "an object with the fields title, sents and vertexSet")
    if not checker.read_text(document, "title", "", "a title").strip():
        checker.fail("title", document["title"], "a title that is not empty")
    sents = checker.read(document, "sents", _LIST, "", "a list of sentences, each a list of tokens")
    if not sents:
        checker.fail("sents", sents, "at least one sentence")
    for number, sentence in enumerate(sents):
        checker.check(sentence, _LIST, f"sents[{number}]", "a list of tokens")
        if not all(isinstance(token, str) for token in sentence):
            position = next(i for i, token in enumerate(sentence) if not isinstance(token, str))
            checker.fail(f"sents[{number}][{position}]", sentence[position], "a token (a text)")
        checker.check_text(" ".join(sentence), f"sents[{number}]")
    entities = checker.read(document, "vertexSet", _LIST, "", "a list of entities, each a list of mentions")
    for number, mentions in enumerate(entities):
        checker.check(mentions, _LIST, f"vertexSet[{number}]", "a list of mentions")
        if not mentions:
            checker.fail(f"vertexSet[{number}]", mentions, "at least one mention")
        for position, mention in enumerate(mentions):
            _check_mention(checker, mention, f"vertexSet[{number}][{position}]", sents)
    if document.get("labels") is not None:
        labels = checker.read(document, "labels", _LIST, "", "a list of labels, or no such field if unlabelled")
        for number, label in enumerate(labels):
            _check_label(checker, label, f"labels[{number}]", len(entities), len(sents), relations)


def _check_mention(checker, mention, field, sents):
    checker.check(mention, Mapping, field, "a mention: an object with name, sent_id, pos and type")
    path = f"{field}."
    name = checker.read_text(mention, "name", path, "the mention's text")
    checker.read_text(mention, "type", path, "an entity type such as 'PER'")
    sent_id = checker.read_index(mention, "sent_id", len(sents), path, "a sentence")
    sentence = sents[sent_id]
    expected = f"token indices [start, end), 0 <= start < end <= {len(sentence)}, of sentence {sent_id}"
    pos = checker.read(mention, "pos", _LIST, path, expected)
    if len(pos) != 2 or not all(isinstance(i, Integral) and not isinstance(i, bool) for i in pos):
        checker.fail(f"{path}pos", pos, expected)
    start, end = pos
    in_range = 0 <= start < end <= len(sentence)
    if in_range and " ".join(sentence[start:end]) == name:
        return
    # Character offsets often fit as token indices too, and would then mark the wrong words without a word of warning.
    text = " ".join(sentence)
    as_characters = 0 <= start < end <= len(text) and (not in_range or (name and text[start:end] == name))
    if as_characters:
        checker.fail(f"{path}pos", pos, f"{expected}; these look like character offsets")
    if not in_range:
        checker.fail(f"{path}pos", pos, expected)


def _check_label(checker, label, field, entities, sentences, relations):
    checker.check(label, Mapping, field, "a label: an object with h, t and r")
    path = f"{field}."
    head = checker.read_index(label, "h", entities, path, "an entity")
    if checker.read_index(label, "t", entities, path, "an entity") == head:
        checker.fail(f"{path}t", head, "an entity other than h")
    relation = checker.read_text(label, "r", path, "a relation such as 'P17'")
    if relations is not None and relation not in relations:
        some = ", ".join(sorted(relations)[:3])
        checker.fail(f"{path}r", relation, f"one of the {len(relations)} known relations ({some}, ...)")
    if label.get("evidence") is not None:
        expected = f"a list of sentence indices (integers, 0 <= index < {sentences})"
        evidence = checker.read(label, "evidence", _LIST, path, expected)
        for number, sentence in enumerate(evidence):
            if not 0 <= checker.check(sentence, Integral, f"{path}evidence[{number}]", expected) < sentences:
                checker.fail(f"{path}evidence[{number}]", sentence, expected)


def entity_name(document, entity) -> str:
    """Name of an entity's first mention."""
    return document["vertexSet"][entity][0]["name"]


def relation_ids(documents) -> list[str]:
    """Sorted relations that occur in the labels of documents; unlabelled ones have none."""
    return sorted({label["r"] for document in documents for label in document.get("labels") or []})
