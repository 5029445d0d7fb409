"""Configuration of COMM: what the forward pass reads, the backbone, the relation encoder, the loss and the labels."""

import copy
import difflib
import inspect
import math
import warnings
from typing import ClassVar

from transformers import AutoConfig, PreTrainedConfig
from transformers.utils import TRANSFORMERS_DYNAMIC_MODULE_NAME

from .losses import available_losses
from .relation_encoders import available_relation_encoders, get_relation_encoder

__version__ = "0.1.0"

THRESHOLD_LABEL = "Na"
# What the processor owns. The first version's `config.json` has these fields, too.
PROCESSOR_FIELDS = (
    *("relation_names", "markers", "window_size", "window_stride", "window_end_tokens"),
    *("decision_threshold", "threshold_offset", "max_relations_per_pair"),
)
REDUCTIONS = ("mean", "sum")

TASK = "document-relation-extraction"
# Where `pipeline(TASK, model=..., trust_remote_code=True)` finds the code without this package.
_PIPELINES = {TASK: {"impl": "pipeline_comm.DocumentRelationExtractionPipeline", "pt": ["AutoModel"]}}
# With it, the task is registered, and a configuration that names code for it would demand trust all the same.
_IS_REMOTE_CODE = __name__.startswith(f"{TRANSFORMERS_DYNAMIC_MODULE_NAME}.")

# Position tables of these families start counting after the padding id, so that many positions are never used.
_OFFSET_POSITIONS = {
    *("roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod", "camembert"),
    *("data2vec-text", "ibert", "luke", "mpnet"),
}


def usable_positions(text_config) -> int:
    """Longest input, special tokens included, that a backbone with this configuration can encode at once."""
    positions = getattr(text_config, "max_position_embeddings", None)
    if not positions or positions < 0:
        return 10**9
    if text_config.model_type in _OFFSET_POSITIONS:
        positions -= (text_config.pad_token_id or 0) + 1
    return positions


