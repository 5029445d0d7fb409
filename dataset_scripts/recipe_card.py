"""
The model card of a recipe, a settings file for `run_docre.py`: what would be trained, and that it was not run.

    python -m dataset_scripts.recipe_card examples/recipes/bert_atlop_redocred.yaml --output outputs/bert_atlop_redocred.md
"""

import argparse
import dataclasses
import shlex
import sys
from pathlib import Path

from modeling_comm.commands.errors import TRACEBACK, command, refuse_overwriting
from modeling_comm.configuration_comm import THRESHOLD_LABEL, CommConfig
from modeling_comm.data import get_dataset
from modeling_comm.decoding import DecisionSettings
from modeling_comm.losses import get_loss
from modeling_comm.reporting.model_card import render_model_card, write_card
from modeling_comm.training.script_arguments import Arguments, given_fields, given_settings, parse_arguments

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
    record = recipe_record(path, parse_arguments([str(path)]))
    return render_model_card(record, repo_id=repo_id, name=Path(path).stem)


def recipe_record(path: str, arguments: Arguments) -> dict:
    """
    The plan of a settings file for `run_docre.py`, in the form of a record without a run.

    Args:
        path (`str`): the settings file, for the command.
        arguments (`Arguments`): what [`~modeling_comm.training.script_arguments.parse_arguments`] makes of it.

    Raises:
        ValueError: a setting does not fit, or belongs to another loss or relation encoder than the one that is chosen.
    """
    model, training, fields = arguments.model, arguments.training, given_fields(arguments.model)
    files = {split: {"source": source} for split, source in find_files(arguments.data).items()}
    # The labels are the data's, which is not loaded; settings that map relations to numbers name some of them.
    named = sorted({relation for value in fields.values() if isinstance(value, dict) for relation in value})
    config = CommConfig(**fields, id2label=dict(enumerate([THRESHOLD_LABEL, *(named or ["relation"])]))).to_dict()
    for field in ("text_config", "id2label", "label2id"):
        del config[field]
    decision = DecisionSettings(get_loss(config["loss"]).decision_threshold)
    return {
        "command": f"python run_docre.py {shlex.quote(Path(path).as_posix())}",
        "base_model": model.model_name_or_path,
        "seed": training.seed,
        "seeds": arguments.run.seeds,
        "data": {
            "config": arguments.data.dataset_config,
            "files": files,
            "published": get_dataset(arguments.data.dataset_config).published_sources(files),
        },
        "config": config,
        "processor": {"markers": "star", **dataclasses.asdict(decision), **given_settings(model)},
        "training_arguments": training.to_sanitized_dict(),
    }


if __name__ == "__main__":
    sys.exit(main())
