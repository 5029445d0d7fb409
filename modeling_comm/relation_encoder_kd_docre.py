"""KD-DocRE's relation encoder: pair features that attend to each other along rows and columns (Tan et al., ACL Findings 2022)."""

from typing import Annotated

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedConfig

from .grouped_bilinear import GroupedBilinear
from .pair_grids import FIXED_GRID, PairGrids, count_entities
from .relation_encoder_base import (
    EncodedDocuments,
    RelationEncoder,
)
from .relation_encoder_registry import register_relation_encoder
from .settings import AtLeast, check_field

CONTEXT_EPSILON = 1e-10  # the original's; ATLOP and DocuNet take 1e-5


@register_relation_encoder("kd_docre", reference="Tan et al. 2022")
class KdDocreRelationEncoder(RelationEncoder):
    """
    KD-DocRE: head and tail representations as ATLOP's, with attention summed over heads; their grouped bilinear product, of
    hidden size, is the feature of a cell of the document's grid (the diagonal, an entity with itself, included); axial attention
    layers let a cell see its row and its column; logits are linear in the sum of their output and the feature.

    A grid has the document's own size, so that attention needs no mask. With `config.fixed_grid` it is the original's instead: it
    always has that size, cells beyond the document's entities hold what zero vectors give, nothing masks them, and the loss
    counts every entity paired with itself (`self_pairs_in_loss`).

    Per document with n entities, C subword tokens, A attention heads and hidden size d: `n^2 C (A + d)` multiply-adds for the
    contexts, `2 n^2 d emb_size` for the projections, `n^2 emb_size block_size d` for the features, and per layer `9 n^2 d^2` for
    its linear maps and `4 n^3 d` for attention. The largest tensors, in float32: `4 n^2 (C + d)` bytes of context weights and
    contexts, and, per layer, about `55 n^2 d` that training keeps for the backward pass; the fused kernels of
    `scaled_dot_product_attention` keep nothing that grows with n^3. A fixed grid puts `fixed_grid` for n in what is said per
    layer.
    """

    class Settings(RelationEncoder.Settings):
        axial_layers: Annotated[int, AtLeast(0), "Number of axial attention layers."] = 6
        axial_heads: Annotated[
            int, AtLeast(1), "Attention heads of each axial layer, a divisor of the backbone's hidden size."
        ] = 8
        fixed_grid: FIXED_GRID = None

        @classmethod
        def validate(cls, config: PreTrainedConfig) -> None:
            super().validate(config)
            hidden = config.text_config.hidden_size
            fits = hidden % config.axial_heads == 0
            check_field(config, "axial_heads", fits, f"a divisor of the backbone's hidden size {hidden}")

    def __init__(self, config: PreTrainedConfig):
        super().__init__(config)
        self.fixed_grid = config.fixed_grid
        self.self_pairs_in_loss = config.fixed_grid is not None
        self.head_projection = nn.Linear(2 * self.hidden_size, config.emb_size)
        self.tail_projection = nn.Linear(2 * self.hidden_size, config.emb_size)
        self.pair_feature = GroupedBilinear(config.emb_size, config.block_size, self.hidden_size, bias=False)
        self.layers = nn.ModuleList(
            AxialLayer(self.hidden_size, config.axial_heads) for _ in range(config.axial_layers)
        )
        self.classifier = nn.Linear(self.hidden_size, self.num_labels)

    def forward(self, documents: EncodedDocuments) -> torch.Tensor:
        if not len(documents.pair_index):
            return self.no_logits(documents)
        grids = PairGrids(count_entities(documents, self.fixed_grid))
        feature = self._features(documents, grids)
        if self.fixed_grid is not None:
            grids, feature = self._fill_fixed_grid(grids, feature)
        cells = feature
        for layer in self.layers:
            cells = layer(cells, grids)
        rows = grids.rows(*documents.pair_index.unbind(-1))
        return self.classifier((cells + feature)[rows])

    def _features(self, documents, grids):
        context = documents.grid_contexts(grids.sizes, head_reduction="sum", epsilon=CONTEXT_EPSILON)
        layers = (self.pair_feature, self.head_projection, self.tail_projection)
        return documents.product_of_pairs(*layers, grids.cells(context.device), context)

    def _fill_fixed_grid(self, grids, feature):
        """Grids of the fixed size around the features of the documents' own cells."""
        fixed = PairGrids([self.fixed_grid] * len(grids.sizes))
        nothing = feature.new_zeros(1, 2 * self.hidden_size)
        filling = self.pair_feature(self.head_projection(nothing).tanh(), self.tail_projection(nothing).tanh())
        cells = filling.expand(len(grids.sizes) * self.fixed_grid**2, -1)
        return fixed, cells.index_copy(0, fixed.rows(*grids.cells(feature.device).unbind(-1)), feature)


class AxialLayer(nn.Module):
    """`norm(linear(x + column_attention(x) + row_attention(x)))`."""

    def __init__(self, hidden_size: int, heads: int):
        super().__init__()
        self.column_attention = AxialAttention(hidden_size, heads)
        self.row_attention = AxialAttention(hidden_size, heads)
        self.linear = nn.Linear(hidden_size, hidden_size)
        self.norm = nn.LayerNorm(hidden_size)

    def forward(self, cells: torch.Tensor, grids: PairGrids) -> torch.Tensor:
        # A column holds the pairs of one tail with all heads, a row those of one head with all tails.
        cells = cells + self.column_attention(cells, grids, axis=1) + self.row_attention(cells, grids, axis=2)
        return self.norm(self.linear(cells))


class AxialAttention(nn.Module):
    """Multi-head self-attention within each line of cells along one axis of every grid, unmasked."""

    def __init__(self, hidden_size: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(hidden_size, hidden_size, bias=False)
        self.key_value = nn.Linear(hidden_size, 2 * hidden_size, bias=False)
        self.output = nn.Linear(hidden_size, hidden_size)

    def forward(self, cells: torch.Tensor, grids: PairGrids, axis: int) -> torch.Tensor:
        """Takes and gives cells `(Q, d)`."""
        tensors = torch.cat([self.query(cells), self.key_value(cells)], dim=-1)
        attended = []
        for grid in grids.split(tensors):
            # (documents, size, size, 3 d) -> three times (lines, heads, cells of the line, d / heads)
            lines = grid.movedim(axis, 2)
            query, key, value = lines.flatten(0, 1).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            output = functional.scaled_dot_product_attention(query, key, value)
            attended.append(output.transpose(1, 2).reshape((*lines.shape[:-1], -1)).movedim(2, axis))
        return self.output(grids.join(attended))
