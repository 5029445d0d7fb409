"""Training further: the number of epochs comes from folds, whose documents are scored by models that did not see them."""

import json

import pytest
import torch
from helpers import SAMPLE, learning_backbone, tiny_processor, whole_word_tokenizer
from transformers import AutoModel

from experiments import train_further


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train_further")
    documents = read(SAMPLE / "dev_revised.json")[:6]
    (folder / "complete.json").write_text(json.dumps(documents))
    tokenizer = whole_word_tokenizer(documents)
    torch.manual_seed(0)
    AutoModel.from_config(learning_backbone(tokenizer)).save_pretrained(folder / "encoder")
    tokenizer.save_pretrained(folder / "encoder")
    own = ["--work_dir", folder / "work", "--train_file", folder / "complete.json", "--folds", 3]
    flags = ["--dataset_config", "redocred", "--data_dir", SAMPLE, "--model_name_or_path", folder / "encoder"]
    flags += [
        "--num_train_epochs",
        2,
        "--lr_scheduler_type",
        "constant_with_warmup",
        "--learning_rate",
        "1e-3",
        "--use_cpu",
    ]
    flags += ["--emb_size", 32, "--block_size", 32, "--disable_tqdm", "true"]
    words = [str(word) for word in (*own, "--", *flags, "--cache_dir", folder / "cache")]
    train_further.main(["--epochs_only", *words])
    return folder, words


def test_the_best_epoch_of_the_folds_trains_on_all_documents(work, capsys):
    folder, words = work
    assert not (folder / "work" / "final").exists()
    before = {file: file.stat().st_mtime_ns for file in folder.glob("work/fold-*/run.json")}
    train_further.main(words)
    assert len(before) == 3
    assert before == {file: file.stat().st_mtime_ns for file in before}, "folds are not trained again"
    assert capsys.readouterr().out.startswith("| epoch | F1 |")
    scores = read(folder / "work" / "epochs.json")
    assert [one["epoch"] for one in scores] == [1, 2]
    best = max(scores, key=lambda one: one["f1"])["epoch"]
    record = read(folder / "work" / "final" / "run.json")
    assert record["log"][-1]["epoch"] == best
    assert record["training_arguments"]["warmup_steps"] * best == pytest.approx(0.06 * 2), (
        "as long as the folds' in epochs"
    )
    assert record["data"]["files"]["train"]["source"].endswith("complete.json")


def test_a_fold_is_scored_by_a_model_of_the_others(work):
    folder, _ = work
    titles = [one["title"] for one in read(folder / "complete.json")]
    held_out = []
    for number in range(3):
        own, others = (
            [one["title"] for one in read(folder / "work" / f"fold-{number}{part}.json")] for part in ("", "-train")
        )
        files = read(folder / "work" / f"fold-{number}" / "run.json")["data"]["files"]
        assert files["train"]["source"].endswith(f"fold-{number}-train.json")
        assert files["validation"]["source"].endswith(f"fold-{number}.json")
        assert sorted(own + others) == sorted(titles)
        held_out += own
    assert sorted(held_out) == sorted(titles)


def test_scores_are_of_all_folds_together():
    first = {"epoch": 1.0, "eval_predicted_positives": 4, "eval_precision": 0.75, "eval_average_precision": 0.5}
    second = {"epoch": 1.0, "eval_predicted_positives": 0, "eval_precision": 0.0, "eval_average_precision": 0.1}
    (score,) = train_further.scores_by_epoch([[first], [second]], gold=8)
    assert score == {"epoch": 1, "f1": 0.5, "precision": 0.75, "recall": 0.375, "average_precision": 0.3}


def test_other_settings_are_refused_where_folds_are(work):
    _, words = work
    with pytest.raises(ValueError, match=r"folds was 3, is 2"):
        train_further.main(["2" if word == "3" else word for word in words])


@pytest.mark.parametrize(
    "flag",
    [
        *("--tune_threshold_offset", "--fit_probability_map", "--tune_evidence_threshold", "--tune_fusion_threshold"),
        *("--early_stopping_patience 2", "--do_eval", "--eval_on_start true", "--seeds 1 2", "--max_steps 2"),
        *("--max_eval_documents 2", "--on_bad_document skip", "--on_bad_document drop_part"),
        *("--lr_scheduler_type linear", "--lr_scheduler_type cosine"),
        "--warmup_steps 0.05 --lr_scheduler_type constant_with_warmup --num_train_epochs 20",
    ],
)
def test_flags_with_which_folds_do_not_score_the_last_training(tmp_path, flag):
    """Before any training, and before the documents are read."""
    flags = ["--lr_scheduler_type", "constant", "--use_cpu", *flag.split()]
    with pytest.raises(ValueError, match=f"after --: .*{flag.split()[0]}"):
        train_further.main(["--work_dir", str(tmp_path / "work"), "--train_file", "none.json", "--", *flags])
    assert not (tmp_path / "work").exists()


def test_facts_are_counted_as_the_model_that_is_trained_further_is_scored(tmp_path, monkeypatch):
    """A relation that it asks about in one direction is one fact, whatever --dataset_config says."""
    documents = read(SAMPLE / "dev_revised.json")[:2]
    documents[0]["labels"] = [{"h": head, "t": 1 - head, "r": "P27", "evidence": []} for head in (0, 1)]
    documents[1]["labels"] = []
    (tmp_path / "complete.json").write_text(json.dumps(documents))
    tiny_processor(symmetric=["P27"]).save_pretrained(tmp_path / "work" / "fold-0")
    entry = {"epoch": 1.0, "eval_predicted_positives": 1, "eval_precision": 1.0, "eval_average_precision": 1.0}
    monkeypatch.setattr(train_further, "train_folds", lambda *given: [[entry]])
    words = ["--work_dir", tmp_path / "work", "--train_file", tmp_path / "complete.json", "--epochs_only", "--"]
    train_further.main([*map(str, words), "--lr_scheduler_type", "constant", "--use_cpu"])
    assert read(tmp_path / "work" / "epochs.json")[0]["f1"] == 1
