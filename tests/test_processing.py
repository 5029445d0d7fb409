"""`CommProcessor`: documents to tensors without losing anything in silence, and outputs back to triples."""

import copy
import itertools
import json
import pickle
import random
import re
import weakref

import numpy as np
import pytest
import torch
from helpers import (
    LABELS,
    WORDS,
    byte_level_tokenizer,
    random_document,
    tiny_config,
    tiny_model,
    tiny_processor,
    word_piece_tokenizer,
)
from transformers import AutoProcessor, PreTrainedTokenizerFast

from modeling_comm import CommOutput, CommProcessor, available_losses
from modeling_comm.decoding import DecisionSettings
from modeling_comm.documents import DocumentError
from modeling_comm.features import encoding_report
from modeling_comm.settings import SettingError


@pytest.fixture(scope="module")
def processor():
    return tiny_processor()


def mention(document, sent_id, start, end, kind="LOC"):
    name = " ".join(document["sents"][sent_id][start:end])
    return {"name": name, "sent_id": sent_id, "pos": [start, end], "type": kind}


# --- words to subword tokens


def naive_encoding(document, tokenizer, marker, space=""):
    """Word by word: ids, and the row of each mention's start marker."""
    ids, rows, spans = [tokenizer.cls_token_id or tokenizer.bos_token_id], {}, []
    for cluster in document["vertexSet"]:
        spans += [(mention["sent_id"], *mention["pos"]) for mention in cluster]
    for sent_id, sentence in enumerate(document["sents"]):
        for index, word in enumerate(sentence):
            rows[sent_id, index] = len(ids)
            if any((sent_id, index) == span[:2] for span in spans) and marker is not None:
                ids.append(marker)
            ids += tokenizer(space + word, add_special_tokens=False)["input_ids"]
            if any((sent_id, index + 1) == span[::2] for span in spans) and marker is not None:
                ids.append(marker)
    ids.append(tokenizer.sep_token_id or tokenizer.eos_token_id)
    return ids, [rows[span[:2]] for span in spans]


@pytest.mark.parametrize("markers", ["star", "none"])
@pytest.mark.parametrize("seed", range(3))
def test_alignment_is_exact(processor, markers, seed):
    document = random_document(12, 120, mentions=3, seed=seed)
    tokenizer = processor.tokenizer
    star = tokenizer.convert_tokens_to_ids("*")
    feature = tiny_processor(markers=markers).encode([document])[0]
    ids, rows = naive_encoding(document, tokenizer, star if markers == "star" else None)
    assert (feature["input_ids"], feature["mention_positions"]) == (ids, rows)
    if markers == "star":
        assert {ids[row] for row in rows} == {star}
        # The tokens between the markers are the mention.
        names = [mention["name"] for cluster in document["vertexSet"] for mention in cluster]
        for row, name in zip(rows, names, strict=True):
            text = tokenizer.decode(ids[row:]).replace("*", "").replace(" ", "")
            assert text.startswith(name.replace(" ", ""))


def test_mentions_that_share_words_get_one_marker(processor):
    """One marker before and one after a word, however many mentions start or end there."""
    document = {"title": "T", "sents": [["Bergen", "north", "town"]]}
    document["vertexSet"] = [
        [mention(document, 0, 0, 2), mention(document, 0, 0, 2)],
        [mention(document, 0, 0, 1)],
        [mention(document, 0, 1, 2)],
    ]
    feature = processor.encode([document])[0]
    pieces = processor.tokenizer.convert_ids_to_tokens(feature["input_ids"])
    assert pieces == ["[CLS]", "*", "Bergen", "*", "*", "north", "*", "town", "[SEP]"]
    assert feature["mention_positions"] == [1, 1, 1, 4] and feature["mention_entities"] == [0, 0, 1, 2]


def test_entity_type_markers():
    processor = tiny_processor(markers="entity_type")
    document = {"title": "T", "sents": [["Bergen", "north", "town", "king"]]}
    document["vertexSet"] = [
        [mention(document, 0, 0, 3, "ORG")],
        [mention(document, 0, 0, 1, "LOC")],
        [mention(document, 0, 3, 4, "-")],
    ]
    pieces = processor.tokenizer.convert_ids_to_tokens(processor.encode([document])[0]["input_ids"])
    # The first mention that starts (ends) at a word gives the type, for each side on its own.
    expected = "[CLS] [unused1] Bergen [unused53] north town [unused51] [unused0] king [unused50] [SEP]"
    assert pieces == expected.split()
    document["vertexSet"] = [[mention(document, 0, 2, 4, "NUM")], [mention(document, 0, 0, 4, "TIME")]]
    pieces = processor.tokenizer.convert_ids_to_tokens(processor.encode([document])[0]["input_ids"])
    expected = "[CLS] [unused5] Bergen north [unused11] town king [unused61] [SEP]"
    assert pieces == expected.split()
    document["vertexSet"][1][0]["type"] = "GPE"
    with pytest.raises(ValueError, match="'GPE'"):
        processor(document)


