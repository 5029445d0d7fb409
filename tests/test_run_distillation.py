"""`run_docre.py` with a teacher and a student: the three calls of a distillation, on the bundled sample with a tiny random
encoder, and what is wrong."""

import hashlib
import json
import shutil

import pytest
import torch
from helpers import SAMPLE, SHARED, requires_shared, run_script, save_backbone
from safetensors.torch import load_file

from dataset_scripts import builder
from dataset_scripts.loading import load_data, load_labels
from modeling_comm import CommForDocumentRelationExtraction
from modeling_comm.evaluation.scoring import load_ign_reference
from modeling_comm.training.distillation import TeacherLogits
from modeling_comm.training.script_arguments import parse_arguments
from modeling_comm.utils.unchanged import SettingsChangedError

DISTANT = ["--train_split", "train_distant"]
# A stream has no epochs.
BY_STEPS = ["--eval_strategy", "steps", "--eval_steps", "1000", "--save_strategy", "steps", "--save_steps", "1000"]
TINY = ["--emb_size", "16", "--block_size", "4", "--head_learning_rate", "1e-3", "--per_device_train_batch_size", "2"]


def run(*flags):
    return run_script(*flags)


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def contents(folder):
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder for the module's runs: an encoder, and data with six distantly supervised documents."""
    folder = tmp_path_factory.mktemp("distillation")
    save_backbone(folder / "encoder")
    (folder / "data").mkdir()
    for name in ("dev_revised.json", "test_revised.json", "rel_info.json"):
        shutil.copy(SAMPLE / name, folder / "data")
    documents = read(SAMPLE / "train_revised.json")
    (folder / "data" / "train_revised.json").write_text(json.dumps(documents[:6]))
    distant = [{**one, "labels": [{**fact, "evidence": []} for fact in one["labels"][::2]]} for one in documents[6:12]]
    (folder / "data" / "train_distant.json").write_text(json.dumps(distant))
    return folder


@pytest.fixture(scope="module")
def always(work):
    """Flags of every run."""
    cache = ["--use_cpu", "--disable_tqdm", "true", "--cache_dir", work / "cache", "--logging_steps", "1"]
    return [*cache, "--dataset_config", "redocred", "--data_dir", work / "data", "--max_eval_documents", "2"]


@pytest.fixture(scope="module")
def new_model(work):
    return ["--model_name_or_path", work / "encoder", *TINY]


@pytest.fixture(scope="module")
def teacher(work, always, new_model):
    run(*always, *new_model, "--do_train", "--max_steps", "3", "--output_dir", work / "teacher")
    return work / "teacher"


@pytest.fixture(scope="module")
def logits(work, always, teacher):
    label = ["--do_predict_teacher", "--model_name_or_path", teacher, "--teacher_logits", work / "logits"]
    assert run(*always, *DISTANT, *label) == []
    return work / "logits"


@pytest.fixture(scope="module")
def student_flags(always, new_model, logits):
    flags = [*always, *new_model, *DISTANT, "--teacher_logits", logits, "--do_train", "--relation_encoder", "docunet"]
    return [*flags, "--unet_down_dim", "4", "--unet_out_dim", "6", "--max_steps", "4"]


@pytest.fixture(scope="module")
def student(work, student_flags):
    """A student of another kind than its teacher."""
    run(*student_flags, "--do_eval", "--distillation_weight", "0.5", "--output_dir", work / "student")
    return work / "student"


# ------------------------------------------------------------------------------------------------------- the three calls


def test_record_of_the_labelling(work, teacher, logits):
    settings = read(logits / "teacher.json")
    record, file = settings["record"], work / "data" / "train_distant.json"
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    assert settings["documents"] == settings["encoding"]["documents"] == 6
    assert settings["labels"] == list(read(teacher / "config.json")["id2label"].values())
    assert record["teacher"] == str(teacher)
    assert record["data"]["files"] == {"train": {"source": str(file), "sha256": sha256, "skipped": []}}
    assert {"command", "commit", "versions", "device", "seconds"} <= set(record)
    assert TeacherLogits(logits).settings == settings


def test_labelling_again_does_nothing(always, teacher, logits, monkeypatch):
    before = contents(logits)
    monkeypatch.setattr(CommForDocumentRelationExtraction, "forward", None)
    run(*always, *DISTANT, "--do_predict_teacher", "--model_name_or_path", teacher, "--teacher_logits", logits)
    assert contents(logits) == before


