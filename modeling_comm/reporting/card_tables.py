"""The tables of a model card, from a run's record, and how a card shows numbers, paths and commands."""

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import PureWindowsPath
from typing import Any

from ..configuration_comm import settings_of
from ..features import what_was_lost
from ..incomplete_labels.decision_report import WAYS
from .markdown import Markdown, code, plain, table
from .run_record import SPLITS

METRICS = {
    "f1": "F1",
    "ign_f1": "Ign F1",
    "precision": "Precision",
    "recall": "Recall",
    "average_precision": "Average precision",
}


def results_table(
    metrics: Mapping[str, Any], scores: Mapping[str, Any] | None = None, seeds: Sequence[int] = ()
) -> Markdown | None:
    """Metrics of the validation and test documents, of the type prior, and, where `metrics` are those of a summary, of every
    seed's run; None if there are no scores."""

    def cells(of, prefix):
        return [percent(of.get(f"{prefix}{key}")) for key in METRICS]

    found = [(prefix, split) for prefix, split in SPLITS.items() if f"{prefix}_f1" in metrics]
    rows = [[split, *cells(metrics, f"{prefix}_")] for prefix, split in found]
    for index, seed in enumerate(seeds):
        one = {key: value["runs"][index] for key, value in metrics.items()}
        rows += [[f"{split}, seed {seed}", *cells(one, f"{prefix}_")] for prefix, split in found]
    if "test_type_prior_f1" in metrics:
        prior = scores["type_prior"] if scores else {"f1": metrics["test_type_prior_f1"]}
        rows.append(["test, type prior", *cells(prior, "")])
    return table(["", *METRICS.values()], rows) if rows else None


def decisions_table(decisions: Mapping[str, Any] | None) -> Markdown | None:
    """What each way to decide is worth, by split; None where no map to probabilities was fitted."""
    if not decisions:
        return None
    names = {"dev": "validation, cross-fitted", "test": "test"}
    rows = [
        [
            *(f"{names[split]}: {WAYS[way]}", percent(found["f1"]), percent(found["macro_f1"])),
            *(percent(found[key]) for key in ("precision", "recall")),
            *(f"{found[key]:.3f}" if found.get(key) is not None else None for key in ("brier", "ece")),
            count(found.get("cells")),
        ]
        for split in names
        for way, found in decisions.get(split, {}).items()
    ]
    return table(["", "F1", "Macro F1", "Precision", "Recall", "Brier score", "ECE", "Of cells"], rows)


def relations_table(scores: Mapping[str, Any], relation_names: Mapping[str, str]) -> Markdown:
    """Test scores of every relation, those with most gold facts first."""
    prior = scores["type_prior"]["per_relation"] if scores["type_prior"] else {}
    relations = sorted(scores["scores"]["per_relation"].items(), key=lambda item: (-item[1]["gold"], item[0]))
    rows = [
        [
            code(relation),
            relation_names.get(relation),
            *(count(found[key]) for key in ("gold", "predictions", "correct")),
            *(percent(found[key]) for key in ("precision", "recall", "f1")),
            percent(prior[relation]["f1"]) if relation in prior else None,
        ]
        for relation, found in relations
    ]
    header = ["Relation", "Name", "Gold", "Predicted", "Correct", "Precision", "Recall", "F1", "Type prior F1"]
    return table(header, rows)


def data_table(data: Mapping[str, Any]) -> Markdown | None:
    """Files with their hashes, and what is in them, as far as a record's `data` tells; None if it tells nothing."""
    files, reports = data["files"], data.get("encoding", {})
    splits = list(dict.fromkeys([*files, *reports]))

    def column(entries, key, shown):
        return [shown(entries[split][key]) if key in entries.get(split, {}) else None for split in splits]

    counted = {"Documents": "documents", "Entities": "entities", "Mentions": "mentions"}
    counted |= {"Subword tokens": "tokens", "Windows": "windows"}
    columns = {"": splits, "File": column(files, "source", lambda source: code(base_name(source)))}
    columns |= {name: column(reports, key, count) for name, key in counted.items()}
    columns["Skipped"] = column(files, "skipped", len)
    columns["SHA-256"] = column(files, "sha256", code)
    known = {name: values for name, values in columns.items() if any(value is not None for value in values)}
    return table(known, zip(*known.values(), strict=True)) if known else None


