"""A loss with two settings and a relation encoder with one, each in a file that this test writes: nothing else names them, and
they have flags, checks and fields of the configuration, and travel with the checkpoint."""

import json
import sys

import pytest
import torch
import yaml
from fresh_process import run_fresh, write_expected
from helpers import SAMPLE, run_script, save_backbone
from transformers import AutoModel, AutoProcessor

import run_docre
from modeling_comm import (
    CommConfig,
    RelationEncoder,
    SettingError,
    UnknownFieldError,
    loss_registry,
    register_loss,
    register_relation_encoder,
)
from modeling_comm import relation_encoder_registry as encoder_registry
from modeling_comm.extensions import import_extensions
from modeling_comm.losses import get_loss, loss_from_config
from modeling_comm.training.script_arguments import UnknownArgumentsError, given_fields

LOSS = '''
from typing import Annotated

from torch.nn.functional import logsigmoid

from modeling_comm import AtLeast, InRange, reduce_losses, register_loss, relation_distances, relation_values


@register_loss("la", reference="Menon et al. 2021")
def logit_adjusted_loss(
    logits,
    labels,
    reduction="mean",
    *,
    tau: Annotated[float, InRange(0, 10)] = 1.0,
    prior: Annotated[dict[str, float] | None, AtLeast(0), "Rate of each relation among the labels."] = None,
):
    """Logistic loss with logits shifted by the rate of their relation.

    Args:
        tau (`float`, *optional*): Weight of the shift; 30 % is 0.3.
    """
    distances, positive = relation_distances(logits, labels)
    distances = distances + tau * relation_values(prior, logits, default=0.0)
    return reduce_losses(-logsigmoid(distances.where(positive, -distances)).sum(-1), reduction)
'''
ENCODER = """
from typing import Annotated, Literal

import torch
from torch import nn

from modeling_comm import GroupedBilinear, RelationEncoder, project_with_entity, register_relation_encoder


@register_relation_encoder("gated")
class GatedRelationEncoder(RelationEncoder):
    class Settings(RelationEncoder.Settings):
        gate: Annotated[Literal["open", "closed"], "Whether the context is read."] = "open"

    def __init__(self, config):
        super().__init__(config)
        self.gate = config.gate
        self.projection = nn.Linear(2 * self.hidden_size, config.emb_size)
        self.classifier = GroupedBilinear(config.emb_size, config.block_size, self.num_labels)

    def forward(self, documents):
        entities, pairs = documents.entity_embeddings(), documents.pair_index
        contexts = documents.pair_contexts(pairs) * (self.gate == "open")
        document, head, tail = pairs.unbind(-1)
        return self.classifier(
            project_with_entity(self.projection, entities, document, head, contexts),
            project_with_entity(self.projection, entities, document, tail, contexts),
        )
"""
PRIOR = {"P17": 0.5, "P131": 0.25}


@pytest.fixture(scope="module", autouse=True)
def registries():
    """Removes after this module what the files register."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder_registry, "_REGISTRY", dict(encoder_registry._REGISTRY))
        patch.setattr(loss_registry, "_REGISTRY", dict(loss_registry._REGISTRY))
        yield
    for name in ("own_la", "own_gated"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("declared")
    (folder / "own_la.py").write_text(LOSS)
    (folder / "own_gated.py").write_text(ENCODER)
    save_backbone(folder / "encoder")
    return folder


@pytest.fixture(scope="module")
def flags(work):
    """Flags of a run with both files."""
    return [
        *("--extensions", work / "own_la.py", work / "own_gated.py", "--loss", "la", "--relation_encoder", "gated"),
        *("--model_name_or_path", work / "encoder", "--dataset_config", "redocred", "--data_dir", SAMPLE),
        *(
            "--cache_dir",
            work / "cache",
            "--use_cpu",
            "--disable_tqdm",
            "true",
            "--emb_size",
            "16",
            "--block_size",
            "4",
        ),
        *("--do_train", "--max_steps", "2", "--max_train_documents", "4", "--max_eval_documents", "2"),
        *("--head_learning_rate", "1e-3", "--eval_strategy", "no", "--load_best_model_at_end", "false"),
    ]


@pytest.fixture(scope="module")
def trained(work, flags):
    """A checkpoint that was trained with the two files' own flags."""
    own = ["--la_tau", "0.5", "--la_prior", json.dumps(PRIOR), "--gate", "closed"]
    run_script(*flags, *own, "--output_dir", work / "trained")
    return work / "trained"


