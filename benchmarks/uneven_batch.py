"""
What a batch of documents with uneven numbers of entities costs beside its bare backbone, with contexts document by document as
they are computed, and with all documents padded to the largest grid of entities.

    python benchmarks/uneven_batch.py --backbone "$(python examples/minilm.py)" --output benchmarks/uneven_batch.json

Figures are ratios of CPU seconds of this process on one thread. The forms take turns, one call each; a figure is the median of
the rounds' ratios. A step has no optimizer.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path
from unittest import mock

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from atlop_forward import random_documents
from classifier_step import build

from modeling_comm import EncodedDocuments
from modeling_comm.reporting.run_record import command_line, commit_of, versions
from modeling_comm.utils.files import write_json

BATCHES = {"one of 120 beside 15 of 3": [120, *[3] * 15], "40, 12, 10 and 8": [40, 12, 10, 8]}
WORDS = 150


def seconds(run):
    start = time.process_time()
    run()
    return time.process_time() - start


def measure(backbone, sizes, emb_size, rounds):
    """Ratios to the bare backbone, by form."""
    torch.set_num_threads(1)
    model, processor = build(backbone, "atlop", emb_size, "cmm", [f"R{index}" for index in range(1, 97)])
    batch = processor([random_documents(1, WORDS, size, size)[0] for size in sizes])

    def bare():
        return model.backbone(batch["input_ids"], batch["attention_mask"]).last_hidden_state.pow(2).mean()

    def forward(run):
        with torch.no_grad():
            run()

    forms = {
        "bare step": lambda: bare().backward(),
        "bare forward": lambda: forward(bare),
        "step": lambda: model(**batch).loss.backward(),
        "forward": lambda: forward(lambda: model(**batch)),
    }
    taken = {}
    for _ in range(rounds):
        for name, run in forms.items():
            taken.setdefault(name, []).append(seconds(run))
            if not name.startswith("bare"):
                with mock.patch.object(EncodedDocuments, "_uneven_sizes", lambda self: None):
                    taken.setdefault(f"{name}, padded", []).append(seconds(run))
    ratios = {}
    for name, times in taken.items():
        if not name.startswith("bare"):
            beside = taken[f"bare {name.partition(',')[0]}"]
            ratios[name] = round(statistics.median(map(float.__truediv__, times, beside)), 2)
    return ratios


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--backbone", required=True, help="folder of an encoder and its tokenizer")
    parser.add_argument("--emb_size", type=int, default=256, help="of the relation encoder (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="times that each form is run (%(default)s)")
    parser.add_argument("--output", type=Path, help="JSON file for the ratios")
    options = parser.parse_args(argv)
    ratios = {
        name: measure(options.backbone, sizes, options.emb_size, options.rounds) for name, sizes in BATCHES.items()
    }
    for name, found in ratios.items():
        print(f"{name}: " + ", ".join(f"{form} {ratio:.2f}" for form, ratio in found.items()))
    if options.output:
        record = {"words": WORDS, "rounds": options.rounds, "emb_size": options.emb_size, "ratios": ratios}
        commit = commit_of(Path(__file__).parent)
        write_json(options.output, record | {"command": command_line(), "commit": commit, "versions": versions()})


if __name__ == "__main__":
    main()
