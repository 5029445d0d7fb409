"""Every registered relation encoder, and the fixed grids of the originals, through one list of tests, on BERT and on RoBERTa."""

import functools
import itertools

import pytest
import torch
from helpers import (
    TOKENIZERS,
    entity_attention,
    logits_by_pair,
    random_document,
    small_encoder,
    tiny_config,
    tiny_model,
    tiny_system,
)
from transformers import AutoModel

from modeling_comm import (
    CommForDocumentRelationExtraction,
    available_losses,
    available_relation_encoders,
    grouped_bilinear,
    relation_encoder_base,
)
from modeling_comm.losses import loss_from_config
from modeling_comm.pair_grids import PairGrids
from modeling_comm.relation_encoder_docunet import GridNorm
from modeling_comm.relation_encoders import get_relation_encoder
from modeling_comm.settings import WrongResultError

OWN_GRIDS = {name: small_encoder(name) for name in available_relation_encoders()}
GRIDS = [
    name for name in OWN_GRIDS if "fixed_grid" in {setting.field for setting in get_relation_encoder(name).settings}
]
FIXED_GRIDS = {f"{name}, fixed grid": {**OWN_GRIDS[name], "fixed_grid": 12} for name in GRIDS}
# The originals' grids let padding in: only the growing ones keep documents apart from it, whatever they are made of.
each = pytest.mark.parametrize(
    "settings", [*OWN_GRIDS.values(), *FIXED_GRIDS.values()], ids=[*OWN_GRIDS, *FIXED_GRIDS]
)
each_own_grid = pytest.mark.parametrize("settings", OWN_GRIDS.values(), ids=OWN_GRIDS)
each_grid = pytest.mark.parametrize("name", GRIDS)
# Two documents of one size beside each other, one without a pair, one without an entity, windows of one and of many.
ENTITIES = [(5, 30), (5, 12), (0, 9), (7, 60), (1, 20), (2, 12), (3, 12), (12, 40)]


@pytest.fixture(params=TOKENIZERS)
def system(request):
    """A function that makes a model and its processor, of either kind."""
    return functools.partial(make_system, request.param)


def make_system(kind, settings, **fields):
    config, processor = tiny_system(kind, **settings, **fields)
    model = tiny_model(config)
    norms = [module for module in model.modules() if isinstance(module, GridNorm)]
    for norm in norms:  # their statistics and weights as training would leave them
        norm.momentum = 1.0
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
    if norms:
        model.relation_encoder.train()
        with torch.no_grad():
            model(**processor([random_document(min(9, getattr(config, "fixed_grid", None) or 9), 30, seed=99)]))
        model.eval()
    for norm in norms:
        norm.momentum = 0.1
    return model, processor


def documents(sizes=ENTITIES):
    return [random_document(entities, words, seed=seed) for seed, (entities, words) in enumerate(sizes)]


def assert_same(left, right, tolerance=1e-5):
    assert set(left) == set(right)
    for pair, logits in left.items():
        assert torch.allclose(logits, right[pair], atol=tolerance, rtol=tolerance), pair


# ------------------------------------------------------------------------------------------------ sizes and batches


@each
@pytest.mark.parametrize("entities", [0, 1, 2, 3, 5, 7, 12])
def test_few_entities(system, settings, entities):
    model, processor = system(settings)
    batch = processor(random_document(entities, 30, seed=entities))
    for mode in (False, True):  # also one document alone in training, whose smallest grid has a single cell
        output = model.train(mode)(**batch)
        assert output.logits.shape == (entities * max(entities - 1, 0), 5)
        assert torch.isfinite(output.logits).all() and torch.isfinite(output.loss)
        output.loss.backward()


@each_own_grid
@pytest.mark.parametrize("entities", [43, 100, 200])
def test_many_entities(system, settings, entities):
    model, processor = system(settings)
    batch = processor(random_document(entities, 40))
    with torch.no_grad():
        logits = model(**batch).logits
    assert len(logits) == entities * (entities - 1) and torch.isfinite(logits).all()
    assert logits.std(0).min() > 1e-3


