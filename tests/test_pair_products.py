"""Pairs' representations computed again in the backward pass, against the layers as they are called."""

import pytest
import torch

from modeling_comm import GroupedBilinear, pair_products
from modeling_comm.pair_products import can_project_in_parts, product_of_projections

ENTITIES, PAIRS, HIDDEN, FEATURES = 5, 30, 6, 4


def layers(dtype=torch.float64, bias=True):
    torch.manual_seed(0)
    product = GroupedBilinear(8, 4, 7, bias=bias)
    projections = [torch.nn.Linear(HIDDEN + FEATURES, 8, bias=bias) for _ in range(2)]
    return [layer.to(dtype) for layer in (product, *projections)]


def inputs(dtype=torch.float64, rows=False):
    draw = torch.Generator().manual_seed(1)
    entities = torch.randn(ENTITIES, HIDDEN, dtype=dtype, generator=draw, requires_grad=True)
    places = [torch.randint(ENTITIES, (PAIRS,), generator=draw) for _ in range(2)]
    features = torch.randn(PAIRS, FEATURES, dtype=dtype, generator=draw, requires_grad=True)
    rows = torch.randint(PAIRS, (PAIRS,), generator=draw) if rows else None
    return entities, places, features, rows


def in_one(product, projections, entities, places, features, rows):
    """What is written in the papers."""
    features = features if rows is None else features[rows]
    sides = zip(projections, places, strict=True)
    return product(*(torch.tanh(layer(torch.cat([entities[place], features], 1))) for layer, place in sides))


def weights_of(pattern, dtype):
    draw = torch.Generator().manual_seed(2)
    active = torch.rand(PAIRS, 7, generator=draw) < {"dense": 1.0, "sparse": 0.05}[pattern]
    return torch.where(active, torch.randn(PAIRS, 7, generator=draw), 0.0).to(dtype)


def gradients(function, entities, places, features, rows, product, projections, weights, **options):
    result = function(product, projections, entities, places, features, rows, **options)
    tensors = [entities, features, *product.parameters(), *(p for layer in projections for p in layer.parameters())]
    wanted = [tensor for tensor in tensors if tensor.requires_grad]
    return result, torch.autograd.grad((result * weights).sum(), wanted)


@pytest.mark.parametrize("pattern", ["dense", "sparse"])
@pytest.mark.parametrize("rows", [False, True])
def test_gradcheck(pattern, rows):
    product, *projections = layers()
    entities, places, features, rows = inputs(rows=rows)
    weights = weights_of(pattern, torch.float64)

    def weighted_sum(entities, features, *_):
        return (product_of_projections(product, projections, entities, places, features, rows, 7) * weights).sum()

    parameters = [*product.parameters(), *(p for layer in projections for p in layer.parameters())]
    assert torch.autograd.gradcheck(weighted_sum, (entities, features, *parameters), fast_mode=True)


@pytest.mark.parametrize("pattern", ["dense", "sparse"])
@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("at_once", [None, PAIRS, 7])
def test_float32_equals_the_layers(pattern, rows, bias, at_once):
    product, *projections = layers(torch.float32, bias)
    given = inputs(torch.float32, rows)
    weights = weights_of(pattern, torch.float32)
    expected, expected_gradients = gradients(in_one, *given, product, projections, weights)
    found, found_gradients = gradients(product_of_projections, *given, product, projections, weights, at_once=at_once)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    for one, other in zip(found_gradients, expected_gradients, strict=True):
        assert (one - other).abs().max() <= 1e-5 * max(1.0, other.abs().max())


