"""Files are written whole or not at all, and stay what they are."""

import contextlib
import errno
import json
import os
import shutil
import stat
import threading
from pathlib import Path

import faults
import pytest
from helpers import random_document, save_backbone, tiny_model

from modeling_comm.utils.files import read_json, write_json
from modeling_comm.utils.writer import (
    STANDARD_OUTPUT,
    open_stream,
    remove_unfinished,
    replace_folder,
    replacing,
    write_bytes,
    write_text,
)

needs_posix = pytest.mark.skipif(os.name == "nt", reason="modes, links and devices as POSIX has them")
needs_mount = pytest.mark.skipif(not faults.can_mount(), reason="this machine lets nobody mount a small file system")


def documents(number):
    return [random_document(4, 30, seed=seed, title=f"Title {seed}") for seed in range(number)]


@needs_posix
@pytest.mark.parametrize("mode", [0o600, 0o644, 0o664, 0o755])
def test_modes_stay(tmp_path, mode):
    path = tmp_path / "a.json"
    path.write_text("old")
    path.chmod(mode)
    write_json(path, {"a": 1})
    assert stat.S_IMODE(path.stat().st_mode) == mode and read_json(path) == {"a": 1}


@needs_posix
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_new_files_have_the_mode_of_the_process(tmp_path, mask):
    before = os.umask(mask)
    try:
        write_text(tmp_path / "folder" / "a.txt", "a")
        tiny_model().save_pretrained(tmp_path / "model")
    finally:
        os.umask(before)
    written = [tmp_path / "folder" / "a.txt", *(tmp_path / "model").iterdir()]
    assert len(written) > 2
    assert {stat.S_IMODE(path.stat().st_mode) for path in written} == {0o666 & ~mask}


