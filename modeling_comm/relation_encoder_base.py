"""The relation encoder's interface (the stage IARA of the paper): what it receives, and the pooling that relation encoders share.

Eq. 1 of the paper: `T = IARA(REncoder, D, |R| + 1)`. A relation encoder takes the backbone's states and attention rows of
a batch of documents and gives one row of `R + 1` logits for each entity pair.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedConfig

from .grouped_bilinear import GroupedBilinear, is_plain_linear
from .number_types import at_least_float32
from .pair_products import can_project_in_parts, product_of_projections
from .settings import AtLeast, check_field
from .windows import EntityAttention, count_mentions, entity_places, slices

# Without gradients, what grows with the square of the number of entities is computed in parts: 90,000 pairs come from 300.
PAIRS_AT_ONCE = 2048
WEIGHTS_AT_ONCE = 2**24
# Cells of a batch's padded grids of entities from which it pays on a GPU to wait for the sizes of the documents.
LARGE_GRIDS = 2**14
# With gradients, as many products of attention are kept; more are computed again in the backward pass, which costs little.
WEIGHTS_KEPT = 2**20


@dataclass
class EncodedDocuments:
    """
    A batch of encoded documents, which a relation encoder asks for what it needs. B documents, C subword tokens of the longest, M
    mentions and E entities of the richest, d hidden size, P entity pairs of all documents together.

    The attention of a document has entities x attention heads x tokens numbers, and no relation encoder holds it: it is stored by
    window, and comes pooled.

    Args:
        token_states (`(B, C, d)` float): last hidden states, or the mean of the last layers'. Windows of a long document are
            merged.
        mention_states (`(B, M, d)` float): state at each mention's start marker; 0 for padding and for mentions cut off.
        mention_entities (`(B, M)` int64): entity of each mention; -1 for padding and for mentions cut off.
        entity_mask (`(B, E)` bool): which entities are real.
        pair_index (`(P, 3)` int64): document, head entity, tail entity of the pairs that logits are wanted for.
        attention ([`~windows.EntityAttention`]): attention from the entities' start markers, of the last layer or the mean of the
            last layers'.
        sentences (`(B, S, 2)` int64, *optional*): start and end of each of S sentences among the document's tokens; both 0 for
            none.
        pairs_at_once (`int`, *optional*): while training, what is computed for pairs is kept for this many of them at most, see
            [`by_pairs`].
    """

    token_states: torch.Tensor
    mention_states: torch.Tensor
    mention_entities: torch.Tensor
    entity_mask: torch.Tensor
    pair_index: torch.Tensor
    attention: EntityAttention
    sentences: torch.Tensor | None = None
    pairs_at_once: int | None = None

    def by_pairs(self, function: Callable[..., torch.Tensor], *tensors: torch.Tensor) -> torch.Tensor:
        """
        Applies a function to some pairs at a time, so that what it computes on the way is in memory for these alone: with
        gradients for `pairs_at_once` pairs, whose values are computed again for the backward pass, and without for 2,048.

        Args:
            function (`Callable`): from rows of `tensors` to one row for each, of which none depends on another.
            tensors (`(P, ...)`): what is known of each pair.

        Returns:
            `(P, ...)`, as `function(*tensors)` would be.
        """
        keeps = torch.is_grad_enabled()
        at_once = self.pairs_at_once if keeps else PAIRS_AT_ONCE
        if at_once is None or torch.compiler.is_exporting():
            return function(*tensors)
        parts = zip(*(tensor.split(max(at_once, 1)) for tensor in tensors), strict=True)
        results = [checkpoint(function, *part, use_reentrant=False) if keeps else function(*part) for part in parts]
        return results[0] if len(results) == 1 else torch.cat(results)

    def product_of_pairs(
        self,
        product: GroupedBilinear,
        head_projection: nn.Linear,
        tail_projection: nn.Linear,
        pairs: torch.Tensor,
        features: torch.Tensor,
        rows: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """
        `product(z_h, z_t)` of pairs, where z_h and z_t are what [`project_with_entity`] gives. Whether or not `pairs_at_once` is
        set, z_h and z_t of few pairs are in memory at a time, and computed again for the backward pass.

        Args:
            product (`GroupedBilinear`), head_projection, tail_projection (`nn.Linear`): the layers, or what stands in their
                place.
            pairs (`(P, 3)` int64): document, head entity, tail entity.
            features (`(Q, k)` float): what is known about pairs.
            rows (`(P,)` int64, *optional*): a pair's row of `features`; by default they are in the order of the pairs.

        Returns:
            `(P, out_features)`.
        """
        entities = self.entity_embeddings()
        projections = (head_projection, tail_projection)
        if can_project_in_parts(product, *projections):
            document, head, tail = pairs.unbind(-1)
            first = document * entities.shape[1]
            places = (first + head, first + tail)
            options = (features, rows, self.pairs_at_once)
            return product_of_projections(product, projections, entities.flatten(0, 1), places, *options)

        def multiply(pairs, feature):
            document, *ends = pairs.unbind(-1)
            feature = feature if rows is None else features[feature]
            sides = zip(projections, ends, strict=True)
            return product(*(project_with_entity(layer, entities, document, end, feature) for layer, end in sides))

        return self.by_pairs(multiply, pairs, features if rows is None else rows)

    def entity_embeddings(self) -> torch.Tensor:
        """
        Logsumexp over each entity's mentions (ATLOP, eq. 2). A span that is listed twice counts twice.

        Returns:
            `(B, E, d)`, float32 at least; zeros for an entity whose mentions were all cut off.
        """
        batch, entities = self.entity_mask.shape
        places, spare = entity_places(self.mention_entities, entities), batch * entities
        states = at_least_float32(self.mention_states).flatten(0, 1)
        index = places[:, None].expand_as(states)
        # The shift by the maximum cancels exactly, in value and in gradient, so it need not be differentiated.
        maximum = states.new_full((spare + 1, states.shape[-1]), -torch.inf)
        maximum = maximum.scatter_reduce(0, index, states.detach(), "amax")
        present = (count_mentions(self.mention_entities, entities, states.dtype) > 0)[:, None]
        maximum = torch.where(torch.isfinite(maximum), maximum, 0.0)
        total = torch.zeros_like(maximum).index_add(0, places, torch.exp(states - maximum[places]))[:spare]
        pooled = torch.log(torch.where(present, total, 1.0)) + maximum[:spare]  # log 1 + 0 without a mention
        return pooled.view(batch, entities, -1)

    def pair_contexts(self, pairs: torch.Tensor, head_reduction: str = "mean", epsilon: float = 1e-5) -> torch.Tensor:
        """
        Localized context of each pair (ATLOP, eq. 6-7): the attention of head and tail is multiplied, reduced over attention
        heads, renormalised, and used to average the token states.

        Args:
            pairs (`(P, 3)` int64): document, head entity, tail entity.
            head_reduction (`str`, defaults to `"mean"`): over attention heads, `"mean"` (ATLOP, DocuNet) or `"sum"` (KD-DocRE).
            epsilon (`float`, defaults to 1e-5): added to the sum that the product is divided by.

        Returns:
            `(P, d)`, float32 at least, the same for head and tail exchanged; zeros for a pair without common attention, such as
            entities of a long document that share no window.
        """
        with torch.autocast(self.token_states.device.type, enabled=False):  # see `at_least_float32`
            sums, totals = self._sum_by_attention(pairs, self._states_at)
            return self._mean(sums, totals, head_reduction, epsilon)

    def grid_contexts(self, sizes: list[int], head_reduction: str = "mean", epsilon: float = 1e-5) -> torch.Tensor:
        """
        Localized contexts of all pairs of each document's first entities, an entity with itself included.

        Args:
            sizes (`list[int]`): number of entities of each of the B documents.
            head_reduction, epsilon: as in [`pair_contexts`].

        Returns:
            `(Q, d)`, float32 at least, where Q is the sum of the squared sizes: by document, head and tail.
        """
        if self.attention.entities is not None:
            return self.pair_contexts(grid_cells(sizes, self.token_states.device), head_reduction, epsilon)
        # One document after the other: padding them to the largest grid would cost its square for each.
        contexts = []
        with torch.autocast(self.token_states.device.type, enabled=False):
            for document, size in enumerate(sizes):
                rows, states = (
                    self.attention.rows[document : document + 1, :size],
                    self.token_states[document : document + 1],
                )
                sums, totals = _sum_by_products(rows, states.to(rows.dtype), self.pairs_at_once)
                contexts.append(self._mean(sums, totals, head_reduction, epsilon).flatten(0, 2))
        return torch.cat(contexts)

    def sentence_scores(self, pairs: torch.Tensor, sentences: torch.Tensor | None = None) -> torch.Tensor:
        """
        Share of each sentence in what head and tail both attend to.

        Args:
            pairs (`(P, 3)` int64): document, head entity, tail entity.
            sentences (`(B, S, 2)` int64, *optional*): other sentences than the documents' own.

        Returns:
            `(P, S)`, float32 at least; a row sums to 1 at most, as special tokens have a share, too. It is 0 for a pair
            without common attention.
        """
        sentences = self.sentences if sentences is None else sentences
        if sentences is None:
            raise ValueError(
                "sentence_scores: the documents have no sentences; expected them in the batch or as an argument"
            )

        def membership(document, position):
            start, end = sentences[document][:, None].unbind(-1)
            return (position[:, :, None] >= start) & (position[:, :, None] < end)

        with torch.autocast(self.token_states.device.type, enabled=False):
            sums, totals = self._sum_by_attention(pairs, membership)
            return torch.where(totals > 0, sums / torch.where(totals > 0, totals, 1.0), 0.0)

    def _mean(self, sums, totals, head_reduction, epsilon):
        # Products are summed over attention heads: the mean's quotient is the sum's with an epsilon for each head.
        if head_reduction not in ("mean", "sum"):
            raise ValueError(f"`head_reduction` is {head_reduction!r}; expected 'mean' or 'sum'")
        heads = self.attention.rows.shape[2] if head_reduction == "mean" else 1
        # A division of the sums would have two more tensors of their size in its backward pass.
        return sums * (totals + epsilon * heads).reciprocal()

    def _states_at(self, document, position):
        if self.attention.entities is None:
            return self.token_states
        # Positions beyond the document have weight 0.
        return self.token_states[document[:, None], position.clamp(max=self.token_states.shape[1] - 1)]

    def _uneven_sizes(self):
        """The number of entities of each document, where more than half of the cells of padded grids would be padding."""
        batch, entities = self.entity_mask.shape
        cells = batch * entities**2
        is_small = cells < LARGE_GRIDS and self.entity_mask.device.type != "cpu"
        if batch == 1 or is_small or torch.compiler.is_compiling():
            return None
        sizes = self.entity_mask.sum(-1).tolist()
        return sizes if 2 * sum(size**2 for size in sizes) < cells else None

    def _sum_by_attention(self, pairs, values_at):
        """Sums over a document's tokens of `values_at(document (k,), position (k, T)) -> (k, T, v)`, weighted by the product of
        head's and tail's attention: `(P, v)`, and the sums of the weights, `(P, 1)`."""
        attention, (batch, entities) = self.attention, self.entity_mask.shape
        rows, positions = attention.rows, attention.positions()
        if attention.entities is None:
            document, head, tail = pairs.unbind(-1)
            values = values_at(attention.document, positions).to(rows.dtype)
            if sizes := self._uneven_sizes():
                # One document after the other: padding them to the largest grid would cost its square for each.
                parts = zip(rows.unbind(), values.unbind(), sizes, strict=True)
                found = [
                    _sum_by_products(one[None, :size], value[None], self.pairs_at_once) for one, value, size in parts
                ]
                sums, totals = (
                    torch.cat([grid.flatten(0, 2) for grid in grids]) for grids in zip(*found, strict=True)
                )
                size = torch.tensor(sizes, device=pairs.device)
                place = (size.square().cumsum(0) - size.square())[document] + head * size[document] + tail
                return sums[place], totals[place]
            sums, totals = _sum_by_products(rows, values, self.pairs_at_once)
            return sums[document, head, tail], totals[document, head, tail]
        # Where each cell of a window's grid of entities is wanted; the spare place takes cells of which no pair was given.
        cell = (pairs[:, 0] * entities + pairs[:, 1]) * entities + pairs[:, 2]
        none = pairs.shape[0]
        places = torch.full((batch * entities * entities,), none, device=pairs.device)
        places[cell] = torch.arange(none, device=pairs.device)
        sums = totals = None
        windows, n, _, tokens = rows.shape
        for part in slices(windows, WEIGHTS_AT_ONCE, n * n * tokens):
            document, seen = attention.document[part], attention.entities[part]
            values = values_at(document, positions[part]).to(rows.dtype)
            found = _sum_by_products(rows[part], values, self.pairs_at_once)
            if sums is None:
                sums, totals = (numbers.new_zeros(none + 1, numbers.shape[-1]) for numbers in found)
            cells = (document[:, None, None] * entities + seen[:, :, None]) * entities + seen[:, None, :]
            real = (seen >= 0)[:, :, None] & (seen >= 0)[:, None, :]
            place = torch.where(real, places[torch.where(real, cells, 0)], none).flatten()
            for total, numbers in zip((sums, totals), found, strict=True):
                _add_at(total, place, numbers.flatten(0, 2))
        place = places[cell]  # a pair that is given twice has one place
        return sums[place], totals[place]


def _add_at(total, place, numbers):
    """Adds rows to those at `place`."""
    if torch.is_grad_enabled():  # `index_add_` would keep the numbers for the backward pass
        total.index_put_((place,), numbers, accumulate=True)
    else:
        total.index_add_(0, place, numbers)


def _sum_by_products(rows, values, pairs_at_once=None):
    """Sums `(k, n, n, v)` of values `(k, T, v)`, weighted by the products of all pairs of rows `(k, n, A, T)`, summed over
    attention heads; and the sums of the weights, `(k, n, n, 1)`. Two matrix products: no tensor of pairs x attention heads x
    tokens is ever built."""
    windows, n, _, tokens = rows.shape
    keeps = torch.is_grad_enabled()
    parts = slices(n, WEIGHTS_KEPT if keeps else WEIGHTS_AT_ONCE, windows * n * tokens)
    if keeps and pairs_at_once is not None:
        parts = max(parts, slices(n, pairs_at_once, windows * n), key=len)

    def multiply(part):
        product = torch.einsum("knat,kmat->knmt", part, rows)
        return torch.bmm(product.flatten(1, 2), values).unflatten(1, product.shape[1:3]), product.sum(-1, keepdim=True)

    again = keeps and len(parts) > 1
    selected = (rows[:, part] for part in parts)
    found = [checkpoint(multiply, part, use_reentrant=False) if again else multiply(part) for part in selected]
    return found[0] if len(found) == 1 else tuple(torch.cat(results, 1) for results in zip(*found, strict=True))


def grid_cells(sizes: list[int], device: torch.device | str | None) -> torch.Tensor:
    """Pairs `(Q, 3)` int64 (document, head, tail) of all cells of grids of these sizes."""
    cells = [
        torch.cartesian_prod(torch.tensor([document]), torch.arange(size), torch.arange(size))
        for document, size in enumerate(sizes)
    ]
    return torch.cat(cells).to(device)


class RelationEncoderError(ValueError):
    """
    A class of a relation encoder that lacks what every one needs.

    Args:
        encoder (`type`): The class.
        missing (`str`): What it lacks: `"forward(documents)"` or `"super().__init__(config)"`.
        where (`str`, *optional*, defaults to `""`): Where it should have it.
    """

    def __init__(self, encoder: type, missing: str, where: str = ""):
        super().__init__(f"{encoder.__module__}.{encoder.__qualname__} lacks {missing}{where and f' {where}'}")
        self.encoder, self.missing, self.where = encoder, missing, where

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.encoder, self.missing, self.where)


def is_initialized(module: nn.Module) -> bool:
    """Returns whether a module's class has called the `__init__` of torch's."""
    return "_modules" in vars(module)


class RelationEncoder(nn.Module):
    """Base class of relation encoders. A subclass is registered under a name with
    [`~modeling_comm.relation_encoder_registry.register_relation_encoder`], takes the [`CommConfig`] and defines `forward`.

    Attributes:
        self_pairs_in_loss (`bool`): the loss also averages over every entity paired with itself, with logits of 0 and without a
            relation. KD-DocRE's code does so; it adds a constant and makes all gradients smaller.
        depends_on_batch (`bool`): of the class. In training, a document's logits depend on the others of its batch, as with batch
            normalisation: a run then resumes with the same number of documents at once only.
    """

    self_pairs_in_loss = False
    depends_on_batch = False

    class Settings:
        """Settings that an encoder reads from the configuration. Each attribute is a field of [`CommConfig`] where the encoder is
        chosen, and a flag; see [`~modeling_comm.settings`]. A subclass adds attributes of its own."""

        emb_size: Annotated[
            int,
            AtLeast(1),
            "Size of the head and of the tail representation that meet in the grouped bilinear layer, a multiple of block_size.",
        ] = 768
        block_size: Annotated[int, AtLeast(1), "Size of a group of the grouped bilinear layer."] = 64

        @classmethod
        def validate(cls, config: PreTrainedConfig) -> None:
            """Checks what concerns several fields of the configuration, the backbone's `config.text_config` among them.

            Raises:
                `ValueError`: A field does not fit.
            """
            fits = config.emb_size % config.block_size == 0
            check_field(config, "emb_size", fits, f"a multiple of block_size={config.block_size}")

    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        self.num_labels = config.num_labels
        self.hidden_size = config.text_config.hidden_size

    def __setattr__(self, name: str, value: Any) -> None:
        try:
            super().__setattr__(name, value)
        except AttributeError as error:
            if is_initialized(self):
                raise
            # A layer before `super().__init__(config)`: torch says so in words of its own, of a class that the user does not see.
            raise RelationEncoderError(type(self), "super().__init__(config)", f"before it sets {name}") from error

    def forward(self, documents: EncodedDocuments) -> torch.Tensor:
        """Gives `(P, R + 1)` logits in the order of `documents.pair_index`, the threshold class in column 0."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward(documents)")

    def no_logits(self, documents: EncodedDocuments) -> torch.Tensor:
        """Logits `(0, R + 1)` of a batch without pairs. Every parameter gets a gradient of 0 from it, as DDP needs where one
        process has no pairs and the others do."""
        nothing = sum((parameter.sum() for parameter in self.parameters()), documents.token_states.sum()) * 0.0
        return nothing.expand(0, self.num_labels)


