"""Scores that a data set has of its own, beside those that all have. A data set's entry names them.

A score is a function of [`FactSets`] that [`register_score`] makes known; the name is what the entry's `scores` and results call
it."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from ..candidate_pairs import ALL_PAIRS, CandidatePairs, ignored_pairs
from ..data.dataset_entry import DatasetEntry
from ..documents import Document, OfficialPrediction
from ..settings import NameTakenError, SettingError
from .rates import f1_of, rates, ratio
from .scoring import IgnReference, score


class FactSets:
    """
    The facts of a data set, predicted and labelled, of which a score compares some fields.

    Args:
        predictions (`Iterable[OfficialPrediction]`): in the official format; further fields, such as `novelty`, may be compared.
        documents (`Iterable[Document]`): labelled documents in DocRED's format; further fields of their labels likewise.
        candidates (`CandidatePairs`, *optional*): as in [`~modeling_comm.evaluation.scoring.score`].
        scores (`dict`, *optional*): what [`~modeling_comm.evaluation.scoring.score`] returned for them.
    """

    def __init__(
        self,
        predictions: Iterable[OfficialPrediction],
        documents: Iterable[Document],
        candidates: CandidatePairs = ALL_PAIRS,
        scores: Mapping[str, Any] | None = None,
    ):
        self.scores = scores or {}
        # Facts that say the same of the two directions: then a pair without its relation has no direction.
        self._turns = bool(candidates.symmetric or candidates.inverse)
        self._gold, self._predicted, ignored = [], [], {}
        for document in documents:
            title = document["title"]
            ignored[title] = ignored_pairs(document)
            for label in document.get("labels") or ():
                fact = candidates.turn(label["h"], label["t"], label["r"])
                if not candidates.ignores(*fact, ignored[title]):
                    self._gold.append((title, fact, label))
        for prediction in predictions:
            title = prediction["title"]
            fact = candidates.turn(prediction["h_idx"], prediction["t_idx"], prediction["r"])
            if not candidates.ignores(*fact, ignored.get(title, ())):
                self._predicted.append((title, fact, prediction))

    def rates(self, *fields: str) -> dict[str, float] | None:
        """
        Precision, recall, F1 and counts over distinct facts of which document, head, tail and these `fields` are compared, such
        as `"r"`; None where no label or no prediction has one of the fields. Without `"r"`, head and tail are compared in
        their direction, unless the data set has symmetric or inverse relations, which say the same of both directions.
        """
        turns = self._turns and "r" not in fields
        found = []
        for facts in (self._gold, self._predicted):
            if any(
                facts and all(record.get(field) is None for _, _, record in facts) for field in fields if field != "r"
            ):
                return None
            found.append(
                {
                    (title, *(sorted(fact[:2]) if turns else fact[:2]), *_values(fact, record, fields))
                    for title, fact, record in facts
                }
            )
        gold, predicted = found
        return rates(len(gold & predicted), len(predicted), len(gold))


def _values(fact, record, fields):
    return [fact[2] if field == "r" else record.get(field) for field in fields]


Score = Callable[[FactSets], dict[str, float] | None]
_SCORES: dict[str, Score] = {}


def register_score(name: str) -> Callable[[Score], Score]:
    """
    Makes a function of [`FactSets`] known as a score. It returns what [`FactSets.rates`] does, or None if it cannot tell.

    Raises:
        NameTakenError: another score has this name.
    """

    def register(function):
        if _SCORES.setdefault(name, function) is not function:
            raise NameTakenError("register_score", name, "another score")
        return function

    return register


def check_scores(names: Collection[str]) -> None:
    """Raises [`SettingError`] where a name is that of no registered score."""
    if unknown := [name for name in names if name not in _SCORES]:
        raise SettingError("DatasetEntry", "scores", unknown, f"some of {', '.join(sorted(_SCORES))}")


def field_scores(names: Collection[str], facts: FactSets) -> dict[str, dict[str, float] | None]:
    """The registered scores of these names; None for one that cannot say anything."""
    check_scores(names)
    return {name: _SCORES[name](facts) for name in names}


def score_data_set(
    entry: DatasetEntry,
    predictions: Iterable[OfficialPrediction],
    documents: Sequence[Document],
    ign_reference: IgnReference | None = None,
) -> dict[str, Any]:
    """
    All scores of predictions for documents of a data set.

    Args:
        entry (`DatasetEntry`): says which facts are the same, which relations are frequent, and which scores it has of its own.
        predictions, documents, ign_reference: as in [`~modeling_comm.evaluation.scoring.score`].

    Returns:
        what [`~modeling_comm.evaluation.scoring.score`] returns, and as `field_scores` what [`field_scores`] does.
    """
    predictions = list(predictions)
    settings: dict[str, Any] = {"frequent_relations": entry.frequent_relations, "candidates": entry.candidates}
    result = score(predictions, documents, ign_reference=ign_reference, **settings)
    return {
        **result,
        "field_scores": field_scores(entry.scores, FactSets(predictions, documents, entry.candidates, result)),
    }


@register_score("pair")
def pair(facts: FactSets) -> dict[str, float] | None:
    """Pairs that are related, whatever the relation."""
    return facts.rates()


@register_score("pair_and_novelty")
def pair_and_novelty(facts: FactSets) -> dict[str, float] | None:
    """Pairs that are related, and whether the document says it as something new (BioRED's field `novelty`)."""
    return facts.rates("novelty")


@register_score("pair_relation_and_novelty")
def pair_relation_and_novelty(facts: FactSets) -> dict[str, float] | None:
    """Facts, and whether the document says them as something new."""
    return facts.rates("r", "novelty")


@register_score("ign_recall")
def ign_recall(facts: FactSets) -> dict[str, float] | None:
    """LogiRE's Ign F1: precision over all facts, recall over those that the reference does not know. Another number than
    DocRED's, which leaves the known facts out of the precision; published DWIE figures have it."""
    scores, reference = facts.scores, facts.scores.get("ign_reference")
    if not reference:
        return None
    correct = scores["correct"] - reference["known_correct"]
    gold = scores["gold"] - reference["known_gold"]
    recall = ratio(correct, gold)
    counts = {"gold": gold, "predictions": scores["distinct_predictions"], "correct": correct}
    return {"precision": scores["precision"], "recall": recall, "f1": f1_of(scores["precision"], recall), **counts}
