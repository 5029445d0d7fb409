"""A processor's settings: which values fit, and which were chosen for a model's relations and fit no others."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from transformers.utils import logging

from .configuration_comm import validate_labels
from .settings import AtLeast, InRange, Setting, check_field
from .subword_tokens import MARKERS, MOST_MARKER_TYPES

if TYPE_CHECKING:
    from .processing_comm import CommProcessor

logger = logging.get_logger(__name__)

# What a processor's settings are where nothing was chosen for a model's relations.
_UNTUNED = {
    "threshold_offset": 0.0,
    **dict.fromkeys(("probability_map", "fusion_threshold", "relation_types", "rules")),
}


def check_processor_settings(processor: "CommProcessor") -> None:
    """Raises `SettingError` where a setting does not fit, by itself or with others."""

    def check(field, type_, *ranges):
        Setting(field, field, type_, None, ranges).check(processor)

    validate_labels(processor)
    processor.candidates.check_labels(processor.relations)
    check("markers", Literal[MARKERS])
    types = processor.marker_types
    if types is not None:
        check_field(
            processor, "marker_types", processor.markers == "entity_type", "None where markers is not 'entity_type'"
        )
        fits = isinstance(types, list) and all(isinstance(kind, str) and kind for kind in types)
        fits = fits and 0 < len(types) == len(set(types)) <= MOST_MARKER_TYPES
        check_field(processor, "marker_types", fits, f"1 to {MOST_MARKER_TYPES} different entity types")
    check("word_leading_space", bool)
    check("window_end_tokens", int, InRange(1, 3))
    check("window_size", int, AtLeast(8))
    # Each window must bring at least one new subword token: its size without special tokens and shared ones.
    check("window_stride", int, InRange(0, processor.window_size - 1 - processor.window_end_tokens))
    evidence = processor.decision.evidence_threshold is not None or processor.decision.fusion_threshold is None
    check_field(processor.decision, "fusion_threshold", evidence, "None where evidence_threshold is")
    found, relations = processor.decision.probability_map, len(processor.id2label) - 1
    if found is not None:
        check_field(found, "intercepts", len(found.intercepts) == relations, f"one for each of {relations} relations")
    names, labels = processor.relation_names, {*processor.id2label.values(), *processor.candidates.inverse}
    fits = isinstance(names, dict) and all(isinstance(name, str) for name in names.values())
    check_field(processor, "relation_names", fits, "a dict of label to name")
    unknown = sorted(set(names) - labels, key=str)
    check_field(processor, "relation_names", not unknown, f"names of labels of id2label, which lacks {unknown}")


def tuned_for_labels(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a processor that were chosen for a model's relations and fit no others; the values are what they are where
    nothing was chosen."""
    return {name: untuned for name, untuned in _UNTUNED.items() if settings.get(name) not in (None, untuned, [])}


def without_tuned(settings: dict, id2label: dict[int, str] | None) -> dict:
    """The saved settings of a processor that is loaded for other labels: what was chosen for the saved ones, in their order, is
    left out, with a warning."""
    saved = settings.get("id2label") or {}
    if id2label is None or list(id2label.values()) == list(saved.values()):
        return settings
    tuned = tuned_for_labels(settings)
    if tuned:
        logger.warning("id2label is not the saved one: %s, which belong to that, are left out", ", ".join(tuned))
    return {name: value for name, value in settings.items() if name not in tuned}
