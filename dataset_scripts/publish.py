"""
Publishes documents as a data set of the Hugging Face Hub: Parquet, and a card with counts, sources, licences and citations.

    python -m dataset_scripts.publish --dataset_config redocred --data_dir DATA --output_dir published
    python -m dataset_scripts.publish --dataset_config redocred --data_dir DATA --repo_id ORG/redocred --private

The first command writes a folder, to be looked at; the second one pushes the same. Pushing needs an access token that may
write (`hf auth login`, or the environment variable HF_TOKEN). It is a single commit: if it breaks off, the repository stays
as it was. A repository can hold several configurations, each published by a command of its own: the others stay, and the card
tells of all. Afterwards

    datasets.load_dataset("ORG/redocred", "redocred")

gives the rows, and `load_published("ORG/redocred", "redocred")` of this module checks them, too, and names their relations.

Without --card the documents are taken for those of the registered data set: the card says of them what its entry says, and where
a file has another number of documents than the official one. For documents of your own (--dataset_config local) write a Markdown
file that says what they are, whose, and how to cite them, with `pretty_name`, `license` and `language` in a YAML header, and give
it as --card.
"""

import argparse
import dataclasses
import functools
import glob
import itertools
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import datasets
from datasets import DatasetDict
from datasets.info import DatasetInfosDict
from huggingface_hub import DatasetCardData, HfApi, snapshot_download
from pyarrow import parquet

from modeling_comm.commands.errors import TRACEBACK, command
from modeling_comm.configuration_comm import __version__
from modeling_comm.data import available_datasets, get_dataset
from modeling_comm.data.reading import ON_BAD_DOCUMENT
from modeling_comm.documents import validate_document
from modeling_comm.reporting.redaction import redact
from modeling_comm.utils.counted_nouns import DOCUMENTS, FACTS, counted
from modeling_comm.utils.files import file_sha256, read_json, write_json
from modeling_comm.utils.relation_names import RELATION_FILE
from modeling_comm.utils.writer import replace_folder, write_bytes, write_text

from .builder import FEATURES, labels_of_dataset, load_splits, to_document
from .dataset_card import check_card, default_config, read_source, render_card
from .describe import describe_documents
from .provenance import FileProvenance, left_out_in_words, read_provenance, write_provenance

_RECORD = "record.json"


# ----------------------------------------------------------------------------------------------------------- publishing


def publish(
    config: str,
    data_dir: str | os.PathLike | None = None,
    repo_id: str | None = None,
    output_dir: str | os.PathLike | None = None,
    private: bool = False,
    config_name: str | None = None,
    splits: Sequence[str] | None = None,
    card: str | os.PathLike | None = None,
    on_bad_document: str = "error",
    cache_dir: str | None = None,
) -> dict:
    """
    Writes documents and their card into a folder, a repository of the Hub, or both.

    Args:
        config, data_dir, splits, on_bad_document, cache_dir: what is published, as in
            [`~dataset_scripts.builder.load_splits`].
        repo_id (`str`, *optional*): data set repository, `"ORG/NAME"`; it is made if there is none.
        output_dir (`str`, *optional*): folder; it may hold other configurations already.
        private (`bool`, defaults to `False`): whether a repository that is made is private.
        config_name (`str`, *optional*): name of the configuration in the repository. By default `config`.
        card (`str`, *optional*): Markdown file about documents that are not those of a registered data set, see the
            head of this module.

    Returns:
        `dict`: the record beside the rows (`record.json`): by split the source file, its SHA-256, what was
        skipped and left out, and the statistics.

    Raises:
        ValueError: arguments or documents do not fit, the repository is public though `private` is asked for, or it has a card
            that something else wrote.
        HfHubHTTPError: the Hub refused (no token, no permission, somebody else's commit in between).
    """
    config_name = config if config_name is None else config_name
    if not re.fullmatch(r"\w[\w-]*", config_name):
        raise ValueError(f"config_name is {config_name!r}; expected letters, digits, '_' and '-'")
    if repo_id is None and output_dir is None:
        raise ValueError("found neither repo_id nor output_dir; expected a repository, a folder or both to publish to")
    own = None if card is None else read_source(card)
    if own is None and any(file.source is None for file in get_dataset(config).files.values()):
        raise ValueError(
            f"card is None; expected a file, as the data set {config!r} does not say where its documents are from"
        )
    if output_dir is not None:
        _check_folder(Path(output_dir), config_name)
    loaded = load_splits(config, data_dir, splits=splits, on_bad_document=on_bad_document, cache_dir=cache_dir)
    with tempfile.TemporaryDirectory() as temporary:
        written = Path(temporary) / config_name
        record = _write_config(written, loaded, config, data_dir, own, cache_dir)
        if output_dir is not None:
            replace_folder(written, Path(output_dir) / config_name)
            _write_card(Path(output_dir), repo_id)
        if repo_id is not None:
            _push(written, repo_id, private)
    return record


