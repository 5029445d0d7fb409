"""The command `comm-docre evaluate`: scores of predictions beside those of the type prior."""

import argparse
import contextlib
import gzip
import itertools
import json
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path

from ..data.dataset_entry import LOCAL, DatasetEntry, get_dataset
from ..documents import Document, DocumentError, OfficialPrediction
from ..evaluation.field_scores import score_data_set
from ..evaluation.mismatch import (
    check_same_entities,
    mismatch_warnings,
    translate_relations,
)
from ..evaluation.relation_errors import FORMATS, relation_errors, write_errors
from ..evaluation.scoring import PredictionError, format_scores, load_ign_reference, parse_documents
from ..evaluation.type_prior import TypePrior
from ..extensions import import_extensions
from ..prediction_record import parse_record
from ..reporting.triple_table import refuse_csv
from ..utils.counted_nouns import TRIPLES, counted
from ..utils.files import check_list, no_json, open_text, read_json, read_json_list, write_json
from ..utils.relation_names import names_beside, read_relation_names
from ..utils.writer import is_standard_output
from .errors import refuse_overwriting
from .predict_outputs import check_finished


def read_predictions(path: str) -> tuple[list[OfficialPrediction], dict[str, list[str]] | None]:
    """
    Predictions of a file in the official format, or of the JSON lines that `comm-docre predict` writes of documents in DocRED's
    format, whose entities keep their numbers.

    Returns:
        `tuple[list[dict], dict[str, list[str]] | None]`: the predictions in the official format, and by title the names of the
        entities of each document that was predicted. The official format does not tell them.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is in neither format, two records have the same title, or `predict` has not finished it.
    """
    try:
        with open_text(path) as file:
            before = ""  # which a pipe gives but once
            while (first := file.read(1)).isspace():
                before += first
            if first == "{":
                check_finished(path)
                facts, entities, lines, not_selected = [], {}, {}, 0
                for number, line in enumerate(
                    itertools.chain([first + file.readline()], file), before.count("\n") + 1
                ):
                    if not line.strip():
                        continue
                    record = _read_record(line, f"{path}, line {number}")
                    title = record["title"]
                    # By titles alone triples are told apart: those of one record would count for the other's document.
                    if (first_line := lines.setdefault(title, number)) != number:
                        found, expected = f"{title!r} of line {first_line} again", "a title that no other record has"
                        raise ValueError(f"{path}, line {number}: found the title {found}, expected {expected}")
                    facts += _official(record)
                    entities[title] = [entity["name"] for entity in record["entities"]]
                    not_selected += record["lost"].get("triples_not_selected", 0)
                if not_selected:
                    found = f"a selection such as --min_score or --top_k left out {counted(not_selected, TRIPLES)} of the model"
                    print(f"warning: {path}: {found}; the scores are those of the rest", file=sys.stderr)
                return facts, entities
            beginning = first + file.readline(1000)
            refuse_csv(beginning, path)
            if not first:
                raise ValueError(f"{path}: found nothing, expected predictions; had `predict` documents to predict?")
            text = before + beginning + file.read()
    except (UnicodeDecodeError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise no_json(path, error) from error
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise no_json(path, error) from error
    return check_list(content, path, "a list of predictions"), None


@contextlib.contextmanager
def _naming_files(predictions, truth):
    """Errors about a document or a prediction name the file that it is in."""
    try:
        yield
    except DocumentError as error:
        error.source = error.source or (predictions if isinstance(error, PredictionError) else truth)
        raise


def _read_record(line, where):
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or "triples" not in record:
        expected = "a JSON list of predictions {title, h_idx, t_idx, r}, or the JSON lines of comm-docre predict"
        raise ValueError(f"{where}: found {line.strip()[:50]!r}, expected {expected}")
    return parse_record(record, source=where)


def _official(record):
    names = {"head": "h_idx", "tail": "t_idx", "relation": "r", "evidence": "evidence", "symmetric": "symmetric"}
    facts = [{name: triple[key] for key, name in names.items() if key in triple} for triple in record["triples"]]
    return [{"title": record["title"], **fact} for fact in facts]


def check_entities(
    predicted: Mapping[str, list[str]], documents: list[Document], predictions: str, truth: str
) -> None:
    """
    Checks that records have the entities of the documents with their titles; a triple's indices mean nothing otherwise.

    Args:
        predicted (`dict[str, list[str]]`): by title, the names of the entities of a record.
        documents (`list[dict]`): the labelled documents.
        predictions (`str`), truth (`str`): the files, for the message.

    Raises:
        DocumentError: a labelled document is malformed.
        PredictionError: a record has more or fewer entities, or one whose name none of the document's mentions has.
    """
    for document in parse_documents(documents, source=truth):
        names = predicted.get(document.title)
        if names is None:
            continue
        check_same_entities(names, document, truth, source=predictions)


def compare_files(
    predictions: str,
    truth: str,
    train_facts: str | None = None,
    type_prior_train: str | None = None,
    allow_missing_documents: bool = False,
    entry: DatasetEntry = LOCAL,
    rel_info: str | None = None,
    errors: str | None = None,
) -> tuple[dict, str]:
    """Scores the files of the command, and the type prior beside them.

    Args:
        predictions (`str`): file of predictions, see [`read_predictions`].
        truth (`str`): JSON file of labelled documents.
        train_facts (`str`, *optional*): JSON file of training documents, or of facts, that Ign F1 leaves out.
        type_prior_train (`str`, *optional*): JSON file of documents that the type prior counts; by default
            `train_facts`, where that holds documents. Without either there is no type prior.
        allow_missing_documents (`bool`, defaults to `False`): whether JSON lines may lack documents of the truth, all of whose
            facts then count as missed.
        entry (`DatasetEntry`, *optional*): of the data set, see [`~modeling_comm.evaluation.field_scores.score_data_set`].
        rel_info (`str`, *optional*): JSON file with the names of relations, by default the one beside `truth`. Predictions that
            have a name for an id are read as that id.
        errors (`str`, *optional*): file that is given the errors of each relation, see
            [`~modeling_comm.evaluation.relation_errors.write_errors`].

    Returns:
        `tuple[dict, str]`: what [`~modeling_comm.evaluation.field_scores.score_data_set`] returns, with `"type_prior"` added
        (`None`, or `train`, `cutoff`, `cutoff_chosen_on` and its own `scores`), and the text table.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file is not JSON or not of the expected shape, documents are missing, or records have other entities
            than the documents.
    """
    documents = read_json_list(truth, "a list of documents")
    if not documents:
        raise ValueError(f"{truth}: found no document, expected some with labels")
    reference = load_ign_reference(train_facts) if train_facts else None
    facts, predicted = read_predictions(predictions)
    if predicted is not None:
        check_entities(predicted, documents, predictions, truth)
    result = score_data_set(entry, facts, documents, reference)
    names = read_relation_names(rel_info) if rel_info else names_beside(truth)
    if result["unknown_relations"]:
        relations = {label["r"] for document in documents for label in document.get("labels") or ()}
        facts, changed = translate_relations(facts, relations, names)
        if changed:
            found = f"{changed:,} of {len(facts):,} predictions have names of relations for ids, or ids for names"
            print(f"warning: {found}; they are scored as what the truth has", file=sys.stderr)
            result = score_data_set(entry, facts, documents, reference)
    for warning in mismatch_warnings(result, facts, documents):
        print(f"warning: {predictions}: {warning}", file=sys.stderr)
    if predicted is not None and (missing := [d["title"] for d in documents if d["title"] not in predicted]):
        found = f"no record of {len(missing):,} of the {len(documents):,} documents of {truth}, such as {missing[0]!r}"
        if not allow_missing_documents:
            raise ValueError(f"{predictions}: found {found}; --allow_missing_documents counts their facts as missed")
        print(f"warning: {predictions} has {found}; their facts count as missed", file=sys.stderr)
    if warning := _unknown_symmetric(facts, entry):
        print(f"warning: {predictions}: {warning}", file=sys.stderr)
    if errors:
        write_errors(errors, relation_errors(facts, documents, names, entry.candidates))
    train = type_prior_train or train_facts
    training = read_json(train) if train else []
    if not type_prior_train and (lacking := _lacks_for_type_prior(training, documents, truth)):
        return {**result, "type_prior": None}, f"{format_scores(result)}\ntype prior: none, {lacking}"

    prior = TypePrior(training, entry.candidates, source=train or "")
    cutoff, _ = prior.best_cutoff(documents)
    floor = score_data_set(entry, prior.predict(documents, cutoff), documents, reference)
    train, truth = Path(train).name, Path(truth).name
    note = (
        f"type prior: P(relation | types) from {train}, cut-off {cutoff:.4g} chosen on {truth} itself, its best there"
    )
    report = {"train": train, "cutoff": cutoff, "cutoff_chosen_on": truth, "scores": floor}
    return {**result, "type_prior": report}, f"{format_scores(result, floor, 'type prior')}\n{note}"


def _lacks_for_type_prior(training, documents, truth):
    """Why there is no type prior where none was asked for; None if there is one."""
    if not any(isinstance(item, dict) for item in training):
        return "it needs --type_prior_train or documents in --train_facts"
    for items, where in ((training, "--train_facts"), (documents, truth)):
        mentions = (mention for item in items for mentions in item["vertexSet"] for mention in mentions)
        if not all(isinstance(mention.get("type"), str) for mention in mentions):
            return f"it needs the types of entities, and {where} has mentions without"
    return None


def _unknown_symmetric(facts, entry):
    """Says where records have symmetric relations that the data set takes for directed ones; None where they do not."""
    candidates = entry.candidates
    found = dict.fromkeys(fact["r"] for fact in facts if fact.get("symmetric"))
    unknown = [name for name in found if not candidates.is_symmetric(candidates.inverse.get(name, name))]
    if not unknown:
        return None
    return (
        f"found triples of symmetric relations, such as {unknown[0]!r}, which the data set {entry.name!r} takes for directed; "
        "one that is labelled in the other direction counts as wrong; --dataset_config names a data set that knows them"
    )


def run(args: argparse.Namespace) -> int:
    """The command: prints the table and writes `--output`; returns the exit status."""
    if args.end_to_end:
        from .evaluate_end_to_end import run as run_end_to_end  # imports the pipeline, which takes seconds

        return run_end_to_end(args)
    if not args.predictions:
        raise ValueError("expected --predictions, or --end_to_end with --model and --ner")
    files = (args.predictions, args.truth, args.train_facts, args.type_prior_train)
    outputs = [path for path in (args.output, args.errors) if path]
    refuse_overwriting(outputs, filter(None, [*files, args.rel_info, *(args.extensions or ())]))
    import_extensions(args.extensions)
    if args.errors and Path(args.errors).suffix.lower() not in FORMATS:
        raise ValueError(f"--errors {args.errors}: expected a file that ends in {' or '.join(FORMATS)}")
    entry = get_dataset(args.dataset_config)
    with _naming_files(args.predictions, args.truth):
        report, table = compare_files(*files, args.allow_missing_documents, entry, args.rel_info, args.errors)
    # A standard output that gets the JSON gets nothing else.
    print(table, file=sys.stderr if args.output and is_standard_output(args.output) else sys.stdout)
    if args.output:
        write_json(args.output, report)
    return 0
