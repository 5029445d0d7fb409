"""How logits become triples: threshold, offset, cap and what else a decision depends on, with their checks."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
from transformers.utils import logging

from .documents import Document
from .loss_registry import DECISION_THRESHOLDS
from .probabilities import ProbabilityMap
from .relation_types import TYPE_CONSTRAINTS, RelationTypes
from .settings import AtLeast, InRange, SettingError, declared_by_dataclass, plain_number

logger = logging.get_logger(__name__)


@dataclasses.dataclass(slots=True)
class DecisionSettings:
    """
    Settings by which logits become triples. A [`CommProcessor`] owns one and saves its fields beside its own. Each assignment
    is checked.

    Args:
        decision_threshold (`str`, defaults to `"th"`): what a relation's margin is measured from: `"th"`, the logit of the
            threshold class, or `"zero"`.
        threshold_offset (`float`, defaults to 0.0): a relation is predicted iff its margin is greater than this.
            [`CommTrainer.tune_threshold_offset`] chooses it. Training does not see it.
        max_relations_per_pair (`int`, *optional*): at most this many relations of a pair are kept, those with the highest
            logits, or probabilities. No cap by default; the paper's recipes use 4.
        evidence_threshold (`float`, *optional*): a sentence is evidence of a predicted relation iff its share in the pair's
            attention is greater than this. [`CommTrainer.tune_evidence_threshold`] chooses it. By default no evidence is
            predicted, and it should stay so where a model was not trained for it.
        fusion_threshold (`float`, *optional*): asks a second time in the sentences that are evidence, and predicts a relation iff
            its margins in the whole document and in these sentences are both above 0, or their sum exceeds this; see
            [`~evidence_fusion.fuse_evidence`]. [`CommTrainer.tune_fusion_threshold`] chooses it. By default nothing is asked
            twice. Needs an `evidence_threshold`.
        fusion_range (`float`, *optional*): only pairs whose highest margin is between minus this and this are asked about twice;
            all by default.
        probability_map (`ProbabilityMap` or `dict`, *optional*): what turns margins into probabilities, and decides: a relation
            is predicted iff its probability exceeds the map's cut. `threshold_offset` is then a further margin beyond that.
            `--fit_probability_map` of the training script makes one. Without it no probability is known.
        type_constraint (`str`, defaults to `"none"`): with `"hard"` a relation is predicted only between types of head and tail
            that `relation_types` has for it. Rules are applied afterwards: what they add is not held back.
        relation_types (`RelationTypes` or `dict`, *optional*): the types that each relation was seen between.
            [`CommTrainer.train`] fills it where `type_constraint` is `"hard"`.

    Raises:
        SettingError: a value does not fit; the message names the field, the value and what is allowed.
    """

    decision_threshold: Literal[DECISION_THRESHOLDS] = "th"  # type: ignore[valid-type]  # declared once, at losses
    threshold_offset: float = 0.0
    max_relations_per_pair: Annotated[int | None, AtLeast(1)] = None
    evidence_threshold: Annotated[float | None, InRange(0, 1)] = None
    probability_map: ProbabilityMap | None = dataclasses.field(default=None, metadata={"is_setting": False})
    fusion_threshold: float | None = None
    fusion_range: Annotated[float | None, AtLeast(0)] = None
    type_constraint: Literal[TYPE_CONSTRAINTS] = "none"  # type: ignore[valid-type]  # declared once, at relation types
    relation_types: RelationTypes | None = dataclasses.field(default=None, metadata={"is_setting": False})

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _MADE_BY:
            value = _MADE_BY[name].of_setting(value)
        value = plain_number(value)
        setting = _DECISION_SETTINGS.get(name)
        if setting and not setting.fits(value):
            raise SettingError(type(self).__name__, name, value, setting.expected)
        if name == "fusion_threshold" and value is not None and self.evidence_threshold is None:
            raise SettingError(type(self).__name__, name, value, "None where evidence_threshold is")
        if name == "evidence_threshold" and value is None and getattr(self, "fusion_threshold", None) is not None:
            raise SettingError(type(self).__name__, name, value, "a number where fusion_threshold is not None")
        object.__setattr__(self, name, value)

    def to_dict(self) -> dict:
        """The fields, ready for JSON."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return fields | {name: fields[name] and fields[name].to_dict() for name in _MADE_BY}

    def excluded(
        self, documents: Sequence[Document], pair_index: torch.Tensor, id2label: dict[int, str]
    ) -> np.ndarray | None:
        """
        What `type_constraint` excludes of the pairs of a batch, see [`~relation_types.RelationTypes.excluded`]; None without one.

        Raises:
            SettingError: a constraint is set, and nothing is known of types.
        """
        if self.type_constraint == "none":
            return None
        self.check_type_constraint(self.type_constraint)
        return self.relation_types.excluded(documents, pair_index.cpu().numpy(), id2label)

    def check_type_constraint(self, value: str) -> None:
        """Raises `SettingError` where predictions cannot be held to a `type_constraint`, because it is unknown, or because nobody
        has recorded types in training."""
        dataclasses.replace(self, type_constraint=value)
        if value != "none" and self.relation_types is None:
            expected = "'none': this model was trained without a type_constraint, and knows no types"
            raise SettingError(type(self).__name__, "type_constraint", value, expected)

    def clear_tuned(self, keep_offset: bool = False, keep_fusion: bool = False) -> None:
        """
        Removes what was tuned for other weights, and says so: `threshold_offset`, unless `keep_offset`, `probability_map` and,
        unless `keep_fusion`, `fusion_threshold`.
        """
        if self.threshold_offset and not keep_offset:
            logger.warning("threshold_offset is set to 0; %.3f was tuned for other weights", self.threshold_offset)
            self.threshold_offset = 0.0
        for name in ("probability_map", *(() if keep_fusion else ("fusion_threshold",))):
            if getattr(self, name) is not None:
                logger.warning("%s is removed; it was made for other weights", name)
                setattr(self, name, None)

    def reset_evidence_threshold(self, default: float | None) -> None:
        """Sets `evidence_threshold` to the default of the model that is trained, and says so if that changes it."""
        if self.evidence_threshold != default:
            before = "None" if self.evidence_threshold is None else f"{self.evidence_threshold:.3f}"
            logger.warning("evidence_threshold is set to %s; %s was of other weights", default, before)
            self.evidence_threshold = default


# What is no plain number or text: the class that reads it from JSON.
_MADE_BY: dict[str, Any] = {"probability_map": ProbabilityMap, "relation_types": RelationTypes}
_DECISION_SETTINGS = declared_by_dataclass(DecisionSettings)
