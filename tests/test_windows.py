"""Results by window equal those of straight loops over whole documents, whatever the windows' overlap."""

import itertools

import numpy as np
import pytest
import torch
from helpers import entity_attention, mentions_as_entities, random_document, tiny_model, tiny_system
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModel

from modeling_comm import modeling_comm, relation_encoder_base
from modeling_comm.relation_encoder_base import EncodedDocuments
from modeling_comm.relation_encoder_base import _sum_by_products as sum_by_products
from modeling_comm.windows import (
    Windows,
    count_pairs_without_context,
    entities_of_windows,
    mentions_in_windows,
    merge_states,
    split_document,
)

# Tokens that windows of 32 share: with 8 mostly two show a token, with 28 eight do.
STRIDES = [0, 8, 20, 28]
each_stride = pytest.mark.parametrize("stride", STRIDES)


def make(stride, **fields):
    config, processor = tiny_system(window_stride=stride, **fields)
    return tiny_model(config), processor


def some_documents():
    """Long ones with a short one, and one without entities, between them."""
    sizes = [(5, 90), (3, 5), (12, 200), (0, 50), (2, 40)]
    return [random_document(entities, words, mentions=4, seed=words) for entities, words in sizes]


def seen(model, batch):
    with torch.no_grad():
        return model(**batch, output_documents=True).documents


def merged_by_loops(model, batch):
    """States `(B, C, d)` and attention of every mention `(B, M, A, C)`, one window after the other, from eager attention."""
    backbone = AutoModel.from_config(model.config.text_config, attn_implementation="eager").eval()
    backbone.load_state_dict(model.backbone.state_dict(), strict=False)
    with torch.no_grad():
        encoded = backbone(batch["input_ids"], batch["attention_mask"], output_attentions=True)
    (documents, length), mentions = batch["document_mask"].shape, batch["mention_positions"].shape[1]
    states, attention = encoded.last_hidden_state, encoded.attentions[-1]
    sums, times = torch.zeros(documents, length, states.shape[-1]), torch.zeros(documents, length, 1)
    rows = torch.zeros(documents, mentions, attention.shape[1], length)
    for window, (document, offset, start, end) in enumerate(batch["windows"].tolist()):
        span = slice(offset + start, offset + end)
        sums[document, span] += states[window, start:end]
        times[document, span] += 1
        for mention, position in enumerate(batch["mention_positions"][document].tolist()):
            if span.start <= position < span.stop:
                rows[document, mention][:, span] += attention[window, :, position - offset, start:end]
    return sums / times.clamp(min=1), rows / (rows.sum(-1, keepdim=True) + 1e-10)


@each_stride
def test_merging_equals_loops(stride):
    model, processor = make(stride)
    batch = processor(some_documents())
    states, rows = merged_by_loops(model, batch)
    found = seen(model, mentions_as_entities(batch))
    torch.testing.assert_close(found.token_states, states, atol=1e-5, rtol=0)
    torch.testing.assert_close(entity_attention(found), rows, atol=1e-5, rtol=0)
    entities = entity_attention(seen(model, batch))
    for document, owners in enumerate(batch["mention_entities"]):
        for entity in range(int(batch["entity_mask"][document].sum())):
            expected = rows[document, owners == entity].mean(0)
            torch.testing.assert_close(entities[document, entity], expected, atol=1e-5, rtol=0)


