"""The experiments: grids that are run, killed, resumed and listed; their tables and figures; noisy training files."""

import json
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from helpers import ROOT, SAMPLE, SHARED, requires_shared, save_backbone

from experiments import figures, incomplete_labels, missing_labels, noise, one_run, run_grid, tables, thresholds
from modeling_comm import CommConfig
from modeling_comm.evaluation.scoring import score
from modeling_comm.evaluation.type_prior import TypePrior
from modeling_comm.training.checkpoint_files import last_complete_checkpoint
from modeling_comm.training.script_arguments import UnknownArgumentsError
from modeling_comm.utils.files import write_json
from modeling_comm.utils.unchanged import SettingsChangedError

GRIDS = sorted((ROOT / "experiments" / "grids").glob("*.yaml"))
GRID = {
    "arguments": {
        **{"use_cpu": True, "emb_size": 16, "block_size": 4, "num_train_epochs": 6, "save_total_limit": 1},
        **{"head_learning_rate": 1e-3, "per_device_train_batch_size": 2},
    },
    "chosen": {"*-atl-*": {"learning_rate": 1e-4}},
    "blind": {"mixed-atl": "mixed-atl-atlop-minilm"},
    "blocks": [
        {
            "table": "Losses",
            "setting": "mixed",
            "seed": [1, 2],
            "loss": [{"loss": "cmm", "m": 0.2, "gamma": 1}, "atl"],
        },
        {
            **{
                "table": "Trained on dev",
                "setting": "mixed",
                "seed": 1,
                "loss": "atl",
                "tag": "all",
                "eval_strategy": "no",
            },
            **{"save_strategy": "no", "load_best_model_at_end": False, "num_train_epochs": 2},
        },
        # Fails: no multiple of block_size.
        {"table": "Losses", "setting": "mixed", "seed": 1, "loss": "aml", "remove": 0.5, "emb_size": 17},
    ],
}
CMM, ATL = "mixed-cmm-m0.2-g1-atlop-minilm-seed1", "mixed-atl-atlop-minilm-seed1"
ALL = "mixed-atl-atlop-minilm-all-seed1"
FAILS = "mixed-remove0.5-aml-atlop-minilm-seed1"


