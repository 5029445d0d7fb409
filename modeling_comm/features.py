"""Features: what encoding makes of one document, what it says about losses, and the rows of a document's pairs."""

from collections.abc import Iterable, Sequence
from typing import NotRequired, TypedDict

import numpy as np
import torch

# What encoding counts, for each document, of what its features do not say.
LOSSES_OF_ENCODING = (
    *("lost_tokens", "lost_mentions", "lost_entities", "pairs_without_context", "unknown_tokens", "unknown_facts"),
    "unasked_facts",
)

# What is counted of each document.
_COUNTED = ("input_ids", "mention_positions", "num_entities", "windows", *LOSSES_OF_ENCODING)

# The distance below the threshold of a relation that a pair is not asked about: too far to be predicted, or to cost anything.
_NOT_ASKED = 1000.0
# Margins of a model's own are above this; whatever the threshold, a relation with another one is not predicted.
LEAST_ASKED = -0.9 * _NOT_ASKED


class DocumentFeatures(TypedDict):
    """
    One encoded document, in plain numbers, as [`CommProcessor.encode`] gives it and [`CommProcessor.collate`] takes it.

    Attributes:
        input_ids (`list[int]`): subword tokens of the whole document, special tokens and markers included.
        mention_positions (`list[int]`): where each mention's start marker is; -1 for a mention that was cut off.
        mention_entities (`list[int]`): the entity of each mention.
        sentence_starts (`list[int]`): the first subword token of each sentence, its opening marker included.
        num_entities (`int`): number of entities.
        pairs (`list[list[int]]`, *optional*): `[head, tail]` of the pairs that the document is asked about, by head and then
            tail; None for all ordered pairs of different entities.
        turned_pairs (`list[int]`): rows of these pairs that are not asked about symmetric relations, see
            [`~candidate_pairs.CandidatePairs.turned`].
        facts (`list[list[int]]`): `[head, tail, label id]` of each label of these pairs, in the direction that is asked about.
        evidence (`list[list[int]]`): sentences of each fact that prove it, perhaps none.
        has_labels (`bool`): whether the document has labels, be they none.
        windows (`int`): number of windows.
        lost_tokens, lost_mentions, lost_entities (`int`): what `max_length` cut off.
        pairs_without_context (`int`): pairs that are asked about and that no window shows together.
        unknown_tokens (`int`): subword tokens that are not in the vocabulary, of text that the model cannot read.
        unknown_facts (`int`): distinct labels of relations that the model does not have; `facts` lacks them.
        unasked_facts (`int`): distinct labels of pairs that the document is not asked about; `facts` lacks them, too. A label of
            one of its `ignored_pairs` is not counted.
    """

    input_ids: list[int]
    mention_positions: list[int]
    mention_entities: list[int]
    sentence_starts: list[int]
    num_entities: int
    pairs: list[list[int]] | None
    turned_pairs: list[int]
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
    unasked_facts: int


