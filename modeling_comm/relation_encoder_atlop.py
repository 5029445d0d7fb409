"""ATLOP's relation encoder: localized context pooling and a grouped bilinear classifier (Zhou et al., AAAI 2021)."""

import torch
from torch import nn
from transformers import PreTrainedConfig

from .grouped_bilinear import GroupedBilinear
from .relation_encoder_base import EncodedDocuments, RelationEncoder
from .relation_encoder_registry import register_relation_encoder


@register_relation_encoder("atlop", reference="Zhou et al. 2021")
class AtlopRelationEncoder(RelationEncoder):
    """ATLOP: `z_h = tanh(W_h [e_h; c])`, `z_t = tanh(W_t [e_t; c])`, logits = grouped bilinear of `z_h` and `z_t`.

    Per document with E entities, P pairs, C subword tokens, A attention heads and hidden size d: `E^2 C (A + d)`
    multiply-adds for the contexts, `P d emb_size * 2` for the projections, `P emb_size block_size (R + 1)` for the
    classifier, which dominates.
    """

    def __init__(self, config: PreTrainedConfig):
        super().__init__(config)
        self.head_projection = nn.Linear(2 * self.hidden_size, config.emb_size)
        self.tail_projection = nn.Linear(2 * self.hidden_size, config.emb_size)
        self.classifier = GroupedBilinear(config.emb_size, config.block_size, self.num_labels)

    def forward(self, documents: EncodedDocuments) -> torch.Tensor:
        pairs = documents.pair_index
        layers = (self.classifier, self.head_projection, self.tail_projection)
        return documents.product_of_pairs(*layers, pairs, documents.pair_contexts(pairs))
