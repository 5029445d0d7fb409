import pytest
import torch
from helpers import tiny_model, tiny_system
from transformers import pipeline

from modeling_comm import CommTrainer, CommTrainingArguments, number_types
from modeling_comm.configuration_comm import TASK

CPU = torch.device("cpu")


@pytest.fixture(params=[False, True], ids=["without instructions", "with them"])
def multiplies_bfloat16(request, monkeypatch):
    """Whether this CPU is one with a fast matrix product in bfloat16."""
    monkeypatch.setattr(number_types, "_multiplies_bfloat16", lambda: request.param)
    return request.param


def test_a_pipeline_in_bfloat16_warns_on_a_cpu_that_is_slow_in_it(model, multiplies_bfloat16, caplog):
    pipeline(TASK, model=str(model), device="cpu", dtype=torch.float32)
    assert "bfloat16" not in caplog.text
    pipeline(TASK, model=str(model), device="cpu", dtype=torch.bfloat16)
    assert ("no instructions for bfloat16" in caplog.text and "--dtype float32" in caplog.text) != multiplies_bfloat16


def test_a_training_in_bfloat16_warns_on_a_cpu_that_is_slow_in_it(tmp_path, multiplies_bfloat16, caplog):
    config, processor = tiny_system()
    for bf16 in (False, True):
        assert "instructions" not in caplog.text
        never = dict.fromkeys(("save_strategy", "eval_strategy"), "no")
        arguments = CommTrainingArguments(
            str(tmp_path), use_cpu=True, bf16=bf16, load_best_model_at_end=False, **never
        )
        CommTrainer(tiny_model(config), arguments, processing_class=processor)
    assert ("no instructions for bfloat16" in caplog.text and "leave out bf16" in caplog.text) != multiplies_bfloat16


def test_other_devices_and_types_are_not_warned_of(monkeypatch, caplog):
    monkeypatch.setattr(number_types, "_multiplies_bfloat16", lambda: False)
    for device, dtype in [("cuda", torch.bfloat16), ("cpu", torch.float32), ("cpu", torch.float16)]:
        number_types.warn_of_slow_bfloat16(torch.device(device), dtype, "")
    assert caplog.text == ""


@pytest.mark.parametrize("name", ["_has_bfloat16", "_multiplies_bfloat16"])
def test_this_cpu_is_known(name):
    """torch still has the names by which it is asked."""
    assert getattr(number_types, name)() in (True, False)
    assert hasattr(torch.cpu, "_is_avx512_bf16_supported") and hasattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported")


def test_dense_products_are_in_float32_where_bfloat16_has_no_instructions(monkeypatch):
    for has, expected in [(False, torch.float32), (True, torch.bfloat16)]:
        monkeypatch.setattr(number_types, "_has_bfloat16", lambda has=has: has)
        assert number_types.dense_dtype(torch.bfloat16, CPU) == expected
        assert number_types.dense_dtype(torch.float16, CPU) == torch.float32
        assert number_types.dense_dtype(torch.float16, torch.device("cuda")) == torch.float16
