"""Rules between relations: mined from well-labelled documents or written by hand, and applied to facts until nothing new follows.

A rule has one or two conditions and one conclusion over the variables x, y and z, written as `P17(x, y) => P131(x, y)` or
`P131(x, y) & P131(y, z) => P131(x, z)`. Labels that annotators left out often follow from those they gave:
Re-DocRED added many of its facts that way.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

_ATOM = re.compile(r"\s*([^\s(),&=>]+)\s*\(\s*([xyz])\s*,\s*([xyz])\s*\)\s*")


class Fact(NamedTuple):
    """A relation between two entities of a document, by their indices."""

    head: int
    tail: int
    relation: str


class Atom(NamedTuple):
    """A relation between two of the variables `"x"`, `"y"` and `"z"`."""

    relation: str
    head: str
    tail: str

    def __str__(self) -> str:
        return f"{self.relation}({self.head}, {self.tail})"


@dataclass(frozen=True)
class Rule:
    """
    `conditions => conclusion`.

    Args:
        conditions (`tuple[Atom, ...]`): one or two atoms.
        conclusion (`Atom`): its variables occur in the conditions.
        confidence (`float`, *optional*): share of the places where the conditions hold in which the conclusion holds, too.
        support (`int`, *optional*): number of places where both hold.

    Raises:
        ValueError: there are not one or two conditions, the conclusion has a variable that they lack, or an atom relates a
            variable to itself.
    """

    conditions: tuple[Atom, ...]
    conclusion: Atom
    confidence: float | None = None
    support: int | None = None

    def __post_init__(self):
        if len(self.conditions) not in (1, 2):
            raise ValueError(f"rule {self}: found {len(self.conditions)} conditions; expected one or two")
        bound = {variable for atom in self.conditions for variable in atom[1:]}
        if not {self.conclusion.head, self.conclusion.tail} <= bound:
            raise ValueError(f"rule {self}: the conclusion has a variable that no condition has")
        if any(atom.head == atom.tail for atom in (*self.conditions, self.conclusion)):
            raise ValueError(f"rule {self}: an atom relates a variable to itself; expected two variables")

    def __str__(self) -> str:
        return f"{' & '.join(map(str, self.conditions))} => {self.conclusion}"

    @classmethod
    def parse(cls, text: str, confidence: float | None = None, support: int | None = None) -> "Rule":
        """
        Reads a rule in the form of the module's examples.

        Raises:
            ValueError: the text has another form.
        """
        conditions, arrow, conclusion = text.partition("=>")
        atoms = [_ATOM.fullmatch(part) for part in (*conditions.split("&"), conclusion)]
        if not arrow or not all(atoms):
            raise ValueError(
                f"rule {text!r} is not understood; expected a form such as 'P131(x, y) & P17(y, z) => P17(x, z)'"
            )
        *conditions, conclusion = [Atom(*match.groups()) for match in atoms]
        return cls(tuple(conditions), conclusion, confidence, support)


class Derived(NamedTuple):
    """A fact that follows, the rule by which it does, and the facts that meet the rule's conditions."""

    fact: Fact
    rule: Rule
    premises: tuple[Fact, ...]


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
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not YAML: {error}") from error
    if not isinstance(items, list):
        raise ValueError(f"{path} is a {type(items).__name__}; expected a list of rules")
    rules = []
    for number, item in enumerate(items, 1):
        item = {"rule": item} if isinstance(item, str) else item
        if not isinstance(item, Mapping) or not isinstance(item.get("rule"), str) or item.keys() - _KEYS:
            raise ValueError(
                f"{path}, rule {number} is {item!r}; expected a text, or a mapping with {', '.join(_KEYS)}"
            )
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


def rules_to_text(rules: Iterable[Rule]) -> str:
    """The content of a file that [`read_rules`] reads, the most confident rules first."""
    lines = []
    for rule in sorted(rules, key=lambda rule: (-(rule.confidence or 0), -(rule.support or 0), str(rule))):
        lines.append(f'- rule: "{rule}"')
        lines += [f"  confidence: {rule.confidence:.4f}"] if rule.confidence is not None else []
        lines += [f"  support: {rule.support}"] if rule.support is not None else []
    return "\n".join(lines) + "\n"


def facts_of(document: Mapping) -> set[Fact]:
    """The labelled facts of a document in DocRED's format."""
    return {Fact(label["h"], label["t"], label["r"]) for label in document.get("labels") or ()}


