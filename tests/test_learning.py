"""Training really learns: the bundled sample to near-perfect F1 on what was trained on."""

import json

import torch
from helpers import ROOT, learning_backbone, whole_word_tokenizer

from modeling_comm import CommConfig, CommForDocumentRelationExtraction, CommProcessor
from modeling_comm.training.trainer import CommTrainer
from modeling_comm.training.training_args import CommTrainingArguments


def test_sample_is_learnt(tmp_path):
    """An encoder of two layers, from scratch, so that the test takes seconds; `make demo` uses pretrained weights."""
    torch.manual_seed(0)
    documents = json.loads((ROOT / "examples" / "sample" / "train_revised.json").read_text(encoding="utf-8"))[:44]
    tokenizer = whole_word_tokenizer(documents)
    labels = ["Na", *sorted({label["r"] for document in documents for label in document["labels"]})]
    config = CommConfig(
        text_config=learning_backbone(tokenizer), id2label=dict(enumerate(labels)), emb_size=128, block_size=32
    )
    processor = CommProcessor.from_config(tokenizer, config)
    arguments = CommTrainingArguments(
        str(tmp_path),
        use_cpu=True,
        num_train_epochs=40,
        learning_rate=1e-3,
        head_learning_rate=2e-3,
        eval_strategy="no",
        save_strategy="no",
        load_best_model_at_end=False,
        disable_tqdm=True,
        report_to="none",
    )
    model = CommForDocumentRelationExtraction(config)
    trainer = CommTrainer(model, arguments, train_dataset=documents, processing_class=processor)
    before = trainer.evaluate(documents)["eval_f1"]
    trainer.train()
    after = trainer.evaluate(documents)
    assert before < 0.2
    assert after["eval_f1"] > 0.95, after
