"""
Which probability of a label CMM asks for before it predicts a relation: a model that knows the probability p of a label
minimises p * (CMM of a positive) + (1 - p) * (CMM of a negative), and predicts where its logit is above the threshold class's.

    python experiments/thresholds.py

The plain logistic loss (m 0, gamma 0) asks for 50 %. Of one relation of one pair, with labels that depend on nothing else.
"""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.figures import GAMMAS, MARGINS, cmm_at
from modeling_comm.reporting.markdown import join_cells

_DISTANCES = torch.linspace(-12, 12, 24_001, dtype=torch.float64)


def required_probability(margin, gamma):
    """The least p with which the best logit is above the threshold, to six digits."""
    positive, _ = cmm_at(_DISTANCES, True, margin, gamma)
    negative, _ = cmm_at(_DISTANCES, False, margin, gamma)
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        best = _DISTANCES[(middle * positive + (1 - middle) * negative).argmin()]
        low, high = (low, middle) if best > 1e-6 else (middle, high)
    return high


def main():
    rows = [
        [f"m {margin:g}", *(f"{100 * required_probability(margin, gamma):.0f} %" for gamma in GAMMAS)]
        for margin in MARGINS
    ]
    print(join_cells(["", *(f"gamma {gamma:g}" for gamma in GAMMAS)], rows))


if __name__ == "__main__":
    main()
