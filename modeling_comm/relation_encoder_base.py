"""The IARA stage's interface: what a relation encoder receives, and the pooling that relation encoders share.

Eq. 1 of the paper: `T = IARA(REncoder, D, |R| + 1)`. A relation encoder takes the backbone's states and attention rows of
a batch of documents and gives one row of `R + 1` logits for each entity pair.
"""

from dataclasses import dataclass

import torch
from torch import nn

from .grouped_bilinear import is_plain_linear

# Without gradients, what grows with the square of the number of entities is computed in parts: 90,000 pairs come from 300.
WEIGHTS_AT_ONCE = 2**26


@dataclass
class EncodedDocuments:
    """A batch of encoded documents. B documents, C word pieces of the longest, M mentions and E entities of the richest, d
    hidden size, A attention heads, P entity pairs of all documents together.

    Attributes:
        token_states (`(B, C, d)` float): last hidden states; windows of a long document are merged.
        mention_states (`(B, M, d)` float): state at each mention's start marker; 0 for padding and for mentions cut off.
        mention_attention (`(B, M, A, C)` float): last layer's attention from there; 0 likewise.
        mention_entities (`(B, M)` int64): entity of each mention; -1 for padding and for mentions cut off.
        entity_mask (`(B, E)` bool): which entities are real.
        pair_index (`(P, 3)` int64): document, head entity, tail entity.
    """

    token_states: torch.Tensor
    mention_states: torch.Tensor
    mention_attention: torch.Tensor
    mention_entities: torch.Tensor
    entity_mask: torch.Tensor
    pair_index: torch.Tensor


class RelationEncoder(nn.Module):
    """Base class of relation encoders. A subclass is registered under a name with
    [`~modeling_comm.relation_encoders.register_relation_encoder`], takes the [`CommConfig`] and defines `forward`.

    Attributes:
        self_pairs_in_loss (`bool`): the loss also averages over every entity paired with itself, with logits of 0 and without a
            relation. KD-DocRE's code does so; it adds a constant and makes all gradients smaller.
    """

    self_pairs_in_loss = False

    def __init__(self, config):
        super().__init__()
        self.num_labels = config.num_labels
        self.hidden_size = config.text_config.hidden_size

    @classmethod
    def validate_config(cls, config, check):
        """Raises `ValueError` where a field of `config` that this encoder reads does not fit. `check` knows ways to ask, such as
        `check.integer("unet_in_dim", 1)`."""

    def forward(self, documents: EncodedDocuments) -> torch.Tensor:
        """Gives `(P, R + 1)` logits in the order of `documents.pair_index`, the threshold class in column 0."""
        raise TypeError(f"{type(self).__name__} does not define forward(documents)")

    def no_logits(self, documents: EncodedDocuments) -> torch.Tensor:
        """Logits `(0, R + 1)` of a batch without pairs. Every parameter gets a gradient of 0 from it, as DDP needs where one
        process has no pairs and the others do."""
        nothing = sum((parameter.sum() for parameter in self.parameters()), documents.token_states.sum()) * 0.0
        return nothing.expand(0, self.num_labels)


def at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    """Half precision has too few digits, and float16 too small a range, for products of attention and for logsumexp."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _entity_rows(documents: EncodedDocuments) -> tuple[torch.Tensor, torch.Tensor, int]:
    """For each mention the flat row of its entity (one spare row at the end takes padding), and mentions per entity."""
    batch, entities = documents.entity_mask.shape
    spare = batch * entities
    first = torch.arange(batch, device=documents.entity_mask.device)[:, None] * entities
    rows = torch.where(documents.mention_entities >= 0, first + documents.mention_entities, spare).flatten()
    counts = torch.zeros(spare + 1, device=rows.device).index_add_(0, rows, torch.ones(rows.shape, device=rows.device))
    return rows, counts[:spare], spare


def pool_entity_embeddings(documents: EncodedDocuments) -> torch.Tensor:
    """Entity embeddings `(B, E, d)`, float32 at least: logsumexp over an entity's mentions (ATLOP, eq. 2); a span that is listed
    twice counts twice; an entity whose mentions were all cut off gets zeros."""
    rows, counts, spare = _entity_rows(documents)
    states = at_least_float32(documents.mention_states).flatten(0, 1)
    index = rows[:, None].expand_as(states)
    # The shift by the maximum cancels exactly, in value and in gradient, so it need not be differentiated.
    maximum = states.new_full((spare + 1, states.shape[-1]), -torch.inf)
    maximum = maximum.scatter_reduce(0, index, states.detach(), "amax")
    present = (counts > 0)[:, None]
    maximum = torch.where(torch.isfinite(maximum), maximum, 0.0)
    total = torch.zeros_like(maximum).index_add(0, rows, torch.exp(states - maximum[rows]))[:spare]
    pooled = torch.log(torch.where(present, total, 1.0)) + maximum[:spare]  # log 1 + 0 without a mention
    return pooled.view(*documents.entity_mask.shape, -1)


def pool_entity_attention(documents: EncodedDocuments) -> torch.Tensor:
    """Entity attention `(B, E, A, C)`, float32 at least: mean over the mentions' attention rows; zeros without a mention."""
    rows, counts, spare = _entity_rows(documents)
    attention = at_least_float32(documents.mention_attention).flatten(0, 1)
    total = attention.new_zeros(spare + 1, *attention.shape[1:]).index_add(0, rows, attention)[:spare]
    mean = total / counts.clamp(min=1.0)[:, None, None]
    return mean.view(*documents.entity_mask.shape, *mean.shape[1:])


