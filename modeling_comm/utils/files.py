"""Files that several folders find, read and write: JSON, plain or compressed by gzip, written whole or not at all."""

import gzip
import hashlib
import io
import itertools
import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from ..documents import DocumentError, shown
from .writer import write_text

_WHITESPACE = re.compile(r"[ \t\n\r]*")
# JSON that is cut off is found to be wrong, or seems complete (a number), at most this far from its end (a pair of \u
# escapes is the longest piece), or where a string begins that does not end.
_LONGEST_PIECE = 16
_OPEN_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+\\?\Z', re.DOTALL)


def open_text(path: str | os.PathLike) -> TextIO:
    """A JSON file to read as text, also if it is compressed by gzip, whatever its name. It is opened once: a pipe, which can be
    read once only, may be given, too."""
    file = open(path, "rb")  # noqa: SIM115  # closed with what is returned
    content = unpacked(file)
    if isinstance(content, gzip.GzipFile):
        content.myfileobj = file  # type: ignore[assignment]  # which is closed with it
    return io.TextIOWrapper(content, encoding="utf-8-sig")  # type: ignore[arg-type]


def unpacked(stream: io.BufferedReader) -> io.BufferedReader | gzip.GzipFile:
    """The bytes of a stream that is at its start, unpacked if they are compressed by gzip."""
    return gzip.GzipFile(fileobj=stream) if stream.peek(2)[:2] == b"\x1f\x8b" else stream


def refuse_pipe(path: str | os.PathLike, expected: str = "a file") -> None:
    """Raises `ValueError` where `path` is a pipe, for a reader that needs the file twice."""
    if Path(path).is_fifo():
        raise ValueError(f"{path}: found a pipe, which cannot be read twice; expected {expected}")


def files_below(folder: str | os.PathLike) -> list[Path]:
    """
    Everything in a folder and its subfolders that is no folder, in order. Links to folders are followed, but for one that leads
    to a folder in which it is.

    Args:
        folder (`str` or `Path`): the folder.

    Raises:
        OSError: it, or a folder in it, cannot be read.
    """
    return sorted(_files_below(Path(folder), frozenset()))


def _files_below(folder, above):
    status = os.stat(folder)
    entered = above | {(status.st_dev, status.st_ino)}
    if entered == above:  # by a link, without end
        return
    for path in folder.iterdir():
        if path.is_dir():
            yield from _files_below(path, entered)
        else:
            yield path


def no_json(path: str | os.PathLike, error: Exception) -> ValueError:
    """The error of a file that is no JSON, from what was raised when it was read."""
    return ValueError(f"{path}: found no valid JSON ({error}), expected a JSON file")


def read_json(path: str | os.PathLike) -> Any:
    """The content of a JSON file; a `ValueError` that names the file where it is not JSON."""
    try:
        with open_text(path) as file:
            return json.load(file)
    except (ValueError, RecursionError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise no_json(path, error) from error


def read_json_list(path: str | os.PathLike, expected: str) -> list:
    """The content of a JSON file that holds a list; `expected` says of what, for the `ValueError` where it does not."""
    return check_list(read_json(path), path, expected)


def check_list(content: Any, path: str | os.PathLike, expected: str) -> list:
    """The content of a JSON file as it is; a `ValueError` where it is no list."""
    if not isinstance(content, list):
        raise ValueError(f"{path}: found {shown(content)}, expected {expected}")
    return content


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes JSON so that `path` holds either the old content or the new, never a part; see
    [`~modeling_comm.utils.writer.replacing`]."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """What [`write_json`] writes."""
    return json.dumps(value, ensure_ascii=False, indent=1) + "\n"


def file_sha256(path: str | os.PathLike) -> str:
    """SHA-256 of a file as it is stored, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def iterate_json_lines(path: str | os.PathLike) -> Iterator[tuple[int, object]]:
    """
    Values of a file of JSON lines, each with the number of its line, from 1. Empty lines are skipped. A line that is no JSON is a
    [`DocumentError`].
    """
    with open_text(path) as file:
        yield from _json_lines(file, os.fspath(path))


def _json_lines(lines: Iterable[str], source: str) -> Iterator[tuple[int, object]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DocumentError(source, None, None, f"line {number}", str(error), "a line of JSON") from error


def iterate_json_values(path: str | os.PathLike) -> Iterator:
    """Items of a JSON array, or else the values of JSON lines, one after another, in bounded memory. The file is opened and read
    once, as a pipe can be."""
    with open_text(path) as file:
        begun = file.read(1 << 10)
        if begun.lstrip()[:1] == "[":
            yield from iterate_json_array(file, os.fspath(path), begun=begun)
        else:
            lines = itertools.chain(io.StringIO(begun + file.readline()), file)
            yield from (value for _, value in _json_lines(lines, os.fspath(path)))


def iterate_json_array(
    file: TextIO, source: str | None = None, chunk_size: int = 1 << 20, begun: str = ""
) -> Iterator:
    """
    Items of a JSON array, decoded one after another, so that memory holds a piece of the file and never all of it.

    Args:
        file (text file): open for reading, at its start, or behind what is `begun`.
        source (`str`, *optional*): the file's name, for messages.
        chunk_size (`int`, defaults to 1,048,576): characters that are read at a time.
        begun (`str`, *optional*): what was read of the file before.

    Raises:
        DocumentError: the file holds no JSON array, an item is no JSON, or the file ends before the array does.
    """
    decoder, text, position, index = json.JSONDecoder(), begun, 0, 0

    def read_more():
        nonlocal text, position
        # At least as much as is still to be decoded: a long item is then decoded a few times, not once a chunk.
        chunk = file.read(max(chunk_size, len(text) - position))
        if chunk:
            text, position = text[position:] + chunk, 0
        return bool(chunk)

    def next_character():
        nonlocal position
        while True:
            position = _WHITESPACE.match(text, position).end()
            if position < len(text) or not read_more():
                return text[position : position + 1]

    def check(expected, *characters):
        character = next_character()
        if character not in characters:
            found = repr(text[position : position + 20]) if character else "the end of the file"
            raise DocumentError(source, index, None, None, found, expected)
        return character

    check("a JSON array, '[', of documents; `comm-docre import` converts other forms", "[")
    position += 1
    more = next_character() != "]"
    if not more:
        position += 1
    while more:
        next_character()
        while True:
            try:
                item, end = decoder.raw_decode(text, position)
            except json.JSONDecodeError as error:
                cut_off = error.pos > len(text) - _LONGEST_PIECE or _OPEN_STRING.match(text, error.pos)
                if cut_off and read_more():
                    continue
                found = f"{error.msg} at {text[error.pos : error.pos + 20]!r}"
                expected = "a JSON object; is the file complete?" if cut_off else "a JSON object"
                raise DocumentError(source, index, None, None, found, expected) from None
            except (ValueError, RecursionError) as error:  # a number of a million digits, a thousand brackets
                raise DocumentError(source, index, None, None, str(error), "a JSON object") from None
            if end <= len(text) - _LONGEST_PIECE or not read_more():
                break
        position = end
        more = check("',' or ']' after it; is the file complete?", ",", "]") == ","
        position += 1
        yield item
        index += 1
    check("nothing after the array", "")
