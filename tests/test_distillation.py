"""Knowledge distillation: a teacher's logits on disk, found again by the identity of their documents, and students that learn
from them."""

import copy
import itertools
import json
import multiprocessing
import os
import pickle
import random
import re
import shutil
import signal
import socket

import datasets
import numpy as np
import pytest
import torch
from helpers import KillAt, random_document, small_encoder, tiny_model, tiny_system
from transformers import TrainerCallback

from dataset_scripts.builder import FEATURES, load_splits
from modeling_comm import available_relation_encoders
from modeling_comm.documents import DocumentError
from modeling_comm.features import encoding_report, without_relations
from modeling_comm.training.batching import DocumentStream
from modeling_comm.training.distillation import (
    DistillationTrainer,
    TeacherLogits,
    distillation_loss,
    document_key,
    finish_teacher_logits,
    predict_teacher_logits,
)
from modeling_comm.training.trainer import CommTrainer
from modeling_comm.training.training_args import CommTrainingArguments
from modeling_comm.utils.unchanged import SettingsChangedError

ENCODERS = available_relation_encoders()
NO_DROPOUT = {"attention_probs_dropout_prob": 0.0, "hidden_dropout_prob": 0.0}
# One window and many, without an entity and without a pair.
WORDS = {0: 40, 2: 8, 5: 90}
DOCUMENTS = [
    random_document(entities, WORDS.get(index, 25), seed=index)
    for index, entities in enumerate((4, 0, 3, 2, 1, 5, 3, 4, 6, 2, 3))
]
FEW = DOCUMENTS[:5]


# Python 3.12 warns of every fork beside threads, and the tokenizers library has some.
may_fork = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def make_system(encoder="atlop", seed=0, **fields):
    """A model whose logits differ from pair to pair, and its processor."""
    config, processor = tiny_system(text_fields=NO_DROPOUT, **small_encoder(encoder), **fields)
    return tiny_model(config, seed), processor


def label(folder, documents=DOCUMENTS, system=None, record=None, **settings):
    """Labels documents and returns the folder."""
    number = predict_teacher_logits(*(system or make_system()), documents, folder, **{"shard_size": 4, **settings})
    finish_teacher_logits(folder, number, record)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return label(tmp_path_factory.mktemp("teacher") / "logits")


@pytest.fixture(scope="module")
def teacher(folder):
    return TeacherLogits(folder)


def as_rows(documents):
    rows = [{**dict.fromkeys(FEATURES), **one, "has_labels": "labels" in one} for one in documents]
    return datasets.Dataset.from_list(rows, features=FEATURES)


def stored(folder, documents=DOCUMENTS):
    """The content of a folder for each document."""
    logits = TeacherLogits(folder)
    return [logits[logits.position(document)] for document in documents]


def alone(model, processor, document):
    """The model's logits of one document in a batch of its own."""
    with torch.no_grad():
        return model(**processor(document)).logits


def contents(folder):
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


# -------------------------------------------------------------------------------------------------------------- identity


def test_identity_of_a_document_whatever_holds_it(tmp_path):
    (tmp_path / "train.json").write_text(json.dumps(DOCUMENTS))
    stream = load_splits("local", data_files={"train": str(tmp_path / "train.json")}, streaming=True)["train"]
    keys = [document_key(document) for document in DOCUMENTS]
    assert [document_key(row) for row in as_rows(DOCUMENTS)] == keys
    assert [document_key(row) for row in stream] == keys
    assert len(set(keys)) == len(DOCUMENTS) and {len(key) for key in keys} == {32}


def test_labels_do_not_matter_to_identity():
    document = DOCUMENTS[0]
    bare = {key: value for key, value in document.items() if key != "labels"}
    mention = {**document["vertexSet"][0][0], "global_pos": [3], "index": "0_0"}  # as Re-DocRED has them
    more = {**document, "vertexSet": [[mention, *document["vertexSet"][0][1:]], *document["vertexSet"][1:]]}
    assert document_key(document) == document_key(bare) == document_key({**document, "labels": []})
    assert document_key(more) == document_key(document)


def rename(document):
    document["title"] += " "


def other_token(document):
    document["sents"][1][2] += "x"


def other_sentences(document):
    document["sents"][:2] = [[*document["sents"][0], document["sents"][1][0]], document["sents"][1][1:]]


def other_name(document):
    document["vertexSet"][1][0]["name"] = "Somebody"


def other_type(document):
    document["vertexSet"][1][0]["type"] = "-"


def other_place(document):
    document["vertexSet"][1][0]["pos"] = [0, 3]


def other_sentence(document):
    document["vertexSet"][1][0]["sent_id"] = (document["vertexSet"][1][0]["sent_id"] + 1) % len(document["sents"])


def other_order(document):
    document["vertexSet"].reverse()


def split_entity(document):
    document["vertexSet"].append([copy.deepcopy(document["vertexSet"][0][0])])


