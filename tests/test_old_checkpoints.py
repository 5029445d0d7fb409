"""Checkpoints that earlier versions saved still load, with the logits and the triples that they had."""

import json

import pytest
import torch
from helpers import ROOT
from safetensors.torch import load_file

from modeling_comm import CommForDocumentRelationExtraction, CommProcessor

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
