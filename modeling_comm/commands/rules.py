"""The command `comm-docre rules`: rules between relations, mined from well-labelled documents."""

import argparse
import sys
from pathlib import Path

from ..data.dataset_entry import get_dataset
from ..data.reading import read_labelled
from ..extensions import import_extensions
from ..incomplete_labels.rules import mine_rules, rules_to_text
from ..utils.counted_nouns import DOCUMENTS, counted
from ..utils.writer import is_standard_output, write_text
from .errors import refuse_overwriting


def run(args: argparse.Namespace) -> int:
    """The command; returns the exit status."""
    import_extensions(args.extensions)
    candidates = get_dataset(args.dataset_config).candidates
    refuse_overwriting([args.output], [args.documents, *(args.extensions or ())])
    documents = read_labelled(args.documents)
    rules = mine_rules(documents, args.min_confidence, args.min_support, not args.no_chains, candidates)
    number = counted(len(documents), DOCUMENTS)
    heading = f"# Mined from {number} of {Path(args.documents).name}, confidence >= {args.min_confidence:g}, "
    heading += f"support >= {args.min_support}.\n"
    write_text(args.output, heading + rules_to_text(rules))
    two = sum(len(rule.conditions) == 2 for rule in rules)
    found = counted(len(rules), ("rule", "rules"))
    report = f"{found}, {two} of them with two conditions, from {number}: {args.output}"
    print(report, file=sys.stderr if is_standard_output(args.output) else sys.stdout)
    return 0