@pytest.mark.parametrize(
    "change",
    [
        *(rename, other_token, other_sentences, other_name, other_type),
        *(other_place, other_sentence, other_order, split_entity),
    ],
)
def test_identity_changes_with_all_that_a_teacher_reads(teacher, change):
    document = copy.deepcopy(DOCUMENTS[0])
    change(document)
    assert document_key(document) != document_key(DOCUMENTS[0])
    with pytest.raises(ValueError, match=re.escape(repr(document["title"]))):
        teacher.position(document)


# -------------------------------------------------------------------------------------------------------------- labelling


@pytest.mark.parametrize("encoder", ENCODERS)
def test_stored_logits_are_the_teachers(tmp_path, encoder):
    model, processor = make_system(encoder)
    found = stored(label(tmp_path, system=(model, processor), batch_size=4))
    model.eval()
    for document, logits in zip(DOCUMENTS, found, strict=True):
        expected = alone(model, processor, document)
        assert logits.dtype == torch.float16
        assert len(logits) == len(list(itertools.permutations(document["vertexSet"], 2)))
        torch.testing.assert_close(logits.float(), expected, rtol=2e-3, atol=1e-4, msg=document["title"])
    assert torch.cat(found).float().std(0).min() > 0.01, "pairs alike would show nothing"
    assert max(len(processor.window_spans(len(one["input_ids"]))) for one in processor.encode(DOCUMENTS)) > 3


def test_stored_logits_of_documents_cut_off(tmp_path):
    model, processor = make_system()
    found = stored(label(tmp_path, system=(model, processor), max_length=20))
    for document, logits in zip(DOCUMENTS, found, strict=True):
        with torch.no_grad():
            expected = model(**processor(document, max_length=20)).logits
        torch.testing.assert_close(logits.float(), expected, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 8])
@pytest.mark.parametrize("shard_size", [1, 3, 500])
def test_stored_logits_do_not_depend_on_batches_and_shards(tmp_path, folder, batch_size, shard_size):
    found = stored(label(tmp_path / "again", batch_size=batch_size, shard_size=shard_size))
    for logits, expected in zip(found, stored(folder), strict=True):
        torch.testing.assert_close(logits, expected, rtol=2e-3, atol=1e-4)
    assert len(list(tmp_path.glob("again/*.safetensors"))) == -(-len(DOCUMENTS) // shard_size)


def test_a_model_in_training_labels_without_dropout_and_learns_nothing(tmp_path, folder):
    config, processor = tiny_system(**small_encoder("atlop"))
    assert config.text_config.hidden_dropout_prob > 0
    found = stored(label(tmp_path, system=(tiny_model(config).train(), processor)))
    for logits, expected in zip(found, stored(folder), strict=True):
        assert torch.equal(logits, expected)


def test_labels_and_unknown_relations_are_not_looked_at(tmp_path, folder):
    others = [{**one, "labels": [{"h": 0, "t": 1, "r": "P9999"}]} for one in DOCUMENTS]
    assert contents(label(tmp_path / "others", others)).keys() == contents(folder).keys()
    for logits, expected in zip(stored(tmp_path / "others"), stored(folder), strict=True):
        assert torch.equal(logits, expected)


def test_documents_are_read_when_they_are_needed(tmp_path):
    read, done = 0, []

    def documents():
        nonlocal read
        for document in DOCUMENTS:
            done.append(len(list(tmp_path.glob("*.safetensors"))))
            read += 1
            yield document

    assert predict_teacher_logits(*make_system(), documents(), tmp_path, shard_size=3) == read == len(DOCUMENTS)
    assert done == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3]


@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_several_processes_write_what_one_writes(tmp_path, folder, world_size):
    for rank in reversed(range(world_size)):  # in any order
        before = set(tmp_path.glob("*.safetensors"))
        number = predict_teacher_logits(
            *make_system(), DOCUMENTS, tmp_path, shard_size=4, rank=rank, world_size=world_size
        )
        own = {path.name for path in set(tmp_path.glob("*.safetensors")) - before}
        assert own == {f"logits-{index:05d}.safetensors" for index in range(rank, 3, world_size)}
        assert number == len(DOCUMENTS)
    finish_teacher_logits(tmp_path, number)
    together, one = contents(tmp_path), contents(folder)
    assert {name: content for name, (content, _) in together.items()} == {
        name: content for name, (content, _) in one.items()
    }


