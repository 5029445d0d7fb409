"""The grouped bilinear map against its textbook form, `nn.Linear` of outer products."""

import copy

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from modeling_comm import GroupedBilinear, available_losses
from modeling_comm import grouped_bilinear as module
from modeling_comm.losses import get_loss

EMB, BLOCK, OUT = 24, 8, 13


def textbook(layer, head, tail):
    groups = (len(head), -1, layer.block_size)
    outer = head.view(groups)[..., :, None] * tail.view(groups)[..., None, :]
    return layer.linear(outer.flatten(1))


def inputs(pairs=50, dtype=torch.float32, bias=True, out=OUT, requires_grad=True):
    torch.manual_seed(0)
    layer = GroupedBilinear(EMB, BLOCK, out, bias=bias).to(dtype)
    head, tail = (torch.randn(pairs, EMB, dtype=dtype, requires_grad=requires_grad) for _ in range(2))
    return layer, head, tail


def weights_of(pattern, pairs, out=OUT):
    """What the results are multiplied with: their gradient."""
    generator = torch.Generator().manual_seed(1)
    share = torch.full((out,), {"dense": 1.0, "sparse": 0.1, "mixed": 0.1, "zero": 0.0}[pattern])
    if pattern == "mixed":
        share[::2] = 1.0
        share[3] = 0.0
    active = torch.rand(pairs, out, generator=generator) < share
    return torch.where(active, torch.randn(pairs, out, generator=generator), 0.0)


def gradients(function, layer, head, tail, weights):
    tensors = [head, tail, *layer.parameters()]
    result = function(head, tail)
    wanted = [tensor for tensor in tensors if tensor.requires_grad]
    return result, torch.autograd.grad((result * weights).sum(), wanted)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(module, "PAIRS_AT_ONCE", 7)
    monkeypatch.setattr(module, "PAIRS_AT_ONCE_ON_DEVICE", 7)
    monkeypatch.setattr(module, "OUTER_COST", 2.0)  # so that 7 dense columns of 13 are enough for a dense product


@pytest.fixture
def paths(monkeypatch):
    """Which ways the backward pass takes."""
    taken = []
    for name in ("_add_dense", "_add_cells"):
        original = getattr(module.ProductGradients, name)

        def record(self, *arguments, name=name, original=original):
            taken.append(name)
            return original(self, *arguments)

        monkeypatch.setattr(module.ProductGradients, name, record)
    return taken


