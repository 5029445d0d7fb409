"""The grouped bilinear map that relation encoders classify pairs with. It keeps nothing but its inputs for the backward pass, and
skips the cells of the logits' gradient that are exactly zero, which are nearly all of them with some losses (CMM, AML)."""

import functools
from contextlib import nullcontext
from typing import Any, Self

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from transformers.utils import logging

logger = logging.get_logger(__name__)

# Pairs whose outer products are in memory at a time: on a CPU those of one group, which stay in its cache.
PAIRS_AT_ONCE = 256
PAIRS_AT_ONCE_ON_DEVICE = 2048
# Measured on a CPU, see docs/performance.md. A cell of the gradient costs, by itself, this many times what it costs in a dense
# product; the outer products and their gradients cost a dense product as much as this many further columns.
CELL_COST = 2.0
OUTER_COST = 40.0


class GroupedBilinear(nn.Module):
    """
    Grouped bilinear map `(P, emb_size) x (P, emb_size) -> (P, out_features)`: both vectors are cut into groups of
    `block_size`; each group's outer product is weighted and summed (ATLOP, eq. 4 with groups).

    Forward takes `P emb_size block_size out_features` multiply-adds. Backward takes twice as many, or, where most of the result's
    gradient is exactly zero, `3 emb_size block_size` for each cell that is not. Memory: the outer products of at most
    `PAIRS_AT_ONCE` pairs; only head and tail are kept for the backward pass. There is no second derivative.

    A layer that replaces `linear`, such as an adapter or a quantized layer, is called with the outer products.

    Args:
        emb_size (`int`): size of head and tail, a multiple of `block_size`.
        block_size (`int`): size of a group.
        out_features (`int`): size of the result.
        bias (`bool`, *optional*, defaults to `True`): whether a bias is added.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        _keep_out_of_graphs()
        return super().__new__(cls)

    def __init__(self, emb_size: int, block_size: int, out_features: int, bias: bool = True):
        super().__init__()
        self.block_size = block_size
        self.linear = nn.Linear(emb_size * block_size, out_features, bias=bias)

    def forward(self, head: torch.Tensor, tail: torch.Tensor) -> torch.Tensor:
        if is_plain_linear(self.linear) and not torch.compiler.is_exporting():
            return _apply(head, tail, self.linear.weight, self.linear.bias, torch.compiler.is_compiling())
        if torch.is_grad_enabled() or torch.compiler.is_exporting():
            return self.linear(self._outer_products(head, tail))
        parts = zip(head.split(PAIRS_AT_ONCE), tail.split(PAIRS_AT_ONCE), strict=True)
        return torch.cat([self.linear(self._outer_products(*part)) for part in parts])

    def _outer_products(self, head, tail):
        groups = (-1, self.block_size)
        return (head.unflatten(1, groups)[..., :, None] * tail.unflatten(1, groups)[..., None, :]).flatten(1)


def is_plain_linear(layer: nn.Module) -> bool:
    """Whether `layer` computes `W x + b` and nothing else, so that its weight can be used without a call. An adapter and a
    quantized layer do not; a hook may watch the layer, or fetch its weight."""
    hooks = (layer._forward_pre_hooks, layer._forward_hooks, layer._backward_pre_hooks, layer._backward_hooks)
    is_linear = type(layer) is nn.Linear and type(layer.weight) is nn.Parameter
    return is_linear and "forward" not in vars(layer) and not any(hooks)


def _product(head, tail, weight, bias, is_compiling):
    if is_compiling:
        logger.warning_once("torch.compile does not compile the grouped bilinear map; its graph breaks there")
    device = head.device.type
    autocasts = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if autocasts else weight.dtype
    return _GroupedBilinearFunction.apply(head, tail, weight, bias, dtype)


_apply = _product


def _keep_out_of_graphs():
    """Has torch.compile call the product as it is. Done with the first layer: importing the compiler takes seconds."""
    global _apply
    if _apply is _product:
        _apply = torch.compiler.disable(_product)


class _GroupedBilinearFunction(torch.autograd.Function):
    """Computes with `dtype`, as `nn.Linear` does under autocast; each gradient has its tensor's dtype."""

    @staticmethod
    def forward(ctx, head, tail, weight, bias, dtype):
        ctx.save_for_backward(head, tail, weight)
        ctx.dtype = dtype
        ctx.bias_dtype = None if bias is None else bias.dtype
        with _without_autocast(head.device.type):
            heads, tails, weights = _grouped(head, tail, weight, _dense_dtype(dtype, head.device))
            result = head.new_zeros(len(head), len(weight), dtype=_sum_dtype(dtype))
            if bias is not None:
                result += bias
            for pairs, groups in _parts(heads):
                outer = heads[pairs, groups, :, None] * tails[pairs, groups, None, :]
                result[pairs] += outer.flatten(1) @ weights[:, groups].flatten(1).T
        return result.to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        head, tail, weight = ctx.saved_tensors
        with _without_autocast(gradient.device.type):
            step = _Backward(head, tail, weight, ctx.dtype, *ctx.needs_input_grad[:3])
            # On another device than a CPU, counting what is zero would wait for it.
            dense, sparse = _split_columns(gradient) if gradient.device.type == "cpu" else (slice(None), None)
            if dense is not None:
                step.add_dense(gradient, dense)
            if sparse is not None:
                step.add_cells(gradient, sparse)
            bias = gradient.sum(0, dtype=_sum_dtype(ctx.dtype)) if ctx.needs_input_grad[3] else None
        sums = ((step.heads_sum, head), (step.tails_sum, tail), (step.weights_sum, weight))
        gradients = [None if total is None else total.view(like.shape).to(like.dtype) for total, like in sums]
        return *gradients, None if bias is None else bias.to(ctx.bias_dtype), None


