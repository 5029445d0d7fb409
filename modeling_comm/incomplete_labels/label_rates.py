"""How complete labels are: the rate of each relation's labels, and estimates of the number of facts per labelled fact.

The losses `pu_cmm` and `ssr_pu` are told such numbers. None of them is learnt by gradient.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from ..candidate_pairs import ALL_PAIRS, CandidatePairs
from ..documents import Document
from .rules import facts_of

SMOOTHING = 5.0
MOST = 10.0


def label_rates(documents: Iterable[Document], candidates: CandidatePairs = ALL_PAIRS) -> dict[str, float]:
    """
    Counts, for each relation with a label, the share of all pairs that has it.

    Args:
        documents (`Iterable[dict]`): training documents in DocRED's format, with labels.
        candidates (`CandidatePairs`, *optional*): the pairs that the model is asked about; by default all ordered pairs of
            different entities.

    Returns:
        `dict[str, float]`: labelled facts per pair, by relation.
    """
    counts, pairs = Counter(), 0
    for document in documents:
        asked = candidates.asked(document)
        pairs += int(asked.sum())
        facts = {fact for fact, _ in candidates.labels(document)}
        counts.update(relation for head, tail, relation in facts if asked[head, tail])
    return {relation: counts[relation] / pairs for relation in sorted(counts)}


def facts_per_label(
    incomplete: Iterable[Mapping],
    complete: Iterable[Mapping],
    relations: Collection[str],
    smoothing: float = SMOOTHING,
    most: float = MOST,
    candidates: CandidatePairs = ALL_PAIRS,
) -> dict[str, float]:
    """
    Estimates the number of facts per labelled fact of each relation from a few completely labelled documents of the same kind.

    `min(most, max(1, e (a + smoothing) / (x + smoothing)))`, where a is the number of facts of the relation in the complete
    documents, e the ratio of facts per document over all relations, and x is e times the relation's facts per incomplete
    document times the number of complete documents: what a would be if all relations were labelled alike.

    Args:
        incomplete (`Iterable[dict]`): the documents to train on, in DocRED's format.
        complete (`Iterable[dict]`): documents with complete labels. They need not be the same texts.
        relations (`Collection[str]`): the relations to estimate.
        smoothing (`float`, defaults to 5): facts that are added on both sides, so that a rare relation has about e.
        most (`float`, defaults to 10): the largest estimate.
        candidates (`CandidatePairs`, *optional*): says which facts are the same, as in [`~.rules.facts_of`]; by default no two
            are. A relation that is read as the inverse of another has no estimate of its own.

    Returns:
        `dict[str, float]`: by relation, for `--pu_cmm_facts_per_label_by_relation`.

    Raises:
        ValueError: there is no fact on one of the two sides.
    """
    (found, documents), (true, complete_documents) = (_count(one, candidates) for one in (incomplete, complete))
    for name, counts in (("incomplete", found), ("complete", true)):
        if not counts.total():
            raise ValueError(f"{name}: found no labelled fact; expected documents with labels")
    relations = [relation for relation in relations if relation not in candidates.inverse]
    overall = (true.total() / complete_documents) / (found.total() / documents)
    expected = {relation: overall * found[relation] / documents * complete_documents for relation in relations}
    return {
        relation: min(most, max(1.0, overall * (true[relation] + smoothing) / (expected[relation] + smoothing)))
        for relation in relations
    }


def facts_per_label_by_probabilities(
    probabilities: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    relations: Sequence[str],
    smoothing: float = SMOOTHING,
    most: float = MOST,
) -> dict[str, float]:
    """
    Estimates the number of facts per labelled fact where nothing is labelled completely, by Elkan and Noto (2008, "Learning
    classifiers from only positive and unlabeled data", section 2): 1 / mean P(labelled) over labelled facts.

    It rests on two assumptions: which facts of a relation are labelled does not depend on the text, and a labelled fact is a fact
    beyond doubt. Where texts leave doubt, P(labelled) is lower for another reason than missing labels, and the estimate is too
    high.

    Args:
        probabilities (`Sequence[np.ndarray]`): for each document `(p, R)`, calibrated probabilities that a relation of a pair
            is labelled, from a model and a map that have not seen the document (k folds), such as the second value of
            [`~.probability_map.fit_probability_map`].
        labels (`Sequence[np.ndarray]`): for each document `(p, R)` bool, the labels.
        relations (`Sequence[str]`): the relations, in the order of the columns.
        smoothing (`float`, defaults to 5): labelled facts with the mean probability of all relations that are added to each.
        most (`float`, defaults to 10): the largest estimate.

    Returns:
        `dict[str, float]`: by relation.

    Raises:
        ValueError: no fact is labelled, or the number of columns differs from that of the relations.
    """
    total, counts = np.zeros(len(relations)), np.zeros(len(relations))
    for probability, labelled in zip(probabilities, labels, strict=True):
        if probability.shape != labelled.shape or probability.shape[1:] != (len(relations),):
            raise ValueError(
                f"found probabilities {probability.shape} and labels {labelled.shape}; expected one column for each of "
                f"{len(relations)} relations"
            )
        total += np.where(labelled, probability, 0.0).sum(0)
        counts += labelled.sum(0)
    if not counts.any():
        raise ValueError("labels: found no labelled fact; expected documents with labels")
    overall = total.sum() / counts.sum()
    means = (total + smoothing * overall) / (counts + smoothing)
    return dict(zip(relations, np.clip(1 / means, 1.0, most).tolist(), strict=True))


def _count(documents, candidates):
    """Facts by relation, and the number of documents."""
    facts = [Counter(fact.relation for fact in facts_of(document, candidates)) for document in documents]
    return sum(facts, Counter()), len(facts)
