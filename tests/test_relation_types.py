"""A relation is predicted between types of head and tail that it had in training, where a processor is held to them."""

import json

import numpy as np
import pytest
import torch
from helpers import ROOT, random_document, run_script, save_backbone, tiny_model, tiny_system
from transformers import AutoProcessor, pipeline

from dataset_scripts.builder import load_splits, to_document
from modeling_comm import CommProcessor, SettingError
from modeling_comm.candidate_pairs import CandidatePairs
from modeling_comm.decoding import DecisionSettings, Predictions
from modeling_comm.document_input import read_document_input
from modeling_comm.relation_types import RelationTypes, given_types
from modeling_comm.training.build_model import load_checkpoint
from modeling_comm.training.encode_dataset import encode_dataset, learn_relation_types
from modeling_comm.training.script_arguments import ModelArguments
from modeling_comm.training.trainer import CommTrainer
from modeling_comm.training.training_args import CommTrainingArguments

SAMPLE = ROOT / "examples" / "sample"
LABELS = {0: "Na", 1: "P19", 2: "P26", 3: "P50"}


def document(*types, labels=(), **fields):
    vertices = [[{"name": kind, "sent_id": 0, "pos": [at, at + 1], "type": kind}] for at, kind in enumerate(types)]
    labels = [{"h": head, "r": relation, "t": tail} for head, relation, tail in labels]
    return {"title": "A", "sents": [list(types)], "vertexSet": vertices, "labels": labels, **fields}


TRAINING = [
    document("PER", "LOC", "PER", labels=[(0, "P19", 1), (0, "P26", 2), (2, "P26", 0)]),
    {**document("MISC", "NUM"), "title": "B"},
]
SEEN = RelationTypes(("LOC", "MISC", "NUM", "PER"), {"P19": (("PER", "LOC"),), "P26": (("PER", "PER"),)})


def test_types_of_training_documents():
    assert RelationTypes.of_documents(TRAINING) == SEEN
    assert RelationTypes.of_documents([{**TRAINING[1], "labels": None}]).pairs == {}, "not labelled"
    assert RelationTypes.of_setting(json.loads(json.dumps(SEEN.to_dict()))) == SEEN
    more = RelationTypes.of_documents([document("MISC", "PER", labels=[(0, "P50", 1), (1, "P26", 0)])])
    assert SEEN.merged(None) == SEEN and SEEN.merged(more) == more.merged(SEEN)
    assert SEEN.merged(more).pairs["P26"] == (("PER", "MISC"), ("PER", "PER"))


def test_types_in_the_direction_that_is_asked_about():
    """A fact of training is not excluded, whichever way its label has it: inverse, symmetric, undirected."""
    labels = [(1, "P571", 0), (2, "P26", 0), (2, "P50", 1)]
    one = document("ORG", "TIME", "LOC", labels=labels, ignored_pairs=[[2, 1]])
    kept = {"P571": "P19"}  # the model knows the inverse alone
    candidates = CandidatePairs(candidate_pairs=[("ORG", "LOC"), ("ORG", "TIME")], symmetric=["P26"], inverse=kept)
    seen = RelationTypes.of_documents([one], candidates)
    assert seen.pairs == {"P19": (("ORG", "TIME"),), "P26": (("LOC", "ORG"), ("ORG", "LOC"))}
    both = (("ORG", "TIME"), ("TIME", "ORG"))  # undirected data asks about the entity that is first in the document
    assert RelationTypes.of_documents([one], CandidatePairs(directed=False)).pairs["P571"] == both


def excluded(one):
    pairs = np.array([[0, head, tail] for head in range(4) for tail in range(4) if head != tail])
    mask = SEEN.excluded([one], pairs, LABELS)
    assert mask.shape == (12, 3) and mask.dtype == bool
    return {
        (*pair[1:], LABELS[column + 1])
        for pair, row in zip(pairs.tolist(), mask, strict=True)
        for column in np.flatnonzero(row)
    }


def test_what_is_excluded():
    found = excluded(document("PER", "LOC", "PER", "NUM"))
    pairs = {(head, tail) for head in range(4) for tail in range(4) if head != tail}
    expected = {(*pair, "P19") for pair in pairs - {(0, 1), (2, 1)}} | {
        (*pair, "P26") for pair in pairs - {(0, 2), (2, 0)}
    }
    assert found == expected, "of P50 nothing is known"


