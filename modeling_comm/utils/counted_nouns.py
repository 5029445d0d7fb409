"""Numbers with their nouns, for messages and reports."""

from collections.abc import Mapping


def counted(number: int, nouns: tuple[str, str]) -> str:
    """A number with its noun, whose singular and plural are given."""
    return f"{number:,} {nouns[number != 1]}"


def numbers_of_kinds(numbers: Mapping[str, int]) -> str:
    """Each kind, such as "mentions without an id", with its number; a phrase that fits one as well as many."""
    return ", ".join(f"{kind} ({number:,})" for kind, number in numbers.items())


DOCUMENTS, ENTITIES, MENTIONS = ("document", "documents"), ("entity", "entities"), ("mention", "mentions")
FACTS, TRIPLES, RELATIONS = ("fact", "facts"), ("triple", "triples"), ("relation", "relations")
IGNORED_PAIRS = ("ignored pair", "ignored pairs")
