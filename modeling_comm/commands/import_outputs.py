"""Files that `comm-docre import` writes: documents, all or split by a rule, and the relations that they have."""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..documents import Document
from ..utils.files import write_json
from ..utils.relation_names import read_relation_names
from ..utils.writer import replacing

# Files of the parts that documents are split into.
SPLIT_FILES = ("train.json", "dev.json", "test.json")


def write_documents(path: str | os.PathLike, documents: Iterable[Document]) -> None:
    """
    Writes documents one after another, as a JSON array, or as JSON lines where the file's name ends in `.jsonl`.

    Args:
        path (`str`): the file.
        documents (`Iterable[Document]`): the documents; memory holds one of them.
    """
    opening, between, end = ("", "\n", "\n") if os.fspath(path).endswith(".jsonl") else ("[\n", ",\n", "\n]\n")
    with replacing(path) as file:
        before = opening
        for document in documents:
            # Half of a surrogate pair, in a field that nobody checks, becomes an escape, which JSON has for it.
            file.write((before + json.dumps(document, ensure_ascii=False)).encode("utf-8", "backslashreplace"))
            before = between
        file.write((end if before == between else opening + end).encode("utf-8"))


def write_split(folder: str | os.PathLike, documents: Iterable[Document], shares: Sequence[int]) -> dict[str, int]:
    """
    Splits documents for training, validation and test by a rule that needs no seed and no order: the first eight hexadecimal
    digits of the SHA-256 of a document's title, as a number, modulo 100. Those below the first share are training documents,
    those below the sum of the first two are validation documents, the others test documents.

    Args:
        folder (`str`): where `train.json`, `dev.json` and `test.json` are written.
        documents (`Iterable[Document]`): the documents.
        shares (`list[int]`): three percentages that add up to 100.

    Returns:
        `dict[str, int]`: the number of documents by file.

    Raises:
        ValueError: the shares do not add up to 100, or are negative.
    """
    if len(shares) != len(SPLIT_FILES) or min(shares) < 0 or sum(shares) != 100:
        raise ValueError(f"--split {' '.join(map(str, shares))}: expected three percentages that add up to 100")
    parts: dict[str, list[Document]] = {name: [] for name in SPLIT_FILES}
    for document in documents:
        number = int(hashlib.sha256(document["title"].encode("utf-8")).hexdigest()[:8], 16) % 100
        parts[SPLIT_FILES[(number >= shares[0]) + (number >= shares[0] + shares[1])]].append(document)
    for name, part in parts.items():
        write_documents(Path(folder, name), part)
    return {name: len(part) for name, part in parts.items()}


def add_relation_names(path: str | os.PathLike, names: dict[str, str]) -> list[str]:
    """
    Adds relations to a `rel_info.json`, or writes a new one. Names that it has stay: a test file may lack relations of the
    training file that was imported before.

    Args:
        path (`str`): the file.
        names (`dict[str, str]`): readable names by relation.

    Returns:
        `list[str]`: the relations that were added, in the order of `names`.

    Raises:
        ValueError: the file is there and is no object of names.
    """
    known = read_relation_names(path) if Path(path).exists() else {}
    write_json(path, {**names, **known})
    return [relation for relation in names if relation not in known]
