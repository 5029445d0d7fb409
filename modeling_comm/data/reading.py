"""Documents from JSON files of any size: one at a time, each checked."""

import gzip
import logging
import os
import zlib
from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any

from ..documents import Document, DocumentError, validate_document
from ..utils.files import iterate_json_array, open_text
from .bad_parts import drop_bad_parts
from .mention_names import MentionNames

logger = logging.getLogger(__name__)


ON_BAD_DOCUMENT = ("error", "skip", "drop_part")


def iterate_documents(
    path: str | os.PathLike,
    on_bad_document: str = "error",
    relations: Collection[str] | None = None,
    source: str | None = None,
    skipped: list[DocumentError] | None = None,
    dropped: Counter | None = None,
    keep_entities: bool = False,
) -> Iterator[Document]:
    """
    Documents of a JSON file in DocRED's format, each checked, in bounded memory. A warning says if more than 5 % of the mentions
    are at words that are not their name.

    Args:
        path (`str`): the file; it may be compressed by gzip.
        on_bad_document (`str`, defaults to `"error"`): `"error"` raises; `"skip"` logs a warning and continues with the
            next document; `"drop_part"` leaves out the mentions, entities, facts and ignored pairs that do not fit,
            see [`~modeling_comm.data.bad_parts.drop_bad_parts`], or else the document. A file that is no JSON always raises.
        relations (`Collection[str]`, *optional*): the known relations. Any is accepted by default.
        source (`str`, *optional*): how messages call the file. Its path by default.
        skipped (`list`, *optional*): is given the [`DocumentError`] of every document that is skipped.
        dropped (`Counter`, *optional*): is given the numbers of `mentions`, `entities`, `facts` and `ignored_pairs` that are
            left out, and of the `documents` that they are of.
        keep_entities (`bool`, defaults to `False`): skip a document rather than leave out one of its entities.

    Raises:
        DocumentError: a document is malformed, or the file is no JSON array; the message names file, document, field,
            what was found and what was expected.
    """
    if on_bad_document not in ON_BAD_DOCUMENT:
        raise ValueError(f"on_bad_document is {on_bad_document!r}; expected one of {', '.join(ON_BAD_DOCUMENT)}")
    source = source or os.fspath(path)
    index, names = -1, MentionNames()
    with open_text(path) as file:
        try:
            for index, document in enumerate(iterate_json_array(file, source)):
                try:
                    where: dict[str, Any] = {"index": index, "source": source, "relations": relations}
                    if on_bad_document == "drop_part":
                        document, parts = drop_bad_parts(document, **where, keep_entities=keep_entities)
                        if parts and dropped is not None:
                            dropped.update(parts, documents=1)
                    else:
                        validate_document(document, **where)
                except DocumentError as error:
                    if on_bad_document == "error":
                        raise
                    logger.warning("Skipped: %s", error)
                    if skipped is not None:
                        skipped.append(error)
                    continue
                names.add(document)
                yield document
            names.warn(source)
        except (UnicodeDecodeError, EOFError, zlib.error, gzip.BadGzipFile) as error:
            expected = "UTF-8 text, plain or compressed by gzip; is the file complete?"
            raise DocumentError(source, index + 1, None, None, str(error), expected) from error


def read_labelled(path: str | os.PathLike) -> list[Document]:
    """
    All documents of a JSON file in DocRED's format, every one of them with labels.

    Raises:
        DocumentError: as [`iterate_documents`], or a document has no labels.
    """
    documents = list(iterate_documents(path))
    for index, document in enumerate(documents):
        validate_document(document, index=index, source=os.fspath(path), require=("labels",))
    return documents
