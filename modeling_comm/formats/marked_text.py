"""A text as annotation tools have it: spans, links between spans. Relations of this library are between entities; here is how the
one becomes the other."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..documents import Document, DocumentError, shown
from ..mentions import group_mentions
from ..settings import SettingError
from .annotated_text import AnnotatedFact, AnnotatedMention, AnnotatedText, check_offsets
from .import_report import ImportReport
from .original_documents import OriginalDocuments, annotate_original, spans_that_fit

# What relations that link mentions of one entity are called, in any case, unless `--coreference_relation` says otherwise.
COREFERENCE_RELATIONS = ("coreference", "coref")
# In lines and tasks of annotation tools: the relation that links mentions of one entity. Exports write it, and it comes back; it
# says so where there is no such link, too.
COREFERENCE_FIELD = "coreference_relation"
# How mentions become entities.
ENTITY_WAYS = ("auto", "links", "names", "both")


@dataclass(frozen=True)
class MarkedSpan:
    """
    A span that is marked as a mention.

    Attributes:
        id (`str`): what links call it.
        start, end (`int`): its characters `[start, end)`.
        type (`str`, *optional*): its label.
        field (`str`): where it is in the source, for messages.
    """

    id: str
    start: int
    end: int
    type: str | None
    field: str = "mentions"


class SpansByPlace:
    """Spans that are known by their place, as Prodigy's and spaCy's are: a place has one, with the first label it is given."""

    def __init__(self) -> None:
        self._spans: dict[tuple[int, int], MarkedSpan] = {}
        self._labels: dict[tuple[int, int], set[str]] = {}

    def add(self, start: int, end: int, label: str | None, field: str) -> str:
        """Adds a span, unless its place has one with a label; returns the span's id."""
        place, name = (start, end), f"{start} {end}"
        if place not in self._spans or not self._labels[place]:
            self._spans[place] = MarkedSpan(name, start, end, label, field)
        self._labels.setdefault(place, set()).update([label] if label else [])
        return name

    def __contains__(self, place: tuple[int, int]) -> bool:
        return place in self._spans

    def spans(self, report: ImportReport) -> list[MarkedSpan]:
        """All of them, in the order of their first mention; further labels are counted."""
        report.drop("further labels of a mention", sum(max(0, len(labels) - 1) for labels in self._labels.values()))
        return list(self._spans.values())


@dataclass(frozen=True)
class Link:
    """
    A relation between two spans.

    Attributes:
        head, tail (`str`): ids of the spans.
        relation (`str`): its label.
        field (`str`): where it is in the source, for messages.
    """

    head: str
    tail: str
    relation: str
    field: str = "relations"


@dataclass(frozen=True)
class MarkedText:
    """
    A text with marked spans.

    Attributes:
        title (`str`): what it is called.
        text (`str`): the text.
        spans (`list[MarkedSpan]`): in any order.
        links (`list[Link]`): relations between spans.
        chains (`list[tuple[str, ...]]`): ids of spans that mention the same entity; a span may be in several.
        sentences (`list[tuple[int, int]]`, *optional*): characters of its sentences, where these are known.
    """

    title: str
    text: str
    spans: Sequence[MarkedSpan]
    links: Sequence[Link] = ()
    chains: Sequence[tuple[str, ...]] = ()
    sentences: Sequence[tuple[int, int]] | None = None


@dataclass(frozen=True)
class MarkedTextOptions:
    """
    How exports of annotation tools are read.

    Attributes:
        coreference_relation (`str`, *optional*): the relation that links mentions of one entity; `coreference` or `coref`, in
            any case, by default.
        entities (`str`, defaults to `"auto"`): `"links"`: mentions that are linked are one entity, any other is one alone;
            `"names"`: mentions are grouped by their names, see [`~modeling_comm.mentions.group_mentions`]; `"both"`: either makes
            them one; `"auto"`: `"links"` if any document of the export has one, else `"names"`.
        offset_unit (`str`, *optional*): `"characters"` or `"utf16"`; what the tool counts by default.
        text_field (`str`, defaults to `"text"`): the field of the text, where tools let users choose.
        original (`OriginalDocuments`, *optional*): the documents that were annotated, whose tokens, sentences, evidence and other
            fields are kept.
        relation_ids (`dict[str, str]`): ids of relations by the readable names that people saw in the tool;
            [`~reading.read_documents`] fills it.
    """

    coreference_relation: str | None = None
    entities: str = "auto"
    offset_unit: str | None = None
    text_field: str = "text"
    original: OriginalDocuments | None = field(default=None, repr=False)
    relation_ids: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.entities not in ENTITY_WAYS:
            raise SettingError("MarkedTextOptions", "entities", self.entities, f"one of {', '.join(ENTITY_WAYS)}")

    def for_relation(self, relation: str | None) -> "MarkedTextOptions":
        """The same for a document which says what its relation of coreference is called."""
        if relation is None or self.coreference_relation is not None:
            return self
        return replace(self, coreference_relation=relation)

    def is_coreference(self, relation: str) -> bool:
        """Whether a relation links mentions of one entity."""
        if self.coreference_relation is not None:
            return relation == self.coreference_relation
        return relation.lower() in COREFERENCE_RELATIONS


