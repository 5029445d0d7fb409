"""Ids of entities where a source joins those of a mention that is of several entities."""

import re
from collections.abc import Iterable
from dataclasses import replace

from .annotated_text import AnnotatedFact, AnnotatedMention

# An id of a list such as MeSH's or NCBI's; variants, such as `c|DEL||30`, have separators inside.
_PLAIN_ID = re.compile(r"(?:\w+:)?[A-Za-z]{0,4}\d+")
_SEPARATORS = re.compile(r"[,;|]")


def split_ids(text: str) -> tuple[str, ...]:
    """
    Ids of a mention: several, with `,`, `;` or `|` between them, where each is a plain one; else the text is one.

    Example:

    ```python
    >>> from modeling_comm.formats.entity_ids import split_ids
    >>> split_ids("D007859|D008569"), split_ids("c|DEL||30")
    (('D007859', 'D008569'), ('c|DEL||30',))

    ```
    """
    parts = [part.strip() for part in _SEPARATORS.split(text)]
    if len(parts) > 1 and all(map(_PLAIN_ID.fullmatch, parts)):
        return tuple(parts)
    return (text.strip(),)


def split_joined_ids(mentions: Iterable[AnnotatedMention], facts: Iterable[AnnotatedFact]) -> list[AnnotatedMention]:
    """
    Mentions whose single id is split where it is several. What facts name as one entity is one, also where it looks like several.

    Args:
        mentions (`Iterable[AnnotatedMention]`): each with one id.
        facts (`Iterable[AnnotatedFact]`): of the same document.
    """
    whole = {entity for fact in facts for entity in (fact.head, fact.tail)}
    return [
        mention if mention.ids[0] in whole else replace(mention, ids=split_ids(mention.ids[0])) for mention in mentions
    ]