def test_of_unknown_types_nothing_is_excluded():
    assert not {one for one in excluded(document("PER", "SHIP", "PER", "NUM")) if 1 in one[:2]}, "no type of training"
    untyped = document("PER", "LOC", "PER", "NUM", untyped_entities=[1])
    assert given_types(untyped) == ["PER", None, "PER", "NUM"]
    assert not {one for one in excluded(untyped) if 1 in one[:2]}
    assert {one for one in excluded(untyped) if 1 not in one[:2]}


@pytest.mark.parametrize(
    "given",
    [
        {
            "text": "Ada met Bo.",
            "entities": [
                {"mentions": [{"start": 0, "end": 3}]},
                {"type": "PER", "mentions": [{"start": 8, "end": 10}]},
            ],
        },
        {"text": "Ada met Bo.", "mentions": [{"start": 0, "end": 3}, {"start": 8, "end": 10, "type": "PER"}]},
        {
            "sents": [["Ada", "met", "Bo", "."]],
            "vertexSet": [[{"sent_id": 0, "pos": [0, 1]}], [{"sent_id": 0, "pos": [2, 3], "type": "PER"}]],
        },
    ],
)
def test_inputs_say_which_entities_have_no_type(given):
    read = read_document_input(given)
    assert [entity["type"] for entity in read.entities] == ["MISC", "PER"]
    assert given_types(read.document) == [None, "PER"]


def test_decisions_leave_out_and_count_what_is_excluded():
    logits, pairs = torch.tensor([[0.0, 1.0, 3.0, 2.0], [0.0, 2.0, -1.0, -2.0]]), torch.tensor([[0, 1], [1, 0]])
    mask = np.array([[False, True, False], [True, True, False]])
    found = Predictions.from_logits(logits, pairs, DecisionSettings(), mask)
    assert [triple[:3] for triple in found.triples] == [(0, 1, 1), (0, 1, 3)] and found.removed_by_types == 2
    again = found.at_offset(-1.5)
    assert [triple[:3] for triple in again.triples] == [(0, 1, 1), (0, 1, 3)] and again.removed_by_types == 3
    capped = Predictions.from_logits(logits, pairs, DecisionSettings("th", 0.0, 1), mask)
    assert [triple[:3] for triple in capped.triples] == [(0, 1, 3)], "the best one that is allowed"
    assert (capped.removed_by_types, capped.removed_by_cap) == (2, 1)


@pytest.mark.parametrize(
    "value",
    [{}, {"types": ["PER"]}, {"types": "PER", "pairs": {}}, {"types": ["PER"], "pairs": {"P26": [["PER", "LOC"]]}}],
)
def test_wrong_types_are_refused(value):
    with pytest.raises(SettingError):
        DecisionSettings(relation_types=value)


def test_a_constraint_needs_types(caplog):
    with pytest.raises(SettingError, match="type_constraint"):
        DecisionSettings(type_constraint="soft")
    config, processor = tiny_system(id2label=LABELS)
    extract = pipeline("document-relation-extraction", model=tiny_model(config), processor=processor)
    with pytest.raises(SettingError, match="trained without a type_constraint"):
        extract({"text": "Ada"}, type_constraint="hard", ner=lambda text: [])


def test_a_checkpoint_keeps_the_types_and_an_old_one_has_none(tmp_path):
    _, processor = tiny_system(id2label=LABELS, type_constraint="hard", relation_types=SEEN)
    processor.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "processor_config.json").read_text(encoding="utf-8"))
    assert saved["type_constraint"] == "hard" and saved["relation_types"] == SEEN.to_dict()
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert loaded.decision.relation_types == SEEN and loaded.decision.type_constraint == "hard"
    other = CommProcessor.from_pretrained(tmp_path, id2label={0: "Na", 1: "P26"})
    assert other.decision.relation_types is None, "made for other relations"
    for name in ("type_constraint", "relation_types"):
        del saved[name]
    (tmp_path / "processor_config.json").write_text(json.dumps(saved), encoding="utf-8")
    old = AutoProcessor.from_pretrained(tmp_path)
    assert old.decision.type_constraint == "none" and old.decision.relation_types is None


