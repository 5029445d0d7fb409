"""The data set `chemdisgene`."""

from modeling_comm.data import DatasetEntry, DatasetFile, DatasetSource, register_dataset

_CHEMDISGENE = DatasetSource(
    name="ChemDisGene",
    license="cc0-1.0",
    language="en",
    domain="titles and abstracts of PubMed",
    description="""\
Titles and abstracts with chemicals, diseases and genes. The relations of the training documents come from a database and are
incomplete; those of the 523 documents of `test.anno_all.json` were annotated by people.""",
)

register_dataset(
    DatasetEntry(
        name="chemdisgene",
        title="ChemDisGene",
        files={
            "train": DatasetFile(name="train.json", source=_CHEMDISGENE),
            "validation": DatasetFile(name="valid.json", source=_CHEMDISGENE),
            "test": DatasetFile(name="test.anno_all.json", documents=523, source=_CHEMDISGENE),
        },
        format="chemdisgene",
        entity_types=("Chemical", "Disease", "Gene"),
        candidate_pairs=(("Chemical", "Disease"), ("Chemical", "Gene"), ("Gene", "Disease")),
    )
)
