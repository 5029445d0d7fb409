"""
What a training step costs beside its bare backbone's, and beside that with the textbook form of the grouped bilinear classifier,
optimizer included, without dropout. Only ratios of one run count: of CPU seconds of this process, alternating, each the best of
several.

    python benchmarks/classifier_step.py --backbone "$(python examples/minilm.py)" --train_file train_revised.json \
        --train_steps 300 --output benchmarks/classifier_step.json

How many cells of the logits' gradient are not zero decides the cost. In a new model all of them are not, and training makes them
few: with `--train_steps` the model is trained first, at the rates of `examples/redocred_mini_cpu.yaml`. Without, the gradient is
cut to given shares (`--shares`) of the relations' cells, at random, and of the threshold class's (`--threshold_share`).
"""

import argparse
import json
import multiprocessing
import random
import resource
import sys
import time
import types
from pathlib import Path

import torch
from transformers import AutoModel

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from atlop_forward import random_documents

from modeling_comm import CommForDocumentRelationExtraction, CommProcessor
from modeling_comm.reporting.run_record import command_line, commit_of, versions
from modeling_comm.utils.files import write_json

WITHOUT_DROPOUT = {"attention_probs_dropout_prob": 0.0, "hidden_dropout_prob": 0.0}
# Of examples/redocred_mini_cpu.yaml.
LEARNING_RATE, HEAD_LEARNING_RATE, WARMUP_STEPS = 1.5e-4, 5e-4, 45


def textbook(self, head, tail):
    """The classifier's forward as it is usually written."""
    groups = (len(head), -1, self.block_size)
    outer = head.view(groups)[..., :, None] * tail.view(groups)[..., None, :]
    return self.linear(outer.flatten(1))


def build(backbone, relation_encoder, emb_size, loss, relations):
    torch.manual_seed(0)
    model = CommForDocumentRelationExtraction.from_backbone(
        backbone,
        id2label=dict(enumerate(["Na", *relations])),
        relation_encoder=relation_encoder,
        emb_size=emb_size,
        loss=loss,
        backbone_overrides=WITHOUT_DROPOUT,
    )
    return model.train(), CommProcessor.from_backbone(backbone, model.config)


def optimizer_of(model, backbone):
    inside = {id(parameter) for parameter in backbone.parameters()}
    others = [parameter for parameter in model.parameters() if id(parameter) not in inside]
    groups = [{"params": list(backbone.parameters()), "lr": LEARNING_RATE}]
    if others:
        groups.append({"params": others, "lr": HEAD_LEARNING_RATE})
    return torch.optim.AdamW(groups, eps=1e-6, weight_decay=0.0, fused=True)


def shares_of(gradient):
    active = gradient != 0
    return {"relations": active[:, 1:].float().mean().item(), "threshold class": active[:, 0].float().mean().item()}


def comm_step(model, optimizer, batch, keep=None):
    """One training step; returns the shares of the gradient's cells that are not zero."""
    output = model(**batch)
    shares = {}

    def cut(gradient):
        gradient = gradient if keep is None else torch.where(keep, gradient, 0.0)
        shares.update(shares_of(gradient))
        return gradient

    output.logits.register_hook(cut)
    output.loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return shares


def backbone_step(model, optimizer, batch):
    model(batch["input_ids"], batch["attention_mask"]).last_hidden_state.pow(2).mean().backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


def train(model, processor, documents, steps):
    optimizer = optimizer_of(model, model.backbone)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / WARMUP_STEPS))
    generator = random.Random(0)
    shares = []
    for step in range(steps):
        shares.append(comm_step(model, optimizer, processor(generator.sample(documents, 4))))
        schedule.step()
        if step % 50 == 49:
            print(f"  step {step + 1}: {shares[-1]}", flush=True)
    return shares


def best_seconds(runs, repeats):
    """CPU seconds of each run, alternating; the first round warms up."""
    best = dict.fromkeys(runs, float("inf"))
    for round_ in range(repeats + 1):
        for name, run in runs.items():
            start = time.process_time()
            run()
            if round_:
                best[name] = min(best[name], time.process_time() - start)
    return best


