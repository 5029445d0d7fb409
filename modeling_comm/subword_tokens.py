"""Subword tokens of a document's words and the markers around its mentions: what encoding needs of a tokenizer."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from .documents import Document

MARKERS = ("star", "entity_type", "none")
# The definition of `markers="entity_type"`, by which checkpoints of the original DocuNet around BERT can be converted:
# `[unusedK]` opens a mention of a type, `[unused(K + 50)]` closes it. K is 1, 3, 5 ... for the types in their order, by default
# these, and 0 for entities without a type: where the vocabulary has no 0, as BERT's cased ones, these are not marked.
MARKER_TYPES = ("ORG", "LOC", "TIME", "PER", "MISC", "NUM")
MOST_MARKER_TYPES = 25
_NO_TYPE = "-"
_CLOSING = 50
_ANY_TYPE = "*"


@dataclass(frozen=True)
class TokenizerTraits:
    """
    What encoding needs to know of a tokenizer, which [`read_tokenizer`] finds out.

    Args:
        start_id, end_id (`int`): ids of the special tokens around a text.
        unknown_id (`int`, *optional*): id of the token for what the vocabulary lacks.
        leading_space (`str`): what is put before every word: a space, or nothing.
        markers (`dict[str, tuple[int, int] | None]`): ids of the opening and the closing marker, by entity type; `"*"` is any.
            Empty where mentions are not marked; None for a type whose mentions are not.
    """

    start_id: int
    end_id: int
    unknown_id: int | None
    leading_space: str
    markers: dict[str, tuple[int, int] | None]


def read_tokenizer(
    tokenizer: PreTrainedTokenizerBase,
    markers: str,
    word_leading_space: bool,
    marker_types: Sequence[str] | None = None,
) -> TokenizerTraits:
    """
    Finds out what encoding needs to know of a tokenizer.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): the backbone's, a fast one or one written in Python.
        markers (`str`), word_leading_space (`bool`), marker_types (`Sequence[str]`, *optional*): as in
            [`~processing_comm.CommProcessor`].

    Raises:
        ValueError: the tokenizer cannot serve.
    """
    name = type(tokenizer).__name__
    if tokenizer.pad_token_id is None:
        raise ValueError(f"{name} has no padding token; set tokenizer.pad_token")
    special = tokenizer("")["input_ids"]
    if len(special) != 2:
        raise ValueError(f"{name} puts the special tokens {special} around a text; expected one before and one after")
    byte_level = _byte_level_settings(tokenizer)
    if not word_leading_space and any(part.get("add_prefix_space") for part in byte_level):
        raise ValueError(
            f"word_leading_space=False, but {name} adds a space itself; load it with add_prefix_space=False"
        )
    start_id, end_id = special
    return TokenizerTraits(
        start_id,
        end_id,
        tokenizer.unk_token_id,
        " " if word_leading_space and byte_level else "",
        dict(_read_markers(tokenizer, markers, marker_types or MARKER_TYPES)),
    )


def _byte_level_settings(tokenizer) -> list[dict[str, Any]]:
    """Settings of the tokenizer's byte-level steps, to which a word's leading space is a part of the word."""
    if not tokenizer.is_fast:  # written in Python; those at byte level are all fast
        return []
    settings = json.loads(tokenizer.backend_tokenizer.to_str())["pre_tokenizer"] or {"type": "none"}
    return [part for part in settings.get("pretokenizers", [settings]) if part["type"] == "ByteLevel"]


def _read_markers(tokenizer, markers, types):
    def has(token):
        return tokenizer.convert_tokens_to_ids(token) not in (None, tokenizer.unk_token_id)

    def marker_id(token):
        if not has(token):
            raise ValueError(
                f"markers={markers!r} need the token {token!r}, which {type(tokenizer).__name__}'s vocabulary lacks; "
                "expected markers='star' or 'none'"
            )
        return tokenizer.convert_tokens_to_ids(token)

    def unused(number):
        return marker_id(f"[unused{number}]"), marker_id(f"[unused{number + _CLOSING}]")

    if markers == "star":
        star = marker_id("*")
        yield _ANY_TYPE, (star, star)
    elif markers == "entity_type":
        yield _NO_TYPE, unused(0) if has("[unused0]") else None
        for place, kind in enumerate(types):
            yield kind, unused(2 * place + 1)


def tokenize_words(
    tokenizer: PreTrainedTokenizerBase, documents: list[Document], leading_space: str
) -> dict[str, list[int]]:
    """Subword tokens of every distinct word. Words are tokenized on their own, so that the alignment is exact."""
    words = sorted({word for document in documents for sentence in document["sents"] for word in sentence})
    if not words:
        return {}
    # A word that looks like a special token ("</s>" in a text about HTML) is a word all the same.
    texts = [leading_space + word for word in words]
    pieces = tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return dict(zip(words, pieces, strict=True))


def marker_ids(
    document: Document, markers: dict[str, tuple[int, int] | None]
) -> tuple[dict[tuple[int, int], list[int]], dict[tuple[int, int], list[int]]]:
    """
    Marker ids before and after boundary words, by sentence and word: one per word, that of the first mention that starts or ends
    there.

    Args:
        document (`Document`): the document.
        markers (`dict[str, tuple[int, int] | None]`): as in [`TokenizerTraits`].

    Raises:
        ValueError: there is no marker for an entity's type.
    """
    opening, closing = {}, {}
    if not markers:
        return opening, closing
    untyped = set(document.get("untyped_entities") or ())
    for entity, mentions in enumerate(document["vertexSet"]):
        for mention in mentions:
            kind = _ANY_TYPE if _ANY_TYPE in markers else _NO_TYPE if entity in untyped else mention["type"]
            if kind not in markers:
                raise ValueError(
                    f"document {document['title']!r}, entity {entity}: type is {mention['type']!r}; entity_type markers exist "
                    f"for {sorted(markers)} (marker_types)"
                )
            ids = markers[kind]
            if ids is None:
                continue
            opening.setdefault((mention["sent_id"], mention["pos"][0]), [ids[0]])
            closing.setdefault((mention["sent_id"], mention["pos"][1] - 1), [ids[1]])
    return opening, closing
