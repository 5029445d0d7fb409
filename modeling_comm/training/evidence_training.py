"""What a trainer does for evidence: its pairs are counted, its threshold is chosen."""

from typing import Any

from transformers import Trainer
from transformers.utils import logging

from ..evaluation.evidence_scores import best_evidence_threshold
from ..evidence import count_evidence_pairs, default_evidence_threshold
from ..evidence_fusion import NEVER_PREDICTED, rank_for_fusion
from .encode_dataset import check_labelled, encode_dataset

logger = logging.get_logger(__name__)


class EvidenceTraining(Trainer):
    """The part of [`CommTrainer`] that is about evidence."""

    _evidence_pairs = None  # of a step, accumulated batches and processes included

    def _count_evidence(self, batch_samples, device):
        if self.model.config.evidence_weight:
            average = self.model.config.evidence_average
            annotated = sum(int(count_evidence_pairs(batch["evidence"], average)) for batch in batch_samples)
            self._evidence_pairs = self._sum_over_processes(annotated, device)

    def _reset_evidence_threshold(self):
        if self.model is None:  # a search over hyperparameters makes a model for each trial; the first one's did this
            return
        default = default_evidence_threshold(self.model.config.evidence_weight)
        self.processing_class.decision.reset_evidence_threshold(default)

    def tune_evidence_threshold(self, eval_dataset: Any = None) -> float:
        """
        Chooses the share of a pair's attention beyond which a sentence is evidence, for the best evidence F1 on facts of labelled
        documents that are predicted, right and annotated with evidence, and sets it in the processor. To be called after
        [`tune_threshold_offset`], on which the predicted facts depend.

        Args:
            eval_dataset: as in [`tune_threshold_offset`].

        Returns:
            `float`: the threshold. It stays as it was, with a warning, if there is no such fact.

        Raises:
            ValueError: the model predicts no evidence, or documents lack labels.
        """
        decision = self.processing_class.decision
        if decision.evidence_threshold is None:
            raise ValueError(
                "tune_evidence_threshold: evidence_threshold is None; expected a model with an evidence_weight"
            )
        dataset = self.evaluation_documents(eval_dataset)
        dataset = encode_dataset(dataset, self.processing_class, allow_unknown_relations=True)
        check_labelled(dataset, "tuning", "tune_evidence_threshold needs them")
        results = self.predict(dataset).predictions
        threshold = best_evidence_threshold(
            results, dataset, self.processing_class.id2label, self.processing_class.candidates
        )
        if threshold is None:
            logger.warning("evidence_threshold stays %s: no fact is right and annotated", decision.evidence_threshold)
        else:
            decision.evidence_threshold = threshold
        return decision.evidence_threshold

    def tune_fusion_threshold(self, eval_dataset: Any = None) -> float:
        """
        Chooses what the sum of a relation's two margins, in the whole document and in its evidence, has to exceed for the best F1
        on labelled documents, and sets it in the processor: from then on pairs are asked about twice. To be called after
        [`tune_evidence_threshold`], on which the evidence depends.

        Args:
            eval_dataset: as in [`tune_threshold_offset`].

        Returns:
            `float`: the threshold; `max_relations_per_pair` and rules are left out of account.

        Raises:
            ValueError: the model predicts no evidence, or documents lack labels.
        """
        decision = self.processing_class.decision
        if decision.evidence_threshold is None:
            raise ValueError(
                "tune_fusion_threshold: evidence_threshold is None; expected a model with an evidence_weight"
            )
        decision.probability_map, decision.threshold_offset = None, 0.0  # candidates are ranked by the sum of margins
        loader = self.get_eval_dataloader(eval_dataset)
        check_labelled(loader.dataset.documents, "tuning", "tune_fusion_threshold needs them")
        evaluated = self._evaluate_batches(loader, fusion_rule=rank_for_fusion)
        missed = evaluated.facts_out_of_reach(loader.dataset.documents)
        decision.fusion_threshold, _ = evaluated.ranking.best_offset(missed, NEVER_PREDICTED)
        return decision.fusion_threshold
