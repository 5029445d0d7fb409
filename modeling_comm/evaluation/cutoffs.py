"""Average precision, and the cut-off with the best F1, over candidates that are all in memory."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..settings import SettingError
from .rates import ratio


def _floats(scores):
    scores = np.asarray(scores)
    return scores if scores.dtype.kind == "f" else scores.astype(float)


def _check_candidates(function, scores, correct, total_gold):
    scores, correct = _floats(scores), np.asarray(correct, dtype=bool)
    if scores.ndim != 1 or scores.shape != correct.shape:
        expected = f"one-dimensional, like the scores, whose shape is {scores.shape}"
        raise SettingError(function, "the shape of correct", correct.shape, expected)
    if not np.isfinite(scores).all():
        first = np.flatnonzero(~np.isfinite(scores))[0]
        raise SettingError(function, f"scores[{first}]", float(scores[first]), "a finite number")
    if total_gold < correct.sum():
        raise SettingError(function, "total_gold", total_gold, f"at least {correct.sum()}, the number marked correct")
    return scores, correct


def _cumulate(scores, correct, counts):
    """Distinct scores in falling order and, down to each, the number of correct candidates and of all candidates, where each
    score stands for `counts` candidates."""
    order = np.argsort(-scores, kind="stable")
    scores = scores[order]
    last_of_tie = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)[: len(scores)])
    return scores[last_of_tie], np.cumsum(correct[order])[last_of_tie], np.cumsum(counts[order])[last_of_tie]


def average_precision(scores: ArrayLike, correct: ArrayLike, total_gold: int) -> float:
    """Average precision over scored candidates: precision at every distinct score, weighted by the recall it adds.

    Args:
        scores (`(n,)` float array): higher is more certain. Equal scores enter together, whatever their order.
        correct (`(n,)` bool array): which candidates are gold facts.
        total_gold (`int`): number of gold facts; those without a candidate count as missed.

    Raises:
        SettingError: shapes differ, a score is not finite, or `total_gold` is below the number of correct candidates.
    """
    scores, correct = _check_candidates("average_precision", scores, correct, total_gold)
    _, hits, taken = _cumulate(scores, correct, np.ones(len(scores), np.int64))
    return float(ratio((np.diff(hits, prepend=0) * hits / taken).sum(), total_gold))


def tune_offset(scores: ArrayLike, correct: ArrayLike, total_gold: int) -> tuple[float, float]:
    """The cut-off with the best micro F1 when every candidate with `score > offset` is predicted, and that F1.

    The offset is half-way between the last score that is predicted and the next one; of equally good offsets it
    is the highest. Where no candidate is correct, nothing is predicted; without any candidate it is 0.

    Args:
        scores, correct, total_gold: as in [`average_precision`], as are the errors raised.
    """
    scores, correct = _check_candidates("tune_offset", scores, correct, total_gold)
    return tune_offset_of_groups(scores, correct, np.ones(len(scores), np.int64), total_gold)


def tune_offset_of_groups(
    scores: ArrayLike, correct: ArrayLike, counts: ArrayLike, total_gold: int
) -> tuple[float, float]:
    """[`tune_offset`] of groups of candidates: all of a group have the same score.

    Args:
        scores (`(n,)` float array): of each group.
        correct, counts (`(n,)` int64 array): how many of its candidates are gold facts, and how many it has.
        total_gold (`int`): as in [`average_precision`].
    """
    values, hits, taken = _cumulate(_floats(scores), np.asarray(correct), np.asarray(counts))
    if not len(values):
        return 0.0, 0.0
    f1 = 2 * hits / (taken + total_gold)
    best = int(np.argmax(f1))
    upper = values[best]
    if not hits[best]:
        return float(upper), 0.0
    return half_way(values[best + 1] if best + 1 < len(values) else -np.inf, upper), float(f1[best])


def half_way(lower: Any, upper: Any) -> float:
    """A cut-off between two neighbouring scores: the upper one is above it, the lower one, which may be -inf, is not."""
    if not np.isfinite(lower):
        lower = np.nextafter(upper, -np.inf, dtype=upper.dtype)
    middle = lower / 2 + upper / 2
    # Between neighbouring floats there is no middle, and rounding must not reach the upper one: `>` is strict.
    return float(middle if lower <= middle < upper else lower)
