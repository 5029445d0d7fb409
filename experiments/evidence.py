"""
Scores what finished runs say about evidence, or trains models of folds for it.

    python experiments/evidence.py score DATA outputs/grid/RUN ... --output results/evidence.json
    python experiments/evidence.py cost DATA outputs/grid/RUN results/evidence.json --output results/cost.json
    python experiments/evidence.py folds DATA outputs/evidence-folds --output results/evidence_folds.json -- FLAGS

`score` takes checkpoints that a grid kept (`--keep`). Everything is tuned on the dev documents: one offset, the evidence
threshold on the facts that it leaves, and the fusion threshold. On the test documents, it scores relations with one offset and
with fusion, and evidence: with all annotated facts given; of the facts that are predicted, right and annotated; and as the
leaderboard does. A model that was not trained for evidence is asked once only. `cost` says how many times as long fusion takes,
with what `score` has tuned.

`folds` trains one model without each fold of DocRED's own training documents, in which 90 % of the facts have evidence, and
scores the sentences of the annotated facts of that fold. The threshold of a fold is the best one of the four other folds. What
comes after `--` are flags of `run_docre.py`. The same command resumes.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import run_docre
from experiments.decisions import check_official, read_files
from experiments.one_run import document_counts
from experiments.run_grid import EVALUATION
from experiments.shared import ROOT, check_settings, own_and_passed
from experiments.tables import bootstrap_difference
from modeling_comm import CommForDocumentRelationExtraction, CommProcessor, CommTrainer, CommTrainingArguments
from modeling_comm.decoding import official_predictions
from modeling_comm.evaluation.cutoffs import tune_offset
from modeling_comm.evaluation.evidence_scores import sentence_rates
from modeling_comm.evaluation.scoring import load_ign_reference, score
from modeling_comm.incomplete_labels.probability_map import FOLDS, fold_of
from modeling_comm.reporting.markdown import join_cells
from modeling_comm.reporting.run_record import commit_of
from modeling_comm.training.script_arguments import parse_arguments
from modeling_comm.utils.files import file_sha256, read_json, write_json

UNTRAINED = (
    0.2  # the evidence threshold, before it is tuned, of models that have none: those without an `evidence_weight`
)
WAYS = ("one offset", "fusion", "fusion near the threshold")
NEAR = 1.0  # the margin below which a pair is near the threshold
TIMED = 40  # documents


def trainer_of(folder: Path) -> CommTrainer:
    """A trainer that predicts, on the CPU and in the precision of the run."""
    run = read_json(folder / "run.json")
    training = CommTrainingArguments(
        str(folder),
        eval_strategy="no",
        load_best_model_at_end=False,
        use_cpu=True,
        bf16=run["training_arguments"]["bf16"],
        disable_tqdm=True,
        report_to=[],
    )
    processor = CommProcessor.from_pretrained(folder)
    if processor.decision.evidence_threshold is None:
        processor.decision.evidence_threshold = UNTRAINED
    model = CommForDocumentRelationExtraction.from_pretrained(folder)
    return CommTrainer(model, training, processing_class=processor)


# -------------------------------------------------------------------------------------------------------- finished runs


def score_run(folder: Path, data: Path, records: Path) -> dict:
    """Scores of one checkpoint, by way to decide."""
    record = read_json(records / f"{folder.name}.json")
    check_official(record, "validation", "test")
    files = read_files(record, data)
    reference = load_ign_reference(files["train"])
    trainer = trainer_of(folder)
    decision = trainer.processing_class.decision
    ways, counts = {}, {}
    trained = trainer.model.config.evidence_weight > 0
    for way in WAYS if trained else WAYS[:1]:
        if way == "one offset":
            tuned = {"offset": trainer.tune_threshold_offset(files["validation"])}
            tuned["evidence_threshold"] = trainer.tune_evidence_threshold(files["validation"])
        else:
            decision.fusion_range = None if way == "fusion" else NEAR
            tuned = {"fusion_threshold": trainer.tune_fusion_threshold(files["validation"])}
        output = trainer.predict(files["test"])
        predictions = official_predictions(output.predictions, files["test"], trainer.processing_class.id2label)
        scores = score(predictions, files["test"], ign_reference=reference)
        counts[way] = _counts(predictions, files["test"])
        difference = bootstrap_difference(counts[way], counts["one offset"])
        ways[way] = tuned | {"minus_one_offset": difference}
        ways[way] |= {key: scores[key] for key in ("f1", "ign_f1", "precision", "recall")}
        if way == "one offset":
            ways[way] |= {key: scores[key] for key in ("evidence", "evidence_of_correct")}
            ways[way]["evidence_f1_given_facts"] = output.metrics["test_evidence_f1_given_facts"]
    return {"commit": record["commit"], "seconds": record["seconds"], "ways": ways} | {
        key: record["test"][key] for key in ("f1", "ign_f1", "average_precision")
    }


def _counts(predictions, documents):
    """As [`bootstrap_difference`] takes them."""
    counts = document_counts(predictions, documents)
    return np.array([[counts[key] for key in ("correct", "predicted", "gold")]]).transpose(0, 2, 1)


def cost_of(folder: Path, data: Path, ways: dict, rounds: int = 2) -> dict[str, float]:
    """How many times as long each way takes as deciding once, with what was tuned: the best of the rounds, in turns."""
    trainer = trainer_of(folder)
    decision = trainer.processing_class.decision
    decision.evidence_threshold = ways["one offset"]["evidence_threshold"]
    documents, seconds = read_json(data / EVALUATION / "test_revised.json")[:TIMED], {}
    for _ in range(rounds):
        for way, tuned in ways.items():
            decision.threshold_offset = tuned.get("offset", 0.0)
            decision.fusion_threshold = tuned.get("fusion_threshold")
            decision.fusion_range = NEAR if way == WAYS[-1] else None
            start = time.perf_counter()
            trainer.predict(documents)
            seconds.setdefault(way, []).append(time.perf_counter() - start)
    return {way: min(times) / min(seconds["one offset"]) for way, times in seconds.items()}


def fusion_cells(way: dict) -> list[str]:
    difference = "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * value for value in way["minus_one_offset"]))
    return [f"{100 * way['f1']:.1f}", difference]


def score_table(runs: dict[str, dict]) -> str:
    columns = [
        "run",
        "F1",
        "Ign F1",
        "AP",
        "F1, offset",
        "F1, fusion",
        "minus offset",
        "near the threshold",
        "minus offset",
    ]
    columns += ["evidence F1, facts given", "of right facts: P", "R", "F1", "official F1"]
    rows = []
    for name, run in runs.items():
        offset = run["ways"]["one offset"]
        right = offset["evidence_of_correct"]
        shown = [run["f1"], run["ign_f1"], run["average_precision"], offset["f1"]]
        cells = [f"{100 * value:.1f}" for value in shown]
        for asked_twice in WAYS[1:]:
            way = run["ways"].get(asked_twice)
            cells += fusion_cells(way) if way else ["", ""]
        evidence = [offset["evidence_f1_given_facts"], right["precision"], right["recall"], right["f1"]]
        cells += [f"{100 * value:.1f}" for value in (*evidence, offset["evidence"]["f1"])]
        rows.append([name, *cells])
    return join_cells(columns, rows)


# ---------------------------------------------------------------------------------------------------------------- folds


def score_folds(data: Path, folder: Path, flags: list[str]) -> dict:
    """Trains the models of all folds and scores the sentences that each gives to the facts of its fold."""
    train_file = data / "docred-mini" / "train_annotated.json"
    settings = {"flags": flags, "train_sha256": file_sha256(train_file)}
    check_settings(folder / "settings.json", settings, parse_arguments([*flags, "--output_dir", "unused"]))
    documents = read_json(train_file)
    fold, shares = fold_of(len(documents)), []
    for number in range(FOLDS):
        place, file = folder / f"fold-{number}", folder / f"fold-{number}-shares.json"
        if not file.is_file():
            write_json(
                folder / f"fold-{number}-train.json",
                [one for one, at in zip(documents, fold, strict=True) if at != number],
            )
            words = ["--train_file", folder / f"fold-{number}-train.json", "--output_dir", place, "--do_train"]
            run_docre.run(parse_arguments([*flags, *map(str, words)]))
            write_json(
                file,
                shares_of(trainer_of(place), [one for one, at in zip(documents, fold, strict=True) if at == number]),
            )
        shares.append(read_json(file))
    rows = []
    for number in range(FOLDS):
        others = [one for other in range(FOLDS) if other != number for one in shares[other]]
        values = [share for one in others for share in one["shares"]]
        right = [sentence in one["evidence"] for one in others for sentence in range(len(one["shares"]))]
        threshold, _ = tune_offset(np.array(values, np.float32), np.array(right), sum(right))
        rows.append({"threshold": threshold, "facts": len(shares[number]), **rates(shares[number], threshold)})
    mean = {key: float(np.mean([row[key] for row in rows])) for key in ("precision", "recall", "f1")}
    return {
        "flags": flags,
        "folds": rows,
        "mean": mean,
        "at_0.2": rates([one for part in shares for one in part], 0.2),
    }


def shares_of(trainer: CommTrainer, documents: list[dict]) -> list[dict]:
    """Of each fact that is annotated with evidence: its sentences, and the share of attention of each of the document's."""
    found = []
    for document, result in zip(documents, trainer.predict(documents).predictions, strict=True):
        for label in document["labels"]:
            if label["evidence"]:
                shares = result.sentence_scores[label["h"], label["t"]]
                found.append({"evidence": sorted(set(label["evidence"])), "shares": [round(one, 6) for one in shares]})
    return found