class CommConfig(PreTrainedConfig):
    r"""
    Configuration of [`CommForDocumentRelationExtraction`]. Every field is checked on construction.

    Args:
        text_config (`PreTrainedConfig` or `dict`, *optional*): configuration of the backbone encoder; BERT's by default.
        relation_encoder (`str`, defaults to `"atlop"`): registered name of the IARA stage's relation encoder.
        emb_size (`int`, defaults to 768): size of the head and of the tail representation that meet in the grouped
            bilinear layer. A multiple of `block_size`.
        block_size (`int`, defaults to 64): size of a group of that layer. The classifier holds
            `emb_size * block_size * num_labels` weights.
        unet_in_dim (`int`, defaults to 3): channels that `"docunet"` reads pair contexts in.
        unet_down_dim (`int`, defaults to 256): width of its U-Net at full resolution, an even number.
        unet_out_dim (`int`, defaults to 256): size of the pair feature that comes out of it.
        axial_layers (`int`, defaults to 6): axial attention layers of `"kd_docre"`.
        axial_heads (`int`, defaults to 8): heads of each, a divisor of the backbone's hidden size.
        fixed_grid (`int`, *optional*): reproduces the grid of entity pairs of the original DocuNet and KD-DocRE, which has this
            many rows whatever the document, unmasked padding and an upper limit of entities; for checkpoints converted from
            them. By default the grid is the document's own.
        loss (`str`, defaults to `"cmm"`): registered name of the loss.
        loss_reduction (`str`, defaults to `"mean"`): `"mean"` over entity pairs (ATLOP's habit) or `"sum"` (algorithm 1
            of the paper).
        cmm_margin (`float`, defaults to 0.2): m of eq. 4, in [0, 1). The paper searches {0.1, 0.2, 0.3, 0.4}.
        cmm_gamma (`float`, defaults to 1.0): gamma of eq. 5, >= 0. The paper searches {1, 1.2, 1.4, 1.6, 2}.
        aml_margin (`float`, defaults to 1.0): hinge margin of `"aml"`.
        afl_gamma (`float`, defaults to 1.0): focusing exponent of `"afl"`.
        afl_published (`bool`, defaults to `False`): AFL's weight as in its paper instead of as in its code.
        hingeabl_margin (`float`, defaults to 5.0): margin m of `"hingeabl"`.
        hingeabl_detach_weights (`bool`, defaults to `False`): no gradient through HingeABL's weights.
        ncrl_shift (`float`, defaults to 0.0): shift of `"ncrl"`, in [0, 1).
        ncrl_regularizer (`bool`, defaults to `True`): NCRL's regulariser on or off.
        comm_version (`str`, *optional*): library version that wrote the configuration.
        id2label, label2id, num_labels: as in Transformers, with the threshold class `"Na"` at index 0.

    Raises:
        ValueError: a field does not fit; the message names the field, its value and what is allowed.

    Example:

    ```python
    >>> from modeling_comm import CommConfig
    >>> CommConfig(id2label={0: "Na", 1: "P17"}, loss="atl").num_labels
    2
    ```
    """

    model_type = "comm"
    sub_configs: ClassVar = {"text_config": AutoConfig}

    def __init__(
        self,
        text_config=None,
        relation_encoder="atlop",
        emb_size=768,
        block_size=64,
        unet_in_dim=3,
        unet_down_dim=256,
        unet_out_dim=256,
        axial_layers=6,
        axial_heads=8,
        fixed_grid=None,
        loss="cmm",
        loss_reduction="mean",
        cmm_margin=0.2,
        cmm_gamma=1.0,
        aml_margin=1.0,
        afl_gamma=1.0,
        afl_published=False,
        hingeabl_margin=5.0,
        hingeabl_detach_weights=False,
        ncrl_shift=0.0,
        ncrl_regularizer=True,
        comm_version=None,
        **kwargs,
    ):
        self.text_config = _text_config(text_config)
        self.relation_encoder = relation_encoder
        self.emb_size = emb_size
        self.block_size = block_size
        self.unet_in_dim = unet_in_dim
        self.unet_down_dim = unet_down_dim
        self.unet_out_dim = unet_out_dim
        self.axial_layers = axial_layers
        self.axial_heads = axial_heads
        self.fixed_grid = fixed_grid
        self.loss = loss
        self.loss_reduction = loss_reduction
        self.cmm_margin = cmm_margin
        self.cmm_gamma = cmm_gamma
        self.aml_margin = aml_margin
        self.afl_gamma = afl_gamma
        self.afl_published = afl_published
        self.hingeabl_margin = hingeabl_margin
        self.hingeabl_detach_weights = hingeabl_detach_weights
        self.ncrl_shift = ncrl_shift
        self.ncrl_regularizer = ncrl_regularizer
        _Checker(self).registered("loss", available_losses())
        self.comm_version = comm_version or __version__
        kwargs.pop("custom_pipelines", None)  # written by `to_dict`
        if _IS_REMOTE_CODE:
            self.custom_pipelines = copy.deepcopy(_PIPELINES)
        moved = sorted(set(kwargs) & set(PROCESSOR_FIELDS))
        if moved:
            raise ValueError(
                f"CommConfig: found {moved}; expected them as settings of the processor: CommProcessor.from_config(tokenizer, "
                f"config, {moved[0]}=...)"
            )
        _refuse_misspelt(kwargs, set(vars(self)))
        given = kwargs.get("id2label") or {}
        # Before the parent says it in other words, or falls over it.
        if not isinstance(given, dict) or not all(isinstance(label, str) for label in given.values()):
            raise ValueError(f"CommConfig: id2label is {given!r}; expected a dict of ids to labels that are text")
        if not given and kwargs.get("label2id"):
            given = kwargs["id2label"] = {index: label for label, index in kwargs["label2id"].items()}
        if given and kwargs.get("num_labels", len(given)) != len(given):
            raise ValueError(f"CommConfig: num_labels is {kwargs['num_labels']}; id2label has {len(given)} labels")
        super().__init__(**kwargs)
        if self.id2label.get(0) == "LABEL_0":  # Transformers' own default name for a label without a name
            self.id2label = {**self.id2label, 0: THRESHOLD_LABEL}
            self.label2id = None
        if self.label2id is None:
            self.label2id = {label: index for index, label in self.id2label.items()}
        self.validate_fields()

    def validate_fields(self):
        """Checks every field. Called on construction; call it again after changing fields by hand.

        Raises:
            ValueError: names the field, its value and what is allowed.
        """
        check = _Checker(self)
        check.registered("relation_encoder", available_relation_encoders())
        check.registered("loss", available_losses())
        check.choice("loss_reduction", REDUCTIONS)
        for field in ("afl_published", "hingeabl_detach_weights", "ncrl_regularizer"):
            check(field, isinstance(getattr(self, field), bool), "true or false")
        for field in ("cmm_margin", "ncrl_shift"):
            check.number(field, 0, 1, "a number in [0, 1)")
        for field in ("cmm_gamma", "afl_gamma", "aml_margin", "hingeabl_margin"):
            check.number(field, 0, math.inf, "a finite number >= 0")
        check.integer("emb_size", 1)
        check.integer("block_size", 1)
        check("emb_size", self.emb_size % self.block_size == 0, f"a multiple of block_size={self.block_size}")
        if self.fixed_grid is not None:
            check.integer("fixed_grid", 1)
        validate_labels(self)
        check("num_labels", self.num_labels >= 2, "at least 2: the threshold class and one relation")
        inverse = {label: index for index, label in self.id2label.items()}
        check("label2id", self.label2id == inverse, "the inverse of id2label")
        check("comm_version", isinstance(self.comm_version, str), "a version such as '0.1.0'")
        get_relation_encoder(self.relation_encoder).validate_config(self, check)
        if _minor(self.comm_version) != _minor(__version__):
            warnings.warn(
                f"This configuration was written by modeling_comm {self.comm_version}; this is {__version__}. Fields that "
                "it does not know have this version's defaults.",
                stacklevel=3,
            )

    @classmethod
    def from_dict(cls, config_dict, **kwargs):
        # Fields given to `from_pretrained` take part in the checks.
        own = {*inspect.signature(cls.__init__).parameters, *PROCESSOR_FIELDS} - {"kwargs"}
        changed = {name: kwargs.pop(name) for name in list(kwargs) if name in own}
        saved = {name: value for name, value in config_dict.items() if name not in PROCESSOR_FIELDS}
        return super().from_dict({**saved, **changed}, **kwargs)

    def to_dict(self):
        # Not what the attribute holds: `pipeline` puts classes there.
        output = super().to_dict() | {"custom_pipelines": copy.deepcopy(_PIPELINES)}
        # A local path of the machine that trained the model must not be published, nor a licence to run foreign code.
        text_config = output.get("text_config")
        if isinstance(text_config, dict):
            text_config["_name_or_path"] = ""
            text_config.pop("trust_remote_code", None)
        return output


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


