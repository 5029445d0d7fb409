"""Outputs of `comm-docre predict`, as JSON lines or CSV: standard output, or a file with which the same command resumes."""

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Self

from ..prediction_record import PredictionRecord
from ..reporting.run_record import command_line
from ..reporting.triple_table import COLUMNS, csv_lines
from ..utils.counted_nouns import counted
from ..utils.files import read_json, write_json
from ..utils.locks import lock
from ..utils.spreadsheet import csv_header
from ..utils.unchanged import check_unchanged
from ..utils.writer import named_errors, remove_unfinished
from .predict_inputs import Item

_RESTART = "`predict --restart` deletes the old output and predicts again"
_PIECE = 1 << 20  # bytes that are hashed at a time
_STATE_FIELDS = {"command", "settings", "finished", "read", "input_sha256", "files", "counts"}


def _json_lines(values) -> bytes:
    # JSON can hold a lone surrogate and UTF-8 cannot: it is written as the escape that it was read from.
    lines = (json.dumps(value, ensure_ascii=False) + "\n" for value in values)
    return "".join(lines).encode("utf-8", "backslashreplace")


# For each form of output, what the file begins with and how records are written.
_FORMS = {"jsonl": (bytes, _json_lines), "csv": (partial(csv_header, COLUMNS), csv_lines)}
OUTPUT_FORMATS = tuple(_FORMS)


class StandardOutput:
    """
    Writes records to standard output, or to a pipe or a device. It cannot be resumed; what is rejected is on stderr only.

    Args:
        form (`str`, defaults to `"jsonl"`): one of `OUTPUT_FORMATS`.
        stream (`BinaryIO`, *optional*): the pipe or device; standard output by default.

    Attributes:
        form (`str`): as given.
        finished (`bool`): whether there is nothing left to do.
        read (`int`), input_sha256 (`str`, *optional*): how many items of the input are done, and the hash of these.
        counts (`dict`): `documents`, those of them `without_text` and `without_entities`, `triples`, those of them `derived` by
            rules, `rejected`, and `lost`, summed over records.
    """

    def __init__(self, form: str = "jsonl", stream: BinaryIO | None = None):
        self.form = form
        self._header: Callable[[], bytes]
        self._lines: Callable[[Sequence[PredictionRecord]], bytes]
        self._header, self._lines = _FORMS[form]  # type: ignore[assignment]
        self._stream = stream
        self.finished, self.read = False, 0
        self.input_sha256: str | None = None
        numbers = ("documents", "without_text", "without_entities", "triples", "derived", "rejected")
        self.counts: dict[str, Any] = {**dict.fromkeys(numbers, 0), "lost": {}}

    def resume(self) -> None:
        """Prepares for further items, also if the run was finished. Until then the files are as they were."""

    def begin(self) -> None:
        """Writes what comes before all records."""
        if header := self._header():
            self._store(header, b"")

    def write(
        self, records: Sequence[PredictionRecord], rejected: Sequence[tuple[Item, str]], read: int, input_sha256: str
    ) -> None:
        """
        Writes what came of some more items of the input, all of it or nothing.

        Args:
            records (`list[dict]`): of the documents that were predicted.
            rejected (`list[tuple[Item, str]]`): of the others, each with the error.
            read (`int`): how many items of the input are done now.
            input_sha256 (`str`): hash of these.
        """
        self.read, self.input_sha256 = read, input_sha256
        self.counts["documents"] += len(records)
        self.counts["rejected"] += len(rejected)
        lost = self.counts["lost"]
        for record in records:
            self.counts["triples"] += len(record["triples"])
            self.counts["derived"] += sum("derived" in triple for triple in record["triples"])
            self.counts["without_text"] += not record["text"].strip()
            self.counts["without_entities"] += not record["entities"]
            for name, number in record["lost"].items():
                lost[name] = lost.get(name, 0) + number
        self._store(self._lines(records), _json_lines(_rejection(item, error) for item, error in rejected))

    def _store(self, records, rejected):
        stream = self._stream or sys.stdout.buffer
        name = getattr(self._stream, "name", None)
        with named_errors(name if isinstance(name, str) else "standard output"):
            stream.write(records)
            stream.flush()

    def finish(self) -> None:
        """Notes that the whole input is done."""
        self.finished = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def _rejection(item: Item, error):
    identity = {} if item.id is None else {"id": item.id}
    return {item.kind: item.place, **identity, "error": error, "raw": item.raw}


