"""The documents of a run of `run_docre.py`: which files they are read from, and the labels that they define."""

import dataclasses
import itertools
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset, IterableDataset

from modeling_comm import CommForDocumentRelationExtraction, CommProcessor
from modeling_comm.data import DatasetEntry, get_dataset
from modeling_comm.data.dataset_entry import DEFAULT_SPLITS
from modeling_comm.documents import Document
from modeling_comm.evaluation.scoring import IgnReference, load_ign_reference
from modeling_comm.training.build_model import is_comm_checkpoint, load_checkpoint, new_model
from modeling_comm.training.encode_splits import encode_splits
from modeling_comm.training.script_arguments import Arguments, DataArguments
from modeling_comm.utils.files import file_sha256

from .builder import NoRelationsError, find_data_files, labels_of_dataset, load_splits, to_document
from .completion import complete_split
from .describe import describe_documents, format_description
from .provenance import FileProvenance, read_provenance

logger = logging.getLogger(__name__)


@dataclass
class Data:
    """
    The documents that a run reads.

    Attributes:
        splits (`dict[str, Dataset | IterableDataset]`): rows of `train`, `validation` and `test`, as far as there are any.
            `train` has the documents of `--train_split`, and is iterable if they are streamed.
        sources (`dict[str, FileProvenance]`): by split, where the documents come from.
        entry (`DatasetEntry`): what is known of the data set.
        ign_reference (`IgnReference`, *optional*): the facts that Ign F1 leaves out.
        completion (`dict`, *optional*): where rules completed the training labels, the file of `rules`, its `sha256`, and, unless
            the documents are streamed, the counts of [`~modeling_comm.incomplete_labels.rules.Completion`].
    """

    splits: dict[str, Dataset | IterableDataset]
    sources: dict[str, FileProvenance]
    entry: DatasetEntry
    ign_reference: IgnReference | None = None
    completion: dict | None = None

    def documents(self, split: str) -> Iterator[Document]:
        """The documents of a split in DocRED's format; none if there is no such split."""
        return map(to_document, self.splits.get(split, ()))

    def is_streamed(self, split: str) -> bool:
        """Returns whether there is such a split and its number of documents is unknown."""
        return isinstance(self.splits.get(split), IterableDataset)

    def check_splits(self, needed: Mapping[str, str]) -> None:
        """Raises `ValueError` where the split that a flag needs is missing; `needed` has the split of each flag."""
        for flag, split in needed.items():
            if split not in self.splits:
                sources = [source["source"] for source in self.sources.values()]
                raise ValueError(f"{flag} needs a {split} split; found {sorted(self.splits)} in {sources}")


def load_data(arguments: Arguments) -> Data:
    """
    Loads what the arguments name: all splits that exist, or, for a teacher, the documents that it predicts.

    Raises:
        DocumentError: a document is malformed, see `--on_bad_document`.
        FileNotFoundError: a file or a folder that a flag names is missing, or the folder has no file of the data set. A split
            whose file the folder lacks is left out, with a warning.
        ValueError: the arguments name no training documents.
    """
    options, only_training = arguments.data, arguments.distillation.do_predict_teacher
    files = find_files(options, only_training)

    def load(**how):
        return load_splits(
            options.dataset_config,
            on_bad_document=options.on_bad_document,
            cache_dir=arguments.model.cache_dir,
            **how,
        )

    # Read by themselves are training documents that are streamed, or that are others than those that Ign F1 refers to.
    apart = only_training or options.streaming or options.train_split != "train"
    training_files = {split: path for split, path in files.items() if apart and split == options.train_split}
    other_files = {split: path for split, path in files.items() if split not in training_files}
    data = Data({}, {}, get_dataset(options.dataset_config))
    if other_files:
        data.splits = dict(load(data_files=other_files))
        data.sources = read_provenance(data.splits)
    if not only_training:
        data.ign_reference = load_reference(options, data)
    if training_files:
        loaded = load(data_files=training_files, streaming=options.streaming)
        data.splits["train"] = loaded[options.train_split]
        data.sources["train"] = read_provenance(loaded)[options.train_split]
    limits = {
        "train": options.max_train_documents,
        "validation": options.max_eval_documents,
        "test": options.max_predict_documents,
    }
    for split, limit in limits.items():
        if limit is not None and split in data.splits:
            data.splits[split] = data.splits[split].take(limit)
    if options.complete_labels and "train" in data.splits:
        relations = load_labels(arguments, data)[0][1:]
        data.splits["train"], added = complete_split(
            data.splits["train"], options.complete_labels, relations, data.entry.candidates
        )
        data.completion = {"rules": options.complete_labels, "sha256": file_sha256(options.complete_labels)}
        data.completion |= added._asdict() if added else {}
    return data


