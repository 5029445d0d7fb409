"""Documents of `comm-docre predict`, one at a time: from JSON lines, an array of documents, text files, or standard input."""

import contextlib
import gzip
import hashlib
import io
import json
import os
import sys
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from ..document_input import NOT_ACCEPTED
from ..documents import shown, validate_document
from ..utils.files import files_below, iterate_json_array, open_text, unpacked

STANDARD_STREAM = "-"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_JSON_SUFFIXES = {".json", ".jsonl"}


class Item(NamedTuple):
    """The part of an input that is one document.

    Attributes:
        kind (`str`): what it is a part of the input as, `"line"`, `"document"` (of an array) or `"file"`.
        place (`int` or `str`): number of the line or document, from 1; name of the file.
        raw (`str`): as it is in the input; bytes that are no UTF-8 as `\\xff`.
        document (`dict`, *optional*): an input of the pipeline, perhaps with an `"id"`; None if it cannot be read, or, without
            an error, if its annotator has not accepted it.
        error (`str`, *optional*): why it cannot be read.
        id (`int` or `str`, *optional*): what the record of the document is called, see [`with_ids`].
    """

    kind: str
    place: int | str
    raw: str
    document: dict | None = None
    error: str | None = None
    id: int | str | None = None


def read_items(source: str, form: str) -> Iterator[Item]:
    """
    Items of an input, in bounded memory. JSON may be compressed by gzip.

    Args:
        source (`str`): file; for `"txt"` also a folder; `"-"` for standard input.
        form (`str`): `"txt"` (a file is a document; a folder has one in each of its [`text_files`]), `"jsonl"` (a line is a text
            or an object that the pipeline takes; empty lines are skipped) or `"docred"` (a JSON array of documents in
            DocRED's format, or one per line).

    Raises:
        OSError: the input cannot be read.
        ValueError: the rest cannot be read after a mistake: an array that is no JSON, a compressed file that breaks off, JSON
            in another form than `form`.
    """
    try:
        if form == "txt":
            yield from _text_items(source)
        else:
            with _open_bytes(source) as stream:
                yield from _document_items(stream, source, form == "docred")
    except (UnicodeDecodeError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        name = source_name(source)
        raise ValueError(
            f"{name}: found {error}, expected UTF-8, plain or compressed by gzip; is it complete?"
        ) from error


def source_name(source: str) -> str:
    """What an input is called in messages."""
    return "standard input" if source == STANDARD_STREAM else source


def standard_input() -> io.BufferedReader:
    """The bytes of standard input; a `ValueError` where it is closed."""
    if sys.stdin is None:
        raise ValueError(f"standard input is closed; expected documents there, or a file instead of {STANDARD_STREAM}")
    return sys.stdin.buffer  # type: ignore[return-value]


@contextlib.contextmanager
def _open_bytes(source):
    if source == STANDARD_STREAM:
        yield unpacked(standard_input())
    else:
        with open_text(source) as file:
            yield file.buffer


def _text_items(source):
    folder = Path(source)
    if source == STANDARD_STREAM:
        yield _text_item(standard_input().read(), "standard input", "")
    elif not folder.is_dir():
        _refuse_json(folder)
        yield _text_item(folder.read_bytes(), folder.name, folder.stem)
    else:
        files, _ = text_files(folder)
        if not files:
            raise ValueError(f"{source}: found a folder without .txt files, expected one with a document in each")
        for file in files:
            name = file.relative_to(folder)
            try:
                content = file.read_bytes()
            except OSError as error:
                yield Item("file", name.as_posix(), "", error=str(error))
            else:
                yield _text_item(content, name.as_posix(), name.with_suffix("").as_posix())


def _refuse_json(file):
    """As a text, all documents of a file would be one, which no memory holds."""
    if _JSON_SUFFIXES & {suffix.lower() for suffix in file.suffixes}:
        with _open_bytes(file) as stream:
            if _first_bytes(stream).startswith((b"[", b"{", b'"')):
                raise ValueError(f"{file}: found JSON, expected plain text; is --format jsonl or docred meant?")


def _first_bytes(stream):
    return stream.peek(1).removeprefix(_BYTE_ORDER_MARK).lstrip()


def text_files(folder: str | os.PathLike) -> tuple[list[Path], list[Path]]:
    """The .txt files in a folder and its subfolders, as [`files_below`] finds them, and the other files. A link to nowhere is one
    of the former: who reads it is told."""
    paths = files_below(folder)
    files = [path for path in paths if path.suffix.lower() == ".txt" and (path.is_file() or not path.exists())]
    return files, sorted({*paths} - {*files})


def _text_item(content, name, title):
    raw, error = _decode(content)
    title = title.encode("utf-8", "backslashreplace").decode()  # names of files may be any bytes
    document = {"text": raw, "title": title} if error is None else None
    return Item("file", name, raw, document, error)


def _decode(content):
    try:
        return content.decode("utf-8-sig"), None
    except UnicodeDecodeError as error:
        found = f"found the byte {content[error.start]:#04x} at position {error.start}, expected UTF-8"
        found += "; `iconv -f latin1 -t utf8` converts a text in Latin-1"
        return content.decode("utf-8", "backslashreplace"), found


def _document_items(stream, source, docred):
    name = source_name(source)
    array = _first_bytes(stream).startswith(b"[")
    if docred and array:
        text = io.TextIOWrapper(stream, encoding="utf-8-sig")
        for number, value in enumerate(iterate_json_array(text, name), start=1):
            yield _checked(Item("document", number, _as_json(value), value), docred)
        return
    for number, line in enumerate(stream, start=1):
        raw, error = _decode(line.rstrip(b"\r\n"))
        if not raw.strip():
            continue
        value = None
        if error is None:
            try:
                value = json.loads(raw)
            except json.JSONDecodeError as wrong:
                if array:  # over several lines, all of which would be wrong
                    expected = "one document per line; `predict --format docred` reads an array of documents in DocRED's format"
                    raise ValueError(f"{name}: found the beginning of a JSON array, expected {expected}") from None
                error = f"found no valid JSON ({wrong.msg} at character {wrong.pos}), expected one document per line"
            except (ValueError, RecursionError) as wrong:  # a number of a million digits, a thousand brackets
                error = f"found no valid JSON ({wrong}), expected one document per line"
        array = False
        item = Item("line", number, raw, value, error)
        yield item if error else _checked(item, docred)


def _as_json(value):
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:  # writing needs more of the stack than reading
        return ""


def _checked(item, docred):
    value = item.document
    if docred:
        try:
            if isinstance(value, dict):
                value = {name: field for name, field in value.items() if name != "labels"}  # not looked at
                item = item._replace(document=value)
            validate_document(value)
        except ValueError as wrong:
            return item._replace(document=None, error=str(wrong))
    elif isinstance(value, str):
        return item._replace(document={"text": value})
    elif not isinstance(value, dict):
        error = f"found {type(value).__name__}, expected a text or an object (an array of documents: --format docred)"
        return item._replace(document=None, error=error)
    elif "spans" in value and value.get("answer") in NOT_ACCEPTED:
        return item._replace(document=None)
    return item


def with_ids(items: Iterable[Item]) -> Iterator[Item]:
    """
    Items with the id that each goes by: the `"id"` that its document gives (and loses), or else its title, where no earlier
    document has it, or else the whole name of its file, or its position in the input, from 1, as `"#3"`, which no later one is
    likely to give. A document that gives an id which is taken cannot be told from the other, and counts as unreadable.
    """
    taken: dict[str, str] = {}
    for position, item in enumerate(items, start=1):
        if item.document is not None:
            item = _with_id(item, position, taken)
        if item.document is not None:
            taken[str(item.id)] = f"{item.kind} {item.place}"
        yield item


def _with_id(item, position, taken):
    given, title = item.document.pop("id", None), item.document.get("title")
    empty = isinstance(given, str) and not given.strip()
    if given is None or given != given or empty:  # a table has NaN or "" in an empty cell
        found = title if isinstance(title, str) and title.strip() else f"#{position}"
        if found in taken:
            found = str(item.place) if item.kind == "file" else f"#{position}"
        while found in taken:  # given by an earlier document
            found = f"#{found}"
        return item._replace(id=found)
    if not isinstance(given, (str, int)) or isinstance(given, bool):
        return item._replace(document=None, error=f"field id: found {shown(given)}, expected a text or an integer")
    if str(given) in taken:
        error = f"the id {given!r} is that of {taken[str(given)]}, expected one of its own"
        return item._replace(document=None, error=error, id=given)
    return item._replace(id=given)


def hashed(items: Iterable[Item], digest: "hashlib._Hash") -> Iterator[Item]:
    """Items, each added to a hash before it is handed on, so that the hash covers all that was read so far."""
    for item in items:
        digest.update(f"{item.kind} {item.place}\n{item.raw}\n".encode("utf-8", "backslashreplace"))
        yield item
