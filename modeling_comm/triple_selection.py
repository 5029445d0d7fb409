"""Which of the predicted triples a user wants: by score, relation, entity types and number. The pipeline and `comm-docre predict`
share it."""

import dataclasses
import difflib
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from .decoding import Triple, scores_of
from .documents import docred_type
from .settings import AtLeast, InRange, Setting, SettingError, check_field, plain_number

_NUMBERS = tuple(
    Setting(name, name, type_, None, (range_,))
    for name, type_, range_ in (
        ("min_score", float | None, InRange(0, 1)),
        ("top_k", int | None, AtLeast(1)),
        ("top_k_per_pair", int | None, AtLeast(1)),
    )
)
_NAMES = ("relations", "head_types", "tail_types")
# A warning about fewer pairs than these would often be about two or three documents that really are full of facts.
_ENOUGH_PAIRS = 100


class UnknownRelationError(SettingError):
    """
    A relation that the model does not predict.

    Args:
        value (`str`): What was found.
        known (`Mapping[str, str]`): Readable names by id.

    Attributes:
        nearest (`str`, *optional*): The known id or name that was probably meant.
    """

    def __init__(self, value: str, known: Mapping[str, str]):
        self.known = dict(known)
        names = {name.casefold(): name for pair in self.known.items() for name in reversed(pair)}
        close = difflib.get_close_matches(value.casefold(), names, n=1, cutoff=0.6)
        self.nearest = names[close[0]] if close else None
        some = ", ".join(f"{key} ({name})" if name != key else key for key, name in list(self.known.items())[:5])
        expected = f"{self.nearest!r}?" if self.nearest else f"one of the model's {len(self.known)}, such as {some}"
        super().__init__("TripleSelection", "relations", value, expected)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.value, self.known)


