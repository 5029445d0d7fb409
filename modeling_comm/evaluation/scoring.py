"""Scores predicted facts against annotated documents, by the official definitions of DocRED and Re-DocRED.

The command `comm-docre evaluate` sets the scores beside the type prior's.
"""

import hashlib
import itertools
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from ..candidate_pairs import ALL_PAIRS, CandidatePairs, ignored_pairs
from ..documents import Document, DocumentChecker, DocumentError, OfficialPrediction, validate_document
from ..settings import SettingError
from ..utils.files import read_json, refuse_pipe
from .rates import f1_of, rates, ratio

_NOTHING = frozenset()


class LabelledDocument(NamedTuple):
    """A checked document: lists of mentions, evidence by `(head, tail, relation)`, how many labels repeat a fact, and the
    `(head, tail)` that are not scored."""

    title: str
    entities: list
    facts: dict[tuple[int, int, str], set[int]]
    duplicate_labels: int
    ignored: set[tuple[int, int]]


class PredictionError(DocumentError):
    """A predicted fact, or a document's predicted facts, are malformed. Attributes as in [`DocumentError`]."""

    noun = "prediction"


class FactError(DocumentError):
    """A fact `[head name, tail name, relation]` is malformed. Attributes as in [`DocumentError`]."""

    noun = "fact"


def parse_prediction(
    prediction: Any, index: int, truth: Mapping[str, LabelledDocument] = MappingProxyType({})
) -> tuple[tuple[str, int, int, str], set[int]]:
    """
    `(title, head, tail, relation)` and the set of evidence sentences of one prediction in the official format.

    Args:
        prediction (`dict`): `title`, `h_idx`, `t_idx`, `r` and optionally `evidence`.
        index (`int`): its position, for the message.
        truth (`dict[str, LabelledDocument]`): documents by title, if they are known.

    Raises:
        PredictionError: a field is missing or wrong, or an index exceeds the entities of that title's document.
    """
    checker = DocumentChecker(prediction, index, None, PredictionError)
    checker.check(prediction, Mapping, None, "an object with title, h_idx, t_idx and r")
    title = checker.read_name(prediction, "title", "", "the title of a document")
    entities = len(truth[title].entities) if title in truth else None
    fact, evidence = checker.read_fact(prediction, "", entities, head="h_idx", tail="t_idx")
    return (title, *fact), evidence


def parse_documents(
    documents: Iterable[Document],
    *,
    require: Collection[str] = ("labels",),
    source: str | None = None,
    candidates: CandidatePairs = ALL_PAIRS,
) -> Iterator[LabelledDocument]:
    """
    Checks documents in DocRED's format and reads what scoring needs of them, in the order given and one at a time.

    Args:
        documents (`Iterable[Document]`): documents with at least `title`, `vertexSet` (mentions with `name` and `sent_id`) and
            what `require` names.
        require (`Collection[str]`, defaults to `("labels",)`): as in [`~modeling_comm.documents.validate_document`].
        source (`str`, *optional*): where the documents come from, for the message.
        candidates (`CandidatePairs`, *optional*): says which labels are the same fact. Those of ignored pairs are left out.

    Raises:
        DocumentError: the first thing that is wrong.
        SettingError: `documents` is no list.
    """
    _check_list(documents, source or "documents", "a list of documents")
    return (_parse_document(document, index, require, source, candidates) for index, document in enumerate(documents))


def _parse_document(document, index, require, source, candidates):
    validate_document(document, index=index, source=source, require=require)
    facts, given, ignored = {}, 0, ignored_pairs(document)
    for label in document.get("labels") or ():
        fact = candidates.turn(label["h"], label["t"], label["r"])
        if not candidates.ignores(*fact, ignored):
            facts.setdefault(fact, set()).update(label.get("evidence") or ())
            given += 1
    return LabelledDocument(document["title"], document["vertexSet"], facts, given - len(facts), ignored)


def _check_list(value, name, expected):
    if isinstance(value, (str, Mapping)) or not isinstance(value, Iterable):
        raise SettingError("scoring", name, type(value).__name__, expected)


