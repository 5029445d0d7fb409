"""
Ways to decide on finished runs, from the margins that they kept: each run's own threshold, one offset, a map to probabilities
with one threshold per relation, and rules that complete what was predicted. Nothing is trained.

    python experiments/decisions.py DATA mixed-atl-atlop-minilm-cpu-seed1 --scratch DATA/scratch/valid_scratch.json

Offset, map and rules come from the dev documents. On these, what decides on a document comes from the other four folds of five.
The test documents are scored with what all dev documents give. A second ruler, if --scratch names one, are documents of the
same titles that another team labelled from nothing: those of the test documents that neither the training file nor dev has.

A run that was trained on dev documents has no margins of all of them to learn an offset from: RUN=OTHER gives it that of the run
OTHER. Rules are mined as for the others. Each way is compared with the first run's one offset, too.
"""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import dataset_scripts  # noqa: F401  (registers the data sets)
from dataset_scripts.builder import relation_labels
from experiments.run_grid import EVALUATION, SETTINGS
from experiments.shared import ROOT, write_predictions
from experiments.tables import bootstrap_difference
from modeling_comm.data import get_dataset
from modeling_comm.evaluation.cutoffs import average_precision
from modeling_comm.evaluation.scoring import load_ign_reference, score
from modeling_comm.incomplete_labels.decision_report import cross_fitted_offset
from modeling_comm.incomplete_labels.probability_map import (
    FOLDS,
    cells_looked_at,
    fit_probability_map,
    fold_of,
    reliability,
)
from modeling_comm.incomplete_labels.rules import Fact, derive_facts, facts_of, mine_rules
from modeling_comm.probabilities import ProbabilityMap, sigmoid
from modeling_comm.reporting.markdown import join_cells
from modeling_comm.reporting.run_record import commit_of
from modeling_comm.utils.files import file_sha256, read_json, write_json

RULERS = (("test", "test"), ("ruler", "second ruler"))
AGAINST = (("its one offset", "one_offset"), ("the first run's", "first"))


@dataclass
class Split:
    """
    Documents of a run, and its margins.

    Attributes:
        documents (`list[dict]`): in DocRED's format.
        pairs (`list[np.ndarray]`): for each document `(p, 2)`, all ordered pairs of different entities.
        margins (`list[np.ndarray]`): for each document `(p, R)` float32. A margin that was not kept, because it is among the
            lowest, is the lowest that was.
        labels (`list[np.ndarray]`): for each document `(p, R)` bool.
        kept (`float`): share of the margins that were kept.
    """

    documents: list[dict]
    pairs: list[np.ndarray]
    margins: list[np.ndarray]
    labels: list[np.ndarray]
    kept: float

    @classmethod
    def read(cls, arrays, name: str, documents: list[dict], relations: list[str]) -> "Split":
        """From what [`~experiments.one_run.write_margins`] wrote of the split `name`."""
        document, pair, label, margin = (arrays[f"{name}_{key}"] for key in ("document", "pair", "label", "margin"))
        lowest, column = float(margin.min()), {relation: number for number, relation in enumerate(relations)}
        split = cls(documents, [], [], [], len(margin) / int(arrays[f"{name}_cells"]))
        for index, one in enumerate(documents):
            entities = len(one["vertexSet"])
            head, tail = np.divmod(np.arange(entities**2), max(entities, 1))
            split.pairs.append(np.stack([head, tail], 1)[head != tail])
            margins = np.full((entities**2, len(relations)), lowest, np.float32)
            chosen = document == index
            margins[pair[chosen], label[chosen] - 1] = margin[chosen]
            gold = np.zeros(margins.shape, dtype=bool)
            for fact in facts_of(one):
                gold[fact.head * entities + fact.tail, column[fact.relation]] = True
            split.margins.append(margins[head != tail])
            split.labels.append(gold[head != tail])
        return split

    def facts(self, predicted: list[np.ndarray], relations: list[str]) -> list[set[Fact]]:
        """The facts of decisions `(p, R)`, for each document."""
        return [
            {Fact(*pairs[row].tolist(), relations[column]) for row, column in zip(*np.nonzero(one), strict=True)}
            for pairs, one in zip(self.pairs, predicted, strict=True)
        ]


