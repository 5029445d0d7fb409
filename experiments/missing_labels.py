"""
How complete are DocRED's labels? They are scored, as if a system had predicted them, against Re-DocRED's labels of the same
documents.

    python experiments/missing_labels.py DATA/docred-mini/train_annotated.json DATA/redocred-mini/train_revised.json \\
        > results/missing_labels.json

Documents are matched by their titles. Those whose entities were revised, too, are counted and left out.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import dataset_scripts  # noqa: F401  (registers the data sets)
from modeling_comm.data import get_dataset
from modeling_comm.evaluation.scoring import score
from modeling_comm.utils.files import file_sha256, read_json


def compare(annotated, revised):
    """
    Args:
        annotated, revised (`list[dict]`): labelled documents in DocRED's format.

    Returns:
        `dict`: numbers of documents in both and of those left out, and the scores of the annotated labels.
    """
    twins = {document["title"]: document for document in revised}
    both = [(one, twins[one["title"]]) for one in annotated if one["title"] in twins]
    same = [(one, twin) for one, twin in both if _entities(one) == _entities(twin)]
    facts = [
        {"title": one["title"], "h_idx": fact["h"], "t_idx": fact["t"], "r": fact["r"]}
        for one, _ in same
        for fact in one["labels"]
    ]
    frequent = get_dataset("docred").frequent_relations
    scores = score(facts, [twin for _, twin in same], frequent_relations=frequent)
    parts = {name: scores[name] for name in ("intra", "inter", "frequent", "long_tail")}
    numbers = {key: scores[key] for key in ("predictions", "gold", "precision", "recall")}
    return {"documents": len(both), "other_entities": len(both) - len(same), **numbers, **parts}


def _entities(document):
    return [
        {(mention["name"], mention["sent_id"], *mention["pos"]) for mention in mentions}
        for mentions in document["vertexSet"]
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("annotated", help="incompletely labelled documents in DocRED's format")
    parser.add_argument("revised", help="documents with complete labels")
    files = parser.parse_args()
    found = compare(read_json(files.annotated), read_json(files.revised))
    hashes = {name: file_sha256(file) for name, file in vars(files).items()}
    json.dump({**found, "sha256": hashes}, sys.stdout, indent=2)
    print()
