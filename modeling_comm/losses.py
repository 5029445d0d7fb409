"""Losses for multi-label relation classification with a threshold class, and the registry that names them.

Every loss is one function `f(logits, labels, reduction="mean", *, ...)`:

- `logits` (`torch.FloatTensor` of shape `(P, R + 1)`, any floating dtype): one row per entity pair. Column 0 is the
  threshold class (TH), column `r` relation `r`.
- `labels` (`torch.Tensor` of shape `(P, R + 1)`, bool, integer or floating, values 0 and 1): column 0 is ignored. A
  pair has no relation (NA) when its columns `1..R` are all 0.
- `reduction` (`str`, *optional*, defaults to `"mean"`): `"mean"` over the pairs (what the published code of ATLOP and
  its successors does), `"sum"` (algorithm 1 of the COMM paper) or `"none"` (one value per pair).
- Every further keyword argument is a setting of the loss. Its annotation and its docstring declare it once, for the field
  `<loss>_<keyword>` of the configuration, the flag of the training script and the checks.

The result is computed and returned in float32, or in float64 for float64 logits; inputs are never changed. `P = 0`
gives a 0 that still has a gradient. Each loss raises a `ValueError` for shapes or labels that do not fit, an unknown
reduction and a parameter out of range. The docstrings below list only what a loss adds to this.

Notation: `t` are the logits of one pair, `t_0` that of TH, `d_r = t_r - t_0`, `P` the gold relations, `N` all the
others (TH is in neither), and `s` the logistic function. Every loss but balanced softmax depends on `d` alone.
"""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch.nn.functional import log_softmax, logsigmoid, relu

from .settings import (
    AtLeast,
    InRange,
    Setting,
    SettingError,
    check_registered_name,
    check_result,
    declared_by_function,
)

DECISION_THRESHOLDS = ("th", "zero")


@dataclass(frozen=True)
class LossSpec:
    """
    One entry of the registry.

    Args:
        name (`str`): The name that the configuration uses.
        function (`Callable`): `f(logits, labels, reduction="mean", **settings)`, see the head of this module.
        decision_threshold (`str`, *optional*, defaults to `"th"`):
            What a relation's logit has to exceed to be predicted: `"th"` the pair's own threshold class, `"zero"` 0.
        settings (`tuple[Setting]`): What the keyword arguments of `function` declare.
        reference (`str`, *optional*, defaults to `""`): Who published it.
    """

    name: str
    function: Callable[..., torch.Tensor]
    decision_threshold: str = "th"
    settings: tuple[Setting, ...] = ()
    reference: str = ""


_REGISTRY: dict[str, LossSpec] = {}


def register_loss(
    name: str, *, decision_threshold: str = "th", reference: str = ""
) -> Callable[[Callable[..., torch.Tensor]], Callable[..., torch.Tensor]]:
    """
    Decorator that makes a loss available under `name`.

    Each keyword argument after `reduction` is a setting: `margin` of the loss `"cmm"` is the field `cmm_margin` of the
    configuration and the flag `--cmm_margin`. The function that comes back checks the settings that it is called with,
    and the shape of the result. A mapping from relations to numbers reaches the function with columns of the logits in
    place of relations; see [`relation_values`].

    Args:
        name (`str`): The name that the configuration uses.
        decision_threshold (`str`, *optional*, defaults to `"th"`): See [`LossSpec`].
        reference (`str`, *optional*, defaults to `""`): Who published it.

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
        raise ValueError(
            f"decision_threshold of loss {name!r} must be one of {DECISION_THRESHOLDS}, got {decision_threshold!r}."
        )

    def register(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        known = _REGISTRY.get(name)
        if known is not None and _full_name(known.function) != _full_name(function):
            raise ValueError(
                f"The loss name {name!r} is taken by {_full_name(known.function)}; "
                f"register {_full_name(function)} under another name."
            )
        settings = declared_by_function(function, f"register_loss({name!r})", prefix=f"{name}_", after="reduction")
        checked = _with_checks(name, function, settings)
        _REGISTRY[name] = LossSpec(name, checked, decision_threshold, settings, reference)
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


def _full_name(function: Callable) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def get_loss(name: str) -> LossSpec:
    """
    Looks up a registered loss.

    Args:
        name (`str`): One of [`available_losses`].

    Raises:
        `ValueError`: No loss of that name is registered.
    """
    if name not in _REGISTRY:
        raise ValueError(
            f"There is no loss {name!r}; registered are {', '.join(available_losses())}. Add your own with "
            "@register_loss(...), in a file that is imported before the loss is asked for."
        )
    return _REGISTRY[name]


def available_losses() -> list[str]:
    """The names of all registered losses, sorted."""
    return sorted(_REGISTRY)


def is_built_in_loss(name: str) -> bool:
    """Returns whether `name` comes with the library; another one's source is saved with the checkpoint."""
    modules = (__name__, f"{__name__}_positive_unlabelled")
    return get_loss(name).function.__module__ in modules


