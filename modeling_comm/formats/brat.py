"""brat's standoff format: a `.txt` and an `.ann` for each document, out and in.

Offsets count characters in the files. (brat's own page counts UTF-16 units, so that it shows spans behind an emoji too far to the
left: see brat's issue 1115.)"""

import logging
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..documents import Document, DocumentError, shown
from ..saved_folder import replacing_folder
from ..utils.files import read_json, write_json
from ..utils.writer import UNFINISHED, remove_unfinished, write_text
from .annotated_text import AnnotatedText, read_each
from .format_registry import NAMES_FILE, register_format, register_writer
from .import_report import ImportReport
from .marked_text import Link, MarkedSpan, MarkedText, MarkedTextOptions, finish_marked_text
from .pre_annotation import PreAnnotation, PreAnnotationLabels, safe_names
from .text_offsets import CHARACTERS, find_span

logger = logging.getLogger(__name__)

EQUIVALENCE = "Equiv"
_LINE = re.compile(rb"[TREAMN]\d+\t|\*\t|#")
_ARGUMENT = re.compile(r"([^:\s]+):(\S+)")
_NOT_READ = {"E": "events", "A": "attributes", "M": "attributes", "N": "normalizations", "#": "notes"}


def looks_like_brat(head: bytes, path: str) -> bool:
    """Whether a file is an `.ann` with a `.txt` beside it."""
    head = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return path.lower().endswith(".ann") and _text_file(path).is_file() and (not head or _LINE.match(head) is not None)


def _text_file(path):
    return Path(path).with_suffix(".txt")


def _links_mentions(path, options):
    if (Path(path).parent / NAMES_FILE).is_file():  # an export of this library, where an entity may have one mention
        return True
    lines = Path(path).read_bytes().decode("utf-8-sig", "replace").splitlines()  # `_read` says what is wrong with them
    relations = (line.partition("\t")[2].partition(" ")[0] for line in lines if line.startswith("R"))
    return any(line.startswith(f"*\t{EQUIVALENCE}") for line in lines) or any(map(options.is_coreference, relations))


@register_format(
    "brat", "brat's standoff files", (".ann",), looks_like_brat, links_mentions=_links_mentions, beside=".txt"
)
def read_brat(
    path: str, report: ImportReport, options: MarkedTextOptions
) -> Iterator[AnnotatedText | Document | DocumentError]:
    """
    The document of an `.ann` file: entities (T), relations (R), and equivalences (`*`), which make mentions one entity. Events
    and their triggers, attributes, normalizations and notes are counted. A mention of several fragments is taken from its first
    to its last character, which is counted and a warning.

    Args:
        path (`str`): the `.ann` file, beside its `.txt`.
        report ([`ImportReport`]): is told what is dropped.
        options ([`MarkedTextOptions`]): how it is read.

    Raises:
        DocumentError: a line is not of this form; offsets are not those of a mention's text; there is no `.txt`, or one of the
            two is not in UTF-8.
    """
    yield from read_each([path], lambda index, path: _read(path, report, options))


def _read(path, report, options):
    names = _exported_names(Path(path).parent)
    titles, types, relations = (
        {safe: name for name, safe in names.get(kind, {}).items()} for kind in ("titles", "types", "relations")
    )
    title = titles.get(Path(path).stem, Path(path).stem)
    report.relation_names.update(names.get("names", {}))

    def fail(number, found, expected):
        raise DocumentError(path, None, title, f"line {number}", shown(found), expected)

    text, annotations = _content(_text_file(path), title), _content(path, title)
    spans, links, chains, triggers = [], [], [], set()
    for number, line in enumerate(annotations.split("\n"), 1):
        line = line.rstrip("\r")
        if not line.strip():
            continue
        name, _, rest = line.partition("\t")
        kind = name[:1]
        if kind == "T":
            with report.reading_mention():
                spans.append(_span(text, name, rest, number, types, report, options, title, fail))
        elif kind == "R":
            label, _, arguments = rest.partition(" ")
            ends = _ARGUMENT.findall(arguments)
            if len(ends) != 2:
                fail(number, line, "a relation, R1<TAB>TYPE Arg1:T1 Arg2:T2")
            if {role for role, _ in ends} == {"Arg1", "Arg2"}:  # in whichever order
                ends.sort()
            (_, head), (_, tail) = ends
            links.append(Link(head, tail, relations.get(label, label), f"line {number}"))
        elif kind == "*":
            label, *members = rest.split() or fail(number, line, "a set, *<TAB>Equiv T1 T2")
            if label != EQUIVALENCE:
                report.drop(f"sets of the type {label}")
            else:
                chains.append(tuple(members))
        elif kind in _NOT_READ:
            report.drop(_NOT_READ[kind])
            if kind == "E" and (trigger := _ARGUMENT.match(rest)):
                triggers.add(trigger[2])
        else:
            fail(number, line, "a line that begins with T, R, E, A, M, N, * or #")
    report.drop("triggers of events", sum(span.id in triggers for span in spans))
    spans = [span for span in spans if span.id not in triggers]
    marked = MarkedText(title, text, spans, links, chains)
    return finish_marked_text(marked, report, options, None, path)


def _content(file, title):
    try:
        return Path(file).read_bytes().decode("utf-8-sig")  # as bytes, because line breaks count as they are
    except FileNotFoundError:
        raise DocumentError(os.fspath(file), None, title, None, "no such file", "the document's text") from None
    except UnicodeDecodeError as error:
        raise DocumentError(os.fspath(file), None, title, None, str(error), "a text in UTF-8") from None


