"""Running text with character spans to a document in DocRED's format, and from any document back to character spans.

Character offsets count Unicode code points, as Python does, with the end exclusive.
"""

import bisect
import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, NotRequired, TypedDict, cast

from transformers.utils import logging

from .documents import Document, DocumentChecker, docred_type, entity_name, validate_document
from .prediction_record import RecordMention

logger = logging.get_logger(__name__)

NO_TYPE = "MISC"
_LIST = (list, tuple)

# Under these names tools give the type of an entity or a mention: ours, Transformers', spaCy's and GLiNER's.
_TYPE_FIELDS = ("type", "entity_group", "label")


def read_type(checker: DocumentChecker, record: Mapping, field: str, known_types: Collection[str] = ()) -> str | None:
    """
    The type of an entity or a mention, of `type`, `entity_group` or `label`, as DocRED's where it has that and the type is not
    one of the `known_types`; or None.

    Raises:
        DocumentError: it is no text.
    """
    name, kind = type_field(record)
    if kind is None:
        return None
    checker.check(kind, str, f"{field}.{name}", "a text, or no such field")
    return (kind if kind in known_types else docred_type(kind)) or None


def type_field(record: Mapping) -> tuple[str | None, Any]:
    """The field of an entity or a mention that has its type, and what it holds; None twice if there is none."""
    return next(((name, record[name]) for name in _TYPE_FIELDS if record.get(name)), (None, None))


# ------------------------------------------------------------------------------------------------- sentences and words

_NEW_LINE = re.compile(r"[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]+")
_ONE_LINE_BREAK = ("\n", "\r\n", "\r")
_WIDTHS = range(40, 121)  # characters in the longest line of a text whose paragraphs are broken into lines
# What may end a sentence, with the quotes and brackets that it closes; the full-width forms need no space after them.
_SENTENCE_END = re.compile(r"(?:(?<![.!?…؟۔।])[.!?…؟۔।]++[\"'”’»)\]]*(?=\s)|[。！？]+[」』”’）]*)\s*")
_ABBREVIATIONS = (
    *("Adm", "Bros", "Capt", "Co", "Col", "Corp", "Dr", "Ft", "Gen", "Gov", "Hon", "Inc", "Jr", "Lt", "Ltd", "Maj"),
    *("Messrs", "Mr", "Mrs", "Ms", "Mt", "No", "Nos", "Ph.D", "Prof", "Rep", "Rev", "Sen", "Sgt", "Sr", "St"),
    *("Jan", "Feb", "Aug", "Sep", "Sept", "Oct", "Nov", "Dec"),
    *("approx", "ca", "cf", "dept", "ed", "eds", "est", "etc", "fig", "pp", "resp", "vol", "vs"),
    *("Bd", "bzw", "geb", "gest", "Hrsg", "Jh", "Nr", "Str"),  # German
)
_ABBREVIATION = "|".join(re.escape(word) for word in sorted(_ABBREVIATIONS, key=len, reverse=True))
_MARK = "\u0300"  # replaces every combining or formatting character
_LETTER = rf"(?:[^\W\d_]{_MARK}*)"
_WORD = rf"(?:[^\W_]{_MARK}*)"
# A full stop after one of these belongs to it: an abbreviation, an initial, letters with full stops between them.
_STOPS_INSIDE = re.compile(rf"(?:^|[^\w'’]|_)(?:{_ABBREVIATION}|{_LETTER}(?:\.{_LETTER})*)\.$")
# "am 4. Mai", "im 19. Jahrhundert": in German the full stop makes an ordinal number.
_ORDINAL = re.compile(r"(?<![\w.,:])\d{1,2}\.$")
_MONTHS = "Januar|Jänner|Februar|März|April|Mai|Juni|Juli|August|September|Oktober|November|Dezember"
_AFTER_ORDINAL = re.compile(rf"(?:{_MONTHS}|Jahrhunderts?|Jh)\b")
_SHORT_FORM = rf"['’](?:s|m|d|re|ve|ll)(?!{_WORD})"
_TOKEN = re.compile(
    rf"""
      (?:{_ABBREVIATION})\.(?=\s)              # Dr. (at a sentence's end the full stop is a word of its own)
    | {_LETTER}(?:\.{_LETTER})+(?!{_WORD})\.?  # U.S., i.e.
    | {_LETTER}\.(?=\s)                        # J. Smith
    | \d+(?:[.,:]\d+)+                         # 1,000.5
    | {_SHORT_FORM}
    | n['’]t(?!{_WORD})
    | {_WORD}+?(?=n['’]t(?!{_WORD}))           # did + n't
    | {_WORD}+(?:(?!{_SHORT_FORM})['’&]{_WORD}+)*
    | \.\.+ | --+
    | \S{_MARK}*
    """,
    re.VERBOSE,
)


