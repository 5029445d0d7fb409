"""
Prediction on a CPU in float32, bfloat16 and int8: documents a second as a ratio to float32 in the same run, and F1.

    python benchmarks/deployment.py --model outputs/redocred-mini --test_file test_revised.json \
        --output benchmarks/results/deployment.json

CPU seconds of this process, one thread; the settings take turns, some documents at a time, so that a busy machine slows all of
them alike.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from transformers import pipeline

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import modeling_comm  # noqa: F401  registers the pipeline
from modeling_comm.deployment.quantization import quantize_backbone
from modeling_comm.evaluation.scoring import score
from modeling_comm.reporting.run_record import command_line, commit_of, versions
from modeling_comm.utils.files import file_sha256, read_json, write_json

SETTINGS = ("float32", "bfloat16", "int8")
TURN = 8  # documents


def load(model, setting):
    dtype = "float32" if setting == "int8" else setting
    extractor = pipeline("document-relation-extraction", model=model, device="cpu", dtype=dtype)
    if setting == "int8":
        quantize_backbone(extractor.model)
    return extractor


def facts_of(documents, records):
    return [
        {"title": document["title"], "h_idx": triple["head"], "t_idx": triple["tail"], "r": triple["relation"]}
        for document, record in zip(documents, records, strict=True)
        for triple in record["triples"]
    ]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--model", required=True, help="folder of a COMM checkpoint")
    parser.add_argument("--test_file", required=True, help="labelled documents in DocRED's format")
    parser.add_argument("--documents", type=int, help="of the test file; by default all")
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--output", help="a JSON file for the result")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    documents = read_json(arguments.test_file)[: arguments.documents]
    extractors = {setting: load(arguments.model, setting) for setting in SETTINGS}
    seconds, records = dict.fromkeys(SETTINGS, 0.0), {setting: [] for setting in SETTINGS}
    for extractor in extractors.values():
        extractor(documents[:TURN], batch_size=arguments.batch_size)  # warms up
    for start in range(0, len(documents), TURN):
        for setting, extractor in extractors.items():
            began = time.process_time()
            records[setting] += extractor(documents[start : start + TURN], batch_size=arguments.batch_size)
            seconds[setting] += time.process_time() - began
    rows = []
    for setting in SETTINGS:
        result = score(facts_of(documents, records[setting]), documents)
        rows.append(
            {
                "setting": setting,
                "documents a second, ratio to float32": round(seconds["float32"] / seconds[setting], 2),
                "f1": round(result["f1"], 4),
                "triples": sum(len(record["triples"]) for record in records[setting]),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    if arguments.output:
        settings = {"documents": len(documents), "batch_size": arguments.batch_size}
        write_json(
            arguments.output,
            {
                "rows": rows,
                "settings": settings,
                "test_file": f"sha256 {file_sha256(arguments.test_file)}",
                "device": "cpu, 1 thread",
                "command": command_line(),
                "commit": commit_of(Path(__file__).parent),
                "versions": versions(),
            },
        )


if __name__ == "__main__":
    main()
