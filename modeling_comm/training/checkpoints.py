"""Resuming a run: its identifying settings and its checkpoints."""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import TrainerState

from ..configuration_comm import CommConfig
from ..evaluation.scoring import IgnReference
from ..losses import get_loss
from ..processing_comm import CommProcessor
from ..relation_encoders import get_relation_encoder
from ..reporting.redaction import redact
from ..reporting.run_files import CARD, RECORD, RESULTS, SETTINGS, SUMMARY, is_of_a_run
from ..utils.files import file_sha256, read_json, write_json
from ..utils.unchanged import check_unchanged
from ..utils.writer import delete_folder
from .checkpoint_files import half_checkpoints, is_complete, last_complete_checkpoint, own_checkpoints
from .distillation import TeacherLogits
from .script_arguments import TUNING_FLAGS, Arguments
from .trainer import CommTrainer
from .training_args import CommTrainingArguments

logger = logging.getLogger(__name__)

# Arguments that decide the outcome of a training besides model and data: if one differs, it is another run.
DECISIVE_ARGUMENTS = (
    *("learning_rate", "head_learning_rate", "num_train_epochs", "max_steps", "warmup_steps", "lr_scheduler_type"),
    "world_size",
    *("train_sampling_strategy", "data_seed", "neftune_noise_alpha"),
    *("optim", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm", "bf16", "fp16"),
    *("optim_args", "lr_scheduler_kwargs", "eval_strategy", "eval_steps", "eval_delay", "save_strategy", "save_steps"),
    *("load_best_model_at_end", "metric_for_best_model", "greater_is_better"),
)

# Fields in which a configuration describes itself, its files and its versions.
_DESCRIPTIVE_FIELDS = (
    *(
        "_name_or_path",
        "architectures",
        "auto_map",
        "custom_pipelines",
        "comm_version",
        "dtype",
        "transformers_version",
    ),
)
# What `Trainer` takes from the tokenizer, whose identity the processor has. It depends on Transformers' version in which
# configuration it writes them, the model's or its encoder's.
_SPECIAL_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")
_LABEL_FIELDS = ("id2label", "label2id", "relation_names", "num_labels")
_ADVICE = "Choose another --output_dir, or --restart to delete its checkpoints and results"


def run_settings(
    arguments: Arguments,
    sources: Mapping[str, Mapping[str, Any]],
    ign_reference: IgnReference | None,
    config: CommConfig,
    processor: CommProcessor,
) -> dict:
    """
    The settings that decide the outcome of a training, as JSON has them: arguments, the fields that give the weights their
    meaning, and hashes of all files that are read.

    Args:
        arguments (`Arguments`): all of the run's.
        sources (`Mapping[str, dict]`): by split, where its documents come from.
        ign_reference (`IgnReference`, *optional*): the facts that Ign F1 leaves out.
        config (`CommConfig`), processor (`CommProcessor`): of the model before training.
    """
    data, training, teacher_logits = arguments.data, arguments.training, arguments.distillation.teacher_logits
    # Flags that are not given are left out: which there are depends on the losses that happen to be registered.
    given = {key: value for key, value in vars(arguments.model).items() if value is not None}
    settings = {key: value for key, value in given.items() if key not in ("token", "cache_dir")}
    settings |= {key: getattr(data, key) for key in ("max_length", "max_train_documents", "max_eval_documents")}
    settings |= {key: getattr(data, key) for key in ("train_split", "streaming")}
    # An earlier version stored nothing: None, which a missing setting is taken for, is the default.
    settings["on_bad_document"] = None if data.on_bad_document == "error" else data.on_bad_document
    settings |= {"masked_copies": data.masked_copies, "masked_share": data.masked and data.masked["share"]}
    settings |= {key: value for key, value in vars(arguments.distillation).items() if key != "do_predict_teacher"}
    if teacher_logits:
        settings["teacher_sha256"] = TeacherLogits(teacher_logits).settings["teacher_sha256"]
    settings |= {f"{split}_sha256": sources[split]["sha256"] for split in ("train", "validation") if split in sources}
    weights = sorted(Path(arguments.model.model_name_or_path).glob("*.safetensors"))
    files = (*weights, *map(Path, arguments.model.extensions or ()))
    if data.complete_labels:
        settings["complete_labels_sha256"] = file_sha256(data.complete_labels)
    settings["sha256"] = {path.name: file_sha256(path) for path in files}
    if str(training.metric_for_best_model).endswith("ign_f1"):
        settings["ign_reference_sha256"] = ign_reference and ign_reference.sha256
    settings |= {key: getattr(training, key) for key in DECISIVE_ARGUMENTS} | _batch_settings(training, config)
    settings |= {"early_stopping_patience": arguments.run.early_stopping_patience, "seed": training.seed}
    settings |= {name: getattr(arguments.run, name) or None for name in TUNING_FLAGS}
    settings["trust_remote_code"] = arguments.model.trust_remote_code or None
    settings = redact(settings) | {"config": config_identity(config), "processor": processor_identity(processor)}
    return json.loads(json.dumps(settings))


def _batch_settings(training, config):
    """How documents are shared out into steps. Fewer documents at once and more accumulated ones make the same steps of the same
    documents, but where batches are made of documents of similar length, or the loss or the relation encoder depends on what
    else is in a batch."""
    size, accumulated = training.per_device_train_batch_size, training.gradient_accumulation_steps
    settings = {"documents_per_step": size * accumulated}
    loss, relation_encoder = get_loss(config.loss), get_relation_encoder(config.relation_encoder).encoder
    by_length = training.train_sampling_strategy == "group_by_length"
    if by_length or not loss.sums_over_pairs or relation_encoder.depends_on_batch:
        settings["per_device_train_batch_size"] = size
    return settings


def _renamed(settings, now):
    """Settings as this version has them: an earlier one stored the two factors of the documents per step, or their product alone,
    and special tokens. Documents at once are compared where they count `now`, and where they were stored."""
    settings, at_once = dict(settings), "per_device_train_batch_size"
    if "config" in settings:
        settings["config"] = _without(settings["config"], _SPECIAL_TOKENS)
    if "documents_per_step" not in settings and "gradient_accumulation_steps" in settings:
        settings["documents_per_step"] = settings[at_once] * settings.pop("gradient_accumulation_steps")
    if at_once in now:
        return {at_once: now[at_once]} | settings
    return {name: value for name, value in settings.items() if name != at_once}


def config_identity(config: CommConfig) -> dict:
    """The configuration's fields that give weights their meaning: labels in their order, sizes, loss and its settings, ..."""
    labels = [config.id2label[index] for index in range(len(config.id2label))]
    fields = _without(config.to_dict(), (*_DESCRIPTIVE_FIELDS, *_SPECIAL_TOKENS))
    fields = {name: value for name, value in fields.items() if name not in _LABEL_FIELDS}
    return json.loads(json.dumps({**fields, "labels": labels}))


def _without(config, names):
    """A configuration without these fields, in itself and in that of its encoder."""
    kept = {name: value for name, value in config.items() if name not in names}
    return kept | {"text_config": {name: value for name, value in config["text_config"].items() if name not in names}}


def processor_identity(processor: CommProcessor) -> dict:
    """The processor's identity: its settings, and the hash of its tokenizer."""
    fields = {name: value for name, value in processor.to_dict().items() if name not in _LABEL_FIELDS}
    tokenizer = processor.tokenizer
    if tokenizer.is_fast:
        content = tokenizer.backend_tokenizer.to_str()
    else:
        content = json.dumps([type(tokenizer).__name__, tokenizer.get_vocab(), str(tokenizer.special_tokens_map)])
    return {**fields, "tokenizer_sha256": hashlib.sha256(content.encode()).hexdigest()}


@dataclass
class Progress:
    """
    The progress of earlier calls of the same run, read from its folder.

    Attributes:
        checkpoint (`str`, *optional*): folder of the checkpoint to resume from.
        finished (`bool`, defaults to `False`): whether the training is finished.
        resumed_from (`list[int]`): steps of the checkpoints that the training was resumed from so far, this call included.
    """

    checkpoint: str | None = None
    finished: bool = False
    resumed_from: list[int] = field(default_factory=list)


def find_progress(training_args: CommTrainingArguments, settings: dict, restart: bool = False) -> Progress:
    """
    Looks for what an earlier call of the same run has left in its output folder.

    Args:
        training_args (`CommTrainingArguments`): name the folder and the process.
        settings (`dict`): what identifies the run, see [`run_settings`].
        restart (`bool`, defaults to `False`): delete the run's checkpoints first.

    Where the training is not finished, records and results of an earlier one are deleted, see [`delete_results`], and nothing
    else is: otherwise they would be taken for those of this training once it is finished.

    Raises:
        SettingsChangedError: the folder, or the checkpoint to resume from, is of a run with other settings.
        ValueError: the folder holds checkpoints and does not say of which run: they are not deleted either.
    """
    folder = Path(training_args.output_dir)
    names = (SETTINGS, "trainer_state.json", "_resumed_from.json")  # a push leaves out names with _
    settings_file, final_state, resumed_file = (folder / name for name in names)
    # The others look when the first process has deleted and written.
    with training_args.main_process_first(desc="looking for checkpoints"):
        is_first = training_args.process_index == 0
        if (final_state.is_file() or own_checkpoints(folder)) and not settings_file.is_file():
            raise ValueError(
                f"{folder} holds checkpoints without {settings_file.name}, of another program. "
                "Choose another --output_dir, or move them away"
            )
        if restart and is_first:
            for path in (*own_checkpoints(folder), *half_checkpoints(folder)):
                delete_folder(path)
            final_state.unlink(missing_ok=True)
        if final_state.is_file() or own_checkpoints(folder):
            if not is_complete(settings_file):
                raise ValueError(f"{settings_file}: found no settings of a run, it may have been cut off. {_ADVICE}")
            check_unchanged(_renamed(read_json(settings_file), settings), settings, folder, _ADVICE)
        if is_first:
            write_json(settings_file, settings)
        progress = Progress(last_complete_checkpoint(folder, training_args.world_size), is_complete(final_state))
        if progress.checkpoint and "config" in settings:
            saved = config_identity(CommConfig.from_pretrained(progress.checkpoint))
            check_unchanged(saved, settings["config"], progress.checkpoint, _ADVICE)
        if is_first and not progress.finished:
            if not progress.checkpoint:
                resumed_file.unlink(missing_ok=True)
            delete_results(folder, training_args.seed, "this training")
        if resumed_file.is_file():
            progress.resumed_from = _read_steps(resumed_file)
        if progress.checkpoint and not progress.finished and is_first:
            progress.resumed_from.append(int(Path(progress.checkpoint).name.removeprefix("checkpoint-")))
            write_json(resumed_file, progress.resumed_from)
    return progress


def delete_results(folder: Path, seed: int, owner: str) -> None:
    """
    Deletes, with a warning, the results in a run's folder, its model card and the means of several seeds that it is a part of.
    Files of these names that no run has written stay.

    Args:
        folder (`Path`): of the run.
        seed (`int`): the run's: the folder of one of several seeds is called after it.
        owner (`str`): whose results they are not, for the warning.
    """
    places: dict[Path, tuple[str, ...]] = {folder: (*RESULTS, SUMMARY, CARD)}
    means = folder.parent / SUMMARY
    if folder.name == f"seed-{seed}" and is_of_a_run(means) and seed in read_json(means)["seeds"]:
        places[folder.parent] = (SUMMARY, CARD)
    for place, names in places.items():
        found = [name for name in names if is_of_a_run(place / name)]
        if found:
            logger.warning("%s: deleted %s, which are not of %s", place, ", ".join(found), owner)
        for name in found:
            (place / name).unlink()


def delete_results_of_other_models(folder: Path, seed: int, model: str) -> None:
    """
    Deletes, with a warning, what an earlier call has left that scored another model in the same folder: its results would be
    taken for those of the model that is scored now.

    Args:
        folder (`Path`), seed (`int`): of the run, see [`delete_results`]. A folder that is the model's own stays as it is.
        model (`str`): name or folder of the model that is scored now.
    """
    if Path(model).resolve() == folder.resolve():
        return
    record = folder / RECORD
    scored = read_json(record)["config"].get("_name_or_path") if is_of_a_run(record) else None
    if scored is None or Path(scored).resolve() != Path(model).resolve():
        delete_results(folder, seed, f"the model {model}")


def _read_steps(file):
    try:
        return list(read_json(file))
    except (ValueError, TypeError) as error:
        logger.warning("%s is not read: %s", file, error)
        return []


def restore_finished(trainer: CommTrainer) -> dict[str, float]:
    """Gives a trainer the history of the finished training in its output folder; returns the metrics of the training."""
    state = TrainerState.load_from_json(Path(trainer.args.output_dir) / "trainer_state.json")
    for name in ("log_history", "best_global_step", "best_model_checkpoint", "global_step", "epoch"):
        setattr(trainer.state, name, getattr(state, name))
    entry = next(entry for entry in reversed(state.log_history) if "train_runtime" in entry)
    return {name: value for name, value in entry.items() if name != "step"}  # which is no metric, but the log's
