"""ATLOP's intermediate results against numbers of its authors' own code, and where ours differs from it on purpose. Logits,
losses and gradients are compared in `test_conversion.py`, together with the other systems'.

Every case runs the whole way: documents or token ids through the processor's collation, backbone, relation encoder.
"""

import functools

import numpy as np
import pytest
import torch
from golden import (
    MARKERS,
    MINILM,
    ROBERTA,
    TINY,
    Case,
    as_batch,
    difference,
    documents_of,
    documents_seen,
    golden_pairs,
    logits_in_golden_order,
    per_document,
    system,
)
from golden import run as run_system
from helpers import entity_attention, mentions_as_entities, requires_shared

pytestmark = requires_shared
LOGITS, STATES = 1e-4, 1e-5
run = functools.partial(run_system, relation_encoder="atlop")
each_case = pytest.mark.parametrize("case", [*TINY, *ROBERTA, *MINILM], ids=str)


@each_case
def test_intermediate_results(case):
    arrays, info = case.load()
    batch, _, documents = run(case)
    embeddings = documents.entity_embeddings()
    sizes = documents.entity_mask.sum(-1).tolist()
    compared = 0
    if "entity_embs" in arrays:
        ours = torch.cat([embeddings[document, :size] for document, size in enumerate(sizes)])
        assert difference(ours, arrays["entity_embs"]) < STATES
        compared += 1
    if "atlop_rs" in arrays:
        ours = documents.pair_contexts(torch.tensor(golden_pairs(arrays, info)))
        assert difference(ours, arrays["atlop_rs"]) < STATES
        compared += 1
    if "sequence_output" in arrays:
        states, mask = as_batch(arrays["sequence_output"], 3), as_batch(arrays["attention_mask"], 2) > 0
        assert difference(documents.token_states.numpy()[mask], states[mask]) < STATES
        compared += 1
    if "mention_attention" in arrays:
        # Both list a document's mentions in the order of entities; ours are padded.
        order = arrays.get("mention_document", np.zeros_like(arrays["mention_entity"]))
        model, _ = system(case.folder, "atlop")
        attention = entity_attention(documents_seen(model, mentions_as_entities(batch))[1])
        for document in range(len(sizes)):
            golden = arrays["mention_attention"][order == document]
            assert difference(attention[document, : len(golden)], golden) < STATES
        compared += 1
    # MiniLM's batch has logits only.
    assert compared == (0 if case == Case("minilm", "batch_short_long_few") else 3 + (case.folder != "tiny"))


@pytest.mark.parametrize("case", [*ROBERTA, *MINILM, Case("tiny_roberta", "cut1024")], ids=str)
def test_token_ids_and_mentions(case):
    arrays, info = case.load()
    batch, _, _ = run(case)
    _, processor = system(case.folder, "atlop")
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
    """From 1,022 subword tokens the original leaves rows between its two windows that are zero. Ours takes a third window."""
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
    # The first and the last window are the original's, and one between them fills the gap.
    assert batch["windows"][:, 1:].tolist() == [[0, 0, 510], [509, 1, 510], [512, 1, 512]]
    assert np.array_equal(batch["input_ids"][[0, 2]].numpy(), arrays["window_input_ids"])
    states = documents.token_states[0].numpy()
    seen_once = [*range(510), *range(1019, 1024)]
    assert difference(states[seen_once], arrays["sequence_output"][0, seen_once]) < STATES
    assert (np.abs(states[gap]).sum(-1) > 0).all()


def test_truncated_document_in_a_longer_batch():
    """A document cut at 128 subword tokens beside one of 161. The original takes the padded length for the document's, and
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


@pytest.mark.parametrize("case", MARKERS, ids=str)
def test_entity_type_markers(case):
    """DocuNet's own BERT markers, `[unusedK]` by the mention's type."""
    arrays, info = case.load()
    golden = arrays["input_ids"].tolist()
    _, star = system("minilm", "docunet")
    _, processor = system("minilm", "docunet", "entity_type")
    feature = processor.encode(documents_of(info))[0]
    assert feature["input_ids"] == golden and feature["mention_positions"] == arrays["mention_rows"].tolist()
    _, case_info = Case("minilm", case.name).load()
    assert golden == case_info["docunet_prepro_input_ids"] != star.encode(documents_of(info))[0]["input_ids"]