def _span(text, name, rest, number, types, report, options, title, fail):
    head, _, stated = rest.partition("\t")
    label, _, offsets = head.partition(" ")
    try:
        fragments = [tuple(map(int, fragment.split())) for fragment in offsets.split(";")]
        valid = all(len(fragment) == 2 for fragment in fragments)
    except ValueError:
        valid = False
    if not valid:
        fail(number, rest or name, "a mention, T1<TAB>TYPE START END<TAB>TEXT, with tabs")
    if len(fragments) == 1:
        (start, end), unit = fragments[0], options.offset_unit or CHARACTERS
        found = find_span(text, start, end, unit, stated or None)
        if found is None:
            fail(number, [start, end], f"the offsets of {stated!r}; there the text is {text[start:end]!r}")
        return MarkedSpan(name, found[0], found[1], types.get(label, label), f"line {number}")
    start, end = min(start for start, _ in fragments), max(end for _, end in fragments)
    if end > len(text) or (stated and " ".join(text[a:b] for a, b in fragments).split() != stated.split()):
        fail(number, fragments, f"the offsets of {stated!r}")
    gaps = zip(sorted(fragments), sorted(fragments)[1:], strict=False)
    if any(
        text[before:after].strip() for (_, before), (after, _) in gaps
    ):  # brat divides mentions at line breaks, too
        report.note("discontinuous mentions, taken from their first to their last character")
        logger.warning("%r, line %d: %r is discontinuous; %r is taken", title, number, stated, text[start:end])
    return MarkedSpan(name, start, end, types.get(label, label), f"line {number}")


def _exported_names(folder):
    file = folder / NAMES_FILE
    names = read_json(file) if file.is_file() else {}
    if not isinstance(names, dict) or not all(isinstance(part, dict) for part in names.values()):
        raise ValueError(
            f"{file}: found {shown(names)}, expected titles, types, relations and names, as the export writes them"
        )
    return names


# ------------------------------------------------------------------------------------------------------------- writing


@register_writer("brat")
def write_brat(
    path: str | os.PathLike,
    documents: Iterable[PreAnnotation],
    labels: PreAnnotationLabels,
    model_version: str,
) -> list[str]:
    """
    A folder for brat: a `.txt` and an `.ann` for each document, `annotation.conf`, `visual.conf` with readable names, and
    `comm_docre.json`, by which the import finds titles and labels again. They are in the folder together, or not at all.

    Args:
        path (`str`): the folder. It must be new or empty: brat would show old files among the new ones.
        documents (`Iterable[PreAnnotation]`): one after another.
        labels ([`PreAnnotationLabels`]): all labels of the documents.
        model_version (`str`): not used; brat's annotations have no such thing.

    Returns:
        The files that were written, the documents' as `NAME.txt` and `NAME.ann` of the first.

    Raises:
        ValueError: something is in the folder.
    """
    folder = Path(path)
    if folder.exists() and (not folder.is_dir() or any(file.suffix != UNFINISHED for file in folder.iterdir())):
        raise ValueError(f"{folder}: found a file, or files in a folder, expected a new or empty folder")
    if folder.exists():
        remove_unfinished(folder)  # what an export that was killed has left
    relations = safe_names(labels.names, "relation")
    types = safe_names(labels.types, "type")
    files = safe_names(labels.titles, "document")
    shown_as = {relations[relation]: name for relation, name in labels.names.items()}
    with replacing_folder(folder) as unfinished:
        made = Path(unfinished)
        names = {"titles": files, "types": types, "relations": relations, "names": labels.names}
        write_json(made / NAMES_FILE, names)
        for document in documents:
            stem = files[document.marked.title]
            write_text(made / f"{stem}.txt", document.marked.text)
            write_text(made / f"{stem}.ann", "".join(f"{line}\n" for line in _lines(document, types, relations)))
        write_text(made / "annotation.conf", _annotation_configuration(types.values(), relations.values()))
        write_text(made / "visual.conf", _visual_configuration(shown_as))
    return [os.fspath(folder)]


def _lines(document, types, relations):
    marked = document.marked
    for span in marked.spans:
        text = marked.text[span.start : span.end]
        # No line break may be within a fragment.
        parts = [(span.start + part.start(), span.start + part.end()) for part in re.finditer(r"[^\r\n]+", text)]
        offsets = ";".join(f"{start} {end}" for start, end in parts)
        words = " ".join(marked.text[start:end] for start, end in parts)
        yield f"T{span.id}\t{types[span.type]} {offsets}\t{words}"
    for number, link in enumerate(marked.links, 1):
        yield f"R{number}\t{relations[link.relation]} Arg1:T{link.head} Arg2:T{link.tail}"
    for chain in marked.chains:
        yield f"*\t{EQUIVALENCE} {' '.join(f'T{name}' for name in chain)}"


def _annotation_configuration(types, relations):
    arguments = "Arg1:<ENTITY>, Arg2:<ENTITY>"
    lines = ["[entities]", *types, "", "[relations]", *(f"{relation}\t{arguments}" for relation in relations)]
    lines += [f"{EQUIVALENCE}\t{arguments}, <REL-TYPE>:symmetric-transitive"]
    lines += [f"<OVERLAP>\t{arguments}, <OVL-TYPE>:<ANY>", "", "[events]", "", "[attributes]"]
    return "\n".join(lines) + "\n"


def _visual_configuration(names):
    # A | would begin a second, shorter label.
    labels = [f"{safe} | {name.replace('|', '/')}" for safe, name in names.items() if safe != name]
    drawing = [
        "SPAN_DEFAULT\tfgColor:black, bgColor:lightgreen, borderColor:darken",
        "ARC_DEFAULT\tcolor:black, arrowHead:triangle-5",
    ]
    return "\n".join(["[labels]", *labels, "", "[drawing]", *drawing]) + "\n"
