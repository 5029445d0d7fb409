"""Transformers' own tests for models, run on COMM, and how COMM answers to Transformers' switches for attention."""

import copy
import os
import unittest
from unittest import mock

import pytest
import torch
from fetch_shared_tests import FetchError, import_shared_tests
from transformers import BertConfig, PreTrainedModel
from transformers.testing_utils import torch_device

from modeling_comm import CommConfig, CommForDocumentRelationExtraction, CommPreTrainedModel
from modeling_comm.backbone_attention import SDPA_WITH_ROWS

NUM_LABELS = 5


try:
    ModelTesterMixin, unavailable = import_shared_tests().ModelTesterMixin, None
except FetchError as error:
    if os.environ.get("CI") == "true":
        raise
    ModelTesterMixin = type("NoTests", (), {})
    unavailable = f"Transformers' shared tests could not be fetched: {error}"


class CommModelTester:
    """Two documents of two overlapping windows, with three entities of one mention; the middle one is in the overlap."""

    batch_size = 2
    seq_length = 12
    vocab_size = 99
    hidden_size = 32
    num_hidden_layers = 2
    num_attention_heads = 4
    is_training = True

    def get_config(self):
        text_config = BertConfig(
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            intermediate_size=37,
            max_position_embeddings=64,
        )
        return CommConfig(text_config=text_config, emb_size=16, block_size=4, num_labels=NUM_LABELS)

    def prepare_config_and_inputs_for_common(self):
        batch, length, entities = self.batch_size, 20, 3
        windows = [row for b in range(batch) for row in ((b, 0, 0, 11), (b, 8, 1, 12))]
        pairs = [(b, h, t) for b in range(batch) for h in range(entities) for t in range(entities) if h != t]
        inputs = {
            "input_ids": torch.randint(1, self.vocab_size, (len(windows), self.seq_length)),
            "attention_mask": torch.ones(len(windows), self.seq_length, dtype=torch.long),
            "windows": torch.tensor(windows),
            "document_mask": torch.ones(batch, length, dtype=torch.bool),
            "mention_positions": torch.tensor([[1, 10, 15]] * batch),
            "mention_entities": torch.tensor([[0, 1, 2]] * batch),
            "entity_mask": torch.ones(batch, entities, dtype=torch.bool),
            "pair_index": torch.tensor(pairs),
        }
        return self.get_config(), {name: value.to(torch_device) for name, value in inputs.items()}


class CommModelTest(ModelTesterMixin, unittest.TestCase):
    all_model_classes = (CommForDocumentRelationExtraction,)
    _is_composite = True
    test_can_init_all_missing_weights_before_2023 = True

    def setUp(self):
        if unavailable:
            self.skipTest(unavailable)
        self.model_tester = CommModelTester()

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = copy.deepcopy(inputs_dict)
        if return_labels:
            inputs["labels"] = torch.ones(len(inputs["pair_index"]), NUM_LABELS, device=torch_device)
        return inputs

    def test_can_init_all_missing_weights(self):
        # COMM refuses a checkpoint without weights; Transformers' own loading shows how they would be initialised.
        with mock.patch.object(CommPreTrainedModel, "from_pretrained", PreTrainedModel.__dict__["from_pretrained"]):
            super().test_can_init_all_missing_weights()

    @unittest.skip("refused by COMM: reentrant checkpointing loses the gradient through the attention rows")
    def test_training_gradient_checkpointing_use_reentrant_true(self):
        pass


@pytest.fixture
def config_and_inputs():
    torch.manual_seed(0)
    config, inputs = CommModelTester().prepare_config_and_inputs_for_common()
    inputs["attention_mask"][0, -3:] = 0
    return config, inputs


def enable_checkpointing(model, *arguments):
    # Transformers 5.23 has both names and deprecates the second, the only one of 5.17.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable(*arguments)


def gradients(model, inputs):
    model.zero_grad()
    model(**inputs).logits.square().sum().backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def test_sdpa_rows_and_eager_agree_when_switched_on_a_built_model(config_and_inputs):
    config, inputs = config_and_inputs
    model = CommForDocumentRelationExtraction(config).to(torch_device).eval()
    logits = {}
    for name in ("sdpa", "eager", "sdpa"):
        model.set_attn_implementation(name)
        with torch.no_grad():
            logits[name] = model(**inputs).logits
        expected = SDPA_WITH_ROWS if name == "sdpa" else "eager"
        assert model.backbone.config._attn_implementation == expected
    torch.testing.assert_close(logits["sdpa"], logits["eager"], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("where", ["model", "text_config"])
def test_eager_can_be_asked_for_on_the_model_and_on_the_backbone(config_and_inputs, where):
    config, inputs = config_and_inputs
    if where == "model":
        config._attn_implementation = "eager"
    else:
        config.text_config._attn_implementation = "eager"
    model = CommForDocumentRelationExtraction(config).to(torch_device)
    assert model.backbone.config._attn_implementation == "eager"
    attentions = model(**inputs, output_attentions=True).attentions
    assert [attention.shape for attention in attentions] == [(4, 4, 12, 12)] * 2


def test_attentions_without_eager_are_none_and_not_the_rows(config_and_inputs):
    config, inputs = config_and_inputs
    model = CommForDocumentRelationExtraction(config).to(torch_device)
    assert model(**inputs, output_attentions=True).attentions is None


@pytest.mark.parametrize("when", ["built", "switched"])
def test_an_attention_without_probabilities_is_refused(config_and_inputs, when):
    config, inputs = config_and_inputs
    with pytest.raises(ValueError, match=r"backbone is 'flash_attention_2'.*expected 'sdpa' .* or 'eager'"):
        if when == "built":
            config.text_config._attn_implementation = "flash_attention_2"
        model = CommForDocumentRelationExtraction(config).to(torch_device)
        model.backbone.config._attn_implementation = "flash_attention_2"
        model(**inputs)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_gradient_checkpointing_leaves_the_gradients_alone(config_and_inputs, attention):
    config, inputs = config_and_inputs
    config._attn_implementation = attention
    config.text_config.hidden_dropout_prob = config.text_config.attention_probs_dropout_prob = 0.0
    model = CommForDocumentRelationExtraction(config).to(torch_device).train()
    plain = gradients(model, inputs)
    enable_checkpointing(model)
    assert any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    torch.testing.assert_close(gradients(model, inputs), plain)


@pytest.mark.parametrize("arguments", [{"use_reentrant": True}, {"preserve_rng_state": False}])
def test_reentrant_gradient_checkpointing_is_refused(config_and_inputs, arguments):
    model = CommForDocumentRelationExtraction(config_and_inputs[0])
    with pytest.raises(ValueError, match=r"COMM needs {'use_reentrant': False}"):
        enable_checkpointing(model, arguments)


def test_the_loading_info_tells_of_missing_weights_and_plain_loading_refuses_them(config_and_inputs, tmp_path):
    model = CommForDocumentRelationExtraction(config_and_inputs[0])
    state = model.state_dict()
    del state["relation_encoder.head_projection.bias"]
    model.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(ValueError, match=r"relation_encoder\.head_projection\.bias"):
        CommForDocumentRelationExtraction.from_pretrained(tmp_path)
    info = CommForDocumentRelationExtraction.from_pretrained(tmp_path, output_loading_info=True)[1]
    assert info["missing_keys"] == {"relation_encoder.head_projection.bias"}
