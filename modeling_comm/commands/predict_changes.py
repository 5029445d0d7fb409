"""What has changed in the input of `comm-docre predict` since an earlier run."""

import json
from collections.abc import Iterable, Iterator

from .predict_inputs import Item
from .predict_outputs import ResumableOutput


def changed_item(items: Iterable[Item], output: ResumableOutput) -> Item | None:
    """
    The first item of an input that is not the one of which an earlier run has written the record or the rejection, as far as
    these tell: a record of a document in DocRED's format does not have all of it, and a table has no record.

    Args:
        items (`Iterable[Item]`): of the input as it is now, with their ids.
        output (`ResumableOutput`): of the earlier run.

    Returns:
        The item; None if there is none, because the input has become shorter for example.
    """
    if output.form != "jsonl":
        return None
    rejected = {_place(one): one["raw"] for one in _lines(output.rejected_path)}
    records = _lines(output.path)
    for item, _ in zip(items, range(output.read), strict=False):
        raw = rejected.get((item.kind, item.place))
        if raw is not None:
            same = raw == item.raw
        elif item.document is None:  # left out, unless it has an error now
            same = item.error is None
        else:
            same = _is_of(next(records, None), item)
        if not same:
            return item
    return None


def _lines(path) -> Iterator[dict]:
    if path.is_file():
        with path.open(encoding="utf-8") as file:
            yield from map(json.loads, file)


def _place(rejection):
    return next((kind, rejection[kind]) for kind in ("line", "document", "file") if kind in rejection)


def _is_of(record, item):
    if record is None or record["id"] != item.id:
        return False
    text = item.document.get("text")
    return not isinstance(text, str) or text == record["text"]
