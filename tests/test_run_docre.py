"""`run_docre.py`, from its flags to the record of a run, on the bundled sample with a tiny random encoder; and runs that are
killed and started again."""

import contextlib
import gzip
import hashlib
import io
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import (
    ROOT,
    SAMPLE,
    random_document,
    run_script,
    save_backbone,
    small_encoder,
    tiny_config,
    tiny_processor,
)
from safetensors.torch import load_file, save_file

import run_docre
from dataset_scripts.builder import load_splits
from modeling_comm import CommForDocumentRelationExtraction, CommProcessor
from modeling_comm.configuration_comm import OWN_FIELDS, registered_settings
from modeling_comm.decoding import DecisionSettings
from modeling_comm.documents import DocumentError
from modeling_comm.evaluation.scoring import load_ign_reference, score
from modeling_comm.reporting.run_files import RESULTS
from modeling_comm.reporting.run_record import kept_step_of
from modeling_comm.training.build_model import load_checkpoint
from modeling_comm.training.checkpoint_files import being_saved
from modeling_comm.training.checkpoints import (
    Progress,
    delete_results_of_other_models,
    find_progress,
    run_settings,
)
from modeling_comm.training.encode_splits import encode_splits
from modeling_comm.training.refused_arguments import check_arguments, check_folder_of_seeds, check_scored_elsewhere
from modeling_comm.training.script_arguments import UnknownArgumentsError, parse_arguments
from modeling_comm.training.script_paths import check_paths
from modeling_comm.training.trainer import CommTrainer
from modeling_comm.training.training_args import CommTrainingArguments
from modeling_comm.utils.files import write_json
from modeling_comm.utils.locks import LockedError, locked_folder
from modeling_comm.utils.unchanged import SettingsChangedError, check_unchanged

TINY = ["--emb_size", "16", "--block_size", "4", "--per_device_train_batch_size", "2", "--head_learning_rate", "1e-3"]
FEW = ["--max_train_documents", "6", "--max_eval_documents", "3"]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder for the module's runs, with an encoder in `encoder`."""
    folder = tmp_path_factory.mktemp("runs")
    save_backbone(folder / "encoder")
    return folder


@pytest.fixture(scope="module")
def always(work):
    """Flags of every run."""
    return ["--dataset_config", "redocred", "--use_cpu", "--disable_tqdm", "true", "--cache_dir", str(work / "cache")]


@pytest.fixture(scope="module")
def new_model(work, always):
    """Flags of a run that trains a new model on a part of the sample."""
    source = ["--data_dir", str(SAMPLE), "--model_name_or_path", str(work / "encoder")]
    return [*always, *source, *TINY, *FEW, "--num_train_epochs", "2"]


