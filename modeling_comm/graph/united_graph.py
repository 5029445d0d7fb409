"""The parts of a united graph: entities, edges, and where each edge was found."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from ..utils.counted_nouns import DOCUMENTS, ENTITIES, TRIPLES, counted


class GraphDocument(NamedTuple):
    """A document that an edge was found in.

    Attributes:
        id (`str`): what it is called: no two of a graph's documents have the same.
        title (`str`): its title, perhaps empty.
    """

    id: str
    title: str


class GraphSentence(NamedTuple):
    """A sentence of a document.

    Attributes:
        number (`int`): its index in the document.
        start (`int`): its first character's offset in the document's text.
        text (`str`): its text.
    """

    number: int
    start: int
    text: str


class GraphMention(NamedTuple):
    """A mention of an entity in a document.

    Attributes:
        start, end (`int`): characters `[start, end)` of the document's text.
        sentence (`int`): index of the sentence that it is in.
        text (`str`): its text.
    """

    start: int
    end: int
    sentence: int
    text: str


class Provenance(NamedTuple):
    """Where an edge was found: a triple of a document.

    Attributes:
        document (`GraphDocument`): the document.
        score (`float`), probability (`float`, *optional*): the triple's, see
            [`~modeling_comm.prediction_record.RecordTriple`].
        marked_by (`str`): what the sentences are: `"evidence"`, those that the model predicts to prove the triple; `"attention"`,
            those that its attention rests on; or, where it has neither, `"mentions"`, those that mention head and tail.
        sentences (`tuple[GraphSentence, ...]`): the sentences.
        head_mentions, tail_mentions (`tuple[GraphMention, ...]`): all mentions of the edge's head and tail in the document.
        rule (`str`, *optional*): the rule that the triple follows from, if it does.
    """

    document: GraphDocument
    score: float
    probability: float | None
    marked_by: str
    sentences: tuple[GraphSentence, ...]
    head_mentions: tuple[GraphMention, ...]
    tail_mentions: tuple[GraphMention, ...]
    rule: str | None = None


@dataclass(slots=True)
class GraphEntity:
    """Entities of documents that are one. Numbers are of the documents in which it is an end of a triple that was wanted.

    Attributes:
        id (`str`): what it was linked by, such as `"LOC:oslo"`; no two entities of a graph have the same.
        names (`Counter[str]`): its names, each with the number of documents; spaces and line breaks in them are one space.
        types (`Counter[str]`): its types, likewise: they may differ where it was not linked by type.
        knowledge_base_ids (`list[str]`): its ids in a knowledge base, in the order in which they were found.
        documents (`int`): number of documents.
        mentions (`int`): number of mentions in these.
    """

    id: str
    names: Counter[str] = field(default_factory=Counter)
    types: Counter[str] = field(default_factory=Counter)
    knowledge_base_ids: list[str] = field(default_factory=list)
    documents: int = 0
    mentions: int = 0

    @property
    def name(self) -> str:
        """Its most frequent name; of equals the first."""
        return self.names.most_common(1)[0][0]

    @property
    def type(self) -> str:
        """Its most frequent type; of equals the first."""
        return self.types.most_common(1)[0][0]


@dataclass(slots=True)
class GraphEdge:
    """A relation between two entities, found in one document or more.

    Attributes:
        head, tail (`str`): ids of the entities; of a symmetric edge in the direction in which it was found first.
        relation (`str`): the data set's id of the relation, such as `"P17"`.
        relation_name (`str`): its readable name, or else the id.
        support (`int`): number of documents that it was found in.
        score (`float`): the best of its triples' scores.
        probability (`float`, *optional*): the best of their probabilities, where there are any.
        provenance (`list[Provenance]`): where it was found, the best score first: a place for each document, or only for the best
            of them where there are more than were asked for.
        symmetric (`bool`): whether head and tail could change places: the edge is undirected.
    """

    head: str
    tail: str
    relation: str
    relation_name: str
    support: int = 0
    score: float = 0.0
    probability: float | None = None
    provenance: list[Provenance] = field(default_factory=list)
    symmetric: bool = False


@dataclass(slots=True)
class GraphCounts:
    """What went into a graph, and what did not.

    Attributes:
        documents, triples (`int`): what was read.
        repeated_documents (`int`): documents that had come before, with the same name and text; nothing of them is counted
            here.
        below_min_score, of_other_relations, of_other_types (`int`): triples that were left out, each counted under the first
            of these reasons that holds.
        same_in_document (`int`): triples that say in other words of their document, or of a symmetric relation in the other
            direction, what another of its triples says: that has the better score.
        edges_below_min_support, triples_below_min_support (`int`): edges that were left out, and their triples.
        document_entities (`int`): entities of documents that are ends of a triple that was wanted.
        merged_entities (`int`): those of them that became one with an earlier one.
        not_linked (`int`): those of them that the linker did not know; they were linked by name and type.
        without_name (`int`): those of them that stay alone, because nothing of their name can be read.
        loops (`int`): edges from an entity to itself.
        several_types (`int`): entities of the graph that have more than one type.
        provenance_left_out (`int`): places where an edge was found that are counted in its support and not kept.
    """

    documents: int = 0
    triples: int = 0
    repeated_documents: int = 0
    below_min_score: int = 0
    of_other_relations: int = 0
    of_other_types: int = 0
    same_in_document: int = 0
    edges_below_min_support: int = 0
    triples_below_min_support: int = 0
    document_entities: int = 0
    merged_entities: int = 0
    not_linked: int = 0
    without_name: int = 0
    loops: int = 0
    several_types: int = 0
    provenance_left_out: int = 0


@dataclass(slots=True)
class Graph:
    """A graph of the triples of many documents.

    Attributes:
        entities (`dict[str, GraphEntity]`): by id, those in most documents first. Each is an end of an edge.
        edges (`list[GraphEdge]`): those with the largest support first, of equals those with the best score. Head, tail,
            relation and `symmetric` of no two are the same.
        counts (`GraphCounts`): what went into it.
    """

    entities: dict[str, GraphEntity]
    edges: list[GraphEdge]
    counts: GraphCounts

    def relations(self) -> Iterator[tuple[str, str]]:
        """The relations of the edges, each once, as id and readable name."""
        yield from {edge.relation: edge.relation_name for edge in self.edges}.items()

    def summary(self, dashes: str = "") -> str:
        """
        What was read, what came of it, and what was left out or merged, in one line.

        Args:
            dashes (`str`, defaults to `""`): what stands before the names of settings: `"--"` on the command line.
        """
        counts = self.counts
        came = f"{counted(len(self.entities), ENTITIES)}, {counted(len(self.edges), _EDGES)}"
        parts = [f"{counted(counts.documents, DOCUMENTS)}, {counted(counts.triples, TRIPLES)} -> {came}"]
        for field_name, nouns, rest in _NOTES:
            if number := getattr(counts, field_name):
                parts.append(f"{counted(number, nouns)} {rest.format(dashes)}")
        return "; ".join(parts)


_EDGES, _PLACES = ("edge", "edges"), ("place", "places")
_NOTES = (
    ("repeated_documents", DOCUMENTS, "given again and not counted again"),
    ("below_min_score", TRIPLES, "below {}min_score"),
    ("of_other_relations", TRIPLES, "of other relations"),
    ("of_other_types", TRIPLES, "between entities of other types"),
    ("same_in_document", TRIPLES, "saying the same as another one of the document"),
    ("edges_below_min_support", _EDGES, "below {}min_support"),
    ("triples_below_min_support", TRIPLES, "of such edges"),
    ("merged_entities", ENTITIES, "of documents merged into others"),
    ("not_linked", ENTITIES, "unknown to the linker, linked by name and type"),
    ("without_name", ENTITIES, "without a readable name, kept apart"),
    ("several_types", ENTITIES, "with several types"),
    ("loops", _EDGES, "from an entity to itself"),
    ("provenance_left_out", _PLACES, "of edges counted in their support and not kept ({}max_provenance)"),
)
