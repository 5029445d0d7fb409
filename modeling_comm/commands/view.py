"""The command `comm-docre view`: what `comm-docre predict` wrote, as a page for the browser."""

import argparse
import sys
from pathlib import Path

from ..documents import DocumentError
from ..evaluation.mismatch import names_beside
from ..reporting.html_page import render_html
from ..reporting.triple_table import refuse_csv
from ..utils.files import read_json
from ..utils.writer import write_text
from .errors import refuse_overwriting
from .predict_inputs import STANDARD_STREAM, read_items


def run(args: argparse.Namespace) -> int:
    """The command; returns the exit status."""
    refuse_overwriting([args.output], filter(None, [args.input, args.truth]))
    name = "standard input" if args.input == STANDARD_STREAM else Path(args.input).name
    places = []
    try:
        page = render_html(
            _records(args.input, name, places),
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


def _records(source, name, places):
    """Records; `places` is given what each is called."""
    for item in read_items(source, "jsonl"):
        places.append(f"{name}, {item.kind} {item.place}")
        if item.error is not None:
            refuse_csv(item.raw, name)
            raise ValueError(f"{places[-1]}: {item.error}")
        yield item.document
