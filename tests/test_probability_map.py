"""Margins to probabilities: the fit recovers what made the data, decides as offsets do, and chooses its strength by held-out
documents."""

import numpy as np
import pytest
import torch

from modeling_comm import SettingError
from modeling_comm.decoding import relation_margins
from modeling_comm.evaluation.cutoffs import tune_offset
from modeling_comm.features import without_relations
from modeling_comm.incomplete_labels.decision_report import (
    cross_fitted_offset,
    decision_scores,
    plot_reliability,
    report_on_dev,
    report_on_test,
)
from modeling_comm.incomplete_labels.probability_map import cells_looked_at, fit_probability_map, fold_of, reliability
from modeling_comm.probabilities import ProbabilityMap


def drawn(documents=60, pairs=40, relations=6, slope=0.7, spread=1.5, seed=0):
    draw = np.random.default_rng(seed)
    intercepts = draw.normal(-1.0, spread, relations)
    margins = [draw.normal(-2.0, 3.0, (pairs, relations)) for _ in range(documents)]
    labels = [draw.random(one.shape) < 1 / (1 + np.exp(-(slope * one + intercepts))) for one in margins]
    return margins, labels, slope, intercepts


def test_the_fit_recovers_what_made_the_labels():
    margins, labels, slope, intercepts = drawn(documents=300)
    fitted = fit_probability_map(margins, labels)
    found = fitted.map
    assert found.slope == pytest.approx(slope, abs=0.05)
    assert np.array(found.intercepts) == pytest.approx(intercepts, abs=0.2)
    table = reliability(np.concatenate(fitted.probabilities).ravel(), np.concatenate(labels).ravel())
    assert table["ece"] < 0.02 and len(table["bins"]) == 15 and table["cells"] == 300 * 40 * 6


def test_the_fit_is_a_minimum():
    """Against every small step away from it."""
    margins, labels, _, _ = drawn(documents=10)
    found = fit_probability_map(margins, labels, strengths=[3.0]).map
    x, y = np.concatenate(margins), np.concatenate(labels)

    def objective(slope, intercepts):
        scores = slope * x + intercepts
        own = intercepts - intercepts.mean()  # the best common intercept is the mean: the sum of distances is 0 there
        return np.logaddexp(0, np.where(y, -scores, scores)).sum() + 1.5 * (own**2).sum()

    intercepts = np.array(found.intercepts)
    least = objective(found.slope, intercepts)
    draw = np.random.default_rng(1)
    for _ in range(50):
        step = draw.normal(0, 0.03, 7)
        assert objective(found.slope + step[0], intercepts + step[1:]) > least - 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_what_is_not_asked_about_takes_no_part_in_the_fit(dtype):
    """However few cells there are, and however coarse the numbers."""
    margins, labels, _, _ = drawn(documents=20, pairs=4)
    asked = torch.ones(len(margins[0]), 7, dtype=torch.bool)
    asked[::2, 6] = False

    def of_model(distances):
        logits = torch.cat([torch.zeros(len(distances), 1), torch.from_numpy(distances).float()], dim=1)
        return relation_margins(without_relations(logits.to(dtype), asked)).float().numpy()

    found = [of_model(one) for one in margins]
    map_ = fit_probability_map(found, [gold & asked[:, 1:].numpy() for gold in labels]).map
    assert all((one[::2, 5] <= map_.floor).all() and (one[1::2] > map_.floor).all() for one in found)


def test_certain_negatives_take_no_part_in_the_fit():
    """A loss that lets low margins be leaves them anywhere; the map is the same, wherever they are."""
    margins, labels, _, _ = drawn(documents=40)
    labels = [gold & (one > 1) for one, gold in zip(margins, labels, strict=True)]
    draw = np.random.default_rng(0)
    low = [draw.uniform(-60, -30, (300, 6)) for _ in margins]
    none = np.zeros((300, 6), dtype=bool)
    found, other = (
        fit_probability_map(
            [np.concatenate(pair) for pair in zip(margins, [one - shift for one in low], strict=True)],
            [np.concatenate([gold, none]) for gold in labels],
        ).map
        for shift in (0, 100)
    )
    assert found == other and found.floor > -30 and found.below < 0.001
    x = np.concatenate([*margins, *low])
    assert found.probabilities(x)[x <= found.floor].max() <= found.below * (1 + 1e-9) < found.cut
    assert ((found.probabilities(x) > found.cut) == (x > found.offsets())).all()


def test_offsets_decide_as_the_cut_does():
    margins, labels, _, _ = drawn()
    found = fit_probability_map(margins, labels).map
    x = np.concatenate(margins)
    assert ((found.probabilities(x) > found.cut) == (x > found.offsets())).all()
    assert 0 < found.cut < 1


def test_a_relation_without_facts_is_drawn_to_the_others():
    margins, labels, _, _ = drawn(documents=50, spread=0.0)
    for one in labels:
        one[:, 0] = False
    weak, strong = (
        np.array(fit_probability_map(margins, labels, strengths=[one]).map.intercepts) for one in (0.01, 1e6)
    )
    assert weak[0] < weak[1:].min() - 3
    assert strong == pytest.approx(strong.mean(), abs=1e-2)


