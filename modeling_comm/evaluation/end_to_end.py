"""Scores of a whole system on raw text, where it finds mentions, entities and relations by itself, and what each stage loses."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..candidate_pairs import ALL_PAIRS, CandidatePairs, ignored_pairs
from ..documents import Document
from ..mentions import is_amount, normalize_name, normalize_name_of_any_type
from ..prediction_record import PredictionRecord
from ..settings import SettingError
from ..text_to_document import text_from_document
from .rates import f1_of, rates

# The stages that lose facts, in their order.
STAGES = ("mentions", "grouping", "model")
_DUPLICATES = ("gold_entities", "predicted_entities", "gold_facts", "predicted_facts")


class _Entity(NamedTuple):
    """Where an entity is mentioned, as character spans, and its normalised names: as its type has them, and as any type has."""

    spans: frozenset[tuple[int, int]]
    is_amount: bool
    names: frozenset[str]
    untyped_names: frozenset[str]

    def shares_name(self, other):
        # Dates and numbers keep articles and punctuation, which others do not. The types of the two sides may differ.
        if self.is_amount == other.is_amount:
            return not self.names.isdisjoint(other.names)
        return not self.untyped_names.isdisjoint(other.untyped_names)


class _Text(NamedTuple):
    """The entities of a text and facts between them, `(head, tail, relation)`, of which no two say the same by the mentions of
    their entities; and how many do."""

    entities: list[_Entity]
    facts: list[tuple[int, int, str]]
    duplicate_facts: int


def end_to_end_scores(
    records: Sequence[PredictionRecord], documents: Sequence[Document], candidates: CandidatePairs = ALL_PAIRS
) -> dict[str, Any]:
    """
    Scores predictions whose entities are not the annotated ones.

    - **Mentions**: right is a mention with the same characters; types are not compared.
    - **Entities** (coreference): right is an entity with exactly the same mentions.
    - **Relations, strict**: right is a triple whose relation is, and whose head and tail are right entities.
    - **Relations, by name**: right is a triple whose relation is, and whose head and tail share a name with those of the fact, as
      [`~modeling_comm.mentions.normalize_name`] compares them. Where one is a date or a number and the other is not,
      [`~modeling_comm.mentions.normalize_name_of_any_type`] does.

    Entities with the same mentions are one, and so are facts between them. The `duplicates` say how many are left out so.

    Labels of a document's `ignored_pairs` do not count, nor do triples whose entities are those of such a pair, by the same rule.

    Args:
        records (`list[PredictionRecord]`): what the pipeline returned for the texts of the documents, in their order.
        documents (`list[Document]`): labelled documents in DocRED's format, with different titles. Their texts are those of
            [`~modeling_comm.text_to_document.text_from_document`].
        candidates (`CandidatePairs`, *optional*): the model's, which say what facts are the same. Those of a symmetric relation
            are compared without regard to their direction.

    Returns:
        `dict`: `mentions`, `entities`, `relations_strict` and `relations_by_name` with `precision`, `recall`, `f1` (fractions
        of 1), `gold`, `predictions` and `correct`; `facts`, how many of the annotated facts each stage loses under the strict
        rule: `mentions`, where a mention of head or tail is not found; `grouping`, where all are, and do not form the two
        entities; `model`, where they do, and the relation is not predicted; and `found`; and `duplicates`, numbers of
        `gold_entities`, `predicted_entities`, `gold_facts` and `predicted_facts` that have the same mentions as another one.

    Raises:
        SettingError: there are more or fewer records than documents, or a record is of another text.
    """
    if len(records) != len(documents):
        expected = f"as many as documents ({len(documents)})"
        raise SettingError("end_to_end_scores", "records", len(records), expected)
    counts: dict[str, Counter] = {name: Counter() for name in ("mentions", "entities", "relations_strict")}
    by_name, lost, duplicates = Counter(), Counter(), Counter()
    for record, document in zip(records, documents, strict=True):
        gold, found = _gold(document, record, candidates), _predicted(record, candidates)
        ignored = ignored_pairs(document)
        mentions = [{span for entity in text.entities for span in entity.spans} for text in (gold, found)]
        entities = [{entity.spans for entity in text.entities} for text in (gold, found)]
        for side, text, distinct in zip(("gold", "predicted"), (gold, found), entities, strict=True):
            duplicates[f"{side}_entities"] += len(text.entities) - len(distinct)
            duplicates[f"{side}_facts"] += text.duplicate_facts
        strict = [{_strict(text, fact, candidates) for fact in text.facts} for text in (gold, found)]
        strict[1] -= {
            _strict(gold, (*pair, relation), candidates) for pair in ignored for relation in _relations(found)
        } - strict[0]
        for name, (right, predicted) in zip(counts, (mentions, entities, strict), strict=True):
            counts[name].update(gold=len(right), predictions=len(predicted), correct=len(right & predicted))
        for fact in gold.facts:
            lost[_losing_stage(gold, fact, mentions[1], entities[1], strict[1], candidates)] += 1
        by_name.update(_by_name(gold, found, ignored, candidates))
    result: dict[str, Any] = {
        name: rates(number["correct"], number["predictions"], number["gold"]) for name, number in counts.items()
    }
    # A fact may be predicted of two entities with one name: precision counts triples, recall facts.
    precision = rates(by_name["right_triples"], by_name["triples"], 0)["precision"]
    recall = rates(by_name["found_facts"], 0, by_name["facts"])["recall"]
    numbers = {"gold": by_name["facts"], "predictions": by_name["triples"], "correct": by_name["found_facts"]}
    result["relations_by_name"] = {
        "precision": precision,
        "recall": recall,
        "f1": f1_of(precision, recall),
        **numbers,
    }
    result["facts"] = {stage: lost[stage] for stage in (*STAGES, "found")}
    result["duplicates"] = {name: duplicates[name] for name in _DUPLICATES}
    return result


def _gold(document, record, candidates):
    text = text_from_document(document)
    if text.text != record["text"]:
        raise SettingError("end_to_end_scores", "records", record["title"], f"the text of {text.title!r} in its place")
    return _text(_entities(text.text, text.entities), {fact for fact, _ in candidates.labels(document)}, candidates)


def _predicted(record, candidates):
    facts = {candidates.turn(triple["head"], triple["tail"], triple["relation"]) for triple in record["triples"]}
    return _text(_entities(record["text"], record["entities"]), facts, candidates)


def _text(entities, facts, candidates):
    text = _Text(entities, sorted(facts), 0)
    distinct = {_strict(text, fact, candidates): fact for fact in text.facts}
    return text._replace(facts=list(distinct.values()), duplicate_facts=len(facts) - len(distinct))


def _entities(text, entities):
    found = []
    for entity in entities:
        spans = frozenset((mention["start"], mention["end"]) for mention in entity["mentions"])
        names = {text[start:end] for start, end in spans}
        typed = frozenset(normalize_name(name, entity["type"]) for name in names)
        untyped = frozenset(map(normalize_name_of_any_type, names))
        found.append(_Entity(spans, is_amount(entity["type"]), typed, untyped))
    return found


def _relations(text):
    return {relation for _, _, relation in text.facts}


def _strict(text, fact, candidates):
    """What a fact says by the spans of its entities. The indices, which order those of a symmetric one, differ between texts."""
    head, tail, relation = fact
    pair = text.entities[head].spans, text.entities[tail].spans
    return (frozenset(pair) if candidates.is_symmetric(relation) else pair), relation


def _losing_stage(gold, fact, mentions, entities, facts, candidates):
    pair = [gold.entities[fact[0]].spans, gold.entities[fact[1]].spans]
    if not all(spans <= mentions for spans in pair):
        return "mentions"
    if not all(spans in entities for spans in pair):
        return "grouping"
    return "found" if _strict(gold, fact, candidates) in facts else "model"


def _by_name(gold, found, ignored, candidates):
    def share_names(pair, other):
        return all(gold.entities[one].shares_name(found.entities[two]) for one, two in zip(pair, other, strict=True))

    def match(pair, triple):
        *ends, relation = triple
        return share_names(pair, ends) or (candidates.is_symmetric(relation) and share_names(pair, ends[::-1]))

    pairs = [
        ((*pair, relation), triple)
        for *pair, relation in gold.facts
        for triple in found.facts
        if relation == triple[2] and match(pair, triple)
    ]
    right = {triple for _, triple in pairs}
    others = (triple for triple in found.facts if triple not in right)
    wrong = [triple for triple in others if not any(match(pair, triple) for pair in ignored)]
    return {
        "facts": len(gold.facts),
        "triples": len(right) + len(wrong),
        "found_facts": len({fact for fact, _ in pairs}),
        "right_triples": len(right),
    }


def raw_text(document: Document) -> dict[str, str]:
    """The text of a document without its entities, as the pipeline takes it: tokens, and sentences, joined by single spaces."""
    text = text_from_document(document)
    return {"title": text.title, "text": text.text}


def text_with_mentions(document: Document) -> dict[str, Any]:
    """The text of a document with its mentions, each once, and without its entities, as the pipeline takes it."""
    text = text_from_document(document)
    spans = {(m["start"], m["end"]): entity["type"] for entity in text.entities for m in entity["mentions"]}
    mentions = [
        {"start": start, "end": end, "type": kind, "text": text.text[start:end]}
        for (start, end), kind in spans.items()
    ]
    return {"title": text.title, "text": text.text, "mentions": sorted(mentions, key=lambda m: (m["start"], m["end"]))}


def format_end_to_end(results: Mapping[str, Mapping[str, Any]]) -> str:
    """
    A table of the F1 of each level.

    Args:
        results (`dict[str, dict]`): what [`end_to_end_scores`] returned, by the name of what was given.
    """
    columns = ("mentions", "entities", "relations_strict", "relations_by_name")
    lines = [_row("F1 in %, given", ("mentions", "entities", "relations", "by name"))]
    lines += [_row(given, (f"{100 * found[name]['f1']:.1f}" for name in columns)) for given, found in results.items()]
    for given, found in results.items():
        facts = found["facts"]
        parts = ", ".join(f"{stage} {facts[stage]:,}" for stage in STAGES if facts[stage])
        lines.append(
            f"{given}: of {sum(facts.values()):,} facts {facts['found']:,} are found; lost by {parts or 'none'}"
        )
        duplicates = found.get("duplicates", {}).items()  # which earlier results lack
        if merged := ", ".join(f"{name.replace('_', ' ')} {number:,}" for name, number in duplicates if number):
            lines.append(f"{given}: left out, with the same mentions as another one: {merged}")
    return "\n".join(lines)


def _row(name: str, cells: Iterable[str]) -> str:
    return f"{name:18}" + "".join(f"{cell:>11}" for cell in cells)
