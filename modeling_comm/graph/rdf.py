"""A graph as RDF: an edge is a triple, and a statement about that triple says where it was found.

The statement is RDF's own reification (`rdf:Statement` with `rdf:subject`, `rdf:predicate` and `rdf:object`), which Turtle,
SPARQL 1.1 and every store can hold; named graphs need another format than Turtle, and triples as subjects (RDF-star) need RDF
1.2, which rdflib does not read. `prov:wasDerivedFrom` (PROV-O) leads from it to the documents.
"""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from ..utils.imports import of_extra
from ..utils.writer import replacing
from .texts import xml_text
from .united_graph import Graph

if TYPE_CHECKING:
    import rdflib

BASE = "urn:comm-docre:"


def to_rdflib(graph: Graph, entities: str = f"{BASE}entity:", relations: str = f"{BASE}relation:") -> "rdflib.Graph":
    """
    A graph of rdflib. With the prefix `comm:` for `urn:comm-docre:vocabulary:`,

    - an edge is the triple `entity relation entity`, a symmetric one this triple in both directions;
    - an entity is a `comm:Entity` with `rdfs:label`, `skos:altLabel` (its other names), `comm:type`, `dcterms:identifier` (its id
      in the graph, then those in a knowledge base), `comm:documents` and `comm:mentions` (numbers), `comm:mention` (passages);
    - a relation is an `rdf:Property` with `rdfs:label`;
    - an `rdf:Statement` about each edge has `comm:support`, `comm:score`, `comm:probability`, `comm:symmetric` (true, of edges
      that are), `prov:wasDerivedFrom` its
      documents, each a `comm:Document` with `dcterms:title`, and `comm:foundIn` a place in each of them;
    - a place has `comm:document`, `comm:score`, `comm:probability`, `comm:markedBy`, `comm:rule`, and its sentences as
      `comm:sentence` (passages);
    - a passage is a `comm:Passage`, with its text as `rdf:value`, its document as `dcterms:isPartOf`, and its first character
      and the one after its last at the end of its IRI.

    Args:
        graph ([`~modeling_comm.graph.united_graph.Graph`]): The graph.
        entities (`str`, defaults to `"urn:comm-docre:entity:"`): What IRIs of entities begin with; the id follows,
            percent-encoded. In the library's own namespaces, which begin with `urn:comm-docre:`, an underscore comes before an
            id that does not begin with a letter.
        relations (`str`, defaults to `"urn:comm-docre:relation:"`): The same for relations. DocRED's are Wikidata's:
            `"http://www.wikidata.org/prop/direct/"`.

    Raises:
        ImportError: rdflib is not installed.
    """
    try:
        import rdflib
    except ModuleNotFoundError as error:
        raise ImportError(f"RDF needs {error.name!r}{of_extra('graph')}") from error
    from rdflib import DCTERMS, PROV, RDF, RDFS, SKOS

    comm = rdflib.Namespace(f"{BASE}vocabulary:")
    rdf = rdflib.Graph()
    for prefix, namespace in (("comm", comm), ("entity", entities), ("relation", relations), ("prov", PROV)):
        rdf.bind(prefix, namespace)

    def iri(start, *names):
        # The IRIs of a namespace of others are what these say they are.
        local = _local_name if start.startswith(BASE) else _quoted
        return rdflib.URIRef(start + ".".join(map(local, names)))

    def say(node, /, **objects):
        """Adds the objects, lists of them too, that are not None; a text is a literal."""
        for name, values in objects.items():
            for value in values if isinstance(values, list) else [values]:
                if value is not None:
                    rdf.add((node, vocabulary[name], value if isinstance(value, rdflib.term.Node) else literal(value)))

    def literal(value):
        return rdflib.Literal(xml_text(value) if isinstance(value, str) else value)

    def passage(place, part):
        """A sentence or a mention, of which many places speak."""
        node = iri(f"{BASE}passage:", place.document.id, f"{part.start}-{part.start + len(part.text)}")
        say(node, a=comm.Passage, value=part.text, part=iri(f"{BASE}document:", place.document.id))
        return node

    vocabulary = {
        **{"a": RDF.type, "label": RDFS.label, "alternative": SKOS.altLabel, "identifier": DCTERMS.identifier},
        **{"subject": RDF.subject, "predicate": RDF.predicate, "object": RDF.object, "value": RDF.value},
        **{"title": DCTERMS.title, "part": DCTERMS.isPartOf, "derived": PROV.wasDerivedFrom},
    }
    own = "type documents mentions mention support score probability symmetric foundIn document markedBy rule sentence"
    vocabulary |= {name: comm[name] for name in own.split()}
    nodes = {entity.id: iri(entities, entity.id) for entity in graph.entities.values()}
    for entity in graph.entities.values():
        names = [name for name, _ in entity.names.most_common()]
        say(nodes[entity.id], a=comm.Entity, label=names[0], alternative=names[1:], type=list(entity.types))
        say(nodes[entity.id], identifier=[entity.id, *entity.knowledge_base_ids])
        say(nodes[entity.id], documents=entity.documents, mentions=entity.mentions)
    for relation, name in graph.relations():
        say(iri(relations, relation), a=RDF.Property, label=name)
    for edge in graph.edges:
        fact = nodes[edge.head], iri(relations, edge.relation), nodes[edge.tail]
        rdf.add(fact)
        parts = [edge.head, edge.relation, edge.tail]
        if edge.symmetric:  # found first in either direction, it is the same statement
            rdf.add(fact[::-1])
            parts = ["symmetric", edge.relation, *sorted((edge.head, edge.tail))]
        statement = iri(f"{BASE}statement:", _digest(*parts))
        say(statement, a=RDF.Statement, subject=fact[0], predicate=fact[1], object=fact[2])
        say(statement, support=edge.support, score=edge.score, probability=edge.probability)
        say(statement, symmetric=edge.symmetric or None)
        for place in edge.provenance:
            document, node = iri(f"{BASE}document:", place.document.id), rdflib.BNode()
            say(document, a=comm.Document, identifier=place.document.id, title=place.document.title or None)
            say(statement, derived=document, foundIn=node)
            say(node, document=document, score=place.score, probability=place.probability)
            say(node, markedBy=place.marked_by, rule=place.rule)
            say(node, sentence=[passage(place, sentence) for sentence in place.sentences])
            for end, mentions in ((edge.head, place.head_mentions), (edge.tail, place.tail_mentions)):
                say(nodes[end], mention=[passage(place, mention) for mention in mentions])
    return rdf


def _local_name(name):
    """A name in an IRI. rdflib takes as long to write names that do not begin with a letter as there are other such names."""
    quoted = _quoted(name)
    return quoted if quoted[:1].isalpha() else f"_{quoted}"


def _quoted(name):
    return quote(name, safe="", errors="backslashreplace")


def _digest(*texts):
    return hashlib.blake2b("\0".join(texts).encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def write_turtle(graph: Graph, file: Path) -> None:
    """Writes what [`to_rdflib`] gives, as Turtle."""
    content = to_rdflib(graph).serialize(format="turtle", encoding="utf-8")
    with replacing(file) as stream:
        stream.write(content)
