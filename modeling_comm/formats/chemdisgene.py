"""The JSON of ChemDisGene."""

from collections.abc import Iterator, Mapping

from ..documents import Document, DocumentError, shown
from ..utils.files import iterate_json_array, open_text
from .annotated_text import AnnotatedFact, AnnotatedMention, AnnotatedText, read_each
from .entity_ids import split_joined_ids
from .format_registry import register_format
from .import_report import ImportReport


def looks_like_chemdisgene(head: bytes, path: str) -> bool:
    """Whether a file is an array of objects with `docid` and `abstract`."""
    return head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"[" and b'"docid"' in head and b'"abstract"' in head


@register_format(
    "chemdisgene", "ChemDisGene's JSON: title, abstract, entities and relations", (".json",), looks_like_chemdisgene
)
def read_chemdisgene(path: str, report: ImportReport) -> Iterator[AnnotatedText | Document | DocumentError]:
    """
    Documents `{docid, title, abstract, entity: [{start, end, mention, type, id}], relation: [{type, subj, obj}]}`. Offsets count
    into the title, one character, and the abstract. An id `-` is none, `a|b` are two.

    Args:
        path (`str`): the file, which may be compressed by gzip.
        report ([`ImportReport`]): is told of mentions that do not fit; what else is dropped is found when documents are built.

    Raises:
        DocumentError: a field is missing or of another type.
    """
    with open_text(path) as file:
        yield from read_each(iterate_json_array(file, path), lambda index, item: _annotated(item, report, index, path))


def _annotated(item, report, index, path):
    title = item.get("docid") if isinstance(item, Mapping) else None

    def read(record, field, kind, place="", expected=None):
        value = record.get(field) if isinstance(record, Mapping) else record
        if not isinstance(value, kind) or isinstance(value, bool):
            raise DocumentError(
                path, index, title, f"{place}{field}", shown(value), expected or f"a field of type {kind.__name__}"
            )
        return value

    title = read(item, "docid", str)
    text = f"{read(item, 'title', str)}\n{read(item, 'abstract', str)}"  # a line break ends the title's sentence
    mentions = []
    for number, entity in enumerate(read(item, "entity", list)):
        place = f"entity[{number}]"
        with report.reading_mention():
            values = [read(entity, name, kind, f"{place}.") for name, kind in _MENTION.items()]
            start, end, name, kind, ids = values
            mentions.append(AnnotatedMention(start, end, kind, (ids,), name, place))
    facts = []
    for number, relation in enumerate(read(item, "relation", list)):
        place = f"relation[{number}]"
        head, tail, kind = (read(relation, name, str, f"{place}.") for name in ("subj", "obj", "type"))
        facts.append(AnnotatedFact(head, tail, kind, {}, place))
    return AnnotatedText(title, text, split_joined_ids(mentions, facts), facts, linked=True)


_MENTION = {"start": int, "end": int, "mention": str, "type": str, "id": str}