@pytest.mark.parametrize("factor", [float("nan"), float("inf"), 1e6])
def test_logits_that_cannot_be_stored(tmp_path, factor):
    model, processor = make_system()

    def spoil(module, inputs, logits):
        third = inputs[0].pair_index[:, 0] == 2
        return torch.where(third[:, None], logits * factor, logits)

    model.relation_encoder.register_forward_hook(spoil)
    with pytest.raises(FloatingPointError, match="Document 6"):
        predict_teacher_logits(model, processor, [DOCUMENTS[2], DOCUMENTS[3], DOCUMENTS[6]], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["teacher.json"]


def test_processor_of_another_model(tmp_path):
    (model, _), (_, processor) = make_system(), make_system(id2label={0: "Na", 1: "P17"})
    with pytest.raises(ValueError, match="id2label"):
        predict_teacher_logits(model, processor, DOCUMENTS, tmp_path)


def test_bad_document_is_named(tmp_path):
    bad = {**DOCUMENTS[1], "sents": []}
    with pytest.raises(DocumentError) as caught:
        predict_teacher_logits(*make_system(), [DOCUMENTS[0], bad], tmp_path)
    assert (caught.value.title, caught.value.field, caught.value.found) == ("Document 1", "sents", "[]")


def test_settings_of_a_finished_folder(tmp_path):
    model, processor = make_system()
    label(tmp_path, system=(model, processor), max_length=30, record={"command": "x"})
    settings = json.loads((tmp_path / "teacher.json").read_text())
    assert TeacherLogits(tmp_path).settings == settings
    assert settings["labels"] == ["Na", "P17", "P27", "P131", "P569"]
    assert settings["decision_threshold"] == "th"
    assert settings["documents"] == len(TeacherLogits(tmp_path)) == len(DOCUMENTS)
    assert settings["record"] == {"command": "x"}
    assert settings["encoding"] == encoding_report(processor.encode(DOCUMENTS, max_length=30))
    assert settings["encoding"]["lost_entities"] > 0


# ------------------------------------------------------------------------------------------------------- after an interruption


def interrupted(documents, end):
    """Documents until the reading process is killed, or until reading fails."""
    yield from documents[:10]
    end()


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def fail():
    raise OSError("the disk is gone")


def label_and_end(folder, end):
    torch.set_num_threads(1)
    predict_teacher_logits(*make_system(), interrupted(DOCUMENTS, end), folder, shard_size=4)


@may_fork
@pytest.mark.parametrize("end", [kill, fail])
def test_labelling_resumes_where_it_ended(tmp_path, folder, end, monkeypatch):
    if end is kill:
        process = multiprocessing.get_context("fork").Process(target=label_and_end, args=(tmp_path, kill))
        process.start()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
    else:
        with pytest.raises(OSError, match="the disk is gone"):
            label_and_end(tmp_path, fail)
    before = contents(tmp_path)
    assert sorted(before) == ["logits-00000.safetensors", "logits-00001.safetensors", "teacher.json"]
    with pytest.raises(ValueError, match="--do_predict_teacher"):
        TeacherLogits(tmp_path)
    (tmp_path / f"_logits-00002.safetensors.{16 * '0'}.unfinished").write_bytes(b"half a shard")
    model, processor = make_system()
    labelled = []
    encode = type(processor).encode
    monkeypatch.setattr(
        type(processor), "encode", lambda self, some, **rest: labelled.extend(some) or encode(self, some, **rest)
    )
    label(tmp_path, system=(model, processor))
    assert [one["title"] for one in labelled] == [one["title"] for one in DOCUMENTS[8:]], "the rest alone"
    after = contents(tmp_path)
    assert all(after[name] == before[name] for name in before if name.startswith("logits"))
    assert {name: content for name, (content, _) in after.items()} == {
        name: content for name, (content, _) in contents(folder).items()
    }


def test_finished_labelling_stays_as_it_is(tmp_path, folder, monkeypatch):
    again = shutil.copytree(folder, tmp_path / "again")
    before = contents(again)
    model, processor = make_system()
    monkeypatch.setattr(model, "forward", None)
    label(again, iter(DOCUMENTS), system=(model, processor), batch_size=3, record={"command": "another"})
    assert contents(again) == before
    assert TeacherLogits(again).settings["record"] is None


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("fields", "settings", "changed"),
    [
        ({"seed": 1}, {}, {"teacher_sha256"}),
        ({"id2label": {0: "Na", 1: "P27", 2: "P17", 3: "P131", 4: "P1"}}, {}, {"labels"}),
        ({"loss": "balanced_softmax"}, {}, {"decision_threshold"}),
        ({"markers": "none"}, {}, {"markers"}),
        ({"markers": "entity_type", "marker_types": ["PER", "LOC"]}, {}, {"markers", "marker_types"}),
        ({"window_size": 48, "window_stride": 16}, {}, {"window_size", "window_stride"}),
        ({}, {"max_length": 30}, {"max_length"}),
        ({}, {"shard_size": 5}, {"shard_size"}),
    ],
    ids=["teacher", "labels", "threshold", "markers", "marker_types", "windows", "max_length", "shard_size"],
)
def test_other_settings_in_the_same_folder(tmp_path, folder, finished, fields, settings, changed):
    again = tmp_path / "again"
    if finished:
        shutil.copytree(folder, again)
    else:
        predict_teacher_logits(*make_system(), DOCUMENTS[:4], again, shard_size=4)
    before = contents(again)
    with pytest.raises(SettingsChangedError) as refused:
        label(again, system=make_system(**fields), **settings)
    assert {*refused.value.changed} == changed
    assert contents(again) == before


def other_document(documents):
    documents[5] = {**documents[5], "title": "Another"}


def swap(documents):
    documents[4:6] = reversed(documents[4:6])


def drop_last(documents):
    del documents[-1]


def drop_shard(documents):
    del documents[8:]


