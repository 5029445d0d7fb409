"""Inference-stage fusion: every pair is asked about once more in the sentences that prove it, and both answers decide together
(DREEAM, Ma et al. 2023; EIDER, Xie et al. 2022)."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch

from .decoding import relation_margins
from .features import DocumentFeatures, no_document, pairs_of
from .windows import slices

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.utils import ModelOutput

    from .processing_comm import CommProcessor

# What stands for the second margin of a pair that has no evidence, or is not in the second pass with it.
MISSING_MARGIN = -10.0
_PREDICTED_ANYWAY = 1e4
NEVER_PREDICTED = -1e4
# Shares of sentences that are in memory. Each part of the pairs computes the grids of entities again.
_SHARES_AT_ONCE = 2**24
_DOCUMENTS_AT_ONCE = 16  # of the second pass


class CutDocument(NamedTuple):
    """
    Some sentences of a document, as a document of its own.

    Attributes:
        sentences (`tuple[int, ...]`): their numbers in the whole document, in order.
        entities (`list[int]`): the numbers in the whole document of the entities that have a mention in these sentences.
        features (`DocumentFeatures`): with entities numbered by their place in `entities`, and without labels.
    """

    sentences: tuple[int, ...]
    entities: list[int]
    features: DocumentFeatures


def fuse_margins(first: torch.Tensor, second: torch.Tensor, threshold: float) -> torch.Tensor:
    """
    One margin of two. It is above 0, so that the relation is predicted, iff both are, or their sum exceeds the threshold.

    Args:
        first (`(P, R)` float): margins in the whole document.
        second (`(P, R)` float): margins in the evidence; [`MISSING_MARGIN`] where there is none.
        threshold (`float`): what the sum has to exceed.
    """
    fused = first + second - threshold
    both = torch.minimum(first, second)
    return torch.where(both > 0, torch.maximum(fused, both), fused)


def rank_for_fusion(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """What [`fuse_margins`] compares with its threshold, to choose one by. Where both margins are above 0 it is one number beyond
    all others, since no threshold leaves these out."""
    return torch.where(torch.minimum(first, second) > 0, _PREDICTED_ANYWAY, first + second)


def evidence_sentences(scores: torch.Tensor, threshold: float) -> list[tuple[int, ...]]:
    """The sentences, in order, whose share `(P, S)` of the pair's attention exceeds the threshold; of each pair."""
    found = [[] for _ in scores]
    for row, sentence in (scores > threshold).nonzero().tolist():
        found[row].append(sentence)
    return list(map(tuple, found))


def cut_documents(
    features: DocumentFeatures,
    pairs: Sequence[tuple[int, int]],
    evidence: Sequence[tuple[int, ...]],
    processor: "CommProcessor",
) -> list[CutDocument]:
    """
    The documents of the second pass: one for each distinct set of sentences that a pair needs, in the order of the pairs. A pair
    needs its evidence, and its head's and its tail's first sentence where no other one mentions them. A pair without evidence
    needs none.

    Args:
        features (`DocumentFeatures`): the whole document's.
        pairs (`Sequence[tuple[int, int]]`): head and tail.
        evidence (`Sequence[tuple[int, ...]]`): of each pair, of [`evidence_sentences`].
        processor ([`CommProcessor`]): what encoded the document.
    """
    starts, places = features["sentence_starts"], {}
    for position, entity in zip(features["mention_positions"], features["mention_entities"], strict=True):
        if position >= 0:
            places.setdefault(entity, []).append(bisect_right(starts, position) - 1)
    wanted = {}
    for pair, sentences in zip(pairs, evidence, strict=True):
        if sentences and all(entity in places for entity in pair):
            chosen = set(sentences)
            for entity in pair:
                if chosen.isdisjoint(places[entity]):
                    chosen.add(min(places[entity]))
            wanted[tuple(sorted(chosen))] = None
    return [_cut(features, sentences, processor) for sentences in wanted]


def _cut(features, sentences, processor):
    tokens, last = features["input_ids"], len(features["input_ids"]) - 1
    edges = [*features["sentence_starts"], last]
    cut, starts, moved = tokens[:1], [], {}
    for sentence in sentences:
        start, end = (min(edge, last) for edge in edges[sentence : sentence + 2])
        starts.append(len(cut))
        moved[sentence] = len(cut) - start
        cut += tokens[start:end]
    cut.append(tokens[last])
    mentions = []
    for position, entity in zip(features["mention_positions"], features["mention_entities"], strict=True):
        sentence = bisect_right(features["sentence_starts"], position) - 1
        if position >= 0 and sentence in moved:
            mentions.append((position + moved[sentence], entity))
    entities = sorted({entity for _, entity in mentions})
    number = {entity: index for index, entity in enumerate(entities)}
    new = {
        "input_ids": cut,
        "mention_positions": [position for position, _ in mentions],
        "mention_entities": [number[entity] for _, entity in mentions],
        "sentence_starts": starts,
        "num_entities": len(entities),
        "windows": len(processor.window_spans(len(cut))),
        "has_labels": False,
        **_pairs_between(features, number),
    }
    return CutDocument(sentences, entities, {**no_document(tokens[0], tokens[last]), **new})


