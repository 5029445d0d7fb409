"""
Runs a grid of experiments: every cell is one call of `run_docre.py` in a process of its own, several side by side on one device,
in the grid's order. What came out of a cell is one file, `results/runs/NAME.json`.

    python experiments/run_grid.py experiments/grids/tier_a.yaml --data_dir DATA --model MODEL --parallel 4
    python experiments/run_grid.py experiments/grids/tier_a.yaml --list

The same command resumes a killed one: finished runs are skipped, an unfinished one resumes from its checkpoint, a
failed one is tried again. `experiments/README.md` describes the grid files. Needs Linux or macOS.
"""

import argparse
import contextlib
import fcntl
import functools
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatch
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import dataset_scripts  # noqa: F401  (registers the data sets)
from experiments.shared import ROOT, at_least, hashes_of_files, known_to_both
from modeling_comm.data import get_dataset
from modeling_comm.utils.files import file_sha256, read_json, write_json
from modeling_comm.utils.unchanged import check_unchanged

# By setting: --dataset_config of run_docre.py, and the folder with its training file below the data folder.
SETTINGS = {"redocred": ("redocred", "redocred-mini"), "mixed": ("docred_mixed", "docred-mini")}
EVALUATION = "redocred-mini"  # has the documents for selection, test and blind test of both settings
AXES = {"setting": None, "remove": 0, "add": 0, "loss": None, "m": None, "gamma": None}
AXES |= {"encoder": "atlop", "backbone": "minilm", "tag": None, "seed": None}
BLIND_SUFFIXES = ("", "-offset")  # at the model's own threshold, and with the offset tuned on dev
GRID_KEYS = {"base", "arguments", "chosen", "blocks", "blind", "excluded"}


@dataclass(frozen=True, eq=False)
class Cell:
    """One run: `axes` say what it is, `arguments` what `run_docre.py` is told, `table` where it is shown, `choose` which axes are
    chosen there on dev, `blind` what its blind predictions are called, `excluded` why tables leave it out."""

    axes: dict
    arguments: dict
    table: str
    choose: tuple = ()
    blind: str | None = None
    excluded: str | None = None

    @property
    def group(self) -> str:
        """The name without the seed."""
        axes = self.axes
        noise = [f"{kind}{axes[kind]:g}" for kind in ("remove", "add") if axes[kind]]
        cmm = [f"m{axes['m']:g}", f"g{axes['gamma']:g}"] if axes["loss"] == "cmm" else []
        tag = [axes["tag"]] if axes["tag"] else []
        return "-".join([axes["setting"], *noise, axes["loss"], *cmm, axes["encoder"], axes["backbone"], *tag])

    @property
    def name(self) -> str:
        return f"{self.group}-seed{self.axes['seed']}"


# ------------------------------------------------------------------------------------------------------------ the grid


def read_grid(path) -> list[Cell]:
    """The cells of a grid file in its order; a cell of two blocks comes twice (for two tables)."""
    path = Path(path)
    grid = _read_mapping(path)
    base = _read_mapping(path.parent / grid["base"]) if "base" in grid else {}
    shared = {key: base.get(key, {}) | grid.get(key, {}) for key in ("arguments", "chosen", "blind", "excluded")}
    if not isinstance(grid.get("blocks"), list):
        raise ValueError(f"{path}: found blocks {grid.get('blocks')!r}; expected a list")
    cells = [cell for block in grid["blocks"] for cell in _cells_of(block, path, shared)]
    arguments, first_seed = {}, {}
    for cell in cells:
        first_seed[cell.group] = min(cell.axes["seed"], first_seed.get(cell.group, cell.axes["seed"]))
        if arguments.setdefault(cell.name, cell.arguments) != cell.arguments:
            raise ValueError(f"{path}: {cell.name} has two kinds of arguments; give one of them a tag")
    unknown = sorted(
        {*shared["blind"].values()} - {*first_seed} | {*shared["excluded"]} - {*arguments},
    )
    if unknown:
        raise ValueError(f"{path}: blind or excluded names {unknown}, which are not in the grid")
    blind = {f"{group}-seed{first_seed[group]}": name for name, group in shared["blind"].items()}
    no_offset = sorted(name for name in blind if arguments[name].get("eval_strategy") == "no")
    if no_offset:
        raise ValueError(f"{path}: blind names {no_offset}, which have no offset, because their eval_strategy is 'no'")
    return [replace(cell, blind=blind.get(cell.name), excluded=shared["excluded"].get(cell.name)) for cell in cells]


