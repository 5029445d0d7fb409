"""Code that a checkpoint brings along runs where it is trusted, and nowhere else; nothing is asked, and nothing but the documents
reads standard input."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fresh_process import refused
from golden import original_of, write_rel2id
from helpers import (
    ROOT,
    random_document,
    save_backbone,
    tiny_config,
    tiny_model,
    tiny_system,
    tiny_text_config,
    word_piece_tokenizer,
)
from safetensors.torch import save_file
from transformers import AutoModel, AutoModelForTokenClassification, AutoProcessor, pipeline

import comm_docre
import run_docre
from modeling_comm import CommForDocumentRelationExtraction, CommProcessor
from modeling_comm.configuration_comm import TASK
from modeling_comm.utils.files import write_json

# What an answer to "Do you wish to run the custom code? [y/N]" may be, among documents.
ANSWERS = ("1", "y", "yes")
DOCUMENT = {"text": "Anna was born in Lima.", "mentions": [{"start": 0, "end": 4}, {"start": 17, "end": 21}]}
EVIL = """
from pathlib import Path

from transformers import AutoModelForTokenClassification, BertConfig, BertForTokenClassification, PreTrainedTokenizerFast

from modeling_comm import CommProcessor

Path({marker!r}).touch()


class EvilTokenizer(PreTrainedTokenizerFast):
    pass


class EvilProcessor(CommProcessor):
    pass


class EvilConfig(BertConfig):
    model_type = "evil"


class EvilModel(BertForTokenClassification):
    config_class = EvilConfig
