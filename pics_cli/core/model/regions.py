"""Which objects cover which spatial token, at every resolution, as index tables that attention can be routed by.

Shapes: G rows of conditioning (guidance branches × composites), n candidates a row, K objects, N = h·w tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

# Batches whose rows differ, and graphs that want repeated shapes, pad index lists up to a multiple of this.
BUCKET = 64


@dataclass(frozen=True)
class Group:
    """The tokens that exactly these objects cover.

    Attributes:
        objects: indices, ascending; one: a cross-attention token, several: an overlap token.
        members: the same, int64 [|S|]; None: all K.
        rows: the rows among G that have such tokens, int64 [R]; None: all.
        tokens: int64 [R · n · L], which of the G · n · N tokens to gather; rows with fewer than L repeat their last.
        kept: int64 [T], which of the gathered are no repeats; None: all.
        targets: int64 [T], where the results belong among the G · n · N tokens; no index occurs twice.
        among_overlaps: the rows' positions among the rows that have any overlap, int64 [R]; None: those are the same.
    """

    objects: tuple[int, ...]
    members: Tensor | None
    rows: Tensor | None
    tokens: Tensor
    kept: Tensor | None
    targets: Tensor
    among_overlaps: Tensor | None = None


class RegionTable:
    """Routing of one resolution: `groups`, one for each set of objects that covers a token.

    Args:
        cover: bool [B, N, K], whether object k's region covers token p of composite b.
        branches: how often the composites are repeated for guidance; G = branches · B, branch by branch.
        candidates: n, how many pictures are made of each composite at once; they share its regions.
        bucket: L is rounded up to a multiple of this.
    """

    def __init__(self, cover: Tensor, branches: int = 1, candidates: int = 1, bucket: int = 1) -> None:
        self.cover = cover
        self.branches = branches
        self.candidates = candidates
        composites, self.tokens, objects = cover.shape
        self.rows = branches * composites
        self.batch = self.rows * candidates
        bits = 2 ** torch.arange(objects, dtype=torch.int64)
        self.codes = (cover.cpu().to(torch.int64) * bits).sum(-1)
        codes = self.codes.repeat(branches, 1)
        several = torch.tensor([bin(code).count("1") > 1 for code in range(2**objects)])
        overlapping = several[codes].any(1).nonzero()[:, 0]
        self.overlap_rows: Tensor | None = None
        if 0 < len(overlapping) < self.rows:
            self.overlap_rows = overlapping.to(cover.device)
        self.groups = [self._group(codes, int(code), overlapping, bucket) for code in codes.unique().tolist() if code]
        self.has_overlaps = len(overlapping) > 0
        self.targets = torch.cat([group.targets for group in self.groups]) if self.groups else None

    def _group(self, codes: Tensor, code: int, overlapping: Tensor, bucket: int) -> Group:
        found = codes == code
        rows = found.any(1).nonzero()[:, 0]
        lists = [found[row].nonzero()[:, 0] for row in rows.tolist()]
        longest = max(len(tokens) for tokens in lists)
        longest = min(-(-longest // bucket) * bucket, self.tokens) if bucket > 1 else longest
        picks = torch.stack([torch.cat([t, t[-1:].expand(longest - len(t))]) for t in lists])  # [R, L]
        real = torch.stack([torch.arange(longest) < len(t) for t in lists])
        # Candidates of a row lie behind each other: token p of candidate j of row g is (g · n + j) · N + p.
        first = (rows[:, None] * self.candidates + torch.arange(self.candidates)) * self.tokens  # [R, n]
        tokens = (first[:, :, None] + picks[:, None]).flatten()
        kept = real[:, None].expand(-1, self.candidates, -1).flatten().nonzero()[:, 0]
        padded = len(kept) < len(tokens)
        device = self.cover.device
        objects = tuple(k for k in range(code.bit_length()) if code >> k & 1)
        among = None
        if len(objects) > 1 and len(rows) < len(overlapping):
            among = torch.searchsorted(overlapping, rows).to(device)
        return Group(
            objects,
            None if len(objects) == self.cover.shape[2] else torch.tensor(objects, device=device),
            None if len(rows) == self.rows else rows.to(device),
            tokens.to(device),
            kept.to(device) if padded else None,
            (tokens[kept] if padded else tokens).to(device),
            among,
        )

    def spread(self, rows: Tensor) -> Tensor:
        """[composites · n, …] repeated for the guidance branches; what is [G · n, …] already stays."""
        return rows if len(rows) == self.batch else rows.repeat(self.branches, *[1] * (rows.ndim - 1))

    @cached_property
    def dense(self) -> Tensor:
        """The cover of every row of the batch, bool [G · n, N, K]."""
        return self.cover.repeat(self.branches, 1, 1).repeat_interleave(self.candidates, 0)


class Regions:
    """Region masks, resampled to any resolution the networks work at (nearest, as published).

    Args:
        masks: bool [B, K, S, S], 1 in each object's box.
        branches, candidates, bucket: see `RegionTable`.
    """

    def __init__(self, masks: Tensor, branches: int = 1, candidates: int = 1, bucket: int = 1) -> None:
        if masks.ndim != 4 or masks.shape[1] < 1:
            raise ValueError(f"region masks: got shape {tuple(masks.shape)}, expected [B, K, S, S] with K >= 1")
        self.masks = masks.bool()
        self.branches, self.candidates, self.bucket = branches, candidates, bucket
        self._tables: dict[tuple[int, int], RegionTable] = {}

    def table(self, height: int, width: int) -> RegionTable:
        """The routing at `height` × `width` tokens, row by row."""
        if (height, width) not in self._tables:
            masks = self.masks[:, :, _nearest(self.masks.shape[2], height)][..., _nearest(self.masks.shape[3], width)]
            cover = masks.flatten(2).transpose(1, 2)
            self._tables[height, width] = RegionTable(cover, self.branches, self.candidates, self.bucket)
        return self._tables[height, width]

    def for_one_candidate(self) -> Regions:
        """The same regions for a network that all candidates share."""
        return self if self.candidates == 1 else Regions(self.masks, self.branches, 1, self.bucket)


def _nearest(size: int, count: int) -> Tensor:
    return torch.arange(count) * size // count