@pytest.mark.parametrize("frozen", ["entities", "features", "product", "head", "tail", "all but tail"])
def test_gradients_that_nobody_wants(frozen):
    product, head, tail = layers()
    given = inputs()
    parts = {"entities": [given[0]], "features": [given[2]]}
    parts |= {
        name: list(layer.parameters())
        for name, layer in zip(("product", "head", "tail"), (product, head, tail), strict=True)
    }
    for name in [name for name in parts if name != "tail"] if frozen == "all but tail" else [frozen]:
        for tensor in parts[name]:
            tensor.requires_grad_(False)
    weights = weights_of("dense", torch.float64)
    expected = gradients(in_one, *given, product, (head, tail), weights)[1]
    found = gradients(product_of_projections, *given, product, (head, tail), weights, at_once=7)[1]
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_nothing_is_kept_of_many_pairs_but_what_is_given(monkeypatch):
    monkeypatch.setattr(pair_products, "PAIRS_KEPT", PAIRS - 1)
    monkeypatch.setattr(pair_products, "PAIRS_AT_ONCE", 7)
    product, *projections = layers()
    entities, places, features, _ = inputs()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        product_of_projections(product, projections, entities, places, features)
    of_pairs = [tensor for tensor in kept if len(tensor) == PAIRS]
    assert {tensor.data_ptr() for tensor in of_pairs} == {tensor.data_ptr() for tensor in (features, *places)}


def test_autocast():
    product, *projections = layers(torch.float32)
    given = inputs(torch.float32)
    weights = weights_of("dense", torch.float32)
    exact, exact_gradients = gradients(in_one, *given, product, projections, weights)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, found_gradients = gradients(product_of_projections, *given, product, projections, weights)
    assert found.dtype == torch.bfloat16
    assert (found.float() - exact).abs().max() <= 0.02 * exact.abs().max()
    for one, other in zip(found_gradients, exact_gradients, strict=True):
        assert one.dtype == torch.float32 and (one - other).abs().max() <= 0.03 * other.abs().max()


def test_another_device_does_not_look_at_values():
    """A meta tensor has none, so whatever reads one raises."""
    product, *projections = (layer.to("meta") for layer in layers())
    entities, places, features, rows = inputs(rows=True)
    entities, features = (tensor.detach().to("meta").requires_grad_() for tensor in (entities, features))
    places = [place.to("meta") for place in places]
    product_of_projections(product, projections, entities, places, features, rows.to("meta")).sum().backward()
    assert features.grad.shape == features.shape and product.linear.weight.grad is not None


def test_without_pairs():
    product, *projections = layers()
    entities, _, features, _ = inputs()
    nowhere = [torch.zeros(0, dtype=torch.long)] * 2
    result = product_of_projections(product, projections, entities, nowhere, features[:0])
    assert result.shape == (0, 7)
    result.sum().backward()
    assert product.linear.weight.grad is not None and not product.linear.weight.grad.any()
    assert not entities.grad.any()


def test_layers_that_are_watched_or_replaced_are_called():
    product, *projections = layers()
    assert can_project_in_parts(product, *projections)
    handle = product.register_forward_hook(lambda *_: None)
    assert not can_project_in_parts(product, *projections)
    handle.remove()
    product.forward = type(product).forward.__get__(product)
    assert not can_project_in_parts(product, *projections)
    del product.forward
    projections[0].register_forward_pre_hook(lambda *_: None)
    assert not can_project_in_parts(product, *projections)


def test_few_pairs_are_in_memory_at_a_time(monkeypatch):
    """How many rows the product gets: all where they are kept, and else no more than are asked for or allowed."""
    monkeypatch.setattr(pair_products, "PAIRS_AT_ONCE", 7)
    seen = []
    original = pair_products.Product.__call__
    monkeypatch.setattr(
        pair_products.Product,
        "__call__",
        lambda self, head, tail: seen.append(len(head)) or original(self, head, tail),
    )
    product, *projections = layers()
    entities, places, features, _ = inputs()
    for kept in (PAIRS, PAIRS - 1):
        monkeypatch.setattr(pair_products, "PAIRS_KEPT", kept)
        for bound, most in ((None, 7), (100, 7), (4, 4)):
            seen.clear()
            product_of_projections(product, projections, entities, places, features, at_once=bound)
            whole = kept == PAIRS and bound != 4
            assert max(seen) == (PAIRS if whole else most) and sum(seen) == PAIRS
