"""Layers of a transformer block, by diffusers' names: multi-head attention and the gated feed-forward."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head attention; of its projections only the last has a bias.

    Args:
        width: of the queries, and of the output.
        context_width: of what is attended to; None: `width`.
        heads, head_width: their product is the inner width.
    """

    def __init__(self, width: int, context_width: int | None = None, *, heads: int, head_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, heads * head_width, bias=False)
        self.to_k = nn.Linear(context_width or width, heads * head_width, bias=False)
        self.to_v = nn.Linear(context_width or width, heads * head_width, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(heads * head_width, width)])

    def forward(self, queries: Tensor, context: Tensor) -> Tensor:
        """Tokens [B, L, width] to a context [B, N, context width]: [B, L, width]."""
        return self.attend(self.to_q(queries), self.split(self.to_k(context)), self.split(self.to_v(context)))

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Projected queries [B, L, heads · d] to keys and values [B, heads, N, d]: [B, L, width]."""
        attended = F.scaled_dot_product_attention(self.split(queries), keys, values)
        projected: Tensor = self.to_out[0](attended.transpose(1, 2).flatten(2))
        return projected

    def split(self, tokens: Tensor) -> Tensor:
        """[B, L, heads · d] to [B, heads, L, d]."""
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class FeedForward(nn.Module):
    """Two layers, 4 times as wide between them, with a gate: GEGLU (Shazeer, "GLU Variants Improve Transformer")."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.ModuleList([GatedProjection(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width)])

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, L, width] to the same."""
        for layer in self.net:
            tokens = layer(tokens)
        return tokens


class GatedProjection(nn.Module):
    """A projection times GELU of another."""

    def __init__(self, width: int, out_width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * out_width)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, L, width] to [B, L, out width]."""
        projected, gate = self.proj(tokens).chunk(2, dim=-1)
        return projected * F.gelu(gate)