def rates(facts: Sequence[dict], threshold: float) -> dict[str, float]:
    """Precision, recall and F1 of the sentences above the threshold."""
    above = [{number for number, share in enumerate(one["shares"]) if share > threshold} for one in facts]
    found = sentence_rates([(sentences, one["evidence"]) for sentences, one in zip(above, facts, strict=True)])
    return dict(zip(("precision", "recall", "f1"), found, strict=True))


def main(argv: list[str] | None = None) -> None:
    words, flags = own_and_passed(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True)
    of_runs, of_cost, of_folds = map(commands.add_parser, ("score", "cost", "folds"))
    for command in (of_runs, of_cost, of_folds):
        command.add_argument("data", type=Path, help="folder of the data sets, as for the grid")
        command.add_argument("--output", type=Path, required=True, help="JSON file of all scores")
    of_runs.add_argument("folders", type=Path, nargs="+", help="output folders of finished runs")
    of_runs.add_argument("--records", type=Path, default=ROOT / "results" / "runs", help="(%(default)s)")
    of_cost.add_argument("folder", type=Path, help="output folder of a finished run")
    of_cost.add_argument("scores", type=Path, help="file of its scores")
    of_folds.add_argument("folder", type=Path, help="where models and files of the folds are written")
    options = parser.parse_args(words)
    if options.command == "score":
        runs = {folder.name: score_run(folder, options.data, options.records) for folder in options.folders}
        print(score_table(runs))
        result = {"runs": runs}
    elif options.command == "cost":
        ways = read_json(options.scores)["runs"][options.folder.name]["ways"]
        result = {"run": options.folder.name, "documents": TIMED, "times": cost_of(options.folder, options.data, ways)}
        print(result["times"])
    else:
        options.folder.mkdir(parents=True, exist_ok=True)
        result = score_folds(options.data, options.folder, flags)
        print(result["mean"])
    write_json(options.output, {"commit": commit_of(ROOT), **result})


if __name__ == "__main__":
    main()