def test_entity_type_markers_of_other_types(tmp_path):
    """The types are marked in their order, and the checkpoint keeps them."""
    with pytest.raises(ValueError, match="unused61"):
        tiny_processor(tokenizer=word_piece_tokenizer(unused=60), markers="entity_type", marker_types=tuple("abcdef"))
    tiny_processor(markers="entity_type", marker_types=("GPE", "PER")).save_pretrained(tmp_path)
    processor = CommProcessor.from_pretrained(tmp_path)
    assert processor.marker_types == ["GPE", "PER"]
    document = {"title": "T", "sents": [["Bergen", "north", "town"]]}
    document["vertexSet"] = [
        [mention(document, 0, word, word + 1, kind)] for word, kind in enumerate(("PER", "-", "GPE"))
    ]
    pieces = processor.tokenizer.convert_ids_to_tokens(processor.encode([document])[0]["input_ids"])
    expected = "[CLS] [unused3] Bergen [unused53] [unused0] north [unused50] [unused1] town [unused51] [SEP]"
    assert pieces == expected.split()
    document["vertexSet"][0][0]["type"] = "ORG"
    with pytest.raises(
        ValueError, match=r"'ORG'; entity_type markers exist for \['-', 'GPE', 'PER'\] \(marker_types\)"
    ):
        processor(document)


def test_entities_without_a_type_are_marked_as_such():
    """The stand-in for a type that nobody has given is no type. BERT's cased vocabularies have no `[unused0]`."""
    document = {"title": "T", "sents": [["Bergen", "town"]], "untyped_entities": [1]}
    document["vertexSet"] = [[mention(document, 0, 0, 1, "LOC")], [mention(document, 0, 1, 2, "MISC")]]
    processor = tiny_processor(markers="entity_type", marker_types=["LOC"])
    feature = processor.encode([document])[0]
    pieces = processor.tokenizer.convert_ids_to_tokens(feature["input_ids"])
    assert pieces == ["[CLS]", "[unused1]", "Bergen", "[unused51]", "[unused0]", "town", "[unused50]", "[SEP]"]
    cased = tiny_processor(tokenizer=word_piece_tokenizer(first_unused=1), markers="entity_type")
    feature = cased.encode([document])[0]
    pieces = cased.tokenizer.convert_ids_to_tokens(feature["input_ids"])
    assert pieces == ["[CLS]", "[unused3]", "Bergen", "[unused53]", "town", "[SEP]"]
    assert feature["mention_positions"] == [1, 4]


def test_default_types_of_markers_are_numbered_as_in_docunet():
    named = tiny_processor(markers="entity_type", marker_types=["ORG", "LOC", "TIME", "PER", "MISC", "NUM"])
    document = random_document(3)
    same = tiny_processor(markers="entity_type").encode([document])
    assert named.encode([document])[0]["input_ids"] == same[0]["input_ids"]


@pytest.mark.parametrize("types", ["PER", [], ["PER", "PER"], [""], [1], 5, [f"T{number}" for number in range(26)]])
def test_wrong_types_of_markers(types):
    with pytest.raises(SettingError, match="1 to 25 different entity types") as error:
        tiny_processor(markers="entity_type", marker_types=types)
    assert error.value.field == "marker_types"


def test_markers_know_a_candidate_pair():
    marked = {"markers": "entity_type", "marker_types": ["CHEMICAL", "PERSON"]}
    tiny_processor(**marked, candidate_pairs=[("CHEMICAL", "Gene"), ("PER", "CHEMICAL")])
    with pytest.raises(SettingError, match="the types of a candidate pair among them") as error:
        tiny_processor(**marked, candidate_pairs=[("CHEMICAL", "Gene")])
    assert error.value.field == "marker_types"


def test_a_misspelt_setting_is_refused(tmp_path):
    processor = tiny_processor()
    processor.save_pretrained(tmp_path)
    with pytest.raises(TypeError, match="'threshold_ofset', expected 'threshold_offset'"):
        CommProcessor.from_pretrained(tmp_path, threshold_ofset=1.0)
    with pytest.raises(TypeError, match="'windowsize', expected 'window_size'"):
        CommProcessor.from_backbone(tmp_path, tiny_config(), windowsize=64)
    loaded = CommProcessor.from_pretrained(tmp_path, threshold_offset=1.0, force_download=False, use_fast=True)
    assert loaded.decision.threshold_offset == 1


