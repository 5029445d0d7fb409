"""The command `comm-docre export`: a checkpoint as a program of `torch.export`, or as ONNX; predictions for annotation tools,
or as a table."""

import argparse
import importlib.util
import sys
from pathlib import Path

import torch
from transformers import AutoModel, AutoProcessor

from ..deployment.export import export_onnx, export_program, largest_difference
from ..extensions import import_extensions
from ..reporting.triple_table import COLUMNS, csv_lines
from ..saved_folder import replacing_folder
from ..utils.counted_nouns import DOCUMENTS, TRIPLES, counted
from ..utils.spreadsheet import csv_header
from ..utils.writer import is_standard_output, is_stream, replacing
from . import export_annotations
from .errors import refuse_overwriting
from .predict_models import check_model
from .predict_outputs import check_finished
from .record_inputs import read_records

TOLERANCE = 1e-4
TABLE = "csv"
# The formats of models, by the suffix of --output; the others are annotation tools'.
FORMATS = {".onnx": "onnx", ".pt2": "torch"}


def run(args: argparse.Namespace) -> int:
    """The command; returns the exit status."""
    if (args.model is None) == (args.input is None):
        found = "neither" if args.model is None else "both"
        raise ValueError(f"found {found}, expected --model, a model to export, or --input, predictions for a tool")
    of_model = args.format in (None, *FORMATS.values())
    if of_model != (args.input is None):
        tools = f"--format label-studio, doccano, brat or {TABLE}"
        expected = tools if of_model else f"--input (--model goes with --format {' or '.join(FORMATS.values())})"
        raise ValueError(f"--format is {args.format or 'not given'}; expected {expected}")
    if args.extensions and not of_model:
        raise ValueError(f"--extensions goes without --format {args.format}: it is for the code of a model")
    if args.format == TABLE:
        return _export_table(args)
    if args.format != "doccano" and is_stream(args.output):
        found = (
            f"found standard output, a pipe or a device, expected a {'folder' if args.format == 'brat' else 'file'}"
        )
        raise ValueError(f"--output {args.output}: {found}; only --format doccano and {TABLE} can be written to these")
    return _export_model(args) if of_model else export_annotations.run(args)


def _export_table(args):
    """Writes the triples of predictions as a table."""
    refuse_overwriting([args.output], [args.input])
    check_finished(args.input)
    documents = triples = 0
    with replacing(args.output) as file:
        file.write(csv_header(COLUMNS))
        for record in read_records(args.input):
            file.write(csv_lines([record]))
            documents, triples = documents + 1, triples + len(record["triples"])
    written = f"{counted(documents, DOCUMENTS)}, {counted(triples, TRIPLES)}: {args.output}"
    print(written, file=sys.stderr if is_standard_output(args.output) else sys.stdout)
    return 0


def _export_model(args):
    """Writes the program and says how far it is from the model."""
    form = args.format or FORMATS.get(Path(args.output).suffix.lower())
    if form is None:
        expected = f"a file name that ends with {' or '.join(FORMATS)}, or --format"
        raise ValueError(f"--output is {args.output}; expected {expected}")
    import_extensions(args.extensions)
    try:
        check_model(args.model)
    except ValueError as error:
        raise ValueError(f"--model {error}") from error
    refuse_overwriting(
        [args.output, f"{args.output}.data"],
        [*(Path(args.model).glob("*") if Path(args.model).is_dir() else []), *(args.extensions or ())],
    )
    model = AutoModel.from_pretrained(args.model, dtype="float32").eval()
    processor = AutoProcessor.from_pretrained(args.model)
    for name, what in (("evidence_threshold", "evidence"), ("fusion_threshold", "a second pass over evidence")):
        if (value := getattr(processor.decision, name)) is not None:
            print(
                f"{args.model}: {name} is {value}, but the program gives logits alone, without {what}", file=sys.stderr
            )
    if form == "torch":
        program = export_program(model, processor)
        with replacing(args.output) as file:
            torch.export.save(program, file)
        module = program.module()
        difference = largest_difference(model, processor, lambda batch: module(**batch).logits)
    else:
        output = Path(args.output)
        with replacing_folder(output.parent) as folder:  # there may be a second file
            export_onnx(model, processor, Path(folder, output.name))
        if importlib.util.find_spec("onnxruntime") is None:
            print(f"{args.output}: not compared with the model, which needs onnxruntime")
            return 0
        difference = largest_difference(model, processor, _onnx(args.output))
    print(f"{args.output}: logits differ from the model's by {difference:.1g} at most")
    if not difference < TOLERANCE:  # nor where it is no number
        raise ValueError(f"{args.output}: found a difference of {difference:.1g}, expected less than {TOLERANCE}")
    return 0


def _onnx(path):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    return lambda batch: torch.from_numpy(session.run(["logits"], {name: batch[name].numpy() for name in names})[0])
