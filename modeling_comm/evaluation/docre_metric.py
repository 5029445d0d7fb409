"""The scorer as a metric of the `evaluate` library: [`load_metric`], without a network."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

# `evaluate` runs a copy of this file from its cache, so the scorer has to come from the installed package.
from modeling_comm.data import get_dataset
from modeling_comm.documents import Document, DocumentChecker, OfficialPrediction
from modeling_comm.evaluation.field_scores import score_data_set
from modeling_comm.evaluation.scoring import PredictionError, parse_documents, score

_DESCRIPTION = """
Document-level relation extraction by the official definitions of DocRED and Re-DocRED: micro F1 and Ign F1 over
distinct facts, macro F1, scores within and across sentences, for frequent and rare relations, by relation, evidence.
"""

_INPUTS = """
Args:
    predictions (`list[dict]`): one record for each document, `{"title", "facts": [{"h_idx", "t_idx", "r"}]}`. A fact
        may have `"evidence"`, a list of sentence indices; a document without facts has an empty list.
    references (`list[dict]`): as many documents in DocRED's format; `title`, `vertexSet`, `labels` and `ignored_pairs` are read.
    ign_reference, frequent_relations, long_distance, candidates (*optional*): as in `modeling_comm.evaluation.scoring.score`.
    dataset_config (`str`, *optional*): instead of all but the first, the name of a registered data set: its entry says which
        relations are frequent and which facts are the same, and it may have scores of its own.

Returns:
    `dict`: what `modeling_comm.evaluation.scoring.score` returns, and with `dataset_config` also `field_scores`.
"""

_INDEX, _TEXT = datasets.Value("int64"), datasets.Value("string")
_FURTHER = {"evidence": datasets.List(_INDEX), "novelty": _TEXT}


def load_metric(**options: Any) -> evaluate.Metric:
    """
    The metric of this file, ready to use.

    Args:
        options: those of `evaluate.load`, such as `cache_dir` and `experiment_id`.
    """
    return evaluate.load(__file__, **options)


def _prediction_record(record, position):
    # Arrow would turn 1.5 or "1" into 1 in silence, so everything is checked before it is stored.
    checker = DocumentChecker(record, position, "predictions", PredictionError)
    checker.check(record, dict, None, "an object with title and facts")
    title = checker.read_name(record, "title", "", "the title of a document")
    facts = []
    for index, fact in enumerate(checker.read(record, "facts", list, "", "a list of facts")):
        (head, tail, relation), evidence = checker.read_fact(fact, f"facts[{index}]", head="h_idx", tail="t_idx")
        facts.append({"h_idx": head, "t_idx": tail, "r": relation, "evidence": sorted(evidence), **_novelty(fact)})
    return {"title": title, "facts": facts}


def _reference_record(document):
    entities = [[{"name": m["name"], "sent_id": m["sent_id"]} for m in mentions] for mentions in document["vertexSet"]]
    names = ("h", "t", "r", "evidence")
    labels = [{**{name: label.get(name) for name in names}, **_novelty(label)} for label in document["labels"]]
    ignored = document.get("ignored_pairs") or []
    return {"title": document["title"], "vertexSet": entities, "labels": labels, "ignored_pairs": ignored}


def _novelty(fact):
    """What some data sets say of a fact, as a text that Arrow can store."""
    return {"novelty": None if fact.get("novelty") is None else str(fact["novelty"])}


class DocreMetric(evaluate.Metric):
    """Scores records of documents with [`~modeling_comm.evaluation.scoring.score`].

    Raises:
        DocumentError: a reference is malformed; nothing is stored then.
        PredictionError: a prediction is malformed; nothing is stored then.
    """

    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",  # each data set has its own
            inputs_description=_INPUTS,
            features=datasets.Features(
                {
                    "predictions": {
                        "title": _TEXT,
                        "facts": datasets.List({"h_idx": _INDEX, "t_idx": _INDEX, "r": _TEXT, **_FURTHER}),
                    },
                    "references": {
                        "title": _TEXT,
                        "vertexSet": datasets.List(datasets.List({"name": _TEXT, "sent_id": _INDEX})),
                        "labels": datasets.List({"h": _INDEX, "t": _INDEX, "r": _TEXT, **_FURTHER}),
                        "ignored_pairs": datasets.List(datasets.List(_INDEX)),
                    },
                }
            ),
        )

    def add_batch(
        self,
        *,
        predictions: Sequence[Sequence[OfficialPrediction]] | None = None,
        references: Sequence[Document] | None = None,
    ) -> None:
        """Stores as many prediction records as references, checked and reduced to what scoring reads."""
        if predictions is None or references is None:
            raise ValueError("predictions, references: found None, expected one record of each for every document")
        references = list(references)
        for _ in parse_documents(references, source="references"):
            pass  # each is checked
        super().add_batch(
            predictions=[_prediction_record(record, position) for position, record in enumerate(predictions)],
            references=[_reference_record(document) for document in references],
        )

    def add(
        self, *, prediction: Sequence[OfficialPrediction] | None = None, reference: Document | None = None
    ) -> None:
        """Stores one prediction record and its reference."""
        self.add_batch(predictions=[prediction], references=[reference])

    def _compute(self, predictions, references, dataset_config=None, **options):
        facts = [
            {"title": record["title"], **{name: value for name, value in fact.items() if value is not None}}
            for record in predictions
            for fact in record["facts"]
        ]
        if dataset_config is None:
            return score(facts, references, **options)
        return score_data_set(get_dataset(dataset_config), facts, references, **options)
