"""The formats that documents are imported from, and the registry of their readers."""

import contextlib
import gzip
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..settings import NameTakenError, SettingError
from ..utils.files import files_below, refuse_pipe
from ..utils.relation_names import RELATION_FILE

# So much of a file is looked at to guess its format: enough for the first document's fields in most files.
_HEAD_SIZE = 1 << 16
# What DocRED's folders hold beside documents.
_NOT_DOCUMENTS = {RELATION_FILE, "rel2id.json", "ner2id.json", "word2id.json", "char2id.json"}
# Beside the documents of an export to brat: what its names for files and labels stand for.
NAMES_FILE = "comm_docre.json"

Reader = Callable[..., Iterator[Any]]  # of `AnnotatedText`, documents, or errors of documents


@dataclass(frozen=True)
class Format:
    """
    A format.

    Attributes:
        name (`str`): the value of `--format`.
        title (`str`): what it is, in a line.
        suffixes (`tuple[str, ...]`): how its files end, in small letters, such as `(".pubtator",)`; `.gz` may follow. They
            choose the files of a folder.
        looks_like (`Callable`): takes the first 64 KiB of a file (`bytes`, decompressed) and its path (`str`), and says
            whether it is one. It is cheap, and never raises.
        read (`Callable`): takes the path of a file and an [`ImportReport`], which it tells what it drops; yields
            [`AnnotatedText`]s, documents in DocRED's format, or the error of a document that cannot be read where the next can.
        extra (`str`, *optional*): the extra that it needs.
        links_mentions (`Callable`, *optional*): of annotation tools, in whose files relations are between mentions: takes the
            path of a file and [`~marked_text.MarkedTextOptions`], and says whether the file links mentions of one entity.
            `read` takes these options as a third argument.
        beside (`str`, *optional*): suffix of the file that is read with each of its files, such as `".txt"`.
    """

    name: str
    title: str
    suffixes: tuple[str, ...]
    looks_like: Callable[[bytes, str], bool]
    read: Reader
    extra: str | None = None
    links_mentions: Callable | None = None
    beside: str | None = None


_FORMATS: dict[str, Format] = {}
# By format, what writes documents and predictions in it, see [`register_writer`].
_WRITERS: dict[str, Callable] = {}


def register_format(
    name: str,
    title: str,
    suffixes: tuple[str, ...],
    looks_like: Callable[[bytes, str], bool],
    extra: str | None = None,
    links_mentions: Callable | None = None,
    beside: str | None = None,
) -> Callable[[Reader], Reader]:
    """
    Registers the reader of a format, as a decorator; arguments as of [`Format`].

    Raises:
        NameTakenError: another reader has this name.

    Example:

    ```python
    >>> from modeling_comm.formats import AnnotatedMention, AnnotatedText, available_formats, register_format
    >>> @register_format("capitals", "a text whose capitals are its mentions", (".capitals",), lambda head, path: False)
    ... def read_capitals(path, report):
    ...     text = open(path, encoding="utf-8").read()
    ...     mentions = [
    ...         AnnotatedMention(place, place + 1, "LETTER", (letter,))
    ...         for place, letter in enumerate(text)
    ...         if letter.isupper()
    ...     ]
    ...     yield AnnotatedText(title=path, text=text, mentions=mentions)
    >>> "capitals" in available_formats()
    True

    ```
    """

    def register(read):
        form = Format(name, title, suffixes, looks_like, read, extra, links_mentions, beside)
        if _FORMATS.setdefault(name, form).read is not read:
            raise NameTakenError("register_format", name, "another format")
        return read

    return register


def get_format(name: str) -> Format:
    """
    The format of this name.

    Raises:
        SettingError: there is none.
    """
    if name not in _FORMATS:
        raise SettingError("get_format", "format", name, f"one of {', '.join(available_formats())}")
    return _FORMATS[name]


def available_formats() -> list[str]:
    """Names of all registered formats."""
    return sorted(_FORMATS)


def register_writer(name: str) -> Callable[[Callable], Callable]:
    """
    Registers what writes documents for an annotation tool, as a decorator: a function of the path, an iterator of
    [`~pre_annotation.PreAnnotation`]s, their [`~pre_annotation.PreAnnotationLabels`], and what the predictions are called, which
    returns the names of the files that it wrote.

    Args:
        name (`str`): of the format.

    Raises:
        NameTakenError: another writer has this name.
    """

    def register(write):
        if _WRITERS.setdefault(name, write) is not write:
            raise NameTakenError("register_writer", name, "another writer")
        return write

    return register


def get_writer(name: str) -> Callable:
    """
    The writer of this format.

    Raises:
        SettingError: there is none.
    """
    if name not in _WRITERS:
        raise SettingError("get_writer", "format", name, f"one of {', '.join(sorted(_WRITERS))}")
    return _WRITERS[name]


