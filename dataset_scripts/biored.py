"""The data set `biored`."""

from modeling_comm.data import DatasetEntry, DatasetFile, DatasetSource, register_dataset

_BIORED = DatasetSource(
    name="BioRED",
    license="other",
    language="en",
    domain="titles and abstracts of PubMed",
    description="""\
Titles and abstracts in which people annotated six types of entities, eight relations between them, which have no direction, and
whether the text reports a relation as new.""",
    citation="""\
@article{luo-etal-2022-biored,
  title = "{B}io{RED}: a rich biomedical relation extraction dataset",
  author = "Luo, Ling and Lai, Po-Ting and Wei, Chih-Hsuan and Arighi, Cecilia N. and Lu, Zhiyong",
  journal = "Briefings in Bioinformatics",
  year = "2022",
  doi = "10.1093/bib/bbac282"
}""",
)

# The pairs of types that were annotated; one fact of a gene and a variant is beside them.
_CANDIDATES = (
    ("DiseaseOrPhenotypicFeature", "GeneOrGeneProduct"),
    ("ChemicalEntity", "DiseaseOrPhenotypicFeature"),
    ("GeneOrGeneProduct", "GeneOrGeneProduct"),
    ("ChemicalEntity", "GeneOrGeneProduct"),
    ("DiseaseOrPhenotypicFeature", "SequenceVariant"),
    ("ChemicalEntity", "ChemicalEntity"),
    ("ChemicalEntity", "SequenceVariant"),
    ("SequenceVariant", "SequenceVariant"),
)

register_dataset(
    DatasetEntry(
        name="biored",
        title="BioRED",
        files={
            "train": DatasetFile(name="Train.PubTator", documents=400, source=_BIORED),
            "validation": DatasetFile(name="Dev.PubTator", documents=100, source=_BIORED),
            "test": DatasetFile(name="Test.PubTator", documents=100, source=_BIORED),
        },
        format="pubtator",
        entity_types=(
            *("CellLine", "ChemicalEntity", "DiseaseOrPhenotypicFeature"),
            *("GeneOrGeneProduct", "OrganismTaxon", "SequenceVariant"),
        ),
        type_words={
            "ChemicalEntity": "drug",
            "DiseaseOrPhenotypicFeature": "disease",
            "GeneOrGeneProduct": "gene",
            "OrganismTaxon": "species",
            "SequenceVariant": "mutation",
            "CellLine": "cells",
        },
        candidate_pairs=_CANDIDATES,
        directed=False,
        scores=("pair", "pair_and_novelty", "pair_relation_and_novelty"),
    )
)