class ModelInputs(TypedDict):
    """A batch of encoded documents, as [`CommProcessor.collate`] gives it: the arguments of the model's forward, which says what
    each tensor holds. `labels` and their evidence are there where every document has labels, `asked` where some pairs are not
    asked about all relations."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    windows: torch.Tensor
    document_mask: torch.Tensor
    mention_positions: torch.Tensor
    mention_entities: torch.Tensor
    entity_mask: torch.Tensor
    pair_index: torch.Tensor
    asked: NotRequired[torch.Tensor]
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
        "pairs": None,
        "turned_pairs": [],
        "facts": [],
        "evidence": [],
        "has_labels": True,
        "windows": 1,
        **dict.fromkeys(LOSSES_OF_ENCODING, 0),  # type: ignore[typeddict-item]
    }


def encoding_report(features: Iterable[DocumentFeatures]) -> dict[str, int]:
    """
    Sums what encoding did over features: documents, subword tokens, mentions, and everything that was lost.

    Args:
        features (`Iterable[DocumentFeatures]`): read once, one document at a time; of a `datasets.Dataset`, only the columns that
            are counted.
    """
    if hasattr(features, "select_columns"):  # texts, labels and pairs of a document are ten times as much
        features = features.select_columns(list(_COUNTED))
    summed = ("windows", *LOSSES_OF_ENCODING)
    report = dict.fromkeys(("documents", "tokens", "mentions", "entities", *summed), 0)
    for feature in features:
        report["documents"] += 1
        report["tokens"] += len(feature["input_ids"])
        report["mentions"] += len(feature["mention_positions"])
        report["entities"] += feature["num_entities"]
        for key in summed:
            report[key] += feature[key]  # type: ignore[literal-required]
    return report


def what_was_lost(report: dict[str, int]) -> dict[str, int]:
    """The losses of an [`encoding_report`], as far as there are any."""
    # A report of an earlier version counts fewer things.
    return {key: report[key] for key in LOSSES_OF_ENCODING if report.get(key)}


def ordered_pairs(entities: int) -> np.ndarray:
    """Rows `(entities * (entities - 1), 2)` int64 of head and tail, by head and then tail."""
    return np.argwhere(~np.eye(entities, dtype=bool))


def pairs_of(feature: DocumentFeatures) -> np.ndarray:
    """Rows `(p, 2)` int64 of head and tail of the pairs that a document is asked about."""
    pairs = feature.get("pairs")
    return ordered_pairs(feature["num_entities"]) if pairs is None else np.array(pairs, dtype=np.int64).reshape(-1, 2)


def pair_rows(document: int, feature: DocumentFeatures) -> np.ndarray:
    """[`pairs_of`] a document of a batch, as rows `(p, 3)` int64 of document, head and tail."""
    pairs = pairs_of(feature)
    rows = np.empty((len(pairs), 3), dtype=np.int64)
    rows[:, 0], rows[:, 1:] = document, pairs
    return rows


def pair_labels(feature: DocumentFeatures, num_labels: int) -> torch.Tensor:
    """Labels `(p, num_labels)` float32 of [`pairs_of`] a document; column 0 is 1 where no relation holds."""
    pairs, entities = pairs_of(feature), feature["num_entities"]
    labels = torch.zeros(len(pairs), num_labels)
    if feature["facts"]:
        row = torch.zeros(entities, entities, dtype=torch.long)
        row[pairs[:, 0], pairs[:, 1]] = torch.arange(len(pairs))
        head, tail, relation = torch.tensor(feature["facts"]).unbind(-1)
        labels[row[head, tail], relation] = 1
    labels[:, 0] = ~labels.any(-1)
    return labels


def asked_relations(features: Sequence[DocumentFeatures], is_symmetric: Sequence[bool]) -> torch.Tensor | None:
    """
    Which relations each pair of a batch is asked about.

    Args:
        features (`Sequence[DocumentFeatures]`): one for each document.
        is_symmetric (`Sequence[bool]`): for each label, the threshold class included, whether `turned_pairs` are spared it.

    Returns:
        `(P, R + 1)` bool; None where every pair is asked about all of them.
    """
    if not any(is_symmetric):
        return None
    turned = []
    for feature in features:
        turned.append(torch.zeros(len(pairs_of(feature)), 1, dtype=torch.bool))
        turned[-1][feature["turned_pairs"]] = True
    return ~(torch.cat(turned) & torch.tensor(is_symmetric))


def without_relations(logits: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
    """
    Logits in which relations that a pair is not asked about are so far below the threshold that they are not predicted, and add
    neither loss nor gradient.

    Args:
        logits (`(P, R + 1)` float), asked (`(P, R + 1)` bool): rows are pairs, column 0 the threshold class.
    """
    below = logits[:, :1].detach().clamp(max=0) - _NOT_ASKED
    return torch.where(asked, logits, below)


def pad_rows(rows: Sequence[Sequence[int] | np.ndarray], value: int) -> torch.Tensor:
    """`(rows, longest)` int64, filled up with `value`; at least one column wide."""
    padded = torch.full((len(rows), max([1, *map(len, rows)])), value)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = torch.as_tensor(row, dtype=torch.long)
    return padded
