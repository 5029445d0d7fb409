"""Registered data sets and the user's files as a `datasets` builder, read from JSON in DocRED's format, wherever it is."""

import logging
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
from datasets.data_files import DataFilesDict, DataFilesList
from datasets.exceptions import DatasetGenerationError

from modeling_comm.data import DatasetEntry, get_dataset
from modeling_comm.data.dataset_entry import DEFAULT_SPLITS
from modeling_comm.data.reading import iterate_documents
from modeling_comm.documents import Document, shown
from modeling_comm.formats import ImportReport, matching_formats, read_documents
from modeling_comm.reporting.redaction import redact
from modeling_comm.utils.files import file_sha256, read_json
from modeling_comm.utils.relation_names import RELATION_FILE, RELATION_PLACES, means_no_relation, read_relation_names

from .provenance import FileProvenance, left_out_in_words, read_provenance, write_provenance

logger = logging.getLogger(__name__)


# --------------------------------------------------------------------------------------------------------- the builder

_INTEGERS = datasets.List(datasets.Value("int32"))
FEATURES = datasets.Features(
    {
        "title": datasets.Value("string"),
        "sents": datasets.List(datasets.List(datasets.Value("string"))),
        "vertexSet": datasets.List(
            datasets.List(
                {
                    "name": datasets.Value("string"),
                    "sent_id": datasets.Value("int32"),
                    "pos": _INTEGERS,
                    "type": datasets.Value("string"),
                }
            )
        ),
        "labels": datasets.List(
            {
                "h": datasets.Value("int32"),
                "t": datasets.Value("int32"),
                "r": datasets.Value("string"),
                "evidence": _INTEGERS,
            }
        ),
        "has_labels": datasets.Value("bool"),
        "ignored_pairs": datasets.List(_INTEGERS),
        "entity_ids": datasets.List(datasets.List(datasets.Value("string"))),
        "untyped_entities": _INTEGERS,
    }
)
# Fields that few documents have. A row without one has `None`.
_OPTIONAL = ("ignored_pairs", "entity_ids", "untyped_entities")


def _to_row(document):
    labels = document.get("labels")
    if labels is not None:
        labels = [{"h": x["h"], "t": x["t"], "r": x["r"], "evidence": x.get("evidence")} for x in labels]
    entities = [
        [{field: mention[field] for field in ("name", "sent_id", "pos", "type")} for mention in mentions]
        for mentions in document["vertexSet"]
    ]
    return {
        "title": document["title"],
        "sents": document["sents"],
        "vertexSet": entities,
        "labels": labels,
        "has_labels": labels is not None,
        **{field: document.get(field) for field in _OPTIONAL},
    }


def to_document(row: Mapping[str, Any]) -> Document:
    """A row of the data set as a document in DocRED's format; one without labels has no such field."""
    document: Any = {field: row[field] for field in ("title", "sents", "vertexSet")}
    if row["has_labels"]:
        document["labels"] = [
            {field: value for field, value in label.items() if value is not None} for label in row["labels"]
        ]
    return document | {field: row[field] for field in _OPTIONAL if row.get(field) is not None}


@dataclass
class DocumentsConfig(datasets.BuilderConfig):
    """
    Configuration of [`Documents`].

    Args:
        name (`str`): name of the data set; it is part of the cache's key.
        data_files (`dict[str, str]`): one local file for each split.
        on_bad_document (`str`, defaults to `"error"`), relations (`Collection[str]`, *optional*): as in
            [`~modeling_comm.data.reading.iterate_documents`].
        format (`str`, *optional*): what files are in that look like it, see [`~modeling_comm.data.DatasetEntry`]. By default any
            that a file looks like.
        sources (`dict[str, str]`, *optional*): by split, what messages and records call the file. Its path by default.
        sha256 (`dict[str, str]`): by split; set from the files.
    """

    on_bad_document: str = "error"
    relations: tuple[str, ...] | None = None
    format: str | None = None
    sources: dict[str, str] | None = None
    sha256: dict[str, str] | None = None

    def path(self, split: str) -> str:
        files = self.data_files[split]
        if len(files) != 1:
            raise ValueError(f"data_files[{split!r}] has {len(files)} files; expected one")
        return files[0]

    def create_config_id(self, config_kwargs: dict[str, Any], custom_features: datasets.Features | None = None) -> str:
        if not self.data_files:
            raise ValueError(
                "Documents needs data_files, one local file for each split; load_splits finds or downloads them"
            )
        # Contents decide what the cache answers; datasets itself looks at a file's name and time only.
        self.sha256 = {str(split): file_sha256(self.path(split)) for split in self.data_files}
        return super().create_config_id({**config_kwargs, "sha256": self.sha256}, custom_features)


