"""A graph as the two CSV files that `neo4j-admin database import` reads."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from ..utils.writer import replacing
from .tables import entity_rows
from .texts import provenance_json
from .united_graph import Graph

_LISTS = ";"  # what Neo4j takes for the end of a label
_ENTITY = ("id:ID", "name", "type", "documents:int", "mentions:int", "names", "types", "knowledge_base_ids", ":LABEL")
_EDGE = (
    ":START_ID",
    ":END_ID",
    ":TYPE",
    "relation_name",
    "support:int",
    "score:double",
    "probability:double",
    "provenance",
    "symmetric:boolean",
)


def in_folder(path: Path) -> list[Path]:
    """The files in the folder of this name."""
    return [path / "entities.csv", path / "relations.csv"]


def write_neo4j(graph: Graph, entities: Path, relations: Path) -> None:
    """
    Writes entities as nodes with the labels `Entity` and their type, and edges as relationships whose type is the relation's id.
    No field has a line break, so that `--multiline-fields` is not needed. Names, types and ids of an entity are one text each,
    separated by ` | `, because Neo4j has no way to write the separator of its own lists inside them; `provenance` is JSON.
    Texts are not changed for spreadsheets: an id that got an apostrophe would be another one.
    """
    _write(entities, _ENTITY, ([*_flat(row), _labels(row["types"])] for row in entity_rows(graph)))
    _write(
        relations,
        _EDGE,
        (
            [
                *(edge.head, edge.tail, edge.relation, edge.relation_name),
                *(edge.support, edge.score, edge.probability, provenance_json(edge), str(edge.symmetric).lower()),
            ]
            for edge in graph.edges
        ),
    )


def _flat(row):
    return [" | ".join(value) if isinstance(value, list) else value for value in row.values()]


def _labels(types):
    return _LISTS.join(["Entity", *(kind.replace(_LISTS, ",") for kind in types if kind)])


def _write(file: Path, header: tuple[str, ...], rows: Iterable[list]) -> None:
    with replacing(file) as stream:
        # Half of a surrogate pair is written as its escape.
        text = io.TextIOWrapper(stream, encoding="utf-8", errors="backslashreplace", newline="", write_through=True)
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([_one_line(value) if isinstance(value, str) else value for value in row] for row in rows)
        text.detach()


def _one_line(text):
    return text.replace("\r", "\\r").replace("\n", "\\n")
