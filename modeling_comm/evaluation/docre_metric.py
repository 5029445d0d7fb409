"""The scorer as a metric of the `evaluate` library: `evaluate.load("path/to/docre_metric.py")`, without a network."""

import datasets
import evaluate

# `evaluate` runs a copy of this file from its cache, so the scorer has to come from the installed package.
from modeling_comm.evaluation.scoring import read_documents, read_prediction, score

_DESCRIPTION = """
Document-level relation extraction by the official definitions of DocRED and Re-DocRED: micro F1 and Ign F1 over
distinct facts, macro F1, scores within and across sentences, for frequent and rare relations, by relation, evidence.
"""

_INPUTS = """
Args:
    predictions (`list[dict]`): one record for each document, `{"title", "facts": [{"h_idx", "t_idx", "r"}]}`. A fact
        may have `"evidence"`, a list of sentence indices; a document without facts has an empty list.
    references (`list[dict]`): as many documents in DocRED's format; `title`, `vertexSet` and `labels` are read.
    ign_reference, long_distance (*optional*): as in `modeling_comm.evaluation.scoring.score`.

Returns:
    `dict`: what `modeling_comm.evaluation.scoring.score` returns.
"""

_CITATION = """
@inproceedings{yao-etal-2019-docred,
  title = {{DocRED}: A Large-Scale Document-Level Relation Extraction Dataset},
  author = {Yao, Yuan and Ye, Deming and Li, Peng and Han, Xu and Lin, Yankai and Liu, Zhenghao and Liu, Zhiyuan and
            Huang, Lixin and Zhou, Jie and Sun, Maosong},
  booktitle = {Proceedings of the 57th Annual Meeting of the Association for Computational Linguistics},
  year = {2019},
}
"""

_INDEX, _TEXT = datasets.Value("int64"), datasets.Value("string")
_EVIDENCE = datasets.List(_INDEX)


def _prediction_record(record, position):
    # Arrow would turn 1.5 or "1" into 1 in silence, so everything is checked before it is stored.
    where = f"predictions[{position}]"
    if not (
        isinstance(record, dict) and isinstance(record.get("title"), str) and isinstance(record.get("facts"), list)
    ):
        raise ValueError(f"{where}: found {record!r}, expected {{'title': 'a title', 'facts': [...]}}")
    facts = []
    for index, fact in enumerate(record["facts"]):
        prediction = {**fact, "title": record["title"]} if isinstance(fact, dict) else fact
        (_, head, tail, relation), evidence = read_prediction(prediction, f"{where}, field 'facts', fact {index}")
        facts.append({"h_idx": head, "t_idx": tail, "r": relation, "evidence": sorted(evidence)})
    return {"title": record["title"], "facts": facts}


def _reference_record(document):
    entities = [[{"name": m["name"], "sent_id": m["sent_id"]} for m in mentions] for mentions in document["vertexSet"]]
    labels = [{name: label.get(name) for name in ("h", "t", "r", "evidence")} for label in document["labels"]]
    return {"title": document["title"], "vertexSet": entities, "labels": labels}


class DocreMetric(evaluate.Metric):
    """Scores records of documents with [`~modeling_comm.evaluation.scoring.score`].

    Raises:
        ValueError: a record is malformed, before anything is stored.
    """

    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features(
                {
                    "predictions": {
                        "title": _TEXT,
                        "facts": datasets.List({"h_idx": _INDEX, "t_idx": _INDEX, "r": _TEXT, "evidence": _EVIDENCE}),
                    },
                    "references": {
                        "title": _TEXT,
                        "vertexSet": datasets.List(datasets.List({"name": _TEXT, "sent_id": _INDEX})),
                        "labels": datasets.List({"h": _INDEX, "t": _INDEX, "r": _TEXT, "evidence": _EVIDENCE}),
                    },
                }
            ),
        )

    def add_batch(self, *, predictions=None, references=None):
        """Stores as many prediction records as references, checked and reduced to what scoring reads."""
        if predictions is None or references is None:
            raise ValueError("predictions, references: found None, expected one record of each for every document")
        references = list(references)
        read_documents(references, name="references")
        super().add_batch(
            predictions=[_prediction_record(record, position) for position, record in enumerate(predictions)],
            references=[_reference_record(document) for document in references],
        )

    def add(self, *, prediction=None, reference=None):
        """Stores one prediction record and its reference."""
        self.add_batch(predictions=[prediction], references=[reference])

    def _compute(self, predictions, references, **options):
        facts = [{"title": record["title"], **fact} for record in predictions for fact in record["facts"]]
        return score(facts, references, **options)
