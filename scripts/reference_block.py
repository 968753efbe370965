"""The interaction block as its equations stand: every expert on every token, attention by materialised Q Kᵀ.

The baseline that the fast path is measured against and must equal; written for reading, not for speed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from pics_cli.core.model.attention import Attention
from pics_cli.core.model.interaction import InteractionBlock, ObjectContexts
from pics_cli.core.model.regions import RegionTable
from pics_cli.core.model.sampling import Denoiser


@contextlib.contextmanager
def reference_blocks(enabled: bool = True) -> Iterator[None]:
    """Have every interaction block compute as the equations stand."""
    fast = InteractionBlock.forward
    if enabled:
        InteractionBlock.forward = reference_forward  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        InteractionBlock.forward = fast  # type: ignore[method-assign]


class ReferenceDenoiser:
    """`Denoiser`, same arguments and results, with reference blocks and one pass for each guidance branch."""

    def __init__(
        self, *networks: Any, contexts: Tensor, null: Tensor | None, guidance: float = 1.0, **options: Any
    ) -> None:
        self.guidance = guidance
        branches = [contexts] if null is None else [contexts, null.expand_as(contexts)]
        self._passes = [
            Denoiser(*networks, contexts=branch, null=None, **{**options, "cache": False}) for branch in branches
        ]

    def residuals(self, timestep: Tensor) -> list[Tensor]:
        """See `Denoiser.residuals`."""
        with reference_blocks():
            branches = [denoiser.residuals(timestep) for denoiser in self._passes]
        return [torch.cat(residuals) for residuals in zip(*branches, strict=True)]

    def __call__(self, latent: Tensor, timestep: Tensor) -> Tensor:
        """See `Denoiser`."""
        with reference_blocks():
            predictions = [denoiser(latent, timestep) for denoiser in self._passes]
        if len(predictions) == 1:
            return predictions[0]
        conditional, unconditional = predictions
        return unconditional + self.guidance * (conditional - unconditional)


def reference_forward(block: InteractionBlock, hidden: Tensor, objects: ObjectContexts, table: RegionTable) -> Tensor:
    """`InteractionBlock.forward`, same arguments and result."""
    hidden = table.repeat_branches(hidden)
    contexts = objects.contexts.repeat_interleave(table.candidates, 0).unbind(1)
    cover = table.batch_cover
    normed = block.norm1(hidden)
    hidden = hidden + attend(block.attn1, normed, normed)
    queries = block.norm2(hidden)
    update = torch.zeros_like(hidden)
    for k, context in enumerate(contexts):
        alone = cover[..., k] & (cover.sum(-1) == 1)
        update = torch.where(alone[..., None], attend(block.attn2, queries, context), update)
    if len(contexts) > 1:
        gate = block.gate_q(block.norm2g(hidden))
        mixed = [_gated(block, gate, context) for context in contexts]
        for members in (s for size in range(2, len(contexts) + 1) for s in combinations(range(len(contexts)), size)):
            logits = torch.stack([mixed[k][1] for k in members], -1) / block.tau
            if objects.order_bias is not None:
                logits = logits + objects.order_bias[:, members].repeat_interleave(table.candidates, 0)[:, None]
            alpha = logits.softmax(-1)
            pair = (alpha[..., None] * torch.stack([mixed[k][0] for k in members], -2)).sum(-2)
            background = attend(block.attn_bg, block.norm2b(attend(block.attn2, queries, pair)), hidden)
            exactly = (cover == torch.tensor([k in members for k in range(len(contexts))], device=cover.device)).all(-1)
            update = torch.where(exactly[..., None], background, update)
    hidden = hidden + update
    output: Tensor = hidden + block.ff(block.norm3(hidden))
    return output


def _gated(block: InteractionBlock, gate: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
    """a_k [B, N, D] and s_k [B, N]."""
    scale = gate.shape[-1] ** -0.5
    keys, values = block.k_proj(block.norm_c(context)), block.v_proj(context)
    a = (gate @ keys.mT * scale).softmax(-1) @ values
    return a, (gate * a).sum(-1) * scale


def attend(layer: Attention, queries: Tensor, context: Tensor) -> Tensor:
    """Multi-head attention that holds the whole Q Kᵀ."""
    q, k, v = (
        part(tokens).unflatten(-1, (layer.heads, -1)).transpose(1, 2)
        for part, tokens in ((layer.to_q, queries), (layer.to_k, context), (layer.to_v, context))
    )
    weights = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1)
    out: Tensor = layer.to_out[0]((weights @ v).transpose(1, 2).flatten(2))
    return out
