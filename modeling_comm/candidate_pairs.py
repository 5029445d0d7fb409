"""Pairs of entities that relations are asked about: by their types, in one direction or both, and with which relations that say
the same both ways.

A data set's entry declares it once, a checkpoint carries it, and encoding, decisions and scores read it from there.
"""

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .documents import Document, docred_type
from .settings import SettingError, check_field


@dataclasses.dataclass(frozen=True)
class CandidatePairs:
    """
    Which pairs of a document's entities a model is asked about. By default these are all ordered pairs of different entities, for
    all relations.

    An entity has the type of its first mention. Types of named-entity models mean DocRED's, see
    [`~documents.docred_type`].

    Args:
        candidate_pairs (`Iterable[tuple[str, str]]`, *optional*): `(head type, tail type)` of the pairs that may be related. Any
            by default.
        directed (`bool`, defaults to `True`): whether a relation of head and tail is another one than that of tail and head. If
            not, each unordered pair is asked about once: in the direction that `candidate_pairs` lists, and where it lists both,
            or there are no `candidate_pairs`, with the entity of the lower index as the head.
        symmetric (`Iterable[str]`, *optional*): relations of directed data that hold in both directions or in none. They are
            asked about once, in the direction of undirected pairs.
        inverse (`Mapping[str, str]`, *optional*): relations that say the same as another one in the other direction, with that
            one: `{"P527": "P361"}`. A model has only the second: each label of the first is read as one.

    Raises:
        SettingError: a value does not fit.
    """

    candidate_pairs: Iterable[tuple[str, str]] | None = None
    directed: bool = True
    symmetric: Iterable[str] = ()
    inverse: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        given = self.candidate_pairs
        fits = given is None or (isinstance(given, Collection) and bool(given) and all(map(_are_types, given)))
        check_field(
            self, "candidate_pairs", fits, "pairs of types (head type, tail type), at least one, or none at all"
        )
        check_field(self, "directed", isinstance(self.directed, bool), "true or false")
        names = self.symmetric
        fits = isinstance(names, Collection) and not isinstance(names, str) and all(isinstance(x, str) for x in names)
        check_field(self, "symmetric", fits, "a list of relations")
        turned = self.inverse
        fits = isinstance(turned, Mapping) and all(isinstance(x, str) for pair in turned.items() for x in pair)
        check_field(
            self, "inverse", fits, "a mapping of relations to the relations that say the same the other way round"
        )
        both = sorted((set(turned.values()) | set(names)) & set(turned))
        check_field(self, "inverse", not both, f"relations that are not at the same time kept or symmetric, as {both}")
        pairs = None if given is None else tuple(dict.fromkeys(tuple(pair) for pair in given))
        object.__setattr__(self, "candidate_pairs", pairs)
        object.__setattr__(self, "symmetric", tuple(dict.fromkeys(names)))
        object.__setattr__(self, "inverse", dict(turned))

    def __hash__(self) -> int:
        return hash((self.candidate_pairs, self.directed, self.symmetric, *sorted(self.inverse.items())))

    @classmethod
    def field_names(cls) -> tuple[str, ...]:
        """The names of all fields, which are those of a data set's entry and of a processor's settings."""
        return tuple(field.name for field in dataclasses.fields(cls))

    def given(self) -> dict[str, Any]:
        """The fields that differ from their defaults, ready for JSON."""
        default = type(self)()
        values = {
            name: getattr(self, name) for name in self.field_names() if getattr(self, name) != getattr(default, name)
        }
        lists = {
            name: [list(x) if isinstance(x, tuple) else x for x in v]
            for name, v in values.items()
            if isinstance(v, tuple)
        }
        return values | lists

    def of_labels(self, labels: Collection[str]) -> "CandidatePairs":
        """The same for a model of these labels: symmetric and inverse relations that it does not have are left out."""
        return dataclasses.replace(
            self,
            symmetric=tuple(name for name in self.symmetric if name in labels),
            inverse={name: kept for name, kept in self.inverse.items() if kept in labels},
        )

    def check_labels(self, labels: Collection[str]) -> None:
        """Raises [`SettingError`] where symmetric and inverse relations do not fit to the relations of a model."""
        if unknown := sorted({*self.symmetric, *self.inverse.values()} - set(labels)):
            raise SettingError("CandidatePairs", "symmetric, inverse", unknown, "relations of id2label")
        if surplus := sorted(set(self.inverse) & set(labels)):
            expected = "relations that id2label lacks, because they are read as others"
            raise SettingError("CandidatePairs", "inverse", surplus, expected)

    # ------------------------------------------------------------------------------------------------------------- pairs

    def matrix(self, types: Sequence[str]) -> np.ndarray:
        """`(n, n)` bool, by head and tail: whether entities of these `types` are a candidate pair."""
        count = len(types)
        if self.candidate_pairs is None:
            asked = np.ones((count, count), dtype=bool)
        else:
            allowed = {tuple(map(docred_type, pair)) for pair in self.candidate_pairs}
            names = list(map(docred_type, types))
            known = sorted(set(names))
            of_types = np.array([[(head, tail) in allowed for tail in known] for head in known], dtype=bool)
            codes = np.array([known.index(name) for name in names], dtype=np.int64)
            asked = of_types.reshape(len(known), len(known))[codes][:, codes]
        np.fill_diagonal(asked, False)
        if not self.directed:
            asked &= ~(
                asked.T & np.tri(count, k=-1, dtype=bool)
            )  # of both directions the one with the lower index first
        return asked

    def pairs(self, document: Document) -> np.ndarray:
        """`(p, 2)` int64: head and tail of the pairs that a model is asked about, by head and then tail: the document's
        candidates but its `ignored_pairs`."""
        return np.argwhere(self.asked(document))

    def asked(self, document: Document) -> np.ndarray:
        """`(n, n)` bool, by head and tail: which [`pairs`] a model is asked about."""
        return self._asked_of_types(entity_types(document), ignored_pairs(document))

    def pairs_of_types(self, types: Sequence[str], ignored: Collection[tuple[int, int]] = ()) -> np.ndarray:
        """[`pairs`] of a document whose entities have these `types`, and whose `ignored` pairs are these."""
        return np.argwhere(self._asked_of_types(types, ignored))

    def _asked_of_types(self, types, ignored):
        asked = self.matrix(types)
        for head, tail in ignored:
            asked[head, tail] = False
            if not self.directed:
                asked[tail, head] = False
        return asked

    def turned(self, document: Document) -> np.ndarray:
        """Rows of [`pairs`] that are not asked about symmetric relations, because the other direction is, or is ignored; none
        where there are no such relations among directed ones."""
        if not self.directed or not self.symmetric:
            return np.zeros(0, dtype=np.int64)
        other = self.matrix(entity_types(document)).T
        ignored = ignored_pairs(document)
        return np.array(
            [
                row
                for row, (head, tail) in enumerate(self.pairs(document).tolist())
                if (head > tail and other[head, tail]) or (tail, head) in ignored
            ],
            dtype=np.int64,
        )

    # ------------------------------------------------------------------------------------------------------------- facts

    def is_symmetric(self, relation: str) -> bool:
        """Whether a relation holds in both directions or in none."""
        return not self.directed or relation in self.symmetric

    def turn(self, head: int, tail: int, relation: str, asked: np.ndarray | None = None) -> tuple[int, int, str]:
        """
        A fact in the direction that is asked about: one of an inverse relation as that of the other, and a symmetric one always
        in the same direction.

        Args:
            head (`int`), tail (`int`), relation (`str`): the fact.
            asked (`(n, n)` bool, *optional*): what [`matrix`] gave for the document. Without it symmetric facts have the lower
                index first, which is enough to tell facts apart.
        """
        if relation in self.inverse:
            head, tail, relation = tail, head, self.inverse[relation]
        if self.is_symmetric(relation):
            head, tail = min(head, tail), max(head, tail)
            if asked is not None and asked[tail, head] and not asked[head, tail]:
                head, tail = tail, head
        return head, tail, relation

    def labels(self, document: Document) -> Iterator[tuple[tuple[int, int, str], Mapping[str, Any]]]:
        """Each label of a document that does not belong to its `ignored_pairs`: the fact in the direction that is asked about,
        and the label itself."""
        labels, ignored = document.get("labels") or (), ignored_pairs(document)
        one_way = labels and (self.symmetric or not self.directed)
        asked = self.matrix(entity_types(document)) if one_way else None
        for label in labels:
            fact = self.turn(label["h"], label["t"], label["r"], asked)
            if not self.ignores(*fact, ignored):
                yield fact, label

    def ignores(self, head: int, tail: int, relation: str, ignored: Collection[tuple[int, int]]) -> bool:
        """Whether a fact is of one of the [`ignored_pairs`] of its document. A symmetric one is of both directions."""
        return (head, tail) in ignored or (self.is_symmetric(relation) and (tail, head) in ignored)

    def mirrored(self, head: int, tail: int, relation: str) -> list[tuple[int, int, str]]:
        """The other ways to say a fact of a model's relation: none for most relations."""
        found = [(tail, head, name) for name, kept in self.inverse.items() if kept == relation]
        if self.is_symmetric(relation):
            found += [(tail, head, relation), *((head, tail, name) for _, _, name in found)]
        return found


ALL_PAIRS = CandidatePairs()


def _are_types(pair):
    return isinstance(pair, Sequence) and len(pair) == 2 and all(isinstance(kind, str) and kind for kind in pair)


def entity_types(document: Document) -> list[str]:
    """The type of each entity of a document: that of its first mention; empty where it has none."""
    return [mentions[0].get("type", "") for mentions in document["vertexSet"]]


def ignored_pairs(document: Document) -> set[tuple[int, int]]:
    """Head and tail of the pairs of a document that are neither trained nor predicted nor scored."""
    return {(head, tail) for head, tail in document.get("ignored_pairs") or ()}
