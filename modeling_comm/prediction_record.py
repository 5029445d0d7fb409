"""The record of a prediction: what the pipeline returns for a document and `comm-docre predict` writes. Its reference is
`docs/record.md`."""

import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, Literal, NotRequired, TypedDict

from .documents import DocumentChecker

RECORD_VERSION = 1
_LIST = (list, tuple)


class RecordMention(TypedDict):
    """A mention of an entity; its text is `record["text"][start:end]`.

    Attributes:
        start, end (`int`): characters `[start, end)` of the document's text.
        sentence (`int`): index of the sentence that it is in.
    """

    start: int
    end: int
    sentence: int


class RecordEntity(TypedDict):
    """An entity.

    Attributes:
        name (`str`): its name.
        type (`str`): its type, such as `"PER"`.
        mentions (`list[RecordMention]`): where it is mentioned.
        ids (`list[str]`, *optional*): its ids in a knowledge base.
    """

    name: str
    type: str
    mentions: list[RecordMention]
    ids: NotRequired[list[str]]


class RecordExplanation(TypedDict):
    """A sentence that the attention of a triple's pair rests on.

    Attributes:
        sentence (`int`): index of the sentence.
        weight (`float`): its share of the attention on all sentences; those of a document add up to 1.
    """

    sentence: int
    weight: float


class RecordDerivation(TypedDict):
    """The reason of a triple that follows from others.

    Attributes:
        rule (`str`): the rule, such as `"P131(x, y) & P17(y, z) => P17(x, z)"`.
        premises (`list[list[int | str]]`): `[head, tail, relation]` of the other triples, in the order of the rule's
            conditions. A selection may have left them out of the record.
    """

    rule: str
    premises: list[list[int | str]]


class PredictedTriple(TypedDict):
    """The part of a predicted triple that all its forms have.

    Attributes:
        head, tail (`int`): indices of the entities.
        relation (`str`): the data set's id of the relation, such as `"P17"`.
        relation_name (`str`): its readable name, or else the id.
        score (`float`): the probability, where there is one; else the sigmoid of the margin over the threshold, which is not
            calibrated.
    """

    head: int
    tail: int
    relation: str
    relation_name: str
    score: float


class RecordTriple(PredictedTriple):
    """A [`PredictedTriple`] in a record.

    Attributes:
        explanation (`list[RecordExplanation]`): heaviest first; empty if none was asked for, or the pair has no common
            context.
        probability (`float`, *optional*): of the triple, from a map that was fitted on labelled documents.
        derived (`RecordDerivation`, *optional*): the triple follows from others by a rule. Its score and probability are the
            model's own, which did not suffice. Or it is the other direction of a symmetric or inverse relation, shown because
            that was asked for; its score, probability, explanation and evidence are then those of its premise.
        evidence (`list[int]`, *optional*): indices of the sentences that prove the triple, by a model trained on evidence.
        symmetric (`bool`, *optional*): true for a relation that holds in both directions or in none, as the model's candidate
            pairs say: head and tail could change places.
    """

    explanation: list[RecordExplanation]
    probability: NotRequired[float]
    derived: NotRequired[RecordDerivation]
    evidence: NotRequired[list[int]]
    symmetric: NotRequired[bool]


class PredictionRecord(TypedDict):
    """The prediction for a document.

    Attributes:
        version (`int`): version of this form, [`RECORD_VERSION`].
        id (`str` or `int`, *optional*): what `comm-docre predict` calls the document.
        title (`str`): its title; empty if it has none.
        text (`str`): its text.
        sentences (`list[list[int]]`): `[start, end]` of each sentence in the text, the end exclusive, in order.
        entities (`list[RecordEntity]`): its entities.
        triples (`list[RecordTriple]`): the triples, which point to entities and sentences by index.
        lost (`dict[str, int]`): counts of what could not be read or was cut; empty if nothing.
    """

    version: int
    id: NotRequired[str | int]
    title: str
    text: str
    sentences: list[list[int]]
    entities: list[RecordEntity]
    triples: list[RecordTriple]
    lost: dict[str, int]


def marked_sentences(triple: RecordTriple) -> list[int]:
    """The sentences to show for a triple: its predicted evidence, or else those of its explanation, heaviest first."""
    return list(triple.get("evidence") or [one["sentence"] for one in triple["explanation"]])


def marked_by(triple: RecordTriple) -> Literal["evidence", "attention"] | None:
    """What the sentences of [`marked_sentences`] are: predicted evidence, or the explanation, which is the pair's attention; None
    if there are none."""
    return "evidence" if triple.get("evidence") else "attention" if triple["explanation"] else None


def parse_record(record: Any, index: int | None = None, source: str | None = None) -> PredictionRecord:
    """
    Checks a record that was read, such as a line of `comm-docre predict`. Fields beyond those of [`PredictionRecord`] are
    allowed.

    Args:
        record (`Any`): the JSON value.
        index (`int`, *optional*): the record's position, for the message.
        source (`str`, *optional*): where it comes from, for the message.

    Returns:
        `PredictionRecord`: the same object.

    Raises:
        DocumentError: the first thing that is wrong. Its `field` is `"version"` for a record of another version.
    """
    checker = _RecordChecker(record, index, source)
    checker.check(
        record, Mapping, None, "a record: an object with version, title, text, sentences, entities, triples, lost"
    )
    checker.check_version(record)
    checker.check(record.get("id", ""), (str, Integral), "id", "a text or an integer")
    checker.read(record, "title", str, "", "a title, empty if there is none")
    text = checker.read(record, "text", str, "", "the document's text")
    sentences = checker.read(record, "sentences", _LIST, "", "a list of character spans")
    entities = checker.read(record, "entities", _LIST, "", "a list of entities")
    triples = checker.read(record, "triples", _LIST, "", "a list of triples")
    lost = checker.read(record, "lost", Mapping, "", "an object of counts, empty if nothing was lost")
    checker.check_sentences(sentences, len(text))
    for number, entity in enumerate(entities):
        checker.check_entity(entity, f"entities[{number}]", len(text), len(sentences))
    for number, triple in enumerate(triples):
        checker.check_triple(triple, f"triples[{number}]", len(entities), len(sentences))
    for name in lost:
        checker.read(lost, name, Integral, "lost.", "a count")
    return record


