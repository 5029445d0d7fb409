"""Windows: how a long document is cut into pieces that fit the backbone, and how states and attention are merged again.

A document is a row of subword tokens. Each window shows a span `[start, end)` of them, and windows overlap. Start and end of the
spans rise from window to window, so that every token has a first window that shows it. That window *keeps* the token: what is
stored by window is stored for the tokens that it keeps, and every token is stored once.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from .number_types import at_least_float32

# ------------------------------------------------------------------------------------------- split, while encoding


def split_document(length: int, size: int, stride: int, end_tokens: int) -> list[tuple[int, int]]:
    """
    Spans `[start, end)` of the document that its windows show.

    Args:
        length (`int`): subword tokens of the document, its start and end token included.
        size (`int`): subword tokens of a window at most, special tokens included.
        stride (`int`): tokens that neighbouring windows share at least.
        end_tokens (`int`): end tokens that close every window but the last.
    """
    if length <= size:
        return [(0, length)]
    last = length - (size - 1)  # the last window adds a start token only
    spans = [(0, size - end_tokens)]
    while spans[-1][1] - stride < last:
        start = spans[-1][1] - stride
        spans.append((start, start + size - 1 - end_tokens))
    return [*spans, (last, length)]


def window_tokens(tokens: list[int], span: tuple[int, int], start_id: int, end_ids: list[int]) -> list[int]:
    """A window's input ids: its span, with the special tokens that the document does not put there itself."""
    start, end = span
    return [*([start_id] if start > 0 else []), *tokens[start:end], *(end_ids if end < len(tokens) else [])]


def window_row(document: int, span: tuple[int, int]) -> tuple[int, int, int, int]:
    """The window's row of the `windows` tensor; its columns are the fields of [`Windows`]."""
    start, end = span
    before = int(start > 0)
    return document, start - before, before, before + end - start


def mentions_in_windows(spans: list[tuple[int, int]], positions: list[int]) -> list[np.ndarray]:
    """For each window the mentions whose start marker it shows; a position of -1 is a mention that was cut off."""
    at = np.asarray(positions, dtype=np.int64)
    return [np.flatnonzero((at >= start) & (at < end)) for start, end in spans]


def entities_of_windows(
    spans: list[tuple[int, int]], mentions: list[np.ndarray], entities: list[int]
) -> list[np.ndarray]:
    """For each window the entities that attend to a token which it keeps: those with a mention in a window that shows one."""
    entities = np.asarray(entities, dtype=np.int64)
    starts = [start for start, _ in spans]
    result = []
    for window, (_, end) in enumerate(spans):
        # Earlier windows end before these tokens; a later one shows some of them if it starts before they end.
        seen = mentions[window : bisect_right(starts, end - 1)]
        result.append(np.unique(entities[np.concatenate(seen)]))
    return result


def count_pairs_without_context(
    spans: list[tuple[int, int]], positions: list[int], entities: list[int], pairs: np.ndarray
) -> int:
    """Those of the `pairs` `(p, 2)` of entities that attend to no common token, because their mentions lie too far apart."""
    if len(spans) == 1:
        return 0
    together = np.zeros((len(spans), max(entities, default=-1) + 1), dtype=np.int64)
    for window, seen in enumerate(entities_of_windows(spans, mentions_in_windows(spans, positions), entities)):
        # All windows that show some of these tokens show the last one: entities that are seen here have it in common.
        together[window, seen] = 1
    found, (head, tail) = together.any(0), pairs.T
    return int(np.count_nonzero(found[head] & found[tail] & ((together.T @ together)[head, tail] == 0)))


