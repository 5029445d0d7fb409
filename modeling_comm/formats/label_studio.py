"""Label Studio: its JSON export, and predictions that it imports.

Offsets of its `Text` tag count characters; in older versions they counted UTF-16 units, which shows by a region's text."""

import json
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator, Mapping
from numbers import Integral
from pathlib import Path

from ..documents import Document, DocumentChecker, DocumentError
from ..utils.files import iterate_json_array, open_text
from ..utils.writer import replacing, write_bytes
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
    list_or_empty,
    span_id,
)
from .pre_annotation import PreAnnotation, PreAnnotationLabels
from .text_offsets import CHARACTERS, find_span, unit_of_spans

_LABELS, _TEXT = "label", "text"


def looks_like_label_studio(head: bytes, path: str) -> bool:
    """Whether a file begins with a list of Label Studio's tasks."""
    head = head.lstrip(b"\xef\xbb\xbf \r\n\t")
    results = (b'"annotations"', b'"completions"', b'"predictions"')
    return head.startswith(b"[") and b'"data"' in head and any(name in head for name in results)


def _links_mentions(path, options):
    unread = ImportReport()
    return any(
        _coreference(task) is not None or any(map(options.is_coreference, _relation_labels(_annotation(task, unread))))
        for task in _tasks(path)
    )


@register_format(
    "label-studio",
    "Label Studio's JSON export",
    (".json",),
    looks_like_label_studio,
    links_mentions=_links_mentions,
)
def read_label_studio(
    path: str, report: ImportReport, options: MarkedTextOptions
) -> Iterator[AnnotatedText | Document | DocumentError]:
    """
    Tasks of an export, by `Labels` and `Relations` on a `Text`. Of several annotations of a task the ground truth is read, else
    the last one. What is not read is counted: tasks without an annotation, cancelled and further annotations, other results.

    Args:
        path (`str`): the file.
        report ([`ImportReport`]): is told what is dropped.
        options ([`MarkedTextOptions`]): how it is read.

    Raises:
        DocumentError: a task is not of this form; offsets are not those of a region's text.
    """

    def parse(index, task):
        checker = DocumentChecker(task, index, path)
        checker.check(task, Mapping, None, "a task: an object with data and annotations")
        checker.read(
            task, "data", Mapping, "", "a task with data; Label Studio exports these as JSON, not as JSON-MIN"
        )
        for name in ("annotations", "completions"):
            checker.check(task.get(name) or [], list, name, "a list of annotations")
        annotation = _annotation(task, report)
        if annotation is None:
            report.drop("documents without an annotation")
            return None
        checker = DocumentChecker(task["data"], index, path)  # which has the title
        marked = _marked(checker, task, annotation, index, report, options)
        return finish_marked_text(marked, report, options.for_relation(_coreference(task)), index, path)

    yield from read_each(_tasks(path), parse)


def _tasks(path):
    with open_text(path) as file:
        yield from iterate_json_array(file, path)


def _data(task):
    data = task.get("data") if isinstance(task, Mapping) else None
    return data if isinstance(data, Mapping) else {}


def _coreference(task):
    return _data(task).get(COREFERENCE_FIELD)


def _annotation(task, report):
    """The annotation of a task that is read, or None."""
    annotations = task.get("annotations", task.get("completions")) if isinstance(task, Mapping) else None
    annotations = [one for one in list_or_empty(annotations) if isinstance(one, Mapping)]
    valid = [one for one in annotations if not one.get("was_cancelled")]
    report.drop("cancelled annotations", len(annotations) - len(valid))
    report.drop("annotations of documents that have another one", max(0, len(valid) - 1))
    truths = [one for one in valid if one.get("ground_truth")]
    return (truths or valid or [None])[-1]


def _relation_labels(annotation):
    for result in list_or_empty((annotation or {}).get("result")):
        if isinstance(result, Mapping) and result.get("type") == "relation":
            yield from map(str, list_or_empty(result.get("labels")))


def _marked(checker, task, annotation, index, report, options):
    data = task["data"]
    expected = "the text that was annotated; --text_field names another field of data"
    text = checker.read(data, options.text_field, str, "data.", expected)
    results = checker.read(annotation, "result", list, "annotations[].", "a list of regions and relations")
    unit = options.offset_unit or unit_of_spans(text, _stated(results), CHARACTERS)
    spans, links = [], []
    for number, result in enumerate(results):
        field = f"result[{number}]"
        checker.check(result, Mapping, field, "a region or a relation")
        kind = result.get("type")
        if kind == "labels":
            with report.reading_mention():
                spans.append(_span(checker, text, result, field, report, unit))
        elif kind == "relation":
            links += _links(checker, result, field, report)
        else:
            report.drop(f"results of the type {kind}")
    title = data.get("title")
    if not isinstance(title, str) or not title.strip():
        title = f"task {task.get('id', index + 1)}"
    return MarkedText(title, text, spans, links)


