"""The honest floor of document-level relation extraction, what entity types alone give away, and the scoring command
that sets it beside a system's scores."""

import argparse
import gzip
import json
import zlib
from collections import Counter
from itertools import permutations
from pathlib import Path

import numpy as np

from .command import command
from .record import write_json
from .scoring import format_scores, load_ign_reference, open_text, read_documents, read_json, score, tune_offset


def _entity_types(document):
    types = []
    for index, mentions in enumerate(document.entities):
        if not isinstance(mentions[0].get("type"), str):
            raise ValueError(
                f"document {document.title!r}, field 'vertexSet', entity {index}, field 'type': "
                f"found {mentions[0].get('type')!r}, expected an entity type such as 'PER'"
            )
        types.append(mentions[0]["type"])
    return types


def _count(documents):
    """Ordered entity pairs of each (head type, tail type), and facts of each (head type, tail type), relation."""
    pairs, facts = Counter(), Counter()
    for document in documents:
        types = _entity_types(document)
        pairs.update(permutations(types, 2))
        facts.update(((types[head], types[tail]), relation) for head, tail, relation in document.facts)
    return pairs, facts


class TypePrior:
    """P(relation | head type, tail type) = facts / ordered entity pairs of these types, counted on training documents.

    It reads no text: a model has learnt to read only as far as it beats this. An entity has the type of its first
    mention (about one entity in a thousand has mentions of several types in DocRED). Type pairs that training never
    saw get no candidate.

    Args:
        documents (`Iterable[dict]`): labelled documents in DocRED's format, mentions with `type`.

    Attributes:
        probabilities (`dict[tuple[str, str], dict[str, float]]`): of a (head type, tail type) by relation; none is 0.

    Raises:
        ValueError: a document is malformed; the message says which one, which field, what was found and expected.

    Example:

    ```python
    >>> from modeling_comm.type_prior import TypePrior
    >>> mentions = [[{"name": "Oslo", "sent_id": 0, "type": "LOC"}], [{"name": "1905", "sent_id": 0, "type": "TIME"}]]
    >>> document = {"title": "Oslo", "vertexSet": mentions, "labels": [{"h": 0, "t": 1, "r": "P571"}]}
    >>> TypePrior([document]).predict([document], cutoff=0.5)
    [{'title': 'Oslo', 'h_idx': 0, 't_idx': 1, 'r': 'P571'}]

    ```
    """

    def __init__(self, documents):
        pairs, facts = _count(read_documents(documents, name="training document"))
        self.probabilities = {}
        for (types, relation), count in sorted(facts.items()):
            self.probabilities.setdefault(types, {})[relation] = count / pairs[types]

    def scored(self, documents, cutoff=0.0) -> list[dict]:
        """Candidates `{"title", "h_idx", "t_idx", "r", "score"}` with a score above `cutoff`. Needs no labels."""
        above = {
            types: [(relation, probability) for relation, probability in relations.items() if probability > cutoff]
            for types, relations in self.probabilities.items()
        }
        candidates = []
        for document in read_documents(documents, labelled=False):
            types = _entity_types(document)
            for head, tail in permutations(range(len(types)), 2):
                for relation, probability in above.get((types[head], types[tail]), ()):
                    fact = {"title": document.title, "h_idx": head, "t_idx": tail, "r": relation}
                    candidates.append({**fact, "score": probability})
        return candidates

    @staticmethod
    def to_predictions(candidates) -> list[dict]:
        """Candidates in the official format, without their scores."""
        return [{name: candidate[name] for name in ("title", "h_idx", "t_idx", "r")} for candidate in candidates]

    def predict(self, documents, cutoff) -> list[dict]:
        """Every candidate with a score above `cutoff`, in the official format."""
        return self.to_predictions(self.scored(documents, cutoff))

    def best_cutoff(self, documents) -> tuple[float, float]:
        """The cut-off with the best micro F1 on labelled `documents`, and that F1, as
        [`~modeling_comm.scoring.tune_offset`] gives them. Chosen on the test documents themselves, it is an upper
        bound on what this baseline reaches there."""
        pairs, facts = _count(read_documents(documents))
        # All candidates of one type pair and relation share a score, so counts stand for the candidates themselves.
        cells = [
            (probability, facts[types, relation], pairs[types])
            for types, relations in self.probabilities.items()
            for relation, probability in relations.items()
        ]
        scores = [np.full(count, probability) for probability, _, count in cells]
        correct = [np.arange(count) < hits for _, hits, count in cells]
        return tune_offset(np.concatenate([[], *scores]), np.concatenate([[], *correct]), sum(facts.values()))


