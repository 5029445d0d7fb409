"""Numbers with their nouns, for messages and reports."""


def counted(number: int, nouns: tuple[str, str]) -> str:
    """A number with its noun, whose singular and plural are given."""
    return f"{number:,} {nouns[number != 1]}"


DOCUMENTS, ENTITIES, MENTIONS = ("document", "documents"), ("entity", "entities"), ("mention", "mentions")
FACTS, TRIPLES, RELATIONS = ("fact", "facts"), ("triple", "triples"), ("relation", "relations")
