"""
A fuzzer over everything that reads documents.

The kinds of change are listed in `fuzz_kinds.py`, each with what has to come of it. `COMM_FUZZ` is the number of documents,
2,000 by default; `make fuzz` takes 10,000, others each time.
"""

import copy
import json
import os
import re
from collections import Counter

import pytest
from fuzz_kinds import KINDS, WRONG_PREDICTIONS, nested
from helpers import LABELS, random_document, tiny_model, tiny_system
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import comm_docre
from modeling_comm.commands.predict_inputs import read_items
from modeling_comm.data.bad_parts import drop_bad_parts
from modeling_comm.data.reading import iterate_documents
from modeling_comm.documents import DocumentError, validate_document
from modeling_comm.evaluation.scoring import PredictionError, load_ign_reference, score
from modeling_comm.prediction_record import parse_record
from modeling_comm.utils.files import iterate_json_array

NUMBER = int(os.environ.get("COMM_FUZZ", "2000"))
OPTIONS = {"deadline": None, "database": None, "derandomize": "COMM_FUZZ" not in os.environ}
OPTIONS["suppress_health_check"] = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
RELATIONS = set(LABELS.values()) - {LABELS[0]}
BASE = [random_document(4, 30, seed=seed, title=f"Title {seed}") for seed in range(50)]
for document in BASE:
    for label in document["labels"]:
        label["evidence"] = [0]


@pytest.fixture(scope="module")
def system():
    return tiny_system("bert")


@st.composite
def changed_documents(draw):
    """A kind of change and a document that it was made to."""
    kind = KINDS[draw(st.integers(0, len(KINDS) - 1))]
    document = copy.deepcopy(BASE[draw(st.integers(0, len(BASE) - 1))])
    kind.change(document, lambda limit: draw(st.integers(0, limit - 1)))
    return kind, document


def result_of(function):
    """What a call returned, or the [`DocumentError`] that it raised; any other exception is a fault."""
    try:
        return function()
    except DocumentError as error:
        return error


def without_numbers(field):
    return re.sub(r"\d+", "", field or "")


def check(result, kind, reader, document):
    """Compares what a reader did with what the kind of change says."""
    where = f"{reader}, {kind.name}: {result!r}"
    if kind.field is not None and reader in kind.read_by:
        assert isinstance(result, DocumentError), where
        found = without_numbers(result.field)
        assert found == kind.field or found.startswith(f"{kind.field}["), where
        assert len(str(result)) < 1000, where
        if isinstance(document.get("title"), str):
            assert result.title == document["title"], where
    else:
        assert not isinstance(result, DocumentError), where


made = []  # what the first test made, for the second


def test_readers(system, tmp_path):
    processor, counts = system[1], Counter()
    path = tmp_path / "documents.json"

    @settings(max_examples=NUMBER, **OPTIONS)
    @given(changed_documents())
    def fuzz(changed):
        kind, document = changed
        before = repr_of(document)
        counts[kind.name] += 1
        made.append((kind, document))
        # The validator reads both the text and the labels.
        result = result_of(lambda: validate_document(document, relations=RELATIONS))
        check(result, kind, "labels" if "labels" in kind.read_by else "text", document)
        text = {name: value for name, value in document.items() if name != "labels"}
        check(result_of(lambda: processor.encode([text])), kind, "text", document)
        labelled = document.get("labels") is not None
        if labelled:
            for read in (lambda: score([], [document]), lambda: load_ign_reference([document])):
                check(result_of(read), kind, "scorer", document)
        rest = result_of(lambda: drop_bad_parts(document, relations=RELATIONS))
        if isinstance(rest, DocumentError):
            assert without_numbers(rest.field).split("[")[0] in ("title", "sents", "vertexSet", "labels")
        else:
            processor.encode([rest[0]])  # it is right now
            assert bool(rest[1]) == (kind.field is not None), kind.name
        assert repr_of(document) == before, kind.name  # no reader changes what it reads
        try:
            path.write_text(json.dumps([BASE[0], document, BASE[1]]), encoding="utf-8")
        except RecursionError:
            return
        read = list(iterate_documents(path, on_bad_document="skip", relations=RELATIONS))
        is_right = kind.field is None
        assert len(read) == 2 + is_right and (read[0], read[-1]) == (BASE[0], BASE[1]), kind.name

    fuzz()
    assert sum(counts.values()) >= NUMBER and set(counts) == {kind.name for kind in KINDS}  # every kind has arrived
    print(f"\n{sum(counts.values()):,} documents of {len(counts)} kinds, {min(counts.values())} of each at least")


