"""Configuration of COMM: what the forward pass reads, the backbone, the relation encoder, the loss and the labels."""

import copy
import dataclasses
import functools
import inspect
import os
import warnings
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Literal, Self

from .required_versions import check_transformers  # noqa: F401 # isort: skip - before what another version lacks
import torch
from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, GenerationConfig, PreTrainedConfig
from transformers.utils import TRANSFORMERS_DYNAMIC_MODULE_NAME, logging

from .config_checks import check_given_fields, check_text_config
from .losses import available_losses, get_loss, loss_from_config
from .relation_encoders import available_relation_encoders, get_relation_encoder
from .saved_folder import SavedTogether
from .settings import (
    RESERVED_FIELDS,
    AtLeast,
    Setting,
    SettingError,
    WrongResultError,
    check_field,
    check_names,
    described_arguments,
    nearest_names,
    plain_number,
)

logger = logging.get_logger(__name__)

__version__ = "0.1.0"

THRESHOLD_LABEL = "Na"  # the threshold class's name where no other is given
# What the processor owns. The first version's `config.json` has these fields, too.
PROCESSOR_FIELDS = (
    *("relation_names", "markers", "window_size", "window_stride", "window_end_tokens"),
    *("decision_threshold", "threshold_offset", "max_relations_per_pair", "evidence_threshold"),
)

TASK = "document-relation-extraction"
# Where `pipeline(TASK, model=..., trust_remote_code=True)` finds the code without this package.
_PIPELINES = {TASK: {"impl": "pipeline_comm.DocumentRelationExtractionPipeline", "pt": ["AutoModel"]}}
# With it, the task is registered, and a configuration that names code for it would demand trust all the same.
IS_REMOTE_CODE = __name__.startswith(f"{TRANSFORMERS_DYNAMIC_MODULE_NAME}.")

_BEFORE_EACH_CONFIGURATION: list[Callable[[], object]] = []

# Position tables of these families start counting after the padding id, so that many positions are never used.
_OFFSET_POSITIONS = {
    *("roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod", "camembert"),
    *("data2vec-text", "ibert", "luke", "mpnet"),
}


def before_each_configuration(action: Callable[[], object]) -> None:
    """Has `action` called before a [`CommConfig`] comes into being, be it made, loaded, copied or unpickled."""
    _BEFORE_EACH_CONFIGURATION.append(action)


def usable_positions(text_config: PreTrainedConfig) -> int:
    """Longest input, special tokens included, that a backbone with this configuration can encode at once."""
    positions = getattr(text_config, "max_position_embeddings", None)
    if not positions or positions < 0:
        return 10**9
    if text_config.model_type in _OFFSET_POSITIONS:
        positions -= (text_config.pad_token_id or 0) + 1
    return positions


class UnknownNameError(SettingError):
    """
    A loss or a relation encoder that is not registered.

    Args:
        field (`str`): `"loss"` or `"relation_encoder"`.
        value (`Any`): What was found.
        known (`list[str]`): Registered names.
    """

    def __init__(self, field: str, value: Any, known: list[str]):
        nearest = nearest_names(value, known) if isinstance(value, str) else []
        meant = f"{nearest[0]!r}, or another one" if nearest else "one"
        # With the package imported, the Auto classes never take a checkpoint's code, trusted or not.
        super().__init__(
            "CommConfig",
            field,
            value,
            f"{meant} of {', '.join(map(repr, known))}; any other is known once the file that registers it is imported (on the "
            "command line, --extensions FILE). To take it from a checkpoint instead, load that with AutoModel and "
            "trust_remote_code=True in a process that does not import modeling_comm",
        )
        self.known = known

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.field, self.value, self.known)