def _check_folder(folder, config_name):
    """Refuses to write over what this module did not write."""
    check_card(folder, folder)
    target, records = folder / config_name, _read_records(folder)
    if target.exists() and config_name not in records:
        raise ValueError(
            f"{target} was not written by this command, which would replace it; expected another output_dir"
        )


def _write_config(folder, loaded, config, data_dir, own, cache_dir):
    """Writes the rows of one configuration and what belongs to them; returns its record."""
    folder.mkdir()
    entry = get_dataset(config)
    documents = itertools.chain.from_iterable(loaded.values())
    labels, names = labels_of_dataset(entry, data_dir, documents, downloads_names=not data_dir, cache_dir=cache_dir)
    write_json(folder / "rel2id.json", {label: index for index, label in enumerate(labels)})
    write_json(folder / RELATION_FILE, names)
    _copy_licences(data_dir, folder)
    files, sources = {}, {}
    for split, found in read_provenance(loaded).items():
        loaded[split].to_parquet(folder / f"{split}.parquet")
        name = found["source"] if "://" in found["source"] else os.path.basename(found["source"])
        files[split] = {
            "source": redact(name),  # not the path, which is private
            "sha256": found["sha256"],
            "skipped": [
                {key: value for key, value in skipped.items() if key != "source"} for skipped in found["skipped"]
            ],
            **_left_out(found),
            "statistics": describe_documents(map(to_document, loaded[split]), entry.candidates),
        }
        source = own or entry.files[split].source
        sources[source.name] = dataclasses.asdict(source)
        if own is None and entry.files[split].documents is not None:
            files[split]["official_documents"] = entry.files[split].documents
    card = DatasetCardData()
    info = next(iter(loaded.values())).info.copy()
    info.download_size = sum(path.stat().st_size for path in folder.glob("*.parquet"))
    DatasetInfosDict({folder.name: info}).to_dataset_card_data(card)
    record = {
        "version": __version__,
        "files": files,
        "null_label": labels[0],
        "entity_types": list(entry.entity_types),
        "sources": list(sources.values()),
        "dataset_info": card["dataset_info"],
    }
    write_json(folder / _RECORD, record)
    return record


def _left_out(file):
    """Counts of what was left out of documents, where there are any."""
    return {key: file[key] for key in ("dropped", "left_out") if file.get(key)}


def _copy_licences(data_dir, folder):
    """The notices beside the documents, which licences require to be passed on."""
    folders = [] if data_dir is None else [data_dir] if isinstance(data_dir, (str, os.PathLike)) else data_dir
    notices = dict.fromkeys(
        path.read_bytes() for path in (Path(place) / "LICENSE" for place in folders) if path.is_file()
    )
    for number, notice in enumerate(notices):
        write_bytes(folder / ("LICENSE" if number == 0 else f"LICENSE-{number + 1}"), notice)


def _push(folder, repo_id, private):
    """Sends one configuration, and the card of all that are then in the repository, as one commit."""
    api = HfApi()
    api.create_repo(repo_id, repo_type="dataset", private=private or None, exist_ok=True)
    before = api.dataset_info(repo_id)
    if private and not before.private:
        raise ValueError(f"{repo_id} exists already and is public; expected a private or a new repository")
    with tempfile.TemporaryDirectory() as temporary:
        api.snapshot_download(
            repo_id,
            repo_type="dataset",
            revision=before.sha,
            allow_patterns=["README.md", f"*/{_RECORD}"],
            local_dir=temporary,
        )
        check_card(temporary, repo_id)
        shutil.copytree(folder, Path(temporary) / folder.name, dirs_exist_ok=True)
        _write_card(Path(temporary), repo_id)
        api.upload_folder(
            repo_id=repo_id,
            repo_type="dataset",
            folder_path=temporary,
            delete_patterns=f"{folder.name}/*",  # splits that no longer exist
            parent_commit=before.sha,  # a card of all configurations is right unless somebody else adds one
            commit_message=f"Publish {folder.name}",
        )


def _write_card(folder, repo_id):
    default = default_config(folder)  # another configuration does not change it
    write_text(folder / "README.md", render_card(_read_records(folder), repo_id, default))


def _read_records(folder):
    """The record of each configuration in a folder, by name. Another program's `record.json` is none."""
    found = {path.parent.name: read_json(path) for path in folder.glob(f"*/{_RECORD}")}
    fields = {"files", "null_label", "entity_types", "sources", "dataset_info"}
    return {name: one for name, one in found.items() if isinstance(one, dict) and one.keys() >= fields}


# -------------------------------------------------------------------------------------------------------------- loading


