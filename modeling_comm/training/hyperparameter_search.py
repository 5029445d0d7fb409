"""Transformers' search over hyperparameters, for settings of the model's loss, too."""

from collections.abc import Callable, Mapping
from typing import Any

from transformers import PreTrainedModel, Trainer
from transformers.trainer_utils import BestRun

from ..losses import get_loss
from ..settings import SettingError, nearest_names
from .results import can_be_kept, key_of_metric


class HyperparameterSearch(Trainer):
    """The part of [`~trainer.CommTrainer`] that `hyperparameter_search` uses."""

    def hyperparameter_search(
        self,
        hp_space: Callable | None = None,
        compute_objective: Callable[[dict[str, float]], float] | None = None,
        n_trials: int = 20,
        direction: str | list[str] | None = None,
        **kwargs: Any,
    ) -> BestRun | list[BestRun]:
        """
        As the parent's, with two differences: the objective is `metric_for_best_model` of the checkpoint that a trial keeps, and
        the space may hold settings of the model's loss, such as `cmm_margin`, which are set in the model of each trial. The
        trainer needs `model_init`.

        Args:
            hp_space (`Callable`, *optional*): a trial's values, by names of training arguments or of settings of the loss.
            compute_objective (`Callable`, *optional*): the objective, from the metrics of an evaluation.
            n_trials (`int`, defaults to 20): number of trials.
            direction (`str` or `list[str]`, *optional*): `"maximize"` or `"minimize"`; by default what the metric asks for.
            kwargs: as of the parent.

        Raises:
            SettingError: a name of the space is neither.
        """
        if direction is None:
            direction = "maximize" if self.args.greater_is_better else "minimize"
        return super().hyperparameter_search(
            hp_space, compute_objective or self.default_compute_objective, n_trials, direction, **kwargs
        )

    def default_compute_objective(self, metrics: dict[str, float]) -> float:
        """The metric that chooses the best checkpoint: with `load_best_model_at_end` that of the best checkpoint that the trial
        has saved so far, whose model it ends with. Before the first is saved, that of the evaluation."""
        value, best = metrics[key_of_metric(self.args.metric_for_best_model)], self.state.best_metric
        if best is None or not self.args.load_best_model_at_end:
            return value
        if not can_be_kept(self.args, self.control):
            return best
        return max(best, value) if self.args.greater_is_better else min(best, value)

    def call_model_init(self, trial: Any = None) -> PreTrainedModel:
        model = super().call_model_init(trial)
        space = getattr(self, "hp_space", None)
        if trial is None or space is None:
            return model
        values = trial if isinstance(trial, Mapping) else space(trial)
        settings = {setting.field: setting for setting in get_loss(model.config.loss).settings}
        for name, value in values.items():
            if name in settings:
                setattr(model.config, name, value)
                settings[name].check(model.config)
            elif name not in vars(self.args):
                meant = ", ".join(nearest_names(name, [*settings, *vars(self.args)]) or settings)
                expected = f"a training argument or a setting of the loss {model.config.loss!r} ({meant})"
                raise SettingError("hyperparameter_search", name, value, expected)
        return model

    def _hp_search_setup(self, trial):
        # The parent would warn of the loss's settings, which `call_model_init` has set.
        space = self.hp_space if trial is not None and self.hp_search_backend is not None else None
        if space is None:
            return super()._hp_search_setup(trial)
        own = vars(self.args)
        if isinstance(trial, Mapping):
            return super()._hp_search_setup({name: value for name, value in trial.items() if name in own})
        self.hp_space = lambda trial: {name: value for name, value in space(trial).items() if name in own}
        try:
            return super()._hp_search_setup(trial)
        finally:
            self.hp_space = space
