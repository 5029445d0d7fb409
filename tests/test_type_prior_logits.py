"""With a type prior, a model's logits start from what the types of head and tail say of each relation."""

import json
import math

import pytest
import torch
from helpers import logits_by_pair, random_document, run_script, save_backbone, tiny_model, tiny_system
from transformers import AutoProcessor, pipeline

from modeling_comm import SettingError
from modeling_comm.candidate_pairs import CandidatePairs
from modeling_comm.deployment.export import export_onnx
from modeling_comm.evidence_fusion import cut_documents
from modeling_comm.training.batching import DocumentStream
from modeling_comm.training.build_model import load_checkpoint
from modeling_comm.training.encode_dataset import encode_dataset, learn_relation_types
from modeling_comm.training.script_arguments import ModelArguments
from modeling_comm.type_counts import TypeCounts

LABELS = {0: "Na", 1: "P19", 2: "P26"}


def document(*types, labels=(), **fields):
    vertices = [[{"name": kind, "sent_id": 0, "pos": [at, at + 1], "type": kind}] for at, kind in enumerate(types)]
    labels = [{"h": head, "r": relation, "t": tail} for head, relation, tail in labels]
    return {"title": "A", "sents": [list(types)], "vertexSet": vertices, "labels": labels, **fields}


TRAINING = [
    document("PER", "LOC", "PER", labels=[(0, "P19", 1), (0, "P26", 2), (2, "P26", 0)]),
    document("PER", "LOC", labels=[(0, "P19", 1)], title="B"),
]
COUNTS = TypeCounts(
    {"LOC": {"PER": 3}, "PER": {"LOC": 3, "PER": 2}}, {"P19": {"PER": {"LOC": 2}}, "P26": {"PER": {"PER": 2}}}
)


def log_odds(facts, pairs, overall):
    rate = (facts + 10 * overall) / (pairs + 10)
    return math.log(rate / (1 - rate))


def test_counts():
    assert TypeCounts.of_documents(TRAINING) == COUNTS
    assert TypeCounts.of_setting(json.loads(json.dumps(COUNTS.to_dict()))) == COUNTS
    assert TypeCounts.of_documents([{**TRAINING[0], "labels": None}]) == TypeCounts({}, {}), "not labelled"
    untyped = TypeCounts.of_documents([{**TRAINING[0], "untyped_entities": [1]}])
    assert untyped == TypeCounts({"PER": {"PER": 2}}, {"P26": {"PER": {"PER": 2}}})
    twice = document("PER", "LOC", labels=[(0, "P19", 1), (0, "P19", 1)], ignored_pairs=[[1, 0]])
    assert TypeCounts.of_documents([twice]) == TypeCounts({"PER": {"LOC": 1}}, {"P19": {"PER": {"LOC": 1}}})


def test_counts_in_the_direction_that_is_asked_about():
    one = document("PER", "LOC", "PER", labels=[(1, "P20", 0), (2, "P26", 0)])
    symmetric = TypeCounts.of_documents([one], CandidatePairs(symmetric=["P26"], inverse={"P20": "P19"}))
    assert symmetric.facts == {"P19": {"PER": {"LOC": 1}}, "P26": {"PER": {"PER": 2}}}, (
        "a symmetric fact holds both ways"
    )
    undirected = TypeCounts.of_documents([one], CandidatePairs(directed=False))
    assert undirected.pairs == {"LOC": {"PER": 1}, "PER": {"LOC": 1, "PER": 1}}
    assert undirected.facts == {"P20": {"PER": {"LOC": 1}}, "P26": {"PER": {"PER": 1}}}


def test_log_odds_by_hand():
    found = COUNTS.log_odds(["P26", "P19", "P999"], [["PER", "LOC", "PER"], ["PER", None, "TIME"]], PAIRS)
    of_all = 2.5 / 9  # facts of P19, as of P26, among the eight pairs
    never = 0.5 / 9
    expected = [
        [0, log_odds(0, 3, of_all), log_odds(2, 3, of_all), log_odds(0, 3, never)],
        [0, log_odds(2, 2, of_all), log_odds(0, 2, of_all), log_odds(0, 2, never)],
        *[[0, *(log_odds(0, 0, rate) for rate in (of_all, of_all, never))]] * 2,
    ]
    torch.testing.assert_close(torch.from_numpy(found), torch.tensor(expected))


PAIRS = [[0, 0, 1], [0, 2, 0], [1, 0, 1], [1, 2, 0]]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pairs": {"PER": 3}, "facts": {}}, "TypeCounts: pairs"),
        ({"pairs": {"PER": {"LOC": -1}}, "facts": {}}, "TypeCounts: pairs"),
        ({"pairs": {}, "facts": {"P19": {"PER": {"LOC": 0.5}}}}, "TypeCounts: facts"),
        ({"pairs": {}}, r"type_counts is \{'pairs': \{\}\}; expected a mapping of \['facts', 'pairs'\]"),
    ],
)
def test_counts_that_do_not_fit(fields, message):
    with pytest.raises(SettingError, match=message.replace("TypeCounts: ", "TypeCounts.*")):
        TypeCounts.of_setting(fields)


