"""Evaluation of whole data sets: what is predicted for each document, and the scores of all of them, in bounded memory."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..decoding import (
    Predictions,
    add_evidence,
    decide_batch,
    document_with_bad_logits,
    flat_ranks,
    official_predictions,
)
from ..documents import Document
from ..evaluation.evidence_scores import evidence_metrics
from ..evaluation.ranking import EXACT_CANDIDATES, CandidateRanking
from ..evaluation.scoring import IgnReference, score
from ..evidence_fusion import fuse_evidence
from ..losses import loss_from_config
from ..modeling_comm import CommForDocumentRelationExtraction
from ..processing_comm import CommProcessor

_SCORES = ("f1", "precision", "recall", "ign_f1")
_EVIDENCE_SCORES = ("evidence_precision", "evidence_recall", "evidence_f1", "evidence_f1_given_facts")


def metric_names(processor: CommProcessor, ign_reference: IgnReference | None = None) -> list[str]:
    """
    What [`EvaluatedDocuments.metrics`] gives for labelled documents, whatever they are: not `average_precision_error`, which many
    candidates have alone.

    Args:
        processor ([`CommProcessor`]): what decides.
        ign_reference (`IgnReference`, *optional*): the facts that Ign F1 leaves out.
    """
    names = [name for name in _SCORES if name != "ign_f1" or ign_reference is not None]
    names += ["average_precision", "loss", "predicted_positives", "removed_by_cap"]
    if processor.decision.type_constraint != "none":
        names.append("removed_by_types")
    return names + list(_EVIDENCE_SCORES if processor.decision.evidence_threshold is not None else ())


def predict_batch(
    model: CommForDocumentRelationExtraction,
    batch: dict[str, Any],
    processor: CommProcessor,
    documents: Sequence[Document],
    fusion_rule: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
) -> list[Predictions]:
    """
    Runs the model on a collated batch.

    Args:
        model ([`CommForDocumentRelationExtraction`]), processor ([`CommProcessor`]): what predicts and what decides.
        batch (`dict`): of a [`DocumentCollator`].
        documents (`Sequence[Document]`): the encoded data set.
        fusion_rule (`Callable`, *optional*): as in [`~modeling_comm.evidence_fusion.fuse_evidence`]; asks for a second pass where
            the processor has no `fusion_threshold`.

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
        title = documents[document_index[bad]]["title"]
        raise FloatingPointError(f"evaluation: logits of document {document_index[bad]} ({title!r}) are not finite")
    losses = None
    if labels is not None:
        labels = labels.cpu()
        losses = loss_from_config(model.config)(logits, labels, reduction="none")
    of_batch = [documents[index] for index in document_index]
    if fusion_rule is not None or processor.decision.fusion_threshold is not None:
        logits = fuse_evidence(model, processor, outputs, of_batch, fusion_rule).cpu()
    excluded = processor.decision.excluded(of_batch, pair_index, processor.id2label)
    results = decide_batch(logits, pair_index, len(document_index), processor.decision, labels, losses, excluded)
    results = processor.complete(results, of_batch)
    for index, result in zip(document_index, results, strict=True):
        result.document_index = index
    if outputs.documents is not None:
        add_evidence(results, outputs.documents)
    return results


