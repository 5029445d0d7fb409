"""Documents from JSON files of any size: one at a time, each checked."""

import gzip
import logging
import os
import zlib
from collections.abc import Collection, Iterator

from ..documents import Document, DocumentError, validate_document
from ..utils.files import iterate_json_array, open_text

logger = logging.getLogger(__name__)


def iterate_documents(
    path: str | os.PathLike,
    on_bad_document: str = "error",
    relations: Collection[str] | None = None,
    source: str | None = None,
    skipped: list[DocumentError] | None = None,
) -> Iterator[Document]:
    """
    Documents of a JSON file in DocRED's format, each checked, in bounded memory.

    Args:
        path (`str`): the file; it may be compressed by gzip.
        on_bad_document (`str`, defaults to `"error"`): `"error"` raises; `"skip"` logs a warning and continues with the
            next document. A file that is no JSON always raises.
        relations (`Collection[str]`, *optional*): the known relations. Any is accepted by default.
        source (`str`, *optional*): how messages call the file. Its path by default.
        skipped (`list`, *optional*): is given the [`DocumentError`] of every document that is skipped.

    Raises:
        DocumentError: a document is malformed, or the file is no JSON array; the message names file, document, field,
            what was found and what was expected.
    """
    if on_bad_document not in ("error", "skip"):
        raise ValueError(f"on_bad_document is {on_bad_document!r}; expected 'error' or 'skip'")
    source = source or os.fspath(path)
    index = -1
    with open_text(path) as file:
        try:
            for index, document in enumerate(iterate_json_array(file, source)):
                try:
                    validate_document(document, index=index, source=source, relations=relations)
                except DocumentError as error:
                    if on_bad_document == "error":
                        raise
                    logger.warning("Skipped: %s", error)
                    if skipped is not None:
                        skipped.append(error)
                    continue
                yield document
        except (UnicodeDecodeError, EOFError, zlib.error, gzip.BadGzipFile) as error:
            expected = "UTF-8 text, plain or compressed by gzip; is the file complete?"
            raise DocumentError(source, index + 1, None, None, str(error), expected) from error
