"""
Tables of the experiments in Markdown, from the records alone; planned runs that were not run are listed as not run.

    python experiments/tables.py --fill RESULTS.md results/losses.md > results/tables.md

With --fill, the part of a text between `<!-- TITLE -->` and `<!-- end -->` becomes that table of today's records; after a title
that ends in `, in short`, one line for each loss that was run, with its row that is best on dev.
"""

import argparse
import re
import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.run_grid import AXES, Cell, read_grid
from experiments.shared import ROOT
from modeling_comm.reporting.markdown import join_cells
from modeling_comm.utils.files import read_json
from modeling_comm.utils.writer import write_text

LOSSES = {"cmm": "CMM", "atl": "ATL", "balanced_softmax": "Balanced Softmax", "aml": "AML", "afl": "AFL"}
LOSSES |= {
    "hingeabl": "HingeABL",
    "sat": "SAT",
    "ncrl": "NCRL",
    "margin": "margin",
    "pu_cmm": "PU-CMM",
    "ssr_pu": "SSR-PU",
}
# Test F1 / Ign F1 in the paper with BERT: Tables 2 and 3 for ATLOP, Table 1 for the other encoders.
_ATLOP_LOSSES = ("atl", "balanced_softmax", "aml", "afl", "hingeabl", "cmm")
_TABLE_2 = ("50.09 / 49.50", "46.25 / 45.83", "43.21 / 43.04", "50.58 / 50.23", "58.44 / 57.45", "62.31 / 61.33")
_TABLE_3 = ("72.87 / 72.22", "73.57 / 72.79", "72.96 / 72.14", "73.71 / 72.87", "75.15 / 73.84", "76.12 / 74.76")
PAPER = {
    ("mixed", "atlop"): dict(zip(_ATLOP_LOSSES, _TABLE_2, strict=True)),
    ("redocred", "atlop"): dict(zip(_ATLOP_LOSSES, _TABLE_3, strict=True)),
    ("mixed", "docunet"): {"balanced_softmax": "46.9 / 46.5", "cmm": "60.6 / 59.5"},
    ("redocred", "docunet"): {"balanced_softmax": "75.0 / 74.1", "cmm": "76.3 / 75.0"},
    ("mixed", "kd_docre"): {"afl": "51.3 / 50.9", "cmm": "60.8 / 59.5"},
    ("redocred", "kd_docre"): {"afl": "75.0 / 74.1", "cmm": "76.1 / 74.6"},
}
# Arguments with which a run is trained on something else than the paper's runs, or not only on it.
OTHER_TRAINING = ("train_file", "model_name_or_path", "complete_labels")
SHORT = ", in short"
ABOUT = """\
Scores are in percent: the mean over seeds and, from two on, their standard deviation (n - 1). *Paper*: its test F1 / Ign F1,
with BERT and the whole training sets. *AP*: average precision. *Offset*: with one decision offset, tuned on the dev documents,
and the offset of each seed. *Epoch*: the one with the best dev F1 (without the offset), which all scores are from, and the
last one (of the seed where they are closest).

*Differences* are between means over seeds, with the 95 % interval of a paired bootstrap over test documents, which says nothing
about other seeds; *each seed*: the difference of every seed that both have. A *gain* is claimed where the differences of at least
three seeds have the same sign and the interval leaves out 0. Each loss is listed with its row that is best on dev: by dev F1
where it decides at its own threshold, by dev F1 with the offset where it has one; only rows with the same dev documents are
compared. A comparison counts if the best epochs of both come before the last, one of the other loss's rows has at least as many
steps as CMM's, and neither row trains a finished model further.
"""


