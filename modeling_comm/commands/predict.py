"""The command `comm-docre predict`: documents in, relation triples out as JSON lines; a run that is killed can be resumed."""

import argparse
import hashlib
import math
import sys
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import pipeline
from transformers.utils import logging

from ..configuration_comm import __version__
from ..document_input import NoEntitiesError
from ..documents import DocumentError
from ..extensions import import_extensions
from ..pipeline_comm import TASK
from ..settings import SettingError
from ..triple_selection import TripleSelection, type_warnings
from ..utils.files import file_sha256
from .errors import refuse_overwriting
from .predict_inputs import STANDARD_STREAM, hashed, read_items, text_files, with_ids
from .predict_models import SPACY_EXAMPLE, check_model, check_ner, load_ner, model_identity
from .predict_outputs import ResumableOutput, StandardOutput, output_files

SOME_REJECTED = 3
_DECIMALS = 6
_LOG_SECONDS = 30  # between two lines of progress in a file


def _check(args):
    if args.batch_size < 1:
        raise ValueError(f"--batch_size is {args.batch_size}; expected at least 1")
    if args.threshold_offset is not None and not math.isfinite(args.threshold_offset):
        raise ValueError(f"--threshold_offset is {args.threshold_offset}; expected a finite number")
    selection = _selection(args)
    if args.format == "txt" and args.ner is None:
        raise ValueError(
            "--format txt needs --ner NAME, because raw text does not say what its entities are: an installed spaCy model, such "
            f"as {SPACY_EXAMPLE}, or the folder or Hub name of a Transformers token-classification model"
        )
    for flag, check in (("model", check_model), ("ner", check_ner)):
        if getattr(args, flag) is not None:
            try:
                checked = check(getattr(args, flag), args.trust_remote_code)
            except (ValueError, ImportError) as error:
                raise ValueError(f"--{flag} {error}") from error
        if flag == "model":
            with _naming_flag():
                selection.label_ids(checked.id2label, checked.relation_names)
    if args.format != "txt" and Path(args.input).is_dir():
        raise ValueError(f"--input {args.input}: found a folder, expected a file; only --format txt takes folders")
    if args.device is not None:
        try:
            torch.empty(0, device=args.device)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"--device is {args.device!r}, which cannot be used here: {error}") from error
    if args.output != STANDARD_STREAM:
        folder = args.format == "txt" and Path(args.input).is_dir()
        inputs = text_files(args.input)[0] if folder else [args.input]
        refuse_overwriting(output_files(args.output), [*inputs, *(args.extensions or ())])


def run(args: argparse.Namespace) -> int:
    """The command; returns the exit status."""
    import_extensions(args.extensions)
    _check(args)
    form = args.output_format or ("csv" if Path(args.output).suffix.lower() == ".csv" else "jsonl")
    standard = args.output == STANDARD_STREAM
    with StandardOutput(form) if standard else _resumable_output(args, form) as output:
        if not output.finished:
            _predict(args, output)
    if not output.read:
        print(f"warning: {args.input} has no document in it", file=sys.stderr)
    _report(output, args)
    return SOME_REJECTED if output.counts["rejected"] else 0


@contextmanager
def _naming_flag():
    """Puts an error about a field of the selection in the words of the command line."""
    try:
        yield
    except SettingError as error:
        raise ValueError(f"--{error.field} is {error.value!r}; expected {error.expected}") from error


def _selection(args):
    """Which triples are wanted."""
    with _naming_flag():
        return TripleSelection(**{name: getattr(args, name) for name in TripleSelection.field_names()})


def _resumable_output(args, form):
    models = {name: getattr(args, name) for name in ("model", "ner")}
    settings = {"version": __version__, "trust_remote_code": args.trust_remote_code}
    settings |= {key: name and model_identity(name, args.trust_remote_code) for key, name in models.items()}
    settings |= {name: getattr(args, name) for name in ("format", "batch_size", "device", "dtype", "threshold_offset")}
    settings |= _selection(args).given()
    if form != "jsonl":
        settings["output_format"] = form
    settings["extensions"] = args.extensions and [file_sha256(file) for file in args.extensions]
    if args.input != STANDARD_STREAM:
        digest = hashlib.sha256()
        settings["documents"] = sum(1 for _ in hashed(read_items(args.input, args.format), digest))
        settings["input"] = f"sha256 {digest.hexdigest()}"
    return ResumableOutput(args.output, settings, args.restart, form)