class Documents(datasets.GeneratorBasedBuilder):
    """
    One row for each document: `title`, `sents`, `vertexSet`, `labels`, `has_labels`, `ignored_pairs`, `entity_ids` and
    `untyped_entities`. `labels` is `None` where the file has none (`has_labels` is false), which is not the same as an empty
    list, a document in which nothing is related. Fields beyond DocRED's own, such as the `global_pos` and `index` of mentions
    in Re-DocRED, are not kept.
    [`to_document`] turns a row back.

    [`load_splits`] is the easy way to use it.
    """

    VERSION = datasets.Version("1.3.0")  # part of the cache's key: a change of rows or checks is a new version
    BUILDER_CONFIG_CLASS = DocumentsConfig
    is_streamed = False  # then each pass logs what it leaves out

    def _info(self):
        sources = self.config.sources or {}
        files = {
            split: FileProvenance(
                source=redact(sources.get(split, self.config.path(split))), sha256=sha256, skipped=[]
            )
            for split, sha256 in self.config.sha256.items()
        }
        info = datasets.DatasetInfo(features=FEATURES)
        write_provenance(info, files)
        return info

    def _split_generators(self, dl_manager):
        return [datasets.SplitGenerator(str(split), {"split": str(split)}) for split in self.config.data_files]

    def _generate_examples(self, split):
        config, provenance, skipped = self.config, read_provenance(self), []
        path, source = config.path(split), provenance[split]["source"]
        dropped, report = Counter(), None
        keep_entities = split == "test"  # predictions name them by their numbers
        if form := _format_of(path, config.format):
            report = ImportReport(skipped=skipped)
            documents = read_documents(
                path, form, report, config.on_bad_document, config.relations, source, keep_entities=keep_entities
            )
        else:
            documents = iterate_documents(
                path,
                config.on_bad_document,
                config.relations,
                source,
                skipped,
                dropped,
                keep_entities=keep_entities,
            )
        index = -1
        try:
            for index, document in enumerate(documents):
                yield index, _to_row(document)
        finally:  # nobody reads the provenance of a stream, and it need not be read to its end
            if self.is_streamed:
                _warn_of_left_out({"source": source, "dropped": dropped, "left_out": report.dropped if report else {}})
                for error in skipped if report else ():  # of DocRED's format they are logged where they are read
                    logger.warning("Skipped: %s", error)
        provenance[split]["skipped"] = [vars(error) for error in skipped]
        if dropped:
            provenance[split]["dropped"] = dict(dropped)
        if report:
            provenance[split] |= {"format": form, "left_out": dict(report.dropped)}
        write_provenance(self.info, provenance)
        if index < 0:
            raise ValueError(f"{source}: found no document ({len(skipped)} skipped), expected at least one")


def _format_of(path, format):
    """The data set's format, if the file looks like it, or what a file of one's own looks like; None for DocRED's JSON."""
    found = [form.name for form in matching_formats(path)]
    if format is not None:
        return format if format in found else None
    return found[0] if len(found) == 1 and found != ["docred"] else None


# -------------------------------------------------------------------------------------------------------- the easy way


