"""What a run of `run_docre.py` shows while it trains: one bar over all steps, and one line for each epoch or evaluation."""

import sys
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState

from ..utils.progress import progress_bar
from .training_args import CommTrainingArguments

_SHOWN = {
    "f1": "F1",
    "ign_f1": "Ign F1",
    "precision": "precision",
    "recall": "recall",
    "average_precision": "average precision",
}


class TrainingProgress(TrainerCallback):
    """In place of Transformers' own callback, which prints dicts. Lines are on stderr, numbers of scores in percent."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None
        self._prediction_bar: tqdm | None = None
        self._steps, self._loss, self._logged = (
            0,
            0.0,
            0,
        )  # since the last line: steps, the sum of their losses; the last step

    def on_train_begin(
        self, args: CommTrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            self._logged = state.global_step
            self._bar = progress_bar(state.max_steps, state.global_step, args.disable_tqdm, "steps")

    def on_step_end(
        self, args: CommTrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)

    def on_log(
        self,
        args: CommTrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if self._bar is None or logs is None or "loss" not in logs:
            return
        steps = state.global_step - self._logged
        self._steps, self._loss, self._logged = (
            self._steps + steps,
            self._loss + steps * logs["loss"],
            state.global_step,
        )
        if args.eval_strategy == "no" and float(state.epoch or 0).is_integer():
            self._show(args, state, [])

    def on_evaluate(
        self,
        args: CommTrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float],
        **kwargs: Any,
    ) -> None:
        self._end_prediction()
        if self._bar is not None:
            self._show(args, state, _scores(metrics))

    def on_prediction_step(
        self,
        args: CommTrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        eval_dataloader: Any = None,
        **kwargs: Any,
    ) -> None:
        if self._bar is None and state.is_world_process_zero:  # one bar at a time
            if self._prediction_bar is None:
                total = None if eval_dataloader is None else len(eval_dataloader)
                self._prediction_bar = progress_bar(total, quiet=args.disable_tqdm, unit="batches")
            self._prediction_bar.update()

    def on_predict(
        self, args: CommTrainingArguments, state: TrainerState, control: TrainerControl, metrics: Any, **kwargs: Any
    ) -> None:
        self._end_prediction()

    def on_train_end(
        self, args: CommTrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _end_prediction(self):
        if self._prediction_bar is not None:
            self._prediction_bar.leave = False
            self._prediction_bar.close()
            self._prediction_bar = None

    def _show(self, args, state, scores):
        of_steps = args.max_steps > 0  # a stream has no number of epochs
        at, total = (state.global_step, state.max_steps) if of_steps else (state.epoch, state.num_train_epochs)
        parts = [f"{'step' if of_steps else 'epoch'} {at:.6g} of {total}"]
        if self._steps:
            parts.append(f"loss {self._loss / self._steps:.4f}")
        tqdm.write("  ".join([*parts, *scores]), file=sys.stderr)
        self._steps, self._loss = 0, 0.0


def _scores(metrics):
    """Scores in words; those of one of several evaluation sets with its name."""
    ends = [key for key in metrics if key.endswith("_f1") and not key.endswith("_ign_f1")]
    for end in ends:
        prefix = end.removesuffix("f1")
        name = prefix.removeprefix("eval_").removesuffix("_")
        if name:
            yield name
        for key, word in _SHOWN.items():
            if prefix + key in metrics:
                yield f"{word} {100 * metrics[prefix + key]:.1f}"
