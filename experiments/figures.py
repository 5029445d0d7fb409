"""
Figures of the experiments, from the records alone: Figure 3 of the paper (CMM's loss against the distance d, computed by the
library's own loss), Figure 4 (predicted positives by epoch), and label-noise curves.

    python experiments/figures.py
"""

import argparse
import re
import statistics
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.tables import add_arguments, read_tables
from modeling_comm.losses import cmm_loss
from modeling_comm.utils.imports import of_extra

GAMMAS = (0, 1, 1.2, 1.4, 1.6, 2)
MARGINS = (0, 0.1, 0.2, 0.3, 0.4)
NOISE = {"remove": "positives removed (false negatives)", "add": "wrong labels added (false positives)"}


def pyplot():
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise ImportError(f"the figures need {error.name!r}{of_extra('plots')}") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    return plt


def cmm_at(distances, positive, margin=0.0, gamma=0.0):
    """CMM of one relation at distances `(n,)`, logit minus threshold, and its derivative; both `(n,)` float64."""
    distances = distances.double().requires_grad_()
    logits = torch.stack([torch.zeros_like(distances), distances], dim=1)
    labels = torch.tensor([[0, int(positive)]]).expand(len(distances), 2)
    losses = cmm_loss(logits, labels, reduction="none", margin=margin, gamma=gamma)
    (gradient,) = torch.autograd.grad(losses.sum(), distances)
    return losses.detach(), gradient


def figure_loss(plt):
    distances = torch.linspace(-6, 6, 601)
    figure, (positives, negatives, gradients) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    for gamma in GAMMAS:
        positives.plot(distances, cmm_at(distances, True, gamma=gamma)[0], label=f"gamma {gamma:g}")
    for margin in MARGINS:
        loss, gradient = cmm_at(distances, False, margin=margin)
        negatives.plot(distances, loss, label=f"m {margin:g}")
        gradients.plot(distances, gradient, label=f"m {margin:g}")
    titles = "CMM of a positive", "CMM of a negative", "derivative of a negative's CMM"
    for axis, title in zip((positives, negatives, gradients), titles, strict=True):
        axis.set(title=title, xlabel="d: logit of the relation minus threshold")
        axis.legend()
    return figure


def figure_positives(plt, title, rows):
    """Predicted positives on the dev documents by epoch, mean over seeds."""
    figure, axis = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for row in rows:
        by_epoch = {}
        for entry in (entry for run in row.runs for entry in run["log"] if "eval_f1" in entry):
            by_epoch.setdefault(entry["epoch"], []).append(entry["eval_predicted_positives"])
        axis.plot(by_epoch.keys(), list(map(statistics.fmean, by_epoch.values())), label=row.label)
    axis.axhline(rows[0].runs[0]["dev"]["gold"], color="gray", linestyle="--", label="gold")
    axis.set(title=title, xlabel="epoch", ylabel="predicted positives (dev)")
    axis.legend()
    return figure


def figure_noise(plt, rows):
    """Test F1 by share of wrong labels, with and without the offset tuned on dev."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.5), sharex=True, sharey=True, layout="constrained")
    for axis, (kind, title) in zip(axes, NOISE.items(), strict=True):
        (other,) = NOISE.keys() - {kind}
        shown = [row for row in rows if not row.cell.axes[other]]
        for number, curve in enumerate(dict.fromkeys(row.without(kind) for row in shown)):
            points = {row.cell.axes[kind]: row for row in shown if row.without(kind) == curve}
            name = next(iter(points.values())).loss
            for split, line, said in (("test", "-", ""), ("test_offset", "--", ", offset")):
                values = [[100 * f1 for f1 in points[share].values(split, "f1")] for share in sorted(points)]
                deviation = [statistics.stdev(found) if len(found) > 1 else 0 for found in values]
                where, mean = [100 * share for share in sorted(points)], list(map(statistics.fmean, values))
                axis.errorbar(where, mean, deviation, fmt=f"C{number}o{line}", capsize=3, label=name + said)
        axis.set(title=title, xlabel="% of the positives", ylabel="test F1")
        axis.legend()
    return figure


def _is_noisy(row):
    return any(row.cell.axes[kind] for kind in NOISE)


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add_arguments(parser)
    options = parser.parse_args(argv)
    plt = pyplot()
    figures = {"cmm-loss": figure_loss(plt)}
    for title, rows in read_tables(options.grids, options.results_dir)[0].items():
        name, run = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-"), [row for row in rows if row.has("dev")]
        about_noise = len({row.without(*NOISE) for row in rows}) < len(rows)
        if not run or (about_noise and not any(map(_is_noisy, run))):
            print(f"{title}: no run that it would show")
        elif about_noise:
            figures[name] = figure_noise(plt, run)
        elif not run[0].cell.choose and len({row.competitor for row in run}) > 1:  # of several losses
            figures[name] = figure_positives(plt, title, run)
    folder = options.results_dir / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=120)
        print(folder / f"{name}.png")
    plt.close("all")


if __name__ == "__main__":
    main()
