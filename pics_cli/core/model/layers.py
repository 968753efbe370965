"""Runs the layers of UNet and ControlNet.

Two things are other than in diffusers: both guidance branches share what precedes the first cross-attention, and the
blocks get regions and objects.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pics_cli.core.model.interaction import ContextCache, ObjectContexts
from pics_cli.core.model.regions import Regions
from pics_cli.core.model.unet_layers import Transformer


def transformer_layers(network: nn.Module) -> Iterator[Transformer]:
    """The transformers of a network, in the order of its modules."""
    return (module for module in network.modules() if isinstance(module, Transformer))


def number_blocks(network: nn.Module) -> None:
    """Give each interaction block of a network its number, by which it finds its cache."""
    for number, transformer in enumerate(transformer_layers(network)):
        transformer.block.layer_index = number


def make_caches(
    network: nn.Module, objects: ObjectContexts, regions: Regions, height: int, width: int
) -> list[ContextCache]:
    """The context caches of every interaction block for a latent of `height` × `width`."""
    return [
        transformer.block.make_cache(objects, regions.table(height >> level, width >> level))
        for transformer, level in _levels(network)
    ]


def attention_sizes(network: Any, height: int, width: int) -> list[tuple[int, int]]:
    """The resolutions of a network's transformers, for a latent of `height` × `width`."""
    return sorted({(height >> level, width >> level) for _, level in _levels(network)})


def _levels(network: Any) -> list[tuple[Transformer, int]]:
    """Every transformer with the level of the pyramid it works at, in the order of their interaction blocks."""
    last = len(network.down_blocks) - 1
    levels = dict[Transformer, int]()
    for level, block in enumerate(network.down_blocks):
        levels.update(dict.fromkeys(getattr(block, "attentions", ()), level))
    for level, block in enumerate(getattr(network, "up_blocks", ())):
        levels.update(dict.fromkeys(getattr(block, "attentions", ()), last - level))
    levels.update(dict.fromkeys(network.mid_block.attentions, last))
    return sorted(levels.items(), key=lambda entry: entry[0].block.layer_index)


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
        self.time: Tensor = network.time_embedding(timestep, dtype)

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

    def _block(self, resnet: Any, transformer: Transformer | None, inputs: list[Tensor]) -> Tensor:
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

    def _transformer(self, layer: Transformer, hidden: Tensor) -> Tensor:
        """[B, C, h, w] through a transformer: [G · n, C, h, w]."""
        _, channels, height, width = hidden.shape
        tokens = layer.proj_in(layer.norm(hidden).permute(0, 2, 3, 1).flatten(1, 2))
        table = self.regions.table(height, width)
        tokens = layer.block(tokens, self.objects, table)
        out = layer.proj_out(tokens).unflatten(1, (height, width)).permute(0, 3, 1, 2)
        return table.repeat_branches(hidden) + out.reshape(-1, channels, height, width)


def _resnets(block: Any) -> Iterator[tuple[Any, Transformer | None]]:
    """The residual blocks of a level, each with its transformer."""
    return zip(block.resnets, getattr(block, "attentions", [None] * len(block.resnets)), strict=True)


def _concatenate(inputs: list[Tensor]) -> Tensor:
    """The inputs' channels in one tensor; empties the list, so that the inputs can be freed."""
    joined = inputs[0] if len(inputs) == 1 else torch.cat(inputs, 1)
    inputs.clear()
    return joined
