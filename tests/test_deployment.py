"""Trained models made ready to run elsewhere: int8, programs of torch.export."""

import inspect
import pickle

import pytest
import torch
from helpers import TOKENIZERS, random_document, small_encoder, tiny_config, tiny_model, tiny_processor
from torch import nn

import comm_docre
from modeling_comm.deployment.export import _Logits, export_program, largest_difference
from modeling_comm.deployment.quantization import quantize_backbone
from modeling_comm.features import ModelInputs
from modeling_comm.relation_encoders import available_relation_encoders

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


# ---------------------------------------------------------------------------------------------------------- torch.export


def test_onnx_has_the_inputs_that_logits_need():
    needed = ModelInputs.__required_keys__ - {"sentences"}  # which only evidence needs
    assert set(inspect.signature(_Logits.forward).parameters) - {"self"} == needed


@pytest.mark.parametrize("backbone", ["deberta-v2", "modernbert"])  # of bert's the command writes one
def test_a_program_takes_other_sizes(backbone):
    config = tiny_config(backbone)
    model, processor = tiny_model(config), tiny_processor(config, TOKENIZERS["bert"]())
    program = export_program(model, processor).module()
    batches = [
        processor([random_document(entities, words=words, seed=entities, labels=False) for entities, words in sizes])
        for sizes in ([(3, 20)], [(2, 10), (5, 30)], [(6, 90), (0, 10), (30, 200), (1, 20)])
    ]
    for batch in batches:
        expected, found = predict(model, batch), predict(program, batch)
        assert expected.std() > 0.1 and (found - expected).abs().max() < 1e-4
    assert largest_difference(model, processor, lambda batch: predict(program, batch)) < 1e-4


@pytest.mark.parametrize("encoder", ["docunet", "kd_docre"])
def test_grids_of_the_documents_sizes_are_not_exported(encoder):
    config = tiny_config(**small_encoder(encoder))
    with pytest.raises(ValueError, match="grid"):
        export_program(tiny_model(config), tiny_processor(config, TOKENIZERS["bert"]()))


@pytest.mark.parametrize("pairs", [None, [("Chemical", "PER"), ("Chemical", "Disease")]])
def test_examples_have_types_that_markers_know(pairs):
    config = tiny_config()
    settings = {"markers": "entity_type", "marker_types": ["Chemical", "Disease"], "candidate_pairs": pairs}
    model, processor = tiny_model(config), tiny_processor(config, TOKENIZERS["bert"](), **settings)
    assert largest_difference(model, processor, lambda batch: predict(model, batch)) == 0


def test_the_command_writes_a_program(tmp_path, capsys):
    config = tiny_config()
    model = tiny_model(config)
    processor = tiny_processor(config, TOKENIZERS["bert"](), evidence_threshold=0.2, fusion_threshold=1.0)
    for part in (model, processor):
        part.save_pretrained(tmp_path / "model")
    file = tmp_path / "model.pt2"
    assert comm_docre.main(["export", "--model", str(tmp_path / "model"), "--output", str(file)]) == 0
    said = capsys.readouterr()
    assert "logits differ from the model's by" in said.out
    assert "evidence_threshold is 0.2, but" in said.err and "fusion_threshold is 1.0, but" in said.err
    batch = processor([random_document(4, words=50, labels=False)])
    found = torch.export.load(file).module()(**batch).logits
    torch.testing.assert_close(found, predict(model, batch), rtol=1e-4, atol=1e-4)
    assert comm_docre.main(["export", "--model", str(tmp_path / "model"), "--output", str(tmp_path / "model")]) == 2
