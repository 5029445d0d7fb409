"""Arguments of `run_docre.py`, from flags and from JSON or YAML files."""

import argparse
import json
from dataclasses import dataclass, field, make_dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser

from ..configuration_comm import own_settings, registered_settings
from ..extensions import import_extensions
from ..losses import available_losses
from ..relation_encoders import available_relation_encoders
from ..settings import Setting
from .training_args import CommTrainingArguments


@dataclass
class ModelArguments:
    """Which model. [`model_arguments_class`] adds the fields of its configuration."""

    model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "A bare encoder, around which a new model is built, or a finished COMM checkpoint to go on with."
        },
    )
    word_leading_space: bool = field(
        default=True,
        metadata={"help": "Byte-level tokenizers read words with their leading space; the originals do not."},
    )
    extensions: list[str] | None = field(
        default=None, metadata={"help": "Python files that register a relation encoder or loss of your own."}
    )
    backbone_overrides: str | None = field(
        default=None,
        metadata={
            "help": "JSON of fields of the backbone's configuration, e.g. '{\"attention_probs_dropout_prob\": 0}'."
        },
    )
    attn_implementation: str | None = field(default=None, metadata={"help": "sdpa (default) or eager."})
    cache_dir: str | None = field(default=None, metadata={"help": "Where downloaded models and data are kept."})
    model_revision: str = field(default="main", metadata={"help": "Branch, tag or commit of the model on the Hub."})
    token: str | None = field(default=None, metadata={"help": "Access token of the Hub, for private models."})


@dataclass
class DataArguments:
    """Which documents, and how they are read."""

    dataset_config: str = field(
        default="redocred",
        metadata={"help": "docred, redocred, or docred_mixed (DocRED's train; Re-DocRED's dev and test)."},
    )
    data_dir: str | None = field(
        default=None,
        metadata={"help": "Folder with the official files; without it they come from their public addresses."},
    )
    train_file: str | None = field(default=None, metadata={"help": "Training documents, instead of data_dir's."})
    validation_file: str | None = field(
        default=None, metadata={"help": "Documents for evaluation and model selection."}
    )
    test_file: str | None = field(
        default=None, metadata={"help": "Documents for --do_predict, with or without labels."}
    )
    train_distant_file: str | None = field(
        default=None, metadata={"help": "Distantly supervised documents, for --train_split train_distant."}
    )
    train_split: str = field(
        default="train",
        metadata={
            "help": "What to train on or label: train, or train_distant (distantly supervised documents).",
            "choices": ["train", "train_distant"],
        },
    )
    streaming: bool = field(
        default=False,
        metadata={
            "help": "Read training documents while training or labelling, in bounded memory (needs --max_steps)."
        },
    )
    on_bad_document: str = field(
        default="error", metadata={"help": "A document that does not fit: error, or skip (counted and listed)."}
    )
    ign_reference: str = field(
        default="train",
        metadata={
            "help": "Facts left out for Ign F1: train (the training documents), none, or a file of documents or facts."
        },
    )
    max_length: int | None = field(
        default=None, metadata={"help": "Truncate documents to so many word pieces; by default nothing is truncated."}
    )
    max_train_documents: int | None = field(default=None, metadata={"help": "Use the first so many only (debugging)."})
    max_eval_documents: int | None = field(default=None, metadata={"help": "Likewise for evaluation."})
    max_predict_documents: int | None = field(default=None, metadata={"help": "Likewise for prediction."})
    preprocessing_num_workers: int | None = field(default=None, metadata={"help": "Processes that encode documents."})
    describe_data: bool = field(
        default=False, metadata={"help": "Print what is in the data and what the tokenizer would drop, then stop."}
    )


@dataclass
class DistillationArguments:
    """Teacher and student: label documents with a teacher (--do_label), then train a student on them (--do_train)."""

    do_label: bool = field(
        default=False,
        metadata={"help": "Store the model's logits on the training documents in --teacher_logits, for a student."},
    )
    teacher_logits: str | None = field(
        default=None,
        metadata={"help": "Folder of a teacher's logits: written by --do_label, learnt from by --do_train."},
    )
    distillation_weight: float = field(
        default=1.0, metadata={"help": "Weight of the mean squared difference between student's and teacher's logits."}
    )
    distillation_raw_logits: bool = field(
        default=False,
        metadata={"help": "Compare logits as they are (KD-DocRE's code), not relative to the threshold class's."},
    )


