"""Training really learns: the bundled sample to near-perfect F1 on what was trained on."""

import json

import torch
from helpers import ROOT
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, PreTrainedTokenizerFast

from modeling_comm import CommConfig, CommForDocumentRelationExtraction, CommProcessor
from modeling_comm.training.trainer import CommTrainer
from modeling_comm.training.training_args import CommTrainingArguments


def whole_word_tokenizer(documents):
    words = sorted({word for document in documents for sentence in document["sents"] for word in sentence})
    vocabulary = {word: index for index, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "*", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ends = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")


def test_sample_is_learnt(tmp_path):
    """An encoder of two layers, from scratch, so that the test takes seconds; `make demo` uses pretrained weights."""
    torch.manual_seed(0)
    documents = json.loads((ROOT / "examples" / "sample" / "train_revised.json").read_text(encoding="utf-8"))
    tokenizer = whole_word_tokenizer(documents)
    labels = ["Na", *sorted({label["r"] for document in documents for label in document["labels"]})]
    backbone = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.2,
    )
    config = CommConfig(text_config=backbone, id2label=dict(enumerate(labels)), emb_size=128, block_size=32)
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
