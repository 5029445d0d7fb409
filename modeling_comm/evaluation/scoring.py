"""Scores predicted facts against annotated documents, by the official definitions of DocRED and Re-DocRED.

The command `comm-docre evaluate` sets the scores beside the type prior's.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from ..documents import DocumentChecker, DocumentError, validate_document
from ..utils.files import read_json


class Document(NamedTuple):
    """A checked document: lists of mentions, evidence by `(head, tail, relation)`, how many labels repeat a fact."""

    title: str
    entities: list
    facts: dict[tuple[int, int, str], set[int]]
    duplicate_labels: int


class PredictionError(DocumentError):
    """A predicted fact, or a document's predicted facts, are malformed. Attributes as in [`DocumentError`]."""

    noun = "prediction"


def parse_prediction(
    prediction: Any, index: int, truth: Mapping[str, Document] = MappingProxyType({})
) -> tuple[tuple[str, int, int, str], set[int]]:
    """
    `(title, head, tail, relation)` and the set of evidence sentences of one prediction in the official format.

    Args:
        prediction (`dict`): `title`, `h_idx`, `t_idx`, `r` and optionally `evidence`.
        index (`int`): its position, for the message.
        truth (`dict[str, Document]`): documents by title, if they are known.

    Raises:
        PredictionError: a field is missing or wrong, or an index exceeds the entities of that title's document.
    """
    checker = DocumentChecker(prediction, index, None, PredictionError)
    checker.check(prediction, Mapping, None, "an object with title, h_idx, t_idx and r")
    title = checker.read_text(prediction, "title", "", "the title of a document")
    entities = len(truth[title].entities) if title in truth else None
    fact, evidence = checker.read_fact(prediction, "", entities, head="h_idx", tail="t_idx")
    return (title, *fact), evidence


def parse_documents(
    documents: Iterable[dict], *, require: Collection[str] = ("labels",), source: str | None = None
) -> list[Document]:
    """
    Checks documents in DocRED's format and reads what scoring needs of them, in the order given.

    Args:
        documents (`Iterable[dict]`): documents with at least `title`, `vertexSet` (mentions with `name` and `sent_id`) and what
            `require` names.
        require (`Collection[str]`, defaults to `("labels",)`): as in [`~modeling_comm.documents.validate_document`].
        source (`str`, *optional*): where the documents come from, for the message.

    Raises:
        DocumentError: the first thing that is wrong.
        ValueError: `documents` is no list.
    """
    _check_list(documents, source or "documents", "a list of documents")
    return [_parse_document(document, index, require, source) for index, document in enumerate(documents)]


def _parse_document(document, index, require, source):
    validate_document(document, index=index, source=source, require=require)
    facts, labels = {}, document.get("labels") or []
    for label in labels:
        facts.setdefault((label["h"], label["t"], label["r"]), set()).update(label.get("evidence") or ())
    return Document(document["title"], document["vertexSet"], facts, len(labels) - len(facts))


def _check_list(value, name, expected):
    if isinstance(value, (str, Mapping)) or not isinstance(value, Iterable):
        raise ValueError(f"{name}: found {type(value).__name__}, expected {expected}")


@dataclass(frozen=True)
class IgnReference:
    """Facts that training already showed, which Ign F1 leaves out. Built by [`load_ign_reference`].

    Attributes:
        facts (`frozenset[tuple[str, str, str]]`): `(head name, tail name, relation)`.
        source (`str`): name of the file, without its folder, or a word on what was handed over.
        sha256 (`str`): hash of the file, or of the sorted facts where there was no file.
    """

    facts: frozenset
    source: str
    sha256: str

    def knows(self, head_mentions, tail_mentions, relation) -> bool:
        """Returns whether any name of the head has this relation to any name of the tail in these facts."""
        return any((h["name"], t["name"], relation) in self.facts for h in head_mentions for t in tail_mentions)


