"""
Training files with wrong labels, for the label-noise curves: positives removed (false negatives) or wrong ones added (false
positives), the same ones for the same seed; a larger share contains what a smaller one has.

    python experiments/noise.py DATA/redocred-mini/train_revised.json FOLDER --remove 0.35 --add 0 --seed 1

Positives are removed at random. Wrong ones are drawn in proportion to how often each relation occurs, on entity pairs whose types
occur with it and that are not labelled with it.
"""

import argparse
import json
import random
import sys
from collections import Counter, defaultdict
from itertools import permutations
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.shared import ROOT
from modeling_comm.utils.files import read_json, write_json


def with_noise(documents, remove=0.0, add=0.0, seed=1):
    """
    Labelled documents with noise; the ones given stay as they are.

    Args:
        documents (`list[dict]`): in DocRED's format.
        remove, add (`float`): shares of the number of distinct facts; `remove` is in [0, 1].

    Returns:
        the documents, and counts: `facts`, `removed`, `added`, and `added_by_relation`.

    Raises:
        ValueError: a share is out of range, or a relation has too few pairs that could be labelled wrongly.
    """
    if not 0 <= remove <= 1 or add < 0:
        raise ValueError(f"remove is {remove} and add is {add}; expected 0 <= remove <= 1 and add >= 0")
    facts = sorted({(i, fact["h"], fact["t"], fact["r"]) for i, one in enumerate(documents) for fact in one["labels"]})
    shuffled = random.Random(f"remove {seed}").sample(facts, len(facts))
    removed = set(shuffled[: round(remove * len(facts))])
    added = _wrong_facts(documents, facts, round(add * len(facts)), seed)
    noisy = []
    for index, document in enumerate(documents):
        kept = [fact for fact in document["labels"] if (index, fact["h"], fact["t"], fact["r"]) not in removed]
        wrong = [{"h": head, "t": tail, "r": relation, "evidence": []} for head, tail, relation in added[index]]
        noisy.append({**document, "labels": kept + wrong})
    by_relation = Counter(relation for found in added.values() for _, _, relation in found)
    report = {"facts": len(facts), "removed": len(removed), "added": by_relation.total()}
    return noisy, {**report, "added_by_relation": dict(sorted(by_relation.items()))}


def _wrong_facts(documents, facts, number, seed):
    """`(head, tail, relation)` by document index."""
    types = [[mentions[0]["type"] for mentions in document["vertexSet"]] for document in documents]
    pairs, types_of = defaultdict(list), defaultdict(set)
    for index, kinds in enumerate(types):
        for head, tail in permutations(range(len(kinds)), 2):
            pairs[kinds[head], kinds[tail]].append((index, head, tail))
    for index, head, tail, relation in facts:
        types_of[relation].add((types[index][head], types[index][tail]))
    relations = random.Random(f"add {seed}").choices([relation for *_, relation in facts], k=number) if number else ()
    gold, added = set(facts), defaultdict(list)
    for relation, wanted in sorted(Counter(relations).items()):
        free = [pair for kinds in sorted(types_of[relation]) for pair in pairs[kinds] if (*pair, relation) not in gold]
        if wanted > len(free):
            raise ValueError(f"{relation}: found {len(free)} pairs that could be labelled wrongly, expected {wanted}")
        random.Random(f"add {seed} {relation}").shuffle(free)
        for index, head, tail in free[:wanted]:
            added[index].append((head, tail, relation))
    return added


def write_noisy(source, folder, remove=0.0, add=0.0, seed=1):
    """Writes `source` with noise into `folder`, and beside it what was done; returns the path. Data stays out of the
    repository: a folder in it is refused, but for `outputs`, which version control ignores."""
    source, folder = Path(source), Path(folder).resolve()
    if folder.is_relative_to(ROOT) and not folder.is_relative_to(ROOT / "outputs"):
        raise ValueError(f"{folder} is in the repository; expected a folder outside of it (or in outputs)")
    documents, report = with_noise(read_json(source), remove, add, seed)
    path = folder / f"{source.stem}-remove{remove:g}-add{add:g}-seed{seed}.json"
    write_json(path, documents)
    report = {"source": source.name, "remove": remove, "add": add, "seed": seed, **report}
    write_json(path.with_suffix(".noise.json"), report)
    print(json.dumps({"file": path.name, **report}))
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("source", help="labelled documents in DocRED's format")
    parser.add_argument("folder", help="where the noisy file goes")
    parser.add_argument("--remove", type=float, default=0.0, help="share of the positives to remove")
    parser.add_argument("--add", type=float, default=0.0, help="wrong positives to add, as a share of the right ones")
    parser.add_argument("--seed", type=int, default=1)
    write_noisy(**vars(parser.parse_args()))