def test_words_without_pieces():
    """White space and control characters give no subword token. A mention of nothing else has no state to read, unless markers
    are around it."""
    document = {"title": "T", "sents": [["Bergen", " ", "\u200b", "town"], [], ["\x07"]]}
    document["vertexSet"] = [[mention(document, 0, 0, 1)], [mention(document, 0, 1, 3)], [mention(document, 2, 0, 1)]]
    marked, plain = (tiny_processor(markers=markers).encode([document])[0] for markers in ("star", "none"))
    assert (marked["mention_positions"], marked["lost_mentions"]) == ([1, 4, 7], 0)
    assert (plain["mention_positions"], plain["lost_mentions"], plain["lost_entities"]) == ([1, -1, -1], 2, 2)
    assert plain["input_ids"] == tiny_processor().tokenizer("Bergen town")["input_ids"]


def test_words_that_look_like_special_tokens(processor):
    """A text about tokenizers does not close the document early, nor pad it."""
    words = ["[SEP]", "[PAD]", "[MASK]", "*", "<s>", "東京", "🦉", "naïve", "a\u0301", "x" * 300]
    feature = processor.encode([{"title": "T", "sents": [words], "vertexSet": []}])[0]
    tokenizer = processor.tokenizer
    inside = feature["input_ids"][1:-1]
    assert tokenizer.convert_tokens_to_ids("*") in inside
    assert not {tokenizer.sep_token_id, tokenizer.pad_token_id, tokenizer.mask_token_id} & set(inside)
    assert tokenizer("[SEP]", add_special_tokens=False)["input_ids"] == [
        tokenizer.sep_token_id
    ]  # nothing stays switched
    byte_level = tiny_processor(tokenizer=byte_level_tokenizer())
    inside = byte_level.encode([{"title": "T", "sents": [words], "vertexSet": []}])[0]["input_ids"][1:-1]
    assert byte_level.tokenizer.decode(inside) == "".join(" " + word for word in words)
    inside = byte_level.encode([{"title": "T", "sents": [["</s>", "<pad>"]], "vertexSet": []}])[0]["input_ids"][1:-1]
    assert not set(byte_level.tokenizer.all_special_ids) & set(inside)


@pytest.mark.parametrize("add_prefix_space", [False, True])
def test_byte_level_words_take_their_leading_space(add_prefix_space):
    tokenizer = byte_level_tokenizer(add_prefix_space)
    processor = tiny_processor(tokenizer=tokenizer, markers="none")
    document = random_document(3, 60, seed=1)
    feature = processor.encode([document])[0]
    running_text = " " + " ".join(word for sentence in document["sents"] for word in sentence)
    assert feature["input_ids"] == tokenizer(running_text)["input_ids"]
    assert feature["mention_positions"] == naive_encoding(document, tokenizer, None, space=" ")[1]


def test_byte_level_words_without_their_leading_space():
    """As the original systems read RoBERTa's words."""
    tokenizer = byte_level_tokenizer()
    document = random_document(3, 60, seed=1)
    star = tokenizer.convert_tokens_to_ids("*")
    feature = tiny_processor(tokenizer=tokenizer, word_leading_space=False).encode([document])[0]
    assert (feature["input_ids"], feature["mention_positions"]) == naive_encoding(document, tokenizer, star)
    assert feature["input_ids"] != tiny_processor(tokenizer=tokenizer).encode([document])[0]["input_ids"]
    with pytest.raises(ValueError, match="word_leading_space"):
        tiny_processor(tokenizer=byte_level_tokenizer(add_prefix_space=True), word_leading_space=False)


def test_leading_space_is_for_byte_level_tokenizers_alone():
    document = random_document(3, seed=4)
    assert tiny_processor(word_leading_space=False).encode([document]) == tiny_processor().encode([document])


# --- batches


def trimmed(batch, document):
    """The part of a batch that is one document, without padding."""
    rows = batch["windows"][:, 0] == document
    mask = batch["attention_mask"][rows].bool()
    pairs = batch["pair_index"][:, 0] == document
    mentions = batch["mention_entities"][document] >= 0
    return {
        "input_ids": [row[m].tolist() for row, m in zip(batch["input_ids"][rows], mask, strict=True)],
        "windows": batch["windows"][rows, 1:].tolist(),
        "length": int(batch["document_mask"][document].sum()),
        "positions": batch["mention_positions"][document][mentions].tolist(),
        "entities": batch["mention_entities"][document][mentions].tolist(),
        "count": int(batch["entity_mask"][document].sum()),
        "pairs": batch["pair_index"][pairs, 1:].tolist(),
        "labels": batch["labels"][pairs].tolist(),
    }


