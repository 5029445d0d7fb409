"""Checkpoints that earlier versions saved still load, with the logits and the triples that they had."""

import json
import shutil

import pytest
import torch
from helpers import ROOT
from safetensors.torch import load_file

from modeling_comm import CommForDocumentRelationExtraction, CommProcessor
from modeling_comm.configuration_comm import PROCESSOR_FIELDS

FOLDERS = sorted((ROOT / "tests" / "fixtures").glob("checkpoint-*"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_logits_and_triples_are_those_recorded(folder):
    """`expected.*` were written by the commit in the folder's name, on one CPU: another one may round otherwise."""
    expected, recorded = load_file(folder / "expected.safetensors"), json.loads((folder / "expected.json").read_text())
    model = CommForDocumentRelationExtraction.from_pretrained(folder).eval()
    processor = CommProcessor.from_pretrained(folder)
    with torch.no_grad():
        outputs = model(**processor(recorded["documents"]))
    assert torch.equal(outputs.pair_index, expected["pair_index"])
    torch.testing.assert_close(outputs.logits, expected["logits"], rtol=0, atol=1e-5)
    assert outputs.loss.item() == pytest.approx(recorded["loss"], rel=1e-5)
    found = processor.post_process_relation_extraction(outputs, recorded["documents"])
    for triples, before in zip(found, recorded["triples"], strict=True):
        scores = [[triple.pop("score") for triple in one] for one in (triples, before)]
        assert triples == before
        assert scores[0] == pytest.approx(scores[1], abs=1e-5)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_settings_stand_in_the_configuration_alone(folder, tmp_path):
    """They are used where `processor_config.json` lacks them, and written there only."""
    old = shutil.copytree(folder, tmp_path / "old")
    file = old / "processor_config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps({name: value for name, value in settings.items() if name not in PROCESSOR_FIELDS}))
    processor = CommProcessor.from_pretrained(old)
    assert processor.settings == CommProcessor.from_pretrained(folder).settings
    assert processor.settings != CommProcessor(processor.tokenizer, processor.id2label).settings, "all are defaults"
    CommForDocumentRelationExtraction.from_pretrained(old).save_pretrained(tmp_path / "new")
    processor.save_pretrained(tmp_path / "new")
    assert not {*PROCESSOR_FIELDS} & set(json.loads((tmp_path / "new" / "config.json").read_text()))
    written = json.loads((tmp_path / "new" / "processor_config.json").read_text())
    assert {*PROCESSOR_FIELDS} <= set(written)
    assert CommProcessor.from_pretrained(tmp_path / "new").settings == processor.settings
