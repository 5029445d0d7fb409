"""Documents that went to an annotation tool and came back: tokens, sentences, evidence, and everything else that the tool has no
place for, are taken from the original."""

import bisect
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..documents import Document, DocumentError, docred_type, shown
from ..text_to_document import NO_TYPE, text_from_document, token_spans
from .import_report import ImportReport


class OriginalDocuments:
    """
    Documents by what annotation tools call them: by title, or by the `"id"` of their own, which is what a record of predictions
    is called by.

    Args:
        documents (`Iterable[Document]`): in DocRED's format. Memory holds all of them. Of those with the same id, the first is
            found by it, as only the first is predicted.

    Raises:
        ValueError: two have the same title.
    """

    def __init__(self, documents: Iterable[Document]):
        self._by_title, self._by_id = {}, {}
        for document in documents:
            if self._by_title.setdefault(document["title"], document) is not document:
                raise ValueError(f"found two documents called {document['title']!r}, expected a title for each")
            if isinstance(identifier := document.get("id"), (str, int)):
                self._by_id.setdefault(str(identifier), document)

    def find(self, name: str) -> Document | None:
        """The document of this title, or else of this id, if there is one."""
        return self._by_title.get(name, self._by_id.get(name))


def annotate_original(
    original: Document,
    text: str,
    entities: Mapping[int, Sequence],
    facts: Iterable[tuple[int, str, int, str]],
    report: ImportReport,
    *,
    index: int | None = None,
    source: str | None = None,
) -> Document:
    """
    The original document with other annotations. An entity takes the place of the original one with which it shares the most
    mentions, and facts that were labelled before keep their evidence. Tokens in which a mention begins or ends are cut there.

    Args:
        original (`Document`): the document.
        text (`str`): its text as it was annotated; the white space between tokens may be another.
        entities (`dict[int, list[MarkedSpan]]`): the spans of each entity.
        facts (`list[tuple[int, str, int, str]]`): head, relation, tail, and where in the source, for messages.
        report ([`ImportReport`]): is told of ignored pairs that are dropped, and of types that become others.
        index (`int`, *optional*), source (`str`, *optional*): where the annotations are from, for messages.

    Raises:
        DocumentError: the text is another one; a mention is outside of it, or in two sentences.
    """
    fail = _failure(original, index, source)
    _check_text(text, text_from_document(original).text, fail)
    words = _Words(original, text, [span for spans in entities.values() for span in spans], fail)
    old_spans = _old_spans(original)
    vertex_set, number_of, new_of, untyped = [], {}, {}, set()
    for entity, old in _order(entities, old_spans):
        number_of[entity] = len(vertex_set)
        if old is not None:
            new_of[old] = len(vertex_set)
        vertex_set.append([])
        given = Counter(docred_type(span.type) for span in entities[entity] if span.type)
        usual = given.most_common(1)[0][0] if given else NO_TYPE
        if old is None and not given:
            untyped.add(number_of[entity])
        old_mentions = () if old is None else original["vertexSet"][old]
        for span, mention in _with_old_mentions(entities[entity], () if old is None else old_spans[old], old_mentions):
            sent_id, pos = words.position(span)
            kept = {} if mention is None else dict(old_mentions[mention])
            if kept and kept["pos"][1] - kept["pos"][0] != pos[1] - pos[0]:
                del kept["name"]  # a token of it was cut
            name = kept.get("name") or " ".join(words.sents[sent_id][slice(*pos)])
            # As in `document_from_text`, so that all documents of an import have the same types.
            kind = docred_type(span.type) if span.type else kept.get("type", usual)
            report.note_type(span.type, kind)
            vertex_set[-1].append({**kept, "name": name, "sent_id": sent_id, "pos": pos, "type": kind})
    document: Any = {**original, "sents": words.sents, "vertexSet": vertex_set}
    document["labels"] = _labels(original, facts, number_of, new_of)
    old_of = {new: old for old, new in new_of.items()}
    if ids := original.get("entity_ids"):
        document["entity_ids"] = [ids[old_of[new]] if new in old_of else [] for new in range(len(vertex_set))]
        lost = sum(bool(of_entity) for old, of_entity in enumerate(ids) if old not in new_of)
        report.drop("ids of an entity without a mention", lost)
    for old in original.get("untyped_entities") or ():
        kind = original["vertexSet"][old][0]["type"]
        if old in new_of and vertex_set[new_of[old]][0]["type"] in (kind, docred_type(kind)):
            untyped.add(new_of[old])
    if untyped or original.get("untyped_entities") is not None:
        document["untyped_entities"] = sorted(untyped)
    if pairs := original.get("ignored_pairs"):
        document["ignored_pairs"] = [[new_of[h], new_of[t]] for h, t in pairs if {h, t} <= set(new_of)]
        lost = len(pairs) - len(document["ignored_pairs"])
        report.drop("ignored pairs of an entity without a mention", lost)
    return document


def spans_that_fit(
    original: Document,
    text: str,
    spans: Iterable,
    report: ImportReport,
    *,
    index: int | None = None,
    source: str | None = None,
) -> list:
    """
    The spans that [`annotate_original`] takes; the report counts the others, if it says so.

    Args:
        original, text, index, source: as in [`annotate_original`].
        spans (`Iterable[MarkedSpan]`): the spans.
        report ([`ImportReport`]): is told of those that do not fit.

    Raises:
        DocumentError: the text is another one; or a span does not fit, and the report does not say that it is left out.
    """
    fail = _failure(original, index, source)
    _check_text(text, text_from_document(original).text, fail)
    fitting = []
    for span in spans:
        with report.reading_mention():
            _Words(original, text, [span], fail).position(span)
            fitting.append(span)
    return fitting


