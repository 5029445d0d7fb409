"""The grouped bilinear map that relation encoders classify pairs with. It keeps nothing but its inputs for the backward pass, and
skips the cells of the logits' gradient that are exactly zero, which are nearly all of them with some losses (CMM, AML)."""

from typing import Any, Self

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from transformers.utils import logging

from .number_types import dense_dtype, sum_dtype, without_autocast

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
            weight, bias = self.linear.weight, self.linear.bias
            return call_outside_graphs(
                _GroupedBilinearFunction, head.device.type, weight.dtype, head, tail, weight, bias
            )
        if torch.is_grad_enabled() or torch.compiler.is_exporting():
            return self.linear(self._outer_products(head, tail))
        parts = zip(head.split(PAIRS_AT_ONCE), tail.split(PAIRS_AT_ONCE), strict=True)
        return torch.cat([self.linear(self._outer_products(*part)) for part in parts])

    def _outer_products(self, head, tail):
        groups = (-1, self.block_size)
        return (head.unflatten(1, groups)[..., :, None] * tail.unflatten(1, groups)[..., None, :]).flatten(1)


def is_plain(layer: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether `layer` computes what its class does and nothing else, so that its weights can be used without a call: it is of
    that very class, and no hook watches it, or fetches its weights."""
    hooks = (layer._forward_pre_hooks, layer._forward_hooks, layer._backward_pre_hooks, layer._backward_hooks)
    return type(layer) is kind and "forward" not in vars(layer) and not any(hooks)


def is_plain_linear(layer: nn.Module) -> bool:
    """Whether `layer` computes `W x + b` and nothing else. An adapter and a quantized layer do not."""
    return is_plain(layer, nn.Linear) and type(layer.weight) is nn.Parameter


def call_outside_graphs(
    function: type[torch.autograd.Function], device: str, dtype: torch.dtype, *arguments: object
) -> torch.Tensor:
    """
    Applies an autograd function as it is, also where torch.compile compiles what is around it.

    Args:
        function (`torch.autograd.Function`): its first argument is the dtype to compute with: autocast's, or the weights'.
        device (`str`): type of the device.
        dtype (`torch.dtype`): of the weights.
        arguments: the function's others.
    """
    return _apply(function, device, dtype, torch.compiler.is_compiling(), arguments)


def _plainly_apply(function, device, dtype, is_compiling, arguments):
    if is_compiling:
        logger.warning_once("torch.compile does not compile the grouped bilinear map; its graph breaks there")
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    return function.apply(dtype, *arguments)


_apply = _plainly_apply


def _keep_out_of_graphs():
    """Has torch.compile call functions as they are. Done with the first layer: importing the compiler takes seconds."""
    global _apply
    if _apply is _plainly_apply:
        _apply = torch.compiler.disable(_plainly_apply)


class _GroupedBilinearFunction(torch.autograd.Function):
    """Computes with `dtype`, as `nn.Linear` does under autocast; each gradient has its tensor's dtype."""

    @staticmethod
    def forward(ctx, dtype, head, tail, weight, bias):
        ctx.save_for_backward(head, tail, weight)
        ctx.dtype = dtype
        ctx.bias_dtype = None if bias is None else bias.dtype
        with without_autocast(head.device.type):
            product = Product(weight, bias, head.shape[1], dtype)
            return product(head, tail).to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        head, tail, weight = ctx.saved_tensors
        _, wants_head, wants_tail, wants_weight, wants_bias = ctx.needs_input_grad
        with without_autocast(gradient.device.type):
            product = ProductGradients(weight, head.shape[1], ctx.dtype, gradient, wants_weight)
            sums = product.add(head, tail, gradient, wants_head, wants_tail)
            gradients = [
                None if total is None else total.to(one.dtype) for total, one in zip(sums, (head, tail), strict=True)
            ]
            bias = gradient.sum(0, dtype=sum_dtype(ctx.dtype)).to(ctx.bias_dtype) if wants_bias else None
        return None, *gradients, product.of_weight(), bias


class Product:
    """
    The grouped bilinear map as a function of some pairs at a time, without gradients.

    Args:
        weight (`(out_features, emb_size * block_size)` float), bias (`(out_features,)` float, *optional*): the layer's.
        emb_size (`int`): size of head and tail.
        dtype (`torch.dtype`): what is computed with.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, emb_size: int, dtype: torch.dtype):
        self.weights = _grouped_weight(weight, emb_size).to(dense_dtype(dtype, weight.device))
        self.bias = bias
        self.sum_dtype = sum_dtype(dtype)

    def __call__(self, head: torch.Tensor, tail: torch.Tensor) -> torch.Tensor:
        """Takes `(p, emb_size)` twice, and gives `(p, out_features)`, float32 at least."""
        heads, tails = (_grouped(vectors, self.weights) for vectors in (head, tail))
        result = head.new_zeros(len(head), len(self.weights), dtype=self.sum_dtype)
        if self.bias is not None:
            result += self.bias
        for pairs, groups in _parts(heads):
            outer = heads[pairs, groups, :, None] * tails[pairs, groups, None, :]
            result[pairs] += outer.flatten(1) @ self.weights[:, groups].flatten(1).T
        return result


def _split_columns(gradient):
    """Which columns a dense product is cheaper for, and which of the others are not all zero: indices, a slice for all columns,
    None for no column."""
    if gradient.device.type != "cpu":  # counting what is zero would wait for the device
        return slice(None), None
    counts = (gradient != 0).sum(0)
    saved = counts * CELL_COST - len(gradient)
    dense = saved > 0
    if saved[dense].sum() <= OUTER_COST * len(gradient):
        dense = torch.zeros_like(dense)
    elif dense.all():
        return slice(None), None
    sparse = (counts > 0) & ~dense
    return tuple(columns.nonzero()[:, 0] if columns.any() else None for columns in (dense, sparse))


class ProductGradients:
    """
    The gradients of the grouped bilinear map. Those of head and tail come for some pairs at a time, that of the weight is summed
    up in one place.

    Args:
        weight (`(out_features, emb_size * block_size)` float): the layer's.
        emb_size (`int`): size of head and tail.
        dtype (`torch.dtype`): what the map computes with.
        gradient (`(P, out_features)` float): of the results of all pairs, which decides how it is computed.
        wants_weight (`bool`): whether the weight's gradient is wanted.
    """

    def __init__(
        self, weight: torch.Tensor, emb_size: int, dtype: torch.dtype, gradient: torch.Tensor, wants_weight: bool
    ):
        self.weight, self.sum_dtype = weight, sum_dtype(dtype)
        self.dense, self.sparse = _split_columns(gradient)
        grouped = _grouped_weight(weight, emb_size)
        self.block_size = grouped.shape[-1]
        self.weights_sum = torch.zeros_like(grouped, dtype=self.sum_dtype) if wants_weight else None
        if self.dense is not None:
            self.dense_weights = grouped[self.dense].to(dense_dtype(dtype, weight.device))
            # A selection of columns is a copy, a slice is not.
            self.dense_sum = self.weights_sum[self.dense] if wants_weight else None
        if self.sparse is not None:  # of few rows, float32 products are the faster ones
            self.sparse_weights = grouped.to(self.sum_dtype)

    def add(
        self,
        head: torch.Tensor,
        tail: torch.Tensor,
        gradient: torch.Tensor,
        wants_head: bool = True,
        wants_tail: bool = True,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """
        Adds what some pairs contribute to the weight's gradient.

        Args:
            head, tail (`(p, emb_size)` float): what the map was applied to.
            gradient (`(p, out_features)` float): of the results.
            wants_head, wants_tail (`bool`): whether their gradients are wanted.

        Returns:
            Gradients of head and tail, `(p, emb_size)` in float32 at least; None for one that is not wanted.
        """
        wanted = ((head, wants_head), (tail, wants_tail))
        sums = [torch.zeros_like(vectors, dtype=self.sum_dtype) if wants else None for vectors, wants in wanted]
        groups = (-1, self.block_size)
        grouped = [None if total is None else total.unflatten(1, groups) for total in sums]
        if self.dense is not None:
            self._add_dense(head, tail, gradient[:, self.dense], *grouped)
        if self.sparse is not None:
            self._add_cells(head, tail, gradient, *grouped)
        return tuple(sums)

    def of_weight(self) -> torch.Tensor | None:
        """The weight's gradient, after all pairs were added."""
        if self.weights_sum is None:
            return None
        if isinstance(self.dense, torch.Tensor):
            self.weights_sum[self.dense] += self.dense_sum
        return self.weights_sum.view(self.weight.shape).to(self.weight.dtype)

    def _add_dense(self, head, tail, gradient, heads_sum, tails_sum):
        """Through the outer products of some pairs at a time."""
        weights = self.dense_weights
        heads, tails = (_grouped(vectors, weights) for vectors in (head, tail))
        gradient = gradient.to(weights.dtype)
        for pairs, groups in _parts(heads):
            head, tail, some = heads[pairs, groups], tails[pairs, groups], gradient[pairs]
            if self.dense_sum is not None:
                outer = head[..., :, None] * tail[..., None, :]
                self.dense_sum[:, groups] += (some.T @ outer.flatten(1)).view(-1, *outer.shape[1:])
                del outer  # before there is another one
            if heads_sum is None and tails_sum is None:
                continue
            outer = (some @ weights[:, groups].flatten(1)).view(-1, *weights[:, groups].shape[1:])
            if heads_sum is not None:
                heads_sum[pairs, groups] += (outer @ tail[..., :, None])[..., 0]
            if tails_sum is not None:
                tails_sum[pairs, groups] += (head[..., None, :] @ outer)[..., 0, :]
            del outer

    def _add_cells(self, head, tail, gradient, heads_sum, tails_sum):
        """Column by column, from the pairs whose cell is not zero: no outer product."""
        weights = self.sparse_weights
        heads, tails = (_grouped(vectors, weights) for vectors in (head, tail))
        cells = gradient.T[self.sparse]
        active = cells != 0
        pairs_of_columns = active.nonzero()[:, 1].split(active.sum(1).tolist())
        for column, values, pairs in zip(self.sparse.tolist(), cells, pairs_of_columns, strict=True):
            if not len(pairs):
                continue
            # Groups first, as a batch of matrices: (G, S, block_size).
            values = values[pairs].to(heads.dtype)[:, None, None]
            head, tail = heads[pairs], tails[pairs]
            weighted_head, weighted_tail = (head * values).transpose(0, 1), (tail * values).transpose(0, 1)
            weight = weights[column]
            if self.weights_sum is not None:
                self.weights_sum[column] += weighted_head.transpose(1, 2) @ tail.transpose(0, 1)
            if heads_sum is not None:
                heads_sum.index_add_(0, pairs, (weighted_tail @ weight.transpose(1, 2)).transpose(0, 1))
            if tails_sum is not None:
                tails_sum.index_add_(0, pairs, (weighted_head @ weight).transpose(0, 1))


def _grouped(vectors, weights):
    """Heads or tails `(p, G, block_size)`, in the dtype of the grouped weights."""
    return vectors.to(weights.dtype).unflatten(1, weights.shape[1:3])


def _grouped_weight(weight, emb_size):
    """`(out_features, G, block_size, block_size)`."""
    block_size = weight.shape[1] // emb_size
    return weight.unflatten(1, (-1, block_size, block_size))


def _parts(heads):
    """Slices of pairs and groups whose outer products are computed together."""
    on_cpu = heads.device.type == "cpu"
    pairs, groups = (PAIRS_AT_ONCE, 1) if on_cpu else (PAIRS_AT_ONCE_ON_DEVICE, heads.shape[1])
    for group in range(0, heads.shape[1], groups):
        for pair in range(0, len(heads), pairs):
            yield slice(pair, pair + pairs), slice(group, group + groups)
