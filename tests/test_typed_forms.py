"""The typed dicts of documents, features, predictions and records say what the library reads and writes."""

import types
from typing import Union, get_args, get_origin, get_type_hints, is_typeddict

import pytest
from helpers import random_document, tiny_config, tiny_model, tiny_processor

from modeling_comm import DocumentRelationExtractionPipeline
from modeling_comm.decoding import TripleInWords
from modeling_comm.documents import Document, DocumentError, Fact, Mention, OfficialPrediction, validate_document
from modeling_comm.evaluation.type_prior import ScoredPrediction, TypePrior
from modeling_comm.features import DocumentFeatures, ModelInputs, no_document
from modeling_comm.prediction_record import PredictionRecord
from modeling_comm.text_to_document import TextEntity, text_from_document

DOCUMENT = random_document(entities=4, words=20, seed=1)


def faults(value, type_, where="value"):
    """Where a value does not have its type; nothing if it has."""
    if is_typeddict(type_):
        if missing := type_.__required_keys__ - set(value):
            yield f"{where} lacks {sorted(missing)}"
        hints = get_type_hints(type_)
        for key, one in value.items():
            yield from faults(one, hints[key], f"{where}[{key!r}]") if key in hints else [f"{where} has {key!r}"]
    elif get_origin(type_) is list and value is None:
        yield f"{where} is None"
    elif get_origin(type_) is list:
        for index, one in enumerate(value):
            yield from faults(one, get_args(type_)[0], f"{where}[{index}]")
    elif get_origin(type_) is dict:
        for key, one in value.items():
            yield from faults(one, get_args(type_)[1], f"{where}[{key!r}]")
    elif get_origin(type_) in (Union, types.UnionType):
        if all(list(faults(value, one)) for one in get_args(type_)):
            yield f"{where} is {value!r}"
    elif type(value) is not type_:
        yield f"{where} is {value!r}"


@pytest.fixture(scope="module")
def pipeline():
    config = tiny_config()
    return DocumentRelationExtractionPipeline(tiny_model(config), tiny_processor(config), threshold_offset=-10.0)


def test_documents():
    assert not list(faults(DOCUMENT, Document)) and DOCUMENT["labels"]
    assert list(faults({**DOCUMENT, "sents": [["Oslo"], [1]]}, Document)) == ["value['sents'][1][0] is 1"]
    assert list(faults({"title": "Oslo", "labls": []}, Document)) == [
        "value lacks ['sents', 'vertexSet']",
        "value has 'labls'",
    ]


@pytest.mark.parametrize(
    ("form", "place"),
    [
        (Document, lambda document: document),
        (Mention, lambda document: document["vertexSet"][0][0]),
        (Fact, lambda document: document["labels"][0]),
    ],
    ids=["document", "mention", "fact"],
)
def test_what_a_document_cannot_do_without_is_required(form, place):
    for key in form.__required_keys__:
        document = random_document(entities=4, words=20, seed=1)
        del place(document)[key]
        with pytest.raises(DocumentError) as error:
            validate_document(document)
        assert error.value.field.endswith(key)
    for key in form.__optional_keys__:
        document = random_document(entities=4, words=20, seed=1)
        place(document).pop(key, None)
        validate_document(document)


def test_features_and_inputs(pipeline):
    processor = pipeline.processor
    features = processor.encode([DOCUMENT])
    assert not list(faults(features, list[DocumentFeatures]))
    assert not list(faults(no_document(1, 2), DocumentFeatures))
    assert set(ModelInputs.__annotations__) == set(processor.model_input_names)
    # Every pair is asked about every relation.
    assert set(processor.collate(features)) == set(ModelInputs.__annotations__) - {"asked"}
    unlabelled = {key: value for key, value in DOCUMENT.items() if key != "labels"}
    assert set(processor.collate(processor.encode([unlabelled]))) == ModelInputs.__required_keys__


def test_predictions(pipeline):
    processor = pipeline.processor
    outputs = pipeline.model(**processor([DOCUMENT]))
    (triples,) = processor.post_process_relation_extraction(outputs, DOCUMENT, threshold_offset=-10.0)
    assert triples and not list(faults(triples, list[TripleInWords]))
    (predictions,) = processor.decide(outputs, [DOCUMENT], threshold_offset=-10.0)
    official = predictions.official("Oslo", processor.id2label)
    assert official and not list(faults(official, list[OfficialPrediction]))
    candidates = TypePrior([DOCUMENT]).scored([DOCUMENT])
    assert candidates and not list(faults(candidates, list[ScoredPrediction]))


def test_records_and_texts(pipeline):
    record = pipeline(DOCUMENT)
    assert record["triples"] and not list(faults(record, PredictionRecord))
    assert not list(faults(text_from_document(DOCUMENT).entities, list[TextEntity]))