def test_logits_are_the_text_s_and_the_types():
    config, processor = tiny_system(id2label=LABELS)
    model = tiny_model(config)
    documents = [random_document(5, seed=seed, labels=False) for seed in range(2)]
    plain = model(**processor(documents))
    counts = TypeCounts.of_documents([{**one, "labels": [{"h": 0, "r": "P19", "t": 1}]} for one in documents])
    with_prior = processor.with_settings(type_prior=True, type_counts=counts)
    batch = with_prior(documents)
    both = model(**batch)
    types = [[mentions[0]["type"] for mentions in one["vertexSet"]] for one in documents]
    odds = torch.from_numpy(counts.log_odds(["P19", "P26"], types, plain.pair_index.numpy()))
    torch.testing.assert_close(both.logits, plain.logits + odds)
    assert batch["type_odds"].dtype == torch.float32 and odds.std() > 0
    alone = logits_by_pair(model(**with_prior(documents[1:])))
    of_batch = logits_by_pair(both)
    assert all(torch.allclose(logits, of_batch[1, *pair[1:]], atol=1e-5) for pair, logits in alone.items())


def test_gradients_and_half_precision():
    config, processor = tiny_system(id2label=LABELS, type_prior=True, type_counts=COUNTS)
    model = tiny_model(config).train()
    labelled = {**random_document(4, labels=False), "labels": [{"h": 0, "r": "P19", "t": 1}]}
    model(**processor([labelled])).loss.backward()
    assert all(weight.grad is not None for weight in model.relation_encoder.parameters())
    half = tiny_model(config).to(torch.bfloat16)
    assert half(**processor([labelled])).logits.dtype == torch.bfloat16


def test_the_second_pass_knows_the_types():
    _, processor = tiny_system(id2label=LABELS, type_prior=True, type_counts=COUNTS)
    (features,) = processor.encode([random_document(4, seed=3, labels=False)])
    last = features["num_entities"] - 1
    sentences = list(range(4))
    (cut,) = cut_documents(features, [(0, last)], [sentences], processor)
    assert cut.features["entity_types"] == [features["entity_types"][entity] for entity in cut.entities]
    assert len(processor.collate([cut.features])["type_odds"]) == cut.features["num_entities"] * (
        cut.features["num_entities"] - 1
    )


def test_without_counts():
    config, processor = tiny_system(id2label=LABELS, type_prior=True)
    with pytest.raises(SettingError, match="type_counts is None; expected counts of training documents"):
        processor([random_document(3, labels=False)])
    with pytest.raises(SettingError, match="type_prior is 'yes'; expected true or false"):
        processor.with_settings(type_prior="yes")
    with pytest.raises(SettingError, match="type_prior is True; expected False: this graph has no input"):
        export_onnx(tiny_model(config), processor, "model.onnx")
    with pytest.raises(ValueError, match="type_prior is True, and the training documents are a stream"):
        learn_relation_types(processor, DocumentStream(TRAINING))


def test_training_further_keeps_the_counts():
    _, processor = tiny_system(id2label=LABELS, type_prior=True)
    learn_relation_types(processor, encode_dataset(TRAINING, processor))
    assert processor.type_counts == COUNTS
    learn_relation_types(processor, encode_dataset(TRAINING[1:], processor))
    assert processor.type_counts == COUNTS, "the weights were made for these"


def test_the_script_counts_keeps_and_predicts(tmp_path):
    documents = [random_document(4, seed=seed) for seed in range(3)]
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.json").write_text(json.dumps(documents), encoding="utf-8")
    folder = tmp_path / "out"
    encoder = save_backbone(tmp_path / "encoder")
    flags = ["--data_dir", tmp_path, "--model_name_or_path", encoder, "--use_cpu", "--max_steps", 1, "--emb_size", 16]
    flags += ["--block_size", 8, "--do_train", "--do_eval", "--do_predict", "--output_dir", folder]
    run_script(*flags, "--type_prior", "true")
    counts = TypeCounts.of_documents(documents)
    processor = AutoProcessor.from_pretrained(folder)
    assert processor.type_prior and processor.type_counts == counts
    assert "log-odds of relations by types" in (folder / "README.md").read_text(encoding="utf-8")
    extract = pipeline("document-relation-extraction", model=str(folder), threshold_offset=-100.0)
    outputs = extract.model(**processor(documents[:1]))
    (direct,) = processor.decide(outputs, documents[:1], threshold_offset=-100.0)
    found = {(one["head"], one["tail"], one["relation"]): one["score"] for one in extract(documents[0])["triples"]}
    assert len(found) == len(direct.triples) > 0
    for one in direct.in_words(documents[0], processor.id2label, {}):
        assert found[one["head"], one["tail"], one["relation"]] == pytest.approx(one["score"], abs=1e-4)
    _, other = load_checkpoint(ModelArguments(str(folder)), labels=["Na", "mine"], relation_names={})
    assert other.type_prior and other.type_counts is None
    with pytest.raises(
        ValueError, match="is a finished checkpoint, which decides on type_prior; leave these flags out"
    ):
        load_checkpoint(ModelArguments(str(folder), type_prior=False))
