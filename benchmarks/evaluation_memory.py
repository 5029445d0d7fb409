"""
Whether evaluation runs in bounded memory: a tiny model predicts and scores made documents of 96 relations and 15 facts, from a
data set on disk, each number of documents in a process of its own. Reported are the peaks of memory beyond files, and by how much
they grow for each further document.

    python benchmarks/evaluation_memory.py --documents 4000 12000 --output benchmarks/evaluation_memory.json

What is kept of a document depends on its facts and triples, not on its pairs, so documents of 5 entities do. Scores of candidates
are kept up to a number (`--exact`), which both runs exceed; the default of evaluation takes 4 bytes for each of 2^26.
"""

import argparse
import json
import multiprocessing
import sys
import tempfile
import threading
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from helpers import ROOT, random_document, tiny_model, tiny_system

from modeling_comm import CommTrainer, CommTrainingArguments
from modeling_comm.evaluation.ranking import EXACT_CANDIDATES
from modeling_comm.reporting.run_record import command_line, commit_of, versions
from modeling_comm.training import evaluation
from modeling_comm.utils.files import write_json

RELATIONS = [f"P{number}" for number in range(1, 97)]
ENTITIES, FACTS = 5, 15
THRESHOLD = 3.5  # with it the model predicts about as many triples for each document


def anonymous_memory():
    """Bytes of this process's memory that belong to no file: pages of a data set on disk are the system's to give back."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def labelled_document(number):
    document = random_document(ENTITIES, words=30, seed=number, title=f"document {number}")
    document["labels"] = [
        {"h": place % ENTITIES, "t": (place + 1) % ENTITIES, "r": RELATIONS[place], "evidence": []}
        for place in range(FACTS)
    ]
    return document


def generate(start, stop):
    for number in range(start, stop):
        yield labelled_document(number)


def peak_of_evaluation(number, exact):
    import datasets

    evaluation.EXACT_CANDIDATES = exact
    torch.set_num_threads(1)
    config, processor = tiny_system(id2label=dict(enumerate(["Na", *RELATIONS])), emb_size=16, block_size=4)
    model = tiny_model(config)
    with torch.no_grad():
        model.relation_encoder.classifier.linear.bias[0] += THRESHOLD
    with tempfile.TemporaryDirectory() as folder:
        arguments = CommTrainingArguments(
            folder, use_cpu=True, report_to="none", disable_tqdm=True, eval_strategy="no", load_best_model_at_end=False
        )
        arguments.per_device_eval_batch_size = 8
        documents = datasets.Dataset.from_generator(
            generate, gen_kwargs={"start": 0, "stop": number}, cache_dir=folder, keep_in_memory=False
        )
        trainer = CommTrainer(model, arguments, processing_class=processor)
        before, peak, done = anonymous_memory(), [0], threading.Event()

        def watch():
            while not done.wait(0.02):
                peak[0] = max(peak[0], anonymous_memory())

        watcher = threading.Thread(target=watch)
        watcher.start()
        output = trainer.predict(documents)
        done.set()
        watcher.join()
    return {
        "documents": number,
        "peak, MiB": round(peak[0] / 2**20),
        "before, MiB": round(before / 2**20),
        "triples a document": round(output.metrics["test_predicted_positives"] / number, 1),
        "average precision": output.metrics["test_average_precision"],
        "its error": output.metrics.get("test_average_precision_error", 0.0),
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--documents", type=int, nargs=2, default=[4000, 12000])
    parser.add_argument("--exact", type=int, default=2**21)
    parser.add_argument("--output")
    arguments = parser.parse_args()
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        runs = [pool.apply(peak_of_evaluation, (number, arguments.exact)) for number in arguments.documents]
    first, last = runs
    growth = (last["peak, MiB"] - first["peak, MiB"]) * 2**20 / (last["documents"] - first["documents"])
    for run in runs:
        print(json.dumps(run))
    record = {
        "bytes of memory a further document": round(growth),
        "extrapolated to 100,000 documents, MiB": round(
            last["peak, MiB"]
            + (growth * (100_000 - last["documents"]) + 4 * (EXACT_CANDIDATES - arguments.exact)) / 2**20
        ),
        "runs": runs,
        "settings": {"documents": arguments.documents, "exact": arguments.exact},
        "device": "cpu, 1 thread",
        "command": command_line(),
        "commit": commit_of(ROOT),
        "versions": versions(),
    }
    print(record["bytes of memory a further document"], record["extrapolated to 100,000 documents, MiB"])
    if arguments.output:
        write_json(arguments.output, record)


if __name__ == "__main__":
    main()
