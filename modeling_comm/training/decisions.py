"""A run's map from margins to probabilities: fitted on the validation documents, compared with other ways to decide."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from ..decoding import Predictions
from ..features import LEAST_ASKED
from ..incomplete_labels.decision_report import plot_reliability, report_on_dev, report_on_test
from ..incomplete_labels.probability_map import CannotFitError, fit_probability_map
from ..reporting.run_files import DECISIONS, PLOT
from ..utils.files import read_json, write_json
from .encode_dataset import check_labelled, encode_dataset
from .evaluation import unknown_facts
from .script_arguments import RunArguments
from .trainer import CommTrainer

logger = logging.getLogger(__name__)


def fit_map(trainer: CommTrainer, eval_dataset: Dataset | Sequence[dict] | str | None = None) -> dict:
    """
    Fits a map from margins to probabilities on labelled documents, with the cut that has the best F1, and sets it in the
    trainer's processor: from then on it decides with it, and it is saved with it. `threshold_offset` becomes 0.

    Args:
        trainer (`CommTrainer`): its model predicts the documents.
        eval_dataset (`Dataset`, `Sequence[dict]` or `str`, *optional*): documents that the model was not trained on and that are
            not the test ones, or the name of one of several evaluation sets; by default the trainer's `eval_dataset`.

    Returns:
        `dict`: what [`~modeling_comm.incomplete_labels.decision_report.report_on_dev`] says of it, by cross-fitting. Where the
            processor has rules, which complete what the map decides, neither the fit nor the figures know them, and
            `without_rules` lists them.

    Raises:
        CannotFitError: no map can be fitted on these documents.
        ValueError: documents without labels.
    """
    processor = trainer.processing_class
    documents = trainer.evaluation_documents(eval_dataset)
    documents = encode_dataset(documents, processor, allow_unknown_relations=True)
    check_labelled(documents, "tuning", "fit_map needs them")
    results = trainer.predict(documents, keep_margins=True).predictions
    margins, labels, missed = _decidable(results, documents)
    decision = processor.decision
    cap = decision.max_relations_per_pair
    fitted = fit_probability_map(margins, labels, missed=missed, max_relations_per_pair=cap)
    decision.threshold_offset, decision.probability_map = 0.0, fitted.map
    report = report_on_dev(fitted, margins, labels, missed, cap)
    return report | {"without_rules": list(processor.rules)} if processor.rules else report


def fit_decisions(trainer: CommTrainer) -> None:
    """Fits the map on the validation documents, see [`fit_map`], and writes `decisions.json` and `reliability.png` into the
    output folder. Where no map can be fitted, a warning says so."""
    try:
        report = fit_map(trainer)
    except CannotFitError as error:  # the trained model is worth keeping all the same
        logger.warning("no map to probabilities: %s", error)
        return
    _write(trainer, report)
    logger.info(
        "a relation is predicted if its probability exceeds %.3f; F1 %.2f by cross-fitting (own threshold %.2f, one offset %.2f)",
        report["cut"],
        *(100 * report["dev"][way]["f1"] for way in ("map", "threshold", "offset")),
    )


def tune_decisions(trainer: CommTrainer, arguments: RunArguments) -> None:
    """Tunes on the validation documents what the flags ask for, in the trainer's processor, before rules complete what is
    decided."""
    flags = ("tune_threshold_offset", "fit_probability_map", "tune_fusion_threshold")
    if trainer.processing_class.rules and (given := [f"--{name}" for name in flags if getattr(arguments, name)]):
        logger.warning(
            "%s: chosen without the processor's rules, which complete what is decided; another value may be better with them",
            " and ".join(given),
        )
    if arguments.tune_fusion_threshold:
        if arguments.tune_evidence_threshold:  # before: it says what is asked about a second time
            trainer.tune_evidence_threshold()
        trainer.tune_fusion_threshold()
    if arguments.tune_threshold_offset:
        trainer.tune_threshold_offset()
    if arguments.fit_probability_map:
        fit_decisions(trainer)
    if arguments.tune_evidence_threshold and not arguments.tune_fusion_threshold:  # on the facts as decided above
        trainer.tune_evidence_threshold()


def tuned_values(trainer: CommTrainer, arguments: RunArguments) -> dict[str, float]:
    """What was tuned, now or in an earlier call of the same run, for its record; of a map the cross-fitted F1 of the validation
    documents."""
    values, decision = {}, trainer.processing_class.decision
    if arguments.tune_threshold_offset:
        values["threshold_offset"] = decision.threshold_offset
        logger.info("predictions need a margin of %.3f over the threshold", decision.threshold_offset)
    if arguments.tune_evidence_threshold:
        values["evidence_threshold"] = decision.evidence_threshold
    if arguments.tune_fusion_threshold:
        values["fusion_threshold"] = decision.fusion_threshold
    if arguments.fit_probability_map and (report := read_decisions(trainer)) is not None:
        values |= {f"eval_cross_fitted_{name}": report["dev"]["map"][name] for name in ("f1", "macro_f1")}
    return values


def compare_on_test(
    trainer: CommTrainer, results: Sequence[Predictions], encoded: Dataset | Sequence[Mapping[str, Any]]
) -> None:
    """Adds the scores of labelled test documents to `decisions.json`, where a run has fitted a map; `encoded` are the
    documents with their features."""
    decision = trainer.processing_class.decision
    if (report := read_decisions(trainer)) is not None and all(one.labels is not None for one in results):
        of_test = (*_decidable(results, encoded), decision.max_relations_per_pair)
        _write(trainer, report_on_test(report, decision.probability_map, *of_test))


def read_decisions(trainer: CommTrainer) -> dict | None:
    """The content of `decisions.json`; None where the run has fitted no map."""
    file = Path(trainer.args.output_dir) / DECISIONS
    if trainer.processing_class.decision.probability_map is None or not file.is_file():
        return None
    return read_json(file)


def _decidable(results, encoded):
    """Margins and labels `(p, R)` of each document, and how many gold facts are in neither, because the model is not asked about
    them. What `type_constraint` excludes is never predicted, whatever its margin, so it has one that no cut is below; a gold
    fact of this kind counts as missed, too."""
    margins = [
        one.margins if one.excluded is None else np.where(one.excluded, np.float32(LEAST_ASKED), one.margins)
        for one in results
    ]
    return margins, [one.labels for one in results], [unknown_facts([document]) for document in encoded]


def _write(trainer, report):
    if not trainer.is_world_process_zero():
        return
    folder = Path(trainer.args.output_dir)
    write_json(folder / DECISIONS, report)  # before the picture, which without it is not known as a run's
    try:
        plot_reliability(report, folder / PLOT)
        write_json(folder / DECISIONS, {**report, "plot": PLOT})
    except ImportError as error:
        logger.info("%s", error)
