"""The mean of the backbone's last layers: against a textbook computation from all hidden states and the whole attention of all
layers."""

import gc
import weakref

import pytest
import torch
from helpers import entity_attention, random_document, tiny_config, tiny_model, tiny_processor
from transformers import AutoModel

from modeling_comm import CommForDocumentRelationExtraction, SettingError, available_relation_encoders
from modeling_comm.backbone_attention import SDPA_WITH_ROWS
from modeling_comm.modeling_comm import TOKENS_AT_ONCE

BACKBONES = ["bert", "roberta", "xlm-roberta", "electra", "distilbert", "mpnet", "deberta-v2", "modernbert"]
NO_DROPOUT = dict.fromkeys(
    ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout"), 0.0
)
SIZES = [(5, 14), (6, 110), (0, 8), (4, 35)]  # entities and words; the second has many windows


def layered(model_type="bert", averaged_layers=3, **fields):
    """A model of four layers and its processor."""
    layers = {"distilbert": {"n_layers": 4}}.get(model_type, {"num_hidden_layers": 4})
    if model_type == "modernbert":
        layers["layer_types"] = ["sliding_attention", *["full_attention"] * 3]
    config = tiny_config(model_type, {**NO_DROPOUT, **layers}, averaged_layers=averaged_layers, **fields)
    return tiny_model(config), tiny_processor(config)


@pytest.fixture(scope="module")
def documents():
    return [random_document(entities, words, mentions=3, seed=words) for entities, words in SIZES]


def textbook(model, processor, document, layers):
    """Token states `(C, d)` and each entity's attention `(E, A, C)`, from all layers' whole outputs, one window at a time."""
    (feature,) = processor.encode([document])
    tokens = feature["input_ids"]
    length, text_config = len(tokens), model.config.text_config
    backbone = AutoModel.from_config(text_config, attn_implementation="eager").eval()
    backbone.load_state_dict(model.backbone.state_dict(), strict=False)
    states, times = torch.zeros(length, text_config.hidden_size), torch.zeros(length, 1)
    attention = torch.zeros(text_config.num_attention_heads, length, length)
    spans = processor.window_spans(length)
    for start, end in spans:
        before, after = tokens[:1] * (start > 0), tokens[-1:] * (end < length)
        row = torch.tensor([[*before, *tokens[start:end], *after]])
        with torch.no_grad():
            encoded = backbone(
                row, attention_mask=torch.ones_like(row), output_attentions=True, output_hidden_states=True
            )
        assert len(encoded.attentions) == 4 and len(encoded.hidden_states) == 5
        inside = slice(len(before), len(before) + end - start)
        states[start:end] += sum(encoded.hidden_states[-1 - layer][0, inside] for layer in range(layers)) / layers
        whole = sum(encoded.attentions[-1 - layer][0] for layer in range(layers)) / layers
        attention[:, start:end, start:end] += whole[:, inside, inside]
        times[start:end] += 1
    if len(spans) > 1:
        attention /= attention.sum(-1, keepdim=True) + 1e-10
    rows = [[] for _ in range(feature["num_entities"])]
    for position, entity in zip(feature["mention_positions"], feature["mention_entities"], strict=True):
        rows[entity].append(attention[:, position])
    return states / times, [torch.stack(of_entity).mean(0) for of_entity in rows]


@pytest.mark.parametrize("layers", [2, 3])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_equals_the_textbook(backbone, layers, documents):
    model, processor = layered(backbone, layers)
    with torch.no_grad():
        output = model(**processor(documents), output_documents=True)
    found = entity_attention(output.documents)
    for index, document in enumerate(documents):
        states, attention = textbook(model, processor, document, layers)
        assert torch.allclose(output.documents.token_states[index, : len(states)], states, atol=1e-5)
        for entity, expected in enumerate(attention):
            assert torch.allclose(found[index, entity, :, : len(states)], expected, atol=1e-6)
    # A wrong layer would show.
    other, _ = textbook(model, processor, documents[1], layers - 1)
    assert (output.documents.token_states[1, : len(other)] - other).abs().max() > 0.01


