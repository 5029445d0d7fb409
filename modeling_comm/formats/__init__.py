"""Documents from the files of other data sets and tools: a registry of formats, each with a reader."""

from . import bioc, biomedical_pairs, chemdisgene, docred_forms, pubtator  # noqa: F401
from .annotated_text import AnnotatedFact, AnnotatedMention, AnnotatedText, document_of_text
from .format_registry import Format, available_formats, get_format, input_files, matching_formats, register_format
from .import_report import ImportReport
from .reading import read_documents

__all__ = [
    "AnnotatedFact",
    "AnnotatedMention",
    "AnnotatedText",
    "Format",
    "ImportReport",
    "available_formats",
    "document_of_text",
    "get_format",
    "input_files",
    "matching_formats",
    "read_documents",
    "register_format",
]
