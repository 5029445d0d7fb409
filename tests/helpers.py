"""Tools of several test modules: the place of the team's shared data, and tiny models, tokenizers and documents that need no
file at all."""

import contextlib
import os
import random
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModel, BertConfig, PreTrainedTokenizerFast, TrainerCallback

import run_docre
from modeling_comm import (
    CommConfig,
    CommForDocumentRelationExtraction,
    CommProcessor,
    loss_registry,
    relation_encoder_registry,
)
from modeling_comm.data import dataset_entry
from modeling_comm.formats import format_registry
from modeling_comm.graph import linking
from modeling_comm.relation_encoders import get_relation_encoder

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("COMM_SHARED", ROOT.parent / "shared"))
SAMPLE = ROOT / "examples" / "sample"

requires_shared = pytest.mark.skipif(
    not SHARED.is_dir(),
    reason=f"needs the golden numbers and real documents in {SHARED} (set COMM_SHARED to their folder)",
)

LABELS = {0: "Na", 1: "P17", 2: "P27", 3: "P131", 4: "P569"}
WORDS = [
    *(
        "the",
        "river",
        "of",
        "a",
        "town",
        "in",
        "north",
        "south",
        "king",
        "queen",
        "born",
        "died",
        "built",
        "wrote",
        "near",
    ),
    *(
        "Oslo",
        "Bergen",
        "Lima",
        "Cairo",
        "Nile",
        "Thames",
        "Rhine",
        "Anna",
        "Omar",
        "Lena",
        "Ivan",
        "1901",
        "1945",
        "May",
    ),
    *(",", ".", "(", ")", "-", "naïve", "Łódź", "東京"),
]


def word_piece_tokenizer(unused=64, star=True, pad="[PAD]", first_unused=0):
    """BERT's kind, cased, made in memory: every second word of `WORDS` is one piece, the others are cut into characters.
    It has tokens `[unusedK]` from `first_unused` to below `unused`, and `*` if wanted."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    characters = sorted({character for word in WORDS for character in word})
    tokens = [*special, *(f"[unused{k}]" for k in range(first_unused, unused)), *("*" if star else "")]
    tokens += [*characters, *(f"##{character}" for character in characters), *WORDS[::2]]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.add_special_tokens(special)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    ends = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    names = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=pad, **names)


def byte_level_tokenizer(add_prefix_space=False):
    """RoBERTa's kind, made in memory: a space belongs to the word that follows it, and with it every second word of `WORDS`
    is one piece."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens, merges = [*special, *sorted(level.alphabet())], []
    for word in WORDS[::2]:
        ((symbols, _),) = level.pre_tokenize_str(f" {word}")
        pairs = [(symbols[:end], symbols[end]) for end in range(1, len(symbols))]
        merges += [pair for pair in pairs if pair not in merges]
        tokens += map("".join, pairs)
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.add_special_tokens(special)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    ends = [(token, vocabulary[token]) for token in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", **names)


def whole_word_tokenizer(documents):
    """One token for each word of these documents."""
    words = sorted({word for document in documents for sentence in document["sents"] for word in sentence})
    vocabulary = {word: index for index, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "*", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ends = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")


def learning_backbone(tokenizer):
    """A configuration of two layers, which learn a few documents by heart within seconds."""
    return BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.2,
    )


TOKENIZERS = {"bert": word_piece_tokenizer, "roberta": byte_level_tokenizer}


def random_document(entities, words=40, mentions=2, seed=0, labels=True, title=None):
    """A document of about ten words per sentence; mentions are anywhere, entity types and facts are drawn too."""
    draw = random.Random(seed)
    tokens = [draw.choice(WORDS) for _ in range(words)]
    sents = [tokens[start : start + 10] for start in range(0, words, 10)]
    vertex_set = []
    for _ in range(entities):
        cluster = []
        for _ in range(draw.randint(1, mentions)):
            sent_id = draw.randrange(len(sents))
            start = draw.randrange(len(sents[sent_id]))
            end = min(start + draw.randint(1, 2), len(sents[sent_id]))
            name = " ".join(sents[sent_id][start:end])
            kind = draw.choice(["PER", "LOC", "ORG", "TIME", "NUM", "MISC"])
            cluster.append({"name": name, "sent_id": sent_id, "pos": [start, end], "type": kind})
        vertex_set.append(cluster)
    document = {"title": title or f"Document {seed}", "sents": sents, "vertexSet": vertex_set}
    if labels:
        pairs = [(h, t) for h in range(entities) for t in range(entities) if h != t]
        facts = {(*draw.choice(pairs), draw.choice(list(LABELS.values())[1:])) for _ in range(min(len(pairs), 6))}
        document["labels"] = [{"h": h, "t": t, "r": r, "evidence": []} for h, t, r in sorted(facts)]
    return document


_BERT_SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
_OWN_FIELDS = {
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48},
    "electra": {"embedding_size": 16},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False},
    "modernbert": {"layer_types": ["sliding_attention", "full_attention"], "local_attention": 12},
}


