"""The scorer, its command, the type prior and the `evaluate` metric: by hand, by brute force, against golden data."""

import copy
import doctest
import gzip
import itertools
import json
import random
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT, SHARED, requires_shared

import comm_docre
import dataset_scripts  # noqa: F401  (registers the data sets)
from modeling_comm import load_metric
from modeling_comm.commands.evaluate import compare_files
from modeling_comm.data import get_dataset
from modeling_comm.documents import DocumentError
from modeling_comm.evaluation import scoring, type_prior
from modeling_comm.evaluation.cutoffs import average_precision, tune_offset, tune_offset_of_groups
from modeling_comm.evaluation.evidence_scores import sentence_rates
from modeling_comm.evaluation.mismatch import mismatch_warnings, translate_relations
from modeling_comm.evaluation.scoring import (
    FactError,
    PredictionError,
    format_scores,
    load_ign_reference,
    score,
)
from modeling_comm.evaluation.type_prior import TypePrior
from modeling_comm.incomplete_labels.decision_report import decision_scores
from modeling_comm.incomplete_labels.rules import compare_labels
from modeling_comm.settings import SettingError
from modeling_comm.utils.files import read_json, write_json


def entity(*mentions, kind="LOC"):
    return [{"name": name, "sent_id": sentence, "type": kind} for name, sentence in mentions]


def label(h, t, r, *evidence):
    return {"h": h, "t": t, "r": r, "evidence": list(evidence)}


def fact(title, h, t, r, **more):
    return {"title": title, "h_idx": h, "t_idx": t, "r": r, **more}


@pytest.fixture
def documents():
    return [
        {
            "title": "A",
            "vertexSet": [
                entity(("Ada", 0), ("Lovelace", 4), kind="PER"),
                entity(("London", 0)),
                entity(("Byron", 10), kind="PER"),
            ],
            "labels": [label(0, 1, "P19", 0), label(0, 2, "P22", 4, 10), label(2, 1, "P27")],
        },
        {
            "title": "B",
            "vertexSet": [entity(("Oslo", 0)), entity(("Norway", 1))],
            "labels": [label(0, 1, "P17", 0, 1)],
        },
    ]


@pytest.fixture
def predictions():
    return [
        fact("A", 0, 1, "P19", evidence=[0, 2]),  # right, intra, long tail; one evidence sentence of two right
        fact("B", 0, 1, "P17"),  # right, distance 1, frequent
        fact("A", 1, 0, "P19"),  # wrong direction, intra
        fact("A", 2, 1, "P17", evidence=[7]),  # wrong relation, distance 10, frequent
        fact("A", 0, 1, "P19", evidence=[0]),  # repeats the first one with other evidence
        fact("Z", 0, 1, "P17", evidence=[0]),  # no such document: not even its evidence counts
        fact("B", 1, 0, "P999"),  # no such relation
    ]


FREQUENT = get_dataset("redocred").frequent_relations


def rates(correct, predicted, gold):
    precision = correct / predicted if predicted else 0.0
    recall = correct / gold if gold else 0.0
    f1 = 2 * precision * recall / (precision + recall) if correct else 0.0
    counts = {"gold": gold, "predictions": predicted, "correct": correct}
    return pytest.approx({"precision": precision, "recall": recall, "f1": f1, **counts})


def test_precision_recall_and_f1_have_one_formula():
    """To the last bit, so that the same counts are the same scores wherever they are shown."""
    for correct, predicted, gold in [(1, 1, 5), (2, 2, 7), (1, 3, 4), (1, 2, 9), (0, 0, 2), (0, 0, 0)]:
        expected = scoring.rates(correct, predicted, gold)
        expected = [expected[name] for name in ("precision", "recall", "f1")]
        found, right = range(predicted), range(predicted - correct, predicted - correct + gold)
        assert list(sentence_rates([(found, right)])) == expected
        cells = [np.isin(np.arange(30), numbers).reshape(15, 2) for numbers in (found, right)]
        ways = [decision_scores(cells[:1], cells[1:])]
        entities = [entity(("Oslo", 0)) for _ in range(30)]
        first, second = ([{"title": "A", "vertexSet": entities, "labels": [label(number, 29, "P17") for number in numbers]}]
                         for numbers in (found, right))  # fmt: skip
        ways.append(compare_labels(first, second))
        assert all([way[name] for name in ("precision", "recall", "f1")] == expected for way in ways)


