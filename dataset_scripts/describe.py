"""Descriptions of data sets: their counts, and the losses that a tokenizer will cause."""

from collections import Counter
from collections.abc import Iterable, Mapping

from modeling_comm.candidate_pairs import ALL_PAIRS, CandidatePairs
from modeling_comm.documents import Document


def describe_documents(documents: Iterable[Document], candidates: CandidatePairs = ALL_PAIRS) -> dict:
    """
    Counts what is in documents in one pass, so a stream will do.

    Args:
        documents (`Iterable[dict]`): valid documents in DocRED's format, labelled or not.
        candidates (`CandidatePairs`, *optional*): the pairs that the data set asks about, and which of its facts are the same; by
            default all ordered pairs of different entities.

    Returns:
        `dict` of numbers. `documents`, `labelled_documents`, `sentences`, `tokens`, `entities`, `mentions`,
        `entities_per_document` (mean), `max_entities`, `pairs` (those that are asked about, by default n (n - 1) in a
        document), `ignored_pairs`.
        From labelled documents only, shares as fractions of 1, or `None` where there is nothing to share:
        `labelled_pairs`, `positive_pairs` and `positive_share`; `triples` (distinct), `duplicate_triples` (labels that
        repeat one), `relations` (`{relation: {"count", "share"}}`, the most frequent first), `most_frequent_share`,
        `unasked_triples` (of other pairs than these), `max_triples_per_pair`, `intra_share` (some mentions of head and tail
        share a sentence), `triples_without_evidence`.
    """
    counts: Counter[str] = Counter()
    relations: Counter[str] = Counter()
    max_entities = max_triples = 0
    for document in documents:
        entities, labels = document["vertexSet"], document.get("labels")
        asked = candidates.asked(document)
        pairs = int(asked.sum())
        max_entities = max(max_entities, len(entities))
        counts.update(
            documents=1,
            sentences=len(document["sents"]),
            tokens=sum(map(len, document["sents"])),
            entities=len(entities),
            mentions=sum(map(len, entities)),
            pairs=pairs,
            ignored_pairs=len(document.get("ignored_pairs") or ()),
        )
        if labels is None:
            continue
        # By fact: the labels that repeat a fact count once, with all their evidence.
        has_evidence: dict[tuple[int, int, str], bool] = {}
        repeated = -1
        for repeated, (fact, label) in enumerate(candidates.labels(document)):  # noqa: B007
            has_evidence[fact] = has_evidence.get(fact, False) or bool(label.get("evidence"))
        per_pair = Counter((head, tail) for head, tail, _ in has_evidence)
        max_triples = max(max_triples, *per_pair.values(), 0)
        relations.update(relation for _, _, relation in has_evidence)
        sentences = [{mention["sent_id"] for mention in mentions} for mentions in entities]
        counts.update(
            labelled_documents=1,
            labelled_pairs=pairs,
            positive_pairs=sum(bool(asked[pair]) for pair in per_pair),
            unasked_triples=sum(not asked[fact[:2]] for fact in has_evidence),
            triples=len(has_evidence),
            duplicate_triples=repeated + 1 - len(has_evidence),
            intra=sum(not sentences[head].isdisjoint(sentences[tail]) for head, tail, _ in has_evidence),
            triples_without_evidence=sum(not evidence for evidence in has_evidence.values()),
        )
    totals = (
        *("documents", "labelled_documents", "sentences", "tokens", "entities", "mentions", "pairs", "labelled_pairs"),
        *(
            "positive_pairs",
            "triples",
            "duplicate_triples",
            "triples_without_evidence",
            "ignored_pairs",
            "unasked_triples",
        ),
    )
    frequencies = {
        relation: {"count": count, "share": count / counts["triples"]}
        for relation, count in sorted(relations.items(), key=lambda item: (-item[1], item[0]))
    }
    return {
        **{name: counts[name] for name in totals},
        "entities_per_document": _share(counts["entities"], counts["documents"]),
        "max_entities": max_entities,
        "positive_share": _share(counts["positive_pairs"], counts["labelled_pairs"]),
        "relations": frequencies,
        "most_frequent_share": next((found["share"] for found in frequencies.values()), None),
        "max_triples_per_pair": max_triples,
        "intra_share": _share(counts["intra"], counts["triples"]),
    }


def _share(part, whole):
    return part / whole if whole else None


def _percent(share):
    return "-" if share is None else f"{share:.2%}".replace("%", " %")


def _number(value):
    return f"{value:,}"


def _of(part, whole):
    return f"{part:,} ({_percent(_share(part, whole))})"


def _count(stats, name):
    return _number(stats[name])


def _as_percent(stats, name):
    return _percent(stats[name])


def _mean(stats, name):
    return f"{stats[name] or 0:.1f}"


def _of_triples(stats, name):
    return _of(stats[name], stats["triples"])


def _different(stats, name):
    return _number(len(stats[name]))


def _most_frequent(stats, name):
    relation = next(iter(stats["relations"]), None)
    return "-" if relation is None else f"{relation} {_percent(stats[name])}"