@needs_posix
def test_weights_that_are_saved_again_keep_their_mode(tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").chmod(0o640)
    model.save_pretrained(tmp_path)
    assert stat.S_IMODE((tmp_path / "model.safetensors").stat().st_mode) == 0o640


@needs_posix
def test_a_file_that_nobody_may_write_is_not_replaced(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    path.chmod(0o444)
    if os.access(path, os.W_OK):
        pytest.skip("root may write everything")
    with pytest.raises(PermissionError) as refused:
        write_text(path, "new")
    assert refused.value.filename == str(path) and path.read_text() == "old"


@needs_posix
def test_links_stay(tmp_path):
    (tmp_path / "stored").mkdir()
    link, target = tmp_path / "link.json", tmp_path / "stored" / "target.json"
    link.symlink_to("stored/target.json")  # to nothing yet
    for value in (1, 2):
        write_json(link, value)
        assert link.is_symlink() and read_json(target) == value
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["link.json", "stored", "target.json"]


@needs_posix
def test_a_loop_of_links_is_one_error(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError) as refused:
        write_text(tmp_path / "a", "text")
    assert refused.value.errno == errno.ELOOP and refused.value.filename == str(tmp_path / "a")
    assert (tmp_path / "a").is_symlink()


@needs_posix
def test_devices_and_pipes_stay(tmp_path):
    write_text(os.devnull, "text")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write_bytes(pipe, b"through a pipe")
    reader.join(timeout=10)
    assert read == [b"through a pipe"] and stat.S_ISFIFO(pipe.stat().st_mode)
    assert open_stream(tmp_path / "new") is None


def test_an_error_leaves_the_old_content_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    for error in (KeyboardInterrupt, ValueError):
        with contextlib.suppress(error), replacing(path) as file:
            file.write(b"half of the ne")
            raise error
        assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_nobody_can_take_the_temporary_name_beforehand(tmp_path):
    seen = set()
    for _ in range(3):
        with replacing(tmp_path / "a.txt") as file:
            file.write(b"text")
            seen |= {path.name for path in tmp_path.iterdir()} - {"a.txt"}
    assert len(seen) == 3 and not any(str(os.getpid()) in name for name in seen)


def test_what_a_kill_has_left_is_deleted_and_nothing_else(tmp_path):
    (tmp_path / "notes.unfinished").write_text("mine")
    (tmp_path / "_a.txt.unfinished").write_text("mine")
    for name in ("a.txt", "b.txt", "n" * 250):
        pid = os.fork()
        if pid == 0:
            with replacing(tmp_path / name) as file:
                file.write(b"half")
                file.flush()
                os._exit(0)  # as a kill: nothing is cleaned up
        os.waitpid(pid, 0)
    assert len(list(tmp_path.iterdir())) == 5
    remove_unfinished(tmp_path, "a.txt")
    assert len(list(tmp_path.iterdir())) == 4
    remove_unfinished(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["_a.txt.unfinished", "notes.unfinished"]


@needs_posix
def test_names_that_are_no_utf_8_and_long_ones(tmp_path):
    for name in (os.fsdecode(b"caf\xe9.json"), "n" * 250 + ".json"):
        write_json(tmp_path / name, {"source": name})
        assert read_json(tmp_path / name) == {"source": name}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_full_device_has_a_name():
    with pytest.raises(OSError) as refused:
        write_text("/dev/full", "text")
    assert refused.value.errno == errno.ENOSPC and refused.value.filename == "/dev/full"


# ------------------------------------------------------------------------------------------------------------ commands


@needs_posix
def test_outputs_that_are_no_files(commands, model, tmp_path):
    """The same bytes, by whatever name standard output is called, and wherever it leads to."""
    truth, facts, lines = tmp_path / "truth.json", tmp_path / "facts.json", tmp_path / "in.jsonl"
    write_json(truth, documents(2))
    write_json(facts, [])
    lines.write_text("".join(json.dumps(document) + "\n" for document in documents(2)))
    evaluate = ["comm-docre", "evaluate", "--predictions", facts, "--truth", truth, "--output"]
    predict = ["comm-docre", "predict", "--model", model, "--input", lines, "--format", "jsonl", "--output"]
    for command, own in ((evaluate, "scores.json"), (predict, "out.jsonl")):
        to_file, to_stdout, to_null, to_full = commands(
            [*command, tmp_path / own], [*command, "/dev/stdout"], [*command, "/dev/null"], [*command, "/dev/full"]
        )
        assert [one.status for one in (to_file, to_stdout, to_null)] == [0, 0, 0], to_stdout.err
        assert to_stdout.out == (tmp_path / own).read_text() and to_stdout.out
        if os.path.exists("/dev/full"):
            (line,) = (line for line in to_full.err.splitlines() if line.startswith("error"))
            assert to_full.status == 2 and "No space left on device: '/dev/full'" in line
    view = ["comm-docre", "view", "--input", tmp_path / "out.jsonl", "--title", "A", "--output"]
    (shown, page) = commands([*view, "/dev/stdout"], [*view, tmp_path / "page.html"])
    assert page.status == 0 and shown.out == (tmp_path / "page.html").read_text()
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


def test_a_hyphen_is_standard_output_where_one_file_is_written(commands, tmp_path):
    """The same bytes and nothing beside them; no file is called `-`."""
    truth, rules, facts = (tmp_path / name for name in ("truth.json", "rules.yaml", "facts.json"))
    write_json(truth, documents(2))
    write_json(facts, [])
    record = {
        "version": 1,
        "title": "a",
        "text": "Ada met Bo.",
        "sentences": [],
        "entities": [],
        "triples": [],
        "lost": {},
    }
    (tmp_path / "in.jsonl").write_text(json.dumps(record) + "\n")
    words = {
        "rules": ["--documents", truth, "--min_confidence", "0.1", "--min_support", "1"],
        "complete": ["--documents", truth, "--rules", rules, "--complete", truth],
        "evaluate": ["--predictions", facts, "--truth", truth],
        "import": ["--input", truth],
        "export": ["--format", "doccano", "--input", tmp_path / "in.jsonl"],
        "view": ["--input", tmp_path / "in.jsonl"],
    }
    jobs = [
        {"command": ["comm-docre", name, *given, "--output", output], "cwd": tmp_path}
        for name, given in words.items()
        for output in (rules if name == "rules" else tmp_path / f"{name}.out", "-")
    ]
    finished = commands(*jobs)
    for name, to_file, to_stdout in zip(words, finished[::2], finished[1::2], strict=True):
        written = (rules if name == "rules" else tmp_path / f"{name}.out").read_text()
        assert (to_file.status, to_stdout.status) == (0, 0), to_stdout.err
        assert to_stdout.out == written and written, name
        assert to_stdout.err.strip(), name  # the counts
    split, closed, graph = commands(
        ["comm-docre", "import", *words["import"], "--output", "-", "--split", "80", "10", "10"],
        {"command": ["comm-docre", "evaluate", *words["evaluate"], "--output", "-"], "closed": [1]},
        ["comm-docre", "graph", *words["view"], "--output", "-"],
    )
    for one, found in (
        (split, "expected a folder"),
        (closed, "standard output"),
        (graph, "-: expected a name that ends in"),
    ):
        assert one.status == 2 and found in one.err and not one.out
    assert not (tmp_path / "-").exists()


def test_the_name_of_standard_output_needs_no_such_file(monkeypatch, capfd):
    status = os.stat

    def without_devices(path, *arguments, **options):
        if os.fspath(path) == STANDARD_OUTPUT:
            raise FileNotFoundError(path)
        return status(path, *arguments, **options)

    monkeypatch.setattr(os, "stat", without_devices)
    write_text(STANDARD_OUTPUT, "text")
    assert capfd.readouterr().out == "text"


@pytest.mark.parametrize("renamings", [None, 0, 1, 2], ids=["copying", "first", "second", "none"])
@pytest.mark.parametrize("existed", [True, False])
def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch, renamings, existed):
    """Interrupted while it is copied, or at one of the renamings."""
    source, target = tmp_path / "source", tmp_path / "to" / "target"
    write_text(source / "a" / "new.txt", "new")
    if existed:
        write_text(target / "old.txt", "old")
    copytree, rename, done = shutil.copytree, Path.rename, []

    def interrupted_copy(*arguments, **options):
        copytree(*arguments, **options)
        raise KeyboardInterrupt

    def interrupted_rename(path, to):
        done.append(path)
        if len(done) == renamings + 1:
            raise KeyboardInterrupt
        return rename(path, to)

    if renamings is None:
        monkeypatch.setattr(shutil, "copytree", interrupted_copy)
    else:
        monkeypatch.setattr(Path, "rename", interrupted_rename)
    fails = renamings is None or renamings < (2 if existed else 1)
    with pytest.raises(KeyboardInterrupt) if fails else contextlib.nullcontext():
        replace_folder(source, target)
    expected = {} if fails and not existed else {"old.txt": "old"} if fails else {"new.txt": "new"}
    assert {path.name: path.read_text() for path in target.rglob("*.txt")} == expected
    assert [path.name for path in target.parent.iterdir()] == (["target"] if expected else [])


def test_what_a_kill_leaves_of_a_folder_is_deleted(tmp_path):
    write_text(tmp_path / "source" / "new.txt", "new")
    write_text(tmp_path / "to" / "_target.0123456789abcdef.unfinished" / "old" / "old.txt", "old")
    replace_folder(tmp_path / "source", tmp_path / "to" / "target")
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["target"]


@needs_mount
def test_a_full_disk_stops_predict_and_it_resumes(commands, model, tmp_path):
    lines, small, kept = tmp_path / "in.jsonl", tmp_path / "small", tmp_path / "kept"
    small.mkdir()
    lines.write_text("".join(json.dumps(document) + "\n" for document in documents(24)))
    command = ["comm-docre", "predict", "--model", model, "--input", lines, "--format", "jsonl"]
    command += ["--batch_size", "8", "--threshold_offset", "-100", "--output"]
    (whole,) = commands([*command, tmp_path / "out.jsonl"])
    assert whole.status == 0
    size = (tmp_path / "out.jsonl").stat().st_size
    full, resumed = commands(
        {"disk": small, "size": f"{size // 2 // 1024}k"},
        [*command, small / "out.jsonl"],
        {"disk": small, "size": "8m"},
        [*command, small / "out.jsonl"],
        {"copy": small, "to": kept},
    )
    (line,) = (line for line in full.err.splitlines() if line.startswith("error"))
    assert full.status == 2 and "No space left on device: " in line and str(small / "out.jsonl") in line
    assert resumed.status == 0, resumed.err
    assert (kept / "out.jsonl").read_bytes() == (tmp_path / "out.jsonl").read_bytes()
    assert sorted(path.name for path in kept.iterdir()) == ["out.jsonl", "out.jsonl.settings.json"]


@needs_mount
def test_a_full_disk_stops_a_training_and_it_resumes(commands, tmp_path):
    small, kept = tmp_path / "small", tmp_path / "kept"
    small.mkdir()
    write_json(tmp_path / "train.json", documents(4))
    command = ["run_docre.py", "--use_cpu", "--do_train", "--train_file", tmp_path / "train.json", "--max_steps", "4"]
    command += ["--model_name_or_path", save_backbone(tmp_path / "encoder"), "--emb_size", "16", "--block_size", "4"]
    command += ["--save_strategy", "steps", "--save_steps", "1", "--cache_dir", tmp_path / "cache"]
    command += ["--load_best_model_at_end", "false", "--eval_strategy", "no", "--save_total_limit", "9"]
    command += ["--per_device_train_batch_size", "1", "--report_to", "none", "--output_dir"]
    (whole,) = commands([*command, tmp_path / "whole"])
    assert whole.status == 0, whole.err
    size = sum(path.stat().st_size for path in (tmp_path / "whole").glob("checkpoint-1/*"))
    full, resumed = commands(
        {"disk": small, "size": f"{int(2.4 * size) // 1024}k"},
        [*command, small / "run"],
        {"disk": small, "size": "64m"},
        [*command, small / "run"],
        {"copy": small / "run", "to": kept},
    )
    (line,) = (line for line in full.err.splitlines() if line.startswith("error"))
    assert full.status == 2 and "No space left on device: " in line and str(small / "run") in line
    assert "Traceback" not in full.err
    assert resumed.status == 0, resumed.err
    assert read_json(kept / "run.json")["resumed_from"] == [2]
    assert (kept / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()
