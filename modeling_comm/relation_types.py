"""The entity types between which each relation was seen in training: what a processor can hold its predictions to."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from .candidate_pairs import ALL_PAIRS, CandidatePairs
from .documents import Document
from .settings import SettingError

# What a processor does with a relation between types that training never showed it between.
TYPE_CONSTRAINTS = ("none", "hard")


@dataclass(frozen=True)
class RelationTypes:
    """
    The (head type, tail type) of each relation's facts in training documents.

    An entity has the type of its first mention, should they differ. Nothing is known, and so nothing excluded, of an entity
    without a type, of a type that the documents do not have, and of a relation without a fact.

    Args:
        types (`tuple[str, ...]`): all types that entities have there, with or without facts.
        pairs (`dict[str, tuple[tuple[str, str], ...]]`): by label of the relation, the types of head and tail.

    Raises:
        SettingError: a value does not fit.

    Example:

    ```python
    >>> from modeling_comm.relation_types import RelationTypes
    >>> mentions = [[{"name": "Oslo", "sent_id": 0, "type": "LOC"}], [{"name": "1048", "sent_id": 0, "type": "TIME"}]]
    >>> document = {"title": "Oslo", "vertexSet": mentions, "labels": [{"h": 0, "t": 1, "r": "P571"}]}
    >>> RelationTypes.of_documents([document]).pairs
    {'P571': (('LOC', 'TIME'),)}

    ```
    """

    types: tuple[str, ...]
    pairs: Mapping[str, tuple[tuple[str, str], ...]]

    def __post_init__(self) -> None:
        def check(name, fits, expected):
            if not fits:
                raise SettingError("RelationTypes", name, getattr(self, name), expected)

        check("types", _are_texts(self.types), "a list of texts")
        object.__setattr__(self, "types", tuple(self.types))
        expected = "a mapping of relations to pairs of `types`"
        check("pairs", isinstance(self.pairs, Mapping) and _are_texts(list(self.pairs)), expected)
        for seen in self.pairs.values():
            check("pairs", isinstance(seen, (list, tuple)), expected)
            check(
                "pairs",
                all(_are_texts(pair) and len(pair) == 2 and set(pair) <= {*self.types} for pair in seen),
                expected,
            )
        pairs = {relation: tuple(map(tuple, seen)) for relation, seen in self.pairs.items()}
        object.__setattr__(self, "pairs", pairs)

    @classmethod
    def of_documents(cls, documents: Iterable[Document], candidates: CandidatePairs = ALL_PAIRS) -> "RelationTypes":
        """
        The types in labelled documents; those without labels only add types of entities.

        Args:
            documents (`Iterable[Document]`): in DocRED's format.
            candidates (`CandidatePairs`, *optional*): of the processor; facts count in the direction that it asks about, as it
                predicts them, symmetric ones in both: in other documents, the tail may be the entity that is first.
        """
        types, pairs = set(), {}
        for document in documents:
            kinds = given_types(document)
            types.update(kind for kind in kinds if kind is not None)
            for (head, tail, relation), _ in candidates.labels(document):
                kind = kinds[head], kinds[tail]
                if None not in kind:
                    both = (kind, kind[::-1]) if candidates.is_symmetric(relation) else (kind,)
                    pairs.setdefault(relation, set()).update(both)
        return cls(tuple(sorted(types)), {relation: tuple(sorted(pairs[relation])) for relation in sorted(pairs)})

    @classmethod
    def of_setting(cls, value: Any) -> "RelationTypes | None":
        """
        What a setting `relation_types` holds: the types, None, or a mapping of the fields, as JSON has them.

        Raises:
            SettingError: the value is something else.
        """
        if value is None or isinstance(value, cls):
            return value
        names = {field.name for field in fields(cls)}
        if not isinstance(value, Mapping) or value.keys() != names:
            raise SettingError("DecisionSettings", "relation_types", value, f"a mapping of {sorted(names)}, or None")
        return cls(**value)

    def to_dict(self) -> dict:
        """The fields, ready for JSON."""
        return {
            "types": list(self.types),
            "pairs": {relation: list(map(list, seen)) for relation, seen in self.pairs.items()},
        }

    def merged(self, other: "RelationTypes | None") -> "RelationTypes":
        """What either of the two has seen."""
        if other is None:
            return self
        pairs = {
            relation: tuple(sorted({*self.pairs.get(relation, ()), *other.pairs.get(relation, ())}))
            for relation in sorted({*self.pairs, *other.pairs})
        }
        return RelationTypes(tuple(sorted({*self.types, *other.types})), pairs)

    def excluded(
        self, documents: Sequence[Document], pair_index: np.ndarray, id2label: Mapping[int, str]
    ) -> np.ndarray:
        """
        The relations of pairs that are between types that they were never seen between.

        Args:
            documents (`Sequence[Document]`): of a batch.
            pair_index (`(P, 3)` integer array): document, head and tail, as the model returns them.
            id2label (`Mapping[int, str]`): the model's labels, the threshold class first.

        Returns:
            `(P, R)` bool array.
        """
        number = {kind: index for index, kind in enumerate(self.types)}
        free = len(number)  # of what nothing is known
        table = np.zeros((free + 1, free + 1, len(id2label) - 1), bool)
        for index, label in id2label.items():
            if index and (seen := self.pairs.get(label)):
                table[:free, :free, index - 1] = True
                for head, tail in seen:
                    table[number[head], number[tail], index - 1] = False
        kinds = [[number.get(kind, free) for kind in given_types(document)] for document in documents]
        starts = np.cumsum([0, *map(len, kinds)])[:-1]
        flat = np.array([kind for of_document in kinds for kind in of_document], np.int64)
        document, head, tail = np.asarray(pair_index).T
        return table[flat[starts[document] + head], flat[starts[document] + tail]]


def given_types(document: Document) -> list[str | None]:
    """The type of each entity's first mention; None where nobody has given one."""
    untyped = set(document.get("untyped_entities") or ())
    return [
        None if index in untyped else mentions[0].get("type") for index, mentions in enumerate(document["vertexSet"])
    ]


def _are_texts(value):
    return isinstance(value, (list, tuple)) and all(isinstance(one, str) for one in value)
