"""
Random kills, a dead process of two, two at once. Not a part of `make test`; `make torture` runs it. `COMM_KILLS` is the number
of kills (10), `COMM_SEED` the seed of their moments, which is printed.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import ROOT, random_document, save_backbone, tiny_model, tiny_system

from modeling_comm.training.checkpoint_files import own_checkpoints
from modeling_comm.utils.files import write_json

KILLS = int(os.environ.get("COMM_KILLS", "10"))
SEED = int(os.environ.get("COMM_SEED", time.time_ns() % 1_000_000))
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """Makes the words of a training or a prediction that writes to a place."""
    work = tmp_path_factory.mktemp("torture")
    print(f"\nCOMM_SEED={SEED}")
    documents = [random_document(4, 30, seed=seed, title=f"Title {seed}") for seed in range(200)]
    write_json(work / "documents.json", documents)
    config, processor = tiny_system("bert")
    tiny_model(config).save_pretrained(work / "model")
    processor.save_pretrained(work / "model")
    train = ["run_docre.py", "--use_cpu", "--do_train", "--train_file", work / "documents.json", "--report_to", "none"]
    train += ["--model_name_or_path", save_backbone(work / "encoder"), "--emb_size", "16", "--block_size", "4"]
    train += ["--cache_dir", work / "cache", "--eval_strategy", "no", "--load_best_model_at_end", "false"]
    train += ["--save_strategy", "steps", "--save_steps", "5", "--max_steps", "60", "--output_dir"]
    predict = ["comm-docre", "predict", "--model", work / "model", "--input", work / "documents.json"]
    predict += ["--format", "docred", "--batch_size", "4", "--threshold_offset", "1", "--output"]
    return lambda name, place: [*(train if name == "train" else predict), place]


def result(name, place):
    return (place / "model.safetensors" if name == "train" else place).read_bytes()


@pytest.mark.parametrize("name", ["train", "predict"])
def test_random_kills(commands, make, tmp_path, name):
    draw = random.Random(SEED)
    started = time.monotonic()
    (finished,) = commands(make(name, tmp_path / "whole"))
    duration = time.monotonic() - started
    assert finished.status == 0, finished.err
    killed = 0
    while killed < KILLS:
        # A run that ends before it is killed is finished: another one begins.
        (finished,) = commands({"command": make(name, tmp_path / "output"), "after": draw.uniform(0, duration / 2)})
        if finished.status == -signal.SIGKILL:
            killed += 1
            continue
        assert finished.status == 0, finished.err
        assert result(name, tmp_path / "output") == result(name, tmp_path / "whole")
        again = {"command": [*make(name, tmp_path / "output"), "--restart"], "after": draw.uniform(0, duration / 2)}
        killed += commands(again)[0].status == -signal.SIGKILL
    (finished,) = commands(make(name, tmp_path / "output"))
    assert finished.status == 0, finished.err
    assert result(name, tmp_path / "output") == result(name, tmp_path / "whole")
    print(f"\n{name}: {killed} kills, same bytes")


def start(words, log, launcher=()):
    name, *rest = map(str, words)
    program = [str(ROOT / "run_docre.py")] if name == "run_docre.py" else ["-m", "comm_docre"]
    command = [*launcher, *program, *rest] if launcher else [sys.executable, *program, *rest]
    return subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stderr=log, stdout=log)


@pytest.mark.parametrize("name", ["train", "predict"])
def test_two_at_once(make, tmp_path, name):
    with open(tmp_path / "log", "w") as log:
        both = [start(make(name, tmp_path / "output"), log) for _ in range(2)]
        statuses = sorted(process.wait(timeout=600) for process in both)
        # The second was refused, or came when the first had finished.
        text = (tmp_path / "log").read_text()
        assert statuses == [0, 2] if "in use by" in text else statuses == [0, 0], text[-3000:]
        assert start(make(name, tmp_path / "whole"), log).wait(timeout=600) == 0
    assert result(name, tmp_path / "output") == result(name, tmp_path / "whole")


def test_a_dead_process_of_two(make, tmp_path):
    launcher = [str(Path(sys.executable).parent / "torchrun"), "--standalone", "--nproc_per_node", "2"]
    words = [*make("train", tmp_path / "output"), "--ddp_backend", "gloo"]
    with open(tmp_path / "log", "w") as log:
        both = start(words, log, launcher)
        while not own_checkpoints(tmp_path / "output"):
            assert both.poll() is None, (tmp_path / "log").read_text()[-3000:]
            time.sleep(0.05)
        (children,) = (Path(f"/proc/{both.pid}/task/{both.pid}/children").read_text().split() for _ in range(1))
        os.kill(int(children[-1]), signal.SIGKILL)
        assert both.wait(timeout=600) != 0
        assert start(words, log, launcher).wait(timeout=600) == 0, (tmp_path / "log").read_text()[-3000:]
        whole = [*make("train", tmp_path / "whole"), "--ddp_backend", "gloo"]
        assert start(whole, log, launcher).wait(timeout=600) == 0
    assert "resuming from" in (tmp_path / "log").read_text()
    assert result("train", tmp_path / "output") == result("train", tmp_path / "whole")