def test_batched_equals_single(processor):
    documents = [random_document(n, words, seed=n) for n, words in [(3, 20), (0, 15), (7, 90), (1, 40), (2, 10)]]
    batch = processor(documents)
    # Every pair is asked about every relation.
    assert set(batch) == set(processor.model_input_names) - {"asked"}
    for index, document in enumerate(documents):
        assert trimmed(batch, index) == trimmed(processor(document), 0)
    # Padding says that it is padding.
    assert batch["input_ids"][batch["attention_mask"] == 0].eq(processor.tokenizer.pad_token_id).all()
    assert batch["mention_entities"][batch["mention_positions"] < 0].eq(-1).all()
    assert batch["labels"].dtype == torch.float32 and batch["document_mask"].dtype == torch.bool


@pytest.mark.parametrize("entities", [0, 1, 2, 43, 100])
def test_any_number_of_entities(processor, entities):
    batch = processor(random_document(entities, 100, seed=entities))
    expected = [[0, h, t] for h in range(entities) for t in range(entities) if h != t]
    assert batch["pair_index"].tolist() == expected and batch["pair_index"].shape == (len(expected), 3)
    assert batch["labels"].shape == (len(expected), len(LABELS))
    assert batch["entity_mask"].sum() == entities
    assert (batch["mention_entities"] >= 0).any() == (entities > 0)


def test_pairs_are_ordered_by_document_head_and_tail(processor):
    """The order says nothing about the labels."""
    pairs = processor([random_document(n, seed=n) for n in (4, 0, 3)])["pair_index"].tolist()
    assert pairs == sorted(pairs) and len(pairs) == 12 + 6 and {document for document, _, _ in pairs} == {0, 2}


def test_labels(processor):
    document = random_document(4, labels=False)
    facts = [(0, 3, "P17"), (0, 3, "P131"), (3, 0, "P569"), (2, 1, "P27"), (2, 1, "P27")]
    document["labels"] = [{"h": h, "t": t, "r": r} for h, t, r in facts]
    before = copy.deepcopy(document)
    batch = processor(document)
    found = {
        (h, t, LABELS[column])
        for (_, h, t), row in zip(batch["pair_index"].tolist(), batch["labels"], strict=True)
        for column in row.nonzero().flatten().tolist()
    }
    without = {(h, t, "Na") for h in range(4) for t in range(4) if h != t} - {(h, t, "Na") for h, t, _ in facts}
    assert found == set(facts) | without and document == before
    assert processor({**document, "labels": []})["labels"][:, 0].all()
    for unlabelled in ({**document, "labels": None}, random_document(4, labels=False)):
        assert "labels" not in processor(unlabelled) and "labels" not in processor([document, unlabelled])


def test_nothing_to_encode(processor):
    """A process that has no documents left runs an empty batch beside the others."""
    for batch in (processor([]), processor.collate([])):
        assert batch["pair_index"].shape == (0, 3) and batch["labels"].shape == (0, len(LABELS))
        assert batch["input_ids"].shape[0] == batch["windows"].shape[0] == 1


# --- long documents


@pytest.mark.parametrize(
    ("size", "stride", "end_tokens"), [(32, 8, 1), (32, 0, 2), (8, 5, 1), (64, 61, 1), (32, 28, 2)]
)
def test_windows_cover_everything(size, stride, end_tokens):
    processor = tiny_processor(window_size=size, window_stride=stride, window_end_tokens=end_tokens)
    for length in [*range(2, 4 * size), 5000]:
        spans = processor.window_spans(length)
        assert (len(spans) == 1) == (length <= size)
        assert spans[0][0] == 0 and spans[-1][1] == length
        for (first, end), (start, _) in itertools.pairwise(spans):
            assert first < start <= end - stride  # no gap, and the overlap asked for
        # Added special tokens count: one before every window but the first, some after every one but the last.
        rows = [end - start + (start > 0) + (end_tokens if end < length else 0) for start, end in spans]
        assert max(rows) <= size
        assert len(spans) == 1 or set(rows) == {size}  # every window is full; the last ends with the document


def test_document_of_5000_words(processor):
    document = random_document(30, 5000, mentions=4, seed=3)
    feature = processor.encode([document])[0]
    assert feature["lost_tokens"] == feature["lost_mentions"] == feature["lost_entities"] == 0
    batch = processor.collate([feature])
    length = len(feature["input_ids"])
    assert length > 5000 and batch["input_ids"].shape[1] == 32
    rebuilt = [set() for _ in range(length)]
    tokenizer = processor.tokenizer
    for row, mask, (_, offset, first, end) in zip(
        batch["input_ids"].tolist(), batch["attention_mask"].tolist(), batch["windows"].tolist(), strict=True
    ):
        for column in range(first, end):
            rebuilt[offset + column].add(row[column])
        assert row[0] == tokenizer.cls_token_id and row[sum(mask) - 1] == tokenizer.sep_token_id
    assert rebuilt == [{token} for token in feature["input_ids"]]


