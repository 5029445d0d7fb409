"""
Writes what the runs of `grids/incomplete.yaml` read: what is estimated on the documents with complete labels (those of dev), and
training files that hold these documents.

    python experiments/incomplete_labels.py DATA

In `outputs/incomplete`: `rules.yaml`, mined on dev with the default confidence and support; `facts_per_label.json`, by relation;
`label_rates.json`, of the training file alone; `with_dev.json` and `with_dev_4.json`, the training file and each dev document
once or four times; `dev.json`, dev alone; `dev_80.json` and `dev_20.json`, a split of dev that fixes a number of epochs. For
`grids/beyond.yaml` also `with_distant.json`, the training file and the distantly supervised documents, where these are there.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.shared import ROOT
from modeling_comm.incomplete_labels.label_rates import facts_per_label, label_rates
from modeling_comm.incomplete_labels.probability_map import fold_of
from modeling_comm.incomplete_labels.rules import mine_rules, rules_to_text
from modeling_comm.utils.files import read_json, write_json
from modeling_comm.utils.writer import write_text


def prepare(data: Path, folder: Path) -> None:
    """Writes the files into `folder`; `data` is that of the grid."""
    given = read_json(data / "docred-mini" / "train_annotated.json")
    dev = read_json(data / "redocred-mini" / "dev_revised.json")
    distant = data / "docred-mini" / "train_distant.json"
    relations = sorted({label["r"] for document in (*given, *dev) for label in document["labels"]})
    held_out = fold_of(len(dev)) == 0
    files = {
        "facts_per_label": facts_per_label(given, dev, relations),
        "label_rates": label_rates(given),
        "with_dev": given + dev,
        "with_dev_4": given + 4 * dev,
        "dev": dev,
        "dev_80": [one for one, out in zip(dev, held_out, strict=True) if not out],
        "dev_20": [one for one, out in zip(dev, held_out, strict=True) if out],
    }
    if distant.is_file():
        files["with_distant"] = given + read_json(distant)
    else:
        print(f"found no {distant}: with_distant.json, which grids/beyond.yaml needs, is not written")
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_json(folder / f"{name}.json", content)
    write_text(folder / "rules.yaml", rules_to_text(mine_rules(dev)))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("data", type=Path, help="folder of the data sets, as for the grid")
    parser.add_argument("--output_dir", type=Path, default=ROOT / "outputs" / "incomplete", help="(%(default)s)")
    options = parser.parse_args(argv)
    prepare(options.data, options.output_dir)


if __name__ == "__main__":
    main()
