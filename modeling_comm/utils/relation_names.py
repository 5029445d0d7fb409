"""DocRED's file of relations and their readable names: its name, its places, how it is read; and what is no relation."""

import os
from pathlib import Path

from ..documents import shown
from .files import read_json

RELATION_FILE = "rel_info.json"
# Beside the documents, and in the `meta` folder that published code keeps in their folder or beside it.
RELATION_PLACES = ("", "meta", os.path.join(os.pardir, "meta"))
# What published files call "no relation", in lower case: labels of pairs, and no facts.
NULL_LABELS = frozenset(("na", "nr", "none", "no_relation", "no relation", "no-relation", "1:nr:2"))


def means_no_relation(label: str) -> bool:
    """Whether a label is one of [`NULL_LABELS`], whatever its case and its white space."""
    return " ".join(label.split()).casefold() in NULL_LABELS


def read_relation_names(path: str | os.PathLike) -> dict[str, str]:
    """
    Readable names of relations from a file such as DocRED's `rel_info.json`.

    Args:
        path (`str` or `os.PathLike`): JSON file, an object of ids and names.

    Raises:
        OSError: the file cannot be read.
        ValueError: it has another form.
    """
    names = read_json(path)
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise ValueError(f"{path}: found {shown(names)}, expected an object of relations and their names")
    return names


def names_beside(path: str | os.PathLike) -> dict[str, str]:
    """Relation names of the `rel_info.json` beside a file of documents, in the folder's `meta`, or in `meta` beside the folder;
    empty if there is none."""
    files = (Path(path).parent / place / RELATION_FILE for place in RELATION_PLACES)
    file = next(filter(Path.is_file, files), None)
    return {} if file is None else read_relation_names(file)
