"""
Trains the reference models, one after the other, scores them, writes their cards and, where asked, publishes them.

    python experiments/reference_models.py                                      # data and encoders from their public addresses
    python experiments/reference_models.py --data_dir DATA --only 'comm-bert-*' --push_to_hub org
    python experiments/reference_models.py --list                               # what is trained, what is published

`reference_models.yaml` beside this file says which. Each seed is one run of `run_docre.py` with a file of `examples/recipes`; the
one with the best F1 on the validation documents is the model. Its card has the mean over all seeds. What follows `--` goes to
each run, such as `-- --num_train_epochs 1`. The same command resumes after an interruption: finished runs are kept, and what is
published already is not pushed again.
"""

import argparse
import subprocess
import sys
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import TypedDict

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.shared import ROOT, own_and_passed
from modeling_comm.utils.files import read_json, write_json

PUSHED = "pushed.json"


class ReferenceModel(TypedDict):
    """The recipe of a model, without `.yaml`, and its seeds."""

    recipe: str
    seeds: list[int]


def read_models(file: Path, only: str = "*") -> dict[str, ReferenceModel]:
    """
    The models of a list whose names match a pattern.

    Raises:
        ValueError: an entry does not fit, or no name matches.
    """
    models = yaml.safe_load(file.read_text(encoding="utf-8"))
    recipes = {path.stem for path in (ROOT / "examples" / "recipes").glob("*.yaml")}
    for name, model in models.items():
        fits = isinstance(model, Mapping) and set(model) == {"recipe", "seeds"}
        if not fits or model["recipe"] not in recipes or not model["seeds"]:
            raise ValueError(f"{file}: {name}: found {model}; expected a recipe of examples/recipes, and seeds")
    chosen = {name: model for name, model in models.items() if fnmatch(name, only)}
    if not chosen:
        raise ValueError(f"--only {only!r}: found no such model; expected a pattern for some of {', '.join(models)}")
    return chosen


def seed_folder(folder: Path, model: ReferenceModel, seed: int) -> Path:
    """Where `run_docre.py` puts a seed's run."""
    return folder / f"seed-{seed}" if len(model["seeds"]) > 1 else folder


def best_seed(folder: Path, model: ReferenceModel) -> int:
    """The seed with the best F1 on the validation documents; the first of equal ones."""
    return max(
        model["seeds"], key=lambda seed: read_json(seed_folder(folder, model, seed) / "run.json")["metrics"]["eval_f1"]
    )


def train(folder: Path, model: ReferenceModel, data_dir: str | None, others: list[str]) -> None:
    """Trains and scores all seeds of a model; what is finished is not repeated."""
    recipe = ROOT / "examples" / "recipes" / f"{model['recipe']}.yaml"
    seeds = ["--seeds", *map(str, model["seeds"])] if len(model["seeds"]) > 1 else ["--seed", str(model["seeds"][0])]
    data = ["--data_dir", data_dir] if data_dir else []
    command = [sys.executable, ROOT / "run_docre.py", recipe, *data, *seeds, "--output_dir", folder, *others]
    subprocess.run(list(map(str, command)), check=True)


def publish(folder: Path, model: ReferenceModel, repo_id: str, private: bool) -> bool:
    """Pushes weights, processor, code, card and records of the best seed; returns whether anything had to be pushed."""
    from huggingface_hub import CommitOperationAdd, HfApi
    from transformers import pipeline

    import modeling_comm  # noqa: F401  (registers the task)
    from modeling_comm.reporting.model_card import read_run, render_model_card
    from modeling_comm.utils.files import file_sha256

    best = seed_folder(folder, model, best_seed(folder, model))
    state = {"repo_id": repo_id, "seed": best_seed(folder, model), "weights": file_sha256(best / "model.safetensors")}
    if (folder / PUSHED).is_file() and read_json(folder / PUSHED) == state:
        return False
    record, scores, _ = read_run(best)
    summary = read_json(folder / "summary.json") if len(model["seeds"]) > 1 else None
    card = render_model_card(record, scores, repo_id, repo_id.split("/")[-1], summary)
    pipeline("document-relation-extraction", model=str(best), device="cpu").push_to_hub(repo_id, private=private)
    files = {"README.md": card.encode(), "run.json": best / "run.json", "test_scores.json": best / "test_scores.json"}
    if summary:
        files["summary.json"] = folder / "summary.json"
    operations = [
        CommitOperationAdd(name, content if isinstance(content, bytes) else str(content))
        for name, content in files.items()
        if isinstance(content, bytes) or content.is_file()
    ]
    HfApi().create_commit(repo_id, operations, commit_message="Card and records of the runs")
    write_json(folder / PUSHED, state)
    return True


def describe(folder: Path, model: ReferenceModel) -> str:
    """What there is of a model."""
    finished = [seed for seed in model["seeds"] if (seed_folder(folder, model, seed) / "run.json").is_file()]
    pushed = read_json(folder / PUSHED)["repo_id"] if (folder / PUSHED).is_file() else "not published"
    return f"{model['recipe']}: {len(finished)} of {len(model['seeds'])} seeds, {pushed}"


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    own, others = own_and_passed(sys.argv[1:] if argv is None else argv)
    options = {"description": __doc__, "formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = argparse.ArgumentParser(**options, allow_abbrev=False)
    parser.add_argument("--models", type=Path, default=Path(__file__).with_suffix(".yaml"), help="The list of models.")
    parser.add_argument("--only", default="*", help="A pattern for names of the list.")
    parser.add_argument(
        "--data_dir", help="Folder of the documents; by default they come from their public addresses."
    )
    parser.add_argument(
        "--output_dir", type=Path, default=Path("outputs/reference-models"), help="One folder per model."
    )
    parser.add_argument("--push_to_hub", metavar="ORGANISATION", help="Publish the models under this name.")
    parser.add_argument("--private", action="store_true", help="In private repositories.")
    parser.add_argument("--list", action="store_true", help="Only say what there is.")
    options = parser.parse_args(own)
    models = read_models(options.models, options.only)
    for name, model in models.items():
        folder = options.output_dir / name
        if not options.list:
            train(folder, model, options.data_dir, others)
            if options.push_to_hub:
                publish(folder, model, f"{options.push_to_hub}/{name}", options.private)
        print(f"{name}: {describe(folder, model)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
