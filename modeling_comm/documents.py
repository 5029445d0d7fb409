"""Documents in DocRED's format: the one check that everything which reads documents relies on."""

import re
from collections.abc import Collection, Mapping
from numbers import Integral
from typing import Any, ClassVar, NoReturn, NotRequired, TypedDict

# The fields that a model reads and a score does not; [`validate_document`] requires them unless it is told otherwise.
TEXT_FIELDS = ("sents", "pos", "type")
_LIST = (list, tuple)
_LONGEST_SHOWN = 100
# The entity types of DocRED's format, and the labels of CoNLL-2003's and OntoNotes' named entities that mean the same; a
# nationality has its country's type, LOC. It is for named-entity models, not for a data set, and a checkpoint carries it.
_FORMAT_TYPES = {
    "PER": ("PERSON",),
    "ORG": ("ORGANIZATION", "ORGANISATION"),
    "LOC": ("LOCATION", "GPE", "FAC", "NORP"),
    "TIME": ("DATE",),
    "NUM": ("CARDINAL", "MONEY", "ORDINAL", "PERCENT", "QUANTITY"),
    "MISC": ("EVENT", "LANGUAGE", "LAW", "PRODUCT", "WORK_OF_ART"),
}
_TYPE_OF_LABEL = {label: kind for kind, labels in _FORMAT_TYPES.items() for label in (kind, *labels)}
_SURROGATE = re.compile("[\ud800-\udfff]")


class Mention(TypedDict):
    """A mention of an entity.

    Attributes:
        name (`str`): its text.
        sent_id (`int`): index of the sentence that it is in.
        pos (`list[int]`): its words `[start, end)` in that sentence.
        type (`str`): the entity's type, such as `"PER"`.
    """

    name: str
    sent_id: int
    pos: list[int]
    type: str


class Fact(TypedDict):
    """A relation that holds between two entities of a document.

    Attributes:
        h, t (`int`): indices of head and tail; they differ.
        r (`str`): the relation's label, such as `"P17"`.
        evidence (`list[int]`, *optional*): indices of the sentences that prove it.
    """

    h: int
    t: int
    r: str
    evidence: NotRequired[list[int]]


class Document(TypedDict):
    """A document in DocRED's format, which [`validate_document`] checks.

    Attributes:
        title (`str`): its title.
        sents (`list[list[str]]`): its sentences, at least one, as words.
        vertexSet (`list[list[Mention]]`): its entities, each a list of at least one mention.
        untyped_entities (`list[int]`, *optional*): indices of the entities whose type nobody has given: their mentions have a
            stand-in.
        labels (`list[Fact]`, *optional*): the relations that hold. An unlabelled document has none or `None`; an empty list says
            that no relation holds.
        ignored_pairs (`list[list[int]]`, *optional*): `[head, tail]` of pairs that are neither trained nor predicted nor scored.
        entity_ids (`list[list[str]]`, *optional*): for each entity, its ids in a knowledge base, perhaps several or none.
    """

    title: str
    sents: list[list[str]]
    vertexSet: list[list[Mention]]
    untyped_entities: NotRequired[list[int] | None]
    labels: NotRequired[list[Fact] | None]
    ignored_pairs: NotRequired[list[list[int]] | None]
    entity_ids: NotRequired[list[list[str]] | None]


class OfficialPrediction(TypedDict):
    """A predicted fact in the leaderboards' format.

    Attributes:
        title (`str`): title of the document.
        h_idx, t_idx (`int`): indices of head and tail in its `vertexSet`.
        r (`str`): the relation's label, such as `"P17"`.
        evidence (`list[int]`, *optional*): indices of the sentences that prove it.
    """

    title: str
    h_idx: int
    t_idx: int
    r: str
    evidence: NotRequired[list[int]]