def test_a_pipeline_leaves_them_out_and_says_so():
    config, processor = tiny_system(id2label=LABELS, type_constraint="hard", relation_types=SEEN)
    extract = pipeline("document-relation-extraction", model=tiny_model(config), processor=processor)
    given = {
        "text": "Ada was in Rome.",
        "mentions": [{"start": 0, "end": 3, "type": "PER"}, {"start": 11, "end": 15, "type": "LOC"}],
    }
    everything = extract(given, threshold_offset=-100.0, type_constraint="none")
    assert len(everything["triples"]) == 6 and not everything["lost"]
    held = extract(given, threshold_offset=-100.0)
    found = {(triple["head"], triple["relation"], triple["tail"]) for triple in held["triples"]}
    assert found == {(0, "P19", 1), (0, "P50", 1), (1, "P50", 0)}
    assert held["lost"] == {"relations_of_other_types": 3}
    del given["mentions"][1]["type"]
    assert len(extract(given, threshold_offset=-100.0)["triples"]) == 6, "nothing is known of a place without a type"


def make_trainer(folder, documents, **settings):
    config, processor = tiny_system(id2label=LABELS, type_constraint="hard", **settings)
    arguments = CommTrainingArguments(str(folder), use_cpu=True, max_steps=1, report_to="none", disable_tqdm=True)
    arguments.set_save("no")
    arguments.set_evaluate("no")
    arguments.load_best_model_at_end = False
    return CommTrainer(
        tiny_model(config), arguments, train_dataset=documents, eval_dataset=TRAINING, processing_class=processor
    )


def test_training_learns_the_types_and_scores_with_them(tmp_path):
    earlier = RelationTypes(("MISC", "PER"), {"P50": (("MISC", "PER"),)})
    trainer = make_trainer(tmp_path, TRAINING, relation_types=earlier)
    trainer.train()
    decision = trainer.processing_class.decision
    assert decision.relation_types == SEEN.merged(earlier)
    everything = [document("LOC", "PER", "MISC", labels=[(0, "P19", 1), (1, "P19", 0)])]
    decision.threshold_offset = -100.0
    metrics = trainer.evaluate(everything)
    assert metrics["eval_predicted_positives"] == 2 and metrics["eval_removed_by_types"] == 16
    assert metrics["eval_recall"] == 0.5, "the other fact is out of reach"
    assert metrics["eval_average_precision"] <= 0.5
    assert trainer.tune_threshold_offset(everything) == decision.threshold_offset > -100.0
    decision.type_constraint = "none"
    assert "eval_removed_by_types" not in trainer.evaluate(everything)


def test_entities_without_a_type_stay_so_in_a_data_set(tmp_path):
    documents = [
        document("PER", "MISC", "LOC", labels=[(0, "P19", 1), (0, "P26", 2)], untyped_entities=[1]),
        TRAINING[0],
    ]
    (tmp_path / "train.json").write_text(json.dumps(documents), encoding="utf-8")
    files = {"train": str(tmp_path / "train.json")}
    rows = load_splits("local", data_files=files, cache_dir=str(tmp_path / "cache"))["train"]
    assert list(map(to_document, rows)) == documents
    _, processor = tiny_system(id2label=LABELS, type_constraint="hard")
    learn_relation_types(processor, encode_dataset(rows, processor))
    assert processor.decision.relation_types == RelationTypes.of_documents(documents)
    assert "MISC" not in processor.decision.relation_types.types


def test_documents_without_labels_or_in_a_stream(tmp_path):
    from modeling_comm.training.batching import DocumentStream

    trainer = make_trainer(tmp_path, DocumentStream(TRAINING))
    with pytest.raises(ValueError, match="type_constraint is 'hard', and the training documents are a stream"):
        trainer.train()


def test_the_script_learns_keeps_and_reports(tmp_path, capsys):
    documents = [random_document(4, seed=seed) for seed in range(3)]
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.json").write_text(json.dumps(documents), encoding="utf-8")
    flags = [
        "--data_dir",
        tmp_path,
        "--model_name_or_path",
        save_backbone(tmp_path / "encoder"),
        "--use_cpu",
        "--max_steps",
        1,
    ]
    flags += [
        "--emb_size",
        16,
        "--block_size",
        8,
        "--do_train",
        "--do_eval",
        "--do_predict",
        "--output_dir",
        tmp_path / "out",
    ]
    (metrics,) = run_script(*flags, "--type_constraint", "hard")
    assert {"eval_removed_by_types", "test_removed_by_types"} <= set(metrics)
    saved = json.loads((tmp_path / "out" / "processor_config.json").read_text(encoding="utf-8"))
    assert RelationTypes.of_setting(saved["relation_types"]) == RelationTypes.of_documents(documents)
    assert "Types of head and tail" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    arguments = ModelArguments(str(tmp_path / "out"))
    _, processor = load_checkpoint(arguments, labels=["Na", "mine"], relation_names={})
    assert processor.decision.relation_types is None and processor.decision.type_constraint == "hard"
