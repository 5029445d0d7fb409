"""The command `comm-docre view`: what `comm-docre predict` wrote, as a page for the browser."""

import argparse
import sys
from pathlib import Path

from ..data.dataset_entry import get_dataset
from ..documents import DocumentError
from ..extensions import import_extensions
from ..reporting.html_page import render_html
from ..utils.files import read_json_list
from ..utils.relation_names import names_beside, read_relation_names
from ..utils.writer import write_text
from .errors import refuse_overwriting
from .predict_inputs import STANDARD_STREAM
from .predict_outputs import check_finished
from .record_inputs import placed_values


def run(args: argparse.Namespace) -> int:
    """The command; returns the exit status."""
    refuse_overwriting([args.output], filter(None, [args.input, args.truth, args.rel_info, *(args.extensions or ())]))
    import_extensions(args.extensions)
    candidates = get_dataset(args.dataset_config).candidates
    if args.truth is None and args.rel_info:
        raise ValueError("--rel_info goes with --truth: without gold facts there is nothing to compare names with")
    name = "standard input" if args.input == STANDARD_STREAM else Path(args.input).name
    if args.input != STANDARD_STREAM:
        check_finished(args.input)
    truth = read_json_list(args.truth, "a list of documents") if args.truth else []
    if args.truth and not truth:
        raise ValueError(f"{args.truth}: found no document, expected some with labels")
    names = read_relation_names(args.rel_info) if args.rel_info else names_beside(args.truth) if args.truth else None
    places = []
    try:
        page = render_html(
            _records(args.input, places),
            title=args.title or name,
            truth=truth,
            relation_names=names,
            candidates=candidates,
            warn=lambda warning: print(f"warning: {name}: {warning}", file=sys.stderr),
        )
    except DocumentError as error:
        if error.source is not None:  # of the truth
            error.source = args.truth
            raise
        place, error.index = places[error.index], None  # the file has empty lines too
        raise ValueError(f"{place}: {error}") from error
    if not places:
        print(f"warning: {name} has no record in it, and the page has none", file=sys.stderr)
    write_text(args.output, page)
    print(f"The page is {args.output}.", file=sys.stderr)
    return 0


def _records(source, places):
    """Records; `places` is given what each is called."""
    for place, record in placed_values(source):
        places.append(place)
        yield record