def run(*flags):
    """Results, and what was printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        results = run_script(*flags)
    return results, printed.getvalue()


@pytest.fixture(scope="module")
def first(work, new_model):
    """A finished run: its folder, its metrics, and what it printed."""
    folder = work / "first"
    flags = [*new_model, "--do_train", "--do_eval", "--do_predict", "--output_dir", folder, "--show_triples", "4"]
    (metrics,), printed = run(*flags)
    return folder, metrics, printed, flags


def read(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


def sha256(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def assert_same_weights(folder, other):
    torch.testing.assert_close(
        load_file(Path(folder) / "model.safetensors"), load_file(Path(other) / "model.safetensors"), rtol=0, atol=0
    )


# ----------------------------------------------------------------------------------------------------------------- flags


def test_help_lists_every_field_of_the_configuration(capsys):
    with pytest.raises(SystemExit) as stopped:
        run_docre.parse_arguments(["--help"])
    assert stopped.value.code == 0
    listed = capsys.readouterr().out
    # Taken from the encoder, from the data and from the library.
    fields = OWN_FIELDS - {"text_config", "relation_names", "comm_version"} | set(registered_settings())
    assert {field for field in fields if f" --{field} " not in listed} == set()
    assert "--head_learning_rate" in listed


SETTINGS = {
    "output_dir": "out",
    "loss": "atl",
    "learning_rate": 2e-4,
    "num_train_epochs": 7,
    "seeds": [4, 5],
    "do_train": True,
    "load_best_model_at_end": False,
    "save_total_limit": None,
    "backbone_overrides": {"hidden_dropout_prob": 0.0},
    "word_leading_space": False,
}
AS_YAML = """
output_dir: out
loss: atl
learning_rate: 2e-4
num_train_epochs: 7
seeds: [4, 5]
do_train: true
load_best_model_at_end: false
save_total_limit: null
backbone_overrides: {hidden_dropout_prob: 0.0}
word_leading_space: false
"""


@pytest.mark.parametrize(("name", "text"), [("a.json", json.dumps(SETTINGS)), ("a.yaml", AS_YAML), ("a.yml", AS_YAML)])
def test_settings_in_a_file_and_flags_that_win(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    flags = ["--loss", "aml", "--seeds", "9", "--use_cpu", "--word_leading_space", "true"]
    arguments = run_docre.parse_arguments([str(tmp_path / name), *flags])
    model, data, training, script = arguments.model, arguments.data, arguments.training, arguments.run
    assert (model.loss, script.seeds, model.word_leading_space) == ("aml", [9], True), "flags win"
    assert (training.learning_rate, training.num_train_epochs, training.do_train) == (2e-4, 7.0, True)
    assert (training.load_best_model_at_end, training.save_total_limit) == (False, None)
    assert json.loads(model.backbone_overrides) == {"hidden_dropout_prob": 0.0}
    assert data.dataset_config == "local", "a default"
    assert run_docre.parse_arguments([str(tmp_path / name), "--use_cpu"]).seeds == [4, 5]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lerning_rate": 1, "loss": "atl", "sed": 3}, r"\['lerning_rate', 'sed'\]"),
        (["--loss", "atl"], "list"),
    ],
)
def test_wrong_settings_in_a_file(tmp_path, settings, message):
    (tmp_path / "wrong.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=message):
        run_docre.parse_arguments([str(tmp_path / "wrong.json")])


@pytest.mark.parametrize(
    ("flags", "unknown", "nearest"),
    [
        (["--cmm_margn", "0.1", "--sed=3"], ["--cmm_margn", "--sed"], ["--cmm_margin", "--seed"]),
        (["--zzzzzz"], ["--zzzzzz"], []),
        (["--detach_weights"], ["--detach_weights"], ["--hingeabl_detach_weights"]),
        (
            ["--margin", "0.1"],
            ["--margin"],
            sorted(f"--{field}" for field in registered_settings() if field.endswith("_margin")),
        ),
        (["--loss", "atl", "aml"], ["aml"], []),
    ],
)
def test_unknown_flags(flags, unknown, nearest):
    with pytest.raises(UnknownArgumentsError) as error:
        run_docre.parse_arguments(flags)
    assert (error.value.unknown, error.value.nearest) == (unknown, nearest)


@pytest.mark.parametrize("value", ["x", "1.5", "nan"])
def test_an_error_in_a_flag_has_the_range_and_does_not_list_all_flags(value, capsys):
    with pytest.raises(SystemExit):
        run_docre.parse_arguments(["--cmm_margin", value])
    _usage, message = capsys.readouterr().err.splitlines()
    (declared,) = registered_settings()["cmm_margin"]
    expected = declared.expected
    assert "--cmm_margin" in message and repr(value) in message and expected in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "model_name_or_path: 2024-01-01",
            r"model_name_or_path: found datetime\.date\(2024, 1, 1\).*put a text in quotes",
        ),
        ("extensions: [a.py, 2024-01-01]", "extensions: found .* expected what JSON has"),
        ("5: x", "found the int 5 before a colon, expected an argument's name"),
        ("seed: 2024-13-01", "found month must be in 1..12, expected JSON or YAML"),
        ("seeds: &a [*a]", "seeds: found .*Circular"),
    ],
)
def test_what_yaml_takes_for_something_else_in_a_file(tmp_path, content, message):
    (tmp_path / "wrong.yaml").write_text(content)
    with pytest.raises(ValueError, match=rf"wrong\.yaml.*{message}"):
        run_docre.parse_arguments([str(tmp_path / "wrong.yaml")])


def test_wrong_type_in_a_file(tmp_path, capsys):
    (tmp_path / "wrong.yaml").write_text("num_train_epochs: many")
    with pytest.raises(SystemExit):
        run_docre.parse_arguments([str(tmp_path / "wrong.yaml")])
    assert "--num_train_epochs" in (said := capsys.readouterr().err)
    assert "'many'" in said


# ------------------------------------------------------------------------------------------------------------ one run


def test_log_says_what_runs_and_what_is_lost(first, work, always, caplog):
    flags = [*always, *FEW, "--data_dir", SAMPLE, "--model_name_or_path", first[0]]
    with caplog.at_level("INFO"):
        run(*flags, "--do_eval", "--max_length", "40", "--output_dir", work / "short")
    assert "world size 1, device cpu" in caplog.text
    report = read(work / "short" / "run.json")["data"]["encoding"]
    assert {split: report[split]["documents"] for split in report} == {"validation": 3}, (
        "what is not used is not encoded"
    )
    assert report["validation"]["lost_tokens"] > 0
    assert report["validation"]["lost_mentions"] > 0
    assert f"'lost_mentions': {report['validation']['lost_mentions']}" in caplog.text


def test_predictions_scored_again(first):
    folder, metrics, printed, _ = first
    predictions, truth = read(folder / "results.json"), read(SAMPLE / "test_revised.json")
    assert predictions
    assert all(list(prediction) == ["title", "h_idx", "t_idx", "r"] for prediction in predictions)
    command = [sys.executable, "-m", "comm_docre", "evaluate", "--predictions", folder / "results.json"]
    command += ["--truth", SAMPLE / "test_revised.json", "--train_facts", SAMPLE / "train_revised.json"]
    command += ["--output", folder / "again.json"]
    scored = subprocess.run([str(word) for word in command], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert scored.returncode == 0, scored.stderr
    again = read(folder / "again.json")
    recorded = read(folder / "test_scores.json")
    for key in ("f1", "precision", "recall", "ign_f1"):
        assert again[key] == recorded["scores"][key] == metrics[f"test_{key}"], key
    assert again["f1"] == read(folder / "run.json")["metrics"]["test_f1"] > 0
    assert again["ign_reference"] == recorded["scores"]["ign_reference"]
    assert metrics["test_predicted_positives"] == len(predictions) == again["distinct_predictions"]
    rows = [line for line in scored.stdout.splitlines() if line.startswith("all ")]
    assert rows[0].split()[:7] in [line.split()[:7] for line in printed.splitlines()], "the same row was printed"
    own = score(predictions, truth)["f1"]
    assert f"{100 * own:.2f}" in rows[0]
    assert metrics["test_type_prior_f1"] == recorded["type_prior"]["f1"] > 0


def test_triples_are_shown(first):
    _, _, printed, _ = first
    shown = [line for line in printed.splitlines() if "(margin " in line]
    assert len(shown) == 4
    titles = [document["title"] for document in read(SAMPLE / "test_revised.json")]
    assert [line.split(":")[0] for line in shown] == titles[:4], "the surest of each document in turn"
    assert all(line.endswith(("right", "WRONG")) for line in shown)


def test_record_of_a_run(first, new_model):
    folder, metrics, _, _ = first
    record = read(folder / "run.json")
    assert record["seed"] == 42
    assert record["versions"]["torch"] == torch.__version__
    assert record["versions"]["modeling_comm"]
    assert record["commit"] is None or len(record["commit"].removesuffix("+changes")) == 40
    assert record["command"].startswith("python")
    names = {"train": "train_revised.json", "validation": "dev_revised.json", "test": "test_revised.json"}
    for split, name in names.items():
        entry = record["data"]["files"][split]
        assert entry == {"source": str(SAMPLE / name), "sha256": sha256(SAMPLE / name), "skipped": []}
    facts = load_ign_reference(SAMPLE / "train_revised.json")
    assert record["ign_reference"] == {
        "source": "train_revised.json",
        "sha256": sha256(SAMPLE / "train_revised.json"),
        "facts": len(facts.facts),
    }
    assert record["config"]["emb_size"] == 16
    assert record["config"]["comm_version"] == record["versions"]["modeling_comm"]
    assert record["training_arguments"]["head_learning_rate"] == 1e-3
    assert record["device"]["processes"] == 1
    assert record["device"]["precision"] == "float32"
    assert record["metrics"] == metrics
    evaluations = [entry for entry in record["log"] if "eval_f1" in entry]
    assert [entry["epoch"] for entry in evaluations[:2]] == [1, 2]
    assert all("eval_predicted_positives" in entry and "eval_runtime" not in entry for entry in evaluations)
    best = max(evaluations[:2], key=lambda entry: entry["eval_f1"])
    assert record["best_checkpoint_step"] == best["step"]
    assert metrics["eval_f1"] == best["eval_f1"], "the best checkpoint was loaded"


def test_predictions_of_a_checkpoint_loaded_again(first, always, work):
    folder, *_ = first
    flags = [*always, "--model_name_or_path", folder, "--data_dir", SAMPLE, "--do_predict"]
    run(*flags, "--output_dir", work / "again")
    assert read(work / "again" / "results.json") == read(folder / "results.json")
    assert read(work / "again" / "run.json")["metrics"]["test_f1"] == read(folder / "run.json")["metrics"]["test_f1"]


@pytest.mark.parametrize("leading_space", ["true", "false"])
def test_roberta_and_its_byte_level_tokenizer(always, tmp_path, leading_space):
    flags = [*always, *FEW, "--data_dir", SAMPLE, "--do_predict"]
    new = ["--model_name_or_path", save_backbone(tmp_path / "encoder", "roberta"), *TINY, "--do_train"]
    new += ["--num_train_epochs", "1", "--word_leading_space", leading_space]
    run(*flags, *new, "--output_dir", tmp_path / "first")
    run(*flags, "--model_name_or_path", tmp_path / "first", "--output_dir", tmp_path / "again")
    assert read(tmp_path / "first" / "config.json")["text_config"]["model_type"] == "roberta"
    for name in ("results.json", "test_scores.json"):
        assert read(tmp_path / "again" / name) == read(tmp_path / "first" / name)
    assert read(tmp_path / "again" / "results.json")


def test_loss_from_a_file_of_ones_own(first, always, work):
    """Trains by its name, and the checkpoint carries the file."""
    (work / "own_loss.py").write_text(
        "from modeling_comm import reduce_losses, register_loss, relation_distances\n"
        "@register_loss('own')\n"
        "def own_loss(logits, labels, reduction='mean', weight: float = 1.0):\n"
        "    distances, positive = relation_distances(logits, labels)\n"
        "    wrong = (1 - distances.where(positive, -distances)).relu()\n"
        "    return reduce_losses(weight * wrong.sum(-1), reduction)\n"
    )
    flags = [*always, "--data_dir", SAMPLE, "--do_train", "--max_steps", "1", "--max_train_documents", "4"]
    own = ["--extensions", work / "own_loss.py", "--loss", "own", "--own_weight", "2.0"]
    run(
        *flags,
        *own,
        "--model_name_or_path",
        first[0],
        "--output_dir",
        work / "own",
        "--eval_strategy",
        "no",
        "--load_best_model_at_end",
        "false",
    )
    assert read(work / "own" / "config.json")["own_weight"] == 2.0
    assert (work / "own" / "own_loss.py").is_file()


def test_predictions_for_documents_without_labels(first, always, work):
    folder, *_ = first
    documents = [
        {field: value for field, value in document.items() if field != "labels"}
        for document in read(SAMPLE / "test_revised.json")[:3]
    ]
    (work / "own.json").write_text(json.dumps(documents))
    flags = [*always, "--model_name_or_path", folder, "--test_file", work / "own.json", "--do_predict"]
    (metrics,), printed = run(*flags, "--output_dir", work / "unlabelled", "--show_triples", "2")
    titles = {document["title"] for document in documents}
    expected = [prediction for prediction in read(folder / "results.json") if prediction["title"] in titles]
    assert read(work / "unlabelled" / "results.json") == expected
    assert metrics["test_predicted_positives"] == len(expected)
    assert "test_f1" not in metrics
    assert not (work / "unlabelled" / "test_scores.json").exists()
    assert printed.count("(margin ") == 2
    assert "right" not in printed
    assert "WRONG" not in printed


def test_description_of_the_data(work, always, new_model):
    def rows(*flags):
        lines = [line.split() for line in run(*flags, "--describe_data")[1].splitlines()]
        return {line[0]: line[1:] for line in lines if line}

    plain = rows(*always, "--data_dir", SAMPLE)
    assert plain["documents"] == ["110", "20", "20"]
    assert "windows" not in plain
    encoded = rows(*new_model, "--max_length", "40", "--output_dir", work / "described")
    assert encoded["documents"] == ["6", "3", "20"]
    assert encoded["windows"] == ["6", "3", "20"], "with a model, also what encoding makes of it"
    assert all(int(lost.replace(",", "")) > 0 for lost in encoded["truncated"])
    assert not (work / "described").exists()


def test_training_without_validation_documents(work, always, caplog):
    flags = [*always, *TINY, "--train_file", SAMPLE / "dev_revised.json", "--model_name_or_path", work / "encoder"]
    folder = work / "no_validation"
    with caplog.at_level("WARNING"):
        run(*flags, "--do_train", "--num_train_epochs", "1", "--output_dir", folder)
    assert "no validation documents: the last checkpoint is kept" in caplog.text
    (last,) = folder.glob("checkpoint-*")
    assert_same_weights(folder, last)
    labels = load_file(folder / "model.safetensors")
    assert labels, "weights were saved"


# ---------------------------------------------------------------------------------------------------------- what is wrong


@pytest.mark.parametrize(
    ("flags", "error", "message"),
    [
        (["--data_dir", SAMPLE], ValueError, "--do_train"),
        (["--data_dir", SAMPLE, "--do_train"], ValueError, "--model_name_or_path"),
        (["--data_dir", "nowhere", "--do_eval"], FileNotFoundError, "nowhere: expected a folder"),
        (["--data_dir", ROOT / "docs", "--do_eval"], FileNotFoundError, r"train_revised.json.*docs"),
        (["--data_dir", SAMPLE, "--validation_file", "no.json", "--describe_data"], FileNotFoundError, "no.json"),
        (["--data_dir", SAMPLE, "--validation_file", "", "--describe_data"], FileNotFoundError, "expected a file"),
        (
            ["--data_dir", "nowhere", "--test_file", SAMPLE / "test_revised.json", "--do_predict"],
            FileNotFoundError,
            "nowhere",
        ),
        (["--test_file", "no.json", "--do_predict"], FileNotFoundError, "no.json"),
        (
            ["--validation_file", SAMPLE / "dev_revised.json", "--do_train"],
            ValueError,
            "--do_train.*train",
        ),
        (["--train_file", SAMPLE / "dev_revised.json", "--do_predict"], ValueError, "--do_predict.*test"),
        (
            ["--data_dir", SAMPLE, "--dataset_config", "docret", "--do_eval"],
            ValueError,
            "'docret'; expected one of",
        ),
        (["--data_dir", SAMPLE, "--do_train", "--loss", "alt"], ValueError, "loss.*'alt'"),
        (["--data_dir", SAMPLE, "--do_predict"], ValueError, "is a bare encoder.*expected a trained model"),
        (
            ["--data_dir", SAMPLE, "--do_train", "--emb_size", "20", "--block_size", "8"],
            ValueError,
            "multiple of block_size",
        ),
        (
            [
                "--do_train",
                "--early_stopping_patience",
                "3",
                "--eval_strategy",
                "no",
                "--load_best_model_at_end",
                "false",
            ],
            ValueError,
            "--early_stopping_patience counts evaluations",
        ),
        (
            ["--train_file", SAMPLE / "dev_revised.json", "--do_train", "--early_stopping_patience", "3"],
            ValueError,
            "--early_stopping_patience needs a validation split",
        ),
        (["--data_dir", SAMPLE, "--do_eval", "--ign_reference", "no.json"], FileNotFoundError, "no.json"),
        (["--data_dir", SAMPLE, "--do_eval", "--on_bad_document", "keep"], ValueError, "on_bad_document.*'keep'"),
    ],
)
def test_clear_errors(work, always, flags, error, message):
    model = [] if flags[-1] == "--do_train" and "--data_dir" in flags else ["--model_name_or_path", work / "encoder"]
    with pytest.raises(error, match=message):
        run(*always, *model, *flags, "--output_dir", work / "wrong")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--do_train --threshold_offset 0 --tune_threshold_offset", "leave out --threshold_offset"),
        ("--do_train --fusion_threshold 0.0 --tune_fusion_threshold", "leave out --threshold_offset and --fusion_thr"),
        ("--do_train --early_stopping_patience 0", "--early_stopping_patience is 0; expected an integer of 1 or more"),
        ("--do_train --max_train_documents -1", "--max_train_documents is -1; expected an integer of 1 or more"),
        ("--do_eval --max_eval_documents 0", "--max_eval_documents is 0"),
        ("--do_eval --restart", "--restart needs --do_train"),
        (
            "--do_train --resume_from_checkpoint out/checkpoint-4",
            "--resume_from_checkpoint: the same command resumes by",
        ),
        ("--do_predict --ignore_mismatched_sizes", "--ignore_mismatched_sizes needs --do_train"),
        ("--do_eval --show_triples 3", "--show_triples needs --do_predict"),
        ("--do_predict --show_triples -1", "--show_triples is -1; expected an integer of 0 or more"),
    ],
)
def test_flags_that_do_not_go_together(flags, message):
    arguments = run_docre.parse_arguments(["--model_name_or_path", "x", "--use_cpu", *flags.split()])
    with pytest.raises(ValueError, match=message):
        check_arguments(arguments)


@pytest.mark.parametrize(
    "flag",
    [
        *("train_file", "validation_file", "test_file", "train_distant_file", "ign_reference"),
        *("complete_labels", "rules", "extensions"),
    ],
)
def test_what_a_flag_reads_is_not_written_over(flag, tmp_path):
    """Not even where it has the name of a file that a run writes."""
    (tmp_path / "settings.json").write_text("[]")
    given = {"extensions": [str(tmp_path / "settings.json")]}.get(flag, str(tmp_path / "settings.json"))
    arguments = run_docre.parse_arguments(["--model_name_or_path", "x", "--use_cpu", "--output_dir", str(tmp_path)])
    group = arguments.data if hasattr(arguments.data, flag) else arguments.model
    setattr(group, flag, given)
    with pytest.raises(ValueError, match=r"settings\.json would be written over the input"):
        check_paths(arguments)


def test_another_model_is_not_scored_in_the_folder_of_a_training(first, always, work):
    other = shutil.copytree(first[0], work / "other_model", ignore=shutil.ignore_patterns("checkpoint-*"))
    before = (first[0] / "results.json").read_bytes()
    flags = [*always, "--data_dir", SAMPLE, "--model_name_or_path", other, "--do_predict", "--threshold_offset", "-2"]
    with pytest.raises(ValueError, match="choose another --output_dir"):
        run(*flags, "--output_dir", first[0])
    assert (first[0] / "results.json").read_bytes() == before
    begun = work / "begun"
    begun.mkdir()
    shutil.copy(first[0] / "settings.json", begun)  # a training that was killed before its first checkpoint
    with pytest.raises(ValueError, match="choose another --output_dir"):
        run(*flags, "--output_dir", begun)


def test_results_of_another_model_in_the_same_folder_are_deleted(first, always, work, caplog):
    flags = [*always, *FEW, "--data_dir", SAMPLE, "--output_dir", work / "scored", "--model_name_or_path"]
    other = shutil.copytree(first[0], work / "second_model", ignore=shutil.ignore_patterns("checkpoint-*"))
    results = ("results.json", "test_scores.json")
    run(*flags, first[0], "--do_predict")
    (work / "scored" / "README.md").write_text("Mine")
    run(*flags, os.path.relpath(first[0]), "--do_eval")
    assert all((work / "scored" / name).is_file() for name in results), "of the same model"
    caplog.clear()
    run(*flags, other, "--do_eval")
    assert {path.name for path in (work / "scored").iterdir()} == {"run.json", "README.md"}
    assert f"deleted run.json, results.json, test_scores.json, which are not of the model {other}" in caplog.text


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--emb_size", "32", "--block_size", "8"], "emb_size, block_size"),
        (["--backbone_overrides", '{"hidden_dropout_prob": 0.0}'], "backbone_overrides"),
        (["--word_leading_space", "false"], "word_leading_space"),
    ],
)
def test_what_belongs_to_a_checkpoint_cannot_be_changed(first, always, work, flags, named):
    folder, *_ = first
    with pytest.raises(ValueError, match=named):
        run(*always, "--data_dir", SAMPLE, "--model_name_or_path", folder, "--do_eval", "--output_dir", work, *flags)


def test_relations_that_training_does_not_show(work, new_model):
    """Those of the validation documents are labels, too; a folder named beside the files may hold the relations alone."""
    folder = work / "rare"
    folder.mkdir()
    documents = read(SAMPLE / "train_revised.json")[:3]
    relations = sorted({label["r"] for document in documents for label in document["labels"]})
    rare = json.loads(json.dumps(documents[0]))
    rare["title"], rare["labels"][0]["r"] = "Rare", "P9999"
    for name, content in (
        ("a", documents),
        ("b", [rare]),
        ("rel2id", {"Na": 0, "P9999": 1} | {r: i for i, r in enumerate(relations, 2)}),
    ):
        (folder / f"{name}.json").write_text(json.dumps(content))
    start = new_model.index("--data_dir")
    flags = [*new_model[:start], *new_model[start + 2 :], "--do_train", "--do_eval", "--max_steps", "1"]
    flags += ["--train_file", folder / "a.json", "--validation_file", folder / "b.json"]
    run(*flags, "--output_dir", folder / "out")
    labels = read(folder / "out" / "config.json")["label2id"]
    assert sorted(labels, key=labels.get) == ["Na", *sorted([*relations, "P9999"])]
    run(*flags, "--data_dir", folder, "--output_dir", folder / "listed")
    assert read(folder / "listed" / "config.json")["label2id"]["P9999"] == 1


def test_a_relation_that_only_the_test_file_has_is_counted_and_said(first, always, work, caplog):
    documents = read(SAMPLE / "test_revised.json")[:2]
    gold = sum(len(document["labels"]) for document in documents)
    documents[0]["labels"][0]["r"] = "P9999"
    file = work / "unknown_relation.json"
    file.write_text(json.dumps(documents))
    flags = [*always, "--model_name_or_path", first[0], "--do_predict", "--test_file", file]
    run(*flags, "--output_dir", work / "unknown_relation")
    assert "'unknown_facts': 1" in caplog.text and "P9999 (1)" in caplog.text
    assert read(work / "unknown_relation" / "test_scores.json")["scores"]["gold"] == gold


def test_relations_that_the_model_lacks_beside_documents_without_labels(work, caplog):
    """One that the model reads as another is no unknown one."""
    labels = [{"h": 0, "t": 1, "r": relation, "evidence": []} for relation in ("P17", "P40", "P9999")]
    rows = [random_document(3, seed=1, title="Labels") | {"labels": labels}]
    rows.append(random_document(3, seed=2, title="No labels", labels=False))
    file = work / "some_unlabelled.json"
    file.write_text(json.dumps(rows))
    splits = load_splits("local", data_files={"test": str(file)}, cache_dir=str(work / "cache"))
    _, reports = encode_splits(
        splits, tiny_processor(inverse={"P40": "P17"}), parse_arguments(["--output_dir", str(work), "--use_cpu"])
    )
    assert reports["test"]["unknown_facts"] == 1
    assert "1 of 3 labels have 1 relations that the model does not have: P9999 (1)." in caplog.text


def test_relations_of_validation_documents_that_the_model_lacks(work, caplog):
    """They are scored, as those of test documents are; training documents are refused."""
    rows = [random_document(3, seed=1) | {"labels": [{"h": 0, "t": 1, "r": "P9999", "evidence": []}]}]
    arguments, how = parse_arguments(["--output_dir", str(work), "--use_cpu"]), {"cache_dir": str(work / "cache")}
    file = work / "unknown_of_validation.json"
    file.write_text(json.dumps(rows))
    for split in ("validation", "train"):
        splits = load_splits("local", data_files={split: str(file)}, **how)
        with pytest.raises(DocumentError, match="P9999") if split == "train" else contextlib.nullcontext():
            _, reports = encode_splits(splits, tiny_processor(), arguments)
            assert reports[split]["unknown_facts"] == 1 and "validation: 1 of 1 labels have 1 relations" in caplog.text


def test_titles_that_repeat_are_not_predicted(first, work, always):
    document = read(SAMPLE / "test_revised.json")[0]
    (work / "twice.json").write_text(json.dumps([{**document, "labels": None}] * 2))
    flags = [*always, "--model_name_or_path", first[0], "--test_file", work / "twice.json", "--do_predict"]
    with pytest.raises(ValueError, match=f"{re.escape(repr([document['title']]))}"):
        run(*flags, "--output_dir", work / "twice")


def test_bad_documents(work, always):
    documents = read(SAMPLE / "train_revised.json")[:6]
    kept = [document for index, document in enumerate(documents) if index != 2]
    documents[2] = {**documents[2], "labels": [{"h": 0, "t": 99, "r": "P17", "evidence": []}]}
    (work / "bad.json").write_text(json.dumps(documents))
    flags = [*always, *TINY, "--data_dir", SAMPLE, "--train_file", work / "bad.json"]
    flags += ["--model_name_or_path", work / "encoder", "--do_train", "--num_train_epochs", "1"]
    with pytest.raises(ValueError, match=r"bad.json: document 2 .*labels\[0\]\.t: found 99, expected"):
        run(*flags, "--output_dir", work / "bad")
    run(*flags, "--on_bad_document", "skip", "--max_eval_documents", "2", "--output_dir", work / "bad")
    record = read(work / "bad" / "run.json")
    (skipped,) = record["data"]["files"]["train"]["skipped"]
    assert (skipped["index"], skipped["field"], skipped["found"]) == (2, "labels[0].t", "99")
    assert record["data"]["encoding"]["train"]["documents"] == 5
    assert record["ign_reference"] == {
        "source": "bad.json",
        "sha256": sha256(work / "bad.json"),
        "facts": len(load_ign_reference(kept).facts),
    }


def test_compressed_files(work, always, first):
    folder, *_ = first
    (work / "compressed").mkdir()
    for name in ("train_revised.json", "dev_revised.json"):
        (work / "compressed" / f"{name}.gz").write_bytes(gzip.compress((SAMPLE / name).read_bytes()))
    flags = [*always, "--data_dir", work / "compressed", "--model_name_or_path", folder, "--do_eval"]
    (metrics,), _ = run(*flags, "--max_eval_documents", "3", "--output_dir", work / "from_compressed")
    before, after = (read(path / "run.json") for path in (folder, work / "from_compressed"))
    assert after["ign_reference"]["facts"] == before["ign_reference"]["facts"]
    assert after["ign_reference"]["sha256"] == sha256(work / "compressed" / "train_revised.json.gz")
    assert metrics["eval_ign_f1"] == before["metrics"]["eval_ign_f1"]


@pytest.mark.parametrize("reference", ["none", "facts"])
def test_reference_of_ign_f1(work, always, first, reference):
    folder, metrics, *_ = first
    (work / "facts.json").write_text(json.dumps([["Nobody", "Nowhere", "P17"]]))
    given = work / "facts.json" if reference == "facts" else reference
    flags = [*always, "--data_dir", SAMPLE, "--model_name_or_path", folder, "--do_eval", "--ign_reference", given]
    (found,), _ = run(*flags, "--max_eval_documents", "3", "--output_dir", work / "reference")
    recorded = read(work / "reference" / "run.json")["ign_reference"]
    assert found["eval_f1"] == metrics["eval_f1"]
    if reference == "none":
        assert recorded is None
        assert "eval_ign_f1" not in found
    else:
        assert recorded == {"source": "facts.json", "sha256": sha256(work / "facts.json"), "facts": 1}
        assert found["eval_ign_f1"] == found["eval_f1"]


# ------------------------------------------------------------------------------------------------------ losses, more seeds


@pytest.mark.parametrize(
    ("loss", "threshold"), [("balanced_softmax", "zero"), ("atl", "th"), ("hingeabl", "th"), ("ncrl", "th")]
)
def test_losses_run(work, new_model, loss, threshold):
    folder = work / f"loss-{loss}"
    flags = [*new_model, "--do_train", "--loss", loss, "--max_steps", "1", "--output_dir", folder]
    run(*flags, "--eval_strategy", "no", "--load_best_model_at_end", "false")
    config = read(folder / "config.json")
    assert config["loss"] == loss
    assert read(folder / "processor_config.json")["decision_threshold"] == threshold


@pytest.mark.parametrize(
    ("flags", "loss", "threshold", "cap"),
    [
        ([], "cmm", "th", None),
        (["--loss", "balanced_softmax"], "balanced_softmax", "zero", None),
        (["--loss", "balanced_softmax", "--decision_threshold", "th"], "balanced_softmax", "th", None),
        (["--loss", "atl", "--max_relations_per_pair", "4"], "atl", "th", 4),
    ],
)
def test_training_further_from_a_checkpoint_with_another_loss(first, always, flags, loss, threshold, cap):
    folder, *_ = first
    arguments = run_docre.parse_arguments([*always, "--model_name_or_path", str(folder), *flags])
    model, processor = load_checkpoint(arguments.model)
    assert model.config.loss == loss
    assert processor.decision == DecisionSettings(threshold, max_relations_per_pair=cap)
    torch.testing.assert_close(dict(model.state_dict()), load_file(folder / "model.safetensors"), rtol=0, atol=0)


def test_training_on_from_a_checkpoint_with_another_loss(first, always, work):
    folder, *_ = first
    flags = [*always, "--data_dir", SAMPLE, "--model_name_or_path", folder, *FEW, "--loss", "balanced_softmax"]
    (metrics,), _ = run(*flags, "--do_train", "--num_train_epochs", "1", "--output_dir", work / "other_loss")
    record = read(work / "other_loss" / "run.json")
    assert (record["config"]["loss"], record["processor"]["decision_threshold"]) == ("balanced_softmax", "zero")
    assert metrics["train_loss"] > 0


def test_tuned_offset_is_kept_and_used(first, work, always, new_model):
    _, plain, *_ = first
    flags = [*new_model, "--do_train", "--do_eval", "--do_predict", "--tune_threshold_offset"]
    (metrics,), _ = run(*flags, "--output_dir", work / "tuned")
    offset = metrics["threshold_offset"]
    assert offset
    assert metrics["eval_f1"] > plain["eval_f1"]
    assert metrics["eval_average_precision"] == plain["eval_average_precision"], "the same weights"
    assert read(work / "tuned" / "processor_config.json")["threshold_offset"] == offset
    assert f"{offset}"[:6] in (work / "tuned" / "README.md").read_text(encoding="utf-8")
    evaluate = [*always, "--data_dir", SAMPLE, "--model_name_or_path", work / "tuned", *FEW]
    (again,), _ = run(*evaluate, "--do_eval", "--output_dir", work / "tuned-evaluated")
    assert again["eval_f1"] == metrics["eval_f1"]
    (own,), _ = run(*evaluate, "--do_eval", "--threshold_offset", "0", "--output_dir", work / "tuned-evaluated")
    assert own["eval_f1"] == plain["eval_f1"]
    (same,), _ = run(*flags, "--output_dir", work / "tuned")  # finished: nothing is trained
    assert (same["threshold_offset"], same["eval_f1"]) == (offset, metrics["eval_f1"])
    run(*evaluate, "--do_train", "--num_train_epochs", "1", "--output_dir", work / "trained-on")
    assert read(work / "trained-on" / "processor_config.json")["threshold_offset"] == 0
    with pytest.raises(ValueError, match="--tune_threshold_offset needs --do_train"):
        run(*evaluate, "--do_eval", "--tune_threshold_offset", "--output_dir", work / "none")


def test_several_seeds_need_a_folder_of_their_own(first, new_model):
    folder = first[0]
    card = (folder / "README.md").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match=r"run with one seed \(found settings.json\); choose another one for --seeds"):
        run(*new_model, "--do_train", "--seeds", "1", "2", "--output_dir", folder)
    assert not (folder / "seed-1").exists() and (folder / "README.md").read_text(encoding="utf-8") == card


def test_several_seeds(work, new_model):
    folder = work / "seeds"
    folder.mkdir()
    (folder / "_summary.json.0123456789abcdef.unfinished").touch()  # a kill has left it
    by_seed, printed = run(*new_model, "--do_train", "--do_eval", "--seeds", "1", "2", "3", "--output_dir", folder)
    summary = read(folder / "summary.json")
    assert summary["seeds"] == [1, 2, 3]
    assert {path.name for path in folder.iterdir()} == {"README.md", "summary.json", "seed-1", "seed-2", "seed-3"}
    metrics = [read(folder / f"seed-{seed}" / "run.json")["metrics"] for seed in (1, 2, 3)]
    assert metrics == by_seed
    assert len({entry["eval_loss"] for entry in metrics}) == 3, "three different runs"
    for key in ("eval_f1", "eval_loss", "train_loss"):
        values = [entry[key] for entry in metrics]
        found = summary["metrics"][key]
        mean = sum(values) / 3
        assert found["runs"] == values
        assert found["mean"] == pytest.approx(mean)
        assert found["std"] == pytest.approx((sum((value - mean) ** 2 for value in values) / 2) ** 0.5)
    f1 = [100 * entry["eval_f1"] for entry in metrics]
    assert f"eval_f1: {statistics.mean(f1):.2f} +- {statistics.stdev(f1):.2f} over seeds [1, 2, 3]" in printed


def test_early_stopping(work, new_model):
    flags = [
        "--do_train",
        "--early_stopping_patience",
        "1",
        "--learning_rate",
        "1e-12",
        "--head_learning_rate",
        "1e-12",
    ]
    run(*new_model, *flags, "--num_train_epochs", "9", "--output_dir", work / "early")
    log = read(work / "early" / "run.json")["log"]
    assert [entry["epoch"] for entry in log if "eval_f1" in entry] == [1, 2], "the second epoch is no better"


# --------------------------------------------------------------------------------------------------------- the same again


def test_other_weights_or_extensions_are_another_run(work, new_model):
    encoder, own = shutil.copytree(work / "encoder", work / "changing"), work / "changing_loss.py"
    lines = ["from modeling_comm import reduce_losses, register_loss", "@register_loss('changing')"]
    lines += [
        "def changing(logits, labels, reduction='mean'):",
        "    return reduce_losses(logits.float().logsumexp(-1), reduction)",
        "",
    ]
    own.write_text("\n".join(lines))
    flags = [*new_model, "--do_train", "--loss", "changing", "--extensions", own, "--output_dir", work / "of_files"]
    flags += ["--model_name_or_path", encoder, "--max_steps", "1"]
    run(*flags)
    before = own.read_text()
    own.write_text(before.replace("(-1)", "(-1) * 2").replace("@register_loss('changing')", ""))
    with pytest.raises(SettingsChangedError) as refused:
        run(*flags)
    assert {*refused.value.changed} == {"sha256.changing_loss.py"}
    own.write_text(before.replace("@register_loss('changing')", ""))
    tensors = load_file(encoder / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, encoder / "model.safetensors", {"format": "pt"})
    with pytest.raises(SettingsChangedError) as refused:
        run(*flags)
    assert {*refused.value.changed} == {"sha256.model.safetensors", "sha256.changing_loss.py"}


def test_training_from_half_precision_is_in_float32(first, work, always):
    half = CommForDocumentRelationExtraction.from_pretrained(first[0]).bfloat16()
    half.save_pretrained(work / "half")
    CommProcessor.from_pretrained(first[0]).save_pretrained(work / "half")
    assert read(work / "half" / "config.json")["dtype"] == "bfloat16"
    flags = [*always, "--data_dir", SAMPLE, *FEW, "--model_name_or_path", work / "half"]
    run(*flags, "--do_train", "--max_steps", "1", "--output_dir", work / "on")
    assert {tensor.dtype for tensor in load_file(work / "on" / "model.safetensors").values()} == {torch.float32}
    assert read(work / "on" / "run.json")["device"]["precision"] == "float32"
    run(*flags, "--do_eval", "--output_dir", work / "half_scored")
    assert read(work / "half_scored" / "run.json")["device"]["precision"] == "bfloat16"


def test_finished_training_is_not_repeated(first, work, monkeypatch):
    _, metrics, _, flags = first
    folder = shutil.copytree(first[0], work / "first_again")
    flags = [folder if flag == first[0] else flag for flag in flags]
    before = {name: (folder / name).read_bytes() for name in ("model.safetensors", "results.json", "settings.json")}
    log = read(folder / "run.json")["log"]

    def refuse(*arguments, **kwargs):
        raise AssertionError("trained again")

    monkeypatch.setattr(CommTrainer, "train", refuse)
    config = read(folder / "run.json")["config"]
    (again,), _ = run(*flags)
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert again.keys() == metrics.keys() and read(folder / "run.json")["config"] == config
    timing = ("_runtime", "_per_second")
    for key in metrics:
        assert again[key] == metrics[key] or key.endswith(timing), key
    assert read(folder / "run.json")["log"][: len(log)] == log
    assert read(folder / "run.json")["best_checkpoint_step"] is not None
    with pytest.raises(AssertionError, match="trained again"):
        run(*flags[:-4], "--output_dir", folder, "--restart")


def test_other_settings_in_the_same_folder(work, new_model):
    folder = work / "settings"
    flags = [*new_model, "--do_train", "--output_dir", folder]
    run(*flags)
    weights = (folder / "model.safetensors").read_bytes()
    settings_of_losses = {"config.cmm_margin": (0.2, None), "config.cmm_gamma": (1.0, None)}
    settings_of_losses["config.aml_margin"] = (None, 1.0)
    for change, changed in (
        (["--loss", "aml"], {"loss": (None, "aml"), "config.loss": ("cmm", "aml"), **settings_of_losses}),
        (["--learning_rate", "0.1"], {"learning_rate": (5e-5, 0.1)}),
        (["--gradient_accumulation_steps", "2"], {"documents_per_step": (2, 4)}),
        (["--max_train_documents", "4"], {"max_train_documents": (6, 4)}),
        (["--on_bad_document", "drop_part"], {"on_bad_document": (None, "drop_part")}),
        (["--train_file", SAMPLE / "test_revised.json"], None),
        (["--seed", "1"], {"seed": (42, 1)}),
        (["--neftune_noise_alpha", "5"], {"neftune_noise_alpha": (None, 5.0)}),
    ):
        with pytest.raises(SettingsChangedError) as refused:
            run(*flags, *change)
        assert refused.value.changed == changed or (changed is None and {*refused.value.changed} == {"train_sha256"})
    assert (folder / "model.safetensors").read_bytes() == weights
    # What does not decide the outcome may change. What made the weights stays in the record, scores are added.
    # The training is said to have taken a day, so that its seconds are not by chance those of the scoring.
    record = read(folder / "run.json") | {"seconds": 86_400.0}
    (folder / "run.json").write_text(json.dumps(record))
    again = ("--test_file", SAMPLE / "dev_revised.json", "--do_predict", "--logging_steps", "5")
    run(*flags, *again)
    assert read(folder / "results.json")
    later = read(folder / "run.json")
    for key in ("command", "commit", "versions", "device", "seconds"):
        assert later[key] == record[key]
    assert later["scored_by"]["seconds"] < record["seconds"]
    assert "test_f1" in later["metrics"] and "test_f1" not in record["metrics"]
    run(*flags, *again[:2], "--do_eval")
    both = read(folder / "run.json")["metrics"]
    assert {"eval_f1", "test_f1"} <= set(both) and both["test_f1"] == later["metrics"]["test_f1"]
    assert {"train", "validation", "test"} == set(read(folder / "run.json")["data"]["encoding"])
    few = work / "few_test.json"
    few.write_text(json.dumps(read(SAMPLE / "test_revised.json")[:2]))
    run(*flags, "--test_file", few, "--do_predict")
    other = read(folder / "run.json")
    assert other["metrics"]["test_f1"] != both["test_f1"] and other["metrics"]["eval_f1"] == both["eval_f1"]
    run(*flags, "--test_file", SAMPLE / "train_revised.json", "--do_eval")
    assert "test_f1" not in read(folder / "run.json")["metrics"], "of another file"
    assert "test" not in read(folder / "run.json")["data"]["encoding"]
    run(*flags, "--seed", "1", "--restart")
    assert read(folder / "run.json")["seed"] == 1
    assert (folder / "model.safetensors").read_bytes() != weights


def test_an_error_names_the_first_of_many_changed_settings():
    """A typed checkpoint for other relations changes one setting for each of them."""
    types = {f"P{number}": number for number in range(9)}
    with pytest.raises(SettingsChangedError) as refused:
        check_unchanged({"loss": "cmm"}, {"loss": "atl", "types": types}, "outputs/a", "Choose another")
    assert len(refused.value.changed) == 10
    assert str(refused.value).startswith(
        "outputs/a has other settings: loss was 'cmm', is 'atl'; types.P0 was None, is 0; "
    )
    assert str(refused.value).endswith("types.P4 was None, is 4; and 4 more. Choose another")


def test_labels_identify_a_run(work, new_model):
    """A list of labels that is gone or in another order would give the columns of the weights another meaning."""
    data, folder = work / "labelled", work / "of_labels"
    shutil.copytree(SAMPLE, data)
    relations = [*read(data / "rel_info.json")]
    (data / "rel2id.json").write_text(json.dumps({name: index for index, name in enumerate(["Na", *relations])}))
    flags = [*new_model, "--data_dir", data, "--do_train", "--output_dir", folder]
    run(*flags)
    (folder / "trainer_state.json").unlink()  # as if it had been killed before its end
    weights = (folder / "checkpoint-6" / "model.safetensors").read_bytes()
    exchanged = ["Na", relations[1], relations[0], *relations[2:]]
    for listed in (exchanged, ["Na", *relations[::-1]], None):
        if listed is None:
            (data / "rel2id.json").unlink()
        else:
            (data / "rel2id.json").write_text(json.dumps({name: index for index, name in enumerate(listed)}))
        with pytest.raises(SettingsChangedError) as refused:
            run(*flags)
        assert {*refused.value.changed} == {"config.labels"}
    assert (folder / "checkpoint-6" / "model.safetensors").read_bytes() == weights


def test_tokenizer_and_checkpoint_identify_a_run(work, new_model):
    encoder, folder = shutil.copytree(work / "encoder", work / "other_tokenizer"), work / "of_tokenizer"
    flags = [*new_model, "--model_name_or_path", encoder, "--do_train", "--output_dir", folder]
    run(*flags)
    (folder / "trainer_state.json").unlink()
    file = folder / "checkpoint-6" / "config.json"
    before = file.read_text()
    config = json.loads(before)
    labels = config["id2label"]
    labels["1"], labels["2"] = labels["2"], labels["1"]
    file.write_text(json.dumps({**config, "label2id": {name: int(index) for index, name in labels.items()}}))
    with pytest.raises(SettingsChangedError) as refused:
        run(*flags)
    assert {*refused.value.changed} == {"labels"} and refused.value.place == str(folder / "checkpoint-6")
    file.write_text(before)
    tokenizer = read(encoder / "tokenizer.json")
    vocabulary = tokenizer["model"]["vocab"]
    one, other = [*vocabulary][-2:]
    vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]
    (encoder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(SettingsChangedError) as refused:
        run(*flags)
    assert {*refused.value.changed} == {"processor.tokenizer_sha256"}


def test_two_trainings_in_one_folder(first, work, new_model):
    """The second one is refused with one line, and neither touches the other's files."""
    pytest.importorskip("fcntl", reason="locks need POSIX")
    folder = shutil.copytree(first[0], work / "locked")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with locked_folder(folder):
        flags = [*new_model, "--do_train", "--restart", "--output_dir", folder]
        command = [sys.executable, "run_docre.py", *map(str, flags)]
        second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
        with pytest.raises(LockedError):
            run(*flags)
    assert second.returncode == 2
    (line,) = (line for line in second.stderr.splitlines() if line.startswith("error: "))
    assert line.startswith(f"error: {folder} is in use by ")
    assert "Traceback" not in second.stderr
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    run(*flags)  # the lock ended with the process


