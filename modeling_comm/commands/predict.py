"""The command `comm-docre predict`: documents in, relation triples out as JSON lines; a run that is killed can be resumed."""

import argparse
import hashlib
import math
import sys
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import pipeline

from ..configuration_comm import __version__
from ..document_input import NoEntitiesError
from ..documents import DocumentError
from ..extensions import import_extensions
from ..incomplete_labels.rules import read_rules
from ..pipeline_comm import TASK
from ..utils.files import file_sha256
from .errors import refuse_overwriting
from .predict_inputs import STANDARD_STREAM, hashed, read_items, text_files, with_ids
from .predict_models import SPACY_EXAMPLE, check_model, check_ner, load_ner, model_identity
from .predict_outputs import ResumableOutput, StandardOutput, output_files

SOME_REJECTED = 3
_DECIMALS = 6


def _check(args):
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
    _check(args)
    with StandardOutput() if args.output == STANDARD_STREAM else _resumable_output(args) as output:
        if not output.finished:
            _predict(args, output)
    if not output.read:
        print(f"warning: {args.input} has no document in it", file=sys.stderr)
    _report(output)
    return SOME_REJECTED if output.counts["rejected"] else 0


def _resumable_output(args):
    models = {name: getattr(args, name) for name in ("model", "ner")}
    settings = {"version": __version__, "trust_remote_code": args.trust_remote_code}
    settings |= {key: name and model_identity(name, args.trust_remote_code) for key, name in models.items()}
    settings |= {name: getattr(args, name) for name in ("format", "batch_size", "device", "dtype", "threshold_offset")}
    settings["rules"] = args.rules and file_sha256(args.rules)
    settings["extensions"] = args.extensions and [file_sha256(file) for file in args.extensions]
    if args.input != STANDARD_STREAM:
        digest = hashlib.sha256()
        settings["documents"] = sum(1 for _ in hashed(read_items(args.input, args.format), digest))
        settings["input"] = f"sha256 {digest.hexdigest()}"
    return ResumableOutput(args.output, settings, args.restart)


def _predict(args, output):
    digest = hashlib.sha256()
    items = with_ids(hashed(read_items(args.input, args.format), digest))
    for _ in islice(items, output.read):
        pass  # done by an earlier run; their ids count
    if output.read and digest.hexdigest() != output.input_sha256:
        raise ValueError(f"{args.input} begins otherwise than it did for {args.output}; --restart predicts again")
    if args.format == "txt" and Path(args.input).is_dir() and (others := text_files(args.input)[1]):
        print(f"{args.input}: {others:,} other files beside those in .txt are not read", file=sys.stderr)
    ner = args.ner and load_ner(args.ner, args.device, args.trust_remote_code)
    extract = partial(
        pipeline(
            TASK,
            model=args.model,
            device=args.device,
            dtype=args.dtype,
            trust_remote_code=args.trust_remote_code,
        ),
        ner=ner,
        batch_size=args.batch_size,
        threshold_offset=args.threshold_offset,
        rules=args.rules and read_rules(args.rules),
    )
    with tqdm(total=output.settings.get("documents"), initial=output.read, unit=" documents", disable=None) as bar:
        # A resumed run has the same batches again: the last bits of scores depend on them.
        while batch := list(islice(items, args.batch_size)):
            records, rejected = _predict_batch(extract, batch)
            for item, error in rejected:
                bar.write(f"rejected: {item.kind} {item.place}: {error}", file=sys.stderr)
            output.write(records, rejected, output.read + len(batch), digest.hexdigest())
            bar.update(len(batch))
    output.finish()


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
        for name in {"score", "probability"} & triple.keys():
            triple[name] = round(triple[name], _DECIMALS)
        for sentence in triple["explanation"]:
            sentence["weight"] = round(sentence["weight"], _DECIMALS)
    return record


def _report(output):
    numbers = [f"{name} {output.counts[name]:,}" for name in ("documents", "triples", "rejected")]
    lost = [f"{name.replace('_', ' ')} {number:,}" for name, number in output.counts["lost"].items()]
    print(f"{', '.join(numbers)}; lost: {', '.join(lost) or 'nothing'}", file=sys.stderr)
