"""Rules between relations, applied to the facts of a document until nothing new follows.

A rule has one or two conditions and one conclusion over the variables x, y and z, written as `P17(x, y) => P131(x, y)` or
`P131(x, y) & P131(y, z) => P131(x, z)`; a name with a space or one of `(),&=>"` is in quotes, `"works for"(x, y)`, as JSON has
them. `incomplete_labels/rules.py` of the library mines rules and reads files of them.
"""

import functools
import itertools
import json
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from .settings import SettingError

_EXAMPLE = "'P131(x, y) & P17(y, z) => P17(x, z)'"
_BARE = re.compile(r"""[^\s(),&=>"]+""")
_ATOM = re.compile(rf"""\s*({_BARE.pattern}|"(?:[^"\\]|\\.)*")\s*\(\s*([xyz])\s*,\s*([xyz])\s*\)\s*(&|=>|$)""")


class Fact(NamedTuple):
    """A relation between two entities of a document, by their indices."""

    head: int
    tail: int
    relation: str

    def ways(self, is_symmetric: Callable[[str], bool]) -> tuple["Fact", ...]:
        """The directions in which the fact says the same: its own one, and the other if `is_symmetric` says so."""
        return (self, Fact(self.tail, self.head, self.relation)) if is_symmetric(self.relation) else (self,)


class Atom(NamedTuple):
    """A relation between two of the variables `"x"`, `"y"` and `"z"`."""

    relation: str
    head: str
    tail: str

    def __str__(self) -> str:
        name = self.relation if _BARE.fullmatch(self.relation) else json.dumps(self.relation, ensure_ascii=False)
        return f"{name}({self.head}, {self.tail})"


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

    def __post_init__(self) -> None:
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
        atoms, signs, place = [], [], 0
        while (match := _ATOM.match(text, place)) and (not signs or signs[-1]):
            name, head, tail, sign = match.groups()
            try:
                atoms.append(Atom(json.loads(name) if name.startswith('"') else name, head, tail))
            except ValueError:  # no text of JSON
                break
            signs.append(sign)
            place = match.end()
        if len(signs) < 2 or signs[-2:] != ["=>", ""] or {*signs[:-2]} - {"&"}:
            raise ValueError(f"rule {text!r} is not understood; expected a form such as {_EXAMPLE}")
        *conditions, conclusion = atoms
        return cls(tuple(conditions), conclusion, confidence, support)


def written_for(rules: Iterable[Rule], inverse: Mapping[str, str]) -> dict[Rule, Rule]:
    """
    Rules in terms of the relations that facts have: an atom of a relation that is read as the inverse of another one becomes one
    of that, with its variables exchanged.

    Args:
        rules (`Iterable[Rule]`): rules of any relations.
        inverse (`Mapping[str, str]`): as in [`~candidate_pairs.CandidatePairs`].

    Returns:
        `dict[Rule, Rule]`: the rules as they are applied, in order, each with the rule as it was given.
    """

    def kept(atom):
        return Atom(inverse[atom.relation], atom.tail, atom.head) if atom.relation in inverse else atom

    given: dict[Rule, Rule] = {}
    for rule in rules:
        atoms = {"conditions": tuple(map(kept, rule.conditions)), "conclusion": kept(rule.conclusion)}
        given.setdefault(replace(rule, **atoms), rule)  # type: ignore[arg-type]
    return given


def check_rules(rules: Iterable["Rule | str"], relations: Collection[str]) -> tuple[Rule, ...]:
    """
    Rules from their texts, checked against the relations there are.

    Args:
        rules (`Iterable[Rule | str]`): rules, or texts that [`Rule.parse`] reads.
        relations (`Collection[str]`): the known relations, those that are read as the inverse of another one among them.

    Raises:
        `SettingError`: a rule is not understood, or names an unknown relation.
    """
    if isinstance(rules, str) or not isinstance(rules, Iterable):
        raise SettingError("CommProcessor", "rules", rules, f"a list of rules such as {_EXAMPLE}")
    return tuple(_check_rule(rule if isinstance(rule, Rule) else str(rule), frozenset(relations)) for rule in rules)


@functools.lru_cache(4096)
def _check_rule(rule, relations):
    if isinstance(rule, str):
        try:
            rule = Rule.parse(rule)
        except ValueError as error:
            raise SettingError("CommProcessor", "rules", rule, f"a rule such as {_EXAMPLE} ({error})") from error
    if unknown := sorted({atom.relation for atom in (*rule.conditions, rule.conclusion)} - relations):
        raise SettingError("CommProcessor", "rules", str(rule), f"known relations; {unknown} are not")
    return rule


class Derived(NamedTuple):
    """A fact that follows, the rule by which it does, and the facts that meet the rule's conditions."""

    fact: Fact
    rule: Rule
    premises: tuple[Fact, ...]


def derive_facts(
    facts: Iterable[Fact],
    rules: Iterable[Rule],
    is_symmetric: Callable[[str], bool] = lambda relation: False,
    may_stand: Callable[[Fact], bool] = lambda fact: True,
) -> list[Derived]:
    """
    All that follows from the facts of one document, rules applied again to what follows.

    Args:
        facts (`Iterable[Fact]`): the facts given.
        rules (`Iterable[Rule]`): earlier rules are tried first, so give the most confident ones first.
        is_symmetric (`Callable`, *optional*): whether a relation holds in both directions or in none. A fact of one that does
            says the same in the other direction. By default none does.
        may_stand (`Callable`, *optional*): whether a fact may be derived. One that may not is no premise either. By default all
            may.

    Returns:
        `list[Derived]`: in the order in which they follow; never a fact that was given, nor one of an entity with itself, nor
        one that says the same as another. Each premise is a given fact or comes earlier in the list, one of a symmetric
        relation perhaps in the other direction.
    """
    known = {way for fact in facts for way in Fact(*fact).ways(is_symmetric)}
    rules, derived = list(rules), []
    while True:
        facts_of = defaultdict(list)  # by relation, head and tail; None stands for any
        for fact in sorted(known):
            for head, tail in itertools.product((fact.head, None), (fact.tail, None)):
                facts_of[fact.relation, head, tail].append(fact)
        new: set[Fact] = set()
        for rule in rules:
            for premises, binding in _matches(rule.conditions, facts_of):
                fact = Fact(binding[rule.conclusion.head], binding[rule.conclusion.tail], rule.conclusion.relation)
                if fact.head != fact.tail and fact not in known and fact not in new and may_stand(fact):
                    derived.append(Derived(fact, rule, premises))
                    new.update(fact.ways(is_symmetric))
        if not new:
            return derived
        known |= new


def _matches(conditions, facts_of):
    """Facts that meet the conditions together, and the entity of each variable."""
    first, *rest = conditions
    for fact in facts_of.get((first.relation, None, None), ()):
        binding = {first.head: fact.head, first.tail: fact.tail}
        if not rest:
            yield (fact,), binding
            continue
        (second,) = rest
        # A variable of both conditions stands for one entity.
        for other in facts_of.get((second.relation, binding.get(second.head), binding.get(second.tail)), ()):
            yield (fact, other), {**binding, second.head: other.head, second.tail: other.tail}
