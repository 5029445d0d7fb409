"""Predictions, or labelled documents, as annotation tools take them: marked spans and links between them."""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ..documents import Document
from ..prediction_record import PredictionRecord
from ..text_to_document import text_from_document
from ..utils.relation_names import means_no_relation
from .marked_text import Link, MarkedSpan, MarkedText


@dataclass(frozen=True)
class PreAnnotation:
    """
    A document for an annotation tool.

    Attributes:
        marked ([`MarkedText`]): its text; ids of spans are `"1"`, `"2"`, ...; links have the relations' ids; chains have all
            mentions of an entity that has several.
        score (`float`, *optional*): mean of the triples' probabilities or scores.
    """

    marked: MarkedText
    score: float | None = None

    @property
    def has_text(self) -> bool:
        """Whether there are characters to mark: without them it would be a task that nobody can do."""
        return bool(self.marked.text.strip())

    def labelled_links(self, labels: "PreAnnotationLabels") -> Iterator[tuple[str, str, str]]:
        """Head, tail and label of all relations between spans. A chain is a relation from each mention to the next one."""
        for link in self.marked.links:
            yield link.head, link.tail, labels.relations[link.relation]
        for chain in self.marked.chains:
            for one, other in itertools.pairwise(chain):
                yield one, other, labels.coreference


@dataclass
class PreAnnotationLabels:
    """
    The labels of all documents of an export, and what was left out.

    Attributes:
        types (`list[str]`): entity types, sorted.
        relations (`dict[str, str]`): what each relation is called in the tool, by id: its readable name, or the id where it has
            none or shares it.
        names (`dict[str, str]`): readable names by id.
        coreference (`str`): the relation between mentions of one entity.
        titles (`list[str]`): of the documents, in order.
        counts (`Counter[str]`): documents, mentions, relations.
        left_out (`Counter[str]`): by kind.
    """

    types: list[str] = field(default_factory=list)
    relations: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    coreference: str = "coreference"
    titles: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)


def collect_labels(
    items: Iterable[Document | PredictionRecord], names: Mapping[str, str], coreference: str
) -> PreAnnotationLabels:
    """
    All labels of some documents or records, and all relations that have a name. Documents without text are counted under
    `left_out`, and are not to be written.

    Args:
        items (`Iterable[Document | PredictionRecord]`): the documents.
        names (`dict[str, str]`): readable names of relations, instead of those of records. They count as labels even if no
            document has them, because annotators add facts that were missed; not those that mean no relation.
        coreference (`str`): what the relation between mentions of one entity is to be called.

    Raises:
        ValueError: a relation is called so already, or two documents have the same title, by which an import tells them apart.
    """
    types, found = set(), {}
    labels = PreAnnotationLabels(coreference=coreference)
    for number, item in enumerate(items, 1):
        annotation, of_item, left_out = pre_annotation(item, number)
        if not annotation.has_text:
            labels.left_out["documents without text"] += 1
            continue
        labels.titles.append(annotation.marked.title)
        labels.counts.update(
            documents=1, mentions=len(annotation.marked.spans), relations=len(annotation.marked.links)
        )
        labels.left_out.update(left_out)
        types.update(span.type for span in annotation.marked.spans)
        found |= of_item
    offered = {
        relation: name
        for relation, name in names.items()
        if not (means_no_relation(relation) or means_no_relation(name))
    }
    labels.names = dict(sorted({**found, **offered}.items()))
    shared = Counter(labels.names.values())
    for relation, name in labels.names.items():
        labels.relations[relation] = (
            name if shared[name] == 1 and (name == relation or name not in labels.names) else relation
        )
    labels.types = sorted(types)
    if twice := [title for title, times in Counter(labels.titles).items() if times > 1]:
        raise ValueError(f"found two documents called {twice[0]!r}, expected an id or a title for each")
    if coreference in labels.relations.values():
        raise ValueError(
            f"--coreference_relation is {coreference!r}, which a relation is called, expected another name"
        )
    return labels


