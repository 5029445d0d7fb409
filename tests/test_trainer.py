"""`CommTrainer` and `CommTrainingArguments`: parameter groups, the loss of a step, the order of documents, evaluation of whole
documents, the choice of the best checkpoint, and what happens after an interruption or a number that is not finite."""

import ast
import dataclasses
import itertools
import json
import pickle
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
from helpers import TOKENIZERS, KillAt, random_document, tiny_config, tiny_model, tiny_processor, tiny_system
from safetensors.torch import load_file
from transformers import (
    AutoModel,
    AutoProcessor,
    EarlyStoppingCallback,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)

from dataset_scripts.builder import FEATURES, load_splits
from modeling_comm.decision_settings import DecisionSettings
from modeling_comm.decoding import Predictions, official_predictions
from modeling_comm.evaluation.scoring import load_ign_reference, score
from modeling_comm.out_of_memory import DocumentMemoryError
from modeling_comm.probabilities import ProbabilityMap
from modeling_comm.reporting.run_record import kept_step_of
from modeling_comm.settings import SettingError
from modeling_comm.training.batching import DocumentStream
from modeling_comm.training.build_trainer import build_trainer
from modeling_comm.training.checkpoint_files import (
    being_saved,
    delete_old_checkpoints,
    half_checkpoints,
    last_complete_checkpoint,
    own_checkpoints,
    refuse_checkpoints_of_others,
)
from modeling_comm.training.checks import NothingToLearnError
from modeling_comm.training.encode_dataset import encode_dataset
from modeling_comm.training.evaluation import EvaluatedDocuments, metric_names
from modeling_comm.training.hyperparameter_search import HyperparameterSearch
from modeling_comm.training.predict_split import predict_test
from modeling_comm.training.results import gain_of_tie, nothing_predicted
from modeling_comm.training.script_arguments import parse_arguments
from modeling_comm.training.trainer import CommTrainer, DocumentBatchSampler
from modeling_comm.training.training_args import CommTrainingArguments
from modeling_comm.utils.writer import remove_unfinished

PARENTS = ("callbacks", "ign_reference", "model", "compute_metrics", "data_collator", "compute_loss_func")
NO_DROPOUT = {"attention_probs_dropout_prob": 0.0, "hidden_dropout_prob": 0.0}
each_kind = pytest.mark.parametrize("kind", TOKENIZERS)
# A document without entities and one without pairs among them.
TRAIN = [random_document(entities, seed=index) for index, entities in enumerate((4, 0, 6, 2, 1, 5, 3))]
DEV = [random_document(entities, seed=50 + index) for index, entities in enumerate((3, 1, 6, 0, 4, 5, 2))]


@pytest.fixture
def make_trainer(tmp_path):
    def make(train=TRAIN, dev=DEV, folder="run", trainer_class=CommTrainer, system=None, **arguments):
        given = {key: arguments.pop(key) for key in PARENTS if key in arguments}
        config, processor = system or tiny_system(text_fields=NO_DROPOUT)
        defaults = {
            "use_cpu": True,
            "disable_tqdm": True,
            "num_train_epochs": 2,
            "head_learning_rate": 1e-3,
            "seed": 3,
        }
        if dev is None:
            defaults |= {"eval_strategy": "no", "load_best_model_at_end": False}
        return trainer_class(
            model=given.pop("model", None) or tiny_model(config),
            args=CommTrainingArguments(str(tmp_path / folder), **{**defaults, **arguments}),
            train_dataset=train,
            eval_dataset=dev,
            processing_class=processor,
            **given,
        )

    return make


def flat(lists):
    return list(itertools.chain.from_iterable(lists))


def weights(trainer):
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def assert_equal_weights(found, expected, **tolerance):
    torch.testing.assert_close(found, expected, **({"rtol": 0, "atol": 0} | tolerance))


# ------------------------------------------------------------------------------------------------------------- arguments


def test_docstring_lists_what_differs_from_the_parent():
    parent = {field.name: field.default for field in dataclasses.fields(TrainingArguments)}
    differing = {
        field.name: field.default
        for field in dataclasses.fields(CommTrainingArguments)
        if field.name not in parent or field.default != parent[field.name]
    }
    value = r'([\d.e-]*\d|True|False|None|"\w+")'
    stated = re.findall(rf"`(\w+)` (?:\(`float`, defaults to )?`?{value}", CommTrainingArguments.__doc__)
    assert {name: ast.literal_eval(text) for name, text in stated} == differing


def test_do_eval_stays_as_given(tmp_path):
    assert not CommTrainingArguments(tmp_path).do_eval
    assert CommTrainingArguments(tmp_path, do_eval=True).do_eval


@pytest.mark.parametrize(("metric", "more_is_better"), [("f1", True), ("ign_f1", True), ("loss", False)])
def test_direction_of_the_metric(tmp_path, metric, more_is_better):
    assert CommTrainingArguments(tmp_path, metric_for_best_model=metric).greater_is_better is more_is_better


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("head_learning_rate", 0.0),
        ("train_sampling_strategy", "batch_rebalance"),
        ("remove_unused_columns", True),
        ("label_smoothing_factor", 0.1),
        ("bf16_full_eval", True),
        ("dataloader_drop_last", True),
    ],
)
def test_refused_arguments(tmp_path, argument, value):
    with pytest.raises(ValueError, match=argument):
        CommTrainingArguments(tmp_path, use_cpu=True, **{argument: value})


def test_processes_that_do_not_know_each_other_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")  # what torchrun sets; without LOCAL_RANK no process group is joined
    with pytest.raises(ValueError, match="--use_cpu"):
        CommTrainingArguments(tmp_path, use_cpu=False)


def test_several_gpus_in_one_process_are_refused(make_trainer, monkeypatch):
    monkeypatch.setattr(CommTrainingArguments, "n_gpu", property(lambda self: 2))
    with pytest.raises(ValueError, match="torchrun --nproc_per_node 2"):
        make_trainer()


def test_wrong_arguments_of_the_trainer(tmp_path, make_trainer):
    model, processor = tiny_model(), tiny_processor()
    with pytest.raises(ValueError, match="CommTrainingArguments"):
        CommTrainer(model=model, args=TrainingArguments(tmp_path), processing_class=processor)
    args = CommTrainingArguments(tmp_path, use_cpu=True)
    with pytest.raises(ValueError, match="processing_class"):
        CommTrainer(model=model, args=args, train_dataset=TRAIN)
    longer = tiny_processor(tiny_config(text_fields={"max_position_embeddings": 70}), window_size=70)
    with pytest.raises(ValueError, match="window_size"):
        CommTrainer(model=model, args=args, processing_class=longer)
    with pytest.raises(ValueError, match="metric_for_best_model"):
        make_trainer(dev={"a": DEV})
    with pytest.raises(ValueError, match="train_dataset"):
        make_trainer(train=[]).train()
    with pytest.raises(ValueError, match="train_dataset"):
        make_trainer(train=None).train()
    with pytest.raises(ValueError, match="eval_dataset"):
        make_trainer(dev=None).evaluate()


def test_unlabelled_training_documents_are_refused(make_trainer):
    bare = random_document(3, seed=9, labels=False, title="No labels")
    with pytest.raises(ValueError, match="No labels"):
        make_trainer(train=[*TRAIN, bare]).train()


# ------------------------------------------------------------------------------------------------------------- optimizer


def test_every_parameter_is_in_one_group_by_module(make_trainer):
    trainer = make_trainer(learning_rate=2e-5, head_learning_rate=7e-4, weight_decay=0.1)
    model = trainer.model
    # Names that a choice by substring would take for the encoder's.
    model.relation_encoder.backbone = torch.nn.Linear(2, 2)
    frozen = model.backbone.embeddings.word_embeddings.weight.requires_grad_(False)
    optimizer = trainer.create_optimizer()
    rates = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert id(parameter) not in rates, "in two groups"
            rates[id(parameter)] = (group["lr"], group["weight_decay"])
    assert id(frozen) not in rates
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert rates.keys() == {id(parameter) for parameter in trainable.values()}
    for name, parameter in trainable.items():
        decays = parameter.dim() > 1
        rate = 2e-5 if name.startswith("backbone.") else 7e-4
        assert rates[id(parameter)] == (rate, 0.1 if decays else 0.0), name


