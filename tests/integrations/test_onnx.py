"""ONNX: what `comm-docre export` writes gives the model's logits for documents of other sizes."""

import numpy as np
import pytest
import torch
from helpers import random_document, tiny_model, tiny_system

import comm_docre

NEEDED = 'needs ONNX: pip install -e ".[onnx]"'
onnxruntime = pytest.importorskip("onnxruntime", reason=NEEDED)
pytest.importorskip("onnxscript", reason=NEEDED)


def test_other_sizes(tmp_path, capsys):
    config, processor = tiny_system()
    model = tiny_model(config)
    for part in (model, processor):
        part.save_pretrained(tmp_path / "model")
    file = tmp_path / "model.onnx"
    assert comm_docre.main(["export", "--model", str(tmp_path / "model"), "--output", str(file)]) == 0
    assert "logits differ from the model's by" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    for sizes in ([(3, 20)], [(2, 10), (5, 30)], [(6, 90), (0, 10), (30, 200), (1, 20)]):
        batch = processor([random_document(n, words=words, seed=n, labels=False) for n, words in sizes])
        with torch.no_grad():
            expected = model(**batch)
        given = {one.name: batch[one.name].numpy() for one in session.get_inputs()}
        (logits,) = session.run(["logits"], given)
        assert expected.logits.std() > 0.1
        np.testing.assert_allclose(logits, expected.logits.numpy(), rtol=0, atol=1e-4)