def split_sentences(text: str) -> list[tuple[int, int]]:
    """
    Sentences of a text by rules, as spans `[start, end)` without white space around them.

    A line break ends a sentence, and so does `.`, `!`, `?` or `…` before white space, unless a small letter follows; a full stop
    does not after an abbreviation (English, some German), an initial, letters such as "U.S." or the day of a German date.
    Paragraphs may be broken into lines: where the longest line has 40 to 120 characters, and most single line breaks come before
    a word that would have made their line longer than that, such a line break ends no sentence, and neither does one before a
    small letter. When in doubt a sentence continues.
    """
    spans = []
    start = 0
    for line in [*_sentence_breaks(text), None]:
        stop = len(text) if line is None else line.start()
        for match in _SENTENCE_END.finditer(text, start, stop):
            if match.end() < stop and _ends_sentence(text, start, match):
                spans.append((start, match.end()))
                start = match.end()
        spans.append((start, stop))
        start = stop
    return _without_spaces(text, spans)


def _sentence_breaks(text):
    """The line breaks that end a sentence."""
    breaks = [*_NEW_LINE.finditer(text)]
    borders = [0, *itertools.chain.from_iterable(one.span() for one in breaks), len(text)]
    lines = [text[start:end].rstrip() for start, end in zip(borders[::2], borders[1::2], strict=True)]
    width = max(map(len, lines))
    words = [next(iter(line.split(maxsplit=1)), "") for line in lines[1:]]
    single = [one[0] in _ONE_LINE_BREAK and bool(word) for one, word in zip(breaks, words, strict=True)]
    full = [
        is_single and len(line) + 1 + len(word) > width
        for is_single, line, word in zip(single, lines, words, strict=False)
    ]
    wrapped = width in _WIDTHS and "\t" not in text and 2 * sum(full) >= sum(single)
    for one, is_single, is_full, word in zip(breaks, single, full, words, strict=True):
        if not (wrapped and is_single and (is_full or word[0].islower())):
            yield one


def _ends_sentence(text, start, match):
    if text[match.end()].islower():
        return False
    stop = match.start() + 1
    if _AFTER_ORDINAL.match(text, match.end()) and _ORDINAL.search(text[max(start, stop - 4) : stop]):
        return False
    return match[0][0] != "." or match[0][1:2] == "." or not _STOPS_INSIDE.search(text[max(start, stop - 30) : stop])


def _without_spaces(text, spans):
    """Spans without the white space around them; those of nothing else are left out."""
    stripped = []
    for start, end in spans:
        part = text[start:end]
        if part.strip():
            stripped.append((start + len(part) - len(part.lstrip()), end - len(part) + len(part.rstrip())))
    return stripped


def _words(shape, start, end):
    return [match.span() for match in _TOKEN.finditer(shape, start, end)]


def _shape(text):
    """The text with all combining and formatting characters alike, which regular expressions have no class for."""
    if text.isascii():
        return text
    categories = map(unicodedata.category, text)
    return "".join(
        _MARK if category[0] == "M" or category == "Cf" else character
        for character, category in zip(text, categories, strict=True)
    )


# ---------------------------------------------------------------------------------------------------- text to document


class TextMention(RecordMention):
    """A mention with its text."""

    text: str


class TextEntity(TypedDict):
    """An entity of a text.

    Attributes:
        name (`str`): its name.
        type (`str`): its type, such as `"PER"`.
        mentions (`list[TextMention]`): where it is mentioned.
        ids (`list[str]`, *optional*): its ids in a knowledge base.
    """

    name: str
    type: str
    mentions: list[TextMention]
    ids: NotRequired[list[str]]


@dataclass
class TextDocument:
    """
    A document and its text, tied together by character spans.

    Attributes:
        document (`Document`): without `labels`, valid.
        title (`str`): as given; empty if there was none.
        text (`str`): the whole text.
        sentences (`list[tuple[int, int]]`): span of each sentence in it.
        entities (`list[TextEntity]`): in the order of `vertexSet`.
    """

    document: Document
    title: str
    text: str
    sentences: list[tuple[int, int]]
    entities: list[TextEntity]


def token_spans(document: Document) -> list[list[tuple[int, int]]]:
    """Characters of each token in a document's text, as [`text_from_document`] joins it."""
    position, spans = 0, []
    for sentence in document["sents"]:
        spans.append([])
        for token in sentence:
            spans[-1].append((position, position + len(token)))
            position += len(token) + 1
        position += not sentence  # joining puts a space around an empty sentence, too
    return spans


