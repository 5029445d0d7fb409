"""The data sets `cdr`, BC5CDR as it is published, and `cdr_filtered`, its tabular form after the hypernym filter, which systems
are compared on."""

from typing import Any

from modeling_comm.data import DatasetEntry, DatasetFile, DatasetSource, register_dataset

_CDR = DatasetSource(
    name="BC5CDR",
    license="other",
    language="en",
    domain="titles and abstracts of PubMed",
    description="""\
Titles and abstracts in which people annotated chemicals, diseases, and the diseases that a chemical induces, by MeSH ids. In the
public domain.""",
    citation="""\
@article{li-etal-2016-biocreative,
  title = "{B}io{C}reative {V} {CDR} task corpus: a resource for chemical disease relation extraction",
  author = "Li, Jiao and Sun, Yueping and Johnson, Robin J. and Sciaky, Daniela and Wei, Chih-Hsuan and Leaman, Robert and
            Davis, Allan Peter and Mattingly, Carolyn J. and Wiegers, Thomas C. and Lu, Zhiyong",
  journal = "Database",
  year = "2016",
  doi = "10.1093/database/baw068"
}""",
)
_SPLITS = {"train": "Training", "validation": "Development", "test": "Test"}
_FILTERED = {"train": "train", "validation": "dev", "test": "test"}
_COMMON: dict[str, Any] = {
    "null_label": "NR",
    "entity_types": ("Chemical", "Disease"),
    "candidate_pairs": (("Chemical", "Disease"),),
}

register_dataset(
    DatasetEntry(
        name="cdr",
        title="CDR",
        files={
            split: DatasetFile(name=f"CDR_{name}Set.PubTator.txt", documents=500, source=_CDR)
            for split, name in _SPLITS.items()
        },
        format="pubtator",
        **_COMMON,
    )
)
register_dataset(
    DatasetEntry(
        name="cdr_filtered",
        title="CDR after the hypernym filter",
        files={
            split: DatasetFile(name=f"{name}_filter.data", documents=500, source=_CDR)
            for split, name in _FILTERED.items()
        },
        format="cdr",
        **_COMMON,
    )
)