def test_restart_deletes_its_own_checkpoints_only(work, new_model):
    folder = work / "restarted"
    run(*new_model, "--do_train", "--max_steps", "1", "--output_dir", folder)
    (folder / "checkpoint-best").mkdir()
    (folder / "checkpoint-best" / "trainer_state.json").write_text("{}")
    (folder / "checkpoint-9.txt").write_text("somebody's")
    others = folder / "checkpoint-12345"
    others.mkdir()
    (others / "notes.txt").write_text("somebody's")
    for restart in ([], ["--restart"]):
        with pytest.raises(ValueError, match="checkpoint-12345: found files that no training has saved"):
            run(*new_model, "--do_train", *restart, "--output_dir", folder)
    assert (others / "notes.txt").is_file() and checkpoint_steps(folder, complete=True) == {1}
    shutil.rmtree(others)
    run(*new_model, "--do_train", "--restart", "--output_dir", folder)
    assert (folder / "checkpoint-best" / "trainer_state.json").is_file() and (folder / "checkpoint-9.txt").is_file()
    assert checkpoint_steps(folder, complete=True) == {3, 6}
    (folder / "settings.json").unlink()
    for restart in ([], ["--restart"]):
        with pytest.raises(ValueError, match=r"checkpoints without settings\.json"):
            run(*new_model, "--do_train", *restart, "--output_dir", folder)
    assert checkpoint_steps(folder, complete=True) == {3, 6}


