"""The command `comm-docre view`: what `comm-docre predict` wrote, as a page for the browser."""

import argparse
import sys
from pathlib import Path

from ..documents import DocumentError
from ..evaluation.mismatch import names_beside
from ..reporting.html_page import render_html
from ..utils.files import read_json
from ..utils.writer import write_text
from .errors import refuse_overwriting
from .predict_inputs import STANDARD_STREAM
from .record_inputs import placed_values


def run(args: argparse.Namespace) -> int:
    """The command; returns the exit status."""
    refuse_overwriting([args.output], filter(None, [args.input, args.truth]))
    name = "standard input" if args.input == STANDARD_STREAM else Path(args.input).name
    places = []
    try:
        page = render_html(
            _records(args.input, places),
            title=args.title or name,
            truth=read_json(args.truth) if args.truth else (),
            relation_names=names_beside(args.truth) if args.truth else None,
        )
    except DocumentError as error:
        if error.source is not None:  # of the truth
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
