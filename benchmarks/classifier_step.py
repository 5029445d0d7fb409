"""
What a training step and a forward pass cost beside their bare backbone's, beside the textbook form of the grouped bilinear
classifier, in float32 and under bfloat16 autocast, for relation encoders and for losses.

    python benchmarks/classifier_step.py --backbone "$(python examples/minilm.py)" --train_file train_revised.json \
        --train_steps 300 --output benchmarks/classifier_step.json

How many cells of the logits' gradient are not zero decides the cost. In a new model all of them are not, and training makes
them few: each model is trained first, under bfloat16 autocast and without dropout, at the rates of
`examples/redocred_mini_cpu.yaml`. A loss of `--losses` is trained for `--loss_steps` from the model of `--losses_from`, to save
time. `--trained FOLDER` keeps trained weights, so that a later run does not train again.

Figures are ratios of CPU seconds of this process. The forms compared take turns, one step each; a figure is the median of the
rounds' ratios, with the middle half of them. Steps include the optimizer (AdamW, clipped gradients) and no dropout.
"""

import argparse
import json
import random
import statistics
import sys
import time
import types
from pathlib import Path

import torch
from transformers import AutoModel

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from modeling_comm import CommForDocumentRelationExtraction, CommProcessor, available_losses
from modeling_comm.reporting.run_record import command_line, commit_of, versions
from modeling_comm.utils.files import write_json

DROPOUT = {
    "none": {"attention_probs_dropout_prob": 0.0, "hidden_dropout_prob": 0.0},
    "recipe": {"attention_probs_dropout_prob": 0.0},
}
# Of examples/redocred_mini_cpu.yaml.
LEARNING_RATE, HEAD_LEARNING_RATE, WARMUP_STEPS, BATCH_SIZE = 1.5e-4, 5e-4, 45, 4


def textbook(self, head, tail):
    """The classifier's forward as it is usually written."""
    groups = (len(head), -1, self.block_size)
    outer = head.view(groups)[..., :, None] * tail.view(groups)[..., None, :]
    return self.linear(outer.flatten(1))


def in_textbook_form(model, run):
    """Calls `run` while the model's classifier computes in the textbook form."""
    classifier = getattr(model.relation_encoder, "pair_feature", None) or model.relation_encoder.classifier
    classifier.forward = types.MethodType(textbook, classifier)
    try:
        return run()
    finally:
        del classifier.forward


def build(backbone, relation_encoder, emb_size, loss, relations, dropout="none"):
    torch.manual_seed(0)
    model = CommForDocumentRelationExtraction.from_backbone(
        backbone,
        id2label=dict(enumerate(["Na", *relations])),
        relation_encoder=relation_encoder,
        emb_size=emb_size,
        loss=loss,
        backbone_overrides=DROPOUT[dropout],
    )
    return model.train(), CommProcessor.from_backbone(backbone, model.config)


def optimizer_of(model, backbone, frozen=False):
    """As in training; with `frozen` at learning rates of 0, so that every step does the same work."""
    inside = {id(parameter) for parameter in backbone.parameters()}
    others = [parameter for parameter in model.parameters() if id(parameter) not in inside]
    rates = (0.0, 0.0) if frozen else (LEARNING_RATE, HEAD_LEARNING_RATE)
    groups = [{"params": list(backbone.parameters()), "lr": rates[0]}]
    if others:
        groups.append({"params": others, "lr": rates[1]})
    return torch.optim.AdamW(groups, eps=1e-6, weight_decay=0.0, fused=True)


def update(model, optimizer):
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


def autocast(dtype):
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bfloat16")


def comm_step(model, optimizer, batch, dtype="float32", shares=None):
    """One training step. Appends to `shares` which part of the gradient's cells is not zero."""
    with autocast(dtype):
        output = model(**batch)
    if shares is not None:
        output.logits.register_hook(lambda gradient: shares.append(shares_of(gradient)))
    output.loss.backward()
    update(model, optimizer)


def shares_of(gradient):
    active = (gradient != 0).float()
    return {"relations": active[:, 1:].mean().item(), "threshold class": active[:, 0].mean().item()}


def mean_shares(shares):
    return {name: round(statistics.fmean(one[name] for one in shares), 4) for name in shares[0]} if shares else None


def backbone_step(model, optimizer, batch, dtype="float32"):
    with autocast(dtype):
        states = model(batch["input_ids"], batch["attention_mask"]).last_hidden_state
    states.float().pow(2).mean().backward()
    update(model, optimizer)


def train(model, processor, documents, steps):
    """Trains; returns the shares of cells that are not zero at each step."""
    optimizer = optimizer_of(model, model.backbone)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / WARMUP_STEPS))
    generator = random.Random(0)
    shares = []
    for step in range(steps):
        comm_step(model, optimizer, processor(generator.sample(documents, BATCH_SIZE)), "bfloat16", shares)
        schedule.step()
        if step % 50 == 49:
            print(f"  step {step + 1}: {mean_shares(shares[-50:])}", flush=True)
    return shares


