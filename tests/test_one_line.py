"""What a user can do wrong, and what the machine can do, is one line: no traceback, no exception of another library."""

import gzip
import json
import os
import shutil
import signal

import pytest
from helpers import random_document, save_backbone, tiny_system
from safetensors.torch import load_file, save_file

from dataset_scripts.builder import relation_labels
from modeling_comm import CommConfig, CommForDocumentRelationExtraction, CommProcessor
from modeling_comm.data.reading import iterate_documents
from modeling_comm.documents import DocumentError, validate_document
from modeling_comm.evaluation.scoring import score
from modeling_comm.settings import SettingError
from modeling_comm.utils.files import read_json, write_json


def documents(number):
    return [random_document(4, 30, seed=seed, title=f"Title {seed}") for seed in range(number)]


DEEP = b"[" * 100_000
LONG = b"1" * 5000
# By what is wrong: the content of a JSON file.
SPOILED = {
    "nested deep": DEEP + b"]" * 100_000,
    "a document nested deep": b'[{"title": ' + DEEP + b"]" * 100_000 + b"}]",
    "a number of 5,000 digits": b"[" + LONG + b"]",
    "a document with a number of 5,000 digits": b'[{"title": ' + LONG + b"}]",
    "truncated": json.dumps(documents(2)).encode()[:-40],
    "truncated gzip": gzip.compress(json.dumps(documents(20)).encode())[:-40],
    "garbage behind a head of gzip": b"\x1f\x8b" + bytes(range(256)),
    "no UTF-8": b'["caf\xe9"]',
    "empty": b"",
    "another kind": b'"text"',
}


@pytest.fixture
def spoiled(tmp_path, request):
    path = tmp_path / "spoiled.json"
    path.write_bytes(SPOILED[request.param])
    return path


@pytest.mark.parametrize("spoiled", SPOILED, indirect=True)
def test_readers_of_json_name_the_file(spoiled):
    with pytest.raises(ValueError, match=r"spoiled\.json"):
        list(iterate_documents(spoiled))
    with pytest.raises(ValueError, match=r"spoiled\.json"):
        relation_labels(rel2id=str(spoiled))
    if spoiled.read_bytes() != SPOILED["another kind"]:
        with pytest.raises(ValueError, match=r"spoiled\.json"):
            read_json(spoiled)


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("value", [nested(100_000), 10**5000], ids=["nested deep", "long number"])
@pytest.mark.parametrize("field", ["title", "sents", "vertexSet", "labels"])
def test_a_field_that_cannot_be_shown(field, value):
    document = documents(1)[0]
    for checked in ({**document, field: value}, {**document, field: [value]}):
        with pytest.raises(DocumentError) as refused:
            validate_document(checked, index=3, source="a.json")
        assert (refused.value.index, refused.value.source) == (3, "a.json")
        assert refused.value.field.startswith(field) and len(str(refused.value)) < 500


# ----------------------------------------------------------------------------------------------------- configurations

WRONG_FIELDS = {
    "dtype": [3, "float33", "int8", ["float32"]],
    "architectures": [3, "Bert", [3]],
    "model_type": [3, ["bert"]],
    "pad_token_id": ["a", 1.5, []],
    "hidden_act": [3, "gelux", None],
    "hidden_size": ["a", -1, 1.5, None],
    "layer_norm_eps": ["a", None, []],
    "num_hidden_layers": ["2", -1, 0],
    "vocab_size": [-1, 0, "a"],
    "max_position_embeddings": [-1, 0, []],
    "intermediate_size": [0, "a"],
}
OF_BOTH = ("dtype", "architectures", "pad_token_id")


@pytest.mark.parametrize("field", WRONG_FIELDS)
def test_wrong_types_in_a_configuration(model, tmp_path, field):
    folder = shutil.copytree(model, tmp_path / "wrong")
    right = read_json(folder / "config.json")
    for value in WRONG_FIELDS[field]:
        write_json(folder / "config.json", {**right, "text_config": {**right["text_config"], field: value}})
        with pytest.raises(ValueError, match=field):
            CommForDocumentRelationExtraction.from_pretrained(folder)
        if field in OF_BOTH:
            write_json(folder / "config.json", {**right, field: value})
            with pytest.raises(SettingError) as refused:
                CommConfig.from_pretrained(folder)
            assert (refused.value.field, refused.value.value) == (field, value)


