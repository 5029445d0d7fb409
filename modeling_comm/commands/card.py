"""The command `comm-docre card`: the model card of a run, or of a recipe that was not run."""

import argparse
import sys
from pathlib import Path

from ..reporting.model_card import read_run, recipe_record, render_model_card
from .errors import command, refuse_overwriting

_HELP = """
The model card of a run, from the records that run_docre.py wrote into its folder. What is not in a record, the card does not
state. The card of a recipe says that it was not run. Examples:

  %(prog)s --run outputs/redocred --output outputs/redocred/README.md
  %(prog)s --recipe examples/recipes/bert_atlop_redocred.yaml
"""


@command
def main(argv: list[str] | None = None, prog: str = "comm-docre card") -> int:
    """The command: prints the card or writes it to `--output`."""
    parser = argparse.ArgumentParser(
        prog, description=_HELP, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--run", help="folder that run_docre.py wrote into")
    source.add_argument("--recipe", help="settings file for run_docre.py; its card says that it was not run")
    parser.add_argument("--repo_id", help="the model's name on the Hub, for the card's examples")
    parser.add_argument("--output", help="file to write; without it the card is printed")
    args = parser.parse_args(argv)
    if args.run:
        record, scores, summary = read_run(args.run)
        card = render_model_card(record, scores, args.repo_id, summary=summary)
    else:
        card = render_model_card(recipe_record(args.recipe), repo_id=args.repo_id, name=Path(args.recipe).stem)
    if args.output:
        refuse_overwriting([args.output], [args.recipe or Path(args.run) / "run.json"])
        Path(args.output).write_text(card, encoding="utf-8")
    else:
        sys.stdout.write(card)
    return 0
