"""Fits the map from margins to probabilities, `p = s(slope * margin + intercept of the relation)`, and says how good it is.

Labels go missing unevenly by relation, so one threshold cannot be right for all of them. The map has one slope and one
intercept for each relation; an intercept is drawn towards the common one where a relation has few documents to learn it
from. One cut on p decides, which is the same as an offset on the margin for each relation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..decoding import within_cap
from ..evaluation.cutoffs import tune_offset
from ..features import LEAST_ASKED
from ..probabilities import ProbabilityMap, sigmoid

STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
FOLDS = 5
BINS = 15
# Cells that take part in the fit, those with the highest margins, for each gold fact. The others are certain negatives, and so
# many that the line would follow them: a loss such as CMM lets them be once they are low enough, so how low they are says little.
CELLS_PER_FACT = 5
LOOKED_AT = 0.05
# Of margins that the fit takes together, at their mean.
_WIDTH = 1 / 32


class CannotFitError(ValueError):
    """There are too few labelled documents to fit a map on, or the model does not rank facts above other pairs."""


@dataclass(frozen=True)
class FittedMap:
    """
    A map that was fitted on all documents, and what is known of it from cross-fitting: for each document, what a map says that
    was fitted on the folds without it. Its strength and its cut come from those other folds, too; its floor from all documents.

    Attributes:
        map (`ProbabilityMap`): the map.
        strength (`float`): penalty on an intercept's squared distance from the common one.
        probabilities (`list[np.ndarray]`): for each document `(p, R)` float64, cross-fitted.
        predicted (`list[np.ndarray]`): for each document `(p, R)` bool, whether a relation's cross-fitted probability exceeds the
            cross-fitted cut, and the cap leaves it.
    """

    map: ProbabilityMap
    strength: float
    probabilities: list[np.ndarray]
    predicted: list[np.ndarray]


def fold_of(documents: int, folds: int = FOLDS) -> np.ndarray:
    """The fold `(documents,)` of each document: every n-th is in one."""
    return np.arange(documents) % folds


def fit_probability_map(
    margins: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    strengths: Sequence[float] = STRENGTHS,
    folds: int = FOLDS,
    missed: Sequence[int] | None = None,
    max_relations_per_pair: int | None = None,
) -> FittedMap:
    """
    Fits the map on labelled documents that the model was not trained on, by penalised likelihood: `strength / 2` times the sum
    of the intercepts' squared distances from the common one is added to the negative log likelihood of the cells with the highest
    margins, [`CELLS_PER_FACT`] for each gold fact. The strength is chosen by cross-validated likelihood over documents, the cut
    by micro F1 on cross-fitted probabilities.

    Args:
        margins (`Sequence[np.ndarray]`): for each document `(p, R)`, the logits minus the threshold's.
        labels (`Sequence[np.ndarray]`): for each document `(p, R)` bool, the gold relations.
        strengths (`Sequence[float]`): candidates for the strength.
        folds (`int`, defaults to 5): number of folds, at least 3; see [`fold_of`].
        missed (`Sequence[int]`, *optional*): for each document, the number of its gold facts that are not among the labels,
            because the model is not asked about them. They count for the cut. By default there are none.
        max_relations_per_pair (`int`, *optional*): the processor's. The cut is chosen among the relations that it leaves; all of
            them take part in the fit. No cap by default.

    Raises:
        CannotFitError: there are fewer documents than folds, a fold's other documents have no gold relation, or higher margins
            are not more often gold, so that there is no slope above 0.
        ValueError: shapes differ.
    """
    margins = [np.asarray(one, dtype=np.float64) for one in margins]
    labels = [np.asarray(one, dtype=bool) for one in labels]
    if len(margins) != len(labels):
        raise ValueError(
            f"found margins of {len(margins)} documents and labels of {len(labels)}; expected the same number"
        )
    for index, shapes in enumerate(zip((one.shape for one in margins), (one.shape for one in labels), strict=True)):
        if shapes[0] != shapes[1]:
            found = "margins of shape {} and labels of shape {}".format(*shapes)
            raise ValueError(f"document {index}: found {found}; expected (pairs, relations) of both")
    if len(margins) < folds:
        raise CannotFitError(f"found {len(margins)} documents; expected at least one for each of {folds} folds")
    fold = fold_of(len(margins), folds)
    # Margins of a relation that differ by less than a width are taken together: a key for each place on that grid.
    keys = [np.round(one / _WIDTH).astype(np.int64) * one.shape[1] + np.arange(one.shape[1]) for one in margins]
    known = np.unique(np.concatenate([one.ravel() for one in keys]))
    parts, floor = [], _floor(margins, labels)
    for number in range(folds):
        chosen = np.flatnonzero(fold == number)
        of_margins, of_labels, of_keys = (
            np.concatenate([all_[i] for i in chosen]) for all_ in (margins, labels, keys)
        )
        used = of_margins > floor
        place = np.searchsorted(known, of_keys[used])
        columns = (None, of_labels[used], of_margins[used], of_margins[used] * of_labels[used])
        sums = np.stack([np.bincount(place, column, len(known)) for column in columns])
        rest = np.array([of_labels[~used].sum(), (~used).sum()])
        parts.append(_Part(of_margins, of_labels, sums, rest, 0 if missed is None else sum(missed[i] for i in chosen)))
    relation = known % margins[0].shape[1]
    probabilities, predicted = [None] * len(margins), [None] * len(margins)
    for number in range(folds):
        others = parts[:number] + parts[number + 1 :]
        map_, _ = _fit_parts(others, relation, strengths, floor, max_relations_per_pair)
        for index in np.flatnonzero(fold == number):
            probabilities[index] = map_.probabilities(margins[index])
            kept = within_cap(map_.logits(margins[index]), max_relations_per_pair)
            predicted[index] = (margins[index] > map_.offsets()) & kept
    map_, strength = _fit_parts(parts, relation, strengths, floor, max_relations_per_pair)
    return FittedMap(map_, strength, probabilities, predicted)


def _floor(margins, labels):
    """The margin above which cells take part in the fit; -inf where all do."""
    flat = np.concatenate([one.ravel() for one in margins])
    rest = len(flat) - CELLS_PER_FACT * max(1, sum(int(one.sum()) for one in labels))
    floor = float(np.partition(flat, rest - 1)[rest - 1]) if rest > 0 else -np.inf
    # Relations that a pair is not asked about, or that its types exclude, take no part, however few cells there are.
    return max(floor, LEAST_ASKED) if (flat <= LEAST_ASKED).any() else floor


class _Part(NamedTuple):
    """A fold: its margins and labels `(n, R)`; for each key the number of cells above the floor, of gold ones, and the sums of
    the margins of both `(4, keys)`; the numbers of gold cells and of all cells at or below the floor; and that of gold facts
    without a cell."""

    margins: np.ndarray
    labels: np.ndarray
    sums: np.ndarray
    rest: np.ndarray
    missed: int


def _fit_parts(parts, relation, strengths, floor, max_relations_per_pair):
    """The map on all parts together, with the strength and the cut that are best on parts left out of the fit."""
    best, total = None, sum(part.sums for part in parts)
    for strength in strengths:
        fits = [_fit(total - part.sums, relation, strength) for part in parts]
        loss = sum(_loss(part.sums, relation, *fit) for part, fit in zip(parts, fits, strict=True))
        if best is None or loss < best[0]:
            best = (loss, strength, fits)
    _, strength, fits = best
    gold_below, below = sum(part.rest for part in parts)
    limits = {"floor": None if np.isinf(floor) else floor, "below": float(gold_below / max(below, 1)) or 1e-12}

    def map_of(slope, intercepts, cut=1 - 1e-12):
        if slope <= 0:
            raise CannotFitError(f"the slope is {slope:.3g}: higher margins are not more often gold")
        return ProbabilityMap(slope, tuple(intercepts.tolist()), cut, **limits)

    crossed = [map_of(*fit).logits(part.margins) for part, fit in zip(parts, fits, strict=True)]
    kept = [within_cap(one, max_relations_per_pair) for one in crossed]
    gold = np.concatenate([part.labels[cells] for part, cells in zip(parts, kept, strict=True)])
    total_gold = sum(int(part.labels.sum()) + part.missed for part in parts)
    probabilities = [sigmoid(one)[cells] for one, cells in zip(crossed, kept, strict=True)]
    cut, _ = tune_offset(np.concatenate(probabilities), gold, total_gold)
    least = max(limits["below"], np.finfo(np.float64).tiny)
    return map_of(*_fit(total, relation, strength), float(np.clip(cut, least, 1 - 1e-12))), strength


def _loss(sums, relation, slope, intercepts):
    """The negative log likelihood, with the margins of a key at their mean."""
    number, gold, margin, gold_margin = sums
    used = number > 0
    mean = margin[used] / number[used]
    at_most = (number[used] * np.logaddexp(0.0, slope * mean + intercepts[relation[used]])).sum()
    return float(at_most - slope * gold_margin.sum() - (gold * intercepts[relation]).sum())


def _fit(sums, relation, strength):
    """Slope and intercepts `b + e_r` that minimise the negative log likelihood plus `strength / 2 * sum e_r^2`, by Newton's
    method."""
    sums = np.where(sums[0] > 0.5, sums, 0.0)  # a difference of sums may leave a trace
    number, gold, margin, gold_margin = sums
    if not gold.any():
        raise CannotFitError("found no gold relation; expected labelled documents")
    used = number > 0
    relations, place = int(relation.max()) + 1, relation[used]
    number, mean = number[used], margin[used] / number[used]

    def by_relation(values):
        return np.bincount(place, values, relations)

    gold = by_relation(gold[used])
    # slope, common intercept, the relations' own distances from it
    parameters = np.concatenate([[1.0, 0.0], np.zeros(relations)])

    def objective(values):
        return _loss(sums, relation, values[0], values[1] + values[2:]) + strength / 2 * (values[2:] ** 2).sum()

    value = objective(parameters)
    for _ in range(100):
        probability = sigmoid(parameters[0] * mean + (parameters[1] + parameters[2:])[place])
        expected = number * probability
        weight = expected * (1 - probability)
        own = by_relation(expected) - gold
        slope_gradient = (expected * mean).sum() - gold_margin.sum()
        gradient = np.concatenate([[slope_gradient, own.sum()], own + strength * parameters[2:]])
        w0, w1 = by_relation(weight), by_relation(weight * mean)
        hessian = np.zeros((relations + 2, relations + 2))
        hessian[0, 0], hessian[0, 1], hessian[1, 1] = (weight * mean**2).sum(), w1.sum(), w0.sum()
        hessian[0, 2:], hessian[1, 2:] = w1, w0
        hessian[2:, 2:] = np.diag(w0 + strength)
        hessian = np.triu(hessian) + np.triu(hessian, 1).T
        step = np.linalg.solve(hessian + 1e-9 * np.eye(len(hessian)), gradient)
        scale = 1.0
        while (new := objective(parameters - scale * step)) > value and scale > 1e-6:
            scale /= 2
        parameters, gain, value = parameters - scale * step, value - new, new
        if gain < 1e-10 * max(1.0, abs(value)):
            break
    return float(parameters[0]), parameters[1] + parameters[2:]


def reliability(probabilities: np.ndarray, correct: np.ndarray, bins: int = BINS) -> dict:
    """
    How far probabilities can be taken at their word.

    Args:
        probabilities (`(n,)` float array): of the cells that are looked at, see [`cells_looked_at`].
        correct (`(n,)` bool array): which of them are gold.
        bins (`int`, defaults to 15): bins of equal mass.

    Returns:
        `dict`: `cells`, `brier` (Brier score), `ece` (expected calibration error) and `bins`, a list of
            `{"probability", "share", "cells"}`: mean probability, share of gold cells and number of cells. Without cells, `brier`
            and `ece` are None.
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


def cells_looked_at(probabilities: np.ndarray, predicted: np.ndarray, least: float = LOOKED_AT) -> np.ndarray:
    """
    The cells by which a calibration is judged: those with a probability of 0.05 or more, and those that are predicted. Almost all
    cells of a document are certain negatives, which would make any figure good.

    Args:
        probabilities (float array), predicted (bool array): of the same shape.
        least (`float`, defaults to 0.05): the least probability.

    Returns:
        `np.ndarray`: bool, of that shape.
    """
    return (probabilities >= least) | predicted
