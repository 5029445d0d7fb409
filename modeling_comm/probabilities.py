"""The map from margins to probabilities that a processor keeps: `p = s(slope * margin + intercept of the relation)`.

It is fitted on labelled documents, see `incomplete_labels/probability_map.py` of the library. One cut on p decides, which is the
same as an offset on the margin for each relation.
"""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from .settings import SettingError


@dataclass(frozen=True)
class ProbabilityMap:
    """
    A map from margins to probabilities, and the cut that decides. p is the probability of a relation "in labels of the kind, and
    on text of the kind, that the map was fitted on".

    Args:
        slope (`float`): of the margin, the same for all relations; above 0.
        intercepts (`tuple[float, ...]`): one for each of the R relations, in the order of the labels.
        cut (`float`, defaults to 0.5): a relation is predicted iff its probability exceeds this; above 0 and below 1.
        floor (`float`, *optional*): the map was fitted on margins above this one. At or below it no probability is above `below`.
        below (`float`, defaults to 0.0): the share of facts among such margins; at most `cut`.

    Raises:
        SettingError: a value does not fit.
    """

    slope: float
    intercepts: tuple[float, ...]
    cut: float = 0.5
    floor: float | None = None
    below: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "intercepts", _numbers(self.intercepts))
        for name, fits, expected in (
            ("slope", _is_finite(self.slope) and self.slope > 0, "a finite number above 0"),
            ("intercepts", all(map(_is_finite, self.intercepts)), "finite numbers, one for each relation"),
            ("cut", _is_finite(self.cut) and 0 < self.cut < 1, "a number above 0 and below 1"),
            ("floor", self.floor is None or _is_finite(self.floor), "a finite number, or None"),
            ("below", _is_finite(self.below) and 0 <= self.below <= self.cut, "a number from 0 to the cut"),
        ):
            if not fits:
                raise SettingError("ProbabilityMap", name, getattr(self, name), expected)

    @classmethod
    def of_setting(cls, value: Any) -> "ProbabilityMap | None":
        """
        What a setting `probability_map` holds: a map, None, or a mapping of its fields, as JSON has them.

        Raises:
            SettingError: the value is something else.
        """
        if value is None or isinstance(value, cls):
            return value
        names = {field.name for field in fields(cls)}
        if not isinstance(value, dict) or value.keys() != names:
            raise SettingError("DecisionSettings", "probability_map", value, f"a mapping of {sorted(names)}, or None")
        return cls(**value)

    def to_dict(self) -> dict:
        """The fields, ready for JSON."""
        return {**asdict(self), "intercepts": list(self.intercepts)}

    def logits(self, margins: np.ndarray) -> np.ndarray:
        """Logits of the probabilities, float64, of margins `(..., R)`. They order relations as the probabilities do."""
        logits = self.slope * np.asarray(margins, dtype=np.float64) + np.array(self.intercepts)
        if self.floor is None:
            return logits
        most = max(self.below, 1e-12)
        return np.where(np.asarray(margins) > self.floor, logits, np.minimum(logits, math.log(most / (1 - most))))

    def probabilities(self, margins: np.ndarray) -> np.ndarray:
        """Probabilities, float64, of margins `(..., R)`."""
        return sigmoid(self.logits(margins))

    def offsets(self) -> np.ndarray:
        """The margin `(R,)` that each relation has to exceed, so that `margin > offset` decides as `p > cut` does."""
        offsets = (math.log(self.cut / (1 - self.cut)) - np.array(self.intercepts)) / self.slope
        return offsets if self.floor is None else np.maximum(offsets, self.floor)


def sigmoid(scores: np.ndarray) -> np.ndarray:
    """The logistic function, without overflow."""
    return np.exp(-np.logaddexp(0.0, -scores))


def _numbers(values):
    found = np.asarray(values)
    return tuple(found.tolist()) if found.ndim == 1 else (math.nan,)


def _is_finite(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
