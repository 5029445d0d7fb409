"""Documents without the mentions, entities and facts that do not fit."""

import re
from collections import Counter
from collections.abc import Collection
from numbers import Integral
from typing import Any

from ..documents import DocumentError, validate_document

# The part that the field of an error lies in.
_PART = re.compile(
    r"vertexSet\[(?P<entity>\d+)\](\[(?P<mention>\d+)\])?|labels\[(?P<fact>\d+)\]|ignored_pairs\[(?P<pair>\d+)\]"
)


def drop_bad_parts(
    document: Any,
    *,
    index: int | None = None,
    source: str | None = None,
    relations: Collection[str] | None = None,
    keep_entities: bool = False,
) -> tuple[dict, Counter]:
    """
    Leaves out of a document what [`~modeling_comm.documents.validate_document`] refuses: a fact, an ignored pair, a mention, or
    an entity that has no mention left, with its facts and ignored pairs. The other entities move up.

    Args:
        document (`dict`): in DocRED's format; it is not changed.
        index, source, relations: as in [`~modeling_comm.documents.validate_document`].
        keep_entities (`bool`, defaults to `False`): refuse the document where an entity would have to be left out: the numbers
            of its entities mean something elsewhere.

    Returns:
        `tuple[dict, Counter]`: the document, which is valid, and how many `mentions`, `entities`, `facts` and `ignored_pairs`
            were left out.

    Raises:
        DocumentError: something else is wrong.
    """
    dropped: Counter[str] = Counter()
    while True:
        try:
            validate_document(document, index=index, source=source, relations=relations)
            return document, dropped
        except DocumentError as error:
            part = _PART.match(error.field or "")
            if part is None or (keep_entities and part.lastgroup == "entity"):
                raise
            found = {name: int(number) for name, number in part.groupdict().items() if number is not None}
        document = {**document}
        if "fact" in found:
            document["labels"] = _without(document["labels"], found["fact"])
            dropped["facts"] += 1
        elif "pair" in found:
            document["ignored_pairs"] = _without(document["ignored_pairs"], found["pair"])
            dropped["ignored_pairs"] += 1
        elif "mention" in found:
            mentions = _without(document["vertexSet"][found["entity"]], found["mention"])
            document["vertexSet"] = [*document["vertexSet"]]
            document["vertexSet"][found["entity"]] = mentions
            dropped["mentions"] += 1
        else:
            dropped["entities"] += 1
            dropped.update(_drop_entity(document, found["entity"]))


def _drop_entity(document, entity):
    """Drops an entity; returns how many facts and ignored pairs go with it."""
    document["vertexSet"] = _without(document["vertexSet"], entity)
    dropped = Counter()
    facts = document.get("labels")
    if isinstance(facts, (list, tuple)):
        kept = [_renumbered(fact, ("h", "t"), entity) for fact in facts]
        document["labels"] = [fact for fact in kept if fact is not None]
        dropped["facts"] = len(kept) - len(document["labels"])
    ids = document.get("entity_ids")
    if isinstance(ids, (list, tuple)):
        document["entity_ids"] = _without(ids, entity)
    untyped = document.get("untyped_entities")
    if isinstance(untyped, (list, tuple)):
        document["untyped_entities"] = [number - (number > entity) for number in untyped if number != entity]
    pairs = document.get("ignored_pairs")
    if isinstance(pairs, (list, tuple)):
        kept = [_renumbered(list(pair), range(len(pair)), entity) for pair in pairs if isinstance(pair, (list, tuple))]
        document["ignored_pairs"] = [pair for pair in kept if pair is not None]
        dropped["ignored_pairs"] = len(pairs) - len(document["ignored_pairs"])
    return dropped


def _renumbered(item, places, entity):
    """An item that points to entities, as the numbers are without this one; None where it points to it."""
    if isinstance(item, dict):
        item = {**item}
    elif not isinstance(item, list):
        return item  # found wrong later
    for place in places:
        number = item.get(place) if isinstance(item, dict) else item[place]
        if isinstance(number, Integral) and not isinstance(number, bool):
            if number == entity:
                return None
            item[place] = number - (number > entity)
    return item


def _without(items, index):
    return [*items[:index], *items[index + 1 :]]
