"""doccano: JSON lines with entities and relations, out and in.

Its offsets count UTF-16 units, as JavaScript does (unless a project counts "grapheme clusters as one character", which is not
read here): an emoji is two of them."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from numbers import Integral

from ..documents import Document, DocumentChecker, DocumentError
from ..utils.files import iterate_json_lines
from ..utils.writer import replacing
from .annotated_text import AnnotatedText, read_each
from .format_registry import register_format, register_writer
from .import_report import ImportReport
from .marked_text import (
    COREFERENCE_FIELD,
    Link,
    MarkedSpan,
    MarkedText,
    MarkedTextOptions,
    finish_marked_text,
    span_id,
)
from .pre_annotation import PreAnnotation, PreAnnotationLabels
from .text_offsets import UTF16, Utf16Offsets, find_span


def looks_like_doccano(head: bytes, path: str) -> bool:
    """Whether a file has lines with spans as doccano writes them."""
    head = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return head.startswith(b"{") and b'"text"' in head and b'"start_offset"' in head


def _links_mentions(path, options):
    return any(
        isinstance(line, Mapping)
        and (COREFERENCE_FIELD in line or any(map(options.is_coreference, _relation_types(line))))
        for _, line in iterate_json_lines(path)
    )


def _relation_types(line):
    relations = line.get("relations")
    return (
        [str(one.get("type")) for one in relations if isinstance(one, Mapping)] if isinstance(relations, list) else []
    )


@register_format(
    "doccano", "doccano's JSONL with relations", (".jsonl",), looks_like_doccano, links_mentions=_links_mentions
)
def read_doccano(
    path: str, report: ImportReport, options: MarkedTextOptions
) -> Iterator[AnnotatedText | Document | DocumentError]:
    """
    Lines `{"text", "entities": [{"id", "label", "start_offset", "end_offset"}], "relations": [{"from_id", "to_id", "type"}]}`.
    Of a project without relations, `label` (`[[start, end, label], ...]`) is read.

    Args:
        path (`str`): the file.
        report ([`ImportReport`]): is told what is dropped.
        options ([`MarkedTextOptions`]): how it is read.

    Raises:
        DocumentError: a line is not of this form, or an offset is in the middle of a character.
    """

    def parse(index, numbered):
        number, line = numbered
        checker = DocumentChecker(line, index, path)
        checker.check(line, Mapping, None, "an object with text, entities and relations")
        marked = _marked(checker, line, number, report, options)
        return finish_marked_text(marked, report, options.for_relation(line.get(COREFERENCE_FIELD)), index, path)

    yield from read_each(iterate_json_lines(path), parse)


def _marked(checker, line, number, report, options):
    text = checker.read(line, options.text_field, str, "", "a text; --text_field names another field")
    if "entities" in line:
        entities = [
            (checker.check(entity, Mapping, f"entities[{place}]", "an entity"), f"entities[{place}]")
            for place, entity in enumerate(checker.read(line, "entities", list, "", "a list of entities"))
        ]
    else:
        expected = "entities (of a project with relations), or label: a list of [start, end, label]"
        entities = []
        for place, one in enumerate(checker.read(line, "label", list, "", expected)):
            field = f"label[{place}]"
            if not isinstance(one, list) or len(one) != 3:
                checker.fail(field, one, "[start, end, label]")
            start, end, label = one
            entities.append(({"id": place, "start_offset": start, "end_offset": end, "label": label}, field))
    spans = []
    for entity, field in entities:
        with report.reading_mention():
            spans.append(_span(checker, text, entity, field, options))
    links = []
    for place, relation in enumerate(checker.check(line.get("relations") or [], list, "relations", "a list")):
        field = f"relations[{place}]"
        checker.check(relation, Mapping, field, "a relation: an object with from_id, to_id and type")
        kind = checker.read(relation, "type", str, f"{field}.", "a relation's label")
        head, tail = (span_id(relation.get(name)) for name in ("from_id", "to_id"))
        links.append(Link(head, tail, kind, field))
    report.drop("comments", len(checker.check(line.get("Comments") or [], list, "Comments", "a list of comments")))
    title = line.get("title")
    if not isinstance(title, str) or not title.strip():
        title = f"document {line.get('id', number)}"
    return MarkedText(title, text, spans, links)


def _span(checker, text, entity, field, options):
    start, end = (
        checker.read(entity, name, Integral, f"{field}.", "an offset (an integer)")
        for name in ("start_offset", "end_offset")
    )
    found = find_span(text, start, end, options.offset_unit or UTF16, None)
    if found is None:
        expected = "offsets in UTF-16 units; `--offset_unit characters` reads others"
        checker.fail(field, [start, end], expected, ", in the middle of a character")
    kind = checker.read(entity, "label", str, f"{field}.", "a label")
    return MarkedSpan(span_id(entity.get("id")), found[0], found[1], kind, field)


@register_writer("doccano")
def write_doccano(
    path: str | os.PathLike,
    documents: Iterable[PreAnnotation],
    labels: PreAnnotationLabels,
    model_version: str,
) -> list[str]:
    """
    JSON lines that a project of the kind "sequence labeling" imports which uses relations and allows overlapping spans.

    Args:
        path (`str`): the file.
        documents (`Iterable[PreAnnotation]`): one after another.
        labels ([`PreAnnotationLabels`]): all labels of the documents.
        model_version (`str`): not used; doccano's labels have no such thing.

    Returns:
        The files that were written.
    """
    with replacing(path) as file:
        for document in documents:
            # In ASCII, because doccano guesses a file's encoding, not always rightly.
            file.write((json.dumps(_line(document, labels)) + "\n").encode("ascii"))
    return [os.fspath(path)]


def _line(document, labels):
    marked = document.marked
    offsets = Utf16Offsets(marked.text)
    return {
        "text": marked.text,
        "title": marked.title,
        COREFERENCE_FIELD: labels.coreference,
        "entities": [
            {
                "id": int(span.id),
                "label": span.type,
                "start_offset": offsets.from_characters(span.start),
                "end_offset": offsets.from_characters(span.end),
            }
            for span in marked.spans
        ],
        "relations": [
            {"id": number, "from_id": int(head), "to_id": int(tail), "type": label}
            for number, (head, tail, label) in enumerate(document.labelled_links(labels), 1)
        ],
    }
