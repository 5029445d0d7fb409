"""What an evaluation says: which of two checkpoints is better, and that nothing was predicted."""

from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import SaveStrategy

from ..evaluation.ranking import CandidateRanking
from ..probabilities import ProbabilityMap, sigmoid


def can_be_kept(args: TrainingArguments, control: TrainerControl) -> bool:
    """
    Whether a training can end with the weights that it is evaluating: with `load_best_model_at_end` only with those of a
    checkpoint, and where `save_steps` is a multiple of `eval_steps`, not all that are evaluated are saved.

    Args:
        args (`TrainingArguments`): of the training.
        control (`TrainerControl`): says what follows the evaluation.
    """
    saves = control.should_save or args.save_strategy == SaveStrategy.BEST  # which saves what is better
    return saves or not args.load_best_model_at_end


def chooses_checkpoints(args: TrainingArguments) -> bool:
    """Whether a training needs the metric of its evaluations: to end with the best checkpoint, or to save no other."""
    return args.load_best_model_at_end or args.save_strategy == SaveStrategy.BEST


def key_of_metric(metric_for_best_model: str) -> str:
    """The name of a metric among those of an evaluation, `"eval_f1"` for `"f1"`."""
    return f"eval_{metric_for_best_model.removeprefix('eval_')}"


def gain_of_tie(metrics: dict[str, float], state: TrainerState, metric_for_best_model: str | None) -> float | None:
    """
    How much better an evaluation is than the best one so far, if both are equal in the metric: in average precision. F1 is 0 as
    long as no relation clears the threshold, and average precision rises meanwhile.

    Args:
        metrics (`dict[str, float]`): of the evaluation, each with the prefix `eval_`.
        state (`TrainerState`): its history holds the best evaluation so far.
        metric_for_best_model (`str`, *optional*): what is compared first.

    Returns:
        `float`, *optional*: None where the evaluation is no equal of the best one.
    """
    if metric_for_best_model is None or state.best_metric is None:
        return None
    name = key_of_metric(metric_for_best_model)
    if metrics.get(name) != state.best_metric:
        return None
    best = next(
        (entry for entry in state.log_history if entry["step"] == state.best_global_step and name in entry), {}
    )
    # That of the same evaluation set, if there are several: "eval_dev_f1" has "eval_dev_average_precision" beside it.
    parts = name.split("_")
    keys = [f"{'_'.join(parts[:end])}_average_precision" for end in range(len(parts) - 1, 0, -1)]
    key = next((key for key in keys if key in metrics), None)
    return metrics.get(key, 0.0) - best.get(key, 0.0)


def nothing_predicted(
    metrics: dict[str, float], ranking: CandidateRanking | None, probability_map: ProbabilityMap | None = None
) -> str | None:
    """
    A warning where no relation of any pair clears the threshold although there are gold facts, and what helps; else None.

    Args:
        metrics (`dict[str, float]`): of [`~evaluation.EvaluatedDocuments`].
        ranking (`CandidateRanking`, *optional*): of all candidates; None where documents have no labels.
        probability_map (`ProbabilityMap`, *optional*): the one that decided, if there is one; candidates are then ranked by the
            logits of their probabilities, not by margins.
    """
    if metrics["predicted_positives"] or ranking is None or not ranking.num_gold:
        return None
    if probability_map is None:
        highest = f"the highest margin is {ranking.highest:.2f}"
        help_ = "tune_threshold_offset finds the margin with the best F1"
    else:
        highest = f"the highest probability is {sigmoid(ranking.highest):.4g}, and the map's cut is {probability_map.cut:.4g}"
        help_ = "fit_probability_map chooses the map and its cut again"
    return (
        f"no relation of any pair clears the threshold, so F1 is 0; {highest}. "
        f"Average precision is {metrics['average_precision']:.4f}; it does not depend on the threshold and shows whether the "
        f"model learns. More training steps or a higher head_learning_rate help; {help_}."
    )
