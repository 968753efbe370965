"""diffusers' own UNet and ControlNet of a network's shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def diffusers_options(
    block_out_channels: Sequence[int],
    layers_per_block: int,
    attention_levels: Sequence[bool],
    head_width: int,
    context_width: int,
    norm_groups: int,
) -> dict[str, Any]:
    """Arguments of `UNet2DConditionModel` and `ControlNetModel`."""
    return {
        "block_out_channels": tuple(block_out_channels),
        "layers_per_block": layers_per_block,
        "down_block_types": tuple(
            "CrossAttnDownBlock2D" if attention else "DownBlock2D" for attention in attention_levels
        ),
        "cross_attention_dim": context_width,
        # What diffusers calls attention_head_dim is the number of heads of each level.
        "attention_head_dim": tuple(width // head_width for width in block_out_channels),
        "use_linear_projection": True,
        "norm_num_groups": norm_groups,
    }
