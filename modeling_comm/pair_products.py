"""Head and tail representations that meet in a grouped bilinear map. Those of many pairs are not kept: the backward pass computes
them again, some at a time."""

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from .grouped_bilinear import (
    GroupedBilinear,
    Product,
    ProductGradients,
    call_outside_graphs,
    is_plain,
    is_plain_linear,
)
from .number_types import dense_dtype, sum_dtype, without_autocast

# Up to this number of pairs, representations are kept: computing them again costs an ordinary batch 3 % of its backbone's step.
PAIRS_KEPT = 2048
# Of more, the number of pairs whose representations are in memory at a time.
PAIRS_AT_ONCE = 512
PAIRS_AT_ONCE_ON_DEVICE = 2048


def can_project_in_parts(product: GroupedBilinear, *projections: nn.Linear) -> bool:
    """Returns whether [`product_of_projections`] computes what calling the layers does: nothing was put in their place or watches
    them, and the model is not being exported."""
    is_changed = not (is_plain(product, GroupedBilinear) and all(map(is_plain_linear, (product.linear, *projections))))
    return not (is_changed or torch.compiler.is_exporting())


def product_of_projections(
    product: GroupedBilinear,
    projections: tuple[nn.Linear, nn.Linear],
    entities: torch.Tensor,
    places: tuple[torch.Tensor, torch.Tensor],
    features: torch.Tensor,
    rows: torch.Tensor | None = None,
    at_once: int | None = None,
) -> torch.Tensor:
    """
    `product(tanh(W_h [e_h; f] + b_h), tanh(W_t [e_t; f] + b_t))` for P pairs. Of more than 2,048 it keeps its arguments alone for
    the backward pass, and what is computed is in memory for 512 pairs at a time, 2,048 on another device than a CPU. There is no
    second derivative.

    Args:
        product (`GroupedBilinear`), projections (`nn.Linear` twice): the layers, see [`can_project_in_parts`].
        entities (`(N, d)` float): entity embeddings e.
        places (`(P,)` int64 twice): which of them are a pair's head and tail.
        features (`(Q, k)` float): what is known about pairs, f.
        rows (`(P,)` int64, *optional*): a pair's row of `features`; by default they are in the order of the pairs.
        at_once (`int`, *optional*): a lower number for both.

    Returns:
        `(P, out_features)`.
    """
    sides = []
    for projection, place in zip(projections, places, strict=True):
        # W [e; f] = W_e e + W_f f: the entity's half is computed once an entity, not once a pair.
        weights = projection.weight.split([entities.shape[-1], features.shape[-1]], dim=1)
        halves = nn.functional.linear(entities.to(projection.weight.dtype), weights[0])
        sides += [halves, place, weights[1], projection.bias]
    layer = product.linear
    arguments = (at_once, features, rows, layer.weight, layer.bias, *sides)
    return call_outside_graphs(_ProductOfProjections, features.device.type, layer.weight.dtype, *arguments)