def sentence_spans(features: Sequence[Mapping[str, Any]]) -> torch.Tensor:
    """`(B, S, 2)` int64: start and end of every sentence among its document's subword tokens, from the features that encoding
    gave; both 0 for none."""
    most = max([1, *(len(feature["sentence_starts"]) for feature in features)])
    spans = torch.zeros(len(features), most, 2, dtype=torch.long)
    for index, feature in enumerate(features):
        # The last token is the end token. Sentences that were cut off lie behind it, and are empty.
        last = len(feature["input_ids"]) - 1
        edges = torch.tensor([*feature["sentence_starts"], last]).clamp(max=last)
        spans[index, : len(edges) - 1] = torch.stack([edges[:-1], edges[1:]], dim=1)
    return spans


# ----------------------------------------------------------------------------------------- merge, in the forward pass


class Windows(NamedTuple):
    """
    The `windows` tensor by names, each `(W,)` int64. Windows of a document follow each other.

    Args:
        document: the document that the window belongs to.
        offset: document position of the window's column 0.
        start, end: first, and one past the last, column that stand for a token of the document; the others hold special tokens
            that were put around the window, and padding.
    """

    document: torch.Tensor
    offset: torch.Tensor
    start: torch.Tensor
    end: torch.Tensor

    @classmethod
    def from_tensor(cls, windows: torch.Tensor) -> "Windows":
        return cls(*windows.unbind(-1))

    def shown(self, length: int) -> torch.Tensor:
        """`(W, L)` bool: columns that stand for a token of the document."""
        column = torch.arange(length, device=self.start.device)
        return (column >= self.start[:, None]) & (column < self.end[:, None])

    def positions(self, length: int) -> torch.Tensor:
        """`(W, L)` int64: document position of each column."""
        return self.offset[:, None] + torch.arange(length, device=self.start.device)

    def kept_from(self) -> torch.Tensor:
        """`(W,)` int64: document position of the first token that each window keeps, which is where the one before it ends."""
        # Without a tensor of one row less, whose size could not be free in what is exported.
        window = torch.arange(self.document.shape[0], device=self.document.device)
        before = (window - 1).clamp(min=0)
        same_document = (self.document[before] == self.document) & (window > 0)
        return torch.where(same_document, (self.offset + self.end)[before], 0)

    def keepers(self, length: int, document_length: int) -> torch.Tensor:
        """`(W, L)` int64: the window that keeps the token at each column. Columns of special tokens hold any window."""
        room = document_length + 1
        ends = self.document * room + self.offset + self.end  # rising
        wanted = self.document[:, None] * room + self.positions(length).clamp(min=0)
        if torch.compiler.is_exporting():  # ONNX has no such operator
            found = (ends[:, None, None] <= wanted).sum(0)
        else:
            found = torch.searchsorted(ends, wanted, right=True)
        return found.clamp(max=ends.shape[0] - 1)


@dataclass
class WindowMentions:
    """
    The mentions that each window shows, N at most.

    Args:
        columns (`(W, N)` int64): column of each mention's start marker; 0 where there is none.
        mentions (`(W, N)` int64): which of its document's mentions it is.
        entities (`(W, N)` int64): entity of each; 0 where there is none.
        shown (`(W, N)` bool): whether there is one.
    """

    columns: torch.Tensor
    mentions: torch.Tensor
    entities: torch.Tensor
    shown: torch.Tensor

    @classmethod
    def find(
        cls,
        windows: Windows,
        mention_positions: torch.Tensor,
        mention_entities: torch.Tensor,
        window_mentions: torch.Tensor | None = None,
    ) -> "WindowMentions":
        """Looks for the mentions `window_mentions` `(W, N)`, -1 for none; by default for all mentions of the document."""
        positions, entities = mention_positions[windows.document], mention_entities[windows.document]
        mentions = torch.arange(positions.shape[1], device=positions.device).expand_as(positions)
        shown = torch.ones_like(positions, dtype=torch.bool)
        if window_mentions is not None:
            shown, mentions = window_mentions >= 0, window_mentions.clamp(min=0)
            positions, entities = positions.gather(1, mentions), entities.gather(1, mentions)
        columns = positions - windows.offset[:, None]
        shown = shown & (positions >= 0) & (columns >= windows.start[:, None]) & (columns < windows.end[:, None])
        return cls(torch.where(shown, columns, 0), mentions, torch.where(shown, entities, 0), shown)


