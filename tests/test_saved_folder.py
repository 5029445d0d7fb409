"""A model's folder holds one model, or none that loads: whenever a save ends, and whatever was there before."""

import contextlib
import os
import shutil
import stat
import sys

import pytest
from helpers import LABELS, tiny_config, tiny_model, tiny_processor
from safetensors.torch import load_file
from transformers import pipeline

from modeling_comm import CommForDocumentRelationExtraction, CommProcessor
from modeling_comm.configuration_comm import TASK
from modeling_comm.saved_folder import destination_of, replacing_folder
from modeling_comm.utils.files import read_json
from modeling_comm.utils.writer import remove_unfinished

needs_posix = pytest.mark.skipif(os.name == "nt", reason="modes, links and forks as POSIX has them")
OTHER_LABELS = {**LABELS, 1: LABELS[2], 2: LABELS[1]}
# What Python tells of what a process does to files.
EVENTS = ("open", "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.chmod", "shutil.move", "shutil.rmtree")


def system(labels, seed):
    """A pipeline of a random model. Two of the same sizes whose labels are in another order can be mixed up without an error."""
    config = tiny_config(id2label=labels)
    return pipeline(TASK, model=tiny_model(config, seed), processor=tiny_processor(config))


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    """A process that ends does not lose what it has written, only a machine does."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="module")
def old():
    return system(LABELS, 0)


@pytest.fixture(scope="module")
def new():
    return system(OTHER_LABELS, 1)


class Events:
    """What happens to the files of a folder, from now on, in this process and in those that are forked."""

    def __init__(self, folder):
        self.folder, self.names, self.last = str(folder), [], None
        sys.addaudithook(self.on_event)

    def on_event(self, event, arguments):
        if self.folder is not None and event in EVENTS and self.folder in str(arguments):
            self.names.append(event)
            if len(self.names) == self.last:
                os._exit(3)  # as a kill: nothing is cleaned up, nobody is told

    def count(self, function):
        """The names of the events while a function runs."""
        self.names.clear()
        function()
        return list(self.names)

    def end_before(self, number, function):
        """Runs a function in a process that ends before the event of that number."""
        pid = os.fork()
        if pid == 0:
            self.names.clear()
            self.last = number
            try:
                function()
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3


def state_of(folder, systems):
    """Which system a folder holds; None where no model loads."""
    found = {"config.json": None, "processor_config.json": None, "model.safetensors": None}
    for name in found:
        if not (folder / name).exists():
            continue
        for one, of in systems.items():
            if name.endswith(".json"):
                saved = {int(index): label for index, label in read_json(folder / name)["id2label"].items()}
                is_same = saved == of.model.config.id2label
            else:
                saved = load_file(folder / name)
                weights = of.model.state_dict()
                is_same = all(saved[key].equal(weights[key]) for key in weights)
            if is_same:
                found[name] = one
    if found["config.json"] is None:
        with pytest.raises((OSError, ValueError)):
            CommForDocumentRelationExtraction.from_pretrained(folder)
        # Transformers makes a processor of a tokenizer alone: it knows no relation, and fits no model.
        with contextlib.suppress(OSError, ValueError):
            processor = CommProcessor.from_pretrained(folder)
            assert found["processor_config.json"] is not None or not processor.relations
        return None
    assert len(set(found.values())) == 1, found
    return found["model.safetensors"]


@needs_posix
@pytest.mark.parametrize("before", ["old", None])
def test_a_save_that_ends_at_any_moment(tmp_path, old, new, before):
    systems, states, folder = {"old": old, "new": new}, [], tmp_path / "model"
    events = Events(folder)
    names = events.count(lambda: new.save_pretrained(folder))
    # Each file is written, gets its mode and is moved; what is removed, and what happens at the end, decides.
    removals = {number + shift for number, name in enumerate(names) if name == "os.remove" for shift in (1, 2)}
    chosen = {*range(1, len(names), 17), *removals, *range(len(names) - 8, len(names) + 1)}
    for number in sorted(chosen):
        shutil.rmtree(folder, ignore_errors=True)
        if before:
            old.save_pretrained(folder)
        events.end_before(number, lambda: new.save_pretrained(folder))
        if folder.exists():
            states.append(state_of(folder, systems))
            remove_unfinished(folder)
            assert not list(folder.glob("_saved*"))
    assert states[0] == before and states[-1] == "new" and set(states) == {before, None, "new"}
    events.folder = None


@needs_posix
def test_modes_links_and_other_files_stay(tmp_path, old, new):
    folder, elsewhere = tmp_path / "model", tmp_path / "elsewhere.safetensors"
    before = os.umask(0o027)
    try:
        old.save_pretrained(folder)
        assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o640}
        for number, file in enumerate(sorted(folder.iterdir())):
            file.chmod(0o600 if number % 2 else 0o664)
        modes = {file.name: file.stat().st_mode for file in folder.iterdir()}
        (folder / "model.safetensors").rename(elsewhere)
        (folder / "model.safetensors").symlink_to(elsewhere)
        (folder / "notes.txt").write_text("mine")
        new.save_pretrained(folder)
    finally:
        os.umask(before)
    assert (folder / "model.safetensors").is_symlink() and elsewhere.is_file()
    assert (folder / "notes.txt").read_text() == "mine"
    assert {file.name: file.stat().st_mode for file in folder.iterdir() if file.name != "notes.txt"} == modes
    assert state_of(folder, {"old": old, "new": new}) == "new"


def test_weights_in_other_parts_do_not_stay(tmp_path, old, new):
    """Transformers leaves `model.safetensors` beside new parts, and would load it in their place."""
    old.model.save_pretrained(tmp_path)
    for size in ("10KB", "5GB", "20KB"):
        new.model.save_pretrained(tmp_path, max_shard_size=size)
        loaded = CommForDocumentRelationExtraction.from_pretrained(tmp_path).state_dict()
        assert all(loaded[name].equal(weights) for name, weights in new.model.state_dict().items())
        assert (tmp_path / "model.safetensors").exists() == (size == "5GB")
        assert (tmp_path / "model.safetensors.index.json").exists() == (size != "5GB")


def test_a_save_that_fails_changes_nothing(tmp_path, old):
    folder = tmp_path / "model"
    with pytest.raises(ValueError, match="in the middle"), replacing_folder(folder) as unfinished:
        assert destination_of(unfinished) == str(folder) and destination_of(folder) == str(folder)
        old.save_pretrained(unfinished)
        raise ValueError("in the middle")
    assert not folder.exists()
    old.save_pretrained(folder)
    content = {file.name: file.read_bytes() for file in folder.iterdir()}
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()
    with pytest.raises(IsADirectoryError, match=r"model\.safetensors"):
        old.save_pretrained(folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()} | content == content
    assert len(list(folder.iterdir())) == len(content)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError):  # Transformers logs an error and continues
        old.model.save_pretrained(tmp_path / "file")