@dataclass(frozen=True)
class IgnReference:
    """Facts that training already showed, which Ign F1 leaves out. Built by [`load_ign_reference`].

    Attributes:
        facts (`frozenset[tuple[str, str, str]]`): triples of names, `(head name, tail name, relation)`; a fact gives one for
            each pair of a name of its head and a name of its tail.
        source (`str`): name of the file, without its folder, or a word on what was handed over.
        sha256 (`str`): hash of the file, or of the sorted facts where there was no file.
    """

    facts: frozenset
    source: str
    sha256: str

    def knows(self, head_names: Collection[str], tail_names: Collection[str], relation: str) -> bool:
        """Returns whether any of the head's names has this relation to any of the tail's in these facts."""
        return any((head, tail, relation) in self.facts for head in head_names for tail in tail_names)


def load_ign_reference(
    source: str | os.PathLike | Iterable[Document] | Iterable[Sequence[str]] | IgnReference,
) -> IgnReference:
    """Reads the facts that Ign F1 leaves out. They are hashed and never cached, so a changed file changes the score.

    Args:
        source (`str`, `os.PathLike`, `list` or [`IgnReference`]): a JSON file or a list of labelled documents in
            DocRED's format (each label gives every pair of a head name and a tail name) or of facts
            `[head name, tail name, relation]`. A finished reference is returned as it is.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds neither documents nor facts, and the message names the first item that is wrong; or the file is a
            pipe.
    """
    if isinstance(source, IgnReference):
        return source
    file = Path(source) if isinstance(source, (str, os.PathLike)) else None
    name = "ign_reference" if file is None else str(source)
    if file is not None:
        refuse_pipe(file)  # it is hashed and read
    content: Any = source if file is None else read_json(file)
    _check_list(content, name, "a list of documents or of facts")
    content = list(content)
    if any(isinstance(item, Mapping) for item in content):
        facts = frozenset(
            (head_name, tail_name, relation)
            for document in parse_documents(content, source=name)
            for names in [_of_mentions(document, "name")]
            for head, tail, relation in document.facts
            for head_name in names[head]
            for tail_name in names[tail]
        )
    else:
        for index, fact in enumerate(content):
            if not (isinstance(fact, (list, tuple)) and len(fact) == 3 and all(isinstance(x, str) for x in fact)):
                raise FactError(name, index, None, None, repr(fact), "[head name, tail name, relation]")
        facts = frozenset(map(tuple, content))
    if file is not None:
        return IgnReference(facts, file.name, hashlib.sha256(file.read_bytes()).hexdigest())
    canonical = json.dumps(sorted(facts), ensure_ascii=False, separators=(",", ":")).encode()
    return IgnReference(facts, f"{len(content)} items in memory", hashlib.sha256(canonical).hexdigest())


def _of_mentions(document, field):
    """A field of each entity's mentions, each value once: an entity with many mentions has few names, and is in few sentences."""
    return [{mention[field] for mention in mentions} for mentions in document.entities]


def _sentence_distance(one, other):
    """The least distance between two entities, of which all sentences are given."""
    if not one.isdisjoint(other):
        return 0
    ordered = itertools.pairwise(sorted(one | other))
    return min(second - first for first, second in ordered if (first in one) != (second in one))


@dataclass
class _Counts:
    """Facts that are correct, predicted and gold."""

    correct: int = 0
    predicted: int = 0
    gold: int = 0

    def add(self, correct, predicted, gold):
        self.correct += correct
        self.predicted += predicted
        self.gold += gold

    def rates(self):
        return rates(self.correct, self.predicted, self.gold)