def test_the_strength_follows_the_data():
    alike = fit_probability_map(*drawn(documents=10, pairs=10, spread=0.0)[:2])
    unlike = fit_probability_map(*drawn(documents=60, spread=3.0)[:2])
    assert alike.strength > unlike.strength


def test_documents_without_pairs_take_part():
    margins, labels, _, _ = drawn(documents=10)
    margins.append(np.zeros((0, 6)))
    labels.append(np.zeros((0, 6), dtype=bool))
    fitted = fit_probability_map(margins, labels)
    assert [one.shape for one in fitted.probabilities] == [one.shape for one in margins]


@pytest.mark.parametrize("change", ["few", "shapes", "nothing", "backwards"])
def test_what_cannot_be_fitted(change):
    margins, labels, _, _ = drawn(documents=10)
    if change == "few":
        margins, labels = margins[:4], labels[:4]
    elif change == "shapes":
        labels[3] = labels[3][:5]
    elif change == "nothing":
        labels = [one & False for one in labels]
    else:
        margins = [-one for one in margins]
    with pytest.raises(ValueError):
        fit_probability_map(margins, labels)


def test_the_document_whose_margins_and_labels_differ_is_named():
    margins, labels, _, _ = drawn(documents=10)
    with pytest.raises(ValueError, match="margins of 10 documents and labels of 9; expected the same number"):
        fit_probability_map(margins, labels[:9])
    labels[3] = labels[3][:5]
    message = (
        r"document 3: found margins of shape \(40, 6\) and labels of shape \(5, 6\); expected \(pairs, relations\)"
    )
    with pytest.raises(ValueError, match=message):
        fit_probability_map(margins, labels)


def test_reliability_by_hand():
    table = reliability(np.array([0.1, 0.9, 0.2, 0.8]), np.array([False, True, True, True]), bins=2)
    assert table["bins"] == [
        {"probability": pytest.approx(0.15), "share": 0.5, "cells": 2},
        {"probability": pytest.approx(0.85), "share": 1.0, "cells": 2},
    ]
    assert table["ece"] == pytest.approx(0.25) and table["brier"] == pytest.approx((0.01 + 0.01 + 0.64 + 0.04) / 4)
    assert reliability(np.zeros(0), np.zeros(0))["ece"] is None


def test_a_map_by_hand():
    one = ProbabilityMap(2.0, [0.0, -1.0], cut=0.5)
    assert one.offsets() == pytest.approx([0.0, 0.5])
    assert one.probabilities(np.array([[0.0, 0.5]])) == pytest.approx(np.array([[0.5, 0.5]]))
    assert ProbabilityMap.of_setting(one.to_dict()) == one and one.intercepts == (0.0, -1.0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("slope", value) for value in (0.0, -1.0, float("nan"), "1", None)),
        *(("cut", value) for value in (0.0, 1.0, float("nan"), True)),
        *(("floor", value) for value in (float("inf"), "1")),
        *(("below", value) for value in (-0.1, 0.6, None)),
        *(("intercepts", value) for value in ([float("inf")], ["a"], 3.0, None, [[1.0]])),
    ],
)
def test_wrong_maps_are_refused(field, value):
    with pytest.raises(SettingError) as error:
        ProbabilityMap(**{"slope": 1.0, "intercepts": [0.0], "cut": 0.5, field: value})
    assert error.value.field == field


def test_what_is_cross_fitted_has_not_seen_the_document():
    """With another label for a document, only the other folds' documents change."""
    margins, labels, _, _ = drawn(documents=20)
    first = fit_probability_map(margins, labels)
    labels = [~one if index == 7 else one for index, one in enumerate(labels)]
    second = fit_probability_map(margins, labels)
    same = [bool((a == b).all()) for a, b in zip(first.probabilities, second.probabilities, strict=True)]
    assert same == (fold_of(20) == fold_of(20)[7]).tolist()


def test_one_offset_is_cross_fitted_alike():
    margins, labels, _, _ = drawn(documents=20)
    offset, predicted = cross_fitted_offset(margins, labels)
    flat = [np.concatenate([one.ravel() for one in columns]) for columns in (margins, labels)]
    assert offset == tune_offset(*flat, int(flat[1].sum()))[0]
    others = [index for index in range(20) if index % 5 != 2]
    flat = [np.concatenate([columns[index].ravel() for index in others]) for columns in (margins, labels)]
    of_others, _ = tune_offset(*flat, int(flat[1].sum()))
    assert (predicted[7] == (margins[7] > of_others)).all()


def test_decision_scores_by_hand():
    predicted = [np.array([[1, 1, 0], [0, 1, 0]], bool), np.array([[0, 0, 1]], bool)]
    labels = [np.array([[1, 0, 0], [0, 1, 0]], bool), np.array([[1, 0, 0]], bool)]
    found = decision_scores(predicted, labels)
    assert found == {"precision": 0.5, "recall": pytest.approx(2 / 3), "f1": pytest.approx(4 / 7),
                     "macro_f1": pytest.approx((2 / 3 + 2 / 3) / 2), "predicted": 4, "gold": 3}  # fmt: skip
    nothing = [one & False for one in labels]
    assert decision_scores(nothing, nothing)["f1"] == decision_scores(nothing, nothing)["macro_f1"] == 0


