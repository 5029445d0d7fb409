"""Types of numbers: what products and sums are computed in, and where half precision would be slow."""

import functools
from contextlib import AbstractContextManager, nullcontext

import torch
from transformers.utils import logging

logger = logging.get_logger(__name__)


def dense_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """What dense products are computed in: float32 at least on a CPU that has no instructions for less."""
    return sum_dtype(dtype) if device.type == "cpu" and not (dtype == torch.bfloat16 and _has_bfloat16()) else dtype


def sum_dtype(dtype: torch.dtype) -> torch.dtype:
    """What sums are kept in."""
    return torch.promote_types(dtype, torch.float32)


def at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    """Half precision has too few digits, and float16 too small a range, for products of attention and for logsumexp."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def without_autocast(device: str) -> AbstractContextManager:
    """Autocast switched off on a type of device."""
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()


def warn_of_slow_bfloat16(device: torch.device, dtype: torch.dtype, advice: str) -> None:
    """
    Warns where a backbone is to compute in bfloat16 on a CPU for which torch has no fast matrix product in it.

    Args:
        device (`torch.device`), dtype (`torch.dtype`): what it computes on and in.
        advice (`str`): how to compute in float32.
    """
    if device.type == "cpu" and dtype == torch.bfloat16 and not _multiplies_bfloat16():
        logger.warning(
            "this CPU has no instructions for bfloat16: a matrix product takes many times as long as in float32 (50 times, "
            "measured on such a CPU). To compute in float32, %s",
            advice,
        )


# torch offers both under these names alone, and not in each version.


@functools.cache
def _has_bfloat16():
    return any(getattr(torch.cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))


@functools.cache
def _multiplies_bfloat16():
    # Also where wider instructions take the place of those for bfloat16, at about the speed of float32.
    try:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    except AttributeError:  # a build without mkldnn: not known
        return True
