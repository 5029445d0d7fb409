"""The command `comm-docre rules`: rules between relations, mined from well-labelled documents."""

import argparse
from pathlib import Path

from ..data.reading import iterate_documents
from ..incomplete_labels.rules import mine_rules, rules_to_text
from .errors import refuse_overwriting


def run(args: argparse.Namespace) -> int:
    """The command; returns the exit status."""
    refuse_overwriting([args.output], [args.documents])
    documents = list(iterate_documents(args.documents))
    rules = mine_rules(documents, args.min_confidence, args.min_support, chains=not args.no_chains)
    heading = f"# Mined from {len(documents)} documents of {Path(args.documents).name}, confidence >= {args.min_confidence:g}, "
    heading += f"support >= {args.min_support}.\n"
    Path(args.output).write_text(heading + rules_to_text(rules), encoding="utf-8")
    two = sum(len(rule.conditions) == 2 for rule in rules)
    print(f"{len(rules)} rules, {two} of them with two conditions, from {len(documents)} documents: {args.output}")
    return 0