@dataclass
class _Tally:
    """Sums over documents, of which none is kept."""

    reference: IgnReference | None
    long_distance: int
    candidates: CandidatePairs = ALL_PAIRS
    documents: int = 0
    duplicate_labels: int = 0
    ignored_predictions: int = 0
    known_gold: int = 0
    known_correct: int = 0
    gold_without_evidence: int = 0
    by_relation: dict[str, _Counts] = field(default_factory=dict)
    evidence: _Counts = field(default_factory=_Counts)
    evidence_of_correct: _Counts = field(default_factory=_Counts)
    correct_with_evidence: int = 0
    intra: _Counts = field(default_factory=_Counts)
    inter: _Counts = field(default_factory=_Counts)
    inter_long: _Counts = field(default_factory=_Counts)

    def add(self, document, predicted):
        """Counts a document; `predicted` has the evidence of its predicted facts."""
        self.documents += 1
        self.duplicate_labels += document.duplicate_labels
        scored = {fact: ev for fact, ev in predicted.items() if not self.candidates.ignores(*fact, document.ignored)}
        self.ignored_predictions += len(predicted) - len(scored)
        predicted = scored
        sentences = _of_mentions(document, "sent_id")
        names = _of_mentions(document, "name") if self.reference else None
        for fact in document.facts.keys() | predicted.keys():
            head, tail, relation = fact
            is_predicted, is_gold = fact in predicted, fact in document.facts
            counted = (is_predicted and is_gold, is_predicted, is_gold)
            distance = _sentence_distance(sentences[head], sentences[tail])
            parts = [self.by_relation.setdefault(relation, _Counts()), self.inter if distance else self.intra]
            if distance > self.long_distance:
                parts.append(self.inter_long)
            for counts in parts:
                counts.add(*counted)
            if is_gold:
                gold_evidence = document.facts[fact]
                self.gold_without_evidence += not gold_evidence
                right = len(predicted.get(fact, _NOTHING) & gold_evidence)
                self.evidence.add(right, 0, len(gold_evidence))
                if is_predicted and gold_evidence:
                    self.evidence_of_correct.add(right, len(predicted[fact]), len(gold_evidence))
                    self.correct_with_evidence += 1
                if self.reference and self._is_known(names, fact):
                    self.known_gold += 1
                    self.known_correct += is_predicted
            self.evidence.add(0, len(predicted.get(fact, _NOTHING)), 0)

    def _is_known(self, names, fact):
        return any(
            self.reference.knows(names[head], names[tail], relation)
            for head, tail, relation in (fact, *self.candidates.mirrored(*fact))
        )

    def add_unknown(self, predicted):
        """Counts predicted facts of a title that no document has."""
        for _, _, relation in predicted:
            self.by_relation.setdefault(relation, _Counts()).add(0, 1, 0)

    def breakdown(self, relations=None):
        """Over all relations, or some."""
        found = [one for name, one in self.by_relation.items() if relations is None or name in relations]
        return rates(*(sum(getattr(one, name) for one in found) for name in ("correct", "predicted", "gold")))

    def ign_scores(self):
        if self.reference is None:
            return {"ign_precision": None, "ign_f1": None, "ign_reference": None}
        everything = self.breakdown()
        precision = ratio(everything["correct"] - self.known_correct, everything["predictions"] - self.known_correct)
        counts = {"known_gold": self.known_gold, "known_correct": self.known_correct}
        about = {"source": self.reference.source, "sha256": self.reference.sha256, "facts": len(self.reference.facts)}
        return {
            "ign_precision": precision,
            "ign_f1": f1_of(precision, everything["recall"]),
            "ign_reference": {**about, **counts},
        }


def _predictions_by_title(predictions, candidates):
    """The distinct predicted facts of each title with their evidence; the position of each fact, for messages, and where it was
    given the other way round, that fact; and how many predictions there are."""
    predicted, positions, given = {}, {}, 0
    for prediction in predictions:
        (title, *stated), evidence = parse_prediction(prediction, given)
        fact = candidates.turn(*stated)
        if title not in predicted:
            predicted[title], positions[title] = {}, {}
        positions[title].setdefault(fact, (given, None if fact == tuple(stated) else stated))
        predicted[title].setdefault(fact, frozenset(evidence) or _NOTHING)
        given += 1
    return predicted, positions, given


