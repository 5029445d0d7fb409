"""Predicted triples of symmetric and inverse relations, which a model is asked about once, shown in both directions."""

from collections.abc import Mapping

from .candidate_pairs import CandidatePairs
from .decoding import Triple


def labels_both_ways(id2label: Mapping[int, str], candidates: CandidatePairs) -> dict[int, str]:
    """
    The labels of what [`show_both_ways`] gives.

    Args:
        id2label (`Mapping[int, str]`): the model's labels, the threshold class first.
        candidates (`CandidatePairs`): which relations have an inverse.

    Returns:
        `dict[int, str]`: the model's labels, and after them the inverse relations, which it is not asked about.
    """
    return {**id2label, **dict(enumerate(candidates.inverse, len(id2label)))}


def show_both_ways(triples: list[Triple], id2label: Mapping[int, str], candidates: CandidatePairs) -> list[Triple]:
    """
    Triples with those that say the same in the other direction.

    Args:
        triples (`list[Triple]`): what was predicted for a document.
        id2label (`Mapping[int, str]`): what [`labels_both_ways`] gave.
        candidates (`CandidatePairs`): which relations are symmetric, and which have an inverse.

    Returns:
        `list[Triple]`: the triples, and then the others: each follows from the triple that it repeats, with its margin,
        probability and evidence.
    """
    label2id = {label: index for index, label in id2label.items()}
    added = []
    for triple in triples:
        name = id2label[triple.label]
        for head, tail, relation in candidates.mirrored(triple.head, triple.tail, name):
            other = triple._replace(head=head, tail=tail, label=label2id[relation])
            rule = f"{name}(x, y) => {relation}({'y, x' if head != triple.head else 'x, y'})"
            added.append(other._replace(rule=rule, premises=((triple.head, triple.tail, triple.label),)))
    return triples + added