def pre_annotation(
    item: Document | PredictionRecord, number: int
) -> tuple[PreAnnotation, dict[str, str], Counter[str]]:
    """
    A document or a record for an annotation tool. A triple is a link between the two of its entities' mentions that are nearest
    to each other, in the same sentence if there are such, in a sentence of the evidence if possible.

    Args:
        item (`Document` or `PredictionRecord`): the document. A record is called by its id, or else its title.
        number (`int`): its place among the documents, from 1, which is its name where it has no other.

    Returns:
        The annotation; the readable names of its relations, by id; how many mentions without a character were left out, and
        relations of entities that have no other.
    """
    parts = _parts_of_record(item, number) if "triples" in item else _parts_of_document(item)
    text, title, entities, facts, names, score = parts
    left_out, spans, by_entity = Counter(), [], []
    for mentions in entities:
        by_entity.append([])
        for kind, mention in mentions:
            if mention["start"] == mention["end"]:
                left_out["mentions without a character"] += 1
                continue
            span = MarkedSpan(str(len(spans) + 1), mention["start"], mention["end"], kind)
            spans.append(span)
            by_entity[-1].append((span, mention["sentence"]))
        by_entity[-1].sort(key=lambda pair: (pair[0].start, pair[0].end))
    links = []
    for head, relation, tail, evidence in facts:
        if by_entity[head] and by_entity[tail]:
            one, other = _nearest(by_entity[head], by_entity[tail], set(evidence))
            links.append(Link(one.id, other.id, relation))
        else:
            left_out["relations of entities without a mention"] += 1
    chains = [tuple(span.id for span, _ in mentions) for mentions in by_entity if len(mentions) > 1]
    return PreAnnotation(MarkedText(title, text, spans, links, chains), score), names, left_out


def _parts_of_record(record, number):
    """Text, title, entities as types and mentions, facts with their evidence, names of relations, score."""
    entities = [[(entity["type"], mention) for mention in entity["mentions"]] for entity in record["entities"]]
    facts = [(t["head"], t["relation"], t["tail"], t.get("evidence") or ()) for t in record["triples"]]
    names = {triple["relation"]: triple["relation_name"] for triple in record["triples"]}
    scores = [triple.get("probability", triple["score"]) for triple in record["triples"]]
    title = record["title"] or f"document {number}"
    if (identifier := record.get("id")) not in (None, ""):  # 0 is one
        title = str(identifier)
    return record["text"], title, entities, facts, names, sum(scores) / len(scores) if scores else None


def _parts_of_document(document):
    """The same of a labelled document; its mentions have types of their own."""
    whole = text_from_document(document)
    entities = [
        [(own["type"], mention) for own, mention in zip(mentions, entity["mentions"], strict=True)]
        for mentions, entity in zip(document["vertexSet"], whole.entities, strict=True)
    ]
    facts = [(x["h"], x["r"], x["t"], x.get("evidence") or ()) for x in document.get("labels") or ()]
    names = {relation: relation for _, relation, _, _ in facts}
    return _with_line_breaks(whole), document["title"], entities, facts, names, None


def _nearest(heads, tails, evidence):
    """The two mentions between which a relation is drawn."""

    def distance(pair):
        (head, head_sentence), (tail, tail_sentence) = pair
        gap = max(head.start, tail.start) - min(head.end, tail.end)
        outside = len({head_sentence, tail_sentence} - evidence) if evidence else 0
        return head_sentence != tail_sentence, outside, max(gap, 0), head.start, tail.start

    (head, _), (tail, _) = min(((head, tail) for head in heads for tail in tails), key=distance)
    return head, tail


def _with_line_breaks(whole):
    """The text of a document in DocRED's format with a line for each sentence, which is easier to read; offsets stay."""
    characters = list(whole.text)
    for start, _ in whole.sentences[1:]:
        if 0 < start <= len(characters) and characters[start - 1] == " ":
            characters[start - 1] = "\n"
    return "".join(characters)


_UNSAFE = re.compile(r"[^\w-]+", re.ASCII)


def safe_names(names: Iterable[str], other: str) -> dict[str, str]:
    """
    Names of letters without accents, digits, `-` and `_` alone, for programs that take no others; each is another one, also where
    capitals do not count, as in names of files on macOS and Windows.

    Args:
        names (`Iterable[str]`): the names, each once.
        other (`str`): what a name that has none of these characters becomes.

    Returns:
        `dict[str, str]`: the safe name of each, which is the name itself if that is safe and the first with these letters.
    """
    names = list(names)
    safe, taken, last = {}, {}, Counter()
    for name in names:
        if name and not _UNSAFE.search(name) and taken.setdefault(name.lower(), name) == name:
            safe[name] = name
    for name in names:
        if name not in safe:
            short = _UNSAFE.sub("_", name).strip("_")[:80] or other
            candidate = short
            while candidate.lower() in taken:
                last[short.lower()] += 1
                candidate = f"{short}_{last[short.lower()] + 1}"
            safe[name] = candidate
            taken[candidate.lower()] = name
    return {name: safe[name] for name in names}
