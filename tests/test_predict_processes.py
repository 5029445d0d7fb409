"""`comm-docre predict` by several processes: what they hand to the first one, and two of them, started by torchrun and by
Accelerate, killed and resumed, which write what one process writes."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch
from helpers import ROOT, random_document, tiny_model, tiny_system
from torch.distributed import HashStore

import comm_docre
from modeling_comm.commands import predict_processes
from modeling_comm.commands.predict_processes import OneProcess, Result, SeveralProcesses
from modeling_comm.documents import DocumentError

DOCUMENTS = 40
TORCHRUN = ("torchrun", "--standalone", "--nproc_per_node", "2")
ACCELERATE = ("accelerate", "launch", "--config_file", "examples/accelerate_cpu.yaml")


def result(number, size=1):
    return Result([{"id": number, "text": "x" * size}], [], number + 1, f"hash {number}")


def work(processes, batches, seconds=()):
    """As the command does: this process's results; the first one's are all that it took."""
    taken, pauses = [], dict(seconds)
    processes.start({"read": 0} if processes.rank == 0 else None)
    for number in processes.numbers():
        if number >= batches:
            break
        time.sleep(pauses.get(number, 0))
        processes.put(number, result(number))
        if processes.rank == 0:
            taken += processes.take()
    if processes.rank == 0:
        taken += processes.take(until=batches)
    return taken


def work_together(size, *arguments):
    store = HashStore()
    all_of_them = [SeveralProcesses(store, rank, size) for rank in range(size)]
    others = [threading.Thread(target=work, args=(one, *arguments), daemon=True) for one in all_of_them[1:]]
    for other in others:
        other.start()
    taken = work(all_of_them[0], *arguments)
    for other in others:
        other.join(timeout=30)
        assert not other.is_alive()
    return taken


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("slow", [{}, {0: 0.2}, {1: 0.2, 8: 0.1}], ids=str)
def test_results_come_in_order_and_once(size, slow):
    assert work_together(size, 9, slow) == [result(number) for number in range(9)]


def test_one_process_takes_what_it_puts():
    assert work(OneProcess(), 3) == [result(number) for number in range(3)]


def test_a_process_does_not_run_far_ahead(monkeypatch):
    """While the first batch takes long, the results of the others wait in memory: some of them, not all."""
    monkeypatch.setattr(predict_processes, "_AHEAD", 2)
    store = HashStore()
    first, second = (SeveralProcesses(store, rank, 2) for rank in range(2))
    first.start({})
    numbers = first.numbers()
    assert next(numbers) == 0
    others = threading.Thread(target=work, args=(second, 20), daemon=True)
    others.start()
    others.join(timeout=0.5)
    assert others.is_alive(), "it waits"
    assert store.check(["4"]) and not store.check(["5"])
    first.put(0, result(0))
    taken = list(first.take(until=20))
    assert taken == [result(number) for number in range(20)]
    others.join(timeout=30)
    assert not others.is_alive()


def test_a_large_result_is_sent_in_pieces(monkeypatch):
    monkeypatch.setattr(predict_processes, "_PIECE", 1000)
    store = HashStore()
    first, second = (SeveralProcesses(store, rank, 2) for rank in range(2))
    first.start({})
    second.put(0, result(0, size=12_345))
    assert store.num_keys() > 13
    assert list(first.take()) == [result(0, size=12_345)]
    assert store.num_keys() == 2, "start and written: what is taken is gone"


def unpicklable():
    error = ValueError("with a lock")
    error.lock = threading.Lock()
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [(DocumentError("in.jsonl", 3, None, "text", "None", "a text"), DocumentError), (unpicklable(), RuntimeError)],
    ids=["document error", "unpicklable error"],
)
def test_an_error_comes_after_what_came_before_it(error, expected):
    store = HashStore()
    first, second = (SeveralProcesses(store, rank, 2) for rank in range(2))
    first.start({})
    second.put(1, error)
    first.put(0, result(0))
    taken = first.take(until=2)
    assert next(taken) == result(0)
    with pytest.raises(expected, match=str(error)):
        next(taken)


# ---------------------------------------------------------------------------------------------------------- two of them


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model, documents, and what one process writes for them."""
    folder = tmp_path_factory.mktemp("processes")
    config, processor = tiny_system("bert", relation_names={"P17": "country"})
    tiny_model(config).save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    documents = [random_document(2 + seed % 7, 20 + 13 * (seed % 9), seed=seed) for seed in range(DOCUMENTS - 2)]
    lines = [json.dumps(document) for document in documents]
    lines[5:5] = ["no JSON", json.dumps({"text": "It says nothing of its entities."})]
    (folder / "in.jsonl").write_text("\n".join(lines), encoding="utf-8")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the processes that are launched
    try:
        assert comm_docre.main(words(folder, "one.jsonl")) == 3
    finally:
        torch.set_num_threads(threads)
    return folder


def words(folder, output):
    files = [
        f"--{name}={folder / path}" for name, path in (("model", "model"), ("input", "in.jsonl"), ("output", output))
    ]
    return ["predict", *files, "--format", "jsonl", "--batch_size", "2", "--device", "cpu"]


def launch(launcher, command, log):
    program, *flags = launcher
    program = [str(Path(sys.executable).parent / program), *flags, "-m", "comm_docre"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([*program, *command], cwd=ROOT, env=environment, stdout=log, stderr=log)


def kill_first_process(launched, output):
    """As soon as it has written something."""
    deadline = time.monotonic() + 180
    while not (output.is_file() and output.stat().st_size):
        assert launched.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    started = psutil.Process(launched.pid).children(recursive=True)
    (first,) = (process for process in started if process.environ().get("RANK") == "0")
    first.kill()


def test_two_processes_write_what_one_writes_even_if_killed(folder, tmp_path):
    output = folder / "two.jsonl"
    with open(tmp_path / "log", "w+") as log:
        launched = launch(TORCHRUN, words(folder, output), log)
        kill_first_process(launched, output)
        assert launched.wait(timeout=60) not in (0, 2)
        state = json.loads((folder / "two.jsonl.settings.json").read_text())
        assert not state["finished"] and state["read"] < DOCUMENTS
        log.truncate(0)
        launched = launch(ACCELERATE, words(folder, output), log)
        status = launched.wait(timeout=180)
        printed = (tmp_path / "log").read_text()
    assert status == 0, printed[-3000:]
    assert printed.count("documents 38, triples ") == 1, "the first process reports"
    for ending in ("", ".rejected.jsonl"):
        assert output.with_name(f"two.jsonl{ending}").read_bytes() == (folder / f"one.jsonl{ending}").read_bytes()
    states = [json.loads((folder / f"{name}.jsonl.settings.json").read_text()) for name in ("one", "two")]
    assert states[0] | {"command": states[1]["command"]} == states[1]
    assert comm_docre.main(words(folder, output)) == 3, "one process knows it for finished"


def test_standard_input_is_for_one_process(folder, monkeypatch, capsys):
    monkeypatch.setattr(predict_processes.OneProcess, "size", 2)
    command = [word if "--input" not in word else "--input=-" for word in words(folder, "out.jsonl")]
    assert comm_docre.main(command) == 2
    assert "--input - is read by one process" in capsys.readouterr().err
