"""Rules between relations: mined from well-labelled documents or read from a file, and applied to labels.

Labels that annotators left out often follow from those they gave: Re-DocRED added many of its facts that way. The module
`modeling_comm/rules.py` says what a rule is.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from numbers import Real
from pathlib import Path
from typing import NamedTuple

from ..candidate_pairs import ALL_PAIRS, CandidatePairs, entity_types, ignored_pairs
from ..documents import Document, DocumentError, shown
from ..evaluation.rates import rates
from ..rules import Atom, Derived, Fact, Rule, derive_facts, written_for
from ..utils.counted_nouns import DOCUMENTS, FACTS, counted

__all__ = [
    "Atom",
    "Completion",
    "Derived",
    "Fact",
    "Rule",
    "compare_labels",
    "complete_labels",
    "derive_facts",
    "facts_of",
    "mine_rules",
    "read_rules",
    "rules_to_text",
]


def read_rules(path: str | Path, relations: Collection[str] | None = None) -> list[Rule]:
    """
    Reads a YAML or JSON file of rules: a list whose items are texts, or mappings with `rule` and, optionally, `confidence` and
    `support`.

    Args:
        path (`str` or `Path`): the file.
        relations (`Collection[str]`, *optional*): the known relations. Any is accepted by default.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file has another form, or a rule is not understood or names an unknown relation; the message names
            file and rule.
    """
    import yaml

    try:
        items = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (
        yaml.YAMLError,
        ValueError,
        RecursionError,
    ) as error:  # bytes that are no UTF-8, a number of a million digits
        raise ValueError(f"{path}: found no YAML ({error}), expected a list of rules") from error
    if not isinstance(items, list):
        raise ValueError(f"{path}: found {'nothing' if items is None else shown(items)}, expected a list of rules")
    rules = []
    for number, item in enumerate(items, 1):
        item = {"rule": item} if isinstance(item, str) else item
        if not _is_rule(item):
            expected = f"a text, or a mapping with {', '.join(_KEYS)}, the last two numbers"
            raise ValueError(f"{path}, rule {number}: found {shown(item)}, expected {expected}")
        try:
            rule = Rule.parse(**{"text" if key == "rule" else key: value for key, value in item.items()})
        except ValueError as error:
            raise ValueError(f"{path}, rule {number}: {error}") from error
        named = {atom.relation for atom in (*rule.conditions, rule.conclusion)}
        if relations is not None and not named <= set(relations):
            raise ValueError(f"{path}, rule {number} ({rule}): unknown relations {sorted(named - set(relations))}")
        rules.append(rule)
    return rules


_KEYS = ("rule", "confidence", "support")


def _is_rule(item):
    if not isinstance(item, Mapping) or not isinstance(item.get("rule"), str) or item.keys() - _KEYS:
        return False
    numbers = [item[name] for name in _KEYS[1:] if item.get(name) is not None]
    return all(isinstance(number, Real) and not isinstance(number, bool) for number in numbers)


def rules_to_text(rules: Iterable[Rule]) -> str:
    """The content of a file that [`read_rules`] reads, the most confident rules first."""
    lines = []
    for rule in sorted(rules, key=lambda rule: (-(rule.confidence or 0), -(rule.support or 0), str(rule))):
        lines.append(f"- rule: {json.dumps(str(rule), ensure_ascii=False)}")
        lines += [f"  confidence: {rule.confidence:.4f}"] if rule.confidence is not None else []
        lines += [f"  support: {rule.support}"] if rule.support is not None else []
    return "\n".join(lines or ["[]"]) + "\n"


def facts_of(document: Mapping, candidates: CandidatePairs = ALL_PAIRS) -> set[Fact]:
    """
    The labelled facts of a document in DocRED's format, those that say the same once.

    Args:
        document (`dict`): in DocRED's format. Labels of its `ignored_pairs` do not count.
        candidates (`CandidatePairs`, *optional*): says which facts are the same. One of a symmetric relation has the lower index
            first, whatever the types of its entities, and one of an inverse relation is that of the other. By default no two are.
    """
    return {Fact(*candidates.turn(*fact)) for fact, _ in candidates.labels(document)}  # type: ignore[arg-type]


def complete_labels(document: Document, rules: Iterable[Rule], candidates: CandidatePairs = ALL_PAIRS) -> dict:
    """
    A document whose labels are completed by rules.

    Args:
        document (`dict`): in DocRED's format, with labels.
        rules (`Iterable[Rule]`): see [`derive_facts`].
        candidates (`CandidatePairs`, *optional*): says which relations rules read in both directions, and which, in labels and in
            rules, as the inverse of another. By default none.

    Returns:
        `dict`: a copy whose `labels` also have what follows, in the direction that a model is asked about. Facts of
            `ignored_pairs` are not added, and are no premises. A label that is added has no evidence, a text `rule`, and in
            `premises` the facts `[head, tail, relation]` that it follows from, those of the document as its labels have them.
    """
    one_way = candidates.symmetric or not candidates.directed
    asked = candidates.matrix(entity_types(document)) if one_way else None
    given = {fact: (label["h"], label["t"], label["r"]) for fact, label in candidates.labels(document)}
    rules, added, ignored = written_for(rules, candidates.inverse), [], ignored_pairs(document)

    def is_wanted(fact):
        return not candidates.ignores(*candidates.turn(*fact), ignored)

    for fact, rule, premises in derive_facts(map(Fact._make, given), rules, candidates.is_symmetric, is_wanted):
        head, tail, relation = candidates.turn(*fact, asked)
        turned = [candidates.turn(*premise, asked) for premise in premises]
        from_ = [list(given.get(premise, premise)) for premise in turned]
        added.append(
            {"h": head, "t": tail, "r": relation, "evidence": [], "rule": str(rules[rule]), "premises": from_}
        )
    return {**document, "labels": [*document["labels"], *added]}


def mine_rules(
    documents: Iterable[Mapping],
    min_confidence: float = 0.8,
    min_support: int = 5,
    chains: bool = True,
    candidates: CandidatePairs = ALL_PAIRS,
) -> list[Rule]:
    """
    Finds rules in well-labelled documents: a relation that implies another one on the same pair or on the reversed pair, and
    chains of two relations.

    Args:
        documents (`Iterable[dict]`): in DocRED's format, with labels as complete as can be had. Incomplete labels hide rules.
        min_confidence (`float`, defaults to 0.8): least share of the conditions' places in which the conclusion holds.
        min_support (`int`, defaults to 5): least number of places in which both hold.
        chains (`bool`, defaults to `True`): whether rules of two conditions are looked for.
        candidates (`CandidatePairs`, *optional*): says which relations hold in both directions, and which as the inverse of
            another, for which no rules are looked for. By default none. The two directions of a pair are one place of a rule
            whose conclusion holds in both.

    Returns:
        `list[Rule]`: the most confident ones first. A rule whose conclusion repeats a condition is left out.

    Raises:
        ValueError: `min_confidence` or `min_support` is out of its range.
    """
    if not 0 <= min_confidence <= 1:
        raise ValueError(f"min_confidence is {min_confidence}; expected a number from 0 to 1")
    if min_support < 1:
        raise ValueError(f"min_support is {min_support}; expected an integer of 1 or more")
    # Of conditions: their places, and those of conclusions that hold in both directions.
    places, unordered, both = defaultdict(int), defaultdict(int), defaultdict(int)
    for document in documents:
        facts = {way for fact in facts_of(document, candidates) for way in fact.ways(candidates.is_symmetric)}
        relations = defaultdict(set)  # of each pair
        for fact in facts:
            relations[fact.head, fact.tail].add(fact.relation)
        for conditions, pairs in _pairs_of_conditions(facts, chains).items():
            places[conditions] += len(pairs)
            unordered[conditions] += len({frozenset(pair) for pair in pairs})
            held: dict[Atom, set] = defaultdict(set)  # the places of each conclusion
            last = "y" if len(conditions) == 1 else "z"
            for head, tail in pairs:
                for relation in relations.get((head, tail), ()):
                    one_place = candidates.is_symmetric(relation)
                    held[Atom(relation, "x", last)].add(frozenset((head, tail)) if one_place else (head, tail))
                if len(conditions) == 1:
                    for relation in relations.get((tail, head), ()):
                        held[Atom(relation, "y", "x")].add((head, tail))
            for conclusion, where in held.items():
                both[conditions, conclusion] += len(where)
    rules = []
    for (conditions, conclusion), count in both.items():
        one_place = candidates.is_symmetric(conclusion.relation)
        repeated = _is_turned(conditions, conclusion, candidates.is_symmetric)
        of = (unordered if one_place else places)[conditions]
        if not repeated and conclusion not in conditions and count >= max(min_support, min_confidence * of):
            rules.append(Rule(conditions, conclusion, count / of, count))
    return sorted(rules, key=lambda rule: (-rule.confidence, -rule.support, str(rule)))


def _is_turned(conditions, conclusion, is_symmetric):
    """Whether another rule that is looked for says the same, because relations hold in both directions."""
    both_ways = [is_symmetric(atom.relation) for atom in (*conditions, conclusion)]
    if len(conditions) == 1:
        return conclusion.head == "y" and any(both_ways)
    return all(both_ways) and conditions[0].relation > conditions[1].relation


def _pairs_of_conditions(facts, chains):
    """The pairs (x, last variable) of a document's entities for which conditions hold, by conditions."""
    found: dict[tuple[Atom, ...], set] = defaultdict(set)
    for fact in facts:
        found[(Atom(fact.relation, "x", "y"),)].add((fact.head, fact.tail))
    if chains:
        starting = defaultdict(list)
        for fact in facts:
            starting[fact.head].append(fact)
        for first in facts:
            for second in starting[first.tail]:
                if second.tail != first.head:
                    chain = (Atom(first.relation, "x", "y"), Atom(second.relation, "y", "z"))
                    found[chain].add((first.head, second.tail))
    return found


