"""The command `comm-docre view`: what `comm-docre predict` wrote, as a page for the browser."""

import argparse
from pathlib import Path

from ..documents import DocumentError
from ..reporting.html_page import render_html
from .errors import refuse_overwriting
from .predict_inputs import STANDARD_STREAM, read_items


def run(args: argparse.Namespace) -> int:
    """The command; returns the exit status."""
    refuse_overwriting([args.output], [args.input])
    name = "standard input" if args.input == STANDARD_STREAM else Path(args.input).name
    places = []
    try:
        page = render_html(_records(args.input, name, places), title=args.title or name)
    except DocumentError as error:
        place, error.index = places[error.index], None  # the file has empty lines too
        raise ValueError(f"{place}: {error}") from error
    path = Path(args.output)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    print(f"The page is {path}.")
    return 0


def _records(source, name, places):
    """Records; `places` is given what each is called."""
    for item in read_items(source, "jsonl"):
        places.append(f"{name}, {item.kind} {item.place}")
        if item.error is not None:
            raise ValueError(f"{places[-1]}: {item.error}")
        yield item.document
