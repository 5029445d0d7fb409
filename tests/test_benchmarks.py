"""Benchmarks: their small forms run, the textbook forms agree with the library, and the documentation shows what was measured."""

import json
import sys

import pytest
from helpers import ROOT, save_backbone

sys.path.append(str(ROOT / "benchmarks"))
import gpu
import growth
import uneven_batch

RESULTS = ROOT / "benchmarks" / "results"


def test_growth(tmp_path, capsys):
    """It compares the logits of all three encoders with their textbook forms itself."""
    backbone = save_backbone(tmp_path / "encoder")
    page, output = tmp_path / "page.md", tmp_path / "growth.json"
    page.write_text(f"Before.\n\n{growth.MARKS[0]}\nold\n{growth.MARKS[1]}\n\nAfter.\n")
    flags = [
        "--backbone",
        backbone,
        "--emb_size",
        "64",
        "--entities",
        "3",
        "5",
        "--tokens",
        "30",
        "90",
        "--repeats",
        "1",
    ]
    flags += ["--fixed_entities", "3", "--fixed_tokens", "30", "--output", str(output), "--docs", str(page)]
    growth.main(flags)
    record = json.loads(output.read_text())
    compared = [row for row in record["rows"] if "difference" in row]
    assert {row["encoder"] for row in compared} == {"atlop", "docunet", "kd_docre"} and len(record["rows"]) == 9
    assert all(row["difference"] < growth.TOLERANCE for row in compared)
    assert {row["windows"] > 1 for row in record["rows"]} == {True, False}
    assert (
        page.read_text() == f"Before.\n\n{growth.MARKS[0]}\n\n{growth.shown(record)}\n\n{growth.MARKS[1]}\n\nAfter.\n"
    )
    assert output.with_suffix(".svg").read_text().startswith("<?xml")


def test_growth_ends_where_the_forms_differ(tmp_path, monkeypatch):
    backbone = save_backbone(tmp_path / "encoder")
    monkeypatch.setattr(growth, "TEXTBOOK", {"atlop": lambda model, batch: model(**batch).logits + 1e-3})
    flags = ["--backbone", backbone, "--encoders", "atlop", "--entities", "3", "--tokens", "16", "--emb_size", "64"]
    with pytest.raises(SystemExit, match="logits differ"):
        growth.main([*flags, "--fixed_tokens", "16", "--fixed_entities", "3", "--output", str(tmp_path / "out.json")])
    assert not (tmp_path / "out.json").exists()


def test_the_documentation_shows_what_was_measured():
    record = json.loads((RESULTS / "growth.json").read_text(encoding="utf-8"))
    assert growth.shown(record) in (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")


def test_gpu_script_at_small_size(tmp_path):
    output = tmp_path / "gpu.json"
    sizes = {
        "hidden": 64,
        "layers": 1,
        "emb_size": 64,
        "documents": 2,
        "tokens": 24,
        "entities": 3,
        "steps": 1,
        "warmup": 0,
    }
    gpu.main([*(f"--{name}={value}" for name, value in sizes.items()), f"--output={output}"])
    record = json.loads(output.read_text())
    assert set(record["ratios"]) == set(record["goals"]) == {"to the bare backbone", "textbook form to it"}
    assert all(ratio > 0 for ratio in record["ratios"].values())


def test_gpu_script_keeps_to_its_limit(tmp_path):
    output = tmp_path / "gpu.json"
    gpu.main(
        [
            "--hidden=64",
            "--layers=1",
            "--emb_size=64",
            "--documents=2",
            "--tokens=24",
            "--limit=0",
            f"--output={output}",
        ]
    )
    assert json.loads(output.read_text())["ratios"] == {}


def test_uneven_batch(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(uneven_batch, "BATCHES", {"uneven": [6, 2, 2]})
    flags = ["--backbone", save_backbone(tmp_path / "encoder"), "--emb_size", "64", "--rounds", "1"]
    uneven_batch.main([*flags, "--output", str(tmp_path / "out.json")])
    (ratios,) = json.loads((tmp_path / "out.json").read_text())["ratios"].values()
    assert set(ratios) == {"step", "step, padded", "forward", "forward, padded"}
    assert capsys.readouterr().out.startswith("uneven: step ")