def load_ign_reference(source) -> IgnReference:
    """Reads the facts that Ign F1 leaves out. They are hashed and never cached, so a changed file changes the score.

    Args:
        source (`str`, `os.PathLike`, `list` or [`IgnReference`]): a JSON file or a list of labelled documents in
            DocRED's format (each label gives every pair of a head name and a tail name) or of facts
            `[head name, tail name, relation]`. A finished reference is returned as it is.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds neither documents nor facts; the message names the first item that is wrong.
    """
    if isinstance(source, IgnReference):
        return source
    is_file = isinstance(source, (str, os.PathLike))
    name = os.fspath(source) if is_file else "ign_reference"
    content = read_json(source) if is_file else source
    _check_list(content, name, "a list of documents or of facts")
    content = list(content)
    if any(isinstance(item, Mapping) for item in content):
        facts = frozenset(
            (h["name"], t["name"], relation)
            for document in parse_documents(content, source=name)
            for head, tail, relation in document.facts
            for h in document.entities[head]
            for t in document.entities[tail]
        )
    else:
        for index, fact in enumerate(content):
            if not (isinstance(fact, (list, tuple)) and len(fact) == 3 and all(isinstance(x, str) for x in fact)):
                raise ValueError(f"{name}: fact {index}: found {fact!r}, expected [head name, tail name, relation]")
        facts = frozenset(map(tuple, content))
    if is_file:
        return IgnReference(facts, Path(source).name, hashlib.sha256(Path(source).read_bytes()).hexdigest())
    canonical = json.dumps(sorted(facts), ensure_ascii=False, separators=(",", ":")).encode()
    return IgnReference(facts, f"{len(content)} items in memory", hashlib.sha256(canonical).hexdigest())


def _ratio(part, whole):
    return part / whole if whole else 0.0


def _f1(precision, recall):
    return _ratio(2 * precision * recall, precision + recall)


def _rates(correct, predictions, gold):
    precision, recall = _ratio(correct, predictions), _ratio(correct, gold)
    counts = {"gold": gold, "predictions": predictions, "correct": correct}
    return {"precision": precision, "recall": recall, "f1": _f1(precision, recall), **counts}


def evidence_rates(facts: Iterable[tuple[set[int], set[int]]]) -> dict[str, float]:
    """`precision`, `recall`, `f1`, and the counts `gold`, `predictions` and `correct` of sentences, over facts that are given as
    their predicted and their annotated sentences."""
    facts = list(facts)
    counts = (sum(len(found & gold) for found, gold in facts), sum(len(found) for found, _ in facts))
    return _rates(*counts, sum(len(gold) for _, gold in facts))


def _sentence_distance(document, head, tail):
    return min(abs(h["sent_id"] - t["sent_id"]) for h in document.entities[head] for t in document.entities[tail])


def _ign_scores(ign_reference, truth, gold, correct, predicted):
    if ign_reference is None:
        return {"ign_precision": None, "ign_f1": None, "ign_reference": None}
    reference = load_ign_reference(ign_reference)
    known = {
        (title, head, tail, relation)
        for title, head, tail, relation in gold
        if reference.knows(truth[title].entities[head], truth[title].entities[tail], relation)
    }
    known_correct = len(known & correct)
    precision = _ratio(len(correct) - known_correct, len(predicted) - known_correct)
    counts = {"facts": len(reference.facts), "known_gold": len(known), "known_correct": known_correct}
    return {
        "ign_precision": precision,
        "ign_f1": _f1(precision, _ratio(len(correct), len(gold))),
        "ign_reference": {"source": reference.source, "sha256": reference.sha256, **counts},
    }


