"""What identifies a training, so that the same command goes on with it and another one does not, and what it left behind."""

import json
import shutil
from pathlib import Path

from ..utils.files import file_sha256, write_json
from .distillation import TeacherLogits
from .trainer import last_complete_checkpoint

# What decides the outcome of a training besides model and data: where one of these differs, it is another run.
DECISIVE_ARGUMENTS = (
    *("learning_rate", "head_learning_rate", "num_train_epochs", "max_steps", "warmup_steps", "lr_scheduler_type"),
    *("per_device_train_batch_size", "gradient_accumulation_steps", "world_size"),
    *("train_sampling_strategy", "data_seed", "neftune_noise_alpha"),
    *("optim", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm", "bf16", "fp16"),
    *("optim_args", "lr_scheduler_kwargs", "eval_strategy", "eval_steps", "eval_delay", "save_strategy", "save_steps"),
    *("load_best_model_at_end", "metric_for_best_model", "greater_is_better"),
)


def settings_of(seed, training_args, model_args, data_args, distillation_args, run_args, files, reference) -> dict:
    """What decides the outcome of a training, as JSON has it: settings, and hashes of all files that it reads."""
    settings = {key: value for key, value in vars(model_args).items() if key not in ("token", "cache_dir")}
    settings |= {key: getattr(data_args, key) for key in ("max_length", "max_train_documents", "max_eval_documents")}
    settings |= {key: getattr(data_args, key) for key in ("train_split", "streaming")}
    settings |= {key: value for key, value in vars(distillation_args).items() if key != "do_label"}
    if distillation_args.teacher_logits:
        settings["teacher_sha256"] = TeacherLogits(distillation_args.teacher_logits).settings["teacher_sha256"]
    settings |= {f"{split}_sha256": files[split]["sha256"] for split in ("train", "validation") if split in files}
    weights = sorted(Path(model_args.model_name_or_path).glob("*.safetensors"))
    settings["sha256"] = {path.name: file_sha256(path) for path in (*weights, *map(Path, model_args.extensions or ()))}
    if str(training_args.metric_for_best_model).endswith("ign_f1"):
        settings["ign_reference_sha256"] = reference and reference.sha256
    settings |= {key: getattr(training_args, key) for key in DECISIVE_ARGUMENTS}
    settings |= {"early_stopping_patience": run_args.early_stopping_patience, "seed": seed}
    settings["tune_threshold_offset"] = run_args.tune_threshold_offset or None
    settings["trust_remote_code"] = model_args.trust_remote_code or None
    return json.loads(json.dumps(settings))


def prepare_output(training_args, output_dir, settings, restart=False):
    """
    What an earlier call of the same run left in its folder: the checkpoint to go on from, or None, and whether the training is
    finished. With `restart` all of it is deleted first.

    Raises:
        ValueError: another run's checkpoints stand in the way.
    """
    folder = Path(output_dir)
    settings_file, final_state = folder / "settings.json", folder / "trainer_state.json"
    # The others look when the first process has deleted and written.
    with training_args.main_process_first(desc="looking for checkpoints"):
        if restart and training_args.process_index == 0:
            for path in folder.glob("checkpoint-*"):
                shutil.rmtree(path)
            final_state.unlink(missing_ok=True)
        begun = final_state.is_file() or any(folder.glob("checkpoint-*"))
        if begun and settings_file.is_file():
            before = json.loads(settings_file.read_text(encoding="utf-8"))
            changed = [key for key in sorted({*settings, *before}) if settings.get(key) != before.get(key)]
            if changed:
                raise ValueError(
                    f"{output_dir} holds a run with other settings: "
                    + ", ".join(f"{key} {before.get(key)!r}, now {settings.get(key)!r}" for key in changed)
                    + ". Choose another --output_dir, or --restart to delete its checkpoints"
                )
        if training_args.process_index == 0:
            write_json(settings_file, settings)
    return last_complete_checkpoint(output_dir, training_args.world_size), final_state.is_file()
