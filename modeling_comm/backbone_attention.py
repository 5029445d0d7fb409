"""Attention for the backbone: sdpa everywhere, plus the last layers' attention probabilities at the mention rows only.

ATLOP and its successors read the last layer's attention, DREEAM that of the last three, but only the rows of mentions' start
markers. Computing all of it (`output_attentions=True` with eager attention) costs the speed of sdpa's kernels and
`layers x heads x length^2` numbers of memory; the rows alone are a small matrix product.

The rows asked for travel as a keyword argument of the backbone's forward and come back in its `attentions`: nothing is kept
on a module between calls, so that gradient checkpointing, DDP and interleaved forwards are safe.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import CONFIG_MAPPING, AttentionInterface, AttentionMaskInterface, AutoConfig, PreTrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from .config_checks import check_given_fields, plain_errors, read_fields

SDPA_WITH_ROWS = "comm_sdpa"

_LOCAL = "its attention is local or sparse, and pair contexts need each mention's attention to the whole window"
_NOT_TEXT_ALONE = "it expects more than text"
# Encoders, by model type, that would run and give wrong results, or fail somewhere inside.
UNSUITABLE_BACKBONES = {
    **dict.fromkeys(("longformer", "big_bird", "reformer", "nystromformer", "yoso", "mra"), _LOCAL),
    **dict.fromkeys(("layoutlm", "tapas", "luke", "perceiver", "modernvbert"), _NOT_TEXT_ALONE),
    **dict.fromkeys(("esm", "esmc"), "it reads proteins"),
    "funnel": "it shortens its input, so that its states do not belong to subword tokens",
    "convbert": "its convolutions mix padding into the text, so that results would depend on the batch",
    "fnet": "it has no attention",
    "squeezebert": "it returns attention scores instead of probabilities",
    "comm": "it is a COMM model already; load it with from_pretrained",
}


def load_backbone_config(backbone: str, **hub: Any) -> PreTrainedConfig:
    """
    The configuration of a bare encoder. No code of its repository runs, and nothing is asked.

    Args:
        backbone (`str`): name or folder of the encoder.
        hub: `cache_dir`, `revision`, `token`, `subfolder`, `local_files_only`.

    Returns:
        `PreTrainedConfig`: of a class that Transformers has.

    Raises:
        ValueError: Transformers does not know the encoder's type, whether or not its repository has code for it.
    """
    fields = read_fields(backbone, **hub)
    check_given_fields(fields, str(backbone))
    model_type = fields.get("model_type")
    if model_type not in CONFIG_MAPPING:
        raise ValueError(
            f"{str(backbone)!r} has the model type {model_type!r}; expected one that Transformers knows: a backbone's own "
            "code is never run"
        )
    with plain_errors(str(backbone)):
        return AutoConfig.from_pretrained(backbone, trust_remote_code=False, **hub)


def check_backbone_config(text_config: PreTrainedConfig, averaged_layers: int = 1) -> None:
    """Raises `ValueError`, with the reason, where a backbone of this configuration cannot serve, or has fewer layers than
    `averaged_layers`."""
    model_type = text_config.model_type
    reason = UNSUITABLE_BACKBONES.get(model_type)
    if reason is None and getattr(text_config, "is_encoder_decoder", False):
        reason = "it is an encoder-decoder"
    if reason is None and getattr(text_config, "is_decoder", False):
        reason = "it is configured as a decoder, which attends to earlier words only"
    if reason is None and model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        reason = "it is not an encoder that was trained to fill in words from both sides"
    layer_types = getattr(text_config, "layer_types", None) or ["full_attention"]
    local = sorted(set(layer_types[-averaged_layers:]) - {"full_attention"})
    if reason is None and local:
        layers = "last layer has" if averaged_layers == 1 else f"last {averaged_layers} layers (averaged_layers) have"
        reason = (
            f"its {layers} {', '.join(local)}, and pair contexts need each mention's attention to the whole window"
        )
    if reason is None and not (
        getattr(text_config, "hidden_size", None) and getattr(text_config, "num_attention_heads", None)
    ):
        reason = "its configuration has no hidden_size or no num_attention_heads"
    if reason is not None:
        raise ValueError(
            f"{model_type!r} cannot be COMM's backbone: {reason}. Encoders such as bert, roberta, xlm-roberta, electra, "
            "distilbert, mpnet, deberta-v2 and modernbert can."
        )


def check_attention_implementation(name: str | None) -> None:
    """Raises `ValueError` where the backbone is asked for an attention that gives no probabilities."""
    if name not in (None, "sdpa", "eager", SDPA_WITH_ROWS):
        raise ValueError(
            f"attn_implementation of the backbone is {name!r}, which gives no attention probabilities, and COMM reads the "
            "last layers'; expected 'sdpa' (the default) or 'eager'"
        )


def mark_last_attention(backbone: nn.Module, layers: int = 1) -> None:
    """Finds the attention modules of the backbone's last layers and marks them as those that return mention rows.

    Args:
        backbone (`nn.Module`): The encoder.
        layers (`int`, defaults to 1): How many of its last layers are read.

    Raises:
        ValueError: there are fewer, or one of them is causal.
    """
    recorders = getattr(backbone, "_can_record_outputs", None) or {}
    recorders = recorders.get("attentions", ())
    recorders = recorders if isinstance(recorders, (list, tuple)) else (recorders,)
    classes = tuple(getattr(recorder, "target_class", recorder) for recorder in recorders)
    last = [module for module in backbone.modules() if isinstance(module, classes)][-layers:]
    if len(last) < layers:
        raise ValueError(
            f"{backbone.config.model_type!r} cannot be COMM's backbone: it has attention to read in {len(last)} layers; expected "
            f"{layers} at least"
        )
    if any(getattr(module, "is_causal", False) for module in last):
        raise ValueError(
            f"{backbone.config.model_type!r} cannot be COMM's backbone: its attention is causal, mentions would see "
            "earlier words only"
        )
    for module in last:
        module.returns_mention_rows = True


def without_capturing_hooks(module: nn.Module, copies: dict[nn.Module, nn.Module] | None = None) -> nn.Module:
    """
    A copy of the module tree that shares its tensors and lacks the hooks by which Transformers captures a backbone's outputs.
    They are functions inside a function, which cannot be pickled. The first call installs them, and does so again for the copy.

    Args:
        module (`nn.Module`): any module; it is left as it is.
        copies (`dict[nn.Module, nn.Module]`, *optional*): copies of modules that were met before, so that one that is in two
            places stays one.
    """
    copies = {} if copies is None else copies
    if module not in copies:
        copies[module] = copied = module.__new__(type(module))
        state = dict(module.__dict__)
        state.pop("_output_capturing_hooks_installed", None)
        hooks = module._forward_hooks.items()
        state["_forward_hooks"] = OrderedDict((key, hook) for key, hook in hooks if not _captures_outputs(hook))
        children = module._modules.items()
        state["_modules"] = {name: child and without_capturing_hooks(child, copies) for name, child in children}
        copied.__dict__ = state
    return copies[module]


def _captures_outputs(hook):
    return getattr(hook, "__module__", None) == "transformers.utils.output_capturing"


def sdpa_attention_with_rows(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    mention_rows: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Transformers' sdpa attention; in the marked modules also the probabilities of the rows asked for.

    Args:
        mention_rows (`(W, M)` int64, *optional*): rows (positions in the window) whose attention is wanted; any valid row
            where there is none.

    Returns:
        attention output, and `(W, A, M, L)` float32 probabilities before dropout, or None.
    """
    kwargs.pop("output_attentions", None)  # sdpa would warn that it has none to give
    output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    if mention_rows is None or not getattr(module, "returns_mention_rows", False):
        return output, None
    if scaling is None:
        scaling = query.shape[-1] ** -0.5
    key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)  # grouped heads share their keys
    index = mention_rows[:, None, :, None].expand(-1, query.shape[1], -1, query.shape[-1])
    scores = torch.matmul(query.gather(2, index), key.transpose(2, 3)).float() * scaling
    if attention_mask is not None:
        mask = attention_mask
        if mask.shape[2] != 1:
            mask = mask.expand(-1, -1, query.shape[2], -1)
            rows = mention_rows[:, None, :, None].expand(-1, mask.shape[1], -1, mask.shape[3])
            mask = mask.expand(rows.shape[0], -1, -1, -1).gather(2, rows)
        lowest = torch.finfo(scores.dtype).min
        scores = scores.masked_fill(~mask, lowest) if mask.dtype == torch.bool else scores + mask
    return output, scores.softmax(-1)