def score(
    predictions: Iterable[dict],
    documents: Iterable[dict],
    *,
    ign_reference: str | os.PathLike | list | IgnReference | None = None,
    frequent_relations: Collection[str] | None = None,
    long_distance: int = 5,
) -> dict:
    """Scores predicted facts, micro-averaged over distinct `(title, head, tail, relation)`.

    The numbers are those of DocRED's and Re-DocRED's official scripts, with three corrections: without predictions
    each score is 0, where the scripts fail or return early; gold evidence is counted from 0, not from 1; and the
    denominator of Ign precision has no 1e-5 added (0/0 is 0). Neither input is changed or reordered.

    Args:
        predictions (`Iterable[dict]`): official format, `{"title", "h_idx", "t_idx", "r"}` and perhaps `"evidence"`.
            Repeated ones count once (the first one's evidence holds). One with a title that no document has counts as
            wrong, in neither `intra` nor `inter`. Evidence outside of the document is wrong evidence.
        documents (`Iterable[dict]`): labelled documents in DocRED's format, each title once. Labels that repeat a fact
            count once, with the union of the evidence.
        ign_reference (*optional*): what [`load_ign_reference`] takes. No default, because it changes Ign F1.
        frequent_relations (`Collection[str]`, *optional*): the relations that the data set calls frequent, as in
            [`~modeling_comm.data.DatasetEntry`]. Without them there are no scores of frequent and other relations.
        long_distance (`int`, defaults to 5): `inter_long` has the facts whose mentions are all further apart.

    Returns:
        `dict` of plain numbers and dictionaries, scores as fractions of 1:

        - `precision`, `recall`, `f1`; counts `documents`, `gold`, `duplicate_labels`, `predictions` (as given),
          `distinct_predictions`, `duplicates`, `correct`, `unknown_titles` and `unknown_relations` (distinct
          predictions whose title or relation occurs nowhere in the truth).
        - `ign_precision`, `ign_f1` (`None` without reference): correct predictions that the reference knows are taken
          out, of the precision only. `ign_reference`: `source`, `sha256`, `facts`, `known_gold`, `known_correct`.
        - `macro_precision`, `macro_recall`, `macro_f1`: means over the relations that have a gold fact.
        - `intra` (some mentions share a sentence), `inter` (none do), `inter_long`, `frequent` (`frequent_relations`),
          `long_tail` (the others; both `None` without `frequent_relations`) and each of `per_relation`: `precision`, `recall`,
          `f1`, `gold`, `predictions` (distinct), `correct`. `long_distance` is echoed.
        - `evidence`: the same over evidence sentences, and `share_of_facts_without_evidence`, the share of gold facts
          that list none. This is the official figure. It is biased: all sentences of wrong facts, and of facts for which
          nobody annotated evidence, count as wrong.
        - `evidence_of_correct`: the same over the sentences of those facts alone that are predicted, right and annotated with
          evidence, and `facts`, their number.

    Raises:
        DocumentError: a document is malformed, or has the title of another one.
        PredictionError: a prediction is malformed.
        ValueError: one of the two is no list.

    Example:

    ```python
    >>> from modeling_comm.evaluation.scoring import score
    >>> mentions = [[{"name": "Oslo", "sent_id": 0}], [{"name": "Norway", "sent_id": 0}]]
    >>> documents = [{"title": "Oslo", "vertexSet": mentions, "labels": [{"h": 0, "t": 1, "r": "P17"}]}]
    >>> score([{"title": "Oslo", "h_idx": 0, "t_idx": 1, "r": "P17"}], documents)["f1"]
    1.0

    ```
    """
    truth = {}
    for index, document in enumerate(parse_documents(documents)):
        if document.title in truth:
            found, expected = f"{document.title!r} again", "a title that no other document has"
            raise DocumentError(None, index, document.title, "title", found, expected)
        truth[document.title] = document
    gold = {(title, *fact): evidence for title, document in truth.items() for fact, evidence in document.facts.items()}
    predicted, given = {}, 0
    _check_list(predictions, "predictions", "a list of predictions")
    for prediction in predictions:
        fact, evidence = parse_prediction(prediction, given, truth)
        predicted.setdefault(fact, evidence)
        given += 1
    correct = predicted.keys() & gold.keys()
    located = [fact for fact in predicted if fact[0] in truth]

    annotated = [(predicted[fact], gold[fact]) for fact in correct if gold[fact]]
    by_relation = [Counter(relation for *_, relation in facts) for facts in (correct, predicted, gold)]
    gold_relations = by_relation[2].keys()
    per_relation = {
        relation: _rates(*(counter[relation] for counter in by_relation))
        for relation in sorted(gold_relations | by_relation[1].keys())
    }
    macro = {
        f"macro_{name}": _ratio(sum(per_relation[relation][name] for relation in gold_relations), len(gold_relations))
        for name in ("precision", "recall", "f1")
    }
    distance = {fact: _sentence_distance(truth[fact[0]], fact[1], fact[2]) for fact in {*gold, *located}}

    def breakdown(belongs):
        return _rates(*(sum(map(belongs, facts)) for facts in (correct, predicted, gold)))

    frequent = long_tail = None
    if frequent_relations is not None:
        frequent = breakdown(lambda fact: fact[3] in frequent_relations)
        long_tail = breakdown(lambda fact: fact[3] not in frequent_relations)
    return {
        **_rates(len(correct), len(predicted), len(gold)),
        **_ign_scores(ign_reference, truth, gold, correct, predicted),
        **macro,
        "documents": len(truth),
        "duplicate_labels": sum(document.duplicate_labels for document in truth.values()),
        "predictions": given,  # repeated ones too, unlike in the breakdowns
        "distinct_predictions": len(predicted),
        "duplicates": given - len(predicted),
        "unknown_titles": len(predicted) - len(located),
        "unknown_relations": sum(relation not in gold_relations for *_, relation in predicted),
        "long_distance": long_distance,
        "intra": breakdown(lambda fact: distance.get(fact) == 0),
        "inter": breakdown(lambda fact: distance.get(fact, 0) > 0),
        "inter_long": breakdown(lambda fact: distance.get(fact, 0) > long_distance),
        "frequent": frequent,
        "long_tail": long_tail,
        "evidence": {
            **_rates(
                sum(len(predicted[fact] & gold[fact]) for fact in correct),
                sum(len(predicted[fact]) for fact in located),
                sum(map(len, gold.values())),
            ),
            "share_of_facts_without_evidence": _ratio(sum(not evidence for evidence in gold.values()), len(gold)),
        },
        "evidence_of_correct": {**evidence_rates(annotated), "facts": len(annotated)},
        "per_relation": per_relation,
    }


