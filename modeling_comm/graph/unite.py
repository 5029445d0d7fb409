"""Unites the triples of many documents, one after another, in memory that grows with the graph."""

import dataclasses
import hashlib
from collections.abc import Iterable
from operator import attrgetter

from ..documents import shown
from ..prediction_record import PredictionRecord, RecordTriple, marked_by, marked_sentences
from ..settings import AtLeast, Setting
from .linking import DEFAULT_LINKER, Linker, get_linker, link_by_name_and_type
from .selection import GraphSelection
from .united_graph import (
    Graph,
    GraphCounts,
    GraphDocument,
    GraphEdge,
    GraphEntity,
    GraphMention,
    GraphSentence,
    Provenance,
)

MAX_PROVENANCE = 20
_MAX_PROVENANCE = Setting("max_provenance", "max_provenance", int, MAX_PROVENANCE, (AtLeast(1),))
_SCORE = attrgetter("score")


def build_graph(
    records: Iterable[PredictionRecord],
    linker: str | Linker = DEFAULT_LINKER,
    selection: GraphSelection | None = None,
    max_provenance: int = MAX_PROVENANCE,
) -> Graph:
    """
    Unites the triples of many documents: an entity of the graph is what a linker takes for one, an edge is a relation between two
    entities with the documents that it was found in. A `symmetric` triple is the same edge in both directions. Documents are read
    one after another, and of each only what an edge needs is kept.

    Args:
        records (`Iterable[PredictionRecord]`): what the pipeline returns or
            [`~modeling_comm.prediction_record.parse_record`] has checked, one per document. A document goes by the record's
            `id`, or else its title, or else its position among all that were given, from 1, as `"#3"`. One that comes again, with
            the same name and text, or without a name and with the same text, does not count again; of one with the same name and
            another text the name gets a number.
        linker (`str` or `Callable`, defaults to `"name_and_type"`): which entities are one: `"name_and_type"` (without case,
            articles, invisible characters and punctuation, see [`~modeling_comm.mentions.group_mentions`]), `"name"` (types may
            differ), `"id"` (the first of an entity's `ids`), another name that
            [`~modeling_comm.graph.linking.register_linker`] has registered, or a function from an entity and its record to a
            text, equal for entities that are one, or None for one that is linked by name and type.
        selection ([`~modeling_comm.graph.selection.GraphSelection`], *optional*): which triples and edges are wanted; all by
            default.
        max_provenance (`int`, defaults to 20): an edge keeps the places where it was found in at most this many documents, those
            with the best scores, of equals the first. All count in its support.

    Returns:
        [`~modeling_comm.graph.united_graph.Graph`]

    Raises:
        SettingError: there is no such linker, or a value does not fit.
        ValueError: the linker failed, or gave something that is no text; the message names document and entity.

    Example:

    ```python
    >>> from modeling_comm.graph import build_graph
    >>> graph = build_graph(extractor(texts, ner=nlp), linker="name")
    >>> print(graph.summary())
    ```
    """
    builder = GraphBuilder(linker, selection, max_provenance)
    for record in records:
        builder.add(record)
    return builder.graph()


