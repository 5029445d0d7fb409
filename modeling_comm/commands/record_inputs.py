"""What `comm-docre predict` wrote, read line by line: for commands that take it as their input."""

from collections.abc import Iterator
from typing import Any

from ..documents import DocumentError
from ..prediction_record import PredictionRecord, parse_record
from ..reporting.triple_table import refuse_csv
from .predict_inputs import read_items, source_name


def placed_values(source: str) -> Iterator[tuple[str, Any]]:
    """
    The values of JSON lines, each with what to call its place, such as `"out/triples.jsonl, line 3"`. Empty lines are skipped.

    Raises:
        OSError: the input cannot be read.
        ValueError: a line is no JSON; the message names file and line.
    """
    name = source_name(source)
    for item in read_items(source, "jsonl"):
        place = f"{name}, {item.kind} {item.place}"
        if item.error is not None:
            refuse_csv(item.raw, name)
            raise ValueError(f"{place}: {item.error}")
        yield place, item.document


def read_records(source: str) -> Iterator[PredictionRecord]:
    """
    The records of JSON lines, checked, one after another.

    Raises:
        OSError: the input cannot be read.
        ValueError: a line is no record; the message names file, line and field.
    """
    for place, value in placed_values(source):
        try:
            yield parse_record(value)
        except DocumentError as error:
            raise ValueError(f"{place}: {error}") from error
