"""Arguments of `run_docre.py`, from flags and from JSON or YAML files."""

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser

from .training_args import CommTrainingArguments


@dataclass
class ModelArguments:
    """Which model, and the fields of its configuration."""

    model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "A bare encoder, around which a new model is built, or a finished COMM checkpoint to go on with."
        },
    )
    relation_encoder: str | None = field(
        default=None,
        metadata={"help": "What turns the encoder's states into logits of pairs: atlop, docunet or kd_docre (atlop)."},
    )
    emb_size: int | None = field(default=None, metadata={"help": "Size of head and tail representation (768)."})
    block_size: int | None = field(default=None, metadata={"help": "Group size of the bilinear classifier (64)."})
    unet_in_dim: int | None = field(default=None, metadata={"help": "Channels that docunet reads contexts in (3)."})
    unet_down_dim: int | None = field(default=None, metadata={"help": "Width of docunet's U-Net (256)."})
    unet_out_dim: int | None = field(default=None, metadata={"help": "Size of docunet's pair feature (256)."})
    axial_layers: int | None = field(default=None, metadata={"help": "Axial attention layers of kd_docre (6)."})
    axial_heads: int | None = field(default=None, metadata={"help": "Heads of each (8)."})
    fixed_grid: int | None = field(
        default=None,
        metadata={"help": "Reproduce docunet's and kd_docre's original grid of so many entities (none: it grows)."},
    )
    loss: str | None = field(
        default=None,
        metadata={"help": "cmm, atl, balanced_softmax, aml, afl, hingeabl, margin, sat or ncrl (cmm)."},
    )
    loss_reduction: str | None = field(default=None, metadata={"help": "mean over pairs, or sum (mean)."})
    cmm_margin: float | None = field(default=None, metadata={"help": "CMM's m, eq. 4 of the paper; in [0, 1) (0.2)."})
    cmm_gamma: float | None = field(default=None, metadata={"help": "CMM's gamma, eq. 5 of the paper; >= 0 (1)."})
    aml_margin: float | None = field(default=None, metadata={"help": "Hinge margin of aml (1)."})
    afl_gamma: float | None = field(default=None, metadata={"help": "Focusing exponent of afl (1)."})
    afl_published: bool | None = field(
        default=None, metadata={"help": "AFL's weight as in its paper (false: as its code)."}
    )
    hingeabl_margin: float | None = field(default=None, metadata={"help": "Margin of hingeabl (5)."})
    hingeabl_detach_weights: bool | None = field(
        default=None, metadata={"help": "No gradient through its weights (false)."}
    )
    ncrl_shift: float | None = field(default=None, metadata={"help": "Shift of ncrl (0)."})
    ncrl_regularizer: bool | None = field(default=None, metadata={"help": "NCRL's regulariser (true)."})
    decision_threshold: str | None = field(default=None, metadata={"help": "th or zero; follows the loss by default."})
    threshold_offset: float | None = field(
        default=None, metadata={"help": "Margin over the threshold that predictions need (0)."}
    )
    max_relations_per_pair: int | None = field(
        default=None, metadata={"help": "Cap on the relations of a pair (none)."}
    )
    markers: str | None = field(default=None, metadata={"help": "Mention markers: star, entity_type or none (star)."})
    window_size: int | None = field(
        default=None, metadata={"help": "Word pieces that the backbone sees at once (512)."}
    )
    window_stride: int | None = field(default=None, metadata={"help": "Word pieces that windows share (a quarter)."})
    window_end_tokens: int | None = field(
        default=None, metadata={"help": "End tokens of all windows but the last (1)."}
    )
    word_leading_space: bool | None = field(
        default=None,
        metadata={"help": "Byte-level tokenizers read words with their leading space (true); the originals do not."},
    )
    extensions: list[str] | None = field(
        default=None, metadata={"help": "Python files that register a relation encoder or loss of your own."}
    )
    extension_fields: str | None = field(
        default=None, metadata={"help": "JSON of the fields that they read from the configuration."}
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


def given_settings(model_args: ModelArguments) -> dict[str, Any]:
    """Settings of the processor that were given by a flag or in a file."""
    from ..processing_comm import CommProcessor  # `--help` does without it

    given = {name: getattr(model_args, name, None) for name in CommProcessor.setting_names()}
    return {name: value for name, value in given.items() if value is not None}


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults but for None, which says nothing."""

    def _get_help_string(self, action):
        return action.help if action.default is None else super()._get_help_string(action)


def parse_arguments(argv, description=None):
    """Arguments from a JSON or YAML file, if the first one is one, and from flags, which win."""
    parser = HfArgumentParser(
        (ModelArguments, DataArguments, CommTrainingArguments, DistillationArguments, RunArguments),
        description=description,
        formatter_class=_HelpFormatter,
    )
    if argv and argv[0].endswith((".json", ".yaml", ".yml")):
        path = Path(argv.pop(0))
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))  # JSON is YAML, too
        if not isinstance(settings, dict):
            raise ValueError(
                f"{path}: found a {type(settings).__name__}; expected a mapping of argument names to values"
            )
        known = {action.dest for action in parser._actions}
        unknown = sorted(set(settings) - known)
        if unknown:
            raise ValueError(f"{path}: unknown arguments {unknown}; --help lists the known ones")
        parser.set_defaults(**{name: None for name, value in settings.items() if value is None})
        argv = [*as_flags(settings), *argv]
    return parser.parse_args_into_dataclasses(args=argv)


def as_flags(settings):
    """Settings of a file as the flags that say the same, so that both are checked alike."""
    for name, value in settings.items():
        if isinstance(value, list):
            yield from (f"--{name}", *map(str, value))
        elif value is not None:
            yield f"--{name}={value if isinstance(value, str) else json.dumps(value)}"
