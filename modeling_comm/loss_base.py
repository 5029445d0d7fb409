"""What a loss is, and the tools that losses share.

Every loss is one function `f(logits, labels, reduction="mean", *, ...)`:

- `logits` (`torch.FloatTensor` of shape `(P, R + 1)`, any floating dtype): one row per entity pair. Column 0 is the
  threshold class (TH), column `r` relation `r`.
- `labels` (`torch.Tensor` of shape `(P, R + 1)`, bool, integer or floating, values 0 and 1): column 0 is ignored. A
  pair has no relation (NA) when its columns `1..R` are all 0.
- `reduction` (`str`, *optional*, defaults to `"mean"`): `"mean"` over the pairs (what the published code of ATLOP and
  its successors does), `"sum"` (algorithm 1 of the COMM paper) or `"none"` (one value per pair).
- Every further keyword argument is a setting of the loss. Its annotation and its docstring declare it once, for the field
  `<loss>_<keyword>` of the configuration, the flag of the training script and the checks.

The result is computed and returned in float32, or in float64 for float64 logits; inputs are never changed. `P = 0`
gives a 0 that still has a gradient. Each loss raises a `ValueError` for shapes or labels that do not fit, an unknown
reduction and a parameter out of range. The docstrings of the losses list only what each adds to this.

Notation: `t` are the logits of one pair, `t_0` that of TH, `d_r = t_r - t_0`, `P` the gold relations, `N` all the
others (TH is in neither), and `s` the logistic function. Every loss but balanced softmax depends on `d` alone.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch.nn.functional import log_softmax, logsigmoid

from .settings import SettingError


def check_inputs(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Checks the inputs of a loss and brings them into the form it computes with.

    Args:
        logits (`torch.FloatTensor` of shape `(P, R + 1)`): Column 0 is the threshold class.
        labels (`torch.Tensor` of shape `(P, R + 1)`): 0 or 1; column 0 is ignored.

    Returns:
        `tuple[torch.Tensor, torch.BoolTensor]`: The logits `(P, R + 1)` in float32 (float64 stays), and which
        relations are gold, `(P, R)`.

    Raises:
        `SettingError`: The logits are not floating or not `(P, R + 1)` with `R >= 1`, or the labels have another shape,
        a complex dtype or values other than 0 and 1 (the values are looked at on the CPU only: elsewhere that would
        wait for the device).
    """
    if logits.ndim != 2 or logits.shape[1] < 2 or not logits.is_floating_point():
        expected = "a floating tensor of shape (pairs, 1 + relations), with at least one relation"
        raise SettingError("loss", "logits", _shown(logits), expected)
    if labels.shape != logits.shape or labels.is_complex():
        expected = f"0 and 1 in the shape of the logits, {tuple(logits.shape)}"
        raise SettingError("loss", "labels", _shown(labels), expected)
    relation_labels = labels[:, 1:]
    positive = relation_labels == 1
    if labels.device.type == "cpu" and not torch.compiler.is_compiling():
        neither = ~(positive | (relation_labels == 0))
        if neither.any():
            pair, column = neither.nonzero()[0].tolist()
            value = relation_labels[pair, column].item()
            raise SettingError("loss", f"labels[{pair}, {column + 1}]", value, "0 or 1")
    return logits.to(torch.promote_types(logits.dtype, torch.float32)), positive


def _shown(tensor):
    return f"{tuple(tensor.shape)} of {tensor.dtype}"


def relation_distances(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    The distances `d_r = t_r - t_0` of all relations to the threshold class, and which relations are gold.

    Arguments and errors are those of [`check_inputs`].

    Returns:
        `tuple[torch.Tensor, torch.BoolTensor]`: Both of shape `(P, R)`.
    """
    logits, positive = check_inputs(logits, labels)
    return logits[:, 1:] - logits[:, :1], positive


def reduce_losses(losses: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    """
    Reduces one loss per pair.

    Args:
        losses (`torch.FloatTensor` of shape `(P,)`): One loss per pair.
        reduction (`str`, *optional*, defaults to `"mean"`):
            `"mean"`, `"sum"` or `"none"`. No pairs at all give 0 for the first two.

    Raises:
        `SettingError`: `reduction` is none of these.
    """
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    if reduction == "mean":
        return losses.sum() / max(losses.shape[0], 1)
    raise SettingError("loss", "reduction", reduction, "'mean', 'sum' or 'none'")


def relation_values(values: Mapping[Any, float] | None, logits: torch.Tensor, default: float) -> torch.Tensor:
    """
    A number for each relation, from a setting that maps relations to numbers.

    Args:
        values (`dict[int, float]`, *optional*): What a loss receives for such a setting: column of the logits -> number.
        logits (`torch.FloatTensor` of shape `(P, R + 1)`): The loss's logits.
        default (`float`): The number of the relations that `values` lacks.

    Returns:
        `torch.FloatTensor` of shape `(R,)`: On the device of the logits, in float32 at least. Multiplied with what
        [`relation_distances`] returns, `(P, R)`, it weighs relations.
    """
    numbers = [float((values or {}).get(column, default)) for column in range(1, logits.shape[1])]
    return torch.tensor(numbers, dtype=torch.promote_types(logits.dtype, torch.float32), device=logits.device)


def toward_gold(distance: torch.Tensor, positive: torch.Tensor) -> torch.Tensor:
    """Eq. 2 of the COMM paper: the distance to the threshold, positive on the side where the gold label wants it."""
    return torch.where(positive, distance, -distance)


def rescaled_distance(distance: torch.Tensor, positive: torch.Tensor, shift: float) -> torch.Tensor:
    """Eq. 4 of the COMM paper: `log s(d)` for positives and `log min(s(-d) + shift, 1)` for the others."""
    toward = toward_gold(distance, positive)
    q = logsigmoid(toward)
    if shift == 0:  # log(sigmoid(x)) would underflow
        return q
    probability = torch.sigmoid(toward)
    # A constant 1 before the logarithm: loss and gradient are exactly 0 past the cut-off, and no log(0) can occur.
    outside = positive | (probability >= 1 - shift)
    return torch.where(positive, q, torch.log(torch.where(outside, 1.0, probability + shift)))


def log_softmax_where(mask: torch.Tensor, threshold: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """
    Log softmax per row over `threshold` `(P, 1)`, which comes first, and the `values` where `mask`; `-inf` elsewhere.
    Unlike that of `logsumexp`, its gradient stays accurate for large logits; and the threshold's own gradient comes
    straight from the softmax, not as a sum over distances that cancel.
    """
    return log_softmax(torch.cat([threshold, torch.where(mask, values, -math.inf)], dim=1), dim=1)
