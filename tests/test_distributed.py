"""Two processes on the CPU, started by torchrun and by Accelerate, train and score as one process with the same global batches.

Seven training documents, one of them without an entity and one without a pair, make the processes' shares uneven; with one
document per process and step, the last step of each epoch leaves a process without any."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ROOT, random_document, run_script, save_backbone
from safetensors.torch import load_file

from modeling_comm.training.checkpoint_files import last_complete_checkpoint

TRAIN = [random_document(entities, seed=index) for index, entities in enumerate((4, 0, 6, 2, 1, 5, 3))]
DEV = [random_document(entities, seed=50 + index) for index, entities in enumerate((3, 1, 6, 0, 4))]
TEST = [random_document(entities, seed=80 + index) for index, entities in enumerate((7, 2, 0, 9, 6, 1, 8))]
EPOCHS = 3
for document in TRAIN:  # so common a relation that three epochs suffice to predict it
    pairs = itertools.permutations(range(len(document["vertexSet"])), 2)
    others = [fact for fact in document["labels"] if fact["r"] != "P17"]
    common = [{"h": head, "t": tail, "r": "P17", "evidence": [0, tail % 4][head % 2 :]} for head, tail in pairs]
    document["labels"] = [*others, *common]


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
    flags += ["--do_eval", "--do_predict", "--num_train_epochs", EPOCHS, "--logging_steps", "1"]
    flags += ["--load_best_model_at_end", "false"]
    flags += ["--use_cpu", "--disable_tqdm", "true", "--weight_decay", "0.01", "--per_device_eval_batch_size", "2"]
    return [str(flag) for flag in flags]


# Documents per process and step, accumulated batches; one process takes twice the documents of two.
BATCHES = {"torchrun": (1, 1), "accelerate": (1, 2)}


def launcher(name):
    bin_folder = Path(sys.executable).parent
    if name == "torchrun":
        return [bin_folder / "torchrun", "--standalone", "--nproc_per_node", "2"]
    return [bin_folder / "accelerate", "launch", "--config_file", "examples/accelerate_cpu.yaml"]


# One test a launcher, because launching takes most of its time.
@pytest.mark.parametrize("name", BATCHES)
def test_two_processes_train_and_score_as_one(name, flags, tmp_path):
    size, accumulated = BATCHES[name]
    training = [*flags, "--do_train"]
    if name == "accelerate":
        training += ["--tune_threshold_offset", "--evidence_weight", "0.5"]
    step = ["--gradient_accumulation_steps", str(accumulated), "--per_device_train_batch_size"]
    launched = launch(name, *training, *step, size, "--output_dir", tmp_path / "two")
    run_script(*training, *step, str(2 * size), "--output_dir", str(tmp_path / "one"))
    two, one = tmp_path / "two", tmp_path / "one"
    assert launched.stderr.count("world size 2, device cpu") == 1, "one process says it"
    assert [read(folder / "run.json")["device"]["processes"] for folder in (two, one)] == [2, 1]
    check_losses(two, one, steps=EPOCHS * (4 if accumulated == 1 else 2))
    check_weights(two, one, Path(flags[flags.index("--model_name_or_path") + 1]))
    check_evaluation(two, flags, tmp_path / "alone")
    tuned = read(two / "processor_config.json")["threshold_offset"] != 0
    assert tuned == (name == "accelerate"), "what it was scored with"
    assert any(entry.get("evidence_loss") for entry in read(two / "run.json")["log"]) == (name == "accelerate")
    newest = max(two.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    assert last_complete_checkpoint(two, world_size=2) == str(newest)


def test_processes_score_the_model_that_is_saved(flags, tmp_path):
    """While they train, their statistics of a normalisation over a batch differ."""
    step = ["--per_device_train_batch_size", 1, "--eval_strategy", "no", "--save_strategy", "no"]
    docunet = [*flags, "--relation_encoder", "docunet", "--do_train", *step]
    launch("torchrun", *docunet, "--output_dir", tmp_path / "two")
    check_evaluation(tmp_path / "two", flags, tmp_path / "alone")


def launch(name, *flags):
    command = [*launcher(name), "run_docre.py", *flags]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    launched = subprocess.run(
        [str(word) for word in command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=180
    )
    assert launched.returncode == 0, launched.stderr[-5000:]
    return launched


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def check_losses(two, one, steps):
    """Loss, gradient norm and learning rate of every step agree, and the evidence loss where there is one."""
    logs = [
        [
            [entry.get(key, 0.0) for key in ("step", "loss", "grad_norm", "learning_rate", "evidence_loss")]
            for entry in record["log"]
            if "loss" in entry
        ]
        for record in (read(two / "run.json"), read(one / "run.json"))
    ]
    assert [step for step, *_ in logs[0]] == list(range(1, steps + 1))
    np.testing.assert_allclose(*logs, rtol=1e-4)
    losses = [loss for _, loss, *_ in logs[0]]
    assert max(losses) - min(losses) > 0.01, "all steps alike would show nothing"
    for folder in (two, one):
        assert read(folder / "run.json")["metrics"]["train_loss"] == pytest.approx(np.mean(losses), rel=1e-4)


def check_weights(two, one, encoder):
    two, one, before = (load_file(folder / "model.safetensors") for folder in (two, one, encoder))
    torch.testing.assert_close(two, one, rtol=1e-3, atol=2e-5)
    moved = [
        (two[f"backbone.{name}"] - value).abs().max() for name, value in before.items() if f"backbone.{name}" in two
    ]
    assert max(moved) > 1e-3, "the encoder was trained"


def check_evaluation(two, flags, folder):
    """The two processes' checkpoint, scored by one process: exactly the same predictions and metrics."""
    (metrics,) = run_script(*flags, "--model_name_or_path", str(two), "--output_dir", str(folder))
    together, alone = read(two / "results.json"), read(folder / "results.json")
    assert set(map(json.dumps, together)) == set(map(json.dumps, alone))
    assert len(together) == len(alone) > 20
    recorded = read(two / "run.json")["metrics"]
    exact = ("f1", "precision", "recall", "ign_f1", "predicted_positives", "average_precision")
    for key in [f"{split}_{key}" for split in ("eval", "test") for key in exact]:
        assert recorded[key] == metrics[key], key
    for key in ("eval_loss", "test_loss"):
        assert recorded[key] == pytest.approx(metrics[key], rel=1e-6)
    assert read(two / "test_scores.json")["scores"] == read(folder / "test_scores.json")["scores"]
