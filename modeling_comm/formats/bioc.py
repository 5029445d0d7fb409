"""BioC, the form in which many biomedical corpora and services exchange documents, as JSON or XML."""

import io
import json
from collections.abc import Iterator

from ..documents import DocumentError, shown
from ..utils.files import open_text
from ..utils.imports import of_extra
from .annotated_text import AnnotatedFact, AnnotatedMention, AnnotatedText
from .entity_ids import split_joined_ids
from .format_registry import register_format
from .import_report import ImportReport

# The ids of an annotation are in one of these fields of its infons; corpora differ.
_ID_FIELDS = ("identifier", "Identifier", "MESH", "NCBI GENE", "NCBI Gene", "ID")
# What the library's reader of JSON asks for and files leave out.
_OPTIONAL = {"infons": dict, "annotations": list, "relations": list, "nodes": list, "sentences": list}
_PARTS = {
    "passages": {"infons", "annotations", "relations", "sentences"},
    "sentences": {"infons", "annotations", "relations"},
}
_PARTS |= {"annotations": {"infons"}, "relations": {"infons", "nodes"}}


def looks_like_bioc(head: bytes, path: str) -> bool:
    """Whether a file is JSON with the field `passages`, or XML of a BioC collection."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if start[:1] == b"<":
        return b"<collection" in head and b"<passage" in head
    return start[:1] == b"{" and b'"passages"' in head


@register_format(
    "bioc", "BioC, JSON or XML", (".bioc.json", ".bioc.xml", ".bioc", ".json", ".xml"), looks_like_bioc, "bioc"
)
def read_bioc(path: str, report: ImportReport) -> Iterator[AnnotatedText]:
    """
    Documents of a BioC collection. An annotation's entities are those of its `identifier` (or `MESH`, or `NCBI GENE`); those of a
    relation are its `entity1` and `entity2`, head and tail, or the entities of its two nodes. Its `novel` becomes the label's
    `novelty`. Annotations in several pieces are dropped and counted.

    Args:
        path (`str`): the file, which may be compressed by gzip.
        report ([`ImportReport`]): is told what is dropped.

    Raises:
        DocumentError: passages overlap.
        ImportError: `bioc` is missing.
        ValueError: the library cannot read the file.
    """
    try:
        from bioc import biocjson, biocxml
    except ImportError as error:
        raise ImportError(f"BioC needs {error.name!r}{of_extra('bioc')}") from error
    with open_text(path) as file:
        content = file.read()
    try:
        if content.lstrip().startswith("<"):
            documents = biocxml.load(io.BytesIO(content.encode("utf-8"))).documents
        else:
            collection = json.loads(content)
            documents = [
                biocjson.fromJSON(_completed(document), "BioCDocument") for document in collection["documents"]
            ]
    except (KeyError, TypeError, AttributeError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path}: found {type(error).__name__} {error}, expected a BioC collection") from error
    for index, document in enumerate(documents):
        yield _annotated(document, report, index, path)


def _completed(item, fields=frozenset(("infons", "annotations", "relations"))):
    """A part of a document with the fields that its file leaves out, and so its parts."""
    item = {**{name: _OPTIONAL[name]() for name in fields}, **item}
    for name, inner in _PARTS.items():
        if name in item:
            item[name] = [_completed(part, inner) for part in item[name]]
    return item


def _annotated(document, report, index, path):
    title, text, mentions, ids_of, facts = str(document.id), "", [], {}, []
    for number, passage in enumerate(document.passages):
        for place, part in [(f"passages[{number}]", passage)] if passage.text else _sentences(passage, number):
            if part.offset < len(text):
                found, expected = f"offset {part.offset}", f"one after the text before it, which ends at {len(text)}"
                raise DocumentError(path, index, title, f"{place}.offset", found, expected)
            text += "\n" * (part.offset - len(text)) + (part.text or "")
    for place, part in _all_parts(document):
        for number, annotation in enumerate(part.annotations):
            # A number is an id, too.
            ids = next((str(annotation.infons[name]) for name in _ID_FIELDS if annotation.infons.get(name)), "")
            ids_of[annotation.id] = ids
            if len(annotation.locations) != 1:
                report.drop("mentions in several pieces")
                continue
            start, size = annotation.locations[0].offset, annotation.locations[0].length
            kind, field = annotation.infons.get("type"), f"{place}annotations[{number}]"
            mentions.append(AnnotatedMention(start, start + size, kind, (ids,), annotation.text, field))
    for place, part in _all_parts(document):
        for number, relation in enumerate(part.relations):
            field, infons = f"{place}relations[{number}]", relation.infons
            nodes = [ids_of.get(node.refid, node.refid) for node in relation.nodes]
            pair = [str(infons[name]) for name in ("entity1", "entity2") if name in infons] or nodes
            if len(pair) != 2 or not infons.get("type"):
                found = shown({"infons": infons, "nodes": nodes})
                raise DocumentError(path, index, title, field, found, "a relation with a type and two entities")
            novelty = {"novelty": infons["novel"]} if infons.get("novel") else {}
            facts.append(AnnotatedFact(*pair, infons["type"], novelty, field))
    return AnnotatedText(title, text, split_joined_ids(mentions, facts), facts, linked=True)


def _sentences(passage, number):
    return [(f"passages[{number}].sentences[{place}]", sentence) for place, sentence in enumerate(passage.sentences)]


def _all_parts(document):
    """The document, its passages and their sentences, each of which may have annotations and relations, with their paths."""
    yield "", document
    for number, passage in enumerate(document.passages):
        yield f"passages[{number}].", passage
        for place, sentence in _sentences(passage, number):
            yield f"{place}.", sentence
