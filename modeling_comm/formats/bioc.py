"""BioC, the form in which many biomedical corpora and services exchange documents, as JSON or XML."""

import io
import json
from collections.abc import Iterator, Mapping
from numbers import Integral

from ..documents import Document, DocumentChecker, DocumentError, shown
from ..utils.files import open_text
from ..utils.imports import of_extra
from .annotated_text import AnnotatedFact, AnnotatedMention, AnnotatedText, read_each
from .entity_ids import split_joined_ids
from .format_registry import register_format
from .import_report import ImportReport

# Of the nodes of a relation, in the order of head and tail, in small letters.
_ROLES = (("head", "tail"), ("subject", "object"), ("entity1", "entity2"), ("arg1", "arg2"))
# The ids of an annotation are in one of these fields of its infons; corpora differ.
_ID_FIELDS = ("identifier", "Identifier", "MESH", "NCBI GENE", "NCBI Gene", "ID")
# By part of a document in JSON: the fields that the library takes as they are, with their types, and the lists of further parts.
_ID, _OFFSET = (str, Integral, type(None)), Integral
_PARTS: dict[str, tuple[dict, tuple[str, ...]]] = {
    "documents": ({"id": (str, Integral)}, ("passages", "annotations", "relations")),
    "passages": ({"offset": _OFFSET}, ("annotations", "relations", "sentences")),
    "sentences": ({"offset": _OFFSET, "text": (str, type(None))}, ("annotations", "relations")),
    "annotations": ({"id": _ID, "text": (str, type(None))}, ("locations",)),
    "relations": ({"id": _ID}, ("nodes",)),
    "locations": ({"offset": _OFFSET, "length": _OFFSET}, ()),
    "nodes": ({"refid": _ID, "role": (str, type(None))}, ()),
}
# Lists without which there is no document and no mention; files leave out others.
_REQUIRED = ("passages", "locations")


def looks_like_bioc(head: bytes, path: str) -> bool:
    """Whether a file is JSON with the field `passages`, or XML of a BioC collection."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if start[:1] == b"<":
        return b"<collection" in head and b"<passage" in head
    return start[:1] == b"{" and b'"passages"' in head


@register_format(
    "bioc", "BioC, JSON or XML", (".bioc.json", ".bioc.xml", ".bioc", ".json", ".xml"), looks_like_bioc, "bioc"
)
def read_bioc(path: str, report: ImportReport) -> Iterator[AnnotatedText | Document | DocumentError]:
    """
    Documents of a BioC collection. An annotation's entities are those of its `identifier` (or `MESH`, or `NCBI GENE`); those of a
    relation are its `entity1` and `entity2`, head and tail, or the entities of its two nodes. Its `novel` becomes the label's
    `novelty`. Annotations in several pieces are dropped and counted.

    Args:
        path (`str`): the file, which may be compressed by gzip.
        report ([`ImportReport`]): is told what is dropped.

    Raises:
        DocumentError: passages overlap, or a field of JSON is of another type.
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
            documents, of_xml = biocxml.load(io.BytesIO(content.encode("utf-8"))).documents, True
        else:
            documents, of_xml = list(json.loads(content)["documents"]), False
    except (KeyError, TypeError, AttributeError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path}: found {type(error).__name__} {error}, expected a BioC collection") from error

    def parse(index, document):
        if not of_xml:
            checker = DocumentChecker(document, index, path)
            document = biocjson.fromJSON(_completed(checker, document), "BioCDocument")
        return _annotated(document, report, index, path)

    yield from read_each(documents, parse)


def _completed(checker, item, part="documents", field=""):
    """A part of a document, whose fields are what the library takes them for, with those that its file leaves out."""
    checker.check(item, Mapping, field or None, f"an object, one of {part}")
    path = f"{field}." if field else ""
    fields, lists = _PARTS[part]
    for name, kind in fields.items():
        checker.read(item, name, kind, path, "an integer" if kind is _OFFSET else "a text")
    item = {"infons": {}, **{name: [] for name in lists if name not in _REQUIRED}, **item}
    checker.read(item, "infons", Mapping, path, "an object")
    if part == "passages":
        checker.check(item.get("text"), (str, type(None)), f"{path}text", "a text, or no such field")
    for name in lists:
        parts = checker.read(item, name, list, path, f"a list of {name}")
        item[name] = [_completed(checker, one, name, f"{path}{name}[{number}]") for number, one in enumerate(parts)]
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
            if not annotation.locations:  # a concept of the whole document
                report.drop("annotations without a place in the text")
                continue
            if len(annotation.locations) != 1:
                report.drop("mentions in several pieces")
                continue
            start, size = annotation.locations[0].offset, annotation.locations[0].length
            kind, field = annotation.infons.get("type"), f"{place}annotations[{number}]"
            mentions.append(AnnotatedMention(start, start + size, kind, (ids,), annotation.text, field))
    for place, part in _all_parts(document):
        for number, relation in enumerate(part.relations):
            field, infons = f"{place}relations[{number}]", relation.infons
            nodes = [ids_of.get(node.refid, node.refid) for node in _in_order(relation.nodes)]
            pair = [str(infons[name]) for name in ("entity1", "entity2") if name in infons] or nodes
            if len(pair) != 2 or not infons.get("type"):
                found = shown({"infons": infons, "nodes": nodes})
                raise DocumentError(path, index, title, field, found, "a relation with a type and two entities")
            novelty = {"novelty": infons["novel"]} if infons.get("novel") else {}
            facts.append(AnnotatedFact(*pair, infons["type"], novelty, field))
    return AnnotatedText(title, text, split_joined_ids(mentions, facts), facts, linked=True)


def _in_order(nodes):
    """Nodes of a relation, the head first if their roles say which that is."""
    roles = [str(node.role).lower() for node in nodes]
    return nodes[::-1] if tuple(roles[::-1]) in _ROLES else nodes


def _sentences(passage, number):
    return [(f"passages[{number}].sentences[{place}]", sentence) for place, sentence in enumerate(passage.sentences)]


def _all_parts(document):
    """The document, its passages and their sentences, each of which may have annotations and relations, with their paths."""
    yield "", document
    for number, passage in enumerate(document.passages):
        yield f"passages[{number}].", passage
        for place, sentence in _sentences(passage, number):
            yield f"{place}.", sentence