def loss_from_config(config) -> Callable[..., torch.Tensor]:
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


def check_inputs(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Checks the inputs of a loss and brings them into the form it computes with.

    Args:
        logits (`torch.FloatTensor` of shape `(P, R + 1)`): Column 0 is the threshold class.
        labels (`torch.Tensor` of shape `(P, R + 1)`): 0 or 1; column 0 is ignored.

    Returns:
        `tuple[torch.Tensor, torch.BoolTensor]`: The logits `(P, R + 1)` in float32 (float64 stays), and which
        relations are gold, `(P, R)`.

    Raises:
        `ValueError`: The logits are not floating or not `(P, R + 1)` with `R >= 1`, or the labels have another shape,
        a complex dtype or values other than 0 and 1 (the values are looked at on the CPU only: elsewhere that would
        wait for the device).
    """
    if logits.ndim != 2 or logits.shape[1] < 2 or not logits.is_floating_point():
        raise ValueError(
            "logits must be floating and of shape (pairs, 1 + relations) with at least one relation, "
            f"got {tuple(logits.shape)} of {logits.dtype}."
        )
    if labels.shape != logits.shape or labels.is_complex():
        raise ValueError(
            f"labels must be 0 or 1 in the shape of the logits, {tuple(logits.shape)}, "
            f"got {tuple(labels.shape)} of {labels.dtype}."
        )
    relation_labels = labels[:, 1:]
    positive = relation_labels == 1
    if labels.device.type == "cpu" and not torch.compiler.is_compiling():
        neither = ~(positive | (relation_labels == 0))
        if neither.any():
            raise ValueError(
                f"labels of shape {tuple(labels.shape)} must be 0 or 1 in columns 1 and above, "
                f"got {relation_labels[neither][0].item()} for pair {neither.nonzero()[0, 0].item()}."
            )
    return logits.to(torch.promote_types(logits.dtype, torch.float32)), positive


def relation_distances(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    The distances `d_r = t_r - t_0` of all relations to the threshold class, and which relations are gold.

    Arguments and errors are those of [`check_inputs`].

    Returns:
        `tuple[torch.Tensor, torch.BoolTensor]`: Both of shape `(P, R)`.
    """
    logits, positive = check_inputs(logits, labels)
    return logits[:, 1:] - logits[:, :1], positive


def reduce_losses(losses: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    """
    Reduces one loss per pair.

    Args:
        losses (`torch.FloatTensor` of shape `(P,)`): One loss per pair.
        reduction (`str`, *optional*, defaults to `"mean"`):
            `"mean"`, `"sum"` or `"none"`. No pairs at all give 0 for the first two.

    Raises:
        `ValueError`: `reduction` is none of these.
    """
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    if reduction == "mean":
        return losses.sum() / max(losses.shape[0], 1)
    raise ValueError(f'reduction must be "mean", "sum" or "none", got {reduction!r}.')


def relation_values(values: Mapping[int, float] | None, logits: torch.Tensor, default: float) -> torch.Tensor:
    """
    A number for each relation, from a setting that maps relations to numbers.

    Args:
        values (`dict[int, float]`, *optional*): What a loss receives for such a setting: column of the logits -> number.
        logits (`torch.FloatTensor` of shape `(P, R + 1)`): The loss's logits.
        default (`float`): The number of the relations that `values` lacks.

    Returns:
        `torch.FloatTensor` of shape `(R,)`: On the device of the logits, in float32 at least. Multiplied with what
        [`relation_distances`] returns, `(P, R)`, it weighs relations.
    """
    numbers = [float((values or {}).get(column, default)) for column in range(1, logits.shape[1])]
    return torch.tensor(numbers, dtype=torch.promote_types(logits.dtype, torch.float32), device=logits.device)


def _toward_gold(distance: torch.Tensor, positive: torch.Tensor) -> torch.Tensor:
    """Eq. 2 of the COMM paper: the distance to the threshold, positive on the side where the gold label wants it."""
    return torch.where(positive, distance, -distance)


def _rescaled_distance(distance: torch.Tensor, positive: torch.Tensor, shift: float) -> torch.Tensor:
    """Eq. 4 of the COMM paper: `log s(d)` for positives and `log min(s(-d) + shift, 1)` for the others."""
    toward_gold = _toward_gold(distance, positive)
    q = logsigmoid(toward_gold)
    if shift == 0:  # log(sigmoid(x)) would underflow
        return q
    probability = torch.sigmoid(toward_gold)
    # A constant 1 before the logarithm: loss and gradient are exactly 0 past the cut-off, and no log(0) can occur.
    outside = positive | (probability >= 1 - shift)
    return torch.where(positive, q, torch.log(torch.where(outside, 1.0, probability + shift)))


def _log_softmax_where(mask: torch.Tensor, threshold: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """
    Log softmax per row over `threshold` `(P, 1)`, which comes first, and the `values` where `mask`; `-inf` elsewhere.
    Unlike that of `logsumexp`, its gradient stays accurate for large logits; and the threshold's own gradient comes
    straight from the softmax, not as a sum over distances that cancel.
    """
    return log_softmax(torch.cat([threshold, torch.where(mask, values, -math.inf)], dim=1), dim=1)


@register_loss("cmm", reference="COMM's paper, eq. 5")
def cmm_loss(
    logits,
    labels,
    reduction="mean",
    *,
    margin: Annotated[float, InRange(0, 1)] = 0.2,
    gamma: Annotated[float, AtLeast(0)] = 1.0,
) -> torch.Tensor:
    """
    Concentrated margin maximization, the loss of the COMM paper (eq. 2, 4, 5 and algorithm 1):
    `-sum_P (1 - q)^gamma q - sum_N q`, with `q = log s(d)` in `P` and `q = log min(s(-d) + m, 1)` in `N`.

    Negatives with `s(-d) >= 1 - m` add neither loss nor gradient. With `m > 0` a negative adds at most `-log m`, and
    its gradient also fades for the hardest ones (`m = 0.2`: 0.36 at `d = 0`, 0.42 at 1, 0.03 at 5, 0.002 at 8). Labels
    missing from the data look like hard negatives, so this forgives them. The gradient of a positive grows like
    `|d|^gamma` instead, so wrong positives (distant labels) weigh heavily.

    Args:
        margin (`float`, *optional*):
            m of eq. 4. Larger values drop more easy negatives and lower the bound. The paper searches 0.1, 0.2, 0.3 and
            0.4. At 0 nothing is dropped and nothing is bounded.
        gamma (`float`, *optional*):
            gamma of eq. 5, the exponent of the concentration factor. Larger values weigh hard positives more. The paper
            searches 1, 1.2, 1.4, 1.6 and 2. At 0 positives are unweighted: NCRL without its regularizer.
    """
    distance, positive = relation_distances(logits, labels)
    q = _rescaled_distance(distance, positive, margin)
    concentration = (1 - torch.where(positive, q, 0.0)) ** gamma  # 1 for negatives
    return reduce_losses(-(concentration * q).sum(dim=1), reduction)


@register_loss("margin", reference="COMM's paper, eq. 3")
def margin_loss(logits, labels, reduction="mean") -> torch.Tensor:
    """
    Plain margin loss (COMM paper, eq. 3): `-sum_P d + sum_N d`.

    Unbounded below, and its gradient is the same for easy and hard relations: a reference point, not a loss to train
    long with.
    """
    distance, positive = relation_distances(logits, labels)
    return reduce_losses(-_toward_gold(distance, positive).sum(dim=1), reduction)


@register_loss("sat", reference="code of HingeABL")
def sat_loss(logits, labels, reduction="mean") -> torch.Tensor:
    """
    Unweighted logistic loss of every relation against the threshold class, called SAT in the code of HingeABL (Wang
    et al. 2023): `-sum_P log s(d) - sum_N log s(-d)`.

    CMM with `margin = 0` and `gamma = 0`, and HingeABL before its weights.
    """
    distance, positive = relation_distances(logits, labels)
    return reduce_losses(-logsigmoid(_toward_gold(distance, positive)).sum(dim=1), reduction)


@register_loss("atl", reference="ATLOP, Zhou et al. 2021")
def atl_loss(logits, labels, reduction="mean") -> torch.Tensor:
    """
    Adaptive thresholding loss of ATLOP (Zhou et al. 2021, "Adaptive Thresholding"):
    `-sum_P log(e^{t_r} / (e^{t_0} + sum_P e^t)) - log(e^{t_0} / (e^{t_0} + sum_N e^t))`.

    The gold relations of a pair compete in one softmax, so its minimum is `|P| log |P|`, not 0.
    """
    logits, positive = check_inputs(logits, labels)
    threshold, relations = logits[:, :1], logits[:, 1:]
    positive_term = torch.where(positive, _log_softmax_where(positive, threshold, relations)[:, 1:], 0.0).sum(dim=1)
    negative_term = _log_softmax_where(~positive, threshold, relations)[:, 0]
    return reduce_losses(-positive_term - negative_term, reduction)


@register_loss("balanced_softmax", decision_threshold="zero", reference="DocuNet, Zhang et al. 2021")
def balanced_softmax_loss(logits, labels, reduction="mean") -> torch.Tensor:
    """
    Balanced softmax of DocuNet (Zhang et al. 2021): `log(1 + sum_{not gold} e^t) + log(1 + sum_{gold} e^{-t})`.

    Column 0 is NA here, an ordinary class that is gold for pairs without a relation. The threshold is the constant 0,
    not a class: decode with 0, and expect the loss to change when a constant is added to all logits.
    """
    logits, positive = check_inputs(logits, labels)
    gold = torch.cat([~positive.any(dim=1, keepdim=True), positive], dim=1)
    zero = torch.zeros_like(logits[:, :1])
    gold_term = _log_softmax_where(gold, zero, -logits)[:, 0]
    other_term = _log_softmax_where(~gold, zero, logits)[:, 0]
    return reduce_losses(-gold_term - other_term, reduction)


@register_loss("aml", reference="SagDRE, Wei and Li 2022")
def aml_loss(logits, labels, reduction="mean", *, margin: Annotated[float, AtLeast(0)] = 1.0) -> torch.Tensor:
    """
    Adaptive margin loss of SagDRE (Wei and Li 2022): `sum_P max(0, m - d) + sum_N max(0, m + d)`.

    The published code also counts column 0, a constant 2 without gradient, left out here.

    Args:
        margin (`float`, *optional*):
            m, the distance from the threshold beyond which a relation adds neither loss nor gradient.
    """
    distance, positive = relation_distances(logits, labels)
    return reduce_losses(relu(margin - _toward_gold(distance, positive)).sum(dim=1), reduction)


@register_loss("afl", reference="KD-DocRE, Tan et al. 2022")
def afl_loss(
    logits,
    labels,
    reduction="mean",
    *,
    gamma: Annotated[float, AtLeast(0)] = 1.0,
    weight: Literal["code", "paper"] = "code",
) -> torch.Tensor:
    """
    Adaptive focal loss of KD-DocRE (Tan et al. 2022, "Adaptive Focal Loss"):
    `-sum_P w log s(d) - log(e^{t_0} / (e^{t_0} + sum_N e^t))`.

    Unlike in ATL, the gold relations of a pair do not compete with each other.

    Args:
        gamma (`float`, *optional*):
            Focusing exponent. Larger values take more weight off positives that are already right.
        weight (`str`, *optional*):
            Weight of a positive: `"paper"` is printed in the paper, `w = (1 - s(d))^gamma`; `"code"` is that of its code,
            `w = 1 + (1 - s(d))^gamma`, which trained the published models.
    """
    logits, positive = check_inputs(logits, labels)
    threshold, relations = logits[:, :1], logits[:, 1:]
    distance = relations - threshold
    # (1 - s(d))^gamma as exp(gamma log s(-d)): the power's own derivative is infinite at 0 for gamma below 1.
    focus = torch.exp(gamma * logsigmoid(-distance))
    positive_weight = focus if weight == "paper" else 1 + focus
    positive_term = torch.where(positive, positive_weight * logsigmoid(distance), 0.0).sum(dim=1)
    negative_term = _log_softmax_where(~positive, threshold, relations)[:, 0]
    return reduce_losses(-positive_term - negative_term, reduction)


@register_loss("hingeabl", reference="Wang et al. 2023")
def hingeabl_loss(
    logits,
    labels,
    reduction="mean",
    *,
    margin: Annotated[float, AtLeast(0)] = 5.0,
    detach_weights: bool = False,
) -> torch.Tensor:
    """
    Adaptive hinge balance loss (Wang et al. 2023): `-sum_P w log s(d) - sum_N w log s(-d)`, where
    `w_r = max(0, m - d_r) / sum_P max(0, m - d)` in `P` and `w_r = max(0, m + d_r) / sum_N max(0, m + d)` in `N`.

    The weights add up to 1 within `P` and within `N`, so one positive weighs as much as all negatives together. A
    group that is empty or meets the margin everywhere adds 0, with a gradient of 0.

    Args:
        margin (`float`, *optional*):
            m: relations this far on the right side of the threshold get no weight.
        detach_weights (`bool`, *optional*):
            No gradient through the weights. `False` lets the gradient flow through them, as the published code does. It
            then pushes relations that are easier than the weighted mean of their group the wrong way (17 % of the entries
            in a test on random logits). `True` takes the weights as constants: same loss, every gradient in the right
            direction.
    """
    distance, positive = relation_distances(logits, labels)
    toward_gold = _toward_gold(distance, positive)
    hinge = relu(margin - toward_gold)
    positive_total = torch.where(positive, hinge, 0.0).sum(dim=1, keepdim=True)
    negative_total = torch.where(positive, 0.0, hinge).sum(dim=1, keepdim=True)
    total = torch.where(positive, positive_total, negative_total)
    weight = hinge / torch.where(total > 0, total, 1.0)
    if detach_weights:
        weight = weight.detach()
    return reduce_losses(-(weight * logsigmoid(toward_gold)).sum(dim=1), reduction)


@register_loss("ncrl", reference="Zhou and Lee 2022")
def ncrl_loss(
    logits,
    labels,
    reduction="mean",
    *,
    shift: Annotated[float, InRange(0, 1)] = 0.0,
    regularizer: bool = True,
) -> torch.Tensor:
    """
    None class ranking loss (Zhou and Lee 2022): `-sum_P log s(d) - sum_N log min(s(-d) + shift, 1)`, plus the same
    two-sided term for `x = t_0 - mean_r t_r`, positive when the pair has no relation.

    The published code stops every term at `-log 1e-8`, where its gradient is lost; this form does not.

    Args:
        shift (`float`, *optional*):
            "Margin shifting": what `margin` is to CMM, in the regularizer too.
        regularizer (`bool`, *optional*):
            "Margin regularization", the term for `x`. Without it the loss is CMM at `gamma = 0`.
    """
    distance, positive = relation_distances(logits, labels)
    losses = -_rescaled_distance(distance, positive, shift).sum(dim=1)
    if regularizer:
        losses = losses - _rescaled_distance(-distance.mean(dim=1), ~positive.any(dim=1), shift)
    return reduce_losses(losses, reduction)
