"""The data set `gda`, in its tabular form."""

from modeling_comm.data import DatasetEntry, DatasetFile, DatasetSource, register_dataset

_GDA = DatasetSource(
    name="GDA",
    license="unknown",
    language="en",
    domain="titles and abstracts of PubMed",
    description="Titles and abstracts with genes, diseases, and the pairs that a database relates: labelled without people.",
)

register_dataset(
    DatasetEntry(
        name="gda",
        title="GDA",
        files={
            "train": DatasetFile(name="train.data", documents=23_353, source=_GDA),
            "validation": DatasetFile(name="dev.data", documents=5_839, source=_GDA),
            "test": DatasetFile(name="test.data", documents=1_000, source=_GDA),
        },
        null_label="NR",
        entity_types=("Gene", "Disease"),
        candidate_pairs=(("Gene", "Disease"),),
        format="cdr",
    )
)
