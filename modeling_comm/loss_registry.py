"""The registry of losses: names, and the function and the settings that belong to each."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from .settings import (
    NameTakenError,
    Setting,
    SettingError,
    check_registered_name,
    check_result,
    declared_by_function,
    full_name,
)

DECISION_THRESHOLDS = ("th", "zero")


@dataclass(frozen=True)
class LossSpec:
    """
    One entry of the registry.

    Args:
        name (`str`): The name that the configuration uses.
        function (`Callable`): `f(logits, labels, reduction="mean", **settings)`, see the head of `loss_base.py`.
        decision_threshold (`str`, *optional*, defaults to `"th"`):
            What a relation's logit has to exceed to be predicted: `"th"` the pair's own threshold class, `"zero"` 0.
        settings (`tuple[Setting]`): What the keyword arguments of `function` declare.
        reference (`str`, *optional*, defaults to `""`): Who published it.
        sums_over_pairs (`bool`, *optional*, defaults to `True`): Whether the loss of a batch is the sum of its pairs' losses.
            If not, the pairs of a batch cannot be computed in parts.
    """

    name: str
    function: Callable[..., torch.Tensor]
    decision_threshold: str = "th"
    settings: tuple[Setting, ...] = ()
    reference: str = ""
    sums_over_pairs: bool = True


_REGISTRY: dict[str, LossSpec] = {}


def register_loss(
    name: str, *, decision_threshold: str = "th", reference: str = "", sums_over_pairs: bool = True
) -> Callable[[Callable[..., torch.Tensor]], Callable[..., torch.Tensor]]:
    """
    Decorator that makes a loss available under `name`.

    Each keyword argument after `reduction` is a setting: `margin` of the loss `"cmm"` is the field `cmm_margin` of the
    configuration and the flag `--cmm_margin`. The function that comes back checks the settings that it is called with,
    and the shape of the result. A mapping from relations to numbers reaches the function with columns of the logits in
    place of relations; see [`~loss_base.relation_values`].

    Args:
        name (`str`): The name that the configuration uses.
        decision_threshold (`str`, *optional*, defaults to `"th"`): See [`LossSpec`].
        reference (`str`, *optional*, defaults to `""`): Who published it.
        sums_over_pairs (`bool`, *optional*, defaults to `True`): See [`LossSpec`].

    Raises:
        `ValueError`: `name` or `decision_threshold` cannot serve, a setting lacks a type or a default or would have
            the name of a field that `CommConfig` has already, or another function is registered under `name`. The same
            function once more (a reloaded module, a notebook cell run twice) replaces the earlier one.

    Example:

    ```python
    >>> @register_loss("squared_margin")
    ... def squared_margin_loss(logits, labels, reduction="mean", *, margin: Annotated[float, AtLeast(0)] = 1.0):
    ...     distance, positive = relation_distances(logits, labels)
    ...     shortfall = torch.relu(margin - torch.where(positive, distance, -distance))
    ...     return reduce_losses((shortfall**2).sum(dim=1), reduction)
    ```
    """
    check_registered_name("register_loss", name)
    if decision_threshold not in DECISION_THRESHOLDS:
        expected = f"one of {', '.join(map(repr, DECISION_THRESHOLDS))}"
        raise SettingError(f"register_loss({name!r})", "decision_threshold", decision_threshold, expected)

    def register(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        known = _REGISTRY.get(name)
        if known is not None and full_name(known.function) != full_name(function):
            raise NameTakenError("register_loss", name, full_name(known.function))
        settings = declared_by_function(function, f"register_loss({name!r})", prefix=f"{name}_", after="reduction")
        checked = _with_checks(name, function, settings)
        _REGISTRY[name] = LossSpec(name, checked, decision_threshold, settings, reference, sums_over_pairs)
        return checked

    return register


def _with_checks(name, function, settings):
    declared = {setting.keyword: setting for setting in settings}

    @functools.wraps(function)
    def checked(logits, labels, reduction="mean", **values):
        for keyword, value in values.items():
            if keyword in declared and not declared[keyword].fits(value):
                raise SettingError(function.__name__, keyword, value, declared[keyword].expected)
        result = function(logits, labels, reduction, **values)
        shape, meaning = ((len(logits),), "one value per pair") if reduction == "none" else ((), "one number")
        check_result(f"the loss {name!r} with reduction={reduction!r}", result, shape, meaning)
        return result

    return checked


def get_loss(name: str) -> LossSpec:
    """
    Looks up a registered loss.

    Args:
        name (`str`): One of [`available_losses`].

    Raises:
        `SettingError`: No loss of that name is registered.
    """
    if name not in _REGISTRY:
        known = ", ".join(map(repr, available_losses()))
        raise SettingError("get_loss", "name", name, f"one of {known}; another one is known once its file is imported")
    return _REGISTRY[name]


def available_losses() -> list[str]:
    """The names of all registered losses, sorted."""
    return sorted(_REGISTRY)


def loss_from_config(config: Any) -> Callable[..., torch.Tensor]:
    """
    The loss that `config.loss` names, with its settings filled in from the configuration.

    Args:
        config (`CommConfig`): Any object with a `loss` attribute and, optionally, the loss's own fields.

    Returns:
        `Callable`: `f(logits, labels, reduction="mean")`. Errors are those of [`get_loss`].
    """
    spec = get_loss(config.loss)
    values: dict[str, Any] = {}
    for setting in spec.settings:
        value = getattr(config, setting.field, setting.default)
        if setting.is_mapping and value is not None:
            value = {config.label2id[relation]: number for relation, number in value.items()}
        values[setting.keyword] = value
    return functools.partial(spec.function, **values)
