"""A graph as three tables: its edges, its entities, and the places where edges were found; as CSV for spreadsheets, as CSV for
Neo4j's bulk import, and as Parquet."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from ..utils.imports import of_extra
from ..utils.spreadsheet import csv_header, csv_rows
from ..utils.writer import replacing
from .texts import utf8_text
from .united_graph import Graph, GraphMention

_AT_ONCE = 10_000  # rows
_SEPARATOR = " | "

# The columns of each table, with the type of each: "text", "integer", "number", "truth", "texts", "integers",
# "mentions".
ENTITY_COLUMNS = {
    **{"id": "text", "name": "text", "type": "text", "documents": "integer", "mentions": "integer"},
    **{"names": "texts", "types": "texts", "knowledge_base_ids": "texts"},
}
EDGE_COLUMNS = {
    **{"head_id": "text", "head": "text", "head_type": "text", "relation": "text", "relation_name": "text"},
    **{"tail_id": "text", "tail": "text", "tail_type": "text", "support": "integer", "score": "number"},
    **{"probability": "number", "documents": "texts", "sentences": "texts", "symmetric": "truth"},
}
PROVENANCE_COLUMNS = {
    **{"head_id": "text", "relation": "text", "tail_id": "text", "document": "text", "title": "text"},
    **{"score": "number", "probability": "number", "marked_by": "text", "sentence_numbers": "integers"},
    **{"sentences": "texts", "head_mentions": "mentions", "tail_mentions": "mentions", "rule": "text"},
    "symmetric": "truth",
}


def entity_rows(graph: Graph) -> Iterator[dict[str, Any]]:
    """A row for each entity, with [`ENTITY_COLUMNS`]: `names` and `types` are all that it has, the most frequent first."""
    for entity in graph.entities.values():
        yield {
            **{"id": entity.id, "name": entity.name, "type": entity.type},
            **{"documents": entity.documents, "mentions": entity.mentions},
            "names": [name for name, _ in entity.names.most_common()],
            "types": [kind for kind, _ in entity.types.most_common()],
            "knowledge_base_ids": entity.knowledge_base_ids,
        }


def edge_rows(graph: Graph) -> Iterator[dict[str, Any]]:
    """A row for each edge, with [`EDGE_COLUMNS`]: `documents` are those whose place is kept, and `sentences` those of the
    document with the best score."""
    for edge in graph.edges:
        head, tail = graph.entities[edge.head], graph.entities[edge.tail]
        yield {
            **{"head_id": head.id, "head": head.name, "head_type": head.type},
            **{"relation": edge.relation, "relation_name": edge.relation_name},
            **{"tail_id": tail.id, "tail": tail.name, "tail_type": tail.type},
            **{"support": edge.support, "score": edge.score, "probability": edge.probability},
            "documents": [place.document.id for place in edge.provenance],
            "sentences": [sentence.text for sentence in edge.provenance[0].sentences],
            "symmetric": edge.symmetric,
        }


def provenance_rows(graph: Graph) -> Iterator[dict[str, Any]]:
    """A row for each place where an edge was found, with [`PROVENANCE_COLUMNS`]; see
    [`~modeling_comm.graph.united_graph.Provenance`]."""
    for edge in graph.edges:
        for place in edge.provenance:
            yield {
                **{"head_id": edge.head, "relation": edge.relation, "tail_id": edge.tail},
                **{"document": place.document.id, "title": place.document.title, "score": place.score},
                **{"probability": place.probability, "marked_by": place.marked_by},
                "sentence_numbers": [sentence.number for sentence in place.sentences],
                "sentences": [sentence.text for sentence in place.sentences],
                "head_mentions": list(place.head_mentions),
                "tail_mentions": list(place.tail_mentions),
                "rule": place.rule,
                "symmetric": edge.symmetric,
            }


_TABLES = ((edge_rows, EDGE_COLUMNS), (entity_rows, ENTITY_COLUMNS), (provenance_rows, PROVENANCE_COLUMNS))


def beside(path: Path) -> list[Path]:
    """The files of the tables: `graph.csv` has `graph.entities.csv` and `graph.provenance.csv` beside it."""
    return [path, *(path.with_suffix(f".{name}{path.suffix}") for name in ("entities", "provenance"))]


def _parts(rows):
    rows = iter(rows)
    while some := list(islice(rows, _AT_ONCE)):
        yield some


# ----------------------------------------------------------------------------------------------------------------- CSV


def write_csv(graph: Graph, *files: Path) -> None:
    """Writes the tables for spreadsheets, see [`~modeling_comm.utils.spreadsheet.csv_rows`]. Texts of a list are separated by
    ` | `; other lists are JSON."""
    for file, (rows, columns) in zip(files, _TABLES, strict=True):
        flat = ({name: _flat(value) for name, value in row.items()} for row in rows(graph))
        with replacing(file) as stream:
            stream.write(csv_header(tuple(columns)))
            for some in _parts(flat):
                stream.write(csv_rows(tuple(columns), some))


def _flat(value):
    if not isinstance(value, list):
        return value
    if all(isinstance(one, str) for one in value):
        return _SEPARATOR.join(value)
    return json.dumps([one._asdict() if isinstance(one, GraphMention) else one for one in value])


# ------------------------------------------------------------------------------------------------------------- Parquet


def write_parquet(graph: Graph, *files: Path) -> None:
    """
    Writes the tables as Parquet: lists are lists, a mention has `start`, `end`, `sentence` and `text`.

    Raises:
        ImportError: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise ImportError(f"Parquet needs {error.name!r}{of_extra('graph')}") from error
    text, integer = pyarrow.string(), pyarrow.int64()
    mention = pyarrow.struct([("start", integer), ("end", integer), ("sentence", integer), ("text", text)])
    types = {
        **{"text": text, "integer": integer, "number": pyarrow.float64(), "truth": pyarrow.bool_()},
        **{"texts": pyarrow.list_(text), "integers": pyarrow.list_(integer), "mentions": pyarrow.list_(mention)},
    }
    for file, (rows, columns) in zip(files, _TABLES, strict=True):
        schema = pyarrow.schema([(name, types[kind]) for name, kind in columns.items()])
        with replacing(file) as stream, pyarrow.parquet.ParquetWriter(stream, schema) as writer:
            for some in _parts(map(_storable, rows(graph))):
                writer.write_table(pyarrow.Table.from_pylist(some, schema))


def _storable(value):
    if isinstance(value, str):
        return utf8_text(value)
    if isinstance(value, GraphMention):
        return _storable(value._asdict())
    if isinstance(value, dict):
        return {name: _storable(one) for name, one in value.items()}
    return [_storable(one) for one in value] if isinstance(value, list) else value