# A row's name, the statistic that it shows, and how.
_ROWS = (
    ("documents", "documents", _count),
    ("  with labels", "labelled_documents", _count),
    ("sentences", "sentences", _count),
    ("tokens", "tokens", _count),
    ("entities", "entities", _count),
    ("  per document, mean", "entities_per_document", _mean),
    ("  per document, most", "max_entities", _count),
    ("mentions", "mentions", _count),
    ("entity pairs", "pairs", _count),
    ("  with labels known", "labelled_pairs", _count),
    ("  ignored beside them", "ignored_pairs", _count),
    ("  positive", "positive_pairs", _count),
    ("  share of positive", "positive_share", _as_percent),
    ("triples", "triples", _count),
    ("  repeated in the file", "duplicate_triples", _count),
    ("  on one pair, most", "max_triples_per_pair", _count),
    ("  within one sentence", "intra_share", _as_percent),
    ("  without evidence", "triples_without_evidence", _of_triples),
    ("  on pairs not asked about", "unasked_triples", _of_triples),
    ("relations", "relations", _different),
    ("  most frequent", "most_frequent_share", _most_frequent),
)
# Rows that are left out where they show nothing: few data sets have any of it.
_RARE = ("ignored_pairs", "unasked_triples")
# A row's name, the count, and the count that it is a share of.
_ENCODING_ROWS = (
    ("subword tokens", "tokens", None),
    ("  truncated", "lost_tokens", None),
    ("windows", "windows", None),
    ("mentions truncated", "lost_mentions", "mentions"),
    ("entities with no mention left", "lost_entities", "entities"),
    ("pairs that share no window", "pairs_without_context", None),
    ("unknown subword tokens", "unknown_tokens", "tokens"),
    ("facts of unknown relations", "unknown_facts", None),
    ("facts of pairs not asked about", "unasked_facts", None),
)


def format_description(
    stats_by_split: dict[str, dict],
    encoding_by_split: dict[str, dict[str, int]] | None = None,
    relation_names: dict[str, str] | None = None,
    published: Mapping[str, str] | None = None,
) -> str:
    """
    An aligned table, one column for each split and, where there are any, one for published figures.

    Args:
        stats_by_split (`dict[str, dict]`): what [`describe_documents`] returned for each split.
        encoding_by_split (`dict[str, dict[str, int]]`, *optional*): what a tokenizer made of each split, counts as
            [`~modeling_comm.features.encoding_report`] gives them: `tokens` (subword tokens), `lost_tokens`,
            `windows`, `mentions`, `lost_mentions`, `entities`, `lost_entities`, `pairs_without_context`,
            `unknown_tokens`, `unknown_facts`. Counts that no split has are left out.
        relation_names (`dict[str, str]`, *optional*): readable names for the list of relation frequencies.
        published (`dict[str, str]`, *optional*): figures that were published, by the name of the statistic, such as
            [`~modeling_comm.data.DatasetEntry`] has them.

    Returns:
        `str`: the table, without a line break at its end.

    Example:

    ```python
    >>> from dataset_scripts.describe import describe_documents, format_description
    >>> document = {"sents": [["Oslo"]], "vertexSet": [[{"sent_id": 0}]]}
    >>> print(format_description({"test": describe_documents([document])}).splitlines()[1])
    documents                   1

    ```
    """
    stats, published = list(stats_by_split.values()), published or {}
    table = [["", *stats_by_split, "published" if published else ""]]
    for name, statistic, show in _ROWS:
        if statistic in _RARE and not any(split[statistic] for split in stats):
            continue
        table.append([name, *(show(split, statistic) for split in stats), published.get(statistic, "")])
    encodings = [(encoding_by_split or {}).get(split, {}) for split in stats_by_split]
    for name, count, whole in _ENCODING_ROWS:
        if any(count in encoding for encoding in encodings):
            table.append([name, *(_encoding_cell(encoding, count, whole) for encoding in encodings), ""])
    table += _relation_rows(stats, relation_names or {})
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join([name.ljust(widths[0]), *map(str.rjust, cells, widths[1:-1]), figure]).rstrip()
        for name, *cells, figure in table
    )


def _relation_rows(stats, names):
    """Triples of every relation, the most frequent in all splits together first."""
    total = Counter()
    for split in stats:
        total.update({relation: found["count"] for relation, found in split["relations"].items()})
    rows = [["triples by relation", *(_number(split["triples"]) for split in stats), ""]] if total else []
    for relation, _ in sorted(total.items(), key=lambda item: (-item[1], item[0])):
        counts = [split["relations"].get(relation, {"count": 0})["count"] for split in stats]
        cells = [_of(count, split["triples"]) for count, split in zip(counts, stats, strict=True)]
        rows.append([f"  {relation} {names.get(relation, '')}".rstrip(), *cells, ""])
    return rows


def _encoding_cell(encoding, count, whole):
    if count not in encoding:
        return "-"
    return _of(encoding[count], encoding[whole]) if whole in encoding else _number(encoding[count])
