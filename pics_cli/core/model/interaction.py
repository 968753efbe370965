"""The interaction block of PICS (Zhou et al., ICLR 2026), fast and exact; `scripts/reference_block.py` unrolls it.

h: spatial tokens [N, C]; c_k: tokens of object k [M, D]; S(p): the objects whose region covers token p; τ = 0.5.

    h ← h + SelfAttn(LN₁ h)
    |S(p)| = 0:     x(p) = 0
    S(p) = {k}:     x(p) = CrossAttn(LN₂ h, c_k)(p)
    |S(p)| > 1:     g = W_q LN_g(h);  a_k = softmax(g (W_k LN_c c_k)ᵀ / √D) W_v c_k;  s_k = ⟨g, a_k⟩ / √D
                    α = softmax_{k ∈ S}(s_k / τ);  ĉ_S = Σ α_k a_k, one context token per spatial token
                    x̂ = CrossAttn(LN₂ h, ĉ_S);  x(p) = Attn_bg(LN_2b(x̂), h)(p)
    h ← h + x;  h ← h + FF(LN₃ h)

Only queries are routed: the keys of both N × N attentions are all N positions, of h unnormalised for Attn_bg.

Two exact identities save most of the gate. With k̃ = W_k LN_c c_k and v = W_v c_k, [k̃; v] W_q is constant over the
steps, so z = LN_g(h) ([k̃; v] W_q)ᵀ / √D gives the logits and, since ⟨g, p v⟩ = p · (v g), the scores s_k. And the keys
and values of ĉ_S are (α p) times the constant v [W_k^cross; W_v^cross]ᵀ.

G: rows (guidance branches × composites), n: candidates of a row, K: objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pics_cli.core.model.attention import Attention, FeedForward
from pics_cli.core.model.gate_trace import GateTrace
from pics_cli.core.model.regions import RegionTable, TokenGroup


class ContextCache(NamedTuple):
    """What one block derives from the objects' contexts alone: constant over all denoising steps.

    With V = W_v c the values of the gate and W_k, W_v (cross) the cross-attention's projections; d: head width.

    Attributes:
        keys, values: of the cross-attention, [G, K, heads, M, d].
        gate: float32 [G, 2 K M, C], the gate's logits and scores as one projection of LN_g(h), folded through W_q.
        gate_bias: float32 [G, 2 K M].
        mixed: [G, K, M, 2 C], the gate's values through the cross-attention's key and value projections.
            `gate`, `gate_bias` and `mixed` are None where the block's resolution has no overlap.
    """

    keys: Tensor
    values: Tensor
    gate: Tensor | None
    gate_bias: Tensor | None
    mixed: Tensor | None


@dataclass(frozen=True)
class ObjectContexts:
    """Contexts of the objects, and how the blocks use them.

    Attributes:
        contexts: [G, K, M, D], object tokens after the projector.
        order_bias: [G, K], added to the gate's logits s / τ: favours the nearer object where the user gave an order;
            None: 0.
        caches: of every block, by layer index; None: each block computes its own when it runs.
        trace: filled with gate weights, for `--explain`.
    """

    contexts: Tensor
    order_bias: Tensor | None = None
    caches: Sequence[ContextCache] | None = None
    trace: GateTrace | None = None


class InteractionBlock(nn.Module):
    """Transformer block with the interaction experts, in place of Stable Diffusion's BasicTransformerBlock.

    Args:
        width: C.
        heads: attention heads.
        head_width: width of a head; heads · head_width is the attentions' inner width.
        context_width: D.
        tau: temperature τ of the gate (0.5 as published).
    """

    def __init__(self, width: int, heads: int, head_width: int, context_width: int, tau: float = 0.5) -> None:
        super().__init__()
        self.tau = tau
        self.layer_index = 0  # of this block in its network; index of its cache
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = Attention(width, heads=heads, head_width=head_width)
        self.norm2 = nn.LayerNorm(width)
        self.attn2 = Attention(width, context_width, heads=heads, head_width=head_width)
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width)
        self.norm2g = nn.LayerNorm(width)
        self.gate_q = nn.Linear(width, context_width)
        self.norm_c = nn.LayerNorm(context_width)
        self.k_proj = nn.Linear(context_width, context_width, bias=False)
        self.v_proj = nn.Linear(context_width, context_width, bias=False)
        self.norm2b = nn.LayerNorm(width)
        self.attn_bg = Attention(width, heads=heads, head_width=head_width)

    def forward(self, hidden: Tensor, objects: ObjectContexts, table: RegionTable) -> Tensor:
        """Run the block.

        Args:
            hidden: [G · n, N, C], or [G · n / branches, N, C] where the guidance branches are still the same.
            objects: contexts of the G rows.
            table: routing of the G rows at N tokens.

        Returns:
            [G · n, N, C].
        """
        normed = self.norm1(hidden)
        hidden = table.repeat_branches(hidden + self.attn1(normed, normed))
        if table.targets is not None:
            cache = objects.caches[self.layer_index] if objects.caches else self.make_cache(objects, table)
            updates = self._experts(hidden, cache, objects, table)
            flat = hidden.flatten(0, 1)
            flat = F.pad(flat, (0, 0, 0, 1)) if table.padded else flat
            flat = flat.index_add(0, table.targets, torch.cat(updates).to(flat.dtype))
            hidden = flat[: table.batch * table.tokens].view_as(hidden)
        return hidden + self.ff(self.norm3(hidden))

    def make_cache(self, objects: ObjectContexts, table: RegionTable) -> ContextCache:
        """What this block derives from the objects alone; computed in float32, also for a bf16 model."""
        contexts = objects.contexts
        rows, count, length, _ = contexts.shape
        heads = self.attn2.heads
        keys, values = (
            projection(contexts).view(rows, count, length, heads, -1).transpose(2, 3).contiguous()
            for projection in (self.attn2.to_k, self.attn2.to_v)
        )
        if not table.has_overlaps:
            return ContextCache(keys, values, None, None, None)
        with _without_autocast(contexts.device):
            exact = contexts.float()
            normed = _exact_norm(self.norm_c, exact)
            k = normed @ self.k_proj.weight.float().T
            v = exact @ self.v_proj.weight.float().T
            stacked = torch.cat([k, v], 1).flatten(1, 2) * exact.shape[-1] ** -0.5
            gate = stacked @ self.gate_q.weight.float()
            gate_bias = stacked @ self.gate_q.bias.float()
            cross = torch.cat([_exact_weight(self.attn2.to_k), _exact_weight(self.attn2.to_v)])
            mixed = (v @ cross.T).to(contexts.dtype)
        return ContextCache(keys, values, gate, gate_bias, mixed)

    def _experts(
        self, hidden: Tensor, cache: ContextCache, objects: ObjectContexts, table: RegionTable
    ) -> list[Tensor]:
        """x of every group's tokens, a [T, C] for each group."""
        flat = hidden.flatten(0, 1)
        overlap = _OverlapExpert(self, hidden, cache, objects, table) if table.has_overlaps else None
        updates = []
        for group in table.groups:
            rows = table.rows if group.rows is None else len(group.rows)
            tokens = flat.index_select(0, group.tokens).view(rows, -1, flat.shape[-1])
            if len(group.objects) == 1:
                k = group.objects[0]
                keys, values = (_rows(cached[:, k], group.rows) for cached in (cache.keys, cache.values))
                x = self.attn2.attend(self.attn2.to_q(self.norm2(tokens)), keys, values)
            else:
                assert overlap is not None
                x = overlap(tokens.view(rows * table.candidates, -1, tokens.shape[-1]), group)
            x = x.reshape(-1, flat.shape[-1])
            updates.append(x if group.kept is None else x.index_select(0, group.kept))
        return updates


