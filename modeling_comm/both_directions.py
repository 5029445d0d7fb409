"""Predicted triples of symmetric and inverse relations, which a model is asked about once, shown in both directions."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from .candidate_pairs import CandidatePairs

_Triple = TypeVar("_Triple", bound=Mapping[str, Any])


def show_both_ways(
    triples: list[_Triple], relation_names: Mapping[str, str], candidates: CandidatePairs
) -> list[_Triple]:
    """
    Triples with those that say the same in the other direction.

    Args:
        triples (`list[TripleInWords]`): as [`~decoding.Predictions.in_words`] gives them, by head, tail and falling score.
        relation_names (`Mapping[str, str]`): readable names of relations.
        candidates (`CandidatePairs`): which relations are symmetric, and which have an inverse.

    Returns:
        `list[TripleInWords]`: in the same order. What is added is `derived` from the triple that it repeats, with its score.
    """
    added = [other for triple in triples for other in _mirrored(triple, relation_names, candidates)]
    return sorted(triples + added, key=_place) if added else triples


def _place(triple):
    return triple["head"], triple["tail"], -triple["score"]


def _mirrored(triple, relation_names, candidates) -> Iterator[Any]:
    premise = triple["head"], triple["tail"], triple["relation"]
    for head, tail, relation in candidates.mirrored(*premise):
        names = [triple["head_name"], triple["tail_name"]]
        if turned := head != triple["head"]:
            names.reverse()
        rule = f"{triple['relation']}(x, y) => {relation}({'y, x' if turned else 'x, y'})"
        yield {
            **triple,
            "head": head,
            "tail": tail,
            "relation": relation,
            "relation_name": relation_names.get(relation, relation),
            "derived": {"rule": rule, "premises": [list(premise)]},
            "head_name": names[0],
            "tail_name": names[1],
        }