def tiny_text_config(model_type="bert", tokenizer=None, **fields):
    """A two-layer backbone's configuration; without a tokenizer for the ids of [`word_piece_tokenizer`]."""
    sizes = {"vocab_size": 512 if tokenizer is None else len(tokenizer), "max_position_embeddings": 66}
    pad = 0 if tokenizer is None else tokenizer.pad_token_id
    special = {"pad_token_id": pad, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
    own = {} if model_type == "distilbert" else _BERT_SIZES
    return AutoConfig.for_model(model_type, **{**sizes, **special, **own, **_OWN_FIELDS.get(model_type, {}), **fields})


# Settings without which a loss cannot be computed.
NEEDED_SETTINGS = {"ssr_pu": {"ssr_pu_label_rates": dict.fromkeys(list(LABELS.values())[1:], 0.01)}}


def tiny_config(model_type="bert", text_fields=None, **fields):
    """A small model's configuration, of four relations."""
    defaults = {"emb_size": 16, "block_size": 4, "id2label": LABELS, "loss": "atl"}
    defaults |= NEEDED_SETTINGS.get(fields.get("loss"), {})
    return CommConfig(text_config=tiny_text_config(model_type, **(text_fields or {})), **{**defaults, **fields})


_SMALL_SIZES = {"unet_in_dim": 2, "unet_down_dim": 4, "unet_out_dim": 6, "axial_layers": 2, "axial_heads": 4}


def small_encoder(name, **sizes):
    """The fields that choose a relation encoder and make it small: those of the usual sizes, and of `sizes`, that it has."""
    declared = {setting.field for setting in get_relation_encoder(name).settings}
    small = {field: value for field, value in {**_SMALL_SIZES, **sizes}.items() if field in declared}
    return {"relation_encoder": name, **small}


def sharpen(module, factor=6.0):
    """Enlarges matrices, as training does: at their initial size attention is almost uniform and all pairs have nearly the
    same logits, so that a test of them could hardly fail."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() == 2:
                parameter.mul_(factor)


def tiny_model(config=None, seed=0):
    """A random model in evaluation mode whose logits differ from pair to pair."""
    torch.manual_seed(seed)
    model = CommForDocumentRelationExtraction(tiny_config() if config is None else config)
    sharpen(model.backbone)
    sharpen(model.relation_encoder, 3.0)
    return model.eval()


def tiny_processor(config=None, tokenizer=None, **settings):
    """The processor of a configuration, with windows of 32 subword tokens that share 8 at least, so that two sentences already
    make a long document."""
    return CommProcessor.from_config(
        word_piece_tokenizer() if tokenizer is None else tokenizer,
        tiny_config() if config is None else config,
        **{"window_size": 32, "window_stride": 8, **settings},
    )


def tiny_system(kind="bert", text_fields=None, **fields):
    """A configuration and its processor, of BERT's kind (WordPiece) or of RoBERTa's (byte-level BPE). `fields` are those of
    either."""
    tokenizer = TOKENIZERS[kind]()
    settings = {name: fields.pop(name) for name in CommProcessor.setting_names() if name in fields}
    config = tiny_config(kind, {"tokenizer": tokenizer, **(text_fields or {})}, **fields)
    return config, tiny_processor(config, tokenizer, **settings)


def logits_by_pair(output):
    """`{(document, head, tail): logits}`, so that results compare whatever the order of pairs."""
    return dict(zip(map(tuple, output.pair_index.tolist()), output.logits.detach().float(), strict=True))


def save_backbone(folder, kind="bert", seed=0, **fields):
    """A folder with a random two-layer encoder and its tokenizer, for `run_docre.py --model_name_or_path`."""
    tokenizer = TOKENIZERS[kind]()
    torch.manual_seed(seed)
    AutoModel.from_config(tiny_text_config(kind, tokenizer, **fields)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def run_script(*flags):
    """The metrics of each seed's run of `run_docre.py`."""
    return run_docre.run(run_docre.parse_arguments([str(flag) for flag in flags]))


class KillAt(TrainerCallback):
    """Ends a training at this step with `InterruptedError`, as a kill would; or once its checkpoint of this step is `saved`."""

    def __init__(self, step, saved=False):
        self.step, self.saved = step, saved

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step and not self.saved:
            raise InterruptedError

    def on_save(self, args, state, control, **kwargs):
        if state.global_step == self.step and self.saved:
            raise InterruptedError


def entity_attention(documents):
    """Attention of whole documents, `(B, E, A, C)`, put together from what is stored by window."""
    attention, (batch, entities) = documents.attention, documents.entity_mask.shape
    whole = torch.zeros(batch, entities, attention.rows.shape[2], documents.token_states.shape[1])
    for window, (document, positions) in enumerate(zip(attention.document, attention.positions(), strict=True)):
        inside = positions < whole.shape[-1]
        assert not attention.rows[window, ..., ~inside].any()
        shown = torch.arange(entities) if attention.entities is None else attention.entities[window]
        for row, entity in enumerate(shown.tolist()):
            if entity >= 0:
                whole[document, entity][:, positions[inside]] += attention.rows[window, row][:, inside]
    return whole


def mentions_as_entities(batch):
    """The same batch with an entity for each mention, so that what is pooled by entity shows the mentions."""
    documents, mentions = batch["mention_positions"].shape
    return {
        **{name: value for name, value in batch.items() if name != "labels"},
        "mention_entities": torch.arange(mentions).expand(documents, -1),
        "entity_mask": torch.ones(documents, mentions, dtype=torch.bool),
        "window_entities": torch.arange(mentions).expand(len(batch["windows"]), -1),
    }


# Each of them asks the device for a number, and the program waits for it.
_WAITING = {torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero, torch.ops.aten.is_nonzero}


class NeverWaits(TorchDispatchMode):
    """Fails where something waits for the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func.overloadpacket not in _WAITING, f"{func} waits for the device"
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def registries_kept():
    """What is registered inside is gone after it: other tests of this process list what there is."""
    registries = [loss_registry._REGISTRY, relation_encoder_registry._REGISTRY, dataset_entry._DATASETS]
    registries += [format_registry._FORMATS, linking._REGISTRY]
    before = list(map(dict, registries))
    try:
        yield
    finally:
        for registry, known in zip(registries, before, strict=True):
            registry.clear()
            registry.update(known)