def repr_of(document):
    try:
        return repr(document)
    except RecursionError:
        return None


def test_predict(system, tmp_path):
    """The command sets aside what is wrong and nothing else, and every record is right."""
    assert made, "test_readers makes the documents"
    config, processor = system
    tiny_model(config).save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    kinds, lines = [], []
    for kind, document in made[:NUMBER]:
        try:
            lines.append(json.dumps(document) + "\n")
        except RecursionError:
            continue
        kinds.append((kind, document))
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(lines), encoding="utf-8")
    words = ["--model", tmp_path / "model", "--input", source, "--output", output, "--batch_size", 16]
    words += ["--threshold_offset", 2]  # few triples: what a random model finds costs time only
    assert comm_docre.main([str(word) for word in ("predict", *words, "--format", "docred")]) == 3
    rejected = {}
    for line in (tmp_path / "out.jsonl.rejected.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        rejected[entry["line"]] = entry["error"]
    records = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert len(records) + len(rejected) == len(lines)
    records = iter(records)
    for number, (kind, document) in enumerate(kinds, 1):
        if kind.field is not None and "text" in kind.read_by:
            assert number in rejected, kind.name
            assert kind.field in without_numbers(rejected[number]), (kind.name, rejected[number])
            continue
        assert number not in rejected, (kind.name, rejected[number])
        record = parse_record(next(records))
        assert (record["title"], len(record["entities"])) == (document["title"], len(document["vertexSet"])), kind.name
        words = [" ".join(sentence) for sentence in document["sents"]]
        assert [record["text"][start:end] for start, end in record["sentences"]] == words, kind.name
    assert next(records, None) is None
    items = list(read_items(str(source), "docred"))
    assert [item.error is not None for item in items] == [number in rejected for number in range(1, len(lines) + 1)]
    print(f"\n{len(lines):,} documents, {len(rejected):,} of them set aside")


def test_predictions():
    counts = Counter()
    truth = BASE[0]
    right = {"title": truth["title"], "h_idx": 1, "t_idx": 0, "r": "P17", "evidence": [0]}

    @settings(max_examples=NUMBER // 10, **OPTIONS)
    @given(st.integers(0, len(WRONG_PREDICTIONS) - 1), st.integers(0, 3))
    def fuzz(number, place):
        kind = WRONG_PREDICTIONS[number]
        counts[kind.name] += 1
        wrong = copy.deepcopy(right)
        kind.change(wrong, None)
        predictions = [right] * place + [wrong] + [right] * (3 - place)
        with pytest.raises(PredictionError) as refused:
            score(predictions, [truth])
        assert refused.value.index == place
        assert without_numbers(refused.value.field).split("[")[0] == kind.field

    fuzz()
    assert set(counts) == {kind.name for kind in WRONG_PREDICTIONS}
    assert score([right], [truth])["predictions"] == 1


@st.composite
def changed_texts(draw):
    """JSON of an array, with some characters replaced, put in, or left out."""
    values = [1, -2.5e3, 'a\\"\u00e9\n', None, True, {"a": [1, {}]}, [], "\ud83d", nested(5)]
    items = draw(st.lists(st.sampled_from(values), max_size=6))
    text = json.dumps(items, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1])))
    pieces = ["", "", "[", "]", ",", '"', "\\", "{", "}", "1", "e", " ", "nul", "\\u12"]
    for _ in range(draw(st.integers(0, 2))):
        start = draw(st.integers(0, len(text)))
        end = start + draw(st.sampled_from([0, 1, 3, 1000]))
        text = text[:start] + draw(st.sampled_from(pieces)) + text[end:]
    return text


class Chunks:
    """A file that gives a few characters at a time."""

    def __init__(self, text):
        self.text = text

    def read(self, size):
        chunk, self.text = self.text[:size], self.text[size:]
        return chunk


def test_arrays_are_read_as_the_json_module_reads_them():
    counts = Counter()

    @settings(max_examples=NUMBER // 2, **OPTIONS)
    @given(changed_texts(), st.sampled_from([1, 2, 7, 1 << 20]))
    def fuzz(text, size):
        try:
            expected = json.loads(text)
        except ValueError:
            expected = None
        found = result_of(lambda: list(iterate_json_array(Chunks(text), "a.json", chunk_size=size)))
        if isinstance(expected, list):
            assert found == expected
        else:
            assert isinstance(found, DocumentError) and found.source == "a.json"
        counts[isinstance(expected, list)] += 1

    fuzz()
    assert min(counts[True], counts[False]) > NUMBER // 20
