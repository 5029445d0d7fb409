"""One or several evaluation sets, one of which has the metric that chooses checkpoints and ends a training early."""

from collections.abc import Iterable, Mapping
from typing import Any

from ..processing_comm import CommProcessor
from .encode_dataset import check_labelled, check_titles, encode_dataset
from .results import chooses_checkpoints
from .training_args import CommTrainingArguments


def encode_evaluation_set(dataset: Any, args: CommTrainingArguments, processor: CommProcessor) -> Any:
    """
    The encoded documents of an evaluation set.

    Raises:
        ValueError: titles repeat, or checkpoints are chosen by scores, and documents or their labels are missing.
    """
    dataset = encode_dataset(dataset, processor, allow_unknown_relations=True)
    check_titles(dataset)
    if chooses_checkpoints(args):
        chooser = "load_best_model_at_end" if args.load_best_model_at_end else "save_strategy 'best'"
        why = f"{chooser} chooses by their scores"
        if not len(dataset):
            raise ValueError(f"found no evaluation documents; expected one at least: {why}")
        check_labelled(dataset, "evaluation", why)
    return dataset


def check_metric_of_several(args: CommTrainingArguments, datasets: Mapping[str, Any]) -> None:
    """The best checkpoint is that of one of several evaluation sets, which the metric's name has to say."""
    metric = args.metric_for_best_model
    if chooses_checkpoints(args) and set_of_metric(metric, datasets) is None:
        choices = ", ".join(f"{name}_{metric.removeprefix('eval_')}" for name in datasets)
        raise ValueError(
            f"metric_for_best_model is {metric!r}, of several evaluation sets; expected one such as {choices}"
        )


def set_of_metric(metric: str | None, names: Iterable[str]) -> str | None:
    """The set that a metric is a score of, `"long"` for `"eval_long_f1"` or `"long_f1"`."""
    metric = (metric or "").removeprefix("eval_")
    return max((name for name in names if metric.startswith(f"{name}_")), key=len, default=None)
