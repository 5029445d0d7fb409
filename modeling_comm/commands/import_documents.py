"""The command `comm-docre import`: documents of other data sets and tools in DocRED's format."""

import argparse
import contextlib
import sys
from collections import Counter
from pathlib import Path

from ..data.reading import iterate_documents
from ..formats import (
    ImportReport,
    MarkedTextOptions,
    OriginalDocuments,
    available_formats,
    get_format,
    input_files,
    read_documents,
)
from ..utils.counted_nouns import RELATIONS, counted
from ..utils.files import write_json
from ..utils.relation_names import RELATION_FILE, read_relation_names
from ..utils.writer import is_standard_output
from .errors import refuse_overwriting
from .import_outputs import SPLIT_FILES, add_relation_names, write_documents, write_split

_MAX_SHOWN = 10  # added relations, and mentions left out, that are named in print; the file of --report has all


def relation_ids(path: str | Path | None) -> dict[str, str]:
    """
    Ids of relations by readable name, for labels that are names: those that people see in an annotation tool.

    Args:
        path (`str`, *optional*): a `rel_info.json`; without one, or where it does not exist yet, there are none. A name that is
            an id, or that several relations share, stands for itself.

    Raises:
        ValueError: the file is no object of names.
    """
    if path is None or not Path(path).exists():
        return {}
    names = read_relation_names(path)
    shared = Counter(names.values())
    return {name: relation for relation, name in names.items() if shared[name] == 1 and name not in names}


def run(args: argparse.Namespace) -> int:
    """The command; returns the exit status."""
    if args.list_formats:
        for name in available_formats():
            form = get_format(name)
            needs = f" (needs the extra {form.extra})" if form.extra else ""
            print(f"{name:12} {form.title}{needs}")
        return 0
    missing = [flag for flag in ("input", "output") if getattr(args, flag) is None]
    if missing:
        raise ValueError(f"expected {' and '.join(f'--{flag}' for flag in missing)}, or --list_formats")
    files = input_files(args.input, args.format)
    to_stdout = is_standard_output(args.output)
    if args.split and to_stdout:
        raise ValueError(f"--output {args.output}: found standard output, expected a folder for the files of --split")
    written = [Path(args.output, name) for name in SPLIT_FILES] if args.split else [args.output]
    relation_file = args.rel_info or (None if to_stdout else Path(written[0]).with_name(RELATION_FILE))
    outputs = [path for path in (*written, relation_file, args.report) if path]
    refuse_overwriting(outputs, [args.input, *filter(None, [args.original]), *(path for path, _ in files)])
    report = ImportReport()
    options = MarkedTextOptions(
        coreference_relation=args.coreference_relation,
        entities=args.entities,
        offset_unit=args.offset_unit,
        text_field=args.text_field,
        original=OriginalDocuments(iterate_documents(args.original)) if args.original else None,
    )
    print(
        f"{len(files)} files in the format {files[0][1].name}" if len(files) > 1 else f"format {files[0][1].name}",
        file=sys.stderr,
    )
    with contextlib.closing(
        read_documents(
            args.input,
            args.format,
            report,
            args.on_bad_document,
            null_label=args.null_label,
            options=options,
            relation_ids=relation_ids(relation_file),
        )
    ) as documents:
        sizes = write_split(args.output, documents, args.split) if args.split else {}
        if not args.split:
            write_documents(args.output, documents)
    print(report, file=sys.stderr if to_stdout else sys.stdout)
    if sizes:
        print(f"split into {', '.join(f'{name} {size:,}' for name, size in sizes.items())}")
    for error in report.skipped:
        print(f"skipped: {error}", file=sys.stderr)
    for error in (*report.dropped_mentions[:_MAX_SHOWN], *report.dropped_facts[:_MAX_SHOWN]):
        print(f"left out: {error}", file=sys.stderr)
    if relation_file and report.relations:
        names = {relation: report.relation_names.get(relation, relation) for relation in sorted(report.relations)}
        report.added_relations = add_relation_names(relation_file, names)
        added = _added(report.added_relations)
        print(f"{relation_file}: {added}", file=sys.stderr if to_stdout else sys.stdout)
    if args.report:
        write_json(args.report, report.as_dict())
    return 0


def _added(relations):
    """Which relations are new: one of them may be a known one that was misspelt."""
    shown = ", ".join(relations[:_MAX_SHOWN])
    number = f"{counted(len(relations), RELATIONS)} added"
    if len(relations) > _MAX_SHOWN:
        return f"{number}, the first {_MAX_SHOWN} are {shown}"
    return f"{number}: {shown}" if relations else number
