"""What a trainer tells those who watch a training: TensorBoard, Weights & Biases and whatever else `report_to` names."""

from transformers import Trainer


class TrackedTraining(Trainer):
    """The part of [`CommTrainer`] that logs the second learning rate. The parent logs that of the first group of parameters."""

    _head_group: int | None = None  # place of a group of the relation encoder in the optimizer
    _head_learning_rate: float | None = None  # as it was before the scheduler's step

    def _get_learning_rate(self):
        if self._head_group is not None:
            self._head_learning_rate = self.optimizer.param_groups[self._head_group]["lr"]
        return super()._get_learning_rate()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "learning_rate" in logs and self._head_learning_rate is not None:
            logs["head_learning_rate"] = self._head_learning_rate
        super().log(logs, start_time)