def parse(setting, arguments):
    """Encoder, emb_size, loss and training steps of a setting `"encoder,emb_size,loss"` or `"encoder,emb_size,loss,steps"`."""
    relation_encoder, emb_size, loss, *steps = setting.split(",")
    return relation_encoder, int(emb_size), loss, int(steps[0]) if steps else arguments.train_steps


def trained(arguments, setting, documents, relations, loss=None):
    """A model of the setting after training; with `loss` trained further with that one."""
    relation_encoder, emb_size, first, steps = parse(setting, arguments)
    model, processor = build(arguments.backbone, relation_encoder, emb_size, loss or first, relations)
    further = [loss, arguments.loss_steps] if loss else []
    name = "-".join(map(str, [relation_encoder, emb_size, first, steps, *further]))
    file = arguments.trained and Path(arguments.trained) / f"{name}.pt"
    if file and file.exists():
        saved = torch.load(file, weights_only=True)
        model.load_state_dict(saved["weights"])
        return model, processor, saved["shares"]
    print(f"training {name}", flush=True)
    if loss:
        before, *_ = trained(arguments, setting, documents, relations)
        model.load_state_dict(before.state_dict())
    shares = train(model, processor, documents, arguments.loss_steps if loss else steps)
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"weights": model.state_dict(), "shares": shares}, file)
    return model, processor, shares


def alternate(runs, repeats):
    """CPU seconds of each run in each round; one round more, the first, warms up."""
    seconds = {name: [] for name in runs}
    for round_ in range(repeats + 1):
        for name, run in runs.items():
            start = time.process_time()
            run()
            if round_:
                seconds[name].append(time.process_time() - start)
    return seconds


def ratio(seconds, name, base):
    ratios = sorted(one / other for one, other in zip(seconds[name], seconds[base], strict=True))
    quarter = len(ratios) // 4
    median, low, high = statistics.median(ratios), ratios[quarter], ratios[-1 - quarter]
    return {"median": round(median, 3), "middle half": [round(low, 3), round(high, 3)]}


