"""The card of a published data set: what the documents are, how many, in which fields, from which files, under which licence."""

import dataclasses
from pathlib import Path
from string import Template

from huggingface_hub import DatasetCard, DatasetCardData

from modeling_comm.configuration_comm import __version__

from .docred import DocRED

_TEMPLATE = Path(__file__).with_name("dataset_card.md")
_MARK = "<!-- Written by `python -m dataset_scripts.publish`"  # how the template begins


@dataclasses.dataclass(frozen=True)
class Source:
    """
    Where documents come from, for the card.

    Args:
        name, text (`str`): heading and Markdown below it: what the documents are, their licence and how to cite them.
        license, language (`str` or `list[str]`): as the Hub spells them, such as `"cc-by-4.0"` and `"en"`.
    """

    name: str
    license: str | list[str]
    text: str
    language: str | list[str] = "en"


DOCRED = Source(
    name="DocRED",
    license="mit",
    text="""\
Introductory sections of English Wikipedia articles. Entities, coreference, relations and evidence were annotated by people, aided
by what Wikidata and a model recommended; the labels of `train_distant` come from Wikidata without people. Many relations that
hold are not annotated.

Licence: MIT, as stated by its authors' repositories ([thunlp/DocRED](https://github.com/thunlp/DocRED),
[thunlp/docred](https://huggingface.co/datasets/thunlp/docred)); the texts are Wikipedia's (CC BY-SA).

```bibtex
@inproceedings{yao-etal-2019-docred,
  title = "{D}oc{RED}: A Large-Scale Document-Level Relation Extraction Dataset",
  author = "Yao, Yuan and Ye, Deming and Li, Peng and Han, Xu and Lin, Yankai and Liu, Zhenghao and Liu, Zhiyuan and
            Huang, Lixin and Zhou, Jie and Sun, Maosong",
  booktitle = "Proceedings of the 57th Annual Meeting of the Association for Computational Linguistics",
  year = "2019",
  pages = "764--777",
  doi = "10.18653/v1/P19-1074",
  url = "https://aclanthology.org/P19-1074"
}
```""",
)
REDOCRED = Source(
    name="Re-DocRED",
    license="mit",
    text="""\
Documents of DocRED's training and development sets whose labels were revised: relations that hold but were not annotated are
added, contradictions and errors of coreference resolved. Many of the relations that were added have no evidence.

Licence: MIT, as stated by its authors' repository ([tonytan48/Re-DocRED](https://github.com/tonytan48/Re-DocRED)); the texts are
Wikipedia's (CC BY-SA).

```bibtex
@inproceedings{tan-etal-2022-revisiting,
  title = "Revisiting {D}oc{RED} - Addressing the False Negative Problem in Relation Extraction",
  author = "Tan, Qingyu and Xu, Lu and Bing, Lidong and Ng, Hwee Tou and Aljunied, Sharifah Mahani",
  booktitle = "Proceedings of the 2022 Conference on Empirical Methods in Natural Language Processing",
  year = "2022",
  pages = "8472--8487",
  url = "https://arxiv.org/abs/2205.12696"
}
```""",
)
# Documents of the official files, by their authors' own figures: a part of them must not pass for the whole.
OFFICIAL_DOCUMENTS = {
    "train_annotated.json": 3_053,
    "dev.json": 998,
    "test.json": 1_000,
    "train_distant.json": 101_873,
    "train_revised.json": 3_053,
    "dev_revised.json": 500,
    "test_revised.json": 500,
}


def read_source(path) -> Source:
    """A source from a Markdown file with `pretty_name`, `license` and `language` in its YAML header; a `ValueError` if one of
    them is missing."""
    card = DatasetCard.load(path)
    missing = [field for field in ("license", "language", "pretty_name") if not card.data.get(field)]
    if missing:
        raise ValueError(
            f"{path}: found no {', '.join(missing)} in the YAML header; expected license, language and pretty_name"
        )
    return Source(card.data.pretty_name, card.data.license, card.text.strip(), card.data.language)


def check_card(folder, place):
    """Refuses, by a `ValueError` that names the place, to write over a card which is not this module's."""
    path = Path(folder) / "README.md"
    if path.is_file() and _MARK not in path.read_text(encoding="utf-8"):
        raise ValueError(
            f"{place} has a README.md that something else wrote and that would be lost; expected a new place, or one that this "
            "command wrote"
        )


def render_card(records, repo_id=None) -> str:
    """
    The card of a data set.

    Args:
        records (`dict[str, dict]`): by configuration, what [`~dataset_scripts.publish.publish`] returned.
        repo_id (`str`, *optional*): the repository's name, for the examples.
    """
    # The first one is what `load_dataset` takes when no name is given.
    records = dict(sorted(records.items(), key=lambda item: (item[0] != DocRED.DEFAULT_CONFIG_NAME, item[0])))
    default = next(iter(records))
    sources = {source["name"]: source for record in records.values() for source in record["sources"]}
    documents = sum(
        file["statistics"]["documents"] for record in records.values() for file in record["files"].values()
    )
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
        files=_table(("configuration", "split", "file", "SHA-256"), _file_rows(records)),
        sources="\n\n".join(f"## {name}\n\n{source['text']}" for name, source in sources.items()),
    )
    return f"---\n{header}\n---\n\n{body}"


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
                f"* `{split}`: {skipped:,} documents of the file are malformed and left out (`record.json` lists them)."
            )
        official = file.get("official_documents", found + skipped)
        if found + skipped != official:
            notes.append(
                f"* `{split}`: **not the official file**, which has {official:,} documents; this one has {found + skipped:,}."
            )
    return "\n\n".join([_table(["", *files], rows), *(["\n".join(notes)] if notes else [])])


def _cell(value):
    if value is None:
        return "-"
    return f"{100 * value:.1f} %" if isinstance(value, float) else f"{value:,}"


def _file_rows(records):
    for name, record in records.items():
        for split, file in record["files"].items():
            yield [f"`{name}`", f"`{split}`", f"`{file['source']}`", f"`{file['sha256']}`"]


def _table(head, rows):
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


def _all_of(sources, field):
    """What the sources say in a field, alone or as a list, without repetition."""
    given = (source[field] for source in sources)
    values = sorted({value for some in given for value in (some if isinstance(some, list) else [some])})
    return values[0] if len(values) == 1 else values


def _size_category(documents):
    for exponent, name in enumerate(("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M"), start=3):
        if documents < 10**exponent:
            return name
    return "1M<n<10M"
