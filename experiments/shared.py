"""What the scripts of this folder have in common."""

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from modeling_comm.data import get_dataset
from modeling_comm.utils.files import file_sha256, read_json, write_json
from modeling_comm.utils.unchanged import check_unchanged
from modeling_comm.utils.writer import write_text

if TYPE_CHECKING:
    from modeling_comm.training.script_arguments import Arguments

ROOT = Path(__file__).resolve().parents[1]


def own_and_passed(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """A script's own words, and those behind the first `--`, which it passes on."""
    at = words.index("--") if "--" in words else len(words)
    return list(words[:at]), list(words[at + 1 :])


def at_least(least: int) -> Callable[[str], int]:
    """The type of a flag that is an integer, `least` or more."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = None
        if number is None or number < least:
            raise argparse.ArgumentTypeError(f"found {text!r}; expected an integer, {least} or more")
        return number

    return read


def hashes_of_files(
    arguments: Mapping, folder: Path = Path(), sha256: Callable[[Path], str] = file_sha256
) -> dict[str, str]:
    """
    What stands behind the arguments that name something which is there.

    Args:
        arguments (`Mapping`): of `run_docre.py`.
        folder (`Path`): where relative paths begin.
        sha256 (`Callable`): the hash of a file.

    Returns:
        By argument the hash of the file that it names, or of `model.safetensors` in the folder that it names.
    """
    named = {name: folder / value for name, value in arguments.items() if isinstance(value, str) and value}
    files = {name: path / "model.safetensors" if os.path.isdir(path) else path for name, path in named.items()}
    # Unlike Path.is_file, it takes a text that is too long for a name.
    return {name: sha256(path) for name, path in files.items() if os.path.isfile(path)}


def known_to_both(before: Mapping, now: Mapping, names: set[str]) -> tuple[dict, dict]:
    """Both without those of `names` that one of them lacks: older records have no such hashes, and a file may be gone by now."""
    left_out = names & (set(before) ^ set(now))
    first, second = ({key: value for key, value in one.items() if key not in left_out} for one in (before, now))
    return first, second


def check_settings(file: Path, settings: dict, arguments: "Arguments") -> None:
    """
    What a folder has of folds belongs to the settings that it began with, and to the files behind them.

    Args:
        file (`Path`): the settings of the folder, written here.
        settings (`dict`): as JSON has them.
        arguments (`Arguments`): those of all trainings. Of the files and models that they name, hashes are kept.

    Raises:
        SettingsChangedError: the folder began with others.
    """
    named = {name: value for group in vars(arguments).values() for name, value in vars(group).items()}
    official = get_dataset(arguments.data.dataset_config).files.get("validation")
    if official and arguments.data.data_dir and not arguments.data.validation_file:
        named["validation_file"] = str(Path(arguments.data.data_dir) / official.name)
    hashes = hashes_of_files(named)
    if file.is_file():
        before = read_json(file)
        hashes_before = before.pop("sha256", {})
        known = known_to_both(hashes_before, hashes, {*hashes_before, *hashes})
        pairs = zip((before, settings), known, strict=True)
        old, new = ({**one, "sha256": of_files} for one, of_files in pairs)
        check_unchanged(old, new, file.parent, "Choose another folder, or delete it")
        hashes = {**hashes_before, **hashes}
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, {**settings, "sha256": hashes})


def write_predictions(file: Path, predictions: list[dict], name: str, made_by: Sequence[str]) -> None:
    """Predictions of unlabelled documents by the run `name`, and beside them a line on what made them."""
    write_json(file, predictions)
    of_run = f"{len(predictions)} predictions of {name} (results/runs/{name}.json)"
    write_text(file.with_suffix(".txt"), f"{file.name}: {'; '.join([of_run, *made_by])}\n")