def score(
    predictions: Iterable[OfficialPrediction],
    documents: Iterable[Document],
    *,
    ign_reference: str | os.PathLike | list | IgnReference | None = None,
    frequent_relations: Collection[str] | None = None,
    long_distance: int = 5,
    candidates: CandidatePairs = ALL_PAIRS,
) -> dict:
    """Scores predicted facts, micro-averaged over distinct `(title, head, tail, relation)`.

    The numbers are those of DocRED's and Re-DocRED's official scripts, with three corrections: without predictions
    each score is 0, where the scripts fail or return early; gold evidence is counted from 0, not from 1; and the
    denominator of Ign precision has no 1e-5 added (0/0 is 0). Neither input is changed or reordered.

    Args:
        predictions (`Iterable[OfficialPrediction]`): predicted facts in the official format. Repeated ones count once (the
            first one's evidence holds). One with a title that no document has counts as wrong, in neither `intra` nor
            `inter`. Evidence outside of the document is wrong evidence.
        documents (`Iterable[Document]`): labelled documents in DocRED's format, each title once. Labels that repeat a fact
            count once, with the union of the evidence.
        ign_reference (*optional*): what [`load_ign_reference`] takes. No default, because it changes Ign F1.
        frequent_relations (`Collection[str]`, *optional*): the relations that the data set calls frequent, as in
            [`~modeling_comm.data.DatasetEntry`]. Without them there are no scores of frequent and other relations.
        long_distance (`int`, defaults to 5): `inter_long` has the facts whose mentions are all further apart.
        candidates (`CandidatePairs`, *optional*): which facts are the same: those of a symmetric relation, of undirected data or
            of two inverse relations count once, whichever way they are written. By default no two are. A fact on one of the
            `ignored_pairs` of its document, predicted or labelled, does not count at all.

    Returns:
        `dict` of plain numbers and dictionaries, scores as fractions of 1:

        - `precision`, `recall`, `f1`; counts `documents`, `gold`, `duplicate_labels`, `predictions` (as given),
          `distinct_predictions`, `duplicates`, `correct`, `unknown_titles` and `unknown_relations` (distinct
          predictions whose title or relation occurs nowhere in the truth), `ignored_predictions` (distinct ones on ignored pairs,
          which are in no other count but `predictions`).
        - `ign_precision`, `ign_f1` (`None` without reference): correct predictions that the reference knows are taken
          out, of the precision only. `ign_reference`: `source`, `sha256`, `facts` (how many triples of names),
          `known_gold`, `known_correct`.
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
    _check_list(predictions, "predictions", "a list of predictions")
    _check_list(documents, "documents", "a list of documents")
    # Of a hundred thousand documents, all that is kept is what was predicted.
    predicted, positions, given = _predictions_by_title(predictions, candidates)
    distinct = sum(map(len, predicted.values()))
    reference = None if ign_reference is None else load_ign_reference(ign_reference)
    tally = _Tally(reference, long_distance, candidates)
    titles = set()
    for index, document in enumerate(parse_documents(documents, candidates=candidates)):
        title = document.title
        if title in titles:
            found, expected = f"{title!r} again", "a title that no other document has"
            raise DocumentError(None, index, title, "title", found, expected)
        titles.add(title)
        facts, places = predicted.pop(title, {}), positions.pop(title, {})
        for fact in facts:
            if max(fact[:2]) >= len(document.entities):  # raises the error that names it
                place, stated = places[fact]
                wrong = dict(zip(("h_idx", "t_idx", "r"), stated or fact, strict=True))
                parse_prediction({"title": title, **wrong}, place, {title: document})
        tally.add(document, facts)
    unknown = sum(map(len, predicted.values()))
    for facts in predicted.values():
        tally.add_unknown(facts)

    per_relation = {relation: counts.rates() for relation, counts in sorted(tally.by_relation.items())}
    gold_relations = [relation for relation, rates in per_relation.items() if rates["gold"]]
    macro = {
        f"macro_{name}": ratio(sum(per_relation[relation][name] for relation in gold_relations), len(gold_relations))
        for name in ("precision", "recall", "f1")
    }
    everything, evidence = tally.breakdown(), tally.evidence.rates()
    frequent = long_tail = None
    if frequent_relations is not None:
        frequent = tally.breakdown(set(frequent_relations))
        long_tail = tally.breakdown(per_relation.keys() - set(frequent_relations))
    return {
        **everything,
        **tally.ign_scores(),
        **macro,
        "documents": tally.documents,
        "duplicate_labels": tally.duplicate_labels,
        "predictions": given,  # repeated ones too, unlike in the breakdowns
        "distinct_predictions": distinct - tally.ignored_predictions,
        "duplicates": given - distinct,
        "ignored_predictions": tally.ignored_predictions,
        "unknown_titles": unknown,
        "unknown_relations": sum(rates["predictions"] for rates in per_relation.values() if not rates["gold"]),
        "long_distance": long_distance,
        "intra": tally.intra.rates(),
        "inter": tally.inter.rates(),
        "inter_long": tally.inter_long.rates(),
        "frequent": frequent,
        "long_tail": long_tail,
        "evidence": {
            **evidence,
            "share_of_facts_without_evidence": ratio(tally.gold_without_evidence, everything["gold"]),
        },
        "evidence_of_correct": {**tally.evidence_of_correct.rates(), "facts": tally.correct_with_evidence},
        "per_relation": per_relation,
    }


def format_scores(
    result: Mapping[str, Any], baseline: Mapping[str, Any] | None = None, baseline_name: str = "baseline"
) -> str:
    """
    A text table, in percent, of what [`score`] returned; `baseline`, another result, adds its F1 as a column.

    Rows that would say nothing are left out: of evidence where none was predicted, of frequent and other relations where one of
    the two has no gold fact.
    """
    rows = {"all": "", "Ign": "ign_", "macro": "macro_", "intra": "intra", "inter": "inter"}
    rows |= {f"inter > {result['long_distance']}": "inter_long"}
    if all((result.get(key) or {}).get("gold") for key in ("frequent", "long_tail")):
        rows |= {"frequent": "frequent", "long tail": "long_tail"}
    has_evidence = bool(result["evidence"]["predictions"])
    if has_evidence:
        rows["evidence"] = "evidence"
        if "evidence_of_correct" in result:
            rows["  of correct"] = "evidence_of_correct"
    own = result.get("field_scores") or {}
    rows = {label: key for label, key in rows.items() if key not in result or result[key] is not None}
    rows |= {name.replace("_", " "): name for name, rates in own.items() if rates is not None}
    width = max(map(len, (*rows, " " * 11)))

    def rates_of(of, key):  # Ign has no recall of its own: the plain one holds
        found = {**of, **(of.get("field_scores") or {})}.get(key)
        return [found[n] if found else of.get(f"{key}{n}", of[n]) for n in ("precision", "recall", "f1")]

    lines = [f"{'':{width}}{'P':>8}{'R':>8}{'F1':>8}{'gold':>9}{'predicted':>11}{'correct':>9}"]
    lines[0] += f"  {baseline_name} F1" if baseline else ""
    for label, key in rows.items():
        if key == "ign_" and not result["ign_reference"]:
            continue
        line = f"{label:{width}}" + "".join(f"{100 * rate:8.2f}" for rate in rates_of(result, key))
        if counts := {**result, **own}.get(key) if key else {**result, "predictions": result["distinct_predictions"]}:
            line += f"{counts['gold']:9,}{counts['predictions']:11,}{counts['correct']:9,}"
        lines.append(
            line
            if not baseline
            else f"{line:{width + 53}}  {100 * rates_of(baseline, key)[2]:{len(baseline_name) + 3}.2f}"
        )
    lines.append("Ign F1: no reference of facts seen in training was given")
    if reference := result["ign_reference"]:
        lines[-1] = (
            f"Ign leaves out {reference['facts']:,} triples of names of {reference['source']} (sha256 {reference['sha256'][:12]})"
            f", {reference['known_gold']:,} of the gold facts, {reference['known_correct']:,} of them predicted"
        )
    share = result["evidence"]["share_of_facts_without_evidence"]
    if has_evidence:
        official = "about which these scores say nothing"
        if of_correct := result.get("evidence_of_correct"):
            official = (
                "for which the official score takes any evidence for wrong; 'of correct' is over "
                f"{of_correct['facts']:,} predicted facts that are right and list evidence"
            )
        lines.append(f"evidence: {100 * share:.2f} % of the gold facts list no evidence, {official}")
    lines.append(
        f"predictions: {result['predictions']:,} given, {result['duplicates']:,} of them repeated (counted once); "
        f"{result['unknown_titles']:,} on unknown titles, {result['unknown_relations']:,} of relations without gold"
    )
    if ignored := result.get("ignored_predictions"):
        lines[-1] += f"; {ignored:,} on pairs that are not scored"
    return "\n".join(lines)
