"""`CommConfig`: every field is checked where the configuration is made, and what is saved comes back the same."""

import json
import pickle

import pytest
from helpers import LABELS, ROOT, tiny_config, tiny_text_config
from transformers import AutoConfig, BertConfig

from modeling_comm import (
    CommConfig,
    SettingError,
    UnknownFieldError,
    __version__,
    available_losses,
    available_relation_encoders,
)
from modeling_comm.configuration_comm import OWN_FIELDS, PROCESSOR_FIELDS, registered_settings, usable_positions
from modeling_comm.losses import get_loss
from modeling_comm.relation_encoders import get_relation_encoder

# field and wrong value
WRONG = [
    ("text_config", "bert-base-cased"),
    ("text_config", {"hidden_size": 8}),
    ("text_config", {"model_type": "brt"}),
    ("relation_encoder", "atlas"),
    ("relation_encoder", None),
    ("emb_size", 0),
    ("emb_size", 64.0),
    ("emb_size", 18),  # no multiple of block_size
    ("block_size", True),
    ("unet_in_dim", 0),
    ("unet_down_dim", 15),
    ("unet_out_dim", 2.5),
    ("axial_layers", -1),
    ("axial_heads", 5),  # no divisor of the backbone's hidden size
    ("fixed_grid", 0),
    ("loss", "cm"),
    ("loss", ["cmm"]),
    ("loss_reduction", "none"),
    ("averaged_layers", 0),
    ("averaged_layers", 1.0),
    ("averaged_layers", True),
    ("averaged_layers", 3),  # the backbone has 2
    ("evidence_weight", -0.1),
    ("evidence_weight", float("inf")),
    ("evidence_weight", None),
    ("evidence_average", "all"),
    ("cmm_margin", 1.0),
    ("cmm_margin", -0.1),
    ("cmm_margin", float("nan")),
    ("cmm_margin", "0.2"),
    ("cmm_gamma", float("inf")),
    ("cmm_gamma", -1),
    ("aml_margin", None),
    ("afl_gamma", -0.5),
    ("afl_weight", "both"),
    ("afl_weight", True),
    ("hingeabl_margin", -5),
    ("hingeabl_detach_weights", "yes"),
    ("ncrl_shift", 1),
    ("ncrl_regularizer", None),
    ("pu_cmm_margin", 1.0),
    ("pu_cmm_gamma", -1.0),
    ("pu_cmm_facts_per_label", 0.5),
    ("pu_cmm_facts_per_label_by_relation", {"P17": 0.5}),
    ("pu_cmm_facts_per_label_by_relation", {"P999999": 2.0}),
    ("pu_cmm_weight", -1.0),
    ("pu_cmm_weight_by_relation", [1.0]),
    ("ssr_pu_label_rates", {"P17": 1.0}),
    ("ssr_pu_facts_per_label", 0),
    ("ssr_pu_facts_per_label_by_relation", {"P17": "3"}),
    ("ssr_pu_margin", -0.25),
    ("comm_version", 1),
    ("id2label", {1: "Na", 2: "P17"}),
    ("id2label", {0: "Na", 1: "P17", 2: "P17"}),
    ("id2label", {0: "Na", 1: 17}),
    ("id2label", {}),
    ("label2id", {"Na": 0, "P17": 2, "P27": 1, "P131": 3, "P569": 4}),
]
# Their types are checked by Transformers, or they hold another configuration.
BY_TRANSFORMERS = {"text_config", "comm_version", "id2label"}


def declaring(field):
    """The fields that choose a loss and a relation encoder which declare a field, among those that come with the library."""
    chosen = {}
    for key, names, get in (
        ("relation_encoder", available_relation_encoders(), get_relation_encoder),
        ("loss", available_losses(), get_loss),
    ):
        for name in names:
            if field in {setting.field for setting in get(name).settings}:
                chosen[key] = name
    return chosen


@pytest.mark.parametrize(("field", "value"), WRONG, ids=lambda value: str(value)[:20])
def test_wrong_value_is_named(field, value):
    fields = {
        **{"text_config": tiny_text_config(), "id2label": LABELS, "emb_size": 16, "block_size": 4},
        **declaring(field),
    }
    with pytest.raises(ValueError) as error:
        CommConfig(**fields | {field: value})
    if field in BY_TRANSFORMERS and not isinstance(error.value, SettingError):
        assert field in str(error.value) and "\n" not in str(error.value)
    else:
        assert error.value.field == field and error.value.expected
        assert error.value.value == value or value != value
        copy = pickle.loads(pickle.dumps(error.value))
        assert (type(copy), str(copy)) == (type(error.value), str(error.value))