@dataclass
class Decisions:
    """
    Ways to decide, as dev documents chose them.

    Attributes:
        required (`dict`): by way without rules, the margin that a cell has to exceed: a number, or one for each relation.
        rules (`list[Rule]`): complete what "one offset" and "map" predict.
        map (`ProbabilityMap`, *optional*): the one behind "map".
        on_dev (`dict`): by way, the facts of each dev document, cross-fitted. Empty if the run was trained on these documents.
    """

    required: dict
    rules: list
    map: ProbabilityMap | None
    on_dev: dict

    def of(self, split: Split, relations: list[str]) -> dict[str, list[set[Fact]]]:
        """By way, the facts of each document."""
        lowest = min(float(one.min()) for one in split.margins if one.size)
        if min(float(np.min(least)) for least in self.required.values()) <= lowest:
            raise ValueError(f"an offset is below {lowest:.2f}, the lowest margin that was kept; keep more margins")
        ways = {
            way: split.facts([one > least for one in split.margins], relations) for way, least in self.required.items()
        }
        with_rules = [way for way in ("one offset", "map") if way in ways]
        return ways | {f"{way}, rules": [completed(facts, self.rules) for facts in ways[way]] for way in with_rules}


def decide(dev: Split, relations: list[str]) -> Decisions:
    """All ways, fitted on dev documents."""
    offset, by_offset = cross_fitted_offset(dev.margins, dev.labels)
    fitted = fit_probability_map(dev.margins, dev.labels)
    required = {"own threshold": 0.0, "one offset": offset, "map": fitted.map.offsets()}
    decisions = Decisions(required, mine_rules(dev.documents), fitted.map, {})
    decisions.of(dev, relations)  # were enough margins kept?
    decisions.on_dev = {
        "own threshold": dev.facts([one > 0 for one in dev.margins], relations),
        "one offset": dev.facts(by_offset, relations),
        "map": dev.facts(fitted.predicted, relations),
    }
    fold = fold_of(len(dev.documents))
    of_fold = [
        mine_rules([one for one, at in zip(dev.documents, fold, strict=True) if at != number])
        for number in range(FOLDS)
    ]
    for way in ("one offset", "map"):
        crossed = zip(decisions.on_dev[way], fold, strict=True)
        decisions.on_dev[f"{way}, rules"] = [completed(facts, of_fold[number]) for facts, number in crossed]
    return decisions


def completed(facts: set[Fact], rules) -> set[Fact]:
    return facts | {one.fact for one in derive_facts(facts, rules)}


def official(facts: list[set[Fact]], documents: list[dict]) -> list[dict]:
    pairs = zip(facts, documents, strict=True)
    return [
        {"title": document["title"], "h_idx": fact.head, "t_idx": fact.tail, "r": fact.relation}
        for found, document in pairs
        for fact in sorted(found)
    ]