def test_the_report_compares_three_ways(tmp_path):
    margins, labels, _, _ = drawn(documents=60, spread=2.0)
    other_margins, other_labels, _, _ = drawn(documents=60, spread=2.0, seed=1)
    fitted = fit_probability_map(margins, labels)
    report = report_on_dev(fitted, margins, labels)
    assert report["dev"]["map"]["f1"] > max(report["dev"][way]["f1"] for way in ("offset", "threshold")) + 0.03
    assert report["dev"]["map"]["ece"] < report["dev"]["threshold"]["ece"] / 3
    assert "ece" not in report["dev"]["offset"] and len(report["dev"]["map"]["bins"]) == 15
    report = report_on_test(report, fitted.map, other_margins, other_labels)
    flat = [np.concatenate([one.ravel() for one in columns]) for columns in (other_margins, other_labels)]
    p = fitted.map.probabilities(np.concatenate(other_margins)).ravel()
    shown = cells_looked_at(p, p > fitted.map.cut)
    assert report["test"]["map"]["cells"] == shown.sum() < shown.size
    assert report["test"]["map"]["brier"] == pytest.approx(((p[shown] - flat[1][shown]) ** 2).mean())
    assert report["test"]["offset"]["predicted"] == (flat[0] > report["offset"]).sum()
    pytest.importorskip("matplotlib")
    plot_reliability(report, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_the_cap_on_relations_of_a_pair_is_taken_into_account():
    """Of each pair only the highest relation is predicted, by whatever decides; facts that it hides are missed."""
    margins, labels, *_ = drawn(documents=30)
    plain, fitted = (
        fit_probability_map(margins, labels),
        fit_probability_map(margins, labels, max_relations_per_pair=1),
    )
    assert (fitted.map.slope, fitted.map.intercepts) == (plain.map.slope, plain.map.intercepts)
    assert fitted.map.cut < plain.map.cut, "fewer false positives stand below"
    report = report_on_dev(fitted, margins, labels, None, 1)
    report = report_on_test(report, fitted.map, margins, labels, None, 1)
    x, gold = np.concatenate(margins), np.concatenate(labels)
    logits, total = fitted.map.logits(x), int(gold.sum())
    first, most_likely = (np.arange(len(x)), x.argmax(1)), (np.arange(len(x)), logits.argmax(1))
    assert report["offset"] == tune_offset(x[first], gold[first], total)[0]
    cut = np.log(fitted.map.cut / (1 - fitted.map.cut))
    for way, cells, values, least in (
        ("threshold", first, x, 0.0),
        ("offset", first, x, report["offset"]),
        ("map", most_likely, logits, cut),
    ):
        chosen = values[cells] > least
        found = report["test"][way]
        assert found["predicted"] == chosen.sum() < (values > least).sum() and found["gold"] == total
        assert found["recall"] == gold[cells][chosen].sum() / total
    assert report["dev"]["threshold"] == report["test"]["threshold"]
    for way in ("offset", "map"):
        assert report["dev"][way]["predicted"] == pytest.approx(report["test"][way]["predicted"], rel=0.1)
        assert max(one.sum(1).max() for one in fitted.predicted) == 1
    assert report_on_dev(plain, margins, labels) == report_on_dev(plain, margins, labels, None, 6), "a cap of all"


def test_facts_that_the_model_is_not_asked_about_count_as_missed():
    margins, labels, *_ = drawn(documents=30)
    missed = [20] * len(margins)
    low = min(one.min() for one in margins) - 1
    # The same facts, as cells that would be predicted last.
    cells = [np.full((missed[0], one.shape[1]), low) for one in margins]
    gold = [np.eye(one.shape[1], dtype=bool)[:1].repeat(missed[0], 0) for one in margins]
    with_cells = (
        [np.concatenate(both) for both in zip(margins, cells, strict=True)],
        [np.concatenate(both) for both in zip(labels, gold, strict=True)],
    )
    offset, predicted = cross_fitted_offset(margins, labels, missed=missed)
    expected, of_cells = cross_fitted_offset(*with_cells)
    assert offset == expected < cross_fitted_offset(margins, labels)[0]
    found = decision_scores(predicted, labels, sum(missed))
    among_cells = decision_scores(of_cells, with_cells[1])
    assert all(found[key] == among_cells[key] for key in ("f1", "precision", "recall", "predicted", "gold"))
    plain, fitted = fit_probability_map(margins, labels), fit_probability_map(margins, labels, missed=missed)
    assert fitted.map.cut < plain.map.cut
    assert fit_probability_map(margins, labels, missed=[0] * len(margins)).map == plain.map
    report = report_on_dev(fitted, margins, labels, missed)
    assert {way["gold"] for way in report["dev"].values()} == {found["gold"]}