def _read_mapping(path):
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or set(content) - GRID_KEYS:
        found = sorted(set(content) - GRID_KEYS) if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{path}: found {found}; expected a mapping with some of {sorted(GRID_KEYS)}")
    return content


def _cells_of(block, path, shared):
    if not isinstance(block, dict) or "table" not in block:
        raise ValueError(f"{path}: found the block {block}; expected a mapping with a table, its heading")
    block = dict(block)
    table, choose, left_out = block.pop("table"), tuple(block.pop("choose", ())), block.pop("exclude", [])
    lists = {key: given if isinstance(given, list) else [given] for key, given in block.items()}
    for values in itertools.product(*lists.values()):
        given = dict(AXES)
        for key, value in zip(lists, values, strict=True):
            # A mapping sets several things at once, whatever the name of its list.
            given |= value if isinstance(value, dict) else {key: value}
        axes = {key: given.pop(key) for key in AXES}
        is_cmm = axes["loss"] == "cmm"
        if not is_cmm:
            axes |= {"m": None, "gamma": None}
        missing = [key for key in ("setting", "loss", "seed", *is_cmm * ("m", "gamma")) if axes[key] is None]
        if missing or axes["setting"] not in SETTINGS:
            raise ValueError(f"{path}: {axes} lacks {missing}, or its setting is none of {sorted(SETTINGS)}")
        if any(all(axes.get(key) == value for key, value in rule.items()) for rule in left_out):
            continue
        cell = Cell(axes, {}, table, choose)
        arguments = shared["arguments"] | {"loss": axes["loss"], "relation_encoder": axes["encoder"]}
        arguments |= {"cmm_margin": axes["m"], "cmm_gamma": axes["gamma"]} if is_cmm else {}
        for pattern, chosen in shared["chosen"].items():
            arguments |= chosen if fnmatch(cell.group, pattern) else {}
        yield replace(cell, arguments=arguments | given | {"seed": axes["seed"]})


# ------------------------------------------------------------------------------------------------------------- one cell


def read_record(name, options):
    path = options.results_dir / "runs" / f"{name}.json"
    return read_json(path) if path.is_file() else None


def is_finished(cell, options):
    """Returns whether there is a record of success and, where the run predicts the blind test, its predictions."""
    blind = [f"{cell.blind}{suffix}.json" for suffix in BLIND_SUFFIXES] if cell.blind else []
    is_there = all((options.results_dir / "blind" / name).is_file() for name in blind)
    return is_there and (read_record(cell.name, options) or {}).get("status") == "finished"


def claim(name, options):
    """The log of a run, open and locked, or None while a process runs it. That process inherits the lock: a dead one leaves
    nothing stale, and one that outlives its grid is not started twice."""
    log = open(options.work_dir / f"{name}.log", "ab")  # noqa: SIM115
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.close()
        return None
    return log


def state_of(cell, options):
    """`finished`, `failed`, `running` or `not run`, and what came out."""
    if (options.work_dir / f"{cell.name}.log").is_file():
        log = claim(cell.name, options)
        if log is None:
            return "running", ""
        log.close()
    record = read_record(cell.name, options)
    if not record or (record["status"] == "finished" and not is_finished(cell, options)):
        return "not run", ""
    if record["status"] == "failed":
        return "failed", record["error"].splitlines()[0]
    scores = [f"{split} F1 {100 * record[split]['f1']:.2f}" for split in ("dev", "test") if split in record]
    return "finished", ", ".join([*scores, f"{record['seconds']:.0f} s"])


