"""Which objects cover which spatial token, at every resolution: the index tables by which attention is routed.

Shapes: G rows of conditioning (guidance branches × composites), n candidates a row, K objects, N = h·w tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pics_cli.errors import PicsError

# Where shapes must not depend on the picture, a group's index lists are padded to one of these shares of all tokens; a
# graph is compiled for each of them.
PADDED_SHARES = (0.0, 0.25, 0.5, 1.0)
# Most objects in one picture: a cover code has a bit for each; padded tables have a group for every set of objects.
_MOST_OBJECTS, _MOST_PADDED = 62, 5


@dataclass(frozen=True)
class TokenGroup:
    """The tokens that exactly one set of objects covers.

    Attributes:
        objects: indices, ascending; one: a cross-attention token, several: an overlap token.
        members: the same, int64 [|S|]; None: all K.
        rows: the rows among G that have such tokens, int64 [R]; None: all.
        tokens: int64 [R · n · L], which of the G · n · N tokens to gather; rows with fewer than L have others, too.
        kept: int64 [T], which of the gathered are the group's own; None: all, or the others' targets have no effect.
        targets: int64 [T], where the results belong among the G · n · N tokens; no index occurs twice but G · n · N
            itself, which means nowhere.
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
        candidates: n, pictures of each composite; they share its regions.
        padded_share: None: groups are as long as they have to be. A number: shapes depend on it, K, N, G and n alone:
            there is a group for every set of objects, single objects are gathered at all tokens, sets at this share of
            them.
        device: of the indices; None: the cover's.
    """

    def __init__(
        self,
        cover: Tensor,
        branches: int = 1,
        candidates: int = 1,
        padded_share: float | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.cover, self.device = cover, cover.device if device is None else device
        self.branches, self.candidates = branches, candidates
        composites, self.tokens, objects = cover.shape
        self.rows = branches * composites
        self.batch = self.rows * candidates
        self.codes = cover_codes(cover)
        codes = self.codes.repeat(branches, 1)
        overlapping = _has_several(codes).any(1).nonzero()[:, 0]
        self.overlap_rows: Tensor | None = None
        self.padded = padded_share is not None
        if padded_share is None:
            self.has_overlaps = len(overlapping) > 0
            if 0 < len(overlapping) < self.rows:
                self.overlap_rows = self._send(overlapping)
            self.groups = [self._group(codes, int(code), overlapping) for code in codes.unique().tolist() if code]
        else:
            self.has_overlaps = padded_share > 0 and objects > 1
            lengths = {1: self.tokens, **dict.fromkeys(range(2, objects + 1), -int(-padded_share * self.tokens // 1))}
            sets = [(code, lengths[bin(code).count("1")]) for code in range(1, 2**objects)]
            all_rows = torch.arange(self.rows)
            self.groups = [self._group(codes, code, all_rows, length) for code, length in sets if length]
        self.targets = torch.cat([group.targets for group in self.groups]) if self.groups else None

    def _group(self, codes: Tensor, code: int, overlapping: Tensor, length: int | None = None) -> TokenGroup:
        covered = codes == code
        rows = torch.arange(self.rows) if length else covered.any(1).nonzero()[:, 0]
        covered = covered[rows]
        length = length or int(covered.sum(1).max())
        chosen = (~covered).to(torch.uint8).argsort(dim=1, stable=True)[:, :length]  # [R, L], the group's own first
        own = covered.gather(1, chosen)[:, None].expand(-1, self.candidates, -1).flatten()
        # Candidates of a row lie behind each other: token p of candidate j of row g is (g · n + j) · N + p.
        first = (rows[:, None] * self.candidates + torch.arange(self.candidates)) * self.tokens  # [R, n]
        tokens = (first[:, :, None] + chosen[:, None]).flatten()
        kept = None
        if self.padded:
            targets = torch.where(own, tokens, self.batch * self.tokens)
        else:
            kept = None if own.all() else own.nonzero()[:, 0]
            targets = tokens if kept is None else tokens[kept]
        objects = tuple(k for k in range(code.bit_length()) if code >> k & 1)
        among_overlaps = None
        if len(objects) > 1 and len(rows) < len(overlapping):
            among_overlaps = self._send(torch.searchsorted(overlapping, rows))
        return TokenGroup(
            objects,
            None if len(objects) == self.cover.shape[2] else self._send(torch.tensor(objects)),
            None if len(rows) == self.rows else self._send(rows),
            self._send(tokens),
            None if kept is None else self._send(kept),
            self._send(targets),
            among_overlaps,
        )

    def _send(self, values: Tensor) -> Tensor:
        """Values to the device; from main memory to a GPU by way of pinned memory, else the copy would wait for its
        queue."""
        if self.device.type == "cuda" and values.device.type == "cpu":
            return values.pin_memory().to(self.device, non_blocking=True)
        return values.to(self.device)

    def repeat_branches(self, rows: Tensor) -> Tensor:
        """[composites · n, …] repeated for the guidance branches; what is [G · n, …] already stays."""
        return rows if len(rows) == self.batch else rows.repeat(self.branches, *[1] * (rows.ndim - 1))

    @cached_property
    def batch_cover(self) -> Tensor:
        """The cover of every row of the batch, bool [G · n, N, K]."""
        return self._send(self.cover).repeat(self.branches, 1, 1).repeat_interleave(self.candidates, 0)


class Regions:
    """Region masks, resampled to any resolution the networks work at (nearest, as published).

    Args:
        masks: bool [B, K, S, S], 1 in each object's box.
        branches, candidates, padded_share: see `RegionTable`.
        device: where the networks run; None: where the masks are. With masks on the CPU and networks on a GPU, the
            tables are made without waiting for the GPU.
    """

    def __init__(
        self,
        masks: Tensor,
        branches: int = 1,
        candidates: int = 1,
        padded_share: float | None = None,
        device: torch.device | None = None,
    ) -> None:
        if masks.ndim != 4 or masks.shape[1] < 1:
            raise ValueError(f"region masks: got shape {tuple(masks.shape)}, expected [B, K, S, S] with K >= 1")
        if masks.shape[1] > (_MOST_OBJECTS if padded_share is None else _MOST_PADDED):
            most = f"{_MOST_OBJECTS}, compiled {_MOST_PADDED}"
            raise PicsError(f"{masks.shape[1]} objects in one picture, at most {most}", "insert them in several runs")
        self.masks, self.device = masks.bool(), device
        self.branches, self.candidates, self.padded_share = branches, candidates, padded_share
        self._tables: dict[tuple[int, int], RegionTable] = {}

    def table(self, height: int, width: int) -> RegionTable:
        """The routing at `height` × `width` tokens, row by row."""
        if (height, width) not in self._tables:
            cover = cover_at(self.masks, height, width)
            self._tables[height, width] = RegionTable(
                cover, self.branches, self.candidates, self.padded_share, self.device
            )
        return self._tables[height, width]

    def for_one_candidate(self) -> Regions:
        """The same regions for a network that all candidates share."""
        return self if self.candidates == 1 else Regions(self.masks, self.branches, 1, self.padded_share, self.device)


def cover_at(masks: Tensor, height: int, width: int) -> Tensor:
    """Masks bool [B, K, S, S] at a resolution of tokens: bool [B, h · w, K]."""
    rows, columns = (torch.arange(count) * masks.shape[2 + i] // count for i, count in enumerate((height, width)))
    return masks[:, :, rows][..., columns].flatten(2).transpose(1, 2)


def cover_codes(cover: Tensor) -> Tensor:
    """bool [B, N, K] to int64 [B, N]: bit k is set where object k covers the token."""
    return (cover.cpu().to(torch.int64) << torch.arange(cover.shape[2])).sum(-1)


def padded_overlap_share(masks: Tensor, sizes: Sequence[tuple[int, int]]) -> float:
    """The smallest of `PADDED_SHARES` that no set of several objects exceeds, in any sample, at any of the sizes."""
    largest = 0.0
    for height, width in sizes:
        codes = cover_codes(cover_at(masks, height, width))
        for code in codes[_has_several(codes)].unique().tolist():
            largest = max(largest, float((codes == code).float().mean(1).max()))
    return next(share for share in PADDED_SHARES if largest <= share)


def _has_several(codes: Tensor) -> Tensor:
    """Whether a code names more than one object."""
    return (codes & (codes - 1)) != 0
