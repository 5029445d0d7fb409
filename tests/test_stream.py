"""Training documents as a stream: their order, how processes share them, what happens after an interruption, what is wrong."""

import itertools
import json

import datasets
import numpy as np
import pytest
import torch
from helpers import KillAt, random_document, tiny_model, tiny_processor, tiny_system

from dataset_scripts.builder import FEATURES, load_splits, to_document
from modeling_comm.features import encoding_report
from modeling_comm.training.batching import DocumentStream, EncodedOnDemand, StreamedBatches
from modeling_comm.training.trainer import CommTrainer
from modeling_comm.training.training_args import CommTrainingArguments

DROPOUT = {"attention_probs_dropout_prob": 0.2, "hidden_dropout_prob": 0.2}
# Windows, a document without an entity and one without a pair.
DOCUMENTS = [random_document(entities, 90 if entities == 6 else 25, seed=entities) for entities in range(7)]
NUMBERS = range(23)  # what is not encoded need not be a document
may_fork = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # as Python 3.12 warns beside threads


@pytest.fixture
def make_trainer(tmp_path):
    def make(train, folder="run", trainer_class=CommTrainer, callbacks=None, dev=None, **arguments):
        config, processor = tiny_system(text_fields=DROPOUT)
        defaults = {"use_cpu": True, "disable_tqdm": True, "eval_strategy": "no", "save_strategy": "no", "seed": 3}
        defaults |= {"load_best_model_at_end": False, "logging_steps": 1, "per_device_train_batch_size": 2}
        args = CommTrainingArguments(str(tmp_path / folder), **{**defaults, **arguments})
        given = {"train_dataset": train, "eval_dataset": dev, "processing_class": processor, "callbacks": callbacks}
        return trainer_class(model=tiny_model(config), args=args, **given)

    return make


def batches(number, documents=NUMBERS, buffer_size=1000, **arguments):
    return list(itertools.islice(StreamedBatches(DocumentStream(documents, None, buffer_size), **arguments), number))


def flat(lists):
    return list(itertools.chain.from_iterable(lists))


# ----------------------------------------------------------------------------------------------------------------- order


@pytest.mark.parametrize("order", ["random", "sequential"])
@pytest.mark.parametrize("buffer_size", [1, 5, 22, 23, 1000])
def test_every_document_once_a_pass(order, buffer_size):
    drawn = flat(batches(23, batch_size=5, buffer_size=buffer_size, order=order))  # 115 documents: five passes
    passes = [drawn[start : start + 23] for start in range(0, 115, 23)]
    assert all(sorted(one) == list(NUMBERS) for one in passes)
    if order == "sequential" or buffer_size == 1:
        assert all(one == list(NUMBERS) for one in passes)
    else:
        assert len({tuple(one) for one in passes}) == 5, "each pass has an order of its own"


