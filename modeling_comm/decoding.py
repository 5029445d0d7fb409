"""From logits to triples: margins over the threshold, the decision rule, and what is predicted for a document."""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers.utils import logging

from .candidate_pairs import ALL_PAIRS, CandidatePairs, entity_types, ignored_pairs
from .decision_settings import DecisionSettings
from .documents import Document, OfficialPrediction, entity_name
from .features import LEAST_ASKED
from .prediction_record import PredictedTriple
from .relation_encoder_base import EncodedDocuments
from .rules import Fact, Rule, derive_facts, written_for

logger = logging.get_logger(__name__)


class Triple(NamedTuple):
    """
    A predicted relation.

    Attributes:
        head (`int`), tail (`int`): entity indices.
        label (`int`): the label's id.
        margin (`float`): over the threshold.
        evidence (`tuple[int, ...]`, *optional*): the sentences that prove it, None where no evidence is predicted.
        probability (`float`, *optional*): where the model has a map to probabilities.
        rule (`str`, *optional*): the rule by which it follows from other triples; margin and probability are then the model's
            own, which did not suffice, or those of the triple that it says in the other direction.
        premises (`tuple`): `(head, tail, label)` of these other triples.
    """

    head: int
    tail: int
    label: int
    margin: float
    evidence: tuple[int, ...] | None = None
    probability: float | None = None
    rule: str | None = None
    premises: tuple[tuple[int, int, int], ...] = ()

    @property
    def rank(self) -> float:
        """What orders triples: the probability, or else the margin."""
        return self.margin if self.probability is None else self.probability


class TripleInWords(PredictedTriple):
    """
    A [`~prediction_record.PredictedTriple`] as [`CommProcessor.post_process_relation_extraction`] returns it.

    Attributes:
        head_name, tail_name (`str`): names of the entities' first mentions.
    """

    head_name: str
    tail_name: str


def relation_margins(logits: torch.Tensor, decision_threshold: str = "th") -> torch.Tensor:
    """Margins `(P, R)` float32 of all relations over the threshold, from logits `(P, R + 1)`."""
    logits = logits.detach().float()
    return logits[:, 1:] - logits[:, :1] if decision_threshold == "th" else logits[:, 1:]


def _decide_margins(margins, pairs, settings, excluded=None):
    """The decision rule: a relation is predicted iff its margin over the threshold is strictly greater than the offset, or, with
    a map to probabilities, its probability strictly greater than the cut. A pair's relations depend on its own logits only.
    Returns the triples in the order of the pairs, and what was removed."""
    map_ = settings.probability_map
    ranks, required = margins, settings.threshold_offset
    if map_ is not None:
        margins = margins.double()
        required = torch.from_numpy(map_.offsets()) + required
        ranks = torch.from_numpy(map_.logits(margins.numpy()))
    predicted, by_types, by_cap = (margins > required) & (margins > LEAST_ASKED), 0, 0
    if excluded is not None:
        excluded = torch.from_numpy(excluded)
        by_types = int((predicted & excluded).sum())
        predicted, ranks = predicted & ~excluded, ranks.masked_fill(excluded, -math.inf)
    most = settings.max_relations_per_pair
    if most is not None and most < margins.shape[1]:
        kept = _highest(ranks, most)
        by_cap = int((predicted & ~kept).sum())
        predicted &= kept
    row, relation = predicted.nonzero(as_tuple=True)
    columns = [one.tolist() for one in (*pairs[row].unbind(-1), relation + 1, margins[row, relation])]
    triples = list(map(Triple, *columns))
    if map_ is not None:
        # One by one: the last bits of a vector's depend on its length, and so on what else is predicted.
        known = map(_probability, ranks[row, relation].tolist())
        triples = [triple._replace(probability=one) for triple, one in zip(triples, known, strict=True)]
    return triples, {"removed_by_cap": by_cap, "removed_by_types": by_types}


def _highest(ranks, most):
    """Which relations of each pair `(p, R)` are the `most` highest."""
    return torch.zeros_like(ranks, dtype=torch.bool).scatter(1, ranks.topk(most, dim=1).indices, True)