class DocumentError(ValueError):
    """
    A document is not in DocRED's format. All arguments are attributes, and the message has them all.

    Args:
        source (`str`, *optional*): the file that holds the document.
        index (`int`, *optional*): the document's position there, from 0.
        title (`str`, *optional*): its title, if it has one.
        field (`str`, *optional*): path of the wrong field, such as `"vertexSet[3][0].pos"`; nothing if the document is
            no object at all.
        found (`str`): the value found.
        expected (`str`): the value expected.
    """

    noun: ClassVar[str] = "document"

    def __init__(
        self, source: str | None, index: int | None, title: str | None, field: str | None, found: str, expected: str
    ):
        super().__init__(
            source, index, title, field, found, expected
        )  # as arguments, so that the error can be pickled
        self.source = source
        self.index = index
        self.title = title
        self.field = field
        self.found = found
        self.expected = expected

    def __str__(self) -> str:
        field = f", field {self.field}" if self.field else ""
        name = _name(self.noun, self.source, self.index, self.title)
        return f"{name}{field}: found {self.found}, expected {self.expected}"


def _name(noun, source, index, title):
    source = f"{source}: " if source else ""
    index = "" if index is None else f" {index}"
    title = "" if title is None else f" ({title!r})"
    return f"{source}{noun}{index}{title}"


class _Absent:
    def __repr__(self):
        return "no such field"


_ABSENT = _Absent()


