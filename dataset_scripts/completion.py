"""Training labels completed by rules, as rows of a data set."""

import logging
from collections.abc import Collection, Mapping

from datasets import Dataset, IterableDataset

from modeling_comm.candidate_pairs import ALL_PAIRS, CandidatePairs
from modeling_comm.configuration_comm import __version__
from modeling_comm.incomplete_labels.rules import Completion, complete_labels, read_rules

from .builder import to_document

logger = logging.getLogger(__name__)


def complete_split(
    rows: Dataset | IterableDataset, path: str, relations: Collection[str], candidates: CandidatePairs = ALL_PAIRS
) -> tuple[Dataset | IterableDataset, Completion | None]:
    """
    Completes the labels of documents.

    Args:
        rows (`Dataset` or `IterableDataset`): documents as [`~.builder.load_splits`] reads them.
        path (`str`): file of rules.
        relations (`Collection[str]`): the model's relations. Rules may also name those that `candidates` reads as an inverse.
        candidates (`CandidatePairs`, *optional*): of the data set's entry, see
            [`~modeling_comm.incomplete_labels.rules.complete_labels`].

    Returns:
        the documents with what follows among their labels, and what was added; None of a stream.

    Raises:
        OSError, ValueError: see [`~modeling_comm.incomplete_labels.rules.read_rules`].
    """
    rules = read_rules(path, [*relations, *candidates.inverse])
    # The version is part of the cache's key: another one may complete otherwise.
    how = {"rules": rules, "candidates": candidates, "library": __version__}
    completed = rows.map(_complete_row, fn_kwargs=how, features=rows.features)
    if isinstance(rows, IterableDataset):
        return completed, None
    added = Completion.between(map(to_document, rows), map(to_document, completed), candidates)
    logger.info("labels completed by %d rules of %s: %s", len(rules), path, added)
    return completed, added


def _complete_row(row: Mapping, rules, candidates, library) -> dict:
    if not row["has_labels"]:
        return {"labels": row["labels"]}
    labels = complete_labels(to_document(row), rules, candidates)["labels"][len(row["labels"]) :]
    added = [{**{key: label[key] for key in ("h", "t", "r")}, "evidence": None} for label in labels]
    return {"labels": [*row["labels"], *added]}