def text_from_document(document: Document, *, index: int | None = None, source: str | None = None) -> TextDocument:
    """
    A DocRED document with its text: tokens, and sentences, joined by single spaces. Its labels are left out.

    Raises:
        DocumentError: it is not in DocRED's format.
    """
    kept = ("title", "sents", "vertexSet", "untyped_entities", "ignored_pairs", "entity_ids")
    document = cast(Document, {key: value for key, value in document.items() if key in kept})
    validate_document(document, index=index, source=source)
    tokens, sentences, end = token_spans(document), [], -1
    for spans in tokens:
        start, end = (spans[0][0], spans[-1][1]) if spans else (end + 1, end + 1)
        sentences.append((start, end))
    text = " ".join(" ".join(sentence) for sentence in document["sents"])
    entities: list[TextEntity] = []
    for number, mentions in enumerate(document["vertexSet"]):
        found: list[TextMention] = []
        for mention in mentions:
            sent_id, (first, last) = mention["sent_id"], mention["pos"]
            start, end = tokens[sent_id][first][0], tokens[sent_id][last - 1][1]
            found.append({"start": start, "end": end, "text": text[start:end], "sentence": int(sent_id)})
        entities.append({"name": entity_name(document, number), "type": mentions[0]["type"], "mentions": found})
        if document.get("entity_ids"):
            entities[-1]["ids"] = list(document["entity_ids"][number])
    return TextDocument(document, document["title"], text, sentences, entities)


def document_from_text(
    text: str,
    entities: Sequence[Mapping[str, Any]],
    title: str | None = None,
    sentence_splitter: Callable[[str], Iterable[tuple[int, int]]] | None = None,
    *,
    known_types: Collection[str] = (),
    index: int | None = None,
    source: str | None = None,
) -> TextDocument:
    """
    Text and character spans as a document in DocRED's format, with the way back to the text.

    Words begin and end at every mention's borders, wherever these are, and no sentence ends inside a mention. White space
    around a span is left out of it, with a warning.

    Args:
        text (`str`): any text.
        entities (`list[dict]`): `{"mentions": [{"start", "end"}, ...], "type", "name", "ids"}`; mentions as in [`read_spans`],
            and one span may be a mention of several entities. `ids` is a list of ids in a knowledge base, or left out. The type
            may also be named `label` or `entity_group`. Without a type it is the most frequent one of its mentions, or
            `"MISC"`; labels of CoNLL-2003 and OntoNotes become DocRED's types, see [`docred_type`]. Without a name it is that of
            the longest mention, with line breaks in it as spaces.
        title (`str`, *optional*): the document's title.
        sentence_splitter (`Callable`, *optional*): takes the text and gives sentences as spans `[start, end)` in order, all of
            the text but white space in one of them; [`split_sentences`] by default.
        known_types (`Collection[str]`, *optional*): types of the model's own, which do not become DocRED's.
        index (`int`, *optional*), source (`str`, *optional*): where the document is from, for messages.

    Raises:
        DocumentError: a span does not fit or the others look as if they counted something else than characters; the message
            shows the text found there.
    """
    checker = DocumentChecker({"title": title}, index, source)
    check_text(checker, text, title)
    checker.check(entities, _LIST, "entities", "a list of entities: objects with mentions and type")
    spans, kinds, unconfirmed = [], [], []
    for number, entity in enumerate(entities):
        field = f"entities[{number}]"
        checker.check(entity, Mapping, field, "an entity: an object with mentions and type")
        mentions = checker.read(entity, "mentions", _LIST, f"{field}.", "a list of spans: objects with start and end")
        if not mentions:
            checker.fail(f"{field}.mentions", mentions, "at least one mention")
        if entity.get("name") is not None:
            checker.check(entity["name"], str, f"{field}.name", "a text, or no such field")
        _check_ids(checker, entity, field)
        spans.append(read_spans(checker, text, mentions, f"{field}.mentions"))
        of_mentions = [
            read_type(checker, as_mention(mention), f"{field}.mentions[{place}]", known_types)
            for place, mention in enumerate(mentions)
        ]
        given = Counter(kind for kind in of_mentions if kind)
        kind = read_type(checker, entity, field, known_types)
        kinds.append(kind or (given.most_common(1)[0][0] if given else None))
        unconfirmed += [span for span, mention in zip(spans[-1], mentions, strict=True) if not _gives_text(mention)]
    _check_word_borders(checker, text, unconfirmed)
    sentences = _sentences(checker, text, sentence_splitter or split_sentences, spans)
    sents, first, last = _tokens(text, sentences, spans)
    vertex_set, found = [], []
    for entity, kind, mentions in zip(entities, kinds, spans, strict=True):
        name = entity.get("name") or max((" ".join(text[start:end].split()) for start, end in mentions), key=len)
        kind = kind or NO_TYPE
        vertex_set.append([])
        found.append({"name": name, "type": kind, "mentions": []})
        for start, end in mentions:
            sent_id, word = first[start]
            inside = text[start:end]
            found[-1]["mentions"].append({"start": start, "end": end, "text": inside, "sentence": sent_id})
            vertex_set[-1].append({"name": inside, "sent_id": sent_id, "pos": [word, last[end]], "type": kind})
    document: Document = {"title": title or "untitled", "sents": sents or [[]], "vertexSet": vertex_set}
    if untyped := [number for number, kind in enumerate(kinds) if kind is None]:
        document["untyped_entities"] = untyped
    if any(entity.get("ids") is not None for entity in entities):
        all_ids = [list(entity.get("ids") or ()) for entity in entities]
        document["entity_ids"] = all_ids
        for of_text, ids in zip(found, all_ids, strict=True):
            of_text["ids"] = ids
    validate_document(document, index=index, source=source)
    return TextDocument(document, title or "", text, sentences, found)


