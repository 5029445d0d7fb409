"""A baseline that sees entity types only: what they alone give away."""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from ..candidate_pairs import ALL_PAIRS, CandidatePairs
from ..documents import Document, OfficialPrediction
from .cutoffs import tune_offset_of_groups
from .scoring import parse_documents

_LABELLED = ("labels", "type")


class ScoredPrediction(OfficialPrediction):
    """A candidate in the official format with its score, a probability."""

    score: float


def _entity_types(document):
    return [mentions[0]["type"] for mentions in document.entities]


def _pairs(document, candidates):
    """Head and tail of the pairs of a document that are asked about, their types, and whether symmetric relations of directed
    data are asked about in the other direction alone."""
    types = _entity_types(document)
    turned = set(candidates.turned({"vertexSet": document.entities, "ignored_pairs": document.ignored}).tolist())
    for row, (head, tail) in enumerate(candidates.pairs_of_types(types, document.ignored).tolist()):
        yield head, tail, (types[head], types[tail]), row in turned


class _Counts(NamedTuple):
    """Candidate pairs of each (head type, tail type), and those of them that symmetric relations are asked about; facts of each
    (head type, tail type), relation; and all facts."""

    pairs: Counter
    pairs_of_symmetric: Counter
    facts: Counter
    total: int

    @classmethod
    def of(cls, documents, candidates):
        pairs, of_symmetric, facts, total = Counter(), Counter(), Counter(), 0
        for document in documents:
            asked = list(_pairs(document, candidates))
            pairs.update(types for _, _, types, _ in asked)
            of_symmetric.update(types for _, _, types, turned in asked if not turned)
            by_pair = {(head, tail): types for head, tail, types, _ in asked}
            matrix = candidates.matrix(_entity_types(document))
            found = (candidates.turn(*fact, matrix) for fact in document.facts)
            facts.update((by_pair[fact[:2]], fact[2]) for fact in found if fact[:2] in by_pair)
            total += len(document.facts)
        return cls(pairs, of_symmetric, facts, total)

    def asked(self, types, relation, candidates):
        """How many pairs of these types are asked about a relation."""
        return (self.pairs_of_symmetric if candidates.is_symmetric(relation) else self.pairs)[types]


class TypePrior:
    """P(relation | head type, tail type) = facts / candidate pairs of these types, counted on training documents. Symmetric
    relations are counted and predicted in the one direction in which they are asked about.

    It reads no text: a model has learnt to read only as far as it beats this. An entity has the type of its first
    mention, should they differ. Type pairs that training never saw get no candidate.

    Args:
        documents (`Iterable[Document]`): labelled documents in DocRED's format, mentions with `type`.
        candidates (`CandidatePairs`, *optional*): the pairs that the data set asks about, which are all that are counted and
            predicted; by default all ordered pairs of different entities.
        source (`str`, defaults to `"training documents"`): where the documents come from, for the message.

    Attributes:
        probabilities (`dict[tuple[str, str], dict[str, float]]`): of a (head type, tail type) by relation; none is 0.

    Raises:
        DocumentError: a document is malformed.

    Example:

    ```python
    >>> from modeling_comm.evaluation.type_prior import TypePrior
    >>> mentions = [[{"name": "Oslo", "sent_id": 0, "type": "LOC"}], [{"name": "1905", "sent_id": 0, "type": "TIME"}]]
    >>> document = {"title": "Oslo", "vertexSet": mentions, "labels": [{"h": 0, "t": 1, "r": "P571"}]}
    >>> TypePrior([document]).predict([document], cutoff=0.5)
    [{'title': 'Oslo', 'h_idx': 0, 't_idx': 1, 'r': 'P571'}]

    ```
    """

    def __init__(
        self,
        documents: Iterable[Document],
        candidates: CandidatePairs = ALL_PAIRS,
        source: str = "training documents",
    ):
        self.candidates = candidates
        counts = self._count(documents, source)
        self.probabilities = {}
        for (types, relation), count in sorted(counts.facts.items()):
            self.probabilities.setdefault(types, {})[relation] = count / counts.asked(types, relation, candidates)

    def scored(self, documents: Iterable[Document], cutoff: float = 0.0) -> list[ScoredPrediction]:
        """Candidates with a score above `cutoff`. Needs no labels."""
        return list(self._candidates(documents, cutoff))

    def _candidates(self, documents, cutoff):
        above = {
            types: [(relation, probability) for relation, probability in relations.items() if probability > cutoff]
            for types, relations in self.probabilities.items()
        }
        for document in parse_documents(documents, require=("type",)):
            for head, tail, types, turned in _pairs(document, self.candidates):
                for relation, probability in above.get(types, ()):
                    if turned and self.candidates.is_symmetric(relation):
                        continue
                    fact = {"title": document.title, "h_idx": head, "t_idx": tail, "r": relation}
                    yield {**fact, "score": probability}

    @staticmethod
    def to_predictions(candidates: Iterable[ScoredPrediction]) -> list[OfficialPrediction]:
        """Candidates in the official format, without their scores."""
        return [
            {"title": one["title"], "h_idx": one["h_idx"], "t_idx": one["t_idx"], "r": one["r"]} for one in candidates
        ]

    def predict(self, documents: Iterable[Document], cutoff: float) -> list[OfficialPrediction]:
        """Every candidate with a score above `cutoff`, in the official format."""
        return self.to_predictions(self._candidates(documents, cutoff))

    def best_cutoff(self, documents: Iterable[Document]) -> tuple[float, float]:
        """The cut-off with the best micro F1 on labelled `documents`, and that F1, as
        [`~modeling_comm.evaluation.cutoffs.tune_offset`] gives them. Chosen on the test documents themselves, it is an upper
        bound on what this baseline reaches there."""
        counts = self._count(documents)
        # All candidates of one type pair and relation share a score, so counts replace the candidates themselves.
        cells = [
            (probability, counts.facts[types, relation], asked)
            for types, relations in self.probabilities.items()
            for relation, probability in relations.items()
            if (asked := counts.asked(types, relation, self.candidates))
        ]
        scores, correct, numbers = np.array(cells, dtype=float).reshape(-1, 3).T
        return tune_offset_of_groups(scores, correct.astype(np.int64), numbers.astype(np.int64), counts.total)

    def _count(self, documents, source=None):
        documents = parse_documents(documents, require=_LABELLED, source=source, candidates=self.candidates)
        return _Counts.of(documents, self.candidates)