class EvaluatedDocuments:
    """
    What evaluation keeps of documents: their triples and losses, and all margins, or logits of probabilities, in a
    [`~modeling_comm.evaluation.ranking.CandidateRanking`].

    Args:
        keep_margins (`bool`, defaults to `False`): also keeps `pairs`, `margins` and `labels` of each document: 150 kB of
            20 entities and 96 relations, where 3 kB are kept otherwise.
        processes (`int`, defaults to 1): how many evaluate parts of the same documents.
        under_cap (`bool`, defaults to `False`): relations that the processor's `max_relations_per_pair` leaves out at any
            threshold are no candidates, as is right for choosing one. Average precision is of all relations.

    Attributes:
        results (`list[Predictions]`): one per document.
        pairs (`int`): number of their pairs.
        ranking (`CandidateRanking`, *optional*): of their candidates; None once a document without labels was added.
        excluded_facts (`int`): gold facts that are no candidates, because the processor's `type_constraint` excludes them, or
            its `max_relations_per_pair` with `under_cap`.
    """

    def __init__(self, keep_margins: bool = False, processes: int = 1, under_cap: bool = False):
        self.keep_margins, self.under_cap = keep_margins, under_cap
        self.results: list[Predictions] = []
        self.pairs = self.excluded_facts = 0
        self.ranking: CandidateRanking | None = CandidateRanking(EXACT_CANDIDATES // processes)

    def add(self, results: list[Predictions]) -> None:
        """Adds documents as [`predict_batch`] returns them."""
        for result in results:
            self.pairs += len(result.pairs)
            if result.labels is None:
                self.ranking = None
            elif self.ranking is not None:
                ranks, labels = flat_ranks([result]), result.labels.ravel()
                limits = [] if result.excluded is None else [~result.excluded]
                if self.under_cap and (within := result.within_cap()) is not None:
                    limits.append(within)
                if limits:
                    candidates = np.logical_and.reduce(limits).ravel()
                    self.excluded_facts += int(labels[~candidates].sum())
                    ranks, labels = ranks[candidates], labels[candidates]
                self.ranking.add(ranks, labels)
            if not self.keep_margins:
                result = dataclasses.replace(result, pairs=None, margins=None, excluded=None, labels=None)
            self.results.append(result)

    def merge(self, others: list["EvaluatedDocuments"]) -> None:
        """Adds what other processes have evaluated."""
        for other in others:
            self.results += other.results
            self.pairs += other.pairs
            self.excluded_facts += other.excluded_facts
        if any(one.ranking is None for one in (self, *others)):
            self.ranking = None
        else:
            of_processes = [self.ranking, *(other.ranking for other in others)]
            self.ranking = CandidateRanking(EXACT_CANDIDATES)  # as many as one process keeps
            self.ranking.merge(of_processes)

    def metrics(
        self, documents: list[Document], processor: CommProcessor, ign_reference: IgnReference | None = None
    ) -> dict[str, float]:
        """Scores of a whole data set: `predicted_positives`, `removed_by_cap`, with a `type_constraint` also `removed_by_types`,
        and, where every document has labels, `loss` (mean over pairs), `f1`, `precision`, `recall`, `ign_f1` (with a reference)
        and `average_precision`; with `average_precision_error` where the candidates are too many for an exact one; of a model
        that predicts evidence also those of [`~modeling_comm.evaluation.evidence_scores.evidence_metrics`]."""
        metrics: dict[str, float] = {
            "predicted_positives": sum(len(result.triples) for result in self.results),
            "removed_by_cap": sum(result.removed_by_cap for result in self.results),
        }
        if processor.decision.type_constraint != "none":
            metrics["removed_by_types"] = sum(result.removed_by_types for result in self.results)
        if self.ranking is None or not self.results:
            return metrics
        predicted = official_predictions(self.results, documents, processor.id2label)
        scores = score(predicted, documents, ign_reference=ign_reference, candidates=processor.candidates)
        metrics |= {key: scores[key] for key in _SCORES if scores[key] is not None}
        if processor.decision.evidence_threshold is not None:
            metrics |= evidence_metrics(self.results, documents, processor.id2label, processor.candidates)
        metrics["average_precision"], error = self.ranking.average_precision(self.facts_out_of_reach(documents))
        if error:
            metrics["average_precision_error"] = error
        metrics["loss"] = sum(result.loss for result in self.results) / max(self.pairs, 1)
        return metrics

    def facts_out_of_reach(self, documents: Iterable[Mapping[str, Any]]) -> int:
        """Number of gold facts that no threshold would let the model predict."""
        return self.excluded_facts + unknown_facts(documents)


def unknown_facts(documents: Iterable[Mapping[str, Any]]) -> int:
    """Number of gold facts whose relation the model does not have, or whose pair it is not asked about: whatever it predicts, it
    misses them."""
    return sum(document.get(name, 0) for document in documents for name in ("unknown_facts", "unasked_facts"))
