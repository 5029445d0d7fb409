"""The record of a run: everything needed to trust a number, or to get it again."""

import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import torch
from transformers import Trainer, TrainingArguments

from ..evaluation.scoring import IgnReference
from ..utils.files import write_json
from .redaction import redact, redact_command
from .run_files import SUMMARY

_PACKAGES = ("torch", "transformers", "datasets", "accelerate", "evaluate", "huggingface_hub", "tokenizers", "numpy")
# The documents of metrics, by the first word of their names.
SPLITS = {"eval": "validation", "test": "test"}


def command_line() -> str:
    """The command that is running, as it can be typed again, without its secrets; paths below the working directory are
    made relative."""
    here = f"{Path.cwd()}{os.sep}"
    return redact_command([Path(sys.executable).name, *(word.replace(here, "") for word in sys.orig_argv[1:])])


def commit_of(path: str | os.PathLike) -> str | None:
    """Commit of the repository of `path`, with `+changes` where its files differ from it; None outside one."""

    def git(*arguments):
        return subprocess.run(
            ["git", "-C", str(path), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def versions() -> dict[str, str | None]:
    """Versions of Python, of this library and of the packages that numbers depend on; None where one is not installed."""
    from ..configuration_comm import __version__

    found = {"python": platform.python_version(), "modeling_comm": __version__}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def device_record(args: TrainingArguments, dtype: torch.dtype) -> dict:
    """Device, number of processes, threads, precision (of autocast, else the model's `dtype`) and peak memory (bytes) of this
    process so far."""
    cuda = args.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(args.device) if cuda else f"{platform.machine()} CPU",
        "processes": args.world_size,
        "threads": torch.get_num_threads(),
        "precision": "bf16" if args.bf16 else "fp16" if args.fp16 else str(dtype).removeprefix("torch."),
        "peak_memory": torch.cuda.max_memory_allocated(args.device) if cuda else _peak_memory(),
    }


def ign_reference_record(reference: IgnReference | None) -> dict | None:
    """File and hash of the facts that Ign F1 leaves out, and their number as triples of names; None where there is no Ign F1."""
    if reference is None:
        return None
    return {"source": reference.source, "sha256": reference.sha256, "facts": len(reference.facts)}


@dataclass(kw_only=True)
class Provenance:
    """
    The making of a file. It holds no secrets, see [`~modeling_comm.reporting.redaction.redact`].

    Attributes:
        command (`str`): as it can be typed again.
        commit (`str`, *optional*): of the repository of the code.
        versions (`dict[str, str | None]`): of Python and packages.
        device (`dict`): see [`device_record`].
        seconds (`float`): of wall clock.
    """

    command: str
    commit: str | None
    versions: dict[str, str | None]
    device: dict
    seconds: float

    @classmethod
    def of_this_process(
        cls, training_args: TrainingArguments, started: float, dtype: torch.dtype, **fields: Any
    ) -> Self:
        """
        Args:
            training_args (`TrainingArguments`): say on which device.
            started (`float`): `time.time()` at the start.
            dtype (`torch.dtype`): of the model.
            fields: those of a subclass.
        """
        return cls(
            command=command_line(),
            commit=commit_of(Path(__file__).parent),
            versions=versions(),
            device=device_record(training_args, dtype),
            seconds=round(time.time() - started, 1),
            **redact(fields),
        )

    def to_dict(self) -> dict:
        """The fields, as they are written to JSON."""
        return dict(vars(self))


@dataclass(kw_only=True)
class RunRecord(Provenance):
    """
    The content of `run.json`, which `run_docre.py` writes: everything needed to trust a number, or to reproduce it.

    Attributes:
        seed (`int`): the run's.
        data (`dict`): `config`; `files`, by split the `source`, `sha256` and `skipped` documents; and `encoding`, by split what
            encoding lost. Of a stream it counts what a training read, a resumed one only what it read after the step
            `since_step`. Where labels were completed, `completion`; where names were masked, `masked`: the `copies` of each
            training document, the `share` of entities, and how many `mentions` of the copies are `masked_mentions`.
        distillation (`dict`, *optional*): `weight`, `raw_logits`, and `teacher`, the contents of `teacher.json`.
        ign_reference (`dict`, *optional*): see [`ign_reference_record`].
        base_model (`str`, *optional*): the model on the Hub that training started from; None for a local folder.
        config (`dict`), processor (`dict`), training_arguments (`dict`): of the model, of its processor and of the trainer.
        metrics (`dict[str, float]`): of training, evaluation and prediction.
        log (`list[dict]`): see [`epoch_log`].
        best_checkpoint_step (`int`, *optional*): step of the checkpoint that was kept: the best one, or the last without
            `load_best_model_at_end` and where no best one was saved; None where nothing was trained.
        resumed_from (`list[int]`): steps of the checkpoints from which the training was resumed.
        decisions (`dict`, *optional*): where a map to probabilities was fitted, what each way to decide is worth, see
            [`~modeling_comm.incomplete_labels.decision_report.report_on_dev`].
        scored_by (`dict`, *optional*): where a finished training was scored later, the provenance of the latest scores.
    """

    seed: int
    data: dict
    distillation: dict | None
    ign_reference: dict | None
    base_model: str | None
    config: dict
    processor: dict
    training_arguments: dict
    metrics: dict[str, float]
    log: list[dict]
    best_checkpoint_step: int | None
    resumed_from: list[int] = field(default_factory=list)
    decisions: dict | None = None
    scored_by: dict | None = None

    @classmethod
    def of_trainer(cls, trainer: Trainer, started: float, **fields: Any) -> Self:
        """
        Args:
            trainer (`CommTrainer`): has trained, evaluated or predicted.
            started (`float`): `time.time()` at the start.
            fields: those that the trainer does not know.
        """
        return cls.of_this_process(
            trainer.args,
            started,
            trainer.model.dtype,
            seed=trainer.args.seed,
            ign_reference=ign_reference_record(trainer.ign_reference),
            config=trainer.model.config.to_dict(),
            processor=trainer.processing_class.settings,
            training_arguments=trainer.args.to_sanitized_dict(),
            log=epoch_log(trainer.state.log_history),
            best_checkpoint_step=kept_step_of(trainer),
            **fields,
        )

    def to_dict(self) -> dict:
        record = super().to_dict()
        for name in ("decisions", "scored_by"):
            if record[name] is None:
                del record[name]
        return record

    def added_to(self, earlier: dict) -> "RunRecord":
        """
        The record of a finished training whose command was given again: its provenance is that of the training, and scores are
        added.

        Args:
            earlier (`dict`): the record of the training, as it was read from its file.
        """
        provenance = {name: getattr(self, name) for name in Provenance.__dataclass_fields__}
        # As JSON has them: a tuple is a list there.
        now, ign_reference = json.loads(json.dumps([self.data, self.ign_reference]))
        same_reference, files = earlier["ign_reference"] == ign_reference, earlier["data"]["files"]
        # A split that this call does not name is that of the training.
        same = {split for split in files if now["files"].get(split, files[split]) == files[split]}

        def holds(metric):
            kind = metric.partition("_")[0]
            of_files = kind not in SPLITS or SPLITS[kind] in same
            return of_files and (same_reference or kind not in SPLITS or "ign_" not in metric)

        parts = {part: earlier["data"].get(part) or {} for part in ("files", "published", "encoding")}
        kept = {part: {split: one for split, one in found.items() if split in same} for part, found in parts.items()}
        return replace(
            self,
            **{name: earlier[name] for name in provenance},
            data=now | {part: found | (now.get(part) or {}) for part, found in kept.items()},
            metrics={name: value for name, value in earlier["metrics"].items() if holds(name)} | self.metrics,
            scored_by=provenance,
        )


def kept_step_of(trainer: Trainer) -> int | None:
    """Step of the checkpoint that a trainer has kept: the best one, or the last without `load_best_model_at_end` and where no
    best one was saved; None where it has not trained."""
    if trainer.args.load_best_model_at_end and trainer.state.best_model_checkpoint is not None:
        return trainer.state.best_global_step
    return trainer.state.global_step or None


def _peak_memory():
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def epoch_log(log_history: Iterable[dict[str, Any]]) -> list[dict]:
    """Evaluations and losses of a trainer's history, one dict per entry, without the timing columns."""
    dropped = ("_runtime", "_per_second")
    return [
        {key: value for key, value in entry.items() if not key.endswith(dropped)}
        for entry in log_history
        if "train_runtime" not in entry
    ]


def write_summary(folder: Path, seeds: list[int], metrics: list[dict[str, float]]) -> str:
    """Writes `summary.json`, the mean and the standard deviation of every metric over seeds; returns the lines to print."""
    summary = summarize(metrics)
    write_json(folder / SUMMARY, {"seeds": seeds, "metrics": summary})
    shown = ((key, summary[key]) for key in ("eval_f1", "test_f1", "test_ign_f1") if key in summary)
    return "\n".join(f"{key}: {_mean_of_seeds(seeds, values)}" for key, values in shown)


def _mean_of_seeds(seeds, values):
    """A metric in words: over the seeds whose runs have it, and of one alone without a deviation."""
    found = [seed for seed, value in zip(seeds, values["runs"], strict=True) if value is not None]
    if values["std"] is None:
        return f"{100 * values['mean']:.2f} of seed {found[0]} alone"
    return f"{100 * values['mean']:.2f} +- {100 * values['std']:.2f} over seeds {found}"


def summarize(by_seed: list[dict[str, float]]) -> dict[str, dict]:
    """Mean and standard deviation (of the sample) of every metric over the runs that have it; in `runs`, the others have None."""
    keys = dict.fromkeys(key for one in by_seed for key, value in one.items() if isinstance(value, (int, float)))
    summary = {}
    for key in keys:
        runs = [metrics.get(key) for metrics in by_seed]
        found = [value for value in runs if value is not None]
        deviation = statistics.stdev(found) if len(found) > 1 else None
        summary[key] = {"mean": statistics.fmean(found), "std": deviation, "runs": runs}
    return summary
