"""What happened inside: which object the gate favoured, and where tokens were routed."""

from __future__ import annotations

import torch
from torch import Tensor

from pics_cli.core.model.regions import Group, RegionTable


class Trace:
    """Filled while pictures are made.

    The gate's weights are those of the conditional branch, averaged over candidates, blocks and steps.
    """

    def __init__(self) -> None:
        self._sums: dict[tuple[int, int], tuple[Tensor, int]] = {}
        self._codes: dict[int, Tensor] = {}

    def add(self, table: RegionTable, group: Group, alpha: Tensor) -> None:
        """Take the gate's weights of a cover set: [R, n · N, |S|]."""
        composites, tokens = table.codes.shape
        weights = alpha.detach().float().unflatten(1, (table.candidates, tokens)).mean(1).cpu()
        code = sum(1 << k for k in group.objects)
        self._codes[tokens] = table.codes
        rows = torch.arange(table.rows) if group.rows is None else group.rows.cpu()
        rows, weights = rows[rows < composites], weights[rows < composites]
        for at, row in enumerate(rows.tolist()):
            known, count = self._sums.get((tokens, code * composites + row), (torch.zeros(()), 0))
            self._sums[tokens, code * composites + row] = (known + weights[at], count + 1)

    def alpha(self, objects: int, size: int) -> Tensor:
        """Mean weight of each object at tokens where it overlaps another, over resolutions too: float [B, K, S, S], nan
        elsewhere."""
        composites = len(next(iter(self._codes.values()))) if self._codes else 0
        total = torch.zeros(composites, objects, size, size)
        count = torch.zeros(composites, objects, size, size)
        for tokens, codes in self._codes.items():
            side = int(tokens**0.5)
            level = torch.zeros(composites, objects, tokens)
            seen = torch.zeros(composites, objects, tokens)
            for (found, key), (weights, times) in self._sums.items():
                code, row = divmod(key, composites)
                if found != tokens:
                    continue
                here = codes[row] == code
                members = [k for k in range(objects) if code >> k & 1]
                for i, k in enumerate(members):
                    level[row, k, here] = weights[here, i] / times
                    seen[row, k, here] = 1
            nearest = torch.arange(size) * side // size
            total += level.unflatten(2, (side, side))[:, :, nearest][..., nearest]
            count += seen.unflatten(2, (side, side))[:, :, nearest][..., nearest]
        return torch.where(count > 0, total / count.clamp(min=1), torch.nan)
