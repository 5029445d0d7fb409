"""spaCy: a `DocBin` in a `.spacy` file, `Doc.to_json()` in JSON, and `Doc`s in memory."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, SupportsFloat

from ..documents import Document, DocumentChecker, DocumentError
from ..prediction_record import parse_record
from ..utils.files import iterate_json_values
from ..utils.imports import of_extra
from .annotated_text import AnnotatedText, document_of_text, read_each
from .format_registry import register_format
from .import_report import ImportReport
from .marked_text import Link, MarkedText, MarkedTextOptions, SpansByPlace, finish_marked_text
from .pre_annotation import pre_annotation

# Groups of `doc.spans` whose name begins so are chains of coreference, in spaCy's experimental component.
_CHAINS = "coref_clusters"
# Extensions of documents: the one of this library's component, which is the record of the prediction in plain values, and the one
# of spaCy's tutorial on relation extraction, whose values are probabilities by label, 1.0 or 0.0 where they were annotated.
RECORD, _TUTORIAL = "comm_docre", "rel"
_SURE = 0.5


def looks_like_spacy(head: bytes, path: str) -> bool:
    """Whether a file is a `.spacy` file, or JSON of documents as `Doc.to_json()` gives it."""
    if path.lower().endswith(".spacy"):
        return True
    return head.lstrip(b"\xef\xbb\xbf \r\n\t")[:1] in (b"[", b"{") and all(
        name in head for name in (b'"text"', b'"ents"', b'"tokens"')
    )


def _links_mentions(path, options):
    return any(map(_has_chains, _documents(path)))


def _has_chains(item):
    groups = item.get("spans") if isinstance(item, Mapping) else None
    return (isinstance(groups, Mapping) and any(name.startswith(_CHAINS) for name in groups)) or _record(
        item
    ) is not None


@register_format(
    "spacy",
    "spaCy's DocBin (.spacy), or JSON of Doc.to_json()",
    (".spacy", ".json", ".jsonl"),
    looks_like_spacy,
    extra="text",
    links_mentions=_links_mentions,
)
def read_spacy(
    path: str, report: ImportReport, options: MarkedTextOptions
) -> Iterator[AnnotatedText | Document | DocumentError]:
    """
    Documents of spaCy: `ents`, or else the labelled groups of `spans`, are the mentions, `coref_clusters_*` of `spans` chains of
    coreference. Relations are those of this library's component (`doc._.relations`), or of the extension `doc._.rel` of spaCy's
    tutorial with 0.5 or more. Sentences are those of the `Doc`.

    Args:
        path (`str`): the file.
        report ([`ImportReport`]): is told what is dropped.
        options ([`MarkedTextOptions`]): how it is read.

    Raises:
        ImportError: a `.spacy` file is read without spaCy.
        DocumentError: a document is not of this form.
    """

    def parse(index, item):
        return finish_marked_text(_marked(item, index, path, report), report, options, index, path)

    yield from read_each(_documents(path), parse)


def documents_of_docs(docs: Iterable[Any], report: ImportReport | None = None) -> list[Document]:
    """
    Documents in DocRED's format of spaCy's `Doc`s in memory, as [`read_spacy`] reads them from a file.

    Args:
        docs (`Iterable[Doc]`): the documents.
        report ([`ImportReport`], *optional*): is told what is dropped.

    Raises:
        DocumentError: a document does not fit.
    """
    report = ImportReport() if report is None else report
    items = list(map(_json_of, docs))
    options = MarkedTextOptions(entities="links" if any(map(_has_chains, items)) else "names")
    documents = []
    for index, item in enumerate(items):
        found = finish_marked_text(_marked(item, index, None, report), report, options, index, None)
        documents.append(document_of_text(found, report, index=index) if isinstance(found, AnnotatedText) else found)
    return documents


def _documents(path):
    if path.lower().endswith(".spacy"):
        yield from _of_docbin(path)
    else:
        yield from iterate_json_values(path)


def _of_docbin(path):
    try:
        import spacy
        from spacy.tokens import DocBin
    except ImportError as error:
        raise ImportError(f".spacy files need 'spacy'{of_extra('text')}") from error
    try:
        docs = DocBin().from_disk(path)
    except Exception as error:  # zlib's, msgpack's and spaCy's own
        raise ValueError(f"{path}: found {error}, expected a DocBin of spaCy") from error
    yield from map(_json_of, docs.get_docs(spacy.blank("xx").vocab))


def _json_of(doc):
    """A `Doc` as its JSON, with the two extensions."""
    item = doc.to_json()
    extensions = {name: doc.user_data.get(("._.", name, None, None)) for name in (RECORD, _TUTORIAL)}
    return {**item, "title": doc.user_data.get("title"), "_": extensions}


def _record(item):
    extensions = item.get("_") if isinstance(item, Mapping) else None
    return extensions.get(RECORD) if isinstance(extensions, Mapping) else None


def _marked(item, index, path, report):
    checker = DocumentChecker(item, index, path)
    checker.check(item, Mapping, None, "a document as Doc.to_json() gives it")
    text = checker.read(item, "text", str, "", "a text")
    title = item.get("title")
    title = title if isinstance(title, str) and title.strip() else f"document {index + 1}"
    record = _record(item)
    if record is not None:
        annotation, _, left_out = pre_annotation(parse_record(record, index, path), index + 1)
        for kind, number in left_out.items():
            report.drop(kind, number)
        found = annotation.marked
        return MarkedText(title, text, found.spans, found.links, found.chains, record["sentences"])
    places = SpansByPlace()
    groups = {
        name: _read_spans(checker, members, f"spans.{name}")
        for name, members in checker.check(item.get("spans") or {}, Mapping, "spans", "groups of spans").items()
    }
    # As of a `Doc` itself: groups with labels where there are no entities.
    others = [span for members in groups.values() for span in members if span[2]]
    for span in _read_spans(checker, item.get("ents"), "ents") or others:
        places.add(*span)
    chains = []
    for name, members in groups.items():
        if not name.startswith(_CHAINS):
            continue
        if any(span[:2] in places for span in members):
            chains.append(tuple(places.add(start, end, None, field) for start, end, _, field in members))
        else:
            report.drop("chains of coreference without an entity")
    spans = places.spans(report)
    links = _tutorial_links(checker, item, spans)
    sentences = [(start, end) for start, end, *_ in _read_spans(checker, item.get("sents"), "sents")]
    return MarkedText(title, text, spans, links, chains, sentences or None)


def _read_spans(checker, spans, field):
    """Start, end, label or None, and field of each of some spans."""
    found = []
    for number, span in enumerate(checker.check(spans or [], list, field, "a list of spans")):
        place = f"{field}[{number}]"
        checker.check(span, Mapping, place, "a span: an object with start and end")
        start, end = (
            checker.read(span, name, int, f"{place}.", "an offset (an integer)") for name in ("start", "end")
        )
        found.append((start, end, str(span.get("label") or "") or None, place))
    return found


def _tutorial_links(checker, item, spans):
    """Relations of the tutorial's extension: by the first tokens of head and tail, the probability of each label."""
    extensions = checker.check(item.get("_") or {}, Mapping, "_", "an object of extensions")
    field = f"_.{_TUTORIAL}"
    relations = checker.check(extensions.get(_TUTORIAL) or {}, Mapping, field, "labels by pair of tokens")
    tokens = checker.check(item.get("tokens") or [], list, "tokens", "a list of tokens")
    by_start = {span.start: span.id for span in reversed(spans)}

    def span_of(token):
        checker.check_index(token, len(tokens), field, "token", "a token")
        place = f"tokens[{token}]"
        start = checker.read(
            checker.check(tokens[token], Mapping, place, "a token"), "start", int, f"{place}.", "an offset"
        )
        return by_start.get(start, "")

    links = []
    for pair, labels in relations.items():
        ends = list(map(span_of, checker.check(pair, tuple, field, "two tokens, those of head and tail")))
        if len(ends) != 2:
            checker.fail(field, pair, "two tokens, those of head and tail")
        for label, probability in checker.check(labels, Mapping, field, "probabilities by label").items():
            if not isinstance(probability, SupportsFloat):  # one of an array is a number, too
                checker.fail(field, probability, "a probability")
            if float(probability) >= _SURE:
                links.append(Link(*ends, label))
    return links