def drop_all(documents):
    documents.clear()


def add_one(documents):
    documents.append(random_document(2, seed=77))


def add_shard(documents):
    documents += [random_document(2, seed=seed) for seed in range(70, 76)]


@pytest.mark.parametrize(
    ("change", "finished", "unfinished"),
    [
        (other_document, *["00001.*'Another'"] * 2),
        (swap, *["00001.*'Document 5'"] * 2),
        (drop_last, *["00002"] * 2),
        (drop_shard, *["00002"] * 2),
        (drop_all, *["00000"] * 2),
        (add_one, "Document 77", "00002"),
        (add_shard, "Document 70", "00002"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_other_documents_in_the_same_folder(tmp_path, folder, change, finished, unfinished):
    again = shutil.copytree(folder, tmp_path / "again")
    documents = list(DOCUMENTS)
    change(documents)
    before = contents(again)
    with pytest.raises(ValueError, match=finished):
        label(again, documents)
    assert contents(again) == before
    settings = json.loads((again / "teacher.json").read_text())
    for key in ("documents", "encoding", "record"):
        del settings[key]
    (again / "teacher.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=unfinished):
        label(again, documents)
    with pytest.raises(ValueError, match="--do_predict_teacher"):
        TeacherLogits(again)


def test_finished_folder_of_full_shards_is_not_lengthened(tmp_path):
    label(tmp_path, DOCUMENTS[:8])
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="Document 8"):
        label(tmp_path)
    assert contents(tmp_path) == before


def test_process_that_is_not_done(tmp_path):
    number = predict_teacher_logits(*make_system(), DOCUMENTS, tmp_path, shard_size=4, rank=0, world_size=2)
    with pytest.raises(ValueError, match="logits-00001"):
        finish_teacher_logits(tmp_path, number)


def test_folders_that_cannot_be_read(tmp_path, folder):
    with pytest.raises(ValueError, match="nowhere"):
        TeacherLogits(tmp_path / "nowhere")
    newer = shutil.copytree(folder, tmp_path / "newer")
    settings = json.loads((newer / "teacher.json").read_text())
    (newer / "teacher.json").write_text(json.dumps({**settings, "format": 2}))
    with pytest.raises(ValueError, match="format"):
        TeacherLogits(newer)
    with pytest.raises(ValueError, match="format"):
        label(newer)
    (newer / "teacher.json").write_text(json.dumps(settings))
    (newer / "logits-00001.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"logits-00001\.safetensors"):
        TeacherLogits(newer)


def test_document_labelled_twice(tmp_path):
    teacher = TeacherLogits(label(tmp_path, [*FEW, FEW[0], FEW[2]]))
    assert [teacher.position(one) for one in FEW] == [0, 1, 2, 3, 4]


# ------------------------------------------------------------------------------------------------ by identity, not by order


def new_trainer(
    output_dir,
    teacher,
    train=DOCUMENTS,
    system=None,
    trainer_class=DistillationTrainer,
    callbacks=None,
    dev=None,
    **arguments,
):
    """A student unlike its teacher, with its trainer; arguments are the trainer's and, the others, of the training."""
    own = {key: arguments.pop(key) for key in ("distillation_weight", "distillation_raw_logits") if key in arguments}
    if trainer_class is not CommTrainer:
        own["teacher_logits"] = teacher
    model, processor = system or make_system(seed=5)
    defaults = {"use_cpu": True, "disable_tqdm": True, "eval_strategy": "no", "save_strategy": "no"}
    defaults |= {"load_best_model_at_end": False, "num_train_epochs": 1, "seed": 3, "logging_steps": 1}
    args = CommTrainingArguments(output_dir, **{**defaults, **arguments})
    given = {"train_dataset": train, "eval_dataset": dev, "processing_class": processor, "callbacks": callbacks}
    return trainer_class(model=model, args=args, **given, **own)


@pytest.fixture
def make_trainer(tmp_path, teacher):
    def make(*arguments, folder="run", teacher=teacher, **rest):
        return new_trainer(str(tmp_path / folder), teacher, *arguments, **rest)

    return make


class _Checker(DistillationTrainer):
    """Compares the rows of every training batch with the teacher's logits of the documents that the batch holds."""

    def compute_loss(self, model, inputs, **kwargs):
        titles = [
            index if isinstance(index, str) else self.train_dataset[index]["title"]
            for index in inputs["document_index"]
        ]
        expected = torch.cat([self.expected[title] for title in titles])
        torch.testing.assert_close(inputs["teacher_logits"].float(), expected, rtol=2e-3, atol=1e-4)
        self.__dict__.setdefault("seen", []).extend(titles)
        return super().compute_loss(model, inputs, **kwargs)


def shuffled(documents):
    return random.Random(4).sample(documents, len(documents))


ARRANGED = {
    "shuffled": (shuffled, {}),
    "grouped by length": (list, {"train_sampling_strategy": "group_by_length"}),
    "some": (lambda documents: documents[7:2:-2], {"train_sampling_strategy": "sequential"}),
    "twice": (lambda documents: [*documents[:4], *documents[2:6]], {}),
    "rows": (as_rows, {}),
    "some rows": (lambda documents: as_rows(documents).shuffle(seed=1).select(range(7)), {}),
    "stream": (lambda documents: DocumentStream(shuffled(documents), buffer_size=3), {"max_steps": 6}),
    "stream of rows": (lambda documents: DocumentStream(as_rows(documents).to_iterable_dataset()), {"max_steps": 6}),
    "other labels": (lambda documents: [{**one, "labels": []} for one in documents], {}),
    "rows, two workers": (as_rows, {"dataloader_num_workers": 2}),
    "stream, two workers": (DocumentStream, {"max_steps": 6, "dataloader_num_workers": 2}),
}


@may_fork
@pytest.mark.parametrize(("arrange", "arguments"), ARRANGED.values(), ids=ARRANGED)
def test_every_pair_meets_its_own_teacher_logits(make_trainer, arrange, arguments):
    train = arrange(DOCUMENTS)
    trainer = make_trainer(train, trainer_class=_Checker, per_device_train_batch_size=3, **arguments)
    trainer.expected = {one["title"]: alone(*make_system(), one) for one in DOCUMENTS}
    trainer.train()
    if isinstance(train, DocumentStream):
        assert len(trainer.seen) == 18 and set(trainer.seen) == set(trainer.expected)
    else:
        assert sorted(trainer.seen) == sorted(one["title"] for one in train)


@pytest.mark.parametrize("kind", [list, as_rows])
def test_encoded_documents_of_another_student(make_trainer, tmp_path, kind):
    first = make_trainer(kind(DOCUMENTS[3:6]))
    others = TeacherLogits(label(tmp_path / "others", DOCUMENTS[::-1]))
    again = make_trainer(first.train_dataset, teacher=others)
    assert [row["teacher_position"] for row in first.train_dataset] == [3, 4, 5]
    assert [row["teacher_position"] for row in again.train_dataset] == [7, 6, 5]


REORDERED = {0: "Na", 1: "P27", 2: "P17", 3: "P131", 4: "P569"}
FEWER = {0: "Na", 1: "P17", 2: "P27"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"id2label": REORDERED}, "labels"),
        (
            {"id2label": FEWER},
            "labels",
        ),
        (
            {"loss": "balanced_softmax"},
            "decision_threshold",
        ),
        ({"symmetric": ["P17"]}, "the teacher's symmetric are None, the student's 1 from 'P17' to 'P17'"),
        ({"directed": False}, "the teacher's directed are None, the student's False"),
    ],
    ids=["order", "number", "threshold", "symmetric", "undirected"],
)
def test_student_that_does_not_match_its_teacher(make_trainer, fields, message):
    documents = [{**one, "labels": []} for one in FEW]
    with pytest.raises(ValueError, match=message):
        make_trainer(documents, system=make_system(**fields))


@pytest.mark.parametrize("kind", [list, as_rows, DocumentStream])
def test_document_that_was_not_labelled(make_trainer, kind):
    documents = [*FEW, random_document(3, seed=99)]
    with pytest.raises(ValueError, match="Document 99"):
        trainer = make_trainer(kind(documents), per_device_train_batch_size=6, max_steps=2)
        assert kind is DocumentStream, "found before training"
        trainer.train()


@pytest.mark.parametrize("weight", [0, -1.0, float("nan")])
def test_weight_that_is_none(make_trainer, weight):
    with pytest.raises(ValueError, match="distillation_weight"):
        make_trainer(distillation_weight=weight)


def test_batches_of_a_stream_are_made_in_other_processes(make_trainer):
    """Spawned workers get data set and collator pickled, in later passes from a trainer that has trained."""
    trainer = make_trainer(DocumentStream(DOCUMENTS), max_steps=1)
    expected = trainer.get_train_dataloader().dataset.__getitems__(FEW)
    trainer.train()
    loader = trainer.get_train_dataloader()
    dataset, collate = pickle.loads(pickle.dumps((loader.dataset, loader.collate_fn)))
    assert dataset.__getitems__(FEW) == expected
    assert torch.equal(collate(expected)["teacher_logits"], torch.cat(stored(trainer.teacher_logits.folder, FEW)))


# ------------------------------------------------------------------------------------------------------------- the loss


def test_distillation_loss_by_hand():
    logits = torch.tensor([[1.0, 3.0, -1.0], [0.0, 2.0, 0.5]])
    teacher = torch.tensor([[0.0, 1.0, -4.0], [0.0, 0.0, 0.5]], dtype=torch.float16)
    # Relative to the threshold: 2, -2 against 1, -4; and 2, 0.5 against 0, 0.5.
    relative = [(1 + 4) / 2, (4 + 0) / 2]
    plain = [(1 + 4 + 9) / 3, (0 + 4 + 0) / 3]
    for arguments, expected in (((), relative), (("th", True), plain), (("zero",), plain), (("zero", True), plain)):
        for reduction, value in (("none", expected), ("sum", sum(expected)), ("mean", sum(expected) / 2)):
            found = distillation_loss(logits, teacher, *arguments, reduction=reduction)
            torch.testing.assert_close(found, torch.tensor(value))
    assert distillation_loss(logits, teacher) == distillation_loss(logits, teacher, "th", False, "mean")


@pytest.mark.parametrize(("threshold", "raw"), [("th", False), ("th", True), ("zero", False)])
def test_relations_that_are_not_asked_about_take_no_part(threshold, raw):
    asked = torch.tensor([[True, True, False], [True, True, True]])
    logits, teacher = random_logits(2)[:, :3], random_logits(2, seed=1)[:, :3]
    masked = [without_relations(one, asked) for one in (logits.requires_grad_(), teacher)]
    found = distillation_loss(*masked, threshold, raw, "none", asked)
    kept = distillation_loss(logits[:, :2], teacher[:, :2], threshold, raw, "none")
    whole = distillation_loss(logits, teacher, threshold, raw, "none")
    torch.testing.assert_close(found, torch.stack([kept[0], whole[1]]))
    (gradient,) = torch.autograd.grad(found.sum(), logits)
    assert gradient[0, 2] == 0
    nothing = torch.tensor([[True, False], [True, False]])
    assert distillation_loss(logits[:, :2], teacher[:, :2], "th", False, "sum", nothing) == 0


def random_logits(pairs=6, seed=0, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(pairs, 5, generator=draw, dtype=torch.float64).to(dtype)


def test_constants_that_a_loss_leaves_free():
    logits, teacher, constants = random_logits(), random_logits(seed=1), random_logits(seed=2)[:, :1]
    before = distillation_loss(logits, teacher)
    torch.testing.assert_close(distillation_loss(logits + constants, teacher), before)
    torch.testing.assert_close(distillation_loss(logits, teacher + constants), before)
    assert distillation_loss(teacher + constants, teacher) < 1e-20
    for arguments in (("th", True), ("zero", False)):
        torch.testing.assert_close(
            distillation_loss(teacher + constants, teacher, *arguments), constants.square().mean()
        )


@pytest.mark.parametrize(("threshold", "raw"), [("th", False), ("th", True), ("zero", False)])
def test_gradient_of_the_distillation_loss(threshold, raw):
    logits, teacher = random_logits().requires_grad_(), random_logits(seed=1)
    for reduction in ("mean", "sum", "none"):
        assert torch.autograd.gradcheck(
            lambda x, how=reduction: distillation_loss(x, teacher, threshold, raw, how), logits
        )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_precision_of_the_distillation_loss(dtype):
    logits, teacher = 200 * random_logits(dtype=dtype), 200 * random_logits(seed=1, dtype=torch.float16)
    found = distillation_loss(logits.requires_grad_(), teacher, reduction="sum")  # beyond float16
    assert found.dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(found.double(), distillation_loss(logits.double(), teacher.double(), reduction="sum"))
    found.backward()
    assert logits.grad.dtype == dtype and torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_no_pairs(reduction):
    logits = random_logits(pairs=0).requires_grad_()
    loss = distillation_loss(logits, random_logits(pairs=0), reduction=reduction)
    loss.backward()
    assert loss == 0 and logits.grad.shape == (0, 5)


@pytest.mark.parametrize("teacher", [random_logits()[:4], random_logits()[:, :4], random_logits()[:1]])
def test_wrong_arguments_of_the_distillation_loss(teacher):
    with pytest.raises(ValueError, match=re.escape(str(tuple(teacher.shape)))):
        distillation_loss(random_logits(), teacher)
    with pytest.raises(ValueError, match="reduction"):
        distillation_loss(random_logits(), random_logits(), reduction="median")


# ------------------------------------------------------------------------------------------------------------ the student


class _Gradients(TrainerCallback):
    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.found = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def by_hand(model, processor, documents, teacher_logits, weight, relative, reduction="mean"):
    """Loss of a step, its distillation term, and its gradients."""
    outputs = model.train()(**processor(documents))
    student, expected = outputs.logits, torch.cat(teacher_logits).float()
    if relative:
        student, expected = student[:, 1:] - student[:, :1], expected[:, 1:] - expected[:, :1]
    term = torch.nn.functional.mse_loss(student, expected)
    term = term * len(student) if reduction == "sum" else term
    total = outputs.loss + weight * term
    gradients = torch.autograd.grad(total, list(model.parameters()))
    return total.item(), term.item(), dict(zip(dict(model.named_parameters()), gradients, strict=True))


def run_one_step(make_trainer, system, documents, **arguments):
    gradients = _Gradients()
    arguments |= {"train_sampling_strategy": "sequential", "per_device_train_batch_size": len(documents)}
    trainer = make_trainer(documents, system=system, callbacks=[gradients], max_grad_norm=0.0, **arguments)
    trainer.train()
    log = trainer.state.log_history[0]
    return log["loss"], log["distillation_loss"], gradients.found


def assert_same_step(found, expected):
    assert found[:2] == pytest.approx(expected[:2], rel=1e-5)
    assert found[1] > 0.1
    scale = max(gradient.abs().max() for gradient in expected[2].values())
    torch.testing.assert_close(found[2], expected[2], rtol=1e-4, atol=1e-5 * scale.item())


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(("weight", "raw"), [(1.0, False), (0.25, False), (3.0, True)])
def test_a_step_is_autograds(make_trainer, folder, reduction, weight, raw):
    system = make_system(seed=5, loss_reduction=reduction)
    expected = by_hand(*copy.deepcopy(system), DOCUMENTS, stored(folder), weight, not raw, reduction)
    settings = {"distillation_weight": weight, "distillation_raw_logits": raw}
    assert_same_step(run_one_step(make_trainer, system, DOCUMENTS, **settings), expected)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A teacher of each kind."""
    root = tmp_path_factory.mktemp("teachers")
    return {encoder: label(root / encoder, FEW, make_system(encoder)) for encoder in ENCODERS}


@pytest.mark.parametrize("student", ENCODERS)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_any_encoder_teaches_any_encoder(make_trainer, folders, encoder, student):
    system = make_system(student, seed=5)
    expected = by_hand(*copy.deepcopy(system), FEW, stored(folders[encoder], FEW), 1.0, True)
    found = run_one_step(make_trainer, system, FEW, teacher=TeacherLogits(folders[encoder]))
    assert_same_step(found, expected)


def test_a_step_that_decides_at_zero(make_trainer, tmp_path):
    """If the loss fixes the logits themselves, they are compared as they are."""
    fields = {"loss": "balanced_softmax"}
    folder, system = label(tmp_path / "zero", FEW, make_system(**fields)), make_system(seed=5, **fields)
    expected = by_hand(*copy.deepcopy(system), FEW, stored(folder, FEW), 1.0, False)
    assert_same_step(run_one_step(make_trainer, system, FEW, teacher=TeacherLogits(folder)), expected)


def test_a_step_with_a_symmetric_relation(make_trainer, tmp_path):
    """Each pair is asked about it in one direction; in the other, student and teacher differ in the threshold alone."""
    folder = label(tmp_path / "symmetric", FEW, make_system(symmetric=["P27"], loss="cmm"))
    system = make_system(seed=5, symmetric=["P27"], loss="cmm")
    model, processor = copy.deepcopy(system)
    outputs, asked = model.train()(**processor(FEW)), processor(FEW)["asked"][:, 1:]
    difference = outputs.logits - torch.cat(stored(folder, FEW)).float()
    difference = (difference[:, 1:] - difference[:, :1]).square()
    expected = torch.stack([row[known].mean() for row, known in zip(difference, asked, strict=True)]).mean()
    _, term, _ = run_one_step(make_trainer, system, FEW, teacher=TeacherLogits(folder))
    assert not asked.all() and term == pytest.approx(expected.item(), rel=1e-4)


def test_fixed_grid_of_the_originals(make_trainer, folder):
    """Its loss counts self pairs besides, in which student and teacher do not differ: the mean is over these, too."""
    system = make_system("kd_docre", seed=5, fixed_grid=8)
    expected = by_hand(*copy.deepcopy(system), DOCUMENTS, stored(folder), 1.0, True)
    _, term, _ = run_one_step(make_trainer, system, DOCUMENTS)
    sizes = [len(document["vertexSet"]) for document in DOCUMENTS]
    pairs = sum(size * (size - 1) for size in sizes)
    assert term == pytest.approx(expected[1] * pairs / (pairs + sum(sizes)), rel=1e-5)


SGD = {"optim": "sgd", "learning_rate": 0.05, "head_learning_rate": 0.05, "max_grad_norm": 0.0}


def weights(trainer):
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def steps_of(trainer):
    """Both losses of every step."""
    return np.array(
        [[log[key] for key in ("loss", "distillation_loss")] for log in trainer.state.log_history if "loss" in log]
    )


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_accumulated_batches_are_one_batch(make_trainer, reduction):
    # Eleven documents: the last window is short. SGD, because Adam hides the size of gradients.
    rate = 0.05 if reduction == "mean" else 0.0005
    settings = SGD | {"learning_rate": rate, "head_learning_rate": rate}
    trained = []
    for size, accumulated in ((4, 1), (2, 2), (1, 4)):
        system = make_system(seed=5, loss_reduction=reduction)
        sizes = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulated}
        trained.append(make_trainer(system=system, **sizes, **settings))
        trained[-1].train()
    whole, *parts = trained
    assert len(steps_of(whole)) == 3
    for trainer in parts:
        np.testing.assert_allclose(steps_of(trainer), steps_of(whole), rtol=1e-4)
        torch.testing.assert_close(weights(trainer), weights(whole), rtol=1e-4, atol=1e-5)
    start = make_system(seed=5)[0].state_dict()
    assert max((weights(whole)[name] - start[name]).abs().max() for name in start) > 1e-3, "nothing was learnt"


def find_free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def train_as_one_of_two(rank, port, output_dir, teacher):
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    trainer = new_trainer(output_dir, teacher, per_device_train_batch_size=2, ddp_backend="gloo", **SGD)
    trainer.train()
    assert trainer.args.world_size == 2
    if rank == 0:
        torch.save((torch.from_numpy(steps_of(trainer)), weights(trainer)), f"{output_dir}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_train_as_one(make_trainer, tmp_path, teacher):
    alone = make_trainer(per_device_train_batch_size=4, **SGD)
    alone.train()
    # Not forked from this process, whose threads a child would wait for; importing takes most of the time.
    context, port = multiprocessing.get_context("forkserver"), find_free_port()
    context.set_forkserver_preload(["transformers.trainer", "datasets"])
    arguments = (port, str(tmp_path / "two"), teacher)
    processes = [context.Process(target=train_as_one_of_two, args=(rank, *arguments)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(600)
    assert [process.exitcode for process in processes] == [0, 0]
    steps, found = torch.load(tmp_path / "two.pt", weights_only=True)
    np.testing.assert_allclose(steps, steps_of(alone), rtol=1e-4)
    torch.testing.assert_close(found, weights(alone), rtol=1e-4, atol=1e-5)


def test_logged_distillation_loss(make_trainer):
    """The mean over the steps since the last log, evaluation, accumulation and the short last window included."""
    logs, settings = (
        {},
        {"learning_rate": 1e-30, "head_learning_rate": 1e-30, "distillation_weight": 2.0, "max_steps": 5},
    )
    settings |= {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "dev": FEW}
    for every in (1, 2):
        trainer = make_trainer(logging_steps=every, eval_strategy="steps", eval_steps=1, **settings)
        trainer.train()
        logs[every] = steps_of(trainer)
        assert all("distillation_loss" not in log for log in trainer.state.log_history if "loss" not in log)
    plain = make_trainer(
        trainer_class=CommTrainer, **{k: v for k, v in settings.items() if k != "distillation_weight"}
    )
    plain.train()
    losses = np.array([log["loss"] for log in plain.state.log_history if "loss" in log])
    np.testing.assert_allclose(logs[1][:, 0], losses + 2 * logs[1][:, 1], rtol=1e-5)
    assert np.ptp(logs[1][:, 1]) > 0.01, "steps alike would show nothing"
    # Logged after the steps 2, 3 (the end of an epoch), 4 and 5.
    means = [logs[1][:2].mean(0), logs[1][2], logs[1][3], logs[1][4]]
    np.testing.assert_allclose(logs[2], means, rtol=1e-5)


def test_logging_by_hand(make_trainer):
    trainer = make_trainer()
    trainer.log({"loss": 1.0})  # before any step
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.compute_loss(trainer.model, batch, num_items_in_batch=1)
    for _ in range(2):  # within a step, and again when nothing came since
        trainer.log({"loss": 1.0})
    first, second, third = (log.get("distillation_loss") for log in trainer.state.log_history)
    assert second > 0 and first is third is None


@pytest.mark.parametrize("kind", [list, as_rows])
def test_evaluation_is_the_parents(make_trainer, kind):
    dev = [random_document(entities, seed=50 + index) for index, entities in enumerate((3, 1, 6, 0))]
    trainers = [
        make_trainer(kind(DOCUMENTS), trainer_class=trainer_class, dev=kind(dev))
        for trainer_class in (DistillationTrainer, CommTrainer)
    ]
    for documents in (None, kind(dev), trainers[0].train_dataset):
        found, expected = (
            {
                key: value
                for key, value in trainer.evaluate(documents).items()
                if not key.endswith(("_runtime", "_second"))
            }
            for trainer in trainers
        )
        assert found == expected
        assert found["eval_loss"] > 0


@pytest.mark.parametrize(("kind", "limit"), [(list, {"num_train_epochs": 2}), (DocumentStream, {"max_steps": 12})])
def test_interrupted_student_ends_with_the_same_weights(make_trainer, kind, limit):
    config, processor = tiny_system(text_fields=dict.fromkeys(NO_DROPOUT, 0.2))
    settings = {
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 2,
        "save_strategy": "steps",
        "save_steps": 3,
    }

    def make(**arguments):
        return make_trainer(
            kind(DOCUMENTS), system=(tiny_model(config, 5), processor), **settings, **limit, **arguments
        )

    whole = make(folder="whole")
    whole.train()
    for step in (4, 8):
        with pytest.raises(InterruptedError):
            make(callbacks=[KillAt(step)]).train(resume_from_checkpoint=step > 4 or None)
    resumed = make()
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == whole.state.global_step == 12
    torch.testing.assert_close(weights(resumed), weights(whole), rtol=0, atol=0)
    assert steps_of(resumed)[-3:].tolist() == steps_of(whole)[-3:].tolist()


def test_student_approaches_its_teacher(make_trainer):
    settings = {"num_train_epochs": 8, "head_learning_rate": 1e-2, "learning_rate": 1e-3, "logging_steps": 3}
    trainer = make_trainer(distillation_weight=10.0, **settings)
    trainer.train()
    terms = steps_of(trainer)[:, 1]
    assert terms[-1] < 0.5 * terms[0]