class _ProductOfProjections(torch.autograd.Function):
    @staticmethod
    def forward(ctx, dtype, at_once, features, rows, weight, bias, *sides):
        ctx.dtype, ctx.at_once = dtype, _pairs_at_once(len(sides[1]), at_once, features.device.type)
        ctx.bias_dtype = None if bias is None else bias.dtype
        result = features.new_empty(len(sides[1]), len(weight), dtype=dtype)
        with without_autocast(features.device.type):
            projections = _Projection.both(sides, dense_dtype(dtype, features.device))
            product = Product(weight, bias, sides[0].shape[1], dtype)
            for part, some in _parts(features, rows, result, ctx.at_once):
                vectors = [projection(part, some) for projection in projections]
                result[part] = product(*vectors)
        kept = vectors if 0 < len(result) <= ctx.at_once else (None, None)
        ctx.save_for_backward(features, rows, weight, *kept, *sides)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        features, rows, weight, *kept = ctx.saved_tensors
        kept, sides = kept[:2], kept[2:]
        _, _, wants_features, _, wants_weight, wants_bias, *wants_sides = ctx.needs_input_grad
        wanted = [wants_features or any(wants_sides[:4]), wants_features or any(wants_sides[4:])]
        with without_autocast(features.device.type):
            projections = _Projection.both(sides, dense_dtype(ctx.dtype, features.device), wants_sides)
            product = ProductGradients(weight, sides[0].shape[1], ctx.dtype, gradient, wants_weight)
            total = torch.zeros_like(features, dtype=sum_dtype(ctx.dtype)) if wants_features else None
            for part, some in _parts(features, rows, gradient, ctx.at_once):
                vectors = [projection(part, some) for projection in projections] if kept[0] is None else kept
                found = product.add(*vectors, gradient[part], *wanted)
                for projection, vector, one in zip(projections, vectors, found, strict=True):
                    if one is None:
                        continue
                    of_features = projection.add(part, some, vector, one)
                    if total is None:
                        continue
                    if rows is None:
                        total[part] += of_features
                    else:
                        total.index_add_(0, rows[part], of_features.to(total.dtype))
            bias = gradient.sum(0, dtype=sum_dtype(ctx.dtype)).to(ctx.bias_dtype) if wants_bias else None
        total = None if total is None else total.to(features.dtype)
        sums = [one for projection in projections for one in projection.gradients()]
        return None, None, total, None, product.of_weight(), bias, *sums


class _Projection:
    """`tanh(e + W f + b)` of some pairs at a time, and its gradients' sums over all pairs."""

    def __init__(self, halves, places, weight, bias, dtype, wants):
        self.tensors = (halves, places, weight, bias)
        self.places = places
        self.halves, self.weight = halves.to(dtype), weight.to(dtype)
        self.bias = None if bias is None else bias.to(dtype)
        self.sums = [
            torch.zeros_like(tensor, dtype=sum_dtype(dtype), memory_format=torch.contiguous_format) if wanted else None
            for tensor, wanted in zip(self.tensors, wants, strict=True)
        ]

    @classmethod
    def both(cls, sides, dtype, wants=(False,) * 8):
        return cls(*sides[:4], dtype, wants[:4]), cls(*sides[4:], dtype, wants[4:])

    def __call__(self, part, features):
        projected = nn.functional.linear(features.to(self.weight.dtype), self.weight, self.bias)
        return projected.add_(self.halves[self.places[part]]).tanh_()

    def add(self, part, features, vectors, gradient):
        """Takes what calling it returned, and its gradient; gives that of the features."""
        gradient = gradient * (1 - vectors.to(gradient.dtype).square())  # of tanh
        halves, _, weight, bias = self.sums
        if halves is not None:
            halves.index_add_(0, self.places[part], gradient)
        if bias is not None:
            bias += gradient.sum(0)
        gradient = gradient.to(self.weight.dtype)
        if weight is not None:
            weight += gradient.T @ features.to(self.weight.dtype)
        return gradient @ self.weight

    def gradients(self):
        """Of halves, places (which have none), weight and bias."""
        return [
            None if total is None else total.to(tensor.dtype)
            for total, tensor in zip(self.sums, self.tensors, strict=True)
        ]


def _pairs_at_once(pairs, bound, device):
    """All of them, which are kept then, or some."""
    bound = pairs if bound is None else bound
    some = PAIRS_AT_ONCE if device == "cpu" else PAIRS_AT_ONCE_ON_DEVICE
    return max(pairs, 1) if pairs <= min(bound, PAIRS_KEPT) else min(bound, some)


def _parts(features, rows, pairs, at_once):
    """Slices of the pairs, and their features."""
    for start in range(0, len(pairs), at_once):
        part = slice(start, start + at_once)
        yield part, features[part if rows is None else rows[part]]
