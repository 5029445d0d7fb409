"""Markdown from unchecked text: it cannot become markup, nor break a table or a block of code."""

import re
from collections.abc import Iterable, Sequence

# Control characters, line ends, and the characters that turn the direction of the text around them.
_INVISIBLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+")
# An underscore within a word marks nothing.
_MARKUP = re.compile(r"[\\`*\[\]<>~#$&]|(?<![^\W_])_|_(?![^\W_])")


class Markdown(str):
    """Text that is Markdown already; [`plain`] and [`table`] leave it as it is."""


def one_line(value: object) -> str:
    """A value's text with line ends and invisible characters replaced by spaces."""
    return _INVISIBLE.sub(" ", str(value)).strip()


def plain(value: object) -> Markdown:
    """A value as text without markup, within a line or a table's cell."""
    return value if isinstance(value, Markdown) else Markdown(_MARKUP.sub(r"\\\g<0>", one_line(value)))


def code(value: object) -> Markdown:
    """A value as code within a line."""
    value = one_line(value) or " "
    fence = "`" * (1 + _longest_fence(value))
    space = " " if "`" in value else ""
    return Markdown(f"{fence}{space}{value}{space}{fence}")


def block(value: object, language: str = "text") -> Markdown:
    """Lines of code."""
    fence = "`" * max(3, 1 + _longest_fence(value))
    return Markdown(f"{fence}{language}\n{value}\n{fence}")


def _longest_fence(value):
    return max(map(len, re.findall("`+", value)), default=0)


def table(header: Iterable, rows: Iterable[Iterable]) -> Markdown:
    """A table of plain text and Markdown, with a dash for None."""
    head, *lines = (
        ["–" if cell is None else plain(cell).replace("|", "\\|") for cell in row] for row in (header, *rows)
    )
    return join_cells(head, lines)


def join_cells(header: Sequence[str], rows: Iterable[Iterable[str]]) -> Markdown:
    """A table of cells that are Markdown already."""
    return Markdown("\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)))