def rows_of_matrix(attention: torch.Tensor, mention_rows: torch.Tensor, model_type: str) -> torch.Tensor:
    """The rows `(W, A, M, L)` at `mention_rows` `(W, M)` of whole attention matrices.

    Raises:
        ValueError: the backbone, which is of this type, gives something else.
    """
    if attention.shape[-1] != attention.shape[-2]:
        raise ValueError(
            f"{model_type!r} cannot be COMM's backbone: its attentions have the shape {tuple(attention.shape)}; expected "
            "(windows, heads, length, length)"
        )
    index = mention_rows[:, None, :, None].expand(-1, attention.shape[1], -1, attention.shape[-1])
    return attention.gather(2, index)


def mean_of_layers(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """The mean of tensors of equal shape, one a layer."""
    return tensors[0] if len(tensors) == 1 else torch.stack(tuple(tensors)).mean(0)


def mask_without_waiting(*args: Any, **kwargs: Any) -> torch.Tensor | None:
    """Transformers' sdpa mask, made whether there is padding or not: to look would wait for the device."""
    return sdpa_mask(*args, **{**kwargs, "allow_is_bidirectional_skip": False})


AttentionInterface.register(SDPA_WITH_ROWS, sdpa_attention_with_rows)
# Without a mask function of the same name, padding would be attended to in silence.
AttentionMaskInterface.register(SDPA_WITH_ROWS, mask_without_waiting)