def find_files(options: DataArguments, only_training: bool = False) -> dict[str, str]:
    """
    Path or address of each split's file: those that are named by flags, else the official ones.

    Args:
        options (`DataArguments`): the flags.
        only_training (`bool`, defaults to `False`): look for the file of `--train_split` and no other.
    """
    named = {
        "train": options.train_file,
        "validation": options.validation_file,
        "test": options.test_file,
        "train_distant": options.train_distant_file,
    }
    named = {split: path for split, path in named.items() if path is not None}
    reads_official = options.data_dir or not named
    if options.data_dir and not Path(options.data_dir).is_dir():
        raise FileNotFoundError(f"--data_dir {options.data_dir}: expected a folder, found none")
    training_split = options.train_split
    if only_training:
        named = {split: path for split, path in named.items() if split == training_split}
    official = {}
    if reads_official and not only_training:
        try:
            official = find_data_files(options.dataset_config, options.data_dir)
        except FileNotFoundError:
            if not named:  # otherwise the folder may hold the list of relations alone
                raise
    # The official files that are found by default lack the distantly supervised documents.
    if reads_official and training_split not in named and (only_training or training_split == "train_distant"):
        official |= find_data_files(options.dataset_config, options.data_dir, splits=[training_split])
    files = official | named
    if training_split == "train_distant" and training_split not in files:
        raise ValueError("--train_split train_distant needs --train_distant_file or --data_dir; found neither")
    if official:
        _warn_of_absent_splits(options, files)
    return {split: files[split] for split in (*DEFAULT_SPLITS, "train_distant") if split in files}


def _warn_of_absent_splits(options, files):
    listed = get_dataset(options.dataset_config).files
    absent = [f"{listed[split].name} ({split})" for split in DEFAULT_SPLITS if split in listed and split not in files]
    if absent and options.data_dir:
        where, name = options.data_dir, options.dataset_config
        logger.warning("%s lacks %s of the data set %r; there is no such split", where, " and ".join(absent), name)


def load_reference(options: DataArguments, data: Data) -> IgnReference | None:
    """The facts that Ign F1 leaves out; None with `--ign_reference none`, or without training documents."""
    if options.ign_reference != "train":
        return None if options.ign_reference == "none" else load_ign_reference(options.ign_reference)
    if "train" not in data.splits and options.streaming and options.train_split == "train":
        logger.warning(
            "no Ign F1: the training documents are streamed, so their facts are not known before; give --ign_reference FILE"
        )
        return None
    if "train" not in data.splits:
        logger.info("no Ign F1: there are no training documents whose facts it could leave out, see --ign_reference")
        return None
    documents, source = list(data.documents("train")), data.sources["train"]
    if unlabelled := sum("labels" not in document for document in documents):
        logger.warning("no Ign F1: %d of %d training documents have no labels", unlabelled, len(documents))
        return None
    facts = load_ign_reference(documents)
    return dataclasses.replace(facts, source=Path(source["source"]).name, sha256=source["sha256"])


def load_labels(arguments: Arguments, data: Data) -> tuple[list[str], dict[str, str]]:
    """
    Labels of a new model and their readable names. Where no file lists them, they are those of the documents for training and
    validation: a relation that occurs in validation documents only cannot be learned, but it counts as missed.
    """
    options = arguments.data
    known = [data.splits[split] for split in ("train", "validation") if split in data.splits]
    flags = ("data_dir", "train_file", "train_distant_file", "validation_file", "test_file")
    has_files = any(getattr(options, flag) for flag in flags)
    return labels_of_dataset(
        data.entry,
        options.data_dir,
        itertools.chain(*known),
        downloads_names=not has_files,
        cache_dir=arguments.model.cache_dir,
        inverse=data.entry.inverse,
    )


def load_model(arguments: Arguments, data: Data) -> tuple[CommForDocumentRelationExtraction, CommProcessor]:
    """
    The model to start from and its processor: a COMM checkpoint, or a new model around a bare encoder.

    Raises:
        ValueError: the model is a bare encoder and is not to be trained.
    """
    if is_comm_checkpoint(arguments.model):
        if arguments.model.ignore_mismatched_sizes:
            return load_checkpoint(arguments.model, *load_labels(arguments, data), data.entry.candidates)
        model, processor = load_checkpoint(arguments.model)
        _warn_of_other_candidates(data.entry, processor)
        return model, processor
    if not arguments.training.do_train and not arguments.data.describe_data:
        raise ValueError(
            f"--model_name_or_path {arguments.model.model_name_or_path} is a bare encoder, and what is new around it would be "
            "random; expected a trained model, or --do_train"
        )
    return new_model(arguments.model, *load_labels(arguments, data), data.entry.candidates, data.entry.entity_types)


def _warn_of_other_candidates(entry, processor):
    """The checkpoint decides which pairs it is asked about."""
    declared, own = entry.candidates.of_labels(processor.relations), processor.candidates
    if declared != own:
        found = f"{own.given() or 'all pairs'}; the data set {entry.name!r} declares {declared.given() or 'all pairs'}"
        logger.warning("the checkpoint is asked about %s", found)


def describe_data(arguments: Arguments, data: Data) -> str:
    """A table of what is in the data and, where a model is named, what its tokenizer would drop."""
    reports = None
    if arguments.model.model_name_or_path:
        try:
            _, processor = load_model(arguments, data)
        except NoRelationsError:  # what a tokenizer drops does not depend on them
            labels = [data.entry.null_label, "unknown"]
            _, processor = new_model(arguments.model, labels, {}, data.entry.candidates, data.entry.entity_types)
        _, reports = encode_splits(data.splits, processor, arguments)
    described = {split: describe_documents(data.documents(split), data.entry.candidates) for split in data.splits}
    has_labels = any(counts["relations"] for counts in described.values())
    names = load_labels(arguments, data)[1] if has_labels else None
    return format_description(described, reports, names, data.entry.published_statistics)