def test_mentions_are_read_once_however_many_facts_there_are():
    """Two entities of a thousand mentions have a million pairs of them."""
    read, draw = Counter(), random.Random(0)

    class Mentioned(dict):
        def __getitem__(self, name):
            read[name] += 1
            return super().__getitem__(name)

    def of(number):
        places = draw.sample(range(400), 3)
        return [Mentioned(name=f"{number} {place}", sent_id=place) for place in places for _ in range(4)]

    entities = [of(number) for number in range(9)]
    facts = list(itertools.permutations(range(9), 2))
    truth = [{"title": "A", "vertexSet": entities, "labels": [label(*pair, "P17") for pair in facts]}]
    distances = [min(abs(one["sent_id"] - other["sent_id"]) for one in entities[head] for other in entities[tail])
                 for head, tail in facts]  # fmt: skip
    known = [(entities[head][4]["name"], entities[tail][9]["name"], "P17") for head, tail in facts[::3]]
    read.clear()
    result = score([fact("A", *pair, "P17") for pair in facts], truth, ign_reference=known, long_distance=20)
    mentions = sum(map(len, entities))
    assert max(read["name"], read["sent_id"]) <= 3 * mentions < len(facts) * 12
    assert result["inter_long"]["gold"] == sum(distance > 20 for distance in distances) > 0
    assert result["inter"]["gold"] == sum(map(bool, distances))
    assert result["ign_reference"]["known_gold"] == len(known)


def test_scores_by_hand(documents, predictions):
    result = score(predictions, documents, frequent_relations=FREQUENT)
    assert (result["precision"], result["recall"], result["f1"]) == pytest.approx((2 / 6, 2 / 4, 2 * 2 / (6 + 4)))
    counts = {"documents": 2, "gold": 4, "correct": 2, "predictions": 7, "distinct_predictions": 6, "duplicates": 1}
    counts |= {"unknown_titles": 1, "unknown_relations": 1, "duplicate_labels": 0, "long_distance": 5}
    assert {name: result[name] for name in counts} == counts
    assert result["intra"] == rates(1, 2, 1)
    assert result["inter"] == rates(1, 3, 3)  # (A, 0, 2) has distance 6: 4 to 10
    assert result["inter_long"] == rates(0, 1, 2)
    assert score(predictions, documents, long_distance=6)["inter_long"] == rates(0, 1, 1)
    assert result["frequent"] == rates(1, 3, 2)
    assert result["long_tail"] == rates(1, 3, 2)
    assert list(result["per_relation"]) == ["P17", "P19", "P22", "P27", "P999"]
    assert result["per_relation"]["P17"] == rates(1, 3, 1)
    assert result["per_relation"]["P999"] == rates(0, 1, 0)
    # P17 1/3 and 1, P19 1/2 and 1, P22 and P27 zero; P999 is no relation of the truth.
    assert result["macro_precision"] == pytest.approx((1 / 3 + 1 / 2) / 4)
    assert result["macro_recall"] == pytest.approx(2 / 4)
    assert result["macro_f1"] == pytest.approx((1 / 2 + 2 / 3) / 4)
    evidence = dict(result["evidence"])
    assert evidence.pop("share_of_facts_without_evidence") == 1 / 4
    assert evidence == rates(1, 3, 5)
    assert result["ign_f1"] is result["ign_precision"] is result["ign_reference"] is None
    assert json.loads(json.dumps(result)) == result


def test_frequent_relations_are_the_data_sets(documents, predictions):
    own = score(predictions, documents, frequent_relations={"P19"})
    assert own["frequent"] == rates(1, 2, 1) and own["long_tail"] == rates(1, 4, 3)
    unknown = score(predictions, documents)
    assert unknown["frequent"] is unknown["long_tail"] is None
    assert {row.split("  ")[0] for row in format_scores(own).splitlines()} - {
        row.split("  ")[0] for row in format_scores(unknown, unknown).splitlines()
    } == {"frequent", "long tail"}


def test_inputs_stay_as_they_are_and_order_does_not_matter(documents, predictions):
    before = copy.deepcopy((documents, predictions))
    result = score(predictions, documents, ign_reference=documents)
    assert (documents, predictions) == before
    # Only among repetitions does order matter, and only for evidence: the first one's holds.
    shuffled = [predictions[i] for i in (6, 3, 0, 5, 2, 4, 1)]
    assert score(shuffled, documents[::-1], ign_reference=documents) == result
    assert score(predictions[::-1], documents)["evidence"]["predictions"] == 2
    assert score(iter(predictions), iter(documents))["f1"] == result["f1"]
    numpy_predictions = [{**p, "h_idx": np.int64(p["h_idx"])} for p in predictions]
    assert score(numpy_predictions, documents, ign_reference=documents) == result


def test_repeated_labels_count_once_with_their_evidence_together(documents):
    documents[1]["labels"].append(label(0, 1, "P17", 1, 2))
    result = score([fact("B", 0, 1, "P17", evidence=[2])], documents)
    assert (result["gold"], result["duplicate_labels"], result["evidence"]["gold"]) == (4, 1, 6)
    assert result["evidence"]["correct"] == 1


