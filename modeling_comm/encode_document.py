"""Encoding of one document: its subword tokens, its mentions among them, and the pairs to ask about with their facts."""

from collections.abc import Callable, Mapping
from typing import Any

from .candidate_pairs import CandidatePairs, entity_types
from .documents import Document
from .features import DocumentFeatures, pairs_of
from .subword_tokens import TokenizerTraits, marker_ids
from .windows import count_pairs_without_context


def encode_document(
    pieces: Mapping[str, list[int]],
    traits: TokenizerTraits,
    window_spans: Callable[[int], list[tuple[int, int]]],
    label2id: Mapping[str, int],
    candidates: CandidatePairs,
    document: Document,
    max_length: int | None = None,
) -> DocumentFeatures:
    """
    Encodes a valid document.

    Args:
        pieces (`Mapping[str, list[int]]`): of [`~subword_tokens.tokenize_words`], with all of its words.
        traits (`TokenizerTraits`): of the tokenizer.
        window_spans (`Callable`): gives the windows of a document by its number of subword tokens.
        label2id (`Mapping[str, int]`): the model's labels.
        candidates (`CandidatePairs`): the pairs that the model is asked about.
        document (`Document`): in DocRED's format.
        max_length (`int`, *optional*): truncate it to this many subword tokens.
    """
    opening, closing = marker_ids(document, traits.markers)
    tokens = [traits.start_id]
    first_piece = []  # of each sentence's words, its opening marker included
    for sent_id, sentence in enumerate(document["sents"]):
        positions = []
        for word_id, word in enumerate(sentence):
            positions.append(len(tokens))
            tokens += opening.get((sent_id, word_id), [])
            tokens += pieces[word]
            tokens += closing.get((sent_id, word_id), [])
        first_piece.append([*positions, len(tokens)])
    full_length = len(tokens) + 1
    if max_length is not None and full_length > max_length:
        tokens = tokens[: max_length - 1]
    end = len(tokens)
    tokens.append(traits.end_id)
    spans = window_spans(len(tokens))
    mention_positions, mention_entities = [], []
    for entity, mentions in enumerate(document["vertexSet"]):
        for mention in mentions:
            start, stop = (first_piece[mention["sent_id"]][position] for position in mention["pos"])
            mention_positions.append(start if start < min(stop, end) else -1)
            mention_entities.append(entity)
    found = {e for e, position in zip(mention_entities, mention_positions, strict=True) if position >= 0}
    features: Any = {
        "input_ids": tokens,
        "mention_positions": mention_positions,
        "mention_entities": mention_entities,
        "sentence_starts": [positions[0] for positions in first_piece],
        "num_entities": len(document["vertexSet"]),
        **_pairs_and_facts(document, label2id, candidates),
        "has_labels": document.get("labels") is not None,
        "windows": len(spans),
        "lost_tokens": full_length - len(tokens),
        "lost_mentions": sum(position < 0 for position in mention_positions),
        "lost_entities": len(document["vertexSet"]) - len(found),
        # A byte-level tokenizer reads every text: it has no such token, or never gives it.
        "unknown_tokens": tokens[1:-1].count(traits.unknown_id),
    }
    together = (spans, mention_positions, mention_entities, pairs_of(features))
    return features | {"pairs_without_context": count_pairs_without_context(*together)}


def _pairs_and_facts(document, label2id, candidates):
    entities = len(document["vertexSet"])
    matrix, pairs = candidates.matrix(entity_types(document)), candidates.pairs(document)
    facts: dict[tuple[int, int, int], set[int]] = {}  # a fact that is labelled twice, or both ways, is one
    unknown, unasked = set(), set()
    for (head, tail, relation), label in candidates.labels(document):
        if relation not in label2id:
            unknown.add((head, tail, relation))
        elif matrix[head, tail]:
            facts.setdefault((head, tail, label2id[relation]), set()).update(label.get("evidence") or ())
        else:
            unasked.add((head, tail, relation))
    return {
        "pairs": None if len(pairs) == entities * (entities - 1) else pairs.tolist(),
        "turned_pairs": candidates.turned(document).tolist(),
        "facts": list(map(list, facts)),
        "evidence": list(map(sorted, facts.values())),
        "unknown_facts": len(unknown),
        "unasked_facts": len(unasked),
    }
