"""The tables of `docs/reliability.md`: each cell is what a command does. `COMM_WRITE_TABLES=1` writes them."""

import fcntl
import gzip
import json
import os
import re
import signal

import faults
import pytest
from helpers import ROOT, random_document, save_backbone, tiny_model, tiny_system

from modeling_comm.reporting.markdown import join_cells
from modeling_comm.utils.files import write_json

PAGE = ROOT / "docs" / "reliability.md"
DOCUMENTS = [random_document(4, 30, seed=seed, title=f"Title {seed}") for seed in range(16)]
TEXT = json.dumps(DOCUMENTS).encode()


def wrong(document):
    return {**document, "vertexSet": [[], *document["vertexSet"][1:]]}


# What is wrong with a file: its content, or a function that makes it.
FILES = {
    "there is none": lambda path: None,
    "a folder": lambda path: path.mkdir(),
    "a loop of links": lambda path: path.symlink_to(path.name),
    "empty": b"",
    "cut off": TEXT[:-40],
    "gzip, cut off": gzip.compress(TEXT)[:-40],
    "gzip, garbage behind its head": b"\x1f\x8b" + bytes(range(256)),
    "not UTF-8": b'["caf\xe9"]',
    "JSON of 100,000 brackets": b"[" * 100_000,
    "a number of 5,000 digits": b"[" + b"1" * 5000 + b"]",
    "JSON, but a number": b"3",
    "one wrong document": json.dumps([wrong(DOCUMENTS[0]), *DOCUMENTS[1:]]).encode(),
}
PROCESSES = ("Ctrl-C", "kill -9", "another process writes there", "the disk is full", "stdin and stdout are closed")


def outcome(finished, *named):
    """A command's end in words; that it is one line is checked."""
    assert "Traceback" not in finished.err, finished.err
    errors = [line for line in finished.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == (finished.status == 2), finished.err
    assert not errors or any(name in errors[0] for name in named), (errors, named)
    return {0: "done", 2: "refused", 3: "set aside", 130: "interrupted"}[finished.status]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reliability")
    config, processor = tiny_system("bert")
    tiny_model(config).save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    save_backbone(folder / "encoder")
    write_json(folder / "right.json", DOCUMENTS)
    write_json(folder / "facts.json", [])
    return folder


def predict(work, source, output):
    words = ["--model", work / "model", "--format", "docred", "--batch_size", "4", "--threshold_offset", "1"]
    return ["comm-docre", "predict", *words, "--input", source, "--output", output]


def train(work, source, output, steps=4):
    words = ["run_docre.py", "--use_cpu", "--do_train", "--train_file", source, "--cache_dir", work / "cache"]
    words += ["--model_name_or_path", work / "encoder", "--emb_size", "16", "--block_size", "4", "--report_to", "none"]
    words += ["--per_device_train_batch_size", "1", "--eval_strategy", "no", "--load_best_model_at_end", "false"]
    words += ["--save_strategy", "steps", "--save_steps", "1", "--save_total_limit", "9", "--max_steps", str(steps)]
    return [*words, "--output_dir", output]


def rows_of_files(commands, work, tmp_path):
    evaluate = ["comm-docre", "evaluate", "--predictions"]
    for number, (fault, content) in enumerate(FILES.items()):
        path = tmp_path / f"file{number}"
        content(path) if callable(content) else path.write_bytes(content)
        finished = commands(
            predict(work, path, tmp_path / f"{number}.jsonl"),
            [*evaluate, work / "facts.json", "--truth", path],
            [*evaluate, path, "--truth", work / "right.json"],
            ["comm-docre", "view", "--input", path, "--output", tmp_path / f"{number}.html"],
            train(work, path, tmp_path / f"run{number}"),
        )
        yield [fault, *(outcome(one, path.name) for one in finished)]


def rows_of_processes(commands, work, tmp_path):
    source = work / "right.json"
    makers = {"predict": predict, "train": train}
    results = {"predict": "whole", "train": "whole/model.safetensors"}
    rows = {fault: [fault] for fault in PROCESSES}
    for name, make in makers.items():
        place = tmp_path / name
        place.mkdir()
        whole, output, small = place / "whole", place / "output", place / "small"
        small.mkdir()
        (finished,) = commands(make(work, source, whole))
        assert finished.status == 0, finished.err
        expected = (place / results[name]).read_bytes()
        result = place / results[name].replace("whole", "output")

        def again(make=make, output=output, result=result, expected=expected):
            (finished,) = commands(make(work, source, output))
            assert result.read_bytes() == expected
            return f"{outcome(finished)} by the same command, same bytes"

        # Calls that make something last: within the second batch, or when the record of the training is written.
        early, late = {"predict": (5, 8), "train": (3, 3)}[name]
        stopped, killed = commands(
            {"command": make(work, source, output), "before_call": early, "signal": signal.SIGINT},
            {"command": make(work, source, output), "before_call": late},
        )
        rows["Ctrl-C"].append(f"{outcome(stopped)}, then {again()}")
        assert killed.status == -signal.SIGKILL, killed.err
        rows["kill -9"].append(again())
        locked = os.open(output, os.O_RDONLY)
        fcntl.flock(locked, fcntl.LOCK_EX)
        (finished,) = commands(make(work, source, output))
        os.close(locked)
        rows["another process writes there"].append(outcome(finished, str(output)))
        size = sum(file.stat().st_size for file in (whole.rglob("*") if whole.is_dir() else [whole]) if file.is_file())
        full, resumed = commands(
            {"disk": small, "size": f"{size // 2 // 1024}k"},
            make(work, source, small / "output"),
            {"disk": small, "size": "64m"},
            make(work, source, small / "output"),
        )
        assert "No space left on device" in full.err
        rows["the disk is full"].append(
            f"{outcome(full, str(small))}: no space; then {outcome(resumed)} by the same command"
        )
        (finished,) = commands({"command": make(work, source, place / "closed"), "closed": [0, 1]})
        rows["stdin and stdout are closed"].append(outcome(finished))
    return rows.values()


def check_table(name, header, rows):
    lines = str(join_cells(header, rows))
    text = PAGE.read_text(encoding="utf-8")
    pattern = rf"(<!-- {name} -->\n\n).*?(\n\n<!-- end -->)"
    (table,) = (found.group(0) for found in re.finditer(pattern, text, re.DOTALL))
    made = f"<!-- {name} -->\n\n" + lines + "\n\n<!-- end -->"
    if os.environ.get("COMM_WRITE_TABLES"):
        PAGE.write_text(text.replace(table, made), encoding="utf-8")
    else:
        assert table == made


def test_table_of_files(commands, work, tmp_path):
    header = ["the file", "`predict`", "`evaluate`: truth", "`evaluate`: predictions", "`view`", "training"]
    check_table("files", header, list(rows_of_files(commands, work, tmp_path)))


@pytest.mark.skipif(not faults.can_mount(), reason="this machine lets nobody mount a small file system")
def test_table_of_processes(commands, work, tmp_path):
    header = ["what happens", "`predict`", "training"]
    check_table("processes", header, list(rows_of_processes(commands, work, tmp_path)))