def load_splits(
    name: str,
    data_dir: str | os.PathLike | Sequence | None = None,
    data_files: Mapping[str, str | os.PathLike] | None = None,
    splits: Sequence[str] | None = None,
    on_bad_document: str = "error",
    relations: Collection[str] | None = None,
    streaming: bool = False,
    cache_dir: str | None = None,
) -> datasets.DatasetDict | datasets.IterableDatasetDict:
    """
    Loads a registered data set.

    Args:
        name (`str`): name of its [`~modeling_comm.data.DatasetEntry`]; `"local"` for the user's own files.
        data_dir (`str` or `list[str]`, *optional*): folders with the entry's files, plain or with `.gz` added to the
            name.
        data_files (`dict[str, str]`, *optional*): path or address of each split's file, whatever its name. Without it
            and `data_dir`, files come from their public addresses.
        splits (`list[str]`, *optional*): what to load of `"train"`, `"validation"`, `"test"` and `"train_distant"`. By
            default all that `data_files` has, or the first three as far as `data_dir` or the entry has them.
        on_bad_document, relations: as in [`~modeling_comm.data.reading.iterate_documents`].
        streaming (`bool`, defaults to `False`): read the files while iterating, in bounded memory and without a copy
            on disk. What is left out is then logged in each pass but not in the provenance.
        cache_dir (`str`, *optional*): where `datasets` keeps what it has prepared. A changed file is prepared again.

    Returns:
        `DatasetDict`, or `IterableDatasetDict` if streaming, with the rows of [`Documents`].
        [`~dataset_scripts.provenance.read_provenance`] tells the files, their SHA-256 and what was skipped.

    Raises:
        DocumentError: a document is malformed; see [`~modeling_comm.data.reading.iterate_documents`].
        FileNotFoundError: a file is not where it should be; the message says which one is expected where.
        ConnectionError: a file could not be downloaded.
        ValueError: the arguments make no sense.
    """
    sources = find_data_files(name, data_dir, data_files, splits)
    builder = Documents(
        config_name=name,
        cache_dir=cache_dir,
        # Ready-made, because datasets takes a plain path for a pattern, and folders may be called `runs[1]`.
        data_files=DataFilesDict(
            {split: DataFilesList([_local_file(source, cache_dir)], [()]) for split, source in sources.items()}
        ),
        sources=sources,
        on_bad_document=on_bad_document,
        relations=None if relations is None else tuple(sorted(relations)),
        format=get_dataset(name).format,
    )
    if streaming:
        builder.is_streamed = True
        return builder.as_streaming_dataset()
    try:
        builder.download_and_prepare()
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, ValueError):  # says what is wrong, which its wrapper does not
            raise error.__cause__ from None
        raise
    loaded = builder.as_dataset()
    for split, file in read_provenance(loaded).items():
        _warn_of_left_out(file)
        if file["skipped"]:
            indices = ", ".join(str(skipped["index"]) for skipped in file["skipped"])
            logger.warning(
                "%s: skipped %d documents and kept %d; skipped were the ones with index %s",
                file["source"],
                len(file["skipped"]),
                loaded[split].num_rows,
                indices,
            )
    return loaded


def _warn_of_left_out(file):
    for parts in left_out_in_words(file):
        logger.warning("%s: left out %s", file["source"], parts)


def find_data_files(
    name: str,
    data_dir: str | os.PathLike | Sequence | None = None,
    data_files: Mapping[str, str | os.PathLike] | None = None,
    splits: Sequence[str] | None = None,
) -> dict[str, str]:
    """Path or address of each split's file; arguments and errors as in [`load_splits`]."""
    files = get_dataset(name).files
    if data_dir is not None and data_files is not None:
        raise ValueError("data_dir and data_files are both given; expected one of them")
    unknown = sorted({*(splits or ()), *(data_files or ())} - {*DEFAULT_SPLITS, "train_distant"})
    if unknown:
        raise ValueError(
            f"{', '.join(unknown)}: no such split; expected some of {', '.join(DEFAULT_SPLITS)}, train_distant"
        )
    by_default = [split for split in DEFAULT_SPLITS if split in files]
    if data_files is not None:
        found = {split: os.fspath(source) for split, source in data_files.items()}
        wanted, where = splits or list(found), "data_files"
    elif data_dir is not None:
        found = {split: path for split, file in files.items() if (path := _find_file(data_dir, file.name))}
        wanted = splits or [split for split in by_default if split in found] or by_default
        where = ", ".join(_folders(data_dir))
    else:
        found = {split: file.address for split, file in files.items() if file.address}
        wanted, where = splits or by_default, "the public addresses"
    missing = [split for split in wanted if split not in found]
    if missing:
        names = {split: files[split].name if split in files else "a file" for split in missing}
        expected = " and ".join(f"{names[split]} for the split {split}" for split in missing)
        given = ", ".join(f"--{split}_file" for split in missing)
        elsewhere = "" if data_files is not None else f"; others are named by {given} (data_files in Python)"
        raise FileNotFoundError(f"data set {name!r}: expected {expected} in {where}, found no such file{elsewhere}")
    return {split: found[split] for split in wanted}