def lost_in_encoding(data: Mapping[str, Any]) -> str:
    """In words, what encoding lost of the documents."""
    reports = data.get("encoding")
    if not reports:
        return "not recorded"
    lost = [
        f"{count(number)} {what.replace('_', ' ')} ({split})"
        for split, report in reports.items()
        for what, number in what_was_lost(report).items()
    ]
    lost += [
        f"not counted before step {count(report['since_step'])} ({split})"
        for split, report in reports.items()
        if "since_step" in report
    ]
    return ", ".join(lost) or "nothing: every word and mention of the documents above reached the model"


def processor_settings(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Settings of a run's processor. Records of the first version hold them in the model's configuration."""
    return record.get("processor", record["config"])


def setting_table(record: Mapping[str, Any], seeds: Sequence[int]) -> Markdown:
    """Model, loss and training."""
    config, arguments = record["config"], record["training_arguments"]
    processor = processor_settings(record)
    documents = int(arguments["per_device_train_batch_size"]) * int(arguments["gradient_accumulation_steps"])
    processes = record["device"]["processes"] if "device" in record else 1
    steps = int(arguments["max_steps"])
    rows = [
        ["Backbone", backbone(record)],
        ["Relation encoder", code(config["relation_encoder"])],
        *_setting_rows(config, relation_encoder=config["relation_encoder"]),
        *([["Last layers averaged", config["averaged_layers"]]] if config.get("averaged_layers", 1) > 1 else []),
        ["Loss", Markdown(f"{code(config['loss'])}, {plain(config['loss_reduction'])} over pairs")],
        *_setting_rows(config, loss=config["loss"]),
        *([["Weight of the evidence loss", config["evidence_weight"]]] if config.get("evidence_weight") else []),
        ["Mention markers", code(processor["markers"])],
        *([code(field), processor[field]] for field in ("window_size", "window_stride") if field in processor),
        *(
            [["Required margin over the threshold", processor["threshold_offset"]]]
            if processor.get("threshold_offset")
            else []
        ),
        *(
            [["Required probability", f"{processor['probability_map']['cut']:.3f}"]]
            if processor.get("probability_map")
            else []
        ),
        *(
            [["Share of the attention that makes a sentence evidence", processor["evidence_threshold"]]]
            if processor.get("evidence_threshold") is not None
            else []
        ),
        *(
            [["Sum of margins required by the second pass over evidence", processor["fusion_threshold"]]]
            if processor.get("fusion_threshold") is not None
            else []
        ),
        *([["Types of head and tail", "those of training"]] if processor.get("type_constraint") == "hard" else []),
        ["Relations of a pair, at most", processor["max_relations_per_pair"] or "no limit"],
        ["Learning rate of the backbone", arguments["learning_rate"]],
        ["Learning rate of the rest", arguments["head_learning_rate"]],
        [
            "Schedule",
            f"{arguments['lr_scheduler_type']}, warm-up {arguments['warmup_steps']} (below 1: share of steps)",
        ],
        ["AdamW", f"epsilon {arguments['adam_epsilon']}, weight decay {arguments['weight_decay']}"],
        ["Gradient norm, at most", arguments["max_grad_norm"]],
        ["Documents per step", documents * processes],
        ["Length", f"{steps} steps" if steps > 0 else f"{arguments['num_train_epochs']:g} epochs"],
        ["Seeds" if len(seeds) > 1 else "Seed", ", ".join(map(str, seeds))],
    ]
    return table(["", ""], rows)


def _setting_rows(config, relation_encoder="", loss=""):
    """One row per setting of a relation encoder or a loss, as far as it is registered here."""
    fields = (setting.field for setting in settings_of(relation_encoder, loss))
    return [[code(field), config[field]] for field in fields if config.get(field) is not None]


def loss_settings(config: Mapping[str, Any]) -> Markdown:
    """The loss's settings in words, as far as it is registered here."""
    found = {setting.keyword: config.get(setting.field) for setting in settings_of("", config["loss"])}
    return plain(", ".join(f"{keyword} = {value}" for keyword, value in found.items() if value is not None))


def base_model(record: Mapping[str, Any]) -> str | None:
    """The encoder's name on the Hub; None if it was a folder, or is not recorded."""
    name = record.get("base_model")
    return name if name and re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name) else None


def backbone(record: Mapping[str, Any]) -> Markdown:
    """The encoder's name and its kind, as far as the record has them."""
    name, config = base_model(record), record["config"].get("text_config")
    known = [code(name)] if name else []
    if config:
        layers, size = (
            config.get("num_hidden_layers", config.get("n_layers")),
            config.get("hidden_size", config.get("dim")),
        )
        known.append(
            plain(f"{'' if name else 'a '}{config['model_type']} encoder ({layers} layers, hidden size {size})")
        )
    return Markdown(", ".join(known))


