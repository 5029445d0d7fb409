"""The command `comm-docre predict`: documents in, relation triples out as JSON lines; a run that is killed can be resumed, and
several processes can share one."""

import argparse
import hashlib
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain, islice
from pathlib import Path

import torch
from transformers import pipeline

from ..both_directions import labels_both_ways
from ..candidate_pairs import ALL_PAIRS
from ..configuration_comm import __version__
from ..deployment.quantization import quantize_backbone
from ..extensions import import_extensions
from ..incomplete_labels.rules import read_rules
from ..pipeline_comm import TASK
from ..rules import check_rules
from ..settings import SettingError
from ..triple_selection import TripleSelection, type_warnings
from ..utils.counted_nouns import DOCUMENTS, RELATIONS, counted
from ..utils.files import file_sha256, refuse_pipe
from ..utils.progress import progress_bar, without_bars
from ..utils.writer import open_stream
from .errors import refuse_overwriting
from .predict_batch import predict_batch
from .predict_changes import changed_item
from .predict_inputs import STANDARD_STREAM, Item, hashed, read_items, text_files, with_ids
from .predict_models import SPACY_EXAMPLE, check_model, check_ner, load_ner, model_identity
from .predict_outputs import ResumableOutput, StandardOutput, output_files
from .predict_processes import OneProcess, Result, SeveralProcesses, launched_processes, own_device
from .predict_suspects import Suspects, working_file

SOME_REJECTED = 3
_OTHER_FILES = ("other file beside those in .txt is", "other files beside those in .txt are")
# Of files that other programs could not read if JSON lines were in them.
_OTHER_FORMS = (".tsv", ".xls", ".xlsx", ".ods", ".parquet", ".html", ".htm", ".ttl", ".nt", ".graphml", ".gexf")
# Flags that decide the records, beside the models. `batch_size` moves the last bits of scores only: who runs out of memory may
# resume with another.
_SETTINGS = ("format", "device", "dtype", "quantize", "threshold_offset", "type_constraint")


def _check(args, processes):
    if processes.size > 1 and args.input == STANDARD_STREAM:
        raise ValueError(f"--input - is read by one process; found {processes.size}, expected a file")
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
            shown = checked.candidates if args.both_directions else ALL_PAIRS
            with _naming_flag():
                selection.label_ids(labels_both_ways(checked.id2label, shown), checked.relation_names)
    if args.format != "txt" and Path(args.input).is_dir():
        raise ValueError(f"--input {args.input}: found a folder, expected a file; only --format txt takes folders")
    if args.quantize and args.dtype != "float32":
        raise ValueError(
            f"--quantize {args.quantize} starts from float32; found --dtype {args.dtype}, expected float32"
        )
    if args.quantize and args.device not in (None, "cpu"):
        raise ValueError(f"--quantize {args.quantize} is for CPUs; found --device {args.device}, expected cpu")
    if args.device is not None:
        try:
            torch.empty(0, device=args.device)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"--device is {args.device!r}, which cannot be used here: {error}") from error
    if args.output != STANDARD_STREAM:
        folder = args.format == "txt" and Path(args.input).is_dir()
        inputs = text_files(args.input)[0] if folder else [args.input]
        if folder and _is_text_within(args.output, args.input):
            expected = "another ending, or another folder: it would be read as a document"
            raise ValueError(f"--output {args.output}: found a .txt file within the input folder, expected {expected}")
        inputs += [*(args.extensions or ()), *filter(None, [args.rules])]
        refuse_overwriting([*output_files(args.output), working_file(args.output)], inputs)


def _is_text_within(file, folder):
    file = Path(file).resolve()
    return file.suffix.lower() == ".txt" and Path(folder).resolve() in file.parents


def run(args: argparse.Namespace) -> int:
    """The command; returns the exit status."""
    import_extensions(args.extensions)
    processes = launched_processes()
    if processes.rank:
        _help(args, processes)
        return 0
    _check(args, processes)
    form = args.output_format or _form_of(args.output)
    stream = open_stream(args.output) if args.output != STANDARD_STREAM else None
    standard = stream or args.output == STANDARD_STREAM
    total = None
    if args.input != STANDARD_STREAM and (not standard or processes.size > 1):
        # The documents are counted before they are predicted, and each process reads all of them.
        refuse_pipe(args.input, f"a file, or {STANDARD_STREAM} for standard input")
        total = sum(1 for _ in read_items(args.input, args.format))
    with StandardOutput(form, stream) if standard else _resumable_output(args, form) as output:
        items, done = _items_left(args, output), output.read
        if not output.finished or items.more():
            output.resume()
        processes.start({"finished": output.finished, "read": done})
        if not output.finished:
            try:
                _predict(args, output, processes, items, total)
            except KeyboardInterrupt:
                if not standard:
                    print(f"{_of_all(output.read, total)} done; the same command resumes", file=sys.stderr)
                raise
    if not output.read:
        print(f"warning: {args.input} has no document in it", file=sys.stderr)
    elif done and not args.quiet:
        print(f"{_of_all(done, output.read)} done by an earlier run", file=sys.stderr)
    _report(output, args)
    # A launcher would take any other status for a process that has died.
    return SOME_REJECTED if output.counts["rejected"] and processes.size == 1 else 0