def load_published(
    name: str, config: str | None, revision: str | None = None, token: str | None = None, cache_dir: str | None = None
) -> tuple[DatasetDict, str]:
    """
    Loads a published data set and checks every document.

    Args:
        name (`str`): repository of the Hub, or folder.
        config (`str`): which of its configurations.
        revision (`str`, *optional*), token (`str`, *optional*): branch, tag or commit, and access token, of the repository.
        cache_dir (`str`, *optional*): where downloads and prepared rows are kept.

    Returns:
        `DatasetDict` with the rows of [`~dataset_scripts.builder.Documents`], whose files
        [`~dataset_scripts.provenance.read_provenance`] tells; and the folder with their `rel2id.json` and `rel_info.json`, the
        `data_dir` of [`~dataset_scripts.builder.relation_labels`].

    Raises:
        DocumentError: a document is malformed.
        FileNotFoundError: there is no such configuration.
        RepositoryNotFoundError: there is no such repository, or it is private and the token may not read it.
    """
    folder, source = Path(name), str(name)
    if not folder.is_dir():
        folder = Path(
            snapshot_download(
                source,
                repo_type="dataset",
                revision=revision,
                token=token,
                cache_dir=cache_dir,
                allow_patterns=f"{config}/*",
            )
        )
        source = f"{name}@{folder.name}"  # the folder is named after the commit
    folder = folder / config
    if not (folder / _RECORD).is_file():
        raise FileNotFoundError(
            f"{source}: found no {config}/{_RECORD}; expected a configuration that `publish` wrote"
        )
    files = read_json(folder / _RECORD)["files"]
    paths = {split: folder / f"{split}.parquet" for split in files}
    # Files of earlier versions lack the fields that few documents have.
    columns = set.intersection(*(set(parquet.read_schema(path).names) for path in paths.values()))
    loaded = datasets.load_dataset(
        "parquet",
        data_files={split: glob.escape(str(path)) for split, path in paths.items()},
        features=datasets.Features({name: kind for name, kind in FEATURES.items() if name in columns}),
        cache_dir=cache_dir,
    )
    provenance = {
        split: FileProvenance(
            source=f"{source}/{config}/{path.name}",
            sha256=file_sha256(path),
            skipped=files[split]["skipped"],
            **_left_out(files[split]),
        )
        for split, path in paths.items()
    }
    for split, rows in loaded.items():
        write_provenance(rows.info, provenance)
        for index, row in enumerate(rows):
            validate_document(to_document(row), index=index, source=provenance[split]["source"])
    return loaded, str(folder)


# --------------------------------------------------------------------------------------------------------- command line


@command
def main(argv: list[str] | None = None) -> int:
    """The command line; see the head of this module. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m dataset_scripts.publish",
        description=__doc__.strip(),
        formatter_class=functools.partial(argparse.RawDescriptionHelpFormatter, max_help_position=30, width=110),
        allow_abbrev=False,
    )
    names = available_datasets()
    parser.add_argument(
        "--dataset_config", required=True, choices=names, metavar="NAME", help=f"which data set: {', '.join(names)}"
    )
    parser.add_argument(
        "--data_dir",
        nargs="+",
        help="folders with the official files, LICENSE, rel2id.json; by default all is downloaded",
    )
    parser.add_argument("--splits", nargs="+", help="some of train, validation, test, train_distant (the first three)")
    parser.add_argument("--repo_id", help="repository to push to, ORG/NAME; made if there is none")
    parser.add_argument("--private", action="store_true", help="make it private; refused where it is public already")
    parser.add_argument("--output_dir", help="folder to write to")
    parser.add_argument("--config_name", help="name of the configuration there (the dataset_config)")
    parser.add_argument("--card", help="Markdown file about documents of your own, see above")
    parser.add_argument(
        "--on_bad_document",
        default="error",
        choices=ON_BAD_DOCUMENT,
        help="a malformed document: stop, leave it out, or leave out what is wrong with it",
    )
    parser.add_argument("--cache_dir", help="where downloads and prepared rows are kept")
    parser.add_argument(TRACEBACK, action="store_true", help="show where an error comes from, not only one line")
    arguments = vars(parser.parse_args(argv))
    del arguments["traceback"]  # `command` looks for it
    record = publish(config=arguments.pop("dataset_config"), **arguments)
    for split, file in record["files"].items():
        statistics, skipped = file["statistics"], len(file["skipped"])
        print(
            f"{split}: {counted(statistics['documents'], DOCUMENTS)}, {counted(statistics['triples'], FACTS)}"
            + (f"; malformed documents that are left out: {skipped:,}" if skipped else "")
            + "".join(f"; left out {parts}" for parts in left_out_in_words(file))
        )
    for place in filter(None, (arguments["output_dir"], arguments["repo_id"])):
        print(f"published: {place}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
