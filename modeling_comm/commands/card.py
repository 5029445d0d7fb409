"""The command `comm-docre card`: the model card of a run, or of a recipe that was not run."""

import argparse
import sys
from pathlib import Path

from ..reporting.model_card import read_run, recipe_record, render_model_card
from .errors import refuse_overwriting


def run(args: argparse.Namespace) -> int:
    """The command: prints the card or writes it to `--output`; returns the exit status."""
    if args.output:
        refuse_overwriting([args.output], [args.recipe] if args.recipe else Path(args.run).glob("*.json"))
    if args.run:
        record, scores, summary = read_run(args.run)
        card = render_model_card(record, scores, args.repo_id, summary=summary)
    else:
        card = render_model_card(recipe_record(args.recipe), repo_id=args.repo_id, name=Path(args.recipe).stem)
    if args.output:
        Path(args.output).write_text(card, encoding="utf-8")
    else:
        sys.stdout.write(card)
    return 0
