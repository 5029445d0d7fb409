"""
One cell of a grid, started by `run_grid.py`: trains with `run_docre.py`, predicts the documents for selection and test once, and
writes the record of the run.
"""

import io
import json
import shutil
import sys
import traceback
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import run_docre
from experiments.noise import write_noisy
from experiments.run_grid import BLIND_SUFFIXES
from experiments.shared import write_predictions
from modeling_comm import CommForDocumentRelationExtraction, CommProcessor
from modeling_comm.data import get_dataset
from modeling_comm.decoding import flat_margins, official_predictions
from modeling_comm.evaluation.cutoffs import average_precision, tune_offset
from modeling_comm.evaluation.scoring import load_ign_reference, score
from modeling_comm.reporting.redaction import redact_command
from modeling_comm.training.encode_dataset import encode_dataset
from modeling_comm.training.script_arguments import as_flags, parse_arguments
from modeling_comm.training.trainer import CommTrainer
from modeling_comm.utils.files import read_json, write_json
from modeling_comm.utils.writer import write_bytes

KEPT_MARGINS = {"dev": 30_000, "test": 75_000, "blind": 75_000}  # by split, the highest ones


def run(task):
    """Trains, unless that is done; returns the record."""
    arguments = task["arguments"]
    folder = Path(arguments["output_dir"])
    if task["noise"]:
        clean = arguments["train_file"]
        arguments = {**arguments, "train_file": str(write_noisy(clean, folder.parent / "noise", **task["noise"]))}
    flags = list(as_flags(arguments))
    if not (folder / "run.json").is_file():  # written last
        run_docre.run(parse_arguments(flags))
    record = read_json(folder / "run.json")
    del record["metrics"]
    del record["config"]["id2label"], record["config"]["label2id"], record["processor"]["relation_names"]
    last = record["log"][-1]
    evaluations = [entry for entry in record["log"] if "eval_f1" in entry] or [
        last
    ]  # none chooses: the last epoch counts
    best = next((one for one in evaluations if one["step"] == record["best_checkpoint_step"]), evaluations[-1])
    record |= {
        "command": redact_command(["python", "run_docre.py", *flags]),
        # Seconds and memory are those of the last call.
        "resumed": len(record.pop("resumed_from")),
        "best_epoch": best["epoch"],
        "last_epoch": last["epoch"],
        "steps": last["step"],
    }
    return record | evaluate(task, record, flags, folder)


def evaluate(task, record, flags, folder):
    """Scores of the trained model on dev and test documents, at its own threshold and with one offset tuned on dev; and, where
    wanted, its predictions for the blind test. For a run with `eval_strategy: "no"` the dev documents choose nothing, because it
    was trained on them or is to be trained further on them: only test documents are scored then, at the model's own threshold."""
    arguments = task["arguments"]
    training_args = parse_arguments(flags).training
    chooses = training_args.eval_strategy != "no"
    training_args.eval_strategy, training_args.load_best_model_at_end = "no", False
    how = {"attn_implementation": arguments["attn_implementation"]} if "attn_implementation" in arguments else {}
    model = CommForDocumentRelationExtraction.from_pretrained(folder, **how)
    processor = CommProcessor.from_pretrained(folder)
    trainer = CommTrainer(model, training_args, processing_class=processor)
    reference = load_ign_reference(arguments["ign_reference"])
    frequent = get_dataset(arguments["dataset_config"]).frequent_relations
    scores, offset, margins_of = {"offset": None}, None, {}
    for split, file in (("dev", "validation_file"), ("test", "test_file"))[0 if chooses else 1 :]:
        documents = read_json(arguments[file])
        results = predict(trainer, documents, arguments)
        margins_of[split] = results
        margins, gold = flat_margins(results)
        if offset is None and chooses:
            offset, _ = tune_offset(margins, gold, int(gold.sum()))
            scores["offset"] = offset
        for name, required in ((split, 0.0), (f"{split}_offset", offset))[: 2 if chooses else 1]:
            predictions = at_offset(results, required, documents, processor)
            scores[name] = score(predictions, documents, ign_reference=reference, frequent_relations=frequent)
            del scores[name]["evidence"], scores[name]["evidence_of_correct"]  # not predicted
            if split == "test":
                scores[name]["by_document"] = document_counts(predictions, documents)
            else:
                del scores[name]["per_relation"]
        scores[split]["average_precision"] = average_precision(margins, gold, int(gold.sum()))
    documents = read_json(task["blind_documents"])
    margins_of["blind"] = results = predict(trainer, documents, arguments)
    write_margins(Path(task["results"]) / "margins" / f"{task['name']}.npz", margins_of)
    if task["blind"]:
        ways = zip(BLIND_SUFFIXES, (0.0, offset), ("dev", "dev_offset"), strict=True)
        for suffix, required, split in ways:
            made_with = f"offset {required:.3f}, dev F1 {100 * scores[split]['f1']:.2f}"
            write_blind(task, record, at_offset(results, required, documents, processor), suffix, made_with)
    return scores