def _check_ids(checker, entity, field):
    expected = "a list of ids (texts), or no such field"
    ids = entity.get("ids")
    for place, identifier in enumerate(() if ids is None else checker.check(ids, _LIST, f"{field}.ids", expected)):
        checker.check(identifier, str, f"{field}.ids[{place}]", expected)


def check_text(checker: DocumentChecker, text: Any, title: Any = None) -> None:
    """Raises [`DocumentError`] unless both can be read."""
    checker.check(text, str, "text", "a text")
    if title is not None:
        checker.check(title, str, "title", "a text, or no such field")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        around = text[max(0, error.start - 20) : error.end + 20]
        checker.fail("text", around, f"no half of a surrogate pair (character {error.start})")


def read_spans(
    checker: DocumentChecker, text: str, mentions: Iterable[Mapping[str, Any]], field: str
) -> list[tuple[int, int]]:
    """
    Spans of a list of mentions, without white space around them, which is reported.

    Args:
        checker ([`~documents.DocumentChecker`]): of the document.
        text (`str`): its text.
        mentions (`list`): `{"start", "end"}`, whose `text`, if it has one, must be what stands there; or `(start, end)`, or
            `(start, end, type)`.
        field (`str`): the path of the mentions in the document, for messages.

    Raises:
        DocumentError: a span does not fit into the text, or has only white space in it, or another text than the mention says.
    """
    spans = []
    for number, mention in enumerate(mentions):
        path = f"{field}[{number}]"
        mention = as_mention(mention)
        checker.check(mention, Mapping, path, "a mention: an object with start and end, or (start, end)")
        start, end = span = mention.get("start"), mention.get("end")
        expected = f"character offsets start and end (integers, 0 <= start < end <= {len(text)}) of a mention"
        if not all(isinstance(offset, Integral) and not isinstance(offset, bool) for offset in span):
            checker.fail(path, list(span), expected)
        if not 0 <= start < end <= len(text):
            checker.fail(path, list(span), expected, f", where the text is {_around(text, start, end)}")
        stripped = _without_spaces(text, [(int(start), int(end))])
        if not stripped:
            checker.fail(
                path, list(span), "a span of more than white space", f", where the text is {text[start:end]!r}"
            )
        if _gives_text(mention) and mention["text"].split() != text[start:end].split():
            there = f", where the text is {text[start:end]!r}"
            checker.fail(path, list(span), f"character offsets of {mention['text']!r}, the mention's text", there)
        pieces = mention.get("fragments")  # as readers of brat's format have them
        if isinstance(pieces, _LIST) and len(pieces) > 1:
            logger.warning("%s, %s: of %d fragments, %r is taken", checker.name, path, len(pieces), text[start:end])
        if stripped[0] != span:
            logger.warning(
                "%s, %s: the white space around %r at %s is left out", checker.name, path, text[start:end], list(span)
            )
        spans += stripped
    return spans


def as_mention(mention: Any) -> Any:
    """A mention as an object: `(start, end)` and `(start, end, type)` are two, too; anything else stays what it is."""
    if isinstance(mention, _LIST) and len(mention) in (2, 3):
        return dict(zip(("start", "end", "type"), mention, strict=False))
    return mention


