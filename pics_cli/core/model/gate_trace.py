"""Mean gate weights of the interaction blocks, which `pics infer --explain` draws."""

from __future__ import annotations

import torch
from torch import Tensor

from pics_cli.core.model.regions import RegionTable, TokenGroup


class GateTrace:
    """Gate weights of the conditional branch, summed while pictures are sampled.

    Means are over candidates, blocks and steps.
    """

    def __init__(self) -> None:
        self._sums: dict[tuple[int, int, int], tuple[Tensor, int]] = {}  # by tokens, code of objects and row
        self._codes: dict[int, Tensor] = {}

    def add(self, table: RegionTable, group: TokenGroup, alpha: Tensor) -> None:
        """Add the gate weights of a group, [R, n · N, |S|]."""
        composites, tokens = table.codes.shape
        weights = alpha.detach().float().unflatten(1, (table.candidates, tokens)).mean(1).cpu()
        code = sum(1 << k for k in group.objects)
        self._codes[tokens] = table.codes
        rows = torch.arange(table.rows) if group.rows is None else group.rows.cpu()
        for row, row_weights in zip(rows.tolist(), weights, strict=True):
            if row < composites:
                total, count = self._sums.get((tokens, code, row), (torch.zeros(()), 0))
                self._sums[tokens, code, row] = (total + row_weights, count + 1)

    def mean_weights(self, objects: int, size: int) -> Tensor:
        """Mean weight of each object at tokens where it overlaps another, over resolutions too: float32 [B, K, S, S],
        nan elsewhere."""
        composites = len(next(iter(self._codes.values()))) if self._codes else 0
        total = torch.zeros(composites, objects, size, size)
        count = torch.zeros(composites, objects, size, size)
        for tokens, codes in self._codes.items():
            side = int(tokens**0.5)
            level = torch.full((composites, objects, tokens), torch.nan)
            for (level_tokens, code, row), (weights, times) in self._sums.items():
                if level_tokens != tokens:
                    continue
                covered = codes[row] == code
                members = [k for k in range(objects) if code >> k & 1]
                for i, k in enumerate(members):
                    level[row, k, covered] = weights[covered, i] / times
            nearest = torch.arange(size) * side // size
            enlarged = level.unflatten(2, (side, side))[:, :, nearest][..., nearest]
            total += enlarged.nan_to_num(0)
            count += ~enlarged.isnan()
        return torch.where(count > 0, total / count.clamp(min=1), torch.nan)
