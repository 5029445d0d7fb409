"""`CommConfig`: every field is checked where the configuration is made, and what is saved comes back the same."""

import inspect
import json

import pytest
from helpers import LABELS, tiny_config, tiny_text_config
from transformers import AutoConfig, BertConfig

from modeling_comm import CommConfig, __version__
from modeling_comm.configuration_comm import PROCESSOR_FIELDS, usable_positions

# field, value, what the message says is allowed
WRONG = [
    ("text_config", "bert-base-cased", "a configuration or a dict"),
    ("text_config", {"hidden_size": 8}, "`model_type`"),
    ("text_config", {"model_type": "brt"}, "Unrecognized model identifier: brt"),
    ("relation_encoder", "atlas", "'atlop'"),
    ("relation_encoder", None, "'atlop'"),
    ("emb_size", 0, "an integer >= 1"),
    ("emb_size", 64.0, "an integer >= 1"),
    ("emb_size", 18, "a multiple of block_size=4"),
    ("block_size", True, "an integer >= 1"),
    ("unet_in_dim", 0, "an integer >= 1"),
    ("unet_down_dim", 15, "an even number"),
    ("unet_out_dim", 2.5, "an integer >= 1"),
    ("axial_layers", -1, "an integer >= 0"),
    ("axial_heads", 5, "a divisor of the backbone's hidden size 32"),
    ("fixed_grid", 0, "an integer >= 1"),
    ("loss", "cm", "'cmm'"),
    ("loss", ["cmm"], "'cmm'"),
    ("loss_reduction", "none", "'mean', 'sum'"),
    ("cmm_margin", 1.0, "[0, 1)"),
    ("cmm_margin", -0.1, "[0, 1)"),
    ("cmm_margin", float("nan"), "[0, 1)"),
    ("cmm_margin", "0.2", "[0, 1)"),
    ("cmm_gamma", float("inf"), "finite number >= 0"),
    ("cmm_gamma", -1, "finite number >= 0"),
    ("aml_margin", None, "finite number >= 0"),
    ("afl_gamma", -0.5, "finite number >= 0"),
    ("afl_published", 1, "true or false"),
    ("hingeabl_margin", -5, "finite number >= 0"),
    ("hingeabl_detach_weights", "yes", "true or false"),
    ("ncrl_shift", 1, "[0, 1)"),
    ("ncrl_regularizer", None, "true or false"),
    ("comm_version", 1, "a version"),
    ("id2label", {0: "P17", 1: "Na"}, "'Na' at 0"),
    ("id2label", {1: "Na", 2: "P17"}, "ids 0, 1, ... without a gap"),
    ("id2label", {0: "Na", 1: "P17", 2: "P17"}, "labels that differ"),
    ("id2label", {0: "Na", 1: 17}, "labels that are text"),
    ("id2label", {}, "'Na' at 0"),
    ("label2id", {"Na": 0, "P17": 2, "P27": 1, "P131": 3, "P569": 4}, "the inverse of id2label"),
]


@pytest.mark.parametrize(("field", "value", "allowed"), WRONG, ids=lambda value: str(value)[:20])
def test_wrong_value_is_named(field, value, allowed):
    fields = {
        "text_config": tiny_text_config(),
        "id2label": LABELS,
        "emb_size": 16,
        "block_size": 4,
    }
    # What only one relation encoder reads is checked where that one is chosen.
    fields["relation_encoder"] = {"unet": "docunet", "axial": "kd_docre"}.get(field.partition("_")[0], "atlop")
    with pytest.raises(ValueError) as error:
        CommConfig(**fields | {field: value})
    message = str(error.value)
    assert message.startswith(f"CommConfig: {field} ") and allowed in message
    shown = value["model_type"] if value == {"model_type": "brt"} else value  # the message of Transformers, passed on
    assert repr(shown) in message or str(shown) in message or all(repr(key) in message for key in value)


def test_one_label_is_too_few():
    for labels in ({"id2label": {0: "Na"}}, {"num_labels": 1}):
        with pytest.raises(ValueError, match=r"CommConfig: num_labels is 1; expected at least 2"):
            CommConfig(**labels)


def test_every_field_has_a_wrong_value():
    named = {field for field, _, _ in WRONG}
    assert set(inspect.signature(CommConfig.__init__).parameters) - {"self", "kwargs"} <= named


def test_misspelt_field_is_refused():
    with pytest.raises(ValueError, match=r"no field 'cmm_margn' \(found 0.3\); expected 'cmm_margin'"):
        CommConfig(cmm_margn=0.3)
    assert CommConfig(mine_weight=2.0).mine_weight == 2.0  # a field of a user's own loss


def test_fields_changed_by_hand_can_be_checked_again():
    config = tiny_config()
    config.cmm_margin = 1.5
    with pytest.raises(ValueError, match=r"cmm_margin is 1\.5"):
        config.validate_fields()


def test_changes_on_loading_are_checked(tmp_path):
    CommConfig(num_labels=3, loss="atl").save_pretrained(tmp_path)
    assert CommConfig.from_pretrained(tmp_path, loss="cmm").loss == "cmm"
    with pytest.raises(ValueError, match="cmm_margin is 7"):
        CommConfig.from_pretrained(tmp_path, loss="cmm", cmm_margin=7)
    with pytest.raises(ValueError, match=r"id2label is \['Na', 'P17'\]; expected a dict"):
        CommConfig(id2label=["Na", "P17"])


