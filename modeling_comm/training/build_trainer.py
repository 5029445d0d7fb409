"""The trainer of a run of `run_docre.py`."""

from collections.abc import Mapping
from typing import Any

from datasets import Dataset
from transformers import EarlyStoppingCallback, PrinterCallback, ProgressCallback

from ..evaluation.scoring import IgnReference
from ..modeling_comm import CommForDocumentRelationExtraction
from ..processing_comm import CommProcessor
from .batching import DocumentStream
from .distillation import DistillationTrainer, TeacherLogits
from .encode_dataset import check_titles
from .evaluation import metric_names
from .evaluation_sets import set_of_metric
from .results import chooses_checkpoints
from .script_arguments import Arguments
from .trainer import CommTrainer
from .training_progress import TrainingProgress


def build_trainer(
    arguments: Arguments,
    model: CommForDocumentRelationExtraction,
    processor: CommProcessor,
    encoded: Mapping[str, Dataset | DocumentStream | Mapping[str, Dataset]],
    ign_reference: IgnReference | None = None,
) -> CommTrainer:
    """
    A [`CommTrainer`], or, with `--teacher_logits`, a [`DistillationTrainer`].

    Args:
        arguments (`Arguments`): all of the run's.
        model, processor: what is trained.
        encoded (`Mapping`): the encoded documents of `train`, `validation` (or a mapping of several sets) and `test`, as far as
            they are used.
        ign_reference (`IgnReference`, *optional*): the facts that Ign F1 leaves out.

    Raises:
        ValueError: arguments or documents do not fit, or two test documents have the same title.
    """
    if "test" in encoded:
        check_titles(encoded["test"])  # before a training, not after it
    _check_metric(arguments.training, encoded, processor, ign_reference)
    tuned = arguments.given("tune_evidence_threshold", "tune_fusion_threshold")
    if tuned and processor.decision.evidence_threshold is None:
        expected = "a model that predicts evidence: --evidence_weight 0.1, for example"
        raise ValueError(f"{tuned[0]} needs {expected}")
    patience, distillation = arguments.run.early_stopping_patience, arguments.distillation
    options: dict[str, Any] = {
        "model": model,
        "args": arguments.training,
        "train_dataset": encoded.get("train"),
        "eval_dataset": encoded.get("validation"),
        "processing_class": processor,
        "ign_reference": ign_reference,
        "callbacks": [EarlyStoppingCallback(patience)] if patience else None,
    }
    if distillation.teacher_logits:
        trainer: CommTrainer = DistillationTrainer(
            **options,
            teacher_logits=TeacherLogits(distillation.teacher_logits),
            distillation_weight=distillation.distillation_weight,
            distillation_raw_logits=distillation.distillation_raw_logits,
        )
    else:
        trainer = CommTrainer(**options)
    for printing in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(printing)
    trainer.add_callback(TrainingProgress())
    return trainer


def _check_metric(training, encoded, processor, ign_reference):
    """The metric by which the best checkpoint is chosen is known before a training, not after its first epoch."""
    if not training.do_train or not chooses_checkpoints(training) or "validation" not in encoded:
        return
    given = metric = str(training.metric_for_best_model).removeprefix("eval_")
    if isinstance(encoded["validation"], Mapping):  # several sets, whose names come first
        metric = metric.removeprefix(f"{set_of_metric(metric, encoded['validation'])}_")
    names = metric_names(processor, ign_reference)
    if metric == "ign_f1" and metric not in names:
        raise ValueError(f"--metric_for_best_model is {given!r}, which needs an --ign_reference; found none")
    if metric not in names:
        raise ValueError(f"--metric_for_best_model is {given!r}; expected one of {', '.join(names)}")
