"""Two processes on the CPU, started by torchrun and by Accelerate, train and score as one process with the same global batches.

Seven training documents, one of them without an entity and one without a pair, make the processes' shares uneven; with one
document a process and step, the last step of each epoch leaves a process without any."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ROOT, random_document, save_backbone
from safetensors.torch import load_file

import run_docre

TRAIN = [random_document(entities, seed=index) for index, entities in enumerate((4, 0, 6, 2, 1, 5, 3))]
DEV = [random_document(entities, seed=50 + index) for index, entities in enumerate((3, 1, 6, 0, 4))]
TEST = [random_document(entities, seed=80 + index) for index, entities in enumerate((7, 2, 0, 9, 6, 1, 8))]
EPOCHS = 3
for document in TRAIN:  # so common a relation that three epochs suffice to predict it
    pairs = itertools.permutations(range(len(document["vertexSet"])), 2)
    others = [fact for fact in document["labels"] if fact["r"] != "P17"]
    document["labels"] = [*others, *({"h": head, "t": tail, "r": "P17", "evidence": []} for head, tail in pairs)]


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    save_backbone(folder / "encoder", attention_probs_dropout_prob=0.0, hidden_dropout_prob=0.0)
    files = []
    for split, documents in (("train", TRAIN), ("validation", DEV), ("test", TEST)):
        (folder / f"{split}.json").write_text(json.dumps(documents), encoding="utf-8")
        files += [f"--{split}_file", folder / f"{split}.json"]
    flags = [*files, "--model_name_or_path", folder / "encoder", "--cache_dir", folder / "cache"]
    flags += ["--emb_size", "16", "--block_size", "4", "--learning_rate", "5e-4", "--head_learning_rate", "1e-3"]
    flags += ["--do_train", "--do_eval", "--do_predict", "--num_train_epochs", EPOCHS, "--logging_steps", "1"]
    flags += ["--load_best_model_at_end", "false"]
    flags += ["--use_cpu", "--disable_tqdm", "true", "--weight_decay", "0.01", "--per_device_eval_batch_size", "2"]
    return [str(flag) for flag in flags]


# Documents a process and step, accumulated batches; one process takes twice the documents of two.
BATCHES = {"torchrun": (1, 1), "accelerate": (1, 2)}


def launcher(name):
    bin_folder = Path(sys.executable).parent
    if name == "torchrun":
        return [bin_folder / "torchrun", "--standalone", "--nproc_per_node", "2"]
    return [bin_folder / "accelerate", "launch", "--config_file", "examples/accelerate_cpu.yaml"]


@pytest.fixture(scope="module", params=BATCHES)
def runs(request, flags, tmp_path_factory):
    """Folders of the run by two processes and by one, and what the former said."""
    folder = tmp_path_factory.mktemp(request.param)
    size, accumulated = BATCHES[request.param]
    step = ["--gradient_accumulation_steps", str(accumulated), "--per_device_train_batch_size"]
    command = [*launcher(request.param), "run_docre.py", *flags, *step, size, "--output_dir", folder / "two"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    launched = subprocess.run(
        [str(word) for word in command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=180
    )
    assert launched.returncode == 0, launched.stderr[-5000:]
    run_docre.main([*flags, *step, str(2 * size), "--output_dir", str(folder / "one")])
    return folder / "two", folder / "one", launched.stderr


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def records(runs):
    return [read(folder / "run.json") for folder in runs[:2]]


def test_there_are_two_processes(runs):
    two, one = records(runs)
    assert two["device"]["processes"] == 2
    assert one["device"]["processes"] == 1
    assert runs[2].count("world size 2, device cpu") == 1, "one process says it"


def test_every_step_has_the_same_loss(runs):
    steps = [
        {
            entry["step"]: (entry["loss"], entry["grad_norm"], entry["learning_rate"])
            for entry in record["log"]
            if "loss" in entry
        }
        for record in records(runs)
    ]
    assert steps[0].keys() == steps[1].keys() == set(range(1, len(steps[0]) + 1))
    assert len(steps[0]) == EPOCHS * (4 if "torchrun" in str(runs[0]) else 2)
    np.testing.assert_allclose(*[[steps[run][step] for step in sorted(steps[run])] for run in (0, 1)], rtol=1e-4)
    losses = [values[0] for values in steps[0].values()]
    assert max(losses) - min(losses) > 0.01, "all steps alike would show nothing"
    two, one = (record["metrics"]["train_loss"] for record in records(runs))
    assert two == pytest.approx(one, rel=1e-4) == pytest.approx(np.mean(losses), rel=1e-4)


def test_final_weights_are_close(runs, flags):
    two, one = (load_file(folder / "model.safetensors") for folder in runs[:2])
    torch.testing.assert_close(two, one, rtol=1e-3, atol=2e-5)
    encoder = load_file(Path(flags[flags.index("--model_name_or_path") + 1]) / "model.safetensors")
    moved = max(
        (two[f"backbone.{name}"] - value).abs().max() for name, value in encoder.items() if f"backbone.{name}" in two
    )
    assert moved > 1e-4, "the encoder was trained"


def test_evaluation_of_one_checkpoint_is_the_same(runs, flags, tmp_path):
    """The two processes' checkpoint, scored by one process: exactly the same predictions and metrics."""
    two = runs[0]
    kept = [flag for flag in flags if flag != "--do_train"]
    (metrics,) = run_docre.main([*kept, "--model_name_or_path", str(two), "--output_dir", str(tmp_path)])
    together, alone = read(two / "results.json"), read(tmp_path / "results.json")
    assert {tuple(triple.values()) for triple in together} == {tuple(triple.values()) for triple in alone}
    assert len(together) == len(alone) > 20
    recorded = read(two / "run.json")["metrics"]
    exact = ("f1", "precision", "recall", "ign_f1", "predicted_positives", "average_precision")
    for key in [f"{split}_{key}" for split in ("eval", "test") for key in exact]:
        assert recorded[key] == metrics[key], key
    for key in ("eval_loss", "test_loss"):
        assert recorded[key] == pytest.approx(metrics[key], rel=1e-6)
    assert read(two / "test_scores.json")["scores"] == read(tmp_path / "test_scores.json")["scores"]


def test_processes_resume_from_their_own_random_states(runs):
    folder = runs[0]
    newest = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))[-1]
    assert (newest / "rng_state_0.pth").is_file()
    assert (newest / "rng_state_1.pth").is_file()
