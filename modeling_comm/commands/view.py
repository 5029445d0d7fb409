"""The command `comm-docre view`: what `comm-docre predict` wrote, as a page for the browser."""

import argparse
from pathlib import Path

from ..documents import DocumentError
from ..viewer.render import render_html
from .errors import command, refuse_overwriting
from .predict_inputs import STANDARD_STREAM, read_items

_HELP = """
Writes one self-contained HTML page, which needs no network, of the records that `comm-docre predict` wrote: each
document's text with its mentions, its triples as a table and as a graph, the sentences that explain a triple.

example:
  %(prog)s --input triples.jsonl --output triples.html
"""


@command
def main(argv=None, prog="comm-docre view") -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog, description=_HELP, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--input", required=True, help="JSON lines of records, or - for standard input")
    parser.add_argument("--output", required=True, help="the page")
    parser.add_argument("--title", help="of the page (default: the input's name)")
    args = parser.parse_args(argv)
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
