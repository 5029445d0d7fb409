"""The data sets `docred` and `redocred`, and `docred_mixed`, which trains on DocRED's incomplete labels and selects and tests on
Re-DocRED's."""

from typing import Any

from modeling_comm.data import DatasetEntry, DatasetFile, DatasetSource, register_dataset
from modeling_comm.utils.relation_names import RELATION_FILE

_DOCRED = DatasetSource(
    name="DocRED",
    license="mit",
    language="en",
    domain="English Wikipedia",
    hub_name="thunlp/docred",
    description="""\
Introductory sections of English Wikipedia articles. Entities, coreference, relations and evidence were annotated by people, aided
by what Wikidata and a model recommended; the labels of `train_distant` come from Wikidata without people. Many relations that
hold are not annotated.

Licence: MIT, as stated by its authors' repositories ([thunlp/DocRED](https://github.com/thunlp/DocRED),
[thunlp/docred](https://huggingface.co/datasets/thunlp/docred)); the texts are Wikipedia's (CC BY-SA).""",
    citation="""\
@inproceedings{yao-etal-2019-docred,
  title = "{D}oc{RED}: A Large-Scale Document-Level Relation Extraction Dataset",
  author = "Yao, Yuan and Ye, Deming and Li, Peng and Han, Xu and Lin, Yankai and Liu, Zhenghao and Liu, Zhiyuan and
            Huang, Lixin and Zhou, Jie and Sun, Maosong",
  booktitle = "Proceedings of the 57th Annual Meeting of the Association for Computational Linguistics",
  year = "2019",
  pages = "764--777",
  doi = "10.18653/v1/P19-1074",
  url = "https://aclanthology.org/P19-1074"
}""",
)
_REDOCRED = DatasetSource(
    name="Re-DocRED",
    license="mit",
    language="en",
    domain="English Wikipedia",
    hub_name="tonytan48/Re-DocRED",
    description="""\
Documents of DocRED's training and development sets whose labels were revised: relations that hold but were not annotated are
added, contradictions and errors of coreference resolved. Many of the relations that were added have no evidence.

Licence: MIT, as stated by its authors' repository ([tonytan48/Re-DocRED](https://github.com/tonytan48/Re-DocRED)); the texts are
Wikipedia's (CC BY-SA).""",
    citation="""\
@inproceedings{tan-etal-2022-revisiting,
  title = "Revisiting {D}oc{RED} - Addressing the False Negative Problem in Relation Extraction",
  author = "Tan, Qingyu and Xu, Lu and Bing, Lidong and Ng, Hwee Tou and Aljunied, Sharifah Mahani",
  booktitle = "Proceedings of the 2022 Conference on Empirical Methods in Natural Language Processing",
  year = "2022",
  pages = "8472--8487",
  url = "https://arxiv.org/abs/2205.12696"
}""",
)
_DOCRED_ADDRESS = "https://huggingface.co/datasets/thunlp/docred/resolve/main/data/{}.gz"
_REDOCRED_ADDRESS = "https://raw.githubusercontent.com/tonytan48/Re-DocRED/main/data/{}"


def _docred(name, documents):
    return DatasetFile(name=name, address=_DOCRED_ADDRESS.format(name), documents=documents, source=_DOCRED)


def _redocred(name, documents):
    return DatasetFile(name=name, address=_REDOCRED_ADDRESS.format(name), documents=documents, source=_REDOCRED)


_DOCRED_FILES = {
    "train": _docred("train_annotated.json", 3_053),
    "validation": _docred("dev.json", 998),
    "test": _docred("test.json", 1_000),
    "train_distant": _docred("train_distant.json", 101_873),
}
_REDOCRED_FILES = {
    "train": _redocred("train_revised.json", 3_053),
    "validation": _redocred("dev_revised.json", 500),
    "test": _redocred("test_revised.json", 500),
    "train_distant": _DOCRED_FILES["train_distant"],
}
# What all three share. The ten relations are those that Re-DocRED's own evaluation calls frequent.
_COMMON: dict[str, Any] = {
    "null_label": "Na",
    "entity_types": ("PER", "ORG", "LOC", "TIME", "NUM", "MISC"),
    "relation_info_address": _DOCRED_ADDRESS.format(RELATION_FILE),
    "frequent_relations": frozenset({"P17", "P131", "P27", "P150", "P175", "P577", "P463", "P527", "P495", "P361"}),
}
# Figures of the introduction of the paper on COMM.
_MOST_FREQUENT = {"most_frequent_share": "over 23 %"}

register_dataset(
    DatasetEntry(
        name="docred",
        title="DocRED",
        files=_DOCRED_FILES,
        published_statistics={"positive_share": "3.18 %", **_MOST_FREQUENT},
        **_COMMON,
    )
)
register_dataset(
    DatasetEntry(
        name="redocred",
        title="Re-DocRED",
        files=_REDOCRED_FILES,
        published_statistics={"positive_share": "7.09 %", **_MOST_FREQUENT},
        **_COMMON,
    )
)
register_dataset(
    DatasetEntry(
        name="docred_mixed",
        title="DocRED-Mixed",
        files={**_REDOCRED_FILES, "train": _DOCRED_FILES["train"]},
        published_statistics={"positive_share": "DocRED 3.18 %, Re-DocRED 7.09 %", **_MOST_FREQUENT},
        **_COMMON,
    )
)