class _OverlapExpert:
    """The expert of overlap tokens; computes once what the groups of the O rows with overlaps share."""

    def __init__(
        self, block: InteractionBlock, hidden: Tensor, cache: ContextCache, objects: ObjectContexts, table: RegionTable
    ) -> None:
        assert cache.gate is not None
        assert cache.gate_bias is not None
        assert cache.mixed is not None
        self.block, self.table, self.objects = block, table, objects
        rows = table.overlap_rows
        hidden = _rows(hidden.unflatten(0, (table.rows, table.candidates)), rows)  # [O, n, N, C]
        self.mixed = _rows(cache.mixed, rows)
        self.order_bias = None if objects.order_bias is None else _rows(objects.order_bias, rows)
        count, length = self.mixed.shape[1:3]
        with _without_autocast(hidden.device):
            normed = _exact_norm(block.norm2g, hidden)
            z = torch.baddbmm(_rows(cache.gate_bias, rows)[:, None], normed.flatten(1, 2), _rows(cache.gate, rows).mT)
            logits, values = z.unflatten(-1, (2, count, length)).unbind(2)
            self.attention = logits.softmax(-1)  # p [O, n · N, K, M]
            self.scores = torch.linalg.vecdot(self.attention, values)  # s [O, n · N, K]
        flat = hidden.flatten(0, 1)
        self.keys, self.values = (
            block.attn_bg.split(projection(flat)) for projection in (block.attn_bg.to_k, block.attn_bg.to_v)
        )

    def __call__(self, tokens: Tensor, group: TokenGroup) -> Tensor:
        """x [R · n, L, C] of the group's tokens [R · n, L, C]."""
        block = self.block
        logits = self._select(self.scores, group, 2) / block.tau
        if self.order_bias is not None:
            logits = logits + self._select(self.order_bias, group, 1)[:, None]
        alpha = logits.softmax(-1)
        if self.objects.trace is not None:
            self.objects.trace.add(self.table, group, alpha)
        weights = alpha[..., None] * self._select(self.attention, group, 2)
        mixed = self._select(self.mixed, group, 1).flatten(1, 2)
        context = weights.flatten(2).to(mixed.dtype) @ mixed  # keys and values of ĉ, [R, n · N, 2 C]
        context = context.view(len(tokens), -1, context.shape[-1])
        keys, values = map(block.attn2.split, context.chunk(2, -1))
        attended = block.attn2.attend(block.attn2.to_q(block.norm2(tokens)), keys, values)
        query = block.attn_bg.to_q(block.norm2b(attended))
        n = self.table.candidates
        keys, values = (
            _rows(shared.unflatten(0, (-1, n)), group.among_overlaps).flatten(0, 1)
            for shared in (self.keys, self.values)
        )
        return block.attn_bg.attend(query, keys, values)

    def _select(self, values: Tensor, group: TokenGroup, dimension: int) -> Tensor:
        """The group's rows among the O, and its objects along a dimension of all K."""
        values = _rows(values, group.among_overlaps)
        return values if group.members is None else values.index_select(dimension, group.members)


def _exact_norm(layer: nn.LayerNorm, tokens: Tensor) -> Tensor:
    """A layer norm in float32, whatever the tokens and the layer are in."""
    return F.layer_norm(tokens.float(), tokens.shape[-1:], layer.weight.float(), layer.bias.float(), layer.eps)


def _exact_weight(layer: Any) -> Tensor:
    """The weight of a projection in float32, with what PEFT's adapters add to it while they are trained."""
    weight: Tensor = layer.weight.float()
    for name in getattr(layer, "active_adapters", ()):
        weight = weight + layer.scaling[name] * (layer.lora_B[name].weight @ layer.lora_A[name].weight).float()
    return weight


def _without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Compute in the precision of the tensors, whatever autocast says; the meta device knows no autocast."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def _rows(values: Tensor, rows: Tensor | None) -> Tensor:
    return values if rows is None else values.index_select(0, rows)
