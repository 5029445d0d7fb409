"""From a text's named entities to a document's: who finds mentions, and which mentions are the same entity."""

import bisect
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from numbers import Integral
from typing import Any, NamedTuple

from .configuration_comm import usable_positions
from .documents import DocumentChecker, docred_type
from .text_to_document import as_mention, check_text, read_spans, read_type, split_sentences, type_field

# Named-entity models often confuse these with each other.
_NAMES = frozenset(("ORG", "LOC", "MISC"))
_AMOUNTS = frozenset(("TIME", "NUM"))
_ARTICLE = re.compile(r"^(?:the|a|an)\s+")
_NUMBER = re.compile(r"((?:(?<!\S)[-−])?\d+(?:[.,:/]\d+)+|(?<!\S)[-−]\d+)")  # whose punctuation says something
_POSSESSIVE = re.compile(r"['’]s?$")
_TRADE_MARKS = str.maketrans("", "", "™℠")  # NFKC makes letters of them
_EXPONENT = re.compile(r"(?<=\d)(?=[⁺⁻]?[⁰¹²³⁴-⁹])")  # NFKC makes 105 of 10⁵
_STOP = re.compile(r"\.(?!\d)|(?<!\d)\.")  # not between digits: 5.1 and 51 are two
_SUFFIXES = frozenset(("jr", "sr", "ii", "iii", "iv"))
_SMALL_WORDS = frozenset(("and", "at", "by", "de", "for", "in", "of", "on", "the", "to"))
# Fillers, joiners and variation selectors that nobody sees, beside the format characters (category Cf).
_SELECTORS = (*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))
_FILLERS = frozenset(map(chr, (0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, *_SELECTORS)))
_BRACKETS = ("(", "[")
_MOST_CHARACTERS = 100_000  # that spaCy reads at a time, of a longer text than its `max_length`
_QUOTES = ('"', "'", "“", "‘")


# ---------------------------------------------------------------------------------------------------- text to mentions


class FoundMentions(NamedTuple):
    """
    What a named-entity source finds in a text.

    Attributes:
        mentions (`list[dict]`): as [`group_mentions`] takes them.
        sentences (`list[tuple[int, int]]`, *optional*): spans of the sentences, where the source has found them, too.
    """

    mentions: list[dict]
    sentences: list[tuple[int, int]] | None = None


def find_mentions(ner: Callable, text: str, sentence_splitter: Callable | None = None) -> FoundMentions:
    """
    Mentions that a named-entity source finds in a text.

    Args:
        ner (`Callable`): a spaCy pipeline, whose `doc.ents` are read, or, where there are none, the spans with a label in
            `doc.spans`, which a span categorizer or span ruler fills; its sentences are used, too, and a text that is longer
            than its `max_length` is read in parts of whole sentences. Or a Transformers token-classification pipeline with an
            `aggregation_strategy`, which reads the text sentence by sentence, and a sentence that is longer than its model can
            take in windows that overlap by a quarter (by itself it would cut them off, in silence, or fail). Or anything that
            takes a text and gives a list of mentions as [`group_mentions`] takes them.
        text (`str`): the text.
        sentence_splitter (`Callable`, *optional*): as in [`~text_to_document.document_from_text`].

    Raises:
        ValueError: what it gives is nothing of that kind.
    """
    from transformers import Pipeline  # slow to import, and `group_mentions` needs none of it

    longest = getattr(ner, "max_length", None)
    if not isinstance(ner, Pipeline) and not (isinstance(longest, int) and len(text) > longest):
        found = ner(text)
        return FoundMentions(_mentions(found), sentences_of_doc(found))
    parts = (sentence_splitter or split_sentences)(text)
    if not isinstance(parts, Iterable):
        raise ValueError(f"sentence_splitter gave {parts!r:.100}; expected spans (start, end) of sentences")
    parts = [(start, end) for start, end in parts]
    if isinstance(ner, Pipeline):
        results = ner([text[start:end] for start, end in parts], **_windows(ner)) if parts else []
    else:
        # Of a text as long as that spaCy takes it needs gigabytes.
        parts = _joined(parts, min(longest, _MOST_CHARACTERS))
        results = (ner(text[start:end]) for start, end in parts)
    mentions: list[dict] = []
    sentences: list[tuple[int, int]] | None = []
    for (offset, _), found in zip(parts, results, strict=True):
        for mention in _mentions(found):
            mentions.append({**mention, "start": mention["start"] + offset, "end": mention["end"] + offset})
        of_part = sentences_of_doc(found)
        if of_part is None or sentences is None:  # of a single token spaCy always knows them
            sentences = None
        else:
            sentences += [(start + offset, end + offset) for start, end in of_part]
    return FoundMentions(mentions, sentences or None)