def second_ruler(
    scratch: list[dict], documents: list[dict], left_out: set[str]
) -> tuple[list[int], list[set[Fact]], dict]:
    """
    Labels of another team for some documents, with the entities of ours.

    Args:
        scratch (`list[dict]`): their documents.
        documents (`list[dict]`): ours.
        left_out (`set[str]`): titles that do not count.

    Returns:
        indices of our documents, their facts in our entities, and counts of `documents`, `entities`, `unmatched_entities` (of
        theirs: none of ours has one of its mentions) and `unmatched_facts`, which count as missed.
    """
    theirs = {one["title"]: one for one in scratch if one["title"] not in left_out}
    chosen, facts = [], []
    counts = {"documents": 0, "entities": 0, "unmatched_entities": 0, "unmatched_facts": 0}
    for index, document in enumerate(documents):
        if (other := theirs.get(document["title"])) is None:
            continue
        mine = {place: entity for entity, mentions in enumerate(document["vertexSet"]) for place in _places(mentions)}
        found = [next((mine[at] for at in _places(mentions) if at in mine), None) for mentions in other["vertexSet"]]
        ours = [-1 - number if entity is None else entity for number, entity in enumerate(found)]
        of_document = {Fact(ours[one.head], ours[one.tail], one.relation) for one in facts_of(other)}
        counts["documents"] += 1
        counts["entities"] += len(found)
        counts["unmatched_entities"] += found.count(None)
        counts["unmatched_facts"] += sum(min(one.head, one.tail) < 0 for one in of_document)
        chosen.append(index)
        facts.append(of_document)
    return chosen, facts, counts


def _places(mentions):
    return [(mention["sent_id"], *mention["pos"]) for mention in mentions]


def counts_of(facts: list[set[Fact]], gold: list[set[Fact]]) -> np.ndarray:
    """Correct, predicted and gold facts `(1, documents, 3)`, as [`bootstrap_difference`] takes them."""
    pairs = zip(facts, gold, strict=True)
    return np.array([[[len(one & right), len(one), len(right)] for one, right in pairs]])


def compare(name: str, options: argparse.Namespace, first: dict[str, np.ndarray]) -> dict:
    """All scores of a run's ways to decide. `first` has by ruler the counts of the first run's one offset, which sets them."""
    name, takes_another, other = name.partition("=")
    record = read_record(name, options)
    offset = read_record(other, options)["offset"] if takes_another else None
    if takes_another and offset is None:
        raise ValueError(f"{name}={other}: {other} has no offset; expected a run that has tuned one on dev documents")
    check_official(record, "test")
    files = read_files(record, options.data)
    relations = relation_labels(options.data / EVALUATION)[0][1:]
    with np.load(options.results_dir / "margins" / f"{name}.npz") as arrays:
        test = Split.read(arrays, "test", files["test"], relations)
        if takes_another:
            required = {"own threshold": 0.0, "one offset": offset}
            decisions, kept_of_dev = Decisions(required, mine_rules(files["validation"]), None, {}), None
        else:
            if reason := no_dev(record, arrays):
                raise ValueError(f"{name}: found {reason}; expected {name}=OTHER, to take the offset of another run")
            dev = Split.read(arrays, "dev", files["validation"], relations)
            decisions, kept_of_dev = decide(dev, relations), dev.kept
        if options.blind:
            unlabelled = read_json(options.data / EVALUATION / "test_blind.json")
            blind = decisions.of(Split.read(arrays, "blind", unlabelled, relations), relations)
            if unknown := [way for way, _ in options.blind if way not in blind]:
                raise ValueError(f"--blind: found {unknown}; expected ways to decide {name}: {', '.join(blind)}")
    on_dev, on_test, ordered = decisions.on_dev, decisions.of(test, relations), scores_of(decisions, test)
    reference = load_ign_reference(files["train"])
    gold = np.concatenate([one.ravel() for one in test.labels])
    margins = np.concatenate([one.ravel() for one in test.margins])
    kept = margins > margins.min()  # of the others the probability is not known
    ruler, of_rulers = None, {"test": (range(len(test.documents)), list(map(facts_of, test.documents)))}
    if options.scratch:
        left_out = {one["title"] for split in ("train", "validation") for one in files[split]}
        chosen, theirs, ruler = second_ruler(read_json(options.scratch), test.documents, left_out)
        of_rulers["ruler"] = (chosen, theirs)
    result = {"kept": {"dev": kept_of_dev, "test": test.kept}, "second_ruler": ruler, "ways": {}}
    result |= {"offset_of": other} if takes_another else {}
    counts = {
        (way, split): counts_of([facts[index] for index in indices], right)
        for way, facts in on_test.items()
        for split, (indices, right) in of_rulers.items()
    }
    for split in of_rulers:
        first.setdefault(split, counts["one offset", split])
    for way in on_test:
        of_test = score(official(on_test[way], test.documents), test.documents, ign_reference=reference)
        row = {"dev_f1": score(official(on_dev[way], dev.documents), dev.documents)["f1"]} if on_dev else {}
        row |= {f"test_{key}": of_test[key] for key in ("f1", "ign_f1", "precision", "recall", "macro_f1")}
        if way in ordered:
            scores, least = ordered[way]
            row["test_average_precision"] = average_precision(scores, gold, int(gold.sum()))
            probabilities = sigmoid(scores.astype(np.float64))
            shown = cells_looked_at(probabilities, scores > least) & kept
            calibration = reliability(probabilities[shown], gold[shown])
            row |= {f"test_{key}": calibration[key] for key in ("brier", "ece", "cells")}
        for split in of_rulers:
            found = counts[way, split]
            row[f"{split}_minus_one_offset"] = bootstrap_difference(found, counts["one offset", split])
            row[f"{split}_minus_first"] = bootstrap_difference(found, first[split])
        if ruler:
            correct, predicted, right = counts[way, "ruler"].sum((0, 1)).tolist()
            row["ruler_f1"] = 2 * correct / max(predicted + right, 1)
        result["ways"][way] = row
    for way, file in options.blind or ():
        sees = f"{len(files['validation'])} dev documents"
        offset = (
            f" ({decisions.required['one offset']:+.3f}, of {other or name})" if way.startswith("one offset") else ""
        )
        write_blind(Path(file), official(blind[way], unlabelled), way + offset, record, result["ways"][way], sees)
    return result


