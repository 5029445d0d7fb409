"""Encodes the splits of a run once, before training."""

import logging
from collections.abc import Mapping

from datasets import Dataset, IterableDataset

from ..features import encoding_report, what_was_lost
from ..processing_comm import CommProcessor
from .batching import DocumentStream
from .encode_dataset import encode_dataset
from .script_arguments import Arguments

logger = logging.getLogger(__name__)


def encode_splits(
    splits: Mapping[str, Dataset | IterableDataset], processor: CommProcessor, arguments: Arguments
) -> tuple[dict[str, Dataset | DocumentStream], dict[str, dict[str, int]]]:
    """
    Encodes every split and logs what encoding lost.

    Returns:
        By split, the encoded documents (a [`DocumentStream`], which is encoded while it is read, for an iterable data set), and
        the report of [`~modeling_comm.features.encoding_report`] (none for a stream).
    """
    encoded, reports, max_length = {}, {}, arguments.data.max_length
    for split, dataset in splits.items():
        if isinstance(dataset, IterableDataset):
            encoded[split] = DocumentStream(dataset, max_length)
            continue
        with arguments.training.main_process_first(desc=f"encoding {split}"):
            encoded[split] = encode_dataset(
                dataset, processor, max_length=max_length, num_proc=arguments.data.preprocessing_num_workers
            )
        reports[split] = encoding_report(encoded[split])
        lost = what_was_lost(reports[split]) or "nothing"
        logger.info("%s: %d documents; lost in encoding: %s", split, len(dataset), lost)
    return encoded, reports