def middling(documents):
    by_entities = sorted(documents, key=lambda document: len(document["vertexSet"]))
    middle = len(documents) // 2
    return by_entities[middle - BATCH_SIZE // 2 : middle + BATCH_SIZE // 2]


def measure(arguments, setting, documents, relations, loss=None):
    model, processor, shares = trained(arguments, setting, documents, relations, loss)
    batch = processor(middling(documents))
    given = {key: value for key, value in batch.items() if key != "labels"}
    bare = AutoModel.from_pretrained(arguments.backbone, add_pooling_layer=False, **DROPOUT["none"]).train()
    optimizers = {
        "comm": optimizer_of(model, model.backbone, frozen=True),
        "bare": optimizer_of(bare, bare, frozen=True),
    }
    now = []
    comm_step(model, optimizers["comm"], batch, shares=now)
    relation_encoder, emb_size, first, steps = parse(setting, arguments)
    row = {
        "relation encoder": relation_encoder,
        "emb_size": emb_size,
        "loss": loss or first,
        "training steps": {first: steps} | ({loss: arguments.loss_steps} if loss else {}),
        "pairs": len(batch["labels"]),
        "cells not zero, timed batch": mean_shares(now),
        "cells not zero, last 50 steps of training": mean_shares(shares[-50:]),
        "cells not zero, first 50 steps of training": None if loss else mean_shares(shares[:50]),
    }
    for dtype in arguments.dtypes:

        def step(dtype=dtype):
            comm_step(model, optimizers["comm"], batch, dtype)

        runs = {"bare": lambda dtype=dtype: backbone_step(bare, optimizers["bare"], batch, dtype), "comm": step}
        if not loss:
            runs["textbook"] = lambda step=step: in_textbook_form(model, step)
        seconds = alternate(runs, arguments.repeats)
        row[f"step, {dtype}"] = {name: ratio(seconds, name, "bare") for name in runs if name != "bare"}
        if loss:
            continue
        with torch.no_grad(), autocast(dtype):
            runs = {
                "bare": lambda: bare(batch["input_ids"], batch["attention_mask"]),
                "comm": lambda: model(**given),
                "textbook": lambda: in_textbook_form(model, lambda: model(**given)),
            }
            seconds = alternate(runs, arguments.repeats)
        row[f"forward, {dtype}"] = {name: ratio(seconds, name, "bare") for name in runs if name != "bare"}
    print(json.dumps(row), flush=True)
    return row


def measure_epoch(arguments, documents, relations):
    """An epoch of `examples/redocred_mini_cpu.yaml` and one pass over `--dev_file`, or a part of both: CPU seconds of each form
    and of the bare backbone. Every step is computed in all of them."""
    model, processor = build(arguments.backbone, "atlop", 256, "cmm", relations, dropout="recipe")
    if arguments.epoch_after:
        before, *_ = trained(arguments, f"atlop,256,cmm,{arguments.epoch_after}", documents, relations)
        model.load_state_dict(before.state_dict())
    optimizer = optimizer_of(model, model.backbone)
    draw = random.Random(0)
    order = draw.sample(documents, arguments.epoch_documents or len(documents))
    others = json.loads(Path(arguments.dev_file).read_text(encoding="utf-8"))
    # Training and evaluation are cut alike.
    others = draw.sample(others, round(len(others) * len(order) / len(documents)))
    seconds = dict.fromkeys(("now", "textbook", "bare", "optimizer"), 0.0)
    shares, pairs = [], 0

    def timed(name, run):
        start = time.process_time()
        result = run()
        seconds[name] += time.process_time() - start
        return result

    def backbone(batch):
        return model.backbone(batch["input_ids"], batch["attention_mask"]).last_hidden_state

    for start in range(0, len(order), BATCH_SIZE):
        batch = processor(order[start : start + BATCH_SIZE])
        timed("bare", lambda batch=batch: backbone(batch).pow(2).mean().backward())
        timed("textbook", lambda batch=batch: in_textbook_form(model, lambda: model(**batch).loss.backward()))
        optimizer.zero_grad()
        logits = timed("now", lambda batch=batch: watched(model, batch, shares))
        pairs += len(logits)
        timed("optimizer", lambda: update(model, optimizer))
    steps = dict(seconds)
    model.eval()
    with torch.no_grad():
        for start in range(0, len(others), 8):
            batch = processor([{**one, "labels": None} for one in others[start : start + 8]])
            timed("bare", lambda batch=batch: backbone(batch))
            timed("textbook", lambda batch=batch: in_textbook_form(model, lambda: model(**batch)))
            timed("now", lambda batch=batch: model(**batch))

    def to_textbook(seconds):
        whole = seconds["textbook"] + seconds["optimizer"]
        return {name: round((seconds[name] + seconds["optimizer"]) / whole, 3) for name in ("now", "bare")}

    result = {
        "steps": to_textbook(steps),
        "steps and evaluation": to_textbook(seconds),
        "cells not zero": mean_shares(shares),
        "cpu seconds": {name: round(value, 1) for name, value in seconds.items()},
        "documents": {"training": len(order), "evaluation": len(others)},
        "pairs a step": round(pairs / len(shares)),
        "training steps before": arguments.epoch_after,
    }
    print("epoch", json.dumps(result), flush=True)
    return result


def watched(model, batch, shares):
    """Forward and backward pass. Appends to `shares` which part of the gradient's cells is not zero, and gives the logits."""
    output = model(**batch)
    output.logits.register_hook(lambda gradient: shares.append(shares_of(gradient)))
    output.loss.backward()
    return output.logits


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--backbone", required=True)
    parser.add_argument(
        "--train_file", required=True, help="documents in DocRED's format; four middling ones are timed"
    )
    parser.add_argument("--dev_file", help="documents evaluated after an epoch; without, no epoch is measured")
    parser.add_argument("--epoch_documents", type=int, help="of the training file in the epoch; by default all")
    parser.add_argument("--epoch_after", type=int, default=0, help="training steps before the epoch (%(default)s)")
    parser.add_argument("--train_steps", type=int, default=300)
    parser.add_argument("--loss_steps", type=int, default=100)
    parser.add_argument(
        "--settings",
        nargs="*",
        default=["atlop,256,cmm", "atlop,384,cmm", "atlop,768,cmm", "docunet,384,cmm", "kd_docre,384,cmm"],
        help="ENCODER,EMB_SIZE,LOSS or ENCODER,EMB_SIZE,LOSS,STEPS, with other training steps than --train_steps",
    )
    parser.add_argument(
        "--losses_from", default="atlop,256,cmm", help="the setting that other losses are trained from"
    )
    parser.add_argument("--losses", nargs="*", default=[name for name in available_losses() if name != "cmm"])
    parser.add_argument("--dtypes", nargs="*", default=["float32", "bfloat16"])
    parser.add_argument("--trained", help="folder of trained weights, written and read")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--output")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    documents = json.loads(Path(arguments.train_file).read_text(encoding="utf-8"))
    relations = sorted({label["r"] for document in documents for label in document["labels"]})
    if arguments.trained:  # first of all, so that what is measured is measured close together
        for setting in arguments.settings:
            trained(arguments, setting, documents, relations)
        for loss in arguments.losses:
            trained(arguments, arguments.losses_from, documents, relations, loss)
    record = {
        "ratios to the bare backbone": [
            measure(arguments, setting, documents, relations) for setting in arguments.settings
        ],
        "losses": [measure(arguments, arguments.losses_from, documents, relations, loss) for loss in arguments.losses],
    }
    if arguments.dev_file:
        record["an epoch, ratio to the textbook form's"] = measure_epoch(arguments, documents, relations)
    hidden = ("backbone", "train_file", "dev_file", "trained", "output")
    record |= {
        "settings": {key: value for key, value in vars(arguments).items() if key not in hidden},
        "data": {"file": Path(arguments.train_file).name, "documents": len(documents), "relations": len(relations)},
        "seed": 0,
        "device": f"cpu, {torch.get_num_threads()} thread",
        "command": command_line(),
        "commit": commit_of(Path(__file__).parent),
        "versions": versions(),
    }
    if arguments.output:
        write_json(arguments.output, record)


if __name__ == "__main__":
    main()