def test_truncation_is_asked_for_counted_and_logged(processor, caplog):
    document = random_document(8, 60, mentions=2, seed=2)
    whole, cut = processor.encode([document])[0], processor.encode([document], max_length=20)[0]
    assert len(cut["input_ids"]) == 20 and cut["input_ids"][:19] == whole["input_ids"][:19]
    assert cut["input_ids"][-1] == processor.tokenizer.sep_token_id
    kept = [position if position < 19 else -1 for position in whole["mention_positions"]]
    assert cut["mention_positions"] == kept and cut["mention_entities"] == whole["mention_entities"]
    entities_left = {entity for entity, position in zip(cut["mention_entities"], kept, strict=True) if position >= 0}
    assert cut["lost_tokens"] == len(whole["input_ids"]) - 20 > 0
    assert cut["lost_mentions"] == kept.count(-1) > 0
    assert cut["lost_entities"] == 8 - len(entities_left) > 0
    assert processor(document, max_length=20)["pair_index"].shape == (56, 3)  # no pair goes missing
    message = caplog.messages[-1]
    assert f"'lost_mentions': {cut['lost_mentions']}" in message and f"'lost_tokens': {cut['lost_tokens']}" in message
    caplog.clear()
    processor(random_document(3, 10))
    assert not caplog.messages
    for wrong in (2, 0, -5, 20.0, "20"):
        with pytest.raises(ValueError, match="max_length"):
            processor(document, max_length=wrong)


def test_encoding_report(processor):
    documents = [random_document(5, 60, seed=seed) for seed in range(3)]
    features = processor.encode(documents, max_length=30)
    report = encoding_report(features)
    assert report["documents"] == 3 and report["tokens"] == 90 and report["entities"] == 15
    assert report["mentions"] == sum(len(cluster) for document in documents for cluster in document["vertexSet"])
    assert report["lost_tokens"] == sum(len(feature["input_ids"]) for feature in processor.encode(documents)) - 90


def test_encoding_report_keeps_no_document(processor):
    """A data set need not fit into memory."""
    (feature,) = processor.encode([random_document(5, 60)])
    alive = []

    class Row(dict):
        pass

    def rows():
        for _ in range(5):
            row = Row(feature)
            alive.append(weakref.ref(row))
            yield row
            del row
            assert sum(one() is not None for one in alive) <= 1

    assert encoding_report(rows()) == encoding_report([feature] * 5)


def test_encoding_report_reads_no_column_in_vain(processor):
    datasets = pytest.importorskip("datasets", reason="needs datasets, which the extra `training` brings")
    features = processor.encode([random_document(5, 60, seed=seed) for seed in range(3)])
    asked = []

    class Rows(list):
        def select_columns(self, names):
            asked.extend(names)
            return datasets.Dataset.from_list(self).select_columns(names)

    assert encoding_report(Rows(features)) == encoding_report(features)
    assert asked and not {"pairs", "facts", "evidence", "sentence_starts", "mention_entities"}.intersection(asked)


def test_unknown_subword_tokens_are_counted(caplog):
    processor, level = tiny_processor(), tiny_processor(tokenizer=byte_level_tokenizer())
    document = {"title": "Greek", "sents": [["Η", "Αθήνα", "near", "Oslo", "."]], "vertexSet": []}
    (feature,) = processor.encode([document])
    assert feature["unknown_tokens"] == 2 and encoding_report([feature])["unknown_tokens"] == 2
    processor([document])
    assert "'unknown_tokens': 2" in caplog.text
    assert level.encode([document])[0]["unknown_tokens"] == 0  # its tokens are bytes