def test_restart_deletes_half_a_checkpoint(tmp_path):
    with pytest.raises(InterruptedError), being_saved(tmp_path / "checkpoint-6"):
        raise InterruptedError
    training = CommTrainingArguments(str(tmp_path), use_cpu=True)
    for restart in (False, True):  # without, other settings are no reason to refuse
        assert find_progress(training, {"seed": int(restart)}, restart) == Progress()
        assert (tmp_path / "checkpoint-6").is_dir() is not restart


def test_all_processes_restart_together(first, work):
    """The second process looks for checkpoints after the first one has deleted them."""
    folder = shutil.copytree(first[0], work / "processes")
    settings = {"seed": 2}
    found = {}

    class Process:
        world_size, output_dir, seed = 1, str(folder), 2

        def __init__(self, index):
            self.process_index = index

        @contextlib.contextmanager
        def main_process_first(self, desc):
            if self.process_index:  # waits for the first
                found[0] = find_progress(Process(0), settings, restart=True)
            yield

    found[1] = find_progress(Process(1), settings, restart=True)
    assert found == {0: Progress(), 1: Progress()}
    assert read(folder / "settings.json") == settings


RECORD = {"training_arguments": {}, "config": {"_name_or_path": "x"}, "data": {}, "seed": 1, "log": []}
PREDICTIONS = [{"title": "Oslo", "h_idx": 0, "t_idx": 1, "r": "P17"}]