@dataclass
class RunArguments:
    """How the script runs."""

    seeds: list[int] | None = field(
        default=None, metadata={"help": "Several runs in one call, one a seed, with mean and standard deviation."}
    )
    early_stopping_patience: int | None = field(
        default=None, metadata={"help": "Stop after so many evaluations without a better one."}
    )
    tune_threshold_offset: bool = field(
        default=False,
        metadata={
            "help": "After training choose threshold_offset for the best F1 on the validation documents; the checkpoint keeps it."
        },
    )
    restart: bool = field(
        default=False, metadata={"help": "Delete output_dir's checkpoints instead of going on from them."}
    )
    show_triples: int = field(default=0, metadata={"help": "Print so many predicted triples in words."})


def configuration_settings() -> dict[str, Setting]:
    """The fields of [`CommConfig`] that have a flag, those of every registered loss and relation encoder among them."""
    return {setting.field: setting for setting in own_settings()} | registered_settings()


def given_fields(model_args: ModelArguments) -> dict[str, Any]:
    """The fields of the configuration that were given by a flag or in a file."""
    values = {field: getattr(model_args, field, None) for field in configuration_settings()}
    return {field: value for field, value in values.items() if value is not None}


def model_arguments_class() -> type[ModelArguments]:
    """[`ModelArguments`] with the fields of the configuration, each None unless it is given."""
    names = {"loss": available_losses(), "relation_encoder": available_relation_encoders()}
    fields = []
    for name, setting in configuration_settings().items():
        text = setting.help.rstrip(".").replace("%", "%%")
        allowed = ", ".join(names[name]) if name in names else replace(setting, type=setting.kind).expected
        default = "" if setting.default is None else f"; default: {setting.default}"
        help_text = f"{text} ({allowed}{default})."
        type_ = mapping if setting.is_mapping else setting.kind | None
        fields.append((name, type_, field(default=None, metadata={"help": help_text})))
    return make_dataclass("ModelArguments", fields, bases=(ModelArguments,))


def mapping(text: str) -> dict:
    """A mapping written as JSON."""
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(f"found a {type(value).__name__}; expected a mapping such as '{{\"P17\": 0.5}}'")
    return value


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults but for None, which says nothing."""

    def _get_help_string(self, action):
        return action.help if action.default is None else super()._get_help_string(action)


def parse_arguments(argv, description=None):
    """
    Arguments from a JSON or YAML file, if the first one is one, and from flags, which win.

    The files that `--extensions` names are imported first, so that the settings of their losses and relation encoders are flags.

    Args:
        argv (`list[str]`): Words of the command line.
        description (`str`, *optional*): What `--help` says first.

    Returns:
        `tuple`: `ModelArguments`, [`DataArguments`], [`CommTrainingArguments`], [`DistillationArguments`], [`RunArguments`].

    Raises:
        `ValueError`: The file holds no mapping, or an argument that does not exist.
    """
    argv, settings = list(argv), {}
    path = Path(argv.pop(0)) if argv and argv[0].endswith((".json", ".yaml", ".yml")) else None
    if path:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))  # JSON is YAML, too
        if not isinstance(settings, dict):
            raise ValueError(
                f"{path}: found a {type(settings).__name__}; expected a mapping of argument names to values"
            )
    argv = [*as_flags(settings), *argv]
    import_extensions(_named_extensions(argv))
    parser = HfArgumentParser(
        (model_arguments_class(), DataArguments, CommTrainingArguments, DistillationArguments, RunArguments),
        description=description,
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
    )
    unknown = sorted(set(settings) - {action.dest for action in parser._actions})
    if unknown:
        raise ValueError(f"{path}: unknown arguments {unknown}; --help lists the known ones")
    parser.set_defaults(**{name: None for name, value in settings.items() if value is None})
    return parser.parse_args_into_dataclasses(args=argv)


def _named_extensions(argv):
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--extensions", nargs="+")
    return parser.parse_known_args(argv)[0].extensions


def as_flags(settings):
    """Settings of a file as the flags that say the same, so that both are checked alike."""
    for name, value in settings.items():
        if isinstance(value, list):
            yield from (f"--{name}", *map(str, value))
        elif value is not None:
            yield f"--{name}={value if isinstance(value, str) else json.dumps(value)}"
