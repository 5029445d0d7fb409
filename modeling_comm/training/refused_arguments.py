"""Flags of `run_docre.py` that do not go together."""

from collections.abc import Callable
from pathlib import Path

from ..reporting.run_files import RECORD, SETTINGS, is_of_a_run
from .script_arguments import TUNING_FLAGS, Arguments, DistillationArguments

# Combinations of flags that are refused: when, and what the user is told.
_REFUSED: tuple[tuple[Callable[[Arguments], object], str], ...] = (
    (
        lambda a: not a.given("do_train", "do_eval", "do_predict", "do_predict_teacher", "describe_data"),
        "nothing to do; expected one of --do_train, --do_eval, --do_predict, --do_predict_teacher, --describe_data",
    ),
    (
        lambda a: a.given("do_predict_teacher") and a.given("do_train", "do_eval", "do_predict"),
        "--do_predict_teacher is a call of its own; leave out --do_train, --do_eval and --do_predict",
    ),
    (
        lambda a: a.given("do_predict_teacher") and not a.given("teacher_logits"),
        "--do_predict_teacher needs --teacher_logits, the folder that it writes to",
    ),
    (
        lambda a: a.given("teacher_logits") and not a.given("do_predict_teacher", "do_train"),
        "--teacher_logits is used with --do_train or --do_predict_teacher only",
    ),
    (
        lambda a: not a.given("teacher_logits") and a.distillation != DistillationArguments(),
        "--distillation_weight and --distillation_raw_logits need --teacher_logits",
    ),
    (
        lambda a: not a.given("describe_data", "model_name_or_path"),
        "--model_name_or_path is missing; expected a bare encoder or a COMM checkpoint",
    ),
    *(
        (
            lambda a, flag=flag: a.given(flag) and not a.given("do_train"),
            f"--{flag} needs --do_train: it follows a training",
        )
        for flag in TUNING_FLAGS
    ),
    (
        lambda a: a.given("restart") and not a.given("do_train"),
        "--restart needs --do_train: it begins a training again",
    ),
    (
        lambda a: a.given("resume_from_checkpoint"),
        "--resume_from_checkpoint: the same command resumes by itself, from its last complete checkpoint; leave it out, or name "
        "the checkpoint by --model_name_or_path to train it further",
    ),
    (
        lambda a: a.given("ignore_mismatched_sizes") and not a.given("do_train", "describe_data"),
        "--ignore_mismatched_sizes needs --do_train: labels that the checkpoint lacks are not trained yet",
    ),
    (
        lambda a: a.run.show_triples and not a.given("do_predict", "describe_data"),
        "--show_triples needs --do_predict: the triples of test documents are shown",
    ),
    (
        lambda a: a.given("fit_probability_map") and a.given("tune_threshold_offset", "threshold_offset"),
        "--fit_probability_map chooses an offset for each relation; leave out --tune_threshold_offset and --threshold_offset",
    ),
    (
        lambda a: a.given("threshold_offset") and a.given("tune_threshold_offset"),
        "--tune_threshold_offset chooses the offset; leave out --threshold_offset",
    ),
    (
        lambda a: a.given("early_stopping_patience") and a.training.do_train and a.training.eval_strategy == "no",
        "--early_stopping_patience counts evaluations in training, and there is none with --eval_strategy no; leave one out",
    ),
    (
        lambda a: a.given("tune_fusion_threshold") and a.given("threshold_offset", "fusion_threshold"),
        "--tune_fusion_threshold chooses what decides; leave out --threshold_offset and --fusion_threshold",
    ),
    (
        lambda a: a.given("complete_labels") and not a.given("do_train"),
        "--complete_labels needs --do_train: training labels are completed",
    ),
    (
        lambda a: a.given("masked_copies") and (not a.given("do_train") or a.given("streaming", "teacher_logits")),
        "--masked_copies needs --do_train, and neither --streaming nor --teacher_logits: copies are made before the training, "
        "and a teacher has not read them",
    ),
    (
        lambda a: a.data.masked_share is not None and not a.given("masked_copies"),
        "--masked_share needs --masked_copies: it is the share of their entities",
    ),
    (
        lambda a: a.given("push_to_hub") and len(a.seeds) > 1,
        "--push_to_hub with several --seeds: each run would overwrite the one before; push the run of one --seed",
    ),
    (
        lambda a: a.given("train_distant_file") and a.data.train_split != "train_distant",
        "--train_distant_file is read with --train_split train_distant only",
    ),
)


# Numbers of copies, documents, evaluations and triples, and the least of each.
_COUNTS = {
    "masked_copies": 1,
    "max_train_documents": 1,
    "max_eval_documents": 1,
    "max_predict_documents": 1,
    "early_stopping_patience": 1,
    "show_triples": 0,
}


def check_arguments(arguments: Arguments) -> None:
    """Raises `ValueError` where flags contradict each other, one that another needs is missing, or a number is too small or too
    large."""
    for is_refused, message in _REFUSED:
        if is_refused(arguments):
            raise ValueError(message)
    share = arguments.data.masked_share
    if share is not None and not 0 < share <= 1:
        raise ValueError(f"--masked_share is {share}; expected a share of the entities, above 0 and at most 1")
    values = {**vars(arguments.data), **vars(arguments.run)}
    for name, least in _COUNTS.items():
        if values[name] is not None and values[name] < least:
            raise ValueError(f"--{name} is {values[name]}; expected an integer of {least} or more")


def check_folder_of_seeds(folder: Path) -> None:
    """
    Refuses to write the means of several seeds into the folder of a single run, whose record the card would then be of.

    Args:
        folder (`Path`): where the means would be.

    Raises:
        ValueError: it has the settings or the record of a run.
    """
    if found := [name for name in (SETTINGS, RECORD) if is_of_a_run(folder / name)]:
        raise ValueError(
            f"--output_dir {folder} is the folder of a run with one seed (found {found[0]}); choose another one for --seeds"
        )


def check_scored_elsewhere(model: str, folder: Path) -> None:
    """
    Refuses to score a model in the folder of another one that is trained there: it would replace that one's results.

    Args:
        model (`str`): name or folder of the model.
        folder (`Path`): where its results would be.

    Raises:
        ValueError: a training has ended in the folder, or was begun there, and the model is another one.
    """
    # The first is written when a training begins, the other when it has ended.
    begun = is_of_a_run(folder / SETTINGS) or (folder / "trainer_state.json").is_file()
    if begun and Path(model).resolve() != folder.resolve():
        raise ValueError(
            f"--output_dir {folder} is the folder of a training, and --model_name_or_path is another model, {model}; "
            "choose another --output_dir"
        )
