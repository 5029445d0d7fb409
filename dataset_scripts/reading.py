"""Documents from JSON files of any size: one at a time, each checked."""

import gzip
import hashlib
import json
import logging
import os
import re
import zlib
from collections.abc import Iterator

from modeling_comm.documents import DocumentError, validate_document
from modeling_comm.scoring import open_text

logger = logging.getLogger(__name__)

_WHITESPACE = re.compile(r"[ \t\n\r]*")
# JSON that is cut off is found to be wrong, or seems complete (a number), at most this far from its end (a pair of \u
# escapes is the longest piece), or in a string that does not end.
_LONGEST_PIECE = 16


def file_sha256(path) -> str:
    """SHA-256 of a file as it is stored, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def iterate_json_array(file, source=None, chunk_size=1 << 20) -> Iterator:
    """
    Items of a JSON array, decoded one after another, so that memory holds a piece of the file and never all of it.

    Args:
        file (text file): open for reading, at its start.
        source (`str`, *optional*): the file's name, for messages.
        chunk_size (`int`, defaults to 1,048,576): characters that are read at a time.

    Raises:
        DocumentError: the file holds no JSON array, an item is no JSON, or the file ends before the array does.
    """
    decoder, text, position, index = json.JSONDecoder(), "", 0, 0

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

    check("a JSON array, '[', of documents", "[")
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
                cut_off = error.msg.startswith("Unterminated string") or error.pos > len(text) - _LONGEST_PIECE
                if cut_off and read_more():
                    continue
                found = f"{error.msg} at {text[error.pos : error.pos + 20]!r}"
                expected = "a JSON object; is the file complete?" if cut_off else "a JSON object"
                raise DocumentError(source, index, None, None, found, expected) from None
            if end <= len(text) - _LONGEST_PIECE or not read_more():
                break
        position = end
        more = check("',' or ']' after it; is the file complete?", ",", "]") == ","
        position += 1
        yield item
        index += 1
    check("nothing after the array", "")


def read_documents(path, on_bad_document="error", relations=None, source=None, skipped=None) -> Iterator[dict]:
    """
    Documents of a JSON file in DocRED's format, each checked, in bounded memory.

    Args:
        path (`str`): the file; it may be compressed by gzip.
        on_bad_document (`str`, defaults to `"error"`): `"error"` raises; `"skip"` logs a warning and goes on with the
            next document. A file that is no JSON always raises.
        relations (`Collection[str]`, *optional*): the known relations. Any is accepted by default.
        source (`str`, *optional*): how messages call the file. Its path by default.
        skipped (`list`, *optional*): is given the [`DocumentError`] of every document that is skipped.

    Raises:
        DocumentError: a document is malformed, or the file is no JSON array; the message names file, document, field,
            what was found and what was expected.
    """
    if on_bad_document not in ("error", "skip"):
        raise ValueError(f"on_bad_document is {on_bad_document!r}; expected 'error' or 'skip'")
    source = source or os.fspath(path)
    index = -1
    with open_text(path) as file:
        try:
            for index, document in enumerate(iterate_json_array(file, source)):
                try:
                    validate_document(document, index=index, source=source, relations=relations)
                except DocumentError as error:
                    if on_bad_document == "error":
                        raise
                    logger.warning("Skipped: %s", error)
                    if skipped is not None:
                        skipped.append(error)
                    continue
                yield document
        except (UnicodeDecodeError, EOFError, zlib.error, gzip.BadGzipFile) as error:
            expected = "UTF-8 text, plain or compressed by gzip; is the file complete?"
            raise DocumentError(source, index + 1, None, None, str(error), expected) from error