def test_record_of_the_student(work, logits, student):
    record = read(student / "run.json")
    settings = read(logits / "teacher.json")
    assert record["distillation"] == {"weight": 0.5, "raw_logits": False, "teacher": settings}
    assert record["config"]["relation_encoder"] == "docunet"
    assert record["data"]["files"]["train"] == settings["record"]["data"]["files"]["train"]
    assert record["data"]["encoding"]["train"]["documents"] == 6
    log = [entry for entry in record["log"] if "loss" in entry]
    assert [entry["step"] for entry in log] == [1, 2, 3, 4]
    assert all(entry["distillation_loss"] > 0 for entry in log)
    # Ign F1 leaves out what human labels say, not the distant ones.
    facts = load_ign_reference(work / "data" / "train_revised.json")
    assert record["ign_reference"]["sha256"] == facts.sha256 and record["ign_reference"]["facts"] == len(facts.facts)
    assert record["metrics"]["eval_f1"] >= 0


def test_fine_tuning_the_student_on_human_labels(work, always, student):
    flags = [*always, "--model_name_or_path", student, "--do_train", "--max_steps", "2", "--do_predict"]
    run(*flags, "--output_dir", work / "tuned")
    record = read(work / "tuned" / "run.json")
    assert record["distillation"] is None
    assert record["config"]["relation_encoder"] == "docunet"
    assert record["data"]["files"]["train"]["source"].endswith("train_revised.json")
    assert read(work / "tuned" / "results.json") is not None
    before, after = (load_file(folder / "model.safetensors") for folder in (student, work / "tuned"))
    assert before.keys() == after.keys() and any(not torch.equal(before[name], after[name]) for name in before)


def test_another_teacher_is_another_run(work, always, student_flags, student, logits):
    """The content of the folder counts, not its name alone."""
    other = shutil.copytree(logits, work / "other")
    flags = [*student_flags, "--teacher_logits", other, "--max_steps", "1"]
    run(*flags, "--output_dir", work / "first")
    settings = read(other / "teacher.json")
    (other / "teacher.json").write_text(json.dumps({**settings, "teacher_sha256": "0" * 64}))
    with pytest.raises(SettingsChangedError) as refused:
        run(*flags, "--output_dir", work / "first")
    assert refused.value.changed == {"teacher_sha256": (settings["teacher_sha256"], "0" * 64)}


# ------------------------------------------------------------------------------------------------------------- streaming


def test_labelling_and_training_from_a_stream(work, always, teacher, logits, student_flags, student):
    """The same logits, and a student that meets each document as often."""
    label = ["--do_predict_teacher", "--model_name_or_path", teacher, "--teacher_logits", work / "streamed_logits"]
    run(*always, *DISTANT, *label, "--streaming")
    for file in logits.glob("*.safetensors"):
        assert (work / "streamed_logits" / file.name).read_bytes() == file.read_bytes()
    flags = [
        *student_flags,
        "--teacher_logits",
        work / "streamed_logits",
        "--streaming",
        "--max_steps",
        "6",
        "--do_predict",
        *BY_STEPS,
    ]
    run(*flags, "--output_dir", work / "streamed")
    record = read(work / "streamed" / "run.json")
    report = {key: 2 * value for key, value in read(student / "run.json")["data"]["encoding"]["train"].items()}
    assert record["data"]["encoding"]["train"] == report, "two passes"
    assert record["data"]["files"]["train"] == read(student / "run.json")["data"]["files"]["train"]
    assert [entry["step"] for entry in record["log"] if "distillation_loss" in entry] == [1, 2, 3, 4, 5, 6]
    assert "test_f1" in record["metrics"] and "test_type_prior_f1" not in record["metrics"]


def test_streamed_file_is_prepared_nowhere(work, always, new_model, caplog):
    """A file of one's own as the training split: neither Ign F1 nor a cache needs all of it."""
    file = work / "data" / "train_distant.json"
    flags = ["--use_cpu", "--disable_tqdm", "true", "--cache_dir", work / "no_cache", "--train_file", file, *new_model]
    with caplog.at_level("INFO"):
        run(*flags, "--do_train", "--streaming", "--max_steps", "2", *BY_STEPS, "--output_dir", work / "own_file")
    assert (
        "no Ign F1: the training documents are streamed" in caplog.text and "give --ign_reference FILE" in caplog.text
    )
    assert read(work / "own_file" / "run.json")["data"]["encoding"]["train"]["documents"] == 4
    assert not list(work.glob("no_cache/**/*.arrow"))


def test_labelling_needs_no_other_split(work, teacher):
    (work / "distant").mkdir()
    shutil.copy(work / "data" / "train_distant.json", work / "distant")
    flags = ["--use_cpu", "--disable_tqdm", "true", "--cache_dir", work / "cache", "--data_dir", work / "distant"]
    label = ["--do_predict_teacher", "--model_name_or_path", teacher, "--teacher_logits", work / "distant_logits"]
    run(*flags, *DISTANT, *label, "--max_train_documents", "2")
    assert TeacherLogits(work / "distant_logits").settings["documents"] == 2


