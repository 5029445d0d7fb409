"""A checkpoint for other relations: what it knows of labels that stay is kept."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig

from .configuration_comm import CommConfig
from .losses import available_losses, get_loss
from .relation_encoders import get_relation_encoder

HUB_ARGUMENTS = ("cache_dir", "revision", "token", "subfolder", "local_files_only")


def take_other_labels(source: Any, config: Any, fields: Mapping, kwargs: dict) -> tuple[Any, dict | None]:
    """
    Finds out whether a checkpoint is loaded for other labels than its own.

    Args:
        source (`str`, *optional*): the checkpoint.
        config ([`CommConfig`] or `str`, *optional*): as given to `from_pretrained`; `AutoModel` puts the labels there.
        fields (`Mapping`): of `config`, or, where that is none, of the checkpoint's configuration.
        kwargs (`dict`): further arguments of `from_pretrained`, out of which the labels are taken, and the loss with its
            settings, which may name them.

    Returns:
        the configuration to load with, and the arguments of [`CommForDocumentRelationExtraction.set_labels`] afterwards, None if
        the labels are the checkpoint's own.

    Raises:
        ValueError: the labels are others, and `ignore_mismatched_sizes` is not set.
    """
    ignore = kwargs.get("ignore_mismatched_sizes", False)
    wanted = None if isinstance(config, PreTrainedConfig) else kwargs.get("id2label")
    if wanted is not None and not isinstance(wanted, Mapping):
        raise ValueError(f"id2label is {wanted!r:.100}; expected a dict of ids to labels")
    if config is not None:
        if source is None:
            return config, None
        hub = {key: kwargs[key] for key in HUB_ARGUMENTS if key in kwargs}
        try:
            wanted, fields = wanted or fields.get("id2label"), PreTrainedConfig.get_config_dict(source, **hub)[0]
        except OSError:  # weights alone, whose labels nothing tells
            return config, None
    saved = {int(index): label for index, label in (fields.get("id2label") or {}).items()}
    if fields.get("model_type") != CommConfig.model_type:  # a bare encoder, which is refused elsewhere
        return config, None
    if wanted is None or {int(index): label for index, label in wanted.items()} == saved:
        return config, None
    if not ignore:
        raise ValueError(
            f"{str(source)!r} was trained for {len(saved)} other labels than id2label has; expected "
            "ignore_mismatched_sizes=True, with which it can be trained further for these"
        )
    kwargs.pop("id2label", None)
    kwargs.pop("label2id", None)
    if not isinstance(config, PreTrainedConfig):
        if config is not None:  # a path, where the labels are not the checkpoint's
            kwargs["id2label"] = saved
        return config, {"id2label": wanted, **take_fields_of_loss(kwargs)}
    fields = config_fields(config)
    of_loss = take_fields_of_loss(fields)
    with_saved = type(config)(**fields | {"id2label": saved})
    with_saved._attn_implementation = config._attn_implementation
    return with_saved, {"id2label": wanted, **of_loss}


def take_fields_of_loss(fields: dict) -> dict:
    """Takes the loss and the settings of losses out of a configuration's fields, and returns them. Those by relation fit the
    labels that a model will have, and perhaps not those that it has."""
    names = {"loss", *(setting.field for name in available_losses() for setting in get_loss(name).settings)}
    return {name: fields.pop(name) for name in names & fields.keys()}


@torch.no_grad()
def copy_label_rows(
    source: nn.Module, target: nn.Module, config: CommConfig, before: Mapping[int, str], after: Mapping[int, str]
) -> None:
    """
    Copies a relation encoder's weights into one with other labels, in place. Along the dimensions that have the size of the
    labels only the rows of labels that both have are copied, the threshold class's among them, whatever its name.

    Args:
        source, target (`nn.Module`): the relation encoders with the labels before and after.
        config ([`CommConfig`]): the target's.
        before, after (`Mapping[int, str]`): `id2label` of source and target.
    """
    # Which dimensions these are, a third encoder tells, with one label more: sizes of others may be equal by chance.
    wider = CommConfig(**config_fields(config) | {"id2label": {**after, len(after): _new_label(after)}})
    with torch.device("meta"):
        shapes = get_relation_encoder(config.relation_encoder).build(wider).state_dict()
    ids = {label: index for index, label in before.items()}
    kept = [(0, 0), *((index, ids[label]) for index, label in after.items() if index and ids.get(label))]
    new_rows, old_rows = (torch.tensor(rows) for rows in zip(*kept, strict=True))
    weights = source.state_dict()
    for name, value in target.state_dict().items():
        sizes = zip(value.shape, shapes[name].shape, strict=True)
        dimensions = [dimension for dimension, (size, wider_size) in enumerate(sizes) if size != wider_size]
        if not dimensions:
            value.copy_(weights[name])
        elif len(dimensions) == 1:  # more: of pairs of labels, say; such weights stay new
            rows = weights[name].to(value.device).index_select(dimensions[0], old_rows.to(value.device))
            value.index_copy_(dimensions[0], new_rows.to(value.device), rows.to(value.dtype))


def config_fields(config: CommConfig) -> dict:
    """The arguments that build a configuration again; those that follow from others are left out."""
    fields = config.to_dict() | {"text_config": config.text_config}
    return {name: value for name, value in fields.items() if name not in ("model_type", "label2id", "num_labels")}


def _new_label(labels):
    name = "new"
    while name in labels.values():
        name += "'"
    return name