def _failure(original, index, source):
    def fail(field, found, expected):
        raise DocumentError(source, index, original["title"], field, found, expected)

    return fail


def _check_text(text, expected, fail):
    """Tools may turn a line break into a space, or add one at the end: words and their places have to be the same."""
    blank = str.maketrans(dict.fromkeys("\n\r\t\u2028\u2029", " "))
    found, expected = text.translate(blank).rstrip(), expected.translate(blank).rstrip()
    if found != expected:
        place = next(
            (n for n, (one, other) in enumerate(zip(found, expected, strict=False)) if one != other),
            min(len(found), len(expected)),
        )
        around = slice(max(0, place - 20), place + 20)
        fail("text", shown(found[around]), f"the original document's text, {expected[around]!r}")


class _Words:
    """The tokens of a document, cut where spans begin or end, and the place of each span."""

    def __init__(self, document, text, spans, fail):
        self._text, self._fail = text, fail
        old = token_spans(document)
        flat = [(sent, span) for sent, spans in enumerate(old) for span in spans if span[0] < span[1]]
        starts = [start for _, (start, _) in flat]
        self._known = {start for _, (start, _) in flat}, {end for _, (_, end) in flat}
        cuts = defaultdict(set)
        for span in spans:
            for offset in self._borders(span):
                place = bisect.bisect_right(starts, offset) - 1
                if place >= 0 and flat[place][1][0] < offset < flat[place][1][1]:
                    cuts[flat[place][1]].add(offset)
        self.sents, self._first, self._last = [], {}, {}
        for sent, tokens in enumerate(old):
            self.sents.append([])
            for token, (start, end) in zip(document["sents"][sent], tokens, strict=True):
                borders = [start, *sorted(cuts[start, end]), end] if start < end else [start, start]
                for low, high in itertools.pairwise(borders):
                    if low < high:
                        self._first[low] = sent, len(self.sents[-1])
                        self._last[high] = sent, len(self.sents[-1]) + 1
                    self.sents[-1].append(token[low - start : high - start])

    def _borders(self, span):
        """A span without the white space around it, unless that is a token."""
        starts, ends = self._known
        if span.start in starts and span.end in ends:
            return span.start, span.end
        part = self._text[span.start : span.end]
        if not 0 <= span.start < span.end <= len(self._text) or not part.strip():
            self._fail(span.field, [span.start, span.end], f"characters [start, end) of a text of {len(self._text)}")
        return span.start + len(part) - len(part.lstrip()), span.end - len(part) + len(part.rstrip())

    def position(self, span):
        """Sentence and tokens `[start, end)` of a span."""
        start, end = self._borders(span)
        (sent_id, first), (last_sent, last) = self._first[start], self._last[end]
        if sent_id != last_sent:
            self._fail(
                span.field, shown(self._text[start:end]), "a mention within a sentence of the original document"
            )
        return sent_id, [first, last]


def _old_spans(original):
    """For each entity of the original the characters of its mentions."""
    tokens = token_spans(original)
    return [
        [(tokens[m["sent_id"]][m["pos"][0]][0], tokens[m["sent_id"]][m["pos"][1] - 1][1]) for m in mentions]
        for mentions in original["vertexSet"]
    ]


def _order(entities, old_spans):
    """Entities, each with the original one that it continues, in the order of these; then new ones, by their first mention."""
    at = defaultdict(list)
    for old, spans in enumerate(old_spans):
        for span in spans:
            at[span].append(old)
    shared = Counter((entity, old) for entity, spans in entities.items() for s in spans for old in at[s.start, s.end])
    old_of, taken = {}, set()
    for (entity, old), _ in sorted(shared.items(), key=lambda item: (-item[1], item[0][1], item[0][0])):
        if entity not in old_of and old not in taken:
            old_of[entity] = old
            taken.add(old)
    continued = sorted(old_of.items(), key=lambda item: item[1])
    new = sorted(set(entities) - set(old_of), key=lambda entity: min((s.start, s.end) for s in entities[entity]))
    return [*continued, *((entity, None) for entity in new)]


def _with_old_mentions(spans, old_spans, old_mentions):
    """Spans of an entity, each with the index of its original mention: in the order of these, then the new ones."""
    left = sorted(spans, key=lambda span: (span.start, span.end))
    pairs = []
    for place, (old_span, mention) in enumerate(zip(old_spans, old_mentions, strict=True)):
        same = [span for span in left if (span.start, span.end) == old_span]
        if same:  # several, if the entity has the mention twice
            span = next((span for span in same if span.type == mention["type"]), same[0])
            left.remove(span)
            pairs.append((span, place))
    return [*pairs, *((span, None) for span in left)]


def _labels(original, facts, number_of, new_of):
    """The facts as labels: those of the original with all of their fields, in its order, then the new ones."""
    left = Counter((number_of[head], relation, number_of[tail]) for head, relation, tail, _ in facts)
    labels = []
    for label in original.get("labels") or ():
        fact = (new_of.get(label["h"]), label["r"], new_of.get(label["t"]))
        if left[fact]:
            left[fact] -= 1
            labels.append({**label, "h": fact[0], "t": fact[2]})
    labels += [{"h": head, "t": tail, "r": relation, "evidence": []} for head, relation, tail in left.elements()]
    return labels