def log_table(record: Mapping[str, Any]) -> tuple[Markdown | None, bool]:
    """
    One row per evaluation, or, without any, per epoch: the mean loss since the row before, and the scores. The step of the
    checkpoint that was kept is in bold.

    Returns:
        the table (None without rows), and whether a step is in bold.
    """
    log, kept = record.get("log", []), kept_step(record)
    evaluated = any(map(is_evaluation, log))
    rows, last_row, logged, losses, has_kept_row = [], 0, 0, 0.0, False
    for entry in log:
        step = entry["step"]
        if "loss" in entry:  # the mean over the steps since the last entry
            losses += entry["loss"] * (step - logged)
            logged = step
        ends = is_evaluation(entry) if evaluated else "loss" in entry and float(entry["epoch"]).is_integer()
        if ends and step > last_row:  # the best checkpoint, evaluated once more at the end, has its row
            rows.append(
                [
                    f"{entry['epoch']:.2f}",
                    Markdown(f"**{step}**") if step == kept else step,
                    f"{losses / (logged - last_row):.4f}" if logged > last_row else None,
                    f"{entry['eval_loss']:.4f}" if "eval_loss" in entry else None,
                    *(percent(entry.get(f"eval_{key}")) for key in METRICS),
                    count(entry.get("eval_predicted_positives")),
                ]
            )
            last_row, losses, has_kept_row = step, 0.0, has_kept_row or step == kept
    header = ["Epoch", "Step", "Training loss", "Validation loss", *METRICS.values(), "Predicted facts"]
    return (table(header, rows) if rows else None), has_kept_row


def is_evaluation(entry: Mapping[str, Any]) -> bool:
    """Returns whether an entry of a log is an evaluation."""
    return any(key.startswith("eval_") for key in entry)


def kept_step(record: Mapping[str, Any]) -> int | None:
    """Step of the checkpoint that a training ended with: the best one, where that was asked for, or the last one."""
    if record["training_arguments"]["load_best_model_at_end"]:
        return record.get("best_checkpoint_step")
    return max((entry["step"] for entry in record.get("log", [])), default=None)


def run_table(record: Mapping[str, Any]) -> Markdown:
    """The environment of the run: commit, device, time and versions."""
    device, commit = record["device"], record.get("commit")
    seconds = {"training": record["metrics"].get("train_runtime"), "all of it": record.get("seconds")}
    rows = [
        ["Commit", commit and commit.replace("+changes", " and changes that were not committed")],
        ["Device", device["device"]],
        ["Processes", device["processes"]],
        ["Threads of each", device["threads"]],
        ["Precision", device["precision"]],
        ["Memory, at most", f"{device['peak_memory'] / 2**30:.1f} GiB" if device["peak_memory"] else None],
        ["Time", ", ".join(f"{what} {duration(time)}" for what, time in seconds.items() if time) or None],
        *([package, version] for package, version in record["versions"].items() if version),
    ]
    return table(["", ""], rows)


# -------------------------------------------------------------------------------------------------- numbers, paths, commands


def percent(value: float | Mapping[str, float] | None) -> str | None:
    """A share in percent, or the mean and standard deviation of several runs' shares; None stays None."""
    if isinstance(value, Mapping):
        spread = "" if value["std"] is None else f" ± {100 * value['std']:.2f}"
        return f"{100 * value['mean']:.2f}{spread}"
    return None if value is None else f"{100 * value:.2f}"


def count(value: int | None) -> str | None:
    """A number with its thousands apart; None stays None."""
    return None if value is None else f"{value:,}"


def duration(seconds: float) -> str:
    """Seconds in words."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def base_name(path: str) -> str:
    """A file's name without its folders; an address of the web as it is."""
    return path if re.match("https?://", path) else PureWindowsPath(path).name  # which knows both kinds of slashes


# What starts a path that means something on its own machine only: an absolute one, or one that begins with `~` or a dot.
_LOCAL = r"(?:file://)?(?:(?:~|\.[^\s\\/\"']*)?[\\/]|[A-Za-z]:[\\/])"


def without_folders(command: str) -> str:
    """A command line in which paths that mean something on its own machine only are reduced to their base names."""
    try:
        words = shlex.split(command)
    except ValueError:  # a quotation mark without its partner
        words = command.split()
    return shlex.join(map(_without_folders, words))


def _without_folders(word):
    flag, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
    if re.match(f"{_LOCAL}.", value):
        value = base_name(value)
    else:  # perhaps a list or JSON that holds paths
        value = re.sub(rf"(?<=[\"'\s=,(\[]){_LOCAL}[^\"'\s,)\]]+", lambda found: base_name(found[0]), value)
    return f"{flag}{equals}{value}"
