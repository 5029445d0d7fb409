"""DocuNet's relation encoder: the grid of entity pairs, read as an image by a U-Net (Zhang et al., IJCAI 2021)."""

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
    parameter_dtype,
)
from .relation_encoder_registry import register_relation_encoder
from .settings import AtLeast, MultipleOf


@register_relation_encoder("docunet", reference="Zhang et al. 2021")
class DocunetRelationEncoder(RelationEncoder):
    """
    DocuNet, context-based: the pair contexts, projected to `unet_in_dim` channels, go through a U-Net, which gives each cell of a
    document's grid a feature f. `z_h = tanh(W_h [e_h; f])`, `z_t = tanh(W_t [e_t; f])`, logits = grouped bilinear of both.

    A document's grid has a cell for each pair of its own entities and, on the diagonal, for each entity with itself; beyond its
    border there are zeros. With `config.fixed_grid` it is the original's instead: it always has that size, and the cells beyond
    the document's entities repeat the last entity's attention, so that they shape the results.

    Per document with n entities, C subword tokens, A attention heads, hidden size d and U-Net width w (`unet_down_dim`):
    `n^2 C (A + d)` multiply-adds for the contexts, about `50 n^2 w^2` for the U-Net, `2 n^2 emb_size unet_out_dim` for the
    projections and `n^2 emb_size block_size (R + 1)` for the classifier. The largest tensors, in float32: `4 n^2 (C + d)` bytes
    of context weights and contexts, and `8 n^2 w` of the U-Net's widest map (training keeps about `60 n^2 w` for the backward
    pass). A fixed grid puts `fixed_grid` for n in contexts and U-Net.
    """

    depends_on_batch = True

    class Settings(RelationEncoder.Settings):
        unet_in_dim: Annotated[int, AtLeast(1), "Channels that the U-Net reads pair contexts in."] = 3
        unet_down_dim: Annotated[int, AtLeast(1), MultipleOf(2), "Width of the U-Net at full resolution."] = 256
        unet_out_dim: Annotated[int, AtLeast(1), "Size of the pair feature that comes out of the U-Net."] = 256
        fixed_grid: FIXED_GRID = None

    def __init__(self, config: PreTrainedConfig):
        super().__init__(config)
        self.fixed_grid = config.fixed_grid
        self.channel_projection = nn.Linear(self.hidden_size, config.unet_in_dim)
        self.unet = UNet(config.unet_in_dim, config.unet_down_dim, config.unet_out_dim)
        pair_size = self.hidden_size + config.unet_out_dim
        self.head_projection = nn.Linear(pair_size, config.emb_size)
        self.tail_projection = nn.Linear(pair_size, config.emb_size)
        self.classifier = GroupedBilinear(config.emb_size, config.block_size, self.num_labels)

    def forward(self, documents: EncodedDocuments) -> torch.Tensor:
        if not len(documents.pair_index):
            return self.no_logits(documents)
        counts = count_entities(documents, self.fixed_grid)
        grids = PairGrids(counts)
        context = documents.grid_contexts(counts)
        if self.fixed_grid is not None:
            grids, context = _repeat_last_entity(grids, context, self.fixed_grid)
        channels = self.channel_projection(context.to(parameter_dtype(self.channel_projection, context.dtype)))
        features = grids.join(self.unet(grids.split(channels)))
        pairs = documents.pair_index
        layers = (self.classifier, self.head_projection, self.tail_projection)
        return documents.product_of_pairs(*layers, pairs, features, grids.rows(*pairs.unbind(-1)))


def _repeat_last_entity(grids, context, size):
    """Grids of the fixed size, whose cells beyond a document's entities hold its last entity's contexts."""
    fixed = PairGrids([size] * len(grids.sizes))
    document, head, tail = fixed.cells(context.device).unbind(-1)
    last = torch.tensor(grids.sizes, device=context.device)[document] - 1
    row = grids.rows(document, head.minimum(last), tail.minimum(last))
    # Documents without entities have zeros.
    context = torch.cat([context, context.new_zeros(1, context.shape[-1])])
    return fixed, context[torch.where(last >= 0, row, len(context) - 1)]


class GridNorm(nn.BatchNorm1d):
    """Batch normalisation over the cells of all grids together, of which none is padding."""

    def forward(self, grids: list[torch.Tensor]) -> list[torch.Tensor]:
        """Takes and gives grids `(documents, channels, size, size)`."""
        # Cells are the last dimension: where channels do, torch sums them in float32 on CPU, at the cost of two digits.
        cells = torch.cat([grid.movedim(1, 0).flatten(1) for grid in grids], dim=1)[None]
        if self.training and cells.shape[-1] == 1:  # a single cell has no variance
            cells = functional.batch_norm(
                cells, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        else:
            cells = super().forward(cells)
        shapes = [(len(grid), *grid.shape[2:]) for grid in grids]
        parts = cells[0].split([documents * height * width for documents, height, width in shapes], dim=1)
        return [part.unflatten(1, shape).movedim(0, 1) for part, shape in zip(parts, shapes, strict=True)]


class ConvolutionBlock(nn.Module):
    """Twice: 3 x 3 convolution, normalisation, ReLU."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.convolution_1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm_1 = GridNorm(out_channels)
        self.convolution_2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.norm_2 = GridNorm(out_channels)

    def forward(self, grids: list[torch.Tensor]) -> list[torch.Tensor]:
        for convolution, norm in ((self.convolution_1, self.norm_1), (self.convolution_2, self.norm_2)):
            grids = [torch.relu(grid) for grid in norm([convolution(grid) for grid in grids])]
        return grids


class UNet(nn.Module):
    """
    DocuNet's U-Net: two levels down, two up, each with a [`ConvolutionBlock`]; the way up also sees the level's map from the way
    down. Halving leaves out an odd grid's last row and column; a grid of one cell stays as it is.

    Args:
        in_channels (`int`): of the input.
        width (`int`): channels at full resolution; twice as many below.
        out_channels (`int`): of the output.
    """

    def __init__(self, in_channels: int, width: int, out_channels: int):
        super().__init__()
        self.entrance = ConvolutionBlock(in_channels, width)
        self.down_1 = ConvolutionBlock(width, 2 * width)
        self.down_2 = ConvolutionBlock(2 * width, 2 * width)
        self.up_1 = ConvolutionBlock(4 * width, width)
        self.up_2 = ConvolutionBlock(2 * width, width // 2)
        self.exit = nn.Conv2d(width // 2, out_channels, 1)

    def forward(self, grids: list[torch.Tensor]) -> list[torch.Tensor]:
        """Takes grids `(documents, size, size, in_channels)`, one tensor for each size, and gives the same with
        `out_channels`."""
        whole = self.entrance([grid.movedim(-1, 1) for grid in grids])
        half = self.down_1(_halve(whole))
        quarter = self.down_2(_halve(half))
        half = self.up_1(_enlarge_and_join(quarter, half))
        whole = self.up_2(_enlarge_and_join(half, whole))
        return [self.exit(grid).movedim(1, -1) for grid in whole]


def _halve(grids):
    return [functional.max_pool2d(grid, 2, ceil_mode=grid.shape[-1] == 1) for grid in grids]


def _enlarge_and_join(grids, skipped):
    joined = []
    for grid, skip in zip(grids, skipped, strict=True):
        enlarged = functional.interpolate(grid, scale_factor=2, mode="bilinear", align_corners=True)
        missing = skip.shape[-1] - enlarged.shape[-1]  # 1 where halving left a row out, -1 for a single cell
        joined.append(torch.cat([skip, functional.pad(enlarged, (0, missing, 0, missing))], dim=1))
    return joined
