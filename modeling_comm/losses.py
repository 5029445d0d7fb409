"""The losses that come with the library. The head of `loss_base.py` says what all of them promise, and their notation."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import torch
from torch.nn.functional import logsigmoid, relu

from .loss_base import (
    check_inputs,
    log_softmax_where,
    reduce_losses,
    relation_distances,
    rescaled_distance,
    toward_gold,
)
from .loss_registry import available_losses, get_loss, loss_from_config, register_loss
from .losses_positive_unlabelled import pu_cmm_loss, ssr_pu_loss  # noqa: F401  # importing them registers them
from .settings import AtLeast, InRange, SettingError

__all__ = ["available_losses", "get_loss", "is_built_in_loss", "loss_from_config", "register_loss"]


@register_loss("cmm", reference="COMM's paper, eq. 5")
def cmm_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    reduction: str = "mean",
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
    q = rescaled_distance(distance, positive, margin)
    concentration = (1 - torch.where(positive, q, 0.0)) ** gamma  # 1 for negatives
    return reduce_losses(-(concentration * q).sum(dim=1), reduction)


@register_loss("margin", reference="COMM's paper, eq. 3")
def margin_loss(logits: torch.Tensor, labels: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    """
    Plain margin loss (COMM paper, eq. 3): `-sum_P d + sum_N d`.

    Unbounded below, and its gradient is the same for easy and hard relations: a reference point, not a loss to train
    long with.
    """
    distance, positive = relation_distances(logits, labels)
    return reduce_losses(-toward_gold(distance, positive).sum(dim=1), reduction)


@register_loss("sat", reference="code of HingeABL")
def sat_loss(logits: torch.Tensor, labels: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    """
    Unweighted logistic loss of every relation against the threshold class, called SAT in the code of HingeABL (Wang
    et al. 2023): `-sum_P log s(d) - sum_N log s(-d)`.

    CMM with `margin = 0` and `gamma = 0`, and HingeABL before its weights.
    """
    distance, positive = relation_distances(logits, labels)
    return reduce_losses(-logsigmoid(toward_gold(distance, positive)).sum(dim=1), reduction)


@register_loss("atl", reference="ATLOP, Zhou et al. 2021")
def atl_loss(logits: torch.Tensor, labels: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    """
    Adaptive thresholding loss of ATLOP (Zhou et al. 2021, "Adaptive Thresholding"):
    `-sum_P log(e^{t_r} / (e^{t_0} + sum_P e^t)) - log(e^{t_0} / (e^{t_0} + sum_N e^t))`.

    The gold relations of a pair compete in one softmax, so its minimum is `|P| log |P|`, not 0.
    """
    logits, positive = check_inputs(logits, labels)
    threshold, relations = logits[:, :1], logits[:, 1:]
    positive_term = torch.where(positive, log_softmax_where(positive, threshold, relations)[:, 1:], 0.0).sum(dim=1)
    negative_term = log_softmax_where(~positive, threshold, relations)[:, 0]
    return reduce_losses(-positive_term - negative_term, reduction)


@register_loss("cross_entropy")
def cross_entropy_loss(logits: torch.Tensor, labels: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    """
    Cross-entropy with one softmax over all relations and NA, which is column 0: `-sum_P log softmax(t)_r / |P|`, and
    `-log softmax(t)_0` without a gold relation.

    For data with one relation for each pair, together with `max_relations_per_pair = 1`: the relations of a pair
    compete, where the other losses compare each with TH alone. Several gold relations share the probability, so the
    minimum is `log |P|` then.
    """
    logits, positive = check_inputs(logits, labels)
    gold = torch.cat([~positive.any(dim=1, keepdim=True), positive], dim=1)
    likelihood = torch.where(gold, logits.log_softmax(dim=1), 0.0).sum(dim=1)
    return reduce_losses(-likelihood / gold.sum(dim=1), reduction)


@register_loss("balanced_softmax", decision_threshold="zero", reference="DocuNet, Zhang et al. 2021")
def balanced_softmax_loss(logits: torch.Tensor, labels: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    """
    Balanced softmax of DocuNet (Zhang et al. 2021): `log(1 + sum_{not gold} e^t) + log(1 + sum_{gold} e^{-t})`.

    Column 0 is NA here, an ordinary class that is gold for pairs without a relation. The threshold is the constant 0,
    not a class: decode with 0, and expect the loss to change when a constant is added to all logits.
    """
    logits, positive = check_inputs(logits, labels)
    gold = torch.cat([~positive.any(dim=1, keepdim=True), positive], dim=1)
    zero = torch.zeros_like(logits[:, :1])
    gold_term = log_softmax_where(gold, zero, -logits)[:, 0]
    other_term = log_softmax_where(~gold, zero, logits)[:, 0]
    return reduce_losses(-gold_term - other_term, reduction)


@register_loss("aml", reference="SagDRE, Wei and Li 2022")
def aml_loss(
    logits: torch.Tensor, labels: torch.Tensor, reduction: str = "mean", *, margin: Annotated[float, AtLeast(0)] = 1.0
) -> torch.Tensor:
    """
    Adaptive margin loss of SagDRE (Wei and Li 2022): `sum_P max(0, m - d) + sum_N max(0, m + d)`.

    The published code also counts column 0, a constant 2 without gradient, left out here.

    Args:
        margin (`float`, *optional*):
            m, the distance from the threshold beyond which a relation adds neither loss nor gradient.
    """
    distance, positive = relation_distances(logits, labels)
    return reduce_losses(relu(margin - toward_gold(distance, positive)).sum(dim=1), reduction)


@register_loss("afl", reference="KD-DocRE, Tan et al. 2022")
def afl_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    reduction: str = "mean",
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
    negative_term = log_softmax_where(~positive, threshold, relations)[:, 0]
    return reduce_losses(-positive_term - negative_term, reduction)


@register_loss("hingeabl", reference="Wang et al. 2023")
def hingeabl_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    reduction: str = "mean",
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
    toward = toward_gold(distance, positive)
    hinge = relu(margin - toward)
    positive_total = torch.where(positive, hinge, 0.0).sum(dim=1, keepdim=True)
    negative_total = torch.where(positive, 0.0, hinge).sum(dim=1, keepdim=True)
    total = torch.where(positive, positive_total, negative_total)
    weight = hinge / torch.where(total > 0, total, 1.0)
    if detach_weights:
        weight = weight.detach()
    return reduce_losses(-(weight * logsigmoid(toward)).sum(dim=1), reduction)


@register_loss("ncrl", reference="Zhou and Lee 2022")
def ncrl_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    reduction: str = "mean",
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
    losses = -rescaled_distance(distance, positive, shift).sum(dim=1)
    if regularizer:
        losses = losses - rescaled_distance(-distance.mean(dim=1), ~positive.any(dim=1), shift)
    return reduce_losses(losses, reduction)


@contextmanager
def fixed_random_numbers() -> Iterator[None]:
    """The same random numbers of torch's generator of the CPU within each such context; those of a training stay as they are."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield


