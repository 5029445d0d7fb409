"""Evidence: the sentences that prove a fact. Attention is trained to point at them, and they are read from it.

DREEAM (Ma et al. 2023): the score of a sentence is its share in what head and tail both attend to
([`EncodedDocuments.sentence_scores`]); the loss is the divergence of these scores from the annotated evidence. No parameter is
added.
"""

from collections.abc import Mapping, Sequence

import torch

# The attention of a pair does not reach a sentence with a smaller share: of a far window, for example.
_UNREACHED = 1e-30


def collate_evidence(features: Sequence[Mapping], sentences: torch.Tensor) -> dict[str, torch.Tensor]:
    """
    The annotated evidence of a batch.

    Args:
        features (`Sequence[Mapping]`): of [`CommProcessor.encode`]; `facts` and their `evidence` are read.
        sentences (`(B, S, 2)` int64): of [`~windows.sentence_spans`]. Evidence in a sentence that was cut off is left out.

    Returns:
        `evidence_pairs` `(N, 3)` int64: document, head and tail of every pair that has a relation, and `evidence` `(N, S)`
        float32: how many of its relations each sentence proves, 0 everywhere where no evidence is annotated.
    """
    kept = (sentences[..., 1] > sentences[..., 0]).tolist()
    counts = {}
    for document, feature in enumerate(features):
        for (head, tail, _), evidence in zip(feature["facts"], feature["evidence"], strict=True):
            row = counts.setdefault((document, head, tail), [0.0] * sentences.shape[1])
            for sentence in evidence:
                row[sentence] += kept[document][sentence]
    pairs = torch.tensor(list(counts), dtype=torch.long).view(-1, 3)
    return {"evidence_pairs": pairs, "evidence": torch.tensor(list(counts.values())).view(-1, sentences.shape[1])}


def count_evidence_pairs(evidence: torch.Tensor, average: str = "annotated") -> torch.Tensor:
    """Number of pairs that the mean of [`evidence_loss`] is taken over, on the device of `evidence`."""
    annotated = evidence.sum(-1) > 0
    return annotated.sum() if average == "annotated" else torch.ones_like(annotated).sum()


def evidence_loss(
    scores: torch.Tensor,
    evidence: torch.Tensor,
    reduction: str = "mean",
    average: str = "annotated",
    num_pairs: int | torch.Tensor | None = None,
) -> torch.Tensor:
    """
    Divergence KL(v || s) of sentence scores s from the annotated evidence v, each relation of a pair counted (DREEAM, eq. 4-5).

    A sentence that the pair's attention does not reach, because it is in a window far from the mentions, is left out of the
    annotated evidence, whose rest counts for it: otherwise the loss could fall below 0. A pair without evidence adds 0. Without
    any pair the loss is 0.

    Args:
        scores (`(N, S)` float): of [`EncodedDocuments.sentence_scores`].
        evidence (`(N, S)` float): of [`collate_evidence`].
        reduction (`str`, defaults to `"mean"`): `"mean"` or `"sum"` over pairs.
        average (`str`, defaults to `"annotated"`): the mean is over pairs with evidence, or, with `"related"`, over all N pairs,
            those without evidence included, as in DREEAM's code.
        num_pairs (`int` or `torch.Tensor`, *optional*): what the sum is divided by instead of this batch's number of pairs.

    Returns:
        a number, float32 at least.
    """
    reached = torch.where(scores > _UNREACHED, evidence, 0.0).to(scores.dtype)
    total = reached.sum(-1, keepdim=True)
    wanted = reached / torch.where(total > 0, total, 1.0)
    counts = wanted > 0
    loss = (wanted * (torch.where(counts, wanted, 1.0).log() - torch.where(counts, scores, 1.0).log())).sum()
    if reduction == "sum":
        return loss
    number = count_evidence_pairs(evidence, average) if num_pairs is None else num_pairs
    return loss / torch.as_tensor(number, device=loss.device).clamp(min=1)


def default_evidence_threshold(evidence_weight: float) -> float | None:
    """The share of the attention beyond which a sentence is evidence, where nothing was tuned: DREEAM's 0.2, or None for a model
    that is not trained for evidence."""
    return 0.2 if evidence_weight else None