def _joined(sentences, longest):
    """Sentences that follow each other as parts of a text, each as long as it may be; one that is longer by itself is a part."""
    parts = []
    for start, end in sentences:
        if parts and end - parts[-1][0] <= longest:
            start, _ = parts.pop()
        parts.append((start, end))
    return parts


def _windows(ner):
    longest = min(ner.tokenizer.model_max_length, usable_positions(ner.model.config))
    ner.tokenizer.model_max_length = longest  # some tokenizers do not say what their models can take
    return {"stride": longest // 4} if ner.tokenizer.is_fast else {}


def _mentions(found):
    if hasattr(found, "ents"):
        return mentions_of_doc(found)
    mentions = [as_mention(mention) for mention in found] if isinstance(found, (list, tuple)) else [found]
    if isinstance(found, Mapping) or not all(isinstance(mention, Mapping) for mention in mentions):
        raise ValueError(
            f"ner gave {found!r:.100}; expected a list of {{'start', 'end', 'type'}}, or an object with ents as spaCy's"
        )
    if any("entity" in mention and "index" in mention for mention in mentions):
        raise ValueError(
            "ner gave subword tokens, not entities; expected a token-classification pipeline made with "
            "aggregation_strategy='simple' (or 'first', 'average', 'max')"
        )
    if any(mention.get(end) is None for mention in mentions for end in ("start", "end")):
        raise ValueError("ner gave a mention without start or end; expected character offsets (of a fast tokenizer)")
    return [
        {"start": mention["start"], "end": mention["end"], "type": type_field(mention)[1]}
        | ({"text": mention["text"]} if isinstance(mention.get("text"), str) else {})
        for mention in mentions
    ]


def mentions_of_doc(doc: Any) -> list[dict]:
    """The mentions of spaCy's `Doc`: its `ents`, or, where there are none, the spans with a label in its `spans`."""
    # Groups without labels are something else, such as chains of coreference.
    others = (span for group in getattr(doc, "spans", {}).values() for span in group if span.label_)
    return [
        {"start": span.start_char, "end": span.end_char, "type": span.label_, "text": span.text}
        for span in doc.ents or others
    ]


def sentences_of_doc(doc: Any) -> list[tuple[int, int]] | None:
    """The sentences of spaCy's `Doc` as spans; None where no component has looked for them, or it is something else."""
    if not hasattr(doc, "has_annotation") or not doc.has_annotation("SENT_START"):
        return None
    return [(sent.start_char, sent.end_char) for sent in doc.sents]


# ------------------------------------------------------------------------------------------------ mentions to entities


def group_mentions(
    text: str,
    mentions: Iterable,
    coreference: Callable | None = None,
    title: str | None = None,
    *,
    known_types: Collection[str] = (),
    index: int | None = None,
    source: str | None = None,
) -> list[dict]:
    """
    Entities of a flat list of mentions, in the order of their first mention.

    A span that is listed twice is one mention, with the first type given; spans may overlap. Then, in this order:

    1. Mentions with the same name are one entity: compared in Unicode's NFKC form, without case, invisible characters,
       possessive 's, a leading article and punctuation (a full stop between digits counts as a space); dates and numbers
       (TIME, NUM) keep articles and punctuation.
    2. An abbreviation, a word of which at least half is capitals, joins the longer name that it follows in brackets, or
       the name of several words whose initials it is (with or without "of", "the" and the like).
    3. A person's name joins the longer person's name that ends with it ("Jr." aside).

    Where several names fit in 2 or 3, a mention joins the one mentioned last before it, or else the first after it. Types must
    fit too: the same, or both of ORG, LOC and MISC, which models often confuse, or one not given.

    Args:
        text (`str`): the text.
        mentions (`list`): `{"start", "end", "type"}` or `(start, end, type)`; the type is one of
            [`~documents.docred_type`] or none, and may also be named `label` or `entity_group`; a `text`, if there is
            one, must be what stands at the offsets.
        coreference (`Callable`, *optional*): replaces the rules: takes the text and the mentions (each with its `text`; sorted,
            each span once) and gives entities as lists of indices of mentions. A mention in none of them is an entity alone.
        title (`str`, *optional*), index (`int`, *optional*), source (`str`, *optional*): of the document, for messages.
        known_types (`Collection[str]`, *optional*): types of the model's own, which do not become DocRED's. The rules read
            them as DocRED's all the same.

    Returns:
        entities as [`~text_to_document.document_from_text`] takes them: `{"mentions", "type"}`; the type is the
        most frequent one, None where no mention has any.

    Raises:
        DocumentError: a span does not fit into the text; or the coreference's indices do not.
    """
    checker = DocumentChecker({"title": title}, index, source)
    check_text(checker, text, title)
    checker.check(mentions, (list, tuple), "mentions", "a list of mentions: objects with start, end and type")
    spans = read_spans(checker, text, mentions, "mentions")
    types, confirmed = {}, set()
    for number, (span, mention) in enumerate(zip(spans, map(as_mention, mentions), strict=True)):
        types[span] = types.get(span) or read_type(checker, mention, f"mentions[{number}]", known_types)
        if isinstance(mention.get("text"), str):
            confirmed.add(span)
    flat: list[dict[str, Any]] = [
        {"start": start, "end": end, "type": types[start, end], "text": text[start:end]}
        for start, end in sorted(types)
    ]
    if coreference is None:
        groups = _group_by_name(text, [{**one, "type": one["type"] and docred_type(one["type"])} for one in flat])
    else:
        groups = _check_groups(checker, coreference(text, [dict(mention) for mention in flat]), len(flat))
    groups = sorted(map(sorted, groups))
    return [_entity([flat[number] for number in group], confirmed) for group in groups]


def _entity(mentions, confirmed):
    kinds = Counter(mention["type"] for mention in mentions if mention["type"] is not None)
    kind = kinds.most_common(1)[0][0] if kinds else None
    spans = [{"start": mention["start"], "end": mention["end"]} for mention in mentions]
    for span, mention in zip(spans, mentions, strict=True):
        if (mention["start"], mention["end"]) in confirmed:  # so that nobody doubts the offsets again
            span["text"] = mention["text"]
    return {"type": kind, "mentions": spans}


def _check_groups(checker, groups, size):
    expected = f"lists of indices of mentions (integers, 0 <= index < {size}), each in one list at most"
    if not isinstance(groups, Iterable):
        checker.fail("coreference", groups, expected)
    groups = [list(checker.check(group, (list, tuple, set), "coreference", expected)) for group in groups]
    seen = [number for group in groups for number in group]
    for number in seen:
        if not 0 <= checker.check(number, Integral, "coreference", expected) < size:
            checker.fail("coreference", number, expected)
    twice = [number for number, times in Counter(seen).items() if times > 1]
    if twice:
        checker.fail("coreference", twice, expected)
    return [group for group in groups if group] + [[number] for number in sorted(set(range(size)).difference(seen))]


def normalize_name(name: str, kind: str | None = None) -> str:
    """Normalizes a name: two mentions with the same result are one entity, see [`group_mentions`]."""
    name = _EXPONENT.sub("^", name.translate(_TRADE_MARKS))
    name = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    name = " ".join("".join(filter(_is_visible, name)).split())
    if is_amount(kind):
        return name
    short = _STOP.sub("", _ARTICLE.sub("", _POSSESSIVE.sub("", name)))
    words = "".join(character if _in_word(character) else " " for character in short)
    return " ".join(words.split()) or name


def is_amount(kind: str | None) -> bool:
    """Whether entities of this type are dates or numbers, whose names keep articles and punctuation."""
    return kind in _AMOUNTS


def normalize_name_of_any_type(name: str) -> str:
    """Normalizes a name where its type is not to count: as [`normalize_name`] those of other types than dates and numbers, and
    what is punctuation in a number stays, so that 10.5 and 105 are two."""
    before, *others = _NUMBER.split(normalize_name(name, "NUM"))
    if not others:
        return normalize_name(name)
    words = [normalize_name(_ARTICLE.sub("", before))]
    for number, text in zip(others[::2], others[1::2], strict=True):
        words += [number, normalize_name(text)]
    return " ".join(filter(None, words))


def _is_visible(character):
    """Or a space: line breaks and tabs are control characters, too."""
    if character.isspace():
        return True
    return unicodedata.category(character) not in ("Cc", "Cf") and character not in _FILLERS


def _in_word(character):
    # C, C++ and C# are three; 10^5 and 105 are two.
    return character in "+#^" or unicodedata.category(character)[0] in "LNM"


def _compatible(one, other):
    return one is None or other is None or one == other or {one, other} <= _NAMES


def _group_by_name(text, mentions):
    """Groups of indices of mentions. The steps look at names, each the mentions that read alike and have types that fit."""
    names, by_key = [], {}
    for number, mention in enumerate(mentions):
        key = normalize_name(mention["text"], mention["type"])
        alike = by_key.setdefault(key, [])
        name = next((name for name in alike if _compatible(mention["type"], name.type)), None)
        if name is None:
            name = _Name(key, mention["text"], mention["type"])
            names.append(name)
            alike.append(name)
        name.type = name.type or mention["type"]
        name.members.append(number)
    _find_targets(text, mentions, names)
    groups = {id(name): [] for name in names}
    for name in names:
        target_of = {number: target for target in _last_targets(name) for number in target.members}
        places = sorted(target_of)
        for number in name.members:
            groups[id(target_of[_nearest(number, places)] if places else name)].append(number)
    return [group for group in groups.values() if group]


def _last_targets(name):
    """Follows the targets of a short name to names that are not short for others. Many ways may lead to each, which is looked at
    once."""
    seen, waiting = {}, list(name.targets)
    while waiting:
        target = waiting.pop()
        if id(target) not in seen:
            seen[id(target)] = target
            waiting += target.targets
    return [target for target in seen.values() if not target.targets]


class _Name:
    """A name and the mentions that read alike; `members` are their indices, `targets` the names that it may be short for."""

    def __init__(self, key, text, kind):
        self.key, self.text, self.type = key, text, kind
        self.members, self.targets = [], []


def _find_targets(text, mentions, names):
    """Gives each name its targets. Names are looked up by what a short one has of them: a text may have thousands."""
    by_end, by_initials, by_last_words = defaultdict(list), defaultdict(list), defaultdict(list)
    for name in names:
        if name.type in _AMOUNTS or _is_abbreviation(name.text):
            continue
        for number in name.members:
            by_end[mentions[number]["end"]].append((number, name))
        for initials in _initials(name.key):
            by_initials[initials].append(name)
    persons = {name.key for name in names if name.type == "PER"}
    for name in names:
        words = _family_name(name.key) if name.type == "PER" else ()
        for start in range(1, len(words)):
            if (last := " ".join(words[start:])) in persons:
                by_last_words[last].append(name)
    for name in names:
        if _is_abbreviation(name.text) and name.type not in _AMOUNTS:
            before = (
                (number, other)
                for end in _ends_before_bracket(text, mentions[name.members[0]]["start"])
                for number, other in by_end.get(end, ())
                if _compatible(name.type, other.type)
            )
            name.targets = [other for number, other in before if _gives_letters(mentions[number]["text"], name.key)]
            name.targets = name.targets or [
                other for other in by_initials.get(name.key, ()) if _compatible(name.type, other.type)
            ]
        if not name.targets and name.type == "PER":
            name.targets = by_last_words.get(name.key, [])


def _is_abbreviation(text):
    letters = text.replace(".", "")
    return len(letters) > 1 and letters.isalpha() and 2 * sum(map(str.isupper, letters)) >= len(letters)


def _ends_before_bracket(text, start):
    """Where a name ends that a mention from `start` on follows in brackets: at the bracket, or at a space before it."""
    place = _before_space(text, start)
    if text.endswith(_QUOTES, 0, place):
        place = _before_space(text, place - 1)
    if not text.endswith(_BRACKETS, 0, place):
        return range(0)
    return range(_before_space(text, place - 1), place)


def _before_space(text, place):
    while place and text[place - 1].isspace():
        place -= 1
    return place


def _gives_letters(long, key):
    """Returns whether an abbreviation takes its letters from a name that it follows in brackets, the first one first. Some have a
    letter of the article in them."""
    name = long.casefold()
    return any(_has_letters(form, key) for form in (name, _ARTICLE.sub("", name)))


def _has_letters(name, wanted):
    """Returns whether a name has the letters that are wanted, in their order, the first one first."""
    letters = iter(name)
    return name[0] == wanted[0] and all(letter in letters for letter in wanted)


def _initials(key):
    words = key.split()
    if len(words) == 1:
        return set()
    return {"".join(word[0] for word in words), "".join(word[0] for word in words if word not in _SMALL_WORDS)}


def _family_name(key):
    """The words of a person's name, without "Jr." and the like at its end."""
    words = key.split()
    while words and words[-1] in _SUFFIXES:
        words.pop()
    return words


def _nearest(number, places):
    """The last place before a mention, or else the first after it; places are sorted."""
    return places[max(bisect.bisect_left(places, number) - 1, 0)]