def measure(arguments, relation_encoder, emb_size, loss, documents, relations):
    model, processor = build(arguments.backbone, relation_encoder, emb_size, loss, relations)
    trained = train(model, processor, documents, arguments.train_steps)
    by_entities = sorted(documents, key=lambda document: len(document["vertexSet"]))
    middle = len(documents) // 2
    batch = processor(by_entities[middle - 2 : middle + 2])
    bare = AutoModel.from_pretrained(arguments.backbone, add_pooling_layer=False, **WITHOUT_DROPOUT).train()
    optimizers = {"comm": optimizer_of(model, model.backbone), "bare": optimizer_of(bare, bare)}
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            group["lr"] = 0.0  # every run does the same work
    classifier = getattr(model.relation_encoder, "pair_feature", None) or model.relation_encoder.classifier

    def in_textbook_form(run):
        classifier.forward = types.MethodType(textbook, classifier)
        try:
            return run()
        finally:
            del classifier.forward

    rows = []
    shape = batch["labels"].shape
    for share in [None] if arguments.train_steps else arguments.shares:
        keep = None
        if share is not None:
            keep = torch.rand(shape, generator=torch.Generator().manual_seed(0)) < share
            keep[:, 0] = torch.rand(shape[0], generator=torch.Generator().manual_seed(1)) < arguments.threshold_share
            if share == 1.0:
                keep[:] = True
        found = comm_step(model, optimizers["comm"], batch, keep)
        seconds = best_seconds(
            {
                "bare": lambda: backbone_step(bare, optimizers["bare"], batch),
                "comm": lambda keep=keep: comm_step(model, optimizers["comm"], batch, keep),
                "textbook": lambda keep=keep: in_textbook_form(
                    lambda: comm_step(model, optimizers["comm"], batch, keep)
                ),
            },
            arguments.repeats,
        )
        rows.append(
            {
                "relation encoder": relation_encoder,
                "emb_size": emb_size,
                "loss": loss,
                "pairs": shape[0],
                "cells not zero": {name: round(value, 4) for name, value in found.items()},
                "step": round(seconds["comm"] / seconds["bare"], 2),
                "step, textbook": round(seconds["textbook"] / seconds["bare"], 2),
            }
        )
    given = {key: value for key, value in batch.items() if key != "labels"}
    with torch.no_grad():
        seconds = best_seconds(
            {
                "bare": lambda: bare(batch["input_ids"], batch["attention_mask"]),
                "comm": lambda: model(**given),
                "textbook": lambda: in_textbook_form(lambda: model(**given)),
            },
            arguments.repeats,
        )
    for row in rows:
        row["forward"] = round(seconds["comm"] / seconds["bare"], 2)
        row["forward, textbook"] = round(seconds["textbook"] / seconds["bare"], 2)
        print(json.dumps(row), flush=True)
    return rows, trained


def peak_of_step(backbone, form, entities, emb_size):
    """Bytes by which a training step raises this process's peak memory; run in a process of its own."""
    torch.set_num_threads(1)
    documents = random_documents(1, 400, entities, entities)
    model, processor = build(backbone, "atlop", emb_size, "cmm", [f"R{index}" for index in range(1, 97)])
    batch = processor(documents)
    labels = torch.zeros(len(batch["pair_index"]), 97)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if form == "bare":
        model.backbone(batch["input_ids"], batch["attention_mask"]).last_hidden_state.pow(2).mean().backward()
    else:
        if form == "textbook":
            classifier = model.relation_encoder.classifier
            classifier.forward = types.MethodType(textbook, classifier)
        model(**{**batch, "labels": labels}).loss.backward()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024


def measure_memory(arguments, emb_size):
    rows = []
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for entities in arguments.entities:
            row = {"entities": entities, "pairs": entities * (entities - 1), "emb_size": emb_size}
            for form in ("bare", "comm", "textbook"):
                peak = pool.apply(peak_of_step, (arguments.backbone, form, entities, emb_size))
                row[f"{form}, MiB"] = round(peak / 2**20)
            print(json.dumps(row), flush=True)
            rows.append(row)
    return rows


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--backbone", required=True)
    parser.add_argument(
        "--train_file", required=True, help="documents in DocRED's format; four middling ones are timed"
    )
    parser.add_argument("--train_steps", type=int, default=0)
    parser.add_argument("--shares", type=float, nargs="*", default=[0.02, 0.1, 0.3, 1.0])
    parser.add_argument("--threshold_share", type=float, default=0.6)
    parser.add_argument(
        "--settings", nargs="*", default=["atlop,768,cmm", "atlop,384,cmm", "atlop,256,cmm", "docunet,384,cmm"]
    )
    parser.add_argument("--entities", type=int, nargs="*", default=[10, 50, 100], help="whose memory is measured")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    documents = json.loads(Path(arguments.train_file).read_text(encoding="utf-8"))
    relations = sorted({label["r"] for document in documents for label in document["labels"]})
    rows, shares = [], {}
    for setting in arguments.settings:
        relation_encoder, emb_size, loss = setting.split(",")
        found, shares[setting] = measure(arguments, relation_encoder, int(emb_size), loss, documents, relations)
        rows += found
    record = {
        "ratios to the bare backbone": rows,
        "shares while training": shares,
        "memory of a step": measure_memory(arguments, 768),
        "settings": {
            key: value for key, value in vars(arguments).items() if key not in ("backbone", "train_file", "output")
        },
        "device": f"cpu, {torch.get_num_threads()} thread",
        "command": command_line(),
        "commit": commit_of(Path(__file__).parent),
        "versions": versions(),
    }
    if arguments.output:
        write_json(arguments.output, record)


if __name__ == "__main__":
    main()
