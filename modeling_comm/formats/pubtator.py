"""PubTator, the form of CDR, BioRED and of what PubMed's own annotations are exported in."""

import re
from collections.abc import Iterator

from ..documents import Document, DocumentError, shown
from ..utils.files import open_text
from .annotated_text import AnnotatedFact, AnnotatedMention, AnnotatedText, read_each
from .entity_ids import split_joined_ids
from .format_registry import register_format
from .import_report import ImportReport

_NUMBER = re.compile(r"[-+]?\d+(?:\.\d*)?")
_PASSAGE = re.compile(r"([^|\t]+)\|([a-z])\|(.*)")
_HEAD = re.compile(rb"\s*[^|\t\n]+\|t\|")


def looks_like_pubtator(head: bytes, path: str) -> bool:
    """Whether a file begins with a title of PubTator, `12345|t|...`."""
    return _HEAD.match(head.removeprefix(b"\xef\xbb\xbf")) is not None


@register_format("pubtator", "PubTator: CDR, BioRED and others", (".pubtator", ".pubtator.txt"), looks_like_pubtator)
def read_pubtator(path: str, report: ImportReport) -> Iterator[AnnotatedText | Document | DocumentError]:
    """
    Documents of a PubTator file: `id|t|title`, `id|a|abstract`, lines of mentions (id, start, end, text, type, ids, and the
    parts of a mention of several entities, which are not read) and of relations (id, relation, id of head, id of tail, and in
    BioRED whether it is novel, which becomes the label's `novelty`). Offsets count from the title's beginning, with one
    character between title and abstract.

    Args:
        path (`str`): the file, which may be compressed by gzip.
        report ([`ImportReport`]): not used; what is dropped is found when documents are built.

    Raises:
        DocumentError: a line is none of these, or of another document than those around it.
    """
    with open_text(path) as file:
        yield from read_each(_documents(file), lambda index, lines: _document(path, lines))


def _documents(file):
    """The lines of each document with their numbers; each begins with a title."""
    lines = []
    for number, line in enumerate(file, 1):
        line = line.rstrip("\r\n")
        if not line.strip():
            continue
        if (passage := _PASSAGE.fullmatch(line)) and passage[2] == "t" and lines:
            yield lines
            lines = []
        lines.append((number, line))
    if lines:
        yield lines


def _document(path, lines):
    first, passages, mentions, facts = _PASSAGE.fullmatch(lines[0][1]), [], [], []
    name = first and first[1]

    def fail(number, found, expected):
        raise DocumentError(path, None, name, f"line {number}", shown(found), expected)

    for number, line in lines:
        if passage := _PASSAGE.fullmatch(line):
            passages.append(passage[3])
            columns = [passage[1]]
        else:
            columns = line.split("\t")
        if name is None:
            fail(number, line, "a title, id|t|...")
        if columns[0] != name:
            fail(number, columns[0], f"a line of the document {name!r}")
        if passage:
            continue
        if len(columns) >= 5 and columns[1].isdecimal() and columns[2].isdecimal():
            start, end = int(columns[1]), int(columns[2])
            ids = (columns[5].strip() if len(columns) > 5 else "",)
            mentions.append(AnnotatedMention(start, end, columns[4], ids, columns[3], f"line {number}"))
        elif len(columns) >= 5 and all(_NUMBER.fullmatch(column) for column in columns[1:3]):
            fail(number, columns[1:3], "character offsets of a mention, two integers of at least 0")
        elif len(columns) in (4, 5):
            attributes = {"novelty": columns[4]} if len(columns) == 5 else {}
            facts.append(AnnotatedFact(columns[2], columns[3], columns[1], attributes, f"line {number}"))
        else:
            fail(
                number,
                line,
                "a mention (id, start, end, text, type, ids) or a relation (id, relation, head, tail), by tabs",
            )
    # A line break, so that the title is a sentence of its own.
    return AnnotatedText(name, "\n".join(passages), split_joined_ids(mentions, facts), facts, linked=True)