def test_nothing_predicted_or_nothing_to_find(documents, predictions):
    empty = score([], documents, ign_reference=documents)
    assert empty["f1"] == empty["ign_f1"] == empty["macro_f1"] == empty["evidence"]["f1"] == 0.0
    assert empty["intra"] == rates(0, 0, 1)
    for document in documents:
        document["labels"] = []
    assert score(predictions, documents)["f1"] == score([], documents)["f1"] == score([], [])["macro_f1"] == 0.0


def test_ign_takes_known_facts_out_of_the_precision_only(documents, predictions):
    # One name of the head and one of the tail are enough, and it is not the first name here.
    result = score(predictions, documents, ign_reference=[["Lovelace", "London", "P19"], ["Byron", "London", "P17"]])
    assert result["ign_precision"] == pytest.approx((2 - 1) / (6 - 1))  # the known wrong prediction stays
    assert result["recall"] == 2 / 4
    assert result["ign_f1"] == pytest.approx(2 * (1 / 5) * (1 / 2) / (1 / 5 + 1 / 2))
    reference = result["ign_reference"]
    assert (reference["facts"], reference["known_gold"], reference["known_correct"]) == (2, 1, 1)
    # Names of the two entities must have this relation and this order.
    other = score(predictions, documents, ign_reference=[["London", "Ada", "P19"], ["Ada", "London", "P20"]])
    assert other["ign_reference"]["known_gold"] == 0
    assert other["ign_f1"] == other["f1"]
    everything = score(predictions[:2], documents, ign_reference=documents)
    assert everything["ign_precision"] == everything["ign_f1"] == 0.0  # 0 / 0


def test_ign_reference_from_file_list_facts_and_itself(documents, tmp_path):
    facts = [["Ada", "London", "P19"], ["Lovelace", "London", "P19"], ["Ada", "Byron", "P22"]]
    facts += [["Lovelace", "Byron", "P22"], ["Byron", "London", "P27"], ["Oslo", "Norway", "P17"]]
    documents_file, facts_file = tmp_path / "train.json", tmp_path / "train.fact"
    documents_file.write_text(json.dumps(documents))
    facts_file.write_text(json.dumps(facts))
    references = [load_ign_reference(source) for source in (documents, facts, documents_file, str(facts_file))]
    assert {reference.facts for reference in references} == {frozenset(map(tuple, facts))}
    assert references[0].sha256 == references[1].sha256 == load_ign_reference(facts[::-1]).sha256
    assert [reference.source for reference in references[2:]] == ["train.json", "train.fact"]
    assert load_ign_reference(references[0]) is references[0]
    compressed = tmp_path / "train.fact.gz"
    compressed.write_bytes(gzip.compress(b"\xef\xbb\xbf" + facts_file.read_bytes()))  # with a byte order mark
    assert load_ign_reference(compressed).facts == references[3].facts
    # No cache by file name: the changed file counts.
    facts_file.write_text(json.dumps(facts[:1]))
    changed = load_ign_reference(facts_file)
    assert len(changed.facts) == 1 and changed.sha256 != references[3].sha256
    assert load_ign_reference([]).facts == frozenset()


@pytest.mark.parametrize(
    ("change", "field", "found"),
    [
        ({"h_idx": "0"}, "h_idx", "'0'"),
        ({"h_idx": True}, "h_idx", "True"),
        ({"h_idx": 0.0}, "h_idx", "0.0"),
        ({"t_idx": 3}, "t_idx", "3"),
        ({"t_idx": -1}, "t_idx", "-1"),
        ({"t_idx": 0}, "t_idx", "0"),
        ({"t_idx": -1, "title": "Z"}, "t_idx", "-1"),
        ({"r": 17}, "r", "17"),
        ({"r": " "}, "r", "' '"),
        ({"r": ...}, "r", "no such field"),
        ({"title": ...}, "title", "no such field"),
        ({"evidence": 3}, "evidence", "3"),
        ({"evidence": ["0"]}, "evidence[0]", "'0'"),
    ],
)
def test_malformed_predictions_are_named(documents, change, field, found):
    wrong = {name: value for name, value in (fact("A", 0, 1, "P19") | change).items() if value is not ...}
    with pytest.raises(PredictionError) as caught:
        score([fact("A", 0, 1, "P19"), wrong], documents)
    error = caught.value
    assert (error.index, error.title, error.field, error.found) == (1, wrong.get("title"), field, found)
    assert str(error).startswith("prediction 1")


