"""Running out of memory: with which document, and which setting helps."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch

from .documents import DocumentError

_SHOWN = 3
# Of the memory of the machine, and of Apple's MPS, torch has no class of errors: they are told apart by these words.
_WITHOUT_CLASS = ("DefaultCPUAllocator", "MPS backend out of memory")


class DocumentMemoryError(DocumentError):
    """Memory does not hold what is computed for a document, or for some documents together: the attributes are of the largest."""


class DocumentSize(NamedTuple):
    """What memory grows with. `index` is the document's position, or its title, where it is known by that alone."""

    index: int | str  # type: ignore[assignment]  # a tuple's method of this name is not needed
    title: str | None
    tokens: int
    mentions: int
    entities: int

    def __str__(self) -> str:
        name = repr(self.index if self.title is None else self.title)
        return f"{name} ({self.tokens:,} subword tokens, {self.mentions:,} mentions, {self.entities:,} entities)"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was no memory left, of the machine or of a GPU."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _WITHOUT_CLASS)


@contextmanager
def naming_documents(sizes: Callable[[], Sequence[DocumentSize]], expected: str) -> Iterator[None]:
    """
    Turns an error about memory into a [`DocumentMemoryError`].

    Args:
        sizes (`Callable`): gives the documents that are in work; it is called only then.
        expected (`str`): what would need less memory.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error) or not (found := sizes()):
            raise
        by_size = sorted(found, key=lambda size: -(size.entities**2 + size.tokens))
        largest, more = by_size[0], len(by_size) - _SHOWN
        listed = ", ".join(map(str, by_size[:_SHOWN])) + (f" and {more:,} smaller ones" if more > 0 else "")
        memory = f"out of memory with {listed}"
        index = None if isinstance(largest.index, str) else largest.index
        raise DocumentMemoryError(None, index, largest.title, None, memory, expected) from error


def sizes_of_batch(batch: dict, indices: Sequence[int | str], titles: Sequence[str | None]) -> list[DocumentSize]:
    """Sizes of a batch's documents, from the model's inputs."""
    tokens, entities = (batch[name].sum(1).tolist() for name in ("document_mask", "entity_mask"))
    mentions = (batch["mention_positions"] >= 0).sum(1).tolist()
    return [DocumentSize(*one) for one in zip(indices, titles, tokens, mentions, entities, strict=True)]
