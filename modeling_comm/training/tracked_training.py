"""What a trainer tells those who watch a training: TensorBoard, Weights & Biases and whatever else `report_to` names."""

import math

from transformers import Trainer
from transformers.trainer_utils import IntervalStrategy, SaveStrategy


class TrackedTraining(Trainer):
    """
    The part of [`CommTrainer`] that logs the second learning rate, where the parent logs that of the first group of parameters,
    and the mean loss of a training that was resumed, where the parent's is of the last call.
    """

    _head_group: int | None = None  # place of a group of the relation encoder in the optimizer
    _head_learning_rate: float | None = None  # as it was before the scheduler's step

    def _get_learning_rate(self):
        if self._head_group is not None:
            self._head_learning_rate = self.optimizer.param_groups[self._head_group]["lr"]
        return super()._get_learning_rate()

    def _maybe_log_save_evaluate(self, *args, **kwargs):
        # A checkpoint does not hold the losses since the last log. Of an evaluation it is not known yet whether one follows.
        saves = self.control.should_save or (
            self.control.should_evaluate and self.args.save_strategy == SaveStrategy.BEST
        )
        self.control.should_log |= saves and self.args.logging_strategy != IntervalStrategy.NO
        super()._maybe_log_save_evaluate(*args, **kwargs)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "learning_rate" in logs and self._head_learning_rate is not None:
            logs["head_learning_rate"] = self._head_learning_rate
        if "train_loss" in logs:
            loss = self._mean_loss()
            if loss is not None:
                logs["train_loss"] = loss
            elif self._initial_global_step:
                del logs["train_loss"]
        super().log(logs, start_time)

    def _mean_loss(self):
        """Over all steps of the training; None where the losses of some are in no log."""
        total, steps = 0.0, [0]
        for entry in self.state.log_history:
            if "loss" in entry:
                total += entry["loss"] * (entry["step"] - steps[-1])
                steps.append(entry["step"])
        is_whole = self._initial_global_step in steps and 0 < steps[-1] == self.state.global_step
        return total / steps[-1] if is_whole else None

    def _finalize_training(self, *args, **kwargs):
        output = super()._finalize_training(*args, **kwargs)
        return output._replace(training_loss=output.metrics.get("train_loss", math.nan))
