"""
What COMM-ATLOP costs beside its bare backbone, and beside the textbook form (eager attention of all layers, a loop over
documents, entities and pairs). Ratios of medians within one run, never times.

    python benchmarks/atlop_forward.py --backbone "$(python examples/minilm.py)" --output benchmarks/atlop_forward.json

Random documents of DocRED's size: by default 4 of 250 words with 20 entities and 27 mentions.
"""

import argparse
import random
import statistics
import sys
import time
from pathlib import Path

import torch
from transformers import AutoModel

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from textbook import TEXTBOOK

from modeling_comm import CommForDocumentRelationExtraction, CommProcessor
from modeling_comm.reporting.run_record import command_line, commit_of, versions
from modeling_comm.utils.files import write_json


def random_documents(number, words, entities, mentions, seed=0):
    generator = random.Random(seed)
    vocabulary = ["river", "city", "founded", "by", "the", "in", "was", "born", "album", "band", "north", "of", "1998"]
    documents = []
    for index in range(number):
        starts = generator.sample(range(words - 1), mentions)
        vertices = [[] for _ in range(entities)]
        for place, start in enumerate(starts):
            mention = {"name": "x", "sent_id": 0, "pos": [start, start + 1], "type": "MISC"}
            vertices[place % entities].append(mention)
        sentence = [generator.choice(vocabulary) for _ in range(words)]
        documents.append({"title": f"document {index}", "sents": [sentence], "vertexSet": vertices, "labels": []})
    return documents


def median_seconds(function, repeats, backward):
    times = []
    for _ in range(repeats + 1):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        start = time.perf_counter()
        result = function()
        if backward:
            result.float().pow(2).mean().backward()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])  # the first one warms up


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--documents", type=int, default=4)
    parser.add_argument("--words", type=int, default=250)
    parser.add_argument("--entities", type=int, default=20)
    parser.add_argument("--mentions", type=int, default=27)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--output")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    labels = {0: "Na"} | {index: f"R{index}" for index in range(1, 97)}
    made = {}
    for attention in ("sdpa", "eager"):
        torch.manual_seed(0)
        made[attention] = CommForDocumentRelationExtraction.from_backbone(
            arguments.backbone, id2label=labels, attn_implementation=attention
        ).to(device)
    processor = CommProcessor.from_backbone(arguments.backbone, made["sdpa"].config)
    documents = random_documents(arguments.documents, arguments.words, arguments.entities, arguments.mentions)
    batch = processor(documents).to(device)
    batch.pop("labels")
    bare = AutoModel.from_pretrained(arguments.backbone, attn_implementation="sdpa", trust_remote_code=False).to(
        device
    )
    runs = {
        "bare backbone, sdpa": lambda: bare(batch["input_ids"], batch["attention_mask"]).last_hidden_state,
        "COMM, sdpa and mention rows": lambda: made["sdpa"](**batch).logits,
        "COMM, eager attention": lambda: made["eager"](**batch).logits,
        "textbook loops, eager attention": lambda: TEXTBOOK["atlop"](made["eager"], batch),
    }
    for model in (bare, *made.values()):
        model.eval()  # no dropout: attention dropout alone would slow sdpa down on CPU and hide the rest
    with torch.no_grad():
        difference = (runs["COMM, sdpa and mention rows"]() - runs["textbook loops, eager attention"]()).abs().max()
    result = {"largest difference of logits": float(difference), "ratios to the bare backbone": {}}
    for step in ("forward", "forward and backward"):
        with torch.set_grad_enabled(step != "forward"):
            seconds = {name: median_seconds(run, arguments.repeats, step != "forward") for name, run in runs.items()}
        base = seconds["bare backbone, sdpa"]
        result["ratios to the bare backbone"][step] = {name: round(value / base, 2) for name, value in seconds.items()}
    record = {
        **result,
        "settings": {key: value for key, value in vars(arguments).items() if key not in ("backbone", "output")},
        "backbone": made["sdpa"].config.text_config.model_type
        + f", hidden {made['sdpa'].config.text_config.hidden_size}",
        "device": torch.cuda.get_device_name() if device == "cuda" else f"cpu, {torch.get_num_threads()} threads",
        "command": command_line(),
        "commit": commit_of(Path(__file__).parent),
        "versions": versions(),
    }
    for step, ratios in result["ratios to the bare backbone"].items():
        print(step)
        for name, ratio in ratios.items():
            print(f"  {name:34} {ratio:6.2f}")
    if arguments.output:
        write_json(arguments.output, record)


if __name__ == "__main__":
    main()
