"""Commands under faults, as a user meets them: each in a process of its own, forked from one that has imported everything.

Run as a script, it is that process. Nothing of the package is imported on the side of the tests."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
MODULES = (
    "comm_docre",
    "run_docre",
    "dataset_scripts",
    "modeling_comm.commands.predict",
    "modeling_comm.commands.evaluate",
)
MODULES += ("modeling_comm.commands.view", "modeling_comm.commands.card", "modeling_comm.commands.convert")
MODULES += ("modeling_comm.training.build_trainer", "modeling_comm.training.predict_split", "dataset_scripts.loading")
_LONGEST = 300  # seconds after which a command is taken for one that does not end
_NEW_USER, _NEW_MOUNTS, _PRIVATE, _REMOUNT = 0x10000000, 0x00020000, 1 << 18 | 1 << 14, 32


class Finished(NamedTuple):
    """How a command has ended: its status (negative for a signal) and what it printed."""

    status: int
    out: str
    err: str


class Commands:
    """
    Runs commands; a context.

    A call takes steps and returns a [`Finished`] for each command among them. The steps share what one of them changes:

    - `["comm-docre", ...]` or `["run_docre.py", ...]`: a command; `{"command": [...], ...}` has options beside it: `stdin` (a
      file), `stdout` (a file), `closed` (descriptors that are closed), `cwd`, `after` (seconds until `signal`, 9 by default, is
      sent; 2 also, as a terminal does, to the processes that it has started), `before_call` (number of the call that makes
      something last, before which the process sends it to itself).
    - `{"disk": folder, "size": "200k"}`: a file system of this size there, or, if there is one, its new size.
    - `{"copy": source, "to": folder}`: what is there, where it stays.
    """

    def __init__(self, folder):
        self.folder = Path(folder)

    def __enter__(self):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        self.log = open(self.folder / "log", "w")
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(self.folder)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        return self

    def __call__(self, *steps) -> list[Finished]:
        self.process.stdin.write(json.dumps(steps, default=str) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, (self.folder / "log").read_text()[-3000:]
        finished = json.loads(answer)
        assert isinstance(finished, list), finished
        return [Finished(*one) for one in finished]

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.log.close()


def can_mount() -> bool:
    """Returns whether this machine lets the tests make a small file system of their own."""
    if not sys.platform.startswith("linux"):
        return False
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            _mount("/mnt" if os.path.isdir("/mnt") else "/tmp", "64k")
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1] == 0


# ------------------------------------------------------------------------------------------- in the process that forks


def _system_call(name, *arguments):
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _mount(folder, size):
    folder, kind, options = os.fsencode(folder), b"tmpfs", f"size={size}".encode()
    if os.path.ismount(folder):
        _system_call("mount", kind, folder, kind, _REMOUNT, options)
        return
    user, group = os.getuid(), os.getgid()
    _system_call("unshare", _NEW_MOUNTS if user == 0 else _NEW_MOUNTS | _NEW_USER)
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _system_call("mount", b"none", b"/", None, _PRIVATE, None)
    _system_call("mount", kind, folder, kind, 0, options)


def _kill_before(number, with_signal):
    calls = []

    def counted(function):
        def call(*arguments, **options):
            calls.append(function)
            if len(calls) == number:
                os.kill(os.getpid(), with_signal)
            return function(*arguments, **options)

        return call

    os.fsync, os.replace = counted(os.fsync), counted(os.replace)


def _forked(function):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = function() or 0
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            for stream in (sys.stdout, sys.stderr):
                try:
                    stream.flush()
                except (OSError, ValueError, AttributeError):
                    status = status or 120  # as Python itself ends
            os._exit(status)
    return pid


def _command(
    command,
    folder,
    stdin=os.devnull,
    stdout=None,
    closed=(),
    before_call=None,
    cwd=None,
    begins=None,
    with_signal=None,
):
    import comm_docre
    import run_docre

    if cwd is not None:
        os.chdir(cwd)

    for descriptor, path in ((1, stdout or folder / "out"), (2, folder / "err")):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    os.dup2(os.open(stdin, os.O_RDONLY), 0)
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        how = {"errors": "backslashreplace"} if descriptor == 2 else {}
        stream = open(descriptor, "w" if descriptor else "r", closefd=False, encoding="utf-8", **how)  # noqa: SIM115
        setattr(sys, name, stream)
    for descriptor in closed:
        os.close(descriptor)
        setattr(sys, ("stdin", "stdout", "stderr")[descriptor], None)  # as Python itself does
    if before_call is not None:
        _kill_before(before_call, with_signal)
    sys.orig_argv = ["python", *command]
    name, *words = command
    sys.argv = [name, *words]
    signal.alarm(_LONGEST)
    os.setpgid(0, 0)
    os.write(begins, b"!")
    return {"comm-docre": comm_docre.main, "run_docre.py": run_docre.main}[name](words)


def _step(step, folder):
    if isinstance(step, list):
        step = {"command": step}
    if "disk" in step:
        return _mount(step["disk"], step["size"])
    if "copy" in step:
        return subprocess.run(["cp", "-r", step["copy"], step["to"]], check=True) and None
    after, number = step.pop("after", None), step.pop("signal", signal.SIGKILL)
    begun, begins = os.pipe()
    pid = _forked(lambda: _command(folder=folder, begins=begins, with_signal=number, **step))
    if after is not None:
        os.read(begun, 1)
        time.sleep(after)
        (os.killpg if number == signal.SIGINT else os.kill)(pid, number)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status, *((folder / name).read_text(errors="backslashreplace") for name in ("out", "err"))


def _steps(steps, folder):
    results = [_step(step, folder) for step in steps]
    (folder / "answer").write_text(json.dumps([result for result in results if result is not None]))


def _serve(folder):
    import importlib

    import torch

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started this with Ctrl-C ignored
    for module in MODULES:
        importlib.import_module(module)
    for line in sys.stdin:
        (folder / "answer").write_text(json.dumps("no answer, see the log"))
        os.waitpid(_forked(lambda line=line: _steps(json.loads(line), folder)), 0)
        print((folder / "answer").read_text(), flush=True)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
