"""A processor's settings: which values fit, and which were chosen for a model's relations and fit no others."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from transformers.utils import logging

from .candidate_pairs import CandidatePairs
from .configuration_comm import validate_labels
from .decision_settings import DecisionSettings
from .documents import docred_type
from .settings import AtLeast, InRange, Setting, check_field, nearest_names
from .subword_tokens import MARKER_TYPES, MARKERS, MOST_MARKER_TYPES

logger = logging.get_logger(__name__)

# What a processor's settings are where nothing was chosen for a model's relations.
_UNTUNED = {
    "threshold_offset": 0.0,
    **dict.fromkeys(("probability_map", "fusion_threshold", "relation_types", "rules")),
}


def check_processor_settings(processor: Any) -> None:
    """Raises `SettingError` where a setting of a [`CommProcessor`] does not fit, by itself or with others."""

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
    asked = processor.candidates.candidate_pairs
    fits = not asked or any(marked_types(processor, pair) for pair in asked)
    check_field(processor, "marker_types", fits, f"the types of a candidate pair among them, of {asked}")
    check("word_leading_space", bool)
    check("window_end_tokens", int, InRange(1, 3))
    check("window_size", int, AtLeast(8))
    # Each window must bring at least one new subword token: its size without special tokens and shared ones.
    check("window_stride", int, InRange(0, processor.window_size - 1 - processor.window_end_tokens))
    found, relations = processor.decision.probability_map, len(processor.id2label) - 1
    if found is not None:
        check_field(found, "intercepts", len(found.intercepts) == relations, f"one for each of {relations} relations")
    names, labels = processor.relation_names, {*processor.id2label.values(), *processor.candidates.inverse}
    fits = isinstance(names, dict) and all(isinstance(name, str) for name in names.values())
    check_field(processor, "relation_names", fits, "a dict of label to name")
    unknown = sorted(set(names) - labels, key=str)
    check_field(processor, "relation_names", not unknown, f"names of labels of id2label, which lacks {unknown}")


def refuse_assignment(name: str, settings: Collection[str]) -> None:
    """
    Raises `AttributeError` where a finished processor's attribute is set that is one of its settings: what was checked and read
    with them would not follow. Readable names are no part of that.

    Args:
        name (`str`): the attribute's.
        settings (`Collection[str]`): the names of a processor's settings.
    """
    if name in settings and name != "relation_names":
        decides = name in DecisionSettings.__dataclass_fields__
        expected = (
            f"processor.decision.{name} = ..." if decides else f"processor.with_settings({name}=...), a new processor"
        )
        raise AttributeError(f"CommProcessor: {name} cannot be set; expected {expected}", name=name)


def refuse_misspelt(function: str, given: Collection[str], settings: Collection[str]) -> None:
    """
    Raises `TypeError` where an argument is nearly the name of a setting. Tokenizers have arguments of their own and drop others
    without a word, so others are not refused.

    Args:
        function (`str`): its name, for the message.
        given (`Collection[str]`): the names of its arguments.
        settings (`Collection[str]`): the names of a processor's settings.
    """
    for name in set(given) - {*settings, "tokenizer", "id2label"}:
        if not name.startswith("_") and (near := nearest_names(name, settings)):
            raise TypeError(f"{function}: found the argument {name!r}, expected {' or '.join(map(repr, near))}?")


def marked_types(processor: Any, pair: Sequence[str]) -> tuple[str, ...] | None:
    """The types of head and tail of a candidate pair as the markers of a [`CommProcessor`] call them; None where they do not know
    both."""
    if processor.markers != "entity_type":
        return tuple(pair)
    names = {docred_type(kind): kind for kind in processor.marker_types or MARKER_TYPES}
    found = [names.get(docred_type(kind)) for kind in pair]
    return None if None in found else tuple(map(str, found))


def tuned_for_labels(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a processor that were chosen for a model's relations and fit no others; the values are what they are where
    nothing was chosen."""
    return {name: untuned for name, untuned in _UNTUNED.items() if settings.get(name) not in (None, untuned, [])}


def settings_of_labels(
    labels: Collection[str], relation_names: Mapping[str, str], candidates: CandidatePairs
) -> dict[str, Any]:
    """
    The settings of a processor that depend on the labels of its model.

    Args:
        labels (`Collection[str]`): the model's.
        relation_names (`Mapping[str, str]`): readable names, perhaps of other labels, too; those are left out.
        candidates ([`CandidatePairs`]): the pairs that the model is asked about. Symmetric and inverse relations that it does
            not have are left out.

    Returns:
        `dict`: `relation_names`, and the fields of [`CandidatePairs`].
    """
    candidates = candidates.of_labels(labels)
    names = {name: relation_names[name] for name in (*labels, *candidates.inverse) if name in relation_names}
    return {"relation_names": names, **vars(candidates)}


def settings_for_labels(settings: dict, id2label: Mapping[int, str] | None) -> dict:
    """
    The saved settings of a processor that is loaded for other labels. What was chosen for the saved ones, in their order, is left
    out, and so is what is said of labels that are gone, and an inverse relation that is a label now; both with a warning.

    Args:
        settings (`dict`): as `processor_config.json` has them.
        id2label (`Mapping[int, str]`, *optional*): the labels, by default the saved ones.
    """
    saved = {int(index): label for index, label in (settings.get("id2label") or {}).items()}
    if not isinstance(id2label, Mapping) or {int(index): label for index, label in id2label.items()} == saved:
        return settings
    tuned = tuned_for_labels(settings)
    labels = list(id2label.values())
    given = {name: settings[name] for name in CandidatePairs.field_names() if settings.get(name) is not None}
    candidates = CandidatePairs(**given)
    inverse = {name: kept for name, kept in candidates.inverse.items() if name not in labels}
    candidates = dataclasses.replace(candidates, inverse=inverse)
    of_labels = settings_of_labels(labels, settings.get("relation_names") or {}, candidates)
    kept = {name: of_labels[name] for name in ("relation_names", "symmetric", "inverse") if settings.get(name)}
    gone = [name for name in kept if len(kept[name]) < len(settings[name])]
    if tuned:
        logger.warning("id2label is not the saved one: %s, which belong to that, are left out", ", ".join(tuned))
    if gone:
        logger.warning("id2label is not the saved one: what %s say of other labels is left out", ", ".join(gone))
    return {name: value for name, value in settings.items() if name not in tuned} | kept
