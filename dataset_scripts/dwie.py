"""The data set `dwie`, in DocRED's form."""

from modeling_comm.data import DatasetEntry, DatasetFile, DatasetSource, register_dataset

_DWIE = DatasetSource(
    name="DWIE",
    license="unknown",
    language="en",
    domain="news of Deutsche Welle",
    description="""\
News articles in which people annotated entities and relations, in DocRED's form: each article is one sentence, types look like
`type::location`. Facts of an entity with itself and facts that are listed twice are left out and counted.""",
)

register_dataset(
    DatasetEntry(
        name="dwie",
        title="DWIE",
        files={
            "train": DatasetFile(name="train_annotated.json", documents=602, source=_DWIE),
            "validation": DatasetFile(name="dev.json", documents=98, source=_DWIE),
            "test": DatasetFile(name="test.json", documents=99, source=_DWIE),
        },
        format="docred",
        scores=("ign_recall",),
    )
)
