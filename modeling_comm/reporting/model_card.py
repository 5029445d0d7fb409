"""
Model cards, rendered from the records that `run_docre.py` writes.

    comm-docre card --run outputs/redocred --output outputs/redocred/README.md

A card states nothing that the record lacks. `python -m dataset_scripts.recipe_card` renders the card of a recipe that was
not run.
"""

import json
import logging
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import jinja2
from huggingface_hub import EvalResult, ModelCardData
from transformers import Trainer

from ..configuration_comm import TASK
from ..data.dataset_entry import LOCAL
from ..documents import shown
from ..evaluation.scoring import format_scores
from ..features import encoding_report
from ..utils.files import read_json
from ..utils.writer import write_text
from . import card_tables
from .card_tables import METRICS, base_model, base_name, is_evaluation
from .markdown import Markdown, block, code, one_line, plain
from .redaction import redact
from .run_files import CARD, RECORD, RECORD_FIELDS, SUMMARY, TEST_SCORES
from .run_record import SPLITS, device_record, epoch_log, ign_reference_record, kept_step_of, versions

logger = logging.getLogger(__name__)


def render_model_card(
    record: Mapping[str, Any],
    scores: Mapping[str, Any] | None = None,
    repo_id: str | None = None,
    name: str | None = None,
    summary: Mapping[str, Any] | None = None,
    tags: Sequence[str] = (),
) -> str:
    """
    A model card, metadata included.

    Args:
        record (`dict`): content of a run's `run.json`, or what [`trainer_record`] returns. Without `metrics`, as for a
            recipe, the card says "not run".
        scores (`dict`, *optional*): content of the run's `test_scores.json`.
        repo_id (`str`, *optional*): the model's name on the Hub, for the examples.
        name (`str`, *optional*): title of the card; by default the last part of `repo_id` or of the run's folder.
        summary (`dict`, *optional*): content of `summary.json`, where `record` is one of several runs with different seeds; its
            means and standard deviations then replace the record's metrics.
        tags (`Iterable[str]`): further tags of the metadata.

    Returns:
        `str`: Markdown with a YAML head. Folders of the machine are left out of paths, and text from the record cannot
        become markup.
    """
    record = redact(record)  # it may be older than its redaction, or a trainer's own
    if name is None:
        folder = PureWindowsPath(record["training_arguments"]["output_dir"])
        name = repo_id.split("/")[-1] if repo_id else (folder.parent if summary else folder).name
    name = one_line(name) or "comm"
    data = record["data"]
    metrics = summary["metrics"] if summary else _metrics(record)
    was_run, trained = metrics is not None, any("loss" in entry for entry in record.get("log", []))
    seeds = (summary or record).get("seeds") or [record["seed"]]
    sources = _sources(data) if trained or not was_run else []
    log, has_kept_row = card_tables.log_table(record)
    shown = {
        "name": name,
        "model": repo_id or name,
        "record": record,
        "config": record["config"],
        "processor": card_tables.processor_settings(record),
        "metadata": Markdown(_metadata(record, name, sources, metrics, len(seeds), tags).to_yaml()),
        "backbone": card_tables.backbone(record),
        "loss_settings": card_tables.loss_settings(record["config"]),
        "sources": sources,
        "domains": list(dict.fromkeys(source["domain"] for source in sources if source["domain"])),
        "is_local": data["config"] == LOCAL.name,
        "was_run": was_run,
        "trained": trained,
        "chosen": trained
        and record["training_arguments"]["load_best_model_at_end"]
        and record["best_checkpoint_step"],
        "metrics": metrics,
        "summary": summary,
        "seeds": seeds,
        "scores": scores,
        "lost": card_tables.lost_in_encoding(data),
        "has_kept_row": has_kept_row,
        "tables": {
            "results": card_tables.results_table(metrics, scores, seeds if summary else ()) if was_run else None,
            "relations": card_tables.relations_table(scores, card_tables.processor_settings(record)["relation_names"])
            if scores
            else None,
            "decisions": card_tables.decisions_table(record.get("decisions")),
            "data": card_tables.data_table(data),
            "setting": card_tables.setting_table(record, seeds),
            "log": log,
            "run": card_tables.run_table(record) if was_run else None,
        },
    }
    return _TEMPLATES.get_template("model_card_template.md").render(shown)