class GraphBuilder:
    """
    Unites documents that come one by one; see [`build_graph`], which has the same arguments.

    Attributes:
        relations (`dict[str, str]`): readable names by id of the relations of all triples that were read.
        types (`set[str]`): the types of all entities that were read.
    """

    def __init__(
        self,
        linker: str | Linker = DEFAULT_LINKER,
        selection: GraphSelection | None = None,
        max_provenance: int = MAX_PROVENANCE,
    ):
        self.max_provenance = max_provenance
        _MAX_PROVENANCE.check(self)
        self.selection = selection or GraphSelection()
        self.relations, self.types = {}, set()
        self._linker = get_linker(linker)
        self._counts = GraphCounts()
        self._texts = {}  # by name of a document, what tells its text from others
        self._texts_without_name = set()
        self._entities, self._edges = {}, {}
        self._alone = set()  # ids of entities that were not linked to any

    def add(self, record: PredictionRecord) -> None:
        """Adds the triples of a document, all or, where the linker fails, none."""
        text = hashlib.blake2b(record["text"].encode("utf-8", "surrogatepass"), digest_size=8).digest()
        wanted = str(record.get("id", "")).strip() or record["title"].strip()
        document = self._document(record, wanted, text)
        if document is None:
            self._counts.repeated_documents += 1
            return
        counts = dataclasses.replace(self._counts)
        counts.documents += 1
        counts.triples += len(record["triples"])
        parts = _Parts(record)
        ids = {}  # of the document's entities, those of the graph
        alone = set()  # those of them that were not linked to any
        found = {}  # of an edge the best place in this document: two of its entities may have become one
        for triple in record["triples"]:
            head, tail = (record["entities"][triple[end]] for end in ("head", "tail"))
            if reason := self.selection.reason_against(triple, head, tail):
                setattr(counts, reason, getattr(counts, reason) + 1)
                continue
            for end in (triple["head"], triple["tail"]):
                if end not in ids:
                    ids[end] = self._id(record, end, document, ids, alone, counts)
            edge, turned = self._key(triple, ids, found)
            counts.same_in_document += edge in found
            if edge not in found or _is_better(triple, found[edge]):
                found[edge] = parts.provenance(triple, document, turned)
        counts.document_entities += len(ids)
        # Nothing is kept before the linker is done: a document that failed can be added again.
        self._counts = counts
        self._alone |= alone
        self._texts[document.id] = text
        if not wanted:
            self._texts_without_name.add(text)
        self.types.update(entity["type"] for entity in record["entities"])
        for triple in record["triples"]:
            self._name(triple)
        self._add_entities(record, ids)
        for edge, provenance in found.items():
            self._add_edge(edge, provenance)

    def graph(self) -> Graph:
        """The graph of what was added so far; no more can be added. Called again, it gives the same."""
        counts = dataclasses.replace(self._counts)
        counts.merged_entities = counts.document_entities - len(self._entities)
        edges = []
        for edge in self._edges.values():
            if edge.support < self.selection.min_support:
                counts.edges_below_min_support += 1
                counts.triples_below_min_support += edge.support
                continue
            edge.relation_name = self.relations[edge.relation]
            edge.provenance.sort(key=_SCORE, reverse=True)  # stable: of equals the first
            counts.provenance_left_out += edge.support - len(edge.provenance)
            edges.append(edge)
        edges.sort(key=lambda edge: (-edge.support, -edge.score))
        ends = {end for edge in edges for end in (edge.head, edge.tail)}
        entities = sorted(
            (entity for entity in self._entities.values() if entity.id in ends), key=lambda entity: -entity.documents
        )
        counts.loops = sum(edge.head == edge.tail for edge in edges)
        counts.several_types = sum(len(entity.types) > 1 for entity in entities)
        return Graph({entity.id: entity for entity in entities}, edges, counts)

    def _key(self, triple, ids, found):
        """The edge of a triple, and whether its head is the triple's tail: an undirected edge keeps the direction in which it was
        found first."""
        head, tail, symmetric = ids[triple["head"]], ids[triple["tail"]], triple.get("symmetric", False)
        key, other = ((*ends, triple["relation"], symmetric) for ends in ((head, tail), (tail, head)))
        turned = symmetric and any(other in edges and key not in edges for edges in (self._edges, found))
        return (other if turned else key), turned

    def _name(self, triple):
        """Keeps the first name of a relation that is more than its id."""
        relation, name = triple["relation"], triple["relation_name"]
        if self.relations.get(relation, relation) == relation:
            self.relations[relation] = name or relation

    def _document(self, record, wanted, text):
        """What the record's document is called; None if it was added before."""
        if not wanted:
            if text in self._texts_without_name:
                return None
            wanted = f"#{self._counts.documents + self._counts.repeated_documents + 1}"
        name, number = wanted, 1
        while name in self._texts:
            if self._texts[name] == text:
                return None
            number += 1
            name = f"{wanted} ({number})"
        return GraphDocument(name, record["title"])

    def _id(self, record, index, document, ids, alone, counts):
        """What the linker calls an entity of a document, whose other entities have these `ids` so far; `alone` and `counts` are
        given what it adds to them."""
        entity = record["entities"][index]
        given = self._linked(entity, record, document)
        if given is None:
            given = link_by_name_and_type(entity, record)
            if given is None:
                counts.without_name += 1
                own = f"{document.id}:{index}"
                while own in self._entities or own in ids.values():
                    own += "'"
                alone.add(own)
                return own
            counts.not_linked += 1
        while given in self._alone or given in alone:  # or it would be one with an entity that is to stay alone
            given += "'"
        return given

    def _linked(self, entity, record, document):
        where = f"for the entity {entity['name']!r} of document {document.id!r}"
        try:
            given = self._linker(entity, record)
        except Exception as error:  # a user's function may raise anything
            raise ValueError(f"the linker raised {type(error).__name__}: {error} {where}") from error
        if given is not None and not (isinstance(given, str) and given):
            raise ValueError(f"the linker gave {shown(given)} {where}; expected a text that is not empty, or None")
        return given

    def _add_entities(self, record, ids):
        of_document = set()  # what counts once, however many entities of the document are this one
        for index, identifier in ids.items():
            entity = record["entities"][index]
            united = self._entities.setdefault(identifier, GraphEntity(identifier))
            name, type_ = " ".join(entity["name"].split()), entity["type"]
            united.names[name] += (identifier, "name", name) not in of_document
            united.types[type_] += (identifier, "type", type_) not in of_document
            united.mentions += len(entity["mentions"])
            united.documents += identifier not in of_document
            of_document |= {identifier, (identifier, "name", name), (identifier, "type", type_)}
            for known in entity.get("ids", ()):
                if known not in united.knowledge_base_ids:
                    united.knowledge_base_ids.append(known)

    def _add_edge(self, key, provenance):
        edge = self._edges.get(key)
        if edge is None:
            head, tail, relation, symmetric = key
            edge = self._edges[key] = GraphEdge(head, tail, relation, self.relations[relation], symmetric=symmetric)
        edge.support += 1
        edge.score = max(edge.score, provenance.score)
        if provenance.probability is not None:
            edge.probability = max(edge.probability or 0.0, provenance.probability)
        if len(edge.provenance) < self.max_provenance:
            edge.provenance.append(provenance)
            return
        weakest = min(range(len(edge.provenance)), key=lambda place: (edge.provenance[place].score, -place))
        if provenance.score > edge.provenance[weakest].score:
            del edge.provenance[weakest]
            edge.provenance.append(provenance)