def task_of(cell, model, options, sha256=file_sha256):
    """All that [`one_run`](one_run.py) needs to know; `identity` is what must not change under one name."""
    config, folder = SETTINGS[cell.axes["setting"]]
    named = get_dataset(config).files
    data, model = options.data_dir, str(Path(model).resolve()) if Path(model).exists() else model
    files = {split: data / EVALUATION / named[split].name for split in ("validation", "test")}
    files["train"] = data / folder / named["train"].name
    hashes = {split: sha256(path) for split, path in files.items()}
    hashes |= hashes_of_files({"weights": model}, sha256=sha256)
    arguments = {
        **{"dataset_config": config, "data_dir": data / EVALUATION, "ign_reference": files["train"]},
        **{f"{split}_file": path for split, path in files.items()},
        **{
            "model_name_or_path": model,
            "output_dir": options.work_dir / cell.name,
            "do_train": True,
            "disable_tqdm": True,
        },
    }
    hidden = {data: "DATA", options.work_dir: "OUTPUT", ROOT: "REPOSITORY", sys.prefix: "PYTHON", Path.home(): "HOME"}
    hidden |= {model: "MODEL"} if Path(model).is_absolute() else {}
    noise = {key: cell.axes[key] for key in ("remove", "add", "seed")}
    task = {
        "name": cell.name,
        "identity": {
            **{"axes": cell.axes, "arguments": cell.arguments},
            # What a cell's own arguments name is read from the folder in which `start` puts the run.
            "sha256": hashes | hashes_of_files(cell.arguments, ROOT, sha256),
        },
        "arguments": arguments | cell.arguments,
        "noise": noise if noise["remove"] or noise["add"] else None,
        "blind": cell.blind,
        "blind_documents": data / EVALUATION / "test_blind.json",
        "results": options.results_dir,
        "side_by_side": options.parallel,
        "keep": options.keep,
        "hidden": {str(path): shown for path, shown in hidden.items() if len(str(path)) > 1},
    }
    return json.loads(json.dumps(task, default=str))


def check_same_identity(task, options):
    """Raises where a record or an unfinished run of this name has other settings."""
    name, folder = task["name"], options.work_dir / task["name"]
    earlier = {options.results_dir / "runs" / f"{name}.json": read_record(name, options)}
    if folder.is_dir():
        earlier[folder] = read_json(options.work_dir / f"{name}.json")["identity"]
    for place, before in earlier.items():
        if before:
            identity, now = {part: before[part] for part in task["identity"]}, dict(task["identity"])
            identity["sha256"], now["sha256"] = known_to_both(identity["sha256"], now["sha256"], {*now["arguments"]})
            check_unchanged(identity, now, place, "Give these runs a tag of their own, or delete it")


# ------------------------------------------------------------------------------------------------------------ all cells


def check_arguments(cells, grid):
    """
    Refuses keys of blocks that are no arguments of `run_docre.py`, on which each run would fail.

    Raises:
        UnknownArgumentsError: there are some. With `extensions`, whose settings are arguments, too, none is refused.
    """
    # Imported here: it takes seconds, and tables and --list read grids, too.
    from modeling_comm.training import script_arguments as of_script

    groups = (of_script.model_arguments_class(), of_script.DataArguments, of_script.CommTrainingArguments)
    groups += (of_script.DistillationArguments, of_script.RunArguments)
    known = {one.name for group in groups for one in fields(group)}
    given = {name for cell in cells if "extensions" not in cell.arguments for name in cell.arguments}
    if unknown := sorted(given - known):
        raise of_script.UnknownArgumentsError(unknown, known | {*AXES, "table", "choose", "exclude"}, where=str(grid))


def named_model(word):
    """Name and place of a `--model`; the name is empty where there is only a place, which may have an = behind a slash."""
    name, is_named, place = word.partition("=")
    return (name, place) if is_named and "/" not in name else ("", word)


