"""The layers of Stable Diffusion's UNet, with interaction blocks as transformer blocks; parameter names are diffusers'.

They hold parameters and know how to compute; `layers.LayerRunner` says in which order they run.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pics_cli.core.model.interaction import InteractionBlock

# Added to the variances of group norms: in residual blocks and before the output; before transformers.
_EPS, _TRANSFORMER_EPS = 1e-5, 1e-6
_LONGEST_PERIOD = 10_000
# Step in pixels, across and down, at which a group's rough mean is sampled.
_STRIDE = 8


@dataclass(frozen=True)
class NetworkShape:
    """What UNet and ControlNet have in common; see `InteractionUNet`.

    Raises:
        ValueError: not one value of `attention_levels` for each of `block_out_channels`.
    """

    block_out_channels: Sequence[int]
    layers_per_block: int
    attention_levels: Sequence[bool]
    head_width: int
    context_width: int
    norm_groups: int
    tau: float

    def __post_init__(self) -> None:
        if len(self.attention_levels) != len(self.block_out_channels):
            raise ValueError(
                f"{len(self.attention_levels)} attention_levels for {len(self.block_out_channels)} block_out_channels"
            )

    @property
    def time_width(self) -> int:
        """Width of the timestep's embedding."""
        return 4 * self.block_out_channels[0]

    @property
    def skip_widths(self) -> list[int]:
        """Widths of the encoder's skips, in the order of its layers."""
        widths = [self.block_out_channels[0]]
        for level, width in enumerate(self.block_out_channels):
            is_last = level == len(self.block_out_channels) - 1
            widths += [width] * (self.layers_per_block + (not is_last))
        return widths

    def down_blocks(self) -> nn.ModuleList:
        """The encoder's levels."""
        widths = self.block_out_channels
        return nn.ModuleList(
            Level(
                self,
                [(widths[max(level - 1, 0)] if layer == 0 else width, width) for layer in range(self.layers_per_block)],
                self.attention_levels[level],
                down=level < len(widths) - 1,
            )
            for level, width in enumerate(widths)
        )

    def mid_block(self) -> Level:
        """Two residual blocks, and a transformer between them."""
        width = self.block_out_channels[-1]
        return Level(self, [(width, width)] * 2, True, transformers=1)

    def up_blocks(self) -> nn.ModuleList:
        """The decoder's levels, the coarsest first; every layer takes a skip of the encoder, too."""
        widths = self.block_out_channels
        blocks = []
        for level in reversed(range(len(widths))):
            width, below = widths[level], widths[min(level + 1, len(widths) - 1)]
            inside = [below, *[width] * self.layers_per_block]
            skips = [*[width] * self.layers_per_block, widths[max(level - 1, 0)]]
            channels = [(hidden + skip, width) for hidden, skip in zip(inside, skips, strict=True)]
            blocks.append(Level(self, channels, self.attention_levels[level], up=level > 0))
        return nn.ModuleList(blocks)


class Level(nn.Module):
    """The layers of one resolution.

    Args:
        shape: of the network.
        channels: of each residual block: in, out.
        attention: whether transformers follow the residual blocks.
        transformers: how many; None: one after each.
        down, up: whether a convolution to the next resolution follows.
    """

    def __init__(
        self,
        shape: NetworkShape,
        channels: Sequence[tuple[int, int]],
        attention: bool,
        *,
        transformers: int | None = None,
        down: bool = False,
        up: bool = False,
    ) -> None:
        super().__init__()
        if attention:
            widths = [width for _, width in channels[:transformers]]
            self.attentions = nn.ModuleList(Transformer(shape, width) for width in widths)
        self.resnets = nn.ModuleList(ResnetBlock(shape, *pair) for pair in channels)
        width = channels[-1][1]
        self.downsamplers = nn.ModuleList([Downsample(width)]) if down else None
        self.upsamplers = nn.ModuleList([Upsample(width)]) if up else None


