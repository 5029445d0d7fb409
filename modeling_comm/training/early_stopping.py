"""The end of a training: early stopping, and what is left to do for one that had ended when it was interrupted."""

from contextlib import contextmanager
from typing import Any

from transformers import EarlyStoppingCallback, Trainer

from .results import gain_of_tie


class EarlyStopping(Trainer):
    """The part of [`~trainer.CommTrainer`] that ends a training."""

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """As the parent's, but early stopping is asked later: once for all evaluation sets, and not outside of a training."""
        with self._asking_early_stopping(False):
            return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)

    def _determine_best_metric(self, metrics, trial):
        best, gain = self.state.best_metric, gain_of_tie(metrics, self.state, self.args.metric_for_best_model)
        if gain is not None and gain > 0:
            # The callback compares this metric alone; without a best one it counts from 0 again.
            self.state.best_metric = None
        with self._asking_early_stopping(True):
            self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        self.state.best_metric = best
        return super()._determine_best_metric(metrics, trial)

    def _run_epoch(self, *args, resume_from_checkpoint, **kwargs):
        # The parent takes a step before it looks at its counters, and an interruption may come after the last step.
        if resume_from_checkpoint is not None and self._has_ended():
            self.control.should_training_stop = True
        else:
            super()._run_epoch(*args, resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    def _has_ended(self):
        # Not by `should_training_stop` of the checkpoint: who stops because time is up wants to train further.
        return self.state.global_step >= self.state.max_steps or any(
            callback.early_stopping_patience_counter >= callback.early_stopping_patience
            for callback in self._early_stopping()
        )

    def _early_stopping(self):
        return [one for one in self.callback_handler.callbacks if isinstance(one, EarlyStoppingCallback)]

    @contextmanager
    def _asking_early_stopping(self, asked):
        """Events reach the callbacks of early stopping, and them alone, or all others."""
        callbacks, early = self.callback_handler.callbacks, self._early_stopping()
        self.callback_handler.callbacks = [one for one in callbacks if (one in early) == asked]
        try:
            yield
        finally:
            self.callback_handler.callbacks = callbacks
