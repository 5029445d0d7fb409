"""
Trains a finished model further on documents with complete labels, for the number of epochs that cross-fitting chooses.

    python experiments/train_further.py --work_dir outputs/further --train_file complete.json -- --dataset_config redocred \\
        --model_name_or_path outputs/first --num_train_epochs 8 --lr_scheduler_type constant_with_warmup --learning_rate 5e-5 ...

What comes after `--` are flags of `run_docre.py`, the same for all trainings; --num_train_epochs is the largest number tried.
For each of --folds folds the model is trained further on the others and scored on it after every epoch. The epoch with the best
F1 over all folds is taken, and the model of WORK_DIR/final trained for that many on all documents; with --epochs_only there is
none. Scores by epoch are in WORK_DIR/epochs.json. No document has a part in its own score, if the first model did not see it
either. The same command resumes.

--lr_scheduler_type has to be constant or constant_with_warmup: with another schedule, the rates of an epoch depend on the number
of epochs, and a training of fewer epochs is not the one that the folds have scored. A warm-up that is a share of all steps has
to end in the first epoch; the last training's is as long, in epochs, as that of the folds. A number of steps stays what it is:
as the last training's epochs have more steps, its warm-up is then shorter in epochs. Flags that tune or choose something else
are refused, because no documents are left for it.
"""

import argparse
import sys
from pathlib import Path

from transformers import SchedulerType

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import dataset_scripts  # noqa: F401  (registers the data sets)
import run_docre
from experiments.shared import at_least, check_settings, own_and_passed
from modeling_comm import CommProcessor
from modeling_comm.incomplete_labels.probability_map import fold_of
from modeling_comm.incomplete_labels.rules import facts_of
from modeling_comm.reporting.markdown import join_cells
from modeling_comm.training.script_arguments import TUNING_FLAGS, Arguments, parse_arguments
from modeling_comm.training.training_args import CommTrainingArguments
from modeling_comm.utils.files import file_sha256, read_json, write_json

KEEP_NOTHING = ["--save_strategy", "no", "--load_best_model_at_end", "false"]
# They choose or score something on documents that the last model is trained on, add scores that are of no epoch, leave documents
# out of the scores of a fold, or make several trainings of one.
REFUSED = (*TUNING_FLAGS, "early_stopping_patience", "do_eval", "eval_on_start", "max_eval_documents", "seeds")
CONSTANT = (SchedulerType.CONSTANT, SchedulerType.CONSTANT_WITH_WARMUP)


def check_flags(arguments: Arguments) -> None:
    """
    Refuses flags with which folds do not score what the last training does.

    Raises:
        ValueError: there is one.
    """
    data, training = arguments.data, arguments.training
    found = arguments.given(*REFUSED)
    found += [f"--max_steps {training.max_steps}"] * (training.max_steps > 0)
    found += [f"--on_bad_document {data.on_bad_document}"] * (data.on_bad_document != "error")
    if found:
        raise ValueError(f"after --: found {', '.join(found)}; expected epochs of all documents, and nothing tuned")
    if (schedule := SchedulerType(training.lr_scheduler_type)) not in CONSTANT:
        expected = " or ".join(one.value for one in CONSTANT)
        raise ValueError(
            f"after --: --lr_scheduler_type is {schedule.value}; expected {expected}, because a number of epochs is chosen"
        )
    epochs = training.warmup_steps * training.num_train_epochs
    if schedule == SchedulerType.CONSTANT_WITH_WARMUP and training.warmup_steps < 1 <= epochs:
        raise ValueError(
            f"after --: --warmup_steps is {training.warmup_steps:g} of {training.num_train_epochs:g} epochs; expected less than "
            "one epoch, or a number of steps"
        )


def warmup_flags(training: CommTrainingArguments, epochs: int) -> list[str]:
    """A warm-up that is a share of all steps is as long in a training of this many epochs as in one of --num_train_epochs."""
    share = training.warmup_steps * training.num_train_epochs / epochs
    return ["--warmup_steps", str(share)] if share < 1 else []


