"""The recipes in `examples/recipes`: one for each row of the paper, each with the row's settings, each running end to end on the
bundled sample with a tiny random encoder of its backbone's kind."""

import json
import math
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from helpers import LABELS, ROOT, SAMPLE, run_script, save_backbone, small_encoder
from transformers import AutoConfig

from dataset_scripts.builder import find_data_files
from modeling_comm import CommConfig, CommForDocumentRelationExtraction
from modeling_comm.relation_encoders import get_relation_encoder
from modeling_comm.training.script_arguments import given_fields, given_settings, parse_arguments

RECIPES = ROOT / "examples" / "recipes"
TRAIN_FILES = {"redocred": "train_revised.json", "docred_mixed": "train_annotated.json"}
BACKBONES = {"bert": ("bert-base-cased", 5e-5), "roberta": ("roberta-large", 3e-5)}  # name, learning rate
# Sizes of the two backbones, so that nothing is downloaded.
SIZES = {
    "bert": {"vocab_size": 28996},  # the others are BERT-base's by default
    "roberta": {
        **{"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1},
        **{"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
    },
}


class Row(NamedTuple):
    """A row of the paper's tables under one of its two settings."""

    backbone: str
    encoder: str
    setting: str
    loss: str = "cmm"


TABLE_1 = {
    f"{backbone}_{encoder}_{setting}": Row(backbone, encoder, setting)
    for backbone in BACKBONES
    for encoder in ("atlop", "docunet", "kd_docre")
    for setting in TRAIN_FILES
}
TABLES_2_AND_3 = {
    f"loss_{loss}_{setting}": Row("bert", "atlop", setting, loss)
    for loss in ("atl", "balanced_softmax", "aml", "afl", "hingeabl")
    for setting in TRAIN_FILES
}
ROWS = TABLE_1 | TABLES_2_AND_3

every_recipe = pytest.mark.parametrize(
    ("name", "row"), [pytest.param(name, row, id=name) for name, row in ROWS.items()]
)


def recipe(name):
    return str(RECIPES / f"{name}.yaml")


def read(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


def test_one_file_for_each_row():
    assert {path.name for path in RECIPES.iterdir()} == {f"{name}.yaml" for name in ROWS} | {"README.md"}


def test_readme_lists_every_file():
    assert set(re.findall(r"\w+\.yaml", (RECIPES / "README.md").read_text(encoding="utf-8"))) == {
        f"{name}.yaml" for name in ROWS
    }


@every_recipe
def test_arguments(name, row):
    arguments = parse_arguments([recipe(name)])
    model, data, training, script = arguments.model, arguments.data, arguments.training, arguments.run
    backbone, learning_rate = BACKBONES[row.backbone]
    assert (model.model_name_or_path, model.relation_encoder, model.loss) == (backbone, row.encoder, row.loss)
    assert model.max_relations_per_pair == 4
    assert (training.learning_rate, training.head_learning_rate) == (learning_rate, 1e-4)
    assert (training.per_device_train_batch_size, training.gradient_accumulation_steps) == (4, 1)
    assert (training.num_train_epochs, training.max_steps, training.seed, script.seeds) == (30, -1, 66, None)
    assert (training.do_train, training.do_eval, training.do_predict) == (True, True, True)
    assert training.output_dir == f"outputs/{name}"
    files = find_data_files(data.dataset_config, data.data_dir)
    assert {split: address.startswith("https://") for split, address in files.items()} == {
        "train": True,
        "validation": True,
        "test": True,
    }
    names = {split: address.split("/")[-1].removesuffix(".gz") for split, address in files.items()}
    assert names == {"train": TRAIN_FILES[row.setting], "validation": "dev_revised.json", "test": "test_revised.json"}


@every_recipe
def test_model_of_full_size(name, row):
    arguments = parse_arguments([recipe(name)]).model
    given = given_fields(arguments)
    config = CommConfig(
        text_config=AutoConfig.for_model(row.backbone, **SIZES[row.backbone]), id2label=LABELS, **given
    )
    assert (config.relation_encoder, config.loss, config.loss_reduction) == (row.encoder, row.loss, "mean")
    settings = given_settings(arguments)
    expected = {"max_relations_per_pair": 4}
    if (row.backbone, row.encoder) == ("bert", "docunet"):
        expected["markers"] = "entity_type"
    assert settings == expected
    # As the originals have them.
    originals = {
        **{"emb_size": 768, "block_size": 64, "unet_in_dim": 3, "unet_down_dim": 256, "unet_out_dim": 256},
        **{"axial_layers": 6, "axial_heads": 8, "fixed_grid": None, "cmm_margin": 0.2, "cmm_gamma": 1.0},
        **{"aml_margin": 1.0, "afl_gamma": 1.0, "afl_weight": "code", "hingeabl_margin": 5.0},
        "hingeabl_detach_weights": False,
    }
    declared = {setting.field: getattr(config, setting.field) for setting in config.declared_settings()}
    assert declared == {field: value for field, value in originals.items() if field in declared}
    with torch.device("meta"):  # shapes without memory
        model = CommForDocumentRelationExtraction(config)
    assert type(model.relation_encoder) is get_relation_encoder(row.encoder).encoder


# --------------------------------------------------------------------------------------------------------------- end to end

FEW = {"max_train_documents": 4, "max_eval_documents": 2, "max_predict_documents": 2, "num_train_epochs": 1}


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with a tiny encoder of each backbone's kind, and the sample in `data` under the names of both settings."""
    folder = tmp_path_factory.mktemp("recipes")
    for kind in BACKBONES:
        save_backbone(folder / kind, kind)
    shutil.copytree(SAMPLE, folder / "data")
    documents = read(SAMPLE / "train_revised.json")
    for document in documents:
        document["labels"] = document["labels"][::2]  # DocRED lacks many of the facts that Re-DocRED has
    (folder / "data" / "train_annotated.json").write_text(json.dumps(documents))
    return folder


@every_recipe
def test_run(name, row, work, tmp_path):
    overrides = {
        **{"data_dir": work / "data", "cache_dir": work / "cache", "model_name_or_path": work / row.backbone},
        **{
            "output_dir": tmp_path,
            "use_cpu": True,
            "disable_tqdm": True,
            **small_encoder(row.encoder, emb_size=16, block_size=4),
            **FEW,
        },
    }
    (metrics,) = run_script(recipe(name), *(f"--{flag}={value}" for flag, value in overrides.items()))
    record, predictions = read(tmp_path / "run.json"), read(tmp_path / "results.json")
    assert Path(record["data"]["files"]["train"]["source"]).name == TRAIN_FILES[row.setting]
    assert record["ign_reference"]["source"] == TRAIN_FILES[row.setting]
    config = record["config"]
    assert (config["text_config"]["model_type"], config["relation_encoder"]) == (row.backbone, row.encoder)
    assert (config["loss"], record["seed"]) == (row.loss, 66)
    assert math.isfinite(metrics["train_loss"])
    assert {"eval_f1", "eval_ign_f1", "test_f1", "test_ign_f1", "test_type_prior_f1"} <= set(metrics)
    assert metrics["test_predicted_positives"] == len(predictions)
    by_pair = Counter((found["title"], found["h_idx"], found["t_idx"]) for found in predictions)
    assert all(count <= 4 for count in by_pair.values())