@dataclass(eq=False)
class Row:
    """A table's row: runs that differ in nothing but the seed."""

    cell: Cell  # one of them
    runs: list = field(default_factory=list)  # records
    missing: list = field(default_factory=list)  # "2 not run"
    remarks: list = field(default_factory=list)  # on runs that failed or are excluded

    def without(self, *axes):
        """The key of rows that differ in these axes (and in the seed) only."""
        return str({key: value for key, value in self.cell.axes.items() if key not in (*axes, "seed")})

    @property
    def is_cmm(self):
        """Returns whether it is CMM as a whole, not one of its halves."""
        return self.cell.axes["loss"] == "cmm" and bool(self.cell.axes["m"] and self.cell.axes["gamma"])

    @property
    def competitor(self):
        """Its name where losses are compared: CMM with any m and gamma is one loss, each of its halves another."""
        return "CMM" if self.is_cmm else self.loss

    @property
    def loss(self):
        axes = self.cell.axes
        name = LOSSES.get(axes["loss"], axes["loss"])  # one of an extension, say
        return name + (f" (m {axes['m']:g}, gamma {axes['gamma']:g})" if axes["loss"] == "cmm" else "")

    @property
    def label(self):
        axes = self.cell.axes
        noise = {"removed": axes["remove"], "added": axes["add"]}
        noise = [f"{100 * share:g} % {what}" for what, share in noise.items() if share]
        other = [axes[key] for key in ("encoder", "backbone", "tag") if axes[key] != AXES[key]]
        return ", ".join([self.loss, *noise, *other])

    @property
    def seeds(self):
        return ", ".join([*(str(run["seed"]) for run in self.runs), *self.missing])

    @property
    def paper(self):
        axes = self.cell.axes
        if axes["remove"] or axes["add"] or (axes["loss"] == "cmm" and not self.is_cmm):
            return ""
        if any(name in self.cell.arguments for name in OTHER_TRAINING):
            return ""
        return PAPER.get((axes["setting"], axes["encoder"]), {}).get(axes["loss"], "")

    @property
    def epoch(self):
        if not self.runs:
            return ""
        closest = min(self.runs, key=lambda run: run["last_epoch"] - run["best_epoch"])
        return f"{closest['best_epoch']:g} of {closest['last_epoch']:g}"

    @property
    def offset(self):
        return ", ".join(f"{run['offset']:+.2f}" for run in self.runs if run["offset"] is not None)

    @property
    def steps(self):
        return ", ".join(sorted({f"{run['steps']:,}" for run in self.runs}))

    def values(self, *keys):
        """A number of each run's record, found by its keys."""
        found = self.runs
        for key in keys:
            found = [one[key] for one in found]
        return found

    def has(self, split):
        """Returns whether all its runs were scored so. One with `eval_strategy: "no"` has no `dev` and no offset."""
        return bool(self.runs) and all(split in run for run in self.runs)

    @property
    def dev_documents(self):
        """The hashes of the dev documents that its runs were scored on: dev scores of different ones are not compared."""
        return tuple(sorted({run["data"]["files"]["validation"]["sha256"] for run in self.runs}))

    def percent(self, split, *keys):
        found = [100 * value for value in self.values(split, *keys)] if self.has(split) else []
        deviation = f" ± {statistics.stdev(found):.1f}" if len(found) > 1 else ""
        return f"{statistics.fmean(found):.1f}{deviation}" if found else ""

    def by_seed(self, split):
        """F1 by seed, in order."""
        return {run["seed"]: run[split]["f1"] for run in sorted(self.runs, key=lambda run: run["seed"])}

    def counts(self, split, seeds=()):
        """`(runs, documents, 3)`: correct, predicted and gold facts, of the runs with these seeds, or of all if none has one."""
        runs = [run for run in self.runs if run["seed"] in seeds] or self.runs
        found = [[run[split]["by_document"][key] for key in ("correct", "predicted", "gold")] for run in runs]
        return np.array(found).transpose(0, 2, 1)


def read_tables(grids, results):
    """Rows by title of the table, in the grids' order; and the names of records that no grid plans."""
    records = {path.stem: read_json(path) for path in sorted((Path(results) / "runs").glob("*.json"))}
    tables, seen = {}, set()
    for cell in (cell for grid in grids for cell in read_grid(grid)):
        row = tables.setdefault(cell.table, {}).setdefault(cell.group, Row(cell))
        if (cell.table, cell.name) in seen:
            continue
        seen.add((cell.table, cell.name))
        record, seed = records.get(cell.name), cell.axes["seed"]
        state = "not run" if record is None else "excluded" if cell.excluded else record["status"]
        if state == "finished":
            row.runs.append(record)
        else:
            row.missing.append(f"{seed} {state}")
        if state in ("excluded", "failed"):
            row.remarks.append(f"`{cell.name}` {state}: {cell.excluded or record['error'].splitlines()[0]}")
    unplanned = sorted(set(records) - {name for _, name in seen})
    return {title: list(rows.values()) for title, rows in tables.items()}, unplanned


def bootstrap_difference(first, second, resamples=10_000, seed=0):
    """
    Micro F1 of one system minus that of another, each the mean over its runs, with the 95 % interval over documents drawn with
    replacement, the same ones for every run.

    Args:
        first, second (`(runs, documents, 3)` integer arrays): correct, predicted and gold facts.

    Returns:
        `tuple[float, float, float]`: difference, lower and upper end, as fractions of 1.
    """
    documents = first.shape[1]
    draws = np.random.default_rng(seed).multinomial(documents, np.full(documents, 1 / documents), size=resamples)

    def difference(weights):
        return _mean_f1(weights, first) - _mean_f1(weights, second)

    low, high = np.percentile(difference(draws), [2.5, 97.5])
    return difference(np.ones((1, documents))).item(), low.item(), high.item()


def _mean_f1(weights, counts):
    correct, predicted, gold = np.moveaxis(np.tensordot(weights.astype(float), counts.astype(float), (1, 1)), -1, 0)
    return (2 * correct / np.maximum(predicted + gold, 1)).mean(axis=1)


