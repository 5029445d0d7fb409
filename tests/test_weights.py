"""Nothing unpickles: weights come from safetensors only, and what a training keeps in pickles is read as plain numbers."""

import json
import os
import pickle
import re
import shutil
from pathlib import Path

import pytest
import torch
from helpers import SAMPLE, random_document, run_script, save_backbone, tiny_model, tiny_system
from safetensors.torch import load_file
from transformers import AutoModel

import modeling_comm.safe_weights
from modeling_comm import CommForDocumentRelationExtraction
from modeling_comm.training.trainer import CommTrainer
from modeling_comm.training.training_args import CommTrainingArguments

SHARD = "pytorch_model-00001-of-00001.bin"
DOCUMENTS = [random_document(entities, seed=entities) for entities in (2, 3, 4)]
SCRIPT = (
    "--dataset_config",
    "redocred",
    "--data_dir",
    SAMPLE,
    "--do_train",
    "--use_cpu",
    "--output_dir",
    "outputs/none",
)
each_loader = pytest.mark.parametrize(
    "load", [CommForDocumentRelationExtraction.from_pretrained, AutoModel.from_pretrained], ids=["class", "auto"]
)


class Pickle:
    """An object that creates a folder when it is unpickled."""

    def __init__(self, sign):
        self.sign = sign

    def __reduce__(self):
        return os.mkdir, (str(self.sign),)


@pytest.fixture
def offer(tmp_path):
    """Puts live pickles into a folder, which must not be read in this test."""
    sign = tmp_path / "was unpickled"

    def put(folder, *names):
        for name in names:
            torch.save({"weight": Pickle(sign)}, folder / name)
            with pytest.raises(pickle.UnpicklingError):
                torch.load(folder / name, weights_only=True)
            torch.load(folder / name, weights_only=False)
            sign.rmdir()  # it was there: this pickle is a live one

    yield put
    assert not sign.exists(), "a pickle was executed"


@pytest.fixture
def saved(tmp_path):
    """A folder with a model, and the model."""
    model = tiny_model()
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model", model


def write_index(folder, name, shard):
    weights = load_file(folder / "model.safetensors")
    index = {"metadata": {"total_size": 0}, "weight_map": dict.fromkeys(weights, shard)}
    (folder / name).write_text(json.dumps(index), encoding="utf-8")


# Each leaves its folder without safetensors; returns the pickles, what to load it with, and the file that the error names.


def only_a_pickle(folder):
    return ["pytorch_model.bin"], {}, "pytorch_model.bin"


def only_a_pickle_of_a_variant(folder):
    return ["pytorch_model.fp16.bin"], {"variant": "fp16"}, "pytorch_model.fp16.bin"


def only_an_index_of_pickles(folder):
    write_index(folder, "pytorch_model.bin.index.json", SHARD)
    return [SHARD], {}, "pytorch_model.bin.index.json"


def a_safe_index_of_pickles(folder):
    write_index(folder, "model.safetensors.index.json", SHARD)
    return [SHARD], {}, SHARD


def a_pickle_that_the_configuration_names(folder):
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"transformers_weights": "adapter_model.bin"}))
    return ["adapter_model.bin"], {}, "adapter_model.bin"


OFFERS = [
    only_a_pickle,
    only_a_pickle_of_a_variant,
    only_an_index_of_pickles,
    a_safe_index_of_pickles,
    a_pickle_that_the_configuration_names,
]


@pytest.mark.parametrize("spoil", OFFERS, ids=lambda spoil: spoil.__name__)
@each_loader
def test_a_pickle_is_refused(saved, offer, spoil, load):
    folder, _ = saved
    pickles, arguments, named = spoil(folder)
    (folder / "model.safetensors").unlink()
    offer(folder, *pickles)
    with pytest.raises(ValueError) as error:
        load(folder, **arguments)
    expected = f"{str(folder)!r} offers its weights as {named}: a pickle, which can run any code when it is read."
    assert expected in str(error.value)
    assert "comm-docre convert" in str(error.value)


@each_loader
def test_a_pickle_beside_safetensors_is_not_read(saved, offer, load):
    folder, model = saved
    offer(folder, "pytorch_model.bin", SHARD, "training_args.bin", "optimizer.pt")
    write_index(folder, "pytorch_model.bin.index.json", SHARD)
    for name, value in load(folder).state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    with pytest.raises(ValueError, match="use_safetensors=False"):
        load(folder, use_safetensors=False)