def test_one_label_is_too_few():
    for labels in ({"id2label": {0: "Na"}}, {"num_labels": 1}):
        with pytest.raises(SettingError) as error:
            CommConfig(**labels)
        assert (error.value.field, error.value.value) == ("num_labels", 1)


def test_every_field_has_a_wrong_value():
    assert OWN_FIELDS | set(registered_settings()) <= {field for field, _ in WRONG}


@pytest.mark.parametrize(
    ("fields", "field", "nearest"),
    [
        ({"cmm_margn": 0.3}, "cmm_margn", "cmm_margin"),
        ({"relation_encoder": "docunet", "unet_dim": 8}, "unet_dim", "unet_in_dim"),
        ({"nonsense": 1}, "nonsense", None),
        ({"loss": "hingeabl", "detach_weights": True}, "detach_weights", "hingeabl_detach_weights"),
        ({"loss": "afl", "weight": "paper"}, "weight", "afl_weight"),
        ({"loss": "atl", "cmm_margin": 0.3}, "cmm_margin", None),
        ({"axial_heads": 4}, "axial_heads", None),
    ],
)
def test_what_nobody_declares_is_refused(fields, field, nearest, tmp_path, caplog):
    with pytest.raises(UnknownFieldError) as error:
        CommConfig(**fields)
    assert (error.value.field, error.value.nearest) == (field, nearest)
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)
    config = CommConfig(**{key: value for key, value in fields.items() if key != field})
    setattr(config, field, fields[field])  # set by hand, it is not saved, and that is said
    with caplog.at_level("WARNING"):
        config.save_pretrained(tmp_path)
    assert field in caplog.text
    assert field not in json.loads((tmp_path / "config.json").read_text())


def test_a_setting_of_another_loss_says_whose_it_is():
    with pytest.raises(UnknownFieldError, match="'cmm'"):
        CommConfig(loss="atl", cmm_margin=0.3)


def test_fields_of_transformers_are_known(tmp_path):
    """Fields that Transformers writes, or takes, beside a model's own."""
    config = CommConfig(
        dtype="float16", attn_implementation="eager", output_hidden_states=True, name_or_path="x", _name_or_path="y"
    )
    config.auto_map, config.quantization_config = {"AutoConfig": "a.B"}, {"bits": 4}
    config.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert {"auto_map", "quantization_config", "transformers_version", "dtype", "custom_pipelines"} <= set(saved)
    for more in ({}, {"torch_dtype": "bfloat16", "attn_implementation": "sdpa", "output_attentions": False}):
        loaded = CommConfig.from_pretrained(tmp_path, **more)
        assert loaded.output_hidden_states and loaded.quantization_config == {"bits": 4}
    assert loaded._attn_implementation == loaded.text_config._attn_implementation == "sdpa"


def test_fields_changed_by_hand_can_be_checked_again():
    config = tiny_config(loss="cmm")
    config.cmm_margin = 1.5
    with pytest.raises(SettingError) as error:
        config.validate()
    assert error.value.field == "cmm_margin"


def test_settings_of_the_chosen_parts_alone_are_saved(tmp_path):
    CommConfig(loss="afl", relation_encoder="kd_docre").save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    written = set(saved) & set(registered_settings())
    assert written == {
        *("afl_gamma", "afl_weight", "emb_size", "block_size", "axial_layers", "axial_heads", "fixed_grid"),
    }


def test_a_configuration_of_the_first_version_loads(tmp_path):
    """It holds the settings of every loss and of every relation encoder."""
    [folder] = (ROOT / "tests" / "fixtures").glob("checkpoint-6bd7626-atlop-*")
    saved = json.loads((folder / "config.json").read_text())
    assert {"aml_margin", "afl_published", "unet_in_dim", "axial_heads", "ncrl_shift"} <= set(saved)
    for published, loss, expected in ((True, "afl", "paper"), (False, "afl", "code"), (True, "cmm", None)):
        (tmp_path / "config.json").write_text(json.dumps(saved | {"loss": loss, "afl_published": published}))
        loaded = CommConfig.from_pretrained(tmp_path)
        assert getattr(loaded, "afl_weight", None) == expected
        loaded.save_pretrained(tmp_path / "again")
        again = json.loads((tmp_path / "again" / "config.json").read_text())
        assert not {"afl_published", "aml_margin", "unet_in_dim", "axial_heads", "fixed_grid"} & set(again)
    (tmp_path / "config.json").write_text(json.dumps(saved | {"la_tua": 0.5}))
    with pytest.raises(UnknownFieldError):
        CommConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize("field", PROCESSOR_FIELDS)
