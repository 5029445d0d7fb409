"""
Self-training for incomplete labels, after CAST (Tan et al. 2023): models of k folds label what annotators left out of documents
that they have not seen, and a last model is trained on the union.

    python experiments/self_training.py --work_dir outputs/self --folds 5 --rounds 1 -- --dataset_config docred_mixed \\
        --data_dir DATA/redocred-mini --train_file DATA/docred-mini/train_annotated.json --model_name_or_path MODEL ...

What comes after `--` are flags of `run_docre.py`, the same for all trainings. --train_file is needed; --output_dir, --do_train
and --fit_probability_map are added, and --ign_reference, the given training file, unless the flags name another. A fold's model
adds the facts that it gives a probability above --least_probability, by a map that was fitted on the validation documents. The
models of a later round are trained on the labels of the round before; what they add comes to the given labels, which stay. The
last model is in WORK_DIR/final; with --labels_only there is none, and its labels are in WORK_DIR/round-ROUNDS/labels.json. The
same command resumes.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import dataset_scripts  # noqa: F401  (registers the data sets)
import run_docre
from experiments.shared import at_least, check_settings, own_and_passed
from modeling_comm import CommProcessor, CommTrainer
from modeling_comm.candidate_pairs import ALL_PAIRS, CandidatePairs
from modeling_comm.data import get_dataset
from modeling_comm.decoding import Predictions
from modeling_comm.incomplete_labels.probability_map import fold_of
from modeling_comm.incomplete_labels.rules import Completion, Fact, compare_labels, facts_of
from modeling_comm.probabilities import ProbabilityMap
from modeling_comm.training.build_model import load_checkpoint
from modeling_comm.training.encode_dataset import encode_dataset
from modeling_comm.training.script_arguments import ModelArguments, parse_arguments
from modeling_comm.utils.files import file_sha256, read_json, write_json

CHUNK = 1000  # documents that are encoded, and whose margins are in memory, at a time


def train(flags: list[str], train_file: Path, folder: Path, reference: str) -> None:
    """Trains a model on a file into a folder, unless it is finished there."""
    added = ["--train_file", train_file, "--ign_reference", reference, "--output_dir", folder]
    added += ["--do_train", "--fit_probability_map"]
    run_docre.run(parse_arguments([*flags, *map(str, added)]))


def predict(
    folder: Path, documents: list[dict], flags: list[str], keep_margins: bool = False
) -> tuple[Iterator[Predictions], CommProcessor]:
    """
    What the model of a folder finds in each document, one after the other, and its processor.

    Args:
        folder (`Path`): of the trained model.
        documents (`list[dict]`): in DocRED's format. Their labels are ignored.
        flags (`list[str]`): of `run_docre.py`, that say how to predict.
        keep_margins (`bool`, defaults to `False`): whether results hold all pairs and their margins.
    """
    arguments = parse_arguments([*flags, "--output_dir", str(folder)])
    training = arguments.training
    training.eval_strategy, training.save_strategy, training.load_best_model_at_end = "no", "no", False
    kept = {name: getattr(arguments.model, name) for name in ("attn_implementation", "trust_remote_code")}
    model, processor = load_checkpoint(ModelArguments(str(folder), **kept))
    trainer = CommTrainer(model, training, processing_class=processor)

    def results():
        for start in range(0, len(documents), CHUNK):
            # Without labels nothing is scored: that would need titles that differ.
            chunk = [{key: one[key] for key in one if key != "labels"} for one in documents[start : start + CHUNK]]
            encoded = encode_dataset(chunk, processor, arguments.data.max_length)
            yield from trainer.predict(encoded, keep_margins=keep_margins).predictions

    return results(), processor


def label(folder: Path, documents: list[dict], flags: list[str], least: float) -> list[dict]:
    """The documents with the facts that the model of a folder gives a probability above `least`, beside their own."""
    results, processor = predict(folder, documents, flags, keep_margins=True)
    map_ = processor.decision.probability_map
    if map_ is None:
        raise ValueError(
            f"{folder} has no map to probabilities; expected validation documents that one can be fitted on"
        )
    return [
        completed(one, facts_above(result, map_, processor.relations, least), processor.candidates)
        for one, result in zip(documents, results, strict=True)
    ]


def facts_above(result: Predictions, map_: ProbabilityMap, relations: list[str], least: float) -> list[tuple]:
    """Facts with a probability above `least`, which follows them, that the types of head and tail do not exclude."""
    probabilities = map_.probabilities(result.margins)
    above = probabilities > least
    if result.excluded is not None:
        above &= ~result.excluded
    return [
        (Fact(*result.pairs[row].tolist(), relations[column]), round(float(probabilities[row, column]), 4))
        for row, column in zip(*above.nonzero(), strict=True)
    ]


def completed(document: dict, found: list[tuple], candidates: CandidatePairs = ALL_PAIRS) -> dict:
    """The document with the facts that its labels do not say, in either direction of what says the same. What follows a fact, if
    it is not None, is its probability."""
    known, added = facts_of(document, candidates), []
    for (head, tail, relation), probability in found:
        if (fact := candidates.turn(head, tail, relation)) not in known:
            known.add(Fact(*fact))
            new = {"h": head, "t": tail, "r": relation, "evidence": []}
            added.append(new if probability is None else new | {"probability": probability})
    return {**document, "labels": [*(document.get("labels") or ()), *added]}


def complete_by_folds(documents, given, options, flags, folder: Path, reference: str) -> list[dict]:
    """The given documents, each with what a model adds that was trained on the `documents` of the other folds."""
    fold, result = fold_of(len(documents), options.folds), [None] * len(documents)
    for number in range(options.folds):
        place, file = folder / f"fold-{number}", folder / f"fold-{number}.json"
        held_out = [index for index in range(len(documents)) if fold[index] == number]
        if not file.is_file():
            others = folder / f"fold-{number}-train.json"
            write_json(others, [document for index, document in enumerate(documents) if fold[index] != number])
            train(flags, others, place, reference)
            write_json(file, label(place, [given[index] for index in held_out], flags, options.least_probability))
        for index, document in zip(held_out, read_json(file), strict=True):
            result[index] = document
    return result


def main(argv: list[str] | None = None) -> None:
    words, flags = own_and_passed(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--work_dir", type=Path, required=True, help="folder of all trainings")
    parser.add_argument("--folds", type=at_least(2), default=5, help="number of folds (%(default)s)")
    parser.add_argument("--rounds", type=at_least(1), default=1, help="number of rounds (%(default)s)")
    parser.add_argument("--least_probability", type=float, default=0.5, help="of facts that are added (%(default)s)")
    parser.add_argument(
        "--complete", type=Path, help="documents with complete labels, some the same: to say how right they are"
    )
    parser.add_argument("--labels_only", action="store_true", help="do not train the last model")
    options = parser.parse_args(words)
    arguments = parse_arguments([*flags, "--output_dir", "unused"])
    data = arguments.data
    train_file, candidates = data.train_file, get_dataset(data.dataset_config).candidates
    if train_file is None:
        raise ValueError("after --: --train_file is missing")
    check_settings(
        options.work_dir / "settings.json",
        {"folds": options.folds, "least_probability": options.least_probability, "flags": flags}
        | {"train_sha256": file_sha256(train_file)},
        arguments,
    )
    reference = train_file if data.ign_reference == "train" else data.ign_reference
    given = documents = read_json(train_file)
    complete = read_json(options.complete) if options.complete else []
    for number in range(1, options.rounds + 1):
        folder = options.work_dir / f"round-{number}"
        folder.mkdir(parents=True, exist_ok=True)
        documents = complete_by_folds(documents, given, options, flags, folder, reference)
        write_json(folder / "labels.json", documents)
        added = Completion.between(given, documents, candidates)
        report = {"added": added._asdict()}
        if complete:
            compared = {"before": given, "after": documents}
            report |= {name: compare_labels(labels, complete, candidates) for name, labels in compared.items()}
        write_json(folder / "report.json", report)
        print(f"round {number}: {added}")
    if not options.labels_only:
        labels = options.work_dir / f"round-{options.rounds}" / "labels.json"
        train(flags, labels, options.work_dir / "final", reference)


if __name__ == "__main__":
    main()