def within_cap(ranks: np.ndarray, max_relations_per_pair: int | None) -> np.ndarray:
    """Which relations of each pair `(p, R)` a cap leaves, whatever the threshold: those of the highest `ranks` `(p, R)`, or all
    where it is None or has room for all."""
    if max_relations_per_pair is None or max_relations_per_pair >= ranks.shape[1]:
        return np.ones(ranks.shape, dtype=bool)
    return _highest(torch.from_numpy(ranks), max_relations_per_pair).numpy()


def _probability(logit):
    exponential = math.exp(-abs(logit))
    return (1 if logit >= 0 else exponential) / (1 + exponential)


@dataclasses.dataclass
class Predictions(Mapping):
    """
    The predictions for one document. Pipeline, trainer, scorer and experiments share it; the official JSON and triples in
    words are two ways to write it. As Transformers' outputs, it is also a mapping, of the fields that are not None:
    `predictions["triples"]`.

    Args:
        triples (`list[Triple]`): in the order of the pairs.
        settings (`DecisionSettings`): what decided on them.
        removed_by_cap (`int`, defaults to 0): relations above the threshold that `max_relations_per_pair` removed.
        removed_by_types (`int`, defaults to 0): those that `type_constraint` removed.
        pairs (`(p, 2)` int64 array, *optional*): head and tail of all candidate pairs.
        margins (`(p, R)` float32 array, *optional*): of all their relations over the threshold. Like `pairs` and `labels`, kept
            only where somebody asks for them.
        excluded (`(p, R)` bool array, *optional*): the relations of `pairs` that `type_constraint` excludes, with any margin.
        labels (`(p, R)` bool array, *optional*): the gold relations of `pairs`.
        loss (`float`, *optional*): the loss, summed over `pairs`.
        document_index (`int`, *optional*): the document's place in its data set.
        sentence_scores (`dict[tuple[int, int], list[float]]`, *optional*): by head and tail, each sentence's share in the pair's
            attention; of the pairs that were predicted, and of those that have a gold relation. See [`add_evidence`].
    """

    triples: list[Triple]
    settings: DecisionSettings
    removed_by_cap: int = 0
    removed_by_types: int = 0
    pairs: np.ndarray | None = None
    margins: np.ndarray | None = None
    excluded: np.ndarray | None = None
    labels: np.ndarray | None = None
    loss: float | None = None
    document_index: int | None = None
    sentence_scores: dict[tuple[int, int], list[float]] | None = None

    def _given(self):
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def __getitem__(self, name: str) -> Any:
        return self._given()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._given())

    def __len__(self) -> int:
        return len(self._given())

    @classmethod
    def from_logits(
        cls,
        logits: torch.Tensor,
        pairs: torch.Tensor,
        settings: DecisionSettings,
        excluded: np.ndarray | None = None,
    ) -> "Predictions":
        """Decides on a document of these logits `(p, R + 1)` and pairs `(p, 2)`, and keeps all margins. The relations that are
        `excluded` `(p, R)` are not predicted."""
        pairs, margins = pairs.cpu(), relation_margins(logits, settings.decision_threshold).cpu()
        triples, removed = _decide_margins(margins, pairs, settings, excluded)
        kept = {"pairs": pairs.numpy(), "margins": margins.numpy(), "excluded": excluded}
        return cls(triples, dataclasses.replace(settings), **removed, **kept)

    def at_offset(self, threshold_offset: float) -> "Predictions":
        """The same document, decided with another `threshold_offset`. Needs `margins`. Triples have evidence where
        `sentence_scores` has their pair. Those that rules added are not among them: apply [`with_rules`] to the result."""
        if self.margins is None:
            raise ValueError("margins is None; expected predictions that keep them, see `from_logits`")
        settings = dataclasses.replace(self.settings, threshold_offset=threshold_offset)
        margins, pairs = torch.from_numpy(self.margins), torch.from_numpy(self.pairs)
        triples, removed = _decide_margins(margins, pairs, settings, self.excluded)
        predictions = dataclasses.replace(self, triples=triples, settings=settings, **removed)
        predictions.find_evidence()
        return predictions

    def within_cap(self) -> np.ndarray | None:
        """Which relations of the pairs `(p, R)` `max_relations_per_pair` leaves, whatever the threshold; None if it leaves all.
        Needs `margins`."""
        most = self.settings.max_relations_per_pair
        if most is None or most >= self.margins.shape[1]:
            return None
        ranks = torch.from_numpy(flat_ranks([self]).reshape(self.margins.shape))
        if self.excluded is not None:
            ranks = ranks.masked_fill(torch.from_numpy(self.excluded), -math.inf)
        return _highest(ranks, most).numpy()

    def with_rules(
        self,
        rules: Sequence[Rule],
        id2label: dict[int, str],
        candidates: CandidatePairs = ALL_PAIRS,
        document: Document | None = None,
    ) -> "Predictions":
        """
        The same document with the triples that follow by rules, in the direction that the model is asked about. Needs `margins`.

        Args:
            rules (`Sequence[Rule]`): see [`~rules.derive_facts`].
            id2label (`dict[int, str]`): the labels of the rules' relations.
            candidates (`CandidatePairs`, *optional*): says for which relations rules read facts in both directions, and which
                relations of rules are the inverse of another.
            document (`Document`, *optional*): the document, whose types and `ignored_pairs` say in which direction symmetric
                facts are asked about, or that they are not. Without it they have the lower index first.
        """
        if not rules:
            return self
        if self.margins is None:
            raise ValueError("margins is None; expected predictions that keep them, see `from_logits`")
        label2id = {label: index for index, label in id2label.items()}
        rows = {pair: row for row, pair in enumerate(map(tuple, self.pairs.tolist()))}
        facts = [Fact(triple.head, triple.tail, id2label[triple.label]) for triple in self.triples]
        asked = None if document is None else candidates.matrix(entity_types(document))
        ignored = () if document is None else ignored_pairs(document)
        added, map_ = [], self.settings.probability_map
        given = written_for(rules, candidates.inverse)

        def is_candidate(fact):
            head, tail, relation = candidates.turn(*fact, asked)
            return (head, tail) in rows and not candidates.ignores(head, tail, relation, ignored)

        for fact, rule, premises in derive_facts(facts, given, candidates.is_symmetric, is_candidate):
            head, tail, relation = candidates.turn(*fact, asked)
            row, label = rows[head, tail], label2id[relation]
            probability = None
            if map_ is not None:
                probability = float(map_.probabilities(self.margins[row])[label - 1])
            turned = [candidates.turn(*premise, asked) for premise in premises]
            from_ = tuple((one, other, label2id[name]) for one, other, name in turned)
            margin = float(self.margins[row, label - 1])
            added.append(
                Triple(head, tail, label, margin, probability=probability, rule=str(given[rule]), premises=from_)
            )
        return dataclasses.replace(self, triples=[*self.triples, *added])

    def find_evidence(self) -> None:
        """Gives each triple whose pair `sentence_scores` has the sentences above `evidence_threshold`, if there is one."""
        threshold, scores = self.settings.evidence_threshold, self.sentence_scores
        if threshold is None or scores is None:
            return
        for index, triple in enumerate(self.triples):
            if (row := scores.get((triple.head, triple.tail))) is not None:
                evidence = tuple(number for number, share in enumerate(row) if share > threshold)
                self.triples[index] = triple._replace(evidence=evidence)

    def official(self, title: str, id2label: dict[int, str]) -> list[OfficialPrediction]:
        """The triples in the leaderboards' format: `{"title", "h_idx", "t_idx", "r"}` for each, and `"evidence"` where it is
        predicted."""
        return [
            {"title": title, "h_idx": triple.head, "t_idx": triple.tail, "r": id2label[triple.label]}
            | _evidence_of(triple)
            for triple in self.triples
        ]

    def in_words(
        self,
        document: Document,
        id2label: Mapping[int, str],
        relation_names: Mapping[str, str],
    ) -> list[TripleInWords]:
        """The triples as [`CommProcessor.post_process_relation_extraction`] returns them."""
        triples = sorted(self.triples, key=lambda triple: (triple.head, triple.tail, -triple.rank))
        words: list[Any] = [
            {
                "head": triple.head,
                "tail": triple.tail,
                "relation": id2label[triple.label],
                "relation_name": relation_names.get(id2label[triple.label], id2label[triple.label]),
                "score": score,
                **({} if triple.probability is None else {"probability": triple.probability}),
                **({} if triple.rule is None else {"derived": _derivation(triple, id2label)}),
                "head_name": entity_name(document, triple.head),
                "tail_name": entity_name(document, triple.tail),
                **_evidence_of(triple),
            }
            for triple, score in zip(triples, scores_of(triples), strict=True)
        ]
        return words