def run_grid(cells, options):
    """Runs what is not finished; returns whether all of it is in the end."""
    check_arguments(cells, options.grid)
    backbones = {cell.axes["backbone"] for cell in cells}
    models = dict(map(named_model, options.model))
    if len(backbones) == 1 and "" in models:
        models = dict.fromkeys(backbones, models[""])
    if backbones - set(models):
        raise ValueError(f"--model {options.model} lacks some of {sorted(backbones)}; give NAME=PLACE for each")
    sha256 = functools.cache(file_sha256)
    tasks = {cell: task_of(cell, models[cell.axes["backbone"]], options, sha256) for cell in cells}
    for task in tasks.values():
        check_same_identity(task, options)
    waiting = [cell for cell in cells if not is_finished(cell, options)]
    say(f"{len(cells) - len(waiting)} of {len(cells)} runs are finished")
    running = {}
    try:
        while waiting or running:
            for cell in list(waiting):
                if len(running) == options.parallel:
                    break
                log = claim(cell.name, options)
                if log is None:  # another grid runs it: look again later
                    continue
                waiting.remove(cell)
                if not is_finished(cell, options):
                    say(f"start     {cell.name}")
                    # Anew: it may read what an earlier run of this grid has written since.
                    tasks[cell] = task_of(cell, models[cell.axes["backbone"]], options)
                    running[start(tasks[cell], log, options)] = cell
                log.close()  # the run holds it now
            time.sleep(0.2)
            for process in [process for process in running if process.poll() is not None]:
                ended(running.pop(process), tasks, process.returncode, options)
    finally:
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait()
    return all(is_finished(cell, options) for cell in cells)


def start(task, log, options):
    file = options.work_dir / f"{task['name']}.json"
    write_json(file, task)
    if (read_record(task["name"], options) or {}).get("status") == "failed":
        (options.results_dir / "runs" / f"{task['name']}.json").unlink()
    # Without its checkpoints the run starts from the beginning, and so does its log.
    if not Path(task["arguments"]["output_dir"]).is_dir():
        log.truncate(0)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = max(1, cores // options.parallel)
    environment = {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false", **os.environ}
    command = [sys.executable, str(ROOT / "experiments" / "one_run.py"), str(file)]
    how = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": subprocess.STDOUT, "start_new_session": True}
    return subprocess.Popen(command, cwd=ROOT, env=environment, **how)


def ended(cell, tasks, code, options):
    if read_record(cell.name, options) is None:
        error = f"the process ended with code {code} before it could say why; the end of its log may tell"
        record = {"name": cell.name, "status": "failed", **tasks[cell]["identity"], "error": error}
        write_json(options.results_dir / "runs" / f"{cell.name}.json", record)
    state, outcome = state_of(cell, options)
    say(f"{state:9} {cell.name} {outcome}")


def say(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def options_of(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("grid", help="the grid, a YAML file")
    parser.add_argument("--data_dir", type=Path, help="folder that holds redocred-mini, docred-mini and meta")
    parser.add_argument("--model", nargs="+", default=[], help="the backbone, or NAME=PLACE for each of several")
    parser.add_argument(
        "--parallel", type=at_least(1), default=1, help="runs side by side, among which threads are divided"
    )
    parser.add_argument("--only", default="", help="only the runs whose name has this regular expression in it")
    parser.add_argument(
        "--list", action="store_true", help="print what is finished, running, failed, not run; then stop"
    )
    parser.add_argument("--keep", action="store_true", help="keep the checkpoints of finished runs")
    parser.add_argument("--work_dir", type=Path, default=ROOT / "outputs" / "grid", help="checkpoints and logs")
    parser.add_argument("--results_dir", type=Path, default=ROOT / "results", help="records and blind predictions")
    options = parser.parse_args(argv)
    for name in ("data_dir", "work_dir", "results_dir"):
        if getattr(options, name):
            setattr(options, name, getattr(options, name).resolve())
    if not (options.list or (options.data_dir and options.model)):
        parser.error("--data_dir and --model are needed to run the grid")
    return options


def main(argv=None) -> int:
    options = options_of(argv)
    cells = {cell.name: cell for cell in read_grid(options.grid) if re.search(options.only, cell.name)}.values()
    if not cells:
        raise ValueError(
            f"{options.grid} has no run with {options.only!r} in its name; --list without --only prints the names"
        )
    if options.list:
        for cell in cells:
            state, outcome = state_of(cell, options)
            print(f"{state:9} {cell.name} {outcome}".rstrip())
        return 0
    options.work_dir.mkdir(parents=True, exist_ok=True)
    return 0 if run_grid(list(cells), options) else 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that its runs stop, too
    sys.exit(main())
