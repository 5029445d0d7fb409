#!/usr/bin/env python
r"""
Fine-tune, evaluate and apply COMM models for document-level relation extraction on DocRED, Re-DocRED, DocRED-Mixed or your own
documents in DocRED's format.

    python run_docre.py --dataset_config redocred --data_dir DATA --model_name_or_path roberta-large \
        --do_train --do_eval --do_predict --output_dir outputs/redocred

Arguments may also be in a JSON or YAML file, given first; flags after it override it:

    python run_docre.py examples/redocred_mini_cpu.yaml --seed 7

A finished checkpoint (--model_name_or_path) is trained further; for other relations add --ignore_mismatched_sizes. In
distillation a teacher predicts distantly supervised documents (--do_predict_teacher --train_split train_distant
--teacher_logits FOLDER), and a student trains on them (--do_train with the same two), then on human labels.

Several processes: `torchrun --nproc_per_node 2 run_docre.py ...` or `accelerate launch run_docre.py ...`. If a run is
interrupted, the same command resumes it from its last complete checkpoint.
"""

import sys

if __name__ == "__main__":  # Ctrl-C during the imports, which take seconds
    sys.excepthook = lambda kind, error, place: (
        print("interrupted", file=sys.stderr)
        if issubclass(kind, KeyboardInterrupt)
        else sys.__excepthook__(kind, error, place)
    )

import logging
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from modeling_comm.commands.errors import command, discard_closed_output
from modeling_comm.training.refused_arguments import check_arguments, check_folder_of_seeds, check_scored_elsewhere
from modeling_comm.training.script_arguments import Arguments, ModelArguments, parse_arguments
from modeling_comm.utils.progress import without_bars

if TYPE_CHECKING:
    from dataset_scripts.loading import Data

logger = logging.getLogger("run_docre")


@command
def main(argv: list[str] | None = None, prog: str | None = None) -> int:
    """The command line; returns the exit status."""
    discard_closed_output()  # a training is worth more than what it prints
    run(parse_arguments(sys.argv[1:] if argv is None else list(argv), __doc__, prog))
    return 0


@without_bars()  # of weights that are read or written
def run(arguments: Arguments) -> list[dict[str, float]]:
    """Does what the arguments ask for; returns the metrics of each seed's run."""
    check_arguments(arguments)
    # Imported here and below, not at the head: they take seconds, which `--help` and a mistyped flag can do without.
    from dataset_scripts.loading import describe_data, load_data
    from modeling_comm.reporting.model_card import write_model_card
    from modeling_comm.reporting.run_record import write_summary
    from modeling_comm.training.predict_teacher import predict_teacher
    from modeling_comm.training.script_logging import set_up_logging
    from modeling_comm.training.script_paths import check_paths
    from modeling_comm.utils.locks import locked_folder
    from modeling_comm.utils.writer import remove_unfinished

    check_paths(arguments)
    set_up_logging(arguments.training)
    logger.info("world size %d, device %s", arguments.training.world_size, arguments.training.device)
    data = load_data(arguments)
    if arguments.data.describe_data:
        print(describe_data(arguments, data))
        return []
    data.check_splits(arguments.splits_needed())
    is_first = arguments.training.process_index == 0
    if arguments.distillation.do_predict_teacher:
        total = None if data.is_streamed("train") else len(data.splits["train"])
        with locked_folder(arguments.distillation.teacher_logits) if is_first else nullcontext():
            predict_teacher(arguments, data.documents("train"), data.sources["train"], total)
        return []

    seeds, folder = arguments.seeds, Path(arguments.training.output_dir)
    metrics = []
    if len(seeds) > 1:
        check_folder_of_seeds(folder)
        if is_first and folder.is_dir():
            remove_unfinished(folder)
    for seed in seeds:
        run_folder = folder / f"seed-{seed}" if len(seeds) > 1 else folder
        with locked_folder(run_folder) if is_first else nullcontext():
            if is_first:
                remove_unfinished(run_folder)
            metrics.append(run_seed(arguments.for_seed(seed, run_folder), data))
    if len(seeds) > 1 and is_first:
        print(write_summary(folder, seeds, metrics))
        write_model_card(folder)
    return metrics