def matching_formats(path: str | os.PathLike) -> list[Format]:
    """The formats that a file looks like."""
    path = os.fspath(path)
    head = _head(path)
    return [form for form in _FORMATS.values() if form.looks_like(head, path)]


def input_files(source: str | os.PathLike, name: str | None = None) -> list[tuple[str, Format]]:
    """
    The files of an input, each with its format.

    Args:
        source (`str`): a file; or a folder, whose files with one of the format's suffixes are read, those in its subfolders, too;
            DocRED's lists of relations, such as `rel2id.json`, are no documents.
        name (`str`, *optional*): of the format. It is guessed by default from what the files begin with.

    Raises:
        SettingError: there is no format of this name.
        FileNotFoundError: there is no such file or folder, or no file of the format is in the folder.
        OSError: a folder in it cannot be read.
        ValueError: a file looks like no format or like several, or the files of a folder like different ones; or it is a pipe,
            which could not be read twice.
    """
    chosen = None if name is None else get_format(name)
    path = Path(source)
    if not path.is_dir():
        refuse_pipe(path)  # its format is guessed, and links of mentions are looked for, before it is read
        if not path.is_file():
            raise FileNotFoundError(f"{path}: expected a file or a folder, found none")
        return [(str(path), chosen or _guess(path))]
    everything, files = _files(path)
    if chosen is not None:
        found = [(str(file), chosen) for file in files if _has_suffix(file, chosen)]
    else:
        # Other files, such as a README, lie beside documents; of those that look like several formats, the suffix decides.
        found = [(str(file), form) for file in files for form in matching_formats(file) if _has_suffix(file, form)]
    if not found:
        expected = f"files that end in {' or '.join(chosen.suffixes)}" if chosen else "files in a format that is known"
        lists = len(everything) - len(files)
        passed_over = f" ({lists} with a name of DocRED's lists, such as rel_info.json)" if lists else ""
        raise FileNotFoundError(
            f"{path}: expected {expected}, found none among its {len(everything)} files{passed_over}"
        )
    names = sorted({form.name for _, form in found})
    if len(names) > 1:
        raise ValueError(f"{path}: found files of several formats ({', '.join(names)}), expected one; see --format")
    return found


def unread_files(source: str | os.PathLike, found: list[tuple[str, Format]], name: str | None = None) -> list[str]:
    """
    The files of a folder that are left out although they may hold documents: where the format is guessed, those that end as the
    files of a format do and look like none, and those that look like one and end otherwise; always those that are read with
    another file, such as brat's `.txt`, which they lack. Links to nowhere are among them by how they end.

    Args:
        source (`str`): the file or the folder.
        found (`list[tuple[str, Format]]`): what [`input_files`] gave for it.
        name (`str`, *optional*): of the format, if it was not guessed.
    """
    read = {Path(path) for path, _ in found}
    companions = {form.beside for _, form in found if form.beside}
    read |= {path.with_suffix(suffix) for path in read for suffix in companions}

    def may_hold_documents(file):
        has_suffix = any(_has_suffix(file, form) for form in _FORMATS.values())
        return has_suffix or (file.exists() and bool(matching_formats(file)))

    return [
        str(file)
        for file in (files_below(source) if Path(source).is_dir() else ())
        if (file.is_file() or not file.exists())
        and file not in read
        and file.name not in (*_NOT_DOCUMENTS, NAMES_FILE)
        and (file.suffix.lower() in companions or (name is None and may_hold_documents(file)))
    ]


def _files(folder):
    """All files of a folder, and those that are not known to hold no documents."""
    everything = [file for file in files_below(folder) if file.is_file()]
    return everything, [file for file in everything if file.name not in _NOT_DOCUMENTS]


def _guess(path):
    forms = matching_formats(path)
    if len(forms) > 1:
        forms = [form for form in forms if _has_suffix(path, form)] or forms
    if len(forms) != 1:
        found = f"one that looks like {' and '.join(form.name for form in forms)}" if forms else "an unknown one"
        if not forms and path.name in _NOT_DOCUMENTS:
            found = "one of DocRED's lists, which hold no documents"
        if not path.stat().st_size:
            found = "an empty one"
        raise ValueError(f"{path}: expected a file in one format that is known, found {found}; see --format")
    return forms[0]


def _has_suffix(path, form):
    return path.name.lower().removesuffix(".gz").endswith(form.suffixes)


def _head(path):
    with open(path, "rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if not compressed:
            return file.read(_HEAD_SIZE)
        head = b""
        # Of a file that is cut off, what comes before: its reader then says what is wrong with it.
        with contextlib.suppress(EOFError, zlib.error, gzip.BadGzipFile), gzip.open(file) as content:
            while len(head) < _HEAD_SIZE and (part := content.read1(_HEAD_SIZE - len(head))):
                head += part
        return head
