"""What an evaluation says: its metrics, which of two checkpoints is better, and that nothing was predicted."""

from transformers import TrainerState

from ..decoding import Predictions, flat_margins, official_predictions
from ..evaluation.scoring import IgnReference, average_precision, score
from ..processing_comm import CommProcessor


def evaluate_results(
    results: list[Predictions],
    documents: list[dict],
    processor: CommProcessor,
    ign_reference: IgnReference | None = None,
) -> dict[str, float]:
    """Metrics of a whole data set: `predicted_positives`, `removed_by_cap`, and, where every document has labels, `loss` (mean
    over pairs), `f1`, `precision`, `recall`, `ign_f1` (with a reference) and `average_precision`."""
    metrics = {
        "predicted_positives": sum(len(result.triples) for result in results),
        "removed_by_cap": sum(result.removed_by_cap for result in results),
    }
    margins, labels = flat_margins(results)
    if labels is None:
        return metrics
    predicted = official_predictions(results, documents, processor.id2label)
    scores = score(predicted, documents, ign_reference=ign_reference)
    keys = ("f1", "precision", "recall", "ign_f1")
    metrics |= {key: scores[key] for key in keys if scores[key] is not None}
    gold = int(labels.sum()) + sum(document.get("unknown_facts", 0) for document in documents)
    metrics["average_precision"] = average_precision(margins, labels, gold)
    metrics["loss"] = sum(result.loss for result in results) / max(sum(len(result.pairs) for result in results), 1)
    return metrics


def breaks_tie(metrics: dict[str, float], state: TrainerState, metric_for_best_model: str | None) -> bool:
    """
    Whether an evaluation that equals the best one so far should take its place: the higher average precision does, and of equal
    ones the later. F1 is 0 as long as no relation clears the threshold, and average precision rises meanwhile.

    Args:
        metrics (`dict[str, float]`): of the evaluation, each with the prefix `eval_`.
        state (`TrainerState`): its history holds the best evaluation so far.
        metric_for_best_model (`str`, *optional*): what is compared first.

    Returns:
        `bool`: also False where the evaluation is no equal of the best one.
    """
    if metric_for_best_model is None or state.best_metric is None:
        return False
    name = f"eval_{metric_for_best_model.removeprefix('eval_')}"
    if metrics.get(name) != state.best_metric:
        return False
    best = next(
        (entry for entry in state.log_history if entry["step"] == state.best_global_step and name in entry), {}
    )
    # That of the same evaluation set, if there are several: "eval_dev_f1" has "eval_dev_average_precision" beside it.
    parts = name.split("_")
    keys = [f"{'_'.join(parts[:end])}_average_precision" for end in range(len(parts) - 1, 0, -1)]
    key = next((key for key in keys if key in metrics), None)
    return metrics.get(key, 0.0) >= best.get(key, 0.0)


def nothing_predicted(metrics: dict[str, float], results: list[Predictions]) -> str | None:
    """
    A warning where no relation of any pair clears the threshold although there are gold facts, and what helps; else None.

    Args:
        metrics (`dict[str, float]`): what [`evaluate_results`] gave.
        results (`list[Predictions]`): of all documents.
    """
    margins, labels = flat_margins(results)
    if metrics["predicted_positives"] or labels is None or not labels.any():
        return None
    return (
        f"no relation of any pair clears the threshold, so F1 is 0; the highest margin is {margins.max():.2f}. Average precision "
        f"is {metrics['average_precision']:.4f}; it does not depend on the threshold and shows whether the model learns. More "
        "training steps or a higher head_learning_rate help; tune_threshold_offset finds the margin with the best F1."
    )