def write_results(folder):
    """Files of the names, and with the fields, of a run's."""
    contents = {"run.json": RECORD, "evaluation.json": RECORD, "results.json": PREDICTIONS}
    contents["test_scores.json"] = {"scores": {}, "type_prior": None}
    contents["decisions.json"] = {"cut": 0.5, "dev": {}}
    for name, content in contents.items():
        write_json(folder / name, content)
    (folder / "reliability.png").write_bytes(b"")


@pytest.mark.parametrize("restart", [True, False])
def test_results_of_an_earlier_training_are_not_taken_for_those_of_a_new_one(tmp_path, restart, caplog):
    """A training that is killed before its record is written must not find another one's."""
    write_results(tmp_path)
    (tmp_path / "summary.json").write_text('{"seeds": [1, 2], "metrics": {}}')
    for name in ("notes.txt", *(["trainer_state.json"] if restart else [])):
        (tmp_path / name).write_text("{}")
    shutil.copyfile(ROOT / "model_cards" / "redocred_mini_cpu.md", tmp_path / "README.md")
    (tmp_path / "settings.json").write_text('{"seed": 2}')
    arguments = CommTrainingArguments(str(tmp_path), use_cpu=True)
    assert find_progress(arguments, {"seed": 2}, restart) == Progress()
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", "settings.json"}
    assert "deleted run.json, evaluation.json" in caplog.text
    (tmp_path / "README.md").write_text("My project")
    assert find_progress(arguments, {"seed": 2}, restart) == Progress()
    assert (tmp_path / "README.md").is_file(), "no card"