def _cumulate(scores, correct, total_gold):
    """Distinct scores in falling order and, down to each, the number of correct candidates and of all candidates."""
    scores, correct = np.asarray(scores), np.asarray(correct, dtype=bool)
    if scores.dtype.kind != "f":
        scores = scores.astype(float)
    if scores.ndim != 1 or scores.shape != correct.shape:
        raise ValueError(f"scores and correct: found shapes {scores.shape} and {correct.shape}, expected (n,) twice")
    if not np.isfinite(scores).all():
        first = np.flatnonzero(~np.isfinite(scores))[0]
        raise ValueError(f"scores: found {scores[first]} at position {first}, expected finite numbers")
    if total_gold < correct.sum():
        raise ValueError(
            f"total_gold: found {total_gold}, expected at least {correct.sum()}, the number marked correct"
        )
    order = np.argsort(-scores, kind="stable")
    scores = scores[order]
    last_of_tie = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)[: len(scores)])
    return scores[last_of_tie], np.cumsum(correct[order])[last_of_tie], last_of_tie + 1


def average_precision(scores, correct, total_gold) -> float:
    """Average precision over scored candidates: precision at every distinct score, weighted by the recall it adds.

    Args:
        scores (`(n,)` float array): higher is more certain. Equal scores enter together, whatever their order.
        correct (`(n,)` bool array): which candidates are gold facts.
        total_gold (`int`): number of gold facts; those without a candidate count as missed.

    Raises:
        ValueError: shapes differ, a score is not finite, or `total_gold` is below the number of correct candidates.
    """
    _, hits, taken = _cumulate(scores, correct, total_gold)
    return float(_ratio((np.diff(hits, prepend=0) * hits / taken).sum(), total_gold))