def scores_of(triples: Sequence[Triple]) -> list[float]:
    """The scores of triples, from 0 to 1: their probabilities, or else the sigmoids of their margins."""
    scores = torch.tensor([triple.margin for triple in triples]).sigmoid().tolist()
    known = [triple.probability for triple in triples]
    return [score if one is None else one for score, one in zip(scores, known, strict=True)]


def _derivation(triple, id2label):
    """As a record has it."""
    return {"rule": triple.rule, "premises": [[head, tail, id2label[label]] for head, tail, label in triple.premises]}


def _evidence_of(triple):
    return {} if triple.evidence is None else {"evidence": list(triple.evidence)}


def decide_batch(
    logits: torch.Tensor,
    pair_index: torch.Tensor,
    num_documents: int,
    settings: DecisionSettings,
    labels: torch.Tensor | None = None,
    losses: torch.Tensor | None = None,
    excluded: np.ndarray | None = None,
) -> list[Predictions]:
    """
    Decides on all documents of a batch.

    Args:
        logits (`(P, R + 1)` float), pair_index (`(P, 3)` integer): as the model returns them; pairs in any order.
        num_documents (`int`): size of the batch; a document may have no pair.
        settings (`DecisionSettings`): threshold, offset and cap.
        labels (`(P, R + 1)`, *optional*), losses (`(P,)`, *optional*): gold labels and loss of each pair.
        excluded (`(P, R)` bool array, *optional*): what the types of head and tail exclude.

    Returns:
        one [`Predictions`] per document.
    """
    logits, pair_index = logits.detach().float().cpu(), pair_index.cpu()
    results = []
    for index in range(num_documents):
        rows = pair_index[:, 0] == index
        of_document = None if excluded is None else excluded[rows.numpy()]
        predictions = Predictions.from_logits(logits[rows], pair_index[rows, 1:], settings, of_document)
        if labels is not None:
            predictions.labels = labels.cpu()[rows, 1:].bool().numpy()
        if losses is not None:
            predictions.loss = losses.cpu()[rows].double().sum().item()
        results.append(predictions)
    return results


