"""Trained models made ready to run elsewhere: int8."""

import pickle

import pytest
import torch
from helpers import TOKENIZERS, random_document, small_encoder, tiny_config, tiny_model, tiny_processor
from torch import nn

from modeling_comm.relation_encoders import available_relation_encoders
from modeling_comm.utils.quantization import quantize_backbone

BACKBONES = ("bert", "roberta", "xlm-roberta", "electra", "distilbert", "mpnet", "deberta-v2", "modernbert")


def predict(model, batch):
    with torch.no_grad():
        return model(**batch).logits


@pytest.mark.parametrize(
    ("backbone", "encoder"),
    [*(("bert", encoder) for encoder in available_relation_encoders()), *((kind, "atlop") for kind in BACKBONES[1:])],
)
def test_int8_changes_little(backbone, encoder):
    config = tiny_config(backbone, **small_encoder(encoder))
    model = tiny_model(config)
    batch = tiny_processor(config, TOKENIZERS["bert"]())([random_document(5), random_document(3, words=60, seed=1)])
    batch.pop("labels")
    expected = predict(model, batch)
    linear = sum(type(module) is nn.Linear for module in model.backbone.modules())
    others = sum(type(module) is nn.Linear for module in model.relation_encoder.modules())
    assert quantize_backbone(model) is model
    assert linear and not any(type(module) is nn.Linear for module in model.backbone.modules())
    assert sum(type(module) is nn.Linear for module in model.relation_encoder.modules()) == others
    found = predict(model, batch)
    assert 0 < (found - expected).abs().max() < 0.2 * expected.std()
    assert torch.equal(predict(pickle.loads(pickle.dumps(model)), batch), found)


@pytest.mark.parametrize("change", [{"dtype": torch.bfloat16}, {"device": "meta"}], ids=str)
def test_int8_starts_from_float32_on_the_cpu(change):
    with pytest.raises(ValueError, match="int8: found"):
        quantize_backbone(tiny_model().to(**change))
