"""The files and folders that flags of `run_docre.py` name."""

from pathlib import Path

from ..commands.errors import refuse_overwriting
from ..reporting.run_files import CARD, RESULTS, SETTINGS, SUMMARY, is_of_a_run
from ..safe_weights import check_name
from .script_arguments import Arguments

# Files that a run may write into its folder, checkpoints aside.
WRITTEN = (*RESULTS, SUMMARY, SETTINGS, "trainer_state.json", CARD)


def check_paths(arguments: Arguments) -> None:
    """
    Checks them before anything is read or written.

    Raises:
        ValueError: a name cannot be that of a file, or a file to be written is one of those that are read, or somebody's own.
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
    if arguments.given("do_train", "do_eval", "do_predict"):
        _refuse_files_of_others(arguments)


def _refuse_files_of_others(arguments):
    """Files that were there before and are not of a run: they would be written over, or taken for this run's."""
    folder, names = Path(arguments.training.output_dir), RESULTS
    if arguments.training.do_train:
        names = (*RESULTS, SETTINGS, CARD, "config.json")
    files = [folder / name for name in names]
    if len(arguments.seeds) > 1:
        runs = [folder / f"seed-{seed}" for seed in arguments.seeds]
        files = [folder / SUMMARY, folder / CARD, *(run / name for run in runs for name in names)]
    for file in files:
        if file.is_file() and not is_of_a_run(file):
            raise ValueError(
                f"{file}: found a file that no run has written, or not all of one, expected none of this name in --output_dir; "
                "move it away, or choose another --output_dir"
            )