"""


@pytest.fixture(autouse=True)
def terminal(monkeypatch):
    """Says yes to whatever asks on standard input; nothing may."""
    stdin = io.StringIO("y\n" * 9)
    monkeypatch.setattr(sys, "stdin", stdin)
    yield
    assert stdin.tell() == 0, "something was asked"


def change(path, **fields):
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps({**content, **fields}), encoding="utf-8")


def add_evil(folder, where):
    """Adds `evil.py` to a saved model and lets one of its files name it; returns the file that appears when it is run."""
    folder, marker = Path(folder), Path(f"{folder}-was-run")
    (folder / "evil.py").write_text(EVIL.format(marker=str(marker)), encoding="utf-8")
    if where == "tokenizer":
        auto_map = {"AutoTokenizer": [None, "evil.EvilTokenizer"]}
        change(folder / "tokenizer_config.json", tokenizer_class="EvilTokenizer", auto_map=auto_map)
    elif where == "processor":
        auto_map = {"AutoProcessor": "evil.EvilProcessor"}
        change(folder / "processor_config.json", processor_class="EvilProcessor", auto_map=auto_map)
    else:
        auto_map = {"AutoConfig": "evil.EvilConfig"}
        auto_map |= dict.fromkeys(("AutoModel", "AutoModelForTokenClassification"), "evil.EvilModel")
        change(folder / "config.json", model_type="evil", auto_map=auto_map)
    return marker


@pytest.fixture
def checkpoint(tmp_path):
    """Folder of a tiny COMM checkpoint."""
    config, processor = tiny_system("bert")
    tiny_model(config).save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def backbone(tmp_path):
    return Path(save_backbone(tmp_path / "backbone"))


@pytest.fixture
def ner(tmp_path):
    """Folder of a tiny token-classification model."""
    tokenizer = word_piece_tokenizer()
    config = tiny_text_config("bert", tokenizer, num_labels=3)
    AutoModelForTokenClassification.from_config(config).save_pretrained(tmp_path / "ner")
    tokenizer.save_pretrained(tmp_path / "ner")
    return tmp_path / "ner"


def predict(home, *flags, lines):
    environment = os.environ | {"HF_HOME": str(home / "cache"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, ROOT / "comm_docre.py", "predict", *flags, "--input", "-", "--format", "jsonl"]
    return subprocess.run(
        [*map(str, command), "--output", "-"],
        input=lines,
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )


@pytest.mark.parametrize("where, answer", [*(("tokenizer", one) for one in ANSWERS), ("processor", "y")])
def test_documents_do_not_answer_for_a_checkpoint(checkpoint, tmp_path, where, answer):
    marker = add_evil(checkpoint, where)
    finished = predict(tmp_path, "--model", checkpoint, lines=f"{answer}\n{json.dumps(DOCUMENT)}\n")
    assert (finished.returncode, finished.stdout) == (2, "")
    assert len(finished.stderr.splitlines()) == 1 and "trust_remote_code" in finished.stderr, finished.stderr
    assert not marker.exists()


def test_documents_do_not_answer_for_a_named_entity_model(checkpoint, ner, tmp_path):
    marker = add_evil(ner, "config")
    finished = predict(tmp_path, "--model", checkpoint, "--ner", ner, lines=f"y\n{json.dumps(DOCUMENT)}\n")
    assert (finished.returncode, finished.stdout) == (2, "")
    assert len(finished.stderr.splitlines()) == 1 and "--ner" in finished.stderr, finished.stderr
    assert not marker.exists()


def test_trusted_code_runs_and_all_of_the_input_is_documents(checkpoint, ner, tmp_path):
    markers = [add_evil(checkpoint, "tokenizer"), add_evil(ner, "config")]
    flags = ["--model", checkpoint, "--ner", ner, "--trust_remote_code"]
    finished = predict(tmp_path, *flags, lines=f"{json.dumps(DOCUMENT)}\n" * 2)
    assert finished.returncode == 0, finished.stderr
    assert len(finished.stdout.splitlines()) == 2
    assert all(marker.exists() for marker in markers)


@pytest.mark.parametrize("where", ["tokenizer", "processor"])
def test_the_pipeline_asks_nothing(checkpoint, where):
    marker = add_evil(checkpoint, where)
    for options in ({}, {"trust_remote_code": False}, {"processor": str(checkpoint)}):
        assert "trust_remote_code" in refused(pipeline, TASK, model=str(checkpoint), device="cpu", **options)
    model = AutoModel.from_pretrained(checkpoint)
    assert "trust_remote_code" in refused(pipeline, TASK, model=model, device="cpu")
    assert not marker.exists()
    extract = pipeline(TASK, model=str(checkpoint), device="cpu", trust_remote_code=True)
    assert marker.exists()
    assert extract(DOCUMENT)["text"] == DOCUMENT["text"]


@pytest.mark.parametrize("auto_class", [AutoProcessor, CommProcessor])
def test_a_processor_asks_nothing(checkpoint, auto_class):
    marker = add_evil(checkpoint, "tokenizer")
    for options in ({}, {"trust_remote_code": None}, {"trust_remote_code": False}):
        assert "trust_remote_code" in refused(auto_class.from_pretrained, checkpoint, **options)
    assert not marker.exists()
    auto_class.from_pretrained(checkpoint, trust_remote_code=True)
    assert marker.exists()


@pytest.mark.parametrize("where", ["tokenizer", "config"])
def test_a_new_model_runs_no_code_of_its_backbone(backbone, tmp_path, where):
    load, labels = CommForDocumentRelationExtraction.from_backbone, {0: "Na", 1: "P17"}
    original_checkpoint = tmp_path / "original.safetensors"
    save_file(original_of("atlop", backbone)[1], original_checkpoint)
    flags = ["--relation_encoder", "atlop", "--checkpoint", original_checkpoint, "--backbone", backbone]
    flags += ["--rel2id", write_rel2id(tmp_path), "--output_dir", tmp_path / "converted"]
    marker = add_evil(backbone, where)
    if where == "tokenizer":  # Transformers has a class for the tokenizer of this type, and takes that
        model = load(backbone, id2label=labels, emb_size=16, block_size=4)
        CommProcessor.from_backbone(backbone, model.config)
        assert comm_docre.main(["convert", *map(str, flags)]) == 0
    else:
        assert "'evil'" in refused(load, backbone, id2label=labels)
        assert "'evil'" in refused(load, backbone, id2label=labels, trust_remote_code=True)
        assert comm_docre.main(["convert", *map(str, flags)]) == 2
    assert not marker.exists()


@pytest.mark.parametrize("options", [{}, {"trust_remote_code": None}, {"trust_remote_code": False}])
def test_a_new_processor_asks_nothing(backbone, options):
    marker = add_evil(backbone, "config")
    assert add_evil(backbone, "tokenizer") == marker
    assert "trust_remote_code" in refused(CommProcessor.from_backbone, backbone, tiny_config(), **options)
    assert not marker.exists()


def test_the_script_asks_nothing(checkpoint, tmp_path, capsys):
    marker = add_evil(checkpoint, "tokenizer")
    write_json(tmp_path / "documents.json", [random_document(3)])
    flags = ["--use_cpu", "--do_eval", "--cache_dir", tmp_path / "cache", "--model_name_or_path", checkpoint]
    flags += ["--validation_file", tmp_path / "documents.json", "--output_dir", tmp_path / "output"]
    flags = list(map(str, flags))
    capsys.readouterr()
    assert run_docre.main(flags) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and "trust_remote_code" in errors[0]
    assert not marker.exists()
    assert run_docre.main([*flags, "--trust_remote_code"]) == 0
    assert marker.exists()


def test_a_pickled_model_takes_no_token_along(checkpoint):
    model = AutoModel.from_pretrained(checkpoint, token="hf_secret")
    assert model.loading_arguments["token"] == "hf_secret"
    stored = io.BytesIO()
    torch.save(model, stored)
    assert b"hf_secret" not in stored.getvalue()
