"""Features: what encoding makes of one document, what it says about losses, and the rows of a document's pairs."""

from collections.abc import Iterable, Sequence
from typing import NotRequired, TypedDict

import numpy as np
import torch

# What encoding counts, for each document, of what its features do not say.
LOSSES_OF_ENCODING = (
    *("lost_tokens", "lost_mentions", "lost_entities", "pairs_without_context", "unknown_tokens", "unknown_facts"),
)


class DocumentFeatures(TypedDict):
    """
    One encoded document, in plain numbers, as [`CommProcessor.encode`] gives it and [`CommProcessor.collate`] takes it.

    Attributes:
        input_ids (`list[int]`): subword tokens of the whole document, special tokens and markers included.
        mention_positions (`list[int]`): where each mention's start marker is; -1 for a mention that was cut off.
        mention_entities (`list[int]`): the entity of each mention.
        sentence_starts (`list[int]`): the first subword token of each sentence, its opening marker included.
        num_entities (`int`): number of entities.
        facts (`list[list[int]]`): `[head, tail, label id]` of each label.
        evidence (`list[list[int]]`): sentences of each fact that prove it, perhaps none.
        has_labels (`bool`): whether the document has labels, be they none.
        windows (`int`): number of windows.
        lost_tokens, lost_mentions, lost_entities (`int`): what `max_length` cut off.
        pairs_without_context (`int`): ordered pairs of entities that no window shows together.
        unknown_tokens (`int`): subword tokens that are not in the vocabulary, of text that the model cannot read.
        unknown_facts (`int`): distinct labels of relations that the model does not have; `facts` lacks them.
    """

    input_ids: list[int]
    mention_positions: list[int]
    mention_entities: list[int]
    sentence_starts: list[int]
    num_entities: int
    facts: list[list[int]]
    evidence: list[list[int]]
    has_labels: bool
    windows: int
    lost_tokens: int
    lost_mentions: int
    lost_entities: int
    pairs_without_context: int
    unknown_tokens: int
    unknown_facts: int


class ModelInputs(TypedDict):
    """A batch of encoded documents, as [`CommProcessor.collate`] gives it: the arguments of the model's forward, which says what
    each tensor holds. `labels` and their evidence are there where every document has labels."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    windows: torch.Tensor
    document_mask: torch.Tensor
    mention_positions: torch.Tensor
    mention_entities: torch.Tensor
    entity_mask: torch.Tensor
    pair_index: torch.Tensor
    labels: NotRequired[torch.Tensor]
    window_mentions: torch.Tensor
    window_entities: torch.Tensor
    sentences: torch.Tensor
    evidence_pairs: NotRequired[torch.Tensor]
    evidence: NotRequired[torch.Tensor]


def no_document(start_id: int, end_id: int) -> DocumentFeatures:
    """Features of a document without words, entities and pairs; a batch needs one where it has no other."""
    return {
        "input_ids": [start_id, end_id],
        "mention_positions": [],
        "mention_entities": [],
        "sentence_starts": [],
        "num_entities": 0,
        "facts": [],
        "evidence": [],
        "has_labels": True,
        "windows": 1,
        **dict.fromkeys(LOSSES_OF_ENCODING, 0),  # type: ignore[typeddict-item]
    }


def encoding_report(features: Iterable[DocumentFeatures]) -> dict[str, int]:
    """Sums what encoding did over features: documents, subword tokens, mentions, and everything that was lost."""
    features = list(features)
    report = {
        "documents": len(features),
        "tokens": sum(len(feature["input_ids"]) for feature in features),
        "mentions": sum(len(feature["mention_positions"]) for feature in features),
        "entities": sum(feature["num_entities"] for feature in features),
    }
    for key in ("windows", *LOSSES_OF_ENCODING):
        report[key] = sum(feature[key] for feature in features)  # type: ignore[literal-required]
    return report


def what_was_lost(report: dict[str, int]) -> dict[str, int]:
    """The losses of an [`encoding_report`], as far as there are any."""
    # A report of an earlier version counts fewer things.
    return {key: report[key] for key in LOSSES_OF_ENCODING if report.get(key)}


def ordered_pairs(document: int, entities: int) -> np.ndarray:
    """Rows `(entities * (entities - 1), 3)` int64 of document, head and tail, by head and then tail."""
    head, tail = np.divmod(np.arange(entities * entities, dtype=np.int64), max(entities, 1))
    different = head != tail
    return np.stack([np.full(different.sum(), document, dtype=np.int64), head[different], tail[different]], axis=1)


def pair_labels(feature: DocumentFeatures, num_labels: int) -> torch.Tensor:
    """Labels `(pairs, num_labels)` float32 of a document's [`ordered_pairs`]; column 0 is 1 where no relation holds."""
    entities = feature["num_entities"]
    labels = torch.zeros(entities * max(entities - 1, 0), num_labels)
    if feature["facts"]:
        head, tail, relation = torch.tensor(feature["facts"]).unbind(-1)
        # Each head has a row for every tail but itself, so tails after it move up by one.
        labels[head * (entities - 1) + tail - (tail > head).long(), relation] = 1
    labels[:, 0] = ~labels.any(-1)
    return labels


def pad_rows(rows: Sequence[Sequence[int] | np.ndarray], value: int) -> torch.Tensor:
    """`(rows, longest)` int64, filled up with `value`; at least one column wide."""
    padded = torch.full((len(rows), max([1, *map(len, rows)])), value)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = torch.as_tensor(row, dtype=torch.long)
    return padded
