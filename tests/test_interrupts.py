"""Ctrl-C is one line, whenever it comes, and whatever other processes a command has started."""

import contextlib
import gc
import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers import random_document, save_backbone

from modeling_comm.utils.files import write_json
from modeling_comm.utils.interrupts import before_termination, one_interrupt

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes and signals as POSIX has them")


@pytest.fixture
def default_handler():
    """A shell may have started the tests with Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class InterruptsWhileItIsFinalized:
    def __del__(self):
        interrupt()


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)
    sum(range(1000))  # Python looks for signals now and then


def caught_by_a_library():
    with contextlib.suppress(BaseException):
        interrupt()


def finalized():
    InterruptsWhileItIsFinalized()


@pytest.mark.parametrize("lose", [caught_by_a_library, finalized])
def test_an_interrupt_that_is_lost_comes_again(default_handler, capfd, lose):
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), one_interrupt():
        lose()
        time.sleep(20)
    assert time.monotonic() - started < 10
    assert capfd.readouterr().err == ""
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_it_does_not_come_again_while_it_is_handled(default_handler):
    done = []
    with pytest.raises(KeyboardInterrupt), one_interrupt():
        try:
            interrupt()
        finally:
            with contextlib.suppress(KeyError):
                {}["another error"]
            time.sleep(1)
            try:
                raise ValueError("and one that is being handled")
            except ValueError:
                time.sleep(1)
            done.append("cleaned up")
    assert done == ["cleaned up"]


def test_what_fails_because_of_it_is_an_interrupt(default_handler):
    with pytest.raises(KeyboardInterrupt), one_interrupt():
        caught_by_a_library()
        raise RuntimeError("DataLoader worker exited unexpectedly")
    with pytest.raises(RuntimeError), one_interrupt():
        raise RuntimeError("of its own")


def test_forked_processes_ignore_it(default_handler):
    for is_within in (True, False):
        received, sends = os.pipe()
        with one_interrupt():
            pid = os.fork() if is_within else None
        pid = os.fork() if pid is None else pid
        if pid == 0:
            try:
                os.write(sends, b"!")
                time.sleep(0.5)
                os._exit(3)
            finally:
                os._exit(4)
        os.read(received, 1)
        os.kill(pid, signal.SIGINT)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == (3 if is_within else 4)


def test_what_an_interrupt_left_half_made_ends_in_silence(default_handler, monkeypatch):
    """As a data loader's iterator does, whose end needs what its beginning had not made yet."""
    said = []
    monkeypatch.setattr("sys.unraisablehook", said.append)

    class HalfMade:
        def __init__(self):
            signal.raise_signal(signal.SIGINT)
            self.workers = ()

        def __del__(self):
            ended.append(len(self.workers))

    ended = []
    with pytest.raises(KeyboardInterrupt), one_interrupt():
        HalfMade()
    gc.collect()
    assert said == ended == []


def test_the_handler_of_sigterm_is_there_within_the_context_alone():
    def handlers():
        with before_termination(print):
            return signal.getsignal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    try:
        for other in (signal.SIG_IGN, lambda number, frame: None):  # of who calls this library
            signal.signal(signal.SIGTERM, other)
            assert handlers() is signal.getsignal(signal.SIGTERM) is other
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with ThreadPoolExecutor() as threads:
            assert threads.submit(handlers).result() is signal.SIG_DFL
        assert callable(handlers()) and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


def test_ctrl_c_in_a_training_with_workers(commands, tmp_path):
    """Sent to the whole group, as a terminal does. Each epoch starts two workers and ends them."""
    documents = [random_document(4, 30, seed=seed, title=f"Title {seed}") for seed in range(2)]
    write_json(tmp_path / "train.json", documents)
    words = ["run_docre.py", "--use_cpu", "--do_train", "--train_file", tmp_path / "train.json", "--report_to", "none"]
    words += ["--model_name_or_path", save_backbone(tmp_path / "encoder"), "--emb_size", "16", "--block_size", "4"]
    words += ["--cache_dir", tmp_path / "cache", "--save_strategy", "no", "--load_best_model_at_end", "false"]
    words += ["--eval_strategy", "no", "--num_train_epochs", "100000", "--dataloader_num_workers", "2"]
    draw = random.Random(0)
    for number in range(int(os.environ.get("COMM_INTERRUPTS", "6"))):
        after = draw.uniform(1, 4) if number else 6
        step = {"command": [*words, "--output_dir", tmp_path / "run"], "after": after, "signal": signal.SIGINT}
        (finished,) = commands(step)
        lines = [line for line in finished.err.splitlines() if line.startswith("interrupted")]
        assert (finished.status, len(lines)) == (130, 1), (after, finished.err[-2000:])
        for word in ("Traceback", "Exception", "Error"):
            assert word not in finished.err, (after, finished.err[-2000:])
