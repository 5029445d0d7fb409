"""Which triples are written: by score, relation, type and number, in the pipeline and the command; and triples as CSV."""

import csv
import dataclasses
import io
import json
import math

import pytest
from helpers import random_document, tiny_model, tiny_system

import comm_docre
from modeling_comm import DocumentRelationExtractionPipeline, SettingError
from modeling_comm.commands.predict_outputs import OUTPUT_FORMATS
from modeling_comm.decoding import Triple
from modeling_comm.prediction_record import parse_record
from modeling_comm.reporting.triple_table import COLUMNS, csv_lines, triple_rows
from modeling_comm.triple_selection import RelatedPairs, TripleSelection, UnknownRelationError
from modeling_comm.utils.spreadsheet import csv_header

LABELS = {0: "Na", 1: "P17", 2: "P27", 3: "P19"}
NAMES = {"P17": "country", "P27": "country of citizenship"}
TYPES = ["PER", "LOC", "GPE", "GENE"]
TRIPLES = [
    Triple(0, 1, 1, 2.0),
    Triple(0, 1, 2, 3.0),
    Triple(0, 1, 3, 1.0),
    Triple(1, 2, 1, 0.5),
    Triple(3, 0, 3, 3.0),
]


def select(**fields):
    selection = TripleSelection(**fields)
    return [TRIPLES.index(triple) for triple in selection.select(TRIPLES, TYPES, selection.label_ids(LABELS, NAMES))]


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({}, [0, 1, 2, 3, 4]),
        ({"min_score": 1 / (1 + math.exp(-1.5))}, [0, 1, 4]),
        ({"top_k": 2}, [1, 4]),
        ({"top_k": 1}, [1]),  # of equal scores the first
        ({"top_k_per_pair": 1}, [1, 3, 4]),
        ({"top_k_per_pair": 1, "top_k": 2}, [1, 4]),
        ({"top_k_per_pair": 2, "top_k": 3}, [0, 1, 4]),
        ({"relations": ["P17", "P19"]}, [0, 2, 3, 4]),
        ({"relations": "Country of Citizenship"}, [1]),
        ({"relations": "P17", "top_k": 1}, [0]),  # filters come first
        ({"head_types": "PER"}, [0, 1, 2]),
        ({"head_types": "person"}, [0, 1, 2]),
        ({"tail_types": ["gpe"]}, [0, 1, 2]),  # DocRED's LOC
        ({"tail_types": ["GPE"]}, [0, 1, 2, 3]),  # and what a document of one's own calls so itself
        ({"head_types": {"GENE"}, "tail_types": ("PER",)}, [4]),
        ({"head_types": "LAW"}, []),
    ],
    ids=str,
)
def test_selection(fields, kept):
    assert select(**fields) == kept


@pytest.mark.parametrize(
    "fields",
    [
        *({"min_score": value} for value in (-0.1, 1, 80, "0.5", float("nan"), True)),
        *({name: value} for name in ("top_k", "top_k_per_pair") for value in (0, -1, 1.5, "3")),
        *({name: value} for name in ("relations", "head_types", "tail_types") for value in ([], [1], 3, {"P17": 1})),
    ],
    ids=str,
)
def test_wrong_values(fields):
    with pytest.raises(SettingError) as caught:
        TripleSelection(**fields)
    assert {caught.value.field: caught.value.value}.keys() == fields.keys()


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("contry", "country"), ("country of citizen", "country of citizenship"), ("P271", "P27"), ("x", None)],
)
def test_an_unknown_relation_is_an_error_with_the_nearest(name, nearest):
    with pytest.raises(UnknownRelationError) as caught:
        select(relations=["P17", name])
    assert (caught.value.value, caught.value.nearest) == (name, nearest)


def test_a_name_of_two_relations_means_both():
    selection = TripleSelection(relations="place")
    assert selection.label_ids(LABELS, {"P17": "place", "P19": "Place"}) == {1, 3}
    with pytest.raises(UnknownRelationError):
        TripleSelection(relations="Na").label_ids(LABELS, NAMES)


def test_types_that_no_entity_has():
    selection = TripleSelection(head_types=["PRE", "GPE"], tail_types="GENE")
    assert selection.types_not_found(["PER", "LOC"]) == [("head_types", "PRE", "PER"), ("tail_types", "GENE", None)]
    assert TripleSelection().types_not_found([]) == []


def test_what_identifies_a_selection():
    assert TripleSelection(min_score=0.0).given() == {}
    one, same = TripleSelection(top_k=3, relations=["b", "a", "b"]), TripleSelection(top_k=3, relations=("a", "b"))
    assert one.given() == same.given() == {"top_k": 3, "relations": ["a", "b"]}