def scores_of(decisions: Decisions, split: Split) -> dict[str, tuple[np.ndarray, float]]:
    """By way, the scores that order all cells, flat, and the one that a predicted cell exceeds."""
    ordered = {"own threshold": (np.concatenate([one.ravel() for one in split.margins]), 0.0)}
    if decisions.map is not None:
        logits = np.concatenate([decisions.map.logits(one).ravel() for one in split.margins])
        ordered["map"] = (logits, np.log(decisions.map.cut / (1 - decisions.map.cut)))
    return ordered


def write_blind(file: Path, predictions: list[dict], decided_by: str, record: dict, scores: dict, sees: str) -> None:
    """Predictions of unlabelled documents, and beside them a line on what made them and what it saw of complete labels."""
    dev = f", dev F1 {100 * scores['dev_f1']:.2f} by cross-fitting" if "dev_f1" in scores else ""
    made_by = [
        f"decided by: {decided_by}{dev}",
        f"it saw of complete labels: those of the {sees}",
        f"decided at commit {commit_of(ROOT)}, trained at {record['commit']}: {record['command']}",
    ]
    write_predictions(file, predictions, record["name"], made_by)


def read_record(name: str, options: argparse.Namespace) -> dict:
    file = options.results_dir / "runs" / f"{name}.json"
    if not file.is_file():
        raise ValueError(
            f"found no run {name!r}: {file} is not there; expected a finished run that has kept its margins"
        )
    return read_json(file)


def read_files(record: dict, data: Path) -> dict[str, list[dict]]:
    """Documents of a run's setting, whatever files it was trained on; they have to be the same ones as then."""
    config, folder = SETTINGS[record["axes"]["setting"]]
    files = {}
    for split, one in get_dataset(config).files.items():
        if split in record["sha256"]:
            file = data / (folder if split == "train" else EVALUATION) / one.name
            files[split] = read_checked(file, record["sha256"][split])
    return files


def other_documents(record: dict, split: str) -> str | None:
    """What a run was scored on, in words, if that is not the split of its setting, which [`read_files`] reads."""
    used, expected = record["data"]["files"][split], record["sha256"][split]
    if used["sha256"] == expected:
        return None
    return f"{split} documents of {used['source']} (sha256 {used['sha256']}), not those of its setting ({expected})"


