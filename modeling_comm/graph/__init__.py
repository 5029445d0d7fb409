"""One graph of the triples of many documents: which entities are the same, what supports an edge, and files for other tools."""

from .formats import write_graph
from .linking import available_linkers, register_linker
from .selection import GraphSelection
from .unite import GraphBuilder, build_graph
from .united_graph import Graph, GraphEdge, GraphEntity, Provenance

__all__ = [
    "Graph",
    "GraphBuilder",
    "GraphEdge",
    "GraphEntity",
    "GraphSelection",
    "Provenance",
    "available_linkers",
    "build_graph",
    "register_linker",
    "write_graph",
]