# Somebody's own files, with names that a run writes.
OTHERS = {
    "run.json": '{"config": {}, "data": {}}',
    "evaluation.json": "[]",
    "results.json": json.dumps(PREDICTIONS),  # as another program writes its predictions
    "test_scores.json": '{"scores": [1, 2]}',
    "decisions.json": '{"cut": "hair"}',
    "reliability.png": "",
    "summary.json": '{"seeds": 3, "metrics": {}}',
    "settings.json": '{"seed": 1} // of an editor',
    "README.md": "Mine",
    "config.json": '{"model_type": "bert"}',
    "settings.py": "DEBUG = True",
    "model.safetensors": "",
}


def test_files_that_no_run_has_written_stay(tmp_path):
    folder = tmp_path / "seed-1"
    folder.mkdir()
    for place in (tmp_path, folder):
        for name, content in OTHERS.items():
            (place / name).write_text(content)
    delete_results_of_other_models(folder, 1, "x")
    arguments = CommTrainingArguments(str(folder), use_cpu=True, seed=1)
    (folder / "settings.json").unlink()  # find_progress writes its own; check_paths has refused the other's
    find_progress(arguments, {"seed": 1}, restart=True)
    for place in (tmp_path, folder):
        for name, content in OTHERS.items():
            assert (place, name) == (folder, "settings.json") or (place / name).read_text() == content