@torch.no_grad()
def add_evidence(predictions: list[Predictions], documents: EncodedDocuments) -> None:
    """
    Adds `sentence_scores` to the predictions of a batch, and, if the settings have an `evidence_threshold`, evidence to their
    triples.

    Args:
        predictions (`list[Predictions]`): one for each document of the batch, in its order.
        documents (`EncodedDocuments`): the batch, as the model returns it with `output_documents=True`.
    """
    pairs = []
    for index, one in enumerate(predictions):
        wanted = {(triple.head, triple.tail) for triple in one.triples}
        if one.labels is not None:
            wanted |= set(map(tuple, one.pairs[one.labels.any(-1)].tolist()))
        pairs += [(index, *pair) for pair in sorted(wanted)]
        one.sentence_scores = {}
    if pairs:
        wanted = torch.tensor(pairs, device=documents.pair_index.device)
        for (index, head, tail), row in zip(pairs, documents.sentence_scores(wanted).tolist(), strict=True):
            predictions[index].sentence_scores[head, tail] = row
    for one in predictions:
        one.find_evidence()


def warn_of_removed(predictions: list[Predictions], settings: DecisionSettings) -> None:
    """Says how many relations above the threshold the cap and the types of head and tail have removed."""
    by_cap = sum(one.removed_by_cap for one in predictions)
    if by_cap:
        logger.warning(
            "max_relations_per_pair=%d left out %d predicted relations of %d documents",
            settings.max_relations_per_pair,
            by_cap,
            len(predictions),
        )
    by_types = sum(one.removed_by_types for one in predictions)
    if by_types:
        logger.warning(
            "type_constraint=%s left out %d predicted relations of %d documents",
            settings.type_constraint,
            by_types,
            len(predictions),
        )


