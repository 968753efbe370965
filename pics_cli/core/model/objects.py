"""What the objects bring into every interaction block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

if TYPE_CHECKING:
    from pics_cli.core.model.tracing import Trace


class Statics(NamedTuple):
    """What one block derives from the objects' contexts alone: constant over all denoising steps.

    With V = W_v c the values of the gate and W_k, W_v (cross) the cross-attention's projections; d: head width.

    Attributes:
        keys, values: of the cross-attention, [G, K, heads, M, d].
        gate: float32 [G, 2 K M, C], the gate's logits and scores as one projection of LN_g(h), folded through W_q.
        gate_bias: float32 [G, 2 K M].
        pair: [G, K, M, 2 C], the gate's values through the cross-attention's key and value projections.
            `gate`, `gate_bias` and `pair` are None where the block's resolution has no overlap.
    """

    keys: Tensor
    values: Tensor
    gate: Tensor | None
    gate_bias: Tensor | None
    pair: Tensor | None


@dataclass(frozen=True)
class Objects:
    """Contexts of the objects, and how the blocks are to use them.

    Attributes:
        contexts: [G, K, M, D], object tokens after the projector.
        bias: [G, K], added to the gate's logits s / τ: favours the nearer object where the user gave an order; None: 0.
        prepared: per block what `InteractionBlock.prepare` made; None: each block makes it when it runs.
        plain: compute as the equations stand, every expert on every token: slow, for comparison.
        trace: filled with gate weights, for `--explain`.
    """

    contexts: Tensor
    bias: Tensor | None = None
    prepared: Sequence[Statics] | None = None
    plain: bool = False
    trace: Trace | None = None
