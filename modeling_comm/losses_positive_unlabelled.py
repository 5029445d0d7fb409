"""Losses for labels of which facts are missing: a pair without a label is unlabelled, which need not mean that nothing holds.

Both are told e, the number of facts per labelled fact, for all relations or for each; `incomplete_labels/label_rates.py`
estimates it. Notation and promises are those of the other losses; a positive costs `l+`, a negative `l-`.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import torch

from .loss_base import reduce_losses, relation_distances, relation_values, rescaled_distance
from .loss_registry import register_loss
from .settings import AtLeast, InRange, SettingError


@register_loss("pu_cmm", reference="COMM's paper, du Plessis et al. 2015")
def pu_cmm_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    reduction: str = "mean",
    *,
    margin: Annotated[float, InRange(0, 1)] = 0.2,
    gamma: Annotated[float, AtLeast(0)] = 1.0,
    facts_per_label: Annotated[float, AtLeast(1)] = 1.0,
    facts_per_label_by_relation: Annotated[dict[str, float] | None, AtLeast(1)] = None,
    weight: Annotated[float, AtLeast(0)] = 1.0,
    weight_by_relation: Annotated[dict[str, float] | None, AtLeast(0)] = None,
) -> torch.Tensor:
    """
    CMM for positive and unlabelled pairs: `sum_P (e w l+(d) - (e - 1) l-(d)) + sum_U l-(d)`, with CMM's
    `l+ = (1 - log s(d))^gamma (-log s(d))` and `l- = -log min(s(-d) + m, 1)`; `U` are the pairs without the label.

    If one of e facts is labelled, whatever the pair, this estimates without bias what CMM would be on all facts (with
    `w = 1`; du Plessis et al. 2015, "Convex formulation for learning from positive and unlabeled data", after Elkan and
    Noto 2008): a labelled fact stands for e facts, and `e - 1` of them are among the unlabelled pairs, where they were counted
    as negatives. A relation is predicted where its label has a probability above that of CMM divided by e (23 % / e with
    `m = 0.2` and `gamma = 1`, 42 % / e with `m = 0.2` and `gamma = 0`).

    `l-` is at most `-log m`, so the term of a labelled fact is never below `(e - 1) log m`, and it falls in `d`. With e and w
    of 1 this is `cmm`, to the last bit.

    Args:
        margin (`float`, *optional*):
            m, as in `cmm`. Above 0 where some e is above 1: without a bound on `l-` the loss would have none below.
        gamma (`float`, *optional*):
            gamma, as in `cmm`.
        facts_per_label (`float`, *optional*):
            e, how many facts there are per labelled fact; 3 if a third of the facts is labelled.
        facts_per_label_by_relation (`dict[str, float]`, *optional*):
            e of single relations; the others have `facts_per_label`.
        weight (`float`, *optional*):
            w, a weight of `l+` of labelled facts.
        weight_by_relation (`dict[str, float]`, *optional*):
            w of single relations; the others have `weight`.
    """
    largest = max([facts_per_label, *(facts_per_label_by_relation or {}).values()])
    if largest > 1 and margin == 0:
        raise SettingError(
            "pu_cmm", "margin", margin, f"more than 0, because facts_per_label is {largest:g} for a relation"
        )
    distance, positive = relation_distances(logits, labels)
    q = rescaled_distance(distance, positive, margin)
    concentration = (1 - torch.where(positive, q, 0.0)) ** gamma
    terms = concentration * q
    facts = relation_values(facts_per_label_by_relation, logits, facts_per_label)
    if largest > 1:
        as_negative = rescaled_distance(distance, torch.zeros_like(positive), margin)
        labelled = facts * relation_values(weight_by_relation, logits, weight) * terms - (facts - 1) * as_negative
        terms = torch.where(positive, labelled, terms)
    elif weight != 1 or weight_by_relation:
        terms = torch.where(positive, relation_values(weight_by_relation, logits, weight) * terms, terms)
    return reduce_losses(-terms.sum(dim=1), reduction)


@register_loss("ssr_pu", reference="SSR-PU, Wang et al. 2022", sums_over_pairs=False)
def ssr_pu_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    reduction: str = "mean",
    *,
    label_rates: Annotated[dict[str, float] | None, InRange(0, 1)] = None,
    facts_per_label: Annotated[float, AtLeast(1)] = 3.0,
    facts_per_label_by_relation: Annotated[dict[str, float] | None, AtLeast(1)] = None,
    margin: Annotated[float, AtLeast(0)] = 0.25,
) -> torch.Tensor:
    """
    Squared ranking loss for positive and unlabelled pairs under prior shift (Wang et al. 2022, "A Unified
    Positive-Unlabeled Learning Framework for Document-Level Relation Extraction with Incomplete Labeling", and its code).

    For each relation, with `l+ = (d - m)^2 / 4`, `l- = (d + m)^2 / 4`, the rate `a` of its labels and `b = e a`:
    `R- = (1 - a) mean_U l- - (b - a) mean_P l-` and `R+ = sqrt(b (1 - b)) mean_P l+`. The loss is the sum over relations
    of `R- + R+`, but of `-R-` alone where `R-` is negative. A relation without a label has `R- = mean_U l-`, where the
    published code gives nan.

    The means are over the pairs of one batch, so this is a loss of batches, not of pairs: `"mean"` is the published loss,
    `"sum"` is it times the number of pairs, and with `"none"` each pair has its share of that, which depends on the other
    pairs. A batch is what one process sees at once, and `pairs_at_once`, which would cut it, is refused. With accumulated batches
    or several processes the loss is the mean of the batches' losses, weighted by their pairs, and not the loss of all their
    pairs together; an evaluation's loss depends on its batches as well.

    Args:
        label_rates (`dict[str, float]`, *optional*):
            The share of the training documents' pairs that has each relation's label; relations that are missing have none.
            Has to be given. `modeling_comm.incomplete_labels.label_rates.label_rates(documents)` counts it.
        facts_per_label (`float`, *optional*):
            e, how many facts there are per labelled fact. The paper has 3 for DocRED.
        facts_per_label_by_relation (`dict[str, float]`, *optional*):
            e of single relations; the others have `facts_per_label`.
        margin (`float`, *optional*):
            m, the distance from the threshold at which a pair costs nothing.
    """
    _check_rates(label_rates, facts_per_label, facts_per_label_by_relation or {})
    distance, positive = relation_distances(logits, labels)
    rates = relation_values(label_rates, logits, default=0.0)
    facts = rates * relation_values(facts_per_label_by_relation, logits, facts_per_label)
    # 1 - a = (1 - b) / (1 - u) and b - a = u (1 - a), in the paper's terms, where u is the rate of facts among unlabelled pairs.
    gain, loss = (distance - margin) ** 2 / 4, (distance + margin) ** 2 / 4
    labelled = positive.sum(0, dtype=distance.dtype)
    per_labelled, per_unlabelled = 1 / labelled.clamp(min=1), 1 / (len(positive) - labelled).clamp(min=1)
    negative_term = torch.where(positive, (rates - facts) * per_labelled, (1 - rates) * per_unlabelled) * loss
    positive_term = torch.where(positive, (facts * (1 - facts)).sqrt() * per_labelled, 0.0) * gain
    clamped = negative_term.detach().sum(0) < 0
    terms = torch.where(clamped, -negative_term, negative_term + positive_term)
    return reduce_losses(len(positive) * terms.sum(1), reduction)


def _check_rates(rates: Mapping[Any, float] | None, facts: float, facts_by_relation: Mapping[Any, float]) -> None:
    if rates is None:
        expected = (
            "a mapping of relations to the share of pairs that has their label, as label_rates(documents) counts it"
        )
        raise SettingError("ssr_pu", "label_rates", None, expected)
    for column, rate in rates.items():
        most = facts_by_relation.get(column, facts)
        if rate * most > 1:
            raise SettingError(
                "ssr_pu", "label_rates", rate, f"at most {1 / most:g}: times facts_per_label it is a share"
            )