@pytest.mark.parametrize(
    ("damage", "field"),
    [
        (lambda d: d.pop("title"), "title"),
        (lambda d: d.update(title=" "), "title"),
        (lambda d: d.update(title="A"), "title"),
        (lambda d: d.pop("labels"), "labels"),
        (lambda d: d["labels"][0].update(t=2), "labels[0].t"),
        (lambda d: d["labels"][0].update(t=0), "labels[0].t"),
        (lambda d: d["labels"][0].update(r=""), "labels[0].r"),
        (lambda d: d["labels"][0].update(evidence=[-1]), "labels[0].evidence[0]"),
        (
            lambda d: d.update(sents=[["Oslo"], ["Norway"]]) or d["labels"][0].update(evidence=[2]),
            "labels[0].evidence[0]",
        ),
        (lambda d: d["vertexSet"].append([]), "vertexSet[2]"),
        (lambda d: d["vertexSet"][1][0].pop("sent_id"), "vertexSet[1][0].sent_id"),
        (lambda d: d["vertexSet"][1][0].update(sent_id=-1), "vertexSet[1][0].sent_id"),
    ],
)
def test_malformed_documents_are_named(documents, damage, field):
    damage(documents[1])
    with pytest.raises(DocumentError) as caught:
        score([], documents)
    assert (caught.value.index, caught.value.field) == (1, field)


@pytest.mark.parametrize("given", [{}, "[]", 3, None])
def test_what_is_no_list_is_refused(documents, given):
    for field, arguments in (("predictions", (given, documents)), ("documents", ([], given))):
        with pytest.raises(SettingError) as caught:
            score(*arguments)
        assert (caught.value.field, caught.value.value) == (field, type(given).__name__)


def test_malformed_references_are_named(documents, tmp_path):
    with pytest.raises(FactError) as caught:
        load_ign_reference([["a", "b", "P1"], ["a", "b"]])
    assert (caught.value.source, caught.value.index, caught.value.found) == ("ign_reference", 1, "['a', 'b']")
    with pytest.raises(DocumentError) as caught:
        load_ign_reference([*documents, ["a", "b", "P1"]])
    assert (caught.value.source, caught.value.index, caught.value.field) == ("ign_reference", 2, None)
    broken = tmp_path / "broken.json"
    broken.write_text("[1,")
    with pytest.raises(ValueError, match=r"broken\.json"):
        load_ign_reference(broken)
    with pytest.raises(FileNotFoundError):
        load_ign_reference(tmp_path / "absent.json")


# --- average precision and cut-off


def test_average_precision_by_hand():
    scores, correct = np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, False, True, False])
    assert average_precision(scores, correct, 2) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(scores, correct, 4) == pytest.approx((1 + 2 / 3) / 4)  # two gold facts never scored
    tied = np.array([0.5, 0.5, 0.5, 0.1])
    for order in itertools.permutations(range(4)):  # ties are one threshold, whatever their order
        assert average_precision(tied[list(order)], correct[list(order)], 2) == pytest.approx(2 / 3)
    assert average_precision([], [], 3) == average_precision([1], [0], 0) == 0.0


def brute_force_f1(scores, correct, total_gold, offset):
    kept = scores > offset
    return 2 * correct[kept].sum() / (kept.sum() + total_gold) if kept.any() else 0.0


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("seed", range(4))
def test_tuned_offset_equals_brute_force(seed, dtype):
    generator = np.random.default_rng(seed)
    scores = generator.normal(size=200).round(1 + seed % 2).astype(dtype)
    correct = generator.random(200) < 1 / (1 + np.exp(1.5 - 2 * scores.astype(float)))
    total_gold = int(correct.sum()) + 7
    offset, f1 = tune_offset(scores, correct, total_gold)
    cuts = [-np.inf, *np.unique(scores)]
    assert f1 == pytest.approx(max(brute_force_f1(scores, correct, total_gold, cut) for cut in cuts))
    assert brute_force_f1(scores, correct, total_gold, offset) == pytest.approx(f1)
    below, above = scores[scores < offset], scores[scores > offset]
    assert offset == pytest.approx((float(below.max()) + float(above.min())) / 2, rel=1e-2)


def test_tuned_offset_at_the_edges():
    assert tune_offset([3.0, 1.0, 2.0], [True, False, False], 1) == (2.5, 1.0)
    # Equally good at both places: the higher one, which predicts less.
    assert tune_offset([4.0, 3.0, 2.0, 1.0], [True, False, False, True], 2) == (3.5, pytest.approx(2 / 3))
    offset, f1 = tune_offset([1.0, 2.0], [True, True], 2)
    assert offset < 1.0 and offset == pytest.approx(1.0) and f1 == 1.0
    assert tune_offset([2.0, 1.0], [False, False], 1) == (2.0, 0.0)  # nothing is above 2
    assert tune_offset([], [], 1) == (0.0, 0.0)
    assert tune_offset_of_groups([1, 2], [1, 1], [1, 2], 2) == tune_offset([1, 2, 2], [True, True, False], 2)
    for dtype in (
        np.float32,
        np.float64,
    ):  # neighbouring floats, of which rounding prefers the upper and the lower one
        for start in (np.array([1], dtype), np.nextafter(np.array([1], dtype), dtype(2))):
            pair = np.concatenate([start, np.nextafter(start, dtype(2))])
            offset, f1 = tune_offset(pair, [False, True], 1)
            assert f1 == 1.0 and (pair > offset).tolist() == [False, True]


