"""Evaluation of whole data sets: what is predicted for each document, and the scores of all of them."""

from ..decoding import (
    Predictions,
    add_evidence,
    decide_batch,
    document_with_bad_logits,
    flat_margins,
    official_predictions,
)
from ..evaluation.evidence_scores import evidence_metrics
from ..evaluation.scoring import IgnReference, average_precision, score
from ..losses import loss_from_config
from ..processing_comm import CommProcessor


def predict_batch(model, batch, processor, documents=None) -> list[Predictions]:
    """
    Runs the model on a collated batch.

    Args:
        model ([`CommForDocumentRelationExtraction`]), processor ([`CommProcessor`]): what predicts and what decides.
        batch (`dict`): of a [`DocumentCollator`].
        documents (`list[dict]`, *optional*): the data set, for messages.

    Returns:
        one [`~modeling_comm.decoding.Predictions`] per document, with `document_index`, and with labels also `labels` and `loss`.

    Raises:
        FloatingPointError: a logit is not finite.
    """
    batch = dict(batch)
    document_index = batch.pop("document_index")
    labels = batch.pop("labels", None)
    outputs = model(**batch, output_documents=processor.decision.evidence_threshold is not None)
    logits, pair_index = outputs.logits.float().cpu(), outputs.pair_index.cpu()
    bad = document_with_bad_logits(logits, pair_index)
    if bad is not None:
        title = f" ({documents[document_index[bad]]['title']!r})" if documents is not None else ""
        raise FloatingPointError(f"evaluation: logits of document {document_index[bad]}{title} are not finite")
    losses = None
    if labels is not None:
        labels = labels.cpu()
        losses = loss_from_config(model.config)(logits, labels, reduction="none")
    results = decide_batch(logits, pair_index, len(document_index), processor.decision, labels, losses)
    for index, result in zip(document_index, results, strict=True):
        result.document_index = index
    if outputs.documents is not None:
        add_evidence(results, outputs.documents)
    return results


def evaluate_results(
    results: list[Predictions],
    documents: list[dict],
    processor: CommProcessor,
    ign_reference: IgnReference | None = None,
) -> dict[str, float]:
    """Metrics of a whole data set: `predicted_positives`, `removed_by_cap`, and, where every document has labels, `loss` (mean
    over pairs), `f1`, `precision`, `recall`, `ign_f1` (with a reference) and `average_precision`; of a model that predicts
    evidence also those of [`~modeling_comm.evaluation.evidence_scores.evidence_metrics`]."""
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
    if processor.decision.evidence_threshold is not None:
        metrics |= evidence_metrics(results, documents, processor.id2label)
    metrics["average_precision"] = average_precision(margins, labels, int(labels.sum()))
    metrics["loss"] = sum(result.loss for result in results) / max(sum(len(result.pairs) for result in results), 1)
    return metrics
