"""A training that cannot teach anything says so, and a record names no checkpoint that is gone."""

import shutil

import pytest
from helpers import LABELS, random_document, run_script, save_backbone, tiny_processor, tiny_system
from transformers import TrainerCallback

from dataset_scripts.builder import NoRelationsError
from modeling_comm import CommForDocumentRelationExtraction
from modeling_comm.training.batching import DocumentStream
from modeling_comm.training.checks import NothingToLearnError, check_learnable
from modeling_comm.training.encode_dataset import encode_dataset
from modeling_comm.training.trainer import CommTrainer
from modeling_comm.training.training_args import CommTrainingArguments
from modeling_comm.utils.files import read_json, write_json


def documents(number, entities=4):
    return [random_document(entities, seed=seed, title=f"Title {seed}") for seed in range(number)]


def without_facts(number):
    return [{**document, "labels": []} for document in documents(number)]


def of_one_entity(number):
    return [{**document, "vertexSet": document["vertexSet"][:1], "labels": []} for document in documents(number)]


def trainer(tmp_path, train, **arguments):
    config, processor = tiny_system("bert")
    arguments = {"max_steps": 1, "use_cpu": True, "report_to": "none", "disable_tqdm": True, **arguments}
    arguments = {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False, **arguments}
    arguments = CommTrainingArguments(output_dir=str(tmp_path / "output"), **arguments)
    return CommTrainer(CommForDocumentRelationExtraction(config), arguments, train, processing_class=processor)


@pytest.mark.parametrize(
    ("train", "missing"), [(without_facts, "facts"), (of_one_entity, "entity pairs")], ids=["facts", "pairs"]
)
def test_nothing_to_learn(tmp_path, train, missing):
    with pytest.raises(NothingToLearnError) as refused:
        trainer(tmp_path, train(3)).train()
    assert (refused.value.missing, refused.value.documents) == (missing, 3)


def test_a_document_of_one_entity_hides_no_lack_of_candidate_pairs():
    places = [random_document(2, seed=0, title="two places"), *of_one_entity(1)]
    for document in places:
        for mentions in document["vertexSet"]:
            mentions[0]["type"] = "LOC"
    processor = tiny_processor(candidate_pairs=[("PER", "ORG")])
    for needs_facts in (True, False):
        with pytest.raises(NothingToLearnError) as refused:
            check_learnable(encode_dataset(places, processor), LABELS, needs_facts)
        assert refused.value.missing == "candidate pairs"


def test_one_fact_is_enough(tmp_path, caplog):
    shown = without_facts(3)
    shown[1]["labels"] = documents(3)[1]["labels"][:1]
    with caplog.at_level("WARNING"):
        trainer(tmp_path, shown).train()
    relations = {*LABELS.values()} - {LABELS[0], shown[1]["labels"][0]["r"]}
    (told,) = (record for record in caplog.records if "no fact in the training" in record.getMessage())
    assert f"{len(relations)} of {len(LABELS) - 1}" in told.getMessage()
    assert all(relation in told.getMessage() for relation in relations)


@pytest.mark.parametrize("train", [documents, without_facts])
def test_a_stream_without_facts(tmp_path, caplog, train):
    with caplog.at_level("WARNING"):
        trainer(tmp_path, DocumentStream(train(3)), max_steps=2).train()
    assert ("had no fact" in caplog.text) == (train is without_facts)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("silent")
    save_backbone(folder / "encoder")
    return folder


def flags(work, train, *more):
    write_json(work / "train.json", train)
    own = ["--train_file", work / "train.json", "--cache_dir", work / "cache", "--use_cpu", "--report_to", "none"]
    return [*own, "--model_name_or_path", work / "encoder", "--emb_size", "16", "--block_size", "4", *more]


def unlabelled(number):
    return [{key: value for key, value in document.items() if key != "labels"} for document in documents(number)]


@pytest.mark.parametrize("train", [unlabelled, without_facts, documents])
def test_any_documents_can_be_described(work, tmp_path, capsys, train):
    run_script(*flags(work, train(3), "--describe_data", "--output_dir", tmp_path / "output"))
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["documents", "3"] in rows and any(row[:2] == ["subword", "tokens"] for row in rows)


def test_a_training_without_labels_or_relations_is_refused(work, tmp_path):
    for train in (unlabelled, without_facts):
        with pytest.raises(NoRelationsError):
            run_script(*flags(work, train(3), "--do_train", "--output_dir", tmp_path / "output"))
    write_json(work / "rel2id.json", {"Na": 0})
    with pytest.raises(NoRelationsError, match=r"rel2id\.json"):
        run_script(*flags(work, without_facts(3), "--do_train", "--data_dir", work, "--output_dir", tmp_path / "o"))
    (work / "rel2id.json").unlink()
    only_na = [{**document, "labels": [{"h": 0, "t": 1, "r": "Na"}]} for document in documents(3)]
    with pytest.raises(ValueError, match="'Na'"):
        run_script(*flags(work, only_na, "--do_train", "--output_dir", tmp_path / "output"))


class DeleteBest(TrainerCallback):
    """Deletes the best checkpoint once the last one is saved, as somebody who needs the place might."""

    def on_save(self, args, state, control, **kwargs):
        if state.global_step == state.max_steps:
            self.deleted = state.best_model_checkpoint
            shutil.rmtree(state.best_model_checkpoint)


def test_a_record_names_no_checkpoint_that_is_gone(work, tmp_path, monkeypatch, caplog):
    callback = DeleteBest()
    init = CommTrainer.__init__

    def with_callback(self, *arguments, **options):
        init(self, *arguments, **options)
        self.add_callback(callback)

    monkeypatch.setattr(CommTrainer, "__init__", with_callback)
    more = ["--validation_file", work / "train.json", "--do_train", "--max_steps", "4", "--save_total_limit", "9"]
    more += ["--eval_strategy", "steps", "--eval_steps", "2", "--save_strategy", "steps", "--save_steps", "2"]
    more += ["--output_dir", tmp_path / "output"]
    with caplog.at_level("WARNING"):
        run_script(*flags(work, documents(4), *more))
    assert f"{callback.deleted} is gone" in caplog.text
    assert read_json(tmp_path / "output" / "run.json")["best_checkpoint_step"] == 4
    assert read_json(tmp_path / "output" / "trainer_state.json")["best_model_checkpoint"] is None
