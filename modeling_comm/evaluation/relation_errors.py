"""The errors of predictions, relation by relation: false positives and false negatives with the sentences to read."""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from ..candidate_pairs import ALL_PAIRS, CandidatePairs, ignored_pairs
from ..documents import Document, OfficialPrediction
from ..utils.files import write_json
from ..utils.spreadsheet import csv_header, csv_rows
from ..utils.writer import write_bytes
from .scoring import parse_prediction, score

COLUMNS = (
    *("error", "relation", "relation_name", "document", "head", "head_type", "tail", "tail_type", "other_relations"),
    "sentences",
)
_KINDS = {"false_positives": "false positive", "false_negatives": "false negative"}
FORMATS = (".json", ".csv")


def relation_errors(
    predictions: Collection[OfficialPrediction],
    documents: Iterable[Document],
    relation_names: Mapping[str, str] | None = None,
    candidates: CandidatePairs = ALL_PAIRS,
) -> list[dict]:
    """
    The errors of each relation.

    Args:
        predictions (`Collection[dict]`): as in [`~modeling_comm.evaluation.scoring.score`]. Those with a title that no document
            has are left out.
        documents (`Iterable[dict]`): labelled documents in DocRED's format, each title once. Without `sents` no sentence is
            shown.
        relation_names (`Mapping[str, str]`, *optional*): readable names of relations.
        candidates (`CandidatePairs`, *optional*): as in [`~modeling_comm.evaluation.scoring.score`].

    Returns:
        `list[dict]`: for each relation, that with most errors first, `relation`, `relation_name`, `precision`, `recall`, `f1`,
        `gold`, `predictions` and `correct`, and as lists `false_positives` and `false_negatives`. Each of their entries has

        - `document`, `h_idx` and `t_idx`, and `head`, `head_type`, `tail` and `tail_type`;
        - `other_relations`: what else the truth says of the pair (of a false positive) or was predicted for it (of a false
          negative), also as an inverse relation, and of a symmetric one in either direction; where there is any, relations were
          probably confused;
        - `sentences`: the evidence that is labelled or predicted, or else the sentences that mention both, or else the two
          nearest ones that mention head and tail.

    Raises:
        DocumentError, PredictionError, ValueError: as in [`~modeling_comm.evaluation.scoring.score`].
    """
    documents, names = list(documents), relation_names or {}
    counts = score(predictions, documents, candidates=candidates)["per_relation"]
    truth = {document["title"]: document for document in documents}
    ignored = {title: ignored_pairs(document) for title, document in truth.items()}
    gold = {}
    for title, document in truth.items():
        for label in document.get("labels") or ():
            gold_fact = candidates.turn(label["h"], label["t"], label["r"])
            if not candidates.ignores(*gold_fact, ignored[title]):
                gold.setdefault((title, *gold_fact), set()).update(label.get("evidence") or ())
    predicted = {}
    for index, prediction in enumerate(predictions):
        (title, head, tail, relation), evidence = parse_prediction(prediction, index)
        fact = candidates.turn(head, tail, relation)
        if title in truth and not candidates.ignores(*fact, ignored[title]):
            predicted.setdefault((title, *fact), evidence)
    errors = {relation: {kind: [] for kind in _KINDS} for relation in counts}
    for kind, facts, others in (("false_positives", predicted, gold), ("false_negatives", gold, predicted)):
        of_pair = {}
        for title, *other in others:
            for head, tail, relation in (other, *candidates.mirrored(*other)):
                of_pair.setdefault((title, head, tail), []).append(names.get(relation, relation))
        for fact, evidence in facts.items():
            if fact not in others:
                entry = _describe(truth[fact[0]], fact, evidence)
                title, head, tail, relation = fact
                pairs = [(title, head, tail)]
                if candidates.is_symmetric(relation):
                    pairs.append((title, tail, head))
                entry["other_relations"] = sorted({other for pair in pairs for other in of_pair.get(pair, ())})
                errors[fact[3]][kind].append(entry)
    result = [
        {"relation": relation, "relation_name": names.get(relation, relation), **counts[relation], **found}
        for relation, found in errors.items()
    ]
    return sorted(result, key=lambda one: (-sum(len(one[kind]) for kind in _KINDS), one["relation"]))


def _describe(document, fact, evidence):
    title, head, tail, _ = fact
    entry = {"document": title, "h_idx": head, "t_idx": tail}
    for end, index in (("head", head), ("tail", tail)):
        mentions = document["vertexSet"][index]
        entry[end] = max((mention["name"] for mention in mentions), key=len)
        entry[f"{end}_type"] = mentions[0].get("type", "")
    shown = sorted(evidence) or _sentences_of_pair(document["vertexSet"][head], document["vertexSet"][tail])
    sents = document.get("sents") or ()
    entry["sentences"] = [" ".join(sents[number]) for number in shown if number < len(sents)]
    return entry


def _sentences_of_pair(head, tail):
    """The sentences that mention both, or else the two nearest ones that mention one each."""
    of_head, of_tail = ({mention["sent_id"] for mention in mentions} for mentions in (head, tail))
    if both := of_head & of_tail:
        return sorted(both)
    return sorted(min(((h, t) for h in of_head for t in of_tail), key=lambda pair: (abs(pair[0] - pair[1]), pair)))


def error_rows(errors: Iterable[dict]) -> Iterator[dict]:
    """A row with [`COLUMNS`] for each error that [`relation_errors`] found."""
    for one in errors:
        for kind, name in _KINDS.items():
            for entry in one[kind]:
                lists = {
                    "other_relations": "; ".join(entry["other_relations"]),
                    "sentences": " | ".join(entry["sentences"]),
                }
                row = {**one, **entry, **lists, "error": name}
                yield {column: row[column] for column in COLUMNS}


def write_errors(path: str | os.PathLike, errors: list[dict]) -> None:
    """
    Writes what [`relation_errors`] found.

    Args:
        path (`str` or `os.PathLike`): a file that ends in `.json`, or in `.csv` for spreadsheets.
        errors (`list[dict]`): the errors.

    Raises:
        OSError: the file cannot be written.
        ValueError: it has another ending.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise ValueError(f"{path}: found the ending {suffix!r}, expected {' or '.join(FORMATS)}")
    if suffix == ".json":
        write_json(path, errors)
    else:
        write_bytes(path, csv_header(COLUMNS) + csv_rows(COLUMNS, error_rows(errors)))
