"""Locks of files and folders that end with the process, however that ends."""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)
_held: set[int] = set()  # descriptors of folders that this process has locked


class LockedError(ValueError):
    """
    Another process uses a file or folder.

    Attributes:
        path (`str`): the file or folder.
        process (`int`, *optional*): the other process, where the system says which one it is.
    """

    def __init__(self, path: str | os.PathLike, process: int | None = None):
        self.path, self.process = str(path), process
        other = "another process" if process is None else f"process {process}"
        super().__init__(
            f"{path} is in use by {other}; wait for it, or end it. The lock ends with the process, no file holds it"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.process)


def lock(file: int, path: str | Path) -> None:
    """
    Locks an open file or folder until it is closed. Where the system or the file system has no locks, a warning says so.

    Args:
        file (`int`): its descriptor.
        path (`str` or `Path`): its name, for messages.

    Raises:
        LockedError: another process has locked it.
    """
    try:
        if fcntl is None:
            raise OSError("this system has no fcntl")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise LockedError(path, _holder(file)) from None
    except OSError as error:
        _warn(path, error)


@contextlib.contextmanager
def locked_folder(path: str | Path) -> Iterator[None]:
    """Locks a folder for the time of the context; see [`lock`]. It is created where it is missing, and deleted again if nothing
    was written into it."""
    created = not os.path.isdir(path)
    os.makedirs(path, exist_ok=True)
    if os.name == "nt":
        _warn(path, "this system opens no folders")
        yield
        return
    descriptor = os.open(path, os.O_RDONLY)
    _held.add(descriptor)
    try:
        lock(descriptor, path)
        yield
    finally:
        if descriptor in _held:  # not in a process that was forked meanwhile
            _held.remove(descriptor)
            os.close(descriptor)
            if created:
                with contextlib.suppress(OSError):  # it holds something
                    os.rmdir(path)


def _warn(path, error):
    logger.warning("%s cannot be locked (%s): do not start another process that writes there", path, error)


def _holder(file):
    """The process that has locked a file, as Linux tells it."""
    status = os.fstat(file)
    wanted = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            # 1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF
            words = line.split()
            if words[1] == "FLOCK" and wanted in words and words[-4].isdigit() and int(words[-4]):
                return int(words[-4])
    return None


def _close_in_child():
    # A worker that outlives a process that was killed would keep its locks.
    for descriptor in _held:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