def _folders(data_dir):
    if data_dir is None:
        return []
    return [os.fspath(path) for path in ([data_dir] if isinstance(data_dir, (str, os.PathLike)) else data_dir)]


def _find_file(data_dir, name, places=("",)):
    candidates = (
        os.path.join(folder, place, name + ending)
        for folder in _folders(data_dir)
        for place in places
        for ending in ("", ".gz")
    )
    return next(filter(os.path.isfile, candidates), None)


def _local_file(source, cache_dir):
    """The path itself, or where the file of an address has been downloaded to."""
    if "://" not in source:
        if not os.path.isfile(source):
            raise FileNotFoundError(f"{source}: expected a file, found none")
        return source
    folder = None if cache_dir is None else os.path.join(cache_dir, "downloads")
    try:
        # What has been downloaded once stays as it is, and is used without a network.
        config = datasets.DownloadConfig(cache_dir=folder, use_etag=False)
        return datasets.DownloadManager(download_config=config).download(source)
    except Exception as error:  # whatever the library that fetches this kind of address raises
        shown = redact(source)
        # Where the address has a secret, the text of the error may have it, too.
        why, cause = (f": {error}", error) if shown == source else ("", None)
        raise ConnectionError(
            f"{shown.rsplit('/', 1)[-1]} could not be downloaded from {shown} ({type(error).__name__}{why}). Download it "
            "by other means and give its folder as data_dir (--data_dir), or its path in data_files"
        ) from cause


# ----------------------------------------------------------------------------------------------------------- relations


class NoRelationsError(ValueError):
    """Nothing says which relations there are."""


