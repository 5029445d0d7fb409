"""Predictions of a run for its test documents: in the leaderboards' format, scored, and in words."""

import dataclasses
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from datasets import Dataset

from ..data.dataset_entry import LOCAL, DatasetEntry
from ..decoding import Predictions, official_predictions
from ..documents import Document, entity_name
from ..evaluation.field_scores import score_data_set
from ..evaluation.scoring import format_scores
from ..evaluation.type_prior import TypePrior
from ..processing_comm import CommProcessor
from ..reporting.run_files import PREDICTIONS, TEST_SCORES
from ..utils.files import write_json
from .decisions import compare_on_test
from .trainer import CommTrainer

logger = logging.getLogger(__name__)


def predict_test(
    trainer: CommTrainer,
    encoded: Dataset,
    documents: Sequence[Document],
    training_documents: Iterable[Document] | None = None,
    entry: DatasetEntry = LOCAL,
    show_triples: int = 0,
) -> dict[str, float]:
    """
    Predicts the test documents. Writes `results.json` and, if all documents have labels, `test_scores.json` into the trainer's
    output folder, and prints the scores.

    Args:
        trainer (`CommTrainer`): its model, processor and reference of Ign F1 are used.
        encoded (`Dataset`): the encoded documents.
        documents (`Sequence[dict]`): the same documents in DocRED's format.
        training_documents (`Iterable[dict]`, *optional*): what the type prior, a baseline, is fitted on; without any, or where
            one has no labels, it is left out.
        entry (`DatasetEntry`, *optional*): of their data set, which has its own scores. Which facts are the same, the model's
            processor says.
        show_triples (`int`, defaults to 0): number of predicted triples to print.

    Returns:
        the metrics, the type prior's F1 included.
    """
    has_map = trainer.processing_class.decision.probability_map is not None
    output = trainer.predict(encoded, keep_margins=has_map)
    metrics, processor, reference = dict(output.metrics), trainer.processing_class, trainer.ign_reference
    if not trainer.is_world_process_zero():
        return metrics
    folder = Path(trainer.args.output_dir)
    predictions = official_predictions(output.predictions, documents, processor.id2label)
    write_json(folder / PREDICTIONS, predictions)
    labelled, total = sum("labels" in document for document in documents), len(documents)
    scored = labelled == total
    logger.info("%d of %d test documents have labels%s", labelled, total, "" if scored else ": no scores")
    if scored:
        entry = dataclasses.replace(entry, **vars(processor.candidates))
        scores, prior = score_data_set(entry, predictions, documents, reference), None
        if (by_types := _predicted_by_types(training_documents, documents, entry)) is not None:
            prior = score_data_set(entry, by_types, documents, reference)
            metrics["test_type_prior_f1"] = prior["f1"]
        print("\n" + format_scores(scores, baseline=prior, baseline_name="type prior") + "\n")
        write_json(folder / TEST_SCORES, {"scores": scores, "type_prior": prior})
        compare_on_test(trainer, output.predictions, encoded)
    trainer.log(dict(metrics))  # for TensorBoard and other trackers
    print_triples(output.predictions, documents, processor, show_triples)
    return metrics


def _predicted_by_types(training_documents, documents, entry):
    """What the type prior predicts with its best cut-off; None if training documents without labels leave it out, or there are
    no training documents."""
    training_documents = list(training_documents or ())
    if unlabelled := sum("labels" not in document for document in training_documents):
        logger.info("no type prior: %d of %d training documents have no labels", unlabelled, len(training_documents))
    if unlabelled or not training_documents:
        return None
    type_prior = TypePrior(training_documents, entry.candidates)
    cutoff, _ = type_prior.best_cutoff(documents)
    return type_prior.predict(documents, cutoff)


def print_triples(
    results: Sequence[Predictions], documents: Sequence[Document], processor: CommProcessor, number: int
) -> None:
    """Prints `number` predicted triples in words: the surest one of each document, then the second ones."""
    by_document = [sorted(result.triples, key=lambda triple: -triple.rank) for result in results]
    in_turn = [(rank, index) for index, triples in enumerate(by_document) for rank in range(len(triples))]
    for rank, index in sorted(in_turn)[:number]:
        triple = by_document[index][rank]
        head, tail, document, relation = triple.head, triple.tail, documents[index], processor.id2label[triple.label]
        gold = {fact for fact, _ in processor.candidates.labels(document)}
        judged = "" if "labels" not in document else "  right" if (head, tail, relation) in gold else "  WRONG"
        name = processor.relation_names.get(relation, relation)
        known = triple.probability is not None
        certainty = f"probability {triple.probability:.2f}" if known else f"margin {triple.margin:.2f}"
        print(
            f"{document['title']}: {entity_name(document, head)} -- {name} -> {entity_name(document, tail)} "
            f"({certainty}){judged}"
        )