def parse(*flags):
    return run_docre.parse_arguments([str(flag) for flag in (*flags, "--output_dir", "unused")])


def test_flags_reach_the_saved_configuration(trained):
    saved = json.loads((trained / "config.json").read_text())
    fields = ("loss", "relation_encoder", "la_tau", "la_prior", "gate", "emb_size")
    assert [saved[field] for field in fields] == ["la", "gated", 0.5, PRIOR, "closed", 16]
    assert not {"cmm_margin", "afl_weight", "unet_in_dim", "axial_heads", "fixed_grid"} & set(saved)
    assert {"own_la.py", "own_gated.py"} <= {file.name for file in trained.iterdir()}


def test_the_record_and_the_card_have_the_settings(trained):
    record = json.loads((trained / "run.json").read_text())
    assert record["config"]["la_prior"] == PRIOR
    card = (trained / "README.md").read_text()
    assert all(f"`{field}`" in card for field in ("la_tau", "gate", "emb_size"))


def test_the_checkpoint_loads_without_the_package(trained, tmp_path):
    model, processor = AutoModel.from_pretrained(trained).eval(), AutoProcessor.from_pretrained(trained)
    documents = json.loads((SAMPLE / "dev_revised.json").read_text(encoding="utf-8"))[:2]
    with torch.no_grad():  # so that something is predicted
        model.relation_encoder.classifier.linear.weight.mul_(30)
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    write_expected(tmp_path / "expected", model, processor, documents)
    run_fresh(
        """
folder = Path(sys.argv[1])
model, _ = load_and_compare(folder / "model", folder / "expected", trust_remote_code=True)
assert type(model).__module__.startswith("transformers_modules.")
assert (model.config.la_tau, model.config.gate) == (0.5, "closed")
""",
        tmp_path,
        home=tmp_path,
        package=False,
    )


def test_a_mapping_reaches_the_loss_by_column(work, trained):
    config = CommConfig.from_pretrained(trained)
    logits = torch.randn(3, config.num_labels)
    labels = torch.zeros(3, config.num_labels)
    labels[0, config.label2id["P17"]] = 1
    by_column = {config.label2id[relation]: rate for relation, rate in PRIOR.items()}
    expected = get_loss("la").function(logits, labels, tau=0.5, prior=by_column)
    assert torch.equal(loss_from_config(config)(logits, labels), expected)
    shifted = logits.clone()
    for column, rate in by_column.items():
        shifted[:, column] += 0.5 * rate
    assert torch.allclose(expected, get_loss("la").function(shifted, labels, tau=0.0))


def test_help_has_type_range_and_default(flags, capsys):
    with pytest.raises(SystemExit):
        parse(*flags, "--help")
    shown = " ".join(capsys.readouterr().out.split())
    for text in (
        "Weight of the shift; 30 % is 0.3 (a finite number in [0, 10); default: 1.0).",
        "Rate of each relation",
    ):
        assert text in shown
    assert "--gate {open,closed}" in shown and "la, margin" in shown


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_a_file_of_arguments_names_the_extensions_too(work, tmp_path, suffix):
    settings = {
        "extensions": [str(work / "own_la.py"), str(work / "own_gated.py")],
        **{"loss": "la", "la_tau": 2, "la_prior": PRIOR, "gate": "closed", "output_dir": "unused"},
    }
    file = tmp_path / f"arguments.{suffix}"
    file.write_text(yaml.safe_dump(settings) if suffix == "yaml" else json.dumps(settings))
    given = given_fields(run_docre.parse_arguments([str(file), "--la_tau", "3"]).model)
    assert given == {"loss": "la", "la_tau": 3.0, "la_prior": PRIOR, "gate": "closed"}


def test_relations_that_the_data_lack_are_refused(flags, work):
    with pytest.raises(SettingError) as error:
        run_script(*flags, "--la_prior", '{"P999999": 1}', "--output_dir", work / "refused")
    assert error.value.field == "la_prior"


