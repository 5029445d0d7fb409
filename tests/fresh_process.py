"""Checks in a fresh Python process: what a user meets who installed the package, or who did not. Imported on both sides, so
nothing here may import the package."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[1]


def run_fresh(code, *arguments, home, package=True, path=None):
    """
    Runs `code`, with the names of this module imported and `arguments` in `sys.argv[1:]`.

    Args:
        home: folder of the Hugging Face caches, where loaded code goes too.
        package: whether `modeling_comm` can be imported.
        path: one more folder to import from.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "PYTHON"))}
    folders = [ROOT / "tests", *([ROOT] if package else []), *([path] if path else [])]
    environment |= {
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(map(str, folders)),
        "PYTHONSAFEPATH": "1",
    }
    code = f"from fresh_process import *\n{'' if package else 'hide_package()'}\n{code}"
    finished = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=home,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert finished.returncode == 0, finished.stderr


def hide_package():
    """`modeling_comm` cannot be imported any more, installed or not."""

    class Hidden:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name.partition(".")[0] == "modeling_comm":
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    sys.meta_path.insert(0, Hidden)


def write_expected(folder, model, processor, documents):
    """Writes documents and what model and processor make of them, for [`load_and_compare`]."""
    folder.mkdir()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a fresh process: the order of sums depends on it
    outputs, triples = _predict(model, processor, documents)
    torch.set_num_threads(threads)
    assert any(triples) and outputs.logits.std() > 0.1  # otherwise the comparison could hardly fail
    save_file({"logits": outputs.logits, "pair_index": outputs.pair_index}, folder / "outputs.safetensors")
    (folder / "documents.json").write_text(json.dumps([documents, triples]), encoding="utf-8")


def load_and_compare(name, expected, **options):
    """Loads model, configuration and processor by the Auto classes and compares, bit by bit, with what is expected."""
    from transformers import AutoConfig, AutoModel, AutoProcessor

    documents, triples = json.loads((Path(expected) / "documents.json").read_text(encoding="utf-8"))
    config = AutoConfig.from_pretrained(name, **options)
    model = AutoModel.from_pretrained(name, **options)
    processor = AutoProcessor.from_pretrained(name, **options)
    outputs, found = _predict(model, processor, documents)
    for key, value in load_file(Path(expected) / "outputs.safetensors").items():
        assert torch.equal(outputs[key], value), key
    assert found == triples
    assert config.to_dict() == model.config.to_dict()
    return model, processor


def save_again(folder, model, processor):
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def as_hub_cache(folder, home, repo_id):
    """Puts a saved model into the place of a download of `repo_id`."""
    cache = Path(home) / "hub" / f"models--{repo_id.replace('/', '--')}"
    commit = "0" * 40
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text(commit)
    (cache / "snapshots").mkdir()
    (cache / "snapshots" / commit).symlink_to(folder)


def refused(load, *arguments, **options):
    """The message of the `ValueError` that a call ends with."""
    try:
        load(*arguments, **options)
    except ValueError as error:
        return str(error)
    raise AssertionError(f"{load} was not refused")


def _predict(model, processor, documents):
    with torch.no_grad():
        outputs = model(**processor(documents))
    return outputs, processor.post_process_relation_extraction(outputs, documents)