@pytest.mark.parametrize("order", ["random", "sequential"])
@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_the_batches_of_one(order, world_size):
    settings = {"buffer_size": 7, "seed": 5, "order": order}
    alone = batches(20, batch_size=6, **settings)
    shares = [
        batches(20, batch_size=6 // world_size, world_size=world_size, rank=rank, **settings)
        for rank in range(world_size)
    ]
    assert [flat(parts) for parts in zip(*shares, strict=True)] == alone
    assert {len(part) for share in shares for part in share} == {6 // world_size}


def test_order_depends_on_the_seed_only():
    def order(seed):
        np.random.default_rng().random(), torch.rand(3)
        return batches(9, batch_size=4, buffer_size=6, seed=seed)

    assert order(1) == order(1) != order(2)


@pytest.mark.parametrize("buffer_size", [1, 4, 100])
def test_no_more_documents_are_read_than_the_buffer_holds(buffer_size):
    read = []

    class Counted:
        def __iter__(self):
            for number in range(1000):
                read.append(number)
                yield number

    drawn = flat(batches(50, Counted(), buffer_size, batch_size=2))
    assert len(read) == len(drawn) + buffer_size
    # A document is drawn after as many have come behind it at the earliest, and never before it was read.
    assert all(number <= place + buffer_size for place, number in enumerate(drawn))
    assert (drawn != sorted(drawn)) == (buffer_size > 1)


def test_rows_of_a_table_and_of_a_file(tmp_path):
    (tmp_path / "train.json").write_text(json.dumps(DOCUMENTS))
    table = datasets.Dataset.from_list(
        [{**dict.fromkeys(FEATURES), **row} for row in as_rows(DOCUMENTS)], features=FEATURES
    ).to_iterable_dataset()
    file = load_splits("local", data_files={"train": str(tmp_path / "train.json")}, streaming=True)["train"]
    for documents in (table, file):
        drawn = flat(batches(8, documents, batch_size=7, buffer_size=3))
        expected = flat(batches(8, DOCUMENTS, batch_size=7, buffer_size=3))
        assert list(map(to_document, drawn)) == expected


# -------------------------------------------------------------------------------------------------------------- training


class _Recorder(CommTrainer):
    """Notes the documents and features of every step."""

    def compute_loss(self, model, inputs, **kwargs):
        self.__dict__.setdefault("seen", []).append(inputs["document_index"])
        self.__dict__.setdefault("encodings", []).append(dict(inputs["encoding"]))
        return super().compute_loss(model, inputs, **kwargs)


@may_fork
@pytest.mark.parametrize("workers", [0, 2])
def test_training_walks_through_the_stream(make_trainer, workers):
    """With workers, which read ahead, the same documents in the same steps, and only what was trained on is counted."""
    settings = {"max_steps": 6, "gradient_accumulation_steps": 2, "dataloader_num_workers": workers}
    trainer = make_trainer(DocumentStream(DOCUMENTS, buffer_size=3), trainer_class=_Recorder, **settings)
    trainer.train()
    expected = batches(12, DOCUMENTS, buffer_size=3, batch_size=2, seed=3)
    assert trainer.seen == [[document["title"] for document in batch] for batch in expected]
    assert trainer.stream_report == encoding_report(trainer.processing_class.encode(flat(expected)))
    assert trainer.stream_report["documents"] == 24
    assert trainer.stream_report["pairs_without_context"] > 0
    assert trainer.state.global_step == 6


def test_what_truncation_loses_is_counted(make_trainer):
    trainer = make_trainer(DocumentStream(DOCUMENTS, max_length=20), max_steps=7, per_device_train_batch_size=1)
    trainer.train()
    report = encoding_report(trainer.processing_class.encode(DOCUMENTS, max_length=20))
    assert trainer.stream_report == report
    assert report["lost_tokens"] > 0 and report["lost_mentions"] > 0


def test_stream_trains_as_a_list(make_trainer):
    """One pass in the order of the file: the same losses and weights."""
    trained = []
    for train, limit in ((DOCUMENTS[:6], {"num_train_epochs": 1}), (DocumentStream(DOCUMENTS[:6]), {"max_steps": 3})):
        trainer = make_trainer(train, train_sampling_strategy="sequential", **limit)
        trainer.train()
        losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
        trained.append((losses, dict(trainer.model.state_dict())))
    assert len(trained[0][0]) == 3
    torch.testing.assert_close(trained[1], trained[0], rtol=0, atol=0)


@may_fork
@pytest.mark.parametrize("workers", [0, 2])
def test_interrupted_training_ends_with_the_same_weights(make_trainer, monkeypatch, workers):
    settings = {"max_steps": 10, "save_strategy": "steps", "save_steps": 3, "gradient_accumulation_steps": 2}
    settings |= {"dataloader_num_workers": workers, "per_device_train_batch_size": 1}

    def make(**arguments):
        stream = DocumentStream(DOCUMENTS, buffer_size=3)
        return make_trainer(stream, trainer_class=_Recorder, **settings, **arguments)

    whole = make(folder="whole")
    whole.train()
    for step in (4, 8):
        with pytest.raises(InterruptedError):
            make(callbacks=[KillAt(step)]).train(resume_from_checkpoint=step > 4 or None)
        torch.rand(step)  # another process has another random state
    encoded, encode = [], EncodedOnDemand.__getitems__
    monkeypatch.setattr(EncodedOnDemand, "__getitems__", lambda self, some: encoded.extend(some) or encode(self, some))
    resumed = make()
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == whole.state.global_step == 10
    torch.testing.assert_close(dict(resumed.model.state_dict()), dict(whole.model.state_dict()), rtol=0, atol=0)
    assert resumed.seen == whole.seen[12:], "from checkpoint 6"
    if not workers:
        assert [[one["title"]] for one in encoded] == resumed.seen, "what is skipped is not encoded"


def test_evaluation_between_steps_changes_nothing(make_trainer):
    trained = []
    for arguments in ({}, {"eval_strategy": "steps", "eval_steps": 2, "dev": DOCUMENTS}):
        trainer = make_trainer(DocumentStream(DOCUMENTS), max_steps=4, **arguments)
        trainer.train()
        trained.append(dict(trainer.model.state_dict()))
    assert [log["step"] for log in trainer.state.log_history if "eval_f1" in log] == [2, 4]
    torch.testing.assert_close(*trained, rtol=0, atol=0)


def test_loss_that_is_not_finite_names_documents_of_the_stream(make_trainer):
    trainer = make_trainer(DocumentStream(DOCUMENTS), trainer_class=_Recorder, max_steps=3)
    with torch.no_grad():
        trainer.model.relation_encoder.head_projection.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError) as error:
        trainer.train()
    assert f"step 0: the loss is nan; documents {trainer.seen[0]}; logits" in str(error.value)


# ---------------------------------------------------------------------------------------------------------- what is wrong


def test_documents_that_can_be_read_once_only():
    for documents in ((one for one in DOCUMENTS), map(dict, DOCUMENTS), iter(DOCUMENTS)):
        with pytest.raises(ValueError, match=type(documents).__name__):
            DocumentStream(documents)


@pytest.mark.parametrize("size", [0, -1])
def test_buffer_that_holds_nothing(size):
    with pytest.raises(ValueError, match=f"buffer_size.*{size}"):
        DocumentStream(DOCUMENTS, buffer_size=size)


def test_empty_stream(make_trainer):
    with pytest.raises(ValueError, match="the stream holds no documents"):
        make_trainer(DocumentStream([]), max_steps=1).train()


def test_length_cannot_be_known_before(make_trainer):
    with pytest.raises(ValueError, match=r"'group_by_length'.*'random'.*'sequential'"):
        make_trainer(DocumentStream(DOCUMENTS), max_steps=1, train_sampling_strategy="group_by_length").train()


def test_number_of_steps_has_to_be_given(make_trainer):
    with pytest.raises(ValueError, match="max_steps"):
        make_trainer(DocumentStream(DOCUMENTS))


@pytest.mark.parametrize(
    "kind", [DocumentStream, lambda documents: datasets.Dataset.from_list(documents).to_iterable_dataset()]
)
@pytest.mark.parametrize("names", [["eval_strategy", "save_strategy"], ["save_strategy"]])
def test_a_stream_has_no_epochs(make_trainer, kind, names):
    """The only one ends with the training: nothing would be saved before, and nothing evaluated."""
    with pytest.raises(ValueError, match="stream") as refused:
        make_trainer(kind(DOCUMENTS[2:4]), max_steps=8, dev=DOCUMENTS, **dict.fromkeys(names, "epoch"))
    flags = " ".join(f"--{name} steps --{name.split('_')[0]}_steps 1000" for name in names)
    assert str(refused.value).endswith(f"for example {flags}")


def as_rows(documents):
    """As a table has them, which cannot leave `labels` out."""
    return [{"labels": None, **one, "has_labels": "labels" in one} for one in documents]


@may_fork
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", [list, as_rows])
def test_unlabelled_documents(make_trainer, kind, workers):
    bare = [random_document(3, seed=9, labels=False, title="No labels")]
    stream = DocumentStream(kind([*DOCUMENTS[:3], *bare]))
    with pytest.raises(ValueError, match="'No labels'"):
        make_trainer(stream, max_steps=3, dataloader_num_workers=workers).train()


def test_bad_document_is_named(make_trainer):
    bad = {**DOCUMENTS[3], "sents": []}
    with pytest.raises(ValueError, match=r"\('Document 3'\), field sents: found \[\]"):
        make_trainer(DocumentStream([DOCUMENTS[0], bad]), max_steps=1).train()
    unknown = {**DOCUMENTS[3], "labels": [{"h": 0, "t": 1, "r": "P9"}]}
    with pytest.raises(ValueError, match=r"labels\[0\].r: found 'P9'"):
        EncodedOnDemand(tiny_processor()).__getitems__([unknown])