def read_predictions(path) -> list[dict]:
    """
    Predictions in the official format, of a file in it, or of the JSON lines that `comm-docre predict` writes of documents in
    DocRED's format, whose entities keep their numbers.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is neither.
    """
    try:
        with open_text(path) as file:
            if file.read(1) == "{":
                file.seek(0)
                return [fact for number, line in enumerate(file, 1) for fact in _facts(line, f"{path}, line {number}")]
    except (UnicodeDecodeError, EOFError, zlib.error, gzip.BadGzipFile):
        pass  # the other way to read it says what is wrong
    return read_json(path)


def _facts(line, where):
    try:
        record = json.loads(line)
        return [
            {
                "title": record["title"],
                "h_idx": triple["head"]["entity"],
                "t_idx": triple["tail"]["entity"],
                "r": triple["relation"],
            }
            for triple in record["triples"]
        ]
    except (ValueError, LookupError, TypeError):
        expected = "a JSON list of predictions {title, h_idx, t_idx, r}, or the JSON lines of comm-docre predict"
        raise ValueError(f"{where}: found {line.strip()[:50]!r}, expected {expected}") from None


def compare_files(predictions, truth, train_facts=None, type_prior_train=None) -> tuple[dict, str]:
    """What the command `python -m modeling_comm.scoring` does with its files: scores beside the type prior's.

    Args:
        predictions (`str`): file of predictions, see [`read_predictions`].
        truth (`str`): JSON file of labelled documents.
        train_facts (`str`, *optional*): JSON file of training documents, or of facts, that Ign F1 leaves out.
        type_prior_train (`str`, *optional*): JSON file of documents that the type prior counts; by default
            `train_facts`, where that holds documents. Without either there is no type prior.

    Returns:
        `tuple[dict, str]`: the dictionary of [`~modeling_comm.scoring.score`] with `"type_prior"` added (`None`, or
        `train`, `cutoff`, `cutoff_chosen_on` and its own `scores`), and the text table.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file is not JSON or not of the expected shape.
    """
    documents = read_json(truth)
    reference = load_ign_reference(train_facts) if train_facts else None
    result = score(read_predictions(predictions), documents, ign_reference=reference)
    train = type_prior_train or train_facts
    training = read_json(train) if train else []
    if not type_prior_train and not any(isinstance(item, dict) for item in training):
        note = "type prior: none, it needs --type_prior_train or documents in --train_facts"
        return {**result, "type_prior": None}, f"{format_scores(result)}\n{note}"

    prior = TypePrior(training)
    cutoff, _ = prior.best_cutoff(documents)
    floor = score(prior.predict(documents, cutoff), documents, ign_reference=reference)
    train, truth = Path(train).name, Path(truth).name
    note = (
        f"type prior: P(relation | types) from {train}, cut-off {cutoff:.4g} chosen on {truth} itself, its best there"
    )
    report = {"train": train, "cutoff": cutoff, "cutoff_chosen_on": truth, "scores": floor}
    return {**result, "type_prior": report}, f"{format_scores(result, floor, 'type prior')}\n{note}"


_HELP = """
Scores predicted facts against annotated documents, by the official definitions of DocRED and Re-DocRED.

PREDICTIONS is the leaderboards' format, a JSON list of {"title", "h_idx", "t_idx", "r"} and perhaps "evidence", or what
`comm-docre predict --format docred` wrote; TRUTH is a JSON list of documents in DocRED's format with labels. With
--train_facts, Ign F1 leaves out what training showed. Beside the scores stands the F1 of a baseline that reads no text: a
prior over (head type, tail type) with one cut-off, chosen on TRUTH itself. A system has learnt to read only as far as it
beats that column. Example:

  %(prog)s --predictions results.json --truth test_revised.json --train_facts train_revised.json
"""


@command
def main(argv=None, prog="python -m modeling_comm.scoring") -> int:
    """The command: prints the table and writes `--output`."""
    parser = argparse.ArgumentParser(prog, description=_HELP, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--predictions", required=True, help="JSON file of predictions, or JSON lines of comm-docre predict"
    )
    parser.add_argument("--truth", required=True, help="JSON file of labelled documents")
    parser.add_argument(
        "--train_facts", help="JSON file of training documents, or of facts [head, tail, r], for Ign F1"
    )
    parser.add_argument(
        "--type_prior_train", help="documents that the type prior counts; default: those of --train_facts"
    )
    parser.add_argument("--output", help="JSON file for every number, also per relation and of the type prior")
    args = parser.parse_args(argv)
    report, table = compare_files(args.predictions, args.truth, args.train_facts, args.type_prior_train)
    print(table)
    if args.output:
        write_json(args.output, report)
    return 0