def test_curves_refuse_what_makes_no_sense():
    with pytest.raises(SettingError) as caught:
        average_precision([1, 2], [True], 1)
    assert caught.value.value == (1,)
    with pytest.raises(SettingError) as caught:
        tune_offset([1.0, np.nan], [True, True], 2)
    assert caught.value.field == "scores[1]" and str(caught.value).startswith("tune_offset")
    with pytest.raises(SettingError) as caught:
        tune_offset([1.0, 2.0], [True, True], 1)
    assert (caught.value.field, caught.value.value) == ("total_gold", 1)


# --- type prior


def test_type_prior_by_hand(documents):
    prior = TypePrior(documents)
    # A has two PER and one LOC: (PER, LOC) twice, (PER, PER) twice; B has (LOC, LOC) twice.
    assert prior.probabilities == {
        ("PER", "LOC"): {"P19": 0.5, "P27": 0.5},
        ("PER", "PER"): {"P22": 0.5},
        ("LOC", "LOC"): {"P17": 0.5},
    }
    unlabelled = [{name: document[name] for name in ("title", "vertexSet")} for document in documents]
    candidates = prior.scored(unlabelled)
    assert len(candidates) == 2 * 2 + 2 + 2 and {candidate["score"] for candidate in candidates} == {0.5}
    assert prior.to_predictions(candidates) == prior.predict(unlabelled, 0.0)
    assert prior.predict(unlabelled, 0.5) == []  # above, not from
    cutoff, f1 = prior.best_cutoff(documents)
    assert f1 == pytest.approx(2 * 4 / (8 + 4))
    assert score(prior.predict(documents, cutoff), documents)["f1"] == pytest.approx(f1)


def test_type_prior_takes_the_first_mentions_type_and_knows_only_seen_pairs(documents):
    documents[0]["vertexSet"][1].append({"name": "Londoner", "sent_id": 3, "type": "PER"})
    assert ("PER", "LOC") in TypePrior(documents).probabilities
    strangers = {"title": "C", "vertexSet": [entity(("1905", 0), kind="TIME")] * 3, "labels": [label(0, 1, "P1")]}
    prior = TypePrior(documents)
    assert prior.scored([strangers]) == []
    assert prior.best_cutoff([strangers]) == TypePrior([]).best_cutoff(documents) == (0.0, 0.0)
    del documents[0]["vertexSet"][2][0]["type"]
    with pytest.raises(DocumentError) as caught:
        TypePrior(documents)
    assert (caught.value.title, caught.value.field) == ("A", "vertexSet[2][0].type")


# --- golden numbers and real documents

DATA = SHARED / "data"
TRUTH = DATA / "redocred-mini" / "test_revised.json"
REVISED = DATA / "redocred-mini" / "train_revised.json"
ANNOTATED = DATA / "docred-mini" / "train_annotated.json"


def golden_predictions(name):
    with gzip.open(SHARED / "golden" / "metrics" / f"pred_{name}.json.gz", "rt", encoding="utf-8") as file:
        return json.load(file)


@pytest.fixture(scope="module")
def real():
    """Truth, both references and the golden numbers, read once."""
    golden = json.loads((SHARED / "golden" / "metrics" / "metrics.json").read_text())
    truth = json.loads(TRUTH.read_text())
    return truth, load_ign_reference(REVISED), load_ign_reference(ANNOTATED), golden


def golden_case(name):
    # The folder has no files for these three variants; its README and the returned numbers say what they held.
    gold, known = golden_predictions("a_gold"), golden_predictions("d_dup_known")
    unknown = [fact("AAA unknown", 0, 1, "P17"), fact("AAA unknown", 1, 0, "P17")]
    if name == "d_dup_unknown":
        return [*known, *unknown, unknown[0]]
    if name == "f_two_right":
        return gold[:2]
    if name == "g_only_unknown":
        return unknown[:1]
    return golden_predictions(name)


