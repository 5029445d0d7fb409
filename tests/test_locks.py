"""Two processes do not write to the same place; a lock ends with its process."""

import contextlib
import errno
import os
import signal
import subprocess
import sys

import pytest
from helpers import ROOT, random_document, save_backbone

from modeling_comm.utils import locks
from modeling_comm.utils.files import write_json
from modeling_comm.utils.locks import LockedError, locked_folder

fcntl = pytest.importorskip("fcntl", reason="locks need POSIX")

HOLD = """
import os, sys, time
from modeling_comm.utils.locks import locked_folder
with locked_folder(sys.argv[1]):
    child = os.fork()
    if child == 0:
        time.sleep(60)  # a worker that outlives its parent
    print(child, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A folder that another process has locked, which has a worker; the process and the worker's id."""
    folder = tmp_path / "locked"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, folder], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        worker = int(process.stdout.readline())
        yield folder, process, worker
        process.kill()
    with contextlib.suppress(ProcessLookupError):
        os.kill(worker, signal.SIGKILL)


def test_the_error_says_who_and_a_killed_process_leaves_no_lock(holder):
    folder, process, worker = holder
    with pytest.raises(LockedError) as refused, locked_folder(folder):
        pass
    assert refused.value.path == str(folder)
    assert refused.value.process in ((process.pid,) if sys.platform.startswith("linux") else (process.pid, None))
    process.kill()
    process.wait()
    os.kill(worker, 0)  # it lives
    with locked_folder(folder):
        assert list(folder.iterdir()) == []  # nothing has to be deleted
    with locked_folder(folder):
        pass


def test_a_place_without_locks_is_said(tmp_path, monkeypatch, caplog):
    class NoLocks:
        LOCK_EX = LOCK_NB = 0

        @staticmethod
        def flock(*_):
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(locks, "fcntl", NoLocks)
    with locked_folder(tmp_path):
        pass
    monkeypatch.setattr(locks, "fcntl", None)
    with locked_folder(tmp_path):
        pass
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2 and all(str(tmp_path) in line and "do not start another process" in line for line in told)


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    work = tmp_path_factory.mktemp("runs")
    write_json(work / "train.json", [random_document(4, seed=seed) for seed in range(2)])
    command = ["run_docre.py", "--use_cpu", "--train_file", work / "train.json", "--cache_dir", work / "cache"]
    command += ["--model_name_or_path", save_backbone(work / "encoder"), "--emb_size", "16", "--block_size", "4"]
    return [*command, "--test_file", work / "train.json", "--output_dir"]


@pytest.mark.parametrize("what", [["--do_train"], ["--do_predict"], ["--do_predict_teacher"]])
def test_every_command_that_writes_a_folder_locks_it(commands, flags, holder, what, tmp_path):
    folder, *_ = holder
    command = [*flags, folder, *what]
    if what == ["--do_predict_teacher"]:
        command = [*flags, tmp_path / "other", *what, "--teacher_logits", folder]
    (finished,) = commands(command)
    assert finished.status == 2 and "Traceback" not in finished.err, finished.err
    (line,) = (line for line in finished.err.splitlines() if line.startswith("error: "))
    assert str(folder) in line and "in use by" in line
    assert list(folder.iterdir()) == []