def document_with_bad_logits(logits: torch.Tensor, pair_index: torch.Tensor) -> int | None:
    """Index in the batch of the first document with a logit that is not finite; None if there is none."""
    bad = ~torch.isfinite(logits).all(-1)
    return int(pair_index[bad][0, 0]) if bad.any() else None


def check_outputs(
    logits: torch.Tensor,
    pair_index: torch.Tensor,
    documents: list[Document],
    pairs: list[np.ndarray],
    num_labels: int,
) -> None:
    """Raises `ValueError` where logits `(P, num_labels)` and rows `(P, 3)` are not of these documents and their `pairs` `(p, 2)`,
    or are not finite."""
    rows = [
        np.column_stack([np.full(len(of_document), index), of_document]) for index, of_document in enumerate(pairs)
    ]
    expected = np.concatenate(rows) if rows else np.zeros((0, 3), dtype=np.int64)
    found = pair_index.numpy()
    unique = np.unique(found, axis=0)
    known = len(np.unique(np.concatenate([unique, expected]), axis=0)) == len(expected)
    if len(unique) < len(found) or not known:
        raise ValueError(
            f"the outputs hold {len(found)} pairs of {len(np.unique(found[:, 0]))} documents, not all of them different "
            f"pairs of these {len(documents)} documents, which have {len(expected)}. Were they encoded in the same call?"
        )
    if len(found) < len(expected):  # `pair_index` was cut by the user, or these are not all outputs
        logger.warning(
            "the outputs hold %d of the %d pairs of these documents: others have no triples",
            len(found),
            len(expected),
        )
    if logits.shape != (len(pair_index), num_labels):
        raise ValueError(
            f"the outputs' logits have the shape {tuple(logits.shape)}; expected one row for each of {len(pair_index)} "
            f"pairs and one column for each of {num_labels} labels"
        )
    bad = document_with_bad_logits(logits, pair_index)
    if bad is not None:
        raise ValueError(f"document {documents[bad]['title']!r}: the model's logits are not finite numbers")


def flat_ranks(predictions: Iterable[Predictions]) -> np.ndarray:
    """What orders all pairs and relations of several documents, flat: logits of their probabilities, or else their margins."""
    ranks = [
        one.margins.ravel()
        if one.settings.probability_map is None
        else one.settings.probability_map.logits(one.margins).ravel()
        for one in predictions
    ]
    return np.concatenate(ranks) if ranks else np.zeros(0, np.float32)


def flat_margins(predictions: Iterable[Predictions]) -> tuple[np.ndarray, np.ndarray | None]:
    """Margins of all pairs and relations of several documents, flat, and their labels where every document has them."""
    predictions = list(predictions)
    margins = [one.margins.ravel() for one in predictions]
    labelled = bool(predictions) and all(one.labels is not None for one in predictions)
    labels = np.concatenate([one.labels.ravel() for one in predictions]) if labelled else None
    return np.concatenate(margins) if margins else np.zeros(0, np.float32), labels


def official_predictions(
    predictions: Iterable[Predictions], documents: Iterable[Document], id2label: dict[int, str]
) -> list[OfficialPrediction]:
    """Predictions of a whole data set in the leaderboards' format, see [`Predictions.official`]."""
    pairs = zip(predictions, documents, strict=True)
    return [fact for one, document in pairs for fact in one.official(document["title"], id2label)]
