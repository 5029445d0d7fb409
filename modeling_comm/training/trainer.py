"""Training and evaluation of COMM models with Transformers' Trainer."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from accelerate.utils import broadcast, gather_object
from torch.utils.data import DataLoader
from transformers import TrainerCallback
from transformers.trainer_utils import EvalLoopOutput, PredictionOutput, TrainOutput
from transformers.utils import logging

from ..evaluation.scoring import IgnReference
from ..extensions import check_extensions
from ..losses import get_loss
from ..modeling_comm import CommForDocumentRelationExtraction
from ..number_types import warn_of_slow_bfloat16
from ..out_of_memory import naming_documents, sizes_of_batch
from ..processing_comm import CommProcessor
from .adapters import check_adapters
from .batching import (
    FEATURE_COLUMNS,
    DocumentBatchSampler,
    DocumentCollator,
    DocumentStream,
    EncodedOnDemand,
    FeatureRows,
    StreamedBatches,
)
from .checkpoint_files import last_complete_checkpoint, refuse_checkpoints_of_others, warn_of_other_checkpoints
from .checks import check_learnable, check_loss, check_strategies_of_stream
from .early_stopping import EarlyStopping
from .encode_dataset import check_labelled, column_of, encode_dataset, learn_relation_types
from .evaluation import EvaluatedDocuments, predict_batch
from .evaluation_sets import check_metric_of_several, encode_evaluation_set
from .evidence_training import EvidenceTraining
from .hyperparameter_search import HyperparameterSearch
from .results import nothing_predicted
from .saved_training import SavedTraining
from .tracked_training import TrackedTraining
from .training_args import CommTrainingArguments

logger = logging.get_logger(__name__)


class _TrainerHooks(TrainerCallback):
    def __init__(self, trainer):
        self.trainer = trainer

    def on_epoch_begin(self, args, state, control, **kwargs):
        if self.trainer.train_sampler is not None:  # a stream counts its passes itself
            self.trainer.train_sampler.set_epoch(int(state.epoch or 0))

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self.trainer.check_gradients()

    def on_epoch_end(self, args, state, control, **kwargs):
        # Losses are summed over processes where they are logged; what is left at the end would count for one process only.
        control.should_log |= args.logging_strategy != "no"


class CommTrainer(EarlyStopping, EvidenceTraining, HyperparameterSearch, SavedTraining, TrackedTraining):
    """
    [`Trainer`] for [`CommForDocumentRelationExtraction`].

    Data sets are lists or `datasets.Dataset`s of DocRED documents; they are encoded with `processing_class` unless
    they hold its features already. `train_dataset` may be an `IterableDataset` or a [`DocumentStream`], which are read while
    training runs; `eval_dataset` may be a dict of several, whose scores are then `eval_NAME_f1` and so on. What differs
    from the parent: learning rates of backbone and relation encoder; the loss is a mean over all pairs of a step, accumulated
    batches and processes included; evaluation scores whole documents (F1, Ign F1, average precision, predicted positives),
    identically on any number of processes; of evaluations with an equal metric, the one with the higher average precision is the
    better, for early stopping, too; a loss or gradient that is not finite stops the run; `train(resume_from_checkpoint=True)`
    takes the last complete checkpoint, and a training that had ended takes no further step.

    Args:
        args ([`CommTrainingArguments`]), processing_class ([`CommProcessor`]): the first has defaults, the second is needed.
        model, train_dataset, eval_dataset, callbacks: as in the parent, whose `data_collator`, `compute_loss_func` and
            `preprocess_logits_for_metrics` are refused.
        ign_reference (`IgnReference`, *optional*): facts for Ign F1, see [`~evaluation.scoring.load_ign_reference`].
        compute_metrics (`Callable[[list[Predictions]], dict[str, float]]`, *optional*): further metrics, from a
            [`~modeling_comm.decoding.Predictions`] for each document, with all margins; added to the trainer's own.

    Raises:
        ValueError: arguments or documents do not fit, or one process sees several GPUs.
        FloatingPointError: a loss, gradient or logit is not finite; the message names step, documents and values.
        DocumentMemoryError: out of memory; the message names the documents, their sizes and the settings that need less.
    """

    feature_columns: tuple[str, ...] = FEATURE_COLUMNS
    learns_from_facts = True  # and from nothing else

    def __init__(
        self,
        model: CommForDocumentRelationExtraction | None = None,
        args: CommTrainingArguments | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: CommProcessor | None = None,
        ign_reference: IgnReference | None = None,
        **kwargs: Any,
    ):
        args = CommTrainingArguments() if args is None else args
        if not isinstance(args, CommTrainingArguments):
            raise ValueError(f"CommTrainer: args is {type(args).__name__}; expected CommTrainingArguments")
        if args.n_gpu > 1:
            raise ValueError(
                f"{args.n_gpu} GPUs are visible to one process. Start one process per GPU: torchrun "
                f"--nproc_per_node {args.n_gpu} run_docre.py ... (or set CUDA_VISIBLE_DEVICES=0)"
            )
        if processing_class is None:
            raise ValueError("CommTrainer needs processing_class, the CommProcessor of the model")
        if model is not None:  # before anything is encoded
            processing_class.check_model(model.config)
        self.ign_reference = ign_reference
        self.run_record: Mapping | None = (
            None  # a script's own record of the run, if it has one: the model card then tells more
        )
        self.train_sampler = None
        self._step_documents = []
        self.stream_report, self._streamed_facts = Counter(), 0
        self._keep_margins = False
        self._evaluations_without_predictions = Counter()  # in a row, of each evaluation set
        # The parent takes them, and training and evaluation here would never call them.
        unused = ("preprocess_logits_for_metrics", "data_collator", "compute_loss_func")
        refused = [name for name in unused if kwargs.get(name) is not None]
        if refused:
            raise ValueError(
                f"{', '.join(refused)} given; CommTrainer collates batches and computes the loss itself, leave it out"
            )
        if hasattr(train_dataset, "__iter__") and not hasattr(train_dataset, "__len__"):  # an IterableDataset
            train_dataset = DocumentStream(train_dataset)
        if isinstance(train_dataset, DocumentStream):
            check_strategies_of_stream(args)
        elif train_dataset is not None:
            train_dataset = encode_dataset(train_dataset, processing_class)
        if isinstance(eval_dataset, Mapping):
            check_metric_of_several(args, eval_dataset)
            eval_dataset = {
                name: encode_evaluation_set(one, args, processing_class) for name, one in eval_dataset.items()
            }
        elif eval_dataset is not None:
            eval_dataset = encode_evaluation_set(eval_dataset, args, processing_class)
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            data_collator=DocumentCollator(processing_class),
            **kwargs,
        )
        processing_class.check_model(self.model.config)  # of a model_init, too
        check_adapters(self.model)
        check_loss(self.model.config, processing_class.candidates)
        self._warn_of_other_threshold()
        if args.bf16:
            warn_of_slow_bfloat16(args.device, torch.bfloat16, "leave out bf16 (`--bf16`)")
        self.model_accepts_loss_kwargs = True  # the model divides by the pairs counted below
        self.add_callback(_TrainerHooks(self))

    # ---------------------------------------------------------------------------------------------------------- training

    def get_train_dataloader(self) -> DataLoader:
        if isinstance(self.train_dataset, DocumentStream):
            return self._loader(self._encoded_stream(), self._sampler(StreamedBatches, self.train_dataset))
        if not self.train_dataset:
            raise ValueError("CommTrainer: training requires a train_dataset with documents")
        check_labelled(self.train_dataset, "training", "all of them need labels")
        check_learnable(self.train_dataset, self.model.config.id2label, self.learns_from_facts)
        lengths = [len(ids) for ids in column_of(self.train_dataset, "input_ids")]
        self.train_sampler = self._sampler(DocumentBatchSampler, lengths)
        return self._loader(FeatureRows(self.train_dataset, self.feature_columns), self.train_sampler)

    def _sampler(self, sampler_class, documents):
        return sampler_class(
            documents,
            batch_size=self.args.per_device_train_batch_size,
            world_size=self.args.world_size,
            rank=self.args.process_index,
            seed=self.args.data_seed if self.args.data_seed is not None else self.args.seed,
            order=self.args.train_sampling_strategy,
        )

    def _encoded_stream(self):
        return EncodedOnDemand(self.processing_class, self.train_dataset.max_length)

    def _loader(self, dataset, sampler):
        return DataLoader(
            dataset,
            batch_sampler=sampler,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            prefetch_factor=self.args.dataloader_prefetch_factor,
            persistent_workers=self.args.dataloader_persistent_workers,
            pin_memory=self.args.dataloader_pin_memory and torch.cuda.is_available(),
            generator=torch.Generator(),  # not the global one, whose state must not depend on how often we iterate
        )

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            model = self.model if model is None else model
            backbone = {id(parameter) for parameter in model.backbone.parameters()}
            decayed = set(self.get_decay_parameter_names(model))
            groups = {}
            for name, parameter in model.named_parameters():
                if parameter.requires_grad:
                    in_backbone, decays = id(parameter) in backbone, name in decayed
                    groups.setdefault((in_backbone, decays), []).append(parameter)
            self._head_group = next((at for at, (in_backbone, _) in enumerate(groups) if not in_backbone), None)
            given = self.optimizer_cls_and_kwargs
            optimizer_class, arguments = given or self.get_optimizer_cls_and_kwargs(self.args, model)
            self.optimizer = optimizer_class(
                [
                    {
                        "params": parameters,
                        "lr": self.args.learning_rate if in_backbone else self.args.head_learning_rate,
                        "weight_decay": self.args.weight_decay if decays else 0.0,
                    }
                    for (in_backbone, decays), parameters in groups.items()
                ],
                **arguments,
            )
        return self.optimizer

    def _get_num_items_in_batch(self, batch_samples, device):
        pairs = sum(len(batch["pair_index"]) for batch in batch_samples)
        if self.accelerator.unwrap_model(self.model).relation_encoder.self_pairs_in_loss:
            pairs += sum(int(batch["entity_mask"].sum()) for batch in batch_samples)
        self._count_evidence(batch_samples, device)
        return self._sum_over_processes(pairs, device).clamp(min=1)

    def _sum_over_processes(self, number, device):
        number = torch.tensor(number, device=device)
        return self.accelerator.gather(number.reshape(1)).sum() if self.args.world_size > 1 else number

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        indices, batch = inputs["document_index"], {**inputs}

        def sizes():
            return sizes_of_batch(batch, indices, self._titles(indices))

        with naming_documents(sizes, self._less_memory("train")):
            return super().training_step(model, inputs, *args, **kwargs)

    def _less_memory(self, stage):
        """What would need less memory, as far as it is not used yet."""
        args, advice = self.args, []
        size = getattr(args, f"per_device_{stage}_batch_size")
        if size > 1:
            more = " with more gradient_accumulation_steps" if stage == "train" else ""
            advice.append(f"per_device_{stage}_batch_size below {size}{more}")
        if stage == "train":
            bound = 1024 if args.pairs_at_once is None else args.pairs_at_once // 2
            advice.append(f"pairs_at_once={max(bound, 1)}")
            if not args.gradient_checkpointing:
                advice.append("gradient_checkpointing=True")
        return ", ".join([*advice, "or a max_length that cuts long documents"])

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        inputs = dict(inputs)
        self._step_documents += inputs.pop("document_index")
        self.stream_report.update(inputs.pop("encoding", {}))
        if isinstance(self.train_dataset, DocumentStream):
            self._streamed_facts = self._streamed_facts + inputs["labels"][:, 1:].sum()
        bounds = {"num_evidence_pairs": self._evidence_pairs, "pairs_at_once": self.args.pairs_at_once}
        outputs = model(**inputs, num_items_in_batch=num_items_in_batch, **bounds)
        if not torch.isfinite(outputs.loss):
            raise FloatingPointError(
                f"step {self.state.global_step}: the loss is {outputs.loss.item()}; documents {self._documents_of_step()}; "
                f"logits from {outputs.logits.min().item()} to {outputs.logits.max().item()}"
            )
        if outputs.evidence_loss is not None:
            self._add_to_log("evidence_loss", outputs.evidence_loss.detach() * self.args.world_size)
        # DDP averages gradients over processes, but the loss is a share of the sum over all of them.
        loss = outputs.loss * self.args.world_size
        return (loss, outputs) if return_outputs else loss

    def check_gradients(self) -> None:
        """Raises `FloatingPointError` before an optimizer step whose gradients are not finite; in fp16, where loss scaling skips
        such steps, once it has scaled the loss down below 1 in vain."""
        scaler = self.accelerator.scaler
        if scaler is None:
            gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
            norm = torch.nn.utils.get_total_norm(gradients)
            bad = None if torch.isfinite(norm) else f"the gradient's norm is {norm.item()}"
        else:
            bad = (
                None if scaler.get_scale() >= 1 else f"gradients overflow even at a loss scale of {scaler.get_scale()}"
            )
        if bad:
            raise FloatingPointError(f"step {self.state.global_step}: {bad}; documents {self._documents_of_step()}")
        self._step_documents = []

    def gather_stream_report(self) -> dict[str, int]:
        """Counts of encoding and its losses over the documents of a stream, summed over processes."""
        reports = gather_object([dict(self.stream_report)])
        return {key: sum(report.get(key, 0) for report in reports) for key in reports[0]}

    def _documents_of_step(self):
        return self._titles(self._step_documents)

    def _titles(self, documents):
        return [one if isinstance(one, str) else self.train_dataset[one]["title"] for one in documents]

    def _warn_of_other_threshold(self):
        loss, found = self.model.config.loss, self.processing_class.decision.decision_threshold
        expected = get_loss(loss).decision_threshold
        if found != expected:
            logger.warning(
                "the loss %r decides with decision_threshold=%r; the processor has %r", loss, expected, found
            )

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        *,
        keep_threshold_offset: bool = False,
        keep_evidence_threshold: bool = False,
        keep_fusion_threshold: bool = False,
        **kwargs: Any,
    ) -> TrainOutput:
        """
        As the parent's, with differences: what was tuned for other weights is removed, and with a `type_constraint` the
        processor learns the types of head and tail that each relation has in the training documents.

        Args:
            resume_from_checkpoint (`bool` or `str`, *optional*): `True` takes the last complete checkpoint.
            keep_threshold_offset (`bool`, defaults to `False`): keeps the processor's `threshold_offset`. By default it is
                set to 0, because it was tuned for other weights; `probability_map` is removed in any case.
            keep_evidence_threshold (`bool`, defaults to `False`): keeps the processor's `evidence_threshold`. By default it is
                set to 0.2 where the configuration has an `evidence_weight`, and to none elsewhere.
            keep_fusion_threshold (`bool`, defaults to `False`): keeps the processor's `fusion_threshold`, which is else removed.

        Raises:
            ValueError: the output folder has a `checkpoint-NUMBER` that is not empty and that no training has saved.
        """
        refuse_checkpoints_of_others(self._get_output_dir(kwargs.get("trial")))
        self.processing_class.decision.clear_tuned(keep_threshold_offset, keep_fusion_threshold)
        if not keep_evidence_threshold:
            self._reset_evidence_threshold()
        learn_relation_types(self.processing_class, self.train_dataset)
        if resume_from_checkpoint is True:
            resume_from_checkpoint = last_complete_checkpoint(self.args.output_dir, self.args.world_size)
            if resume_from_checkpoint is None:
                raise ValueError(f"resume_from_checkpoint=True: no complete checkpoint in {self.args.output_dir!r}")
        if self.args.save_strategy != "no" and self.model is not None:  # a search makes a model for each trial
            check_extensions(self.model)  # not after an epoch
        if self.args.should_save:
            warn_of_other_checkpoints(self._get_output_dir(kwargs.get("trial")), resume_from_checkpoint or None)
        self._evaluations_without_predictions.clear()
        result = super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)
        if isinstance(self.train_dataset, DocumentStream) and self.learns_from_facts and self.stream_report:
            facts = torch.as_tensor(self._streamed_facts, dtype=torch.float32, device=self.args.device)
            if not self.accelerator.reduce(facts, "sum"):
                logger.warning("the documents of the stream had no fact: the model has learnt to predict none")
        return result

    # -------------------------------------------------------------------------------------------------------- evaluation

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        dataset = self.evaluation_documents(eval_dataset)
        dataset = encode_dataset(dataset, self.processing_class, allow_unknown_relations=True)
        sampler = DocumentBatchSampler(
            lengths=np.zeros(len(dataset)),
            batch_size=self.args.per_device_eval_batch_size,
            world_size=self.args.world_size,
            rank=self.args.process_index,
            order="sequential",
        )
        return self._loader(FeatureRows(dataset), sampler)

    get_test_dataloader = get_eval_dataloader

    def evaluation_documents(self, given: Any) -> Any:
        """The data set given, that of a name, or the trainer's only one."""
        dataset = self.eval_dataset if given is None else given
        if isinstance(given, str):
            names = sorted(self.eval_dataset) if isinstance(self.eval_dataset, Mapping) else []
            if given not in names:
                raise ValueError(f"CommTrainer: found the evaluation set {given!r}; expected one of {names}")
            dataset = self.eval_dataset[given]
        if dataset is None:
            raise ValueError("CommTrainer: evaluation requires an eval_dataset")
        if isinstance(dataset, Mapping):
            raise ValueError(
                f"CommTrainer: found several evaluation sets, {sorted(dataset)}; expected one of these names"
            )
        return dataset

    def predict(
        self,
        test_dataset: Any,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "test",
        *,
        keep_margins: bool = False,
    ) -> PredictionOutput:
        """
        As the parent's: `predictions` of the result is a list of [`~modeling_comm.decoding.Predictions`], one per document.

        Args:
            keep_margins (`bool`, defaults to `False`): whether they hold `pairs`, `margins` and `labels`: 150 kB for a document
                of 20 entities and 96 relations, where 3 kB are kept otherwise.
        """
        self._keep_margins = keep_margins
        try:
            return super().predict(test_dataset, ignore_keys, metric_key_prefix)
        finally:
            self._keep_margins = False

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """One result per document, gathered by document index from all processes; `predictions` is a list of
        [`~modeling_comm.decoding.Predictions`] in the data set's order."""
        documents = dataloader.dataset.documents
        evaluated = self._evaluate_batches(dataloader, self._keep_margins or self.compute_metrics is not None)
        results = evaluated.results
        if [result.document_index for result in results] != list(range(len(documents))):
            raise RuntimeError(f"{description}: {len(results)} results for {len(documents)} documents")
        metrics = evaluated.metrics(documents, self.processing_class, self.ign_reference)
        map_ = self.processing_class.decision.probability_map
        self._warn_if_nothing_is_predicted(metric_key_prefix, nothing_predicted(metrics, evaluated.ranking, map_))
        if self.compute_metrics is not None:
            metrics |= self.compute_metrics(results)
        metrics = {f"{metric_key_prefix}_{key}": value for key, value in metrics.items()}
        return EvalLoopOutput(predictions=results, label_ids=None, metrics=metrics, num_samples=len(documents))

    def _warn_if_nothing_is_predicted(self, prefix, warning):
        in_a_row = self._evaluations_without_predictions
        in_a_row[prefix] = in_a_row[prefix] + 1 if warning else 0
        # The first epochs of a training that will do well may predict nothing.
        last = self.state.global_step >= self.state.max_steps
        if warning and (not self.is_in_train or last or in_a_row[prefix] == 3):
            logger.warning("%s: %s", prefix, warning)

    @torch.no_grad()
    def _evaluate_batches(self, dataloader, keep_margins=False, fusion_rule=None, under_cap=False):
        # The bare model: wrapped by DDP, processes with different numbers of batches would wait for each other.
        model = self.accelerator.unwrap_model(self.model)
        if self.place_model_on_device:
            model = model.to(self.args.device)
        model.eval()
        if self.args.world_size > 1:
            # DDP shares them at the next training step only, and one model is to be scored: that which is saved.
            for buffer in model.buffers():
                broadcast(buffer)
        evaluated = EvaluatedDocuments(keep_margins, self.args.world_size, under_cap)
        for batch in dataloader:
            if indices := batch["document_index"]:
                batch = self._prepare_inputs(batch)
                documents = dataloader.dataset.documents

                def sizes(batch=batch, indices=indices, documents=documents):
                    return sizes_of_batch(batch, indices, [documents[index]["title"] for index in indices])

                with self.accelerator.autocast(), naming_documents(sizes, self._less_memory("eval")):
                    evaluated.add(predict_batch(model, batch, self.processing_class, documents, fusion_rule))
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        if self.args.world_size > 1:
            evaluated, *others = gather_object([evaluated])
            evaluated.merge(others)
        evaluated.results.sort(key=lambda result: result.document_index)
        return evaluated

    def tune_threshold_offset(self, eval_dataset: Any = None) -> float:
        """
        Chooses the margin over the threshold that a relation needs for the best F1 on labelled documents, and sets it in the
        processor: from then on it decides with it, and it is saved with it.

        Args:
            eval_dataset: labelled documents that are not the test ones, or the name of one of several evaluation sets; by
                default the trainer's `eval_dataset`.

        Returns:
            `float`: the offset; rules are left out of account.

        Raises:
            ValueError: documents without labels.
        """
        loader = self.get_eval_dataloader(eval_dataset)
        check_labelled(loader.dataset.documents, "tuning", "tune_threshold_offset needs them")
        self.processing_class.decision.probability_map = None  # candidates are ranked by margin
        evaluated = self._evaluate_batches(loader, under_cap=True)
        offset, _ = evaluated.ranking.best_offset(evaluated.facts_out_of_reach(loader.dataset.documents))
        self.processing_class.decision.threshold_offset = offset
        return offset
