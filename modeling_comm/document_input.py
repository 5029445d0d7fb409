"""What the pipeline takes for a document: DocRED's format, a text with entities or mentions, a bare text; in the forms in which
named-entity tools, annotation tools and data frames hand these over."""

import difflib
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from .documents import DocumentChecker, DocumentError
from .mentions import find_mentions, group_mentions, mentions_of_doc, sentences_of_doc
from .text_to_document import (
    NO_TYPE,
    TextDocument,
    check_text,
    document_from_text,
    text_from_document,
    type_field,
)

# Where the mentions of a text are: ours, spaCy's `Doc.to_json()`, Prodigy's lines.
_MENTION_FIELDS = ("mentions", "ents", "spans")
# An annotator's answers to a line of Prodigy's whose annotations do not count.
NOT_ACCEPTED = ("reject", "ignore")


class NoEntitiesError(DocumentError):
    """A document says nothing of its entities, and the pipeline has no `ner` that finds them."""


def read_document_input(
    item: Any,
    index: int | None = None,
    ner: Callable | None = None,
    coreference: Callable | None = None,
    sentence_splitter: Callable | None = None,
    known_types: Collection[str] = (),
) -> TextDocument:
    """
    One input of the pipeline as a document in DocRED's format with its text.

    Args:
        item: one of

            - a text;
            - `{"text", "entities", "title"}` or `{"text", "mentions", "title"}`; spaCy's `Doc.to_json()` has its mentions in
              `ents`, Prodigy in `spans`, and both are read. All other fields are the user's own;
            - a spaCy `Doc`, or a `Span` of one: its entities are the mentions, unless no component has looked for them, and its
              sentences are used if it has any;
            - DocRED's format; `title`, and `name` and `type` of mentions, may be left out. A mention without a type has the most
              frequent one of its entity's others, `"MISC"` where there is none.

            Arrays (of NumPy, pandas, Arrow) are lists, and None and NaN are fields that are left out.
        index (`int`, *optional*): its position, for messages.
        ner, coreference, sentence_splitter (`Callable`, *optional*): as of the pipeline.
        known_types (`Collection[str]`, *optional*): as in [`~text_to_document.document_from_text`].

    Raises:
        DocumentError: it does not fit.
        NoEntitiesError: it has a text only, and there is no `ner`.
    """
    if isinstance(item, str):
        item = {"text": item}
    elif not isinstance(item, Mapping) and _is_spacy(item):
        item = _from_spacy(item)
    checker = DocumentChecker(item, index, None)
    checker.check(item, Mapping, None, "a text, a spaCy Doc, or an object with text or with sents")
    item = {key: _plain_field(value) for key, value in item.items()}
    item = {key: value for key, value in item.items() if value is not None}
    if "vertexSet" in item or ("text" not in item and "sents" in item):
        read = text_from_document(_complete(item), index=index)
        return read if "title" in item else replace(read, title="")
    _refuse_exports(checker, item)
    text, title = checker.read(item, "text", str, "", "a text, or sents and vertexSet"), item.get("title")
    check_text(checker, text, title)
    if sentence_splitter is None and (sentences := _given_sentences(checker, item)) is not None:
        sentence_splitter = _already(sentences)
    entities = item.get("entities")
    field = _mention_field(item)
    if entities is None:
        if field is not None:
            mentions = item[field]
            if field == "spans" and isinstance(mentions, list):  # Prodigy's `type` says that it is a span
                mentions = [_without_kind(mention) for mention in mentions]
        else:
            _refuse_misspelt(checker, item)
            if ner is None:
                expected = "entities, or mentions, or a pipeline with ner=... that finds them"
                raise NoEntitiesError(*checker.where, "entities", "None", expected)
            mentions, sentences = find_mentions(ner, text, sentence_splitter)
            if sentence_splitter is None and sentences is not None:
                sentence_splitter = _already(sentences)
        entities = group_mentions(text, mentions, coreference, title, known_types=known_types, index=index)
    elif field == "mentions":
        checker.fail(field, item[field], "no such field beside entities, which hold the mentions")
    return document_from_text(text, entities, title, sentence_splitter, known_types=known_types, index=index)


def is_document(inputs: Any) -> bool:
    """Whether an input of the pipeline is one document, not many."""
    return isinstance(inputs, (str, Mapping)) or _is_spacy(inputs)


def _is_spacy(item):
    return hasattr(item, "ents") and isinstance(getattr(item, "text", None), str)


def _from_spacy(doc):
    if hasattr(doc, "as_doc"):  # a Span, whose offsets count from the beginning of its Doc
        doc = doc.as_doc()
    item = {"text": doc.text}
    mentions = mentions_of_doc(doc)
    if mentions or not hasattr(doc, "has_annotation") or doc.has_annotation("ENT_IOB"):
        item["mentions"] = mentions
    if (sentences := sentences_of_doc(doc)) is not None:
        item["sents"] = [{"start": start, "end": end} for start, end in sentences]
    return item


