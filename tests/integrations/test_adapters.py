"""LoRA by `peft`: train, save, resume, and load as a checkpoint like any other; other ways are refused before training."""

import pytest
import torch
from helpers import random_document, tiny_model, tiny_system
from transformers import AutoModel, pipeline

import modeling_comm  # noqa: F401 - registers the pipeline
from modeling_comm import CommTrainer, CommTrainingArguments

peft = pytest.importorskip("peft", reason="needs peft, which the extra `lora` brings")

DOCUMENTS = [random_document(4, 25, seed=seed) for seed in range(6)]
LORA = {"target_modules": ["query", "value"], "r": 2, "init_lora_weights": False}


def make(folder, model=None, epochs=2):
    config, processor = tiny_system()
    if model is None:
        model = peft.get_peft_model(tiny_model(config), peft.LoraConfig(**LORA, modules_to_save=["relation_encoder"]))
    args = CommTrainingArguments(
        str(folder),
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        num_train_epochs=epochs,
        head_learning_rate=1e-3,
    )
    dataset = {"train_dataset": DOCUMENTS, "eval_dataset": DOCUMENTS[:3]}
    return CommTrainer(model=model, args=args, processing_class=processor, **dataset)


def test_train_resume_save_and_load(tmp_path):
    trainer = make(tmp_path / "run")
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.train()
    changed = {name for name, value in trainer.model.state_dict().items() if not torch.equal(value, before[name])}
    assert any("lora_" in name for name in changed) and any("classifier" in name for name in changed)
    assert all("lora_" in name or "modules_to_save" in name for name in changed)  # the encoder's own weights stay
    resumed = make(tmp_path / "run", epochs=3)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 6 and resumed.state.log_history[0]["epoch"] == 1.0
    resumed.save_model()
    documents = [{key: value for key, value in document.items() if key != "labels"} for document in DOCUMENTS[:2]]
    processor = resumed.processing_class
    loaded = AutoModel.from_pretrained(tmp_path / "run")
    assert type(loaded).__name__ == "CommForDocumentRelationExtraction"
    with torch.no_grad():
        expected = resumed.model.eval()(**processor(documents)).logits
        torch.testing.assert_close(loaded.eval()(**processor(documents)).logits, expected, atol=1e-4, rtol=0)
    assert len(pipeline("document-relation-extraction", model=str(tmp_path / "run"), device="cpu")(documents)) == 2
    assert any("lora_" in name for name, _ in resumed.model.named_parameters())  # saving has merged a copy


def test_other_ways_are_refused(tmp_path):
    model = tiny_model()
    model.add_adapter(peft.LoraConfig(**LORA))
    with pytest.raises(ValueError, match="get_peft_model"):
        make(tmp_path, model)
    model = tiny_model()
    model.backbone = peft.get_peft_model(model.backbone, peft.LoraConfig(**LORA))
    with pytest.raises(ValueError, match="get_peft_model"):
        make(tmp_path, model)


def test_a_head_that_is_not_trained_is_warned_of(tmp_path, caplog):
    make(tmp_path, peft.get_peft_model(tiny_model(), peft.LoraConfig(**LORA)))
    assert "relation encoder is not trained" in caplog.text