def counts_as_fair(cmm, other, candidates):
    """`yes`, or why a comparison does not count; `candidates` are all rows of the other loss."""
    late = [row.label for row in (cmm, other) if any(run["best_epoch"] >= run["last_epoch"] for run in row.runs)]
    reasons = [f"the best epoch of {label} is its last" for label in late]
    if max(min(row.values("steps")) for row in candidates) < max(cmm.values("steps")):
        reasons.append("fewer steps than CMM")
    further = [row.label for row in (cmm, other) if "model_name_or_path" in row.cell.arguments]
    reasons += [f"{label} trains a finished model further" for label in further]
    return f"no: {'; '.join(reasons)}" if reasons else "yes"


def is_gain(differences, low, high):
    """
    `yes`, or why a difference is not claimed as a gain (or a loss).

    Args:
        differences (`dict[int, float]`): by seed.
        low, high (`float`): of the interval of the mean.
    """
    if len(differences) < 3:
        return f"no: {len(differences)} of 3 seeds"
    if len({np.sign(value) for value in differences.values()}) > 1:
        return "no: seeds differ in sign"
    return "no: the interval has 0" if low <= 0 <= high else "yes"


# -------------------------------------------------------------------------------------------------------------- Markdown


def score_table(rows):
    columns = {"F1": ("test", "f1"), "Ign F1": ("test", "ign_f1"), "P": ("test", "precision"), "R": ("test", "recall")}
    columns |= {"AP": ("test", "average_precision"), "F1, offset": ("test_offset", "f1")}
    columns |= {"Ign F1, offset": ("test_offset", "ign_f1"), "dev F1": ("dev", "f1")}
    columns |= {"dev F1, offset": ("dev_offset", "f1")}
    lines = []
    for row in rows:
        scores = [row.percent(*keys) for keys in columns.values()]
        lines.append([row.label, row.seeds, row.paper, *scores, row.offset, row.epoch, row.steps])
    return join_cells(["loss", "seeds", "paper", *columns, "offset", "epoch", "steps"], lines) + "\n"


def best_on(split, rows):
    """The row with the best mean F1 on a split."""
    return max(rows, key=lambda row: statistics.fmean(row.values(split, "f1")))


def short_table(rows):
    """One line for each loss that was run, at its own threshold and with an offset: its row that is best on dev, each time.

    Raises:
        ValueError: the rows were scored on different dev documents, so that none is the best.
    """
    lines, dev = [], {row.dev_documents: row.label for row in rows if row.has("dev")}
    if len(dev) > 1:
        raise ValueError(
            f"{', '.join(dev.values())} have different dev documents; expected the same for a short table"
        )
    for loss in dict.fromkeys(row.competitor for row in rows if row.has("dev")):
        of_loss = [row for row in rows if row.competitor == loss and row.has("dev")]
        own, offset = best_on("dev", of_loss), best_on("dev_offset", of_loss)
        cells = [
            own.percent("test", "f1"),
            offset.percent("test_offset", "f1"),
            offset.percent("test", "average_precision"),
        ]
        lines.append([loss, own.paper.partition(" / ")[0], *cells, str(len(own.runs))])
    return join_cells(["loss", "F1 in the paper", "F1", "F1, offset", "average precision", "seeds"], lines) + "\n"


def choice_table(rows):
    """Shows nothing of the test documents; what is best on dev among several is bold."""
    columns = {"dev F1": ("dev", "f1"), "dev F1, offset": ("dev_offset", "f1")}
    columns |= {"dev AP": ("dev", "average_precision")}
    lines = []
    for row in rows:
        line = [row.label, row.seeds]
        rivals = [one for one in rows if one.runs and one.without(*row.cell.choose) == row.without(*row.cell.choose)]
        rivals = [one for one in rivals if one.dev_documents == row.dev_documents]
        for keys in columns.values():
            is_best = len(rivals) > 1 and keys[1] == "f1" and row is best_on(keys[0], rivals)
            line.append(f"**{row.percent(*keys)}**" if is_best else row.percent(*keys))
        lines.append([*line, row.epoch, row.steps])
    return join_cells(["loss", "seeds", *columns, "epoch", "steps"], lines) + "\n"


DECISIONS = {  # how CMM and the other loss decide, and by what their rows are chosen
    "own thresholds": ("dev", "dev"),
    "both with offset": ("dev_offset", "dev_offset"),
    "only the other with offset": ("dev", "dev_offset"),
}


