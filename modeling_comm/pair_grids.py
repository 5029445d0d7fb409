"""Grids of entity pairs, for relation encoders that look at all pairs of a document together.

A document of n entities has a grid of n x n cells: head by row, tail by column, the diagonal included. A batch's grids
follow each other in one tensor, without padding: layers that work on single cells need no mask, the others run once for each
group of neighbouring documents of equal size, and memory follows the real number of pairs.
"""

import itertools
from typing import Annotated

import torch

from .relation_encoder_base import EncodedDocuments, grid_cells
from .settings import AtLeast

# The type of a setting that the encoders with grids share.
FIXED_GRID = Annotated[
    int | None,
    AtLeast(1),
    "Reproduces the original system's grid of entity pairs, which has this many rows whatever the document, unmasked padding and "
    "an upper limit of entities; for checkpoints converted from it. By default the grid is the document's own.",
]


def count_entities(documents: EncodedDocuments, fixed_grid: int | None = None) -> list[int]:
    """Entities of each document, which waits for the device once.

    Raises:
        ValueError: the model is being exported, whose layers would have the sizes of the example's grids forever; or a document
            has more entities than the original systems' fixed grid has rows.
    """
    if torch.compiler.is_exporting():
        raise ValueError(
            "the relation encoder works on a grid of each document's own size, which an exported program cannot; expected "
            "'atlop', or an encoder without grids"
        )
    counts = documents.entity_mask.sum(-1).tolist()
    for index, count in enumerate(counts):
        if fixed_grid is not None and count > fixed_grid:
            raise ValueError(
                f"document {index} of the batch has {count} entities; expected at most {fixed_grid}, the size of the grid that "
                "fixed_grid reproduces (with fixed_grid=None the grid grows with the document)"
            )
    return counts


class PairGrids:
    """The layout of the cells of a batch's grids.

    Args:
        sizes (`list[int]`): rows of each document's grid; 0 for a document without a grid.
    """

    def __init__(self, sizes: list[int]):
        self.sizes = sizes
        self._groups = [(size, len(list(same))) for size, same in itertools.groupby(sizes) if size]

    def split(self, cells: torch.Tensor) -> list[torch.Tensor]:
        """Cells `(Q, k)` of all documents as grids `(documents, size, size, k)`, one tensor per group of equal size."""
        lengths = [count * size * size for size, count in self._groups]
        shapes = [(count, size, size) for size, count in self._groups]
        return [part.unflatten(0, shape) for part, shape in zip(cells.split(lengths), shapes, strict=True)]

    @staticmethod
    def join(grids: list[torch.Tensor]) -> torch.Tensor:
        """The inverse of [`split`]."""
        return torch.cat([grid.flatten(0, 2) for grid in grids])

    def cells(self, device: torch.device | str | None) -> torch.Tensor:
        """Document, head and tail of every cell, `(Q, 3)` int64."""
        return grid_cells(self.sizes, device)

    def rows(self, document: torch.Tensor, head: torch.Tensor, tail: torch.Tensor) -> torch.Tensor:
        """Row in the tensor of cells of each pair `(P,)`."""
        first = itertools.accumulate((size * size for size in self.sizes[:-1]), initial=0)
        first, size = torch.tensor([list(first), self.sizes], device=document.device)
        return first[document] + head * size[document] + tail