@pytest.mark.parametrize("field", PROCESSOR_FIELDS)
def test_what_the_processor_owns_is_read_from_old_files_only(field, tmp_path):
    with pytest.raises(ValueError, match=field):
        CommConfig(num_labels=3, **{field: 1})
    old = CommConfig(num_labels=3).to_dict() | {field: 1}
    (tmp_path / "config.json").write_text(json.dumps(old))
    config = CommConfig.from_pretrained(tmp_path)
    assert not hasattr(config, field) and field not in config.to_dict()
    with pytest.raises(ValueError, match=field):
        CommConfig.from_pretrained(tmp_path, **{field: 1})


def test_labels():
    config = CommConfig(num_labels=3)
    assert config.id2label == {0: "Na", 1: "LABEL_1", 2: "LABEL_2"}
    assert config.label2id == {"Na": 0, "LABEL_1": 1, "LABEL_2": 2}
    config = CommConfig(id2label={"0": "Na", "1": "P17"})  # JSON has text keys
    assert (config.num_labels, config.id2label[1], config.label2id["P17"]) == (2, "P17", 1)
    assert CommConfig(label2id={"Na": 0, "P17": 2, "P1": 1}).id2label == {0: "Na", 1: "P1", 2: "P17"}
    with pytest.raises(ValueError, match="num_labels is 3; id2label has 2 labels"):
        CommConfig(id2label={0: "Na", 1: "P17"}, num_labels=3)


def test_longest_input_of_a_backbone():
    assert usable_positions(BertConfig(max_position_embeddings=512)) == 512
    for model_type in ("roberta", "xlm-roberta", "camembert", "mpnet"):
        text_config = AutoConfig.for_model(model_type, max_position_embeddings=514, pad_token_id=1)
        assert usable_positions(text_config) == 512
    assert usable_positions(AutoConfig.for_model("modernbert")) == 8192
    unlimited = AutoConfig.for_model("xlm")  # its table goes by another name
    unlimited.max_position_embeddings = -1
    assert usable_positions(unlimited) >= 10**9


def test_save_and_load(tmp_path):
    given = {
        "relation_encoder": "docunet",
        "emb_size": 24,
        "block_size": 8,
        "unet_in_dim": 2,
        "unet_down_dim": 16,
        "unet_out_dim": 12,
        "axial_layers": 3,
        "axial_heads": 4,
        "fixed_grid": 30,
        "loss": "hingeabl",
        "loss_reduction": "sum",
        "cmm_margin": 0.3,
        "cmm_gamma": 2,
        "aml_margin": 0.5,
        "afl_gamma": 2.0,
        "afl_published": True,
        "hingeabl_margin": 4.0,
        "hingeabl_detach_weights": True,
        "ncrl_shift": 0.1,
        "ncrl_regularizer": False,
        "id2label": LABELS,
    }
    rest = {"text_config", "comm_version"}
    assert set(inspect.signature(CommConfig.__init__).parameters) - {"self", "kwargs"} - rest <= set(given)
    text_config = tiny_text_config("roberta", hidden_act="relu")
    config = CommConfig(text_config=text_config, **given)
    assert config.comm_version == __version__
    config.save_pretrained(tmp_path)
    for loaded in (CommConfig.from_pretrained(tmp_path), AutoConfig.from_pretrained(tmp_path)):
        assert type(loaded) is CommConfig
        assert {field: getattr(loaded, field) for field in given} == given
        assert type(loaded.text_config) is type(text_config) and loaded.text_config.hidden_act == "relu"
        assert loaded.text_config.num_hidden_layers == 2
        # Saved once more, nothing is added: not the folder that it was loaded from either.
        loaded.save_pretrained(tmp_path / "again")
        assert (tmp_path / "again" / "config.json").read_text() == (tmp_path / "config.json").read_text()


def test_backbone_path_and_licence_to_run_code_are_not_published(tmp_path):
    tiny_text_config().save_pretrained(tmp_path / "encoder")
    text_config = AutoConfig.from_pretrained(tmp_path / "encoder")
    text_config.trust_remote_code = True
    assert str(tmp_path) in text_config._name_or_path
    config = CommConfig(text_config=text_config)
    config.save_pretrained(tmp_path / "saved")
    written = (tmp_path / "saved" / "config.json").read_text()
    assert str(tmp_path) not in written and "trust_remote_code" not in written
    assert json.loads(written)["text_config"]["model_type"] == "bert"
    assert str(tmp_path) not in config.to_json_string(use_diff=False)


def test_backbone_configuration_is_a_copy():
    text_config = tiny_text_config()
    config = CommConfig(text_config=text_config)
    config.text_config.hidden_size = 8
    assert text_config.hidden_size == 32
    assert CommConfig().text_config.model_type == "bert"
    assert CommConfig(text_config={"model_type": "electra", "hidden_size": 24}).text_config.hidden_size == 24


def test_another_version_warns(tmp_path, recwarn):
    config = tiny_config()
    config.save_pretrained(tmp_path)
    CommConfig.from_pretrained(tmp_path)
    patch = ".".join([*__version__.split(".")[:2], "999"])
    CommConfig(comm_version=patch)
    assert not [warning for warning in recwarn if "modeling_comm" in str(warning.message)]
    saved = json.loads((tmp_path / "config.json").read_text())
    saved["comm_version"] = "99.1.0"
    del saved["cmm_margin"]
    (tmp_path / "config.json").write_text(json.dumps(saved))
    with pytest.warns(UserWarning, match=rf"written by modeling_comm 99\.1\.0; this is {__version__}"):
        loaded = CommConfig.from_pretrained(tmp_path)
    assert loaded.comm_version == "99.1.0" and loaded.cmm_margin == 0.2