@requires_shared
@pytest.mark.parametrize(
    "name",
    [
        *("a_gold", "b_noisy", "c_empty", "d_dup_known", "d_dup_unknown", "e_single_right", "e_single_wrong"),
        *("f_two_right", "g_only_unknown", "h_na_relation"),
    ],
)
def test_golden(real, name):
    truth, revised, annotated, golden = real
    predictions, expected = golden_case(name), golden[name]
    assert len(predictions) == expected["n"]
    result = score(predictions, truth, ign_reference=revised, frequent_relations=FREQUENT)
    found = {"re_p": result["precision"], "re_r": result["recall"], "re_f1": result["f1"]}
    found["re_f1_ignore_train_annotated"] = result["ign_f1"]
    found["re_f1_ignore_train_distant"] = score(predictions, truth, ign_reference=annotated)["ign_f1"]
    official = dict(expected["official_with_evidence"]["values"])
    # The original's total of gold evidence starts at 1 instead of 0; its counts give the right F1 back.
    evidence = result["evidence"]
    evidence_plus_one = 2 * evidence["correct"] / (evidence["predictions"] + evidence["gold"] + 1)
    assert evidence_plus_one == pytest.approx(official.pop("evi_f1"), abs=1e-6)
    assert found == pytest.approx(official, abs=1e-6)

    benchmark = expected["benchmark_with_evidence"]
    # The benchmark script raises on unknown titles and returns 0 for a single prediction, right or wrong.
    if "values" in benchmark and len(predictions) > 1:
        ours = {
            f"re_{letter}_{theirs}": result[part][rate]
            for part, theirs in (("frequent", "freq"), ("long_tail",) * 2, ("intra",) * 2, ("inter",) * 2)
            for rate, letter in (("precision", "p"), ("recall", "r"), ("f1", "f1"))
        }
        compared = {name: value for name, value in benchmark["values"].items() if name in ours}
        assert len(compared) == 8  # the script returns F1 of all four, P and R of frequent and long tail only
        assert {name: ours[name] for name in compared} == pytest.approx(compared, abs=1e-6)


def test_a_relation_with_labels_on_ignored_pairs_alone_is_known():
    entities = [[{"name": name, "sent_id": 0}] for name in ("a", "b", "c")]
    labels = [{"h": 0, "t": 1, "r": "P17"}]
    truth = [{"title": "t", "vertexSet": entities, "labels": labels, "ignored_pairs": [[0, 1]]}]
    facts = [{"title": "t", "h_idx": 0, "t_idx": 2, "r": "P17"}]
    result = score(facts, truth)
    assert result["unknown_relations"] == 1 and mismatch_warnings(result, facts, truth) == []


@requires_shared
def test_golden_counts_and_right_evidence(real):
    truth, revised, annotated, golden = real
    counts = golden["counts"]
    noisy = score(golden_predictions("b_noisy"), truth, ign_reference=revised)
    assert (noisy["gold"], noisy["evidence"]["gold"]) == (counts["gold"], counts["evidence"])
    assert (noisy["distinct_predictions"], noisy["correct"]) == (counts["b_pred"], counts["b_correct"])
    known = noisy["ign_reference"]
    expected = (counts["gold_in_standin_train"], counts["b_correct_in_train"])
    assert (known["known_gold"], known["known_correct"]) == expected
    known = score(golden_predictions("b_noisy"), truth, ign_reference=annotated)["ign_reference"]
    expected = (counts["gold_in_standin_distant"], counts["b_correct_in_distant"])
    assert (known["known_gold"], known["known_correct"]) == expected
    repeated = score(golden_predictions("d_dup_known"), truth)
    assert (repeated["distinct_predictions"], repeated["correct"]) == (counts["d_pred"], counts["d_correct"])
    # ATLOP's evaluator counts evidence from 0, as we do.
    assert noisy["evidence"]["f1"] == pytest.approx(float(golden["atlop_evaluator_b_noisy"][1]), abs=1e-9)
    assert score(golden_predictions("a_gold"), truth)["evidence"]["f1"] == 1.0
    assert noisy["evidence"]["share_of_facts_without_evidence"] == pytest.approx(4865 / 8882)
    odd = score(golden_predictions("h_na_relation"), truth)
    assert (odd["unknown_relations"], odd["correct"]) == (2, 1)


@requires_shared
@pytest.mark.parametrize(("train", "floor"), [(REVISED, 19.1), (ANNOTATED, 14.8)])
def test_honest_floor(real, train, floor):
    truth = real[0]
    prior = TypePrior(json.loads(train.read_text()))
    cutoff, f1 = prior.best_cutoff(truth)
    assert 100 * f1 == pytest.approx(floor, abs=0.1)
    assert score(prior.predict(truth, cutoff), truth)["f1"] == pytest.approx(f1, abs=1e-12)


@requires_shared
def test_real_files_have_unique_titles_and_pass_the_checks():
    for path in sorted(DATA.glob("*docred-mini/*.json")):
        documents = json.loads(path.read_text())
        labelled = all("labels" in document for document in documents)
        read = list(scoring.parse_documents(documents, require=("labels",) if labelled else ()))
        assert len({document.title for document in read}) == len(read), path.name


# --- table and command


@pytest.fixture
def files(documents, predictions, tmp_path):
    names = {"predictions": predictions, "truth": documents, "train": documents, "facts": [["Oslo", "Norway", "P17"]]}
    for name, content in names.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return {name: str(tmp_path / f"{name}.json") for name in names}


