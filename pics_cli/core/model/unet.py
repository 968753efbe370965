"""The denoising UNet: Stable Diffusion's layers, with interaction blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pics_cli.core.model import layers
from pics_cli.core.model.interaction import ObjectContexts
from pics_cli.core.model.regions import Regions
from pics_cli.core.model.saved_module import SavedModule, keep_arguments
from pics_cli.core.model.unet_layers import NetworkShape, TimestepEmbedding, output_norm


class InteractionUNet(SavedModule):
    """UNet of Stable Diffusion's shape whose transformer blocks are interaction blocks; parameter names are diffusers'.

    Args:
        in_channels, out_channels: of the latent.
        block_out_channels: widths of the levels.
        layers_per_block: residual blocks of a level.
        attention_levels: which levels have transformers; the middle always has one.
        head_width: of every attention but the gate's.
        context_width: D, of the object tokens.
        norm_groups: groups of the group norms.
        tau: temperature of the gate.

    Attributes:
        gradient_checkpointing: recompute layers in the backward pass, see `layers.LayerRunner`.
    """

    @keep_arguments
    def __init__(
        self,
        in_channels: int = 4,
        out_channels: int = 4,
        block_out_channels: Sequence[int] = (320, 640, 1280, 1280),
        layers_per_block: int = 2,
        attention_levels: Sequence[bool] = (True, True, True, False),
        head_width: int = 64,
        context_width: int = 1024,
        norm_groups: int = 32,
        tau: float = 0.5,
    ) -> None:
        super().__init__()
        self.gradient_checkpointing = False
        shape = NetworkShape(
            block_out_channels, layers_per_block, attention_levels, head_width, context_width, norm_groups, tau
        )
        width = block_out_channels[0]
        self.conv_in = nn.Conv2d(in_channels, width, 3, padding=1)
        self.time_embedding = TimestepEmbedding(width, shape.time_width)
        self.down_blocks, self.up_blocks, self.mid_block = shape.down_blocks(), shape.up_blocks(), shape.mid_block()
        self.conv_norm_out = output_norm(shape)
        self.conv_out = nn.Conv2d(width, out_channels, 3, padding=1)
        layers.number_blocks(self)

    def forward(
        self, latent: Tensor, timestep: Tensor, objects: ObjectContexts, regions: Regions, residuals: Sequence[Tensor]
    ) -> Tensor:
        """The network's prediction.

        Args:
            latent: [B, c, h, w], noisy; B = composites · n, not repeated for the guidance branches.
            timestep: [1], or [B] where there is one branch.
            objects: contexts of the G = branches · composites rows.
            regions: of the composites, with branches and candidates.
            residuals: the ControlNet's, each [G, …], the middle's last; shared by the n candidates of a row.

        Returns:
            [G · n, c, h, w].
        """
        runner = layers.LayerRunner(self, timestep, latent.dtype, objects, regions)
        hidden, skips = runner.down_blocks(self.conv_in(latent))
        batch, n = len(objects.contexts) * regions.candidates, regions.candidates
        *added, last = residuals
        # Skips from before the first transformer are the same for all guidance branches.
        skips = [
            skip.repeat(batch // len(skip), 1, 1, 1) + _repeat_candidates(residual, n)
            for skip, residual in zip(skips, added, strict=True)
        ]
        hidden = runner.mid_block(hidden) + _repeat_candidates(last, n)
        hidden = runner.up_blocks(hidden, skips)
        prediction: Tensor = self.conv_out(F.silu(self.conv_norm_out(hidden)))
        return prediction


def _repeat_candidates(residual: Tensor, candidates: int) -> Tensor:
    return residual if candidates == 1 else torch.repeat_interleave(residual, candidates, 0)
