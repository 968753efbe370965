"""Group normalisation that stays exact where channels come last."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Every so many pixels, across and down, are looked at for a group's mean.
_STRIDE = 8


class SteadyGroupNorm(nn.GroupNorm):
    """`nn.GroupNorm`, exact on the CPU also for tensors in channels-last layout.

    torch's kernel for that layout takes the variance as E[x²] − E[x]², which loses digits where a group's mean is large
    against its deviation: 1e-4 of the output was seen. Group normalisation does not depend on a shift, so a rough mean
    is taken off first; it costs a third of the kernel's own time, a change of layout four times as much.
    """

    def forward(self, input: Tensor) -> Tensor:
        """[B, C, h, w] to the same."""
        if input.device.type == "cpu" and not input.is_contiguous():
            with torch.no_grad():
                some = input[:, :, ::_STRIDE, ::_STRIDE].reshape(len(input), self.num_groups, -1)
                mean = some.mean(-1).repeat_interleave(input.shape[1] // self.num_groups, 1)
            input = input - mean[:, :, None, None]
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)