@dataclass
class EntityAttention:
    """
    Attention of entities to the tokens of their documents, by the K windows that keep the tokens: n entities and T tokens a
    window at most, A attention heads. With one window a document it is the whole document's, K = B, T = C and n = E.

    Args:
        rows (`(K, n, A, T)` float32 at least): mean of the entity's mentions' rows; 0 where there is no entity or no token.
        document (`(K,)` int64): document of each window.
        start (`(K,)` int64): document position of the first token that the window keeps.
        entities (`(K, n)` int64, *optional*): entity of each row, -1 for none; None if row e is entity e's.
    """

    rows: torch.Tensor
    document: torch.Tensor
    start: torch.Tensor
    entities: torch.Tensor | None = None

    def positions(self) -> torch.Tensor:
        """`(K, T)` int64: document position of each column, some of them beyond what the window keeps: the rows are 0 there."""
        return self.start[:, None] + torch.arange(self.rows.shape[-1], device=self.start.device)


def merge_states(states: torch.Tensor, windows: Windows, document_mask: torch.Tensor) -> torch.Tensor:
    """States `(W, L, d)` of windows as those of documents, `(B, C, d)`: averaged where windows overlap, 0 beyond the document."""
    batch, length = document_mask.shape
    if one_window_each(states.shape[0], batch):  # nothing to merge
        return torch.where(document_mask[:, :, None], states, 0.0)
    # Columns outside the document go to one spare row at the end.
    spare = batch * length
    place = windows.document[:, None] * length + windows.positions(states.shape[1])
    place = torch.where(windows.shown(states.shape[1]), place, spare).flatten()
    shown = at_least_float32(states.flatten(0, 1))  # in bfloat16 a count would stop at 256
    times = torch.zeros(spare + 1, device=states.device).index_add_(
        0, place, torch.ones_like(place, dtype=torch.float32)
    )
    merged = shown.new_zeros(spare + 1, states.shape[-1]).index_add_(0, place, shown)
    return (merged[:spare] / times[:spare, None].clamp(min=1)).to(states.dtype).view(batch, length, -1)