@requires_shared
def test_distantly_supervised_documents_of_docred(work, new_model):
    data = ["--dataset_config", "docred", "--train_file", SHARED / "data" / "docred-mini" / "train_distant.json"]
    flags = ["--use_cpu", "--disable_tqdm", "true", "--streaming", "--max_train_documents", "8", *BY_STEPS, *data]
    logits = ["--teacher_logits", work / "mini"]
    run(*flags, "--do_train", *new_model, "--max_steps", "1", "--output_dir", work / "mini_teacher")
    run(*flags, *logits, "--do_predict_teacher", "--model_name_or_path", work / "mini_teacher")
    settings = read(work / "mini" / "teacher.json")
    assert settings["documents"] == 8 and len(settings["labels"]) > 10
    run(*flags, *logits, "--do_train", *new_model, "--max_steps", "4", "--output_dir", work / "mini_student")
    record = read(work / "mini_student" / "run.json")
    assert record["data"]["encoding"]["train"] == settings["encoding"], "each document once"
    assert record["distillation"]["teacher"] == settings


# ---------------------------------------------------------------------------------------------------------- what is wrong


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--do_predict_teacher"],
            "--do_predict_teacher.*--teacher_logits",
        ),
        (
            ["--do_predict_teacher", "--teacher_logits", "logits", "--do_train", "--do_eval"],
            "--do_predict_teacher",
        ),
        (
            ["--do_eval", "--teacher_logits", "logits"],
            "--teacher_logits.*--do_train.*--do_predict_teacher",
        ),
        (["--do_train", "--distillation_weight", "2"], "--distillation_weight.*--distillation_raw_logits"),
        (["--do_train", "--distillation_raw_logits"], "--distillation_weight.*--distillation_raw_logits"),
        (["--do_train", "--teacher_logits", "nowhere"], r"nowhere.*teacher\.json"),
        (
            ["--do_predict_teacher", "--teacher_logits", "new"],
            "encoder.*--do_predict_teacher",
        ),
        (["--do_train", "--streaming", *BY_STEPS], "max_steps"),
        (
            ["--do_train", "--streaming", "--max_steps", "2"],
            "--eval_strategy steps --eval_steps 1000 --save_strategy steps --save_steps 1000",
        ),
    ],
)
def test_flags_that_do_not_fit(work, always, new_model, flags, message, monkeypatch):
    monkeypatch.chdir(work)
    with pytest.raises(ValueError, match=message):
        run(*always, *new_model, *flags, "--output_dir", work / "wrong")
    assert not (work / "new").exists()


def test_splits_that_are_none(work, always, new_model, capsys):
    with pytest.raises(SystemExit):
        run(*always, *new_model, "--do_train", "--train_split", "test")
    assert "--train_split" in capsys.readouterr().err
    file = work / "data" / "train_distant.json"
    with pytest.raises(ValueError, match="needs --train_distant_file or --data_dir"):
        run("--train_file", file, "--use_cpu", *new_model, *DISTANT, "--do_train")
    with pytest.raises(ValueError, match=r"--train_distant_file.*--train_split train_distant"):
        run(*always, "--train_distant_file", file, *new_model, "--do_train")


def test_distant_documents_from_a_file_of_their_own(work, teacher):
    flags = ["--use_cpu", "--train_distant_file", work / "data" / "train_distant.json", *DISTANT]
    label = ["--do_predict_teacher", "--model_name_or_path", teacher, "--teacher_logits", work / "own_logits"]
    run(*flags, *label, "--max_train_documents", "2")
    assert TeacherLogits(work / "own_logits").settings["documents"] == 2


def test_relations_of_distant_documents_of_ones_own_are_theirs(work, monkeypatch):
    """Nothing is fetched for them."""
    local_file = builder._local_file

    def without_network(path, cache_dir):
        assert "://" not in str(path), "fetched"
        return local_file(path, cache_dir)

    monkeypatch.setattr(builder, "_local_file", without_network)
    file = work / "data" / "train_distant.json"
    flags = ["--use_cpu", "--dataset_config", "redocred", "--cache_dir", str(work / "cache"), *DISTANT]
    arguments = parse_arguments([*flags, "--train_distant_file", str(file), "--output_dir", str(work / "own")])
    shown = {label["r"] for document in read(file) for label in document["labels"]}
    labels, _ = load_labels(arguments, load_data(arguments))
    assert {*labels[1:]} == shown


def test_student_of_another_threshold(student_flags, work):
    with pytest.raises(ValueError, match=r"decision_threshold.*'th'.*'zero'"):
        run(*student_flags, "--loss", "balanced_softmax", "--output_dir", work / "zero")


def test_documents_that_the_teacher_has_not_labelled(student_flags, work):
    with pytest.raises(ValueError, match=r"'.*'.*\b6\b"):
        run(*student_flags, "--train_split", "train", "--output_dir", work / "human")
