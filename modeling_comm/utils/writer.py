"""The one way in which this library writes a file: whole or not at all, without a change of what the file is."""

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

# The name of standard output, also where the system has no such file.
STANDARD_OUTPUT = "/dev/stdout"

# What the names of files and folders that are being written end in.
UNFINISHED = ".unfinished"
_LONGEST_NAME = 100  # bytes of a file's name within that of its temporary one


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
    """Writes a file so that it holds either the old content or the new, never a part; see [`replacing`]."""
    with replacing(path) as file:
        file.write(content)


def write_text(path: str | os.PathLike, text: str) -> None:
    """
    The same for text, in UTF-8. Half of a character, which a file's name may hold and UTF-8 cannot, is written as the escape
    `\\udcff`, which JSON reads back.
    """
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """
    A new content for a file, which takes the place of the old one at the end of the context, unless that ends by an error. Mode
    and owner of the file stay; a new file has those that the process gives to new files. A symbolic link stays, and the file
    that it points to is written; a hard link to the old content keeps that. A device, a pipe, and the process's own standard
    output, by whatever name, is written to as it is. Folders above the file are created.

    Args:
        path (`str` or `Path`): the file.

    Raises:
        OSError: the file cannot be written; it has the file's name. A full disk has the number `errno.ENOSPC`.
    """
    path, status = os.fspath(path), _status(path)
    with named_errors(path), open_stream(path) or _replacing_regular(os.path.realpath(path), status) as file:
        yield file


def open_stream(path: str | os.PathLike) -> BinaryIO | None:
    """A device, a pipe, or this process's own standard output or error, by whatever name, to write bytes to it as it is; None
    for what is a file or can become one."""
    status = _status(path)
    if status is None:
        return None
    if (descriptor := _own_stream(status)) is not None:
        return open(descriptor, "wb", closefd=False)
    return None if stat.S_ISREG(status.st_mode) else open(path, "wb")


def is_stream(path: str | os.PathLike) -> bool:
    """Returns whether [`open_stream`] opens a path, as what is neither a file nor a folder nor can become one."""
    status = _status(path)
    if status is None:
        return False
    return _own_stream(status) is not None or not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode))


def is_standard_output(path: str | os.PathLike) -> bool:
    """Returns whether a file is what this process prints to."""
    status = _status(path)
    return status is not None and _own_stream(status) == 1


def _status(path):
    try:
        return os.fstat(1) if os.fspath(path) == STANDARD_OUTPUT else os.stat(path)
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def _replacing_regular(path, status):
    if status is not None and not os.access(path, os.W_OK):  # to replace it would need a writable folder only
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    # A name that nobody can take beforehand. What is left of it after a kill is not pushed: a push leaves out names with _.
    temporary = os.path.join(folder, _temporary_name(os.path.basename(path)))
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(temporary, flags, 0o666 if status is None else 0o600)
    try:
        with open(descriptor, "wb") as file:
            if status is not None:
                _take_over(temporary, status)
            yield file
            file.flush()
            os.fsync(file.fileno())  # otherwise a machine that fails may keep the new name and lose the content
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def replace_folder(source: str | os.PathLike, target: str | os.PathLike) -> None:
    """
    Puts a copy of a folder in the place of another one, which stays as it is until the copy is complete. What processes that were
    killed have left of such copies is deleted.

    Args:
        source (`str` or `Path`): the folder to copy.
        target (`str` or `Path`): its place. Folders above it are created.

    Raises:
        OSError: a folder cannot be written; `target` is then as it was. Where the process is killed between two renamings, there
            is no `target`, and the old one is in the folder `_NAME.*.unfinished` beside it.
    """
    target = Path(target)
    # Beside the target, so that moving is renaming.
    unfinished = target.parent / _temporary_name(target.name)
    new, old = unfinished / "new", unfinished / "old"
    try:
        shutil.copytree(source, new)
        if target.exists():
            target.rename(old)
        new.rename(target)
    except BaseException:
        if old.exists() and not target.exists():
            old.rename(target)
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    remove_unfinished(target.parent, target.name)


def delete_folder(path: str | os.PathLike) -> None:
    """
    Deletes a folder. What is left of it after a kill has another name, which [`remove_unfinished`] knows.

    Args:
        path (`str` or `Path`): the folder.

    Raises:
        OSError: it cannot be deleted.
    """
    path = Path(path)
    unfinished = path.with_name(_temporary_name(path.name))
    path.rename(unfinished)
    shutil.rmtree(unfinished)


def remove_unfinished(folder: str | os.PathLike, name: str | None = None) -> None:
    """
    Deletes what processes that were killed have left of files that they were writing. Nothing may be writing there meanwhile.

    Args:
        folder (`str` or `Path`): where they wrote.
        name (`str`, *optional*): the name of the file that they wrote; any by default.
    """
    of_file = ".+" if name is None else re.escape(_shortened(name))
    for entry in os.scandir(os.fspath(folder)):
        if re.fullmatch(rf"_{of_file}\.[0-9a-f]{{16}}{re.escape(UNFINISHED)}", entry.name):
            if entry.is_dir(follow_symlinks=False):  # of a folder that was being replaced
                shutil.rmtree(entry.path, ignore_errors=True)
                continue
            with contextlib.suppress(OSError):
                os.unlink(entry.path)


def _temporary_name(name):
    return f"_{_shortened(name)}.{secrets.token_hex(8)}{UNFINISHED}"


def _shortened(name):
    return os.fsencode(name)[:_LONGEST_NAME].decode("utf-8", "ignore")


def _take_over(path, status):
    if hasattr(os, "chown"):
        with contextlib.suppress(PermissionError):  # only root can give files away
            os.chown(path, status.st_uid, status.st_gid)
    os.chmod(path, stat.S_IMODE(status.st_mode))


def _own_stream(status):
    """The descriptor of this process's standard output or error, if a file is that."""
    for descriptor, stream in ((1, sys.stdout), (2, sys.stderr)):
        with contextlib.suppress(OSError):  # it may be closed
            if os.path.samestat(os.fstat(descriptor), status):
                if stream is not None:
                    stream.flush()
                return descriptor
    return None


@contextlib.contextmanager
def named_errors(path: str | os.PathLike) -> Iterator[None]:
    """Errors of the system within the context have the name of this file: those of a full disk have none."""
    try:
        yield
    except OSError as error:
        is_other = error.filename is not None and not os.fspath(error.filename).endswith(UNFINISHED)
        if error.errno is None or is_other:
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


@contextlib.contextmanager
def full_disk_is_named(folder: str | os.PathLike, needed: int) -> Iterator[None]:
    """
    For libraries that write by themselves and have errors of their own for a full disk: an error within the context is an
    `OSError` with the number `errno.ENOSPC` and the folder's name where less is free than needed.

    Args:
        folder (`str` or `Path`): where they write. It need not exist.
        needed (`int`): bytes that they write, about.
    """
    try:
        yield
    except Exception as error:
        place = Path(folder)
        while not place.exists():
            place = place.parent
        if shutil.disk_usage(place).free < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(folder)) from error
        raise
