"""Prodigy: the lines of `db-out`, with spans and relations of `rel.manual` and `coref.manual`. Offsets count characters."""

from collections.abc import Iterator, Mapping
from numbers import Integral

from ..document_input import NOT_ACCEPTED
from ..documents import Document, DocumentChecker, DocumentError
from ..utils.files import iterate_json_lines
from .annotated_text import AnnotatedText, read_each
from .format_registry import register_format
from .import_report import ImportReport
from .marked_text import Link, MarkedText, MarkedTextOptions, SpansByPlace, finish_marked_text, list_or_empty


def looks_like_prodigy(head: bytes, path: str) -> bool:
    """Whether a file has lines of Prodigy's."""
    head = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return head.startswith(b"{") and b'"text"' in head and (b'"_input_hash"' in head or b'"head_span"' in head)


def _links_mentions(path, options):
    return any(
        options.is_coreference(str(relation.get("label")))
        for _, line in iterate_json_lines(path)
        if isinstance(line, Mapping)
        for relation in list_or_empty(line.get("relations"))
        if isinstance(relation, Mapping)
    )


@register_format("prodigy", "Prodigy's JSONL", (".jsonl",), looks_like_prodigy, links_mentions=_links_mentions)
def read_prodigy(
    path: str, report: ImportReport, options: MarkedTextOptions
) -> Iterator[AnnotatedText | Document | DocumentError]:
    """
    Lines with `text`, `spans` (`{"start", "end", "label"}`) and `relations` (`{"head_span", "child_span", "label"}`). Tasks
    that were rejected or ignored are counted, and further labels of a span. A span that only a relation has is a mention, too.

    Args:
        path (`str`): the file.
        report ([`ImportReport`]): is told what is dropped.
        options ([`MarkedTextOptions`]): how it is read.

    Raises:
        DocumentError: a line is not of this form.
    """

    def parse(index, numbered):
        number, line = numbered
        checker = DocumentChecker(line, index, path)
        checker.check(line, Mapping, None, "a task: an object with text, spans and relations")
        if (answer := line.get("answer", "accept")) in NOT_ACCEPTED:
            report.drop(f"tasks with the answer {answer}")
            return None
        return finish_marked_text(_marked(checker, line, number, report, options), report, options, index, path)

    yield from read_each(iterate_json_lines(path), parse)


def _marked(checker, line, number, report, options):
    text = checker.read(line, options.text_field, str, "", "a text; --text_field names another field")
    spans = SpansByPlace()

    def add(span, field):
        checker.check(span, Mapping, field, "a span: an object with start and end")
        start, end = (
            checker.read(span, name, Integral, f"{field}.", "an offset (an integer)") for name in ("start", "end")
        )
        kind = span.get("label")
        return spans.add(start, end, str(kind) if kind else None, field)

    for place, span in enumerate(checker.check(line.get("spans") or [], list, "spans", "a list of spans")):
        with report.reading_mention():
            add(span, f"spans[{place}]")
    links = []
    for place, relation in enumerate(checker.check(line.get("relations") or [], list, "relations", "a list")):
        field = f"relations[{place}]"
        checker.check(relation, Mapping, field, "a relation: an object with head_span, child_span and label")
        head, tail = (add(relation.get(end), f"{field}.{end}") for end in ("head_span", "child_span"))
        links.append(Link(head, tail, checker.read(relation, "label", str, f"{field}.", "a relation's label"), field))
    meta = line.get("meta")
    title = line.get("title") or (meta.get("title") if isinstance(meta, Mapping) else None)
    return MarkedText(str(title or f"document {number}"), text, spans.spans(report), links)