def complete_labels(document: Mapping, rules: Iterable[Rule]) -> dict:
    """
    A document whose labels are completed by rules.

    Args:
        document (`dict`): in DocRED's format, with labels.
        rules (`Iterable[Rule]`): see [`derive_facts`].

    Returns:
        `dict`: a copy whose `labels` also have what follows. Such a label has no evidence, a text `rule`, and in `premises`
            the facts
        `[head, tail, relation]` that it follows from.
    """
    added = [
        {
            **{"h": one.fact.head, "t": one.fact.tail, "r": one.fact.relation, "evidence": []},
            **{"rule": str(one.rule), "premises": [list(premise) for premise in one.premises]},
        }
        for one in derive_facts(facts_of(document), rules)
    ]
    return {**document, "labels": [*document["labels"], *added]}


def mine_rules(
    documents: Iterable[Mapping], min_confidence: float = 0.8, min_support: int = 5, chains: bool = True
) -> list[Rule]:
    """
    Finds rules in well-labelled documents: a relation that implies another one on the same pair or on the reversed pair, and
    chains of two relations.

    Args:
        documents (`Iterable[dict]`): in DocRED's format, with labels as complete as can be had. Incomplete labels hide rules.
        min_confidence (`float`, defaults to 0.8): least share of the conditions' places in which the conclusion holds.
        min_support (`int`, defaults to 5): least number of places in which both hold.
        chains (`bool`, defaults to `True`): whether rules of two conditions are looked for.

    Returns:
        `list[Rule]`: the most confident ones first. A rule whose conclusion repeats a condition is left out.
    """
    places, both = defaultdict(int), defaultdict(int)
    for document in documents:
        facts = facts_of(document)
        relations = defaultdict(set)  # of each pair
        for fact in facts:
            relations[fact.head, fact.tail].add(fact.relation)
        found = defaultdict(set)  # pairs (x, last variable) in which the conditions hold
        for fact in facts:
            found[(Atom(fact.relation, "x", "y"),)].add((fact.head, fact.tail))
        if chains:
            starting = defaultdict(list)
            for fact in facts:
                starting[fact.head].append(fact)
            for first in facts:
                for second in starting[first.tail]:
                    if second.tail != first.head:
                        conditions = (Atom(first.relation, "x", "y"), Atom(second.relation, "y", "z"))
                        found[conditions].add((first.head, second.tail))
        for conditions, pairs in found.items():
            places[conditions] += len(pairs)
            last = "y" if len(conditions) == 1 else "z"
            for head, tail in pairs:
                for relation in relations.get((head, tail), ()):
                    both[conditions, Atom(relation, "x", last)] += 1
                if len(conditions) == 1:
                    for relation in relations.get((tail, head), ()):
                        both[conditions, Atom(relation, "y", "x")] += 1
    rules = [
        Rule(conditions, conclusion, count / places[conditions], count)
        for (conditions, conclusion), count in both.items()
        if conclusion not in conditions and count >= min_support and count >= min_confidence * places[conditions]
    ]
    return sorted(rules, key=lambda rule: (-rule.confidence, -rule.support, str(rule)))


def derive_facts(facts: Iterable[Fact], rules: Iterable[Rule]) -> list[Derived]:
    """
    All that follows from the facts of one document, rules applied again to what follows.

    Args:
        facts (`Iterable[Fact]`): the facts given.
        rules (`Iterable[Rule]`): earlier rules are tried first, so give the most confident ones first.

    Returns:
        `list[Derived]`: in the order in which they follow; never a fact that was given, nor one of an entity with itself.
            Each premise
        is a given fact or comes earlier in the list.
    """
    known = {Fact(*fact) for fact in facts}
    rules, derived = list(rules), []
    while True:
        by_relation = defaultdict(list)
        for fact in sorted(known):
            by_relation[fact.relation].append(fact)
        new = {}
        for rule in rules:
            for premises, binding in _matches(rule.conditions, by_relation):
                fact = Fact(binding[rule.conclusion.head], binding[rule.conclusion.tail], rule.conclusion.relation)
                if fact.head != fact.tail and fact not in known and fact not in new:
                    new[fact] = Derived(fact, rule, premises)
        if not new:
            return derived
        derived += new.values()
        known |= new.keys()


def _matches(conditions, by_relation):
    """Facts that meet the conditions together, and the entity of each variable."""
    first, *rest = conditions
    for fact in by_relation[first.relation]:
        binding = {first.head: fact.head, first.tail: fact.tail}
        if not rest:
            yield (fact,), binding
            continue
        (second,) = rest
        for other in by_relation[second.relation]:
            # A variable of both conditions stands for one entity.
            if (
                binding.get(second.head, other.head) == other.head
                and binding.get(second.tail, other.tail) == other.tail
            ):
                yield (fact, other), {**binding, second.head: other.head, second.tail: other.tail}