@pytest.mark.parametrize("encoder", available_relation_encoders())
def test_eager_attention_and_checkpointing_give_the_same(encoder, documents):
    """Logits and every gradient, for each relation encoder, where layers give rows, whole matrices, or are computed twice."""
    model, processor = layered(relation_encoder=encoder)
    batch, found = processor(documents), {}
    for kind in ("rows", "eager", "checkpointed"):
        model.zero_grad()
        if kind == "checkpointed":
            model.set_attn_implementation("sdpa")
            # The name changed between the versions of Transformers that COMM supports.
            getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
            model.train()
        elif kind == "eager":
            model.set_attn_implementation("eager")
        assert (model.backbone.config._attn_implementation == "eager") == (kind == "eager")
        for module in model.relation_encoder.modules():
            module.eval()  # batch norm
        output = model(**batch)
        output.loss.backward()
        found[kind] = {"logits": output.logits.detach()} | {
            name: parameter.grad.clone() for name, parameter in model.named_parameters()
        }
    for kind in ("eager", "checkpointed"):
        for name, expected in found["rows"].items():
            scale = max(1.0, expected.abs().max().item())
            assert torch.allclose(found[kind][name], expected, atol=1e-5 * scale), (kind, name)


def test_long_documents_are_read_in_parts(monkeypatch, documents):
    model, processor = layered()
    batch = processor(documents)
    with torch.no_grad():
        expected = model(**batch, output_hidden_states=True).logits  # asked for, so that all windows are read at once
        monkeypatch.setattr("modeling_comm.modeling_comm.TOKENS_AT_ONCE", 2 * batch["input_ids"].shape[1])
        assert 2 * batch["input_ids"].shape[1] < TOKENS_AT_ONCE
        assert torch.allclose(model(**batch).logits, expected, atol=1e-5)


def test_one_layer_asks_the_backbone_for_nothing_more(monkeypatch, documents):
    """As before there was such a setting: the last hidden state itself, one layer's rows, and no other layer's states."""
    model, processor = layered(averaged_layers=1)
    asked = []
    forward = type(model.backbone).forward

    def recorded(self, *args, **kwargs):
        output = forward(self, *args, **kwargs)
        asked.append((kwargs, output))
        return output

    monkeypatch.setattr(type(model.backbone), "forward", recorded)
    with torch.no_grad():
        model(**processor(documents))
    assert asked and not any(kwargs.get("output_hidden_states") for kwargs, _ in asked)
    marked = [name for name, module in model.named_modules() if getattr(module, "returns_mention_rows", False)]
    assert len(marked) == 1 and ".3." in marked[0]


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_other_layers_are_not_kept(layers, documents):
    """Attention leaves those layers alone that are read, and the hidden states of the others are freed."""
    model, processor = layered(averaged_layers=layers)
    batch = processor(documents)
    assert model.backbone.config._attn_implementation == SDPA_WITH_ROWS
    states, rows = {}, {}
    for index, layer in enumerate(model.backbone.encoder.layer):
        layer.register_forward_hook(
            lambda module, args, output, index=index: states.update(
                {index: weakref.ref(output if torch.is_tensor(output) else output[0])}
            )
        )
        layer.attention.self.register_forward_hook(
            lambda module, args, output, index=index: rows.update({index: output[1] is not None})
        )
    alive = []

    def look(*args):
        gc.collect()
        alive.extend(index for index, state in states.items() if state() is not None)

    model.relation_encoder.register_forward_pre_hook(look)
    with torch.no_grad():
        model(**batch)
    assert [index for index, gives in rows.items() if gives] == list(range(4 - layers, 4))
    assert set(alive) <= set(range(4 - layers - (layers > 1), 4))  # one more, see `_encode`


def test_asked_hidden_states_are_all_of_them(documents):
    model, processor = layered()
    batch = processor(documents)
    with torch.no_grad():
        output, plain = model(**batch, output_hidden_states=True), model(**batch)
    assert len(output.hidden_states) == 5 and all(state is not None for state in output.hidden_states)
    assert plain.hidden_states is None and torch.equal(plain.logits, output.logits)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision(dtype, documents):
    model, processor = layered()
    with torch.no_grad():
        output = model.to(dtype)(**processor(documents), output_documents=True)
    assert output.documents.token_states.dtype == dtype and output.documents.attention.rows.dtype == torch.float32
    assert torch.isfinite(output.logits).all()


def test_saved_with_the_model(tmp_path, documents):
    model, processor = layered()
    model.save_pretrained(tmp_path)
    loaded = CommForDocumentRelationExtraction.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(loaded(**processor(documents)).logits, model(**processor(documents)).logits)


def test_layers_that_cannot_serve():
    with pytest.raises(SettingError) as error:
        layered(averaged_layers=5)
    assert (error.value.field, error.value.value) == ("averaged_layers", 5)
    with pytest.raises(ValueError, match="averaged_layers"):  # its first layer sees a part of the window only
        layered("modernbert", averaged_layers=4)
