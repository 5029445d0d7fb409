"""What each way to decide is worth: the model's own threshold, one offset for all relations, and a map to probabilities.

What was chosen on documents is judged on them by cross-fitting only: what decides on a document was chosen without its fold.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..decoding import within_cap
from ..evaluation.cutoffs import tune_offset
from ..evaluation.rates import rates
from ..probabilities import ProbabilityMap, sigmoid
from ..utils.imports import of_extra
from .probability_map import FOLDS, FittedMap, cells_looked_at, fold_of, reliability

WAYS = {"threshold": "own threshold", "offset": "one offset", "map": "map to probabilities"}


def cross_fitted_offset(
    margins: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    folds: int = FOLDS,
    missed: Sequence[int] | None = None,
    max_relations_per_pair: int | None = None,
) -> tuple[float, list[np.ndarray]]:
    """
    The offset with the best micro F1, and what the offsets of the other folds decide.

    Args:
        margins (`Sequence[np.ndarray]`): for each document `(p, R)`, the logits minus the threshold's.
        labels (`Sequence[np.ndarray]`): for each document `(p, R)` bool, the gold relations.
        folds (`int`, defaults to 5): number of folds, see [`~.probability_map.fold_of`].
        missed (`Sequence[int]`, *optional*): for each document, the number of its gold facts that are not among the labels,
            because the model is not asked about them. By default there are none.
        max_relations_per_pair (`int`, *optional*): the processor's. No cap by default.

    Returns:
        the offset of all documents, and for each document `(p, R)` bool, whether a relation's margin exceeds the offset that is
            best on the folds without it, and the cap leaves it.
    """
    fold = fold_of(len(margins), folds)
    missed = [0] * len(margins) if missed is None else missed
    kept = [within_cap(one, max_relations_per_pair) for one in margins]

    def best(chosen):
        flat = [np.concatenate([all_[index][kept[index]] for index in chosen]) for all_ in (margins, labels)]
        return tune_offset(*flat, sum(int(labels[index].sum()) + missed[index] for index in chosen))[0]

    offsets = [best(np.flatnonzero(fold != number)) for number in range(folds)]
    predicted = [(one > offsets[number]) & cells for one, cells, number in zip(margins, kept, fold, strict=True)]
    return best(range(len(margins))), predicted


def decision_scores(
    predicted: Sequence[np.ndarray], labels: Sequence[np.ndarray], missed: int = 0
) -> dict[str, float]:
    """
    Scores of decisions on all candidate pairs.

    Args:
        predicted (`Sequence[np.ndarray]`), labels (`Sequence[np.ndarray]`): for each document `(p, R)` bool.
        missed (`int`, defaults to 0): number of further gold facts, which the model is not asked about.

    Returns:
        `dict[str, float]`: `precision`, `recall` and `f1` over facts, `macro_f1`, the mean over relations that have a gold
            fact among the labels (the relations of `missed` facts are not known here), and the counts `predicted` and `gold`.
    """
    relations = labels[0].shape[1]
    counts = np.zeros((3, relations))
    for decided, gold in zip(predicted, labels, strict=True):
        counts += [(decided & gold).sum(0), decided.sum(0), gold.sum(0)]
    correct, found, gold = counts
    by_relation = 2 * correct / np.maximum(found + gold, 1)
    total = rates(int(correct.sum()), int(found.sum()), int(gold.sum()) + missed)
    return {
        **{name: total[name] for name in ("precision", "recall", "f1")},
        "macro_f1": float(by_relation[gold > 0].mean()) if gold.any() else 0.0,
        "predicted": total["predictions"],
        "gold": total["gold"],
    }


def report_on_dev(
    fitted: FittedMap,
    margins: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    missed: Sequence[int] | None = None,
    max_relations_per_pair: int | None = None,
) -> dict:
    """
    Compares the ways to decide on the documents that a map was fitted on, by cross-fitting.

    Args:
        fitted (`FittedMap`): what [`~.probability_map.fit_probability_map`] made of these documents.
        margins (`Sequence[np.ndarray]`), labels (`Sequence[np.ndarray]`), missed (`Sequence[int]`, *optional*),
            max_relations_per_pair (`int`, *optional*): as it got them.

    Returns:
        `dict`: `offset`, `slope`, `cut`, `strength`, the number of `documents`, and under `dev` the scores of each of [`WAYS`].
    """
    cap = max_relations_per_pair
    offset, by_offset = cross_fitted_offset(margins, labels, missed=missed, max_relations_per_pair=cap)
    probabilities = {"threshold": [sigmoid(one.astype(np.float64)) for one in margins], "map": fitted.probabilities}
    by_threshold = [(one > 0) & within_cap(one, cap) for one in margins]
    predicted = {"threshold": by_threshold, "offset": by_offset, "map": fitted.predicted}
    return {
        "documents": len(margins),
        **{"offset": offset, "slope": fitted.map.slope, "cut": fitted.map.cut, "strength": fitted.strength},
        "dev": _ways(predicted, probabilities, labels, missed),
    }


def report_on_test(
    report: dict,
    map_: ProbabilityMap,
    margins: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    missed: Sequence[int] | None = None,
    max_relations_per_pair: int | None = None,
) -> dict:
    """
    Compares the ways to decide on other documents, with what was chosen before.

    Args:
        report (`dict`): what [`report_on_dev`] returned.
        map_ (`ProbabilityMap`): the map.
        margins (`Sequence[np.ndarray]`), labels (`Sequence[np.ndarray]`), missed (`Sequence[int]`, *optional*): of the other
            documents.
        max_relations_per_pair (`int`, *optional*): the processor's. No cap by default.

    Returns:
        `dict`: the report, with their scores under `test`.
    """
    probabilities = {
        "threshold": [sigmoid(one.astype(np.float64)) for one in margins],
        "map": [map_.probabilities(one) for one in margins],
    }
    required = {"threshold": 0.0, "offset": report["offset"], "map": map_.offsets()}
    ranks = {"threshold": margins, "offset": margins, "map": [map_.logits(one) for one in margins]}
    predicted = {
        way: [
            (one > least) & within_cap(rank, max_relations_per_pair)
            for one, rank in zip(margins, ranks[way], strict=True)
        ]
        for way, least in required.items()
    }
    return {**report, "test": _ways(predicted, probabilities, labels, missed)}


def _ways(predicted, probabilities, labels, missed):
    scores = {}
    for way, decided in predicted.items():
        scores[way] = decision_scores(decided, labels, 0 if missed is None else sum(missed))
        if way in probabilities:  # the offset has the threshold's
            flat = [
                np.concatenate([one.ravel() for one in columns]) for columns in (probabilities[way], decided, labels)
            ]
            shown = cells_looked_at(*flat[:2])
            scores[way] |= reliability(flat[0][shown], flat[2][shown])
    return scores


def plot_reliability(report: dict, file: str | Path) -> None:
    """
    Draws how often facts hold against the probability that they were given, in bins of equal mass, before and after the map.

    Args:
        report (`dict`): see [`report_on_dev`]; the test documents' scores are drawn if it has them, else the cross-fitted ones.
        file (`str` or `Path`): the picture to write.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ImportError(f"the reliability plot needs {error.name!r}{of_extra('plots')}") from error
    split = "test" if "test" in report else "dev"
    figure = Figure(figsize=(5, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], color="gray", linestyle="--", linewidth=1)
    for way, name in (("threshold", "sigmoid of the margin"), ("map", "map")):
        found = report[split][way]
        if found["bins"]:
            points = [[row[key] for row in found["bins"]] for key in ("probability", "share")]
            axis.plot(*points, marker="o", markersize=4, label=f"{name}, ECE {found['ece']:.3f}")
    axis.set(
        xlabel="probability", ylabel="share that holds", xlim=(0, 1), ylim=(0, 1),
        title=f"{split} documents, cells with p >= 0.05 or predicted",
    )  # fmt: skip
    axis.legend(loc="upper left")
    figure.savefig(file, dpi=100)