def check_loss_of_unasked(config: Any) -> None:
    """
    Refuses a loss that cannot leave out a relation which a pair is not asked about, see
    [`~modeling_comm.features.without_relations`]: one to which it matters how far below the threshold a relation is. A loss that
    draws random numbers of torch is judged on the same ones.

    Args:
        config (`CommConfig`): names the loss and has its settings.

    Raises:
        SettingError: the loss is of that kind, or gives other values for the same logits, so that it cannot be told.
    """
    loss, results = loss_from_config(config), []
    labels = torch.zeros(3, config.num_labels, device="cpu")
    labels[0, 1] = 1
    for depth in (100.0, 100.0, 1000.0):
        logits = torch.linspace(-1, 1, labels.numel(), device="cpu").view_as(labels).clone()
        logits[:, -1] = -depth
        # Of the only relation there is, the other pairs are asked about it.
        rows = slice(None) if config.num_labels > 2 else slice(1, None)
        with fixed_random_numbers():
            results.append(loss(logits[rows], labels[rows], reduction="none"))
    first, again, deeper = results
    expected = "with symmetric relations among directed ones, a loss "
    if not torch.allclose(first, again):
        expected += "that gives the same for the same logits, random numbers of torch aside; this one cannot be judged"
    elif torch.allclose(first, deeper):
        return
    else:
        expected += "to which a relation far below the threshold does not matter"
    raise SettingError("CommConfig", "loss", config.loss, expected)


_BUILT_IN = frozenset(available_losses())
# Their functions, for training loops and losses of a user's own.
FUNCTIONS = tuple(get_loss(name).function.__name__ for name in available_losses())
__all__ += FUNCTIONS


def is_built_in_loss(name: str) -> bool:
    """Returns whether `name` comes with the library; another one's source is saved with the checkpoint."""
    return get_loss(name).name in _BUILT_IN
