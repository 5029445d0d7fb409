"""The sources of a data set's rows, kept in its `DatasetInfo`, so that they survive the cache, `filter` and `select`."""

import json
from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

import datasets

from modeling_comm.utils.counted_nouns import (
    DOCUMENTS,
    ENTITIES,
    FACTS,
    IGNORED_PAIRS,
    MENTIONS,
    counted,
    numbers_of_kinds,
)


class FileProvenance(TypedDict):
    """
    The source of a split's rows.

    Args:
        source (`str`): path or address of the file.
        sha256 (`str`): its hash.
        skipped (`list[dict]`): for each document that was left out the attributes of its
            [`~modeling_comm.documents.DocumentError`].
        dropped (`dict[str, int]`, *optional*): numbers of the `mentions`, `entities`, `facts` and `ignored_pairs` that were left
            out, and of the `documents` that they are of; with `on_bad_document="drop_part"`.
        format (`str`, *optional*): the name of the file's format, where that is not DocRED's JSON.
        left_out (`dict[str, int]`, *optional*): what its reader left out, by kind, see
            [`~modeling_comm.formats.ImportReport`].
    """

    source: str
    sha256: str
    skipped: list[dict]
    dropped: NotRequired[dict[str, int]]
    format: NotRequired[str]
    left_out: NotRequired[dict[str, int]]


def write_provenance(info: datasets.DatasetInfo, provenance: Mapping[str, FileProvenance]) -> None:
    """Keeps the provenance of every split in `info`, in its description: a text that `datasets` stores and does not look at."""
    info.description = json.dumps(provenance, ensure_ascii=False)


def read_provenance(loaded: datasets.DatasetDict | datasets.Dataset | Mapping) -> dict[str, FileProvenance]:
    """
    Reads back the provenance that [`write_provenance`] stored.

    Args:
        loaded (`DatasetDict`, `Dataset`, their iterable kinds, or a `dict` of splits): what
            [`~dataset_scripts.builder.load_splits`] returned, or one of its splits.

    Returns:
        `dict[str, FileProvenance]`, by split.
    """
    some_split = next(iter(loaded.values())) if isinstance(loaded, Mapping) else loaded
    return json.loads(some_split.info.description)


def left_out_in_words(file: Mapping[str, Any]) -> list[str]:
    """What a [`FileProvenance`], or the record of a published file, says was left out of documents: `dropped` and `left_out`."""
    words = []
    if dropped := file.get("dropped"):
        numbers = [counted(dropped.get(nouns[1], 0), nouns) for nouns in (MENTIONS, ENTITIES, FACTS)]
        if pairs := dropped.get("ignored_pairs"):  # which few documents have
            numbers.append(counted(pairs, IGNORED_PAIRS))
        words.append(f"{', '.join(numbers)} of {counted(dropped['documents'], DOCUMENTS)}")
    if left_out := file.get("left_out"):
        words.append(numbers_of_kinds(left_out))
    return words
