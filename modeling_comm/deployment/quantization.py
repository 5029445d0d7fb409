"""Int8 on CPUs: the backbone's linear layers, by torch's own dynamic quantization."""

import warnings

import torch
from torch import nn

from ..modeling_comm import CommPreTrainedModel


def quantize_backbone(model: CommPreTrainedModel) -> CommPreTrainedModel:
    """
    Stores the weights of the backbone's linear layers as int8, with one scale for each output. Their inputs are quantized when
    they are computed; everything else stays float32, the relation encoder as a whole.

    The model can predict afterwards, and be pickled; it can neither be trained nor saved. Call `eval()` first.

    Args:
        model ([`CommPreTrainedModel`]): in float32, on the CPU; it is changed.

    Returns:
        the same model.

    Raises:
        ValueError: the model is on another device or in another dtype, or this torch has no dynamic quantization.
    """
    if model.device.type != "cpu" or model.dtype != torch.float32:
        raise ValueError(f"int8: found a model of {model.dtype} on {model.device}, expected torch.float32 on cpu")
    try:
        from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic
    except ImportError as error:
        raise ValueError(
            f"int8: found torch {torch.__version__} without torch.ao.quantization, expected a version that has it"
        ) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # its successor, torchao, is a package of its own
        warnings.filterwarnings("ignore", "torch.quantize_per_tensor", UserWarning)
        quantize_dynamic(model.backbone, {nn.Linear: per_channel_dynamic_qconfig}, inplace=True)
    return model