def test_table(documents, predictions):
    table = format_scores(score(predictions, documents, ign_reference=documents))
    lines = table.splitlines()
    assert lines[1].split() == ["all", "33.33", "50.00", "40.00", "4", "6", "2"]
    assert lines[2].split() == ["Ign", "0.00", "50.00", "0.00"]
    assert (
        "6 triples of names of 2 items in memory (sha256 " in table
        and "4 of the gold facts, 2 of them predicted" in table
    )
    assert "evidence: 25.00 % of the gold facts list no evidence" in table
    assert "7 given, 1 of them repeated (counted once); 1 on unknown titles, 1 of relations without gold" in table
    assert len({len(line) for line in lines[:2]}) == 1
    plain = format_scores(score(predictions, documents))
    assert "no reference of facts" in plain and not any(line.startswith("Ign  ") for line in plain.splitlines())


def test_rows_that_mean_nothing_are_left_out(documents, predictions):
    """Of evidence where none was predicted, of frequent relations where all or no gold facts have one."""

    def labels(frequent, predicted=predictions):
        table = format_scores(score(predicted, documents, frequent_relations=frequent))
        return {line[:9].strip() for line in table.splitlines()} & {"frequent", "long tail", "evidence"}, table

    assert labels(FREQUENT)[0] == {"frequent", "long tail", "evidence"}
    every = frozenset({"P17", "P19", "P22", "P27"})
    for frequent in (None, frozenset(), frozenset({"P5"}), every):
        assert labels(frequent)[0] == {"evidence"}
    without = [{key: value for key, value in one.items() if key != "evidence"} for one in predictions]
    found, table = labels(FREQUENT, without)
    assert found == {"frequent", "long tail"} and "evidence" not in table