@pytest.mark.parametrize("name", OTHERS)
def test_files_that_no_run_has_written_are_refused(name, tmp_path):
    """They would be written over, or taken for the run's, and are named before anything is done."""

    def check(flag, *seeds):
        flags = ["--model_name_or_path", "x", "--use_cpu", "--output_dir", str(tmp_path), flag]
        check_paths(parse_arguments([*flags, *(["--seeds", *seeds] if seeds else [])]))

    (tmp_path / name).write_text(OTHERS[name])
    message = rf"{re.escape(name)}: found a file that no run has written.*choose another --output_dir"
    written = {"--do_train": name != "summary.json", "--do_predict": name in RESULTS, "--describe_data": False}
    for flag, is_refused in written.items():
        with pytest.raises(ValueError, match=message) if is_refused else contextlib.nullcontext():
            check(flag)
    with (
        pytest.raises(ValueError, match=message) if name in ("summary.json", "README.md") else contextlib.nullcontext()
    ):
        check("--do_train", "1", "2")
    (tmp_path / "seed-2").mkdir()
    (tmp_path / name).rename(tmp_path / "seed-2" / name)
    with pytest.raises(ValueError, match=message) if name != "summary.json" else contextlib.nullcontext():
        check("--do_train", "1", "2")


def test_a_folder_with_the_settings_of_an_editor_is_not_that_of_a_run(tmp_path):
    (tmp_path / "settings.json").write_text(OTHERS["settings.json"])
    (tmp_path / "run.json").write_text(OTHERS["run.json"])
    check_scored_elsewhere("outputs/model", tmp_path)
    check_folder_of_seeds(tmp_path)


def test_files_of_a_run_are_known(first, tmp_path):
    """Files that the run of this version has written, and records and cards of earlier ones, are no reason to refuse."""
    shutil.copytree(first[0], tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("checkpoint-*"))
    record = ROOT / "results" / "redocred_mini_cpu"
    card = ROOT / "model_cards" / "redocred_mini_cpu.md"
    for file, name in (
        (record / "run.json", "evaluation.json"),
        (card, "README.md"),
        (record / "test_scores.json", None),
    ):
        shutil.copyfile(file, tmp_path / (name or file.name))
    flags = ["--model_name_or_path", "x", "--use_cpu", "--output_dir", str(tmp_path)]
    assert (tmp_path / "settings.py").is_file() and (tmp_path / "model.safetensors").is_file()
    check_paths(parse_arguments([*flags, "--do_train"]))
    check_paths(parse_arguments([*flags, "--do_predict"]))
    (tmp_path / "config.json").unlink()  # a process that was killed while it saved, which unlinks it first
    check_paths(parse_arguments([*flags, "--do_train"]))


@pytest.mark.parametrize(("seed", "stays"), [(1, False), (3, True)])
def test_means_are_deleted_with_the_results_of_one_of_their_seeds(tmp_path, seed, stays):
    card = (ROOT / "model_cards" / "redocred_mini_cpu.md").read_bytes()
    for folder in (tmp_path, tmp_path / f"seed-{seed}"):
        folder.mkdir(exist_ok=True)
        (folder / "README.md").write_bytes(card)
    (tmp_path / "summary.json").write_text('{"seeds": [1, 2], "metrics": {}}')
    arguments = CommTrainingArguments(str(tmp_path / f"seed-{seed}"), use_cpu=True, seed=seed)
    assert find_progress(arguments, {"seed": seed}, restart=True) == Progress()
    assert {path.name for path in (tmp_path / f"seed-{seed}").iterdir()} == {"settings.json"}
    assert {path.is_file() for path in (tmp_path / "summary.json", tmp_path / "README.md")} == {stays}


def test_results_of_a_finished_training_stay(tmp_path):
    write_results(tmp_path)
    (tmp_path / "trainer_state.json").write_text("{}")
    (tmp_path / "settings.json").write_text('{"seed": 2}')
    assert find_progress(CommTrainingArguments(str(tmp_path), use_cpu=True), {"seed": 2}).finished
    assert {*RESULTS} <= {path.name for path in tmp_path.iterdir()}


def test_the_record_names_the_checkpoint_that_was_kept():
    state = SimpleNamespace(best_global_step=3, global_step=6, best_model_checkpoint="output/checkpoint-3")
    for is_best, kept in ((True, 3), (False, 6)):
        trainer = SimpleNamespace(args=SimpleNamespace(load_best_model_at_end=is_best), state=state)
        assert kept_step_of(trainer) == kept
    trainer.args.load_best_model_at_end, state.best_model_checkpoint = True, None
    assert kept_step_of(trainer) == 6, "no best one was saved"
    state.global_step = 0
    assert kept_step_of(trainer) is None, "nothing was trained"


def test_incomplete_checkpoint_is_passed_over(work, new_model, caplog):
    folder = work / "incomplete"
    flags = [*new_model, "--do_train", "--output_dir", folder]
    run(*flags)
    shutil.copytree(folder, work / "whole")
    # As after a kill while the second checkpoint was written.
    (folder / "trainer_state.json").unlink()
    (folder / "model.safetensors").unlink()
    state = folder / "checkpoint-6" / "trainer_state.json"
    state.write_text(state.read_text()[:200])
    with caplog.at_level("INFO"):
        run(*flags)
    assert "checkpoint-6 is skipped: trainer_state.json" in caplog.text
    assert f"resuming from {folder / 'checkpoint-3'}" in caplog.text
    for trained in (".", "checkpoint-3", "checkpoint-6"):
        assert_same_weights(folder / trained, work / "whole" / trained)