def _gives_text(mention):
    return isinstance(mention, Mapping) and isinstance(mention.get("text"), str)


def _around(text, start, end):
    """The text near a span that does not fit."""
    low, high = (min(max(offset, 0), len(text)) for offset in sorted((start, end)))
    return repr(text[max(0, low - 20) : min(high + 20, low + 60)])


def _check_word_borders(checker, text, spans):
    """Offsets that count words, bytes or UTF-16 units are often in the text too, and would then mark the wrong places: an error
    where most mentions begin inside a word and one of these ways of counting explains it; a warning where most begin or end
    there (some languages add endings to names; hashtags, compounds and formulas have names inside)."""
    begins = [span for span in spans if _inside_word(text, span[0])]
    cut = [span for span in spans if _inside_word(text, span[0]) or _inside_word(text, span[1])]
    if 2 * len(cut) <= len(spans):
        return
    start, end = (begins or cut)[0]
    found = f"{text[start:end]!r} in {text[max(0, start - 15) : end + 15]!r}"
    if len(begins) > 1 and 2 * len(begins) > len(spans) and (unit := _other_unit(text, spans)):
        expected = f"character offsets of mentions; are these {unit}? If not, give each mention's text"
        found = f", the text {found}, and {len(begins)} of {len(spans)} mentions that begin inside a word"
        checker.fail(None, [start, end], expected, found)
    logger.warning(
        "%s: %d of %d mentions begin or end inside a word, such as %s", checker.name, len(cut), len(spans), found
    )


def _other_unit(text, spans):
    """What the offsets may count instead of characters, or None."""
    if max(end for _, end in spans) <= len(_words(_shape(text), 0, len(text))):
        return "indices of words"
    for unit, encoding, size in (("bytes", "utf-8", 1), ("UTF-16 units", "utf-16-le", 2)):
        widths = [len(character.encode(encoding)) // size for character in text]
        characters = dict(zip(itertools.accumulate(widths, initial=0), range(len(text) + 1), strict=True))
        starts = [characters.get(start) for start, _ in spans]
        inside = sum(start is None or _inside_word(text, start) for start in starts)
        if max(widths, default=1) > 1 and 2 * inside <= len(spans):
            return unit
    return None


def _inside_word(text, offset):
    # Only scripts with capital letters: others write words without spaces, or join small words to names.
    return 0 < offset < len(text) and all(
        character.isdigit() or character.lower() != character.upper() for character in text[offset - 1 : offset + 1]
    )


def _sentences(checker, text, splitter, spans):
    sentences = []
    position, found = 0, splitter(text)
    if not isinstance(found, Iterable):
        checker.fail("sentence_splitter", found, "spans (start, end) of sentences")
    for span in [*found, (len(text), len(text))]:
        pair = tuple(span) if isinstance(span, Iterable) else ()
        if len(pair) != 2 or not all(isinstance(offset, Integral) for offset in pair):
            checker.fail("sentence_splitter", span, "a span (start, end) of a sentence, two integers")
        start, end = pair
        gap = text[position:start]
        if not position <= start <= end <= len(text) or gap.strip():
            left_out = f", which leaves out {gap!r}" if gap.strip() else ""
            expected = f"spans in order, 0 <= start <= end <= {len(text)}, with nothing but white space between them"
            checker.fail("sentence_splitter", list(span), expected, left_out)
        sentences += _without_spaces(text, [(int(start), int(end))])
        position = end
    starts = [start for start, _ in sentences]
    joined = set()  # sentences that continue the one before
    for start, end in (span for mentions in spans for span in mentions):
        joined.update(range(bisect.bisect_right(starts, start), bisect.bisect_left(starts, end)))
    merged = []
    for number, (start, end) in enumerate(sentences):
        if number in joined:
            start = merged.pop()[0]
        merged.append((start, end))
    return merged


def _tokens(text, sentences, spans):
    """Words of each sentence; sentence and word of each offset where a word begins; index past the word that ends there."""
    borders = sorted({offset for mentions in spans for span in mentions for offset in span})
    shape = _shape(text)
    sents, first, last = [], {}, {}
    for sent_id, (start, end) in enumerate(sentences):
        cuts = borders[bisect.bisect_right(borders, start) : bisect.bisect_left(borders, end)]
        words = []
        for low, high in zip([start, *cuts], [*cuts, end], strict=True):
            words += _words(shape, low, high)
        sents.append([text[low:high] for low, high in words])
        first.update({low: (sent_id, number) for number, (low, _) in enumerate(words)})
        last.update({high: number + 1 for number, (_, high) in enumerate(words)})
    return sents, first, last
