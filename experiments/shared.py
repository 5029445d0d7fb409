"""What the scripts of this folder have in common."""

from collections.abc import Sequence
from pathlib import Path

from modeling_comm.utils.files import read_json, write_json
from modeling_comm.utils.unchanged import check_unchanged
from modeling_comm.utils.writer import write_text

ROOT = Path(__file__).resolve().parents[1]


def own_and_passed(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """A script's own words, and those behind the first `--`, which it passes on."""
    at = words.index("--") if "--" in words else len(words)
    return list(words[:at]), list(words[at + 1 :])


def check_settings(file: Path, settings: dict) -> None:
    """What a folder has of folds belongs to the settings that it began with."""
    if file.is_file():
        check_unchanged(read_json(file), settings, file.parent, "Choose another folder, or delete it")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, settings)


def write_predictions(file: Path, predictions: list[dict], name: str, made_by: Sequence[str]) -> None:
    """Predictions of unlabelled documents by the run `name`, and beside them a line on what made them."""
    write_json(file, predictions)
    of_run = f"{len(predictions)} predictions of {name} (results/runs/{name}.json)"
    write_text(file.with_suffix(".txt"), f"{file.name}: {'; '.join([of_run, *made_by])}\n")
