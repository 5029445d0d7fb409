"""The files that a run writes of itself, and how one of them is told from somebody's own of the same name."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..configuration_comm import TASK, CommConfig
from ..utils.files import json_text, read_json

# What runs with several seeds write into the folder that holds theirs.
SUMMARY = "summary.json"

# What a run writes of its results: its record, that of scoring a finished training, predictions and scores of the test documents,
# what its map decides, and a picture of that. The picture is known by the file behind it.
RECORD, LATER_RECORD = "run.json", "evaluation.json"
PREDICTIONS, TEST_SCORES = "results.json", "test_scores.json"
DECISIONS, PLOT = "decisions.json", "reliability.png"
RESULTS = (RECORD, LATER_RECORD, PREDICTIONS, TEST_SCORES, PLOT, DECISIONS)

# The model card.
CARD = "README.md"

# What says which run a folder is of.
SETTINGS = "settings.json"

# What a card reads of a record, in every version of it, with the types.
RECORD_FIELDS: dict[str, Any] = {"training_arguments": dict, "config": dict, "data": dict, "seed": int, "log": list}

# What a model's folder has beside its code.
_CONFIG = "config.json"
_OF_MODEL = ("model.safetensors", "processor_config.json", "tokenizer.json", "tokenizer_config.json")

# Fields that such a file has in every version, with their types.
_FIELDS: dict[str, dict[str, Any]] = {
    RECORD: RECORD_FIELDS,
    LATER_RECORD: RECORD_FIELDS,
    TEST_SCORES: {"scores": dict, "type_prior": dict | None},
    DECISIONS: {"cut": float, "dev": dict},
    SUMMARY: {"seeds": list, "metrics": dict},
    SETTINGS: {"model_name_or_path": str, "learning_rate": float | int, "sha256": dict},
    _CONFIG: {"model_type": str},
}


def is_of_a_run(file: Path) -> bool:
    """
    Whether a run of this library has written a file, and not somebody else one of the same name, by what the file holds. One that
    is cut off, or not there, is not of a run.

    Args:
        file (`Path`): has one of the names above, or is a model's `config.json`.
    """
    if file.name == PLOT:
        return file.is_file() and is_of_a_run(file.with_name(DECISIONS))
    try:
        if file.name == CARD:
            return f"\n- {TASK}\n" in file.read_text(encoding="utf-8", errors="replace")
        content = read_json(file)
        if file.name == PREDICTIONS:
            return _are_predictions(content) and file.read_bytes() == json_text(content).encode(
                errors="backslashreplace"
            )
    except (OSError, ValueError):
        return False
    fields = _FIELDS[file.name]
    if not isinstance(content, dict) or not content.keys() >= fields.keys():
        return False
    if not all(isinstance(content[name], kind) for name, kind in fields.items()):
        return False
    return file.name != _CONFIG or content["model_type"] == CommConfig.model_type


def files_of_others(folder: Path, names: Iterable[str]) -> list[Path]:
    """The files of these names, which are those above, that are in a folder and not of a run."""
    return [file for file in (folder / name for name in names) if file.is_file() and not is_of_a_run(file)]


def model_of_others(folder: Path) -> list[Path]:
    """The files in a folder that saving a model with its code would write over, and that are not of a model of this library. Of
    code and weights only what lies beside them says whose they are: the configuration, or the settings of a run."""
    if others := files_of_others(folder, [_CONFIG]):
        return others
    if any(is_of_a_run(folder / name) for name in (_CONFIG, SETTINGS)):
        return []
    code = sorted(path.name for path in Path(__file__).parents[1].glob("*.py") if path.name != "__init__.py")
    return [file for file in (folder / name for name in (*_OF_MODEL, *code)) if file.is_file()]


def _are_predictions(content):
    """The leaderboards' format, which other programs write, too: their spacing is another."""
    fields = {"title", "h_idx", "t_idx", "r"}
    return isinstance(content, list) and all(isinstance(one, dict) and one.keys() >= fields for one in content)