def _metrics(record):
    """The record's metrics; None for a recipe. A run that did not evaluate in the end did so when it saved what it kept."""
    if "metrics" not in record:
        return None
    step = card_tables.kept_step(record)
    evaluated = [entry for entry in record["log"] if is_evaluation(entry) and entry["step"] == step][:1]
    return dict(*evaluated) | record["metrics"]


def write_model_card(
    folder: str | os.PathLike,
    record: Mapping[str, Any] | None = None,
    repo_id: str | None = None,
    name: str | None = None,
    tags: Sequence[str] = (),
) -> None:
    """Writes `README.md` into a run's folder. `record` is by default the folder's own; the other arguments are
    [`render_model_card`]'s, and the errors [`read_run`]'s."""
    record, scores, summary = read_run(folder, record)
    card = render_model_card(record, scores, repo_id, name, summary, tags)
    write_text(Path(folder) / CARD, card)


# -------------------------------------------------------------------------------------------------------------- records


def _read_object(file, *fields):
    content = read_json(file)
    missing = [field for field in fields if not isinstance(content, dict) or field not in content]
    if missing:
        raise ValueError(f"{file}: found {shown(content)}, expected what run_docre.py writes, with {missing[0]!r}")
    return content


def _read_scores(file):
    content = _read_object(file, "scores", "type_prior")
    if not isinstance(content["scores"], dict) or not {"f1", "per_relation"} <= content["scores"].keys():
        found = shown(content["scores"])
        raise ValueError(
            f"{file}: found the scores {found}, expected what run_docre.py writes, with 'f1' and 'per_relation'"
        )
    return content


def read_run(
    folder: str | os.PathLike, record: Mapping[str, Any] | None = None
) -> tuple[Mapping[str, Any], dict | None, dict | None]:
    """
    Record, test scores and summary of a folder that `run_docre.py` wrote into.

    Args:
        folder (`str`): holds `run.json`, or, after `--seeds`, `summary.json` and the runs' own folders, of which the first run's
            record is read.
        record (`dict`, *optional*): taken instead of these.

    Returns:
        The scores are None if there are none, or if they are not those of the record's own test; the summary is None for a single
        run.

    Raises:
        FileNotFoundError: the folder holds neither.
        ValueError: one of them is not JSON, or something else than what a run writes.
    """
    folder = Path(folder)
    if record is None and (folder / RECORD).is_file():
        record = _read_object(folder / RECORD, *RECORD_FIELDS)
    if record is None:
        if not (folder / SUMMARY).is_file():
            raise FileNotFoundError(
                f"{folder}: expected {RECORD} or {SUMMARY}, which run_docre.py writes, found neither"
            )
        summary = _read_object(folder / SUMMARY, "seeds", "metrics")
        first = folder / f"seed-{summary['seeds'][0]}" / RECORD
        return _read_object(first, *RECORD_FIELDS), None, summary
    scores = _read_scores(folder / TEST_SCORES) if (folder / TEST_SCORES).is_file() else None
    if scores and scores["scores"]["f1"] != (record.get("metrics") or {}).get("test_f1"):
        logger.warning("%s is of another run than the record; the model card leaves it out", folder / TEST_SCORES)
        scores = None
    return record, scores, None