def test_pairs_without_common_context(processor, caplog):
    """Entities of a long document that share no window have no token that both attend to."""
    document = random_document(0, 300, seed=0, labels=False)
    document["vertexSet"] = [[mention(document, sent_id, 2, 3)] for sent_id in (0, 1, 8, 29)]
    document["vertexSet"].append([mention(document, sent_id, 5, 6) for sent_id in (0, 29)])
    feature = processor.encode([document])[0]
    spans = processor.window_spans(len(feature["input_ids"]))
    reach = []
    for entity in range(5):
        rows = [
            p for p, e in zip(feature["mention_positions"], feature["mention_entities"], strict=True) if e == entity
        ]
        reach.append({x for start, end in spans for row in rows if start <= row < end for x in range(start, end)})
    apart = {(h, t) for h in range(5) for t in range(5) if h != t and not reach[h] & reach[t]}
    assert (0, 3) in apart and (0, 1) not in apart and (0, 4) not in apart
    assert feature["pairs_without_context"] == len(apart)
    batch = processor(document)
    assert f"'pairs_without_context': {len(apart)}" in caplog.messages[-1]
    model = tiny_model()
    seen = []
    model.relation_encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        logits = model(**batch).logits
    contexts = zip(batch["pair_index"][:, 1:].tolist(), seen[0].pair_contexts(batch["pair_index"]), strict=True)
    zero = {tuple(pair) for pair, context in contexts if not context.any()}
    assert zero == apart and torch.isfinite(logits).all()


def test_short_documents_have_context_everywhere(processor):
    assert processor.encode([random_document(20, 15, seed=1)])[0]["pairs_without_context"] == 0


# --- outputs to triples


def naive_triples(logits, pair_index, documents, threshold="th", cap=None, offset=0.0):
    expected = [[] for _ in documents]
    for row, (document, head, tail) in zip(logits.tolist(), pair_index.tolist(), strict=True):
        limit = row[0] if threshold == "th" else 0.0
        scored = sorted(((logit - limit, column) for column, logit in enumerate(row) if column), reverse=True)
        for margin, column in scored[:cap]:
            if margin > offset:
                expected[document].append((head, tail, LABELS[column], margin))
    return expected


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        *(("window_size", 16, "with_settings"), ("markers", "none", "with_settings")),
        *(("word_leading_space", False, "with_settings"), ("threshold_offset", 1.0, r"decision\.threshold_offset = ")),
    ],
)
def test_settings_of_a_finished_processor_cannot_be_set(name, value, expected):
    """What was checked and read with them would not follow: a window that brings no new token never ended."""
    processor = tiny_processor()
    for one in (processor, copy.deepcopy(processor), pickle.loads(pickle.dumps(processor))):
        with pytest.raises(
            AttributeError, match=f"CommProcessor: {name} cannot be set; expected processor.{expected}"
        ):
            setattr(one, name, value)
        assert one.settings == processor.settings
    assert processor.with_settings(**{name: value}).settings[name] == value


@pytest.mark.parametrize("threshold", ["th", "zero"])
@pytest.mark.parametrize("cap", [None, 1, 2])
@pytest.mark.parametrize("offset", [0.0, 0.7])
def test_triples_equal_a_plain_loop(threshold, cap, offset):
    processor = tiny_processor(decision_threshold=threshold, max_relations_per_pair=cap)
    processor.relation_names = {"P17": "country"}
    documents = [random_document(n, seed=n) for n in (5, 0, 1, 4)]
    pair_index = processor(documents)["pair_index"]
    generator = torch.Generator().manual_seed(1)
    order = torch.randperm(len(pair_index), generator=generator)  # the order of pairs does not matter
    outputs = CommOutput(
        logits=torch.randn(len(order), len(LABELS), generator=generator), pair_index=pair_index[order]
    )
    before = outputs.logits.clone()
    found = processor.post_process_relation_extraction(outputs, documents, threshold_offset=offset)
    processor.decision.threshold_offset = offset
    assert processor.post_process_relation_extraction(outputs, documents) == found, "its own is the default"
    expected = naive_triples(outputs.logits, outputs.pair_index, documents, threshold, cap, offset)
    assert sum(map(len, expected)) > 5
    for document, triples, wanted in zip(documents, found, expected, strict=True):
        plain = [(x["head"], x["tail"], x["relation"]) for x in triples]
        assert plain == [x[:3] for x in sorted(wanted, key=lambda x: (x[0], x[1], -x[3]))]
        scores = {(h, t, r): 1 / (1 + np.exp(-margin)) for h, t, r, margin in wanted}
        assert {k: x["score"] for k, x in zip(plain, triples, strict=True)} == pytest.approx(scores, abs=1e-6)
        for triple in triples:
            assert triple["head_name"] == document["vertexSet"][triple["head"]][0]["name"]
            assert triple["tail_name"] == document["vertexSet"][triple["tail"]][0]["name"]
            assert triple["relation_name"] == ("country" if triple["relation"] == "P17" else triple["relation"])
    assert torch.equal(outputs.logits, before)


