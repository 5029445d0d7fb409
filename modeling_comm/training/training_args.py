"""Training arguments with the field's defaults: ATLOP's hyper-parameters, which the paper trains with."""

import math
import os
from dataclasses import dataclass, field
from typing import Any, Self

from transformers import TrainingArguments

_SAMPLING = ("random", "sequential", "group_by_length")
# Options of the parent that the trainer's own loss, batches and evaluation would ignore silently.
_REFUSED = (
    *("remove_unused_columns", "label_smoothing_factor", "dataloader_drop_last", "auto_find_batch_size"),
    *("bf16_full_eval", "fp16_full_eval", "prediction_loss_only", "batch_eval_metrics", "eval_accumulation_steps"),
)


@dataclass
class CommTrainingArguments(TrainingArguments):
    """
    [`TrainingArguments`] for [`CommTrainer`]. What differs from the parent:

    - `head_learning_rate` (`float`, defaults to 1e-4): learning rate of all that is not the backbone, whose own is
      `learning_rate`.
    - `pairs_at_once` None, or a number: entity pairs whose representations and losses are in memory at a time. Others are
      computed again for the backward pass, so that gradients are those of the whole batch. None keeps the losses of all pairs,
      and the representations of up to 2,048.
    - `adam_epsilon` 1e-6, `num_train_epochs` 30, `per_device_train_batch_size` 4 documents, `warmup_steps` 0.06 (below 1 a share
      of all steps).
    - `eval_strategy` `"epoch"`, `save_strategy` `"epoch"`, `save_total_limit` 2, `load_best_model_at_end` True,
      `metric_for_best_model` `"f1"`, `logging_steps` 50. The best checkpoint is the best of those that are saved: where
      `save_steps` is a multiple of `eval_steps`, other evaluations are logged and choose nothing.
    - `hub_strategy` `"end"`, and nothing else: with `push_to_hub` one push after training. The others would publish half-trained
      models, and beside them pickles (`training_args.bin`, a checkpoint's `optimizer.pt`, `scheduler.pt`, `rng_state.pth`).
      These stay in `checkpoint-*`, and a resumed run reads numbers from them and nothing else (`weights_only`).
    - `restore_callback_states_from_checkpoint` True: the patience of early stopping outlives an interruption, and a training
      that it has ended is not trained further. With False it is.
    - `remove_unused_columns` False and `ddp_find_unused_parameters` False: the trainer builds its batches itself, and every
      parameter gets a gradient.
    - `do_eval` stays as it is given, whatever `eval_strategy` is.

    Raises:
        ValueError: a value does not fit, or asks for what [`CommTrainer`] does not do.
    """

    head_learning_rate: float = field(
        default=1e-4, metadata={"help": "Learning rate of everything that is not the backbone (the relation encoder)."}
    )
    pairs_at_once: int | None = field(
        default=None,
        metadata={
            "help": "Entity pairs whose representations and losses training keeps in memory at a time; what it needs of the "
            "others it computes again. The gradients are the same, of the whole batch. By default losses are kept for all "
            "pairs, and representations for up to 2,048."
        },
    )
    learning_rate: float = field(
        default=5e-5, metadata={"help": "Learning rate of the backbone. 5e-5 suits base models, 3e-5 large ones."}
    )
    adam_epsilon: float = field(default=1e-6, metadata={"help": "Epsilon of AdamW."})
    num_train_epochs: float = field(default=30.0, metadata={"help": "Passes over the training documents."})
    per_device_train_batch_size: int = field(default=4, metadata={"help": "Documents per process and step."})
    warmup_steps: float = field(
        default=0.06, metadata={"help": "Steps of linear warm-up; below 1, a share of all steps."}
    )
    eval_strategy: str = field(default="epoch", metadata={"help": "When to evaluate: no, steps or epoch."})
    save_strategy: str = field(
        default="epoch", metadata={"help": "When to save a checkpoint: no, steps, epoch or best."}
    )
    save_total_limit: int | None = field(default=2, metadata={"help": "Checkpoints kept, the best one among them."})
    load_best_model_at_end: bool = field(
        default=True, metadata={"help": "End with the best checkpoint, not the last."}
    )
    metric_for_best_model: str | None = field(default="f1", metadata={"help": "What is best: f1, ign_f1, ..."})
    logging_steps: float = field(default=50, metadata={"help": "Steps between two logs of loss and learning rate."})
    restore_callback_states_from_checkpoint: bool = field(
        default=True,
        metadata={"help": "Resume the callbacks' counters, too, such as the patience of early stopping."},
    )
    hub_strategy: str = field(
        default="end", metadata={"help": "When to push: end. The other ways would publish pickles and are refused."}
    )
    remove_unused_columns: bool | None = field(
        default=False, metadata={"help": "Must stay false: the trainer batches."}
    )
    ddp_find_unused_parameters: bool | None = field(
        default=False, metadata={"help": "Not needed: every parameter gets a gradient on every process."}
    )

    def __post_init__(self) -> None:
        do_eval = self.do_eval
        super().__post_init__()
        self.do_eval = do_eval  # the parent turns it on where training evaluates; the script asks for it by itself
        self._check_hub_strategy()
        launched = int(os.environ.get("WORLD_SIZE", 1))
        if launched > self.world_size:
            raise ValueError(
                f"{launched} processes were started, but each of them sees {self.world_size} and would train alone; without a "
                "GPU for each, add use_cpu (--use_cpu)"
            )
        if not self.head_learning_rate > 0:
            raise ValueError(f"head_learning_rate is {self.head_learning_rate}; expected a number above 0")
        for name in ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected an integer of 1 or more")
        for name in ("learning_rate", "num_train_epochs", "max_grad_norm", "weight_decay"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ValueError(f"{name} is {getattr(self, name)}; expected a finite number, 0 or more")
        if self.pairs_at_once is not None and self.pairs_at_once < 1:
            raise ValueError(f"pairs_at_once is {self.pairs_at_once}; expected at least 1")
        if self.train_sampling_strategy not in _SAMPLING:
            raise ValueError(
                f"train_sampling_strategy is {self.train_sampling_strategy!r}; expected one of {_SAMPLING}"
            )
        for name in _REFUSED:
            if getattr(self, name):
                raise ValueError(f"{name} is {getattr(self, name)!r}; CommTrainer does not do this, leave it out")

    def set_push_to_hub(self, model_id: str, strategy: str = "end", **kwargs: Any) -> Self:
        super().set_push_to_hub(model_id, strategy=strategy, **kwargs)
        self._check_hub_strategy()
        return self

    def _check_hub_strategy(self):
        if self.hub_strategy != "end":
            raise ValueError(
                f"hub_strategy is {self.hub_strategy.value!r}, which would publish half-trained models and pickles; expected "
                "'end', one push after training"
            )
