"""Adapters such as LoRA, which the package `peft` puts into a model: what trains with them, and what is saved."""

import copy
from pathlib import Path

from torch import nn
from transformers.utils import logging

logger = logging.get_logger(__name__)

_HOW = 'get_peft_model(model, LoraConfig(target_modules=[...], modules_to_save=["relation_encoder"]))'


def has_adapters(model: nn.Module) -> bool:
    """Whether a model is one of peft's, around ours."""
    return _is_of_peft(model)


def _is_of_peft(module):
    return type(module).__module__.partition(".")[0] == "peft"


def check_adapters(model: nn.Module) -> None:
    """
    Checks before training that what is trained can be saved and loaded again. If the relation encoder is not trained, a
    warning says so.

    Raises:
        ValueError: adapters were put into the model by another way than peft's `get_peft_model`; the message has the call that
            works.
    """
    if not has_adapters(model):
        if any(_is_of_peft(module) for module in model.modules()):
            raise ValueError(
                f"CommTrainer: found adapters inside a {type(model).__name__}, which it could not save; expected {_HOW}"
            )
        return
    if not any(parameter.requires_grad for parameter in model.relation_encoder.parameters()):
        logger.warning("the relation encoder is not trained, only the adapters are; to train it, too: %s", _HOW)


def save_merged(model: nn.Module, folder: str | Path) -> None:
    """Saves a model with its adapters merged into the weights: a checkpoint like any other, which needs no peft."""
    copy.deepcopy(model).merge_and_unload().save_pretrained(folder)