def _stated(results):
    """Start, end and text of the regions that have all of them: a task's are all in one unit."""
    for result in results:
        value = result.get("value") if isinstance(result, Mapping) else None
        if isinstance(value, Mapping) and isinstance(value.get("text"), str):
            span = value.get("start"), value.get("end")
            if all(isinstance(offset, int) for offset in span):
                yield (*span, value["text"])


def _span(checker, text, result, field, report, unit):
    value = checker.read(result, "value", Mapping, f"{field}.", "an object with start, end and labels")
    start, end = (
        checker.read(value, name, Integral, f"{field}.value.", "an offset (an integer)") for name in ("start", "end")
    )
    stated = value.get("text") if isinstance(value.get("text"), str) else None
    found = find_span(text, start, end, unit, stated)
    if found is None:
        there = f", where the text is {text[max(0, start) : max(0, end)]!r}"
        checker.fail(f"{field}.value", [start, end], f"the offsets of {stated!r}, the region's text", there)
    labels = checker.check(value.get("labels") or [], list, f"{field}.value.labels", "a list of labels")
    report.drop("further labels of a mention", max(0, len(labels) - 1))
    return MarkedSpan(span_id(result.get("id")), found[0], found[1], str(labels[0]) if labels else None, field)


def _links(checker, result, field, report):
    """A relation has a direction and any number of labels."""
    ends = [span_id(result.get(name)) for name in ("from_id", "to_id")]
    direction = result.get("direction", "right")
    directions = {"right": [ends], "left": [ends[::-1]], "bi": [ends, ends[::-1]]}
    if not isinstance(direction, str) or direction not in directions:
        checker.fail(f"{field}.direction", direction, "right, left or bi")
    labels = checker.check(result.get("labels") or [], list, f"{field}.labels", "a list of labels")
    if not labels:
        report.drop("relations without a label")
    return [Link(head, tail, str(label), field) for head, tail in directions[direction] for label in labels]


# ------------------------------------------------------------------------------------------------------------- writing


@register_writer("label-studio")
def write_label_studio(
    path: str | os.PathLike,
    documents: Iterable[PreAnnotation],
    labels: PreAnnotationLabels,
    model_version: str,
) -> list[str]:
    """
    Tasks with predictions, which Label Studio imports, and beside them the labelling configuration of the project, with the same
    name but `.xml`.

    Args:
        path (`str`): the file, a JSON array.
        documents (`Iterable[PreAnnotation]`): one after another.
        labels ([`PreAnnotationLabels`]): all labels of the documents.
        model_version (`str`): what the tool calls the predictions.

    Returns:
        The files that were written.

    Raises:
        ValueError: the name ends in `.xml`.
    """
    configuration = Path(path).with_suffix(".xml")
    if configuration == Path(path):
        raise ValueError(
            f"--output is {path}; expected another suffix, such as .json: the configuration is written there"
        )
    with replacing(path) as file:
        number = -1
        for number, document in enumerate(documents):
            task = json.dumps(_task(document, labels, model_version), ensure_ascii=False)
            file.write(f"{',' if number else '['}\n{task}".encode())
        file.write(b"\n]\n" if number >= 0 else b"[]\n")
    write_bytes(configuration, _configuration(labels))
    return [os.fspath(path), os.fspath(configuration)]


def _task(document, labels, model_version):
    marked = document.marked
    regions = [
        {
            "id": span.id,
            "from_name": _LABELS,
            "to_name": _TEXT,
            "type": "labels",
            "value": {
                "start": span.start,
                "end": span.end,
                "text": marked.text[span.start : span.end],
                "labels": [span.type],
            },
        }
        for span in marked.spans
    ]
    relations = [
        {"type": "relation", "from_id": head, "to_id": tail, "direction": "right", "labels": [label]}
        for head, tail, label in document.labelled_links(labels)
    ]
    prediction = {"model_version": model_version, "result": regions + relations}
    if document.score is not None:
        prediction["score"] = document.score
    data = {"text": marked.text, "title": marked.title, COREFERENCE_FIELD: labels.coreference}
    return {"data": data, "predictions": [prediction]}


def _configuration(labels):
    """The configuration of a project. Without the style, white space is not kept, and offsets are wrong."""
    view = ElementTree.Element("View")
    relations = ElementTree.SubElement(view, "Relations")
    for name in (*labels.relations.values(), labels.coreference):
        ElementTree.SubElement(relations, "Relation", value=name)
    types = ElementTree.SubElement(view, "Labels", name=_LABELS, toName=_TEXT)
    for name in labels.types:
        ElementTree.SubElement(types, "Label", value=name)
    ElementTree.SubElement(view, "Style").text = ".htx-text{ white-space: pre-wrap; }"
    ElementTree.SubElement(view, "Text", name=_TEXT, value="$text", granularity="symbol")
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="utf-8") + b"\n"