class _Parts:
    """Sentences and mentions of a document, each made once however many triples have it."""

    def __init__(self, record: PredictionRecord):
        self._record = record
        self._sentences, self._mentions = {}, {}

    def provenance(self, triple: RecordTriple, document: GraphDocument, turned: bool = False) -> Provenance:
        head, tail = (self._mentions_of(triple[end]) for end in (("tail", "head") if turned else ("head", "tail")))
        numbers = marked_sentences(triple)
        return Provenance(
            document,
            # JSON's 1 is an integer, of which GraphML would make another attribute.
            float(triple["score"]),
            None if triple.get("probability") is None else float(triple["probability"]),
            marked_by(triple) or "mentions",
            tuple(map(self._sentence, numbers or _sentences_of(head, tail))),
            head,
            tail,
            triple["derived"]["rule"] if "derived" in triple else None,
        )

    def _sentence(self, number):
        if number not in self._sentences:
            start, end = self._record["sentences"][number]
            self._sentences[number] = GraphSentence(number, start, self._record["text"][start:end])
        return self._sentences[number]

    def _mentions_of(self, index):
        if index not in self._mentions:
            entity = self._record["entities"][index]
            self._mentions[index] = tuple(
                GraphMention(
                    mention["start"],
                    mention["end"],
                    mention["sentence"],
                    self._record["text"][mention["start"] : mention["end"]],
                )
                for mention in entity["mentions"]
            )
        return self._mentions[index]


def _is_better(triple, place):
    """Whether a triple is to stand for its document. `--both_directions` gives the other way to say a triple the same score."""
    stated = place.rule is not None and "derived" not in triple
    return triple["score"] > place.score or (triple["score"] == place.score and stated)


def _sentences_of(head, tail):
    """The sentences that mention both, or else the first one of each."""
    of_head, of_tail = ([mention.sentence for mention in mentions] for mentions in (head, tail))
    return sorted(set(of_head) & set(of_tail)) or sorted({*of_head[:1], *of_tail[:1]})
