"""Arguments of `run_docre.py`, from flags and from JSON or YAML files."""

import argparse
import copy
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, make_dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser

from ..commands.errors import TRACEBACK
from ..configuration_comm import own_settings, registered_settings
from ..documents import shown
from ..extensions import import_extensions
from ..incomplete_labels.rules import read_rules
from ..losses import available_losses
from ..relation_encoders import available_relation_encoders
from ..settings import Setting, nearest_names
from ..utils.files import read_json
from .script_help import HelpFormatter
from .training_args import CommTrainingArguments


@dataclass
class ModelArguments:
    """Arguments that choose the model. [`model_arguments_class`] adds the fields of its configuration."""

    model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "A bare encoder, around which a new model is built, or a finished COMM checkpoint to train further."
        },
    )
    ignore_mismatched_sizes: bool = field(
        default=False,
        metadata={
            "help": "Train a finished COMM checkpoint further for the relations of these documents: it keeps its encoder "
            "and what it knows of relations that both have."
        },
    )
    decision_threshold: str | None = field(default=None, metadata={"help": "th or zero; follows the loss by default."})
    threshold_offset: float | None = field(
        default=None, metadata={"help": "Margin over the threshold that predictions need (0)."}
    )
    max_relations_per_pair: int | None = field(
        default=None, metadata={"help": "Cap on the relations of a pair (none)."}
    )
    type_constraint: str | None = field(
        default=None,
        metadata={"help": "hard: a relation only between types of head and tail that it has in training (none)."},
    )
    rules: str | None = field(
        default=None,
        metadata={
            "help": "File of rules that complete predicted triples; the checkpoint keeps them (comm-docre rules mines some)."
        },
    )
    evidence_threshold: float | None = field(
        default=None,
        metadata={
            "help": "Share of a pair's attention beyond which a sentence is evidence (0.2 with evidence_weight, else none)."
        },
    )
    fusion_threshold: float | None = field(
        default=None,
        metadata={"help": "Ask about pairs twice, then in evidence; what the sum of margins has to exceed (none)."},
    )
    fusion_range: float | None = field(
        default=None,
        metadata={"help": "Ask a second time only about pairs whose highest margin is no farther from 0 (all)."},
    )
    markers: str | None = field(default=None, metadata={"help": "Mention markers: star, entity_type or none (star)."})
    marker_types: list[str] | None = field(
        default=None,
        metadata={
            "help": "Entity types that entity_type markers tell apart (the data set's, where its entry has some)."
        },
    )
    window_size: int | None = field(
        default=None, metadata={"help": "Subword tokens that the backbone sees at once (512)."}
    )
    window_stride: int | None = field(
        default=None, metadata={"help": "Subword tokens that windows share (a quarter)."}
    )
    window_end_tokens: int | None = field(
        default=None, metadata={"help": "End tokens of all windows but the last (1)."}
    )
    word_leading_space: bool | None = field(
        default=None,
        metadata={"help": "Byte-level tokenizers read words with their leading space (true); the originals do not."},
    )
    extensions: list[str] | None = field(
        default=None,
        metadata={"help": "Python files that register a relation encoder, a loss or a data set of your own."},
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
    trust_remote_code: bool = field(
        default=False,
        metadata={"help": "Run the code that a model's tokenizer brings along; without it such a model is refused."},
    )


@dataclass
class DataArguments:
    """Arguments that choose the documents and how they are read."""

    dataset_config: str = field(
        default="local",
        metadata={
            "help": "Name of a registered data set: its entry has the names and addresses of the files, frequent relations and "
            "the citation. local: files of your own; data_dir then has train.json, dev.json and test.json."
        },
    )
    data_dir: str | None = field(
        default=None,
        metadata={"help": "Folder with the data set's files; without it they come from their public addresses."},
    )
    train_file: str | None = field(default=None, metadata={"help": "Training documents, instead of data_dir's."})
    validation_file: str | None = field(default=None, metadata={"help": "Documents for evaluation and selection."})
    test_file: str | None = field(default=None, metadata={"help": "Documents for --do_predict, labelled or not."})
    train_distant_file: str | None = field(
        default=None, metadata={"help": "Distantly supervised documents, for --train_split train_distant."}
    )
    train_split: str = field(
        default="train",
        metadata={
            "help": "What to train on, or what the teacher predicts: train, or train_distant (distantly supervised documents).",
            "choices": ["train", "train_distant"],
        },
    )
    streaming: bool = field(
        default=False,
        metadata={
            "help": "Read training documents while they are used, in bounded memory. Training needs --max_steps, and "
            "--eval_strategy and --save_strategy other than epoch."
        },
    )
    on_bad_document: str = field(
        default="error",
        metadata={
            "help": "What to do with a malformed document: error; skip (counted and listed); drop_part: leave out its wrong "
            "facts, mentions and entities (counted), or the document if that is not enough."
        },
    )
    ign_reference: str = field(
        default="train",
        metadata={
            "help": "Facts left out for Ign F1: train (the training documents), none, or a file of documents or facts."
        },
    )
    complete_labels: str | None = field(
        default=None,
        metadata={
            "help": "File of rules that complete the training labels (comm-docre rules mines some). Ign F1 leaves out the "
            "original labels only."
        },
    )
    masked_copies: int | None = field(
        default=None,
        metadata={
            "help": "Number of further copies of each training document, in which words for types replace names of entities."
        },
    )
    masked_share: float | None = field(
        default=None,
        metadata={"help": "Share of the entities of these copies whose names are replaced, drawn at random (0.5)."},
    )
    max_length: int | None = field(
        default=None, metadata={"help": "Truncate documents to this many subword tokens (no truncation)."}
    )
    max_train_documents: int | None = field(
        default=None, metadata={"help": "Use only the first N training documents."}
    )
    max_eval_documents: int | None = field(
        default=None, metadata={"help": "Use only the first N validation documents."}
    )
    max_predict_documents: int | None = field(default=None, metadata={"help": "Use only the first N test documents."})
    preprocessing_num_workers: int | None = field(default=None, metadata={"help": "Processes that encode documents."})
    describe_data: bool = field(
        default=False, metadata={"help": "Print what is in the data and what the tokenizer would drop, then stop."}
    )

    @property
    def masked(self) -> dict[str, Any] | None:
        """`copies` and `share` of the copies with masked names; None where there are none."""
        if self.masked_copies is None:
            return None
        return {"copies": self.masked_copies, "share": 0.5 if self.masked_share is None else self.masked_share}


@dataclass
class DistillationArguments:
    """Teacher and student: store a teacher's logits (--do_predict_teacher), then train a student on them (--do_train)."""

    do_predict_teacher: bool = field(
        default=False,
        metadata={"help": "Store the model's logits on the training documents in --teacher_logits, for a student."},
    )
    teacher_logits: str | None = field(
        default=None,
        metadata={"help": "Folder of a teacher's logits: written by --do_predict_teacher, learnt from by --do_train."},
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
    """Arguments of the script itself."""

    seeds: list[int] | None = field(
        default=None, metadata={"help": "Several runs in one call, one per seed, with mean and standard deviation."}
    )
    early_stopping_patience: int | None = field(
        default=None, metadata={"help": "Stop after this many evaluations without improvement."}
    )
    tune_threshold_offset: bool = field(
        default=False,
        metadata={
            "help": "After training, choose threshold_offset for the best F1 on the validation documents; the checkpoint keeps "
            "it."
        },
    )
    fit_probability_map: bool = field(
        default=False,
        metadata={
            "help": "After training, fit a map from margins to probabilities on the validation documents, with the cut for the "
            "best F1: one threshold for each relation; the checkpoint keeps it."
        },
    )
    tune_evidence_threshold: bool = field(
        default=False,
        metadata={
            "help": "After training, choose evidence_threshold for the best evidence F1 on the validation documents."
        },
    )
    tune_fusion_threshold: bool = field(
        default=False,
        metadata={"help": "Likewise fusion_threshold, for the best F1; pairs are then asked about twice."},
    )
    restart: bool = field(
        default=False, metadata={"help": "Delete output_dir's checkpoints and results instead of resuming."}
    )
    show_triples: int = field(default=0, metadata={"help": "Number of predicted triples to print in words."})


def configuration_settings() -> dict[str, tuple[Setting, ...]]:
    """
    The fields of [`CommConfig`] that have a flag, those of every registered loss and relation encoder among them, each with its
    declarations: relation encoders may differ in a range or a default.
    """
    return {setting.field: (setting,) for setting in own_settings()} | registered_settings()


def given_fields(model_args: ModelArguments) -> dict[str, Any]:
    """The fields of the configuration that were given by a flag or in a file."""
    values = {field: getattr(model_args, field, None) for field in configuration_settings()}
    return {field: value for field, value in values.items() if value is not None}


def given_settings(model_args: ModelArguments) -> dict[str, Any]:
    """The settings of the processor that were given by a flag or in a file."""
    from ..processing_comm import CommProcessor  # slow to import, and `--help` needs none of it

    values = {name: getattr(model_args, name, None) for name in CommProcessor.setting_names()}
    if values["rules"]:
        values["rules"] = list(map(str, read_rules(values["rules"])))
    return {name: value for name, value in values.items() if value is not None}


def model_arguments_class() -> type[ModelArguments]:
    """[`ModelArguments`] with the fields of the configuration, each None unless it is given."""
    names = {"loss": available_losses(), "relation_encoder": available_relation_encoders()}
    fields = []
    for name, declared in configuration_settings().items():
        text = declared[0].help.rstrip(".").replace("%", "%%")
        allowed = ", ".join(names[name]) if name in names else _alternatives(one.expected_of_value for one in declared)
        defaults = _alternatives(str(one.default) for one in declared if one.default is not None)
        help_text = f"{text} ({allowed}{f'; default: {defaults}' if defaults else ''})."
        fields.append((name, _flag_type(declared), field(default=None, metadata={"help": help_text})))
    return make_dataclass("ModelArguments", fields, bases=(ModelArguments,))


def _alternatives(texts):
    return " or ".join(dict.fromkeys(texts))


def _flag_type(declared):
    """What the parser takes for a flag's type. Numbers and mappings, and what is declared with several types, are checked as the
    configuration checks them, so that a wrong one is refused before anything is loaded, with its range."""
    first = declared[0]
    if all(one.kind == first.kind for one in declared) and not (first.is_mapping or first.kind in (int, float)):
        return first.kind | None

    def read(text):
        for setting in declared:
            try:
                numeric = setting.kind in (int, float)
                value = mapping(text) if setting.is_mapping else setting.kind(text) if numeric else text
            except (OSError, ValueError):
                value = text
            if setting.fits(value):
                return value
        expected = _alternatives(one.expected_of_value for one in declared)
        raise argparse.ArgumentTypeError(f"found {text!r}; expected {expected}")

    return read


def mapping(text: str) -> Any:
    """A value written as JSON, or, where the text does not begin as a mapping does, that of the JSON file of this name."""
    return json.loads(text) if text.lstrip().startswith(("{", "[")) else read_json(text)


@dataclass
class Arguments:
    """All arguments of `run_docre.py`, by group."""

    model: ModelArguments
    data: DataArguments
    training: CommTrainingArguments
    distillation: DistillationArguments
    run: RunArguments

    @property
    def seeds(self) -> list[int]:
        """The seeds of `--seeds`, or the one of `--seed`."""
        return self.run.seeds or [self.training.seed]

    def given(self, *names: str) -> list[str]:
        """Those of these flags that are set, as they are typed. A number of 0 is set, too."""
        values = {name: value for group in vars(self).values() for name, value in vars(group).items()}
        return [f"--{name}" for name in names if values[name] not in (None, "") and values[name] is not False]

    def for_seed(self, seed: int, output_dir: Path) -> "Arguments":
        """The arguments of the run with this seed, which writes into this folder."""
        training = copy.copy(self.training)
        training.seed, training.output_dir = seed, str(output_dir)
        return replace(self, training=training)

    def input_files(self) -> list[str]:
        """The files that flags name to be read, addresses among them."""
        data, model = self.data, self.model
        documents = (
            data.train_file,
            data.validation_file,
            data.test_file,
            data.train_distant_file,
            data.ign_reference,
        )
        return [*filter(None, (*documents, data.complete_labels, model.rules)), *(model.extensions or ())]

    def splits_used(self) -> set[str]:
        """The splits that a run encodes, as far as there are any."""
        training = self.training
        used = {"train": training.do_train, "validation": training.do_train or training.do_eval}
        used["test"] = training.do_predict
        return {split for split, is_used in used.items() if is_used}

    def splits_needed(self) -> dict[str, str]:
        """The split that each given flag cannot do without."""
        needs = {"do_train": "train", "do_predict_teacher": "train", "do_eval": "validation", "do_predict": "test"}
        needs |= dict.fromkeys(TUNING_FLAGS, "validation")
        if self.training.do_train:
            needs["early_stopping_patience"] = "validation"
        return {flag: split for name, split in needs.items() for flag in self.given(name)}


# What chooses a decision's numbers on the validation documents, after a training.
TUNING_FLAGS = ("tune_threshold_offset", "fit_probability_map", "tune_evidence_threshold", "tune_fusion_threshold")


class UnknownArgumentsError(ValueError):
    """
    Arguments that the script does not have.

    Args:
        unknown (`list[str]`): Their names.
        known (`Iterable[str]`): The names of all arguments.
        where (`str`, *optional*, defaults to `"arguments"`): Where they are.

    Attributes:
        nearest (`list[str]`): The known arguments that were probably meant.
    """

    def __init__(self, unknown: list[str], known: Iterable[str], where: str = "arguments"):
        self.where, self.unknown, self.known = where, unknown, sorted(known)
        self.nearest = [match for name in unknown for match in nearest_names(name, self.known)]
        hint = f" (expected {', '.join(self.nearest)}?)" if self.nearest else ""
        super().__init__(f"{where}: unknown arguments {unknown}; --help lists the known ones{hint}")


def parse_arguments(argv: list[str], description: str | None = None, prog: str | None = None) -> Arguments:
    """
    Arguments from a JSON or YAML file, if the first one is one, and from flags, which override it.

    The files of `--extensions` are imported first, so that the settings of their losses and relation encoders are flags.

    Args:
        argv (`list[str]`): the words of the command line, without the program.
        description (`str`, *optional*), prog (`str`, *optional*): what `--help` shows of the program.

    Raises:
        UnknownArgumentsError: the file or the command line has arguments that do not exist.
        ValueError: the file is malformed, a setting of `--extensions` has the name of a flag, or values do not fit.
        SystemExit: `--help`, or a value that does not have its flag's type.
    """
    argv, settings = list(argv), {}
    path = Path(argv.pop(0)) if argv and argv[0].endswith((".json", ".yaml", ".yml")) else None
    if path:
        try:
            settings = yaml.safe_load(path.read_text(encoding="utf-8"))  # JSON is YAML, too
        except (yaml.YAMLError, ValueError, RecursionError) as error:  # no UTF-8, a month 13
            raise ValueError(f"{path}: found {error}, expected JSON or YAML") from error
        if not isinstance(settings, dict):
            raise ValueError(
                f"{path}: found a {type(settings).__name__}; expected a mapping of argument names to values"
            )
        _check_settings(settings, path)
    argv = [*as_flags(settings), *argv]
    import_extensions(_named_extensions(argv))
    try:
        parser = HfArgumentParser(
            [model_arguments_class(), DataArguments, CommTrainingArguments, DistillationArguments, RunArguments],
            prog=prog,
            usage="%(prog)s [SETTINGS.yaml] [--FLAG VALUE ...]",  # the list of all flags would hide an error
            description=description,
            formatter_class=HelpFormatter,
            allow_abbrev=False,
        )
    except argparse.ArgumentError as error:  # by a setting of an extension, which becomes a flag
        flag = error.argument_name
        raise ValueError(f"a setting of --extensions is {flag}, a flag already; expected another name") from error
    parser.add_argument(TRACEBACK, action="store_true", help="Show where an error comes from, not only one line.")
    known = {action.dest for action in parser._actions}
    unknown = sorted(set(settings) - known)
    if unknown:
        raise UnknownArgumentsError(unknown, known, where=str(path))
    parser.set_defaults(**{name: None for name, value in settings.items() if value is None})
    # Before the remaining words comes --traceback.
    *groups, _traceback, rest = parser.parse_args_into_dataclasses(args=argv, return_remaining_strings=True)
    if rest:
        flags = [word.partition("=")[0] for word in rest if word.startswith("--")]
        raise UnknownArgumentsError(flags or rest, [f"--{name}" for name in known])
    return Arguments(*groups)


def _check_settings(settings, path):
    """Refuses what YAML has and a flag cannot say: a date, for example, which a name without quotes may look like."""
    for name, value in settings.items():
        if not isinstance(name, str):
            raise ValueError(
                f"{path}: found the {type(name).__name__} {shown(name)} before a colon, expected an argument's name"
            )
        try:
            json.dumps(value)
        except (TypeError, ValueError) as error:
            expected = "what JSON has; put a text in quotes"
            raise ValueError(f"{path}, {name}: found {shown(value)} ({error}), expected {expected}") from error


def _named_extensions(argv):
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--extensions", nargs="+")
    return parser.parse_known_args(argv)[0].extensions


def as_flags(settings: dict) -> Iterator[str]:
    """Settings of a file as the flags that say the same, so that both are checked alike."""
    for name, value in settings.items():
        if isinstance(value, list):
            yield from (f"--{name}", *map(str, value))
        elif value is not None:
            yield f"--{name}={value if isinstance(value, str) else json.dumps(value)}"