def run_seed(arguments: Arguments, data: "Data") -> dict[str, float]:
    """One run with one seed: trains, evaluates and predicts, and writes its record; returns the metrics."""
    from transformers import set_seed

    from dataset_scripts.loading import load_model
    from dataset_scripts.masking import with_masked_copies
    from modeling_comm.reporting.model_card import read_run
    from modeling_comm.reporting.run_files import LATER_RECORD, RECORD
    from modeling_comm.reporting.run_record import RunRecord
    from modeling_comm.training.build_model import load_checkpoint, prepare_for_training
    from modeling_comm.training.build_trainer import build_trainer
    from modeling_comm.training.checkpoint_files import is_complete
    from modeling_comm.training.checkpoints import (
        Progress,
        delete_results_of_other_models,
        find_progress,
        restore_finished,
        run_settings,
    )
    from modeling_comm.training.decisions import read_decisions, tune_decisions, tuned_values
    from modeling_comm.training.encode_splits import encode_splits
    from modeling_comm.training.predict_split import predict_test
    from modeling_comm.utils.files import read_json, write_json

    started, training = time.time(), arguments.training
    folder, source = Path(training.output_dir), arguments.model.model_name_or_path

    if not training.do_train:
        check_scored_elsewhere(source, folder)

    # Model and processor.
    set_seed(training.seed)
    model, processor = load_model(arguments, data)

    # What an earlier call has left.
    progress = Progress()
    if training.do_train:
        prepare_for_training(model, processor, arguments.model)
        settings = run_settings(arguments, data.sources, data.ign_reference, model.config, processor)
        progress = find_progress(training, settings, arguments.run.restart)
    elif training.process_index == 0:
        delete_results_of_other_models(folder, training.seed, source)
    if progress.finished:
        logger.info("%s: the training is finished; --restart would repeat it", folder)
        kept = {name: getattr(arguments.model, name) for name in ("attn_implementation", "trust_remote_code")}
        name = model.config.name_or_path
        model, processor = load_checkpoint(ModelArguments(str(folder), **kept))
        model.config.name_or_path = name  # as in the call that trained

    # Encoded documents.
    if "validation" not in data.splits or not (training.do_train or training.do_eval):
        if training.do_train:
            logger.warning("no validation documents: the last checkpoint is kept, not the best one")
        training.eval_strategy, training.load_best_model_at_end = "no", False
    used = {split: rows for split, rows in data.splits.items() if split in arguments.splits_used()}
    masked = arguments.data.masked
    if masked:
        how = masked["copies"], masked["share"], training.seed, data.entry.type_words
        used["train"], counts = with_masked_copies(used["train"], *how)
        masked |= counts
    encoded, reports = encode_splits(used, processor, arguments)

    # Training.
    trainer = build_trainer(arguments, model, processor, encoded, data.ign_reference)
    metrics = {}
    of_stream = folder / "_stream_report.json"  # a push leaves out names with _
    if progress.finished:
        metrics |= restore_finished(trainer)
        if data.is_streamed("train") and of_stream.is_file():
            reports["train"] = read_json(of_stream)
    elif training.do_train:
        if progress.checkpoint:
            logger.info("resuming from %s", progress.checkpoint)
        metrics |= trainer.train(
            progress.checkpoint,
            keep_threshold_offset=arguments.model.threshold_offset is not None,
            keep_evidence_threshold=arguments.model.evidence_threshold is not None,
            keep_fusion_threshold=arguments.model.fusion_threshold is not None,
        ).metrics
        tune_decisions(trainer, arguments.run)
        trainer.save_model(_internal_call=True)  # without a push: the one at the end has the record, too
        if data.is_streamed("train"):
            reports["train"] = trainer.gather_stream_report()
            if progress.resumed_from:  # earlier calls have kept no count of what they read
                reports["train"]["since_step"] = progress.resumed_from[-1]
            if trainer.is_world_process_zero():
                write_json(of_stream, reports["train"])
        trainer.save_state()  # written last: it says that the training is finished
    metrics |= tuned_values(trainer, arguments.run)

    # Evaluation and prediction.
    if training.do_eval:
        metrics |= trainer.evaluate()
    if training.do_predict:
        if data.is_streamed("train"):
            logger.info("no type prior: it would need all training documents, which are streamed, in memory")
        prior_from = None if data.is_streamed("train") else data.documents("train")
        test, show = list(data.documents("test")), arguments.run.show_triples
        metrics |= predict_test(trainer, encoded["test"], test, prior_from, data.entry, show)

    # Record and model card.
    record = RunRecord.of_trainer(
        trainer,
        started,
        data={
            "config": data.entry.name,
            "files": data.sources,
            "published": data.entry.published_sources(data.sources),
            "encoding": reports,
            **({"completion": data.completion} if data.completion else {}),
            **({"masked": masked} if masked else {}),
        },
        distillation=trainer.distillation_record() if arguments.distillation.teacher_logits else None,
        base_model=None if Path(source).exists() else source,
        metrics=metrics,
        resumed_from=progress.resumed_from,
        decisions=read_decisions(trainer),
    )
    file = folder / RECORD
    if progress.finished and is_complete(file):
        record = record.added_to(read_json(file))
    # Scoring a finished training in its own folder leaves the training's record as it is.
    is_later = not training.do_train and (folder / "trainer_state.json").is_file()
    if trainer.is_world_process_zero():
        write_json(folder / LATER_RECORD if is_later else file, record.to_dict())
    trainer.run_record = read_run(folder)[0] if is_later else record.to_dict()
    if training.push_to_hub:
        trainer.push_to_hub()  # with its model card
    elif training.do_train:
        trainer.create_model_card()
    return record.metrics


if __name__ == "__main__":
    sys.exit(main())
