"""The script that scores the evidence of finished runs and of folds."""

from types import SimpleNamespace

import pytest

from experiments import evidence
from experiments.run_grid import EVALUATION
from modeling_comm.incomplete_labels.probability_map import FOLDS, fold_of
from modeling_comm.utils.files import write_json


def test_the_threshold_of_a_fold_comes_from_the_others(tmp_path):
    """Models that are there already are not trained again, so only their sentences are scored."""
    documents = [{"title": str(number), "labels": []} for number in range(FOLDS)]
    write_json(tmp_path / "docred-mini" / "train_annotated.json", documents)
    alike = [{"evidence": [0], "shares": [0.9, 0.1]}, {"evidence": [1], "shares": [0.4, 0.6]}]
    other = [{"evidence": [0], "shares": [0.3, 0.2]}, {"evidence": [0, 1], "shares": [0.3, 0.3]}]
    for number in range(FOLDS):
        write_json(tmp_path / "work" / f"fold-{number}-shares.json", other if number == 0 else alike)
    found = evidence.score_folds(tmp_path, tmp_path / "work", [])
    first, *rest = found["folds"]
    assert 0.4 <= first["threshold"] < 0.6 and first["f1"] == 0, "what suits the others leaves nothing here"
    assert all(one["threshold"] < 0.6 and one["facts"] == 2 for one in rest)
    assert found["mean"]["f1"] == pytest.approx(sum(one["f1"] for one in found["folds"]) / FOLDS)
    assert found["at_0.2"]["recall"] == 1 and sorted(set(fold_of(FOLDS))) == list(range(FOLDS))


def test_rates_are_over_sentences():
    facts = [{"evidence": [0, 2], "shares": [0.5, 0.3, 0.1]}, {"evidence": [1], "shares": [0.0, 0.2, 0.8]}]
    assert evidence.rates(facts, 0.25) == pytest.approx({"precision": 1 / 3, "recall": 1 / 3, "f1": 1 / 3})
    assert evidence.rates(facts, 0.9) == {"precision": 0, "recall": 0, "f1": 0}


def test_each_way_is_timed_with_what_was_tuned_for_it(tmp_path, monkeypatch):
    decision, timed = SimpleNamespace(threshold_offset=0.7), []
    processor = SimpleNamespace(decision=decision)
    trainer = SimpleNamespace(processing_class=processor, predict=lambda documents: timed.append(dict(vars(decision))))
    monkeypatch.setattr(evidence, "trainer_of", lambda folder: trainer)
    write_json(tmp_path / EVALUATION / "test_revised.json", [])
    ways = {"one offset": {"offset": -0.5, "evidence_threshold": 0.3}}
    ways |= {"fusion": {"fusion_threshold": 1.5}, "fusion near the threshold": {"fusion_threshold": 1.2}}
    assert evidence.cost_of(tmp_path, tmp_path, ways, rounds=2).keys() == ways.keys()
    names = ("threshold_offset", "fusion_threshold", "fusion_range", "evidence_threshold")
    expected = [(-0.5, None, None, 0.3), (0.0, 1.5, None, 0.3), (0.0, 1.2, evidence.NEAR, 0.3)]
    assert [tuple(one[name] for name in names) for one in timed] == expected * 2


def test_a_table_has_what_a_run_scored():
    offset = {"f1": 0.4, "evidence": {"f1": 0.1}, "evidence_f1_given_facts": 0.6}
    offset |= {"evidence_of_correct": {"precision": 0.7, "recall": 0.8, "f1": 0.75}}
    fusion = {"f1": 0.42, "minus_one_offset": (0.02, 0.01, 0.03)}
    ways = {"one offset": offset, "fusion": fusion, "fusion near the threshold": fusion}
    table = evidence.score_table({"run": {"f1": 0.3, "ign_f1": 0.29, "average_precision": 0.35, "ways": ways}})
    assert "| 42.0 | +2.0 [+1.0, +3.0] |" in table and "| 75.0 | 10.0 |" in table