def _predict(args, output):
    digest = hashlib.sha256()
    items = with_ids(hashed(read_items(args.input, args.format), digest))
    for _ in islice(items, output.read):
        pass  # done by an earlier run; their ids count
    if output.read and digest.hexdigest() != output.input_sha256:
        raise ValueError(f"{args.input} begins otherwise than it did for {args.output}; --restart predicts again")
    if args.format == "txt" and Path(args.input).is_dir() and (others := text_files(args.input)[1]):
        print(f"{args.input}: {others:,} other files beside those in .txt are not read", file=sys.stderr)
    with _loading(args.quiet):
        ner = args.ner and load_ner(args.ner, args.device, args.trust_remote_code)
        how = {name: getattr(args, name) for name in ("model", "device", "dtype", "trust_remote_code")}
        extractor = pipeline(TASK, **how)
    extract = partial(
        extractor,
        ner=ner,
        batch_size=args.batch_size,
        threshold_offset=args.threshold_offset,
        **{name: getattr(args, name) for name in TripleSelection.field_names()},
    )
    types, whole = set(), not output.read
    if whole:
        output.begin()
    with _progress(output, args.quiet) as bar:
        # A resumed run has the same batches again: the last bits of scores depend on them.
        while batch := list(islice(items, args.batch_size)):
            records, rejected = _predict_batch(extract, batch)
            for item, error in rejected:
                bar.write(f"rejected: {item.kind} {item.place}: {error}", file=sys.stderr)
            types.update(entity["type"] for record in records for entity in record["entities"])
            output.write(records, rejected, output.read + len(batch), digest.hexdigest())
            bar.update(len(batch))
    output.finish()
    if whole and output.counts["documents"]:  # of those of an earlier run the types are not known
        for warning in type_warnings(_selection(args), types):
            print(f"warning: --{warning}", file=sys.stderr)


@contextmanager
def _loading(quiet):
    """Without Transformers' progress bars, if so wanted."""
    shown = logging.is_progress_bar_enabled()
    if quiet:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _progress(output, quiet):
    """A bar with the number of documents, their rate and the time left; where stderr is no terminal, a line every half minute."""
    how = {"total": output.settings.get("documents"), "initial": output.read, "unit": " documents", "disable": quiet}
    if not sys.stderr.isatty():
        how |= {"file": _Lines(sys.stderr), "ascii": True, "mininterval": _LOG_SECONDS, "delay": _LOG_SECONDS}
    return tqdm(**how)


class _Lines:
    """A stream in which each state of a bar is a line of its own."""

    def __init__(self, stream):
        self.stream, self.encoding = stream, getattr(stream, "encoding", None)

    def write(self, text):
        if text := text.strip():
            self.stream.write(f"{text}\n")

    def flush(self):
        self.stream.flush()


def _predict_batch(extract, batch):
    """Records of a batch's documents, and the items that have none, each with the error."""
    records, errors = [], {index: item.error for index, item in enumerate(batch) if item.document is None}
    waiting = [index for index in range(len(batch)) if index not in errors]
    while waiting:
        done = 0
        try:
            for record in extract(batch[index].document for index in waiting):
                records.append({"version": record["version"], "id": batch[waiting[done]].id, **_rounded(record)})
                done += 1
        except (ValueError, RuntimeError, MemoryError) as error:  # of the document behind those that came
            if isinstance(error, RuntimeError) and not _is_out_of_memory(error):
                raise
            if isinstance(error, DocumentError):
                error.index = None  # its position among these means nothing to the user
                if isinstance(error, NoEntitiesError):  # the pipeline's word for it is `ner=`
                    error.expected = "entities, or mentions, or --ner NAME, which finds them"
            errors[waiting[done]] = str(error) or "out of memory"  # Python's own error may say nothing
        waiting = waiting[done + 1 :]
    return records, [(batch[index], errors[index]) for index in sorted(errors)]


def _is_out_of_memory(error):
    # Only for the memory of GPUs does torch have a class of errors.
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def _rounded(record):
    """The record without the digits of scores and weights that depend on what else was in the batch."""
    for triple in record["triples"]:
        triple["score"] = round(triple["score"], _DECIMALS)
        for sentence in triple["explanation"]:
            sentence["weight"] = round(sentence["weight"], _DECIMALS)
    return record


def _report(output, args):
    counts, ner = output.counts, args.ner
    if counts["documents"] and counts["documents"] == counts["without_entities"]:
        found = f"--ner {ner} found no entity" if ner else "there is no entity"
        print(f"warning: {found} in {counts['documents']:,} documents, so there are no triples", file=sys.stderr)
    numbers = [f"{name} {counts[name]:,}" for name in ("documents", "triples", "rejected")]
    if counts["without_entities"]:
        numbers.insert(1, f"without entities {counts['without_entities']:,}")
    lost = [f"{name.replace('_', ' ')} {number:,}" for name, number in counts["lost"].items()]
    if args.quiet and not (counts["lost"] or counts["rejected"]):
        return
    print(f"{', '.join(numbers)}; lost: {', '.join(lost) or 'nothing'}", file=sys.stderr)
