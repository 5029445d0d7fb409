"""From encoded documents to batches: order, sharing between processes, collation."""

import math

import numpy as np
from torch.utils.data import Dataset, Sampler

# What a batch is made from.
FEATURE_COLUMNS = ("input_ids", "mention_positions", "mention_entities", "num_entities", "facts", "has_labels")


class DocumentBatchSampler(Sampler):
    """
    Lists of document indices, one list a step, for one of several processes.

    All processes together walk through the same global batches, in the same order, as one process with the same global batch
    size would; the last batch is shared out as it is, so that a process may get fewer documents than the others or none. No
    document is repeated to fill up. The order depends on seed and epoch only, which is what makes an interrupted run end
    like one that was not.

    Args:
        lengths (`list[int]`): length of each document, for `group_by_length`; the data set's size is its own.
        batch_size (`int`): documents a process and step.
        world_size, rank (`int`): number of processes, and which one this is.
        seed (`int`): of the shuffling.
        order (`str`): `"random"`, `"sequential"` or `"group_by_length"` (random, with documents of similar length together).
    """

    def __init__(self, lengths, batch_size, world_size=1, rank=0, seed=0, order="random"):
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.world_size = world_size
        self.rank = rank
        self.seed = seed
        self.order = order
        self.epoch = 0

    def set_epoch(self, epoch: int):
        self.epoch = epoch

    def __len__(self):
        return math.ceil(len(self.lengths) / (self.batch_size * self.world_size))

    def __iter__(self):
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
    """Feature rows of a data set, each with its index."""

    def __init__(self, rows):
        # Texts and names are needed for scoring only.
        self.rows = rows.select_columns(list(FEATURE_COLUMNS)) if hasattr(rows, "select_columns") else rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        row = self.rows[index]
        return {**{column: row[column] for column in FEATURE_COLUMNS}, "document_index": index}


class DocumentCollator:
    """[`CommProcessor.collate`] plus the documents' indices, as a list: they are not for the model or its device."""

    def __init__(self, processor):
        self.processor = processor

    def __call__(self, features):
        batch = self.processor.collate(features)
        return {**batch, "document_index": [feature["document_index"] for feature in features]}
