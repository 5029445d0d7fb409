"""The record of a run: everything needed to trust a number, or to get it again."""

import importlib.metadata
import os
import platform
import re
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path

_PACKAGES = ("torch", "transformers", "datasets", "accelerate", "evaluate", "huggingface_hub", "tokenizers", "numpy")


def command_line() -> str:
    """The command that is running, as it can be typed again, without access tokens; paths below the working directory are
    made relative."""
    here = f"{Path.cwd()}{os.sep}"
    command = shlex.join([Path(sys.executable).name, *(word.replace(here, "") for word in sys.orig_argv[1:])])
    return re.sub(r"(--(?:hub[_-])?token)[= ]\S+", r"\1 ...", command)


def commit_of(path) -> str | None:
    """Commit of the repository that `path` lies in, with `+changes` where its files differ from it; None outside one."""

    def git(*arguments):
        return subprocess.run(
            ["git", "-C", str(path), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def versions() -> dict[str, str | None]:
    """Versions of Python, of this library and of the packages that numbers depend on; None where one is not installed."""
    from ..configuration_comm import __version__

    found = {"python": platform.python_version(), "modeling_comm": __version__}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def device_record(args, dtype) -> dict:
    """Device, number of processes, threads, precision (of autocast, else the model's `dtype`) and peak memory (bytes) of this
    process so far."""
    import torch  # the rest of this module serves commands that do without

    cuda = args.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(args.device) if cuda else f"{platform.machine()} CPU",
        "processes": args.world_size,
        "threads": torch.get_num_threads(),
        "precision": "bf16" if args.bf16 else "fp16" if args.fp16 else str(dtype).removeprefix("torch."),
        "peak_memory": torch.cuda.max_memory_allocated(args.device) if cuda else _peak_memory(),
    }


def run_record(script, args, started, dtype) -> dict:
    """What every record begins with: command, commit of the script's repository, versions, device and seconds since `started`."""
    return {
        "command": command_line(),
        "commit": commit_of(Path(script).parent),
        "versions": versions(),
        "device": device_record(args, dtype),
        "seconds": round(time.time() - started, 1),
    }


def _peak_memory():
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def epoch_log(log_history) -> list[dict]:
    """Evaluations and losses of a trainer's history, one dict an entry, without the timing columns."""
    dropped = ("_runtime", "_per_second")
    return [
        {key: value for key, value in entry.items() if not key.endswith(dropped)}
        for entry in log_history
        if "train_runtime" not in entry
    ]


def summarize(by_seed):
    """Mean and standard deviation (of the sample) of every metric over runs."""
    keys = [key for key, value in by_seed[0].items() if isinstance(value, (int, float))]
    values = {key: [metrics[key] for metrics in by_seed if key in metrics] for key in keys}
    return {
        key: {
            "mean": statistics.fmean(found),
            "std": statistics.stdev(found) if len(found) > 1 else None,
            "runs": found,
        }
        for key, found in values.items()
    }
