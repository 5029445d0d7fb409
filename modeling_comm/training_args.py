"""Training arguments with the field's defaults: ATLOP's hyper-parameters, which the paper trains with."""

from dataclasses import dataclass, field

from transformers import TrainingArguments


@dataclass
class CommTrainingArguments(TrainingArguments):
    """
    [`TrainingArguments`] for [`CommTrainer`]. Defaults that differ from the parent's: `learning_rate` 5e-5 is for the backbone
    and `head_learning_rate` for all else; `adam_epsilon` 1e-6; `num_train_epochs` 30; `per_device_train_batch_size` 4 documents;
    `warmup_steps` 0.06 (a share of all steps, as below 1); evaluation and a checkpoint after each epoch, the best by dev F1
    loaded at the end, two checkpoints kept; `logging_steps` 50; `remove_unused_columns` False and
    `ddp_find_unused_parameters` False (the trainer builds its batches itself, and every parameter gets a gradient).
    """

    head_learning_rate: float = field(
        default=1e-4, metadata={"help": "Learning rate of everything that is not the backbone (the relation encoder)."}
    )
    learning_rate: float = field(
        default=5e-5, metadata={"help": "Learning rate of the backbone. 5e-5 suits base models, 3e-5 large ones."}
    )
    adam_epsilon: float = field(default=1e-6, metadata={"help": "Epsilon of AdamW."})
    num_train_epochs: float = field(default=30.0, metadata={"help": "Passes over the training documents."})
    per_device_train_batch_size: int = field(default=4, metadata={"help": "Documents a process and step."})
    per_device_eval_batch_size: int = field(default=8, metadata={"help": "Documents a process and evaluation step."})
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
    greater_is_better: bool | None = field(default=True, metadata={"help": "Whether more of that metric is better."})
    logging_steps: float = field(default=50, metadata={"help": "Log loss and learning rate every so many steps."})
    remove_unused_columns: bool | None = field(
        default=False, metadata={"help": "Must stay false: the trainer batches."}
    )
    ddp_find_unused_parameters: bool | None = field(
        default=False, metadata={"help": "Not needed: every parameter gets a gradient on every process."}
    )

    def __post_init__(self):
        super().__post_init__()
        if not self.head_learning_rate > 0:
            raise ValueError(f"head_learning_rate is {self.head_learning_rate}; expected a number above 0")
        if self.remove_unused_columns:
            raise ValueError(
                "remove_unused_columns is true; expected false, because the trainer builds its own batches"
            )
