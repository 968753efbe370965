"""The estimate of who stands before whom, from where two objects lie in the picture alone.

A small head of the ControlNet. On level ground the lower of two objects that overlap is the nearer one, unless it
carries the other or holds it: their boxes tell most of these cases apart, and surer than the network that sees their
pixels. B: composites, K: objects.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_WIDTH = 32
# Mean and deviation of the features of a pair over drawn and rendered scenes.
_MEAN = (0.2, 0.0, 0.16, 0.4, 0.28, 0.0, -0.12, 0.53, 0.77, 0.55, 0.71, 0.73, 1.46)
_DEVIATION = (0.26, 0.26, 0.16, 0.47, 0.39, 0.36, 0.43, 0.27, 0.31, 0.22, 0.25, 0.36, 0.67)


class OrderHead(nn.Module):
    """From boxes to the order of each pair."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Sequential(
            nn.Linear(len(_MEAN), _WIDTH), nn.SiLU(), nn.Linear(_WIDTH, _WIDTH), nn.SiLU(), nn.Linear(_WIDTH, 2)
        )

    def forward(self, boxes: Tensor) -> Tensor:
        """Logits of i before j, of j before i, and of one inside the other, float32 [B, K, K, 3].

        Args:
            boxes: tight around each whole object, `x0, y0, x1, y1` in pixels of any size, [B, K, 4]; none is empty.
        """
        # In float32 whatever the weights are: the decision must not depend on the precision of the model.
        values = _pair_features(boxes.float())
        for layer in self.hidden:
            if isinstance(layer, nn.Linear):
                values = F.linear(values, layer.weight.float(), layer.bias.float())
            else:
                values = layer(values)
        before, inside = values.unbind(-1)
        return torch.stack([before, before.transpose(1, 2), (inside + inside.transpose(1, 2)) / 2], -1)


def order_log_odds(logits: Tensor) -> Tensor:
    """Logarithm of how much likelier i is before j than j before i, [B, K, K] of the head's logits [B, K, K, 3].

    Antisymmetric. As far as one is likely inside the other it is 0: what is in front is then a matter of the pixel.
    """
    before, after, inside = logits.unbind(-1)
    half = inside - math.log(2)
    return (torch.logaddexp(before, half) - torch.logaddexp(after, half)) * (1 - logits.softmax(-1)[..., 2])


def order_loss(logits: Tensor, first: Tensor, second: Tensor, kind: Tensor) -> Tensor:
    """Cross-entropy of pairs, [P].

    Args:
        logits: of the head, [P, K, K, 3].
        first, second: int64 [P], the objects of each pair.
        kind: int64 [P]: 0 where the first is before the second, 1 behind it, 2 where one is inside the other.
    """
    return F.cross_entropy(logits[torch.arange(len(kind)), first, second], kind, reduction="none")


def _pair_features(boxes: Tensor) -> Tensor:
    """What the order of box i and box j may depend on, [B, K, K, 13]; as of the picture mirrored, at any scale."""
    a, b = boxes[:, :, None], boxes[:, None]
    a, b = torch.broadcast_tensors(a, b)
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = a.unbind(-1), b.unbind(-1)
    aw, ah, bw, bh = ax1 - ax0, ay1 - ay0, bx1 - bx0, by1 - by0
    width, height = torch.maximum(ax1, bx1) - torch.minimum(ax0, bx0), torch.maximum(ay1, by1) - torch.minimum(ay0, by0)
    side = torch.maximum(width, height)
    across = (torch.minimum(ax1, bx1) - torch.maximum(ax0, bx0)).clamp(min=0)
    down = (torch.minimum(ay1, by1) - torch.maximum(ay0, by0)).clamp(min=0)
    features = [
        (ay1 - by1) / side, (ay0 - by0) / side, (ax0 + ax1 - bx0 - bx1).abs() / 2 / side,
        (aw / bw).log(), (ah / bh).log(), (aw / ah).log(), (bw / bh).log(),
        across / aw, across / bw, down / ah, down / bh, (by1 - ay0) / ah, (ay1 - by0) / bh,
    ]  # fmt: skip
    values = torch.stack(features, -1)
    return (values - values.new_tensor(_MEAN)) / values.new_tensor(_DEVIATION)
