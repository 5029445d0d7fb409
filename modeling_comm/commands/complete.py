"""The command `comm-docre complete`: labels completed by rules, and how right they are where complete ones are known."""

import argparse
import sys
from functools import partial

from transformers.utils import logging

from ..data.dataset_entry import get_dataset
from ..data.reading import read_labelled
from ..extensions import import_extensions
from ..incomplete_labels.rules import Completion, compare_labels, complete_labels, read_rules
from ..utils.files import write_json
from ..utils.relation_names import names_beside
from ..utils.writer import is_standard_output
from .errors import refuse_overwriting

logger = logging.get_logger(__name__)


def run(args: argparse.Namespace) -> int:
    """The command; returns the exit status."""
    import_extensions(args.extensions)
    candidates = get_dataset(args.dataset_config).candidates
    refuse_overwriting(
        [args.output], [args.documents, args.rules, *filter(None, [args.complete, *(args.extensions or ())])]
    )
    documents, rules = read_labelled(args.documents), read_rules(args.rules)
    complete = read_labelled(args.complete) if args.complete else None
    completed = [complete_labels(document, rules, candidates) for document in documents]
    write_json(args.output, completed)
    report = partial(print, file=sys.stderr if is_standard_output(args.output) else sys.stdout)
    added = Completion.between(documents, completed, candidates)
    report(added)
    if added.by_relation:
        report("by relation: " + ", ".join(f"{relation} {number:,}" for relation, number in added.by_relation.items()))
    known = {label["r"] for document in (*documents, *(complete or ())) for label in document["labels"]}
    known.update(names_beside(args.documents), candidates.inverse)
    for rule in rules:
        if unknown := sorted({atom.relation for atom in (*rule.conditions, rule.conclusion)} - known):
            logger.warning("the rule %s: no document has the relation %s", rule, " or ".join(unknown))
    if complete is not None:
        for name, labels in (("as they were", documents), ("completed", completed)):
            found = compare_labels(labels, complete, candidates)
            shares = ", ".join(f"{key} {100 * found[key]:.1f} %" for key in ("precision", "recall", "f1"))
            report(f"labels {name}: {shares} ({found['documents']} of the documents of {args.complete})")
    return 0