def train(flags: list[str], train_file: Path, folder: Path, more: list[str]) -> dict:
    """Trains into a folder, unless it is finished there; returns the run's record."""
    if not (folder / "run.json").is_file():  # written last
        added = ["--train_file", train_file, "--output_dir", folder, "--do_train", *KEEP_NOTHING, *more]
        run_docre.run(parse_arguments([*flags, *map(str, added)]))
    return read_json(folder / "run.json")


def train_folds(documents: list[dict], options: argparse.Namespace, flags: list[str]) -> list[list[dict]]:
    """For each fold what was logged after every epoch: a model that was trained on the other folds, scored on it."""
    fold, logs = fold_of(len(documents), options.folds), []
    for number in range(options.folds):
        folder, held_out = options.work_dir / f"fold-{number}", options.work_dir / f"fold-{number}.json"
        others = options.work_dir / f"fold-{number}-train.json"
        write_json(held_out, [one for one, at in zip(documents, fold, strict=True) if at == number])
        write_json(others, [one for one, at in zip(documents, fold, strict=True) if at != number])
        record = train(flags, others, folder, ["--validation_file", str(held_out), "--eval_strategy", "epoch"])
        logs.append([entry for entry in record["log"] if "eval_f1" in entry])
    return logs


def scores_by_epoch(logs: list[list[dict]], gold: int) -> list[dict]:
    """For each epoch F1, precision and recall over the `gold` facts of all folds, and the mean of their average precision."""
    scores = []
    for entries in zip(*logs, strict=True):
        predicted = sum(one["eval_predicted_positives"] for one in entries)
        correct = sum(round(one["eval_precision"] * one["eval_predicted_positives"]) for one in entries)
        score = {
            "epoch": round(entries[0]["epoch"]),
            "f1": 2 * correct / max(predicted + gold, 1),
            "precision": correct / max(predicted, 1),
            "recall": correct / max(gold, 1),
            "average_precision": sum(one["eval_average_precision"] for one in entries) / len(entries),
        }
        scores.append(score)
    return scores


def main(argv: list[str] | None = None) -> None:
    words, flags = own_and_passed(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--work_dir", type=Path, required=True, help="folder of all trainings")
    parser.add_argument("--train_file", type=Path, required=True, help="the documents with complete labels")
    parser.add_argument("--folds", type=at_least(2), default=5, help="number of folds (%(default)s)")
    parser.add_argument("--epochs_only", action="store_true", help="do not train on all documents")
    options = parser.parse_args(words)
    arguments = parse_arguments([*flags, "--output_dir", "unused"])
    check_flags(arguments)
    settings = {"folds": options.folds, "flags": flags, "train_sha256": file_sha256(options.train_file)}
    check_settings(options.work_dir / "settings.json", settings, arguments)
    documents = read_json(options.train_file)
    logs = train_folds(documents, options, flags)
    scored_by = CommProcessor.from_pretrained(options.work_dir / "fold-0")
    scores = scores_by_epoch(logs, sum(len(facts_of(one, scored_by.candidates)) for one in documents))
    write_json(options.work_dir / "epochs.json", scores)
    keys = {"F1": "f1", "precision": "precision", "recall": "recall", "average precision": "average_precision"}
    rows = [[str(one["epoch"]), *(f"{100 * one[key]:.1f}" for key in keys.values())] for one in scores]
    print(join_cells(["epoch", *keys], rows))
    best = max(scores, key=lambda one: one["f1"])
    if not options.epochs_only:
        more = ["--num_train_epochs", str(best["epoch"]), "--eval_strategy", "no"]
        more += warmup_flags(arguments.training, best["epoch"])
        train(flags, options.train_file, options.work_dir / "final", more)


if __name__ == "__main__":
    main()