@each
def test_result_does_not_depend_on_the_batch(system, settings):
    """Neither on its other documents, nor on their order, nor on padding, nor on which pairs are asked for."""
    model, processor = system(settings)
    batch = processor(documents())
    with torch.no_grad():
        together = logits_by_pair(model(**batch))
        for index, document in enumerate(documents()):
            alone = logits_by_pair(model(**processor(document)))
            assert_same(
                {(index, h, t): x for (_, h, t), x in alone.items()},
                {k: v for k, v in together.items() if k[0] == index},
            )
        turned = logits_by_pair(model(**processor(documents()[::-1])))
        assert_same({(len(ENTITIES) - 1 - b, h, t): x for (b, h, t), x in turned.items()}, together)
        wider = {**batch, "entity_mask": torch.nn.functional.pad(batch["entity_mask"], (0, 5))}
        assert_same(logits_by_pair(model(**wider)), together)
        some = torch.randperm(len(batch["pair_index"]), generator=torch.Generator().manual_seed(0))[:9]
        few = logits_by_pair(model(**{**batch, "pair_index": batch["pair_index"][some], "labels": None}))
        assert_same(few, {pair: together[pair] for pair in few})
    assert torch.stack(list(together.values())).std(0).min() > 1e-3  # they differ, so that a mistake would show


@each_own_grid
def test_training_does_not_see_padding(system, settings):
    """Normalisation statistics, too, are those of real cells: padding changes neither them nor the results."""
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (model, processor), (other, _) = (system(settings, text_fields=no_dropout) for _ in range(2))
    other.load_state_dict(model.state_dict())
    batch = processor(documents())
    wider = {**batch, "entity_mask": torch.nn.functional.pad(batch["entity_mask"], (0, 5))}
    assert_same(logits_by_pair(model.train()(**batch)), logits_by_pair(other.train()(**wider)))
    for name, buffer in model.named_buffers():
        assert torch.allclose(buffer, other.get_buffer(name), atol=1e-6), name


@each_grid
def test_a_fixed_grid_of_the_documents_own_size_is_the_growing_one(system, name):
    """The growing grid computes what the originals do where they have no padding."""
    model, processor = system(OWN_GRIDS[name])
    for entities in (4, 5, 7, 12):
        fixed, _ = system(OWN_GRIDS[name], fixed_grid=entities)
        fixed.load_state_dict(model.state_dict())
        batch = processor(documents([(entities, 30), (entities, 40)]))
        with torch.no_grad():
            assert_same(logits_by_pair(fixed(**batch)), logits_by_pair(model(**batch)))


@each_grid
def test_more_entities_than_the_fixed_grid_has_rows(system, name):
    model, processor = system(FIXED_GRIDS[f"{name}, fixed grid"])
    with pytest.raises(ValueError, match=r"document 1\b.*\b13\b.*\b12\b"):
        model(**processor(documents([(3, 12), (13, 40)])))


def test_cells_of_grids():
    grids = PairGrids([2, 0, 3, 3, 1])
    document, head, tail = grids.cells("cpu").unbind(-1)
    expected = [
        (b, h, t) for b, size in enumerate(grids.sizes) for h, t in itertools.product(range(size), range(size))
    ]
    assert list(zip(document.tolist(), head.tolist(), tail.tolist(), strict=True)) == expected
    assert grids.rows(document, head, tail).tolist() == list(range(len(expected)))
    cells = torch.arange(2.0 * len(expected)).view(-1, 2)
    assert [tuple(grid.shape) for grid in grids.split(cells)] == [(1, 2, 2, 2), (2, 3, 3, 2), (1, 1, 1, 2)]
    assert torch.equal(grids.join(grids.split(cells)), cells)


# ------------------------------------------------------------------------------------------------ straight loops


def naive_context(documents, index, head, tail, heads):
    rows = documents.whole_attention[index, [head, tail]]
    product = (rows[0] * rows[1]).mean(0) if heads == "mean" else (rows[0] * rows[1]).sum(0)
    return product / (product.sum() + (1e-5 if heads == "mean" else 1e-10)) @ documents.token_states[index]


def naive_grid(documents, index, size, cell):
    return torch.stack([torch.stack([cell(index, head, tail) for tail in range(size)]) for head in range(size)])


def naive_embedding(documents, index, entity):
    return documents.mention_states[index][documents.mention_entities[index] == entity].logsumexp(0)


def naive_bilinear(encoder, head, tail, block, linear):
    groups = [torch.outer(head[i : i + block], tail[i : i + block]) for i in range(0, len(head), block)]
    return linear(torch.cat([group.flatten() for group in groups]))


