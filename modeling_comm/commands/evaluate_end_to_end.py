"""`comm-docre evaluate --end_to_end`: a model on the raw text of labelled documents, beside what it does with their entities."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import pipeline

from ..configuration_comm import TASK
from ..data.dataset_entry import LOCAL
from ..documents import Document
from ..evaluation.end_to_end import end_to_end_scores, format_end_to_end, raw_text, text_with_mentions
from ..extensions import import_extensions
from ..formats import ImportReport, read_documents
from ..pipeline_comm import DocumentRelationExtractionPipeline
from ..utils.files import write_json
from ..utils.writer import is_standard_output
from .errors import refuse_overwriting
from .predict_models import check_model, check_ner, load_ner

# Flags of `evaluate` that compare predictions with documents and mean nothing here.
_OTHERS = (
    *("predictions", "train_facts", "type_prior_train", "rel_info", "errors"),
    "allow_missing_documents",
)
# What a document with given entities is predicted from.
_GIVEN = ("title", "sents", "vertexSet", "untyped_entities", "ignored_pairs")


def evaluate_end_to_end(
    extract: DocumentRelationExtractionPipeline, ner: Callable, documents: list[Document], batch_size: int = 4
) -> dict[str, dict[str, Any]]:
    """
    Scores a model on documents whose entities are given, whose mentions are given and grouped by our rules, and of which only the
    text is given. The model's candidate pairs say which facts are the same.

    Args:
        extract (`DocumentRelationExtractionPipeline`): the pipeline.
        ner (`Callable`): finds mentions, as the pipeline's `ner`.
        documents (`list[Document]`): labelled documents.
        batch_size (`int`, defaults to 4): documents that the model sees at once.

    Returns:
        `dict[str, dict]`: by what is given, `"entities"`, `"mentions"` or `"text"`, what
        [`~modeling_comm.evaluation.end_to_end.end_to_end_scores`] returns.
    """
    unlabelled = [{name: value for name, value in document.items() if name in _GIVEN} for document in documents]
    inputs = {
        "entities": unlabelled,
        "mentions": [text_with_mentions(document) for document in documents],
        "text": [raw_text(document) for document in documents],
    }
    results = {}
    for given, texts in inputs.items():
        records = extract(texts, ner=ner, batch_size=batch_size, max_sentences=0)
        results[given] = end_to_end_scores(records, documents, extract.processor.candidates)
    return results


def run(args: argparse.Namespace) -> int:
    """The command with `--end_to_end`: prints the table and writes `--output`; returns the exit status."""
    given = [f"--{name}" for name in _OTHERS if getattr(args, name)]
    if args.dataset_config != LOCAL.name:
        given.append("--dataset_config")
    if given:
        reason = "it predicts by itself, and the checkpoint says which pairs and facts count"
        raise ValueError(f"--end_to_end goes without {', '.join(given)}: {reason}")
    if missing := [f"--{name}" for name in ("model", "ner") if not getattr(args, name)]:
        raise ValueError(f"--end_to_end needs {' and '.join(missing)}")
    refuse_overwriting(filter(None, [args.output]), [args.truth, args.model, *(args.extensions or ())])
    import_extensions(args.extensions)  # before the model, which may need its losses and relation encoders
    report = ImportReport()
    documents = list(read_documents(args.truth, report=report))
    if report.dropped or report.unread_files:
        print(f"{args.truth}: {report.left_out()}", file=sys.stderr)
    if not documents or any(document.get("labels") is None for document in documents):
        raise ValueError(f"{args.truth}: expected documents, all of them with labels")
    check_model(args.model)
    check_ner(args.ner)
    extract = pipeline(TASK, model=args.model, device=args.device)
    results = evaluate_end_to_end(extract, load_ner(args.ner, args.device), documents, args.batch_size)
    to_stdout = args.output and is_standard_output(args.output)
    print(format_end_to_end(results), file=sys.stderr if to_stdout else sys.stdout)
    if args.output:
        about = {"model": Path(args.model).name, "ner": Path(args.ner).name, "truth": Path(args.truth).name}
        write_json(args.output, {**about, "documents": len(documents), "given": results})
    return 0
