"""
What the three relation encoders cost beside their bare backbone and beside their textbook form (benchmarks/textbook.py), and how
that grows with entities and with subword tokens. Prediction, float32, one thread of a CPU.

    make benchmark
    python benchmarks/growth.py --backbone "$(python examples/minilm.py)" --output benchmarks/results/growth.json \
        --docs docs/performance.md

Ratios of CPU seconds of this process; the runs of a row take turns, and the best of several counts. Before anything is timed, the
logits are compared with the textbook form's. The bare backbone reads the same windows. Documents are random, and so are the
relation encoders' weights.
"""

import argparse
import json
import re
import sys
import time
from pathlib import Path

import torch
from transformers import AutoModel

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from atlop_forward import random_documents
from textbook import TEXTBOOK

from modeling_comm import CommForDocumentRelationExtraction, CommProcessor
from modeling_comm.reporting.markdown import table
from modeling_comm.reporting.run_record import command_line, commit_of, versions
from modeling_comm.utils.files import write_json

TOLERANCE = 1e-4
MARKS = ("<!-- benchmarks/growth.py -->", "<!-- end -->")
LABELS = {0: "Na"} | {index: f"R{index}" for index in range(1, 97)}


def models(backbone, relation_encoder, emb_size):
    """The model, and the same with eager attention for the textbook form."""
    made = []
    for attention in ("sdpa", "eager"):
        torch.manual_seed(0)
        made.append(
            CommForDocumentRelationExtraction.from_backbone(
                backbone,
                id2label=LABELS,
                relation_encoder=relation_encoder,
                emb_size=emb_size,
                attn_implementation=attention,
            ).eval()
        )
    return made


def batch_of(processor, tokens, entities):
    """A document of this many subword tokens, with a backbone that knows its words: two mark each mention, two each end."""
    mentions = round(1.35 * entities)
    words = max(tokens - 2 * mentions - 2, 2 * mentions)
    batch = dict(processor(random_documents(1, words, entities, mentions)))
    batch.pop("labels", None)
    return batch


def best_seconds(runs, repeats):
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.process_time()
            run()
            best[name] = min(best[name], time.process_time() - start)
    return best


@torch.no_grad()
def measure(arguments, relation_encoder, bare, processor_of, sizes):
    model, eager = models(arguments.backbone, relation_encoder, arguments.emb_size)
    processor = processor_of(model.config)
    rows = []
    for tokens, entities in sizes:
        batch = batch_of(processor, tokens, entities)
        runs = {
            "bare": lambda batch=batch: bare(batch["input_ids"], batch["attention_mask"]),
            "comm": lambda batch=batch: model(**batch),
        }
        row = {"encoder": relation_encoder, "tokens": tokens, "windows": len(batch["windows"]), "entities": entities}
        if entities <= arguments.textbook_entities and row["windows"] == 1:
            runs["textbook"] = lambda batch=batch: TEXTBOOK[relation_encoder](eager, batch)
            difference = (runs["textbook"]() - model(**batch).logits).abs().max().item()
            if not difference < TOLERANCE:
                raise SystemExit(f"{relation_encoder}: logits differ from the textbook form's by {difference}")
            row["difference"] = difference
        seconds = best_seconds(runs, arguments.repeats)
        row["to the backbone"] = round(seconds["comm"] / seconds["bare"], 2)
        if "textbook" in seconds:
            row["of the textbook form"] = round(seconds["comm"] / seconds["textbook"], 3)
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows


def shown(record) -> str:
    """The table of a record, as it stands in the documentation."""
    header = [
        "relation encoder",
        "subword tokens",
        "entities",
        "ratio to the bare backbone",
        "share of the textbook form",
    ]
    keys = ("encoder", "tokens", "entities", "to the backbone", "of the textbook form")
    return table(header, [[row.get(key) for key in keys] for row in record["rows"]])


def include(page, record):
    """Puts the table between the page's two marks."""
    text = Path(page).read_text(encoding="utf-8")
    start, end = map(re.escape, MARKS)
    new = f"{MARKS[0]}\n\n{shown(record)}\n\n{MARKS[1]}"
    changed, found = re.subn(f"{start}.*?{end}", lambda _: new, text, flags=re.DOTALL)
    if found != 1:
        raise SystemExit(f"{page}: found {found} places for the table, expected one between {MARKS[0]} and {MARKS[1]}")
    Path(page).write_text(changed, encoding="utf-8")


def plot(record, path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    by_entities, by_tokens = figure.subplots(1, 2, sharey=True)
    settings = record["settings"]
    for axes, key, fixed, value in (
        (by_entities, "entities", "tokens", settings["fixed_tokens"]),
        (by_tokens, "tokens", "entities", settings["fixed_entities"]),
    ):
        for encoder in dict.fromkeys(row["encoder"] for row in record["rows"]):
            rows = [row for row in record["rows"] if row["encoder"] == encoder and row[fixed] == value]
            rows = sorted({row[key]: row["to the backbone"] for row in rows}.items())
            axes.plot(*zip(*rows, strict=True), marker="o", label=encoder)
        axes.set(xscale="log", xlabel=f"{key}, with {value} {fixed}")
        ticks = sorted({row[key] for row in record["rows"] if row[fixed] == value})
        axes.set_xticks(ticks, map(str, ticks))
        axes.minorticks_off()
    by_entities.set_ylabel("prediction, ratio to the bare backbone")
    by_entities.legend()
    figure.savefig(path)


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--encoders", nargs="*", choices=tuple(TEXTBOOK), default=list(TEXTBOOK))
    parser.add_argument("--emb_size", type=int, default=768)
    parser.add_argument("--entities", type=int, nargs="*", default=[5, 20, 50, 100, 200])
    parser.add_argument("--tokens", type=int, nargs="*", default=[128, 512, 2048, 8192])
    parser.add_argument("--fixed_entities", type=int, default=20, help="where tokens grow (%(default)s)")
    parser.add_argument("--fixed_tokens", type=int, default=480, help="where entities grow (%(default)s)")
    parser.add_argument(
        "--textbook_entities", type=int, default=50, help="at most: it needs much memory (%(default)s)"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", required=True, help="a JSON file; the plot gets the same name, with .svg")
    parser.add_argument("--docs", help="a page that has a place for the table")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    bare = AutoModel.from_pretrained(arguments.backbone, attn_implementation="sdpa").eval()
    sizes = [(arguments.fixed_tokens, entities) for entities in arguments.entities]
    sizes += [(tokens, arguments.fixed_entities) for tokens in arguments.tokens]
    sizes = list(dict.fromkeys(sizes))

    def processor_of(config):
        return CommProcessor.from_backbone(arguments.backbone, config)

    rows = [row for encoder in arguments.encoders for row in measure(arguments, encoder, bare, processor_of, sizes)]
    kept = ("backbone", "output", "docs")
    record = {
        "rows": rows,
        "settings": {name: value for name, value in vars(arguments).items() if name not in kept},
        "backbone": f"{bare.config.model_type}, {bare.config.num_hidden_layers} layers of {bare.config.hidden_size}",
        "device": "cpu, 1 thread",
        "command": command_line().replace(arguments.backbone, "BACKBONE"),
        "commit": commit_of(Path(__file__).parent),
        "versions": versions(),
    }
    write_json(arguments.output, record)
    plot(record, Path(arguments.output).with_suffix(".svg"))
    if arguments.docs:
        include(arguments.docs, record)


if __name__ == "__main__":
    main()
