"""
Adds what a trained model predicts, by its own decisions, to the labels that documents have, for another model to learn from.

    python experiments/label_documents.py MODEL DOCUMENTS OUTPUT -- --use_cpu --bf16 true

What comes after `--` are flags of `run_docre.py` that say how to predict. How many facts were added is printed.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.self_training import completed, predict
from experiments.shared import own_and_passed
from modeling_comm.commands.errors import refuse_overwriting
from modeling_comm.incomplete_labels.rules import Completion, Fact
from modeling_comm.utils.files import read_json, write_json


def main(argv: list[str] | None = None) -> None:
    words, flags = own_and_passed(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("model", type=Path, help="folder of the trained model")
    parser.add_argument("documents", type=Path, help="in the form of DocRED")
    parser.add_argument("output", type=Path, help="file to write")
    options = parser.parse_args(words)
    refuse_overwriting([options.output], [options.documents, options.model])
    documents = read_json(options.documents)
    results, processor = predict(options.model, documents, flags)
    found = [
        [(Fact(one.head, one.tail, processor.id2label[one.label]), one.probability) for one in result.triples]
        for result in results
    ]
    labelled = [completed(*pair, processor.candidates) for pair in zip(documents, found, strict=True)]
    write_json(options.output, labelled)
    print(Completion.between(documents, labelled, processor.candidates))


if __name__ == "__main__":
    main()
