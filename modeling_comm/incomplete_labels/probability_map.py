"""Margins to probabilities, one map for a whole model: `p = s(slope * margin + intercept of the relation)`.

Labels go missing unevenly by relation, so one threshold cannot be right for all of them. The map has one slope and one
intercept for each relation; an intercept is drawn towards the common one where a relation has few documents to learn it
from. One cut on p decides, which is the same as an offset on the margin for each relation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..evaluation.cutoffs import tune_offset

STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
FOLDS = 5


@dataclass(frozen=True)
class ProbabilityMap:
    """
    A fitted map.

    Attributes:
        slope (`float`): of the margin, the same for all relations.
        intercepts (`np.ndarray` of shape `(R,)`): one for each relation.
        strength (`float`): penalty on an intercept's squared distance from the common one.
        cut (`float`): a relation is predicted iff its probability exceeds it.
    """

    slope: float
    intercepts: np.ndarray
    strength: float
    cut: float = 0.5

    def probabilities(self, margins: np.ndarray) -> np.ndarray:
        """Probabilities, float64, of margins whose last dimension are the R relations. p means "in labels of the kind, and
        on text of the kind, that the map was fitted on"."""
        return _sigmoid(self.slope * margins + self.intercepts)

    def offsets(self) -> np.ndarray:
        """The margin `(R,)` that each relation has to exceed, so that `margin > offset` decides as `p > cut` does."""
        return (np.log(self.cut / (1 - self.cut)) - self.intercepts) / self.slope


def fit_probability_map(
    margins: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    strengths: Sequence[float] = STRENGTHS,
    folds: int = FOLDS,
) -> tuple[ProbabilityMap, list[np.ndarray]]:
    """
    Fits the map on labelled documents that the model was not trained on, by penalised likelihood. The strength of the
    penalty is chosen by cross-validated likelihood over documents, the cut by micro F1 on the cross-fitted probabilities.

    Args:
        margins (`Sequence[np.ndarray]`): for each document `(p, R)`, the logits minus the threshold's.
        labels (`Sequence[np.ndarray]`): for each document `(p, R)` bool, the gold relations.
        strengths (`Sequence[float]`): candidates for the strength.
        folds (`int`, defaults to 5): every n-th document is in one fold.

    Returns:
        the map fitted on all documents, and for each document the probabilities `(p, R)` from the map of the folds that it
        is not in.

    Raises:
        ValueError: there are fewer documents than folds, no gold relation in some fold's other documents, or shapes differ.
    """
    margins = [np.asarray(one, dtype=np.float64) for one in margins]
    labels = [np.asarray(one, dtype=bool) for one in labels]
    if [one.shape for one in margins] != [one.shape for one in labels]:
        raise ValueError("margins and labels differ in their shapes")
    if len(margins) < folds:
        raise ValueError(f"found {len(margins)} documents; expected at least one for each of {folds} folds")
    best = None
    for strength in strengths:
        crossed, loss = [None] * len(margins), 0.0
        for fold in range(folds):
            rest = [index for index in range(len(margins)) if index % folds != fold]
            slope, intercepts = _fit(_join(margins, rest), _join(labels, rest), strength)
            for index in range(fold, len(margins), folds):
                scores = slope * margins[index] + intercepts
                loss += _loss(scores, labels[index]).sum()
                crossed[index] = _sigmoid(scores)
        if best is None or loss < best[0]:
            best = (loss, strength, crossed)
    _, strength, crossed = best
    probabilities = np.concatenate([one.ravel() for one in crossed])
    gold = np.concatenate([one.ravel() for one in labels])
    cut, _ = tune_offset(probabilities, gold, int(gold.sum()))
    slope, intercepts = _fit(np.concatenate(margins), np.concatenate(labels), strength)
    tiny = np.finfo(np.float64).tiny
    return ProbabilityMap(slope, intercepts, strength, float(np.clip(cut, tiny, 1 - 1e-12))), crossed


def reliability(probabilities: np.ndarray, correct: np.ndarray, bins: int = 15) -> dict:
    """
    How far probabilities can be taken at their word.

    Args:
        probabilities (`(n,)` float array): of the cells that are looked at. Almost all cells of a document are certain
        negatives, which
            would make any figure good: take those with p >= 0.05 and those that are predicted.
        correct (`(n,)` bool array): which of them are gold.
        bins (`int`, defaults to 15): bins of equal mass.

    Returns:
        `dict`: `cells`, `brier`, `ece` (expected calibration error) and `bins`, a list of `{"probability", "share",
            "cells"}`: mean
        probability, share of gold cells and number of cells. Without cells, `brier` and `ece` are None.
    """
    order = np.argsort(probabilities, kind="stable")
    probabilities, correct = np.asarray(probabilities)[order], np.asarray(correct, dtype=bool)[order]
    parts = [part for part in np.array_split(np.arange(len(order)), bins) if len(part)]
    table = [
        {"probability": float(probabilities[part].mean()), "share": float(correct[part].mean()), "cells": len(part)}
        for part in parts
    ]
    gaps = [abs(row["probability"] - row["share"]) * row["cells"] for row in table]
    return {
        "cells": len(order),
        "brier": float(((probabilities - correct) ** 2).mean()) if len(order) else None,
        "ece": sum(gaps) / len(order) if len(order) else None,
        "bins": table,
    }


def _join(arrays, chosen):
    return np.concatenate([arrays[index] for index in chosen])


def _sigmoid(scores):
    return np.exp(-np.logaddexp(0.0, -scores))


def _loss(scores, labels):
    return np.logaddexp(0.0, np.where(labels, -scores, scores))


def _fit(margins, labels, strength, tolerance=1e-9, steps=100):
    """Slope and intercepts `b + e_r` that minimise the negative log likelihood plus `strength / 2 * sum e_r^2`, by Newton's
    method."""
    gold = labels.sum(0).astype(np.float64)
    if not gold.any():
        raise ValueError("found no gold relation; expected labelled documents")
    relations = margins.shape[1]
    # slope, common intercept, the relations' own distances from it
    parameters = np.concatenate([[1.0, 0.0], np.zeros(relations)])
    hold = margins[labels].sum()

    def objective(values):
        scores = values[0] * margins + (values[1] + values[2:])
        return _loss(scores, labels).sum() + strength / 2 * (values[2:] ** 2).sum()

    value = objective(parameters)
    for _ in range(steps):
        probability = _sigmoid(parameters[0] * margins + (parameters[1] + parameters[2:]))
        weight = probability * (1 - probability)
        own = probability.sum(0) - gold
        gradient = np.concatenate([[(probability * margins).sum() - hold, own.sum()], own + strength * parameters[2:]])
        w0, w1 = weight.sum(0), (weight * margins).sum(0)
        hessian = np.zeros((relations + 2, relations + 2))
        hessian[0, 0], hessian[0, 1], hessian[1, 1] = (weight * margins**2).sum(), w1.sum(), w0.sum()
        hessian[0, 2:], hessian[1, 2:] = w1, w0
        hessian[2:, 2:] = np.diag(w0 + strength)
        hessian = np.triu(hessian) + np.triu(hessian, 1).T
        step = np.linalg.solve(hessian + 1e-9 * np.eye(len(hessian)), gradient)
        scale = 1.0
        while (new := objective(parameters - scale * step)) > value and scale > 1e-6:
            scale /= 2
        parameters, gain, value = parameters - scale * step, value - new, new
        if gain < tolerance * max(1.0, abs(value)):
            break
    return float(parameters[0]), parameters[1] + parameters[2:]