def test_a_size_that_the_weights_do_not_have(model, tmp_path):
    folder = shutil.copytree(model, tmp_path / "wrong")
    right = read_json(folder / "config.json")
    write_json(folder / "config.json", {**right, "text_config": {**right["text_config"], "intermediate_size": 40}})
    with pytest.raises(ValueError, match=r"intermediate\.dense\.bias: found \(48,\), expected \(40,\)"):
        CommForDocumentRelationExtraction.from_pretrained(folder)


def test_ids_beyond_the_embedding():
    config, processor = tiny_system("bert")
    config.text_config.vocab_size = 20
    with pytest.raises(ValueError, match="vocab_size"):
        processor.check_model(config)
    with pytest.raises(ValueError, match="vocab_size"):
        CommProcessor.from_config(processor.tokenizer, config, window_size=32, window_stride=8)


@pytest.mark.parametrize("kind", ["checkpoint", "backbone"])
def test_integers_are_not_taken_for_weights(model, tmp_path, kind):
    folder = tmp_path / "int8"
    if kind == "checkpoint":
        shutil.copytree(model, folder)
        load = CommForDocumentRelationExtraction.from_pretrained
    else:
        save_backbone(folder)

        def load(name):
            return CommForDocumentRelationExtraction.from_backbone(name, id2label={0: "Na", 1: "P17"}, block_size=16)

    load(folder)
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("attention.self.query.weight"))
    save_file({**weights, name: (weights[name] * 100).char()}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"type I8, such as {name}"):
        load(folder)


# ---------------------------------------------------------------------------------------------------------- the scorer


def test_macro_scores_do_not_depend_on_the_order_of_documents():
    given = [random_document(6, seed=seed, title=f"Title {seed}") for seed in range(30)]
    for document in given:
        for number, label in enumerate(document["labels"]):
            label["r"] = f"P{(7 * number + len(document['sents'][0][0])) % 31}"
    predictions = [
        {"title": document["title"], "h_idx": label["h"], "t_idx": label["t"], "r": label["r"]}
        for document in given
        for label in document["labels"][::2]
    ]
    expected = score(predictions, given)
    assert 0 < expected["macro_f1"] < 1
    for shift in range(1, 30):
        assert score(predictions[::-1], given[shift:] + given[:shift]) == expected


# -------------------------------------------------------------------------------------------------- processes, streams


@pytest.fixture(scope="module")
def files(tmp_path_factory, model):
    """What commands read, and their words."""
    work = tmp_path_factory.mktemp("files")
    write_json(work / "train.json", documents(4))
    write_json(work / "facts.json", [])
    (work / "in.jsonl").write_text("".join(json.dumps(document) + "\n" for document in documents(4)))
    save_backbone(work / "encoder")
    train = [
        "run_docre.py",
        "--use_cpu",
        "--train_file",
        work / "train.json",
        "--cache_dir",
        work / "cache",
        "--do_train",
    ]
    train += ["--model_name_or_path", work / "encoder", "--emb_size", "16", "--block_size", "4", "--report_to", "none"]
    predict = ["comm-docre", "predict", "--model", model, "--format", "jsonl"]
    evaluate = ["comm-docre", "evaluate", "--predictions", work / "facts.json", "--truth", work / "train.json"]
    return work, {"train": train, "predict": predict, "evaluate": evaluate}


def assert_one_line(finished, status=2, start="error: "):
    assert finished.status == status, finished
    lines = [line for line in finished.err.splitlines() if line.startswith(("error", "interrupted", "Traceback"))]
    assert len(lines) == 1 and lines[0].startswith(start), finished.err
    return lines[0]


