"""Saving into a folder: the new files take the places of the old ones together, or none of them does."""

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from typing import Any

# A model does not load without its own, and a processor knows no relation: while files change places, there are none.
_CONFIGURATIONS = ("processor_config.json", "config.json")
_UNFINISHED = re.compile(r"_saved\.[0-9a-f]{16}\.unfinished")
_PART_OF_WEIGHTS = re.compile(r"(?P<name>.+?)(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")


@contextlib.contextmanager
def replacing_folder(folder: str | os.PathLike) -> Iterator[str]:
    """
    A new, empty folder to save into; where `folder` is such a one already, that. At the end of the context its files move into
    `folder`, unless that ends by an error, and the configurations come last: whatever happens, no folder loads that holds files
    of two models, or a part of one.

    Files that were there keep their modes and owners, links stay links, and new files have the mode that the process gives to
    new files. Other files stay, but for weights of the same name in another number of parts, which would be loaded in place of
    the new ones.

    Args:
        folder (`str` or `os.PathLike`): where the files will be. It is created where it is missing.

    Raises:
        OSError: `folder` is a file, or holds a file that may not be written; nothing has changed then.
    """
    folder = os.fspath(folder)
    if destination_of(folder) != folder:  # what is saved is a part of more, which takes its place together
        yield folder
        return
    is_new = not os.path.isdir(folder)
    os.makedirs(folder, exist_ok=True)
    # In the folder itself, so that moving is renaming. A push leaves out names that begin with _.
    unfinished = os.path.join(folder, f"_saved.{secrets.token_hex(8)}.unfinished")
    try:
        os.mkdir(unfinished)
        yield unfinished
        _move(unfinished, folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        if is_new:
            with contextlib.suppress(OSError):  # it holds something
                os.rmdir(folder)
        raise
    shutil.rmtree(unfinished)


class SavedTogether:
    """Mixin of a class that Transformers saves: all of its files take their places together."""

    def save_pretrained(
        self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs: Any
    ) -> list[str] | None:
        """See the parent's; [`replacing_folder`] says what is different."""
        if push_to_hub:
            kwargs.setdefault("repo_id", os.path.basename(os.path.abspath(save_directory)))
        with replacing_folder(save_directory) as folder:
            files = super().save_pretrained(folder, push_to_hub=push_to_hub, **kwargs)  # type: ignore[misc]
        return files and [os.path.join(save_directory, os.path.basename(file)) for file in files]


def destination_of(folder: str | os.PathLike) -> str:
    """Where the files of a folder will be: elsewhere while it is one that [`replacing_folder`] gave."""
    parent, name = os.path.split(os.path.abspath(folder))
    return parent if _UNFINISHED.fullmatch(name) else os.fspath(folder)


def _move(source, folder):
    usual = _usual_mode(source)
    targets = {}
    for path, _, names in os.walk(source):
        for name in names:
            relative = os.path.relpath(os.path.join(path, name), source)
            targets[relative] = os.path.realpath(os.path.join(folder, relative))
            _prepare(os.path.join(path, name), targets[relative], usual)
            if not name.endswith(".py"):
                _make_last(os.path.join(path, name))
    configurations = [name for name in _CONFIGURATIONS if name in targets]
    for name in reversed(configurations):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(targets[name])
    weights = {_weights_of(name) for name in targets} - {None}
    for name in os.listdir(folder):
        if _weights_of(name) in weights and name not in targets:
            os.unlink(os.path.join(folder, name))
    for name in [*(name for name in targets if name not in configurations), *configurations]:
        if os.path.dirname(name):
            os.makedirs(os.path.dirname(targets[name]), exist_ok=True)
        shutil.move(os.path.join(source, name), targets[name])  # a link may lead to another disk


def _usual_mode(folder):
    """The mode that this process gives to new files; libraries that write weights leave them readable by their owner alone."""
    path = os.path.join(folder, "_mode")
    with open(path, "wb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    os.unlink(path)
    return mode


def _prepare(path, target, usual_mode):
    """Makes sure that a file can take the place of another one, and gives it that one's mode and owner."""
    status = os.stat(target) if os.path.exists(target) else None
    if status is not None:
        number = errno.EISDIR if stat.S_ISDIR(status.st_mode) else 0 if os.access(target, os.W_OK) else errno.EACCES
        if number:
            raise OSError(number, os.strerror(number), target)
        if hasattr(os, "chown"):
            with contextlib.suppress(PermissionError):  # only root can give files away
                os.chown(path, status.st_uid, status.st_gid)
    with contextlib.suppress(PermissionError):  # a file system without modes
        os.chmod(path, usual_mode if status is None else stat.S_IMODE(status.st_mode))


def _make_last(path):
    """Otherwise a machine that fails may keep the new name of a file and lose its content."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _weights_of(name):
    """What all parts of the same weights have in common; None for other files."""
    match = _PART_OF_WEIGHTS.fullmatch(name)
    return match and match["name"]
