"""What entity types alone say of relations: counts of training documents, and the log-odds that a model's logits start from."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch

from .candidate_pairs import ALL_PAIRS, CandidatePairs
from .documents import Document
from .features import DocumentFeatures
from .relation_types import given_types
from .settings import SettingError

# The rate of a relation between two types is counted as if so many more pairs of these types had its rate in all pairs.
_PAIRS_OF_OVERALL_RATE = 10.0


@dataclass(frozen=True)
class TypeCounts:
    """
    Pairs of entities and facts of training documents, by the types of head and tail.

    Args:
        pairs (`dict[str, dict[str, int]]`): by type of the head and type of the tail, the pairs that are asked about.
        facts (`dict[str, dict[str, dict[str, int]]]`): by relation, type of the head and type of the tail, its facts.

    Raises:
        SettingError: a value does not fit.

    Example:

    ```python
    >>> from modeling_comm.type_counts import TypeCounts
    >>> mentions = [[{"name": "Oslo", "sent_id": 0, "type": "LOC"}], [{"name": "1048", "sent_id": 0, "type": "TIME"}]]
    >>> document = {"title": "Oslo", "vertexSet": mentions, "labels": [{"h": 0, "t": 1, "r": "P571"}]}
    >>> counts = TypeCounts.of_documents([document])
    >>> counts.facts
    {'P571': {'LOC': {'TIME': 1}}}
    >>> counts.log_odds(["P571"], [["LOC", "TIME"]], [[0, 0, 1], [0, 1, 0]]).astype(float).round(1).tolist()
    [[0.0, 0.2], [0.0, -0.2]]

    ```
    """

    pairs: Mapping[str, Mapping[str, int]]
    facts: Mapping[str, Mapping[str, Mapping[str, int]]]
    _tables: dict[tuple[str, ...], np.ndarray] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not _is_counts(self.pairs, 2):
            raise SettingError("TypeCounts", "pairs", self.pairs, "numbers of pairs by type of head and type of tail")
        if not _is_counts(self.facts, 3):
            expected = "numbers of facts by relation, type of head and type of tail"
            raise SettingError("TypeCounts", "facts", self.facts, expected)

    @classmethod
    def of_documents(cls, documents: Iterable[Document], candidates: CandidatePairs = ALL_PAIRS) -> "TypeCounts":
        """
        The counts of labelled documents; those without labels, and entities without a type, count nothing.

        Args:
            documents (`Iterable[Document]`): in DocRED's format.
            candidates (`CandidatePairs`, *optional*): of the processor; pairs count in the direction that it asks about, and of
                directed data a symmetric fact counts in both.
        """
        pairs, facts = Counter(), Counter()
        for document in documents:
            if document.get("labels") is None:
                continue
            types = given_types(document)
            asked = {tuple(pair) for pair in candidates.pairs(document).tolist()}
            pairs.update((types[head], types[tail]) for head, tail in asked)
            found = {fact for fact, _ in candidates.labels(document)}
            found |= {(tail, head, relation) for head, tail, relation in found if candidates.is_symmetric(relation)}
            facts.update(
                (relation, types[head], types[tail]) for head, tail, relation in found if (head, tail) in asked
            )
        return cls(_nested(pairs), _nested(facts))

    @classmethod
    def of_setting(cls, value: Any) -> "TypeCounts | None":
        """
        What a setting `type_counts` holds: the counts, None, or a mapping of the fields, as JSON has them.

        Raises:
            SettingError: the value is something else.
        """
        if value is None or isinstance(value, cls):
            return value
        names = {field.name for field in fields(cls) if field.init}
        if not isinstance(value, Mapping) or value.keys() != names:
            raise SettingError("CommProcessor", "type_counts", value, f"a mapping of {sorted(names)}, or None")
        return cls(**value)

    def to_dict(self) -> dict:
        """The fields, ready for JSON."""
        return {"pairs": self.pairs, "facts": self.facts}

    def log_odds(self, relations: Sequence[str], types: Sequence[Sequence[str | None]], pair_index: Any) -> np.ndarray:
        """
        Log-odds of relations by the types of head and tail, their rates smoothed towards those in all pairs. Where a type is not
        known, or was not seen, the rates are those in all pairs.

        Args:
            relations (`Sequence[str]`): R labels, without the threshold class.
            types (`Sequence[Sequence[str | None]]`): by document and entity.
            pair_index (`(P, 3)` integer array): document, head and tail.

        Returns:
            `(P, R + 1)` float32; 0 for the threshold class.
        """
        number = {kind: index for index, kind in enumerate(self._types())}
        table = self._table(tuple(relations), number)
        unknown = len(number)
        kinds = [[number.get(kind, unknown) for kind in of_document] for of_document in types]  # type: ignore[call-overload]
        starts = np.cumsum([0, *map(len, kinds)])[:-1]
        flat = np.array([kind for of_document in kinds for kind in of_document], np.int64)
        document, head, tail = np.asarray(pair_index, np.int64).reshape(-1, 3).T
        return table[flat[starts[document] + head], flat[starts[document] + tail]]

    def _types(self):
        return sorted({*self.pairs, *(tail for tails in self.pairs.values() for tail in tails)})

    def _table(self, relations, number):
        """`(types + 1, types + 1, R + 1)`, the last type one that is not known."""
        if relations not in self._tables:
            pairs = np.zeros((len(number) + 1, len(number) + 1))
            facts = np.zeros((*pairs.shape, len(relations)))
            for head, tails in self.pairs.items():
                for tail, count in tails.items():
                    pairs[number[head], number[tail]] = count
            for index, relation in enumerate(relations):
                for head, tails in self.facts.get(relation, {}).items():
                    for tail, count in tails.items():
                        facts[number[head], number[tail], index] = count
            overall = (facts.sum((0, 1)) + 0.5) / (pairs.sum() + 1)
            rates = facts + _PAIRS_OF_OVERALL_RATE * overall
            rates /= (pairs + _PAIRS_OF_OVERALL_RATE)[:, :, None]
            rates = rates.clip(1e-6, 1 - 1e-6)
            table = np.zeros((*pairs.shape, len(relations) + 1), np.float32)
            table[:, :, 1:] = np.log(rates / (1 - rates))
            self._tables[relations] = table
        return self._tables[relations]


def odds_of_batch(
    counts: TypeCounts | None, relations: Sequence[str], features: Sequence[DocumentFeatures], pair_index: torch.Tensor
) -> torch.Tensor:
    """
    [`TypeCounts.log_odds`] of a batch of encoded documents, `(P, R + 1)` float32.

    Raises:
        SettingError: nothing was counted.
    """
    if counts is None:
        expected = "counts of training documents, as CommTrainer.train makes them where type_prior is set"
        raise SettingError("CommProcessor", "type_counts", counts, expected)
    types = [feature["entity_types"] for feature in features]
    return torch.from_numpy(counts.log_odds(relations, types, pair_index.numpy()))


def _nested(counts):
    """Counts by tuples of texts as mappings in mappings, sorted; what has no type is left out."""
    nested: dict = {}
    for keys, count in sorted((keys, count) for keys, count in counts.items() if None not in keys):
        inner = nested
        for key in keys[:-1]:
            inner = inner.setdefault(key, {})
        inner[keys[-1]] = count
    return nested


def _is_counts(value, depth):
    if depth == 0:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return isinstance(value, Mapping) and all(
        isinstance(key, str) and _is_counts(inner, depth - 1) for key, inner in value.items()
    )