@pytest.mark.parametrize(
    "wrong",
    [
        *(["--la_tua", "1"], ["--la_ta", "1"], ["--gate", "ajar"], ["--la_tau", "10"], ["--la_tau", "x"]),
        *(["--la_prior", "[1]"], ["--la_prior", "{"], ["--la_prior", '{"P17": -1}']),
    ],
)
def test_flags_that_do_not_exist_and_values_that_no_flag_takes(flags, wrong):
    with pytest.raises((SystemExit, UnknownArgumentsError)):
        parse(*flags, *wrong)


def test_misspelt_fields_are_refused_with_the_nearest_name(work):
    import_extensions([work / "own_la.py", work / "own_gated.py"])
    with pytest.raises(UnknownFieldError) as error:
        CommConfig(loss="la", la_tua=0.5)
    assert (error.value.field, error.value.nearest) == ("la_tua", "la_tau")
    with pytest.raises(UnknownFieldError):
        CommConfig(loss="cmm", la_tau=0.5)  # of a loss that is not chosen
    with pytest.raises(SettingError) as error:
        CommConfig(loss="la", la_tau="x")
    assert (error.value.field, error.value.value) == ("la_tau", "x")


# ---------------------------------------------------------------------------------------- what fails where it is registered


def own_encoder(settings):
    """A class of a relation encoder with these settings."""
    return type("Own", (RelationEncoder,), {"Settings": settings, "forward": lambda self, documents: None})


def wrong_losses():
    def unannotated(logits, labels, reduction="mean", *, margin=1.0): ...

    def without_default(logits, labels, reduction="mean", *, margin: float): ...

    def of_a_strange_type(logits, labels, reduction="mean", *, margin: torch.Tensor | None = None): ...

    def with_a_wrong_default(logits, labels, reduction="mean", *, margin: int = 0.5): ...

    def any_keyword(logits, labels, reduction="mean", **margin): ...

    def without_reduction(logits, labels, margin: float = 1.0): ...

    return [unannotated, without_default, of_a_strange_type, with_a_wrong_default, any_keyword, without_reduction]


@pytest.mark.parametrize("function", wrong_losses(), ids=lambda function: function.__name__)
def test_a_loss_that_cannot_serve_fails_at_registration(function):
    with pytest.raises(ValueError, match=r"register_loss\('mine'\)"):
        register_loss("mine")(function)
    assert "mine" not in loss_registry.available_losses()


def test_a_setting_that_is_a_field_already_fails_at_registration():
    def own(logits, labels, reduction="mean", *, size: int = 8): ...

    with pytest.raises(ValueError, match="'window_size'"):
        register_loss("window")(own)
    register_loss("win")(own)


def test_a_setting_with_the_name_of_a_flag_of_the_script(monkeypatch):
    monkeypatch.setattr(encoder_registry, "_REGISTRY", dict(encoder_registry._REGISTRY))
    settings = type("Settings", (), {"__annotations__": {"learning_rate": float}, "learning_rate": 1.0})
    register_relation_encoder("own_rate")(own_encoder(settings))
    with pytest.raises(ValueError, match="--learning_rate"):
        parse()


def test_a_loss_and_an_encoder_with_one_field_do_not_go_together(work):
    import_extensions([work / "own_la.py"])
    settings = type("Settings", (), {"__annotations__": {"la_tau": float}, "la_tau": 2.0})
    register_relation_encoder("same")(own_encoder(settings))
    with pytest.raises(ValueError, match="la_tau"):
        CommConfig(loss="la", relation_encoder="same")
    assert CommConfig(loss="atl", relation_encoder="same").la_tau == 2.0


@pytest.mark.parametrize(
    "settings",
    [
        {"__annotations__": {"dropout": float}},  # no default
        {"dropout": 0.1},  # no type
        {"__annotations__": {"window_size": int}, "window_size": 8},
        {"__annotations__": {"temperature": float}, "temperature": 1.0},  # Transformers' own, for generation
        {"__annotations__": {"num_labels": int}, "num_labels": 2},
    ],
    ids=lambda settings: "_".join(settings),
)
def test_an_encoder_whose_settings_cannot_serve_fails_at_registration(settings):
    own = type("Own", (RelationEncoder,), {"Settings": type("Settings", (RelationEncoder.Settings,), settings)})
    with pytest.raises(ValueError, match=r"register_relation_encoder\('mine'\)"):
        register_relation_encoder("mine")(own)
    assert "mine" not in encoder_registry.available_relation_encoders()
