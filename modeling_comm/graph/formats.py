"""The registry of files that a graph is written to, by what the name of the file ends in."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..utils.imports import of_extra
from .graphml import write_graphml
from .neo4j import in_folder, write_neo4j
from .page import write_page
from .rdf import write_turtle
from .tables import beside, write_csv, write_parquet
from .united_graph import Graph


def _itself(path):
    return [path]


@dataclass(frozen=True)
class GraphFormat:
    """
    A format.

    Args:
        write (`Callable`): Writes a graph to files: `write(graph, *files)`.
        files (`Callable[[Path], list[Path]]`, *optional*): The files that belong to a name; by default that file alone.
        package (`str`, *optional*): The package of the extra `graph` that it needs.
    """

    write: Callable[..., None]
    files: Callable[[Path], list[Path]] = _itself
    package: str | None = None


FORMATS = {
    ".html": GraphFormat(write_page),
    ".csv": GraphFormat(write_csv, beside),
    ".parquet": GraphFormat(write_parquet, beside, "pyarrow"),
    ".graphml": GraphFormat(write_graphml, package="networkx"),
    ".ttl": GraphFormat(write_turtle, package="rdflib"),
    ".neo4j": GraphFormat(write_neo4j, in_folder),
}


def graph_files(path: str | Path) -> list[Path]:
    """
    The files that [`write_graph`] writes for a name.

    Raises:
        ImportError: the format needs a package of the extra `graph` that is not installed.
        ValueError: it ends in no known way.
    """
    form = _format_of(path)
    if form.package is not None and importlib.util.find_spec(form.package) is None:
        raise ImportError(f"{path}: {Path(path).suffix} needs {form.package!r}{of_extra('graph')}")
    return form.files(Path(path))


def write_graph(graph: Graph, path: str | Path) -> list[Path]:
    """
    Writes a graph in the format that the file's name ends in.

    Args:
        graph ([`~modeling_comm.graph.united_graph.Graph`]): what [`~modeling_comm.graph.unite.build_graph`] gave.
        path (`str` or `Path`): the file. `.csv` and `.parquet` are the edges, with `.entities` and `.provenance` files beside
            them; `.graphml`; `.ttl` is RDF in Turtle; `.neo4j` is a folder of CSV files for Neo4j's bulk import; `.html` is a
            page for the browser.

    Returns:
        `list[Path]`: the files that were written.

    Raises:
        ImportError: the format needs a package of the extra `graph` that is not installed.
        OSError: a file cannot be written.
        ValueError: the name ends in no known way.
    """
    form = _format_of(path)
    files = form.files(Path(path))
    form.write(graph, *files)
    return files


def _format_of(path):
    form = FORMATS.get(Path(path).suffix.lower())
    if form is None:
        raise ValueError(f"{path}: expected a name that ends in {', '.join(FORMATS)}")
    return form
