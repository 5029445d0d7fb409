"""Relation encoders and losses from a user's own file: they train, are saved with the model, and load again."""

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
import transformers.utils.hub
from fresh_process import run_fresh, save_again, write_expected
from helpers import random_document, tiny_config, tiny_model, tiny_processor, tiny_system

from modeling_comm import (
    CommForDocumentRelationExtraction,
    RelationEncoder,
    available_losses,
    available_relation_encoders,
    loss_registry,
    register_loss,
    register_relation_encoder,
)
from modeling_comm import relation_encoder_registry as encoder_registry
from modeling_comm.extensions import ExtensionError, import_extensions
from modeling_comm.relation_encoder_atlop import AtlopRelationEncoder
from modeling_comm.relation_encoder_base import RelationEncoderError
from modeling_comm.settings import NameTakenError, SettingError
from modeling_comm.training.checks import check_reductions
from modeling_comm.training.script_arguments import parse_arguments
from modeling_comm.training.trainer import CommTrainer
from modeling_comm.training.training_args import CommTrainingArguments

# Imports in several forms, one of them over several lines, in a function, or behind another statement.
OWN_FILE = '''"""A file such as a user writes: `from modeling_comm import NAME` is all that it needs."""

import torch
from torch import nn

from modeling_comm import (
    cmm_loss,
    GroupedBilinear as Bilinear,
    RelationEncoder,  # the base class
    register_relation_encoder,
)
UNIT = "naïve"; from modeling_comm.losses import register_loss, relation_distances; SIGN = "é"


@register_relation_encoder("entities_only")
class EntitiesOnly(RelationEncoder):
    def __init__(self, config):
        super().__init__(config)
        self.projection = nn.Linear(self.hidden_size, config.emb_size)
        self.classifier = Bilinear(config.emb_size, config.block_size, self.num_labels)

    def forward(self, documents):
        from modeling_comm import at_least_float32

        entities = torch.tanh(self.projection(at_least_float32(documents.entity_embeddings())))
        document, head, tail = documents.pair_index.unbind(-1)
        return self.classifier(entities[document, head], entities[document, tail])


@register_loss("squared")
def squared_margin_loss(logits, labels, reduction="mean", margin: float = 1.0):
    from modeling_comm import reduce_losses

    distance, positive = relation_distances(logits, labels)
    shortfall = torch.relu(margin - torch.where(positive, distance, -distance))
    return reduce_losses((shortfall**2).sum(dim=1), reduction)
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of a user's own files; what a test imports from there and registers is removed after it."""
    monkeypatch.setattr(encoder_registry, "_REGISTRY", dict(encoder_registry._REGISTRY))
    monkeypatch.setattr(loss_registry, "_REGISTRY", dict(loss_registry._REGISTRY))
    folder = tmp_path / "own"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    yield folder
    for name, module in list(sys.modules.items()):
        if folder in Path(getattr(module, "__file__", None) or "/").parents:
            del sys.modules[name]


def import_file(folder, text, name="my_parts"):
    """Writes a module, in a package if the name has a dot, and imports it."""
    file = folder / f"{name.replace('.', '/')}.py"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")
    importlib.invalidate_caches()
    return importlib.import_module(name)


def own_model():
    return tiny_model(tiny_config(relation_encoder="entities_only", loss="squared", squared_margin=2.0))


def zero_encoder(imports="from modeling_comm import RelationEncoder, register_relation_encoder"):
    """A file with the least relation encoder that there is, and the given imports in line 1."""
    return f"""{imports}

@register_relation_encoder("zero")
class Zero(RelationEncoder):
    def forward(self, documents):
        return documents.mention_states.new_zeros(len(documents.pair_index), self.num_labels)
"""


# ------------------------------------------------------------------------------------------------- from start to finish


def test_own_encoder_and_loss_train_save_and_load(folder, tmp_path):
    import_file(folder, OWN_FILE)
    model = own_model()
    processor = tiny_processor(model.config)
    documents = [random_document(entities=4, words=words, seed=words) for words in (12, 60)]
    batch = processor(documents)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model.train()
    losses = []
    for _ in range(5):
        loss = model(**batch).loss
        losses.append(loss.item())
        loss.backward()
        assert all(parameter.grad is not None for parameter in model.relation_encoder.parameters())
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0]
    model.eval()
    write_expected(tmp_path / "expected", model, processor, documents)
    save_again(tmp_path / "model", model, processor)
    assert json.loads((tmp_path / "model" / "config.json").read_text())["squared_margin"] == 2.0

    run_fresh(
        """
from transformers import AutoModel
folder = Path(sys.argv[1])
load_and_compare(folder / "model", folder / "expected", trust_remote_code=True)
import modeling_comm
for options in ({}, {"trust_remote_code": True}):  # with the package imported, its own code comes before a checkpoint's
    message = refused(AutoModel.from_pretrained, folder / "model", **options)
    for part in ("'squared'", "'atl'", "the file that registers it is imported", "trust_remote_code=True"):
        assert part in message, message
import my_parts
model, processor = load_and_compare(folder / "model", folder / "expected")
assert type(model.relation_encoder) is my_parts.EntitiesOnly
save_again(folder / "by_the_package", model, processor)
""",
        tmp_path,
        home=tmp_path,
        path=tmp_path / "own",
    )
    run_fresh(
        """
folder = Path(sys.argv[1])
model, processor = load_and_compare(folder / "model", folder / "expected", trust_remote_code=True)
save_again(folder / "by_remote_code", model, processor)
load_and_compare(folder / "by_the_package", folder / "expected", trust_remote_code=True)
as_hub_cache(folder / "by_remote_code", folder, "someone/own")
model, processor = load_and_compare("someone/own", folder / "expected", trust_remote_code=True)
assert type(model.relation_encoder).__module__.endswith(".my_parts")
save_again(folder / "from_the_hub", model, processor)
load_and_compare(folder / "from_the_hub", folder / "expected", trust_remote_code=True)
""",
        tmp_path,
        home=tmp_path,
        package=False,
    )
    names = {file.name for file in (tmp_path / "model").iterdir()}
    assert {"my_parts.py", "extended_comm.py", "extensions.py"} < names
    for again in ("by_the_package", "by_remote_code", "from_the_hub"):
        assert {file.name for file in (tmp_path / again).iterdir()} == names


def test_the_copy_differs_in_its_imports_from_the_package_alone(folder, tmp_path):
    import_file(folder, OWN_FILE)
    own_model().save_pretrained(tmp_path / "model")
    changed = set(OWN_FILE.split("\n")) ^ set((tmp_path / "model" / "my_parts.py").read_text().split("\n"))
    assert changed == {
        "from modeling_comm import (",
        "    cmm_loss,",
        "    GroupedBilinear as Bilinear,",
        "    RelationEncoder,  # the base class",
        "    register_relation_encoder,",
        ")",
        "from .extensions import cmm_loss, GroupedBilinear as Bilinear, RelationEncoder, register_relation_encoder",
        'UNIT = "naïve"; from modeling_comm.losses import register_loss, relation_distances; SIGN = "é"',
        'UNIT = "naïve"; from .losses import register_loss, relation_distances; SIGN = "é"',
        "        from modeling_comm import at_least_float32",
        "        from .extensions import at_least_float32",
        "    from modeling_comm import reduce_losses",
        "    from .extensions import reduce_losses",
    }


def test_push_to_hub_sends_the_own_file_too(folder, monkeypatch):
    import_file(folder, OWN_FILE)
    sent = []

    def create_commit(self, *arguments, operations, **options):
        sent.extend(operation.path_in_repo for operation in operations)

    monkeypatch.setattr(
        huggingface_hub.HfApi, "create_repo", lambda self, name, **options: SimpleNamespace(repo_id=name)
    )
    monkeypatch.setattr(huggingface_hub.HfApi, "create_commit", create_commit)
    card = SimpleNamespace(save=lambda file: None)
    monkeypatch.setattr(transformers.utils.hub, "create_and_tag_model_card", lambda *arguments, **options: card)
    own_model().push_to_hub("someone/own")
    assert {"my_parts.py", "extended_comm.py", "extensions.py", "config.json", "model.safetensors"} <= set(sent)


def test_pushing_while_saving_is_refused_with_an_own_file(folder, tmp_path):
    import_file(folder, OWN_FILE)
    with pytest.raises(SettingError) as error:
        own_model().save_pretrained(tmp_path / "model", push_to_hub=True)
    assert error.value.field == "push_to_hub"


# ------------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("imports", "line", "found"),
    [
        ("from modeling_comm import *", 1, "*"),
        (
            "from modeling_comm import CommConfig, RelationEncoder, losses, register_relation_encoder",
            1,
            "CommConfig, losses",
        ),
        (
            "import os, modeling_comm as comm; RelationEncoder, register_relation_encoder = "
            "comm.RelationEncoder, comm.register_relation_encoder",
            1,
            "import os, modeling_comm as comm",
        ),
        (
            "from modeling_comm import RelationEncoder, register_relation_encoder\n"
            "from modeling_comm.evaluation.scoring import score",
            2,
            "from modeling_comm.evaluation.scoring import score",
        ),
        (
            "from modeling_comm import RelationEncoder, register_relation_encoder\nfrom .tools import WIDTH",
            2,
            "from .tools import WIDTH",
        ),
        (
            "from modeling_comm import RelationEncoder, register_relation_encoder\nfrom . import tools",
            2,
            "from . import tools",
        ),
    ],
)
def test_imports_that_could_not_be_followed_are_refused(folder, tmp_path, imports, line, found):
    import_file(folder, "WIDTH = 3", "my_package.tools")
    import_file(folder, zero_encoder(imports), "my_package.my_parts")
    with pytest.raises(ExtensionError) as error:
        tiny_model(tiny_config(relation_encoder="zero")).save_pretrained(tmp_path / "model")
    assert (error.value.file, error.value.line, error.value.found) == ("my_parts.py", line, found)


@pytest.mark.parametrize("name", ["losses", "documents", "extended_comm", "my-parts"])
def test_a_file_whose_name_cannot_stand_beside_the_others_is_refused(folder, tmp_path, name):
    import_file(folder, zero_encoder(), name)
    with pytest.raises(ExtensionError) as error:
        tiny_model(tiny_config(relation_encoder="zero")).save_pretrained(tmp_path / "model")
    assert Path(error.value.file).stem == name


def test_what_cannot_be_saved_is_found_before_training(folder, tmp_path):
    imports = "import modeling_comm; from modeling_comm import RelationEncoder, register_relation_encoder"
    import_file(folder, zero_encoder(imports), "my_parts")
    _, processor = tiny_system(relation_encoder="zero")
    arguments = CommTrainingArguments(str(tmp_path), use_cpu=True, eval_strategy="no", load_best_model_at_end=False)
    model = tiny_model(tiny_config(relation_encoder="zero"))
    trainer = CommTrainer(model, arguments, [random_document(3)], processing_class=processor)
    with pytest.raises(ExtensionError) as error:
        trainer.train()
    assert (error.value.file, error.value.line) == ("my_parts.py", 1)
    assert trainer.state.global_step == 0


UNREDUCED = """
from modeling_comm import register_loss, relation_distances
from torch.nn.functional import softplus

@register_loss("unreduced")
def unreduced_loss(logits, labels, reduction="mean"):
    distance, positive = relation_distances(logits, labels)
    losses = softplus(distance.where(~positive, -distance)).sum(dim=1)
    return {}
"""


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (
            "losses.mean() if len(losses) else losses.sum()",
            "shape \\(\\); expected a floating tensor of shape \\(2,\\)",
        ),
        ("losses if reduction == 'none' else losses.sum() / max(len(losses), 1)", "a loss that is summed or averaged"),
    ],
)
def test_a_loss_that_is_not_reduced_as_asked_is_found_before_training(folder, tmp_path, result, message):
    import_file(folder, UNREDUCED.format(result), "my_parts")
    config, processor = tiny_system(loss="unreduced")
    arguments = CommTrainingArguments(str(tmp_path), use_cpu=True, eval_strategy="no", load_best_model_at_end=False)
    with pytest.raises(ValueError, match=message):
        CommTrainer(tiny_model(config), arguments, [random_document(3)], processing_class=processor)


@pytest.mark.parametrize(
    "result",
    [
        "reduce_losses(losses * random.random(), reduction)",  # nothing can be said of these
        "reduce_losses(losses.bfloat16(), reduction)",
        "reduce_losses(losses, reduction).double() if reduction == 'sum' else reduce_losses(losses, reduction)",
    ],
)
def test_a_loss_of_other_numbers_is_no_mistake(folder, result):
    text = f"import random\nfrom modeling_comm import reduce_losses\n{UNREDUCED.format(result)}"
    import_file(folder, text, "my_parts")
    check_reductions(tiny_config(loss="unreduced"))


def test_a_loss_that_fails_without_pairs_is_named(folder):
    import_file(folder, UNREDUCED.format("losses.max()"), "my_parts")
    with pytest.raises(
        SettingError, match="'unreduced'; expected a loss that gives 0 where there are no pairs; it raised"
    ) as error:
        tiny_config(loss="unreduced")
    assert error.value.field == "loss"


def test_a_setting_that_two_encoders_declare_has_a_flag_for_both(folder, capsys):
    settings = """
    class Settings(RelationEncoder.Settings):
        emb_size: int = 32
        axial_layers: Literal["one", "two"] = "one"
"""
    text = f"from typing import Literal\n{zero_encoder()}{settings}"
    import_file(folder, text, "my_parts")
    arguments = ["--dataset_config", "local", "--model_name_or_path", "m", "--output_dir", "o"]
    for given, read in (("two", "two"), ("3", 3)):
        assert parse_arguments([*arguments, "--axial_layers", given]).model.axial_layers == read
    with pytest.raises(SystemExit):
        parse_arguments([*arguments, "--axial_layers", "three"])
    assert "expected an integer >= 0 or one of one, two" in capsys.readouterr().err.replace("'", "")
    with pytest.raises(SystemExit):
        parse_arguments(["--help"])
    assert "default: 768 or 32" in " ".join(capsys.readouterr().out.split())


def test_a_misspelt_loss_is_answered_with_the_nearest():
    with pytest.raises(SettingError, match=r"expected 'hingeabl', or another one of 'afl', .* --extensions FILE"):
        tiny_config(loss="hinge_abl")


def test_a_module_of_another_name_is_not_replaced(tmp_path):
    (tmp_path / "json.py").write_text("")
    with pytest.raises(ExtensionError) as error:
        import_extensions([tmp_path / "json.py"])
    assert error.value.file == str(tmp_path / "json.py") and "'json'" in error.value.found


def test_two_files_of_one_name_are_refused(folder, tmp_path):
    import_file(folder, zero_encoder())
    import_file(folder, OWN_FILE, "my_package.my_parts")
    with pytest.raises(ExtensionError) as error:
        tiny_model(tiny_config(relation_encoder="zero", loss="squared")).save_pretrained(tmp_path / "model")
    assert Path(error.value.file).name == "my_parts.py"


def test_two_files_and_a_built_in_partner_are_saved(folder, tmp_path):
    import_file(folder, zero_encoder())
    import_file(folder, OWN_FILE, "my_package.my_loss")
    tiny_model(tiny_config(relation_encoder="zero", loss="squared")).save_pretrained(tmp_path / "both")
    tiny_model(tiny_config(loss="squared")).save_pretrained(tmp_path / "loss")
    tiny_model(tiny_config()).save_pretrained(tmp_path / "none")
    own = {"my_parts.py", "my_loss.py", "extended_comm.py"}
    saved = {name: own & {file.name for file in (tmp_path / name).iterdir()} for name in ("both", "loss", "none")}
    assert saved == {"both": own, "loss": {"my_loss.py", "extended_comm.py"}, "none": set()}


def test_a_model_is_not_saved_over_the_own_file(folder, tmp_path):
    import_file(folder, OWN_FILE)
    with pytest.raises(ExtensionError) as error:
        own_model().save_pretrained(tmp_path / "own")
    assert Path(error.value.file).name == "my_parts.py"
    assert (tmp_path / "own" / "my_parts.py").read_text(encoding="utf-8") == OWN_FILE


def test_what_is_defined_in_the_running_script_cannot_be_saved(tmp_path):
    run_fresh(
        """
import types, modeling_comm
from modeling_comm.extensions import ExtensionError
from helpers import tiny_config, tiny_model

@modeling_comm.register_relation_encoder("typed_in")
class TypedIn(modeling_comm.RelationEncoder):
    def forward(self, documents):
        return documents.mention_states.new_zeros(len(documents.pair_index), self.num_labels)

@modeling_comm.register_loss("typed_in")
def typed_in(logits, labels, reduction="mean"):
    return logits.sum()

for own in ({"relation_encoder": "typed_in"}, {"loss": "typed_in"}):
    try:
        tiny_model(tiny_config(**own)).save_pretrained(sys.argv[1])
    except ExtensionError as error:
        assert error.file in ("TypedIn", "typed_in"), error
    else:
        raise AssertionError(f"{own} was saved")
""",
        tmp_path / "model",
        home=tmp_path,
    )


def test_what_comes_from_a_module_that_is_gone_cannot_be_saved(folder, tmp_path):
    import_file(folder, zero_encoder())
    del sys.modules["my_parts"]
    with pytest.raises(ExtensionError) as error:
        tiny_model(tiny_config(relation_encoder="zero")).save_pretrained(tmp_path / "model")
    assert error.value.file == "Zero"


# --------------------------------------------------------------------------------------------------------- the registry


def test_a_name_is_registered_once(folder):
    module = import_file(folder, OWN_FILE)
    assert "entities_only" in available_relation_encoders() and "squared" in available_losses()
    importlib.reload(module)  # the same file once more, as when a notebook's cell runs twice, replaces its own
    assert encoder_registry.get_relation_encoder("entities_only").encoder is module.EntitiesOnly
    with pytest.raises(NameTakenError) as taken:
        import_file(folder, OWN_FILE, "my_other_parts")
    assert (taken.value.name, taken.value.taken_by) == ("entities_only", "my_parts.EntitiesOnly")
    with pytest.raises(NameTakenError) as taken:
        register_loss("squared")(lambda logits, labels, reduction="mean": logits.sum())
    assert (taken.value.name, taken.value.taken_by) == ("squared", "my_parts.squared_margin_loss")


def test_a_built_in_name_cannot_be_taken_even_by_a_class_of_the_same_name(folder):
    own = type("AtlopRelationEncoder", (RelationEncoder,), {"forward": lambda self, documents: None})
    with pytest.raises(NameTakenError) as taken:
        register_relation_encoder("atlop")(own)
    assert taken.value.taken_by == "modeling_comm.relation_encoder_atlop.AtlopRelationEncoder"
    assert encoder_registry.get_relation_encoder("atlop").encoder is AtlopRelationEncoder


@pytest.mark.parametrize("thing", [torch.nn.Linear, "AtlopRelationEncoder", RelationEncoder.forward])
def test_only_relation_encoders_are_registered(folder, thing):
    with pytest.raises(SettingError) as error:
        register_relation_encoder("mine")(thing)
    assert error.value.value is thing
    assert "mine" not in available_relation_encoders()


def with_a_layer_first():
    class Mine(RelationEncoder):
        def __init__(self, config):
            self.layer = torch.nn.Linear(2, 2)
            super().__init__(config)

        def forward(self, documents): ...

    return Mine


def without_init():
    class Mine(RelationEncoder):
        def __init__(self, config):
            self.size = config.emb_size

        def forward(self, documents): ...

    return Mine


@pytest.mark.parametrize("make", [with_a_layer_first, without_init])
def test_a_relation_encoder_that_does_not_initialize_its_base_says_so(folder, make):
    encoder = register_relation_encoder("mine")(make())
    with pytest.raises(RelationEncoderError) as error:
        CommForDocumentRelationExtraction(tiny_config(relation_encoder="mine"))
    assert (error.value.encoder, error.value.missing) == (encoder, "super().__init__(config)")


def test_a_relation_encoder_without_forward_is_not_registered(folder):
    with pytest.raises(RelationEncoderError) as error:
        register_relation_encoder("mine")(type("Mine", (RelationEncoder,), {}))
    assert error.value.missing == "forward(documents)"
    assert "mine" not in available_relation_encoders()
