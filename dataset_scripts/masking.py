"""Copies of training documents with masked names, as rows of a data set."""

import logging
from collections.abc import Mapping

from datasets import Dataset, concatenate_datasets

from modeling_comm.configuration_comm import __version__
from modeling_comm.data.masked_names import mask_names

from .builder import to_document

logger = logging.getLogger(__name__)


def with_masked_copies(
    rows: Dataset, copies: int, share: float, seed: int, words: Mapping[str, str]
) -> tuple[Dataset, dict[str, int]]:
    """
    Documents, and after them further copies of each with [`~modeling_comm.data.masked_names.mask_names`].

    Args:
        rows (`Dataset`): documents as [`~.builder.load_splits`] reads them.
        copies (`int`): how many of each document; each has other entities masked.
        share (`float`): the probability of an entity to be masked, from 0 to 1.
        seed (`int`): of the draws.
        words (`Mapping[str, str]`): by entity type, what stands for it in the text, as far as the data set says so.

    Returns:
        the documents, and the numbers of `mentions` in the copies and of those with a new name, `masked_mentions`.

    Raises:
        ValueError: no mention has a new name.
    """
    # The version is part of the cache's key: another one may mask otherwise.
    how = {"share": share, "words": dict(words), "library": __version__}
    masked = [
        rows.map(_mask_row, fn_kwargs={**how, "seed": f"{seed}-{copy}"}, features=rows.features)
        for copy in range(copies)
    ]
    counts = {"mentions": 0, "masked_mentions": 0}
    for of_copy in masked:
        for before, after in zip(_names(rows), _names(of_copy), strict=True):
            counts["mentions"] += 1
            counts["masked_mentions"] += before != after
    logger.info("%d copies of each document, in which names are masked: %s", copies, counts)
    if not counts["masked_mentions"]:
        raise ValueError(
            f"--masked_copies: found no name to mask among {counts['mentions']} mentions; expected entities with types whose "
            "mentions do not overlap"
        )
    return concatenate_datasets([rows, *masked]), counts


def _names(rows):
    """One after another: of many documents, all names at once would be too much."""
    return (mention["name"] for entities in rows["vertexSet"] for mentions in entities for mention in mentions)


def _mask_row(row: Mapping, share, seed, words, library) -> dict:
    masked = mask_names(to_document(row), share, seed, words)
    return {"sents": masked["sents"], "vertexSet": masked["vertexSet"]}
