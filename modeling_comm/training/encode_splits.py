"""Encodes the splits of a run once, before training."""

import logging
from collections import Counter
from collections.abc import Mapping
from typing import Any

from datasets import Dataset, IterableDataset, disable_progress_bars, enable_progress_bars

from ..features import encoding_report, what_was_lost
from ..processing_comm import CommProcessor
from .batching import DocumentStream
from .encode_dataset import encode_dataset
from .script_arguments import Arguments

logger = logging.getLogger(__name__)

_MANY = 2000  # documents, whose encoding takes long enough for a progress bar


def encode_splits(
    splits: Mapping[str, Dataset | IterableDataset], processor: CommProcessor, arguments: Arguments
) -> tuple[dict[str, Dataset | DocumentStream], dict[str, dict[str, int]]]:
    """
    Encodes every split and logs what encoding lost.

    Returns:
        By split, the encoded documents (a [`DocumentStream`], which is encoded while it is read, for an iterable data set), and
        the report of [`~modeling_comm.features.encoding_report`] (none for a stream).
    """
    encoded: dict[str, Any] = {}
    reports, max_length = {}, arguments.data.max_length
    for split, dataset in splits.items():
        if isinstance(dataset, IterableDataset):
            encoded[split] = DocumentStream(dataset, max_length)
            continue
        with arguments.training.main_process_first(desc=f"encoding {split}"):
            if len(dataset) >= _MANY and not arguments.training.disable_tqdm:
                enable_progress_bars()
            encoded[split] = encode_dataset(
                dataset,
                processor,
                max_length=max_length,
                num_proc=arguments.data.preprocessing_num_workers,
                allow_unknown_relations=split != "train",
            )
            disable_progress_bars()
        reports[split] = encoding_report(encoded[split])
        lost = what_was_lost(reports[split]) or "nothing"
        logger.info("%s: %d documents; lost in encoding: %s", split, len(dataset), lost)
        if reports[split]["unknown_facts"]:
            _warn_of_unknown_relations(split, encoded[split], processor)
    return encoded, reports


def _warn_of_unknown_relations(split, documents, processor):
    """Says which relations of a split the model cannot predict."""
    relations = Counter(fact["r"] for labels in documents["labels"] for fact in labels or ())
    known = processor.label2id.keys() | processor.candidates.inverse.keys()
    unknown = {relation: number for relation, number in relations.items() if relation not in known}
    shown = ", ".join(f"{relation} ({number:,})" for relation, number in sorted(unknown.items())[:5])
    logger.warning(
        "%s: %d of %d labels have %d relations that the model does not have: %s%s. It cannot predict them, and they count as "
        "missed. Are these the ids that the training documents use?",
        *(split, sum(unknown.values()), relations.total(), len(unknown), shown, ", ..." if len(unknown) > 5 else ""),
    )