def test_facts_come_back(processor):
    """Documents to labels to logits to triples: nothing moves on the way."""
    documents = [random_document(n, 70, seed=n) for n in (6, 2, 9)]
    batch = processor(documents)
    outputs = CommOutput(logits=batch["labels"] * 4 - 2, pair_index=batch["pair_index"])
    outputs.logits[:, 0] = 0
    found = processor.post_process_relation_extraction(outputs, documents)
    for document, triples in zip(documents, found, strict=True):
        facts = {(fact["h"], fact["t"], fact["r"]) for fact in document["labels"]}
        assert {(x["head"], x["tail"], x["relation"]) for x in triples} == facts and len(triples) == len(facts)


def test_outputs_of_other_documents_are_refused(processor, caplog):
    documents = [random_document(n, seed=n) for n in (3, 4)]
    pair_index = processor(documents)["pair_index"]
    logits = torch.zeros(len(pair_index), len(LABELS))

    def post_process(documents, logits=logits, pair_index=pair_index):
        outputs = CommOutput(logits=logits, pair_index=pair_index)
        return processor.post_process_relation_extraction(outputs, documents)

    assert post_process(documents) == [[], []]
    assert post_process([*documents, random_document(2)]) == [[], [], []]
    assert "18 of the 20 pairs" in caplog.text
    for wrong in (documents[:1], documents[::-1], [], documents[0]):
        with pytest.raises(ValueError, match="18 pairs"):
            post_process(wrong)
    with pytest.raises(ValueError, match="18 pairs"):
        post_process(documents, pair_index=torch.cat([pair_index[:17], pair_index[:1]]))
    for wrong in (logits[:-1], logits[:, :-1], torch.zeros(18, len(LABELS) + 1)):
        with pytest.raises(ValueError, match="logits"):
            post_process(documents, logits=wrong)
    for wrong in (float("nan"), float("inf")):
        broken = logits.clone()
        broken[7, 2] = wrong
        with pytest.raises(ValueError, match=re.escape(repr(documents[1]["title"]))):
            post_process(documents, logits=broken)


# --- wrong input


def test_wrong_documents_are_named(processor):
    good, bad = random_document(2, seed=1), random_document(2, seed=2, title="Bad one")
    bad["vertexSet"][1][0]["pos"] = [3, 99]
    with pytest.raises(DocumentError) as caught:
        processor([good, bad])
    error = caught.value
    assert (error.index, error.title, error.field) == (1, "Bad one", "vertexSet[1][0].pos")
    assert error.found.startswith("[3, 99]")
    for relation in ("P6", "Na"):
        with pytest.raises(DocumentError) as caught:
            processor({**good, "labels": [{"h": 0, "t": 1, "r": relation}]})
        assert (caught.value.field, caught.value.found) == ("labels[0].r", repr(relation))
    with pytest.raises(DocumentError) as caught:
        processor(["Oslo is a town"])
    assert (caught.value.field, caught.value.found) == (None, "'Oslo is a town'")


def test_wrong_arguments_are_named(processor):
    document = random_document(2)
    with pytest.raises(ValueError, match="return_tensors"):
        processor(document, return_tensors="np")
    with pytest.raises(ValueError, match="'truncation'"):
        processor(document, truncation=True)
    with pytest.raises(TypeError, match="widow_size"):
        tiny_processor(widow_size=64)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("markers", "stars"),
        ("marker_types", ["PER"]),  # of markers that tell no types apart
        ("window_stride", 30),
        ("window_stride", -1),
        ("window_size", 4),
        ("window_end_tokens", 0),
        ("window_end_tokens", 3),
        ("word_leading_space", "yes"),
        ("decision_threshold", "half"),
        ("max_relations_per_pair", -1),
        ("id2label", {1: "P17"}),
        ("relation_names", {"P9": "x"}),
        ("relation_names", ["country"]),
    ],
)
def test_wrong_settings_are_named(field, value):
    with pytest.raises(SettingError) as error:
        tiny_processor(**{field: value})
    assert error.value.field == field


def test_unsuitable_tokenizers():
    with pytest.raises(ValueError, match="padding"):
        tiny_processor(tokenizer=word_piece_tokenizer(pad=None))
    with pytest.raises(ValueError, match="markers='star'"):
        tiny_processor(tokenizer=word_piece_tokenizer(star=False))
    assert tiny_processor(tokenizer=word_piece_tokenizer(star=False), markers="none").markers == "none"
    with pytest.raises(ValueError, match="unused61"):
        tiny_processor(tokenizer=word_piece_tokenizer(unused=60), markers="entity_type")
    with pytest.raises(ValueError, match="unused1"):
        tiny_processor(tokenizer=byte_level_tokenizer(), markers="entity_type")
    bare = word_piece_tokenizer().backend_tokenizer
    bare.post_processor = None
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bare, pad_token="[PAD]", unk_token="[UNK]")
    with pytest.raises(ValueError, match="special tokens"):
        tiny_processor(tokenizer=tokenizer)