def _refuse_misspelt(given, fields):
    """Any keyword may be a field of a user's own encoder or loss, but one that almost names a field is a slip."""
    for name in given:
        meant = difflib.get_close_matches(name, fields, n=1, cutoff=0.85)
        if meant:
            raise ValueError(f"CommConfig: there is no field {name!r} (found {given[name]!r}); expected {meant[0]!r}?")


def _minor(version):
    return str(version).split(".")[:2]


class _Checker:
    """Raises `ValueError` for a field of `holder` that does not fit: its name, its value and what is allowed."""

    def __init__(self, holder):
        self.holder = holder

    def __call__(self, field, fits, allowed):
        if not fits:
            raise ValueError(
                f"{type(self.holder).__name__}: {field} is {getattr(self.holder, field)!r}; expected {allowed}"
            )

    def choice(self, field, allowed, or_else=""):
        value = getattr(self.holder, field)
        self(field, isinstance(value, str) and value in allowed, f"one of {', '.join(map(repr, allowed))}{or_else}")

    def registered(self, field, names):
        # With the package imported, the Auto classes never take a checkpoint's code, trusted or not.
        own = (
            "; another one is known once the file that registers it is imported. To take it from a checkpoint instead, load "
            "that with AutoModel and trust_remote_code=True in a process that does not import modeling_comm"
        )
        self.choice(field, names, or_else=own)

    def integer(self, field, low, high=None):
        value = getattr(self.holder, field)
        allowed = f"an integer >= {low}" if high is None else f"an integer from {low} to {high}"
        fits = isinstance(value, int) and not isinstance(value, bool)
        self(field, fits and value >= low and (high is None or value <= high), allowed)

    def number(self, field, low, high, allowed):
        value = getattr(self.holder, field)
        self(field, isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value < high, allowed)


def validate_labels(holder):
    """Raises `ValueError` where the `id2label` of a [`CommConfig`] or a [`CommProcessor`] does not fit."""
    check = _Checker(holder)
    labels = list(holder.id2label.values())
    check("id2label", sorted(holder.id2label) == list(range(len(labels))), "ids 0, 1, ... without a gap")
    check(
        "id2label", labels and holder.id2label[0] == THRESHOLD_LABEL, f"the threshold class {THRESHOLD_LABEL!r} at 0"
    )
    check("id2label", all(isinstance(label, str) for label in labels), "labels that are text")
    check("id2label", len(set(labels)) == len(labels), "labels that differ from each other")
