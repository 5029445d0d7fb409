"""The command `comm-docre card`: the model card of a run."""

import argparse
from pathlib import Path

from ..reporting.model_card import read_run, render_model_card, write_card
from .errors import refuse_overwriting


def run(args: argparse.Namespace) -> int:
    """The command: prints the card or writes it to `--output`; returns the exit status."""
    if args.output:
        refuse_overwriting([args.output], Path(args.run).glob("*.json"))
    record, scores, summary = read_run(args.run)
    write_card(render_model_card(record, scores, args.repo_id, summary=summary), args.output)
    return 0