def parameter_dtype(module: nn.Module, default: torch.dtype) -> torch.dtype:
    """Dtype of the first floating-point parameter of `module`. Of a quantized layer it is the bias's; without one, `default`."""
    return next((one.dtype for one in module.parameters() if one.is_floating_point()), default)


def project_with_entity(
    projection: nn.Linear, entities: torch.Tensor, document: torch.Tensor, entity: torch.Tensor, pair: torch.Tensor
) -> torch.Tensor:
    """`tanh(W [e; f] + b)`, the representation of a pair's head or tail (ATLOP, eq. 8-9).

    Args:
        projection (`nn.Linear`): W and b.
        entities (`(B, E, d)` float): entity embeddings e.
        document, entity (`(P,)` int64): which of them is wanted for each pair.
        pair (`(P, k)` float): what is known about the pair, f.

    Returns:
        `(P, emb_size)`.
    """
    # What was put in its place, an adapter or a quantized layer for example, alone knows what it computes.
    if not is_plain_linear(projection):
        dtype = parameter_dtype(projection, pair.dtype)
        return torch.tanh(projection(torch.cat([entities[document, entity], pair], dim=-1).to(dtype)))
    # W [e; f] = W_e e + W_f f: the entity's half is computed once an entity, not once a pair.
    weight = projection.weight
    entity_weight, pair_weight = weight.split([entities.shape[-1], pair.shape[-1]], dim=1)
    projected = nn.functional.linear(entities.to(weight.dtype), entity_weight)[document, entity]
    return torch.tanh(projected + nn.functional.linear(pair.to(weight.dtype), pair_weight, projection.bias))
