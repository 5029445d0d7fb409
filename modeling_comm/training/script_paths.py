"""The files and folders that flags of `run_docre.py` name."""

from pathlib import Path

from ..commands.errors import refuse_overwriting
from ..reporting.run_files import CARD, RESULTS, SETTINGS, SUMMARY, files_of_others, model_of_others
from ..safe_weights import check_name
from .checkpoint_files import refuse_checkpoints_of_others
from .script_arguments import Arguments

# Files that a run may write into its folder, checkpoints aside.
WRITTEN = (*RESULTS, SUMMARY, SETTINGS, "trainer_state.json", CARD)


def check_paths(arguments: Arguments) -> None:
    """
    Checks them before anything is read or written.

    Raises:
        ValueError: a name cannot be that of a file, or a file or a checkpoint to be written is one of those that are read, or
            somebody's own.
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
    if arguments.given("do_train", "do_eval", "do_predict") and not arguments.given("describe_data"):
        _refuse_files_of_others(arguments)


def _refuse_files_of_others(arguments):
    """Files that were there before and are not of a run: they would be written over, or taken for this run's."""
    folder, trains = Path(arguments.training.output_dir), arguments.training.do_train
    runs, others = [folder], []
    if len(arguments.seeds) > 1:
        runs, others = [folder / f"seed-{seed}" for seed in arguments.seeds], files_of_others(folder, (SUMMARY, CARD))
    for run in runs:
        others += files_of_others(run, RESULTS)
        if trains:
            refuse_checkpoints_of_others(run)
            others += [*files_of_others(run, (SETTINGS, CARD)), *model_of_others(run)]
    if others:
        raise ValueError(
            f"{others[0]}: found a file that no run has written, or not all of one, expected none of this name in --output_dir; "
            "move it away, or choose another --output_dir"
        )