class Completion(NamedTuple):
    """
    What completing added.

    Attributes:
        documents (`int`), given (`int`), added (`int`): numbers of documents, of facts before, and of facts that follow.
        by_relation (`dict[str, int]`): the facts that were added, the most frequent relations first.
    """

    documents: int
    given: int
    added: int
    by_relation: dict[str, int]

    @classmethod
    def between(
        cls, before: Iterable[Mapping], after: Iterable[Mapping], candidates: CandidatePairs = ALL_PAIRS
    ) -> "Completion":
        """Counts what the second documents have beyond the first ones, which are the same documents in the same order;
        `candidates` as in [`facts_of`]."""
        documents, given, added = 0, 0, Counter()
        for documents, (first, second) in enumerate(zip(before, after, strict=True), 1):  # noqa: B007
            known = facts_of(first, candidates)
            given += len(known)
            added.update(fact.relation for fact in facts_of(second, candidates) - known)
        return cls(documents, given, added.total(), dict(added.most_common()))

    def __str__(self) -> str:
        largest = ", ".join(f"{relation} {number:,}" for relation, number in list(self.by_relation.items())[:5])
        added, documents = counted(self.added, FACTS), counted(self.documents, DOCUMENTS)
        return f"{added} added to {self.given:,} in {documents} ({largest or 'nothing follows'})"