def read(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with data laid out as the grids expect it, a few documents each, a tiny encoder and a grid file."""
    folder = tmp_path_factory.mktemp("experiments")
    documents = {split: read(SAMPLE / f"{split}_revised.json") for split in ("train", "dev", "test")}
    fewer_labels = [{**one, "labels": one["labels"][::2]} for one in documents["train"][:6]]
    files = {
        "docred-mini/train_annotated.json": fewer_labels,
        "redocred-mini/train_revised.json": documents["train"][:6],
        "redocred-mini/dev_revised.json": documents["dev"][:3],
        "redocred-mini/test_revised.json": documents["test"][:4],
        "redocred-mini/test_blind.json": [{**one, "labels": None} for one in documents["test"][4:7]],
        "meta/rel_info.json": read(SAMPLE / "rel_info.json"),
    }
    for name, content in files.items():
        (folder / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "data" / name).write_text(json.dumps(content))
    save_backbone(folder / "encoder")
    (folder / "grid.yaml").write_text(yaml.safe_dump(GRID, sort_keys=False))
    return folder


def command(work, *more, grid="grid.yaml"):
    places = ["--work_dir", work / "work", "--results_dir", work / "results", "--data_dir", work / "data"]
    return [str(word) for word in (work / grid, *places, "--model", work / "encoder", *more)]


def start(work, *more):
    """The grid in a process group of its own."""
    words = [sys.executable, "experiments/run_grid.py", *command(work, "--only", "seed1", *more)]
    log = open(work / "grid.log", "ab")  # noqa: SIM115
    return subprocess.Popen(words, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)


def wait_for(condition, process=None):
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        assert process is None or process.poll() is None, "the grid ended early"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def results(work):
    """Results of a grid that was stopped in its first run and started again, side by side this time; one of its runs fails."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("HF_DATASETS_CACHE", str(work / "cache"))
        first = start(work)
        wait_for(lambda: last_complete_checkpoint(work / "work" / CMM), first)
        first.send_signal(signal.SIGTERM)
        assert first.wait(120) != 0
        assert not (work / "results" / "runs").exists()
        assert run_grid.main(command(work, "--only", "seed1", "--parallel", "2")) == 1
    return work / "results"


# --------------------------------------------------------------------------------------------------------------- running


def test_record_of_a_run(results, work):
    record, other = read(results / "runs" / f"{CMM}.json"), read(results / "runs" / f"{ATL}.json")
    assert (record["resumed"], other["resumed"]) == (1, 0), "the grid was stopped in its first run"
    assert record["status"] == other["status"] == "finished"
    assert (record["arguments"]["cmm_margin"], record["config"]["cmm_margin"]) == (0.2, 0.2)
    assert other["arguments"]["learning_rate"] == other["training_arguments"]["learning_rate"] == 1e-4, "chosen"
    evaluations = [entry for entry in record["log"] if "eval_f1" in entry]
    assert [entry["epoch"] for entry in evaluations] == [1, 2, 3, 4, 5, 6]
    best = max(evaluations, key=lambda entry: entry["eval_f1"])
    assert (record["best_epoch"], record["last_epoch"], record["steps"]) == (best["epoch"], 6, 18)
    assert record["dev"]["f1"] == best["eval_f1"] > 0, "the best checkpoint was scored"
    assert record["dev"]["ign_f1"] == best["eval_ign_f1"]
    assert record["dev"]["average_precision"] == pytest.approx(best["eval_average_precision"])
    assert record["ign_reference"]["source"] == "train_annotated.json"
    assert record["dev_offset"]["f1"] >= record["dev"]["f1"], "the offset is the best one there"
    for split in ("test", "test_offset"):
        counts = record[split]["by_document"]
        assert [sum(counts[key]) for key in ("correct", "predicted", "gold")] == [
            record[split][key] for key in ("correct", "predictions", "gold")
        ]
        assert len(counts["gold"]) == 4
    assert other["test"]["by_document"]["gold"] == counts["gold"]
    assert record["device"]["peak_memory"] > 0
    text = json.dumps([record, other])
    assert "--train_file=DATA/docred-mini/train_annotated.json" in record["command"]
    assert not [place for place in (work, ROOT, sys.prefix, Path.home()) if f"{place}/" in text]


def test_a_run_without_evaluations_is_scored_on_test_at_its_own_threshold(results):
    record = read(results / "runs" / f"{ALL}.json")
    assert (record["best_epoch"], record["last_epoch"], record["offset"]) == (2, 2, None)
    assert "average_precision" in record["test"] and not {"dev", "dev_offset", "test_offset"} & set(record)
    with np.load(results / "margins" / f"{ALL}.npz") as kept:
        assert "test_margin" in kept and "dev_margin" not in kept


def test_margins_of_a_run(results, work):
    """They give back the predictions of the documents at any offset, here the tuned one."""
    offset = read(results / "runs" / f"{ATL}.json")["offset"]
    labels = ["Na", *sorted(read(work / "data" / "meta" / "rel_info.json"))]
    kept = np.load(results / "margins" / f"{ATL}.npz")
    documents = read(work / "data" / "redocred-mini" / "test_blind.json")
    document, pair, label = (kept[f"blind_{name}"].astype(int) for name in ("document", "pair", "label"))
    above = kept["blind_margin"].astype(np.float32) > offset
    sizes = np.array([len(one["vertexSet"]) for one in documents])[document]
    found = zip(document[above], pair[above] // sizes[above], pair[above] % sizes[above], label[above], strict=True)
    found = {(documents[d]["title"], h, t, labels[r]) for d, h, t, r in found}
    expected = {tuple(one.values()) for one in read(results / "blind" / "mixed-atl-offset.json")}
    assert len(found ^ expected) <= 0.01 * len(expected), "margins are rounded to half precision"
    assert {int(kept[f"{split}_cells"]) for split in ("dev", "test", "blind")} >= {len(above)}


def test_blind_predictions_of_the_first_seed(results, work):
    folder, found = results / "blind", {}
    titles = {one["title"] for one in read(work / "data" / "redocred-mini" / "test_blind.json")}
    for name in ("mixed-atl", "mixed-atl-offset"):
        predictions = read(folder / f"{name}.json")
        assert (
            (folder / f"{name}.txt").read_text().startswith(f"{name}.json: {len(predictions)} predictions of {ATL} ")
        )
        assert {tuple(one) for one in predictions} <= {("title", "h_idx", "t_idx", "r")}
        assert {one["title"] for one in predictions} <= titles
        found[name] = {tuple(one.values()) for one in predictions}
    assert len(list(folder.iterdir())) == 4
    offset = read(results / "runs" / f"{ATL}.json")["offset"]
    assert offset
    own, moved = found.values()
    assert moved < own if offset > 0 else own < moved
    lost = folder / "mixed-atl-offset.json"
    content = lost.read_bytes()
    try:
        lost.unlink()
        options = run_grid.options_of(command(work))
        states = {cell.name: run_grid.state_of(cell, options)[0] for cell in run_grid.read_grid(work / "grid.yaml")}
        assert (states[ATL], states[CMM]) == ("not run", "finished")
    finally:
        lost.write_bytes(content)


def test_finished_runs_are_skipped_and_their_checkpoints_gone(results, work, capsys):
    before = {path: path.read_bytes() for path in (results / "runs").iterdir()}
    assert run_grid.main(command(work, "--only", f"{CMM}|{ATL}")) == 0
    assert "2 of 2 runs are finished" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in (results / "runs").iterdir()} == before
    assert not (work / "work" / CMM).exists()


def test_list(results, work, capsys):
    with open(work / "work" / "mixed-atl-atlop-minilm-seed2.log", "wb") as log:
        run_grid.fcntl.flock(log, run_grid.fcntl.LOCK_EX)  # as a run does
        assert run_grid.main([str(work / "grid.yaml"), *command(work)[1:5], "--list"]) == 0
    listed = dict(
        line.split()[:2][::-1] for line in capsys.readouterr().out.replace("not run", "not_run").splitlines()
    )
    assert listed == {
        CMM: "finished",
        ATL: "finished",
        FAILS: "failed",
        CMM.replace("seed1", "seed2"): "not_run",
        ATL.replace("seed1", "seed2"): "running",
        ALL: "finished",
    }


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        (lambda grid, data: grid["arguments"].update(emb_size=32), "arguments.emb_size"),
        (lambda grid, data: data.write_text(data.read_text() + "\n"), "sha256.test"),
    ],
    ids=["arguments", "data"],
)
def test_other_settings_under_the_same_name(results, work, change, changed):
    grid, data = json.loads(json.dumps(GRID)), work / "data" / "redocred-mini" / "test_revised.json"
    before = data.read_text()
    try:
        change(grid, data)
        (work / "changed.yaml").write_text(yaml.safe_dump(grid))
        with pytest.raises(SettingsChangedError) as refused:
            run_grid.main(command(work, "--only", "seed1", grid="changed.yaml"))
        assert {*refused.value.changed} == {changed} and CMM in refused.value.place
    finally:
        data.write_text(before)


def test_another_file_behind_an_argument_is_refused(work, tmp_path, monkeypatch):
    """A cell's own files and models have a part in its identity; records of before lack them, and some are gone by now."""
    monkeypatch.setattr(run_grid, "ROOT", tmp_path)
    options = run_grid.options_of(command(work, "--work_dir", tmp_path, "--results_dir", tmp_path))
    own = {"train_file": "own.json", "model_name_or_path": "first", "backbone_overrides": "{}" * 500}
    cell = cells({"table": "t", "setting": "mixed", "seed": 1, "loss": "atl", **own}, path=tmp_path)[0]

    def identity():
        return run_grid.task_of(cell, str(work / "encoder"), options)["identity"]

    record, before = tmp_path / "runs" / f"{cell.name}.json", identity()
    (tmp_path / "first").mkdir()
    files = {"train_file": tmp_path / "own.json", "model_name_or_path": tmp_path / "first" / "model.safetensors"}
    for file in files.values():
        file.write_text("1")
    now = identity()
    assert {*now["sha256"]} - {*before["sha256"]} == {*files}
    for accepted in (before, now):
        write_json(record, {"name": cell.name, "status": "finished", **accepted})
        run_grid.check_same_identity({"name": cell.name, "identity": now}, options)
        run_grid.check_same_identity({"name": cell.name, "identity": before}, options)
    for name, file in files.items():
        file.write_text("2")
        with pytest.raises(SettingsChangedError) as refused:
            run_grid.check_same_identity({"name": cell.name, "identity": identity()}, options)
        assert {*refused.value.changed} == {f"sha256.{name}"}
        file.write_text("1")


