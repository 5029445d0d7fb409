"""What a trainer tells those who watch a training: TensorBoard, Weights & Biases and whatever else `report_to` names."""

from collections.abc import Mapping
from types import MappingProxyType

import torch
from transformers import Trainer


class TrackedTraining(Trainer):
    """The part of [`CommTrainer`] that logs parts of the loss and the second learning rate. The parent logs the loss and the rate
    of the first group of parameters."""

    # By name the sum since the last log, and the step in which it began.
    _parts_of_loss: Mapping[str, tuple[torch.Tensor | float, int]] = MappingProxyType({})
    _head_group: int | None = None  # place of a group of the relation encoder in the optimizer
    _head_learning_rate: float | None = None  # as it was before the scheduler's step

    def _add_to_log(self, name, part):
        """Of a batch, a part of the loss whose mean over steps is logged beside the loss."""
        total, since = self._parts_of_loss.get(name, (0.0, self.state.global_step))
        self._parts_of_loss = {**self._parts_of_loss, name: (total + part, since)}

    def _get_learning_rate(self):
        if self._head_group is not None:
            self._head_learning_rate = self.optimizer.param_groups[self._head_group]["lr"]
        return super()._get_learning_rate()

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
        super().log(logs, start_time)
