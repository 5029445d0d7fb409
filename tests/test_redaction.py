"""Secrets stay out of records, settings and cards, however they were given; and no flag can be abbreviated."""

import ast
import functools
import json
import os
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from helpers import ROOT, random_document, save_backbone
from transformers import HfArgumentParser

import run_docre
from dataset_scripts.builder import load_splits
from dataset_scripts.provenance import read_provenance
from modeling_comm.reporting.model_card import render_model_card
from modeling_comm.reporting.redaction import redact, redact_command
from modeling_comm.reporting.run_record import command_line
from modeling_comm.training.script_arguments import ModelArguments, parse_arguments
from modeling_comm.training.training_args import CommTrainingArguments
from modeling_comm.utils.files import read_json, write_json

SECRET = "s3cret value"


def secret_flags():
    """Every spelling under which the script's parser takes a secret."""
    actions = HfArgumentParser([ModelArguments, CommTrainingArguments])._actions
    spellings = [flag for action in actions if action.dest.endswith("token") for flag in action.option_strings]
    assert {"--token", "--hub_token", "--hub-token"} <= {*spellings}
    return spellings


@pytest.mark.parametrize("flag", secret_flags())
@pytest.mark.parametrize(
    "secret", ["hf_abc", SECRET, "it's s3cret", '"s3cret"', "a=s3cret", "--s3cret", "s3cret\nvalue"]
)
def test_a_command_shows_no_secret(flag, secret, monkeypatch):
    ways = [[f"{flag}={secret}"]] if secret.startswith("-") else [[flag, secret], [f"{flag}={secret}"]]
    for words in ways:
        flags = ["--output_dir", "out", *words, "--seed", "3"]
        arguments = parse_arguments(flags)  # so that it is a spelling that is taken
        assert secret in (*vars(arguments.model).values(), *vars(arguments.training).values())
        monkeypatch.setattr(sys, "orig_argv", ["python", "run_docre.py", *flags])
        shown = command_line()
        assert "s3cret" not in shown and "hf_abc" not in shown
        assert shown.endswith("--seed 3") and flag in shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:s3cret@host:8000/train.json", "https://...@host:8000/train.json"),
        ("https://s3cret@host/a@b.json", "https://...@host/a@b.json"),
        ("https://us@er:s3c@ret@host/", "https://...@host/"),
        ("http://host/a.json?x=1&access_token=s3cret&y=2", "http://host/a.json?x=1&access_token=...&y=2"),
        ("s3://bucket/a?X-Amz-Signature=s3cret", "s3://bucket/a?X-Amz-Signature=..."),
        ("{'hub_token': 's3cret', 'a': 1}", "{'hub_token': \"...\", 'a': 1}"),
        ("python run_docre.py --token 's3cret value' --seed 3", "python run_docre.py --token ... --seed 3"),
        ('main(["--hub-token", "s3cret"])', 'main(["--hub-token", ...'),
        ("hf://datasets/org/name@main/train.json", "hf://datasets/org/name@main/train.json"),
        ("someone@example.org", "someone@example.org"),
        ("outputs/token/run", "outputs/token/run"),
        ("--tokenizer name", "--tokenizer name"),
    ],
)
def test_texts(text, shown):
    assert redact(text) == shown
    assert redact(shown) == shown
    assert redact({"a": [{"b": text}]}) == {"a": [{"b": shown}]}


def test_fields():
    record = {
        "token": "s3cret",
        "hub_token": None,
        "args": {"push_to_hub_token": "s3cret", "pad_token": "[PAD]"},
        "n": 1,
    }
    shown = {"token": "...", "hub_token": None, "args": {"push_to_hub_token": "...", "pad_token": "[PAD]"}, "n": 1}
    assert redact(record) == shown
    assert redact_command(["--token"]) == "--token"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folder of a run whose command has secrets in every place where there may be one."""
    work = tmp_path_factory.mktemp("secrets")
    write_json(work / "documents.json", [random_document(3, seed=seed) for seed in range(2)])
    backbone = save_backbone(work / "encoder")
    flags = [
        "--use_cpu",
        "--model_name_or_path",
        backbone,
        "--emb_size",
        "16",
        "--block_size",
        "4",
        "--max_steps",
        "1",
    ]
    flags += ["--do_train", "--train_file", work / "documents.json", "--validation_file", work / "documents.json"]
    flags += ["--cache_dir", work / "cache", "--output_dir", work / "output", "--report_to", "none"]
    flags += ["--token", "s3cret", f"--hub-token={SECRET}", "--hub_model_id", "https://user:s3cret@host/org/name"]
    flags += ["--optim_args", "source=https://user:s3cret@host/"]
    command = [sys.executable, ROOT / "run_docre.py", *flags]
    environment = os.environ | {"HF_HOME": str(work / "home"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    finished = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, timeout=300)
    assert finished.returncode == 0, finished.stderr
    return work / "output"


def test_nothing_that_a_run_writes_has_a_secret(trained):
    written = [path for path in trained.rglob("*") if path.is_file()]
    assert {"run.json", "settings.json", "README.md"} <= {path.name for path in written}
    for path in written:
        assert b"s3cret" not in path.read_bytes(), path
    record = read_json(trained / "run.json")
    assert record["training_arguments"]["hub_model_id"] == "https://...@host/org/name"
    assert "--token ... --hub-token=... --hub_model_id" in record["command"]


def test_the_card_of_an_old_record_has_no_secret(trained):
    record = read_json(trained / "run.json")
    record["command"] = f"python run_docre.py --hub_token 'a s3cret' {record['command']}"
    record["data"]["files"]["train"]["source"] = "https://user:s3cret@host/train.json"
    assert "s3cret" not in render_model_card(record)


def test_sources_of_documents_have_no_secret(tmp_path):
    (tmp_path / "documents.json").write_text(json.dumps([random_document(3)]), encoding="utf-8")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{server.server_port}"
        source, cache = f"http://user:s3cret@{address}/documents.json?token=s3cret", str(tmp_path / "cache")
        loaded = load_splits("local", data_files={"train": source}, cache_dir=cache)
        with pytest.raises(ConnectionError) as refused:
            load_splits("local", data_files={"train": source.replace("documents", "missing")}, cache_dir=cache)
        server.shutdown()
    assert read_provenance(loaded)["train"]["source"] == f"http://...@{address}/documents.json?token=..."
    assert "s3cret" not in str(refused.value) and refused.value.__suppress_context__


# ------------------------------------------------------------------------------------------------------------- flags


def test_flags_are_not_abbreviated(tmp_path, capsys):
    for flags in (["--learning_rat", "3"], ["--learning_rat=3"], ["--toke", "s3cret"], ["--hub_tok=s3cret"]):
        assert run_docre.main(["--output_dir", str(tmp_path), "--describe_data", *flags]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


def parsers():
    folders = ("modeling_comm", "dataset_scripts", "benchmarks", "experiments", "examples")  # not an environment's
    for path in sorted([*ROOT.glob("*.py"), *(path for folder in folders for path in (ROOT / folder).rglob("*.py"))]):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name and name.endswith("ArgumentParser"):
                yield pytest.param(node, id=f"{path.relative_to(ROOT)}:{node.lineno}")


@pytest.mark.parametrize("call", [*parsers()])
def test_no_parser_takes_abbreviations(call):
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    assert given.get("allow_abbrev") == "False"
