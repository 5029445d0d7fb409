"""Copies of training documents in which names are replaced by a word for their type, so that a model has to read the rest."""

import random
import unicodedata
from collections import Counter
from collections.abc import Mapping
from typing import cast

from ..documents import Document, docred_type
from ..settings import SettingError

_WORDS = {"PER": "person", "ORG": "organization", "LOC": "place", "TIME": "date", "NUM": "number", "MISC": "thing"}


def mask_names(
    document: Document, share: float, seed: int | str = 0, words: Mapping[str, str] | None = None
) -> Document:
    """
    A copy of a document in which some entities have a word for their type instead of their names, in all of their mentions.

    An entity without a type keeps its names. So does a mention that shares words with another one, unless both have the same
    words and both entities are chosen.

    Args:
        document (`Document`): a valid one, in DocRED's format.
        share (`float`): the probability of each entity to be chosen, from 0 to 1.
        seed (`int` or `str`, defaults to 0): of the draw, which also depends on the document's title.
        words (`Mapping[str, str]`, *optional*): by type, what stands for it, see
            [`~modeling_comm.data.DatasetEntry`]; by default a plain word for DocRED's types, and the name of any other.

    Returns:
        `Document`: sentences, and positions and names of mentions, are new; everything else is the document's.

    Raises:
        SettingError: `share` is no number from 0 to 1.

    Example:

    ```python
    >>> from modeling_comm.data.masked_names import mask_names
    >>> mentions = [
    ...     [{"name": "Ada Lovelace", "sent_id": 0, "pos": [0, 2], "type": "PER"}],
    ...     [{"name": "London", "sent_id": 0, "pos": [5, 6], "type": "LOC"}],
    ... ]
    >>> document = {"title": "A", "sents": [["Ada", "Lovelace", "was", "born", "in", "London", "."]], "vertexSet": mentions}
    >>> masked = mask_names(document, share=1.0)
    >>> masked["sents"], masked["vertexSet"][1][0]["pos"]
    ([['person', 'was', 'born', 'in', 'place', '.']], [4, 5])

    ```
    """
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share <= 1:
        raise SettingError("mask_names", "share", share, "a number from 0 to 1")
    draw = random.Random(f"{seed} {document['title']}")
    entities, untyped = document["vertexSet"], set(document.get("untyped_entities") or ())
    new_names = [type_word(of_entity[0]["type"], words).split() for of_entity in entities]
    chosen = [draw.random() < share and index not in untyped and bool(name) for index, name in enumerate(new_names)]
    spans: dict[tuple[int, int, int], list[int]] = {}
    for index, of_entity in enumerate(entities):
        for mention in of_entity:
            start, end = mention["pos"]
            spans.setdefault((mention["sent_id"], start, end), []).append(index)
    covered = Counter((sent_id, word) for sent_id, start, end in spans for word in range(start, end))
    replaced = {
        (sent_id, start, end): new_names[found[0]]
        for (sent_id, start, end), found in spans.items()
        if all(chosen[index] for index in found) and all(covered[sent_id, word] == 1 for word in range(start, end))
    }
    ends = {(sent_id, start): end for sent_id, start, end in replaced}
    sentences, places = [], []
    for sent_id, sentence in enumerate(document["sents"]):
        tokens, new, end = [], [], 0
        for start, token in enumerate(sentence):
            new.append(len(tokens))
            if start < end:
                continue  # inside a name that is gone
            end = ends.get((sent_id, start), 0)
            tokens += replaced[sent_id, start, end] if end else [token]
        sentences.append(tokens)
        places.append([*new, len(tokens)])

    def at_new_place(mention):
        sent_id, (start, end) = mention["sent_id"], mention["pos"]
        name = " ".join(replaced[sent_id, start, end]) if (sent_id, start, end) in replaced else mention["name"]
        return {**mention, "name": name, "pos": [places[sent_id][start], places[sent_id][end]]}

    vertex_set = [list(map(at_new_place, of_entity)) for of_entity in entities]
    return cast(Document, {**document, "sents": sentences, "vertexSet": vertex_set})


def type_word(kind: str, words: Mapping[str, str] | None = None) -> str:
    """
    What stands for an entity type in a text: `"person"` for `"PER"`, `"cell line"` for `"CellLine"`.

    Args:
        kind (`str`): the type.
        words (`Mapping[str, str]`, *optional*): those that have a word of their own.
    """
    if words and kind in words:
        return words[kind]
    if (known := docred_type(kind)) in _WORDS:
        return _WORDS[known]
    letters = []
    for before, letter, after in zip(f" {kind}", kind, f"{kind[1:]} ", strict=False):
        begins = letter.isupper() and (before.islower() or (before.isupper() and after.islower()))
        is_separator = unicodedata.category(letter)[0] in "PSZ"  # marks belong to their letters
        letters.append(" " if is_separator else f" {letter}" if begins else letter)
    return " ".join("".join(letters).lower().split()) or kind