def test_closed_standard_streams(commands, files, tmp_path):
    work, words = files
    source, output = work / "in.jsonl", tmp_path / "out.jsonl"
    finished = commands(
        {"command": [*words["predict"], "--input", "-", "--output", output], "closed": [0]},
        {"command": [*words["predict"], "--input", source, "--output", "-"], "closed": [1]},
        {"command": words["evaluate"], "closed": [1]},
        {"command": [*words["predict"], "--input", source, "--output", output], "closed": [0, 1]},
        {"command": [*words["predict"], "--input", source, "--output", tmp_path / "other"], "closed": [0, 1, 2]},
        {"command": [*words["train"], "--max_steps", "1", "--output_dir", tmp_path / "run"], "closed": [0, 1, 2]},
    )
    assert "standard input is closed" in assert_one_line(finished[0])
    for one in finished[1:3]:
        assert "standard output" in assert_one_line(one)
    assert [one.status for one in finished[3:]] == [0, 0, 0], finished
    assert output.read_bytes() == (tmp_path / "other").read_bytes() and len(output.read_bytes().splitlines()) == 4
    assert (tmp_path / "run" / "run.json").is_file()


@pytest.mark.parametrize("name", ["predict", "train"])
def test_ctrl_c_is_one_line(commands, files, tmp_path, name):
    work, words = files
    command = [*words["train"], "--max_steps", "100000", "--output_dir", tmp_path / "run", "--save_strategy", "no"]
    command += ["--load_best_model_at_end", "false", "--eval_strategy", "no"]
    if name == "predict":
        (tmp_path / "in.jsonl").write_bytes((work / "in.jsonl").read_bytes().replace(b"Title", b"") * 1 * 300)
        command = [
            *words["predict"],
            "--input",
            tmp_path / "in.jsonl",
            "--output",
            tmp_path / "out",
            "--batch_size",
            "1",
        ]
    for after in (0.5, 4):
        (finished,) = commands({"command": command, "after": after, "signal": signal.SIGINT})
        assert_one_line(finished, 130, "interrupted")


@pytest.mark.skipif(os.name == "nt", reason="links as POSIX has them")
def test_loops_of_links(commands, files, tmp_path):
    _, words = files
    for name in ("loop.json", "loop.txt"):
        (tmp_path / name).symlink_to(name)
    loop = tmp_path / "loop.json"
    for one in commands(
        [*words["predict"], "--input", loop, "--output", tmp_path / "out"],
        [*words["evaluate"][:-1], loop],
        [*words["evaluate"], "--output", loop],
        [*words["train"], "--validation_file", loop, "--output_dir", tmp_path / "run"],
        [*words["train"], "--output_dir", loop],
        [*words["train"], "--ign_reference", loop, "--output_dir", tmp_path / "run"],
        ["comm-docre", "view", "--input", loop, "--output", tmp_path / "page.html"],
        ["comm-docre", "card", "--run", loop],
        ["comm-docre", "predict", "--model", loop, "--input", loop, "--format", "jsonl", "--output", tmp_path / "out"],
    ):
        assert "loop.json" in assert_one_line(one)


TORN = (
    "settings.json",
    "trainer_state.json",
    "run.json",
    "checkpoint-2/config.json",
    "checkpoint-2/trainer_state.json",
)
TORN += ("checkpoint-2/processor_config.json", "_resumed_from.json", "results.json", "config.json")


@pytest.fixture(scope="module")
def trained(commands, files, tmp_path_factory):
    _, words = files
    folder = tmp_path_factory.mktemp("trained") / "run"
    command = [
        *words["train"],
        "--max_steps",
        "2",
        "--save_strategy",
        "steps",
        "--save_steps",
        "1",
        "--eval_strategy",
        "no",
    ]
    command += ["--load_best_model_at_end", "false", "--save_total_limit", "5", "--output_dir"]
    (finished,) = commands([*command, folder])
    assert finished.status == 0, finished.err
    return folder, command