def naive_kd_docre(encoder, config, documents, index, size):
    def feature(_, head, tail):
        context = naive_context(documents, index, head, tail, "sum")
        z_h = encoder.head_projection(torch.cat([naive_embedding(documents, index, head), context])).tanh()
        z_t = encoder.tail_projection(torch.cat([naive_embedding(documents, index, tail), context])).tanh()
        return naive_bilinear(encoder, z_h, z_t, config.block_size, encoder.pair_feature.linear)

    def attend(module, line):
        query, (key, value) = module.query(line), module.key_value(line).chunk(2, -1)
        width = query.shape[-1] // config.axial_heads
        parts = []
        for start in range(0, query.shape[-1], width):
            q, k, v = (tensor[:, start : start + width] for tensor in (query, key, value))
            parts.append((q @ k.T / width**0.5).softmax(-1) @ v)
        return module.output(torch.cat(parts, -1))

    grid = cells = naive_grid(documents, index, size, feature)
    for layer in encoder.layers:
        columns = torch.stack([attend(layer.column_attention, cells[:, tail]) for tail in range(size)], 1)
        rows = torch.stack([attend(layer.row_attention, cells[head]) for head in range(size)])
        cells = layer.norm(layer.linear(cells + columns + rows))
    return encoder.classifier(cells + grid)


