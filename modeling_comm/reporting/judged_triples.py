"""What gold facts say of predicted triples: which are right, which facts were missed, and what did not fit together."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..candidate_pairs import ALL_PAIRS, CandidatePairs
from ..documents import Document, DocumentError
from ..evaluation.mismatch import check_same_entities, mismatch_warnings, relation_meanings
from ..evaluation.scoring import LabelledDocument, parse_documents


class GoldFacts:
    """
    Labelled documents with which records are compared.

    Args:
        documents (`Iterable[dict]`): labelled documents in DocRED's format, each with a title of its own.
        relation_names (`Mapping[str, str]`, *optional*): readable names by id.
        candidates ([`~modeling_comm.candidate_pairs.CandidatePairs`], *optional*): which facts are the same. Relations that a
            record calls symmetric are so, too.

    Raises:
        DocumentError: a document is malformed, or has the title of another one; `source` is `"truth"`.
    """

    def __init__(
        self,
        documents: Iterable[Document],
        relation_names: Mapping[str, str] | None = None,
        candidates: CandidatePairs = ALL_PAIRS,
    ):
        self._given = list(documents)
        self._names = relation_names or {}
        self._candidates = candidates
        self._parsed = self._by_title(candidates)
        self._relations = dict.fromkeys(
            label["r"] for document in self._given for label in document.get("labels") or ()
        )

    def __bool__(self) -> bool:
        return bool(self._given)

    def _by_title(self, candidates) -> dict[str, LabelledDocument]:
        found: dict[str, LabelledDocument] = {}
        for index, document in enumerate(parse_documents(self._given, source="truth", candidates=candidates)):
            if document.title in found:
                wrong = f"{document.title!r} again"
                raise DocumentError(
                    "truth", index, document.title, "title", wrong, "a title that no other document has"
                )
            found[document.title] = document
        return found

    def judge(self, records: Sequence[dict[str, Any]]) -> list[str]:
        """
        Adds to the triples of the page's records whether they are right (`gold`), which of them say the same as an earlier one
        of the record (`same`, its index), and the gold facts that were missed. Names of relations become the ids that the gold
        facts have.

        Returns:
            `list[str]`: what did not fit together, in words; empty if all did.

        Raises:
            DocumentError: two records have the title of one document, or (a
                [`~modeling_comm.evaluation.scoring.PredictionError`]) other entities than it; `index` is the record's.
        """
        given = {triple["relation"] for record in records for triple in record["triples"]}
        meanings = relation_meanings(given, self._relations, self._names)
        triples = [triple for record in records for triple in record["triples"]]
        translated = sum(triple["relation"] in meanings for triple in triples)
        for triple in triples:
            triple["relation"] = meanings.get(triple["relation"], triple["relation"])
        candidates = self._with_symmetric(triples)
        gold = self._parsed if candidates == self._candidates else self._by_title(candidates)
        judged: dict[str, dict[str, Any]] = {}
        for index, record in enumerate(records):
            title = record["title"]
            if title not in gold:
                continue
            if title in judged:
                wrong = f"{title!r} again"
                raise DocumentError(None, index, title, "title", wrong, "a title that no other record has")
            judged[title] = record
            check_same_entities(
                [entity["name"] for entity in record["entities"]], gold[title], "the truth", index=index
            )
        warnings = []
        if translated:
            found = f"{translated:,} of {len(triples):,} triples have names of relations for ids, or ids for names"
            warnings.append(f"{found}; they are judged as what the truth has")
        # Before the missed facts are among the triples.
        warnings += self._misfits(records, judged) + self._unknown_relations(judged)
        for title, record in judged.items():
            _judge(record, gold[title], self._names, candidates)
        return warnings

    def _with_symmetric(self, triples):
        """The candidates with the relations that a record calls symmetric."""
        known = self._candidates
        found = (triple["relation"] for triple in triples if triple.get("symmetric"))
        new = [name for name in dict.fromkeys(found) if not known.is_symmetric(name)]
        # One that the data set reads as another one's inverse stays that.
        new = [name for name in new if name not in known.inverse]
        return dataclasses.replace(known, symmetric=(*known.symmetric, *new)) if new else known

    def _misfits(self, records, judged):
        warnings = []
        if others := [record["title"] for record in records if record["title"] not in judged]:
            found = f"{len(others):,} of {len(records):,} records have titles that the truth does not have"
            warnings.append(f"{found}, such as {others[0]!r}; they are not judged")
        if missing := [title for title in self._parsed if title not in judged]:
            found = f"no record of {len(missing):,} of the {len(self._parsed):,} documents of the truth"
            warnings.append(f"found {found}, such as {missing[0]!r}; their facts are not counted as missed")
        return warnings

    def _unknown_relations(self, judged):
        facts = [
            {"title": title, "h_idx": triple["head"], "t_idx": triple["tail"], "r": triple["relation"]}
            for title, record in judged.items()
            for triple in record["triples"]
        ]
        inverse = self._candidates.inverse
        known = {inverse.get(relation, relation) for relation in self._relations}
        unknown = sum(inverse.get(fact["r"], fact["r"]) not in known for fact in facts)
        result = {"distinct_predictions": len(facts), "unknown_titles": 0, "unknown_relations": unknown}
        return mismatch_warnings(result, facts, self._given) if facts else []


def _judge(record: dict, document: LabelledDocument, names: Mapping[str, str], candidates: CandidatePairs) -> None:
    names = dict(names) | {triple["relation"]: triple["name"] for triple in record["triples"]}
    first: dict[tuple, int] = {}  # of each fact that is predicted, the first triple that says it
    for number, triple in enumerate(record["triples"]):
        fact = candidates.turn(triple["head"], triple["tail"], triple["relation"])
        earlier = first.setdefault(fact, number)
        if candidates.ignores(*fact, document.ignored):  # it is not scored
            continue
        triple["gold"] = fact in document.facts
        if earlier != number:
            triple["same"] = earlier
    for head, tail, relation in document.facts:
        if (head, tail, relation) not in first:
            name = names.get(relation, relation)
            missed = {"head": head, "tail": tail, "relation": relation, "name": name, "score": 0, "explanation": []}
            symmetric = {"symmetric": True} if candidates.is_symmetric(relation) else {}
            record["triples"].append({**missed, **symmetric, "missed": True})