def test_both_learning_rates_are_scheduled(make_trainer):
    trainer = make_trainer(learning_rate=2e-5, head_learning_rate=7e-4, max_steps=4, warmup_steps=0)
    trainer.create_optimizer_and_scheduler(4)
    trainer.optimizer.step()
    trainer.lr_scheduler.step()
    assert {round(group["lr"], 10) for group in trainer.optimizer.param_groups} == {1.5e-5, 5.25e-4}


def test_trackers_are_told_both_learning_rates_and_the_test_scores(make_trainer):
    told = []

    class Tracker(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            told.append(dict(logs))

    rates = {"learning_rate": 2e-5, "head_learning_rate": 7e-4}
    trainer = make_trainer(**rates, max_steps=4, warmup_steps=0, logging_steps=1, callbacks=[Tracker()])
    trainer.train()
    logged = [[logs[name] for name in rates] for logs in told if "learning_rate" in logs]
    assert logged == [pytest.approx([share * rate for rate in rates.values()]) for share in (1, 0.75, 0.5, 0.25)]
    metrics = predict_test(trainer, encode_dataset(DEV, trainer.processing_class), DEV)
    assert "test_f1" in metrics and metrics.items() <= told[-1].items()


def test_training_documents_without_labels_leave_out_the_type_prior_alone(make_trainer, tmp_path, caplog):
    trainer, unlabelled = make_trainer(), random_document(3, seed=9, labels=False)
    encoded = encode_dataset(DEV, trainer.processing_class)
    with caplog.at_level("INFO"):
        metrics = predict_test(trainer, encoded, DEV, [*TRAIN, unlabelled])
    assert "test_f1" in metrics and "test_type_prior_f1" not in metrics
    assert f"no type prior: 1 of {len(TRAIN) + 1} training documents have no labels" in caplog.text
    written = json.loads((tmp_path / "run" / "test_scores.json").read_text())
    assert written["type_prior"] is None and written["scores"]["f1"] == metrics["test_f1"]
    assert "test_type_prior_f1" in predict_test(trainer, encoded, DEV, TRAIN)


def test_optimizer_of_the_callers_choice(make_trainer):
    trainer = make_trainer()
    trainer.optimizer_cls_and_kwargs = (torch.optim.SGD, {"momentum": 0.5})
    optimizer = trainer.create_optimizer()
    assert isinstance(optimizer, torch.optim.SGD)
    assert {group["momentum"] for group in optimizer.param_groups} == {0.5}


# ------------------------------------------------------------------------------------------------------- loss of a step


@pytest.mark.parametrize(
    "fields", [{}, {"relation_encoder": "kd_docre", "fixed_grid": 7}], ids=["atlop", "self_pairs"]
)
def test_loss_of_a_step_is_the_models_own(make_trainer, fields):
    trainer = make_trainer(dev=None, system=tiny_system(text_fields=NO_DROPOUT, **fields))
    batch = next(iter(trainer.get_train_dataloader()))
    loss = trainer.compute_loss(trainer.model, batch, False, trainer._get_num_items_in_batch([batch], "cpu"))
    inputs = {name: value for name, value in batch.items() if name != "document_index"}
    torch.testing.assert_close(loss, trainer.model(**inputs).loss)


@pytest.mark.parametrize("loss", ["atl", "ncrl"])
def test_accumulated_batches_are_one_batch(make_trainer, loss):
    # Seven documents: the last window is short. SGD, because Adam hides the size of gradients.
    system = tiny_system(text_fields=NO_DROPOUT, loss=loss)
    settings = {"dev": None, "system": system, "optim": "sgd", "learning_rate": 0.1, "logging_steps": 1}
    settings |= {"head_learning_rate": 0.1, "max_grad_norm": 0.0, "save_strategy": "no"}
    whole = make_trainer(**settings, per_device_train_batch_size=4)
    start = weights(whole)
    whole.train()
    parts = make_trainer(**settings, per_device_train_batch_size=1, gradient_accumulation_steps=4)
    parts.train()
    assert whole.state.global_step == parts.state.global_step == 4
    losses = [[entry["loss"] for entry in trainer.state.log_history if "loss" in entry] for trainer in (whole, parts)]
    assert len(losses[0]) == 4
    np.testing.assert_allclose(*losses, rtol=1e-5)
    assert_equal_weights(weights(parts), weights(whole), rtol=1e-4, atol=1e-6)
    assert max((weights(whole)[name] - start[name]).abs().max() for name in start) > 1e-3, "nothing was learnt"


def test_loss_is_the_mean_over_all_pairs(make_trainer):
    trainer = make_trainer(
        dev=None, num_train_epochs=1, per_device_train_batch_size=2, gradient_accumulation_steps=4, logging_steps=1
    )
    batch = trainer.processing_class(TRAIN)
    with torch.no_grad():
        expected = trainer.model(**batch).loss.item()
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(expected, rel=1e-5)


def test_documents_without_any_pair(make_trainer):
    trainer = make_trainer(train=[random_document(1, seed=1), random_document(0, seed=2)], dev=None)
    with pytest.raises(NothingToLearnError):
        trainer.train()


# ------------------------------------------------------------------------------------------------------------- order


@pytest.mark.parametrize("order", ["random", "sequential", "group_by_length"])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_processes_share_the_batches_of_one(order, world_size):
    lengths = np.random.default_rng(0).integers(10, 500, size=47)
    alone = DocumentBatchSampler(lengths, batch_size=6, seed=5, order=order)
    together = [
        DocumentBatchSampler(lengths, 6 // world_size, world_size, rank, seed=5, order=order)
        for rank in range(world_size)
    ]
    for epoch in range(3):
        for sampler in (alone, *together):
            sampler.set_epoch(epoch)
        expected, shares = list(alone), [list(sampler) for sampler in together]
        assert sorted(flat(expected)) == list(range(47))
        assert [flat(parts) for parts in zip(*shares, strict=True)] == expected
        assert {len(sampler) for sampler in (alone, *together)} == {len(expected)} == {8}
        assert max(map(len, expected)) == 6
        sizes = [[len(part) for part in parts] for parts in zip(*shares, strict=True)]
        assert all(max(parts) - min(parts) <= 1 for parts in sizes)


def test_a_process_may_have_nothing_left():
    shares = [list(DocumentBatchSampler([9] * 5, 2, 2, rank, order="sequential")) for rank in range(2)]
    assert shares == [[[0, 1], [4]], [[2, 3], []]]


def test_order_depends_on_seed_and_epoch_only():
    lengths = list(range(40))

    def order(seed, epoch, strategy="random"):
        sampler = DocumentBatchSampler(lengths, 4, seed=seed, order=strategy)
        sampler.set_epoch(epoch)
        np.random.default_rng().random(), torch.rand(3)
        return list(sampler)

    assert order(1, 2) == order(1, 2)
    assert order(1, 2) != order(1, 3)
    assert order(1, 2) != order(2, 2)
    by_length = order(1, 2, "group_by_length")
    assert all(max(batch) - min(batch) == 3 for batch in by_length)
    assert by_length != order(1, 3, "group_by_length")


class _Recorder(CommTrainer):
    """Notes the documents of every step."""

    def compute_loss(self, model, inputs, **kwargs):
        self.__dict__.setdefault("seen", []).append(inputs["document_index"])
        return super().compute_loss(model, inputs, **kwargs)


def test_order_does_not_depend_on_evaluation_or_workers(make_trainer):
    settings = {"trainer_class": _Recorder, "per_device_train_batch_size": 2, "save_strategy": "no"}
    settings |= {"load_best_model_at_end": False, "num_train_epochs": 3, "max_steps": -1}
    plain = make_trainer(**settings, eval_strategy="no")
    plain.train()
    evaluated = make_trainer(**settings, eval_strategy="steps", eval_steps=1)
    evaluated.train()
    workers = make_trainer(**settings, eval_strategy="no", dataloader_num_workers=2, data_seed=3)
    workers.args.seed = 11  # data_seed alone decides where it is given
    workers.train()
    assert plain.seen == evaluated.seen == workers.seen
    epochs = [flat(plain.seen[start : start + 4]) for start in (0, 4, 8)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


# ------------------------------------------------------------------------------------------------------------ evaluation


@pytest.mark.parametrize("threshold", ["th", "zero"])
def test_tuned_offset(make_trainer, tmp_path, threshold):
    """The best F1 of all cut-offs, kept by the checkpoint; on other documents it is applied, not tuned again."""
    trainer = make_trainer(
        system=tiny_system(text_fields=NO_DROPOUT, decision_threshold=threshold), ign_reference=TRAIN
    )
    results, before = trainer.predict(DEV, keep_margins=True).predictions, trainer.evaluate()
    margins, labels = (np.concatenate([getattr(one, key).ravel() for one in results]) for key in ("margins", "labels"))
    best = max(
        2 * labels[margins > cut].sum() / ((margins > cut).sum() + labels.sum()) for cut in np.append(margins, -1e9)
    )
    offset = trainer.tune_threshold_offset()
    assert offset and offset == trainer.processing_class.decision.threshold_offset
    after = trainer.evaluate()
    assert after["eval_f1"] == pytest.approx(best) and after["eval_f1"] > before["eval_f1"]
    assert after["eval_average_precision"] == before["eval_average_precision"]
    assert after["eval_predicted_positives"] == (margins > offset).sum()
    trainer.save_model(str(tmp_path / "tuned"))
    assert AutoProcessor.from_pretrained(tmp_path / "tuned").decision.threshold_offset == offset
    unlabelled = [{key: value for key, value in document.items() if key != "labels"} for document in DEV]
    message = r"7 tuning documents have no labels, the first ones \['Document 50'.*; tune_threshold_offset needs them"
    with pytest.raises(ValueError, match=message):
        trainer.tune_threshold_offset(unlabelled)
    assert trainer.processing_class.decision.threshold_offset == offset


def test_tuned_offset_knows_how_many_relations_a_pair_may_have(make_trainer):
    """No other offset decides better, once only the best relation of each pair is kept."""
    trainer = make_trainer(system=tiny_system(text_fields=NO_DROPOUT, max_relations_per_pair=1))
    results = trainer.predict(DEV, keep_margins=True).predictions

    def f1_at(offset):
        decided = [one.at_offset(offset) for one in results]
        facts = official_predictions(decided, DEV, trainer.processing_class.id2label)
        return score(facts, DEV)["f1"]

    margins = np.unique(np.concatenate([one.margins.max(axis=1) for one in results]))
    best = max(map(f1_at, [*np.nextafter(margins, -np.inf), margins[-1]]))
    assert f1_at(trainer.tune_threshold_offset()) == pytest.approx(best) and best > 0


@pytest.mark.parametrize("keep", [False, True])
def test_training_clears_an_offset_of_other_weights(make_trainer, keep):
    trainer = make_trainer(system=tiny_system(threshold_offset=0.5), max_steps=1)
    trainer.train(keep_threshold_offset=keep)
    assert trainer.processing_class.decision.threshold_offset == (0.5 if keep else 0)


def test_decision_threshold_of_another_loss_is_named(make_trainer, caplog):
    make_trainer(system=tiny_system(loss="balanced_softmax"))
    assert not caplog.records
    make_trainer(system=tiny_system(loss="balanced_softmax", decision_threshold="th"))
    (record,) = caplog.records
    assert record.levelname == "WARNING" and record.args == ("balanced_softmax", "zero", "th")


@each_kind
@pytest.mark.parametrize(("threshold", "cap"), [("th", None), ("zero", None), ("th", 1)])
def test_evaluation_is_that_of_single_documents(make_trainer, kind, threshold, cap):
    system = tiny_system(kind, NO_DROPOUT, decision_threshold=threshold, max_relations_per_pair=cap)
    trainer = make_trainer(system=system, per_device_eval_batch_size=3, ign_reference=TRAIN)
    model, processor = trainer.model.eval(), trainer.processing_class
    expected, loss, pairs = [], 0.0, 0
    for document in DEV:
        batch = processor(document)
        with torch.no_grad():
            outputs = model(**batch)
        loss += float(outputs.loss) * len(outputs.logits)
        pairs += len(outputs.logits)
        triples = processor.post_process_relation_extraction(outputs, document)[0]
        expected.append([(triple["head"], triple["tail"], triple["relation"]) for triple in triples])
    output = trainer.predict(DEV)
    found = [
        [(head, tail, processor.id2label[label]) for head, tail, label, *_ in result.triples]
        for result in output.predictions
    ]
    assert [result.document_index for result in output.predictions] == list(range(len(DEV)))
    assert list(map(set, found)) == list(map(set, expected))
    assert list(map(len, found)) == list(map(len, expected)), "a triple occurs twice"
    facts = [
        {"title": document["title"], "h_idx": head, "t_idx": tail, "r": relation}
        for document, triples in zip(DEV, expected, strict=True)
        for head, tail, relation in triples
    ]
    official = official_predictions(output.predictions, DEV, processor.id2label)
    assert sorted(map(repr, official)) == sorted(map(repr, facts))
    scores = score(facts, DEV, ign_reference=TRAIN)
    assert scores["correct"] > 0
    metrics = trainer.evaluate()
    for key in ("f1", "precision", "recall", "ign_f1"):
        assert metrics[f"eval_{key}"] == output.metrics[f"test_{key}"] == scores[key], key
    assert metrics["eval_predicted_positives"] == len(facts)
    assert metrics["eval_loss"] == pytest.approx(loss / pairs, rel=1e-5)
    assert (metrics["eval_removed_by_cap"] > 0) == (cap is not None)


def test_average_precision_of_all_candidates(make_trainer):
    trainer = make_trainer()
    output = trainer.predict(DEV, keep_margins=True)
    ranked = []
    for result, document in zip(output.predictions, DEV, strict=True):
        gold = {(fact["h"], fact["t"], fact["r"]) for fact in document["labels"]}
        for (head, tail), margins in zip(result.pairs.tolist(), result.margins.tolist(), strict=True):
            for index, margin in enumerate(margins, start=1):
                ranked.append((margin, (head, tail, trainer.processing_class.id2label[index]) in gold))
    ranked.sort(key=lambda candidate: -candidate[0])
    hits, total, expected = 0, sum(right for _, right in ranked), 0.0
    for rank, (_, right) in enumerate(ranked, start=1):
        hits += right
        expected += hits / rank if right else 0
    assert output.metrics["test_average_precision"] == pytest.approx(expected / total)


@pytest.mark.parametrize("unlabelled", [[2], list(range(7))])
def test_unlabelled_documents_give_no_scores(make_trainer, unlabelled):
    documents = [
        {field: value for field, value in document.items() if field != "labels" or index not in unlabelled}
        for index, document in enumerate(DEV)
    ]
    trainer = make_trainer()
    metrics, with_labels = trainer.evaluate(documents), trainer.evaluate()
    assert metrics["eval_predicted_positives"] == with_labels["eval_predicted_positives"] > 0
    always = {"eval_runtime", "eval_samples_per_second", "eval_steps_per_second", "epoch"}
    assert set(metrics) - always == {"eval_predicted_positives", "eval_removed_by_cap"}
    assert {"eval_f1", "eval_loss"} < set(with_labels)
    assert "eval_ign_f1" not in with_labels, "no reference was given"


def test_evaluation_stops_at_logits_that_are_not_finite(make_trainer):
    trainer = make_trainer()
    with torch.no_grad():
        for parameter in trainer.model.relation_encoder.parameters():
            parameter.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match=re.escape(DEV[0]["title"])):
        trainer.evaluate()


def test_unlabelled_documents_cannot_choose_the_best(make_trainer):
    bare = random_document(3, seed=9, labels=False, title="No labels")
    with pytest.raises(ValueError, match="load_best_model_at_end"):
        make_trainer(dev=[*DEV, bare])
    make_trainer(dev=[*DEV, bare], load_best_model_at_end=False).evaluate()


def test_model_init_and_processor_have_to_fit(make_trainer, tmp_path):
    _, processor = tiny_system()
    other, _ = tiny_system(id2label={0: "Na", 1: "P17"})
    with pytest.raises(ValueError, match="id2label"):
        CommTrainer(
            model_init=lambda: tiny_model(other),
            args=CommTrainingArguments(str(tmp_path), use_cpu=True, eval_strategy="no", load_best_model_at_end=False),
            train_dataset=TRAIN,
            processing_class=processor,
        )


def test_no_documents_and_documents_with_fields_of_their_own(make_trainer):
    trainer = make_trainer()
    assert (
        trainer.evaluate(datasets.Dataset.from_list(as_table(DEV).to_list()).select([]))["eval_predicted_positives"]
        == 0
    )
    own = [{**document, "input_ids": "mine"} for document in DEV]
    assert trainer.evaluate(own)["eval_f1"] == trainer.evaluate(DEV)["eval_f1"]


def test_titles_that_repeat_are_refused_before_training(make_trainer):
    with pytest.raises(ValueError, match="titles"):
        make_trainer(dev=[*DEV, DEV[0]])


@pytest.mark.parametrize("name", ["compute_loss_func", "data_collator"])
def test_arguments_without_effect_are_refused(make_trainer, name):
    with pytest.raises(ValueError, match=name):
        make_trainer(**{name: print})


def test_further_metrics(make_trainer):
    """They are computed from the predictions, and a checkpoint may be chosen by them."""

    def compute_metrics(predictions):
        correct = sum(one.labels[one.margins > 0].sum() for one in predictions)
        return {"true_positives": int(correct), "documents": len(predictions)}

    trainer = make_trainer(compute_metrics=compute_metrics)
    metrics = trainer.evaluate()
    assert metrics["eval_documents"] == len(DEV)
    expected = metrics["eval_precision"] * metrics["eval_predicted_positives"]
    assert metrics["eval_true_positives"] == pytest.approx(expected)


def test_encoding_does_not_guess_types_from_the_first_documents(tmp_path):
    """More documents without facts, and without entities, than are encoded at once, before the first with facts."""
    empty = [{**TRAIN[0], "title": str(index), "vertexSet": [], "labels": []} for index in range(150)]
    processor, path = tiny_processor(tiny_config()), tmp_path / "train.json"
    path.write_text(json.dumps([*empty, *TRAIN[:2]]), encoding="utf-8")
    loaded = load_splits("local", data_files={"train": str(path)}, cache_dir=str(tmp_path / "cache"))["train"]
    encoded = encode_dataset(loaded, processor)
    assert encoded[0]["facts"] == [] and encoded[0]["num_entities"] == 0
    assert encoded[150]["facts"] == processor.encode(TRAIN[:1])[0]["facts"] != []


def test_batches_are_made_in_other_processes(make_trainer):
    """Spawned workers get the collator pickled."""
    collator = pickle.loads(pickle.dumps(make_trainer().data_collator))
    rows = [{**row, "document_index": index} for index, row in enumerate(collator.processor.encode(DEV))]
    assert collator(rows)["document_index"] == list(range(len(DEV)))


def test_settings_of_the_loader_are_used(make_trainer):
    arguments = {"dataloader_num_workers": 1, "dataloader_prefetch_factor": 7, "dataloader_persistent_workers": True}
    loader = make_trainer(**arguments).get_train_dataloader()
    assert (loader.num_workers, loader.prefetch_factor, loader.persistent_workers) == (1, 7, True)


def test_log_of_every_epoch(make_trainer):
    trainer = make_trainer(num_train_epochs=3)
    trainer.train()
    log = trainer.state.log_history
    evaluations = [entry for entry in log if "eval_f1" in entry]
    assert [entry["epoch"] for entry in evaluations] == [1, 2, 3]
    assert all(isinstance(entry["eval_predicted_positives"], int) for entry in evaluations)
    assert [entry["epoch"] for entry in log if "loss" in entry] == [1, 2, 3], "logging_steps is longer than the run"
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert log[-1]["train_loss"] == pytest.approx(np.mean(losses))


# -------------------------------------------------------------------------------------------------------------- data sets


def as_table(documents):
    columns = ("title", "sents", "vertexSet")
    rows = [
        {**dict.fromkeys(FEATURES), **{column: document[column] for column in columns}}
        | {"labels": document.get("labels"), "has_labels": "labels" in document}
        for document in documents
    ]
    return datasets.Dataset.from_list(rows, features=FEATURES)


@pytest.mark.parametrize("kind", [list, as_table])
def test_documents_are_encoded_once(make_trainer, monkeypatch, kind):
    trainer = make_trainer(train=kind(TRAIN), dev=kind(DEV), num_train_epochs=1)
    trainer.train()

    def refuse(*arguments, **kwargs):
        raise AssertionError("encoded again")

    again = make_trainer(train=None, dev=None, folder="again", num_train_epochs=1)
    monkeypatch.setattr(type(trainer.processing_class), "encode", refuse)
    again.train_dataset, again.eval_dataset = trainer.train_dataset, trainer.eval_dataset
    again.train()
    assert again.evaluate()["eval_f1"] == trainer.evaluate()["eval_f1"]
    third = make_trainer(train=trainer.train_dataset, dev=trainer.eval_dataset, folder="third")
    assert third.train_dataset is trainer.train_dataset
    with pytest.raises(AssertionError, match="encoded again"):
        make_trainer(train=kind(TRAIN[:3]))


def test_list_and_table_train_alike(make_trainer):
    trained = []
    for kind in (list, as_table):
        trainer = make_trainer(train=kind(TRAIN), dev=kind(DEV), folder=kind.__name__)
        trainer.train()
        trained.append((weights(trainer), trainer.evaluate()["eval_f1"]))
    assert_equal_weights(trained[0][0], trained[1][0])
    assert trained[0][1] == trained[1][1]


@each_kind
def test_several_processes_encode_the_same(kind):
    _, processor = tiny_system(kind)
    table = as_table([random_document(3, seed=9, labels=False), *TRAIN])
    alone, together = (encode_dataset(table, processor, num_proc=num_proc) for num_proc in (None, 2))
    assert together.features == alone.features
    for expected, found in zip(alone, together, strict=True):
        assert found == expected


def test_relations_that_only_the_test_documents_have_count_as_missed(make_trainer):
    trainer = make_trainer()
    plain = trainer.evaluate(DEV)
    with_unknown = json.loads(json.dumps(DEV))
    with_unknown[0]["labels"] += [{"h": 0, "t": 1, "r": "P9999", "evidence": []}] * 2  # one fact
    found = trainer.evaluate(with_unknown)
    gold = sum(len(document["labels"]) for document in DEV)
    assert found["eval_recall"] == pytest.approx(plain["eval_recall"] * gold / (gold + 1)) and plain["eval_recall"]
    expected = plain["eval_average_precision"] * gold / (gold + 1)
    assert found["eval_average_precision"] == pytest.approx(expected)
    with pytest.raises(ValueError, match="P9999"):
        make_trainer(train=with_unknown)
    assert make_trainer(dev=with_unknown).evaluate()["eval_recall"] == found["eval_recall"]
    with pytest.raises(ValueError, match="Na"):
        trainer.evaluate([{**DEV[0], "labels": [{"h": 0, "t": 1, "r": "Na"}]}])


def test_unlabelled_rows_of_a_table():
    bare = random_document(3, seed=9, labels=False)
    empty = {**random_document(3, seed=8), "labels": []}
    encoded = encode_dataset(as_table([bare, empty, *TRAIN]), tiny_processor())
    assert list(encoded["has_labels"]) == [False, True, *[True] * len(TRAIN)]


# ---------------------------------------------------------------------------------------- the best checkpoint, and early


def give_scores(monkeypatch, **by_epoch):
    """Lets evaluation answer with these scores, one per epoch, whatever the model predicts."""
    evaluate = EvaluatedDocuments.metrics

    def answer(evaluated, documents, processor, reference):
        metrics = evaluate(evaluated, documents, processor, reference)
        return {**metrics, **{key: values[answer.epoch] for key, values in by_epoch.items()}}

    monkeypatch.setattr(EvaluatedDocuments, "metrics", answer)

    class Count(TrainerCallback):
        def on_epoch_begin(self, args, state, control, **kwargs):
            answer.epoch = round(state.epoch or 0)

        on_train_begin = on_epoch_begin

    return Count()


@pytest.mark.parametrize(("metric", "best"), [("f1", 2), ("ign_f1", 3), ("eval_loss", 1)])
def test_best_checkpoint_is_loaded(make_trainer, monkeypatch, metric, best):
    count = give_scores(monkeypatch, f1=[0.1, 0.4, 0.3, 0.2], ign_f1=[0.1, 0.2, 0.3, 0.2], loss=[1.0, 2.0, 3.0, 4.0])
    trainer = make_trainer(num_train_epochs=4, metric_for_best_model=metric, callbacks=[count])
    trainer.train()
    folder = Path(trainer.args.output_dir)
    assert trainer.state.best_global_step == 2 * best
    assert sorted(path.name for path in folder.glob("checkpoint-*")) == sorted(
        {f"checkpoint-{2 * best}", "checkpoint-8"}
    )
    assert_equal_weights(weights(trainer), load_file(folder / f"checkpoint-{2 * best}" / "model.safetensors"))
    last = load_file(folder / "checkpoint-8" / "model.safetensors")
    assert any(not torch.equal(last[name], value) for name, value in weights(trainer).items())


@pytest.mark.parametrize(
    ("f1", "precision", "best", "interrupted_at"),
    [
        ([0.0] * 4, [0.1, 0.3, 0.2, 0.2], 2, 5),  # nothing clears the threshold: average precision decides
        ([0.0] * 4, [0.1, 0.3, 0.3, 0.2], 3, None),  # and of equal ones the later
        ([0.0, 0.2, 0.2, 0.1], [0.9, 0.3, 0.2, 0.9], 2, None),
    ],
)
def test_ties_of_checkpoints(make_trainer, monkeypatch, f1, precision, best, interrupted_at):
    settings = {"num_train_epochs": 4, "callbacks": [give_scores(monkeypatch, f1=f1, average_precision=precision)]}
    if interrupted_at:
        with pytest.raises(InterruptedError):
            make_trainer(**{**settings, "callbacks": [*settings["callbacks"], KillAt(interrupted_at)]}).train()
    trainer = make_trainer(**settings)
    trainer.train(resume_from_checkpoint=bool(interrupted_at))
    folder = Path(trainer.args.output_dir)
    assert trainer.state.best_global_step == 2 * best
    assert_equal_weights(weights(trainer), load_file(folder / f"checkpoint-{2 * best}" / "model.safetensors"))


def test_the_best_checkpoint_of_a_folder_that_was_moved(make_trainer, monkeypatch, caplog):
    """It is killed after its last checkpoint: none is saved later that would look for the best one."""
    settings = {"num_train_epochs": 2, "callbacks": [give_scores(monkeypatch, f1=[0.4, 0.1])]}
    killed = make_trainer(**{**settings, "callbacks": [*settings["callbacks"], KillAt(4, saved=True)]})
    with pytest.raises(InterruptedError):
        killed.train()
    moved = make_trainer(**settings, folder="moved")
    Path(killed.args.output_dir).rename(moved.args.output_dir)
    moved.train(resume_from_checkpoint=True)
    best = Path(moved.args.output_dir) / "checkpoint-2"
    assert f"the best checkpoint is found again, and used: {best}" in caplog.text
    assert (moved.state.best_model_checkpoint, kept_step_of(moved)) == (str(best), 2)
    assert_equal_weights(weights(moved), load_file(best / "model.safetensors"))


@pytest.mark.parametrize("saved", [True, False])
def test_the_best_checkpoint_is_one_that_was_saved(make_trainer, monkeypatch, saved):
    scores, by_step = iter([0.9, 0.3, 0.8, 0.5, 0.7, 0.4, 0.6, 0.2]), {}

    def answer(evaluated, documents, processor, reference):
        metrics = evaluate(evaluated, documents, processor, reference)
        by_step[trainer.state.global_step] = f1 = next(scores)
        return {**metrics, "f1": f1}

    evaluate = EvaluatedDocuments.metrics
    monkeypatch.setattr(EvaluatedDocuments, "metrics", answer)
    every = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 2 if saved else 8}
    trainer = make_trainer(num_train_epochs=4, **every)
    objectives = []

    class Objective(TrainerCallback):  # as a search asks for it
        def on_evaluate(self, args, state, control, metrics, **kwargs):
            objectives.append(trainer.default_compute_objective(metrics))

    trainer.add_callback(Objective())
    trainer.train()
    kept = 4 if saved else 8
    folder = Path(trainer.args.output_dir) / f"checkpoint-{kept}"
    assert_equal_weights(weights(trainer), load_file(folder / "model.safetensors"))
    assert trainer.state.best_model_checkpoint == str(folder)
    assert (kept_step_of(trainer), objectives[-1]) == (kept, by_step[kept])


def test_a_tie_is_broken_by_the_same_evaluation_set():
    history = [{"step": 2, "eval_new_f1": 0.5, "eval_new_average_precision": 0.3}, {"step": 2, "eval_old_f1": 0.1}]
    state = TrainerState(best_metric=0.5, best_global_step=2, log_history=history)
    for precision in (0.2, 0.3, 0.4):
        metrics = {"eval_new_f1": 0.5, "eval_new_average_precision": precision, "eval_old_average_precision": 0.9}
        assert gain_of_tie(metrics, state, "new_f1") == precision - 0.3
    assert gain_of_tie({"eval_new_f1": 0.4, "eval_new_average_precision": 0.9}, state, "new_f1") is None


def test_nothing_that_clears_the_threshold_is_warned_of(make_trainer, caplog):
    trainer = make_trainer(num_train_epochs=5, learning_rate=1e-9, head_learning_rate=1e-9)
    with torch.no_grad():
        trainer.model.relation_encoder.classifier.linear.bias[0] = 100.0
    trainer.train()
    warnings = [message for message in caplog.messages if "clears the threshold" in message]
    assert len(warnings) == 2  # after three evaluations without predictions, and at the end
    assert trainer.state.best_global_step == trainer.state.global_step
    caplog.clear()
    assert trainer.evaluate()["eval_f1"] == 0 and "clears the threshold" in caplog.text
    trainer.tune_threshold_offset()
    caplog.clear()
    assert trainer.evaluate()["eval_f1"] > 0 and "clears the threshold" not in caplog.text


@pytest.mark.parametrize(
    ("map_", "said", "helps"),
    [
        (None, "the highest margin is -2.00", "tune_threshold_offset"),
        (
            ProbabilityMap(0.5, (0.0,), 0.75),
            "the highest probability is 0.2689, and the map's cut is 0.75",
            "fit_probability_map",
        ),
    ],
)
def test_the_warning_says_what_the_decision_is_about(map_, said, helps):
    found = Predictions.from_logits(
        torch.tensor([[0.0, -2.0], [0.0, -4.0]]),
        torch.tensor([[0, 1], [1, 0]]),
        DecisionSettings(probability_map=map_),
    )
    evaluated = EvaluatedDocuments()
    evaluated.add([dataclasses.replace(found, labels=np.array([[True], [False]]))])
    warning = nothing_predicted({"predicted_positives": 0, "average_precision": 1.0}, evaluated.ranking, map_)
    assert said in warning and helps in warning and ("margin" in warning) == (map_ is None)


@each_kind
def test_saved_model_predicts_the_same(make_trainer, kind):
    trainer = make_trainer(system=tiny_system(kind, dict.fromkeys(NO_DROPOUT, 0.2)))
    start = weights(trainer)
    trainer.train()
    assert any(not torch.equal(start[name], value) for name, value in weights(trainer).items()), "nothing was learnt"
    folder = Path(trainer.args.output_dir) / "saved"
    trainer.save_model(folder)
    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    again = make_trainer(folder="again", model=model, system=(model.config, processor))
    assert_equal_weights(weights(again), weights(trainer))
    expected, found = (which.predict(DEV, keep_margins=True) for which in (trainer, again))
    for before, after in zip(expected.predictions, found.predictions, strict=True):
        np.testing.assert_equal(dataclasses.asdict(after), dataclasses.asdict(before))
    assert again.evaluate()["eval_loss"] == trainer.evaluate()["eval_loss"]


@pytest.mark.parametrize(
    ("settings", "fields", "reference"),
    [({}, {}, []), ({"type_constraint": "hard"}, {"evidence_weight": 0.1}, TRAIN)],
    ids=["fewest", "most"],
)
def test_names_of_metrics_are_those_of_an_evaluation(make_trainer, settings, fields, reference):
    config, processor = tiny_system(**fields, text_fields=NO_DROPOUT)
    processor = processor.with_settings(**settings)
    reference = load_ign_reference(reference) if reference else None
    trainer = make_trainer(
        system=(config, processor), ign_reference=reference, max_steps=1, metric_for_best_model="f1"
    )
    trainer.train()
    found = {name.removeprefix("eval_") for name in trainer.evaluate()}
    timing = {"runtime", "samples_per_second", "steps_per_second", "epoch", "model_preparation_time"}
    names = metric_names(processor, reference)
    assert set(names) == found - timing and len(names) == len(set(names))


@pytest.mark.parametrize(
    "metric", ["macro_f1", "long_ign_f1", "nonsense_loss", "evidence_f1", "ign_f1", "eval_web_f1"]
)
def test_a_metric_that_no_evaluation_gives_is_refused_before_a_training(tmp_path, metric):
    flags = ["--model_name_or_path", "tiny", "--output_dir", str(tmp_path), "--do_train", "--use_cpu"]
    arguments = parse_arguments([*flags, "--metric_for_best_model", metric])
    config, processor = tiny_system()
    with pytest.raises(ValueError, match=f"--metric_for_best_model is '{metric.removeprefix('eval_')}'"):
        build_trainer(arguments, tiny_model(config), processor, {"train": TRAIN, "validation": DEV})


@pytest.mark.parametrize("metric", ["evidence_f1_given_facts", "removed_by_types", "eval_ign_f1"])
@pytest.mark.parametrize("several", [False, True])
def test_every_metric_of_an_evaluation_may_choose(tmp_path, metric, several):
    config, processor = tiny_system(evidence_weight=0.1)
    processor = processor.with_settings(type_constraint="hard")
    given = f"web_{metric}" if several else metric
    flags = ["--model_name_or_path", "tiny", "--output_dir", str(tmp_path), "--do_train", "--use_cpu"]
    arguments = parse_arguments([*flags, "--metric_for_best_model", given.replace("web_eval_", "eval_web_")])
    documents = {"train": TRAIN, "validation": {"news": DEV, "web": DEV[:2]} if several else DEV}
    trainer = build_trainer(arguments, tiny_model(config), processor, documents, load_ign_reference(TRAIN))
    assert trainer.eval_dataset


def test_metric_that_is_not_there(make_trainer):
    trainer = make_trainer(metric_for_best_model="ign_f1")  # there is no reference
    with pytest.raises(KeyError, match="eval_ign_f1"):
        trainer.train()


@pytest.mark.parametrize("on_start", [False, True])
@pytest.mark.parametrize("kill", [None, KillAt(3), KillAt(7), KillAt(8, saved=True)], ids=["no", "3", "7", "end"])
def test_early_stopping_also_after_an_interruption(make_trainer, monkeypatch, kill, on_start):
    count = give_scores(monkeypatch, f1=[0.1, 0.5, 0.4, 0.3, 0.2, 0.9])
    settings = {"num_train_epochs": 6, "eval_on_start": on_start}
    if kill:
        with pytest.raises(InterruptedError):
            make_trainer(**settings, callbacks=[count, EarlyStoppingCallback(2), kill]).train()
    trainer = make_trainer(**settings, callbacks=[count, EarlyStoppingCallback(2)])
    trainer.train(resume_from_checkpoint=True if kill else None)
    assert trainer.state.global_step == 8, "stopped after the second epoch that is not better"
    assert trainer.state.best_global_step == 4
    best = Path(trainer.args.output_dir) / "checkpoint-4"
    assert_equal_weights(weights(trainer), load_file(best / "model.safetensors"))


def test_what_early_stopping_has_ended_is_trained_further_without_its_counter(make_trainer, monkeypatch):
    count = give_scores(monkeypatch, f1=[0.5, 0.4, 0.6])
    make_trainer(num_train_epochs=3, callbacks=[count, EarlyStoppingCallback(1)]).train()
    trainer = make_trainer(
        num_train_epochs=3,
        callbacks=[count, EarlyStoppingCallback(1)],
        restore_callback_states_from_checkpoint=False,
    )
    trainer.train(resume_from_checkpoint=True)
    assert (trainer.state.global_step, trainer.state.best_global_step) == (6, 6)


@pytest.mark.parametrize(("precision", "steps"), [([0.1, 0.2, 0.3, 0.4, 0.5], 10), ([0.1] * 5, 6)])
def test_early_stopping_knows_which_of_two_equal_evaluations_is_better(make_trainer, monkeypatch, precision, steps):
    count = give_scores(monkeypatch, f1=[0.0, 0.0, 0.0, 0.5, 0.6], average_precision=precision)
    trainer = make_trainer(num_train_epochs=5, callbacks=[count, EarlyStoppingCallback(2)])
    trainer.train()
    assert trainer.state.global_step == steps


@pytest.mark.parametrize(
    ("train", "length"),
    [(TRAIN, {"max_steps": 3}), (TRAIN, {"num_train_epochs": 1.5}), (DocumentStream(TRAIN), {"max_steps": 3})],
    ids=["steps", "part of an epoch", "stream"],
)
def test_a_training_that_had_ended_takes_no_further_step(make_trainer, caplog, train, length):
    """It is killed after its last checkpoint, and before its model is saved."""
    settings = {"train": train, "dev": None, "save_strategy": "steps", "lr_scheduler_type": "constant", **length}
    whole = make_trainer(**settings, folder="whole")
    whole_loss = whole.train().training_loss
    with pytest.raises(InterruptedError):
        make_trainer(**settings, callbacks=[KillAt(3, saved=True)]).train()
    resumed = make_trainer(**settings)
    assert resumed.train(resume_from_checkpoint=True).training_loss == whole_loss > 0
    assert resumed.state.global_step == whole.state.global_step == 3
    assert_equal_weights(weights(resumed), weights(whole))
    assert "had no fact" not in caplog.text, "the documents of a stream are not read again"


def test_the_mean_loss_of_a_resumed_training_needs_all_losses(make_trainer):
    settings = {"dev": None, "logging_strategy": "no"}
    with pytest.raises(InterruptedError):
        make_trainer(**settings, callbacks=[KillAt(3)]).train()
    for strategy in ("no", "steps"):
        resumed = make_trainer(**{**settings, "logging_strategy": strategy})
        resumed.args.save_strategy = "no"
        found = resumed.train(resume_from_checkpoint=True)
        assert "train_loss" not in found.metrics and np.isnan(found.training_loss)


def test_a_training_that_was_stopped_is_resumed(make_trainer):
    """As by a callback that watches the clock: the checkpoint is no last one."""

    class TimeIsUp(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_save = control.should_training_stop = True

    settings = {"dev": None, "save_strategy": "steps", "save_steps": 9}
    make_trainer(**settings, callbacks=[TimeIsUp()]).train()
    trainer = make_trainer(**settings)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 4
    further = make_trainer(**settings, num_train_epochs=3)
    further.train(resume_from_checkpoint=True)
    assert further.state.global_step == 6


@pytest.mark.parametrize("limit", [1, 2])
def test_folders_of_others_are_not_deleted(make_trainer, monkeypatch, tmp_path, limit):
    count = give_scores(monkeypatch, f1=[0.2, 0.5, 0.1])
    own = [tmp_path / "run" / name / "weights.bin" for name in ("checkpoint-1-mine", "checkpoint-best")]
    for file in own:
        file.parent.mkdir(parents=True)
        file.touch()
    (tmp_path / "run" / "checkpoint-2").mkdir()  # and empty: there is nothing to lose
    half = tmp_path / "run" / "checkpoint-99"
    with pytest.raises(InterruptedError), being_saved(half):
        (half / "model.safetensors").touch()
        raise InterruptedError
    make_trainer(num_train_epochs=3, save_total_limit=limit, callbacks=[count]).train()
    assert all(file.is_file() for file in own)
    kept = {path.name for path in (tmp_path / "run").glob("*checkpoint-*")} - {file.parent.name for file in own}
    assert kept == ({"checkpoint-4", "checkpoint-6"} if limit == 2 else {"checkpoint-4"})
    assert not [*(tmp_path / "run").rglob("*.unfinished")]


@pytest.mark.parametrize("name", ["model.safetensors", "notes.txt"])
def test_a_checkpoint_of_others_is_not_written_into(make_trainer, name):
    trainer = make_trainer()
    folder = Path(trainer.args.output_dir) / "checkpoint-2"
    folder.mkdir(parents=True)
    (folder / name).write_text("somebody's")
    with pytest.raises(ValueError, match=re.escape(f"{folder}: found files that no training has saved")):
        trainer.train()
    assert [path.read_text() for path in Path(trainer.args.output_dir).rglob("*.*")] == ["somebody's"]


@pytest.mark.parametrize(
    ("step", "best", "ended", "kept"),
    [
        (10, "elsewhere/checkpoint-2", True, [2]),
        (10, "elsewhere/checkpoint-2", False, [2, 10]),
        (10, None, True, [10]),
        (2, None, False, [2]),  # 9 and 10 are of an earlier training
    ],
)
def test_the_checkpoint_that_is_left_at_the_end(tmp_path, step, best, ended, kept):
    for number in (1, 2, 9, 10):
        (tmp_path / f"checkpoint-{number}").mkdir()
        (tmp_path / f"checkpoint-{number}" / "trainer_state.json").touch()
    delete_old_checkpoints(tmp_path, 1, step, best, ended=ended)
    assert own_checkpoints(tmp_path) == [tmp_path / f"checkpoint-{number}" for number in kept]


def test_a_second_training_in_a_folder_keeps_its_own_checkpoints(make_trainer, caplog):
    def training(steps, **settings):
        return make_trainer(save_strategy="steps", save_steps=1, max_steps=steps, eval_strategy="no", **settings)

    class Interruption(TrainerCallback):
        def on_save(self, args, state, control, **kwargs):
            if state.global_step == 3:
                raise InterruptedError

    first = training(6, load_best_model_at_end=False)
    first.train()
    folder = Path(first.args.output_dir)
    assert "has checkpoints of another training" not in caplog.text
    second = training(4, load_best_model_at_end=False, learning_rate=1e-2)
    second.add_callback(Interruption())
    with pytest.raises(InterruptedError):
        second.train()
    assert "which begins from step 0: checkpoint-5, checkpoint-6." in caplog.text
    caplog.clear()
    resumed = training(4, load_best_model_at_end=False, learning_rate=1e-2)
    resumed.train(resume_from_checkpoint=True)
    assert (resumed.state.global_step, [path.name for path in own_checkpoints(folder)]) == (
        4,
        ["checkpoint-3", "checkpoint-4"],
    )
    assert "has checkpoints of another training" not in caplog.text


def without_labels(documents):
    return [{key: value for key, value in document.items() if key != "labels"} for document in documents]


@pytest.mark.parametrize("dev", [{"news": DEV[:3], "web": DEV[3:]}, without_labels(DEV), []])
def test_evaluation_documents_that_choose_nothing_need_no_metric(make_trainer, dev):
    trainer = make_trainer(dev=dev, load_best_model_at_end=False, callbacks=[EarlyStoppingCallback(1)])
    trainer.train()
    assert trainer.state.global_step == 4 and trainer.state.best_metric is None


@pytest.mark.parametrize("choosing", [{}, {"load_best_model_at_end": False, "save_strategy": "best"}])
def test_evaluation_documents_that_cannot_choose_are_refused(make_trainer, choosing):
    with pytest.raises(ValueError, match="found no evaluation documents"):
        make_trainer(dev=[], **choosing)
    with pytest.raises(ValueError, match="evaluation documents have no labels"):
        make_trainer(dev=without_labels(DEV), **choosing)
    with pytest.raises(ValueError, match="expected one such as news_f1"):
        make_trainer(dev={"news": DEV}, **choosing)


# ------------------------------------------------------------------------------------------------------ not finite, killed


def test_loss_that_is_not_finite_stops_the_run(make_trainer):
    trainer = make_trainer(per_device_train_batch_size=2, num_train_epochs=1, trainer_class=_Recorder)

    class Poison(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            with torch.no_grad():
                model.relation_encoder.head_projection.weight.fill_(float("nan"))

    trainer.add_callback(Poison())
    with pytest.raises(FloatingPointError) as error:
        trainer.train()
    titles = [TRAIN[index]["title"] for index in trainer.seen[1]]
    assert f"step 1: the loss is nan; documents {titles}; logits from nan to nan" in str(error.value)


@pytest.mark.parametrize("factor", [float("inf"), float("nan")])
def test_gradient_that_is_not_finite_stops_the_run(make_trainer, factor):
    trainer = make_trainer(
        per_device_train_batch_size=1, gradient_accumulation_steps=3, num_train_epochs=1, trainer_class=_Recorder
    )
    start = weights(trainer)
    trainer.model.backbone.embeddings.word_embeddings.weight.register_hook(lambda gradient: gradient * factor)
    with pytest.raises(FloatingPointError) as error:
        trainer.train()
    titles = [TRAIN[index]["title"] for index in flat(trainer.seen[:3])]
    assert f"step 0: the gradient's norm is nan; documents {titles}" in str(error.value)
    assert_equal_weights(weights(trainer), start)


@pytest.mark.parametrize(("kind", "order"), [("bert", "random"), ("bert", "group_by_length"), ("roberta", "random")])
def test_interrupted_training_ends_with_the_same_weights(make_trainer, kind, order):
    system = tiny_system(kind, dict.fromkeys(NO_DROPOUT, 0.2))
    settings = {"system": system, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}
    settings |= {"save_strategy": "steps", "save_steps": 3, "load_best_model_at_end": False, "num_train_epochs": 3}
    settings |= {"train_sampling_strategy": order}
    whole = make_trainer(**settings, folder="whole")
    whole.train()
    for step in (4, 8, 10):  # in the middle of an epoch and beside a checkpoint
        with pytest.raises(InterruptedError):
            resume = step > 4 or None
            make_trainer(**settings, callbacks=[KillAt(step)]).train(resume_from_checkpoint=resume)
        torch.rand(step)  # another process has another random state
    resumed = make_trainer(**settings)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == whole.state.global_step == 12
    assert_equal_weights(weights(resumed), weights(whole))
    losses = [
        [
            (log["step"], log.get("loss"), log.get("train_loss"))
            for log in trainer.state.log_history
            if "eval_f1" not in log
        ]
        for trainer in (resumed, whole)
    ]
    assert losses[0] == losses[1]
    assert [step for step, *_ in losses[0]] == [3, 4, 6, 8, 9, 12, 12], "the last one is that of the training"


def test_resuming_without_a_checkpoint_is_refused(make_trainer):
    with pytest.raises(ValueError, match="resume_from_checkpoint"):
        make_trainer().train(resume_from_checkpoint=True)


@pytest.fixture(scope="module")
def two_checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    args = CommTrainingArguments(str(folder), use_cpu=True, disable_tqdm=True, num_train_epochs=2)
    model, processor = tiny_model(), tiny_processor()
    CommTrainer(model=model, args=args, train_dataset=TRAIN, eval_dataset=DEV, processing_class=processor).train()
    return folder


def cut(file):
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    "damage", [Path.unlink, cut, lambda file: file.write_bytes(b"")], ids=["gone", "cut", "empty"]
)
@pytest.mark.parametrize(
    "name", ["trainer_state.json", "model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"]
)
def test_incomplete_checkpoint_is_passed_over(two_checkpoints, tmp_path, caplog, name, damage):
    folder = shutil.copytree(two_checkpoints, tmp_path / "run")
    assert last_complete_checkpoint(folder) == str(folder / "checkpoint-4")
    assert not caplog.records
    damage(folder / "checkpoint-4" / name)
    assert last_complete_checkpoint(folder) == str(folder / "checkpoint-2")
    (message,) = [record.getMessage() for record in caplog.records]
    assert str(folder / "checkpoint-4") in message
    assert name in message
    damage(folder / "checkpoint-2" / name)
    assert last_complete_checkpoint(folder) is None


def test_checkpoint_of_another_number_of_processes(two_checkpoints, tmp_path, caplog):
    folder = shutil.copytree(two_checkpoints, tmp_path / "run")
    assert last_complete_checkpoint(folder, world_size=2) is None
    assert "rng_state_0.pth, rng_state_1.pth" in caplog.text
    for rank in range(2):
        shutil.copy(folder / "checkpoint-2" / "rng_state.pth", folder / "checkpoint-2" / f"rng_state_{rank}.pth")
    assert last_complete_checkpoint(folder, world_size=2) == str(folder / "checkpoint-2")


def test_checkpoints_are_ordered_by_number(tmp_path, two_checkpoints):
    for step in (4, 10, 9):
        shutil.copytree(two_checkpoints / "checkpoint-4", tmp_path / f"checkpoint-{step}")
    shutil.copytree(two_checkpoints / "checkpoint-4", tmp_path / "checkpoint-best")
    assert last_complete_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")
    assert last_complete_checkpoint(tmp_path / "nowhere") is None


@pytest.mark.parametrize("again", [False, True])
def test_a_checkpoint_is_the_trainers_own_while_it_is_saved(tmp_path, again):
    folder = tmp_path / "checkpoint-2"
    if again:
        folder.mkdir()
        (folder / "trainer_state.json").touch()
    with pytest.raises(InterruptedError), being_saved(folder):
        assert own_checkpoints(tmp_path) == []
        raise InterruptedError
    assert half_checkpoints(tmp_path) == [folder]
    refuse_checkpoints_of_others(tmp_path)
    with being_saved(folder):
        (folder / "trainer_state.json").touch()
    assert half_checkpoints(tmp_path) == [] and own_checkpoints(tmp_path) == [folder]
    assert [path.name for path in folder.iterdir()] == ["trainer_state.json"]


@pytest.mark.parametrize("by", ["trainer", "script"])
def test_what_a_kill_leaves_of_a_checkpoint_that_is_deleted_is_deleted_later(tmp_path, monkeypatch, by):
    for step in (1, 2):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").touch()
        (tmp_path / f"checkpoint-{step}" / "model.safetensors").touch()

    def killed(folder, **kwargs):
        (Path(folder) / "trainer_state.json").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(shutil, "rmtree", killed)
        delete_old_checkpoints(tmp_path, 1, step=2)
    refuse_checkpoints_of_others(tmp_path)
    assert len([*tmp_path.iterdir()]) == 2
    if by == "trainer":
        delete_old_checkpoints(tmp_path, 1, step=2)
    else:
        remove_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-2"]


def test_checkpoint_written_again_is_incomplete_until_its_end(make_trainer, monkeypatch):
    trainer = make_trainer(num_train_epochs=1)
    trainer.train()
    folder = Path(trainer.args.output_dir)
    assert last_complete_checkpoint(folder)
    again = make_trainer(num_train_epochs=1)

    def killed(*arguments, **kwargs):
        raise InterruptedError

    monkeypatch.setattr(again, "save_model", killed)
    with pytest.raises(InterruptedError):
        again.train()
    assert last_complete_checkpoint(folder) is None


# ---------------------------------------------------------------------------------------------------------------- memory


def test_evaluation_keeps_no_margins(make_trainer):
    trainer = make_trainer()
    kept = trainer.predict(DEV).predictions
    assert [(one.pairs, one.margins, one.labels) for one in kept] == [(None, None, None)] * len(DEV)
    whole = trainer.predict(DEV, keep_margins=True)
    assert [one.triples for one in kept] == [one.triples for one in whole.predictions]
    assert sum(one.margins.size for one in whole.predictions) == 4 * sum(len(one.pairs) for one in whole.predictions)


def test_bounded_pairs_train_the_same_weights(make_trainer):
    """Several epochs of accumulated batches; one of the documents has no pair, one batch of them none either."""
    settings = {"num_train_epochs": 2, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    trained = []
    for bound in (None, 5):
        trainer = make_trainer(
            folder=str(bound), system=tiny_system(text_fields=NO_DROPOUT), **settings, pairs_at_once=bound
        )
        trainer.train()
        trained.append(weights(trainer))
    for name, weight in trained[0].items():
        torch.testing.assert_close(trained[1][name], weight, rtol=1e-4, atol=1e-6, msg=name)
    with pytest.raises(ValueError, match="pairs_at_once is 0"):
        make_trainer(pairs_at_once=0)
    config, processor = tiny_system()
    with pytest.raises(SettingError) as error:
        tiny_model(config)(**processor([random_document(4)]), pairs_at_once=-1)
    assert error.value.field == "pairs_at_once"


def as_mps_does(*_):
    raise RuntimeError(
        "MPS backend out of memory (MPS allocated: 8.00 GB, other allocations: 1.00 GB, max allowed: 9.07 GB)"
    )


@pytest.mark.parametrize("stage", ["train", "eval"])
@pytest.mark.parametrize(
    "failure",
    [lambda *_: torch.empty(1 << 50, dtype=torch.uint8), lambda *_: bytearray(1 << 60), as_mps_does],
    ids=["torch", "python", "mps"],
)
def test_out_of_memory_names_documents_and_settings(make_trainer, stage, failure):
    trainer = make_trainer(per_device_train_batch_size=3)
    trainer.model.relation_encoder.register_forward_pre_hook(failure)
    with pytest.raises(DocumentMemoryError) as caught:
        trainer.train() if stage == "train" else trainer.evaluate()
    error, documents = caught.value, TRAIN if stage == "train" else DEV
    assert documents[error.index]["title"] == error.title and error.title in error.found
    assert f"{len(documents[error.index]['vertexSet'])} entities" in error.found
    assert f"per_device_{stage}_batch_size" in error.expected
    assert ("pairs_at_once" in error.expected) == ("gradient_checkpointing" in error.expected) == (stage == "train")


def test_other_errors_stay_what_they_are(make_trainer):
    trainer = make_trainer()

    def fail(*_):
        raise RuntimeError("something else")

    trainer.model.relation_encoder.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="something else"):
        trainer.train()


def test_the_objective_of_a_search_is_that_of_the_checkpoint_that_is_kept():
    args = SimpleNamespace(metric_for_best_model="f1", load_best_model_at_end=True, greater_is_better=True)
    args.save_strategy, control = "steps", SimpleNamespace(should_save=True)
    trainer = SimpleNamespace(args=args, state=SimpleNamespace(best_metric=None), control=control)

    def objective(f1):
        return HyperparameterSearch.default_compute_objective(trainer, {"eval_f1": f1})

    assert objective(0.3) == 0.3
    trainer.state.best_metric = 0.5
    assert (objective(0.3), objective(0.7)) == (0.5, 0.7)
    control.should_save = False
    assert objective(0.7) == 0.5, "it is not saved"
    args.save_strategy = "best"
    assert objective(0.7) == 0.7, "it is saved because it is better"
    args.greater_is_better = False
    assert objective(0.7) == 0.5
    args.load_best_model_at_end = False
    assert objective(0.7) == 0.7, "the last one is kept"