def naive_docunet(encoder, config, documents, index, size):
    def block(module, image):
        for convolution, norm in ((module.convolution_1, module.norm_1), (module.convolution_2, module.norm_2)):
            image = convolution(image)
            mean, variance, weight, bias = (
                x[:, None, None] for x in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
            )
            image = ((image - mean) / (variance + norm.eps).sqrt() * weight + bias).relu()
        return image

    def halve(image):
        side = max(image.shape[-1] // 2, 1)
        cells = [
            [image[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].amax((1, 2)) for j in range(side)] for i in range(side)
        ]
        return torch.stack([torch.stack(row, -1) for row in cells], 1)

    def enlarge(image, size):
        small, double = image.shape[-1], 2 * image.shape[-1]
        result = image.new_zeros(len(image), size, size)
        for i, j in itertools.product(range(min(double, size)), range(min(double, size))):
            y, x = (place * (small - 1) / (double - 1) for place in (i, j))
            for row, column in itertools.product(range(small), range(small)):
                share = max(0.0, 1 - abs(y - row)) * max(0.0, 1 - abs(x - column))
                result[:, i, j] += share * image[:, row, column]
        return result

    unet = encoder.unet
    channels = naive_grid(
        documents, index, size, lambda b, h, t: encoder.channel_projection(naive_context(documents, b, h, t, "mean"))
    )
    whole = block(unet.entrance, channels.permute(2, 0, 1))
    half = block(unet.down_1, halve(whole))
    quarter = block(unet.down_2, halve(half))
    half = block(unet.up_1, torch.cat([half, enlarge(quarter, half.shape[-1])]))
    image = unet.exit(block(unet.up_2, torch.cat([whole, enlarge(half, size)])))

    def logits(_, head, tail):
        feature = image[:, head, tail]
        z_h = encoder.head_projection(torch.cat([naive_embedding(documents, index, head), feature])).tanh()
        z_t = encoder.tail_projection(torch.cat([naive_embedding(documents, index, tail), feature])).tanh()
        return naive_bilinear(encoder, z_h, z_t, config.block_size, encoder.classifier.linear)

    return naive_grid(documents, index, size, logits)


@pytest.mark.parametrize(("name", "naive"), [("docunet", naive_docunet), ("kd_docre", naive_kd_docre)])
def test_equals_straight_loops(system, name, naive):
    """The formulas one cell, one line, one group at a time; grids of odd and even size, and so small that halving ends."""
    model, processor = system(OWN_GRIDS[name])
    sizes = [2, 3, 5, 8]
    seen = []
    hook = model.relation_encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        ours = logits_by_pair(model(**processor(documents([(size, 12) for size in sizes]))))
        hook.remove()
        seen[0].whole_attention = entity_attention(seen[0])
        for index, size in enumerate(sizes):
            expected = naive(model.relation_encoder, model.config, seen[0], index, size)
            pairs = [(h, t) for h, t in itertools.product(range(size), range(size)) if h != t]
            assert_same({pair: ours[(index, *pair)] for pair in pairs}, {pair: expected[pair] for pair in pairs}, 2e-5)


# ------------------------------------------------------------------------------------------------------ precision


@each
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision(system, settings, dtype):
    model, processor = system(settings)
    batch = processor(documents())
    with torch.no_grad():
        expected = model(**batch).logits
        half = model.to(dtype)(**batch).logits
    assert half.dtype == dtype and torch.isfinite(half).all()
    tolerance = 0.02 if dtype == torch.float16 else 0.15
    assert (half.float() - expected).abs().max() < tolerance * expected.abs().max()


@each
def test_prediction_in_parts_is_that_in_one(system, settings, monkeypatch):
    model, processor = system(settings)
    batch = processor(documents())
    with torch.no_grad():
        expected = model(**batch).logits
        monkeypatch.setattr(grouped_bilinear, "PAIRS_AT_ONCE", 7)
        monkeypatch.setattr(relation_encoder_base, "PAIRS_AT_ONCE", 20)
        monkeypatch.setattr(relation_encoder_base, "WEIGHTS_AT_ONCE", 1000)
        torch.testing.assert_close(model(**batch).logits, expected, rtol=1e-4, atol=1e-5)


def gradients_and_kept_bytes(model, batch, pairs_at_once):
    """The loss and its gradients, and the bytes that are kept for the backward pass."""
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    model.zero_grad()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(**batch, pairs_at_once=pairs_at_once).loss
    loss.backward()
    return [loss.detach(), *(parameter.grad.clone() for parameter in model.parameters())], sum(kept.values())


@each
@pytest.mark.parametrize("counted", [False, True])
def test_bounded_pairs_have_the_gradients_of_the_batch(system, settings, counted):
    model, processor = system(settings)
    model.double()  # but for attention; float32 rounds the sharpened models' gradients in the sixth digit
    batch = processor(documents())
    if counted:
        batch["num_items_in_batch"] = torch.tensor(1000)
    expected, all_pairs = gradients_and_kept_bytes(model, batch, None)
    found, some_pairs = gradients_and_kept_bytes(model, batch, 7)
    for ours, theirs in zip(found, expected, strict=True):
        assert ((ours - theirs).abs() <= 1e-6 * theirs.abs().clamp(min=1)).all()
    assert some_pairs < all_pairs
    assert any(gradient.abs().max() > 1e-4 for gradient in found[1:])


@each
def test_projections_can_be_replaced(system, settings):
    """As adapters and quantization do: the module in a linear layer's place is called."""

    class Adapter(torch.nn.Module):
        def __init__(self, linear):
            super().__init__()
            self.linear, self.added = linear, torch.nn.Linear(linear.in_features, linear.out_features, bias=False)
            torch.nn.init.zeros_(self.added.weight)

        def forward(self, inputs):
            return self.linear(inputs) + self.added(inputs)

    model, processor = system(settings)
    batch = processor(documents())
    with torch.no_grad():
        expected = model(**batch).logits
    encoder = model.relation_encoder
    linears = [name for name, module in encoder.named_children() if type(module) is torch.nn.Linear]
    for name in linears:
        setattr(encoder, name, Adapter(getattr(encoder, name)))
    logits = model(**batch).logits
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    logits.square().sum().backward()
    for name in linears:
        assert getattr(encoder, name).added.weight.grad.abs().max() > 0


@each
def test_layers_with_integer_weights_get_inputs_in_floating_point(system, settings):
    """As those of bitsandbytes, whose first parameter is the packed weight."""

    class Packed(torch.nn.Module):
        def __init__(self, linear):
            super().__init__()
            scale = linear.weight.abs().max() / 127
            self.weight = torch.nn.Parameter((linear.weight / scale).round().to(torch.int8), requires_grad=False)
            self.bias, self.scale = linear.bias, scale.detach()

        def forward(self, inputs):
            return torch.nn.functional.linear(inputs, self.weight * self.scale, self.bias)

    model, processor = system(settings)
    batch = processor(documents())
    with torch.no_grad():
        expected = model(**batch).logits
        encoder = model.relation_encoder
        for name in [name for name, module in encoder.named_children() if type(module) is torch.nn.Linear]:
            setattr(encoder, name, Packed(getattr(encoder, name)))
        logits = model(**batch).logits
    assert 0 < (logits - expected).abs().max() < 0.2 * expected.abs().max()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda logits: None,
        lambda logits: (logits,),
        lambda logits: logits[:-1],
        lambda logits: logits[:, 1:],
        torch.Tensor.long,
    ],
)
def test_results_that_are_no_logits(system, wrong):
    model, processor = system(OWN_GRIDS["atlop"])
    forward = model.relation_encoder.forward
    model.relation_encoder.forward = lambda encoded: wrong(forward(encoded))
    with pytest.raises(WrongResultError) as error:
        model(**processor(documents()))
    assert "'atlop'" in error.value.owner


@each
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_dynamic_quantization(system, settings):
    model, processor = system(settings)
    batch = processor(documents())
    quantized = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
    with torch.no_grad():
        expected, logits = model(**batch).logits, quantized(**batch).logits
    assert 0 < (logits - expected).abs().max() < 0.2 * expected.abs().max()


@each
def test_autocast(system, settings):
    model, processor = system(settings)
    batch = processor(documents())
    with torch.no_grad():
        expected = model(**batch).logits
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(**batch)
    output.loss.backward()
    assert (output.logits.float() - expected).abs().max() < 0.15 * expected.abs().max()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


