"""Predictions of a run for its test documents: in the leaderboards' format, scored, and in words."""

import logging
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from ..decoding import Predictions, official_predictions
from ..documents import Document, entity_name
from ..evaluation.scoring import format_scores, score
from ..evaluation.type_prior import TypePrior
from ..processing_comm import CommProcessor
from ..utils.files import write_json
from .decisions import compare_on_test
from .trainer import CommTrainer

logger = logging.getLogger(__name__)


def predict_test(
    trainer: CommTrainer,
    encoded: Dataset,
    documents: Sequence[Document],
    training_documents: Iterable[Document] | None = None,
    frequent_relations: Collection[str] | None = None,
    show_triples: int = 0,
) -> dict[str, float]:
    """
    Predicts the test documents. Writes `results.json` and, if all documents have labels, `test_scores.json` into the trainer's
    output folder, and prints the scores.

    Args:
        trainer (`CommTrainer`): its model, processor and reference of Ign F1 are used.
        encoded (`Dataset`): the encoded documents.
        documents (`Sequence[dict]`): the same documents in DocRED's format.
        training_documents (`Iterable[dict]`, *optional*): what the type prior, a baseline, is fitted on; without any it is left
            out.
        frequent_relations (`Collection[str]`, *optional*): as in [`~modeling_comm.evaluation.scoring.score`].
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
    write_json(folder / "results.json", predictions)
    labelled, total = sum("labels" in document for document in documents), len(documents)
    scored = labelled == total
    logger.info("%d of %d test documents have labels%s", labelled, total, "" if scored else ": no scores")
    if scored:
        settings: dict[str, Any] = {"ign_reference": reference, "frequent_relations": frequent_relations}
        scores, prior = score(predictions, documents, **settings), None
        if training_documents := list(training_documents or ()):
            type_prior = TypePrior(training_documents)
            cutoff, _ = type_prior.best_cutoff(documents)
            prior = score(type_prior.predict(documents, cutoff), documents, **settings)
            metrics["test_type_prior_f1"] = prior["f1"]
        print("\n" + format_scores(scores, baseline=prior, baseline_name="type prior") + "\n")
        write_json(folder / "test_scores.json", {"scores": scores, "type_prior": prior})
        compare_on_test(trainer, output.predictions)
    trainer.log(dict(metrics))  # for TensorBoard and other trackers
    print_triples(output.predictions, documents, processor, show_triples)
    return metrics


def print_triples(
    results: Sequence[Predictions], documents: Sequence[Document], processor: CommProcessor, number: int
) -> None:
    """Prints `number` predicted triples in words: the surest one of each document, then the second ones."""
    by_document = [sorted(result.triples, key=lambda triple: -triple.rank) for result in results]
    in_turn = [(rank, index) for index, triples in enumerate(by_document) for rank in range(len(triples))]
    for rank, index in sorted(in_turn)[:number]:
        triple = by_document[index][rank]
        head, tail, document, relation = triple.head, triple.tail, documents[index], processor.id2label[triple.label]
        gold = {(fact["h"], fact["t"], fact["r"]) for fact in document.get("labels", [])}
        judged = "" if "labels" not in document else "  right" if (head, tail, relation) in gold else "  WRONG"
        name = processor.relation_names.get(relation, relation)
        known = triple.probability is not None
        certainty = f"probability {triple.probability:.2f}" if known else f"margin {triple.margin:.2f}"
        print(
            f"{document['title']}: {entity_name(document, head)} -- {name} -> {entity_name(document, tail)} "
            f"({certainty}){judged}"
        )