PATTERNS = {"dense": ["_add_dense"], "sparse": ["_add_cells"], "mixed": ["_add_dense", "_add_cells"], "zero": []}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_gradcheck(pattern, paths):
    torch.manual_seed(0)
    layer = GroupedBilinear(4, 2, OUT).double()
    head, tail = (torch.randn(9, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    weights = weights_of(pattern, 9).double()

    def weighted_sum(head, tail, *parameters):
        return (module._GroupedBilinearFunction.apply(torch.float64, head, tail, *parameters) * weights).sum()

    assert torch.autograd.gradcheck(weighted_sum, (head, tail, *layer.parameters()), fast_mode=True)
    assert set(paths) == set(PATTERNS[pattern])


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("bias", [True, False])
def test_float32_equals_the_textbook_form(pattern, bias):
    layer, head, tail = inputs(bias=bias)
    weights = weights_of(pattern, 50)
    expected, expected_gradients = gradients(lambda *pair: textbook(layer, *pair), layer, head, tail, weights)
    found, found_gradients = gradients(layer, layer, head, tail, weights)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    for one, other in zip(found_gradients, expected_gradients, strict=True):
        assert (one - other).abs().max() <= 1e-5 * other.abs().max()


def test_another_device_takes_the_dense_way(paths):
    """Shapes alone: a meta tensor has no values, so whatever reads one raises."""
    layer, head, tail = inputs()
    layer, head, tail = layer.to("meta"), head.detach().to("meta").requires_grad_(), tail.detach().to("meta")
    layer(head, tail).backward(torch.zeros(50, OUT, device="meta"))
    assert paths == ["_add_dense"] and head.grad.shape == head.shape


@pytest.mark.parametrize("loss", ["cmm", "atl"])
def test_loss_and_its_gradients(loss):
    """Through a real loss, whose zeros are its own."""
    layer, head, tail = inputs()
    with torch.no_grad():
        layer.linear.bias[0] = 4.0  # easy negatives
    labels = (torch.rand(50, OUT, generator=torch.Generator().manual_seed(2)) < 0.05).float()
    results = []
    for function in (layer, lambda *pair: textbook(layer, *pair)):
        value = get_loss(loss).function(function(head, tail), labels)
        results.append((value, torch.autograd.grad(value, [head, tail, *layer.parameters()])))
    (found, found_gradients), (expected, expected_gradients) = results
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0.0)
    for one, other in zip(found_gradients, expected_gradients, strict=True):
        assert (one - other).abs().max() <= 1e-5 * other.abs().max()


# Whether easy negatives have a gradient of exactly zero: nothing may make it small instead.
SPARSE = {"aml", "cmm", "hingeabl", "pu_cmm"}


@pytest.mark.parametrize("loss", available_losses())
def test_easy_negatives(loss):
    logits = torch.zeros(4, OUT)
    logits[:, 0], logits[:, 1:] = 6.0, -6.0
    logits.requires_grad_()
    labels = torch.zeros(4, OUT)
    settings = {"label_rates": {1: 0.01}} if loss == "ssr_pu" else {}
    get_loss(loss).function(logits, labels, **settings).backward()
    assert bool((logits.grad == 0).all()) == (loss in SPARSE)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_autocast(pattern):
    """The dtypes of `nn.Linear`, and its numbers within what bfloat16 can tell."""
    layer, head, tail = inputs()
    weights = weights_of(pattern, 50).bfloat16()
    with torch.no_grad():
        exact = textbook(layer, head, tail)
    exact_gradients = gradients(lambda *pair: textbook(layer, *pair), layer, head, tail, weights.float())[1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected, expected_gradients = gradients(lambda *pair: textbook(layer, *pair), layer, head, tail, weights)
        found, found_gradients = gradients(layer, layer, head, tail, weights)
    assert found.dtype == expected.dtype == torch.bfloat16
    assert (found.float() - exact).abs().max() <= 0.02 * exact.abs().max()
    for one, other, true in zip(found_gradients, expected_gradients, exact_gradients, strict=True):
        assert one.dtype == other.dtype == torch.float32
        assert (one - true).abs().max() <= 0.02 * true.abs().max()


def test_half_precision_weights():
    layer, head, tail = inputs(dtype=torch.bfloat16)
    result, found = gradients(layer, layer, head, tail, weights_of("mixed", 50).bfloat16())
    assert result.dtype == torch.bfloat16 and all(gradient.dtype == torch.bfloat16 for gradient in found)


@pytest.mark.parametrize("pattern", ["dense", "sparse", "mixed"])
@pytest.mark.parametrize("frozen", ["head", "tail", "both", "weight", "bias", "head and weight"])
def test_gradients_that_nobody_wants(pattern, frozen):
    layer, head, tail = inputs()
    weights = weights_of(pattern, 50)
    if "head" in frozen or frozen == "both":
        head.requires_grad_(False)
    if frozen in ("tail", "both"):
        tail.requires_grad_(False)
    layer.linear.weight.requires_grad_("weight" not in frozen)
    layer.linear.bias.requires_grad_("bias" not in frozen)
    expected = gradients(lambda *pair: textbook(layer, *pair), layer, head, tail, weights)[1]
    found = gradients(layer, layer, head, tail, weights)[1]
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_without_pairs():
    layer, head, tail = inputs(pairs=0)
    result = layer(head, tail)
    assert result.shape == (0, OUT)
    result.sum().backward()
    assert head.grad.shape == (0, EMB)
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in layer.parameters())


def test_no_second_derivative():
    layer, head, tail = inputs()
    (gradient,) = torch.autograd.grad(layer(head, tail).sum(), head, create_graph=True)
    with pytest.raises(RuntimeError):
        gradient.sum().backward()


def test_gradients_accumulate():
    layer, head, tail = inputs()
    weights = weights_of("sparse", 50)
    expected = gradients(layer, layer, head, tail, weights)[1][2]
    for pairs in (slice(20), slice(20, 50)):
        (layer(head[pairs], tail[pairs]) * weights[pairs]).sum().backward()
    torch.testing.assert_close(layer.linear.weight.grad, expected, rtol=1e-4, atol=1e-5)


def test_backward_keeps_head_and_tail_alone():
    layer, head, tail = inputs()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        layer(head, tail)
    assert {tensor.data_ptr() for tensor in kept} == {
        tensor.data_ptr() for tensor in (head, tail, layer.linear.weight)
    }


def test_gradient_checkpointing():
    layer, head, tail = inputs()
    weights = weights_of("mixed", 50)
    expected = gradients(layer, layer, head, tail, weights)[1]
    found = gradients(lambda *pair: checkpoint(layer, *pair, use_reentrant=False), layer, head, tail, weights)[1]
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


class Adapter(torch.nn.Module):
    """What peft puts in a linear layer's place, in short: frozen weights and a product of two small matrices."""

    def __init__(self, linear, rank=2):
        super().__init__()
        self.base_layer = linear.requires_grad_(False)
        self.weight = linear.weight  # as peft's, too: reading it is not what the layer computes
        self.down = torch.nn.Linear(linear.in_features, rank, bias=False)
        self.up = torch.nn.Linear(rank, linear.out_features, bias=False)

    def forward(self, inputs):
        return self.base_layer(inputs) + self.up(self.down(inputs))


def test_replaced_linear():
    layer, head, tail = inputs()
    layer.linear = Adapter(layer.linear)
    expected = textbook(layer, head, tail)
    torch.testing.assert_close(layer(head, tail), expected, rtol=1e-5, atol=1e-5)
    layer(head, tail).sum().backward()
    assert layer.linear.up.weight.grad.any() and head.grad.any()
    with torch.no_grad():
        torch.testing.assert_close(layer(head, tail), expected, rtol=1e-5, atol=1e-5)
        assert layer(head[:0], tail[:0]).shape == (0, OUT)


def test_layer_with_a_hook_is_called():
    layer, head, tail = inputs()
    layer.linear.register_forward_hook(lambda _, given, result: result + 1)
    torch.testing.assert_close(layer(head, tail), textbook(layer, head, tail))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_quantized_layer():
    layer, head, tail = inputs(requires_grad=False)
    expected = layer(head, tail)
    quantized = torch.ao.quantization.quantize_dynamic(copy.deepcopy(layer), {torch.nn.Linear}, dtype=torch.qint8)
    assert type(quantized.linear) is not torch.nn.Linear
    with torch.no_grad():
        found = quantized(head, tail)
    assert 0 < (found - expected).abs().max() < 0.1 * expected.abs().max()


def test_compiled_model_leaves_the_graph_and_says_so_once(caplog):
    layer, head, tail = inputs()
    weights = weights_of("mixed", 50)
    expected = torch.autograd.grad((layer(head, tail).tanh() * weights).sum(), head)[0]
    compiled = torch.compile(lambda head, tail: layer(head * 1.0, tail).tanh(), backend="aot_eager")
    for _ in range(2):
        found = torch.autograd.grad((compiled(head, tail) * weights).sum(), head)[0]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert [record.name for record in caplog.records].count(module.__name__) == 1


def test_export_has_no_loop_over_pairs():
    layer, head, tail = inputs(requires_grad=False)
    pairs = torch.export.Dim("pairs", min=2, max=10_000)
    exported = torch.export.export(layer, (head, tail), dynamic_shapes=({0: pairs}, {0: pairs})).module()
    for number in (7, 120):
        head, tail = torch.randn(number, EMB), torch.randn(number, EMB)
        torch.testing.assert_close(exported(head, tail), layer(head, tail), rtol=1e-4, atol=1e-5)
