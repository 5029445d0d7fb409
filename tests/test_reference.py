"""`docs/reference.md` is what `docs/make_reference.py` prints, and docstrings that do not fit to the code are refused."""

import sys

import pytest
from helpers import ROOT, registries_kept

from modeling_comm import register_loss
from modeling_comm.losses import sat_loss

sys.path.append(str(ROOT / "docs"))
import make_reference


def test_page_is_what_the_script_prints():
    with registries_kept():

        @register_loss("of_somebody_else")  # not on the page
        def own_loss(logits, labels, reduction="mean"):
            return sat_loss(logits, labels, reduction)

        printed = make_reference.page()
    page = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    assert page == f"{printed}\n", "expected what `python docs/make_reference.py > docs/reference.md` writes"


def described(given, size: int = 2, low=None, high=None, **kwargs):
    """
    Does nothing. Its second sentence.

    Args:
        given: what is given,
            on two lines.

            - A list that is left out.
        size (`int`, defaults to 2): how large, see [`~modeling_comm.settings.Setting`].
        low (`float`, *optional*), high (`float | None`, *optional*): bounds.
        kwargs: others.

    Returns:
        nothing.
    """


def test_table_of_arguments():
    assert make_reference.section("##", described).splitlines() == [
        "## described",
        "",
        "Does nothing.",
        "",
        "| name | type | default | what it is |",
        "| --- | --- | --- | --- |",
        "| `given` |  | required | what is given, on two lines. |",
        "| `size` | `int` | `2` | how large, see `Setting`. |",
        r"| `low`, `high` | `float`, `float \| None` | `None` | bounds. |",
        "| `kwargs` |  |  | others. |",
    ]


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({"given": 1, "size": 2, "more": 0}, "described: the docstring lacks more"),
        ({"size": 3}, "described: .* 2 of size, expected 3"),
    ],
)
def test_docstrings_that_do_not_fit(known, message):
    with pytest.raises(ValueError, match=message):
        make_reference.arguments(described, known)
