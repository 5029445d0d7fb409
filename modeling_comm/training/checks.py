"""What training documents show, and whether that can be learnt."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from transformers.utils import logging

from ..candidate_pairs import CandidatePairs
from ..configuration_comm import CommConfig
from ..losses import check_loss_of_unasked, fixed_random_numbers, get_loss, loss_from_config
from ..settings import SettingError
from .encode_dataset import column_of
from .training_args import CommTrainingArguments

logger = logging.get_logger(__name__)


def check_loss(config: CommConfig, candidates: CandidatePairs) -> None:
    """
    Refuses a loss with which nothing could be trained, or something else than is asked for: [`check_reductions`] and
    [`check_loss_of_symmetric`], which say what they take and raise.
    """
    check_reductions(config)
    check_loss_of_symmetric(config, candidates)


def check_loss_of_symmetric(config: CommConfig, candidates: CandidatePairs) -> None:
    """
    Refuses a loss that cannot leave out a relation which a pair is not asked about, see
    [`~modeling_comm.losses.check_loss_of_unasked`].

    Args:
        config (`CommConfig`): names the loss and has its settings.
        candidates (`CandidatePairs`): the pairs that the model is asked about.

    Raises:
        SettingError: there are symmetric relations among directed ones, and the loss is of that kind.
    """
    if not candidates.directed or not candidates.symmetric:
        return
    check_loss_of_unasked(config)


def check_reductions(config: CommConfig) -> None:
    """
    Refuses a loss that is not reduced as it is asked to: training would be of another one, in silence.

    Args:
        config (`CommConfig`): names the loss and has its settings.

    Raises:
        SettingError: its values of some pairs do not add up to its sum, or its mean is not that of these values.
        WrongResultError: what it returns has another shape or type than a loss has.
    """
    loss = loss_from_config(config)
    logits = torch.linspace(-1, 1, 2 * config.num_labels, device="cpu").view(2, -1)
    labels = torch.zeros_like(logits)
    labels[0, 1] = 1
    results = []
    for reduction in ("none", "sum", "mean", "sum"):
        with fixed_random_numbers():
            results.append(loss(logits, labels, reduction=reduction))
    rounding = max(1e-5, *(4 * torch.finfo(result.dtype).eps for result in results))
    each, total, mean, again = (result.detach().double() for result in results)
    close = partial(torch.allclose, rtol=rounding, equal_nan=True)
    # Of random numbers that torch's generator does not give, nothing can be said.
    fits = not close(total, again) or (close(each.sum(), total) and close(total / 2, mean))
    if get_loss(config.loss).sums_over_pairs and not fits:
        expected = "a loss that is summed or averaged over pairs as `reduction` says, or registered with sums_over_pairs=False"
        found = f"{each.tolist()} with 'none', {total.item():.6g} with 'sum' and {mean.item():.6g} with 'mean'"
        raise SettingError("CommConfig", "loss", config.loss, f"{expected}; of two pairs it gives {found}")


def check_strategies_of_stream(args: CommTrainingArguments) -> None:
    """Raises `ValueError` where a streamed training would be evaluated or saved by epochs: it has one, of all its steps."""
    by_epoch = [name for name in ("eval_strategy", "save_strategy") if getattr(args, name) == "epoch"]
    if by_epoch:
        flags = [f"--{name} steps --{name.replace('strategy', 'steps')} 1000" for name in by_epoch]
        raise ValueError(
            f"found {' and '.join(by_epoch)} 'epoch', and training documents that are a stream, whose only epoch ends with the "
            f"last step; expected a number of steps, for example {' '.join(flags)}"
        )


class NothingToLearnError(ValueError):
    """
    Training documents show nothing that could be learnt.

    Attributes:
        missing (`str`): `"entity pairs"`, `"candidate pairs"` or `"facts"`.
        documents (`int`): number of the documents.
    """

    def __init__(self, missing: str, documents: int):
        self.missing, self.documents = missing, documents
        why = {
            "entity pairs": "a document with two entities at least: relations hold between entities",
            "candidate pairs": "entities of the types that candidate_pairs lists, head and tail, in one document",
            "facts": "one fact at least: a model that sees none learns to predict none",
        }[missing]
        super().__init__(f"found no {missing} in the {documents:,} training documents; expected {why}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.missing, self.documents)


def check_learnable(dataset: Any, id2label: Mapping[int, str], needs_facts: bool = True) -> None:
    """
    Refuses training documents from which nothing can be learnt, and says which relations they do not show.

    Args:
        dataset: encoded documents.
        id2label (`Mapping[int, str]`): the model's labels.
        needs_facts (`bool`, defaults to `True`): whether the facts of the documents are all that is learnt from.

    Raises:
        NothingToLearnError: there are no pairs, or no facts.
    """
    if max(column_of(dataset, "num_entities")) < 2:
        raise NothingToLearnError("entity pairs", len(dataset))
    columns = zip(column_of(dataset, "num_entities"), column_of(dataset, "pairs"), strict=True)
    if all(entities < 2 or pairs == [] for entities, pairs in columns):  # all pairs are None, also those of one entity
        raise NothingToLearnError("candidate pairs", len(dataset))
    shown = {fact[2] for facts in column_of(dataset, "facts") for fact in facts}
    if not shown and needs_facts:
        raise NothingToLearnError("facts", len(dataset))
    unseen = [label for index, label in id2label.items() if index and index not in shown]
    if unseen and needs_facts:
        some = ", ".join(unseen[:5]) + (", ..." if len(unseen) > 5 else "")
        logger.warning(
            "%d of %d relations have no fact in the training documents: %s", len(unseen), len(id2label) - 1, some
        )
