"""Margins to probabilities: the fit recovers what made the data, decides as offsets do, and chooses its strength by held-out
documents."""

import numpy as np
import pytest

from modeling_comm.incomplete_labels.probability_map import ProbabilityMap, fit_probability_map, reliability


def drawn(documents=60, pairs=40, relations=6, slope=0.7, spread=1.5, seed=0):
    draw = np.random.default_rng(seed)
    intercepts = draw.normal(-1.0, spread, relations)
    margins = [draw.normal(-2.0, 3.0, (pairs, relations)) for _ in range(documents)]
    labels = [draw.random(one.shape) < 1 / (1 + np.exp(-(slope * one + intercepts))) for one in margins]
    return margins, labels, slope, intercepts


def test_the_fit_recovers_what_made_the_labels():
    margins, labels, slope, intercepts = drawn(documents=300)
    found, crossed = fit_probability_map(margins, labels)
    assert found.slope == pytest.approx(slope, abs=0.05)
    assert found.intercepts == pytest.approx(intercepts, abs=0.2)
    table = reliability(np.concatenate(crossed).ravel(), np.concatenate(labels).ravel())
    assert table["ece"] < 0.02 and len(table["bins"]) == 15 and table["cells"] == 300 * 40 * 6


def test_the_fit_is_a_minimum():
    """Against every small step away from it."""
    margins, labels, _, _ = drawn(documents=10)
    found, _ = fit_probability_map(margins, labels, strengths=[3.0])
    x, y = np.concatenate(margins), np.concatenate(labels)

    def objective(slope, intercepts):
        scores = slope * x + intercepts
        own = intercepts - intercepts.mean()  # the best common intercept is the mean: the sum of distances is 0 there
        return np.logaddexp(0, np.where(y, -scores, scores)).sum() + 1.5 * (own**2).sum()

    least = objective(found.slope, found.intercepts)
    draw = np.random.default_rng(1)
    for _ in range(50):
        step = draw.normal(0, 0.03, 7)
        assert objective(found.slope + step[0], found.intercepts + step[1:]) > least - 1e-6


def test_offsets_decide_as_the_cut_does():
    margins, labels, _, _ = drawn()
    found, _ = fit_probability_map(margins, labels)
    x = np.concatenate(margins)
    assert ((found.probabilities(x) > found.cut) == (x > found.offsets())).all()
    assert 0 < found.cut < 1


def test_a_relation_without_facts_is_drawn_to_the_others():
    margins, labels, _, _ = drawn(documents=50, spread=0.0)
    for one in labels:
        one[:, 0] = False
    weak, _ = fit_probability_map(margins, labels, strengths=[0.01])
    strong, _ = fit_probability_map(margins, labels, strengths=[1e6])
    assert weak.intercepts[0] < weak.intercepts[1:].min() - 3
    assert strong.intercepts == pytest.approx(strong.intercepts.mean(), abs=1e-2)


def test_the_strength_follows_the_data():
    alike, _ = fit_probability_map(*drawn(documents=10, pairs=10, spread=0.0)[:2])
    unlike, _ = fit_probability_map(*drawn(documents=60, spread=3.0)[:2])
    assert alike.strength > unlike.strength


def test_documents_without_pairs_take_part():
    margins, labels, _, _ = drawn(documents=10)
    margins.append(np.zeros((0, 6)))
    labels.append(np.zeros((0, 6), dtype=bool))
    _, crossed = fit_probability_map(margins, labels)
    assert [one.shape for one in crossed] == [one.shape for one in margins]


@pytest.mark.parametrize("change", ["few", "shapes", "nothing"])
def test_what_cannot_be_fitted(change):
    margins, labels, _, _ = drawn(documents=10)
    if change == "few":
        margins, labels = margins[:4], labels[:4]
    elif change == "shapes":
        labels[3] = labels[3][:5]
    else:
        labels = [one & False for one in labels]
    with pytest.raises(ValueError):
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
    one = ProbabilityMap(2.0, np.array([0.0, -1.0]), 1.0, cut=0.5)
    assert one.offsets() == pytest.approx([0.0, 0.5])
    assert one.probabilities(np.array([[0.0, 0.5]])) == pytest.approx(np.array([[0.5, 0.5]]))
