"""Which triples and edges a graph has."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

from ..prediction_record import RecordEntity, RecordTriple
from ..settings import AtLeast, Setting
from ..triple_selection import TripleSelection, has_type, type_warnings

_MIN_SUPPORT = Setting("min_support", "min_support", int, 1, (AtLeast(1),))


@dataclass(frozen=True)
class GraphSelection:
    """
    Chooses the triples that become edges, and the edges that stay. Everything is kept by default.

    Args:
        min_score (`float`, *optional*): Lowest score of a triple, at least 0 and below 1.
        min_support (`int`, defaults to 1): Lowest number of documents in which an edge is found, by triples that are wanted.
        relations (`str` or `Iterable[str]`, *optional*): Ids or readable names of the relations that are wanted; names are
            compared without case.
        head_types (`str` or `Iterable[str]`, *optional*), tail_types (`str` or `Iterable[str]`, *optional*): Entity types of head
            and tail in their document; labels of CoNLL-2003 and OntoNotes mean DocRED's types, see
            [`~modeling_comm.documents.docred_type`].

    Raises:
        SettingError: A value does not fit.
    """

    min_score: float | None = None
    min_support: int = 1
    relations: Iterable[str] | None = None
    head_types: Iterable[str] | None = None
    tail_types: Iterable[str] | None = None

    def __post_init__(self) -> None:
        _MIN_SUPPORT.check(self)
        shared = {name: getattr(self, name) for name in self.field_names() if name != "min_support"}
        of_triples = TripleSelection(**shared)
        for name in shared:
            object.__setattr__(self, name, getattr(of_triples, name))

    @classmethod
    def field_names(cls) -> tuple[str, ...]:
        """The names of all fields, which are those of the command's flags."""
        return tuple(field.name for field in fields(cls))

    def reason_against(self, triple: RecordTriple, head: RecordEntity, tail: RecordEntity) -> str | None:
        """The field of [`~modeling_comm.graph.united_graph.GraphCounts`] that counts a triple which is not wanted; None for one
        that is."""
        if self.min_score and triple["score"] < self.min_score:
            return "below_min_score"
        if self.relations is not None and not any(
            _is_named(name, triple["relation"], triple["relation_name"]) for name in self.relations
        ):
            return "of_other_relations"
        if not (has_type(self.head_types, head["type"]) and has_type(self.tail_types, tail["type"])):
            return "of_other_types"
        return None

    def warnings(self, relations: Mapping[str, str], types: Iterable[str]) -> list[str]:
        """
        Relations and types that are asked for and that no triple and no entity has, in words. They may be mistyped.

        Args:
            relations (`Mapping[str, str]`): Readable names by id of the relations of all triples.
            types (`Iterable[str]`): The types of the entities of all documents.
        """
        known = {name.casefold(): name for pair in relations.items() for name in reversed(pair)}
        found = []
        for name in self.relations or ():
            if not any(_is_named(name, relation, readable) for relation, readable in relations.items()):
                close = difflib.get_close_matches(name.casefold(), known, n=1, cutoff=0.6)
                meant = f"; is {known[close[0]]!r} meant?" if close else ""
                found.append(f"relations: no triple has the relation {name!r}{meant}")
        return found + type_warnings(TripleSelection(head_types=self.head_types, tail_types=self.tail_types), types)


def _is_named(wanted, relation, readable):
    """Ids have a case, readable names have none."""
    return wanted == relation or wanted.casefold() == readable.casefold()
