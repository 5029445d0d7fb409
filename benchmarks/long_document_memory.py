"""
Peak memory of predicting one long document: encoding, the model, and the decision, above what importing the library takes.

    python benchmarks/long_document_memory.py --backbone "$(python examples/minilm.py)" --words 40000

By default a tenth of the words are mentions, of 400 entities. The classifier is untrained and its threshold class wins, so that
few relations are predicted. Peaks are of the whole process, which is why each size needs a run of its own.
"""

import argparse
import random
import resource
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from modeling_comm import CommForDocumentRelationExtraction, CommProcessor
from modeling_comm.reporting.run_record import command_line, commit_of, versions
from modeling_comm.utils.files import write_json


def peak_mebibytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts in kibibytes


def long_document(words: int, mentions: int, entities: int) -> dict:
    draw = random.Random(0)
    vocabulary = ["river", "city", "founded", "by", "the", "in", "was", "born", "album", "band", "north", "of", "1998"]
    sentences = [[draw.choice(vocabulary) for _ in range(20)] for _ in range(words // 20)]
    vertices = [[] for _ in range(entities)]
    for number, place in enumerate(draw.sample(range(len(sentences) * 20), mentions)):
        sentence, start = divmod(place, 20)
        mention = {"name": "x", "sent_id": sentence, "pos": [start, start + 1], "type": "MISC"}
        vertices[number % entities].append(mention)
    return {"title": f"{words} words", "sents": sentences, "vertexSet": vertices}


def main():
    imported = peak_mebibytes()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--words", type=int, default=40_000)
    parser.add_argument("--mentions", type=int, help="a tenth of the words by default")
    parser.add_argument("--entities", type=int, default=400)
    parser.add_argument("--output", help="a JSON file for the result")
    arguments = parser.parse_args()
    mentions = arguments.words // 10 if arguments.mentions is None else arguments.mentions
    document = long_document(arguments.words, mentions, arguments.entities)
    labels = {0: "Na"} | {index: f"R{index}" for index in range(1, 97)}
    torch.manual_seed(0)
    model = CommForDocumentRelationExtraction.from_backbone(arguments.backbone, id2label=labels).eval()
    with torch.no_grad():
        model.relation_encoder.classifier.linear.bias[0] = 10.0
    processor = CommProcessor.from_backbone(arguments.backbone, model.config)
    loaded, start = peak_mebibytes(), time.perf_counter()
    with torch.no_grad():
        batch = processor(document)
        encoded = peak_mebibytes()
        outputs = model(**batch)
        forward = peak_mebibytes()
        triples = processor.post_process_relation_extraction(outputs, document)
    result = {
        "MiB above the import": {
            "model loaded": loaded - imported,
            "document encoded": encoded - imported,
            "model run": forward - imported,
            "triples decided": peak_mebibytes() - imported,
        },
        "windows": len(batch["windows"]),
        "pairs": len(outputs.logits),
        "triples": len(triples[0]),
        "seconds": round(time.perf_counter() - start, 1),
    }
    for step, size in result["MiB above the import"].items():
        result["MiB above the import"][step] = round(size)
        print(f"{step:18} {size:8.0f} MiB above the import")
    print(", ".join(f"{result[key]} {key}" for key in ("windows", "pairs", "triples", "seconds")))
    if arguments.output:
        settings = {"words": arguments.words, "mentions": mentions, "entities": arguments.entities}
        provenance = {"command": command_line(), "commit": commit_of(Path(__file__).parent), "versions": versions()}
        write_json(arguments.output, {**result, "settings": settings, **provenance})


if __name__ == "__main__":
    main()