# ------------------------------------------------------------------------------------------------------- training


@each
def test_every_parameter_gets_a_gradient(system, settings):
    model, processor = system(settings)
    batch = processor(documents())
    for mode in (False, True):
        model.zero_grad()
        model.train(mode)(**batch).loss.backward()
        gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
        assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients.values())
        silent = [name for name, gradient in gradients.items() if not gradient.any()]
        assert not silent, silent


@each
def test_batch_without_pairs(system, settings):
    """A process whose documents have no pairs must still take part in the exchange of gradients."""
    model, processor = system(settings)
    for without_pairs in ([random_document(0, 50), random_document(1, 12)], []):
        model.zero_grad()
        output = model.train()(**processor(without_pairs) if without_pairs else processor.collate([]))
        assert output.logits.shape == (0, 5)
        output.loss.backward()
        assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


@each
@pytest.mark.parametrize("loss", available_losses())
def test_every_loss_trains(system, settings, loss):
    model, processor = system(settings, loss=loss)
    batch = processor(documents())
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=3e-4)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        losses.append(model(**batch).loss)
        losses[-1].backward()
        optimizer.step()
    assert torch.isfinite(torch.stack(losses)).all() and losses[-1] < losses[0]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("loss", [loss for loss in available_losses() if loss != "ssr_pu"])  # no sum over pairs
def test_kd_docres_fixed_grid_counts_self_pairs_in_the_loss(system, loss, reduction):
    """Rows of zeros without a relation, one for each entity, as if the encoder had returned them."""
    settings = FIXED_GRIDS["kd_docre, fixed grid"]
    model, processor = system(settings, loss=loss, loss_reduction=reduction)
    batch = processor(documents())
    output = model(**batch)
    zeros = torch.zeros(int(batch["entity_mask"].sum()), 5)
    logits, labels = torch.cat([output.logits, zeros]), torch.cat([batch["labels"], zeros])
    assert torch.allclose(output.loss, loss_from_config(model.config)(logits, labels, reduction=reduction), rtol=1e-5)
    shared = model(**batch, num_items_in_batch=torch.tensor(1000)).loss
    if reduction == "mean":
        assert torch.allclose(shared * 1000, output.loss * len(logits), rtol=1e-5)
    # The growing grid's loss has none of this.
    model, processor = system(OWN_GRIDS["kd_docre"], loss=loss, loss_reduction=reduction)
    output = model(**batch)
    expected = loss_from_config(model.config)(output.logits, batch["labels"], reduction=reduction)
    assert torch.equal(output.loss, expected)


def kept_for_backward(model, batch):
    """Bytes that a forward keeps for the backward pass of the relation encoder."""
    seen, sizes = [], {}
    hook = model.relation_encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(**batch)
    hook.remove()

    def keep(tensor):
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model.relation_encoder(seen[0])
    assert output.requires_grad
    return sum(sizes.values())


@each_grid
def test_memory_follows_the_real_pairs(system, name):
    """A document's small neighbours add their own few pairs, and attention along rows and columns keeps no cube."""
    model, processor = system(OWN_GRIDS[name])
    large = kept_for_backward(model, processor(documents([(40, 12)])))
    with_small = kept_for_backward(model, processor(documents([(40, 12), (3, 12), (4, 12), (3, 12)])))
    twice = kept_for_backward(model, processor(documents([(80, 12)])))
    assert with_small < 1.1 * large
    assert twice < 4.3 * large


# ---------------------------------------------------------------------------------------------------------- saving


@each
def test_save_and_load(system, settings, tmp_path):
    model, processor = system(settings)
    batch = processor(documents())
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert type(loaded) is CommForDocumentRelationExtraction
    assert getattr(loaded.config, "fixed_grid", None) == getattr(model.config, "fixed_grid", None)
    assert set(loaded.state_dict()) == set(model.state_dict())
    with torch.no_grad():
        assert torch.allclose(loaded.eval()(**batch).logits, model(**batch).logits, atol=1e-5)


def test_new_convolutions_start_as_their_authors_did():
    """With torch's own scheme, like linear layers: uniform within 1 / sqrt(inputs)."""
    model = CommForDocumentRelationExtraction(tiny_config(**{**OWN_GRIDS["docunet"], "unet_down_dim": 32}))
    for module in model.relation_encoder.modules():
        if isinstance(module, torch.nn.Conv2d):
            bound = module.weight[0].numel() ** -0.5
            weight, bias = module.weight.abs().max(), module.bias.abs().max()
            assert 0.8 * bound < weight <= bound and 0 < bias <= bound  # of a few biases, none may come near it
