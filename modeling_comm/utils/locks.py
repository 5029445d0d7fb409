"""Locks of files and folders that end with the process, however that ends."""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None

logger = logging.getLogger(__name__)


class LockedError(ValueError):
    """Another process uses a file or folder. Attributes: `path` (`str`)."""

    def __init__(self, path):
        self.path = str(path)
        super().__init__(f"{path} is in use by another process; wait for it, or end it")

    def __reduce__(self):
        return type(self), (self.path,)


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
        raise LockedError(path) from None
    except OSError as error:
        logger.warning("%s cannot be locked (%s): do not start another process that writes there", path, error)


@contextlib.contextmanager
def locked_folder(path: str | Path) -> Iterator[None]:
    """Locks a folder, which is created where it is missing, for the time of the context; see [`lock`]."""
    os.makedirs(path, exist_ok=True)
    if os.name == "nt":  # no descriptors of folders
        yield
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        lock(descriptor, path)
        yield
    finally:
        os.close(descriptor)
