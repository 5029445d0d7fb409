"""A map from margins to probabilities in the product: what decides, what is written, and what a checkpoint keeps."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import (
    LABELS,
    SAMPLE,
    learning_backbone,
    random_document,
    run_script,
    tiny_config,
    tiny_model,
    tiny_processor,
    whole_word_tokenizer,
)
from transformers import AutoModel, AutoProcessor, pipeline

from modeling_comm import CommForDocumentRelationExtraction, CommProcessor, SettingError
from modeling_comm.decoding import DecisionSettings, Predictions, flat_ranks
from modeling_comm.evaluation.scoring import score
from modeling_comm.prediction_record import parse_record
from modeling_comm.probabilities import ProbabilityMap
from modeling_comm.training.batching import FEATURE_COLUMNS
from modeling_comm.training.build_model import load_checkpoint
from modeling_comm.training.decisions import compare_on_test, fit_map, tune_decisions, tuned_values
from modeling_comm.training.script_arguments import ModelArguments, RunArguments
from modeling_comm.training.trainer import CommTrainer
from modeling_comm.training.training_args import CommTrainingArguments

MAP = ProbabilityMap(0.7, [-1.0, 0.5, -2.0, 1.5], cut=0.4)


@pytest.fixture
def logits():
    return 3 * torch.randn(30, 5, generator=torch.Generator().manual_seed(0))


PAIRS = torch.tensor([[head, tail] for head in range(6) for tail in range(6) if head != tail])


def test_a_relation_is_predicted_if_its_probability_exceeds_the_cut(logits):
    found = Predictions.from_logits(logits, PAIRS, DecisionSettings(probability_map=MAP))
    probabilities = MAP.probabilities(found.margins)
    expected = [
        (*PAIRS[row].tolist(), column + 1) for row, column in zip(*np.nonzero(probabilities > 0.4), strict=True)
    ]
    assert [triple[:3] for triple in found.triples] == expected and 20 < len(expected) < 100
    assert [triple.probability for triple in found.triples] == pytest.approx(probabilities[probabilities > 0.4])
    assert flat_ranks([found]) == pytest.approx(MAP.logits(found.margins).ravel())
    plain = Predictions.from_logits(logits, PAIRS, DecisionSettings())
    assert {triple[:3] for triple in plain.triples} != set(expected)
    assert all(triple.probability is None for triple in plain.triples)
    parts = (
        Predictions.from_logits(*part, DecisionSettings(probability_map=MAP))
        for part in zip(logits.split(7), PAIRS.split(7), strict=True)
    )
    assert [triple for part in parts for triple in part.triples] == found.triples, "to the last bit"


def test_an_offset_is_a_further_margin(logits):
    found = Predictions.from_logits(logits, PAIRS, DecisionSettings(probability_map=MAP)).at_offset(1.0)
    assert len(found.triples) == (found.margins > MAP.offsets() + 1.0).sum()


def test_the_cap_keeps_the_most_probable(logits):
    capped = Predictions.from_logits(logits, PAIRS, DecisionSettings("th", 0.0, 1, probability_map=MAP))
    free = Predictions.from_logits(logits, PAIRS, DecisionSettings(probability_map=MAP))
    best = {}
    for triple in free.triples:
        best[triple[:2]] = max(best.get(triple[:2], triple), triple, key=lambda one: one.probability)
    assert capped.triples == list(best.values())
    assert capped.removed_by_cap == len(free.triples) - len(best) > 0


def test_scores_and_order_follow_probabilities(logits):
    document = random_document(6)
    with_map = Predictions.from_logits(logits, PAIRS, DecisionSettings(probability_map=MAP))
    words = with_map.in_words(document, LABELS, {})
    assert all(one["score"] == one["probability"] for one in words)
    keys = [(one["head"], one["tail"], -one["probability"]) for one in words]
    assert keys == sorted(keys)
    margins = {triple[:3]: triple.margin for triple in with_map.triples}
    by_margin = sorted(margins, key=lambda key: (*key[:2], -margins[key]))
    of_label = {label: index for index, label in LABELS.items()}
    assert [(one["head"], one["tail"], of_label[one["relation"]]) for one in words] != by_margin, (
        "margins order otherwise"
    )
    plain = Predictions.from_logits(logits, PAIRS, DecisionSettings()).in_words(document, LABELS, {})
    assert all("probability" not in one for one in plain)


@pytest.mark.parametrize(
    "value", [1.0, {}, {"slope": 1.0}, {**MAP.to_dict(), "cut": 2.0}, {**MAP.to_dict(), "more": 1}]
)
def test_wrong_maps_are_refused(value):
    with pytest.raises(SettingError):
        DecisionSettings(probability_map=value)
    with pytest.raises(SettingError) as error:
        tiny_processor(probability_map={**MAP.to_dict(), "intercepts": [0.0] * 3})
    assert error.value.field == "intercepts"


# What a checkpoint keeps


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("decisions")
    processor = tiny_processor(probability_map=MAP)
    tiny_model().save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def test_a_checkpoint_keeps_the_map(saved):
    processor = AutoProcessor.from_pretrained(saved)
    assert processor.decision.probability_map == MAP, "to the last bit"
    assert json.loads((saved / "processor_config.json").read_text())["probability_map"] == MAP.to_dict()
    assert processor.with_settings(markers="none").decision.probability_map == MAP
    assert processor.with_settings(probability_map=None).decision.probability_map is None


def test_a_record_has_probabilities(saved):
    documents = [random_document(4, seed=seed, labels=False) for seed in range(3)]
    extract = pipeline("document-relation-extraction", model=str(saved))
    records = extract(documents)
    triples = [triple for record in records for triple in parse_record(record)["triples"]]
    assert triples and all(triple["probability"] == triple["score"] > MAP.cut for triple in triples)
    fewer = [triple for record in extract(documents, threshold_offset=0.5) for triple in record["triples"]]
    assert 0 < len(fewer) < len(triples)


def test_another_loss_removes_the_map(saved, caplog):
    same = load_checkpoint(ModelArguments(str(saved)))[1]
    assert same.decision.probability_map == MAP and "probability_map" not in caplog.text
    arguments = ModelArguments(str(saved))
    arguments.loss = "cmm"
    _, processor = load_checkpoint(arguments)
    assert processor.decision.probability_map is None and "probability_map" in caplog.text


def test_training_further_removes_the_map(saved, tmp_path, caplog, monkeypatch):
    model, processor = CommForDocumentRelationExtraction.from_pretrained(saved), CommProcessor.from_pretrained(saved)
    arguments = CommTrainingArguments(
        str(tmp_path), max_steps=1, use_cpu=True, eval_strategy="no", save_strategy="no", load_best_model_at_end=False
    )  # fmt: skip
    trainer = CommTrainer(model, arguments, train_dataset=[random_document(4)], processing_class=processor)
    trainer.train(keep_threshold_offset=True)
    assert processor.decision.probability_map is None and "probability_map" in caplog.text
    documents = [random_document(4, seed=seed, labels=seed > 1) for seed in range(5)]
    monkeypatch.setattr(trainer, "predict", None)  # which takes long
    message = r"2 tuning documents have no labels, the first ones \['Document 0', 'Document 1'\]; fit_map needs them"
    with pytest.raises(ValueError, match=message):
        fit_map(trainer, documents)


@pytest.mark.parametrize(
    ("relations", "mean", "cap"),
    [(2, 0, None), (30, -3, None), (30, -3, 3)],
    ids=["all cells are fitted", "the highest are", "under a cap"],
)
def test_what_types_exclude_is_not_decided(relations, mean, cap, tmp_path, monkeypatch):
    """False positives that a type constraint removes, of high margins, and one gold fact among them, which is missed, as are
    two facts of each document that the model is not asked about."""
    draw, results = np.random.default_rng(0), []
    settings = DecisionSettings(type_constraint="hard", max_relations_per_pair=cap)
    pairs = torch.tensor([[0, 1], [1, 0]] * 4)
    for number in range(10):
        logits = torch.from_numpy(draw.normal(mean, 2, (8, relations + 1)).astype(np.float32))
        logits[:, 0] = 0
        labels = logits[:, 1:].numpy() > draw.normal(0, 1, (8, relations))
        excluded = np.zeros((8, relations), bool)
        excluded[:3] = True
        logits[:3, 1:], labels[:3] = 5, False
        labels[0, 0] = number == 0
        results.append(Predictions.from_logits(logits, pairs, settings, excluded))
        results[-1].labels = labels
    gold, allowed = sum(one.labels.sum() for one in results) + 20, 5 * relations
    features = {**dict.fromkeys(FEATURE_COLUMNS), "has_labels": True, "unknown_facts": 1, "unasked_facts": 1}
    documents = [features] * 10
    trainer = SimpleNamespace(
        evaluation_documents=lambda given: given,
        predict=lambda documents, keep_margins: SimpleNamespace(predictions=results),
        processing_class=SimpleNamespace(decision=settings, rules=["a(x, y) => b(x, y)"]),
        args=SimpleNamespace(output_dir=tmp_path),
        is_world_process_zero=lambda: True,
    )
    report = fit_map(trainer, documents)
    assert report["without_rules"] == ["a(x, y) => b(x, y)"]
    (tmp_path / "decisions.json").write_text(json.dumps(report))
    compare_on_test(trainer, results, documents)
    test = read(tmp_path / "decisions.json")["test"]
    assert {way["gold"] for way in test.values()} == {gold}
    by_map = [dataclasses.replace(one, settings=settings).at_offset(0.0) for one in results]
    assert test["map"]["predicted"] == sum(len(one.triples) for one in by_map)
    (tmp_path / "decisions.json").write_text(json.dumps(report))

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("modeling_comm.training.decisions.plot_reliability", interrupt)
    with pytest.raises(KeyboardInterrupt):
        compare_on_test(trainer, results, documents)
    assert "test" in read(tmp_path / "decisions.json"), "by which the picture is known as a run's"
    dev = report["dev"]
    map_ = trainer.processing_class.decision.probability_map
    assert map_.slope > 0.5
    for way in dev.values():
        assert way["gold"] == gold and way["predicted"] <= 10 * allowed and way["f1"] > 0.5 and way["recall"] < 1
    assert dev["threshold"]["predicted"] == sum(len(one.triples) for one in results)
    assert (sum(one.removed_by_cap for one in results) > 0) == (cap is not None)


def test_what_a_fit_is_worth_is_known_in_a_later_call(tmp_path):
    """Of a run that was killed between the end of its training and its record."""
    (tmp_path / "decisions.json").write_text(json.dumps({"dev": {"map": {"f1": 0.5, "macro_f1": 0.25, "ece": 0.1}}}))
    decision = SimpleNamespace(probability_map={"cut": 0.4})
    processor, args = SimpleNamespace(decision=decision), SimpleNamespace(output_dir=tmp_path)
    trainer, arguments = SimpleNamespace(processing_class=processor, args=args), RunArguments(fit_probability_map=True)
    expected = {"eval_cross_fitted_f1": 0.5, "eval_cross_fitted_macro_f1": 0.25}
    assert tuned_values(trainer, arguments) == expected
    assert tuned_values(trainer, RunArguments()) == {}
    decision.probability_map = None
    assert tuned_values(trainer, arguments) == {}, "no map could be fitted"


def test_what_is_tuned_without_rules_is_said(caplog):
    trainer = SimpleNamespace(processing_class=SimpleNamespace(rules=[]), tune_threshold_offset=lambda: 0.5)
    tune_decisions(trainer, RunArguments(tune_threshold_offset=True))
    assert not caplog.text
    trainer.processing_class.rules.append("a(x, y) => b(x, y)")
    tune_decisions(trainer, RunArguments())
    assert not caplog.text
    tune_decisions(trainer, RunArguments(tune_threshold_offset=True))
    assert "--tune_threshold_offset: chosen without the processor's rules" in caplog.text


# The script


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that fits a map on the documents that it was trained on, so that there is something to fit."""
    folder = tmp_path_factory.mktemp("fitted")
    tokenizer = whole_word_tokenizer(read(SAMPLE / "dev_revised.json"))
    torch.manual_seed(0)
    AutoModel.from_config(learning_backbone(tokenizer)).save_pretrained(folder / "encoder")
    tokenizer.save_pretrained(folder / "encoder")
    flags = [
        *("--dataset_config", "redocred", "--data_dir", SAMPLE, "--train_file", SAMPLE / "dev_revised.json"),
        *(
            "--model_name_or_path",
            folder / "encoder",
            "--emb_size",
            128,
            "--block_size",
            32,
            "--learning_rate",
            "1e-3",
        ),
        *("--use_cpu", "--disable_tqdm", "true", "--cache_dir", folder / "cache", "--head_learning_rate", "2e-3"),
        *("--per_device_train_batch_size", 2, "--do_train", "--do_eval", "--do_predict", "--fit_probability_map"),
        *("--eval_strategy", "no", "--save_strategy", "no", "--load_best_model_at_end", "false"),
    ]
    (metrics,) = run_script(*flags, "--num_train_epochs", 25, "--output_dir", folder / "run")
    return folder / "run", flags, metrics


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_script_fits_compares_and_keeps_the_map(run):
    folder, _, metrics = run
    report, record = read(folder / "decisions.json"), read(folder / "run.json")
    assert record["decisions"] == report
    map_ = ProbabilityMap.of_setting(read(folder / "processor_config.json")["probability_map"])
    assert record["processor"]["probability_map"] == map_.to_dict()
    assert (report["cut"], report["slope"], report["documents"]) == (map_.cut, map_.slope, 20)
    dev, test = report["dev"], report["test"]
    assert metrics["eval_cross_fitted_f1"] == dev["map"]["f1"] and metrics["eval_f1"] >= dev["map"]["f1"] > 0.5
    assert test["map"]["f1"] == pytest.approx(metrics["test_f1"])
    scores = read(folder / "test_scores.json")["scores"]
    assert test["map"]["macro_f1"] == pytest.approx(scores["macro_f1"])
    assert metrics["test_f1"] == score(read(folder / "results.json"), read(SAMPLE / "test_revised.json"))["f1"]
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert (
        f"{100 * dev['map']['f1']:.2f}" in card and f"{test['map']['ece']:.3f}" in card and f"{map_.cut:.3f}" in card
    )
    assert ("reliability.png" in card) == (folder / "reliability.png").is_file()