def _form_of(output):
    """The form of an output by its name."""
    suffix = Path(output).suffix.lower()
    if suffix in _OTHER_FORMS:
        expected = ".jsonl, .csv or --output_format; `view` and `graph` make pages and graphs of JSON lines"
        raise ValueError(f"--output {output}: found a file name that ends in {suffix}, expected {expected}")
    return "csv" if suffix == ".csv" else "jsonl"


def _of_all(number, total):
    if total is None:
        return counted(number, ("document is", "documents are"))
    return f"{number:,} of {counted(total, DOCUMENTS)} are"


def _help(args, processes):
    """Predicts batches for the first process, which alone reads the run's state, writes and reports."""
    state = processes.start(None)
    if not state["finished"]:
        items = _Items(args)
        items.skip(state["read"])
        for _ in _predict_own(args, items, processes):
            pass


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
        return TripleSelection(**_selection_fields(args))


def _selection_fields(args):
    return {name: getattr(args, name) for name in TripleSelection.field_names()}


def _resumable_output(args, form):
    models = {name: getattr(args, name) for name in ("model", "ner")}
    settings = {"version": __version__, "trust_remote_code": args.trust_remote_code}
    settings |= {key: name and model_identity(name, args.trust_remote_code) for key, name in models.items()}
    settings |= {name: getattr(args, name) for name in _SETTINGS}
    settings["rules"] = args.rules and file_sha256(args.rules)
    if args.both_directions:
        settings["both_directions"] = True
    settings |= _selection(args).given()
    if form != "jsonl":
        settings["output_format"] = form
    settings["extensions"] = args.extensions and [file_sha256(file) for file in args.extensions]
    return ResumableOutput(args.output, settings, args.restart, form)


class _Items:
    """Items of the input in batches. A run that is resumed with the same `--batch_size` has the same batches again: the last bits
    of scores depend on them.

    Attributes:
        read (`int`): how many items of the input were read.
        batches (`int`): how many batches were read.
    """

    def __init__(self, args):
        self._digest, self._size = hashlib.sha256(), args.batch_size
        self._items = with_ids(hashed(read_items(args.input, args.format), self._digest))
        self.read = self.batches = 0

    @property
    def sha256(self) -> str:
        """Hash of the items that were read."""
        return self._digest.hexdigest()

    def skip(self, number: int) -> None:
        """Reads items that an earlier run has done: their ids count."""
        self.read += sum(1 for _ in islice(self._items, number))

    def more(self) -> bool:
        """Whether there are items that were not read."""
        for item in self._items:
            self._items = chain([item], self._items)
            return True
        return False

    def batch(self, number: int) -> list[Item]:
        """The batch of this number, from 0, which rises from call to call. It is empty behind the last one."""
        while True:
            batch = list(islice(self._items, self._size))
            self.read += len(batch)
            self.batches += bool(batch)
            if not batch or self.batches > number:
                return batch


def _items_left(args, output):
    """Items of the input behind those that are done; a `ValueError` where these are not those that were done."""
    items = _Items(args)
    items.skip(output.read)
    if output.read and items.sha256 != output.input_sha256:
        # Standard input was read.
        again = with_ids(read_items(args.input, args.format)) if args.input != STANDARD_STREAM else ()
        changed = changed_item(again, output)
        found = f"found another {changed.kind} {changed.place} than" if changed else "begins otherwise than it did for"
        raise ValueError(
            f"{args.input}: {found} {args.output}, expected the documents that are done as they were, and new ones behind them; "
            "`predict --restart` predicts all again; new or changed ones may have an --input and an --output of their own"
        )
    return items


def _other_files(args):
    """How many files of the folder are neither texts nor the command's: OUTPUT, OUTPUT.rejected.jsonl and the like."""
    output = Path(args.output).resolve()
    others = text_files(args.input)[1]
    return sum(not f"{one.resolve()}.".startswith(f"{output}.") for one in others)


