"""Documents from the files of other data sets and tools: a registry of formats, each with a reader."""

from . import (  # noqa: F401
    bioc,
    biomedical_pairs,
    brat,
    chemdisgene,
    doccano,
    docred_forms,
    label_studio,
    prodigy,
    pubtator,
    spacy_docs,
)
from .annotated_text import AnnotatedFact, AnnotatedMention, AnnotatedText, document_of_text
from .format_registry import (
    Format,
    available_formats,
    get_format,
    get_writer,
    input_files,
    matching_formats,
    register_format,
    register_writer,
)
from .import_report import ImportReport
from .marked_text import MarkedTextOptions
from .original_documents import OriginalDocuments
from .pre_annotation import collect_labels, pre_annotation
from .reading import read_documents

__all__ = [
    "AnnotatedFact",
    "AnnotatedMention",
    "AnnotatedText",
    "Format",
    "ImportReport",
    "MarkedTextOptions",
    "OriginalDocuments",
    "available_formats",
    "collect_labels",
    "document_of_text",
    "get_format",
    "get_writer",
    "input_files",
    "matching_formats",
    "pre_annotation",
    "read_documents",
    "register_format",
    "register_writer",
]
