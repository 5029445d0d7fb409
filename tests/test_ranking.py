"""Ranking candidates in bounded memory."""

import numpy as np
import pytest

from modeling_comm.decoding import DecisionSettings, Predictions
from modeling_comm.evaluation.cutoffs import average_precision, tune_offset
from modeling_comm.evaluation.ranking import CandidateRanking
from modeling_comm.training import evaluation


def candidates(seed, documents=30, ties=False):
    """Scores and gold candidates of some documents: about one in twenty is gold, and gold ones are higher."""
    draw = np.random.default_rng(seed)
    for _ in range(documents):
        correct = draw.random(draw.integers(0, 200)) < 0.05
        scores = draw.normal(-6, 3, len(correct)) + 5 * correct
        yield (scores.round() if ties else scores).astype(np.float32), correct


def ranked(parts, exact=2**26):
    ranking = CandidateRanking(exact)
    for scores, correct in parts:
        ranking.add(scores, correct)
    return ranking


def joined(parts):
    scores, correct = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return scores, correct, int(correct.sum())


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_scores_are_those_of_all_candidates_at_once(seed, ties):
    parts = list(candidates(seed, ties=ties))
    ranking, whole = ranked(parts), joined(parts)
    assert len(ranking) == len(whole[0])
    value, error = ranking.average_precision()
    assert value == pytest.approx(average_precision(*whole), abs=1e-12) and error == 0
    assert ranking.best_offset() == pytest.approx(tune_offset(*whole), abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("exact", [0, 1000])
def test_counted_candidates_give_bounds(exact, ties):
    parts = list(candidates(0, ties=ties))
    ranking, (scores, correct, gold) = ranked(parts, exact), joined(parts)
    assert len(ranking) == len(scores) > exact
    value, error = ranking.average_precision()
    assert abs(value - average_precision(scores, correct, gold)) <= error + 1e-12
    assert ties or error < 1e-3  # of equal scores a bin does not know that they are equal
    offset, f1 = ranking.best_offset()
    predicted = scores > offset
    assert f1 == pytest.approx(2 * correct[predicted].sum() / (predicted.sum() + gold)), "exact, whatever is counted"
    assert f1 == pytest.approx(tune_offset(scores, correct, gold)[1], abs=5e-3)


@pytest.mark.parametrize("exact", [0, 1500, 2**26])
def test_processes_and_order_do_not_matter(exact):
    parts = list(candidates(1))
    alone, first, second = ranked(parts, exact), ranked(parts[::2], exact), ranked(parts[::-2], exact)
    first.merge([second])
    assert len(first) == len(alone)
    assert first.average_precision() == alone.average_precision() and first.best_offset() == alone.best_offset()


def test_processes_keep_together_as_many_as_one(monkeypatch):
    parts = list(candidates(1))
    shares = [parts[::2], parts[1::2]]
    most = max(sum(int((~correct).sum()) for _, correct in share) for share in shares)
    monkeypatch.setattr(evaluation, "EXACT_CANDIDATES", 2 * most)

    def evaluated(parts, processes):
        documents = evaluation.EvaluatedDocuments(processes=processes)
        for scores, correct in parts:
            of_document = {"pairs": np.zeros((len(scores), 2)), "margins": scores[:, None], "labels": correct[:, None]}
            documents.add([Predictions([], DecisionSettings(), loss=0.0, **of_document)])
        return documents

    alone, first, second = evaluated(parts, 1), *(evaluated(share, 2) for share in shares)
    first.merge([second])
    assert len(first.ranking) == len(alone.ranking)
    assert first.ranking.average_precision() == alone.ranking.average_precision()
    assert first.ranking.average_precision().error == 0
    assert first.ranking.best_offset() == alone.ranking.best_offset()


def test_scores_around_zero():
    """-0 is 0, and neither of them is far from the smallest numbers."""
    scores = np.array([1e-30, 0.0, -0.0, -1e-30, -1e-30], np.float32)
    correct = np.array([False, True, True, False, True])
    for exact in (0, 10):
        value, error = ranked([(scores, correct)], exact).average_precision()
        assert abs(value - average_precision(scores, correct, 3)) <= error + 1e-12
        assert error == 0 or exact == 0


@pytest.mark.parametrize("exact", [0, 10])
def test_nothing_gold(exact):
    nothing = ranked([], exact)
    assert nothing.average_precision() == (0.0, 0.0) and nothing.best_offset() == (0.0, 0.0)
    scores = np.array([-2.0, -1.5], np.float32)
    assert ranked([(scores, np.zeros(2, bool))], exact).best_offset() == (-1.5, 0.0), "nothing is above the highest"


def test_wrong_candidates():
    with pytest.raises(ValueError, match="shapes"):
        CandidateRanking().add(np.zeros(2), np.zeros(3, bool))
    with pytest.raises(
        ValueError, match=r"scores: found nan at position 1 \(2 of 3 are not finite\), expected finite"
    ):
        CandidateRanking().add(np.array([0, np.nan, np.inf]), np.zeros(3, bool))