def test_command(files, tmp_path, capsys):
    output = tmp_path / "scores.json"
    output.write_text("old")
    arguments = ["--predictions", files["predictions"], "--truth", files["truth"], "--train_facts", files["train"]]
    assert comm_docre.main(["evaluate", *arguments, "--output", str(output)]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[0].endswith("type prior F1")
    assert printed.splitlines()[1].split() == ["all", "33.33", "50.00", "40.00", "4", "6", "2", "66.67"]
    assert len({len(line) for line in printed.splitlines()[:8]}) == 1
    assert "from train.json" in printed and "chosen on truth.json itself" in printed
    written = json.loads(output.read_text())
    assert written["f1"] == pytest.approx(0.4) and written["ign_reference"]["source"] == "train.json"
    assert written["type_prior"]["scores"]["f1"] == pytest.approx(2 / 3)
    assert written["type_prior"]["cutoff_chosen_on"] == "truth.json"
    assert sorted(tmp_path.glob(".*")) == []  # no temporary file stays behind


def test_command_with_the_frequent_relations_of_a_data_set(files, capsys):
    arguments = ["--predictions", files["predictions"], "--truth", files["truth"]]
    assert comm_docre.main(["evaluate", *arguments]) == 0
    assert "long tail" not in capsys.readouterr().out
    assert comm_docre.main(["evaluate", *arguments, "--dataset_config", "redocred"]) == 0
    (row,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("frequent"))
    assert row.split()[-3:] == ["2", "3", "1"]
    assert comm_docre.main(["evaluate", *arguments, "--dataset_config", "tacred"]) == 2


def test_command_with_facts_or_without_training_file(files):
    for train_facts in (files["facts"], None):
        report, table = compare_files(files["predictions"], files["truth"], train_facts)
        assert report["type_prior"] is None and "type prior: none" in table
    report, table = compare_files(files["predictions"], files["truth"], files["facts"], files["train"])
    assert report["ign_reference"]["source"] == "facts.json" and report["type_prior"]["train"] == "train.json"


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "wrong.json"), ("{", "wrong.json: found no valid JSON"), ("{}", "expected a list of")],
)
@pytest.mark.parametrize("option", ["--predictions", "--truth", "--train_facts", "--type_prior_train"])
def test_command_names_wrong_files(files, tmp_path, capsys, option, content, message):
    wrong = tmp_path / "wrong.json"
    if content is not None:
        wrong.write_text(content)
        if option == "--predictions":  # might be the lines of records that `comm-docre predict` writes
            message = f"wrong.json, line 1: found {content!r}, expected a JSON list of predictions"
    arguments = ["--predictions", files["predictions"], "--truth", files["truth"], option, str(wrong)]
    output = tmp_path / "scores.json"
    assert comm_docre.main(["evaluate", *arguments, "--output", str(output)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and message in captured.err and captured.out == ""
    assert not output.exists()


def test_scoring_needs_numpy_only():
    code = (
        "import sys, types; package = types.ModuleType('modeling_comm'); package.__path__ = [sys.argv[1]];"
        "sys.modules['modeling_comm'] = package; import modeling_comm.evaluation.scoring, modeling_comm.evaluation.type_prior;"
        "print(sorted({'torch', 'transformers', 'datasets', 'evaluate', 'scipy', 'sklearn'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, str(ROOT / "modeling_comm")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.mark.parametrize("module", [scoring, type_prior])
def test_docstring_examples(module):
    result = doctest.testmod(module)
    assert result.attempted and not result.failed


# --- evaluate


@pytest.fixture
def metric(monkeypatch, tmp_path):
    import evaluate

    monkeypatch.setattr(evaluate.config, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("the metric used the network"))
    return load_metric(cache_dir=str(tmp_path / "metrics"))


def records(predictions, documents):
    return [
        {
            "title": document["title"],
            "facts": [
                {name: value for name, value in prediction.items() if name != "title"}
                for prediction in predictions
                if prediction["title"] == document["title"]
            ],
        }
        for document in documents
    ]


def test_metric_equals_scorer(metric, documents, predictions):
    predictions = [prediction for prediction in predictions if prediction["title"] != "Z"]
    options = {"ign_reference": documents, "frequent_relations": FREQUENT, "long_distance": 9}
    expected = score(predictions, documents, **options)
    given, before = records(predictions, documents), copy.deepcopy(documents)
    result = metric.compute(predictions=given, references=documents, **options)
    assert result == expected and documents == before
    for prediction, reference in zip(given, documents, strict=True):
        metric.add(prediction=prediction, reference=reference)
    assert metric.compute() == score(predictions, documents)


@requires_shared
def test_metric_equals_scorer_on_real_documents(metric, real):
    truth, revised, _, _ = real
    predictions = golden_predictions("b_noisy")
    result = metric.compute(predictions=records(predictions, truth), references=truth, ign_reference=revised)
    assert result == score(predictions, truth, ign_reference=revised)


def test_metric_refuses_what_arrow_would_change_in_silence(metric, documents):
    for wrong, field in (({"h_idx": 1.5}, "h_idx"), ({"h_idx": "1"}, "h_idx"), ({"evidence": [0.5]}, "evidence[0]")):
        given = [{"title": "A", "facts": [{"h_idx": 1, "t_idx": 0, "r": "P17", **wrong}]}, {"title": "B", "facts": []}]
        with pytest.raises(PredictionError) as caught:
            metric.compute(predictions=given, references=documents)
        assert (caught.value.index, caught.value.field) == (0, f"facts[0].{field}")
    with pytest.raises(PredictionError) as caught:
        metric.compute(predictions=[{"title": "A"}, {"title": "B", "facts": []}], references=documents)
    assert caught.value.field == "facts"
    with pytest.raises(ValueError, match=r"\b1\b.*\b2\b"):  # how many of each; the check is that of `evaluate`
        metric.compute(predictions=[{"title": "A", "facts": []}], references=documents)


# --------------------------------------------------------------------------------- predictions for something else


def test_names_for_ids_are_recognised(files, tmp_path, capsys):
    predictions = read_json(files["predictions"])
    expected, _ = compare_files(files["predictions"], files["truth"])
    names = {relation: f"name of {relation}" for relation in {fact["r"] for fact in predictions}}
    named = tmp_path / "named.json"
    write_json(named, [{**fact, "r": names[fact["r"]].title()} for fact in predictions])
    capsys.readouterr()
    unread, _ = compare_files(named, files["truth"])
    heard = capsys.readouterr().err
    assert unread["correct"] == 0 and "--rel_info" in heard and "relations that the truth does not have" in heard
    write_json(tmp_path / "names.json", names)
    for given in ("named", "beside"):
        if given == "beside":
            write_json(Path(files["truth"]).with_name("rel_info.json"), names)
        found, _ = compare_files(named, files["truth"], rel_info=tmp_path / "names.json" if given == "named" else None)
        assert found["f1"] == expected["f1"] > 0 and "names of relations for ids" in capsys.readouterr().err
    compare_files(files["predictions"], files["truth"])
    assert "names of relations" not in capsys.readouterr().err


def test_ids_for_names_are_recognised():
    facts = [{"r": "P17"}, {"r": "country"}, {"r": "P99"}]
    names = {"P17": "country", "P99": "other"}
    assert translate_relations(facts, {"country"}, names) == ([{"r": "country"}, {"r": "country"}, {"r": "P99"}], 1)
    assert translate_relations(facts, {"P17", "country"}, names) == (facts, 0)


def test_predictions_for_other_documents_are_warned_of(files, tmp_path, capsys):
    predictions = read_json(files["predictions"])
    write_json(tmp_path / "other.json", [{**fact, "title": f"Other {fact['title']}"} for fact in predictions])
    compare_files(tmp_path / "other.json", files["truth"])
    assert "titles that the truth does not have" in capsys.readouterr().err
    compare_files(files["predictions"], files["truth"])
    assert capsys.readouterr().err == ""  # one unknown title among six predictions is no other file