@pytest.mark.parametrize("name", TORN)
def test_torn_files_of_a_run(commands, trained, tmp_path, name):
    """A run with a file that is cut off, or holds something else, resumes, or is refused in one line that names the file."""
    whole, command = trained
    for number, content in enumerate((b'{"a": ', b"null") if "/" in name else (b'{"a": ',)):
        folder = shutil.copytree(whole, tmp_path / str(number))
        write_json(folder / "_resumed_from.json", [1])
        (folder / name).write_bytes(content)
        if name.startswith("checkpoint"):  # not finished
            (folder / "trainer_state.json").unlink()
        (finished,) = commands([*command, folder])
        if name in ("settings.json", "config.json", "run.json", "results.json"):
            assert name in assert_one_line(finished)
        else:
            assert finished.status == 0, finished.err
            assert (folder / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
            assert isinstance(read_json(folder / "run.json"), dict)
        if name.startswith("checkpoint"):
            assert "checkpoint-2 is skipped" in finished.err


WRONG_FLAGS = {
    "a settings file that is no YAML": ["settings.yaml"],
    "a settings file nested deep": ["deep.yaml"],
    "overrides that are no JSON": ["--backbone_overrides", "{"],
    "overrides that are no object": ["--backbone_overrides", "[1]"],
    "an override of a wrong type": ["--backbone_overrides", '{"hidden_size": "a"}'],
    "an override of a wrong size": ["--backbone_overrides", '{"hidden_size": 40}'],
    "a folder for a file": ["--train_file", "."],
    "a file for a folder": ["--output_dir", "settings.yaml"],
    "a model that is a file": ["--model_name_or_path", "settings.yaml"],
    "a model that is not there": ["--model_name_or_path", "no/model"],
    "a configuration that is no object": ["--model_name_or_path", "list"],
    "a configuration that is no JSON": ["--model_name_or_path", "half"],
    "no batch": ["--per_device_train_batch_size", "0"],
    "a negative number of steps": ["--gradient_accumulation_steps", "-1"],
    "an optimizer that is not there": ["--optim", "mine"],
    "a learning rate that is no number": ["--learning_rate", "nan"],
    "windows beyond the backbone": ["--window_size", "10000"],
    "a seed that is no number": ["--seed", "a"],
    "an extension that fails": ["--extensions", "fails.py"],
    "an extension that is no Python": ["--extensions", "settings.yaml.py"],
    "a data set that is not there": ["--dataset_config", "mine"],
    "another loss": ["--loss", "mine"],
    "a scheduler that is not there": ["--lr_scheduler_type", "mine"],
    "a checkpoint to resume from": ["--resume_from_checkpoint", "no/checkpoint"],
    "a seed twice": ["--seeds", "1", "2", "1"],
    "a metric that is not there": ["--metric_for_best_model", "mine", "--validation_file", "train.json"],
}


def test_every_user_error_of_the_training_script(commands, files, tmp_path, monkeypatch):
    work, words = files
    for name, content in {
        "settings.yaml": "a: [",
        "deep.yaml": "[" * 5000,
        "fails.py": "1 / 0",
        "settings.yaml.py": "a: [",
        "list/config.json": "[]",
        "half/config.json": '{"model_type": ',
    }.items():
        (work / name).parent.mkdir(exist_ok=True)
        (work / name).write_text(content)
    monkeypatch.chdir(work)
    steps = []
    for flags in WRONG_FLAGS.values():
        first, more = (flags, []) if flags[0].endswith("yaml") else ([], flags)
        name, *usual = words["train"]
        folder = tmp_path / f"run{len(steps)}"
        steps.append([name, *first, *usual, "--max_steps", "2", "--output_dir", folder, *more])
    wrong = {}
    for name, finished in zip(WRONG_FLAGS, commands(*[{"command": step, "cwd": work} for step in steps]), strict=True):
        if finished.status != 2 or "Traceback" in finished.err:
            wrong[name] = (finished.status, finished.err.splitlines()[-1:])
    assert not wrong


# ------------------------------------------------------------------------------------------------ rules, exports, stdout


def test_wrong_files_of_rules_and_labels(commands, files, tmp_path):
    work, _ = files
    (tmp_path / "long.yaml").write_bytes(b"- " + LONG)
    (tmp_path / "deep.yaml").write_bytes(DEEP)
    (tmp_path / "none.yaml").write_bytes(b"")
    (tmp_path / "text.yaml").write_text("- {rule: 'P1(x, y) => P2(x, y)', confidence: high}")
    (tmp_path / "other.yaml").write_bytes((work / "train.json").read_bytes())
    write_json(tmp_path / "unlabelled.json", [{**document, "labels": None} for document in documents(2)])
    (tmp_path / "right.yaml").write_text("- P131(x, y) => P17(x, y)")
    complete = [
        "comm-docre",
        "complete",
        "--documents",
        work / "train.json",
        "--output",
        tmp_path / "out.json",
        "--rules",
    ]
    for name in ("long", "deep", "none", "text", "other"):
        (finished,) = commands([*complete, tmp_path / f"{name}.yaml"])
        line = assert_one_line(finished)
        assert f"{name}.yaml" in line and len(line) < 1000
    rules = ["comm-docre", "rules", "--output", tmp_path / "out.json", "--documents"]
    for finished in commands(
        [*complete, tmp_path / "right.yaml", "--complete", tmp_path / "unlabelled.json"],
        [*complete, tmp_path / "right.yaml", "--complete", tmp_path / "none.yaml"],
        [*rules, tmp_path / "unlabelled.json"],
        [*rules, work / "train.json", "--min_confidence", "nan"],
        [*rules, work / "train.json", "--min_support", "-1"],
    ):
        assert_one_line(finished)
    assert not (tmp_path / "out.json").exists()  # everything is read before anything is written
    (finished,) = commands([*complete, tmp_path / "right.yaml", "--complete", work / "train.json"])
    assert finished.status == 0 and read_json(tmp_path / "out.json")


def test_a_configuration_nested_deep(commands, model, tmp_path):
    folder = shutil.copytree(model, tmp_path / "deep")
    (folder / "config.json").write_bytes(b'{"a": ' + DEEP + b"]" * 100_000 + b"}")
    for command in (
        ["export", "--output", tmp_path / "out.pt2"],
        ["predict", "--input", "-", "--output", "-", "--format", "jsonl"],
    ):
        (finished,) = commands(["comm-docre", *command, "--model", folder])
        assert str(folder) in assert_one_line(finished)


def test_an_export_is_whole_or_not_there(commands, model, tmp_path):
    export = ["comm-docre", "export", "--model", model, "--output"]
    new, over = commands([*export, tmp_path / "new" / "folder" / "a.pt2"], [*export, tmp_path])
    assert new.status == 0, new.err
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["a.pt2"]
    assert_one_line(over)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_full_standard_output(commands, files, tmp_path):
    work, words = files
    predict = [*words["predict"], "--input", work / "in.jsonl", "--output", "-"]
    for command in (
        words["evaluate"],
        predict,
        ["comm-docre", "rules", "--documents", work / "train.json", "--output", tmp_path / "r"],
    ):
        (finished,) = commands({"command": command, "stdout": "/dev/full"})
        line = assert_one_line(finished)
        assert "standard output" in line and "No space left" in line


def test_a_file_that_is_written_needs_no_standard_output(commands, files, tmp_path):
    work, words = files
    rules = ["comm-docre", "rules", "--documents", work / "train.json", "--output", tmp_path / "rules.yaml"]
    evaluate = [*words["evaluate"], "--output", tmp_path / "scores.json"]
    for finished in commands(*({"command": command, "closed": [0, 1]} for command in (rules, evaluate))):
        assert finished.status == 0, finished.err
    assert (tmp_path / "rules.yaml").is_file() and read_json(tmp_path / "scores.json")


def test_outputs_that_are_one_file_and_inputs_that_hold_nothing(commands, files, tmp_path):
    work, words = files
    evaluate, one = words["evaluate"], tmp_path / "one.csv"
    (tmp_path / "names.json").write_text("[")
    for name, content in (("list", "[1]"), ("empty", "{}")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(content)
    imported = ["comm-docre", "import", "--input", work / "train.json", "--output", tmp_path / "imported.json"]
    for finished, named in zip(
        commands(
            [*evaluate, "--errors", one, "--output", one],
            [*evaluate[:-1], work / "facts.json"],
            [*imported, "--rel_info", tmp_path / "names.json"],
            ["comm-docre", "card", "--run", tmp_path / "list"],
            ["comm-docre", "card", "--run", tmp_path / "empty"],
        ),
        ("one.csv", "facts.json", "names.json", "run.json", "run.json"),
        strict=True,
    ):
        assert named in assert_one_line(finished)
    assert not one.exists() and not (tmp_path / "imported.json").exists()
