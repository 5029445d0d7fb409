"""The files that a run writes of itself, and how one of them is told from somebody's own of the same name."""

from pathlib import Path

from ..configuration_comm import TASK, CommConfig
from ..utils.files import json_text, read_json

# What runs with several seeds write into the folder that holds theirs.
SUMMARY = "summary.json"

# What a run writes of its results, and a picture of them. The picture is known by the file behind it.
RESULTS = ("run.json", "evaluation.json", "results.json", "test_scores.json", "reliability.png", "decisions.json")

# The model card.
CARD = "README.md"

# What says which run a folder is of.
SETTINGS = "settings.json"

# What a card reads of a record, in every version of it, with the types.
RECORD_FIELDS = {"training_arguments": dict, "config": dict, "data": dict, "seed": int, "log": list}

# Fields that such a file has in every version, with their types.
_FIELDS = {
    "run.json": RECORD_FIELDS,
    "evaluation.json": RECORD_FIELDS,
    "test_scores.json": {"scores": dict, "type_prior": dict | None},
    "decisions.json": {"cut": float, "dev": dict},
    SUMMARY: {"seeds": list, "metrics": dict},
    SETTINGS: {"model_name_or_path": str, "learning_rate": float | int, "sha256": dict},
    "config.json": {"model_type": str},
}


def is_of_a_run(file: Path) -> bool:
    """
    Whether a run of this library has written a file, and not somebody else one of the same name, by what the file holds. One that
    is cut off, or not there, is not of a run.

    Args:
        file (`Path`): has one of the names above, or is a model's `config.json`.
    """
    if file.name == "reliability.png":
        return file.is_file() and is_of_a_run(file.with_name("decisions.json"))
    try:
        if file.name == CARD:
            return f"\n- {TASK}\n" in file.read_text(encoding="utf-8", errors="replace")
        content = read_json(file)
        if file.name == "results.json":
            return _are_predictions(content) and file.read_bytes() == json_text(content).encode(
                errors="backslashreplace"
            )
    except (OSError, ValueError):
        return False
    fields = _FIELDS[file.name].items()
    if not isinstance(content, dict) or not all(
        name in content and isinstance(content[name], kind) for name, kind in fields
    ):
        return False
    return file.name != "config.json" or content["model_type"] == CommConfig.model_type


def _are_predictions(content):
    """The leaderboards' format, which other programs write, too: their spacing is another."""
    fields = {"title", "h_idx", "t_idx", "r"}
    return isinstance(content, list) and all(isinstance(one, dict) and one.keys() >= fields for one in content)
