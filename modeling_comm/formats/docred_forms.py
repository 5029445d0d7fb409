"""DocRED's format in its forms: an array of documents, one document per line, the columns of the Hub, Parquet."""

import json
from collections.abc import Iterator, Mapping

from ..documents import Document, DocumentChecker, DocumentError, shown
from ..utils.files import iterate_json_array, open_text
from ..utils.imports import of_extra
from .annotated_text import AnnotatedText, read_each
from .format_registry import register_format
from .import_report import ImportReport

# Names of a label's fields on the Hub, by ours.
_HUB_FIELDS = {"h": "head", "t": "tail", "r": "relation_id"}


def looks_like_docred(head: bytes, path: str) -> bool:
    """Whether a file is JSON whose first object has the field `vertexSet`."""
    return head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"[", b"{") and b'"vertexSet"' in head


def looks_like_parquet(head: bytes, path: str) -> bool:
    """Whether a file begins as Parquet does."""
    return head.startswith(b"PAR1")


@register_format(
    "docred",
    "DocRED's form: a JSON array or JSON lines; labels as rows, or as the Hub's columns",
    (".json", ".jsonl"),
    looks_like_docred,
)
def read_docred(path: str, report: ImportReport) -> Iterator[AnnotatedText | Document | DocumentError]:
    """
    Documents in DocRED's form, from a JSON array or one per line. Labels may be what the Hub has, an object of lists with `head`,
    `tail`, `relation_id`, `relation_text` and `evidence`, and so may the mentions of an entity.

    Args:
        path (`str`): the file, which may be compressed by gzip.
        report ([`ImportReport`]): is given names of relations, where labels have them.

    Raises:
        DocumentError: it is no JSON, or columns are of different lengths.
    """
    with open_text(path) as file:
        while (first := file.read(1)).isspace():
            pass
        file.seek(0)
        items = iterate_json_array(file, path) if first == "[" else _lines(file, path)
        yield from read_each(items, lambda index, item: _of_columns(item, report, index, path))


@register_format("parquet", "Parquet whose rows are in DocRED's form", (".parquet",), looks_like_parquet, "training")
def read_parquet(path: str, report: ImportReport) -> Iterator[AnnotatedText | Document | DocumentError]:
    """
    Documents of a Parquet file whose rows are in DocRED's form, as the Hub has it, or as `dataset_scripts.publish` writes it
    (`has_labels` is false where a document has none).

    Args:
        path (`str`): the file, which may be compressed by gzip.
        report ([`ImportReport`]): is given names of relations, where labels have them.

    Raises:
        DocumentError: columns are of different lengths.
        ImportError: `pyarrow` is missing.
        ValueError: it is no Parquet.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError(f"Parquet needs {error.name!r}{of_extra('training')}") from error
    with open_text(path) as file:
        try:
            table = parquet.ParquetFile(file.buffer)
        except pyarrow.ArrowInvalid as error:
            raise ValueError(f"{path}: found {error}, expected Parquet") from error
        yield from read_each(_table_rows(table), lambda index, row: _of_columns(row, report, index, path))


def _table_rows(table):
    for batch in table.iter_batches(batch_size=64):
        for row in batch.to_pylist():
            row = {name: value for name, value in row.items() if value is not None}
            if not row.pop("has_labels", True):
                row.pop("labels", None)
            yield row


def _lines(file, path):
    index = 0
    for number, line in enumerate(file, 1):
        if line.strip():
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:
                expected = "a document per line, or an array of documents"
                raise DocumentError(path, index, None, f"line {number}", f"no JSON ({error})", expected) from None
            index += 1


def _of_columns(document, report, index, path):
    """A document whose labels and mentions are lists of objects, whatever form they have; other fields stay what they are."""
    DocumentChecker(document, index, path).check(document, Mapping, None, "a document: an object in DocRED's form")
    document = dict(document)
    where = (path, index, document.get("title"))
    if isinstance(document.get("vertexSet"), list):
        document["vertexSet"] = [
            _rows(mentions, f"vertexSet[{number}]", where) if isinstance(mentions, Mapping) else mentions
            for number, mentions in enumerate(document["vertexSet"])
        ]
    labels = document.get("labels")
    if isinstance(labels, Mapping):
        labels = _rows(labels, "labels", where)
    if isinstance(labels, list):
        document["labels"] = [_label(label, report) if isinstance(label, Mapping) else label for label in labels]
    return document


def _rows(columns, field, where):
    sizes = {len(column) if isinstance(column, list) else None for column in columns.values()}
    if len(sizes) > 1 or None in sizes:
        raise DocumentError(*where, field, shown(columns), "lists of one length")
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _label(label, report):
    label = {name: value for name, value in label.items() if value is not None}
    for ours, hub in _HUB_FIELDS.items():
        if ours not in label and hub in label:
            label[ours] = label.pop(hub)
    name, relation = label.pop("relation_text", None), label.get("r")
    if isinstance(name, str) and isinstance(relation, str):
        report.relation_names.setdefault(relation, name)
    return label
