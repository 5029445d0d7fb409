"""What has changed in the input of `comm-docre predict` since an earlier run."""

from collections.abc import Iterable

from .predict_inputs import Item
from .predict_outputs import ResumableOutput


def changed_item(items: Iterable[Item], output: ResumableOutput) -> Item | None:
    """
    The first item of an input that is not the one of which an earlier run has written the record or the rejection, as far as
    these tell: a record has the text of its document and not its mentions, and a table has no record.

    Args:
        items (`Iterable[Item]`): of the input as it is now, with their ids.
        output (`ResumableOutput`): of the earlier run.

    Returns:
        The item; None if there is none, because the input has become shorter for example.
    """
    if output.form != "jsonl":
        return None
    records, rejections = output.written_lines()
    rejected = {_place(one): one["raw"] for one in rejections}
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


def _place(rejection):
    return next((kind, rejection[kind]) for kind in ("line", "document", "file") if kind in rejection)


def _is_of(record, item):
    if record is None or record["id"] != item.id:
        return False
    if "vertexSet" not in item.document:
        text = item.document.get("text")
        return not isinstance(text, str) or text == record["text"]
    try:
        return record["text"] == " ".join(" ".join(sentence) for sentence in item.document["sents"])
    except (KeyError, TypeError):  # JSON lines are checked when they are predicted
        return False
