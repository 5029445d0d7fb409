"""A graph as GraphML, which networkx, Gephi, Cytoscape and yEd read."""

from pathlib import Path
from typing import TYPE_CHECKING

from ..utils.imports import of_extra
from ..utils.writer import replacing
from .tables import edge_rows, entity_rows
from .texts import provenance_json, xml_text
from .united_graph import Graph

if TYPE_CHECKING:
    import networkx


def to_networkx(graph: Graph) -> "networkx.MultiDiGraph":
    """
    A graph of networkx: nodes by the ids of entities, edges by their numbers, from 0. Attributes are texts and numbers,
    as GraphML has them: those of the tables, lists as texts separated by ` | `, and an edge's `provenance` as JSON.

    Raises:
        ImportError: networkx is not installed.
    """
    try:
        import networkx
    except ModuleNotFoundError as error:
        raise ImportError(f"GraphML needs {error.name!r}{of_extra('graph')}") from error
    united = networkx.MultiDiGraph()
    for row in entity_rows(graph):
        united.add_node(xml_text(row.pop("id")), **_attributes(row))
    for number, (row, edge) in enumerate(zip(edge_rows(graph), graph.edges, strict=True)):
        row["provenance"] = provenance_json(edge)
        # What the nodes have need not be said again of each edge.
        ends = [xml_text(row.pop(f"{end}_id")) for end in ("head", "tail")]
        for field in ("head", "tail", "head_type", "tail_type"):
            del row[field]
        united.add_edge(*ends, number, **_attributes(row))
    return united


def _attributes(row):
    flat = {name: " | ".join(value) if isinstance(value, list) else value for name, value in row.items()}
    return {
        name: xml_text(value) if isinstance(value, str) else value for name, value in flat.items() if value is not None
    }


def write_graphml(graph: Graph, file: Path) -> None:
    """Writes what [`to_networkx`] gives."""
    united = to_networkx(graph)
    import networkx

    with replacing(file) as stream:
        networkx.write_graphml(united, stream)
