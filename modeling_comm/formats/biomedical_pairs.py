"""The tabular form of CDR and GDA that edge-oriented graphs, ATLOP and DocuNet read: a document with all its pairs in a line."""

import re
from collections.abc import Iterator

from ..documents import Document, DocumentError, shown
from ..utils.files import open_text
from .annotated_text import AnnotatedText, read_each
from .format_registry import register_format
from .import_report import ImportReport

# Fields of a pair: label, direction, whether the two meet in a sentence, their closest mentions, six fields of each argument.
_PAIR = 17
_IGNORED = "not_include"
_LABEL = re.compile(r"\d+:(\w+):\d+")
_LINE = re.compile(rb"[^\t\n]+\t[^\t\n]+\t(?:not_include|\d+:\w+:\d+)\t[LR]2[LR]\t(?:NON-)?CROSS\t")


def looks_like_biomedical_pairs(head: bytes, path: str) -> bool:
    """Whether a file begins with id, text and a pair."""
    return _LINE.match(head) is not None


@register_format(
    "cdr",
    "the tabular form of CDR and GDA: a line per document, 17 columns per pair",
    (".data",),
    looks_like_biomedical_pairs,
)
def read_biomedical_pairs(path: str, report: ImportReport) -> Iterator[AnnotatedText | Document | DocumentError]:
    """
    Documents of the tabular form. The head is a pair's first argument, the chemical of CDR and the gene of GDA, also where the
    column of direction says that it comes second in the text. Pairs that are `not_include`, which the hypernym filter took out,
    are ignored pairs. Pairs of the label `NR` are the negatives, which DocRED's form does not list.

    Args:
        path (`str`): the file, which may be compressed by gzip.
        report ([`ImportReport`]): is told of mentions that do not fit, if it says that they are dropped, and of facts and ignored
            pairs of an entity that has no other.

    Raises:
        DocumentError: a line does not have such columns, or positions that do not fit into the text.
    """
    with open_text(path) as file:
        yield from read_each(filter(str.strip, file), lambda index, line: _document(line, report, index, path))


def _document(line, report, index, path):
    columns = line.rstrip("\r\n").split("\t")
    title = columns[0]

    def fail(place, found, expected):
        raise DocumentError(path, index, title, f"column {place + 1}", shown(found), expected)

    if len(columns) < 2 or (len(columns) - 2) % _PAIR:
        fail(len(columns) - 1, f"{len(columns)} columns", f"id, text, and {_PAIR} columns for each pair, by tabs")
    sents = [sentence.split(" ") for sentence in columns[1].split("|")]
    firsts = [0]  # position in the document of each sentence's first token
    for sentence in sents:
        firsts.append(firsts[-1] + len(sentence))
    entities, facts, ignored = {}, [], []
    for start in range(2, len(columns), _PAIR):
        pair = columns[start : start + _PAIR]
        keys = []
        for offset in (5, 11):
            ids, names, kind, *numbers = pair[offset : offset + 6]
            keys.append(ids)
            if ids not in entities:
                place = start + offset + 3
                entities[ids] = _mentions(names.split("|"), kind, numbers, sents, firsts, place, report, fail)
        label = _LABEL.fullmatch(pair[0])
        if pair[0] == _IGNORED:
            ignored.append(keys)
        elif label is None:
            fail(start, pair[0], f"a label such as 1:CID:2, or {_IGNORED}")
        elif label[1] != "NR":
            facts.append((*keys, label[1], f"column {start + 1}"))
    entities = {ids: mentions for ids, mentions in entities.items() if mentions}
    order = sorted(entities, key=lambda ids: entities[ids][0]["sent_id"] * 10**6 + entities[ids][0]["pos"][0])
    numbers = {ids: number for number, ids in enumerate(order)}
    kept = [fact for fact in facts if {*fact[:2]} <= set(numbers)]
    for *ids, _, field in facts:
        if missing := [one for one in ids if one not in numbers]:
            report.drop_fact_without_mention(missing, path, index, title, field)
    pairs = [pair for pair in ignored if {*pair} <= set(numbers)]
    report.drop("ignored pairs of an entity without a mention", len(ignored) - len(pairs))
    document = {
        "title": title,
        "sents": sents,
        "vertexSet": [entities[ids] for ids in order],
        "entity_ids": [ids.split("|") for ids in order],
        "labels": [{"h": numbers[head], "t": numbers[tail], "r": label} for head, tail, label, _ in kept],
    }
    if pairs:
        document["ignored_pairs"] = [[numbers[head], numbers[tail]] for head, tail in pairs]
    return document


def _mentions(names, kind, numbers, sents, firsts, place, report, fail):
    try:
        starts, ends, sentences = ([int(number) for number in text.split(":")] for text in numbers)
    except ValueError:
        fail(place, numbers, "starts, ends and sentences, integers with : between them")
    if not len(names) == len(starts) == len(ends) == len(sentences):
        fail(place, numbers, f"as many starts, ends and sentences as names ({len(names)})")
    mentions = []
    for name, start, end, sentence in zip(names, starts, ends, sentences, strict=True):
        with report.reading_mention():
            if not 0 <= sentence < len(sents) or not firsts[sentence] <= start < end <= firsts[sentence + 1]:
                found = f"tokens [{start}, {end}) of sentence {sentence}"
                fail(place, found, "tokens of the document that are all in the mention's sentence")
            first = firsts[sentence]
            mentions.append({"name": name, "sent_id": sentence, "pos": [start - first, end - first], "type": kind})
    return sorted(mentions, key=lambda mention: (mention["sent_id"], mention["pos"]))
