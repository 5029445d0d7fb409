"""The model: its results against straight loops over the formulas, and what must not change them (batch, padding, order of
pairs, precision, attention implementation, checkpointing, saving)."""

import copy
import math

import pytest
import torch
from helpers import (
    LABELS,
    TOKENIZERS,
    NeverWaits,
    entity_attention,
    logits_by_pair,
    mentions_as_entities,
    random_document,
    sharpen,
    tiny_config,
    tiny_model,
    tiny_processor,
    tiny_system,
    tiny_text_config,
    word_piece_tokenizer,
)
from transformers import AutoConfig, AutoModel, BertConfig, BertModel

from modeling_comm import (
    CommConfig,
    CommForDocumentRelationExtraction,
    CommProcessor,
    EncodedDocuments,
    register_relation_encoder,
)
from modeling_comm.backbone_attention import SDPA_WITH_ROWS, sdpa_attention_with_rows
from modeling_comm.losses import loss_from_config
from modeling_comm.relation_encoder_atlop import AtlopRelationEncoder
from modeling_comm.settings import SettingError
from modeling_comm.windows import EntityAttention

BACKBONES = ["bert", "roberta", "xlm-roberta", "electra", "distilbert", "mpnet", "deberta-v2", "modernbert"]
each_kind = pytest.mark.parametrize("kind", TOKENIZERS)
each_backbone = pytest.mark.parametrize("backbone", BACKBONES)
# Entities and words: the first, third and sixth have one window; the second has enough that some pairs have no context.
SIZES = [(3, 6), (6, 90), (0, 8), (1, 25), (12, 40), (2, 2)]


@pytest.fixture(scope="module")
def documents():
    return [random_document(entities, words, seed=seed) for seed, (entities, words) in enumerate(SIZES)]


@pytest.fixture(scope="module")
def processor():
    return tiny_processor()


@pytest.fixture(scope="module")
def batch(processor, documents):
    return processor(documents)


@pytest.fixture(scope="module")
def model():
    """Read only: tests that change a model make their own."""
    return tiny_model()