def difference_table(rows):
    """CMM against each other loss, among rows that differ only in their loss and in how they were trained (tag), and were scored
    on the same dev documents; of each loss the row that is best on these."""
    groups = {}
    for row in (row for row in rows if row.has("dev")):
        losses = groups.setdefault((row.without("loss", "m", "gamma", "tag"), row.dev_documents), {})
        losses.setdefault(row.competitor, []).append(row)
    lines = []
    for losses in groups.values():
        of_cmm = losses.pop("CMM", [])
        compared = sum(losses.values(), of_cmm)
        hashes = {run["sha256"]["test"] for row in compared for run in row.runs}
        if len(hashes) > 1:
            raise ValueError(
                f"{compared[0].label} and what it is compared with have {len(hashes)} different test files"
            )
        for of_other in losses.values() if of_cmm else ():
            for title, splits in DECISIONS.items():
                pair = [best_on(*choice) for choice in zip(splits, (of_cmm, of_other), strict=True)]
                tests = [split.replace("dev", "test") for split in splits]
                first, second = (row.by_seed(test) for row, test in zip(pair, tests, strict=True))
                seeds = {seed: 100 * (first[seed] - second[seed]) for seed in first if seed in second}
                counts = [row.counts(test, seeds) for row, test in zip(pair, tests, strict=True)]
                mean, low, high = (100 * value for value in bootstrap_difference(*counts))
                each = ", ".join(f"{value:+.1f}" for value in seeds.values())
                cmm, other = (row.label for row in pair)
                cells = [f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]", each, is_gain(seeds, low, high)]
                lines.append([f"{cmm} minus {other}", title, *cells, counts_as_fair(*pair, of_other)])
    return join_cells(["difference", "decided with", "F1", "each seed", "gain", "counts"], lines) + "\n"


def breakdown_table(rows, split):
    columns = {"frequent": ("frequent", "f1"), "long tail": ("long_tail", "f1"), "intra": ("intra", "f1")}
    columns |= {"inter": ("inter", "f1"), "macro over relations": ("macro_f1",)}
    lines = []
    for row in (row for row in rows if row.has(split)):
        predicted = f"{statistics.fmean(row.values(split, 'predictions')):,.0f}"
        lines.append([row.label, *(row.percent(split, *keys) for keys in columns.values()), predicted])
    return join_cells(["F1" if split == "test" else "F1, offset", *columns, "predicted facts"], lines) + "\n"


def parts_of(rows):
    """The parts that are printed under a heading."""
    finished = [run for row in rows for run in row.runs]
    if rows[0].cell.choose and not finished:
        yield f"None of the {len(rows)} candidates was run.\n"
    elif rows[0].cell.choose:
        yield f"For the choice of {' and '.join(rows[0].cell.choose)}, on the dev documents.\n"
        yield choice_table(rows)
    else:
        yield score_table(rows)
        facts = {(run["ign_reference"]["source"], run["ign_reference"]["sha256"][:12]) for run in finished}
        yield from (f"Ign F1 leaves out the facts of {name} (sha256 {sha256}).\n" for name, sha256 in sorted(facts))
    if finished and not rows[0].cell.choose:
        yield difference_table(rows)
        yield breakdown_table(rows, "test")
        yield breakdown_table(rows, "test_offset")
    yield from (f"- {remark}\n" for row in rows for remark in row.remarks)


def fill(text, tables):
    """`text` with its tables renewed.

    Raises:
        ValueError: it names a table that no grid has.
    """

    def renewed(found):
        title = found[1].removesuffix(SHORT)
        if title not in tables:
            raise ValueError(f"found no table {title!r}, expected one of {sorted(tables)}")
        parts = parts_of(tables[title]) if title == found[1] else [short_table(tables[title])]
        return "\n".join([f"<!-- {found[1]} -->", "", *parts, "<!-- end -->"])

    return re.sub(r"<!-- (?!end -->)(.+?) -->\n.*?<!-- end -->", renewed, text, flags=re.DOTALL)


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add_arguments(parser)
    parser.add_argument("--fill", type=Path, nargs="+", default=[], help="texts whose tables are renewed")
    options = parser.parse_args(argv)
    tables, unplanned = read_tables(options.grids, options.results_dir)
    for path in options.fill:
        write_text(path, fill(path.read_text(encoding="utf-8"), tables))
    print(ABOUT)
    for title, rows in tables.items():
        print(f"## {title}\n", *parts_of(rows), sep="\n")
    if unplanned:
        print(f"Records of runs that no grid plans, shown nowhere above: {', '.join(unplanned)}.")


def add_arguments(parser):
    grids = (ROOT / "experiments" / "grids").glob("*.yaml")
    grids = sorted(grids, key=lambda path: (path.stem != "cpu", not path.stem.startswith("tier"), path.stem))
    parser.add_argument("--grids", nargs="+", type=Path, default=grids, help="what was planned, in this order")
    parser.add_argument("--results_dir", type=Path, default=ROOT / "results", help="folder with the records in runs/")


if __name__ == "__main__":
    main()