def _plain_field(value):
    try:
        return _plain(value)
    except RecursionError:  # a field of the user's own, or one that the checks refuse: those that are read nest little
        return value


def _plain(value):
    """Arrays as lists, their numbers as Python's, what is missing in a table as None."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    return None if isinstance(value, float) and value != value else value


def _complete(document):
    """DocRED's format with the fields that may be left out; what is wrong with the rest, the check of documents says."""
    sents = document.get("sents")
    entities = document.get("vertexSet")
    completed = {"title": "untitled", **document}
    if isinstance(entities, list):
        completed["vertexSet"] = [
            _complete_entity(mentions, sents) if isinstance(mentions, list) else mentions for mentions in entities
        ]
        given = document.get("untyped_entities")
        if given is None or isinstance(given, list):
            known = given or []
            found = (number for number, mentions in enumerate(entities) if _is_untyped(mentions))
            if untyped := [*known, *(number for number in found if number not in known)]:
                completed["untyped_entities"] = untyped
    return completed


def _is_untyped(mentions):
    given = [mention for mention in mentions if isinstance(mention, Mapping)] if isinstance(mentions, list) else []
    return bool(given) and not any(type_field(mention)[1] for mention in given)


def _complete_entity(mentions, sents):
    kinds = [type_field(mention)[1] for mention in mentions if isinstance(mention, Mapping)]
    found = Counter(kind for kind in kinds if isinstance(kind, str)).most_common(1)
    kind = found[0][0] if found else NO_TYPE  # of the others, as in a text's entities
    return [_complete_mention(mention, sents, kind) for mention in mentions]


def _complete_mention(mention, sents, kind):
    if not isinstance(mention, Mapping):
        return mention
    given = {key: value for key, value in mention.items() if value is not None and (key, value) != ("type", "")}
    if "name" not in given:
        try:
            start, end = given["pos"]
            given["name"] = " ".join(sents[given["sent_id"]][start:end])
        except (KeyError, IndexError, TypeError, ValueError):
            return given
    return {"type": type_field(given)[1] or kind, **given}


def _without_kind(span):
    if isinstance(span, Mapping) and span.get("label"):
        return {key: value for key, value in span.items() if key != "type"}
    return span


def _mention_field(item):
    """The field with a text's mentions. spaCy's `spans` may also be groups of spans by name, which are no mentions."""
    groups = {"spans"} if isinstance(item.get("spans"), Mapping) else set()
    return next((name for name in _MENTION_FIELDS if name in item and name not in groups), None)


def _given_sentences(checker, item):
    """Sentences of spaCy's form, `{"start", "end"}`; any other `sents` beside a text is the user's own field."""
    sents = item.get("sents")
    if (
        not sents
        or not isinstance(sents, list)
        or not all(isinstance(sent, Mapping) and {"start", "end"} <= set(sent) for sent in sents)
    ):
        return None
    return [
        (
            checker.check(sent["start"], int, f"sents[{number}].start", "a character offset (an integer)"),
            checker.check(sent["end"], int, f"sents[{number}].end", "a character offset (an integer)"),
        )
        for number, sent in enumerate(sents)
    ]


def _already(sentences):
    return lambda text: sentences


def _refuse_exports(checker, item):
    """What annotation tools export has relations to read and offsets of its own kind."""
    if "text" not in item and isinstance(item.get("data"), Mapping):
        checker.fail(
            "data", item["data"], "a text; `comm-docre import --format label-studio` reads tasks of Label Studio"
        )
    entities = item.get("entities")
    given = [one for one in entities if isinstance(one, Mapping)] if isinstance(entities, list) else []
    if any("start_offset" in one for one in given):
        expected = "entities with mentions; `comm-docre import --format doccano` reads lines of doccano"
        checker.fail("entities", entities, expected)
    if any({"start", "end"} <= one.keys() and "mentions" not in one for one in given):
        checker.fail("entities", entities, "entities with mentions; a list of spans has the field name mentions")


def _refuse_misspelt(checker, item):
    """Other fields are allowed, but a misspelt name of the entities would be ignored in favour of what `ner` finds. The cutoff
    lets through words such as "relations", "identity" and "amenities"."""
    for name in item:
        known = ("entities", "entity", "mentions")
        if close := difflib.get_close_matches(str(name).lower(), known, n=1, cutoff=0.9):
            meant = "mentions" if close[0] == "mentions" else "entities"
            checker.fail(str(name), item[name], f"no field of this name; is {meant!r} meant?")
