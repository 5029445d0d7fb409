"""From encoded documents to batches: order, sharing between processes, collation."""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from torch.utils.data import Dataset, Sampler

from ..features import encoding_report
from ..processing_comm import CommProcessor

# Columns that a batch is made from.
FEATURE_COLUMNS = (
    *("input_ids", "mention_positions", "mention_entities", "sentence_starts", "num_entities", "facts", "evidence"),
    *("pairs", "turned_pairs", "has_labels"),
)


class DocumentBatchSampler(Sampler):
    """
    Lists of document indices, one list per step, for one of several processes.

    All processes together walk through the same global batches, in the same order, as one process with the same global batch
    size would; the last batch is shared out as it is, so that a process may get fewer documents than the others or none. No
    document is repeated to fill up. The order depends on seed and epoch only, which is what makes an interrupted run end
    like one that was not.

    Args:
        lengths (`list[int]`): length of each document, for `group_by_length`; the data set's size is its own.
        batch_size (`int`): documents per process and step.
        world_size, rank (`int`): number of processes, and which one this is.
        seed (`int`): of the shuffling.
        order (`str`): `"random"`, `"sequential"` or `"group_by_length"` (random, with documents of similar length together).
    """

    def __init__(
        self,
        lengths: ArrayLike,
        batch_size: int,
        world_size: int = 1,
        rank: int = 0,
        seed: int = 0,
        order: str = "random",
    ):
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.world_size = world_size
        self.rank = rank
        self.seed = seed
        self.order = order
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(len(self.lengths) / (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[list[int]]:
        whole = self.batch_size * self.world_size
        for batch in self._global_batches(whole):
            share = [part.tolist() for part in np.array_split(batch, self.world_size)]
            yield share[self.rank]

    def _global_batches(self, size):
        random = np.random.default_rng([self.seed, self.epoch])
        order = np.arange(len(self.lengths))
        if self.order != "sequential":
            order = random.permutation(order)
        if self.order == "group_by_length":
            # Sorted within pools of 50 batches, as Transformers does; then the batches change places.
            pools = [order[start : start + 50 * size] for start in range(0, len(order), 50 * size)]
            order = np.concatenate([pool[np.argsort(-self.lengths[pool], kind="stable")] for pool in pools])
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        if self.order == "group_by_length":
            full = batches[:-1]  # the last batch may be short and stays last
            batches = [full[index] for index in random.permutation(len(full))] + batches[-1:]
        return batches


class FeatureRows(Dataset):
    """Feature rows of a data set, each with its index. Columns that a data set does not have are skipped. `documents` has all
    columns."""

    def __init__(self, rows: Any, columns: Sequence[str] = FEATURE_COLUMNS):
        self.documents = rows
        # Texts and names are needed for scoring only.
        self.columns = [column for column in columns if not len(rows) or column in rows[0]]
        self.rows = rows.select_columns(self.columns) if hasattr(rows, "select_columns") else rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        return {**{column: row[column] for column in self.columns}, "document_index": index}


@dataclass
class DocumentStream:
    """
    Training documents that are read and encoded while training runs, in bounded memory: for files that are too large to be
    prepared before. Training needs `max_steps`, is evaluated and saved by steps, not by epochs, and begins the documents again
    when they end.

    Args:
        documents: DocRED documents (or rows of the loader with `streaming=True`); every iteration starts at their beginning.
        max_length (`int`, *optional*): as for a call of [`CommProcessor`].
        buffer_size (`int`, defaults to 1000): documents among which the next one is drawn at random.

    Raises:
        ValueError: `documents` can be read only once, as a generator, or `buffer_size` is below 1.
    """

    documents: Iterable
    max_length: int | None = None
    buffer_size: int = 1000

    def __post_init__(self) -> None:
        if self.buffer_size < 1:
            raise ValueError(f"buffer_size is {self.buffer_size}; expected at least 1 document")
        if iter(self.documents) is self.documents:
            raise ValueError(
                f"the documents are a {type(self.documents).__name__}, which can be read only once; expected something that can "
                "be read again, such as load_splits(..., streaming=True)['train_distant']"
            )


class StreamedBatches(Sampler):
    """
    Lists of documents of a [`DocumentStream`], one list per step, without end, for one of several processes. All processes
    read all documents and share out the same batches that one process would make. The order depends on the seed only, so that a
    resumed run skips what it has seen, without encoding it again.

    Args:
        stream (`DocumentStream`), batch_size, world_size, rank, seed: as in [`DocumentBatchSampler`].
        order (`str`): `"random"` or `"sequential"`.
    """

    def __init__(
        self,
        stream: DocumentStream,
        batch_size: int,
        world_size: int = 1,
        rank: int = 0,
        seed: int = 0,
        order: str = "random",
    ):
        if order not in ("random", "sequential"):
            raise ValueError(f"a stream's order is {order!r}; expected 'random' or 'sequential'")
        self.stream = stream
        self.batch_size = batch_size
        self.world_size = world_size
        self.rank = rank
        self.seed = seed
        self.order = order

    def __iter__(self) -> Iterator[list[dict]]:
        batch = []
        for document in itertools.chain.from_iterable(map(self._pass, itertools.count())):
            batch.append(document)
            if len(batch) == self.batch_size * self.world_size:
                yield batch[self.rank * self.batch_size : (self.rank + 1) * self.batch_size]
                batch = []

    def _pass(self, epoch):
        """All documents once, in this pass's order."""
        random, buffer, empty = np.random.default_rng([self.seed, epoch]), [], True
        for document in self.stream.documents:
            empty = False
            if self.order == "sequential":
                yield document
            elif len(buffer) < self.stream.buffer_size:
                buffer.append(document)
            else:
                index = random.integers(len(buffer))
                drawn, buffer[index] = buffer[index], document
                yield drawn
        if empty:
            raise ValueError("the stream holds no documents")
        yield from (buffer[index] for index in random.permutation(len(buffer)))


class EncodedOnDemand(Dataset):
    """Takes labelled documents themselves for indices, and gives their features, each with its title in the index's place."""

    def __init__(self, processor: CommProcessor, max_length: int | None = None):
        self.processor = processor
        self.max_length = max_length

    def __getitems__(self, documents: Sequence[Any]) -> list[dict[str, Any]]:
        features = self.processor.encode(list(map(without_unknown_labels, documents)), max_length=self.max_length)
        titles = [document["title"] for document in documents]
        unlabelled = [title for title, one in zip(titles, features, strict=True) if not one["has_labels"]]
        if unlabelled:
            raise ValueError(f"the training documents {unlabelled} have no labels")
        return [{**one, "document_index": title} for title, one in zip(titles, features, strict=True)]


def without_unknown_labels(row: Any) -> Any:
    """A data set's row as a DocRED document: a table cannot leave `labels` out, so `has_labels` says whether it is known."""
    return row if row.get("has_labels", True) else {key: value for key, value in row.items() if key != "labels"}


class DocumentCollator:
    """[`CommProcessor.collate`] plus what is not for the model or its device: the documents' indices, as a list, and for
    documents that were encoded on demand what encoding lost."""

    def __init__(self, processor: CommProcessor):
        self.processor = processor

    def __call__(self, features: list[Any]) -> dict[str, Any]:
        batch: Any = self.processor.collate(features)
        batch["document_index"] = [feature["document_index"] for feature in features]
        if features and "windows" in features[0]:
            batch["encoding"] = encoding_report(features)
        return batch
