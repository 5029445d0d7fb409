"""What the scripts of `experiments` have in common."""

import pytest

from experiments import shared


@pytest.mark.parametrize(
    ("words", "own", "passed"),
    [
        (["a", "--b", "1"], ["a", "--b", "1"], []),
        (["a", "--", "--c", "--", "d"], ["a"], ["--c", "--", "d"]),
        (["--", "--c"], [], ["--c"]),
        ([], [], []),
    ],
)
def test_words_behind_two_dashes_are_passed_on(words, own, passed):
    assert shared.own_and_passed(words) == (own, passed)


def test_predictions_say_what_made_them(tmp_path):
    shared.write_predictions(tmp_path / "x.json", [{}, {}], "some-seed1", ["offset +0.082", "commit abc"])
    expected = "x.json: 2 predictions of some-seed1 (results/runs/some-seed1.json); offset +0.082; commit abc\n"
    assert (tmp_path / "x.txt").read_text() == expected