@pytest.mark.parametrize(
    ("fields", "order", "counts"),
    [
        (small_encoder("docunet"), "random", True),
        ({"loss": "ssr_pu"}, "random", True),
        ({}, "group_by_length", True),
        ({}, "random", False),
    ],
    ids=["docunet", "ssr_pu", "by length", "others"],
)
def test_documents_at_once_count_where_batches_do(fields, order, counts, tmp_path):
    """What an earlier version has not stored is not compared."""

    def settings_of(size, accumulated):
        words = ["--model_name_or_path", tmp_path, "--use_cpu", "--train_sampling_strategy", order]
        words += ["--per_device_train_batch_size", size, "--gradient_accumulation_steps", accumulated]
        arguments = parse_arguments(list(map(str, words)))
        return run_settings(arguments, {}, None, tiny_config(**fields), tiny_processor())

    stored, half = settings_of(4, 1), settings_of(2, 2)
    training = CommTrainingArguments(str(tmp_path), use_cpu=True)
    (tmp_path / "trainer_state.json").write_text("{}")
    write_json(tmp_path / "settings.json", stored)
    with pytest.raises(SettingsChangedError) if counts else contextlib.nullcontext() as refused:
        find_progress(training, half)
    assert not counts or refused.value.changed == {"per_device_train_batch_size": (4, 2)}
    stored.pop("per_device_train_batch_size", None)
    write_json(tmp_path / "settings.json", stored)
    assert find_progress(training, half).finished


def test_a_run_resumes_with_fewer_documents_at_once(work, new_model):
    """Who runs out of memory halves the batches and accumulates two: the steps have the same documents."""
    folder = work / "smaller_batches"
    flags = [*new_model, "--do_train", "--output_dir", folder]
    flags += ["--backbone_overrides", '{"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}']
    run(*flags)
    whole = load_file(folder / "model.safetensors")
    shutil.rmtree(folder / "checkpoint-6")
    (folder / "trainer_state.json").unlink()
    settings = read(folder / "settings.json")
    assert settings["documents_per_step"] == 2
    # As an earlier version stored it.
    factors = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 1}
    old = {name: value for name, value in settings.items() if name != "documents_per_step"} | factors
    old["config"] = {**old["config"], "pad_token_id": 0}  # as `Trainer` of Transformers 5.17 has it
    old["config"]["text_config"] = {**old["config"]["text_config"], "pad_token_id": 0, "eos_token_id": None}
    (folder / "settings.json").write_text(json.dumps(old))
    smaller = ["--per_device_train_batch_size", "1", "--gradient_accumulation_steps", "2"]
    with pytest.raises(SettingsChangedError) as refused:
        run(*flags, *smaller[:2])
    assert refused.value.changed == {"documents_per_step": (2, 1)}
    run(*flags, *smaller)
    assert read(folder / "run.json")["resumed_from"] == [3]
    for name, tensor in load_file(folder / "model.safetensors").items():
        torch.testing.assert_close(tensor, whole[name], atol=1e-5, rtol=1e-4)


def test_record_of_a_streamed_training(work, new_model):
    """What encoding lost is counted while documents are read: by this call alone, and a later one keeps the counts."""
    folder = work / "streamed"
    flags = [
        *new_model,
        "--do_train",
        "--streaming",
        "--max_steps",
        "2",
        "--save_strategy",
        "steps",
        "--save_steps",
        "1",
    ]
    flags += ["--eval_strategy", "no", "--load_best_model_at_end", "false", "--output_dir", folder]
    run(*flags)
    record = read(folder / "run.json")
    assert record["best_checkpoint_step"] == 2
    assert record["data"]["encoding"]["train"]["documents"] == 4
    assert "since_step" not in record["data"]["encoding"]["train"]
    shutil.rmtree(folder / "checkpoint-2")
    (folder / "trainer_state.json").unlink()
    run(*flags)
    of_train = read(folder / "run.json")["data"]["encoding"]["train"]
    assert (of_train["documents"], of_train["since_step"]) == (2, 1)
    (folder / "run.json").unlink()  # as if it had been killed before its record
    run(*flags, "--do_eval")
    report = read(folder / "run.json")["data"]["encoding"]
    assert report["train"] == of_train and report["validation"]["documents"] == 3
    (folder / "trainer_state.json").unlink()  # and as if after its last checkpoint
    run(*flags)
    assert read(folder / "run.json")["data"]["encoding"]["train"] == {"since_step": 2}
    assert "not counted before step 2 (train)" in (folder / "README.md").read_text()


@pytest.mark.parametrize("evaluates", [True, False])
def test_a_training_shows_one_line_for_each_epoch(work, new_model, evaluates, capsys):
    flags = [] if evaluates else ["--eval_strategy", "no", "--load_best_model_at_end", "false"]
    flags += ["--do_train", "--disable_tqdm", "false", "--output_dir", work / f"shown_{evaluates}"]
    _, printed = run(*new_model, *flags)
    shown = capsys.readouterr()
    lines = [line for line in shown.err.splitlines() if line.startswith("epoch ")]
    scores = r"  F1 \d+\.\d  Ign F1 .*  precision .*  recall .*  average precision \d+\.\d" if evaluates else ""
    assert len(lines) == 2
    for number, line in enumerate(lines, 1):
        assert re.fullmatch(rf"epoch {number} of 2  loss \d+\.\d{{4}}{scores}", line), line
    for noise in ("Writing model shards", "Loading weights", "REPORT", "not sharded", "{'", "Map:", "Generating"):
        assert noise not in shown.err + printed


# ------------------------------------------------------------------------------------------------------------------ killed


SAVE_STEPS = 2


def start(flags, folder, log):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "run_docre.py", *flags, "--output_dir", folder]
    return subprocess.Popen(
        [str(word) for word in command], cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT
    )


def checkpoint_steps(folder, complete):
    return {
        int(path.name.split("-")[1])
        for path in folder.glob("checkpoint-*")
        if path.name.split("-")[1].isdigit() and (path / "trainer_state.json").is_file() == complete
    }


def kill_soon(process, folder, further, delay, while_saving):
    """Kills a run some time after it has saved further checkpoints, `further` of them, or while it saves the last one."""
    before = max(checkpoint_steps(folder, complete=True), default=0)
    left_over = checkpoint_steps(folder, complete=False)
    deadline = time.monotonic() + 120
    while True:
        found = checkpoint_steps(folder, complete=not while_saving)
        if max(found - left_over, default=0) >= before + SAVE_STEPS * further and checkpoint_steps(
            folder, complete=True
        ):
            break
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline, "the run saves no checkpoint"
        time.sleep(0.001)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    return sorted(checkpoint_steps(folder, complete=True)), sorted(checkpoint_steps(folder, complete=False))


def test_killed_run_ends_with_the_same_weights(work, always, new_model):
    seed = int(os.environ.get("COMM_KILL_SEED", "2611"))
    draw = random.Random(seed)
    flags = [*new_model, "--do_train", "--max_train_documents", "16", "--num_train_epochs", "6"]
    flags += ["--save_strategy", "steps", "--save_steps", str(SAVE_STEPS), "--load_best_model_at_end", "false"]
    assert read(work / "encoder" / "config.json")["hidden_dropout_prob"] > 0
    whole, killed = work / "uninterrupted", work / "killed"
    with open(work / "uninterrupted.log", "w") as log:
        uninterrupted = start(flags, whole, log)
    with open(work / "killed.log", "w") as log:
        for while_saving in (False, True, False):
            further, delay = draw.randint(1, 4), draw.uniform(0, 0.01 if while_saving else 0.1)
            process = start(flags, killed, log)
            try:
                complete, incomplete = kill_soon(process, killed, further, delay, while_saving)
            finally:
                process.kill()
            moment = (
                f"{delay:.3f} s after checkpoint {further} of this call {'began' if while_saving else 'was there'}"
            )
            print(f"seed {seed}: killed {moment}; checkpoints {complete}, incomplete {incomplete}")
        assert start(flags, killed, log).wait(timeout=200) == 0, (work / "killed.log").read_text()[-3000:]
    assert uninterrupted.wait(timeout=200) == 0, (work / "uninterrupted.log").read_text()[-3000:]
    assert len(read(killed / "run.json")["resumed_from"]) == 3
    assert_same_weights(killed, whole)
    states = [read(folder / "trainer_state.json") for folder in (killed, whole)]
    assert states[0]["global_step"] == states[1]["global_step"] == 48
    evaluations = [[entry for entry in state["log_history"] if "eval_loss" in entry][-1] for state in states]
    assert evaluations[0]["eval_loss"] == evaluations[1]["eval_loss"]
