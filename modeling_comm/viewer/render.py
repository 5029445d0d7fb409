"""Predicted triples as one self-contained HTML page: text, table and graph, to read what a model found and where it looked."""

import base64
import hashlib
import json
import math
from collections.abc import Mapping
from itertools import accumulate
from numbers import Integral, Real
from pathlib import Path

from ..documents import DocumentChecker

_LIST = (list, tuple)
_SCRIPTS = ("layout.js", "graph.js", "page.js")  # one scope


def render_html(records, title="Relations") -> str:
    """
    One HTML page that shows documents with their triples. It needs no network and no other file, and allows itself none: its
    Content-Security-Policy lets nothing run but its own script. The same records give the same page.

    Args:
        records (`Iterable[dict]`): what [`DocumentRelationExtractionPipeline`] returns, one for each document:
            `title`, `text`, `sentences` (character spans `[start, end)` in order), `entities` (`name`, `type`, `mentions` with
            `start`, `end`, `text`), `triples` (`head` and `tail` with the index `entity`, `relation`, `relation_name`,
            `score` from 0 to 1, `explanation` with `sentence` and `weight`), `lost` (counts), and optionally `id`. Fields
            beyond these are not looked at. Offsets count Unicode code points, as Python does.
        title (`str`, defaults to `"Relations"`): the page's title.

    Returns:
        `str`: the page, to be written as UTF-8.

    Raises:
        DocumentError: a record is malformed; the message names the record and the field.

    Example:

    ```python
    >>> from modeling_comm.viewer.render import render_html
    >>> page = render_html([{"title": "", "text": "", "sentences": [], "entities": [], "triples": [], "lost": {}}])
    >>> page.startswith("<!DOCTYPE html>")
    True

    ```
    """
    data = {"title": title, "documents": [_read_record(record, index) for index, record in enumerate(records)]}
    style = _part("page.css")
    script = "".join(map(_part, _SCRIPTS))
    page = _part("page.html")
    page = page.replace("{{style_hash}}", _hash(style)).replace("{{script_hash}}", _hash(script))
    page = page.replace("{{style}}", style).replace("{{script}}", script)
    # The data comes last, so that nothing in it is taken for a place to fill.
    return page.replace("{{data}}", _embed(data))


def _part(name):
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _hash(content):
    return base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def _embed(value):
    """JSON that may stand between script tags: without `<` nothing in it can end the element or open a comment."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _read_record(record, index):
    """What the page needs of a record, with offsets in UTF-16 code units, which is how JavaScript counts."""
    checker = DocumentChecker(record, index, None)
    checker.check(
        record, Mapping, None, "an object with the fields title, text, sentences, entities, triples and lost"
    )
    text = checker.read(record, "text", str, "", "the document's text")
    units = list(accumulate((1 + (character > "\uffff") for character in text), initial=0))
    sentences = checker.read(record, "sentences", _LIST, "", "a list of character spans")
    entities = checker.read(record, "entities", _LIST, "", "a list of entities")
    triples = checker.read(record, "triples", _LIST, "", "a list of triples")
    lost = checker.read(record, "lost", Mapping, "", "an object of counts, empty if nothing was lost")
    for name in lost:
        checker.read(lost, name, Integral, "lost.", "a count")
    return {
        "id": str(checker.check(record.get("id", ""), (str, Integral), "id", "a text or an integer")),
        "title": checker.read(record, "title", str, "", "a title, empty if there is none"),
        "text": text,
        "sentences": _read_sentences(checker, sentences, units),
        "entities": [
            _read_entity(checker, entity, f"entities[{number}]", text, units) for number, entity in enumerate(entities)
        ],
        "triples": [
            _read_triple(checker, triple, f"triples[{number}]", len(entities), len(sentences))
            for number, triple in enumerate(triples)
        ],
        "lost": {str(name): int(count) for name, count in lost.items()},
    }


def _read_sentences(checker, sentences, units):
    spans, last = [], 0
    for number, span in enumerate(sentences):
        field = f"sentences[{number}]"
        expected = f"a span [start, end), {last} <= start <= end <= {len(units) - 1}, after the sentence before"
        checker.check(span, _LIST, field, expected)
        whole = all(isinstance(offset, Integral) and not isinstance(offset, bool) for offset in span)
        if len(span) != 2 or not whole or not last <= span[0] <= span[1] < len(units):
            checker.fail(field, span, expected)
        last = span[1]
        spans.append([units[span[0]], units[span[1]]])
    return spans


def _read_entity(checker, entity, field, text, units):
    checker.check(entity, Mapping, field, "an entity: an object with name, type and mentions")
    path = f"{field}."
    mentions = checker.read(entity, "mentions", _LIST, path, "a list of mentions")
    return {
        "name": checker.read(entity, "name", str, path, "the entity's name"),
        "type": checker.read(entity, "type", str, path, "an entity type such as 'PER'"),
        "mentions": [
            _read_mention(checker, mention, f"{path}mentions[{number}]", text, units)
            for number, mention in enumerate(mentions)
        ],
    }


def _read_mention(checker, mention, field, text, units):
    checker.check(mention, Mapping, field, "a mention: an object with start, end and text")
    path = f"{field}."
    start = checker.read(mention, "start", Integral, path, "an offset in the text")
    end = checker.read(mention, "end", Integral, path, "an offset in the text")
    if not 0 <= start < end <= len(text):
        checker.fail(field, [start, end], f"character offsets [start, end), 0 <= start < end <= {len(text)}")
    found = checker.read(mention, "text", str, path, "the mention's text")
    if found != text[start:end]:
        checker.fail(f"{path}text", found, f"what stands at [{start}, {end}) of the text: {text[start:end][:100]!r}")
    return [units[start], units[end]]


def _read_triple(checker, triple, field, entities, sentences):
    checker.check(triple, Mapping, field, "a triple: an object with head, tail, relation and score")
    path = f"{field}."
    explanation = checker.read(triple, "explanation", _LIST, path, "a list of sentences with weights")
    return {
        "head": _read_end(checker, triple, "head", path, entities),
        "tail": _read_end(checker, triple, "tail", path, entities),
        "relation": checker.read(triple, "relation", str, path, "a relation such as 'P17'"),
        "name": checker.read(triple, "relation_name", str, path, "a relation's name such as 'country'"),
        "score": _read_number(checker, triple, "score", path, 1),
        "explanation": [
            _read_explanation(checker, sentence, f"{path}explanation[{number}]", sentences)
            for number, sentence in enumerate(explanation)
        ],
    }


def _read_end(checker, triple, name, path, entities):
    end = checker.read(triple, name, Mapping, path, "an object with the index entity")
    return int(checker.read_index(end, "entity", entities, f"{path}{name}.", "an entity"))


def _read_explanation(checker, sentence, field, sentences):
    checker.check(sentence, Mapping, field, "an object with sentence and weight")
    number = checker.read_index(sentence, "sentence", sentences, f"{field}.", "a sentence")
    return [int(number), _read_number(checker, sentence, "weight", f"{field}.", math.inf)]


def _read_number(checker, record, name, path, largest):
    expected = f"a number from 0 to {largest}" if largest < math.inf else "a finite number, 0 or more"
    number = checker.read(record, name, Real, path, expected)
    if not (math.isfinite(number) and 0 <= number <= largest):
        checker.fail(f"{path}{name}", number, expected)
    return float(number)
