"""Offsets in a text as other programs count them, and as this library does: in Unicode characters, as Python."""

import bisect
from collections.abc import Iterable

CHARACTERS, UTF16 = "characters", "utf16"
OFFSET_UNITS = (CHARACTERS, UTF16)


class Utf16Offsets:
    """
    Offsets of a text in UTF-16 units, as JavaScript and Java count: a character beyond U+FFFF, such as an emoji, is two.

    Example:

    ```python
    >>> from modeling_comm.formats.text_offsets import Utf16Offsets
    >>> offsets = Utf16Offsets("😀 Oslo")
    >>> offsets.from_characters(2), offsets.to_characters(3), offsets.to_characters(1)
    (3, 2, None)

    ```
    """

    def __init__(self, text: str):
        self._wide = [place for place, character in enumerate(text) if ord(character) > 0xFFFF]
        # Where each of them begins in units of UTF-16.
        self._wide_units = [place + number for number, place in enumerate(self._wide)]

    def from_characters(self, offset: int) -> int:
        """An offset in characters in units of UTF-16."""
        return offset + bisect.bisect_left(self._wide, offset)

    def to_characters(self, offset: int) -> int | None:
        """An offset in units of UTF-16 in characters, or None where it is in the middle of one."""
        before = bisect.bisect_left(self._wide_units, offset)
        if before and self._wide_units[before - 1] == offset - 1:
            return None
        return offset - before


def unit_of_spans(text: str, spans: Iterable[tuple[int, int, str]], unit: str) -> str:
    """
    The unit that a text's spans are in: that in which most of them are what is stated.

    Args:
        text (`str`): the text.
        spans (`Iterable[tuple[int, int, str]]`): start, end and what is stated to stand there.
        unit (`str`): which it is where both fit as many.
    """
    spans = list(spans)
    units = sorted(OFFSET_UNITS, key=unit.__ne__)  # the given one first

    def fitting(counted):
        found = (find_span(text, *span[:2], counted, span[2]) for span in spans)
        return sum(one is not None and one[2] == counted for one in found)

    return max(units, key=fitting)


def find_span(text: str, start: int, end: int, unit: str, stated: str | None) -> tuple[int, int, str] | None:
    """
    A span in characters.

    Args:
        text (`str`): the text.
        start, end (`int`): the span `[start, end)` in `unit`.
        unit (`str`): `"characters"` or `"utf16"`. Where the other one alone gives the text that is stated, it is that.
        stated (`str`, *optional*): what the source says that stands there; white space may differ.

    Returns:
        Start, end and the unit; None where the span gives another text than is stated, or ends in the middle of a character.
    """
    offsets = Utf16Offsets(text)
    for counted in sorted(OFFSET_UNITS, key=unit.__ne__):  # the given one first
        span = (start, end) if counted == CHARACTERS else (offsets.to_characters(start), offsets.to_characters(end))
        fits = None not in span and stated in (None, text[max(0, span[0]) : max(0, span[1])])
        if fits or (None not in span and stated is not None and stated.split() == text[slice(*span)].split()):
            return (*span, counted)
        if stated is None:
            break
    return None