def check_official(record: dict, *splits: str) -> None:
    """Raises `ValueError` where a run was not scored on the documents of its setting."""
    for split in splits:
        if other := other_documents(record, split):
            raise ValueError(f"{record['name']}: found {other}")


def no_dev(record: dict, arrays: Mapping) -> str | None:
    """Why nothing can be learnt from the margins of a run on the dev documents of its setting, if so."""
    return other_documents(record, "validation") if "dev_margin" in arrays else "no margins of dev documents"


def runs_with_dev(options: argparse.Namespace) -> list[str]:
    """Runs that have kept margins of the dev documents of their setting; of others it is printed that they are left out."""
    names = []
    for file in sorted((options.results_dir / "margins").glob("*.npz")):
        with np.load(file) as arrays:
            reason = no_dev(read_record(file.stem, options), arrays)
        if reason is None:
            names.append(file.stem)
        else:
            print(f"{file.stem}: left out, with {reason}; {file.stem}=OTHER takes the offset of another run")
    return names


def read_checked(file: Path, sha256: str) -> list[dict]:
    if file_sha256(file) != sha256:
        raise ValueError(f"{file}: found sha256 {file_sha256(file)}; expected {sha256}, that of the run")
    return read_json(file)


def table(results: dict[str, dict]) -> str:
    scores = {"F1": "f1", "Ign F1": "ign_f1", "P": "precision", "R": "recall", "macro F1": "macro_f1"}
    scores |= {"AP": "average_precision", "Brier": "brier", "ECE": "ece"}
    columns = {"dev F1": "dev_f1", **{f"test {name}": f"test_{key}" for name, key in scores.items()}}
    columns["second ruler F1"] = "ruler_f1"
    differences = {
        f"{ruler}, minus {what}": f"{split}_minus_{key}" for split, ruler in RULERS for what, key in AGAINST
    }
    shown = [
        key
        for key in differences.values()
        if any(key in row for one in results.values() for row in one["ways"].values())
    ]
    rows = []
    for name, result in results.items():
        for way, row in result["ways"].items():
            cells = [f"{100 * row[key]:.1f}" if key in row else "" for key in columns.values()]
            of_row = ([100 * value for value in row[key]] for key in shown)
            cells += ["{:+.1f} [{:+.1f}, {:+.1f}]".format(*three) if any(three) else "" for three in of_row]
            rows.append([name, way, *cells])
    return join_cells(
        ["run", "decided by", *columns, *(one for one, key in differences.items() if key in shown)], rows
    )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("data", type=Path, help="folder of the data sets, as for the runs")
    parser.add_argument("names", nargs="*", help="runs, or RUN=OTHER; by default all with margins of dev documents")
    parser.add_argument("--scratch", type=Path, help="documents that another team labelled from nothing")
    parser.add_argument("--results_dir", type=Path, default=ROOT / "results", help="records and margins (%(default)s)")
    parser.add_argument("--output", type=Path, help="JSON file of all scores")
    parser.add_argument(
        "--blind", nargs=2, action="append", metavar=("WAY", "FILE"), help="predictions of one run for test_blind.json"
    )
    options = parser.parse_args(argv)
    if options.blind and len(options.names) != 1:
        parser.error(f"--blind: found {len(options.names)} runs; expected one")
    if not options.data.is_dir():
        parser.error(f"data: found no folder {options.data}")
    names = options.names or runs_with_dev(options)
    first: dict[str, np.ndarray] = {}
    results = {name.partition("=")[0]: compare(name, options, first) for name in names}
    print(table(results))
    for name, result in results.items():
        if result["second_ruler"]:
            print(f"\n{name}: second ruler: {result['second_ruler']}")
    if options.output:
        write_json(options.output, {"commit": commit_of(ROOT), "runs": results})


if __name__ == "__main__":
    main()
