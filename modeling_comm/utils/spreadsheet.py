"""CSV that spreadsheets read: UTF-8 with a byte order mark, without which Excel takes it for the machine's own encoding."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def csv_header(columns: Sequence[str]) -> bytes:
    """What a file begins with: byte order mark and names of the columns."""
    return BYTE_ORDER_MARK + csv_rows(columns, [dict(zip(columns, columns, strict=True))])


def csv_rows(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> bytes:
    """
    Rows of a file.

    Args:
        columns (`Sequence[str]`): the columns.
        rows (`Iterable[Mapping[str, Any]]`): a value for each of them; None is an empty cell. A text that a spreadsheet
            would take for a formula gets an apostrophe before it.
    """
    text = io.StringIO()
    csv.DictWriter(text, columns).writerows({name: _no_formula(value) for name, value in row.items()} for row in rows)
    # Half of a surrogate pair, which JSON can hold and UTF-8 cannot, is written as its escape.
    return text.getvalue().encode("utf-8", "backslashreplace")


# What a formula begins with, or what is left out before one; the full-width signs, too, which East Asian spreadsheets read alike.
_BEGINNINGS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def _no_formula(value):
    # What is in a text must not run in the spreadsheet of who opens it.
    return f"'{value}" if isinstance(value, str) and value.startswith(_BEGINNINGS) else value