def relation_labels(
    data_dir: str | os.PathLike | Sequence | None = None,
    documents: Iterable[Document] | None = None,
    rel2id: str | None = None,
    rel_info: str | None = None,
    cache_dir: str | None = None,
    null_label: str = "Na",
    inverse: Mapping[str, str] | None = None,
    beside: bool = True,
) -> tuple[list[str], dict[str, str]]:
    """
    The label list of a model. Its order is that of `rel2id.json`, which published checkpoints share; without that
    file, of the sorted relations of `rel_info.json`; without both, of those that occur in the documents.

    Args:
        data_dir (`str` or `list[str]`, *optional*): folders in which, in whose `meta` and beside which in `meta` the
            two files are looked for.
        documents (`Iterable[dict]`, *optional*): the documents (or rows) whose relations have to be among them.
        rel2id, rel_info (`str`, *optional*): path or address of the two files, instead of looking for them.
        beside (`bool`, defaults to `True`): look for them in `meta` in and beside the folders, too, where the files of DocRED's
            family have them.
        cache_dir (`str`, *optional*): where downloads are kept.
        null_label (`str`, defaults to `"Na"`): the label of the threshold class, where `rel2id.json` does not say it. One of the
            other names that it has in published files, see [`~modeling_comm.utils.relation_names.NULL_LABELS`], takes its place
            where it is the only one there.
        inverse (`Mapping[str, str]`, *optional*): relations that a model does not have, because it reads them as others, see
            [`~modeling_comm.candidate_pairs.CandidatePairs`].

    Returns:
        the labels, that of the threshold class first, and a dict with the readable name of each relation, those of `inverse`
        included, from `rel_info.json`, or the relation itself where that is silent.

    Raises:
        NoRelationsError: there is nothing to take labels from.
        ValueError: a file is malformed or lacks relations of the documents.
    """
    places = RELATION_PLACES if beside else ("",)
    rel2id = _local_file(rel2id, cache_dir) if rel2id else _find_file(data_dir, "rel2id.json", places)
    rel_info = _local_file(rel_info, cache_dir) if rel_info else _find_file(data_dir, RELATION_FILE, places)
    names = read_relation_names(rel_info) if rel_info else {}
    places, inverse = _first_places(documents or ()), inverse or {}
    occurring = sorted(places)
    if rel2id:
        null_label, *relations = _ordered_labels(rel2id)
    else:
        null_label = _null_label(null_label, {*names, *occurring})
        relations = sorted(set(names) - {null_label}) or occurring
    if null_label in occurring:
        raise ValueError(f"found a label with the relation {null_label!r}, which means no relation; leave it out")
    # In their order; one that is read as another gives that its place.
    relations = list(dict.fromkeys(inverse.get(relation, relation) for relation in relations))
    occurring = sorted({inverse.get(relation, relation) for relation in occurring})
    if not relations:
        if rel2id or rel_info:
            raise NoRelationsError(f"{rel2id or rel_info}: found no relation, expected at least one")
        where = ", ".join(_folders(data_dir)) or "no data_dir"
        raise NoRelationsError(
            f"found neither rel2id.json nor rel_info.json in {where}, and no relations in documents"
        )
    unknown = sorted(set(occurring) - set(relations))
    if unknown:
        where = places.get(unknown[0])  # not of one as which another relation is read
        raise ValueError(
            f"{rel2id or rel_info}: expected all relations of the documents, found no {', '.join(unknown)}"
            f"{f' (first in {where})' if where else ''}"
        )
    return [null_label, *relations], {relation: names.get(relation, relation) for relation in (*relations, *inverse)}


def _first_places(documents):
    """Where each relation occurs first, in words."""
    places = {}
    for document in documents:
        for number, label in enumerate(document.get("labels") or ()):
            if label["r"] not in places:
                places[label["r"]] = f"document {document.get('title')!r}, field labels[{number}].r"
    return places


def labels_of_dataset(
    entry: DatasetEntry,
    data_dir: str | os.PathLike | Sequence | None,
    documents: Iterable[Document],
    downloads_names: bool,
    cache_dir: str | None = None,
    inverse: Mapping[str, str] | None = None,
) -> tuple[list[str], dict[str, str]]:
    """
    The labels of a registered data set: [`relation_labels`] with what its entry says. Relations in and beside `meta` are those
    of DocRED's family, so a data set in a format of its own has them in its folder alone.

    Args:
        entry (`DatasetEntry`): of the data set.
        downloads_names (`bool`): whether the names of its relations are read from where they are published, not looked for in
            `data_dir`.
        data_dir, documents, cache_dir, inverse: as in [`relation_labels`], which also says what is returned and raised.
    """
    return relation_labels(
        data_dir,
        documents,
        rel_info=entry.relation_info_address if downloads_names else None,
        cache_dir=cache_dir,
        null_label=entry.null_label,
        inverse=inverse,
        beside=entry.format is None,
    )


def _null_label(expected, found):
    """The label of the threshold class among all labels that were found."""
    others = [label for label in found if means_no_relation(label)]
    return others[0] if expected not in found and len(others) == 1 else expected


def _ordered_labels(path):
    ids = read_json(path)
    if not isinstance(ids, dict) or not all(type(value) is int for value in ids.values()):
        raise ValueError(f"{path}: found {shown(ids)}, expected an object of labels and their ids")
    labels = sorted(ids, key=ids.get)
    if not labels or [ids[label] for label in labels] != list(range(len(labels))):
        raise ValueError(f"{path}: found the ids {sorted(ids.values())}, expected 0, 1, ..., each once")
    return labels