def test_a_model_that_relates_most_pairs_is_warned_of_once():
    pairs = [(head, tail) for head in range(11) for tail in range(11) if head != tail]
    half, most = ([Triple(*pair, 1, 1.0) for pair in pairs[:number]] for number in (55, 56))
    assert RelatedPairs().add(half, 110) is None
    assert RelatedPairs().add([*half, *half], 110) is None  # two relations of a pair are one related pair
    assert RelatedPairs().add([Triple(0, 1, 1, 1.0), Triple(1, 0, 1, 1.0)], 2) is None  # two pairs say nothing
    counter = RelatedPairs()
    assert counter.add(most, 110) and counter.add(most, 110) is None


# ------------------------------------------------------------------------------------------------------- the pipeline


@pytest.fixture(scope="module")
def system():
    config, processor = tiny_system(relation_names={"P17": "country"})
    return tiny_model(config), processor


@pytest.fixture(scope="module")
def documents():
    return [random_document(5, 30, seed=seed, title=f"Title {seed}") for seed in range(4)]


def test_the_pipeline_selects_and_counts(system, documents, caplog):
    plain = DocumentRelationExtractionPipeline(*system, device="cpu")
    chosen = DocumentRelationExtractionPipeline(*system, device="cpu", relations=["country"], top_k=2)
    left_out = 0
    for all_of_it, record in zip(plain(documents), chosen(documents, batch_size=2), strict=True):
        wanted = sorted((t for t in all_of_it["triples"] if t["relation"] == "P17"), key=lambda t: -t["score"])[:2]
        key = [(triple["head"], triple["tail"]) for triple in record["triples"]]
        assert key == sorted((triple["head"], triple["tail"]) for triple in wanted)
        assert all(triple["relation_name"] == "country" and triple["explanation"] for triple in record["triples"])
        number = len(all_of_it["triples"]) - len(wanted)
        assert (
            record["lost"].get("triples_not_selected", 0) == number and "triples_not_selected" not in all_of_it["lost"]
        )
        assert parse_record(record) is record
        left_out += number
    assert left_out
    caplog.clear()
    (best,) = chosen([documents[0]], top_k=1, head_types="PRE", relations="P27")
    assert best["triples"] == [] and "PRE" in caplog.text  # the call's own arguments win
    with pytest.raises(UnknownRelationError):
        plain(documents, relations="contry")


def test_the_pipeline_warns_of_a_model_that_relates_most_pairs(system, caplog):
    extractor = DocumentRelationExtractionPipeline(*system, device="cpu", threshold_offset=-1e4)
    extractor([random_document(12, 60, seed=1)], top_k=1)
    assert "132 of the first 132 pairs" in caplog.text


# -------------------------------------------------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def model(system, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    for part in system:
        part.save_pretrained(folder)
    return folder


@pytest.fixture
def predict(model, documents, tmp_path):
    source = tmp_path / "in.json"
    source.write_text(json.dumps(documents))

    def call(output, *flags):
        words = [
            "--model",
            model,
            "--input",
            source,
            "--format",
            "docred",
            "--output",
            tmp_path / output,
            "--device",
            "cpu",
        ]
        return comm_docre.main(["predict", *map(str, [*words, *flags])])

    return call


def test_flags_are_the_fields(capsys):
    flags = comm_docre.parser_of("predict")._option_string_actions
    for field in dataclasses.fields(TripleSelection):
        assert flags[f"--{field.name}"].default is None and flags[f"--{field.name}"].help
    assert flags["--output_format"].choices == OUTPUT_FORMATS


def test_the_command_selects_and_a_run_is_its_selection(predict, tmp_path, capsys):
    assert predict("all.jsonl") == 0 and predict("few.jsonl", "--relations", "country", "--top_k", "2") == 0
    everything, few = (
        [json.loads(line) for line in (tmp_path / name).open(encoding="utf-8")] for name in ("all.jsonl", "few.jsonl")
    )
    for record, chosen in zip(everything, few, strict=True):
        assert len(chosen["triples"]) <= 2 and {triple["relation"] for triple in chosen["triples"]} <= {"P17"}
        assert all(triple in record["triples"] for triple in chosen["triples"])
    counts = json.loads((tmp_path / "few.jsonl.settings.json").read_text())["counts"]
    assert counts["lost"]["triples_not_selected"] + counts["triples"] == sum(len(one["triples"]) for one in everything)
    before = (tmp_path / "few.jsonl").read_bytes()
    assert predict("few.jsonl", "--relations", "country", "--top_k", "2") == 0  # done
    assert predict("all.jsonl", "--min_score", "0") == 0  # leaves nothing out: the same run
    assert predict("few.jsonl", "--relations", "country") == 2
    assert (tmp_path / "few.jsonl").read_bytes() == before
    capsys.readouterr()
    assert predict("other.jsonl", "--tail_types", "PRE") == 0
    assert "PRE" in capsys.readouterr().err
    assert predict("wrong.jsonl", "--relations", "contry") == 2
    assert "'country'" in capsys.readouterr().err and not (tmp_path / "wrong.jsonl").exists()
    assert predict("wrong.jsonl", "--top_k", "0") == 2
    assert "--top_k is 0" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------------------- CSV