def predict(trainer, documents, arguments):
    encoded = encode_dataset(documents, trainer.processing_class, max_length=arguments.get("max_length"))
    return trainer.predict(encoded, keep_margins=True).predictions


def at_offset(results, offset, documents, processor):
    """Predictions in the official format with a margin above `offset`."""
    return official_predictions([one.at_offset(offset) for one in results], documents, processor.id2label)


def write_margins(file, results):
    """
    Keeps the highest margins of a run, so that other decisions can be computed without training again.

    Args:
        file (`Path`): an `.npz` file to write. For each split it holds `SPLIT_document` and `SPLIT_pair` (int16: head times the
            document's number of entities plus tail), `SPLIT_label` (int16, the label id) and `SPLIT_margin` (float16, logit minus
            that of the threshold class), by document, pair and label; and `SPLIT_cells`, the number of cells in all.
        results (`dict[str, list[Predictions]]`): by split, as [`CommTrainer.predict`] returns them.
    """
    arrays = {}
    for split, of_documents in results.items():
        sizes = [one.margins.size for one in of_documents]
        margins = np.concatenate([one.margins.ravel() for one in of_documents])
        kept = np.sort(np.argsort(-margins, kind="stable")[: KEPT_MARGINS[split]])
        document = np.repeat(np.arange(len(sizes)), sizes)[kept]
        row, label = np.divmod(kept - np.cumsum([0, *sizes])[document], of_documents[0].margins.shape[1])
        entities = np.array([round(len(one.pairs) ** 0.5 + 0.5) for one in of_documents])  # n of n (n - 1) pairs
        pairs = np.array([of_documents[d].pairs[r] for d, r in zip(document, row, strict=True)])
        arrays |= {
            f"{split}_document": document.astype(np.int16),
            f"{split}_pair": (pairs[:, 0] * entities[document] + pairs[:, 1]).astype(np.int16),
            f"{split}_label": (label + 1).astype(np.int16),
            f"{split}_margin": margins[kept].astype(np.float16),
            f"{split}_cells": np.array(margins.size),
        }
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    write_bytes(file, content.getvalue())


def document_counts(predictions, documents):
    """Distinct facts that are `correct`, `predicted` and `gold`, each a list with one number per document."""
    predicted = {document["title"]: set() for document in documents}
    for one in predictions:
        predicted[one["title"]].add((one["h_idx"], one["t_idx"], one["r"]))
    gold = [{(fact["h"], fact["t"], fact["r"]) for fact in document["labels"]} for document in documents]
    found = list(predicted.values())
    correct = [len(one & right) for one, right in zip(found, gold, strict=True)]
    return {"correct": correct, "predicted": list(map(len, found)), "gold": list(map(len, gold))}


def write_blind(task, record, predictions, suffix, made_with):
    file = Path(task["results"]) / "blind" / f"{task['blind']}{suffix}.json"
    made_by = [
        f"epoch {record['best_epoch']:g} of {record['last_epoch']:g}, {made_with}",
        f"commit {record['commit']}: {hide(record['command'], task['hidden'])}",
    ]
    write_predictions(file, predictions, task["name"], made_by)


def hide(value, hidden):
    """A JSON value with the places of this machine replaced by names."""
    text = json.dumps(value, ensure_ascii=False)
    for place in sorted(hidden, key=len, reverse=True):
        text = text.replace(place, hidden[place])
    return json.loads(text)


def main(file):
    task = read_json(file)
    record = {"name": task["name"], "status": "finished", **task["identity"], "side_by_side": task["side_by_side"]}
    try:
        record |= run(task)
    except Exception as error:
        traceback.print_exc()
        record |= {"status": "failed", "error": f"{type(error).__name__}: {error}"}
    write_json(Path(task["results"]) / "runs" / f"{task['name']}.json", hide(record, task["hidden"]))
    if record["status"] == "finished" and not task["keep"]:
        shutil.rmtree(task["arguments"]["output_dir"])


if __name__ == "__main__":
    main(sys.argv[1])
