"""
By how much a training step of ATLOP with CMM raises a process's memory over its bare backbone's, for documents with many
entities: as it is, with pairs in memory bounded, and in the textbook form of the classifier.

    python benchmarks/training_memory.py --backbone "$(python examples/minilm.py)" --output benchmarks/training_memory.json

One document of 400 words; the relations' gradients are dense, as in the first steps of a training, which is the worst case. Each
step runs in a process of its own, twice: once for its resident memory, whose peak is reset before it (Linux only), and once for
what torch allocates, counted by its profiler. The goal is twice `4 P (2 emb_size + 97)` bytes (head, tail and logits) plus
`4 E^2 (C + d)` for pooling.

By default, glibc takes blocks of up to 32 MiB from a heap, in whose holes the next ones often do not fit. With `--mmap_threshold`
those of this many bytes are given back one by one, as with the environment variable MALLOC_MMAP_THRESHOLD_.
"""

import argparse
import ctypes
import itertools
import json
import multiprocessing
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from atlop_forward import random_documents
from classifier_step import build, in_textbook_form

from modeling_comm.reporting.run_record import command_line, commit_of, versions
from modeling_comm.utils.files import write_json

M_MMAP_THRESHOLD = -3  # of malloc.h
FORMS = ("bare", "comm", "bounded", "textbook")


def resident(field):
    """Bytes of `VmRSS` (now) or `VmHWM` (the peak)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def reset_peak():
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def peak_allocated(run):
    """Bytes of tensors that are alive at the peak of a run, of those that it makes."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = profiler.profiler.kineto_results.events()
    sizes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    return max(itertools.accumulate(size for _, size in sizes))


def peaks_of_step(backbone, form, entities, emb_size, bound, mmap_threshold):
    """Bytes that a step needs on top of the loaded model and of one small step before it, resident and allocated for tensors; and
    the document's subword tokens."""
    if mmap_threshold is not None:
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, mmap_threshold)
    torch.set_num_threads(1)
    model, processor = build(backbone, "atlop", emb_size, "cmm", [f"R{index}" for index in range(1, 97)])

    def step(number):
        batch = processor(random_documents(1, 400, number, number))
        labels = torch.zeros(len(batch["pair_index"]), 97)
        if form == "bare":
            model.backbone(batch["input_ids"], batch["attention_mask"]).last_hidden_state.pow(2).mean().backward()
            return len(batch["document_mask"][0])
        given = {**batch, "labels": labels, "pairs_at_once": bound if form == "bounded" else None}
        run = lambda: model(**given).loss.backward()  # noqa: E731
        in_textbook_form(model, run) if form == "textbook" else run()
        return len(batch["document_mask"][0])

    step(3)  # the parameters' gradients are there from now on
    reset_peak()
    before = resident("VmRSS")
    tokens = step(entities)
    return resident("VmHWM") - before, peak_allocated(lambda: step(entities)), tokens


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--entities", type=int, nargs="*", default=[10, 50, 100])
    parser.add_argument("--emb_size", type=int, default=768)
    parser.add_argument(
        "--forms", nargs="*", default=FORMS, help="bare among them; the textbook form of 100 entities needs 6 GB"
    )
    parser.add_argument("--bound", type=int, default=1024, help="`pairs_at_once` of the bounded step")
    parser.add_argument("--mmap_threshold", type=int, help="bytes; by default glibc chooses")
    parser.add_argument("--output")
    arguments = parser.parse_args()
    rows = []
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for entities in arguments.entities:
            pairs = entities * (entities - 1)
            row = {"entities": entities, "pairs": pairs}
            peaks = {"resident": {}, "allocated": {}}
            for form in arguments.forms:
                given = (
                    arguments.backbone,
                    form,
                    entities,
                    arguments.emb_size,
                    arguments.bound,
                    arguments.mmap_threshold,
                )
                *found, tokens = pool.apply(peaks_of_step, given)
                for measure, peak in zip(peaks.values(), found, strict=True):
                    measure[form] = peak
            pooling = 4 * entities**2 * (tokens + 384)
            row["tokens"] = tokens
            for measure, found in peaks.items():
                bare = found.pop("bare")
                row[f"{measure}, bare, MiB"] = round(bare / 2**20)
                row[f"{measure}, over bare, MiB"] = {
                    form: round((peak - bare) / 2**20) for form, peak in found.items()
                }
            row["goal, MiB"] = round(2 * (4 * pairs * (2 * arguments.emb_size + 97) + pooling) / 2**20)
            print(json.dumps(row), flush=True)
            rows.append(row)
    record = {
        "memory of a step": rows,
        "settings": {name: getattr(arguments, name) for name in ("entities", "emb_size", "bound", "mmap_threshold")},
        "device": "cpu, 1 thread",
        "command": command_line(),
        "commit": commit_of(Path(__file__).parent),
        "versions": versions(),
    }
    if arguments.output:
        write_json(arguments.output, record)


if __name__ == "__main__":
    main()