def test_the_same_command_again_has_the_same_map(run):
    folder, flags, metrics = run
    before = read(folder / "decisions.json")
    (again,) = run_script(*flags, "--num_train_epochs", 25, "--output_dir", folder)
    assert (again["eval_f1"], again["eval_cross_fitted_f1"]) == (metrics["eval_f1"], metrics["eval_cross_fitted_f1"])
    assert read(folder / "decisions.json") == before


@pytest.mark.parametrize(
    "flags", ["--do_eval", "--do_train --tune_threshold_offset", "--do_train --threshold_offset 1"]
)
def test_flags_that_do_not_go_with_it(flags, tmp_path):
    flags = [*flags.split(), "--fit_probability_map", "--model_name_or_path", "none", "--output_dir", tmp_path]
    with pytest.raises(ValueError, match="--fit_probability_map"):
        run_script(*flags, "--data_dir", SAMPLE)


def test_too_few_documents_leave_the_model_without_a_map(run, tmp_path, caplog):
    _, flags, _ = run
    few = ["--max_eval_documents", 3, "--num_train_epochs", 1, "--output_dir", tmp_path / "few"]
    (metrics,) = run_script(*flags, *few)
    assert "eval_cross_fitted_f1" not in metrics and "no map" in caplog.text
    assert read(tmp_path / "few" / "processor_config.json")["probability_map"] is None
    assert "decisions" not in read(tmp_path / "few" / "run.json")


def test_the_model_of_the_tests_is_the_loss_of_the_tests():
    assert tiny_config().loss == "atl"  # so that `cmm` above is another one
