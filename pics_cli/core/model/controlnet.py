"""The background ControlNet: a copy of the UNet's encoder that sees the control image, not the noisy latent."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from pics_cli.core.model import layers
from pics_cli.core.model.interaction import ObjectContexts
from pics_cli.core.model.light_head import LightHead
from pics_cli.core.model.order_head import OrderHead
from pics_cli.core.model.regions import Regions
from pics_cli.core.model.saved_module import SavedModule, keep_arguments
from pics_cli.core.model.unet_layers import HintEmbedding, NetworkShape, TimestepEmbedding, zero_convolution


class BackgroundControlNet(SavedModule):
    """ControlNet whose hint embedding replaces the input convolution's output; parameter names are diffusers'.

    Its outputs depend on hint, timestep, objects and regions, never on the noisy latent: all candidates of a composite
    share them.

    Args:
        hint_channels: of the hint: colours of the control image, and the kind of each pixel.
        hint_widths: of the hint's convolutions; all but the first halve the resolution.
        estimates_light: whether it has a `light_head`, for a model with `shadows`.
        estimates_order: whether it has an `order_head`.
        others, and `gradient_checkpointing`: see `InteractionUNet`.
    """

    @keep_arguments
    def __init__(
        self,
        hint_channels: int = 4,
        hint_widths: Sequence[int] = (16, 32, 96, 256),
        block_out_channels: Sequence[int] = (320, 640, 1280, 1280),
        layers_per_block: int = 2,
        attention_levels: Sequence[bool] = (True, True, True, False),
        head_width: int = 64,
        context_width: int = 1024,
        norm_groups: int = 32,
        tau: float = 0.5,
        estimates_light: bool = False,
        estimates_order: bool = False,
    ) -> None:
        super().__init__()
        self.gradient_checkpointing = False
        shape = NetworkShape(
            block_out_channels, layers_per_block, attention_levels, head_width, context_width, norm_groups, tau
        )
        width = block_out_channels[0]
        self.time_embedding = TimestepEmbedding(width, shape.time_width)
        self.controlnet_cond_embedding = HintEmbedding(hint_channels, hint_widths, width)
        self.down_blocks = shape.down_blocks()
        self.controlnet_down_blocks = nn.ModuleList(map(zero_convolution, shape.skip_widths, shape.skip_widths))
        self.controlnet_mid_block = zero_convolution(block_out_channels[-1], block_out_channels[-1])
        self.mid_block = shape.mid_block()
        layers.number_blocks(self)
        if estimates_light:
            self.light_head = LightHead()
        if estimates_order:
            self.order_head = OrderHead()

    def embed_hint(self, hint: Tensor) -> Tensor:
        """Hints [B, 3 L + 1, S, S] to [B, C, h, w]: constant over the denoising steps and both guidance branches."""
        embedded: Tensor = self.controlnet_cond_embedding(hint)
        return embedded

    def forward(self, hint: Tensor, timestep: Tensor, objects: ObjectContexts, regions: Regions) -> list[Tensor]:
        """Residuals for the UNet.

        Args:
            hint: embedded, [composites, C, h, w].
            timestep: [1], or [composites] where there is one branch.
            objects: contexts of the G = branches · composites rows.
            regions: of the composites, with the same branches and one candidate.

        Returns:
            A residual [G, …] for each skip of the UNet and, last, for its middle block.
        """
        runner = layers.LayerRunner(self, timestep, hint.dtype, objects, regions)
        hidden, skips = runner.down_blocks(hint)
        hidden = runner.mid_block(hidden)
        rows = len(objects.contexts)
        residuals = [convolution(skip) for convolution, skip in zip(self.controlnet_down_blocks, skips, strict=True)]
        residuals.append(self.controlnet_mid_block(hidden))
        return [residual.repeat(rows // len(residual), 1, 1, 1) for residual in residuals]