def shown(value: Any) -> str:
    """A value for a message: as Python writes it, and only the beginning of what is long."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # a thousand brackets, a number of a million digits
        return f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}... ({type(value).__name__})"


class DocumentChecker:
    """Raises `error`, a [`DocumentError`], for the document that it was built for."""

    def __init__(
        self, document: Any, index: int | None, source: str | None, error: type[DocumentError] = DocumentError
    ):
        title = document.get("title") if isinstance(document, Mapping) else None
        self.where = (source, index, title if isinstance(title, str) else None)
        self.error = error
        self.name = _name(error.noun, *self.where)

    def fail(self, field: str | None, found: Any, expected: str, text: str = "") -> NoReturn:
        """`text` says more about what was found."""
        raise self.error(*self.where, field, f"{shown(found)}{text}", expected)

    def check(self, value: Any, kind: type | tuple[type, ...], field: str | None, expected: str) -> Any:
        # JSON's true and false are integers to Python.
        if not isinstance(value, kind) or isinstance(value, bool):
            self.fail(field, value, expected)
        return value

    def read(
        self, record: Mapping[str, Any], name: str, kind: type | tuple[type, ...], path: str, expected: str
    ) -> Any:
        return self.check(record.get(name, _ABSENT), kind, f"{path}{name}", expected)

    def check_text(self, text: str, field: str) -> str:
        # Half of a character: JSON has escapes for it, files in UTF-8 and tokenizers have none.
        if _SURROGATE.search(text):
            self.fail(field, text, "text that UTF-8 can hold, without lone surrogates")
        return text

    def read_text(self, record: Mapping[str, Any], name: str, path: str, expected: str) -> str:
        return self.check_text(self.read(record, name, str, path, expected), f"{path}{name}")

    def read_name(self, record: Mapping[str, Any], name: str, path: str, what: str) -> str:
        text = self.read_text(record, name, path, what)
        if not text.strip():
            self.fail(f"{path}{name}", text, f"{what} that is not empty")
        return text

    def check_index(self, index: Any, size: int | None, field: str, name: str, what: str) -> int:
        """`size` is None where it is not known how many there are."""
        limit = f"0 <= {name}" if size is None else f"0 <= {name} < {size}"
        expected = f"the index of {what} (an integer, {limit})"
        self.check(index, Integral, field, expected)
        if index < 0 or (size is not None and index >= size):
            self.fail(field, index, expected)
        return index

    def read_index(self, record: Mapping[str, Any], name: str, size: int | None, path: str, what: str) -> int:
        return self.check_index(record.get(name, _ABSENT), size, f"{path}{name}", name, what)

    def read_fact(
        self,
        record: Mapping[str, Any],
        field: str,
        entities: int | None = None,
        sentences: int | None = None,
        head: str = "h",
        tail: str = "t",
    ) -> tuple[tuple[int, int, str], set[int]]:
        """
        A fact: a label, or a prediction, whose entities have other names.

        Args:
            record (`dict`): the fact.
            field (`str`): its path in the document, for the message; empty where it is the document.
            entities, sentences (`int`, *optional*): how many the document has, if that is known.
            head, tail (`str`): the fields with the indices of the two entities.

        Returns:
            `(head, tail, relation)`, and the set of its evidence sentences, empty where the field is `None` or missing.
        """
        self.check(record, Mapping, field or None, f"a fact: an object with {head}, {tail} and r")
        path = f"{field}." if field else ""
        first = self.read_index(record, head, entities, path, "an entity")
        second = self.read_index(record, tail, entities, path, "an entity")
        if first == second:
            self.fail(f"{path}{tail}", second, f"an entity other than {head}")
        relation = self.read_name(record, "r", path, "a relation such as 'P17'")
        evidence = record.get("evidence")
        if evidence is not None:
            self.check(evidence, _LIST, f"{path}evidence", "a list of sentence indices")
            for number, sentence in enumerate(evidence):
                self.check_index(sentence, sentences, f"{path}evidence[{number}]", "index", "a sentence")
        return (int(first), int(second), relation), set(evidence or ())


def validate_document(
    document: Any,
    *,
    index: int | None = None,
    source: str | None = None,
    relations: Collection[str] | None = None,
    require: Collection[str] = TEXT_FIELDS,
    of_model: bool = False,
) -> None:
    """
    Checks one document; fields beyond those named here are allowed and ignored.

    Args:
        document (`Any`): what should be a [`Document`]. Empty sentences and words of white space are allowed: the published
            files have some.
        index (`int`, *optional*): the document's position, for the message.
        source (`str`, *optional*): where the document comes from, for the message.
        relations (`Collection[str]`, *optional*): the known relations. Any is accepted by default.
        require (`Collection[str]`, defaults to `("sents", "pos", "type")`): which of these fields and `"labels"` are required.
            Where a field is not required and there, it is checked all the same (`pos` only beside `sents`).
        of_model (`bool`, defaults to `False`): whether the known relations are a model's, for the message.

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
    checker.read_name(document, "title", "", "a title")
    sents = None
    if not {"sents", "pos"}.isdisjoint(require) or "sents" in document:
        sents = checker.read(document, "sents", _LIST, "", "a list of sentences, each a list of tokens")
        _check_sentences(checker, sents)
    entities = checker.read(document, "vertexSet", _LIST, "", "a list of entities, each a list of mentions")
    for number, mentions in enumerate(entities):
        checker.check(mentions, _LIST, f"vertexSet[{number}]", "a list of mentions")
        if not mentions:
            checker.fail(f"vertexSet[{number}]", mentions, "at least one mention")
        for position, mention in enumerate(mentions):
            _check_mention(checker, mention, f"vertexSet[{number}][{position}]", sents, require)
    _check_ids(checker, document, len(entities))
    _check_untyped(checker, document, len(entities))
    _check_ignored_pairs(checker, document, len(entities))
    if "labels" in require or document.get("labels") is not None:
        labels = checker.read(document, "labels", _LIST, "", "a list of labels, or no such field if unlabelled")
        sentences = None if sents is None else len(sents)
        for number, label in enumerate(labels):
            (_, _, relation), _ = checker.read_fact(label, f"labels[{number}]", len(entities), sentences)
            if relations is not None and relation not in relations:
                some = ", ".join(sorted(relations)[:3])
                expected = f"one of the {len(relations)} known relations ({some}, ...)"
                if of_model:  # the document may be right
                    further = "--ignore_mismatched_sizes trains a checkpoint further for the documents' relations"
                    expected = f"one of the {len(relations)} relations of the model ({some}, ...); {further}"
                checker.fail(f"labels[{number}].r", relation, expected)


