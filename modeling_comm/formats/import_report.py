"""What became of the documents of an import: how much there is, and what was dropped."""

import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..documents import Document, DocumentError, shown
from ..utils.counted_nouns import DOCUMENTS, ENTITIES, FACTS, IGNORED_PAIRS, MENTIONS, counted, numbers_of_kinds

_READ = (DOCUMENTS, ENTITIES, MENTIONS, FACTS, IGNORED_PAIRS)
_UNREAD = ("file that was not read", "files that were not read")
_MAX_SHOWN = 5  # unread files that are named in print; a report's file has all


@dataclass
class ImportReport:
    """
    The counts of an import.

    Attributes:
        documents, entities, mentions, facts, ignored_pairs (`int`): how many were read.
        relations (`Counter[str]`): facts of each relation.
        relation_names (`dict[str, str]`): readable names of relations, where the files have them.
        dropped (`Counter[str]`): by kind, what was left out, such as `"mentions without an id"`.
        noted (`Counter[str]`): by kind, what was read otherwise than it is in the file, such as discontinuous mentions.
        skipped (`list[DocumentError]`): of each document that was left out, why.
        dropped_mentions (`list[DocumentError]`): of each mention that was left out why: its place does not fit.
        dropped_facts (`list[DocumentError]`): of each fact that was left out why: it is of something that is not there.
        unread_files (`list[str]`): files of a folder that may hold documents and look like no format, see
            [`~format_registry.unread_files`].
        added_relations (`list[str]`): relations that a `rel_info.json` was given and did not have; empty where none is written.
        drop_mentions (`bool`, defaults to `False`): whether a mention that does not fit is left out and counted, and no error;
            [`~reading.read_documents`] sets it.
    """

    documents: int = 0
    entities: int = 0
    mentions: int = 0
    facts: int = 0
    ignored_pairs: int = 0
    relations: Counter[str] = field(default_factory=Counter)
    relation_names: dict[str, str] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)
    noted: Counter[str] = field(default_factory=Counter)
    skipped: list[DocumentError] = field(default_factory=list)
    dropped_mentions: list[DocumentError] = field(default_factory=list)
    dropped_facts: list[DocumentError] = field(default_factory=list)
    unread_files: list[str] = field(default_factory=list)
    added_relations: list[str] = field(default_factory=list)
    drop_mentions: bool = field(default=False, repr=False)

    def add(self, document: Document) -> None:
        """Counts a document."""
        self.documents += 1
        self.entities += len(document["vertexSet"])
        self.mentions += sum(map(len, document["vertexSet"]))
        facts = document.get("labels") or ()
        self.facts += len(facts)
        self.relations.update(fact["r"] for fact in facts)
        self.ignored_pairs += len(document.get("ignored_pairs") or ())

    def drop(self, kind: str, number: int = 1) -> None:
        """Counts what is left out."""
        if number:
            self.dropped[kind] += number

    def drop_fact(self, kind: str, error: DocumentError) -> None:
        """Counts a fact that is left out, and keeps why."""
        self.drop(kind)
        self.dropped_facts.append(error)

    def drop_fact_without_mention(
        self, ids: list[str], source: str | None, index: int | None, title: str | None, field: str
    ) -> None:
        """Counts a fact whose entities, of these ids, have no mention."""
        error = DocumentError(source, index, title, field, shown(ids), "ids of entities that have a mention")
        self.drop_fact("facts of an entity without a mention", error)

    @contextlib.contextmanager
    def reading_mention(self) -> Iterator[None]:
        """Around what reads or checks a mention: its error is counted where `drop_mentions` is set, and raised elsewhere."""
        try:
            yield
        except DocumentError as error:
            if not self.drop_mentions:
                raise
            self.drop("mentions that do not fit")
            self.dropped_mentions.append(error)

    def note(self, kind: str, number: int = 1) -> None:
        """Counts what is read otherwise than it is in the file."""
        if number:
            self.noted[kind] += number

    def note_type(self, given: str | None, read: str) -> None:
        """Counts a mention whose type becomes another: one of DocRED's, or that of its entity's other mentions."""
        if given and given != read:
            self.note(f"mentions whose type {given} became {read}")

    def as_dict(self) -> dict:
        """All of it as JSON's types; errors as their messages."""
        counts = {name: value for name, value in vars(self).items() if name != "drop_mentions"}
        return counts | {
            name: list(map(str, counts[name])) for name in ("skipped", "dropped_mentions", "dropped_facts")
        }

    def __str__(self) -> str:
        numbers = (self.documents, self.entities, self.mentions, self.facts, self.ignored_pairs)
        lines = [f"read {', '.join(map(counted, numbers, _READ))}"]
        relations = ", ".join(f"{number:,} {relation}" for relation, number in self.relations.most_common())
        lines.append(f"relations: {relations or 'none'}")
        lines.append(self.left_out())
        if self.noted:
            lines.append(f"note: {numbers_of_kinds(self.noted)}")
        return "\n".join(lines)

    def left_out(self) -> str:
        """What was left out, in a line."""
        dropped = {**self.dropped, **({"documents": len(self.skipped)} if self.skipped else {})}
        parts = [numbers_of_kinds(dropped)] if dropped else []
        if self.unread_files:
            names = [os.path.basename(file) for file in self.unread_files[:_MAX_SHOWN]]
            more = ", ..." if len(self.unread_files) > _MAX_SHOWN else ""
            parts.append(f"{counted(len(self.unread_files), _UNREAD)} ({', '.join(names)}{more})")
        return f"left out: {', '.join(parts) or 'nothing'}"
