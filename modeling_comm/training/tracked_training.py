"""What a trainer tells those who watch a training: TensorBoard, Weights & Biases and whatever else `report_to` names."""

import math
from collections.abc import Mapping
from types import MappingProxyType

import torch
from transformers import Trainer
from transformers.trainer_utils import IntervalStrategy, SaveStrategy


class TrackedTraining(Trainer):
    """
    The part of [`CommTrainer`] that logs parts of the loss, the second learning rate, and the mean loss of all steps. The parent
    logs the loss, the rate of the first group of parameters, and the mean loss of the last call.
    """

    # By name the sum since the last log, and the step in which it began.
    _parts_of_loss: Mapping[str, tuple[torch.Tensor | float, int]] = MappingProxyType({})
    _head_group: int | None = None  # place of a group of the relation encoder in the optimizer
    _head_learning_rate: float | None = None  # as it was before the scheduler's step

    _first_step = 0  # of this call: the one that it resumed from

    def _init_training_state(self, *args, **kwargs):
        counters = super()._init_training_state(*args, **kwargs)
        self._first_step = self.state.global_step
        return counters

    def _add_to_log(self, name, part):
        """Of a batch, a part of the loss whose mean over steps is logged beside the loss."""
        total, since = self._parts_of_loss.get(name, (0.0, self.state.global_step))
        self._parts_of_loss = {**self._parts_of_loss, name: (total + part, since)}

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
        if "loss" in logs:
            for name, (total, since) in sorted(self._parts_of_loss.items()):  # in one order in all processes
                total = torch.as_tensor(total, dtype=torch.float32, device=self.args.device)
                # By hand, a step may be logged before it ends.
                steps = max(self.state.global_step - since, 1)
                logs[name] = self.accelerator.reduce(total, "mean").item() / steps
            self._parts_of_loss = {}
        if "learning_rate" in logs and self._head_learning_rate is not None:
            logs["head_learning_rate"] = self._head_learning_rate
        if "train_loss" in logs:
            # From the log, resumed or not: the two are then equal to the last digit.
            loss = self._mean_loss()
            if loss is not None:
                logs["train_loss"] = loss
            elif self._first_step:
                del logs["train_loss"]
        super().log(logs, start_time)

    def _mean_loss(self):
        """Over all steps of the training; None where the losses of some are in no log."""
        total, steps = 0.0, [0]
        for entry in self.state.log_history:
            if "loss" in entry:
                total += entry["loss"] * (entry["step"] - steps[-1])
                steps.append(entry["step"])
        is_whole = self._first_step in steps and 0 < steps[-1] == self.state.global_step
        return total / steps[-1] if is_whole else None

    def _finalize_training(self, *args, **kwargs):
        output = super()._finalize_training(*args, **kwargs)
        return output._replace(training_loss=output.metrics.get("train_loss", math.nan))
