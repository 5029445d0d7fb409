"""
The model card of a recipe, a settings file for `run_docre.py`: what would be trained, and that it was not run.

    python -m dataset_scripts.recipe_card examples/recipes/bert_atlop_redocred.yaml --output outputs/bert_atlop_redocred.md
"""

import argparse
import sys
from pathlib import Path

from modeling_comm.commands.errors import TRACEBACK, command, refuse_overwriting
from modeling_comm.data import get_dataset
from modeling_comm.reporting.model_card import recipe_record, render_model_card, write_card
from modeling_comm.training.script_arguments import parse_arguments

from .loading import find_files


@command
def main(argv: list[str] | None = None) -> int:
    """The command: prints a card or writes it to `--output`."""
    parser = argparse.ArgumentParser(
        "python -m dataset_scripts.recipe_card",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("recipe", help="settings file for run_docre.py")
    parser.add_argument("--repo_id", help="the model's name on the Hub, for the card's examples")
    parser.add_argument("--output", help="file to write; without it the card is printed")
    parser.add_argument(TRACEBACK, action="store_true", help="show where an error comes from, not only one line")
    args = parser.parse_args(argv)
    if args.output:
        refuse_overwriting([args.output], [args.recipe])
    write_card(render_recipe_card(args.recipe, args.repo_id), args.output)
    return 0


def render_recipe_card(path: str, repo_id: str | None = None) -> str:
    """The card of a settings file; `repo_id` is the model's name on the Hub."""
    arguments = parse_arguments([str(path)])
    files = {split: {"source": source} for split, source in find_files(arguments.data).items()}
    published = get_dataset(arguments.data.dataset_config).published_sources(files)
    record = recipe_record(path, arguments, files, published)
    return render_model_card(record, repo_id=repo_id, name=Path(path).stem)


if __name__ == "__main__":
    sys.exit(main())