class ResumableOutput(StandardOutput):
    """
    Writes records to a file, rejected documents to `FILE.rejected.jsonl` and then, to `FILE.settings.json`, how far the run is,
    with size and hash of both files. What a killed process wrote after that is cut off by the next one, which does it again: no
    line stays half, no document is missing or there twice.

    Args:
        path (`str`): the file.
        settings (`dict`): what decides the records; a run resumes only with the same.
        restart (`bool`, defaults to `False`): whether to delete what the files hold.
        form (`str`, defaults to `"jsonl"`): one of `OUTPUT_FORMATS`.

    Raises:
        OSError: the files cannot be written.
        ValueError: the run had other settings, its files are not as it left them, or another process is writing them.
    """

    def __init__(self, path: str, settings: dict, restart: bool = False, form: str = "jsonl"):
        super().__init__(form)
        self.settings = settings
        self.path, self.rejected_path, self.state_path = output_files(path)
        self._written = [_Written(), _Written()]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        created = not self.path.exists()
        # Without a buffer, so that closing a file after an error does not write once more.
        self._files = [self.path.open("ab", buffering=0)]
        lock(self._files[0].fileno(), self.path)
        try:
            if not restart:
                self._take_over()
        except ValueError:
            if created:
                self.path.unlink()
            raise
        remove_unfinished(self.state_path.resolve().parent, self.state_path.resolve().name)

    def resume(self) -> None:
        self.finished = False
        self._files.append(self.rejected_path.open("ab", buffering=0))
        self._write_state()  # before anything is cut off: it must hold at any moment
        for file, written in zip(self._files, self._written, strict=True):
            file.truncate(written.size)

    def written_lines(self) -> tuple[Iterator[dict], Iterator[dict]]:
        """The records and the rejections that are done, where the file is of JSON lines."""
        paths = (self.path, self.rejected_path)
        records, rejected = (_lines(path, done.size) for path, done in zip(paths, self._written, strict=True))
        return records, rejected

    def begin(self) -> None:
        if not self._written[0].size:  # a finished run of no documents has written it
            super().begin()

    def _take_over(self):
        """Takes over what an earlier run has done."""
        if not self.state_path.exists():
            if size := self.path.stat().st_size:
                found = f"found {size:,} bytes without {self.state_path.name}, which says how to resume"
                raise ValueError(f"{self.path}: {found}; {_RESTART}")
            return
        state = _read_state(self.state_path)
        if not state["read"] and not state["finished"]:
            return
        # Earlier versions stored these, too.
        others = {"batch_size", "documents", "input"}
        before = {name: value for name, value in state["settings"].items() if name not in others}
        check_unchanged(before, self.settings, self.path, _RESTART)
        self._written = _check_files(self.path, state)
        header = self._header()
        with self.path.open("rb") as file:
            if self._written[0].size and file.read(len(header)) != header:
                raise ValueError(f"{self.path}: found other columns, expected {', '.join(COLUMNS)}; {_RESTART}")
        for name in ("finished", "read", "input_sha256"):
            setattr(self, name, state[name])
        self.counts |= state["counts"]  # earlier versions did not count all of these

    def _write_state(self):
        state = {
            "command": command_line(),
            "settings": self.settings,
            "finished": self.finished,
            "read": self.read,
            "input_sha256": self.input_sha256,
            "files": [{"bytes": written.size, "sha256": written.digest.hexdigest()} for written in self._written],
            "counts": self.counts,
        }
        write_json(self.state_path, state)

    def _store(self, *lines):
        for file, written, new in zip(self._files, self._written, lines, strict=True):
            with named_errors(file.name):
                _append(file, new, written.size)
            written.add(new)
        self._write_state()

    def finish(self) -> None:
        super().finish()
        self._write_state()
        if not self.counts["rejected"]:
            self.rejected_path.unlink()

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()


def _lines(path, size):
    if path.is_file():
        with path.open("rb") as file:
            while file.tell() < size:
                yield json.loads(file.readline())


def _append(file, content, size):
    """Adds to a file without a buffer, which has this size before; on an error it has it again, as far as that is possible."""
    try:
        left = memoryview(content)
        while left:
            left = left[file.write(left) :]
        os.fsync(file.fileno())
    except OSError:
        with contextlib.suppress(OSError):
            file.truncate(size)
        raise


class _Written:
    """Size and hash of what a file should hold."""

    def __init__(self):
        self.size, self.digest = 0, hashlib.sha256()

    def add(self, content):
        self.size += len(content)
        self.digest.update(content)


def output_files(path: str) -> tuple[Path, Path, Path]:
    """The files of a run with `--output path`: records, rejected documents, state."""
    return Path(path), Path(f"{path}.rejected.jsonl"), Path(f"{path}.settings.json")


def check_finished(path: str) -> None:
    """
    Refuses records of which `predict` knows that they are not all there. A file without `FILE.settings.json` beside it is
    accepted.

    Raises:
        ValueError: the run is not finished, or its files are not as it left them.
    """
    _, _, state_path = output_files(path)
    if state_path.exists():
        state = _read_state(state_path)
        if not state["finished"]:
            done = counted(state["read"], ("document is", "documents are"))
            expected = "expected all of them; the same `predict` command resumes"
            raise ValueError(f"{path}: `predict` is not finished, {done} done, {expected}")
        _check_files(path, state)


def _read_state(path):
    state = read_json(path)
    if not isinstance(state, dict) or not state.keys() >= _STATE_FIELDS:
        raise ValueError(f"{path}: found no state of a run by this version of `predict`; {_RESTART}")
    return state


def _check_files(path, state):
    """Compares the files with what a run wrote; an unfinished run may have more, which is cut off. Returns what it wrote."""
    written = []
    for file, expected in zip(output_files(path)[:2], state["files"], strict=True):
        size = file.stat().st_size if file.exists() else 0
        if size < expected["bytes"] or (state["finished"] and size != expected["bytes"]):
            raise ValueError(
                f"{file}: found {size:,} bytes, expected the {expected['bytes']:,} that `predict` wrote; {_RESTART}"
            )
        written.append(_Written())
        if file.exists():
            with file.open("rb") as stream:
                while content := stream.read(min(_PIECE, expected["bytes"] - written[-1].size)):
                    written[-1].add(content)
        if written[-1].digest.hexdigest() != expected["sha256"]:
            raise ValueError(
                f"{file}: found other content in the {expected['bytes']:,} bytes that `predict` wrote; {_RESTART}"
            )
    return written