def tune_offset(scores, correct, total_gold) -> tuple[float, float]:
    """The cut-off with the best micro F1 when every candidate with `score > offset` is predicted, and that F1.

    The offset is half-way between the last score that is predicted and the next one; of equally good offsets it
    is the highest. Where no candidate is correct, nothing is predicted; without any candidate it is 0.

    Args:
        scores, correct, total_gold: as in [`average_precision`], as are the errors raised.
    """
    values, hits, taken = _cumulate(scores, correct, total_gold)
    if not len(values):
        return 0.0, 0.0
    f1 = 2 * hits / (taken + total_gold)
    best = int(np.argmax(f1))
    upper = values[best]
    if not hits[best]:
        return float(upper), 0.0
    lower = values[best + 1] if best + 1 < len(values) else np.nextafter(upper, -np.inf, dtype=values.dtype)
    middle = lower / 2 + upper / 2
    # Between neighbouring floats there is no middle, and rounding must not reach the upper one: `>` is strict.
    return float(middle if lower <= middle < upper else lower), float(f1[best])


def format_scores(result, baseline=None, baseline_name="baseline") -> str:
    """A text table, in percent, of what [`score`] returned; `baseline`, another result, adds its F1 as a column."""
    rows = {"all": "", "Ign": "ign_", "macro": "macro_", "intra": "intra", "inter": "inter"}
    rows |= {f"inter > {result['long_distance']}": "inter_long", "frequent": "frequent", "long tail": "long_tail"}
    rows["evidence"] = "evidence"
    of_correct = result.get("evidence_of_correct") if result["evidence"]["predictions"] else None
    if of_correct:
        rows["  of correct"] = "evidence_of_correct"
    rows = {label: key for label, key in rows.items() if key not in result or result[key] is not None}

    def rates(of, key):  # Ign has no recall of its own: the plain one holds
        return [of[key][n] if key in of else of.get(f"{key}{n}", of[n]) for n in ("precision", "recall", "f1")]

    lines = [f"{'':11}{'P':>8}{'R':>8}{'F1':>8}{'gold':>9}{'predicted':>11}{'correct':>9}"]
    lines[0] += f"  {baseline_name} F1" if baseline else ""
    for label, key in rows.items():
        if key == "ign_" and not result["ign_reference"]:
            continue
        line = f"{label:11}" + "".join(f"{100 * rate:8.2f}" for rate in rates(result, key))
        if counts := result.get(key) if key else {**result, "predictions": result["distinct_predictions"]}:
            line += f"{counts['gold']:9,}{counts['predictions']:11,}{counts['correct']:9,}"
        lines.append(
            line if not baseline else f"{line:64}  {100 * rates(baseline, key)[2]:{len(baseline_name) + 3}.2f}"
        )
    lines.append("Ign F1: no reference of facts seen in training was given")
    if reference := result["ign_reference"]:
        lines[-1] = (
            f"Ign leaves out {reference['facts']:,} facts of {reference['source']} (sha256 {reference['sha256'][:12]})"
            f", {reference['known_gold']:,} of the gold facts, {reference['known_correct']:,} of them predicted"
        )
    share = result["evidence"]["share_of_facts_without_evidence"]
    lines.append(f"evidence: {100 * share:.2f} % of the gold facts list none, and its scores say nothing about those")
    if of_correct:
        lines[-1] = (
            f"evidence: {100 * share:.2f} % of the gold facts list none; the official scores count their sentences as wrong, and "
            f"'of correct' is over the {of_correct['facts']:,} facts that are predicted, right and annotated"
        )
    lines.append(
        f"predictions: {result['predictions']:,} given, {result['duplicates']:,} of them repeated (counted once); "
        f"{result['unknown_titles']:,} on unknown titles, {result['unknown_relations']:,} of relations without gold"
    )
    return "\n".join(lines)
