"""spaCy: `nlp.add_pipe("comm_docre")` predicts what this library's pipeline does; its relations are saved with the document."""

import configparser
import importlib
import os
import subprocess
import sys

import pytest
from helpers import ROOT, tiny_model, tiny_system
from transformers import pipeline

pytest.importorskip("spacy", reason='needs spaCy: pip install -e ".[text]"')

import spacy
from spacy.tokens import Doc, DocBin

from modeling_comm.documents import DocumentError, validate_document
from modeling_comm.formats import ImportReport, MarkedTextOptions, read_documents
from modeling_comm.formats.spacy_docs import documents_of_docs
from modeling_comm.integrations.spacy_component import RelationComponent, SpacyRelation

TEXTS = [
    "Anna was born in Oslo. The town is near the river Nile.",
    "東京 and 😀 Lima are old.\nOmar left Lima in 1945.",
    "Nothing here.",
    "Ivan wrote to Lena near the Thames. Ivan died in Cairo.",
]
PATTERNS = {
    "PERSON": ("Anna", "Omar", "Ivan", "Lena"),
    "GPE": ("Oslo", "東京", "Lima", "Cairo"),
    "LOC": ("Nile", "Thames"),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spacy") / "model"
    config, processor = tiny_system(window_size=64)
    for part in (tiny_model(config), processor):
        part.save_pretrained(folder)
    return str(folder)


def make_nlp(model, **config):
    nlp = spacy.blank("xx")
    nlp.add_pipe("sentencizer")
    ruler = nlp.add_pipe("entity_ruler")
    ruler.add_patterns([{"label": label, "pattern": word} for label, words in PATTERNS.items() for word in words])
    nlp.add_pipe("comm_docre", config={"model": model, "device": "cpu", **config})
    return nlp


@pytest.fixture(scope="module")
def nlp(model):
    return make_nlp(model, batch_size=2)


def in_words(doc):
    return [(r.head.name, r.relation, r.tail.name, round(r.score, 5)) for r in doc._.relations]


def test_relations_are_those_of_the_pipeline(nlp, model):
    extractor = pipeline("document-relation-extraction", model=model, device="cpu")
    docs = [nlp(text) for text in TEXTS]
    for doc in docs:
        with nlp.select_pipes(disable="comm_docre"):
            record = extractor(nlp(doc.text))
        names = [entity["name"] for entity in record["entities"]]
        expected = [
            (names[t["head"]], t["relation"], names[t["tail"]], round(t["score"], 5)) for t in record["triples"]
        ]
        assert in_words(doc) == expected
    assert sum(len(doc._.relations) for doc in docs) > 10 and docs[2]._.relations == []
    # In batches, too, whatever spaCy's own batches are.
    for options in ({}, {"batch_size": 1}):
        piped = list(nlp.pipe(iter(TEXTS * 5), **options))
        assert [doc.text for doc in piped] == TEXTS * 5
        assert list(map(in_words, piped)) == list(map(in_words, docs)) * 5


def test_a_relation_points_into_the_document(nlp):
    doc = nlp(TEXTS[1])
    relation = doc._.relations[0]
    assert isinstance(relation, SpacyRelation)
    for entity in (relation.head, relation.tail):
        assert {span.doc for span in entity.mentions} == {doc} and entity.name in {s.text for s in entity.mentions}
        assert {span.label_ for span in entity.mentions} == {entity.type}
    lima = next(e for r in doc._.relations for e in (r.head, r.tail) if e.name == "Lima")
    assert [span.text for span in lima.mentions] == ["Lima", "Lima"]
    assert {span.text for span, _ in relation.explanation} <= {sent.text.strip() for sent in doc.sents}
    assert relation.evidence == []
    assert sum(weight for _, weight in relation.explanation) == pytest.approx(1)


def test_relations_are_saved_with_the_document(nlp, tmp_path):
    docs = list(nlp.pipe(TEXTS))
    for again in (
        Doc(nlp.vocab).from_bytes(docs[0].to_bytes()),
        next(DocBin(store_user_data=True, docs=docs[:1]).get_docs(nlp.vocab)),
    ):
        assert in_words(again) == in_words(docs[0]) != []
    DocBin(store_user_data=True, docs=docs).to_disk(tmp_path / "docs.spacy")
    docs[0].to_disk(tmp_path / "doc")
    assert in_words(Doc(nlp.vocab).from_disk(tmp_path / "doc")) == in_words(docs[0])
    # A program without the pipeline needs the import alone.
    code = """
import sys, spacy
from spacy.tokens import DocBin
import modeling_comm.integrations.spacy_component
docs = DocBin().from_disk(sys.argv[1]).get_docs(spacy.blank("xx").vocab)
print(sum(len(doc._.relations) for doc in docs))
"""
    command = [sys.executable, "-c", code, str(tmp_path / "docs.spacy")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert int(found.stdout) == sum(len(doc._.relations) for doc in docs)
    # They become documents in DocRED's format.
    report = ImportReport()
    documents = list(read_documents(tmp_path / "docs.spacy", None, report))
    assert report.facts == sum(len(doc._.relations) for doc in docs) and not report.dropped
    assert documents_of_docs(docs) == documents
    for doc, document in zip(docs, documents, strict=True):
        validate_document(document)
        names = [mentions[0]["name"] for mentions in document["vertexSet"]]
        found = sorted((names[label["h"]], label["r"], names[label["t"]]) for label in document["labels"])
        assert found == sorted((head, relation, tail) for head, relation, tail, _ in in_words(doc))
        assert len(document["sents"]) == len(list(doc.sents))


def test_the_pipeline_of_spacy_is_saved_and_loaded(nlp, tmp_path):
    nlp.to_disk(tmp_path / "nlp")
    again = spacy.load(tmp_path / "nlp")
    assert in_words(again(TEXTS[0])) == in_words(nlp(TEXTS[0]))
    assert again.get_pipe_meta("comm_docre").assigns[0] == "doc._.relations"


def test_settings(model):
    nlp = make_nlp(model, top_k=2, max_sentences=0, relations=["P17", "P27"], min_score=0.1)
    relations = nlp(TEXTS[0])._.relations
    assert len(relations) == 2 and {r.relation for r in relations} <= {"P17", "P27"}
    assert all(r.explanation == [] for r in relations)


def test_what_is_wrong_is_said(model):
    with pytest.raises(ValueError, match="found no model"):
        spacy.blank("en").add_pipe("comm_docre")
    nlp = spacy.blank("en")
    nlp.add_pipe("comm_docre", config={"model": model, "device": "cpu"})
    with pytest.raises(DocumentError, match="entities"):
        nlp(TEXTS[0])  # no component has looked for entities
    failed = []
    nlp = make_nlp(model)
    nlp.set_error_handler(lambda name, component, docs, error: failed.extend(docs))
    docs = [nlp.make_doc(text) for text in TEXTS]
    good = [nlp.get_pipe("entity_ruler")(nlp.get_pipe("sentencizer")(doc)) for doc in docs[:1]]
    component = nlp.get_pipe("comm_docre")
    assert isinstance(component, RelationComponent)
    assert list(component.pipe([docs[1], *good, docs[3]])) == good and failed == [docs[1], docs[3]]
    assert good[0]._.relations


@pytest.mark.parametrize(
    "setting",
    [{"batch_size": 0}, {"min_score": 2.0}, {"top_k": 0}, {"relations": ["nonsense"]}, {"max_sentences": -1}],
)
def test_wrong_settings_are_said_before_the_first_document(model, setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        make_nlp(model, **setting)


def test_spacy_finds_the_component_by_its_entry_point():
    """As `pip install` registers it."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    name, _, target = setup["options.entry_points"]["spacy_factories"].strip().partition(" = ")
    module, _, function = target.partition(":")
    assert name == "comm_docre" and callable(getattr(importlib.import_module(module), function))


def test_documents_of_docs():
    nlp = spacy.blank("en")
    doc = nlp("Ada Vale met Bo. She left Oslo.")
    doc.ents = [
        doc.char_span(0, 8, label="PERSON"),
        doc.char_span(13, 15, label="PERSON"),
        doc.char_span(26, 30, label="GPE"),
    ]
    doc.spans["coref_clusters_1"] = [doc[0:2], doc[5:6]]
    Doc.set_extension("rel", default={}, force=True)
    doc._.rel = {(0, 3): {"met": 1.0, "left": 0.0}, (5, 7): {"left": 0.7}, (3, 7): {"left": 0.2}}
    doc.user_data["title"] = "Vale"
    (document,) = documents_of_docs([doc])
    assert document["title"] == "Vale"
    assert [[m["name"] for m in mentions] for mentions in document["vertexSet"]] == [
        ["Ada Vale", "She"],
        ["Bo"],
        ["Oslo"],
    ]
    assert [(label["h"], label["r"], label["t"]) for label in document["labels"]] == [(0, "met", 1), (0, "left", 2)]


def test_what_is_no_docbin_is_named(tmp_path):
    (tmp_path / "wrong.spacy").write_bytes(b"no DocBin")
    with pytest.raises(ValueError, match=r"wrong\.spacy"):
        list(read_documents(tmp_path / "wrong.spacy", options=MarkedTextOptions()))