class UnknownFieldError(ValueError):
    """
    A field that neither [`CommConfig`] nor the chosen relation encoder nor the chosen loss declares.

    Args:
        field (`str`): The field's name.
        value (`Any`): What was found.
        known (`Iterable[str]`): Fields that are declared.

    Attributes:
        nearest (`str`, *optional*): The known field that was probably meant.
    """

    def __init__(self, field: str, value: Any, known: Iterable[str]):
        self.field, self.value, self.known = field, value, sorted(known)
        self.nearest = next(iter(nearest_names(field, self.known)), None)
        where = _declared_elsewhere(field)
        hint = f"it is a setting of {where}" if where else f"expected {self.nearest!r}?"
        super().__init__(
            f"CommConfig: there is no field {field!r} (found {value!r})"
            + (f"; {hint}" if where or self.nearest else "")
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.field, self.value, self.known)


@strict
class CommConfig(SavedTogether, PreTrainedConfig):
    r"""
    Configuration of [`CommForDocumentRelationExtraction`]. Every field is checked on construction, and by `validate()` once more
    after it was changed by hand.

    Beside the fields below it has the settings of the loss and of the relation encoder that it names: `cmm_margin` and
    `cmm_gamma` with `loss="cmm"`, for example, or `unet_in_dim` with `relation_encoder="docunet"`. They are declared, with their
    types, ranges and defaults, by the function of the loss in `losses.py` and by the class `Settings` of the relation encoder.

    Args:
        text_config (`PreTrainedConfig` or `dict`, *optional*): configuration of the backbone encoder; BERT's by default.
        relation_encoder (`str`, defaults to `"atlop"`): registered name of the relation encoder.
        loss (`str`, defaults to `"cmm"`): registered name of the loss.
        loss_reduction (`str`, defaults to `"mean"`): `"mean"` over entity pairs (as in ATLOP) or `"sum"` (algorithm 1
            of the paper).
        averaged_layers (`int`, defaults to 1): last layers of the backbone whose hidden states and attention are averaged. ATLOP
            takes 1; DREEAM, which trains the attention to be evidence, takes 3.
        evidence_weight (`float`, defaults to 0.0): weight of the evidence loss, beside the loss of the relations; with 0 there is
            none. DREEAM takes 0.1 with BERT and 0.05 with RoBERTa.
        evidence_average (`str`, defaults to `"annotated"`): the evidence loss is a mean over pairs with annotated evidence, or,
            with `"related"`, over all pairs with a relation, as in DREEAM's code.
        comm_version (`str`, *optional*): library version that wrote the configuration. Where its first two numbers are not this
            library's, that is a warning; the attribute, and what is saved, is this library's own.
        id2label, label2id, num_labels: as in Transformers, with the threshold class at index 0, whatever its name.

    Raises:
        `ValueError`: a field does not fit ([`SettingError`] and Transformers' own checks), or is not declared
            ([`UnknownFieldError`]); the message names the field, its value and what is allowed.

    Example:

    ```python
    >>> from modeling_comm import CommConfig
    >>> CommConfig(id2label={0: "Na", 1: "P17"}, loss="atl").num_labels
    2
    ```
    """

    model_type = "comm"
    sub_configs: ClassVar = {"text_config": AutoConfig}

    text_config: dict | PreTrainedConfig | None = None
    relation_encoder: str = "atlop"
    loss: str = "cmm"
    loss_reduction: Literal["mean", "sum"] = "mean"
    averaged_layers: int = dataclasses.field(default=1, metadata={"ranges": (AtLeast(1),)})
    evidence_weight: float | int = dataclasses.field(default=0.0, metadata={"ranges": (AtLeast(0),)})
    evidence_average: Literal["annotated", "related"] = "annotated"
    comm_version: str | None = None

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        for action in _BEFORE_EACH_CONFIGURATION:
            action()
        return super().__new__(cls)

    def __post_init__(self, **kwargs: Any) -> None:
        self.text_config = _text_config(self.text_config)
        settings, known = self.declared_settings(), self._known_fields()
        for field, value in kwargs.items():
            if not _is_known(field, known):
                raise UnknownFieldError(field, value, known)
        for setting in settings:
            setattr(self, setting.field, plain_number(kwargs.pop(setting.field, copy.copy(setting.default))))
        written_by, self.comm_version = self.comm_version or __version__, __version__
        kwargs.pop("custom_pipelines", None)  # written by `to_dict`
        if IS_REMOTE_CODE:
            self.custom_pipelines = copy.deepcopy(_PIPELINES)
        self._complete_labels(kwargs)
        super().__post_init__(**kwargs)
        if self.id2label.get(0) == "LABEL_0":  # Transformers' own default name for a label without a name
            self.id2label = {**self.id2label, 0: THRESHOLD_LABEL}
            self.label2id = None
        if self.label2id is None:
            self.label2id = {label: index for index, label in self.id2label.items()}
        if _minor(written_by) != _minor(__version__):
            warnings.warn(
                f"This configuration was written by modeling_comm {written_by}; this is {__version__}. Fields that "
                "it does not know have this version's defaults.",
                stacklevel=3,
            )

    def _complete_labels(self, given):
        """Before the parent fails on labels that do not fit, or says it in other words."""
        labels = self.id2label or {}
        fits = isinstance(labels, dict) and all(isinstance(label, str) for label in labels.values())
        check_field(self, "id2label", fits, "a dict of ids to labels that are text")
        if not labels and self.label2id:
            labels = self.id2label = {index: label for label, index in self.label2id.items()}
        if labels and given.get("num_labels", len(labels)) != len(labels):
            raise SettingError(
                "CommConfig", "num_labels", given["num_labels"], f"{len(labels)}, the length of id2label"
            )

    def declared_settings(self) -> tuple[Setting, ...]:
        """
        The settings that the chosen relation encoder and the chosen loss declare.

        Raises:
            `SettingError`: nothing is registered under the name of one of them.
        """
        for field, names in (("loss", available_losses()), ("relation_encoder", available_relation_encoders())):
            if getattr(self, field) not in names:
                raise UnknownNameError(field, getattr(self, field), names)
        return settings_of(self.relation_encoder, self.loss)

    def _known_fields(self) -> set[str]:
        return {*OWN_FIELDS, *(setting.field for setting in self.declared_settings())}

    def validate_own_fields(self) -> None:
        """Part of `@strict`: the fields that every model has fit, and the backbone has the layers that are wanted."""
        for setting in own_settings():
            setting.check(self)
        layers = getattr(self.text_config, "num_hidden_layers", 1)
        fits = self.averaged_layers <= layers
        check_field(self, "averaged_layers", fits, f"at most {layers}, the layers of the backbone")

    def validate_declared_fields(self) -> None:
        """Part of `@strict`: the settings of loss and relation encoder fit."""
        for setting in self.declared_settings():
            setting.check(self)
            if setting.is_mapping:
                unknown = sorted(set(getattr(self, setting.field) or ()) - set(self.id2label.values()), key=str)
                check_field(self, setting.field, not unknown, f"relations of id2label, which lacks {unknown}")
        self._check_loss()
        validate = getattr(get_relation_encoder(self.relation_encoder).encoder.Settings, "validate", None)
        if validate:
            validate(self)

    def _check_loss(self):
        """Settings that fit one by one may not fit together. What a loss refuses, it refuses for no pairs, too."""
        nothing = torch.zeros(0, self.num_labels, device="cpu")
        try:
            loss_from_config(self)(nothing, nothing)
        except SettingError as error:
            raise SettingError("CommConfig", f"{self.loss}_{error.field}", error.value, error.expected) from None
        except WrongResultError:
            raise
        except Exception as error:  # of a function that may be anybody's
            expected = f"a loss that gives 0 where there are no pairs; it raised {type(error).__name__}: {error}"
            raise SettingError("CommConfig", "loss", self.loss, expected) from error

    def validate_both_directions_of_labels(self) -> None:
        """Part of `@strict`: `id2label` and `label2id` fit."""
        validate_labels(self)
        check_field(self, "num_labels", self.num_labels >= 2, "at least 2: the threshold class and one relation")
        inverse = {label: index for index, label in self.id2label.items()}
        check_field(self, "label2id", self.label2id == inverse, "the inverse of id2label")

    def validate_backbone(self) -> None:
        """Part of `@strict`: sizes and names of the backbone's configuration make sense."""
        check_text_config(self.text_config)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        # Fields given to `from_pretrained` take part in the checks.
        registered = registered_settings()
        checked = {*OWN_FIELDS, *registered, *PROCESSOR_FIELDS}
        given = {name: kwargs.pop(name) for name in list(kwargs) if name in checked}
        saved = _with_todays_names(config_dict)
        if "id2label" in kwargs:  # label2id and num_labels follow from it
            saved = {**saved, "label2id": kwargs.pop("label2id", None), "id2label": kwargs.pop("id2label")}
            saved.pop("num_labels", None)
        encoder, loss = (
            given.get(field, saved.get(field, getattr(cls, field))) for field in ("relation_encoder", "loss")
        )
        chosen = {setting.field for setting in settings_of(encoder, loss)}
        # Another loss has other settings, and the first version saved those of every loss, relation encoder and processor.
        dropped = {*registered, *PROCESSOR_FIELDS} - chosen
        saved = {name: value for name, value in saved.items() if name not in dropped}
        return super().from_dict({**saved, **given}, **kwargs)

    def save_pretrained(
        self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs: Any
    ) -> list[str] | None:
        known = self._known_fields()
        if unknown := sorted(field for field in vars(self) if not _is_known(field, known)):
            logger.warning("CommConfig: %s, set by hand, is no field and is not saved", ", ".join(unknown))
        return super().save_pretrained(save_directory, push_to_hub, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        # An attribute of another name that was set by hand is left out: the checkpoint could not be loaded with it.
        known = self._known_fields()
        output = {field: value for field, value in super().to_dict().items() if _is_known(field, known)}
        # Not what the attribute holds: `pipeline` puts classes there.
        output["custom_pipelines"] = copy.deepcopy(_PIPELINES)
        # A local path of the machine that trained the model must not be published, nor a licence to run foreign code.
        text_config = output.get("text_config")
        if isinstance(text_config, dict):
            text_config["_name_or_path"] = ""
            text_config.pop("trust_remote_code", None)
        return output


def _is_known(field: str, known: set[str]) -> bool:
    """Whether a field is one of `known`, or Transformers' own."""
    return field in known or field.startswith("_") or (field in RESERVED_FIELDS and field not in PROCESSOR_FIELDS)


def _with_plain_errors(function: Callable) -> Callable:
    """The errors of Transformers' own checks as `ValueError`s of one line, which is what other wrong values raise."""

    @functools.wraps(function)
    def checked(self, **fields):
        check_given_fields(fields)
        if isinstance(fields.get("text_config"), dict):
            check_given_fields(fields["text_config"], "CommConfig.text_config")
        try:
            return function(self, **fields)
        except StrictDataclassError as error:
            for setting in own_settings():
                if setting.field in fields and not setting.fits(fields[setting.field]):
                    wrong = fields[setting.field]
                    raise SettingError("CommConfig", setting.field, wrong, setting.expected) from None
            cause = error.__cause__
            raise (cause if isinstance(cause, ValueError) else ValueError(f"CommConfig: {cause}")) from None

    return checked


CommConfig.__init__ = _with_plain_errors(CommConfig.__init__)  # type: ignore[method-assign]
CommConfig.validate = _with_plain_errors(CommConfig.validate)

_TRANSFORMERS_FIELDS = {field.name for field in dataclasses.fields(PreTrainedConfig)}
OWN_FIELDS = frozenset(field.name for field in dataclasses.fields(CommConfig)) - _TRANSFORMERS_FIELDS

# Transformers sets these, or keeps them for text generation; no setting can have such a name.
RESERVED_FIELDS.update(
    dir(CommConfig), vars(PreTrainedConfig()), vars(GenerationConfig()), OWN_FIELDS, PROCESSOR_FIELDS
)
RESERVED_FIELDS.update(("attn_implementation", "experts_implementation", "per_layer_config"))
RESERVED_FIELDS.update(("auto_map", "custom_pipelines", "quantization_config", "transformers_weights"))
for _name in available_losses():
    check_names(f"the loss {_name!r}", get_loss(_name).settings)
for _name in available_relation_encoders():
    check_names(f"the relation encoder {_name!r}", get_relation_encoder(_name).settings)


def settings_of(relation_encoder: str, loss: str) -> tuple[Setting, ...]:
    """
    The settings that a relation encoder and a loss declare; a name that is not registered has none.

    Args:
        relation_encoder (`str`): Name of a relation encoder.
        loss (`str`): Name of a loss.

    Raises:
        `ValueError`: Both declare the same field.
    """
    of_encoder = (
        get_relation_encoder(relation_encoder).settings if relation_encoder in available_relation_encoders() else ()
    )
    of_loss = get_loss(loss).settings if loss in available_losses() else ()
    if both := {setting.field for setting in of_encoder} & {setting.field for setting in of_loss}:
        raise ValueError(
            f"the relation encoder {relation_encoder!r} and the loss {loss!r} both declare {sorted(both)}"
        )
    return (*of_encoder, *of_loss)


def registered_settings() -> dict[str, tuple[Setting, ...]]:
    """The settings of all registered relation encoders and losses, by field, of which several may have one each."""
    encoders = (setting for name in available_relation_encoders() for setting in get_relation_encoder(name).settings)
    losses = (setting for name in available_losses() for setting in get_loss(name).settings)
    by_field: dict[str, tuple[Setting, ...]] = {}
    for setting in (*losses, *encoders):
        others = by_field.get(setting.field, ())
        by_field[setting.field] = others if setting in others else (*others, setting)
    return by_field


def own_settings() -> tuple[Setting, ...]:
    """The fields of [`CommConfig`] that every model has and a flag can hold, in the form of settings."""
    help_texts = described_arguments(inspect.getdoc(CommConfig))
    return tuple(
        Setting(
            *(field.name, field.name, _flag_type(field.type), field.default, field.metadata.get("ranges", ())),
            help_texts.get(field.name, ""),
        )
        for field in dataclasses.fields(CommConfig)
        if field.name in OWN_FIELDS - {"text_config", "comm_version"}
    )


def _flag_type(type_):
    return float if type_ == float | int else type_


def _declared_elsewhere(field):
    if field in PROCESSOR_FIELDS:
        return f"the processor: CommProcessor.from_config(tokenizer, config, {field}=...)"
    for kind, names, get in (
        ("loss", available_losses(), get_loss),
        ("relation encoder", available_relation_encoders(), get_relation_encoder),
    ):
        for name in names:
            if field in (setting.field for setting in get(name).settings):
                return f"the {kind} {name!r}, which is not chosen"
    return None


def _with_todays_names(saved: dict) -> dict:
    """A saved configuration in which fields that were renamed have the names and values of today."""
    saved = dict(saved)
    if "afl_published" in saved:
        saved["afl_weight"] = "paper" if saved.pop("afl_published") else "code"
    return saved


def _text_config(value):
    if value is None:
        return AutoConfig.for_model("bert")
    if isinstance(value, dict):
        if "model_type" not in value:
            raise ValueError(
                f"CommConfig: text_config has the keys {sorted(value)}; expected a `model_type` among them"
            )
        try:
            return AutoConfig.for_model(**value)
        except ValueError as error:  # an unknown model type; the message lists the known ones
            raise ValueError(f"CommConfig: text_config does not fit: {error}") from error
    if isinstance(value, PreTrainedConfig):
        return copy.deepcopy(value)
    raise ValueError(f"CommConfig: text_config is {value!r}; expected a configuration or a dict")


def _minor(version):
    return str(version).split(".")[:2]


def validate_labels(holder: Any) -> None:
    """Raises `SettingError` where the `id2label` of a [`CommConfig`] or a [`CommProcessor`] does not fit."""
    labels = list(holder.id2label.values())
    fits = sorted(holder.id2label) == list(range(len(labels)))
    check_field(holder, "id2label", fits, "ids 0, 1, ... without a gap")
    check_field(holder, "id2label", bool(labels), "the threshold class at 0")
    fits = all(isinstance(label, str) for label in labels)
    check_field(holder, "id2label", fits, "labels that are text")
    check_field(holder, "id2label", len(set(labels)) == len(labels), "labels that differ from each other")
