"""The part of the command `comm-docre export` that writes predictions, or labelled documents, for annotation tools."""

import argparse
import sys
from collections.abc import Iterator

from ..configuration_comm import __version__
from ..documents import Document, validate_document
from ..formats import collect_labels, get_writer, pre_annotation
from ..prediction_record import PredictionRecord, parse_record
from ..utils.counted_nouns import DOCUMENTS, MENTIONS, RELATIONS, counted, numbers_of_kinds
from ..utils.files import iterate_json_values, refuse_pipe
from ..utils.relation_names import read_relation_names
from ..utils.writer import is_standard_output
from .errors import refuse_overwriting
from .predict_outputs import check_finished


def run(args: argparse.Namespace) -> int:
    """Writes the pre-annotations, and says how much there is; returns the exit status."""
    refuse_overwriting([args.output], filter(None, [args.input, args.rel_info]))
    check_finished(args.input)
    refuse_pipe(args.input)  # its labels are collected before a document is written
    names = read_relation_names(args.rel_info) if args.rel_info else {}
    labels = collect_labels(read_predictions(args.input), names, args.coreference_relation)
    annotations = (pre_annotation(item, number)[0] for number, item in enumerate(read_predictions(args.input), 1))
    documents = (annotation for annotation in annotations if annotation.has_text)
    version = args.model_version or f"comm-docre {__version__}"
    files = get_writer(args.format)(args.output, documents, labels, version)
    kinds = (DOCUMENTS, MENTIONS, RELATIONS)
    counts = ", ".join(counted(labels.counts[nouns[1]], nouns) for nouns in kinds if labels.counts)
    to_stdout = is_standard_output(args.output)
    print(f"{counts or 'no documents'}: {' and '.join(files)}", file=sys.stderr if to_stdout else sys.stdout)
    if labels.left_out:
        print(f"left out: {numbers_of_kinds(labels.left_out)}", file=sys.stderr)
    return 0


def read_predictions(path: str) -> Iterator[Document | PredictionRecord]:
    """
    What `comm-docre predict` wrote, or documents in DocRED's format, one at a time, each checked.

    Args:
        path (`str`): JSON lines of records, or a JSON array or JSON lines of documents; both may be compressed by gzip.

    Raises:
        DocumentError: an item is neither.
    """
    for index, item in enumerate(iterate_json_values(path)):
        if isinstance(item, dict) and "triples" in item:
            yield parse_record(item, index, path)
        else:
            validate_document(item, index=index, source=path)
            yield item
