"""
A training step on a GPU: COMM-ATLOP with CMM beside its bare backbone and beside its textbook form, bfloat16, optimizer included.

    python benchmarks/gpu.py --output benchmarks/results/gpu.json

By default BERT's base size with random weights, 16 documents of 512 subword tokens and 20 entities, with dropout. Goal: at most
1.25 times the bare backbone's step, and 5 times faster than the textbook form's. It needs no file and no network. It starts no
step after `--limit` seconds; what is not measured by then is missing from the result. Without a GPU it runs on the CPU, where
smaller sizes are advisable.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import torch
from transformers import AutoConfig

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from textbook import TEXTBOOK

from modeling_comm import CommConfig, CommForDocumentRelationExtraction
from modeling_comm.losses import loss_from_config
from modeling_comm.reporting.run_record import command_line, commit_of, versions
from modeling_comm.utils.files import write_json

VOCABULARY = 30_000
GOALS = {"to the bare backbone": 1.25, "textbook form to it": 5.0}


def config_of(arguments):
    text_config = AutoConfig.for_model(
        "bert",
        vocab_size=VOCABULARY,
        hidden_size=arguments.hidden,
        num_hidden_layers=arguments.layers,
        num_attention_heads=max(1, arguments.hidden // 64),
        intermediate_size=4 * arguments.hidden,
    )
    return CommConfig(
        text_config=text_config,
        id2label={0: "Na"} | {index: f"R{index}" for index in range(1, 97)},
        relation_encoder="atlop",
        loss="cmm",
        emb_size=arguments.emb_size,
    )


def random_batch(arguments, device):
    """What a processor would make of random documents of one length; one fact in forty pairs."""
    generator = torch.Generator().manual_seed(0)
    documents, tokens, entities = arguments.documents, arguments.tokens, arguments.entities
    mentions = round(1.35 * entities)

    def whole(*shape, low=0, high):
        return torch.randint(low, high, shape, generator=generator)

    pairs = [
        (document, head, tail)
        for document in range(documents)
        for head in range(entities)
        for tail in range(entities)
        if head != tail
    ]
    labels = torch.zeros(len(pairs), 97)
    facts = whole(max(1, len(pairs) // 40), high=len(pairs))
    labels[facts, whole(len(facts), low=1, high=97)] = 1.0
    batch = {
        "input_ids": whole(documents, tokens, low=1000, high=VOCABULARY),
        "attention_mask": torch.ones(documents, tokens, dtype=torch.long),
        "windows": torch.tensor([(document, 0, 0, tokens) for document in range(documents)]),
        "document_mask": torch.ones(documents, tokens, dtype=torch.bool),
        "mention_positions": whole(documents, mentions, high=tokens),
        "mention_entities": (torch.arange(mentions) % entities).expand(documents, -1).contiguous(),
        "entity_mask": torch.ones(documents, entities, dtype=torch.bool),
        "pair_index": torch.tensor(pairs),
        "labels": labels,
    }
    return {name: tensor.to(device) for name, tensor in batch.items()}


def step_of(parameters, loss, device):
    """A training step, as a function."""
    optimizer = torch.optim.AdamW(parameters, lr=1e-5, fused=True)

    def step():
        with torch.autocast(device, dtype=torch.bfloat16):
            value = loss()
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return value

    return step


def runs_of(arguments, batch, device):
    """The three steps, each by a model of its own, made when its turn comes: memory holds one at a time."""

    def model(attention):
        torch.manual_seed(0)
        config = config_of(arguments)
        config._attn_implementation = attention
        return CommForDocumentRelationExtraction(config).to(device).train()

    def bare():
        backbone = model("sdpa").backbone
        given = {name: batch[name] for name in ("input_ids", "attention_mask")}
        return backbone, lambda: backbone(**given).last_hidden_state.float().pow(2).mean()

    def comm():
        made = model("sdpa")
        return made, lambda: made(**batch).loss

    def textbook():
        made = model("eager")
        loss = loss_from_config(made.config)
        return made, lambda: loss(TEXTBOOK["atlop"](made, batch), batch["labels"])

    return {"bare backbone": bare, "COMM": comm, "textbook form": textbook}


def seconds_of(step, arguments, device, deadline):
    """The median second of a step, and the peak of the GPU's memory."""
    times = []
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for number in range(arguments.warmup + arguments.steps):
        start = time.perf_counter()
        step()
        if device == "cuda":
            torch.cuda.synchronize()
        if number >= arguments.warmup:
            times.append(time.perf_counter() - start)
        if time.monotonic() > deadline:
            break
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else None
    return (statistics.median(times) if times else None), peak


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--emb_size", type=int, default=768)
    parser.add_argument("--documents", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--entities", type=int, default=20)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--limit", type=float, default=420, help="seconds (%(default)s)")
    parser.add_argument("--output", required=True, help="a JSON file for the result")
    arguments = parser.parse_args(argv)
    deadline = time.monotonic() + arguments.limit
    device = "cuda" if torch.cuda.is_available() else "cpu"
    batch = random_batch(arguments, device)
    seconds, peaks = {}, {}
    for name, make in runs_of(arguments, batch, device).items():
        module, loss = make()
        step = step_of(list(module.parameters()), loss, device)
        seconds[name], peaks[name] = seconds_of(step, arguments, device, deadline)
        print(json.dumps({"run": name, "seconds": seconds[name], "peak": peaks[name]}), flush=True)
        del module, loss, step
    ratios = {}
    if seconds["bare backbone"] and seconds["COMM"]:
        ratios["to the bare backbone"] = round(seconds["COMM"] / seconds["bare backbone"], 3)
    if seconds["COMM"] and seconds["textbook form"]:
        ratios["textbook form to it"] = round(seconds["textbook form"] / seconds["COMM"], 2)
    print(json.dumps({"ratios": ratios, "goals": GOALS}))
    write_json(
        arguments.output,
        {
            "ratios": ratios,
            "goals": GOALS,
            "peak memory, MiB": {name: peak and round(peak / 2**20) for name, peak in peaks.items()},
            "settings": {name: value for name, value in vars(arguments).items() if name != "output"},
            "device": torch.cuda.get_device_name() if device == "cuda" else f"cpu, {torch.get_num_threads()} threads",
            "command": command_line(),
            "commit": commit_of(Path(__file__).parent),
            "versions": versions(),
        },
    )


if __name__ == "__main__":
    main()
