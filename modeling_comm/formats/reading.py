"""Documents of files in any registered format, one at a time, each checked."""

import gzip
import os
import zlib
from collections.abc import Iterator

from ..data.bad_parts import drop_bad_parts
from ..data.reading import ON_BAD_DOCUMENT
from ..documents import Document, DocumentError, validate_document
from .annotated_text import AnnotatedText, document_of_text
from .format_registry import Format, input_files
from .import_report import ImportReport

# Labels of pairs in which no relation holds: no facts, in the files that list them.
NULL_LABELS = frozenset(("Na", "NA", "NR", "no_relation"))


def read_documents(
    source: str | os.PathLike,
    format: str | None = None,
    report: ImportReport | None = None,
    on_bad_document: str = "error",
    null_label: str | None = None,
) -> Iterator[Document]:
    """
    Documents of a file or a folder in a registered format, in DocRED's form.

    Args:
        source (`str`): a file, which may be compressed by gzip, or a folder of files.
        format (`str`, *optional*): the format's name; it is guessed by default, see [`~format_registry.input_files`].
        report ([`ImportReport`], *optional*): is given the counts of what was read, and of what was dropped: facts of an entity
            with itself, facts that are listed twice, labels that mean no relation, and what the reader drops.
        on_bad_document (`str`, defaults to `"error"`): `"error"` raises, `"skip"` leaves out the document, `"drop_part"` leaves
            out mentions, entities and facts that do not fit, or else the document. A file that cannot be parsed always raises.
        null_label (`str`, *optional*): a label that means no relation, beside `Na`, `NA`, `NR` and `no_relation`.

    Raises:
        DocumentError: a document is malformed; the message names file, document, field, what was found and what was expected.
        FileNotFoundError, SettingError, ValueError: as in [`~format_registry.input_files`].
        ImportError: the format needs an extra that is not installed; the message names it.
    """
    if on_bad_document not in ON_BAD_DOCUMENT:
        raise ValueError(f"on_bad_document is {on_bad_document!r}; expected one of {', '.join(ON_BAD_DOCUMENT)}")
    report = ImportReport() if report is None else report
    null_labels = NULL_LABELS | {null_label}
    for path, form in input_files(source, format):
        yield from _read_file(path, form, report, on_bad_document, null_labels)


def _read_file(path, form: Format, report, on_bad_document, null_labels):
    index = -1
    try:
        for index, item in enumerate(form.read(path, report)):
            try:
                document = _finished(item, report, index, path, null_labels)
                if on_bad_document == "drop_part":
                    document, parts = drop_bad_parts(document, index=index, source=path)
                    for kind, number in parts.items():
                        report.drop(f"{kind} that do not fit", number)
                else:
                    validate_document(document, index=index, source=path)
            except DocumentError as error:
                if on_bad_document == "error":
                    raise
                report.skipped.append(error)
                continue
            report.add(document)
            yield document
    except (UnicodeDecodeError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        expected = "UTF-8 text, plain or compressed by gzip; is the file complete?"
        raise DocumentError(path, index + 1, None, None, str(error), expected) from error


def _finished(item, report, index, path, null_labels):
    """A document whose labels are facts between two entities, each once."""
    document = document_of_text(item, report, index=index, source=path) if isinstance(item, AnnotatedText) else item
    labels = document.get("labels") if isinstance(document, dict) else None
    if not isinstance(labels, list) or not all(isinstance(label, dict) for label in labels):
        return document  # the check of documents says what is wrong with it, if anything
    kept = {}
    for label in labels:
        fact = tuple(label.get(name) for name in ("h", "t", "r"))
        if fact[2] in null_labels:
            report.drop("labels that mean no relation")
        elif fact[0] == fact[1] and fact[0] is not None:
            report.drop("facts of an entity with itself")
        elif str(fact) in kept:
            report.drop("facts that are listed twice")
        else:
            kept[str(fact)] = label
    return {**document, "labels": list(kept.values())}