def test_what_the_processor_owns_is_read_from_old_files_only(field, tmp_path):
    with pytest.raises(UnknownFieldError) as error:
        CommConfig(num_labels=3, **{field: 1})
    assert error.value.field == field
    old = CommConfig(num_labels=3).to_dict() | {field: 1}
    (tmp_path / "config.json").write_text(json.dumps(old))
    config = CommConfig.from_pretrained(tmp_path)
    assert not hasattr(config, field) and field not in config.to_dict()
    with pytest.raises(UnknownFieldError):
        CommConfig.from_pretrained(tmp_path, **{field: 1})


def test_changes_on_loading_are_checked(tmp_path):
    CommConfig(num_labels=3, loss="aml", aml_margin=2.0).save_pretrained(tmp_path)
    changed = CommConfig.from_pretrained(tmp_path, loss="cmm", cmm_margin=0.4)
    assert (changed.cmm_margin, changed.cmm_gamma, hasattr(changed, "aml_margin")) == (0.4, 1.0, False)
    with pytest.raises(SettingError):
        CommConfig.from_pretrained(tmp_path, aml_margin=-7)
    with pytest.raises(UnknownFieldError):
        CommConfig.from_pretrained(tmp_path, cmm_margin=0.3)
    with pytest.raises(ValueError, match="id2label"):
        CommConfig(id2label=["Na", "P17"])


def test_labels():
    config = CommConfig(num_labels=3)
    assert config.id2label == {0: "Na", 1: "LABEL_1", 2: "LABEL_2"}
    assert config.label2id == {"Na": 0, "LABEL_1": 1, "LABEL_2": 2}
    config = CommConfig(id2label={"0": "Na", "1": "P17"})  # JSON has text keys
    assert (config.num_labels, config.id2label[1], config.label2id["P17"]) == (2, "P17", 1)
    assert CommConfig(label2id={"Na": 0, "P17": 2, "P1": 1}).id2label == {0: "Na", 1: "P1", 2: "P17"}
    with pytest.raises(SettingError):
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


@pytest.mark.parametrize(
    "chosen",
    [
        {
            **{"relation_encoder": "docunet", "emb_size": 24, "block_size": 8, "unet_in_dim": 2, "unet_down_dim": 16},
            **{"unet_out_dim": 12, "fixed_grid": 30, "loss": "hingeabl", "hingeabl_margin": 4.0},
            "hingeabl_detach_weights": True,
        },
        {
            **{"relation_encoder": "kd_docre", "emb_size": 24, "block_size": 8, "axial_layers": 3, "axial_heads": 4},
            **{"fixed_grid": 30, "loss": "afl", "afl_gamma": 2.0, "afl_weight": "paper"},
        },
        {
            "relation_encoder": "atlop",
            "emb_size": 24,
            "block_size": 8,
            "loss": "cmm",
            "cmm_margin": 0.3,
            "cmm_gamma": 2,
        },
    ],
    ids=lambda chosen: chosen["loss"],
)
def test_save_and_load(chosen, tmp_path):
    given = {
        **chosen,
        "loss_reduction": "sum",
        "averaged_layers": 2,
        "evidence_weight": 0.1,
        "evidence_average": "related",
        "id2label": LABELS,
    }
    assert OWN_FIELDS - {"text_config", "comm_version"} <= set(given)
    text_config = tiny_text_config("roberta", hidden_act="relu")
    config = CommConfig(text_config=text_config, **given)
    assert {setting.field for setting in config.declared_settings()} <= set(given)
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
    config = tiny_config(loss="cmm")
    config.save_pretrained(tmp_path)
    CommConfig.from_pretrained(tmp_path)
    patch = ".".join([*__version__.split(".")[:2], "999"])
    CommConfig(comm_version=patch)
    assert not [warning for warning in recwarn if "modeling_comm" in str(warning.message)]
    saved = json.loads((tmp_path / "config.json").read_text())
    saved["comm_version"] = "99.1.0"
    del saved["cmm_margin"]
    (tmp_path / "config.json").write_text(json.dumps(saved))
    with pytest.warns(UserWarning, match=rf"99\.1\.0.*{__version__}"):
        loaded = CommConfig.from_pretrained(tmp_path)
    assert loaded.comm_version == __version__ and loaded.cmm_margin == 0.2
    loaded.save_pretrained(tmp_path)
    recwarn.clear()
    CommConfig.from_pretrained(tmp_path)  # saved by this version, so no longer warned of
    assert not [warning for warning in recwarn if "modeling_comm" in str(warning.message)]