def span_id(value: Any) -> str:
    """What links call a span; empty, which no link means, where the source gives it no id."""
    return "" if value is None else str(value)


def list_or_empty(value: Any) -> list:
    """A list, and an empty one for anything else: what looks for links leaves it to the reader to say what is wrong."""
    return value if isinstance(value, list) else []


def finish_marked_text(
    marked: MarkedText, report: ImportReport, options: MarkedTextOptions, index: int | None, source: str | None
) -> AnnotatedText | Document:
    """
    A marked text with its entities: a relation between two spans becomes a fact of their entities.

    Args:
        marked ([`MarkedText`]): the text. Its links of coreference are among its links, or in its chains.
        report ([`ImportReport`]): is told what is dropped: relations, and members of chains, of spans that are not there, and
            spans that do not fit, if it says so.
        options ([`MarkedTextOptions`]): how it is read.
        index (`int`, *optional*), source (`str`, *optional*): where it is from, for messages.

    Raises:
        DocumentError: a span does not fit into the text; the text is not that of the original document.
    """
    original = None if options.original is None else options.original.find(marked.title)
    if report.drop_mentions:
        marked = replace(marked, spans=_fitting_spans(marked, original, report, index, source))
    places = _places(marked, index, source)
    links = []
    for link in marked.links:
        if link.head in places and link.tail in places:
            links.append(link)
        else:
            found = shown([name for name in (link.head, link.tail) if name not in places])
            error = DocumentError(
                source, index, marked.title, link.field, found, "the ids of two mentions of the document"
            )
            report.drop_fact("relations of mentions that are not there", error)
    same = [(places[link.head], places[link.tail]) for link in links if options.is_coreference(link.relation)]
    for chain in marked.chains:
        members = [places[name] for name in chain if name in places]
        report.drop("members of chains that are not there", len(chain) - len(members))
        same += itertools.pairwise(members)
    if options.entities == "names":
        same = []
    if options.entities != "links":
        same += _same_names(marked, index, source)
    entity_of = _joined(len(marked.spans), same)
    facts = [
        (
            entity_of[places[link.head]],
            options.relation_ids.get(link.relation, link.relation),
            entity_of[places[link.tail]],
            link.field,
        )
        for link in links
        if not options.is_coreference(link.relation)
    ]
    if original is not None:
        entities: dict[int, list[MarkedSpan]] = {}
        for span, entity in zip(marked.spans, entity_of, strict=True):
            entities.setdefault(entity, []).append(span)
        return annotate_original(original, marked.text, entities, facts, report, index=index, source=source)
    report.note("documents that are not among the original ones", options.original is not None)
    mentions = [_as_mention(span, (f"entity {entity}",)) for span, entity in zip(marked.spans, entity_of, strict=True)]
    entity_facts = [
        AnnotatedFact(f"entity {head}", f"entity {tail}", relation, {}, where) for head, relation, tail, where in facts
    ]
    return AnnotatedText(marked.title, marked.text, mentions, entity_facts, sentences=marked.sentences)


def _places(marked, index, source):
    """Place of each span by its id. A region that an annotator labelled twice is there twice."""
    places = {}
    for place, span in enumerate(marked.spans):
        other = marked.spans[places[span.id]] if span.id in places else span
        if (other.start, other.end) != (span.start, span.end):
            found = f"the id {span.id!r}, which {other.field} has too"
            raise DocumentError(source, index, marked.title, span.field, found, "an id of its own for each mention")
        if span.id:
            places[span.id] = place
    return places


def _as_mention(span, ids=()):
    return AnnotatedMention(span.start, span.end, span.type, ids, None, span.field)


def _fitting_spans(marked, original, report, index, source):
    """Those that fit into the text, and into the original document if there is one; the report counts the others."""
    if original is not None:
        return spans_that_fit(original, marked.text, marked.spans, report, index=index, source=source)
    fitting = []
    for span in marked.spans:
        with report.reading_mention():
            check_offsets(marked, _as_mention(span), index, source)
            fitting.append(span)
    return fitting


def _same_names(marked, index, source):
    """Pairs of places of spans that the rules for names take for one entity."""
    at: dict[tuple[int, int], list[int]] = {}
    for place, span in enumerate(marked.spans):
        text = marked.text[span.start : span.end]
        start, end = span.start + len(text) - len(text.lstrip()), span.end - len(text) + len(text.rstrip())
        at.setdefault((start, end), []).append(place)
    mentions = [{"start": span.start, "end": span.end, "type": span.type} for span in marked.spans]
    same = []
    for entity in group_mentions(marked.text, mentions, None, marked.title, index=index, source=source):
        members = [place for mention in entity["mentions"] for place in at[mention["start"], mention["end"]]]
        same += itertools.pairwise(members)
    return same


def _joined(size, pairs):
    """For each place the first place of its group, where the places of a pair are in one."""
    parent = list(range(size))

    def first_of(place):
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    for one, other in pairs:
        low, high = sorted((first_of(one), first_of(other)))
        parent[high] = low
    return [first_of(place) for place in range(size)]
