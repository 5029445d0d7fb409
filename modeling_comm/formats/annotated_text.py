"""A text with what was annotated in it, as most formats have it, and the document in DocRED's format that it becomes."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..documents import Document, DocumentError, shown
from ..text_to_document import document_from_text
from .import_report import ImportReport

# What sources write for a mention whose entity is in no list of entities.
_NO_ID = frozenset(("", "-", "-1"))


@dataclass(frozen=True)
class AnnotatedMention:
    """
    A mention.

    Attributes:
        start, end (`int`): its characters `[start, end)`.
        type (`str`, *optional*): its entity's type.
        ids (`tuple[str, ...]`): its entities. Mentions with the same id are of one entity; one with several ids is of all these.
        text (`str`, *optional*): what the source says that stands there; it is checked.
        field (`str`): where it is in the source, for messages, such as `"line 12"`.
    """

    start: int
    end: int
    type: str | None
    ids: tuple[str, ...]
    text: str | None = None
    field: str = "mentions"


@dataclass(frozen=True)
class AnnotatedFact:
    """
    A relation between two entities.

    Attributes:
        head, tail (`str`): ids of the entities.
        relation (`str`): its label.
        attributes (`dict`): further fields of the label, such as `{"novelty": "Novel"}`.
        field (`str`): where it is in the source, for messages.
    """

    head: str
    tail: str
    relation: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    field: str = "relations"


@dataclass(frozen=True)
class AnnotatedText:
    """
    A document of a source.

    Attributes:
        title (`str`): what it is called; each document has its own.
        text (`str`): the text.
        mentions (`list[AnnotatedMention]`): in any order.
        facts (`list[AnnotatedFact]`, *optional*): None where nobody looked for relations.
        ignored_pairs (`list[tuple[str, str]]`): ids of heads and tails that are neither trained nor scored.
        linked (`bool`, defaults to `False`): whether ids are those of a knowledge base; the document then has `entity_ids`.
        sentences (`list[tuple[int, int]]`, *optional*): characters of its sentences; they are split by rules by default.
    """

    title: str
    text: str
    mentions: Sequence[AnnotatedMention]
    facts: Sequence[AnnotatedFact] | None = None
    ignored_pairs: Sequence[tuple[str, str]] = ()
    linked: bool = False
    sentences: Sequence[tuple[int, int]] | None = None


def read_each(
    items: Iterable, parse: Callable[[int, Any], AnnotatedText | Document | None]
) -> Iterator[AnnotatedText | Document | DocumentError]:
    """What `parse` makes of the index and the item, without None; the error where an item cannot be read, as the next one can."""
    for index, item in enumerate(items):
        try:
            found = parse(index, item)
        except DocumentError as error:
            yield error
            continue
        if found is not None:
            yield found


def document_of_text(
    annotated: AnnotatedText, report: ImportReport, *, index: int | None = None, source: str | None = None
) -> Document:
    """
    The document in DocRED's format. Its entities are in the order of their first mention. Dropped and counted are mentions
    without an id, a mention of an entity that is listed twice, facts and ignored pairs of an entity that has no mention, and
    mentions that do not fit, if the report says so. Types that become others are noted.

    Args:
        annotated ([`AnnotatedText`]): the text.
        report ([`ImportReport`]): is told what is dropped.
        index (`int`, *optional*), source (`str`, *optional*): where it is from, for messages.

    Raises:
        DocumentError: offsets are not those of the mention's text, do not fit into the text, or have only white space there.
    """
    entities: dict[str, dict[tuple[int, int], AnnotatedMention]] = {}
    fitting = []
    for mention in annotated.mentions:
        with report.reading_mention():
            check_offsets(annotated, mention, index, source)
            fitting.append(mention)
    for mention in sorted(fitting, key=lambda mention: (mention.start, mention.end)):
        ids = [name for name in dict.fromkeys(mention.ids) if name not in _NO_ID]
        if not ids:
            report.drop("mentions without an id")
        for name in ids:
            spans = entities.setdefault(name, {})
            if (mention.start, mention.end) in spans:
                report.drop("mentions that are listed twice")
            spans.setdefault((mention.start, mention.end), mention)
    numbers = {name: number for number, name in enumerate(entities)}
    entity_mentions = [
        [
            {"start": m.start, "end": m.end, "type": m.type, "text": annotated.text[m.start : m.end]}
            for m in mentions.values()
        ]
        for mentions in entities.values()
    ]
    document = document_from_text(
        annotated.text,
        [{"mentions": mentions} for mentions in entity_mentions],
        annotated.title,
        None if annotated.sentences is None else lambda text: annotated.sentences,
        index=index,
        source=source,
    ).document
    given = (mention.type for mentions in entities.values() for mention in mentions.values())
    for kind, read in zip(given, itertools.chain.from_iterable(document["vertexSet"]), strict=True):
        report.note_type(kind, read["type"])
    if annotated.linked:
        document["entity_ids"] = [[name] for name in entities]
    if annotated.facts is not None:
        document["labels"] = _labels(annotated, numbers, report, index, source)
    pairs = [[numbers[head], numbers[tail]] for head, tail in annotated.ignored_pairs if {head, tail} <= set(numbers)]
    report.drop("ignored pairs of an entity without a mention", len(annotated.ignored_pairs) - len(pairs))
    if pairs:
        document["ignored_pairs"] = pairs
    return document


def _labels(annotated, numbers, report, index, source):
    labels = []
    for fact in annotated.facts:
        if {fact.head, fact.tail} <= set(numbers):
            labels.append({"h": numbers[fact.head], "t": numbers[fact.tail], "r": fact.relation, **fact.attributes})
        else:
            missing = [name for name in (fact.head, fact.tail) if name not in numbers]
            report.drop_fact_without_mention(missing, source, index, annotated.title, fact.field)
    return labels


def check_offsets(annotated: Any, mention: AnnotatedMention, index: int | None, source: str | None) -> None:
    """Raises a `DocumentError` unless a mention of an annotated (or a marked) text is where it says."""

    def fail(expected):
        found = f"offsets [{mention.start}, {mention.end}], where the text is {shown(there)}"
        raise DocumentError(source, index, annotated.title, mention.field, found, expected)

    there = annotated.text[max(0, mention.start) : max(0, mention.end)]
    if not 0 <= mention.start < mention.end <= len(annotated.text):
        fail(f"character offsets 0 <= start < end <= {len(annotated.text)}")
    if not there.strip():
        fail("characters that are more than white space")
    if mention.text is not None and mention.text.split() != there.split():
        fail(f"the offsets of {mention.text!r}, the mention's text")