def test_a_file_that_is_a_pickle_is_refused(saved, offer):
    folder, model = saved
    offer(folder, "weights.pt")
    load = CommForDocumentRelationExtraction.from_pretrained
    with pytest.raises(ValueError, match=r"weights\.pt: a pickle"):
        load(folder / "weights.pt", config=model.config)
    assert torch.equal(
        load(folder / "model.safetensors", config=model.config).state_dict()[
            "relation_encoder.classifier.linear.weight"
        ],
        model.state_dict()["relation_encoder.classifier.linear.weight"],
    )


def test_an_adapter_that_is_a_pickle_is_refused(saved, offer, monkeypatch):
    folder, _ = saved
    offer(folder, "adapter_model.bin")
    (folder / "adapter_config.json").write_text("{}", encoding="utf-8")
    CommForDocumentRelationExtraction.from_pretrained(folder)  # nothing reads adapters here
    monkeypatch.setattr(modeling_comm.safe_weights, "is_peft_available", lambda: True)
    with pytest.raises(ValueError, match=r"adapter_model\.bin"):
        CommForDocumentRelationExtraction.from_pretrained(folder)


def test_a_folder_without_weights(saved):
    folder, _ = saved
    (folder / "model.safetensors").unlink()
    with pytest.raises(OSError, match=f"{re.escape(str(folder))}.*model.safetensors"):
        CommForDocumentRelationExtraction.from_pretrained(folder)


@pytest.mark.parametrize(
    "load",
    [
        CommForDocumentRelationExtraction.from_pretrained,
        lambda name: CommForDocumentRelationExtraction.from_backbone(name, id2label={0: "Na", 1: "P17"}),
        lambda name: run_script(*SCRIPT, "--model_name_or_path", name),
    ],
    ids=["trained", "backbone", "script"],
)
@pytest.mark.parametrize("name", ["outputs/nosuch", "./outputs/of/nosuch"])
def test_a_mistyped_model_is_named(tmp_path, monkeypatch, load, name):
    """Without a network, too, when Transformers speaks of the connection alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match=f"^{name}: found no model, neither in a folder here nor on the Hub"):
        load(name)


def test_weights_in_several_files(saved, tmp_path):
    _, model = saved
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    loaded = CommForDocumentRelationExtraction.from_pretrained(tmp_path / "shards")
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in loaded.state_dict().items())


def test_a_backbone_that_is_a_pickle_is_refused(tmp_path, offer):
    folder = Path(save_backbone(tmp_path / "encoder"))
    (folder / "model.safetensors").unlink()
    offer(folder, "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin: a pickle.*save_pretrained\(FOLDER\) converts it"):
        CommForDocumentRelationExtraction.from_backbone(str(folder), id2label={0: "Na", 1: "P17"})


# -------------------------------------------------------------------------------------------------------------- training


def make_trainer(folder):
    config, processor = tiny_system()
    args = CommTrainingArguments(
        str(folder),
        eval_strategy="no",
        load_best_model_at_end=False,
        save_strategy="steps",
        save_steps=1,
        max_steps=2,
        use_cpu=True,
        disable_tqdm=True,
    )
    return CommTrainer(model=tiny_model(config), args=args, train_dataset=DOCUMENTS, processing_class=processor)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    make_trainer(folder).train()
    return folder


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_resuming_executes_no_pickle(trained, tmp_path, offer, name):
    shutil.copytree(trained / "checkpoint-1", tmp_path / "run" / "checkpoint-1")
    trainer = make_trainer(tmp_path / "run")
    offer(tmp_path / "run" / "checkpoint-1", name)
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        trainer.train(resume_from_checkpoint=True)


def test_pickles_of_a_training_stay_in_its_checkpoints(trained):
    pickles = {path.name for path in trained.rglob("*") if path.is_file() and path.suffix in (".bin", ".pt", ".pth")}
    assert pickles == {"optimizer.pt", "scheduler.pt", "rng_state.pth"}
    assert not [path.name for path in trained.iterdir() if path.suffix in (".bin", ".pt", ".pth")]


@pytest.mark.parametrize("strategy", ["every_save", "checkpoint", "all_checkpoints"])
def test_a_push_of_pickles_is_refused(tmp_path, strategy):
    message = f"hub_strategy is '{strategy}', which would publish half-trained models and pickles; expected 'end'"
    with pytest.raises(ValueError, match=message):
        CommTrainingArguments(tmp_path, use_cpu=True, push_to_hub=True, hub_strategy=strategy)
    with pytest.raises(ValueError, match=message):
        CommTrainingArguments(tmp_path, use_cpu=True).set_push_to_hub("org/model", strategy)
    assert CommTrainingArguments(tmp_path, use_cpu=True).set_push_to_hub("org/model").push_to_hub