def merge_attention(
    rows: list[torch.Tensor],
    windows: Windows,
    mentions: WindowMentions,
    mention_entities: torch.Tensor,
    window_entities: torch.Tensor | None,
    document_mask: torch.Tensor,
    entity_mask: torch.Tensor,
) -> EntityAttention:
    """
    The mentions' attention rows as their entities': a mention's rows are summed over the windows that show it and renormalised,
    and an entity's is the mean over its mentions.

    Args:
        rows (`list` of `(w, N, A, L)` float): the rows of all W windows, some windows after the other. The list is emptied, so
            that memory holds the rows in one of their two forms.
        mention_entities (`(B, M)` int64): entity of each mention, -1 for padding and mentions cut off.
        window_entities (`(W, n)` int64, *optional*): entities that attend to tokens which the window keeps, -1 for none; by
            default all entities of the document.
    """
    batch, length = document_mask.shape
    entities = entity_mask.shape[1]
    counts = count_mentions(mention_entities, entities, at_least_float32(rows[0]).dtype)
    owner = windows.document[:, None] * entities + mentions.entities
    share = mentions.shown / counts[owner].clamp(min=1.0)  # of a mention in its entity's mean
    if one_window_each(windows.document.shape[0], batch):
        (attention,) = rows
        attention = at_least_float32(attention) * share[:, :, None, None]
        total = attention.new_zeros(batch * entities, *attention.shape[2:])
        total = total.index_add_(0, owner.flatten(), attention.flatten(0, 1)).unflatten(0, (batch, entities))
        return EntityAttention(total, windows.document, torch.zeros_like(windows.document))
    if window_entities is None:
        window_entities = torch.arange(entities, device=owner.device).expand(owner.shape[0], -1)
    windows_at_once = [part.shape[0] for part in rows]
    columns = rows[0].shape[-1]
    shown = windows.shown(columns)
    # A mention's sums over all windows that show it.
    size = mention_entities.shape[1]
    mention = (windows.document[:, None] * size + mentions.mentions).split(windows_at_once)
    held = (mentions.shown[:, :, None] & shown[:, None, :]).split(windows_at_once)
    sums = None
    for index, part in enumerate(rows):
        rows[index] = part = at_least_float32(part) * held[index][:, :, None, :]
        sums = part.new_zeros(batch * size, part.shape[2]) if sums is None else sums
        sums = sums.index_add(0, mention[index].flatten(), part.sum(-1).flatten(0, 1))
    # Every number has its place in the window that keeps its token, in the row of its entity there.
    keeper = windows.keepers(columns, length)
    start = windows.kept_from()
    row_of = torch.zeros(
        owner.shape[0], entities + 1, dtype=torch.long, device=owner.device
    )  # the last one is for none
    which = torch.where(window_entities >= 0, window_entities, entities)
    row_of.scatter_(1, which, torch.arange(which.shape[1], device=owner.device).expand_as(which))
    n = which.shape[1]
    token = keeper * columns + windows.positions(columns) - start[keeper]
    token, keeper = torch.where(shown, token, 0).split(windows_at_once), keeper.split(windows_at_once)
    entity, share = mentions.entities.split(windows_at_once), share.split(windows_at_once)
    merged = sums.new_zeros(owner.shape[0] * columns * n, sums.shape[-1])
    for index in range(len(rows)):
        part, rows[index] = rows[index], None
        part = part * (share[index][:, :, None] / (sums[mention[index]] + 1e-10))[..., None]
        place = token[index][:, None, :] * n + row_of[keeper[index][:, None, :], entity[index][:, :, None]]
        # What the window does not show adds 0, wherever that goes.
        merged.index_add_(0, place.flatten(), part.transpose(2, 3).flatten(0, 2))
    merged = merged.view(owner.shape[0], columns, n, -1).permute(0, 2, 3, 1)
    return EntityAttention(merged, windows.document, start, window_entities)


def count_mentions(mention_entities: torch.Tensor, entities: int, dtype: torch.dtype) -> torch.Tensor:
    """Mentions `(B * entities,)` of each entity, without those cut off."""
    spare = mention_entities.shape[0] * entities
    places = entity_places(mention_entities, entities)
    counts = torch.zeros(spare + 1, device=places.device, dtype=dtype)
    return counts.index_add_(0, places, torch.ones_like(places, dtype=dtype))[:spare]


def entity_places(mention_entities: torch.Tensor, entities: int) -> torch.Tensor:
    """`(B * M,)` int64: each mention's entity among all `B * entities`; one spare place at the end takes padding."""
    batch = mention_entities.shape[0]
    first = torch.arange(batch, device=mention_entities.device)[:, None] * entities
    spare = batch * entities
    return torch.where(mention_entities >= 0, first + mention_entities, spare).flatten()


def one_window_each(windows: int, documents: int) -> bool:
    """Whether every document has one window. What is exported does not rely on it, so that both numbers stay free."""
    return not torch.compiler.is_exporting() and windows == documents


def slices(length: int, limit: int, size: int = 1) -> list[slice]:
    """Parts of a dimension that are computed one after the other, so that what has `size` numbers at each place of it has `limit`
    at most. In what is exported it is all of it together, as the number of parts would be fixed there."""
    if torch.compiler.is_exporting():
        return [slice(None)]
    at_once = max(1, limit // max(size, 1))
    return [slice(start, start + at_once) for start in range(0, max(length, 1), at_once)]
