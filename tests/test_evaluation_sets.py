"""`CommTrainer` with several evaluation sets, and with training documents that are only iterated over."""

import pytest
from helpers import random_document, tiny_model, tiny_system
from transformers import EarlyStoppingCallback

from modeling_comm import CommTrainer, CommTrainingArguments

TRAIN = [random_document(entities, 20, seed=index) for index, entities in enumerate((4, 3, 5, 2))]
NEWS = [random_document(entities, 20, seed=50 + index) for index, entities in enumerate((3, 4))]
WEB = [random_document(entities, 20, seed=70 + index) for index, entities in enumerate((5, 2, 4))]


def make(folder, train=TRAIN, dev=None, **arguments):
    config, processor = tiny_system()
    given = {"use_cpu": True, "disable_tqdm": True, "report_to": "none", "num_train_epochs": 1, **arguments}
    args = CommTrainingArguments(str(folder), **given)
    return CommTrainer(
        model=tiny_model(config), args=args, train_dataset=train, eval_dataset=dev, processing_class=processor
    )


def test_several_evaluation_sets(tmp_path):
    trainer = make(tmp_path, dev={"news": NEWS, "web": WEB}, metric_for_best_model="web_f1")
    trainer.train()
    alone = make(tmp_path / "alone", dev=None, load_best_model_at_end=False, eval_strategy="no")
    alone.model = trainer.model
    metrics = trainer.evaluate()
    for name, documents in (("news", NEWS), ("web", WEB)):
        assert metrics[f"eval_{name}_average_precision"] == alone.evaluate(documents)["eval_average_precision"]
    assert trainer.state.best_metric is not None
    offset = trainer.tune_threshold_offset("web")
    assert offset == alone.tune_threshold_offset(WEB)
    with pytest.raises(ValueError, match=r"news.*web"):
        trainer.tune_threshold_offset()


def test_the_metric_has_to_name_one_of_several(tmp_path):
    with pytest.raises(ValueError, match="news_f1, web_f1"):
        make(tmp_path, dev={"news": NEWS, "web": WEB})


def test_an_iterable_dataset_is_a_stream(tmp_path):
    datasets = pytest.importorskip("datasets", reason="needs datasets, which the extra `training` brings")
    stream = datasets.Dataset.from_list(TRAIN).to_iterable_dataset()
    never = {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False}
    trainer = make(tmp_path, train=stream, dev=NEWS, max_steps=3, **never)
    trainer.train()
    assert trainer.state.global_step == 3 and trainer.stream_report["documents"] >= 3


@pytest.mark.parametrize("metric", ["web_f1", "web_long_f1"])
def test_early_stopping_looks_at_the_set_of_its_metric(tmp_path, metric, caplog):
    """Of the others Transformers' callback says that it is disabled."""

    class Counted(EarlyStoppingCallback):
        asked = 0

        def on_evaluate(self, args, state, control, metrics, **kwargs):
            assert f"eval_{metric}" in metrics
            self.asked += 1
            super().on_evaluate(args, state, control, metrics, **kwargs)

    trainer = make(
        tmp_path,
        dev={"web": WEB, "web_long": NEWS},
        metric_for_best_model=metric,
        num_train_epochs=2,
        save_strategy="epoch",
    )
    early = Counted(5)
    trainer.add_callback(early)
    trainer.train()
    trainer.evaluate(NEWS, metric_key_prefix="test")
    assert early.asked == 2 and early in trainer.callback_handler.callbacks
    assert "early stopping" not in caplog.text