def test_failed_run_is_recorded_and_stops_no_other(results, work):
    record = read(results / "runs" / f"{FAILS}.json")
    assert record["status"] == "failed"
    assert record["error"].startswith("SettingError: ")
    assert "emb_size" in record["error"]
    assert record["arguments"]["emb_size"] == 17
    assert sorted(path.stem for path in (results / "runs").iterdir()) == sorted([CMM, ATL, FAILS, ALL])
    log = (work / "work" / f"{FAILS}.log").read_text()
    assert '"file": "train_annotated-remove0.5-add0-seed1.json"' in log, "it had noisy labels"


@pytest.mark.parametrize("status", ["failed", "finished"])
@pytest.mark.parametrize("has_checkpoints", [True, False])
def test_what_starting_again_forgets(work, tmp_path, monkeypatch, status, has_checkpoints):
    """The record of a failed attempt, never one with results; the log, where there is no checkpoint to resume from."""
    options = run_grid.options_of(command(work, "--work_dir", tmp_path, "--results_dir", tmp_path))
    write_json(tmp_path / "runs" / f"{CMM}.json", {"status": status})
    (tmp_path / f"{CMM}.log").write_text("resuming from step 3\n")
    if has_checkpoints:
        (tmp_path / CMM).mkdir()
    monkeypatch.setattr(run_grid.subprocess, "Popen", lambda *words, **how: None)
    task = {"name": CMM, "arguments": {"output_dir": str(tmp_path / CMM)}}
    with run_grid.claim(CMM, options) as log:
        run_grid.start(task, log, options)
    assert (tmp_path / "runs" / f"{CMM}.json").is_file() == (status == "finished")
    assert bool((tmp_path / f"{CMM}.log").read_text()) == has_checkpoints


def test_process_that_died_is_recorded_as_failed(work, tmp_path, capsys):
    places = ["--work_dir", tmp_path, "--results_dir", tmp_path]
    options = run_grid.options_of(command(work, *places))
    cell = run_grid.read_grid(work / "grid.yaml")[0]
    run_grid.ended(cell, {cell: run_grid.task_of(cell, "a-hub-name", options)}, -9, options)
    assert f"failed    {CMM} the process ended with code -9 before it could say why" in capsys.readouterr().out
    assert read(tmp_path / "runs" / f"{CMM}.json")["axes"]["loss"] == "cmm"


# ----------------------------------------------------------------------------------------------------------------- grids


def cells(*blocks, path, **more):
    (path / "grid.yaml").write_text(yaml.safe_dump({"blocks": list(blocks), **more}, sort_keys=False))
    return run_grid.read_grid(path / "grid.yaml")


def test_only_that_names_no_run(work):
    with pytest.raises(ValueError, match="'mixed-alt'"):
        run_grid.main(command(work, "--only", "mixed-alt"))


def test_lists_are_multiplied_in_their_order(tmp_path):
    block = {"table": "t", "setting": "mixed", "seed": [2, 1], "loss": ["cmm", "atl"], "m": [0.2, 0], "gamma": 1}
    found = cells({**block, "exclude": [{"loss": "cmm", "m": 0, "seed": 2}]}, path=tmp_path)
    names = [cell.name for cell in found]
    assert list(dict.fromkeys(names)) == [
        "mixed-cmm-m0.2-g1-atlop-minilm-seed2",
        "mixed-atl-atlop-minilm-seed2",
        "mixed-cmm-m0.2-g1-atlop-minilm-seed1",
        "mixed-cmm-m0-g1-atlop-minilm-seed1",
        "mixed-atl-atlop-minilm-seed1",
    ]
    assert found[0].arguments == {
        **{"loss": "cmm", "relation_encoder": "atlop", "cmm_margin": 0.2, "cmm_gamma": 1, "seed": 2}
    }


def test_arguments_that_are_closest_to_a_run_win(tmp_path):
    block = {"table": "t", "setting": "mixed", "seed": 1, "loss": ["atl", "aml"], "learning_rate": [0.5]}
    block["how"] = [{"tag": "a", "emb_size": 5}, {"tag": "b"}]
    more = {
        "arguments": {"emb_size": 1, "weight_decay": 1, "learning_rate": 1},
        "chosen": {"*-aml-*": {"emb_size": 2}},
    }
    found = {cell.name: cell.arguments for cell in cells(block, path=tmp_path, **more)}
    assert {name: arguments["emb_size"] for name, arguments in found.items()} == {
        "mixed-atl-atlop-minilm-a-seed1": 5,
        "mixed-atl-atlop-minilm-b-seed1": 1,
        "mixed-aml-atlop-minilm-a-seed1": 5,
        "mixed-aml-atlop-minilm-b-seed1": 2,
    }
    assert {(one["learning_rate"], one["weight_decay"]) for one in found.values()} == {(0.5, 1)}


@pytest.mark.parametrize(
    ("block", "more", "said"),
    [
        ({"loss": "cmm"}, {}, "lacks .*'m', 'gamma'"),
        ({"loss": "atl", "setting": "docred"}, {}, "setting is none of"),
        ({"loss": "atl", "emb_size": [1, 2]}, {}, "two kinds of arguments"),
        ({"loss": "atl"}, {"blind": {"x": "mixed-atl"}}, "mixed-atl"),
        ({"loss": "atl", "eval_strategy": "no"}, {"blind": {"x": "mixed-atl-atlop-minilm"}}, "no offset"),
        ({"loss": "atl"}, {"excluded": {"atl": "slow"}}, "excluded names .*not in the grid"),
        ({"loss": "atl"}, {"exlude": []}, "found .*exlude"),
    ],
    ids=["cmm", "setting", "name", "blind", "blind without an offset", "excluded", "key"],
)
def test_wrong_grids(tmp_path, block, more, said):
    with pytest.raises(ValueError, match=said):
        cells({"table": "t", "setting": "mixed", "seed": 1, **block}, path=tmp_path, **more)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            {"blocks": [{"setting": "mixed"}]},
            r"found the block .*'setting': 'mixed'.* expected a mapping with a table",
        ),
        ({"blocks": ["mixed"]}, "found the block mixed"),
        ({"arguments": {}}, "found blocks None; expected a list"),
    ],
    ids=["table", "block", "blocks"],
)
def test_grids_without_blocks_or_tables(tmp_path, content, said):
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match=f"grid.yaml: {said}"):
        run_grid.read_grid(tmp_path / "grid.yaml")


