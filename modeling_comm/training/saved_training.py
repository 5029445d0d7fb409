"""What a training leaves in its folder: checkpoints, the best of them, the model and its card."""

from collections.abc import Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from transformers import Trainer
from transformers.utils import logging

from ..reporting.model_card import trainer_record, write_model_card
from ..saved_folder import replacing_folder
from ..utils.writer import full_disk_is_named
from .adapters import has_adapters, save_merged
from .checkpoint_files import being_saved, checkpoint_size, delete_old_checkpoints, has_weights
from .results import can_be_kept, chooses_checkpoints, gain_of_tie, key_of_metric

logger = logging.get_logger(__name__)


class SavedTraining(Trainer):
    """The part of [`~trainer.CommTrainer`] that saves."""

    _saves_checkpoint = False  # not the finished model

    def _save_weights(self, folder, state_dict):
        model = self.accelerator.unwrap_model(self.model)
        if has_adapters(model) and not self._saves_checkpoint:
            save_merged(model, folder)
            self.processing_class.save_pretrained(folder)
        else:
            super()._save(folder, state_dict)
            # A pickle, and all that it holds is in the run's record: a checkpoint should need no unpickling.
            Path(folder, "training_args.bin").unlink(missing_ok=True)

    def _init_training_state(
        self, max_steps, num_update_steps_per_epoch, num_train_epochs, resume_from_checkpoint, trial
    ):
        counters = super()._init_training_state(
            max_steps, num_update_steps_per_epoch, num_train_epochs, resume_from_checkpoint, trial
        )
        # By its step: the state has the path of the call that saved it, and since then the folder may have been moved, or the
        # working directory is another one.
        best = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.best_global_step}"
        if best.is_dir():
            recorded = self.state.best_model_checkpoint
            if recorded is None or not Path(recorded).is_dir():  # some parents have just warned that it does not exist
                logger.warning("the best checkpoint is found again, and used: %s", best)
            self.state.best_model_checkpoint = str(best)
        return counters

    def _load_best_model(self):
        # The parent would keep the last weights without a word to anyone who reads the record.
        if has_weights(self.state.best_model_checkpoint):
            super()._load_best_model()
            return
        logger.warning("%s is gone: the last weights are kept, not the best", self.state.best_model_checkpoint)
        self.state.best_model_checkpoint, self.state.best_global_step = None, self.state.global_step

    def _determine_best_metric(self, metrics, trial):
        before = self.state.best_metric, self.state.best_global_step
        metric = self.args.metric_for_best_model
        if metric and key_of_metric(metric) not in metrics and not chooses_checkpoints(self.args):
            return False  # of unlabelled documents, or of several evaluation sets
        is_better = super()._determine_best_metric(metrics, trial)
        if not can_be_kept(self.args, self.control):  # or a better one that is saved later would not count
            self.state.best_metric, self.state.best_global_step = before
            return False
        if is_better:
            return True
        gain = gain_of_tie(metrics, self.state, metric)
        if gain is None or gain < 0:  # of equal ones the later
            return False
        self.state.best_global_step = self.state.global_step
        return True

    def _save_checkpoint(self, model, trial):
        folder = Path(self._get_output_dir(trial))
        checkpoint = folder / f"checkpoint-{self.state.global_step}"
        self._saves_checkpoint = True
        try:
            with (
                full_disk_is_named(folder, checkpoint_size(self.model, self.optimizer)),
                being_saved(checkpoint) if self.args.should_save else nullcontext(),
                self._deleting_nothing(),
            ):
                super()._save_checkpoint(model, trial)
        finally:
            self._saves_checkpoint = False
        self._delete_old_checkpoints(trial)

    def _finalize_training(self, trial, *args, **kwargs):
        with self._deleting_nothing():
            output = super()._finalize_training(trial, *args, **kwargs)
        if self.args.save_total_limit == 1:  # until now there was a second one, the newest, to resume from
            self._delete_old_checkpoints(trial, ended=True)
        return output

    @contextmanager
    def _deleting_nothing(self):
        """The parent would delete every folder called checkpoint-*, even one that is not the trainer's."""
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            yield
        finally:
            self.args.save_total_limit = limit

    def _delete_old_checkpoints(self, trial, ended=False):
        if self.args.should_save:
            folder, limit = self._get_output_dir(trial), self.args.save_total_limit
            delete_old_checkpoints(
                folder, limit, self.state.global_step, self.state.best_model_checkpoint, ended=ended
            )

    def _save(self, output_dir=None, state_dict=None):
        with full_disk_is_named(output_dir or self.args.output_dir, checkpoint_size(self.model, self.optimizer)):
            if self.args.should_save:
                with replacing_folder(output_dir or self.args.output_dir) as folder:
                    self._save_weights(folder, state_dict)
            else:  # of several processes that hold a part of the model each
                super()._save(output_dir, state_dict)

    def create_model_card(self, model_name: str | None = None, tags: str | Sequence[str] = ()) -> None:
        """Writes the model card from `run_record`, or from what the trainer itself knows of the run."""
        if self.is_world_process_zero():
            record = self.run_record or trainer_record(self)
            tags = [tags] if isinstance(tags, str) else tags
            write_model_card(self.args.output_dir, record, repo_id=self.hub_model_id, name=model_name, tags=tags)