RECORD = {
    "version": 1,
    "id": "a",
    "title": "A",
    "text": 'Ada said "Oslo", twice.\nAda left.',
    "sentences": [[0, 23], [24, 33]],
    "entities": [
        {"name": "Ada", "type": "PER", "mentions": [{"start": 0, "end": 3, "sentence": 0}]},
        {"name": "Łódź\nNorth", "type": "LOC", "mentions": [{"start": 10, "end": 14, "sentence": 0}]},
    ],
    "triples": [
        {
            "head": 0,
            "tail": 1,
            "relation": "P19",
            "relation_name": "place of birth",
            "score": 0.75,
            "explanation": [{"sentence": 1, "weight": 0.75}, {"sentence": 0, "weight": 0.25}],
        }
    ],
    "lost": {},
}


def read_csv(content):
    return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))


def test_rows_of_a_table():
    (row,) = triple_rows(parse_record(RECORD))
    assert (
        tuple(row) == COLUMNS and row["sentences"] == 'Ada left. | Ada said "Oslo", twice.' and row["document"] == "a"
    )
    assert row["marked_by"] == "attention"
    (proven,) = triple_rows({**RECORD, "triples": [{**RECORD["triples"][0], "evidence": [0], "probability": 0.5}]})
    assert proven["sentences"] == 'Ada said "Oslo", twice.' and proven["probability"] == 0.5
    assert proven["marked_by"] == "evidence"
    (without,) = triple_rows({**RECORD, "triples": [{**RECORD["triples"][0], "explanation": []}]})
    assert (without["sentences"], without["marked_by"]) == ("", None)
    (read,) = read_csv(csv_header(COLUMNS) + csv_lines([RECORD]))
    assert read == {key: "" if value is None else str(value) for key, value in row.items()}


def test_csv_of_the_command(predict, tmp_path, capsysbinary):
    assert predict("all.jsonl") == 0 and predict("all.CSV") == 0
    records = [json.loads(line) for line in (tmp_path / "all.jsonl").open(encoding="utf-8")]
    content = (tmp_path / "all.CSV").read_bytes()
    expected = csv_header(COLUMNS) + csv_lines(records)
    assert content == expected and len(read_csv(content)) == sum(len(record["triples"]) for record in records)
    assert predict("all.CSV") == 0 and (tmp_path / "all.CSV").read_bytes() == content  # finished
    assert predict("none.csv", "--min_score", "0.999999") == 0
    assert (tmp_path / "none.csv").read_bytes() == csv_header(COLUMNS)  # a table without rows still names its columns
    assert predict("all.jsonl", "--output_format", "csv") == 2  # a file holds one form
    words = ["export", "--format", "csv", "--input", tmp_path / "all.jsonl", "--output"]
    assert comm_docre.main([*map(str, words), str(tmp_path / "made" / "table.csv")]) == 0
    assert (tmp_path / "made" / "table.csv").read_bytes() == content
    assert comm_docre.main([*map(str, words), str(tmp_path / "all.jsonl")]) == 2  # over its input
    assert predict("as_csv.txt", "--output_format", "csv") == 0
    assert (tmp_path / "as_csv.txt").read_bytes() == content


def test_an_interrupted_csv_has_one_header(predict, tmp_path, monkeypatch):
    assert predict("whole.csv", "--batch_size", "2") == 0
    calls, forward = [], DocumentRelationExtractionPipeline._forward

    def interrupted(self, *arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return forward(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(DocumentRelationExtractionPipeline, "_forward", interrupted)
        assert predict("again.csv", "--batch_size", "2") == 130
    part = (tmp_path / "again.csv").read_bytes()
    assert predict("again.csv", "--batch_size", "2") == 0
    whole = (tmp_path / "whole.csv").read_bytes()
    assert (
        (tmp_path / "again.csv").read_bytes() == whole
        and whole.startswith(part)
        and csv_header(COLUMNS) < part < whole
    )