def test_a_key_that_is_no_argument_is_refused_before_any_run(work, tmp_path):
    block = {"table": "t", "setting": "mixed", "seed": 1, "loss": "atl", "chose": ["tag"], "ways": [{"emb_size": 8}]}
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump({"blocks": [block]}))
    words = command(work, "--work_dir", tmp_path / "work", grid=tmp_path / "grid.yaml")
    with pytest.raises(UnknownArgumentsError, match=r"grid.yaml: .*choose") as refused:
        run_grid.main(words)
    assert refused.value.unknown == ["chose"] and not list((tmp_path / "work").iterdir())
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump({"blocks": [{**block, "extensions": "my_loss.py"}]}))
    run_grid.check_arguments(run_grid.read_grid(tmp_path / "grid.yaml"), "grid.yaml")  # it may be a setting of my_loss


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("minilm=/data/lr=3/model", ("minilm", "/data/lr=3/model")),
        ("/data/lr=3/model", ("", "/data/lr=3/model")),
        ("model", ("", "model")),
    ],
)
def test_name_and_place_of_a_model(word, expected):
    assert run_grid.named_model(word) == expected


def test_grids_of_the_project():
    """One name means one run in all of them, every loss is one that the library has, and every argument one of the script."""
    arguments, blind = {}, {}
    for path in GRIDS:
        run_grid.check_arguments(run_grid.read_grid(path), path)
    for cell in (cell for path in GRIDS for cell in run_grid.read_grid(path)):
        assert arguments.setdefault(cell.name, cell.arguments) == cell.arguments, cell.name
        if cell.blind:
            assert blind.setdefault(cell.blind, cell.name) == cell.name
            assert cell.axes["seed"] == 1
        fields = {key: cell.arguments[key] for key in ("loss", "cmm_margin", "cmm_gamma") if key in cell.arguments}
        if "ssr_pu_label_rates" not in cell.arguments:  # a file, made from the training documents
            CommConfig(**fields)
    assert {name.removeprefix("mixed-").split("-")[0] for name in arguments if name.startswith("mixed-")} == {
        *("cmm", "atl", "hingeabl", "sat", "balanced_softmax", "aml", "afl", "ncrl", "pu_cmm", "ssr_pu")
    }
    assert {"mixed-cmm-m0.2-g0-atlop-minilm-seed3", "mixed-cmm-m0-g1-atlop-minilm-seed1"} <= set(arguments)
    assert {"redocred-remove0.7-atl-atlop-minilm-seed1", "redocred-add0.35-cmm-m0.2-g1-atlop-minilm-seed1"} <= set(
        arguments
    )


def test_the_readme_lists_grids_and_scripts():
    """Each grid with its number of runs, and each script that is called."""
    text = (ROOT / "experiments" / "README.md").read_text(encoding="utf-8")
    listed = {name: int(number) for name, number in re.findall(r"(?m)^\| `(\w+\.yaml)` \| (\d+) \|", text)}
    assert listed == {path.name: len({cell.name for cell in run_grid.read_grid(path)}) for path in GRIDS}
    scripts = {path.name for path in (ROOT / "experiments").glob("*.py")} - {"__init__.py", "one_run.py", "shared.py"}
    assert scripts <= set(re.findall(r"(?:`|experiments/)(\w+\.py)\b", text))


# ------------------------------------------------------------------------------------------------------ tables, figures


