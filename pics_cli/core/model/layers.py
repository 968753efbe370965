"""Runs the layers of diffusers' UNet and ControlNet, with interaction blocks in place of their transformer blocks.

diffusers' own forward methods lack two things: both guidance branches share what precedes the first cross-attention,
and the blocks need regions and objects.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pics_cli.core.model.interaction import ContextCache, InteractionBlock, ObjectContexts
from pics_cli.core.model.regions import Regions

# Step in pixels, across and down, at which a group's rough mean is sampled.
_STRIDE = 8


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


def diffusers_options(
    block_out_channels: Sequence[int],
    layers_per_block: int,
    attention_levels: Sequence[bool],
    head_width: int,
    context_width: int,
    norm_groups: int,
) -> dict[str, Any]:
    """Arguments of diffusers' UNet and ControlNet for this shape."""
    if len(attention_levels) != len(block_out_channels):
        raise ValueError(f"{len(attention_levels)} attention_levels for {len(block_out_channels)} block_out_channels")
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


def adopt_layers(network: nn.Module, stock: nn.Module, tau: float, exclude: Sequence[str] = ()) -> None:
    """Give a network the layers of diffusers' network `stock` under their names, with new interaction blocks as
    transformer blocks; but for the children named in `exclude`."""
    for name, child in stock.named_children():
        if name not in exclude:
            network.add_module(name, child)
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.GroupNorm:
                setattr(parent, name, ExactGroupNorm(child.num_groups, child.num_channels, child.eps))
    for layer_index, transformer in enumerate(transformer_layers(network)):
        old = transformer.transformer_blocks[0]
        width, heads = old.attn1.query_dim, old.attn1.heads
        block = InteractionBlock(width, heads, old.attn1.inner_dim // heads, old.attn2.cross_attention_dim, tau)
        block.layer_index = layer_index
        transformer.transformer_blocks = nn.ModuleList([block])


def transformer_layers(network: nn.Module) -> Iterator[Transformer2DModel]:
    """The transformers of a network, in the order of its modules."""
    return (module for module in network.modules() if isinstance(module, Transformer2DModel))


def make_caches(
    network: nn.Module, objects: ObjectContexts, regions: Regions, height: int, width: int
) -> list[ContextCache]:
    """The context caches of every interaction block for a latent of `height` × `width`."""
    return [
        transformer.transformer_blocks[0].make_cache(objects, regions.table(height >> level, width >> level))
        for transformer, level in _levels(network)
    ]


def attention_sizes(network: Any, height: int, width: int) -> list[tuple[int, int]]:
    """The resolutions of a network's transformers, for a latent of `height` × `width`."""
    return sorted({(height >> level, width >> level) for _, level in _levels(network)})


def _levels(network: Any) -> list[tuple[Transformer2DModel, int]]:
    """Every transformer with the level of the pyramid it works at, in the order of their interaction blocks."""
    last = len(network.down_blocks) - 1
    levels = dict[Transformer2DModel, int]()
    for level, block in enumerate(network.down_blocks):
        levels.update(dict.fromkeys(getattr(block, "attentions", ()), level))
    for level, block in enumerate(getattr(network, "up_blocks", ())):
        levels.update(dict.fromkeys(getattr(block, "attentions", ()), last - level))
    levels.update(dict.fromkeys(network.mid_block.attentions, last))
    return sorted(levels.items(), key=lambda entry: entry[0].transformer_blocks[0].layer_index)


class LayerRunner:
    """Runs the layers of a network for one batch.

    Args:
        network: an `InteractionUNet` or `BackgroundControlNet`. Where a gradient is wanted and its
            `gradient_checkpointing` is on, only what goes into each residual block and its transformer is kept; the
            rest is computed again for the gradient.
        timestep: [B] or [1]; an embedding of one broadcasts over the batch.
        dtype: of the layers' input.
        objects, regions: for the interaction blocks.
    """

    def __init__(
        self, network: Any, timestep: Tensor, dtype: torch.dtype, objects: ObjectContexts, regions: Regions
    ) -> None:
        self.network, self.objects, self.regions = network, objects, regions
        self.time: Tensor = network.time_embedding(network.time_proj(timestep).to(dtype))

    def down_blocks(self, hidden: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The encoder: its output, and the skips in the order of its layers."""
        skips = [hidden]
        for block in self.network.down_blocks:
            for resnet, transformer in _resnets(block):
                hidden = self._block(resnet, transformer, [hidden])
                skips.append(hidden)
            for downsampler in block.downsamplers or ():
                hidden = downsampler(hidden)
                skips.append(hidden)
        return hidden, skips

    def mid_block(self, hidden: Tensor) -> Tensor:
        """The middle block."""
        block = self.network.mid_block
        for resnet, transformer in zip(block.resnets, [*block.attentions, None], strict=True):
            hidden = self._block(resnet, transformer, [hidden])
        return hidden

    def up_blocks(self, hidden: Tensor, skips: list[Tensor]) -> Tensor:
        """The decoder; empties the list of skips from its end."""
        for block in self.network.up_blocks:
            for resnet, transformer in _resnets(block):
                inputs = [hidden, skips.pop()]
                del hidden
                hidden = self._block(resnet, transformer, inputs)
            for upsampler in block.upsamplers or ():
                hidden = upsampler(hidden)
        return hidden

    def _block(self, resnet: Any, transformer: Transformer2DModel | None, inputs: list[Tensor]) -> Tensor:
        """A residual block of the inputs' concatenated channels, and its transformer; empties the list of inputs."""

        def run(*tensors: Tensor) -> Tensor:
            hidden: Tensor = resnet(_concatenate(list(tensors) or inputs), self.time)
            return hidden if transformer is None else self._transformer(transformer, hidden)

        if not (self.network.gradient_checkpointing and torch.is_grad_enabled()):
            # The list is the only one to hold its tensors, so that they are gone when the transformer runs.
            return run()
        # Nothing in these layers is random, so there is no state of a generator to bring back.
        hidden: Tensor = checkpoint(run, *inputs, use_reentrant=False, preserve_rng_state=False)
        return hidden

    def _transformer(self, layer: Transformer2DModel, hidden: Tensor) -> Tensor:
        """`Transformer2DModel.forward` [B, C, h, w] with an interaction block: [G · n, C, h, w]."""
        _, channels, height, width = hidden.shape
        tokens = layer.proj_in(layer.norm(hidden).permute(0, 2, 3, 1).flatten(1, 2))
        table = self.regions.table(height, width)
        for block in layer.transformer_blocks:
            tokens = block(tokens, self.objects, table)
        out = layer.proj_out(tokens).unflatten(1, (height, width)).permute(0, 3, 1, 2)
        return table.repeat_branches(hidden) + out.reshape(-1, channels, height, width)


def _resnets(block: Any) -> Iterator[tuple[Any, Transformer2DModel | None]]:
    """The residual blocks of a level, each with its transformer."""
    return zip(block.resnets, getattr(block, "attentions", [None] * len(block.resnets)), strict=True)


def _concatenate(inputs: list[Tensor]) -> Tensor:
    """The inputs' channels in one tensor; empties the list, so that the inputs can be freed."""
    joined = inputs[0] if len(inputs) == 1 else torch.cat(inputs, 1)
    inputs.clear()
    return joined