def _pairs_between(features, number):
    """The pairs that the whole document is asked about, as far as their entities have a new number."""
    if features.get("pairs") is None and not features.get("turned_pairs"):
        return {}
    asked = pairs_of(features).tolist()
    kept = {
        row: index for index, row in enumerate(row for row, pair in enumerate(asked) if number.keys() >= set(pair))
    }
    pairs = [[number[entity] for entity in asked[row]] for row in kept]
    return {"pairs": pairs, "turned_pairs": [kept[row] for row in features["turned_pairs"] if row in kept]}


@torch.no_grad()
def fuse_evidence(
    model: "PreTrainedModel",
    processor: "CommProcessor",
    outputs: "ModelOutput",
    features: Sequence[DocumentFeatures],
    rule: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
) -> torch.Tensor:
    """
    The second pass over a batch.

    A relation's second margin is the highest of all documents of the second pass that mention head and tail. With a
    `fusion_range` only pairs whose highest margin is that near to 0 are asked about twice; the others keep their margins.

    Args:
        model ([`CommForDocumentRelationExtraction`]), processor ([`CommProcessor`]): what predicts, and what encodes; its
            `evidence_threshold`, `fusion_threshold` and `fusion_range` are used.
        outputs (`CommOutput`): of the model for these documents, with `output_documents=True`.
        features (`Sequence[DocumentFeatures]`): the documents of the batch as [`CommProcessor.encode`] gave them.
        rule (`Callable`, *optional*): makes one rank of two margins, instead of [`fuse_margins`] with the processor's threshold.
            A relation of a pair that is asked about once then ranks before all others or is [`NEVER_PREDICTED`]: no threshold
            changes it.

    Returns:
        logits `(P, R + 1)` float32 for the outputs' pairs, that of the threshold class 0: the relations' are fused margins.
    """
    settings = processor.decision
    pair_index = outputs["pair_index"]
    first = relation_margins(outputs["logits"], settings.decision_threshold)
    asked = torch.ones(len(first), dtype=torch.bool, device=first.device)
    if settings.fusion_range is not None:
        asked = first.amax(1).abs() <= settings.fusion_range
    cut = _second_documents(outputs["documents"], pair_index[asked], features, processor)
    second = torch.full_like(first, -torch.inf)
    rows = {pair: row for row, pair in enumerate(map(tuple, pair_index.tolist()))}
    for index, one, pairs, margins in _predict(model, processor, cut):
        whole = [rows.get((index, one.entities[head], one.entities[tail])) for head, tail in pairs]
        known = torch.tensor([place for place, row in enumerate(whole) if row is not None], dtype=torch.long)
        whole = torch.tensor([row for row in whole if row is not None], dtype=torch.long)
        second[whole] = torch.maximum(second[whole], margins[known])
    second = torch.where(torch.isinf(second), MISSING_MARGIN, second)
    if rule is None:
        once, rule = first, partial(fuse_margins, threshold=settings.fusion_threshold)
    else:
        once = torch.where(first > 0, _PREDICTED_ANYWAY, NEVER_PREDICTED)
    fused = torch.where(asked[:, None], rule(first, second), once)
    return torch.cat([torch.zeros_like(fused[:, :1]), fused], 1)


def _second_documents(documents, pair_index, features, processor):
    """`(place in the batch, document)` of all documents of the second pass for these pairs."""
    threshold, by_document = processor.decision.evidence_threshold, {}
    for places in slices(len(pair_index), _SHARES_AT_ONCE, documents.sentences.shape[1]):
        part = pair_index[places]
        evidence = evidence_sentences(documents.sentence_scores(part), threshold)
        for (index, *pair), sentences in zip(part.tolist(), evidence, strict=True):
            by_document.setdefault(index, {})[tuple(pair)] = sentences
    return [
        (index, one)
        for index, evidence in by_document.items()
        for one in cut_documents(features[index], list(evidence), list(evidence.values()), processor)
    ]


def _predict(model, processor, cut):
    """For each document of the second pass its place in the batch, itself, its pairs, and their margins `(p, R)`."""
    cut = sorted(cut, key=lambda item: len(item[1].features["input_ids"]))
    for start in range(0, len(cut), _DOCUMENTS_AT_ONCE):
        part = cut[start : start + _DOCUMENTS_AT_ONCE]
        batch = processor.collate([one.features for _, one in part])
        outputs = model(**{name: tensor.to(model.device) for name, tensor in batch.items()}, return_dict=True)
        margins = relation_margins(outputs.logits, processor.decision.decision_threshold)
        for number, (index, one) in enumerate(part):
            own = outputs.pair_index[:, 0] == number
            yield index, one, outputs.pair_index[own, 1:].tolist(), margins[own]