@each_stride
def test_pooling_equals_loops(stride):
    model, processor = make(stride)
    documents = some_documents()
    features = processor.encode(documents)
    batch = processor.collate(features)
    found = seen(model, batch)
    attention, states = entity_attention(found), found.token_states
    generator = torch.Generator().manual_seed(0)
    pairs = batch["pair_index"][torch.randperm(len(batch["pair_index"]), generator=generator)[:60]]
    pairs = torch.cat([pairs, pairs[:3], torch.tensor([[0, 1, 1]])])  # some twice, one entity with itself
    sentences = torch.tensor([[[1, 9], [9, 30], [30, 32], [0, 0]]]).expand(len(documents), -1, -1)
    means, sums = found.pair_contexts(pairs), found.pair_contexts(pairs, head_reduction="sum", epsilon=1e-10)
    scores = found.sentence_scores(pairs, sentences)
    empty = 0
    for row, (document, head, tail) in enumerate(pairs.tolist()):
        product = attention[document, head] * attention[document, tail]
        for ours, weights, epsilon in ((means, product.mean(0), 1e-5), (sums, product.sum(0), 1e-10)):
            expected = (weights / (weights.sum() + epsilon)) @ states[document]
            torch.testing.assert_close(ours[row], expected, atol=1e-5, rtol=0)
        total = product.sum()
        empty += int(total == 0)
        expected = [float(product[:, start:end].sum() / total) if total else 0.0 for start, end in sentences[document]]
        assert scores[row].tolist() == pytest.approx(expected, abs=1e-5)
    assert empty > 0 or stride == 28
    sizes = [feature["num_entities"] for feature in features]
    cells = [(b, h, t) for b, n in enumerate(sizes) for h, t in itertools.product(range(n), repeat=2)]
    torch.testing.assert_close(found.grid_contexts(sizes), found.pair_contexts(torch.tensor(cells)))


def test_documents_of_uneven_size_are_pooled_one_by_one(monkeypatch):
    """With one window each: results and gradients are those of padded grids, and no grid has the size of the largest one."""
    documents = [random_document(entities, 12, mentions=2, seed=entities) for entities in (9, 0, 2, 3, 2)]
    model, processor = make(8, window_size=64)
    batch = processor(documents)
    found = model(**batch, output_documents=True).documents
    assert found.attention.entities is None
    order = torch.randperm(len(batch["pair_index"]), generator=torch.Generator().manual_seed(0))
    pairs = torch.cat([batch["pair_index"][order], torch.tensor([[0, 1, 1], [2, 0, 1], [2, 0, 1]])])
    results, built = [], []
    monkeypatch.setattr(
        relation_encoder_base,
        "_sum_by_products",
        lambda rows, *others: built.append(rows.shape[0] * rows.shape[1] ** 2) or sum_by_products(rows, *others),
    )
    for pads in (True, False):
        with monkeypatch.context() as patch:
            if pads:
                patch.setattr(EncodedDocuments, "_uneven_sizes", lambda self: None)
            contexts, scores = found.pair_contexts(pairs), found.sentence_scores(pairs)
        loss = (contexts * torch.arange(contexts.shape[1])).sum() + (scores * torch.arange(scores.shape[1])).sum()
        gradients = torch.autograd.grad(loss, list(model.backbone.parameters()), retain_graph=True, allow_unused=True)
        results.append([contexts, scores, *(one for one in gradients if one is not None)])
    assert built == [405, 405, *[81, 0, 4, 9, 4] * 2]
    for padded, one_by_one in zip(*results, strict=True):
        torch.testing.assert_close(one_by_one, padded, atol=1e-4, rtol=1e-4)


def test_a_mean_of_many_windows_in_bfloat16():
    """A count of windows in bfloat16 would stop at 256."""
    windows, length = 400, 8
    layout = Windows(*(torch.full((windows,), value) for value in (0, 0, 0, length)))
    states = torch.full((windows, length, 2), 3.0, dtype=torch.bfloat16)
    merged = merge_states(states, layout, torch.ones(1, length, dtype=torch.bool))
    assert merged.dtype == torch.bfloat16 and (merged == 3).all()


def test_unknown_reduction_is_refused():
    model, processor = make(8)
    batch = processor(some_documents())
    with pytest.raises(ValueError):
        seen(model, batch).pair_contexts(batch["pair_index"], head_reduction="median")


@each_stride
@pytest.mark.parametrize(
    "lacking", [("window_mentions",), ("window_entities",), ("window_mentions", "window_entities")]
)
def test_what_windows_hold_may_be_left_out(stride, lacking):
    model, processor = make(stride)
    batch = processor(some_documents())
    with torch.no_grad():
        expected = model(**batch).logits
        for name in lacking:
            del batch[name]
        torch.testing.assert_close(model(**batch).logits, expected, atol=1e-5, rtol=1e-5)