def test_tables_and_figures_from_the_records(results, work, capsys):
    pytest.importorskip("matplotlib")
    places = ["--grids", str(work / "grid.yaml"), "--results_dir", str(results)]
    tables.main(places)
    text = capsys.readouterr().out
    record, other = read(results / "runs" / f"{CMM}.json"), read(results / "runs" / f"{ATL}.json")
    rows = [
        [word.strip() for word in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| CMM")
    ]
    assert rows[0][:4] == [
        "CMM (m 0.2, gamma 1)",
        "1, 2 not run",
        "62.31 / 61.33",
        f"{100 * record['test']['f1']:.1f}",
    ]
    assert rows[0][11] == f"{100 * record['dev_offset']['f1']:.1f}"
    assert rows[0][12:] == [f"{record['offset']:+.2f}", f"{record['best_epoch']:g} of 6", "18"]
    difference = 100 * (record["test"]["f1"] - other["test"]["f1"])
    assert {row[0] for row in rows[1:4]} == {"CMM (m 0.2, gamma 1) minus ATL"}
    assert rows[1][2].startswith(f"{difference:+.1f} [")
    mixed = 100 * (record["test"]["f1"] - other["test_offset"]["f1"])
    assert rows[3][1] == "only the other with offset"
    assert rows[3][2].startswith(f"{mixed:+.1f} [")
    assert f"- `{FAILS}` failed: SettingError: CommConfig: emb_size" in text
    assert f"train_annotated.json (sha256 {record['ign_reference']['sha256'][:12]})" in text
    figures.main(places)
    assert sorted(path.name for path in (results / "figures").iterdir()) == ["cmm-loss.png", "losses.png"]
    assert (results / "figures" / "losses.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("file", sorted((ROOT / "results" / "runs").glob("*.json")), ids=lambda file: file.stem)
def test_records_of_the_project(file):
    """Each says what made it, with no place of the machine in it."""
    record, text = read(file), file.read_text(encoding="utf-8")
    assert record["name"] == file.stem
    assert record["status"] in ("finished", "failed")
    for field in ("command", "commit", "seed", "versions", "device", "sha256", "ign_reference"):
        assert record[field] is not None, field
    assert "+changes" not in record["commit"]
    assert not re.search(r'"/|[ =]/(?!/)', text), "a path of the machine"


def test_finished_records_of_the_project_are_found_finished(tmp_path, capsys):
    """Whatever was renamed since: no run of theirs starts again."""
    records = [read(file) for file in (ROOT / "results" / "runs").glob("*.json")]
    finished = {record["name"] for record in records if record["status"] == "finished"}
    for path in GRIDS:
        assert run_grid.main([str(path), "--list", "--work_dir", str(tmp_path)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert finished and {words[1] for words in lines if words[0] == "finished"} == finished


def test_tables_of_the_project_are_those_of_its_records(tmp_path, capsys):
    texts = {path: path.read_text(encoding="utf-8") for path in (ROOT / "RESULTS.md", ROOT / "results" / "losses.md")}
    copies = [tmp_path / path.name for path in texts]
    for copy, text in zip(copies, texts.values(), strict=True):
        copy.write_text(text, encoding="utf-8")
    tables.main(["--fill", *map(str, copies)])
    assert capsys.readouterr().out == (ROOT / "results" / "tables.md").read_text(encoding="utf-8")
    for copy, text in zip(copies, texts.values(), strict=True):
        assert copy.read_text(encoding="utf-8") == text and "<!-- end -->" in text
    shown = {name for text in texts.values() for name in re.findall(r"\((?:results/)?figures/([\w-]+\.png)\)", text)}
    assert {path.name for path in (ROOT / "results" / "figures").iterdir()} == shown
    copies[0].write_text("<!-- no such table -->\n<!-- end -->\n", encoding="utf-8")
    with pytest.raises(ValueError, match="no such table"):
        tables.main(["--fill", str(copies[0])])


def test_blind_predictions_of_the_project():
    """Official format, relations and documents that exist, and a line on what made them."""
    files = list((ROOT / "results" / "blind").glob("*.json"))
    assert files
    for file in files:
        predictions = read(file)
        assert predictions
        assert all({"title", "h_idx", "t_idx", "r"} <= set(one) for one in predictions)
        said = file.with_suffix(".txt").read_text(encoding="utf-8")
        name = re.search(r"results/runs/([\w.-]+)\.json", said)[1]
        assert read(ROOT / "results" / "runs" / f"{name}.json")["commit"] in said


def record_of(cell, f1, seed, best=3, steps=100, documents=5):
    """A record with what tables read, all documents alike."""
    scores = {"f1": f1, "ign_f1": f1, "precision": f1, "recall": f1, "macro_f1": f1, "predictions": 10, "gold": 9}
    scores |= {part: {"f1": f1} for part in ("frequent", "long_tail", "intra", "inter")}
    counts = {"correct": [round(100 * f1)] * documents, "predicted": [100] * documents, "gold": [100] * documents}
    test = {**scores, "by_document": counts, "average_precision": f1}
    facts = {"source": "facts.json", "sha256": "0" * 64}
    return {
        **{
            "status": "finished",
            "seed": seed,
            "steps": steps,
            "best_epoch": best,
            "last_epoch": 4,
            "ign_reference": facts,
        },
        **{
            "offset": -seed / 4,
            "dev": {**scores, "average_precision": f1},
            "dev_offset": scores,
            "test": test,
            "test_offset": test,
            "sha256": {"test": "same"},
            "data": {"files": {"validation": {"sha256": "same"}}},
        },
        **{"name": cell.name, "log": [{"epoch": 1, "eval_f1": f1, "eval_predicted_positives": 7}]},
    }


def write_records(folder, records):
    (folder / "runs").mkdir(parents=True, exist_ok=True)
    for name, record in records.items():
        (folder / "runs" / f"{name}.json").write_text(json.dumps(record))


def test_table_of_seeds_failures_and_exclusions(tmp_path, capsys):
    block = {
        "table": "Some",
        "setting": "redocred",
        "seed": [1, 2, 3],
        "loss": [{"loss": "cmm", "m": 0.2, "gamma": 1}, "atl", "aml"],
    }
    found = {
        cell.name: cell
        for cell in cells(block, path=tmp_path, excluded={"redocred-atl-atlop-minilm-seed3": "its disk was full"})
    }
    values = {"cmm-m0.2-g1": (0.62, 0.60, 0.64), "atl": (0.5, 0.54, 0.9)}
    records = {}
    for loss, by_seed in values.items():
        for seed, f1 in enumerate(by_seed, 1):
            name = f"redocred-{loss}-atlop-minilm-seed{seed}"
            records[name] = record_of(
                found[name], f1, seed, best=4 if (loss, seed) == ("atl", 2) else 3, steps=100 - (loss == "atl")
            )
    records["redocred-aml-atlop-minilm-seed1"] = {"status": "failed", "error": "ValueError: no\nmore"}
    write_records(tmp_path / "results", {**records, "old-seed1": records["redocred-atl-atlop-minilm-seed1"]})
    tables.main(["--grids", str(tmp_path / "grid.yaml"), "--results_dir", str(tmp_path / "results")])
    text = capsys.readouterr().out
    assert "| CMM (m 0.2, gamma 1) | 1, 2, 3 | 76.12 / 74.76 | 62.0 ± 2.0 |" in text
    assert "| ATL | 1, 2, 3 excluded | 72.87 / 72.22 | 52.0 ± 2.8 |" in text
    assert "| AML | 1 failed, 2 not run, 3 not run | 72.96 / 72.14 |  |" in text
    assert "- `redocred-atl-atlop-minilm-seed3` excluded: its disk was full" in text
    assert "- `redocred-aml-atlop-minilm-seed1` failed: ValueError: no\n" in text
    assert "| -0.25, -0.50, -0.75 | 3 of 4 | 100 |" in text
    assert "| own thresholds | +9.0 [+9.0, +9.0] |" in text, "of the seeds that both have"
    assert "no: the best epoch of ATL is its last; fewer steps than CMM |" in text
    assert "shown nowhere above: old-seed1." in text


def test_choices_show_dev_only(tmp_path, capsys):
    block = {"table": "Rates", "choose": ["tag"], "setting": "mixed", "seed": 0, "loss": ["atl", "aml"]}
    found = cells({**block, "rate": [{"tag": "low"}, {"tag": "high"}]}, path=tmp_path)
    values = dict(zip((cell.name for cell in found), (0.31, 0.32, 0.42, 0.41), strict=True))
    records = {cell.name: record_of(cell, values[cell.name], 0) for cell in found}
    for record in records.values():
        record["test"] = record["test_offset"] = None
        record["dev_offset"] = {"f1": 0.73 - record["dev"]["f1"]}
    write_records(tmp_path / "results", records)
    tables.main(["--grids", str(tmp_path / "grid.yaml"), "--results_dir", str(tmp_path / "results")])
    lines = capsys.readouterr().out.splitlines()
    shown = [[word.strip() for word in line.split("|")] for line in lines if line.startswith("| A")]
    assert [[one[1], one[3], one[4]] for one in shown] == [
        ["ATL, low", "31.0", "**42.0**"],
        ["ATL, high", "**32.0**", "41.0"],
        ["AML, low", "**42.0**", "31.0"],
        ["AML, high", "41.0", "**32.0**"],
    ]


def test_a_run_that_was_trained_on_dev_is_shown_by_its_test_documents_alone(tmp_path, capsys):
    found = cells({"table": "Some", "setting": "mixed", "seed": 1, "loss": ["atl", "aml"]}, path=tmp_path)
    records = {cell.name: record_of(cell, 0.5, 1) for cell in found}
    other = records["mixed-aml-atlop-minilm-seed1"]
    del other["dev"], other["dev_offset"], other["test_offset"]
    other["offset"] = None
    write_records(tmp_path / "results", records)
    tables.main(["--grids", str(tmp_path / "grid.yaml"), "--results_dir", str(tmp_path / "results")])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| AML")]
    assert lines[0].startswith("| AML | 1 | 43.21 / 43.04 | 50.0 | 50.0 | 50.0 | 50.0 | 50.0 |  |  |  |  |  | 3 of 4")
    assert len(lines) == 2, "and among the scores at own thresholds"


def test_losses_are_compared_as_chosen_on_dev(tmp_path, capsys):
    """By dev F1 where a loss decides at its own threshold, by dev F1 with the offset where it has one; never by test F1."""
    block = {"table": "Some", "setting": "mixed", "seed": 1, "way": [{"tag": "short"}, {"tag": "long"}]}
    both = [{"loss": "cmm", "m": 0.4, "gamma": 2}, {"loss": "cmm", "m": 0.2, "gamma": 1}]
    found = cells({**block, "loss": [*both, "atl", {"loss": "cmm", "m": 0, "gamma": 1}]}, path=tmp_path)
    values = {  # dev F1, dev F1 with offset, test F1, test F1 with offset
        "mixed-cmm-m0.4-g2-atlop-minilm-short-seed1": (0.4, 0.5, 0.30, 0.60),
        "mixed-cmm-m0.2-g1-atlop-minilm-short-seed1": (0.3, 0.6, 0.90, 0.50),
        "mixed-atl-atlop-minilm-short-seed1": (0.2, 0.4, 0.20, 0.20),
        "mixed-atl-atlop-minilm-long-seed1": (0.1, 0.5, 0.90, 0.40),
        "mixed-cmm-m0-g1-atlop-minilm-long-seed1": (0.9, 0.9, 0.10, 0.10),
    }
    records = {}
    for cell in (cell for cell in found if cell.name in values):
        dev, dev_offset, test, test_offset = values[cell.name]
        record = record_of(cell, test, 1, steps=200 if cell.axes["tag"] == "long" else 100)
        record["test_offset"] = record_of(cell, test_offset, 1)["test"]
        records[cell.name] = record | {"dev": {**record["dev"], "f1": dev}, "dev_offset": {"f1": dev_offset}}
    write_records(tmp_path / "results", records)
    where = ["--grids", str(tmp_path / "grid.yaml"), "--results_dir", str(tmp_path / "results")]
    tables.main(where)
    lines = [line[2:].split(" | ") for line in capsys.readouterr().out.splitlines() if " minus " in line]
    larger, smaller = "CMM (m 0.4, gamma 2), short", "CMM (m 0.2, gamma 1), short"
    half = "CMM (m 0, gamma 1), long"
    assert [[*one[:2], one[2].split()[0]] for one in lines] == [
        [f"{larger} minus ATL, short", "own thresholds", "+10.0"],
        [f"{smaller} minus ATL, long", "both with offset", "+10.0"],
        [f"{larger} minus ATL, long", "only the other with offset", "-10.0"],
        [f"{larger} minus {half}", "own thresholds", "+20.0"],
        [f"{smaller} minus {half}", "both with offset", "+40.0"],
        [f"{larger} minus {half}", "only the other with offset", "+20.0"],
    ]
    assert {tuple(one[3:]) for one in lines} >= {("+10.0", "no: 1 of 3 seeds", "yes |")}
    assert {one[5] for one in lines} == {"yes |"}
    rows, _ = tables.read_tables([tmp_path / "grid.yaml"], tmp_path / "results")
    short = tables.fill("<!-- Some, in short -->\n<!-- end -->\n", rows)
    assert "| CMM | 62.31 | 30.0 | 50.0 | 90.0 | 1 |" in short and "| ATL | 50.09 | 20.0 | 40.0 | 90.0 | 1 |" in short
    for name in [name for name in records if "cmm" in name]:
        records[name]["steps"] = 201  # more than ATL in any of its rows
    write_records(tmp_path / "results", records)
    tables.main(where)
    assert capsys.readouterr().out.count("no: fewer steps than CMM") == 3


@pytest.mark.parametrize(
    ("differences", "interval", "expected"),
    [
        ({1: 0.2, 2: 1.0, 3: 3.0}, (0.1, 2.0), "yes"),
        ({1: -0.2, 2: -1.0, 3: -3.0}, (-2.0, -0.1), "yes"),
        ({1: 0.2, 2: 1.0, 3: 3.0}, (-0.1, 2.0), "no: the interval has 0"),
        ({1: -0.2, 2: 1.0, 3: 3.0}, (0.1, 2.0), "no: seeds differ in sign"),
        ({1: 0.0, 2: 1.0, 3: 3.0}, (0.1, 2.0), "no: seeds differ in sign"),
        ({1: 1.0, 2: 1.0}, (0.1, 2.0), "no: 2 of 3 seeds"),
    ],
)
def test_when_a_gain_is_claimed(differences, interval, expected):
    assert tables.is_gain(differences, *interval) == expected


def test_differences_of_each_seed(tmp_path, capsys):
    losses = [{"loss": "cmm", "m": 0.2, "gamma": 1}, "atl"]
    found = cells({"table": "Some", "setting": "mixed", "seed": [1, 2, 3], "loss": losses}, path=tmp_path)
    scores = {("cmm", 1): 0.4, ("cmm", 2): 0.5, ("cmm", 3): 0.6, ("atl", 3): 0.3, ("atl", 2): 0.2}
    of = {(cell.axes["loss"], cell.axes["seed"]): cell for cell in found}
    write_records(tmp_path / "results", {of[key].name: record_of(of[key], f1, key[1]) for key, f1 in scores.items()})
    tables.main(["--grids", str(tmp_path / "grid.yaml"), "--results_dir", str(tmp_path / "results")])
    line = next(line for line in capsys.readouterr().out.splitlines() if "minus ATL | own" in line)
    difference, *others = line.split(" | ")[2:5]
    assert difference.startswith("+30.0 ") and others == ["+30.0, +30.0", "no: 2 of 3 seeds"], "of the same seeds"


def test_losses_of_different_test_files_are_not_compared():
    def row(sha256):
        run = {"sha256": {"test": sha256}}
        without = {"has": lambda split: True, "without": lambda *axes: "", "dev_documents": ()}
        return SimpleNamespace(**without, competitor="ATL", label="ATL", runs=[run])

    with pytest.raises(ValueError, match="ATL and what it is compared with have 2 different test files"):
        tables.difference_table([row("a"), row("b")])


def test_rows_with_other_dev_documents_are_not_compared(tmp_path, capsys):
    """The best of them would be that with the easiest documents; the paper trained on neither of their files."""
    ways = [
        {"tag": "all"},
        {"tag": "split", "train_file": "dev_80.json"},
        {"tag": "rules", "complete_labels": "a.yaml"},
    ]
    losses = [{"loss": "cmm", "m": 0.2, "gamma": 1}, "atl"]
    found = cells({"table": "Some", "setting": "mixed", "seed": 1, "loss": losses, "how": ways}, path=tmp_path)
    records = {cell.name: record_of(cell, 0.5, 1) for cell in found}
    split = "mixed-cmm-m0.2-g1-atlop-minilm-split-seed1"
    records[split] = record_of(next(cell for cell in found if cell.name == split), 0.9, 1)
    records[split]["data"]["files"]["validation"]["sha256"] = "other"
    write_records(tmp_path / "results", records)
    tables.main(["--grids", str(tmp_path / "grid.yaml"), "--results_dir", str(tmp_path / "results")])
    lines = [line[2:].split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| CMM")]
    papers = {line[0]: line[2] for line in lines if len(line) > 10}
    name = "CMM (m 0.2, gamma 1)"
    assert papers == {f"{name}, all": "62.31 / 61.33", f"{name}, split": "", f"{name}, rules": ""}
    assert {line[0] for line in lines if " minus " in line[0]} == {f"{name}, all minus ATL, all"}
    rows = tables.read_tables([tmp_path / "grid.yaml"], tmp_path / "results")[0]
    with pytest.raises(ValueError, match="have different dev documents"):
        tables.fill("<!-- Some, in short -->\n<!-- end -->\n", rows)


def test_a_loss_without_another_name_is_shown_by_its_own(tmp_path, capsys):
    found = cells({"table": "Some", "setting": "mixed", "seed": 1, "loss": ["atl", "my_loss"]}, path=tmp_path)
    write_records(tmp_path / "results", {cell.name: record_of(cell, 0.5, 1) for cell in found})
    tables.main(["--grids", str(tmp_path / "grid.yaml"), "--results_dir", str(tmp_path / "results")])
    assert "| my_loss | 1 |  | 50.0 |" in capsys.readouterr().out


def test_a_choice_is_among_rows_with_the_same_dev_documents(tmp_path):
    block = {"table": "Rates", "choose": ["tag"], "setting": "mixed", "seed": 0, "loss": "atl"}
    found = cells({**block, "rate": [{"tag": "low"}, {"tag": "high"}, {"tag": "other"}]}, path=tmp_path)
    values = zip(found, (0.31, 0.32, 0.9), strict=True)
    records = {cell.name: record_of(cell, f1, 0) for cell, f1 in values}
    records["mixed-atl-atlop-minilm-other-seed0"]["data"]["files"]["validation"]["sha256"] = "other"
    write_records(tmp_path / "results", records)
    rows = tables.read_tables([tmp_path / "grid.yaml"], tmp_path / "results")[0]["Rates"]
    table = tables.choice_table(rows)
    assert "| ATL, high | 0 | **32.0**" in table and "| ATL, other | 0 | 90.0 |" in table


def test_a_comparison_with_a_model_that_is_trained_further_does_not_count(tmp_path, capsys):
    losses = [{"loss": "cmm", "m": 0.2, "gamma": 1, "model_name_or_path": "first"}, "atl"]
    found = cells({"table": "Some", "setting": "mixed", "seed": 1, "loss": losses}, path=tmp_path)
    write_records(tmp_path / "results", {cell.name: record_of(cell, 0.5, 1) for cell in found})
    tables.main(["--grids", str(tmp_path / "grid.yaml"), "--results_dir", str(tmp_path / "results")])
    lines = [line for line in capsys.readouterr().out.splitlines() if " minus " in line]
    assert lines and all(
        line.endswith("| no: CMM (m 0.2, gamma 1) trains a finished model further |") for line in lines
    )


def test_noise_curves(tmp_path):
    plt = pytest.importorskip("matplotlib.pyplot")
    block = {
        "table": "Noise",
        "setting": "redocred",
        "seed": [1, 2],
        "loss": [{"loss": "cmm", "m": 0.2, "gamma": 1}, "atl"],
    }
    noises = [{"remove": 0, "add": 0}, {"remove": 0.7}, {"add": 0.35}]
    found = cells({**block, "noise": noises}, path=tmp_path)
    records = {cell.name: record_of(cell, 0.5 - cell.axes["remove"] / 10, cell.axes["seed"]) for cell in found}
    write_records(tmp_path / "results", records)
    rows = tables.read_tables([tmp_path / "grid.yaml"], tmp_path / "results")[0]["Noise"]
    figure = figures.figure_noise(plt, rows)
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["CMM (m 0.2, gamma 1)", "CMM (m 0.2, gamma 1), offset", "ATL", "ATL, offset"]
    removed, added = (axis.containers[0].lines[0].get_xydata() for axis in figure.axes)
    assert removed == pytest.approx(np.array([[0, 50], [70, 43]]))
    assert added == pytest.approx(np.array([[0, 50], [35, 50]]))
    plt.close("all")


def test_bootstrap_by_hand():
    """Two documents: of all draws a quarter has the first one twice, a quarter the second one, and half has both."""
    first = np.array([[[4, 4, 4], [0, 2, 4]], [[2, 4, 4], [2, 2, 4]]])  # two runs
    second = np.array([[[0, 4, 4], [2, 4, 4]]])  # one run
    only_first = (1 + 0.5) / 2 - 0
    only_second = (0 + 4 / 6) / 2 - 0.5
    both = (8 / 14 + 8 / 14) / 2 - 4 / 16
    difference, low, high = tables.bootstrap_difference(first, second)
    assert difference == pytest.approx(both)
    assert (low, high) == pytest.approx((min(only_first, only_second, both), max(only_first, only_second, both)))
    assert tables.bootstrap_difference(first, first) == (0, 0, 0), "both see the same documents"


def test_counts_by_document_add_up_to_the_score():
    documents = read(SAMPLE / "test_revised.json")
    prior = TypePrior(read(SAMPLE / "train_revised.json"))
    predictions = prior.predict(documents, 0.2)
    counts, scores = one_run.document_counts(predictions * 2, documents), score(predictions, documents)
    assert [sum(counts[key]) for key in ("correct", "predicted", "gold")] == [
        scores[key] for key in ("correct", "predictions", "gold")
    ]
    assert 0 < scores["f1"] < 1


@pytest.mark.parametrize(
    ("positive", "margin", "gamma", "expected"),
    [
        (True, 0.0, 1.0, (np.log(2) * (1 + np.log(2)), -0.5 * (1 + 2 * np.log(2)))),
        (False, 0.2, 0.0, (-np.log(0.7), 0.25 / 0.7)),
        (False, 0.5, 0.0, (0.0, 0.0)),
    ],
    ids=["positive", "negative", "past-the-cut-off"],
)
def test_curves_of_cmm(positive, margin, gamma, expected):
    """At d = 0, where the logistic function is a half; the derivative of a positive is -(1 - s)(1 - 2 log s)."""
    loss, gradient = figures.cmm_at(torch.zeros(3), positive, margin, gamma)
    assert (loss[1].item(), gradient[2].item()) == pytest.approx(expected)


# ----------------------------------------------------------------------------------------------------------------- noise


@pytest.mark.parametrize(("margin", "gamma"), [(0, 0), (0.2, 0), (0.2, 1), (0.4, 2)])
def test_required_probability_by_hand(margin, gamma):
    """The probability at which the derivatives of both terms cancel at the threshold."""
    log2 = np.log(2)
    positive = ((1 + log2) ** gamma + gamma * (1 + log2) ** (gamma - 1) * log2) / 2
    negative = 0.25 / (0.5 + margin)
    expected = negative / (negative + positive)
    assert thresholds.required_probability(margin, gamma) == pytest.approx(expected, abs=2e-4)


def facts_of(documents):
    return {(one["title"], label["h"], label["t"], label["r"]) for one in documents for label in one["labels"]}


@pytest.mark.parametrize(("remove", "add"), [(0, 0), (0.35, 0), (0.7, 0), (0, 0.35), (0.35, 0.7), (1, 0)])
def test_counts_of_noise(remove, add):
    documents = read(SAMPLE / "train_revised.json")
    before = json.dumps(documents)
    noisy, report = noise.with_noise(documents, remove, add, seed=3)
    assert json.dumps(documents) == before, "what was given is not changed"
    clean, found = facts_of(documents), facts_of(noisy)
    assert report["facts"] == len(clean)
    assert len(clean - found) == report["removed"] == round(remove * len(clean))
    assert len(found - clean) == report["added"] == round(add * len(clean))
    assert noise.with_noise(documents, remove, add, seed=3) == (noisy, report)
    if remove not in (0, 1) or add:
        assert facts_of(noise.with_noise(documents, remove, add, seed=4)[0]) != found
    types = {
        (one["title"], number): mentions[0]["type"]
        for one in documents
        for number, mentions in enumerate(one["vertexSet"])
    }
    known = {(types[title, h], types[title, t], r) for title, h, t, r in clean}
    assert {(types[title, h], types[title, t], r) for title, h, t, r in found} <= known, "pairs of types that occur"
    more = facts_of(noise.with_noise(documents, min(1, remove + 0.2), add + 0.2, seed=3)[0])
    assert clean - found <= clean - more
    assert found - clean <= more - clean


@requires_shared
def test_wrong_labels_follow_the_frequencies_of_relations():
    documents = read(SHARED / "data" / "redocred-mini" / "train_revised.json")
    _, report = noise.with_noise(documents, add=0.7)
    frequency = Counter(relation for *_, relation in facts_of(documents))
    added, total = report["added_by_relation"], report["added"]
    assert total == round(0.7 * 13_707) == sum(added.values())
    for relation, count in frequency.most_common(5):
        share = count / frequency.total()
        assert abs(added[relation] / total - share) < 4 * (share * (1 - share) / total) ** 0.5, relation


@pytest.mark.parametrize("share", [{"remove": 1.1}, {"add": -0.1}], ids=str)
def test_shares_out_of_range(share):
    with pytest.raises(ValueError, match=r"remove|add"):
        noise.with_noise([], **share)


def test_noisy_files_stay_out_of_the_repository(tmp_path):
    source = SAMPLE / "train_revised.json"
    path = noise.write_noisy(source, tmp_path, remove=0.35)
    assert read(path) == noise.with_noise(read(source), remove=0.35)[0]
    assert read(path.with_suffix(".noise.json"))["remove"] == 0.35
    with pytest.raises(ValueError, match="repository"):
        noise.write_noisy(source, ROOT / "results", remove=0.35)


def test_files_for_incomplete_labels(tmp_path, capsys):
    """Without distantly supervised documents there are all that do not hold them."""
    revised = {split: read(SAMPLE / f"{split}_revised.json") for split in ("train", "dev")}
    write_json(tmp_path / "docred-mini" / "train_annotated.json", revised["train"][:6])
    write_json(tmp_path / "redocred-mini" / "dev_revised.json", revised["dev"])
    words, folder = [str(tmp_path), "--output_dir", str(tmp_path / "out")], tmp_path / "out"
    incomplete_labels.main(words)
    assert "train_distant.json: with_distant.json" in capsys.readouterr().out
    names = {"facts_per_label", "label_rates", "with_dev", "with_dev_4", "dev", "dev_80", "dev_20"}
    assert {path.name for path in folder.iterdir()} == {"rules.yaml", *(f"{name}.json" for name in names)}
    size, number = len(revised["dev"]), {name: len(read(folder / f"{name}.json")) for name in names}
    assert (number["with_dev"], number["with_dev_4"], number["dev"]) == (6 + size, 6 + 4 * size, size)
    assert number["dev_80"] + number["dev_20"] == size and number["dev_20"]
    write_json(tmp_path / "docred-mini" / "train_distant.json", revised["train"][6:8])
    incomplete_labels.main(words)
    assert len(read(folder / "with_distant.json")) == 8 and not capsys.readouterr().out


def test_missing_labels_are_counted():
    revised = read(SAMPLE / "train_revised.json")
    annotated, report = noise.with_noise(revised, remove=0.4, add=0.1)
    found = missing_labels.compare(annotated, revised)
    kept = report["facts"] - report["removed"]
    assert (found["documents"], found["other_entities"]) == (len(revised), 0)
    assert (found["gold"], found["predictions"]) == (report["facts"], kept + report["added"])
    assert found["recall"] == pytest.approx(kept / report["facts"])
    assert found["precision"] == pytest.approx(kept / (kept + report["added"]))
    annotated[0] = {**annotated[0], "vertexSet": annotated[0]["vertexSet"][1:]}
    annotated[1] = {**annotated[1], "title": "another"}
    found = missing_labels.compare(annotated, revised)
    assert (found["documents"], found["other_entities"]) == (len(revised) - 1, 1)