class _RecordChecker(DocumentChecker):
    def check_version(self, record):
        expected = f"{RECORD_VERSION}; predict again what an earlier version of this library wrote"
        if self.read(record, "version", Integral, "", expected) != RECORD_VERSION:
            self.fail("version", record["version"], expected)

    def check_sentences(self, sentences, length):
        last = 0
        for number, span in enumerate(sentences):
            field = f"sentences[{number}]"
            expected = f"a span [start, end), {last} <= start <= end <= {length}, after the sentence before"
            self.check(span, _LIST, field, expected)
            whole = all(isinstance(offset, Integral) and not isinstance(offset, bool) for offset in span)
            if len(span) != 2 or not whole or not last <= span[0] <= span[1] <= length:
                self.fail(field, span, expected)
            last = span[1]

    def check_entity(self, entity, field, length, sentences):
        self.check(entity, Mapping, field, "an entity: an object with name, type and mentions")
        path = f"{field}."
        self.read(entity, "name", str, path, "the entity's name")
        self.read(entity, "type", str, path, "an entity type such as 'PER'")
        for number, mention in enumerate(self.read(entity, "mentions", _LIST, path, "a list of mentions")):
            self._check_mention(mention, f"{path}mentions[{number}]", length, sentences)
        if "ids" in entity:
            expected = "a list of ids (texts), or no such field"
            for number, identifier in enumerate(self.read(entity, "ids", _LIST, path, expected)):
                self.check(identifier, str, f"{path}ids[{number}]", expected)

    def _check_mention(self, mention, field, length, sentences):
        self.check(mention, Mapping, field, "a mention: an object with start, end and sentence")
        path = f"{field}."
        start = self.read(mention, "start", Integral, path, "an offset in the text")
        end = self.read(mention, "end", Integral, path, "an offset in the text")
        if not 0 <= start <= end <= length:  # a mention of one empty token has no characters
            self.fail(field, [start, end], f"character offsets [start, end), 0 <= start <= end <= {length}")
        self.read_index(mention, "sentence", sentences, path, "a sentence")

    def check_triple(self, triple, field, entities, sentences):
        self.check(triple, Mapping, field, "a triple: an object with head, tail, relation and score")
        path = f"{field}."
        for end in ("head", "tail"):
            self.read_index(triple, end, entities, path, "an entity")
        self.read(triple, "relation", str, path, "a relation such as 'P17'")
        self.read(triple, "relation_name", str, path, "a relation's name such as 'country'")
        self._check_number(triple, "score", path, 1)
        expected = "a list of sentences with weights"
        for number, sentence in enumerate(self.read(triple, "explanation", _LIST, path, expected)):
            self._check_explanation(sentence, f"{path}explanation[{number}]", sentences)
        if "probability" in triple:
            self._check_number(triple, "probability", path, 1)
        if not isinstance(triple.get("symmetric", False), bool):
            self.fail(f"{path}symmetric", triple["symmetric"], "true or false, or no such field")
        if "derived" in triple:
            self._check_derivation(triple["derived"], f"{path}derived", entities)
        if "evidence" in triple:
            expected = f"a list of sentence indices (integers, 0 <= index < {sentences}), or no such field"
            for number, sentence in enumerate(self.read(triple, "evidence", _LIST, path, expected)):
                if not 0 <= self.check(sentence, Integral, f"{path}evidence[{number}]", expected) < sentences:
                    self.fail(f"{path}evidence[{number}]", sentence, expected)

    def _check_derivation(self, derived, field, entities):
        self.check(derived, Mapping, field, "an object with rule and premises, or no such field")
        path = f"{field}."
        self.read(derived, "rule", str, path, "a rule such as 'P17(x, y) => P131(x, y)'")
        expected = "a list of triples [head, tail, relation]"
        for number, premise in enumerate(self.read(derived, "premises", _LIST, path, expected)):
            field = f"{path}premises[{number}]"
            self.check(premise, _LIST, field, expected)
            *ends, relation = premise if len(premise) == 3 else (None, None, None)
            fits = [isinstance(end, Integral) and not isinstance(end, bool) and 0 <= end < entities for end in ends]
            if not (all(fits) and isinstance(relation, str)):
                self.fail(field, premise, f"[head, tail, relation] with entities from 0 to {entities - 1}")

    def _check_explanation(self, sentence, field, sentences):
        self.check(sentence, Mapping, field, "an object with sentence and weight")
        self.read_index(sentence, "sentence", sentences, f"{field}.", "a sentence")
        self._check_number(sentence, "weight", f"{field}.", math.inf)

    def _check_number(self, record, name, path, largest):
        expected = f"a number from 0 to {largest}" if largest < math.inf else "a finite number, 0 or more"
        number = self.read(record, name, Real, path, expected)
        if not (math.isfinite(number) and 0 <= number <= largest):
            self.fail(f"{path}{name}", number, expected)
