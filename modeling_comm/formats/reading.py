"""Documents of files in any registered format, one at a time, each checked."""

import gzip
import os
import zlib
from collections.abc import Collection, Generator, Mapping
from dataclasses import replace

from ..data.bad_parts import drop_bad_parts
from ..data.reading import ON_BAD_DOCUMENT
from ..documents import Document, DocumentError, validate_document
from ..utils.relation_names import means_no_relation
from .annotated_text import AnnotatedText, document_of_text
from .format_registry import input_files, unread_files
from .import_report import ImportReport
from .marked_text import MarkedTextOptions

_BROKEN_OFF = (UnicodeDecodeError, EOFError, zlib.error, gzip.BadGzipFile)


def read_documents(
    path: str | os.PathLike,
    format: str | None = None,
    report: ImportReport | None = None,
    on_bad_document: str = "error",
    relations: Collection[str] | None = None,
    source: str | None = None,
    null_label: str | None = None,
    options: MarkedTextOptions | None = None,
    relation_ids: Mapping[str, str] | None = None,
    keep_entities: bool = False,
) -> Generator[Document, None, None]:
    """
    Documents of a file or a folder in a registered format, in DocRED's form.

    Args:
        path (`str`): a file, which may be compressed by gzip, or a folder of files.
        format (`str`, *optional*): the format's name; it is guessed by default, see [`~format_registry.input_files`].
        report ([`ImportReport`], *optional*): is given the counts of what was read, and of what was dropped: facts of an entity
            with itself, facts that are listed twice, labels that mean no relation, and what the reader drops.
        on_bad_document (`str`, defaults to `"error"`): `"error"` raises, `"skip"` leaves out the document, `"drop_part"` leaves
            out mentions, entities, facts and ignored pairs that do not fit, or else the document: in formats other than DocRED's,
            mentions whose place is wrong, with what needs them. A file that cannot be parsed always raises.
        relations (`Collection[str]`, *optional*): the known relations. Any is accepted by default.
        source (`str`, *optional*): how messages call the file. Its path by default.
        null_label (`str`, *optional*): a label that means no relation, beside those that always do, without case: `Na`, `NR`,
            `none`, `no_relation`, `no relation`, `no-relation` and `1:NR:2`.
        options ([`MarkedTextOptions`], *optional*): how the files of annotation tools are read; of other formats they are not
            used.
        relation_ids (`dict[str, str]`, *optional*): ids of relations by their readable names, where the files may have these.
        keep_entities (`bool`, defaults to `False`): with `"drop_part"`, leave out a document rather than one of its entities, or,
            in formats other than DocRED's, one of its mentions.

    Raises:
        DocumentError: a document is malformed; the message names file, document, field, what was found and what was expected.
        FileNotFoundError, SettingError, ValueError: as in [`~format_registry.input_files`].
        ImportError: the format needs an extra that is not installed; the message names it.
    """
    if on_bad_document not in ON_BAD_DOCUMENT:
        raise ValueError(f"on_bad_document is {on_bad_document!r}; expected one of {', '.join(ON_BAD_DOCUMENT)}")
    report = ImportReport() if report is None else report
    # Without one of its mentions an entity may get another number: these follow the first mentions.
    report.drop_mentions = on_bad_document == "drop_part" and not keep_entities
    files = input_files(path, format)
    report.unread_files += unread_files(path, files, format)
    # A name that means no relation is not replaced by an id, which would be one.
    relation_ids = {
        name: relation
        for name, relation in (relation_ids or {}).items()
        if name != null_label and not means_no_relation(name)
    }
    options = replace(_resolved(options or MarkedTextOptions(), files), relation_ids=relation_ids)
    titles: set[str] = set()
    for file, form in files:
        where = {"source": source or file, "relations": relations}
        arguments = (file, report) if form.links_mentions is None else (file, report, options)
        items = form.read(*arguments)
        for document in _checked(items, where, report, on_bad_document, null_label, relation_ids, keep_entities):
            report.note("documents with the title of an earlier one", document["title"] in titles)
            titles.add(document["title"])
            yield document


def _resolved(options, files):
    """Options that say how entities are formed: that some mentions are not linked has a meaning where others are, in any file."""
    if options.entities != "auto":
        return options
    for path, form in files:
        try:
            if form.links_mentions is not None and form.links_mentions(path, options):
                return replace(options, entities="links")
        except _BROKEN_OFF as error:
            raise _incomplete(path, None, error) from error
    return replace(options, entities="names")


def _incomplete(path, index, error):
    expected = "UTF-8 text, plain or compressed by gzip; is the file complete?"
    return DocumentError(path, index, None, None, str(error), expected)


def _checked(items, where, report, on_bad_document, null_label, relation_ids, keep_entities):
    """Documents of what a reader gives."""
    index = -1
    try:
        for index, item in enumerate(items):
            try:
                if isinstance(item, DocumentError):
                    raise item
                document = _finished(item, report, index, where["source"], null_label, relation_ids)
                if on_bad_document == "drop_part":
                    document, parts = drop_bad_parts(document, index=index, **where, keep_entities=keep_entities)
                    for kind, number in parts.items():
                        report.drop(f"{kind.replace('_', ' ')} that do not fit", number)
                else:
                    validate_document(document, index=index, **where)
            except DocumentError as error:
                if on_bad_document == "error":
                    raise
                report.skipped.append(error)
                continue
            report.add(document)
            yield document
    except _BROKEN_OFF as error:
        raise _incomplete(where["source"], index + 1, error) from error


def _finished(item, report, index, path, null_label, relation_ids):
    """A document whose labels are facts between two entities, each once."""
    document = document_of_text(item, report, index=index, source=path) if isinstance(item, AnnotatedText) else item
    labels = document.get("labels") if isinstance(document, dict) else None
    if not isinstance(labels, list) or not all(
        isinstance(label, dict) and isinstance(label.get("r"), str) for label in labels
    ):
        return document  # the check of documents says what is wrong with it, if anything
    kept = {}
    for label in labels:
        if (relation := label["r"]) in relation_ids:
            label = {**label, "r": relation_ids[relation]}
        fact = tuple(label.get(name) for name in ("h", "t", "r"))
        if fact[2] == null_label or means_no_relation(fact[2]):
            report.drop("labels that mean no relation")
        elif fact[0] == fact[1] and fact[0] is not None:
            report.drop("facts of an entity with itself")
        elif str(fact) in kept:
            report.drop("facts that are listed twice")
        else:
            kept[str(fact)] = label
    return {**document, "labels": list(kept.values())}
