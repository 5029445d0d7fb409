"""ATLOP's relation encoder: localized context pooling and a grouped bilinear classifier (Zhou et al., AAAI 2021)."""

import torch
from torch import nn

from .grouped_bilinear import GroupedBilinear
from .relation_encoder_base import (
    EncodedDocuments,
    RelationEncoder,
    pool_entity_attention,
    pool_entity_embeddings,
    pool_pair_context,
    project_with_entity,
)

CONTEXT_EPSILON = 1e-5


class AtlopRelationEncoder(RelationEncoder):
    """ATLOP: `z_h = tanh(W_h [e_h; c])`, `z_t = tanh(W_t [e_t; c])`, logits = grouped bilinear of `z_h` and `z_t`.

    Per document with E entities, P pairs, C word pieces, A attention heads and hidden size d: `E^2 C (A + d)`
    multiply-adds for the contexts, `P d emb_size * 2` for the projections, `P emb_size block_size (R + 1)` for the
    classifier, which dominates; its outer products, `P emb_size block_size` numbers, are the largest tensor.
    """

    def __init__(self, config):
        super().__init__(config)
        self.head_projection = nn.Linear(2 * self.hidden_size, config.emb_size)
        self.tail_projection = nn.Linear(2 * self.hidden_size, config.emb_size)
        self.classifier = GroupedBilinear(config.emb_size, config.block_size, self.num_labels)

    def forward(self, documents: EncodedDocuments) -> torch.Tensor:
        entities = pool_entity_embeddings(documents)
        context = pool_pair_context(
            pool_entity_attention(documents), documents.token_states, heads="mean", epsilon=CONTEXT_EPSILON
        )
        document, head, tail = documents.pair_index.unbind(-1)
        context = context[document, head, tail]
        return self.classifier(
            project_with_entity(self.head_projection, entities, document, head, context),
            project_with_entity(self.tail_projection, entities, document, tail, context),
        )