def pool_pair_attention(entity_attention: torch.Tensor, pair_index: torch.Tensor) -> torch.Tensor:
    """
    What the localized context of each pair is averaged with (ATLOP, eq. 6-7), for a few pairs: the product of head's and tail's
    attention, averaged over attention heads.

    Args:
        entity_attention (`(B, E, A, C)` float): from [`pool_entity_attention`].
        pair_index (`(P, 3)` int64): document, head entity, tail entity.

    Returns:
        `(P, C)`, float32 at least; each row sums to 1, or is 0 where the two have no common context.
    """
    document, head, tail = pair_index.unbind(-1)
    attention = at_least_float32(entity_attention)
    # A few pairs at a time: they take P x A x C numbers.
    products = [
        torch.einsum("pac,pac->pc", attention[d, h], attention[d, t])
        for d, h, t in zip(document.split(256), head.split(256), tail.split(256), strict=True)
    ]
    product = torch.cat(products)
    total = product.sum(-1, keepdim=True)
    return torch.where(total > 0, product / torch.where(total > 0, total, 1.0), 0.0)


def pool_pair_context(
    entity_attention: torch.Tensor, token_states: torch.Tensor, heads: str, epsilon: float
) -> torch.Tensor:
    """Localized context of every pair of entities, on the grid (ATLOP, eq. 6-7).

    The attention of head and tail is multiplied, reduced over attention heads, renormalised, and used to average the
    token states. Two matrix products a document: no tensor of pairs x attention heads x word pieces is ever built.
    Pairs without common attention (a long document's entities that share no window) get a zero vector. Where no gradient is
    wanted, at most about `WEIGHTS_AT_ONCE` weights of pairs x word pieces are in memory.

    Args:
        entity_attention (`(B, E, A, C)` float): from [`pool_entity_attention`].
        token_states (`(B, C, d)` float): last hidden states.
        heads (`str`): `"mean"` (ATLOP, DocuNet) or `"sum"` (KD-DocRE) over attention heads.
        epsilon (`float`): added to the sum that the product is divided by: 1e-5 in ATLOP, 1e-10 in KD-DocRE.

    Returns:
        `(B, E, E, d)`, float32 at least, symmetric in the two entities.
    """
    batch, entities, attention_heads, tokens = entity_attention.shape
    rows = max(entities, 1)
    if not torch.is_grad_enabled():
        rows = max(1, WEIGHTS_AT_ONCE // max(batch * entities * tokens, 1))
    contexts = []
    with torch.autocast(entity_attention.device.type, enabled=False):  # see `at_least_float32`
        for some in entity_attention.split(rows, dim=1):
            product = torch.einsum("beac,bfac->befc", some, entity_attention)
            if heads == "mean":
                product = product / attention_heads
            weights = product / (product.sum(-1, keepdim=True) + epsilon)
            states = token_states.to(weights.dtype)
            context = torch.bmm(weights.flatten(1, 2), states)
            contexts.append(context.unflatten(1, (some.shape[1], entities)))
    return contexts[0] if len(contexts) == 1 else torch.cat(contexts, dim=1)


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
        dtype = next((parameter.dtype for parameter in projection.parameters()), pair.dtype)
        return torch.tanh(projection(torch.cat([entities[document, entity], pair], dim=-1).to(dtype)))
    # W [e; f] = W_e e + W_f f: the entity's half is computed once an entity, not once a pair.
    weight = projection.weight
    entity_weight, pair_weight = weight.split([entities.shape[-1], pair.shape[-1]], dim=1)
    projected = nn.functional.linear(entities.to(weight.dtype), entity_weight)[document, entity]
    return torch.tanh(projected + nn.functional.linear(pair.to(weight.dtype), pair_weight, projection.bias))
