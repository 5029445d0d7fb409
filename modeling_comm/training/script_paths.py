"""The files and folders that flags of `run_docre.py` name."""

from pathlib import Path

from ..commands.errors import refuse_overwriting
from ..safe_weights import check_name
from .script_arguments import Arguments

# What runs with several seeds write into the folder that holds theirs.
SUMMARY = "summary.json"

# What a run writes of its results, and a picture of them.
RESULTS = ("run.json", "evaluation.json", "results.json", "test_scores.json", "decisions.json", "reliability.png")

# The model card.
CARD = "README.md"

# Files that a run may write into its folder, checkpoints aside.
WRITTEN = (*RESULTS, SUMMARY, "settings.json", "trainer_state.json", CARD)


def check_paths(arguments: Arguments) -> None:
    """
    Checks them before anything is read or written.

    Raises:
        ValueError: a name cannot be that of a file, or a file to be written is one of those that are read.
    """
    for path in (
        arguments.training.output_dir,
        arguments.model.model_name_or_path,
        arguments.distillation.teacher_logits,
    ):
        check_name(path)
    if len(set(arguments.seeds)) < len(arguments.seeds):
        raise ValueError(
            f"--seeds is {arguments.seeds}; expected each once: a run has a folder, and counts once in mean and deviation"
        )
    for seed in (None, *arguments.seeds):
        folder = Path(arguments.training.output_dir, *([] if seed is None else [f"seed-{seed}"]))
        refuse_overwriting([folder / name for name in WRITTEN], arguments.input_files())
