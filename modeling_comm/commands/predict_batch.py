"""A batch of `comm-docre predict`: a document that cannot be predicted does not stop the others."""

from collections.abc import Callable

from ..document_input import NoEntitiesError
from ..documents import DocumentError
from ..out_of_memory import is_out_of_memory
from .predict_inputs import Item

_DECIMALS = 6


def predict_batch(extract: Callable, batch: list[Item]) -> tuple[list[dict], list[tuple[Item, str]]]:
    """
    Predicts a batch.

    Args:
        extract (`Callable`): a pipeline, perhaps with arguments.
        batch (`list[Item]`): documents with their ids, what could not be read, and what is left out.

    Returns:
        records of the documents, each with its `"id"`, scores and weights rounded to 6 decimals; the items that have none, each
        with the error.

    Raises:
        RuntimeError: the model fails, other than for want of memory.
    """
    records, errors = [], {index: item.error for index, item in enumerate(batch) if item.error is not None}
    waiting = [index for index, item in enumerate(batch) if item.document is not None]
    while waiting:
        done = 0
        try:
            for record in extract(batch[index].document for index in waiting):
                records.append({"version": record["version"], "id": batch[waiting[done]].id, **_rounded(record)})
                done += 1
        except (ValueError, RuntimeError, MemoryError) as error:  # of the document behind those that came
            if isinstance(error, RuntimeError) and not is_out_of_memory(error):
                raise
            if isinstance(error, DocumentError):
                error.index = None  # its position among these means nothing to the user
                if isinstance(error, NoEntitiesError):  # the pipeline's word for it is `ner=`
                    error.expected = "entities, or mentions, or --ner NAME, which finds them"
            errors[waiting[done]] = str(error) or "out of memory"  # Python's own error may say nothing
        waiting = waiting[done + 1 :]
    return records, [(batch[index], errors[index]) for index in sorted(errors)]


def _rounded(record):
    """The record without the digits of scores and weights that depend on what else was in the batch."""
    for triple in record["triples"]:
        for name in {"score", "probability"} & triple.keys():
            triple[name] = round(triple[name], _DECIMALS)
        for sentence in triple["explanation"]:
            sentence["weight"] = round(sentence["weight"], _DECIMALS)
    return record
