"""Scores of predicted evidence: which sentences prove a fact."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from ..candidate_pairs import ALL_PAIRS, CandidatePairs
from ..decoding import Predictions
from .cutoffs import tune_offset
from .rates import rates


def evidence_metrics(
    results: Iterable[Predictions],
    documents: Iterable[Mapping],
    id2label: Mapping[int, str],
    candidates: CandidatePairs = ALL_PAIRS,
) -> dict[str, float]:
    """
    Scores of the predicted evidence of labelled documents.

    Args:
        results (`Iterable[Predictions]`): one for each document, with evidence.
        documents (`Iterable[dict]`): in DocRED's format.
        id2label (`Mapping[int, str]`): the model's labels.
        candidates (`CandidatePairs`, *optional*): in which direction the model is asked about facts.

    Returns:
        `evidence_precision`, `evidence_recall` and `evidence_f1` over the sentences of facts that are predicted, right and
        annotated with evidence, and `evidence_f1_given_facts` over those of all facts annotated with evidence, predicted or not.
    """
    found, given = [], []
    for result, gold in _with_gold(results, documents, candidates):
        threshold = result.settings.evidence_threshold
        for triple in result.triples:
            if evidence := gold.get((triple.head, triple.tail, id2label[triple.label])):
                found.append((set(triple.evidence or ()), evidence))
        for (head, tail, _), evidence in gold.items():
            scores = (result.sentence_scores or {}).get((head, tail), ())
            given.append(({number for number, share in enumerate(scores) if share > threshold}, evidence))
    precision, recall, f1 = sentence_rates(found)
    metrics = {"evidence_precision": precision, "evidence_recall": recall, "evidence_f1": f1}
    return metrics | {"evidence_f1_given_facts": sentence_rates(given)[-1]}


def best_evidence_threshold(
    results: Sequence[Predictions],
    documents: Iterable[Mapping],
    id2label: Mapping[int, str],
    candidates: CandidatePairs = ALL_PAIRS,
) -> float | None:
    """
    The `evidence_threshold` with the best evidence F1 over facts that are predicted, right and annotated with evidence.

    Args:
        results, documents, id2label, candidates: as in [`evidence_metrics`]; the results have `sentence_scores`.

    Returns:
        `float`, in `[0, 1)`, or None if there is no such fact.
    """
    shares, correct = [], []
    for result, gold in _with_gold(results, documents, candidates):
        for triple in result.triples:
            if evidence := gold.get((triple.head, triple.tail, id2label[triple.label])):
                scores = result.sentence_scores[triple.head, triple.tail]
                shares += scores
                correct += [number in evidence for number in range(len(scores))]
    if not any(correct):
        return None
    threshold, _ = tune_offset(shares, correct, sum(correct))
    return max(threshold, 0.0)


def sentence_rates(facts: Sequence[tuple[Collection[int], Collection[int]]]) -> tuple[float, float, float]:
    """
    Rates of evidence over facts.

    Args:
        facts (`Sequence[tuple[set[int], set[int]]]`): of each fact its predicted and its annotated sentences.

    Returns:
        `tuple[float, float, float]`: precision, recall and F1 of the sentences; 0 where there are none.
    """
    correct = sum(len(set(found).intersection(gold)) for found, gold in facts)
    predicted, annotated = (sum(len(fact[place]) for fact in facts) for place in (0, 1))
    found = rates(correct, predicted, annotated)
    return found["precision"], found["recall"], found["f1"]


def _with_gold(results, documents, candidates):
    """Each result with the annotated evidence of its document, by head, tail and relation; repeated labels count together."""
    for result, document in zip(results, documents, strict=True):
        gold = {}
        for fact, label in candidates.labels(document):
            if label.get("evidence"):
                gold.setdefault(fact, set()).update(label["evidence"])
        yield result, gold
