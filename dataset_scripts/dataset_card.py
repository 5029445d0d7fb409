"""The card of a published data set: what the documents are, how many, in which fields, from which files, under which licence."""

import os
from pathlib import Path
from string import Template

from huggingface_hub import DatasetCard, DatasetCardData

from modeling_comm.configuration_comm import __version__
from modeling_comm.data import DatasetSource
from modeling_comm.reporting.markdown import join_cells

from .provenance import left_out_in_words

_TEMPLATE = Path(__file__).with_name("dataset_card.md")
_MARK = "<!-- Written by `python -m dataset_scripts.publish`"  # how the template begins


def read_source(path: str | os.PathLike) -> DatasetSource:
    """A source from a Markdown file with `pretty_name`, `license` and `language` in its YAML header; a `ValueError` if one of
    them is missing."""
    card = DatasetCard.load(path)
    missing = [field for field in ("license", "language", "pretty_name") if not card.data.get(field)]
    if missing:
        raise ValueError(
            f"{path}: found no {', '.join(missing)} in the YAML header; expected license, language and pretty_name"
        )
    return DatasetSource(
        name=card.data.pretty_name,
        license=card.data.license,
        language=card.data.language,
        description=card.text.strip(),
    )


def check_card(folder: str | os.PathLike, place: str) -> None:
    """Refuses, by a `ValueError` that names the place, to write over a card which is not this module's."""
    path = Path(folder) / "README.md"
    if path.is_file() and _MARK not in path.read_text(encoding="utf-8"):
        raise ValueError(
            f"{place} has a README.md that something else wrote and that would be lost; expected a new place, or one that this "
            "command wrote"
        )


def default_config(folder: str | os.PathLike) -> str | None:
    """The configuration that the card in `folder` calls the default one; None without a card."""
    path = Path(folder) / "README.md"
    configs = DatasetCard.load(path).data.configs if path.is_file() else []
    return next((config["config_name"] for config in configs if config.get("default")), None)


def render_card(records: dict[str, dict], repo_id: str | None = None, default: str | None = None) -> str:
    """
    The card of a data set.

    Args:
        records (`dict[str, dict]`): by configuration, what [`~dataset_scripts.publish.publish`] returned.
        repo_id (`str`, *optional*): the repository's name, for the examples.
        default (`str`, *optional*): the configuration that `load_dataset` takes when no name is given. By default the first one.
    """
    records = dict(sorted(records.items(), key=lambda item: (item[0] != default, item[0])))
    default = next(iter(records))
    sources = {source["name"]: source for record in records.values() for source in record["sources"]}
    documents = sum(
        file["statistics"]["documents"] for record in records.values() for file in record["files"].values()
    )
    types = [kind for record in records.values() for kind in record["entity_types"]]
    title = " and ".join(sources)
    header = DatasetCardData(
        pretty_name=title,
        language=_all_of(sources.values(), "language"),
        license=_all_of(sources.values(), "license"),
        task_categories=["other"],
        tags=["relation-extraction", "document-level-relation-extraction", "docred"],
        size_categories=_size_category(documents),
        configs=[
            {
                "config_name": name,
                **({"default": True} if name == default else {}),
                "data_files": [{"split": split, "path": f"{name}/{split}.parquet"} for split in record["files"]],
            }
            for name, record in records.items()
        ],
        dataset_info=[record["dataset_info"] for record in records.values()],
    )
    body = Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        version=__version__,
        title=title,
        repo_id=repo_id or "ORG/NAME",
        default=default,
        split=next(iter(records[default]["files"])),
        tables="\n\n".join(f"### `{name}`\n\n{_content(record)}" for name, record in records.items()),
        types=_in_code(types) and f": {_in_code(types)}",
        null_labels=_in_code(record["null_label"] for record in records.values()),
        files=join_cells(("configuration", "split", "file", "SHA-256"), _file_rows(records)),
        sources="\n\n".join(map(_about, sources.values())),
    )
    return f"---\n{header}\n---\n\n{body}"


def _in_code(values):
    return ", ".join(f"`{value}`" for value in dict.fromkeys(values))


def _about(source):
    citation = f"\n\n```bibtex\n{source['citation']}\n```" if source["citation"] else ""
    return f"## {source['name']}\n\n{source['description']}{citation}"


# A row's name and its number from the statistics of a split.
_ROWS = {
    "documents": "documents",
    "... with labels": "labelled_documents",
    "sentences": "sentences",
    "tokens": "tokens",
    "entities": "entities",
    "mentions": "mentions",
    "entity pairs": "pairs",
    "positive pairs": "positive_pairs",
    "... of the labelled ones": "positive_share",
    "facts": "triples",
    "... without evidence": "triples_without_evidence",
}


def _content(record):
    files = record["files"]
    rows = [[name, *(_cell(file["statistics"][key]) for file in files.values())] for name, key in _ROWS.items()]
    rows.append(["relations that occur", *(_cell(len(file["statistics"]["relations"])) for file in files.values())])
    notes = []
    for split, file in files.items():
        found, skipped = file["statistics"]["documents"], len(file["skipped"])
        if skipped:
            notes.append(
                f"* `{split}`: malformed documents that are left out: {skipped:,} (`record.json` lists them)."
            )
        notes += [f"* `{split}`: left out of documents of the file are {parts}." for parts in left_out_in_words(file)]
        official = file.get("official_documents", found + skipped)
        if found + skipped != official:
            notes.append(
                f"* `{split}`: **not the official file**, which has {official:,} documents; this one has {found + skipped:,}."
            )
    return "\n\n".join([join_cells(["", *files], rows), *(["\n".join(notes)] if notes else [])])


def _cell(value):
    if value is None:
        return "-"
    return f"{100 * value:.1f} %" if isinstance(value, float) else f"{value:,}"


def _file_rows(records):
    for name, record in records.items():
        for split, file in record["files"].items():
            yield [f"`{name}`", f"`{split}`", f"`{file['source']}`", f"`{file['sha256']}`"]


def _all_of(sources, field):
    """The sources' values of a field, one alone or several as a list, without repetition."""
    given = (source[field] for source in sources)
    values = sorted({value for some in given for value in (some if isinstance(some, list) else [some])})
    return values[0] if len(values) == 1 else values


def _size_category(documents):
    for exponent, name in enumerate(("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M"), start=3):
        if documents < 10**exponent:
            return name
    return "1M<n<10M"
