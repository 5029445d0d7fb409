"""Stores the logits of a teacher for a run of `run_docre.py` that trains a student."""

import logging
import time
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from ..documents import Document
from ..features import what_was_lost
from ..reporting.redaction import redact
from ..reporting.run_record import Provenance
from .build_model import is_comm_checkpoint, load_checkpoint
from .distillation import finish_teacher_logits, predict_teacher_logits
from .script_arguments import Arguments

logger = logging.getLogger(__name__)


def predict_teacher(
    arguments: Arguments, documents: Iterable[Document], source: Mapping[str, Any], total: int | None = None
) -> None:
    """
    Stores the logits of a teacher, a finished checkpoint, in `--teacher_logits`.

    Args:
        arguments (`Arguments`): name the teacher and the folder.
        documents (`Iterable[dict]`): in DocRED's format.
        source (`dict`): where they come from, for the record.
        total (`int`, *optional*): their number, for the progress bar.

    Raises:
        ValueError: the model is a bare encoder, or the folder holds other logits.
    """
    started, training, folder = time.time(), arguments.training, arguments.distillation.teacher_logits
    if not is_comm_checkpoint(arguments.model):
        raise ValueError(
            f"--model_name_or_path {arguments.model.model_name_or_path} is a bare encoder; --do_predict_teacher needs a trained "
            "teacher"
        )
    model, processor = load_checkpoint(arguments.model)
    half = torch.bfloat16 if training.bf16 else torch.float16
    number = predict_teacher_logits(
        model.to(training.device),
        processor,
        documents,
        folder,
        batch_size=training.per_device_eval_batch_size,
        max_length=arguments.data.max_length,
        rank=training.process_index,
        world_size=training.world_size,
        autocast=lambda: torch.autocast(training.device.type, half, enabled=training.bf16 or training.fp16),
        total=total,
    )
    training.distributed_state.wait_for_everyone()
    if training.process_index == 0:
        record = Provenance.of_this_process(training, started, model.dtype).to_dict() | {
            "teacher": redact(arguments.model.model_name_or_path),
            "data": redact({"config": arguments.data.dataset_config, "files": {"train": source}}),
        }
        lost = what_was_lost(finish_teacher_logits(folder, number, record)["encoding"])
        logger.info("%s: logits of %d documents; lost in encoding: %s", folder, number, lost or "nothing")