def trainer_record(trainer: Trainer) -> dict:
    """The part of a run's record that a [`CommTrainer`] knows without a script around it."""
    state = trainer.state
    documents = {"train": trainer.train_dataset, "validation": trainer.eval_dataset}
    return {
        "seed": trainer.args.seed,
        "versions": versions(),
        "device": device_record(trainer.args, trainer.model.dtype),
        "data": {
            "config": None,
            "files": {},
            "encoding": {split: encoding_report(rows) for split, rows in documents.items() if rows is not None},
        },
        "ign_reference": ign_reference_record(trainer.ign_reference),
        "config": trainer.model.config.to_dict(),
        "processor": trainer.processing_class.settings,
        "training_arguments": trainer.args.to_sanitized_dict(),
        "metrics": dict(*[entry for entry in state.log_history if "train_runtime" in entry][-1:]),
        "log": epoch_log(state.log_history),
        "best_checkpoint_step": kept_step_of(trainer),
    }


# ------------------------------------------------------------------------------------------------------------- metadata


def _metadata(record, name, sources, metrics, seeds, tags):
    results = _eval_results(record, metrics or {}, seeds)
    given = [source["language"] for source in sources]  # of other files it is not known
    languages = sorted({code for one in given for code in ([one] if isinstance(one, str) else one)})
    return ModelCardData(
        language=languages[0] if len(languages) == 1 else languages or None,
        license="apache-2.0",
        library_name="transformers",
        # The task is a tag, because it is not on the Hub's list of what may be a `pipeline_tag`.
        tags=[TASK, "relation-extraction", "comm", one_line(record["config"]["relation_encoder"]), *tags],
        datasets=[source["hub_name"] for source in sources if source["hub_name"]] or None,
        base_model=base_model(record),
        metrics=list(dict.fromkeys(result.metric_type for result in results)) or None,
        model_name=name if results else None,
        eval_results=results or None,
    )


def _sources(data):
    """Published sources of the data that trains and selects the model; none if any of it comes from elsewhere."""
    published = data.get("published", {})
    used = [split for split in ("train", "validation") if split in data["files"]]
    if not all(split in published for split in used):
        return []
    return list({published[split]["name"]: published[split] for split in used}.values())


def _eval_results(record, metrics, seeds):
    results = []
    published = record["data"].get("published", {})
    for prefix, split in SPLITS.items():
        file = record["data"]["files"].get(split)
        for key, label in METRICS.items():
            value = metrics.get(f"{prefix}_{key}")
            if value is None:
                continue
            mean_of = sum(one is not None for one in value["runs"]) if seeds > 1 else 1
            results.append(
                EvalResult(
                    task_type=TASK,
                    task_name="Document-level relation extraction",
                    dataset_type=published.get(split, {}).get("hub_name") or "local-files",
                    dataset_name=one_line(
                        f"{base_name(file['source'])}, sha256 {file['sha256']}" if file else f"{split} documents"
                    ),
                    dataset_split=split,
                    metric_type=key,
                    metric_name=f"{label}{_over_seeds(seeds, mean_of)}",
                    metric_value=round(value["mean"] if seeds > 1 else value, 4),
                )
            )
    return results


def _over_seeds(seeds, found):
    """What a value is of, where a run has several seeds, of which perhaps not all have it."""
    if seeds == 1:
        return ""
    return f", mean of {found} seeds" if found > 1 else f", of one of {seeds} seeds"


# ----------------------------------------------------------------------------------------------------------- template


_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    undefined=jinja2.StrictUndefined,
    finalize=plain,  # everything that the template shows, unless a filter has made it Markdown
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_TEMPLATES.filters |= {
    "base_name": base_name,
    "block": block,
    "code": code,
    "count": card_tables.count,
    "format_scores": lambda scores: format_scores(scores["scores"], scores["type_prior"], "type prior"),
    "python": lambda value: Markdown(json.dumps(value, ensure_ascii=False)),
    "shell": lambda value: Markdown(shlex.quote(value)),
    "without_folders": card_tables.without_folders,
}


def write_card(card: str, path: str | None = None) -> None:
    """Writes a card to a file, or prints it."""
    if path:
        write_text(path, card)
    else:
        sys.stdout.write(card)
