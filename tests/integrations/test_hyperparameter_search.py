"""Transformers' own search, by optuna: the loss's settings take part, and the objective is what chooses checkpoints."""

import pytest
from helpers import random_document, tiny_model, tiny_system

from modeling_comm import CommTrainer, CommTrainingArguments
from modeling_comm.settings import SettingError

optuna = pytest.importorskip("optuna", reason="needs optuna, which the extra `search` brings")

DOCUMENTS = [random_document(4, 25, seed=seed) for seed in range(5)]


def make(folder, seen=None):
    config, processor = tiny_system(loss="cmm")

    class Trainer(CommTrainer):
        def compute_loss(self, model, inputs, **kwargs):
            if seen is not None:
                seen.add((model.config.cmm_margin, self.args.head_learning_rate))
            return super().compute_loss(model, inputs, **kwargs)

    args = CommTrainingArguments(str(folder), use_cpu=True, report_to="none", disable_tqdm=True, num_train_epochs=1)
    return Trainer(
        model_init=lambda: tiny_model(config),
        args=args,
        train_dataset=DOCUMENTS,
        eval_dataset=DOCUMENTS[:3],
        processing_class=processor,
    )


def test_settings_of_the_loss_are_searched(tmp_path):
    seen = set()
    trainer = make(tmp_path, seen)

    def space(trial):
        return {
            "cmm_margin": trial.suggest_float("cmm_margin", 0.1, 0.4),
            "head_learning_rate": trial.suggest_float("head_learning_rate", 1e-4, 1e-3, log=True),
        }

    best = trainer.hyperparameter_search(space, n_trials=3, backend="optuna")
    assert len(seen) == 3 and (best.hyperparameters["cmm_margin"], best.hyperparameters["head_learning_rate"]) in seen
    assert 0 <= best.objective <= 1  # F1, not a sum over all metrics


@pytest.mark.parametrize("name", ["margin", "hingeabl_margin", "learning"])
def test_names_that_are_nothing(tmp_path, name):
    def space(trial):
        return {name: trial.suggest_float(name, 0, 1)}

    with pytest.raises(SettingError) as error:
        make(tmp_path).hyperparameter_search(space, n_trials=1, backend="optuna")
    assert error.value.field == name