def _split_columns(gradient):
    """Which columns a dense product is cheaper for, and which of the others are not all zero: indices, a slice for all columns,
    None for no column."""
    counts = (gradient != 0).sum(0)
    saved = counts * CELL_COST - len(gradient)
    dense = saved > 0
    if saved[dense].sum() <= OUTER_COST * len(gradient):
        dense = torch.zeros_like(dense)
    elif dense.all():
        return slice(None), None
    sparse = (counts > 0) & ~dense
    return tuple(columns.nonzero()[:, 0] if columns.any() else None for columns in (dense, sparse))


class _Backward:
    """Sums up the gradients of grouped heads, tails and weights, those that are wanted."""

    def __init__(self, head, tail, weight, dtype, wants_heads, wants_tails, wants_weights):
        self.inputs = (head, tail, weight)
        self.dtype, self.dense_dtype = dtype, _dense_dtype(dtype, head.device)
        self.heads, self.tails, self.weights = _grouped(*self.inputs, self.dense_dtype)
        wanted = ((self.heads, wants_heads), (self.tails, wants_tails), (self.weights, wants_weights))
        self.heads_sum, self.tails_sum, self.weights_sum = (
            torch.zeros_like(tensor, dtype=_sum_dtype(tensor.dtype)) if wants else None for tensor, wants in wanted
        )

    def add_dense(self, gradient, columns):
        """Through the outer products of some pairs at a time."""
        gradient = gradient[:, columns].to(self.heads.dtype)
        weights = self.weights[columns]
        weights_sum = self.weights_sum
        if weights_sum is not None and not isinstance(columns, slice):
            weights_sum = torch.zeros_like(weights, dtype=weights_sum.dtype)
        for pairs, groups in _parts(self.heads):
            head, tail, some = self.heads[pairs, groups], self.tails[pairs, groups], gradient[pairs]
            if weights_sum is not None:
                outer = head[..., :, None] * tail[..., None, :]
                weights_sum[:, groups] += (some.T @ outer.flatten(1)).view(-1, *outer.shape[1:])
            if self.heads_sum is not None or self.tails_sum is not None:
                outer = (some @ weights[:, groups].flatten(1)).view(-1, *weights[:, groups].shape[1:])
            if self.heads_sum is not None:
                self.heads_sum[pairs, groups] += (outer @ tail[..., :, None])[..., 0]
            if self.tails_sum is not None:
                self.tails_sum[pairs, groups] += (head[..., None, :] @ outer)[..., 0, :]
        if weights_sum is not self.weights_sum:
            self.weights_sum[columns] += weights_sum

    def add_cells(self, gradient, columns):
        """Column by column, from the pairs whose cell is not zero: no outer product. Of few rows, float32 products are the faster
        ones."""
        heads, tails, weights = self.heads, self.tails, self.weights
        if heads.dtype != _sum_dtype(self.dtype):
            heads, tails, weights = _grouped(*self.inputs, _sum_dtype(self.dtype))
        cells = gradient.T[columns]
        active = cells != 0
        pairs_of_columns = active.nonzero()[:, 1].split(active.sum(1).tolist())
        for column, values, pairs in zip(columns.tolist(), cells, pairs_of_columns, strict=True):
            # Groups first, as a batch of matrices: (G, S, block_size).
            values = values[pairs].to(heads.dtype)[:, None, None]
            head, tail = heads[pairs], tails[pairs]
            weighted_head, weighted_tail = (head * values).transpose(0, 1), (tail * values).transpose(0, 1)
            weight = weights[column]
            if self.weights_sum is not None:
                self.weights_sum[column] += weighted_head.transpose(1, 2) @ tail.transpose(0, 1)
            if self.heads_sum is not None:
                self.heads_sum.index_add_(0, pairs, (weighted_tail @ weight.transpose(1, 2)).transpose(0, 1))
            if self.tails_sum is not None:
                self.tails_sum.index_add_(0, pairs, (weighted_head @ weight).transpose(0, 1))


def _grouped(head, tail, weight, dtype):
    """Heads and tails `(P, G, block_size)`, weights `(out_features, G, block_size, block_size)`."""
    block_size = weight.shape[1] // head.shape[1]
    heads, tails = (vectors.to(dtype).unflatten(1, (-1, block_size)) for vectors in (head, tail))
    return heads, tails, weight.to(dtype).unflatten(1, (-1, block_size, block_size))


def _dense_dtype(dtype, device):
    """What dense products are computed in: float32 at least on a CPU that has no instructions for less."""
    return _sum_dtype(dtype) if device.type == "cpu" and not (dtype == torch.bfloat16 and _has_bfloat16()) else dtype


@functools.cache
def _has_bfloat16():
    # torch offers it under these names alone, and not in each version.
    return any(getattr(torch.cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))


def _without_autocast(device):
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()


def _sum_dtype(dtype):
    return torch.promote_types(dtype, torch.float32)


def _parts(heads):
    """Slices of pairs and groups whose outer products are computed together."""
    on_cpu = heads.device.type == "cpu"
    pairs, groups = (PAIRS_AT_ONCE, 1) if on_cpu else (PAIRS_AT_ONCE_ON_DEVICE, heads.shape[1])
    for group in range(0, heads.shape[1], groups):
        for pair in range(0, len(heads), pairs):
            yield slice(pair, pair + pairs), slice(group, group + groups)