@dataclasses.dataclass(frozen=True)
class TripleSelection:
    """
    Chooses among the triples that a model predicts. Everything is kept by default. The filters come first, then the best triples
    of each pair, then those of the document.

    Args:
        min_score (`float`, *optional*): Lowest score of a triple, at least 0 and below 1. It cannot give more triples than the
            model's threshold lets through; a negative `threshold_offset` can.
        top_k (`int`, *optional*): At most this many triples of a document, those with the highest scores.
        top_k_per_pair (`int`, *optional*): At most this many triples of a pair of head and tail.
        relations (`str` or `Iterable[str]`, *optional*): Ids or readable names of the relations that are wanted; names are
            compared without case.
        head_types (`str` or `Iterable[str]`, *optional*), tail_types (`str` or `Iterable[str]`, *optional*): Entity types of
            head and tail; labels of CoNLL-2003 and OntoNotes mean DocRED's types, see [`~documents.docred_type`].

    Raises:
        SettingError: A value does not fit.
    """

    min_score: float | None = None
    top_k: int | None = None
    top_k_per_pair: int | None = None
    relations: Iterable[str] | None = None
    head_types: Iterable[str] | None = None
    tail_types: Iterable[str] | None = None

    def __post_init__(self) -> None:
        for setting in _NUMBERS:
            object.__setattr__(self, setting.field, plain_number(getattr(self, setting.field)))
            setting.check(self)
        for field in _NAMES:
            value = getattr(self, field)
            if value is None:
                continue
            names = [value] if isinstance(value, str) else value
            fits = isinstance(names, Iterable) and not isinstance(names, (bytes, Mapping))
            names = tuple(names) if fits else ()
            check_field(
                self, field, bool(names) and all(isinstance(name, str) for name in names), "a text, or a list of texts"
            )
            object.__setattr__(self, field, names)

    @classmethod
    def field_names(cls) -> tuple[str, ...]:
        """The names of all fields, which are those of the pipeline's arguments and of the command's flags."""
        return tuple(field.name for field in dataclasses.fields(cls))

    def given(self) -> dict[str, Any]:
        """The fields that leave anything out, as JSON has them; texts in the order of the alphabet."""
        values = {name: getattr(self, name) for name in self.field_names()}
        return {
            name: sorted(set(value)) if isinstance(value, tuple) else value
            for name, value in values.items()
            if value is not None and value != 0
        }

    def label_ids(self, id2label: Mapping[int, str], relation_names: Mapping[str, str]) -> frozenset[int] | None:
        """
        Label ids of the relations that are wanted.

        Args:
            id2label (`Mapping[int, str]`): The model's labels, the threshold class first; with both directions, those of
                [`~both_directions.labels_both_ways`].
            relation_names (`Mapping[str, str]`): Readable names by label.

        Returns:
            `frozenset[int]`, or None where all relations are wanted. A name that several relations share means all of them.

        Raises:
            UnknownRelationError: The model has no such relation.
        """
        if self.relations is None:
            return None
        known = {label: relation_names.get(label, label) for index, label in id2label.items() if index}
        ids = {}
        for index, label in id2label.items():
            if index:
                for name in {label, known[label].casefold()}:
                    ids.setdefault(name, set()).add(index)
        found = set()
        for name in self.relations:
            if not (fits := ids.get(name) or ids.get(name.casefold())):
                raise UnknownRelationError(name, known)
            found |= fits
        return frozenset(found)

    def select(self, triples: list[Triple], types: list[str], label_ids: frozenset[int] | None) -> list[Triple]:
        """
        The triples of a document that are wanted.

        Args:
            triples (`list[Triple]`): What was predicted.
            types (`list[str]`): The type of each entity of the document.
            label_ids (`frozenset[int]`, *optional*): What [`label_ids`] gave.

        Returns:
            `list[Triple]`: Some of them, in the same order.
        """
        kept = [
            triple
            for triple in triples
            if (label_ids is None or triple.label in label_ids)
            and has_type(self.head_types, types[triple.head])
            and has_type(self.tail_types, types[triple.tail])
        ]
        if self.min_score:
            kept = [triple for triple, score in zip(kept, scores_of(kept), strict=True) if score >= self.min_score]
        if self.top_k is None and self.top_k_per_pair is None:
            return kept
        best, of_pair = [], Counter()
        for index in sorted(range(len(kept)), key=lambda index: -kept[index].rank):  # stable: of equals the first
            pair = kept[index][:2]
            if self.top_k_per_pair is None or of_pair[pair] < self.top_k_per_pair:
                of_pair[pair] += 1
                best.append(index)
        return [kept[index] for index in sorted(best[: self.top_k])]

    def types_not_found(self, found: Iterable[str]) -> list[tuple[str, str, str | None]]:
        """
        The entity types that are asked for and that no entity has. They may be mistyped; a model does not say which types there
        are.

        Args:
            found (`Iterable[str]`): Types of the entities of all documents.

        Returns:
            `list[tuple[str, str, str | None]]`: Field, type, and the type found that is most like it.
        """
        found = {kind.casefold(): kind for kind in found}
        missing = []
        for field in ("head_types", "tail_types"):
            for wanted in getattr(self, field) or ():
                if not any(has_type((wanted,), kind) for kind in found.values()):
                    close = difflib.get_close_matches(wanted.casefold(), found, n=1, cutoff=0.4)
                    missing.append((field, wanted, found[close[0]] if close else None))
        return missing


def has_type(wanted: Iterable[str] | None, kind: str) -> bool:
    """Whether an entity's type is one of those wanted, which may be labels of CoNLL-2003 or OntoNotes; None means any."""
    return wanted is None or any(kind in (name, docred_type(name)) for name in wanted)


def type_warnings(selection: TripleSelection, found: Iterable[str]) -> list[str]:
    """What [`TripleSelection.types_not_found`] gives, in words."""
    found = sorted(set(found))
    return [
        f"{field}: no entity has the type {wanted!r}; the types found are {', '.join(found) or 'none'}"
        + (f"; is {close!r} meant?" if close else "")
        for field, wanted, close in selection.types_not_found(found)
    ]


class RelatedPairs:
    """Counts the pairs that a model relates. A model that relates most of them has hardly learnt to say no."""

    def __init__(self):
        self.pairs = self.related = 0
        self._warned = False

    def add(self, triples: list[Triple], pairs: int) -> str | None:
        """
        Counts a document.

        Args:
            triples (`list[Triple]`): All that was predicted for it.
            pairs (`int`): How many pairs of head and tail the model has seen of it.

        Returns:
            `str`: A warning, once, when most of at least 100 pairs are related; else None.
        """
        self.pairs += pairs
        self.related += len({triple[:2] for triple in triples})
        if self._warned or self.pairs < _ENOUGH_PAIRS or 2 * self.related <= self.pairs:
            return None
        self._warned = True
        return (
            f"The model relates {self.related:,} of the first {self.pairs:,} pairs of entities. Most texts state facts about "
            "few of their pairs: probably most of these triples are wrong. A higher threshold_offset or min_score, or top_k, "
            "gives fewer and surer ones; training on labelled texts of this kind helps most."
        )
