"""The command `comm-docre graph`: the triples of many documents as one graph."""

import argparse
import sys
from pathlib import Path

from ..extensions import import_extensions
from ..graph.formats import graph_files, write_graph
from ..graph.selection import GraphSelection
from ..graph.unite import GraphBuilder
from ..settings import SettingError
from .errors import refuse_overwriting
from .predict_inputs import STANDARD_STREAM
from .predict_outputs import check_finished
from .record_inputs import read_records


def run(args: argparse.Namespace) -> int:
    """The command; returns the exit status."""
    import_extensions(args.extensions)
    try:
        selection = GraphSelection(**{name: getattr(args, name) for name in GraphSelection.field_names()})
        builder = GraphBuilder(args.linker, selection, args.max_provenance)
    except SettingError as error:
        raise ValueError(f"--{error.field} is {error.value!r}; expected {error.expected}") from error
    files = [source for source in args.input if source != STANDARD_STREAM]
    refuse_overwriting(graph_files(args.output), [*files, *(args.extensions or ())])
    for source in files:
        if Path(source).is_dir():
            raise ValueError(f"--input {source}: found a folder, expected files of predictions")
        check_finished(source)
    for source in args.input:
        for record in read_records(source):
            builder.add(record)
    graph = builder.graph()
    for warning in selection.warnings(builder.relations, builder.types):
        print(f"warning: --{warning}", file=sys.stderr)
    written = write_graph(graph, args.output)
    print(graph.summary("--"), file=sys.stderr)
    print(f"The graph is {', '.join(map(str, written))}.", file=sys.stderr)
    return 0