@each_stride
def test_windows_hold_few_mentions(stride):
    """The rows of a long document are those of its windows' mentions, not of all."""
    model, processor = make(stride)
    batch = processor(random_document(40, 900, mentions=4, seed=1))
    rows = []
    hook = model.backbone.register_forward_hook(lambda *arguments: rows.append(arguments[-1].attentions[-1]))
    documents = seen(model, batch)
    hook.remove()
    mentions = batch["mention_positions"].shape[1]
    assert max(part.shape[2] for part in rows) == batch["window_mentions"].shape[1] < mentions / 4
    assert documents.attention.rows.shape[1] == batch["window_entities"].shape[1] < 20


def test_long_documents_are_read_in_parts(monkeypatch):
    model, processor = make(8)
    batch = processor(some_documents())
    sizes = []
    model.backbone.register_forward_hook(lambda *arguments: sizes.append(len(arguments[-1].last_hidden_state)))
    with torch.no_grad():
        expected = model(**batch).logits
        monkeypatch.setattr(modeling_comm, "TOKENS_AT_ONCE", 100)
        torch.testing.assert_close(model(**batch).logits, expected, atol=1e-5, rtol=1e-5)
    windows = len(batch["windows"])
    assert sizes == [windows, *[3] * (windows // 3), *([windows % 3] if windows % 3 else [])]
    model(**batch).loss.backward()  # with gradients all windows are read together
    assert sizes[-1] == windows


@each_stride
def test_every_token_is_kept_by_one_window(stride):
    _, processor = make(stride)
    batch = processor(some_documents())
    windows, length = Windows.from_tensor(batch["windows"]), batch["input_ids"].shape[1]
    keepers = windows.keepers(length, batch["document_mask"].shape[1])
    for window, (document, offset, start, end) in enumerate(batch["windows"].tolist()):
        same = [w for w, row in enumerate(batch["windows"].tolist()) if row[0] == document]
        ends = {w: int(windows.offset[w] + windows.end[w]) for w in same}
        expected = [next(w for w in same if position < ends[w]) for position in range(offset + start, offset + end)]
        assert keepers[window, start:end].tolist() == expected
        before = [ends[w] for w in same if w < window]
        assert int(windows.kept_from()[window]) == max(before, default=0)


@each_stride
def test_pairs_without_context_equal_loops(stride):
    spans = split_document(300, 32, stride, 1)
    positions = [1, 20, 31, 33, 60, 150, 151, 299, -1, 40, -1]
    entities = [0, 1, 2, 3, 4, 5, 6, 7, 7, 0, 8]
    reach = {entity: set() for entity in entities}
    for position, entity in zip(positions, entities, strict=True):
        reach[entity] |= {x for start, end in spans if start <= position < end for x in range(start, end)}
    apart = [(h, t) for h in reach for t in reach if h != t and reach[h] and reach[t] and not reach[h] & reach[t]]
    pairs = np.array([(h, t) for h in reach for t in reach if h != t])
    assert count_pairs_without_context(spans, positions, entities, pairs) == len(apart) > 0
    held = entities_of_windows(spans, mentions_in_windows(spans, positions), entities)
    before = 0
    for (_, end), seen_here in zip(spans, held, strict=True):
        assert set(seen_here) == {entity for entity in reach if reach[entity] & set(range(before, end))}
        before = end


class LargestTensor(TorchDispatchMode):
    """The number of elements of the largest tensor that was made."""

    size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        sizes = [
            tensor.untyped_storage().nbytes() for tensor in tree_leaves(result) if isinstance(tensor, torch.Tensor)
        ]
        self.size = max([self.size, *sizes])
        return result


def test_twice_the_words_take_twice_the_memory_at_most():
    """A mention in ten words, of ten entities: no tensor grows with the square of the document's length."""
    config, processor = tiny_system()
    model, largest = tiny_model(config), []
    for words in (2000, 4000):
        document = random_document(0, words)
        mentions = [
            {"name": "x", "sent_id": sent, "pos": [0, 1], "type": "LOC"} for sent in range(len(document["sents"]))
        ]
        document |= {"vertexSet": [mentions[entity::10] for entity in range(10)], "labels": []}
        with torch.no_grad(), LargestTensor() as seen:
            model(**processor(document))
        largest.append(seen.size)
    assert largest[1] < 2.1 * largest[0]