class ExactGroupNorm(nn.GroupNorm):
    """`nn.GroupNorm`, exact on the CPU also for tensors in channels-last layout.

    torch's kernel for that layout takes the variance as E[x²] − E[x]², which loses digits where a group's mean is large
    against its deviation: 1e-4 of the output was seen. Group normalisation does not depend on a shift, so a rough mean
    is taken off first; it costs a third of the kernel's own time, a change of layout four times as much.
    """

    def forward(self, input: Tensor) -> Tensor:
        """[B, C, h, w] to the same."""
        if input.device.type == "cpu" and not input.is_contiguous():
            with torch.no_grad():
                subset = input[:, :, ::_STRIDE, ::_STRIDE].reshape(len(input), self.num_groups, -1)
                mean = subset.mean(-1).repeat_interleave(input.shape[1] // self.num_groups, 1)
            input = input - mean[:, :, None, None]
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


def output_norm(shape: NetworkShape) -> ExactGroupNorm:
    """The norm before the UNet's last convolution."""
    return ExactGroupNorm(shape.norm_groups, shape.block_out_channels[0], _EPS)


class ResnetBlock(nn.Module):
    """Residual block of two convolutions, with the timestep added between them."""

    def __init__(self, shape: NetworkShape, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = ExactGroupNorm(shape.norm_groups, in_channels, _EPS)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time_emb_proj = nn.Linear(shape.time_width, out_channels)
        self.norm2 = ExactGroupNorm(shape.norm_groups, out_channels, _EPS)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = None if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, inputs: Tensor, time: Tensor) -> Tensor:
        """[B, in, h, w] and the timestep's embedding [B or 1, time width] to [B, out, h, w]."""
        hidden = self.conv1(F.silu(self.norm1(inputs)))
        hidden = hidden + self.time_emb_proj(F.silu(time))[:, :, None, None]
        hidden = self.conv2(F.silu(self.norm2(hidden)))
        if self.conv_shortcut is not None:
            # Else data-parallel training warns of the gradient's strides.
            inputs = self.conv_shortcut(inputs.contiguous() if self.training else inputs)
        out: Tensor = inputs + hidden
        return out


class Transformer(nn.Module):
    """An interaction block between linear projections; `layers.LayerRunner` runs it."""

    def __init__(self, shape: NetworkShape, channels: int) -> None:
        super().__init__()
        heads = channels // shape.head_width
        head_width = channels // heads
        width = heads * head_width
        self.norm = ExactGroupNorm(shape.norm_groups, channels, _TRANSFORMER_EPS)
        self.proj_in = nn.Linear(channels, width)
        self.transformer_blocks = nn.ModuleList(
            [InteractionBlock(width, heads, head_width, shape.context_width, shape.tau)]
        )
        self.proj_out = nn.Linear(width, channels)

    @property
    def block(self) -> InteractionBlock:
        """The interaction block."""
        block: Any = self.transformer_blocks[0]
        return block


class Downsample(nn.Module):
    """A convolution that halves the resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, C, h, w] to [B, C, h / 2, w / 2]."""
        out: Tensor = self.conv(hidden)
        return out


class Upsample(nn.Module):
    """Twice the resolution, each pixel repeated, and a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, C, h, w] to [B, C, 2 h, 2 w]."""
        if len(hidden) >= 64 or 2 * hidden.numel() > 2**31:  # torch's channels-last kernel fails there on a GPU
            hidden = hidden.contiguous()
        out: Tensor = self.conv(F.interpolate(hidden, scale_factor=2.0, mode="nearest"))
        return out


class TimestepEmbedding(nn.Module):
    """Two layers on the sines and cosines of a timestep.

    Args:
        channels: how many of these.
        width: of the embedding.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.channels = channels
        self.linear_1 = nn.Linear(channels, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, timestep: Tensor, dtype: torch.dtype) -> Tensor:
        """Timesteps [B] to [B, width] in a data type."""
        half = self.channels // 2
        exponent = -math.log(_LONGEST_PERIOD) * torch.arange(half, dtype=torch.float32, device=timestep.device) / half
        angles = timestep[:, None].float() * exponent.exp()[None]
        waves = F.pad(torch.cat([angles.cos(), angles.sin()], -1), (0, self.channels % 2))
        embedding: Tensor = self.linear_2(F.silu(self.linear_1(waves.to(dtype))))
        return embedding


class HintEmbedding(nn.Module):
    """Convolutions from the hint to the resolution and width of the latent's first layer.

    Args:
        hint_channels: of the hint.
        widths: of the convolutions; each but the first halves the resolution.
        out_channels: of the last convolution, which is zero at first.
    """

    def __init__(self, hint_channels: int, widths: Sequence[int], out_channels: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(hint_channels, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for width, following in itertools.pairwise(widths):
            self.blocks.append(nn.Conv2d(width, width, 3, padding=1))
            self.blocks.append(nn.Conv2d(width, following, 3, stride=2, padding=1))
        self.conv_out = zero_convolution(widths[-1], out_channels, 3)

    def forward(self, hint: Tensor) -> Tensor:
        """[B, hint channels, S, S] to [B, out channels, h, w]."""
        hidden = F.silu(self.conv_in(hint))
        for convolution in self.blocks:
            hidden = F.silu(convolution(hidden))
        out: Tensor = self.conv_out(hidden)
        return out


def zero_convolution(in_channels: int, out_channels: int, size: int = 1) -> nn.Conv2d:
    """A convolution that gives zero until it is trained."""
    convolution = nn.Conv2d(in_channels, out_channels, size, padding=size // 2)
    for parameter in convolution.parameters():
        nn.init.zeros_(parameter)
    return convolution