def gradients(model, batch, scale=1.0):
    """Gradients of the loss by parameter name, and the loss."""
    model.zero_grad()
    loss = model(**batch).loss
    (loss * scale).backward()
    found = {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    return found, loss.detach()


def assert_same(left, right, tolerance):
    assert set(left) == set(right)
    for key in left:
        scale = max(1.0, right[key].abs().max().item()) if right[key].numel() else 1.0
        assert (left[key] - right[key]).abs().max().item() <= tolerance * scale, key


def with_eager_attention(model):
    eager = tiny_model(copy.deepcopy(model.config))
    eager.load_state_dict(model.state_dict())
    eager.set_attn_implementation("eager")
    return eager


# --- straight loops


def naive_atlop(model, processor, document):
    """ATLOP by its formulas, one mention, one pair, one group at a time, in float64 from the backbone's own eager output."""
    feature = processor.encode([document])[0]
    tokens = feature["input_ids"]
    length, heads = len(tokens), model.config.text_config.num_attention_heads
    backbone = AutoModel.from_config(model.config.text_config, attn_implementation="eager").eval()
    backbone.load_state_dict(model.backbone.state_dict(), strict=False)
    states = torch.zeros(length, backbone.config.hidden_size, dtype=torch.float64)
    attention = torch.zeros(heads, length, length, dtype=torch.float64)
    times = torch.zeros(length, 1)
    spans = processor.window_spans(length)
    for start, end in spans:
        before, after = tokens[:1] * (start > 0), tokens[-1:] * (end < length)
        with torch.no_grad():
            row = torch.tensor([[*before, *tokens[start:end], *after]])
            encoded = backbone(row, attention_mask=torch.ones_like(row), output_attentions=True)
        inside = slice(len(before), len(before) + end - start)
        states[start:end] += encoded.last_hidden_state[0, inside].double()
        attention[:, start:end, start:end] += encoded.attentions[-1][0, :, inside, inside].double()
        times[start:end] += 1
    states /= times
    if len(spans) > 1:
        attention /= attention.sum(-1, keepdim=True) + 1e-10

    embeddings, focus = [], []
    for entity in range(feature["num_entities"]):
        rows = [
            row
            for row, owner in zip(feature["mention_positions"], feature["mention_entities"], strict=True)
            if owner == entity
        ]
        embeddings.append(torch.stack([states[row].exp() for row in rows]).sum(0).log())
        focus.append(torch.stack([attention[:, row] for row in rows]).mean(0))

    encoder = model.relation_encoder.double()
    weight, bias = encoder.classifier.linear.weight.detach(), encoder.classifier.linear.bias.detach()
    block, found = model.config.block_size, {}
    for h, head in enumerate(embeddings):
        for t, tail in enumerate(embeddings):
            if h == t:
                continue
            product = (focus[h] * focus[t]).mean(0)
            context = (product / (product.sum() + 1e-5)) @ states
            z_h = torch.tanh(encoder.head_projection(torch.cat([head, context])))
            z_t = torch.tanh(encoder.tail_projection(torch.cat([tail, context])))
            groups = [torch.outer(z_h[i : i + block], z_t[i : i + block]) for i in range(0, len(z_h), block)]
            found[h, t] = (weight @ torch.cat([group.flatten() for group in groups]) + bias).detach().float()
    encoder.float()
    return found


@pytest.mark.parametrize("backbone", ["bert", "deberta-v2"])
@pytest.mark.parametrize(("entities", "words"), [(5, 14), (6, 35), (6, 110)], ids=["1 window", "2-3 windows", "long"])
def test_equals_straight_loops(backbone, entities, words):
    config = tiny_config(backbone)
    model, processor = tiny_model(config), tiny_processor(config)
    document = random_document(entities, words, mentions=3, seed=words)
    with torch.no_grad():
        ours = logits_by_pair(model(**processor(document)))
    expected = naive_atlop(model, processor, document)
    assert len(ours) == len(expected) == entities * (entities - 1)
    assert_same({(h, t): logits for (_, h, t), logits in ours.items()}, expected, 1e-5)
    spread = torch.stack(list(expected.values())).std(0)
    assert spread.min() > 0.01  # the pairs differ, so that a wrong context or a wrong pair would show


# --- what must not matter


@each_backbone
def test_result_does_not_depend_on_the_batch(backbone, documents):
    """Neither on its other documents nor on padding, in a batch that mixes documents of one and of several windows."""
    config = tiny_config(backbone)
    model, processor = tiny_model(config), tiny_processor(config)
    for chosen, most_windows in ((documents, 3), (documents[0::5], 1)):
        batch = processor(chosen)
        windows = torch.bincount(batch["windows"][:, 0])
        assert windows.min() == 1 and (windows.max() >= 3) == (most_windows >= 3)
        assert (batch["attention_mask"] == 0).any()
        with torch.no_grad():
            together = logits_by_pair(model(**batch))
            alone = {}
            for index, document in enumerate(chosen):
                found = logits_by_pair(model(**processor(document)))
                alone |= {(index, h, t): logits for (_, h, t), logits in found.items()}
            assert_same(together, alone, 1e-5)
            # The values at padded places are never looked at (but RoBERTa and MPNet count positions by the padding id).
            batch["input_ids"] = torch.where(batch["attention_mask"] == 1, batch["input_ids"], 7)
            if "roberta" not in backbone and backbone != "mpnet":
                assert_same(logits_by_pair(model(**batch)), together, 1e-5)


def test_order_of_pairs_and_of_documents(model, processor, documents, batch):
    with torch.no_grad():
        expected = model(**batch).logits
        order = torch.randperm(len(expected), generator=torch.Generator().manual_seed(0))
        shuffled = model(**{**batch, "pair_index": batch["pair_index"][order], "labels": batch["labels"][order]})
        assert torch.allclose(shuffled.logits, expected[order], atol=1e-6)
        reversed_documents = logits_by_pair(model(**processor(documents[::-1])))
        renumbered = {(len(documents) - 1 - b, h, t): x for (b, h, t), x in reversed_documents.items()}
        assert_same(renumbered, logits_by_pair(model(**batch)), 1e-5)
        few = model(**{**batch, "pair_index": batch["pair_index"][5:8], "labels": None})  # any subset may be asked for
        assert torch.allclose(few.logits, expected[5:8], atol=1e-6) and few.loss is None


def test_extra_padding(model, batch):
    """Columns and rows that hold nothing, as another process's longer documents would bring."""
    wider = dict(batch)
    wider["mention_positions"] = torch.nn.functional.pad(batch["mention_positions"], (0, 3), value=-1)
    wider["mention_entities"] = torch.nn.functional.pad(batch["mention_entities"], (0, 3), value=-1)
    wider["entity_mask"] = torch.nn.functional.pad(batch["entity_mask"], (0, 5))
    wider["input_ids"] = torch.nn.functional.pad(batch["input_ids"], (0, 9))
    wider["attention_mask"] = torch.nn.functional.pad(batch["attention_mask"], (0, 9))
    with torch.no_grad():
        assert torch.allclose(model(**wider).logits, model(**batch).logits, atol=1e-5)


def test_lost_mentions(model, processor):
    """A mention that was cut off is as if it had never been; an entity without any left has logits, and they are finite."""
    document = random_document(5, 60, mentions=3, seed=3)
    cut = processor(document, max_length=25)
    positions = cut["mention_positions"][0]
    assert (positions < 0).any() and (positions >= 0).any()
    without = dict(cut)
    kept = positions >= 0
    without["mention_positions"], without["mention_entities"] = positions[None, kept], cut["mention_entities"][:, kept]
    del without["window_mentions"]  # numbers of mentions that have become others
    with torch.no_grad():
        logits = model(**cut).logits
        assert torch.isfinite(logits).all() and torch.allclose(logits, model(**without).logits, atol=1e-6)


def documents_seen(model, batch):
    """Records the documents that the relation encoder gets."""
    seen = []
    hook = model.relation_encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(**batch)
    hook.remove()
    return seen[0]


@pytest.mark.parametrize(("entities", "words"), [(43, 200), (100, 600), (5, 5000)])
def test_any_size(model, processor, entities, words):
    """No number of entities is built in, nor a longest document."""
    batch = processor(random_document(entities, words, seed=words))
    with torch.no_grad():
        output = model(**batch)
    assert output.logits.shape == (entities * (entities - 1), len(LABELS))
    assert torch.isfinite(output.logits).all() and torch.isfinite(output.loss)
    assert len(output.logits.unique(dim=0)) > 0.9 * len(output.logits)


@pytest.mark.parametrize(("max_length", "windows"), [(20, 2), (40, 3)])
def test_relation_encoder_gets_zeros_for_padding(model, processor, max_length, windows):
    """Relation encoders may rely on it, whether windows are merged or not."""
    batch = processor([random_document(3, 4, seed=1), random_document(6, 60, seed=2)], max_length=max_length)
    assert len(batch["windows"]) == windows
    seen = documents_seen(model, batch)
    padding = ~batch["document_mask"]
    lost = batch["mention_positions"] < 0
    assert padding.any() and (lost & (batch["mention_entities"] >= 0)).any()
    assert not seen.token_states[padding].any() and seen.token_states[~padding].any(-1).all()
    assert not seen.mention_states[lost].any() and seen.mention_states[~lost].any(-1).all()
    assert (seen.mention_entities[lost] == -1).all()
    whole = entity_attention(documents_seen(model, mentions_as_entities(batch)))
    attention = whole[~lost]
    assert not whole[lost].any() and torch.allclose(attention.sum(-1), torch.ones(attention.shape[:-1]), atol=1e-5)
    assert not (whole * padding[:, None, None, :]).any()


def test_mention_listed_twice_counts_twice(model, processor):
    document = random_document(3, 14, mentions=1, seed=2)
    twice = copy.deepcopy(document)
    twice["vertexSet"][0] *= 2
    seen = [documents_seen(model, processor(document)), documents_seen(model, processor(twice))]
    first, second = (documents.entity_embeddings()[0] for documents in seen)
    assert torch.allclose(second[0], first[0] + math.log(2), atol=1e-5) and torch.allclose(second[1:], first[1:])
    assert torch.allclose(*map(entity_attention, seen), atol=1e-6)


# --- what runs where


@each_kind
@pytest.mark.parametrize("padding", [True, False])
def test_forward_never_waits_for_the_device(kind, padding, documents):
    config, processor = tiny_system(kind)
    model, batch = tiny_model(config), processor(documents if padding else documents[1])
    assert len(batch["windows"]) > 1 and (batch["attention_mask"] == 0).any() == padding
    del batch["labels"]
    with torch.no_grad(), NeverWaits():
        logits = model(**batch).logits
    assert torch.isfinite(logits).all()


@each_kind
def test_compiled_model_gives_the_same_logits(kind, documents):
    config, processor = tiny_system(kind)
    model, batch = tiny_model(config), processor(documents)
    with torch.no_grad():
        expected = model(**batch)
        found = torch.compile(model, backend="eager", fullgraph=False)(**batch)
    assert torch.allclose(found.logits, expected.logits, atol=1e-5) and torch.allclose(found.loss, expected.loss)


# --- attention


@pytest.mark.parametrize("backbone", ["bert", "roberta", "xlm-roberta", "electra", "distilbert", "modernbert"])
def test_rows_equal_eager_attention(backbone, documents):
    config = tiny_config(backbone)
    model, batch = tiny_model(config), tiny_processor(config)(documents)
    eager = with_eager_attention(model)
    assert model.backbone.config._attn_implementation == SDPA_WITH_ROWS
    assert eager.backbone.config._attn_implementation == "eager"
    with torch.no_grad():
        assert torch.allclose(model(**batch).logits, eager(**batch).logits, atol=1e-5)
    assert_same(gradients(model, batch)[0], gradients(eager, batch)[0], 1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("kind", ["none", "padding", "padding of all rows", "rows", "added"])
def test_rows_equal_the_whole_matrix(kind, dtype):
    """The attention function on its own, with every kind of mask that Transformers hands over."""
    torch.manual_seed(0)
    windows, heads, length, size = 2, 3, 7, 4
    query, key, value = (torch.randn(windows, heads, length, size).to(dtype) for _ in range(3))
    shape = {"padding": (windows, 1, 1, length), "padding of all rows": (windows, 1, length, length)}.get(kind)
    mask = torch.rand(shape or (1, heads, length, length)) > 0.4
    mask[..., 0] = True
    if kind == "padding of all rows":
        mask = mask[:, :, :1].expand(shape)
    additive = torch.where(mask, 0.0, -1e4 if dtype == torch.float16 else -1e30).to(dtype)
    given = {"none": None, "added": additive}.get(kind, mask)
    rows = torch.tensor([[5, 1, 1], [0, 6, 2]])
    module = torch.nn.Module()
    module.is_causal, module.returns_mention_rows = False, True
    output, found = sdpa_attention_with_rows(module, query, key, value, given, scaling=0.3, mention_rows=rows)
    scores = query.float() @ key.float().transpose(2, 3) * 0.3
    whole = (scores if kind == "none" else scores.masked_fill(~mask, -torch.inf)).softmax(-1)
    expected = torch.stack([whole[window][:, rows[window]] for window in range(windows)])
    assert found.dtype == torch.float32 and torch.allclose(
        found, expected, atol=1e-6 if dtype == torch.float32 else 1e-2
    )
    assert torch.allclose(
        output.transpose(1, 2).float(), whole @ value.float(), atol=1e-5 if dtype == torch.float32 else 1e-2
    )
    module.returns_mention_rows = False
    assert sdpa_attention_with_rows(module, query, key, value, given, scaling=0.3, mention_rows=rows)[1] is None


def test_attention_implementation_can_be_chosen(tmp_path, model, batch):
    with torch.no_grad():
        expected = model(**batch).logits
    model.save_pretrained(tmp_path)
    for name, own in {"eager": "eager", "sdpa": SDPA_WITH_ROWS}.items():
        loaded = CommForDocumentRelationExtraction.from_pretrained(tmp_path, attn_implementation=name)
        assert loaded.backbone.config._attn_implementation == own
        with torch.no_grad():
            assert torch.allclose(loaded(**batch).logits, expected, atol=1e-5)
    # And changed later, there and back.
    for name in ("eager", "sdpa", "eager"):
        loaded.set_attn_implementation(name)
        with torch.no_grad():
            assert torch.allclose(loaded(**batch).logits, expected, atol=1e-5)
    for name in ("flash_attention_2", "someone/kernel"):  # Transformers would download the latter, and run it
        with pytest.raises(ValueError, match="attn_implementation"):
            CommForDocumentRelationExtraction.from_pretrained(tmp_path, attn_implementation=name)


def test_backbone_without_attention_interface_stays_eager(batch):
    model = tiny_model(tiny_config("mpnet"))
    with torch.no_grad():
        expected = model(**batch).logits
        for name in ("sdpa", "eager"):
            model.set_attn_implementation(name)
            assert torch.allclose(model(**batch).logits, expected)


def test_attentions_and_hidden_states_on_request(model, batch):
    windows, length = batch["input_ids"].shape
    with torch.no_grad():
        plain = model(**batch)
        asked = with_eager_attention(model)(**batch, output_attentions=True, output_hidden_states=True)
        assert plain.attentions is plain.hidden_states is None
        assert [tuple(x.shape) for x in asked.attentions] == [(windows, 4, length, length)] * 2
        assert [tuple(x.shape) for x in asked.hidden_states] == [(windows, length, 32)] * 3
        as_tuple = model(**batch, return_dict=False)
    assert [tuple(x.shape) for x in as_tuple] == [(), plain.logits.shape, batch["pair_index"].shape]


def test_nothing_is_kept_on_modules(model, batch):
    def state(module):
        return {
            (name, key): (id(value), len(value) if isinstance(value, (list, tuple, dict, set)) else None)
            for name, child in module.named_modules()
            for key, value in vars(child).items()
        }

    for system in (model, with_eager_attention(model)):
        with torch.no_grad():
            system(**batch)  # Transformers puts its own hooks on at the first call
        before = state(system)
        system(**batch)
        assert state(system) == before


# --- gradients


@each_backbone
def test_every_parameter_gets_a_gradient(backbone, documents):
    config = tiny_config(backbone)
    model, batch = tiny_model(config).train(), tiny_processor(config)(documents)
    found, loss = gradients(model, batch)
    assert torch.isfinite(loss) and loss > 0
    assert [name for name, gradient in found.items() if gradient is None] == []
    assert all(torch.isfinite(gradient).all() for gradient in found.values())
    zero = [name for name, gradient in found.items() if not gradient.any()]
    assert not [name for name in zero if not name.endswith("token_type_embeddings.weight")], zero


@each_backbone
def test_batch_without_pairs(backbone):
    """A process whose documents have no pairs must still take part in the exchange of gradients."""
    config = tiny_config(backbone)
    model, processor = tiny_model(config).train(), tiny_processor(config)
    for documents in ([random_document(0, 50), random_document(1, 12)], []):
        found, loss = gradients(model, processor(documents))
        assert loss == 0
        assert [name for name, gradient in found.items() if gradient is None] == []
        assert not any(gradient.any() for gradient in found.values())


def test_two_forwards_before_backward(model, processor, documents):
    """The mention rows of one batch must not be taken for the other's."""
    batches = [processor(documents[:2]), processor(documents[2:])]
    expected, _ = zip(*(gradients(model, batch) for batch in batches), strict=True)
    for order in ([0, 1], [1, 0]):
        model.zero_grad()
        losses = [model(**batch).loss for batch in batches]
        found = {}
        for index in order:
            losses[index].backward()
            found[index] = {name: p.grad.clone() for name, p in model.named_parameters()}
        model.zero_grad()
        assert_same(found[order[0]], expected[order[0]], 1e-5)
        both = {name: expected[0][name] + expected[1][name] for name in expected[0]}
        assert_same(found[order[1]], both, 1e-5)


@pytest.mark.parametrize("backbone", ["bert", "distilbert", "deberta-v2", "modernbert"])
def test_gradient_checkpointing(backbone, documents):
    names = ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout")
    config = tiny_config(backbone, dict.fromkeys(names, 0.0))
    model, batch = tiny_model(config).train(), tiny_processor(config)(documents)
    expected, loss = gradients(model, batch)
    # The name changed between the versions of Transformers that COMM supports.
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    calls = []
    for module in model.backbone.modules():
        if getattr(module, "gradient_checkpointing", False):
            module._gradient_checkpointing_func = counted(module._gradient_checkpointing_func, calls)
    found, again = gradients(model, batch)
    assert len(calls) == 2  # both layers
    assert torch.allclose(loss, again, atol=1e-6)
    assert_same(found, expected, 1e-5)


def test_reentrant_checkpointing_is_refused():
    """It cuts what leaves a layer beside its output off from the gradient, in silence."""
    model = tiny_model()
    enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
    with pytest.raises(ValueError, match="use_reentrant"):
        enable({"use_reentrant": True})
    assert not any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def counted(function, calls):
    def call(*args, **kwargs):
        calls.append(function)
        return function(*args, **kwargs)

    return call


# --- precision


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_half_precision(dtype, attention, batch):
    model = tiny_model()
    model.set_attn_implementation(attention)
    expected, loss = gradients(model, batch)
    with torch.no_grad():
        logits = model(**batch).logits
    half = copy.deepcopy(model).to(dtype)
    found, half_loss = gradients(half, batch)
    with torch.no_grad():
        half_logits = half(**batch).logits
    assert half_logits.dtype == dtype and half_loss.dtype == torch.float32
    tolerance = 0.15 if dtype == torch.bfloat16 else 0.02
    assert torch.isfinite(half_logits).all()
    assert (half_logits.float() - logits).abs().max() < tolerance and abs(half_loss - loss) < tolerance
    assert all(gradient.dtype == dtype and torch.isfinite(gradient).all() for gradient in found.values())
    for name in ("relation_encoder.head_projection.weight", "backbone.encoder.layer.1.attention.self.query.weight"):
        error = (found[name].float() - expected[name]).norm() / expected[name].norm()
        assert error < 3 * tolerance, name


def test_autocast(model, batch):
    with torch.no_grad():
        logits = model(**batch).logits
    expected, loss = gradients(model, batch)
    model.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(**batch)
    output.loss.backward()
    assert torch.isfinite(output.logits).all() and output.loss.dtype == torch.float32
    assert (output.logits.float() - logits).abs().max() < 0.15 and abs(output.loss - loss) < 0.1
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
    name = "relation_encoder.classifier.linear.weight"
    assert (model.get_parameter(name).grad - expected[name]).norm() < 0.2 * expected[name].norm()
    model.zero_grad()


def test_half_precision_takes_large_states():
    """exp(x) of float16 overflows from 11: logsumexp and the product of attentions are computed in float32."""
    states = torch.tensor([[[90.0, -90.0], [90.0, 3.0], [0.0, 0.0]]], dtype=torch.float16)
    attention = torch.full((1, 3, 2, 4), 2e-4)
    attention[:, 1] = 0.0
    documents = EncodedDocuments(
        token_states=torch.ones(1, 4, 2, dtype=torch.float16),
        mention_states=states,
        mention_entities=torch.tensor([[0, 0, 2]]),
        entity_mask=torch.tensor([[True, True, True]]),
        pair_index=torch.tensor([[0, 0, 1]]),
        attention=EntityAttention(attention, torch.tensor([0]), torch.tensor([0])),
    )
    pooled = documents.entity_embeddings()
    assert torch.allclose(pooled, torch.tensor([[[90 + math.log(2), 3.0], [0.0, 0.0], [0.0, 0.0]]]), atol=1e-4)
    context = documents.pair_contexts(torch.tensor([[0, 0, 2], [0, 0, 1]]), epsilon=1e-10)
    assert context[0].tolist() == pytest.approx([1.0, 1.0], abs=1e-2) and not context[1].any()


# --- loss


def test_loss(model, batch, processor, documents):
    with torch.no_grad():
        mean, logits = model(**batch)[:2]
        total = loss_from_config(model.config)(logits, batch["labels"], reduction="sum")
        assert torch.allclose(mean * len(logits), total)
        # Over the pairs of a whole step instead of this batch's.
        assert torch.allclose(model(**batch, num_items_in_batch=torch.tensor(1000)).loss, total / 1000)
        summing = tiny_model(tiny_config(loss_reduction="sum"))
        assert torch.allclose(summing(**batch).loss, total, rtol=1e-5)
        assert torch.allclose(summing(**batch, num_items_in_batch=1000).loss, total, rtol=1e-5)
        # Micro-batches of a step add up to the step.
        parts = [processor(documents[:2]), processor(documents[2:])]
        accumulated = sum(model(**part, num_items_in_batch=len(logits)).loss for part in parts)
        assert torch.allclose(accumulated, mean, atol=1e-6)


def test_without_pairs_logits_are_empty(model, batch):
    output = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    assert output.logits.shape == (0, len(LABELS)) and output.pair_index.shape == (0, 3) and output.loss is None


def test_missing_arguments_are_named(model, batch):
    with pytest.raises(ValueError, match="windows, entity_mask"):
        model(**{name: value for name, value in batch.items() if name not in ("windows", "entity_mask")})
    with pytest.raises(ValueError, match="pair_index"):
        model(batch["input_ids"], batch["attention_mask"], labels=torch.zeros(0, len(LABELS)))


def test_unknown_arguments_are_refused(model, batch):
    with pytest.raises(TypeError, match="pair_indices"):
        model(**batch, pair_indices=batch["pair_index"])


def test_data_parallel_is_refused(model, batch):
    replica = model._replicate_for_data_parallel()
    with pytest.raises(RuntimeError, match="torchrun"):
        replica(**batch)


# --- backbones


@pytest.mark.parametrize(
    "backbone",
    ["longformer", "big_bird", "t5", "gpt2", "xlnet", "funnel", "llama", "bloom", "biogpt", "convbert", "squeezebert"],
)
def test_unsuitable_backbones_are_named(backbone):
    text_config = AutoConfig.for_model(backbone)
    for field in ("num_hidden_layers", "num_layers"):
        if isinstance(getattr(text_config, field, None), int) and backbone != "funnel":
            setattr(text_config, field, 1)
    if backbone == "llama":
        text_config.vocab_size, text_config.hidden_size, text_config.intermediate_size = 50, 32, 16
    with pytest.raises(ValueError, match=f"'{backbone}'"):
        CommForDocumentRelationExtraction(CommConfig(text_config=text_config))


def test_decoders_are_refused():
    with pytest.raises(ValueError, match="decoder"):
        CommForDocumentRelationExtraction(tiny_config(text_fields={"is_decoder": True}))


def test_local_attention_in_the_last_layer_is_refused():
    config = tiny_config("modernbert", {"layer_types": ["full_attention", "sliding_attention"]})
    with pytest.raises(ValueError, match="sliding_attention"):
        CommForDocumentRelationExtraction(config)
    published = AutoConfig.for_model("modernbert")
    assert published.layer_types[-1] == "full_attention"


def test_initial_weights():
    """The backbone's by its own scheme, the relation encoder's by torch's."""
    torch.manual_seed(0)
    model = CommForDocumentRelationExtraction(tiny_config(text_fields={"initializer_range": 0.02}))
    for name, parameter in model.named_parameters():
        if name.startswith("backbone.") and parameter.dim() == 2:
            assert 0.015 < parameter.std() < 0.025, name
    for layer in (model.relation_encoder.head_projection, model.relation_encoder.classifier.linear):
        bound = layer.in_features**-0.5
        assert layer.weight.abs().max() <= bound and layer.weight.std().item() == pytest.approx(
            bound / 3**0.5, rel=0.15
        )
        assert layer.bias.abs().max() <= bound and layer.bias.any()
    assert not any("pooler" in name for name in model.state_dict())


# --- from an encoder, to a folder and back


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory):
    """A bare encoder as one finds it on the Hub: with a pooler, in half precision, its tokenizer beside it."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("encoder")
    encoder = BertModel(tiny_text_config())
    sharpen(encoder)
    encoder.to(torch.float16).save_pretrained(folder)
    word_piece_tokenizer().save_pretrained(folder)
    return str(folder)


FIELDS = {"id2label": LABELS, "emb_size": 16, "block_size": 4, "loss": "atl"}


def test_from_backbone(encoder_folder, documents):
    model = CommForDocumentRelationExtraction.from_backbone(encoder_folder, **FIELDS).eval()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    encoder = AutoModel.from_pretrained(encoder_folder, dtype=torch.float32).eval()
    weights = {name: value for name, value in encoder.state_dict().items() if not name.startswith("pooler.")}
    own = model.backbone.state_dict()
    assert set(own) == set(weights) and all(torch.equal(own[name], weights[name]) for name in own)
    # Padding is not attended to: the states are those of AutoModel, on padded rows as on rows of their own.
    assert model.backbone.config._attn_implementation == SDPA_WITH_ROWS
    processor = CommProcessor.from_backbone(encoder_folder, model.config)
    batch = processor(documents[:2])
    assert (batch["attention_mask"] == 0).any() and len(batch["input_ids"]) > 3
    seen = []
    model.backbone.register_forward_hook(lambda _, inputs, output: seen.append(output.last_hidden_state))
    with torch.no_grad():
        model(**batch)
        for row, mask, states in zip(batch["input_ids"], batch["attention_mask"].bool(), seen[0], strict=True):
            alone = encoder(row[mask][None], attention_mask=mask[mask][None].long()).last_hidden_state[0]
            assert torch.allclose(states[mask], alone, atol=1e-5)


def test_from_backbone_arguments(encoder_folder):
    build = CommForDocumentRelationExtraction.from_backbone
    config = tiny_config(loss="cmm", cmm_margin=0.3)
    model = build(encoder_folder, config)
    assert model.config.text_config.vocab_size == 512 and model.config.cmm_margin == 0.3
    assert model.config.id2label == LABELS
    assert build(encoder_folder, attn_implementation="eager", **FIELDS).backbone.config._attn_implementation == "eager"
    eager = tiny_config()
    eager._attn_implementation = "eager"
    assert build(encoder_folder, eager).backbone.config._attn_implementation == "eager"
    changed = build(encoder_folder, backbone_overrides={"attention_probs_dropout_prob": 0.0}, **FIELDS)
    assert changed.config.text_config.attention_probs_dropout_prob == 0.0
    with pytest.raises(ValueError, match="attention_dropout_prob"):
        build(encoder_folder, backbone_overrides={"attention_dropout_prob": 0.0}, **FIELDS)
    with pytest.raises(ValueError, match="'loss'"):
        build(encoder_folder, config, loss="cmm")
    with pytest.raises(SettingError) as caught:
        build(encoder_folder, **FIELDS | {"loss": "cmm", "cmm_margin": 2})
    assert (caught.value.owner, caught.value.field, caught.value.value) == ("CommConfig", "cmm_margin", 2)


def test_from_backbone_lacking_weights(tmp_path, encoder_folder):
    encoder = BertModel.from_pretrained(encoder_folder)
    state = {name: value for name, value in encoder.state_dict().items() if "layer.1.output" not in name}
    encoder.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(ValueError, match=r"encoder\.layer\.1\.output"):
        CommForDocumentRelationExtraction.from_backbone(str(tmp_path), **FIELDS)


def test_published_configuration_has_no_path(tmp_path, encoder_folder):
    model = CommForDocumentRelationExtraction.from_backbone(encoder_folder, **FIELDS)
    model.save_pretrained(tmp_path)
    written = (tmp_path / "config.json").read_text()
    assert encoder_folder not in written and SDPA_WITH_ROWS not in written and str(tmp_path) not in written
    loaded = CommForDocumentRelationExtraction.from_pretrained(tmp_path)
    loaded.save_pretrained(tmp_path / "again")
    again = (tmp_path / "again" / "config.json").read_text()
    assert str(tmp_path) not in again and encoder_folder not in again


@pytest.mark.parametrize("backbone", BACKBONES)
def test_save_and_load(backbone, tmp_path, documents):
    config = tiny_config(backbone)
    model, batch = tiny_model(config), tiny_processor(config)(documents)
    model.save_pretrained(tmp_path)
    for auto_class in (CommForDocumentRelationExtraction, AutoModel):
        loaded = auto_class.from_pretrained(tmp_path)
        assert type(loaded) is CommForDocumentRelationExtraction and not loaded.training
        left, right = loaded.state_dict(), model.state_dict()
        assert set(left) == set(right) and all(torch.equal(left[name], right[name]) for name in left)
        with torch.no_grad():
            assert torch.equal(loaded(**batch).logits, model(**batch).logits)
    half = CommForDocumentRelationExtraction.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}


def test_bare_encoder_is_refused_with_the_call_to_make(encoder_folder):
    with pytest.raises(ValueError) as error:
        CommForDocumentRelationExtraction.from_pretrained(encoder_folder)
    message = str(error.value)
    assert f"{encoder_folder!r} is a 'bert' checkpoint, not a COMM model" in message
    assert f"CommForDocumentRelationExtraction.from_backbone({encoder_folder!r}, id2label=...)" in message
    eval(message[message.index("CommFor") :].replace("id2label=...", "num_labels=3, emb_size=16, block_size=4"))
    # And the other way round: a finished checkpoint is no encoder.
    with pytest.raises(ValueError, match=r"backbone\.embeddings"):
        CommForDocumentRelationExtraction.from_pretrained(encoder_folder, config=tiny_config())


def test_comm_checkpoint_is_no_backbone(tmp_path, model):
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="from_pretrained"):
        CommForDocumentRelationExtraction.from_backbone(str(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({}, "labels"),
        ({"num_labels": 3, "labels": ["P17"]}, "'labels'"),
        ({"num_labels": 3, "gamma": 2.0}, "'gamma'"),
        ({"num_labels": 3, "dtype": torch.bfloat16}, "'dtype'"),
        ({"num_labels": 3, "trust_remote_code": True}, "'trust_remote_code'"),
    ],
)
def test_new_model_ignores_no_argument(arguments, field, tmp_path):
    tiny_config().text_config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=field):
        CommForDocumentRelationExtraction.from_backbone(str(tmp_path), **arguments)


def test_buffer_that_no_checkpoint_holds_is_refused():
    class Forgetful(AtlopRelationEncoder):
        def __init__(self, config):
            super().__init__(config)
            self.register_buffer("scale", torch.tensor(3.0), persistent=False)

    register_relation_encoder("forgetful")(Forgetful)
    with pytest.raises(ValueError, match="'scale'"):
        CommForDocumentRelationExtraction(tiny_config(relation_encoder="forgetful"))


def test_grouped_keys():
    """Some encoders let several query heads share a key head."""
    query, key = torch.randn(2, 4, 6, 8), torch.randn(2, 2, 6, 8)
    marked = torch.nn.Module()
    marked.returns_mention_rows, marked.num_key_value_groups, marked.is_causal = True, 2, False
    rows = torch.tensor([[1, 3], [0, 5]])
    _, found = sdpa_attention_with_rows(marked, query, key, key, None, mention_rows=rows)
    whole = (query @ key.repeat_interleave(2, 1).transpose(2, 3) * 8**-0.5).softmax(-1)
    expected = torch.stack([whole[index, :, rows[index]] for index in range(2)])
    torch.testing.assert_close(found, expected)


def test_checkpoint_lacking_weights_is_refused(tmp_path, model):
    state = {name: value for name, value in model.state_dict().items() if "classifier" not in name}
    model.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(ValueError, match=r"relation_encoder\.classifier\.linear\.bias"):
        CommForDocumentRelationExtraction.from_pretrained(tmp_path)
    complete = tmp_path / "complete"
    model.save_pretrained(complete)
    _, info = CommForDocumentRelationExtraction.from_pretrained(complete, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]


def test_two_models_from_one_configuration(batch):
    """Building a second one, with another attention, leaves the first as it was."""
    config = tiny_config()
    first = tiny_model(config)
    with torch.no_grad():
        expected = first(**batch).logits
        config._attn_implementation = "eager"
        second = tiny_model(config)
        assert torch.allclose(second(**batch).logits, expected, atol=1e-5)
        assert torch.allclose(first(**batch).logits, expected, atol=1e-5)


def test_bert_defaults_build():
    """`CommConfig()` describes a whole model; only its size keeps it from being built here."""
    config = CommConfig(text_config=BertConfig(num_hidden_layers=1, vocab_size=10, intermediate_size=8))
    with torch.device("meta"):
        model = CommForDocumentRelationExtraction(config)
    assert model.relation_encoder.classifier.linear.weight.shape == (2, 768 * 64)
