"""Data sets of documents as a trainer takes them: encoded once, and checked before anything is trained on them."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from ..configuration_comm import __version__
from ..features import LOSSES_OF_ENCODING
from ..processing_comm import CommProcessor
from ..relation_types import RelationTypes
from .batching import FEATURE_COLUMNS, DocumentStream, without_unknown_labels


def encode_dataset(
    dataset: Any,
    processor: CommProcessor,
    max_length: int | None = None,
    num_proc: int | None = None,
    allow_unknown_relations: bool = False,
) -> Any:
    """
    Adds `processor.encode`'s features to documents, once: a data set that has them is returned as it is.

    Args:
        dataset (`list[dict]` or `datasets.Dataset`): DocRED documents. A `Dataset` is mapped in batches (cached, with a progress
            bar); one that holds unlabelled documents says so in its column `has_labels`.
        processor ([`~modeling_comm.CommProcessor`]): the model's.
        max_length (`int`, *optional*): as in the processor.
        num_proc (`int`, *optional*): number of processes that map a `Dataset`.
        allow_unknown_relations (`bool`, defaults to `False`): as in [`CommProcessor.encode`].
    """
    if isinstance(dataset, dict) or not hasattr(dataset, "__len__"):
        raise ValueError(
            f"the data set is a {type(dataset).__name__}; expected a list of documents or a datasets.Dataset"
        )
    if not len(dataset):
        return []
    if {*FEATURE_COLUMNS} <= {*dataset[0]}:
        return dataset
    if not hasattr(dataset, "map"):
        features = processor.encode(dataset, max_length, allow_unknown_relations)
        return [{**document, **feature} for document, feature in zip(dataset, features, strict=True)]

    def encode(rows, library):  # the version is part of the cache's key
        documents = [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)]
        documents = list(map(without_unknown_labels, documents))
        features = processor.encode(documents, max_length, allow_unknown_relations)
        return {column: [feature[column] for feature in features] for column in features[0]}

    from datasets import Features, List, Value  # an extra; it is installed where a Dataset is given

    numbers = List(Value("int32"))
    columns = dict.fromkeys(("input_ids", "mention_positions", "mention_entities", "sentence_starts"), numbers)
    columns |= {"turned_pairs": numbers} | dict.fromkeys(("pairs", "facts", "evidence"), List(numbers))
    columns |= {name: Value("int32") for name in ("num_entities", "windows", *LOSSES_OF_ENCODING)}
    return dataset.map(
        encode,
        # Said, not guessed from the first documents, which may have no facts or no entities.
        features=Features({**dataset.features, **columns, "has_labels": Value("bool")}),
        fn_kwargs={"library": __version__},
        batched=True,
        batch_size=100,
        num_proc=num_proc,
        desc="Encoding documents",
    )


def learn_relation_types(processor: CommProcessor, dataset: Any) -> None:
    """
    With a `type_constraint`: records the types of head and tail that each relation has in the training documents.

    Raises:
        ValueError: the documents are a stream.
    """
    decision = processor.decision
    if decision.type_constraint == "none":
        return
    if isinstance(dataset, DocumentStream):
        raise ValueError(
            f"type_constraint is {decision.type_constraint!r}, and the training documents are a stream; expected 'none', or "
            "documents that can be read before the training"
        )
    if hasattr(dataset, "select_columns"):
        columns = ("vertexSet", "labels", "ignored_pairs", "untyped_entities")
        dataset = dataset.select_columns([name for name in columns if name in dataset.column_names])
    # A checkpoint that is trained further has seen the types of both trainings.
    seen = RelationTypes.of_documents(dataset or (), processor.candidates)
    decision.relation_types = seen.merged(decision.relation_types)


def check_labelled(dataset: Sequence[dict], kind: str, why: str) -> None:
    """Raises `ValueError` where documents have no labels; `kind` says which documents these are, `why` what needs the labels."""
    unlabelled = [index for index, known in enumerate(column_of(dataset, "has_labels")) if not known]
    if unlabelled:
        titles = [dataset[index]["title"] for index in unlabelled[:5]]
        raise ValueError(f"{len(unlabelled)} {kind} documents have no labels, the first ones {titles}; {why}")


def check_titles(dataset: Any) -> None:
    """Raises `ValueError` where several documents have the same title."""
    titles = Counter(column_of(dataset, "title"))
    repeated = sorted(title for title, count in titles.items() if count > 1)
    if repeated:
        raise ValueError(
            f"{len(repeated)} titles are shared by several evaluation documents, {repeated[:3]} for example; expected "
            "unique titles, by which facts are told apart"
        )


def column_of(dataset: Any, name: str) -> list:
    """One field of every document of a data set."""
    return dataset[name] if hasattr(dataset, "column_names") else [row[name] for row in dataset]