def _predict(args, output, processes, items, total):
    if args.format == "txt" and Path(args.input).is_dir() and (others := _other_files(args)):
        print(f"{args.input}: {counted(others, _OTHER_FILES)} not read", file=sys.stderr)
    types, whole = set(), not output.read
    if whole:
        output.begin()
    with progress_bar(total, output.read, args.quiet) as bar:
        for until in _predict_own(args, items, processes):
            for result in processes.take(until):
                for item, error in result.rejected:
                    bar.write(f"rejected: {_named(item)}: {error}", file=sys.stderr)
                for record in result.records:
                    if not record["text"].strip():
                        bar.write(f"without text: {record['id']}", file=sys.stderr)
                types.update(entity["type"] for record in result.records for entity in record["entities"])
                bar.update(result.read - output.read)
                output.write(*result)
    output.finish()
    _suspects(args, processes).forget()
    if whole and output.counts["documents"]:  # of those of an earlier run the types are not known
        for warning in type_warnings(_selection(args), types):
            print(f"warning: --{warning}", file=sys.stderr)


def _named(item):
    """An item in a message. The name of a file says more than its id."""
    place = f"{item.kind} {item.place}"
    return place if item.id is None or item.kind == "file" else f"{place}, id {item.id!r}"


def _predict_own(args, items: _Items, processes: OneProcess | SeveralProcesses) -> Iterator[int | None]:
    """Predicts the batches of this process and hands over what came of them. Gives None after each, and at last the number of
    batches that all processes together have handed over, or will."""
    extract, suspects = _load(args), _suspects(args, processes)
    for number in processes.numbers():
        try:
            batch = items.batch(number)
            if not batch:
                yield items.batches
                return
            records, rejected = suspects.predict(partial(predict_batch, extract), batch)
            result = Result(records, rejected, items.read, items.sha256)
        except Exception as error:  # after what came before it is written
            processes.put(number, error)
            yield number + 1
            return
        processes.put(number, result)
        yield None


def _suspects(args, processes):
    return Suspects(None if args.output == STANDARD_STREAM else args.output, processes.rank, args.restart)


def _load(args):
    """What makes records of documents."""
    device = own_device(args.device)
    with without_bars():
        ner = args.ner and load_ner(args.ner, device, args.trust_remote_code)
        device = "cpu" if args.quantize else device
        extract = pipeline(
            TASK, model=args.model, device=device, dtype=args.dtype, trust_remote_code=args.trust_remote_code
        )
    if args.quantize:
        quantize_backbone(extract.model)
    rules = args.rules and read_rules(args.rules)
    if rules:
        try:
            check_rules(rules, extract.processor.relations_of_rules)
        except SettingError as error:
            raise ValueError(f"{args.rules}: {error}") from error
    given = ("batch_size", "threshold_offset", "type_constraint", "both_directions")
    own = {"rules": rules, **{name: getattr(args, name) for name in given}}
    return partial(extract, ner=ner, **own, **_selection_fields(args))


def _report(output, args):
    counts, ner = output.counts, args.ner
    documents = counted(counts["documents"], DOCUMENTS)
    if counts["documents"] and counts["documents"] == counts["without_entities"]:
        found = f"--ner {ner} found no entity" if ner else "there is no entity"
        print(f"warning: {found} in {documents}, so there are no triples", file=sys.stderr)
    of_other_types = counts["lost"].get("relations_of_other_types", 0)
    if of_other_types and not counts["triples"]:
        found = f"{counted(of_other_types, RELATIONS)} above the threshold, none of them"
        text = (
            "between types of head and tail that training showed; --type_constraint none lets such relations through"
        )
        print(f"warning: found {found} {text}", file=sys.stderr)
    cleared = counts["triples"] + counts["lost"].get("triples_not_selected", 0) + of_other_types
    if counts["documents"] > counts["without_entities"] and not cleared:
        found = f"no triple clears the model's threshold in {documents}"
        helps = "a negative --threshold_offset lets more through, and a model that was trained further finds more"
        print(f"warning: {found}; {helps}", file=sys.stderr)
    numbers = [f"{name} {counts[name]:,}" for name in ("documents", "triples", "rejected")]
    if args.rules or counts["derived"]:
        numbers.insert(2, f"of them added by rules {counts['derived']:,}")
    if not_accepted := output.read - counts["documents"] - counts["rejected"]:
        numbers.append(f"not accepted by their annotator {not_accepted:,}")
    for name in ("without_entities", "without_text"):
        if counts[name]:
            numbers.insert(1, f"{name.replace('_', ' ')} {counts[name]:,}")
    lost = [f"{name.replace('_', ' ')} {number:,}" for name, number in counts["lost"].items()]
    if args.quiet and not (counts["lost"] or counts["rejected"]):
        return
    print(f"{', '.join(numbers)}; lost: {', '.join(lost) or 'nothing'}", file=sys.stderr)