# --- saving, loading, and the model's configuration


@pytest.mark.parametrize("kind", ["wordpiece", "byte level"])
def test_save_and_load(kind, tmp_path):
    tokenizer = word_piece_tokenizer() if kind == "wordpiece" else byte_level_tokenizer()
    settings = {
        "relation_names": {"P17": "country"},
        "markers": "star",
        "window_size": 40,
        "window_stride": 5,
        "window_end_tokens": 2,
        "word_leading_space": False,
        "decision_threshold": "zero",
        "threshold_offset": -0.5,
        "max_relations_per_pair": 3,
    }
    processor = CommProcessor(tokenizer, id2label=LABELS, **settings)
    processor.save_pretrained(tmp_path)
    tiny_config().save_pretrained(tmp_path)
    documents = [random_document(n, 80, seed=n) for n in (3, 5)]
    expected = processor(documents)
    for loaded in (CommProcessor.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)):
        assert type(loaded) is CommProcessor
        assert loaded.id2label == LABELS and settings.items() <= loaded.to_dict().items()
        assert loaded.decision == processor.decision == DecisionSettings("zero", -0.5, 3)
        batch = loaded(documents)
        assert set(batch) == set(expected) and all(torch.equal(batch[key], expected[key]) for key in expected)
    written = json.loads((tmp_path / "processor_config.json").read_text())
    assert settings.items() <= written.items() and "decision" not in written
    assert not [key for key in written if key.startswith("_")]
    assert str(tmp_path) not in (tmp_path / "processor_config.json").read_text()


def test_from_backbone(tmp_path):
    word_piece_tokenizer().save_pretrained(tmp_path)
    config = tiny_config(loss="balanced_softmax")
    processor = CommProcessor.from_backbone(
        str(tmp_path), config, relation_names={"P27": "citizen of"}, max_relations_per_pair=2, markers=None
    )
    assert processor.decision == DecisionSettings("zero", 0.0, 2)
    assert (processor.relation_names, processor.markers, processor.id2label) == ({"P27": "citizen of"}, "star", LABELS)
    assert (processor.window_size, processor.window_stride) == (66, 16)


@pytest.mark.parametrize("loss", available_losses())
def test_decision_threshold_follows_the_loss(loss):
    expected = "zero" if loss == "balanced_softmax" else "th"
    assert tiny_processor(tiny_config(loss=loss)).decision.decision_threshold == expected
    for given in ("th", "zero"):
        assert tiny_processor(tiny_config(loss=loss), decision_threshold=given).decision.decision_threshold == given


def test_windows_follow_the_backbone():
    tokenizer = word_piece_tokenizer()
    for positions, size, stride in ((40, 40, 10), (512, 512, 128), (4096, 512, 128)):
        config = tiny_config(text_fields={"max_position_embeddings": positions})
        processor = CommProcessor.from_config(tokenizer, config)
        assert (processor.window_size, processor.window_stride) == (size, stride)
    assert CommProcessor.from_config(tokenizer, config, window_size=2000).window_stride == 500
    with pytest.raises(ValueError, match="window_size"):
        CommProcessor.from_config(tokenizer, tiny_config(), window_size=67)


def test_model_and_processor_have_to_fit():
    processor = tiny_processor()
    processor.check_model(tiny_config(loss="cmm"))
    with pytest.raises(ValueError, match="id2label"):
        processor.check_model(tiny_config(id2label={0: "Na", 1: "P17"}))
    with pytest.raises(ValueError, match="window_size"):
        processor.check_model(tiny_config(text_fields={"max_position_embeddings": 31}))


def test_other_settings_leave_the_rest_as_it_is():
    processor = tiny_processor(max_relations_per_pair=2, relation_names={"P17": "country"})
    other = processor.with_settings(threshold_offset=0.5, markers="none")
    assert other.settings == processor.settings | {"threshold_offset": 0.5, "markers": "none"}
    assert other.tokenizer is processor.tokenizer and other.id2label == processor.id2label
    assert processor.decision.threshold_offset == 0 and processor.markers == "star"


def test_many_words_of_every_script(processor):
    """Random words, real punctuation, every script of the word list: pieces of the whole are pieces of the words."""
    draw = random.Random(0)
    words = ["".join(draw.choice(WORDS) for _ in range(draw.randint(1, 3))) for _ in range(200)]
    feature = processor.encode([{"title": "T", "sents": [words], "vertexSet": []}])[0]
    expected = [piece for word in words for piece in processor.tokenizer(word, add_special_tokens=False)["input_ids"]]
    assert feature["input_ids"][1:-1] == expected