def _check_ids(checker, document, entities):
    if document.get("entity_ids") is None:
        return
    expected = f"a list of ids (texts) for each of {entities} entities, or no such field"
    ids = checker.read(document, "entity_ids", _LIST, "", expected)
    if len(ids) != entities:
        checker.fail("entity_ids", ids, expected, f" of {len(ids)}")
    for number, of_entity in enumerate(ids):
        checker.check(of_entity, _LIST, f"entity_ids[{number}]", "a list of ids (texts), perhaps none")
        for place, identifier in enumerate(of_entity):
            field = f"entity_ids[{number}][{place}]"
            checker.check_text(checker.check(identifier, str, field, "an id (a text)"), field)


def _check_untyped(checker, document, entities):
    if document.get("untyped_entities") is None:
        return
    expected = f"the index of an entity (an integer, 0 <= index < {entities})"
    untyped = checker.read(document, "untyped_entities", _LIST, "", "a list of entities' indices, or no such field")
    for number, index in enumerate(untyped):
        if not isinstance(index, Integral) or isinstance(index, bool) or not 0 <= index < entities:
            checker.fail(f"untyped_entities[{number}]", index, expected)


def _check_ignored_pairs(checker, document, entities):
    if document.get("ignored_pairs") is None:
        return
    expected = f"[head, tail] of two different entities (integers, 0 <= index < {entities})"
    pairs = checker.read(document, "ignored_pairs", _LIST, "", "a list of pairs [head, tail], or no such field")
    for number, pair in enumerate(pairs):
        field = f"ignored_pairs[{number}]"
        ends = checker.check(pair, _LIST, field, expected)
        whole = all(isinstance(end, Integral) and not isinstance(end, bool) and 0 <= end < entities for end in ends)
        if len(ends) != 2 or not whole or ends[0] == ends[1]:
            checker.fail(field, pair, expected)


def _check_sentences(checker, sents):
    if not sents:
        checker.fail("sents", sents, "at least one sentence")
    for number, sentence in enumerate(sents):
        checker.check(sentence, _LIST, f"sents[{number}]", "a list of tokens")
        if not all(isinstance(token, str) for token in sentence):
            position = next(i for i, token in enumerate(sentence) if not isinstance(token, str))
            checker.fail(f"sents[{number}][{position}]", sentence[position], "a token (a text)")
        checker.check_text(" ".join(sentence), f"sents[{number}]")


def _check_mention(checker, mention, field, sents, require):
    checker.check(mention, Mapping, field, "a mention: an object with name, sent_id, pos and type")
    path = f"{field}."
    name = checker.read_text(mention, "name", path, "the mention's text")
    if "type" in require or "type" in mention:
        checker.read_text(mention, "type", path, "an entity type such as 'PER'")
    sent_id = checker.read_index(mention, "sent_id", None if sents is None else len(sents), path, "a sentence")
    if "pos" in require or (sents is not None and "pos" in mention):
        _check_position(checker, mention, path, name, sent_id, sents[sent_id])


def _check_position(checker, mention, path, name, sent_id, sentence):
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
    as_characters = 0 <= start < end <= len(text) and name and text[start:end] == name
    if as_characters:
        checker.fail(f"{path}pos", pos, f"{expected}; these look like character offsets")
    if not in_range:
        checker.fail(f"{path}pos", pos, expected)


def entity_name(document: Document, entity: int) -> str:
    """Name of an entity's first mention."""
    return document["vertexSet"][entity][0]["name"]


def docred_type(label: str) -> str:
    """DocRED's entity type for a named-entity label of CoNLL-2003 or OntoNotes, in any case; any other label is kept as it is."""
    return _TYPE_OF_LABEL.get(label.upper(), label)