def compare_labels(
    documents: Iterable[Mapping], complete: Iterable[Mapping], candidates: CandidatePairs = ALL_PAIRS
) -> dict[str, float]:
    """
    Precision and recall of labels against complete ones of the same documents, which are found by title.

    Args:
        documents (`Iterable[dict]`): the labelled documents to judge.
        complete (`Iterable[dict]`): documents with complete labels. One that has another number of entities than its namesake is
            left out.
        candidates (`CandidatePairs`, *optional*): says which facts are the same, as in [`facts_of`].

    Returns:
        `dict[str, float]`: `documents` (how many are in both), `precision`, `recall` and `f1`; 0 where there are none.

    Raises:
        DocumentError: a document has the title of another one of its side.
    """
    truth = dict(_with_titles(complete, "complete documents"))
    found = correct = labelled = gold = 0
    for title, document in _with_titles(documents, "documents to judge"):
        other = truth.get(title)
        if other is not None and len(other["vertexSet"]) == len(document["vertexSet"]):
            facts, right = facts_of(document, candidates), facts_of(other, candidates)
            found, correct = found + 1, correct + len(facts & right)
            labelled, gold = labelled + len(facts), gold + len(right)
    of_labels = rates(correct, labelled, gold)
    return {"documents": found} | {name: of_labels[name] for name in ("precision", "recall", "f1")}


def _with_titles(documents, source):
    """Documents, each behind its title."""
    titles = set()
    for index, document in enumerate(documents):
        title = document["title"]
        if title in titles:
            expected = "a title that no other document has: labels are compared by title"
            raise DocumentError(source, index, title, "title", f"{title!r} again", expected)
        titles.add(title)
        yield title, document
