"""Where `comm-docre predict` writes: standard output, or a file that an interrupted run goes on with."""

import json
import os
import sys
from pathlib import Path

from ..reporting.run_record import command_line
from ..utils.files import read_json, write_json
from .predict_inputs import Item

_ANEW = "--restart deletes what is there and begins anew"


def _json_lines(values) -> bytes:
    # JSON can hold a lone surrogate and UTF-8 cannot: it is written as the escape that it was read from.
    lines = (json.dumps(value, ensure_ascii=False) + "\n" for value in values)
    return "".join(lines).encode("utf-8", "backslashreplace")


class StandardOutput:
    """
    Writes records to standard output. It cannot be gone on with; what is rejected is on stderr only.

    Attributes:
        settings (`dict`): what decides the records, as far as that is kept.
        finished (`bool`): whether there is nothing left to do.
        read (`int`), input_sha256 (`str`, *optional*): how many items of the input are done, and the hash of these.
        counts (`dict`): `documents`, `triples`, `rejected` and `lost`, the sums of the records' own.
    """

    def __init__(self):
        self.settings, self.finished, self.read, self.input_sha256 = {}, False, 0, None
        self.counts = {"documents": 0, "triples": 0, "rejected": 0, "lost": {}}

    def write(self, records, rejected, read, input_sha256):
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
            for name, number in record["lost"].items():
                lost[name] = lost.get(name, 0) + number
        self._store(_json_lines(records), _json_lines(_rejection(item, error) for item, error in rejected))

    def _store(self, records, rejected):
        sys.stdout.buffer.write(records)
        sys.stdout.buffer.flush()

    def finish(self):
        """Notes that the whole input is done."""
        self.finished = True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def _rejection(item: Item, error):
    return {item.kind: item.place, "error": error, "raw": item.raw}


class ResumableOutput(StandardOutput):
    """
    Writes records to a file, rejected documents to `FILE.rejected.jsonl` and then, to `FILE.settings.json`, how far the run is.
    What a killed process wrote after that is cut off by the next one, which does it again: no line stays half, no document is
    missing or there twice.

    Args:
        path (`str`): the file.
        settings (`dict`): what decides the records; a run goes on with a file only if it was begun with the same.
        restart (`bool`): whether to begin anew, whatever the file holds.

    Raises:
        OSError: the files cannot be written.
        ValueError: the file was not begun with these settings or is shorter than it was, or another process is writing it.
    """

    def __init__(self, path, settings, restart=False):
        super().__init__()
        self.settings = settings
        self.path, self.rejected_path, self.state_path = (
            Path(f"{path}{ending}") for ending in ("", ".rejected.jsonl", ".settings.json")
        )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._files = [self.path.open("ab")]
        _lock(self._files[0])
        self._sizes = [0, 0] if restart else self._take_over()
        if self.finished:
            return
        self._files.append(self.rejected_path.open("ab"))
        for file, size in zip(self._files, self._sizes, strict=True):
            if _size(file) < size:
                found = f"{file.name} has {_size(file)} bytes, and had {size} when the run was interrupted"
                raise ValueError(f"{found}; {_ANEW}")
        self._write_state()  # before anything is cut off: it must hold at any moment
        for file, size in zip(self._files, self._sizes, strict=True):
            file.truncate(size)

    def _take_over(self):
        """Takes over what an earlier run has done, and returns the sizes of its two files."""
        if not self.state_path.exists():
            if _size(self._files[0]):
                found = f"{self.path} is there, but not {self.state_path.name}, which says how to go on"
                raise ValueError(f"{found}; {_ANEW}")
            return [0, 0]
        state = read_json(self.state_path)
        if not state["read"]:
            return [0, 0]
        earlier = state["settings"]
        changed = [
            f"{name} was {earlier.get(name)!r}, is {self.settings.get(name)!r}"
            for name in earlier | self.settings
            if earlier.get(name) != self.settings.get(name)
        ]
        if changed:
            raise ValueError(f"{self.path} was begun with other settings: {'; '.join(changed)}; {_ANEW}")
        for name in ("finished", "read", "input_sha256", "counts"):
            setattr(self, name, state[name])
        return state["bytes"]

    def _write_state(self):
        state = {
            "command": command_line(),
            "settings": self.settings,
            "finished": self.finished,
            "read": self.read,
            "input_sha256": self.input_sha256,
            "bytes": self._sizes,
            "counts": self.counts,
        }
        write_json(self.state_path, state)

    def _store(self, *lines):
        for file, new in zip(self._files, lines, strict=True):
            file.write(new)
            file.flush()
            os.fsync(file.fileno())
        self._sizes = [_size(file) for file in self._files]
        self._write_state()

    def finish(self):
        super().finish()
        self._write_state()
        if not self.counts["rejected"]:
            self.rejected_path.unlink()

    def __exit__(self, *_):
        for file in self._files:
            file.close()


def _size(file):
    return os.fstat(file.fileno()).st_size


def _lock(file):
    """Refuses a file that another process has locked. The lock ends with the process, however that ends."""
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(f"{file.name} is being written by another process; wait for it, or end it") from None
