"""
CPU seconds (user and system) that imports and help texts take, beside what they are allowed to take of PyTorch and Transformers.

    python benchmarks/import_time.py --output benchmarks/import_time.json

Each is a process of its own. They take turns; the least of all turns counts, so that other work on the machine hardly matters.
"""

import argparse
import os
import resource
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from modeling_comm.reporting.run_record import command_line, commit_of, versions
from modeling_comm.utils.files import write_json

ROOT = Path(__file__).resolve().parents[1]
FLAGS = "import torch; from transformers import TrainingArguments"
CLASSES = "import torch; from transformers import Pipeline, PreTrainedConfig, PreTrainedModel, ProcessorMixin"
# What is measured, its baseline, and the seconds that it may take above that.
CASES = {
    "run_docre.py --help": ("import run_docre; run_docre.main(['--help'])", FLAGS, 1.0),
    "comm-docre train --help": ("import comm_docre; comm_docre.main(['train', '--help'])", FLAGS, 1.0),
    "import modeling_comm": ("import modeling_comm", CLASSES, 0.3),
}


def cpu_seconds(code):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", help="JSON file")
    args = parser.parse_args()

    codes = dict.fromkeys(code for ours, baseline, _ in CASES.values() for code in (baseline, ours))
    turns = [{code: cpu_seconds(code) for code in codes} for _ in range(args.repeats)]
    least = {code: min(turn[code] for turn in turns) for code in codes}

    results = {}
    for name, (ours, baseline, allowed) in CASES.items():
        above = least[ours] - least[baseline]
        results[name] = {
            "baseline": baseline,
            "baseline_seconds": least[baseline],
            "seconds": least[ours],
            "above": above,
        }
        print(
            f"{name:26}{least[ours]:6.2f} s, {above:+.2f} s to `{baseline}` ({least[baseline]:.2f} s); allowed {allowed:+.1f}"
        )
    if args.output:
        run = {"command": command_line(), "commit": commit_of(ROOT), "versions": versions()}
        write_json(args.output, {**run, "device": "cpu", "repeats": args.repeats, "results": results})


if __name__ == "__main__":
    main()
