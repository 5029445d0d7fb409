"""The command `comm-docre predict`: documents in, relation triples out as JSON lines; a run that is killed can be resumed, and
several processes can share one."""

import argparse
import hashlib
import math
import sys
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import pipeline

from ..configuration_comm import __version__
from ..extensions import import_extensions
from ..incomplete_labels.rules import read_rules
from ..pipeline_comm import TASK
from ..utils.files import file_sha256
from ..utils.quantization import quantize_backbone
from .errors import refuse_overwriting
from .predict_batch import predict_batch
from .predict_inputs import STANDARD_STREAM, Item, hashed, read_items, text_files, with_ids
from .predict_models import SPACY_EXAMPLE, check_model, check_ner, load_ner, model_identity
from .predict_outputs import ResumableOutput, StandardOutput, output_files
from .predict_processes import OneProcess, Result, SeveralProcesses, launched_processes, own_device

SOME_REJECTED = 3
# Flags that decide the records, beside the models.
_SETTINGS = ("format", "batch_size", "device", "dtype", "quantize", "threshold_offset")


def _check(args, processes):
    if processes.size > 1 and args.input == STANDARD_STREAM:
        raise ValueError(f"--input - is read by one process; found {processes.size}, expected a file")
    if args.batch_size < 1:
        raise ValueError(f"--batch_size is {args.batch_size}; expected at least 1")
    if args.threshold_offset is not None and not math.isfinite(args.threshold_offset):
        raise ValueError(f"--threshold_offset is {args.threshold_offset}; expected a finite number")
    if args.format == "txt" and args.ner is None:
        raise ValueError(
            "--format txt needs --ner NAME, because raw text does not say what its entities are: an installed spaCy model, such "
            f"as {SPACY_EXAMPLE}, or the folder or Hub name of a Transformers token-classification model"
        )
    for flag, check in (("model", check_model), ("ner", check_ner)):
        if getattr(args, flag) is not None:
            try:
                check(getattr(args, flag), args.trust_remote_code)
            except (ValueError, ImportError) as error:
                raise ValueError(f"--{flag} {error}") from error
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
        refuse_overwriting(output_files(args.output), [*inputs, *(args.extensions or ()), *filter(None, [args.rules])])


def run(args: argparse.Namespace) -> int:
    """The command; returns the exit status."""
    import_extensions(args.extensions)
    processes = launched_processes()
    if processes.rank:
        _help(args, processes)
        return 0
    _check(args, processes)
    with StandardOutput() if args.output == STANDARD_STREAM else _resumable_output(args) as output:
        processes.start({"finished": output.finished, "read": output.read})
        if not output.finished:
            _predict(args, output, processes)
    if not output.read:
        print(f"warning: {args.input} has no document in it", file=sys.stderr)
    _report(output)
    # A launcher would take any other status for a process that has died.
    return SOME_REJECTED if output.counts["rejected"] and processes.size == 1 else 0


def _help(args, processes):
    """Predicts batches for the first process, which alone reads the run's state, writes and reports."""
    state = processes.start(None)
    if not state["finished"]:
        items = _Items(args)
        items.skip(state["read"])
        for _ in _predict_own(args, items, processes):
            pass


def _resumable_output(args):
    models = {name: getattr(args, name) for name in ("model", "ner")}
    settings = {"version": __version__, "trust_remote_code": args.trust_remote_code}
    settings |= {key: name and model_identity(name, args.trust_remote_code) for key, name in models.items()}
    settings |= {name: getattr(args, name) for name in _SETTINGS}
    settings["rules"] = args.rules and file_sha256(args.rules)
    settings["extensions"] = args.extensions and [file_sha256(file) for file in args.extensions]
    if args.input != STANDARD_STREAM:
        digest = hashlib.sha256()
        settings["documents"] = sum(1 for _ in hashed(read_items(args.input, args.format), digest))
        settings["input"] = f"sha256 {digest.hexdigest()}"
    return ResumableOutput(args.output, settings, args.restart)


class _Items:
    """Items of the input in batches. A resumed run has the same batches again: the last bits of scores depend on them.

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

    def batch(self, number: int) -> list[Item]:
        """The batch of this number, from 0, which rises from call to call. It is empty behind the last one."""
        while True:
            batch = list(islice(self._items, self._size))
            self.read += len(batch)
            self.batches += bool(batch)
            if not batch or self.batches > number:
                return batch


def _predict(args, output, processes):
    items = _Items(args)
    items.skip(output.read)
    if output.read and items.sha256 != output.input_sha256:
        raise ValueError(f"{args.input} begins otherwise than it did for {args.output}; --restart predicts again")
    if args.format == "txt" and Path(args.input).is_dir() and (others := text_files(args.input)[1]):
        print(f"{args.input}: {others:,} other files beside those in .txt are not read", file=sys.stderr)
    with tqdm(total=output.settings.get("documents"), initial=output.read, unit=" documents", disable=None) as bar:
        for until in _predict_own(args, items, processes):
            for result in processes.take(until):
                for item, error in result.rejected:
                    bar.write(f"rejected: {item.kind} {item.place}: {error}", file=sys.stderr)
                bar.update(result.read - output.read)
                output.write(*result)
    output.finish()


def _predict_own(args, items: _Items, processes: OneProcess | SeveralProcesses) -> Iterator[int | None]:
    """Predicts the batches of this process and hands over what came of them. Gives None after each, and at last the number of
    batches that all processes together have handed over, or will."""
    extract = _load(args)
    for number in processes.numbers():
        try:
            batch = items.batch(number)
            if not batch:
                yield items.batches
                return
            result = Result(*predict_batch(extract, batch), items.read, items.sha256)
        except Exception as error:  # after what came before it is written
            processes.put(number, error)
            yield number + 1
            return
        processes.put(number, result)
        yield None


def _load(args):
    """What makes records of documents."""
    device = own_device(args.device)
    ner = args.ner and load_ner(args.ner, device, args.trust_remote_code)
    device = "cpu" if args.quantize else device
    extract = pipeline(
        TASK, model=args.model, device=device, dtype=args.dtype, trust_remote_code=args.trust_remote_code
    )
    if args.quantize:
        quantize_backbone(extract.model)
    rules = args.rules and read_rules(args.rules)
    return partial(extract, ner=ner, batch_size=args.batch_size, threshold_offset=args.threshold_offset, rules=rules)


def _report(output):
    numbers = [f"{name} {output.counts[name]:,}" for name in ("documents", "triples", "rejected")]
    lost = [f"{name.replace('_', ' ')} {number:,}" for name, number in output.counts["lost"].items()]
    print(f"{', '.join(numbers)}; lost: {', '.join(lost) or 'nothing'}", file=sys.stderr)
