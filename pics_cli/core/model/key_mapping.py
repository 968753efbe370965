"""Names in a research checkpoint → names in diffusers' and transformers' modules, for networks of any shape.

The research code is built on Latent Diffusion's classes (UNet, ControlNet, autoencoder) and on the original DINOv2.
Every function takes the shapes of one part's tensors, with the part's prefix taken off the names, and returns a
`KeyMapping`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_VAE_RESNET = {**{name: name for name in ("norm1", "conv1", "norm2", "conv2")}, "nin_shortcut": "conv_shortcut"}
_VAE_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}


class TensorSource(NamedTuple):
    """Source of a tensor of a module: part `part` of `parts` equal row blocks of a research tensor."""

    key: str
    part: int = 0
    parts: int = 1
    grid: int = 0
    """Above 0: a position table, to be resampled to this many patches a side."""

    def shape(self, shapes: Shapes, wanted: Shape) -> Shape:
        """The shape of what `read` returns."""
        shape = shapes[self.key]
        if self.grid:
            return (1, 1 + self.grid**2, *shape[2:])
        rows = (shape[0] // self.parts, *shape[1:]) if shape else shape
        return rows[:2] if _is_linear(rows, wanted) else rows

    def read(self, tensor: Tensor, wanted: Shape) -> Tensor:
        """The module's tensor, of shape `wanted`; a linear layer may be a 1×1 convolution in the checkpoint."""
        if self.grid:
            return resample_positions(tensor, self.grid)
        rows = tensor.chunk(self.parts)[self.part] if self.parts > 1 else tensor
        return rows[..., 0, 0] if _is_linear(tuple(rows.shape), wanted) else rows


@dataclass
class KeyMapping:
    """Sources of the tensors of one part."""

    sources: dict[str, TensorSource] = field(default_factory=dict)
    """Name in the module → source."""
    dropped: dict[str, str] = field(default_factory=dict)
    """Research name → why it is not needed."""
    unknown: list[str] = field(default_factory=list)
    """Research names that have no mapping."""


def _map_keys(
    shapes: Shapes, names: Mapping[str, str | Sequence[str]], dropped: Mapping[str, str] | None = None
) -> KeyMapping:
    """Map every tensor.

    Args:
        shapes: of the tensors.
        names: research tensor, or module with the same names inside → name here; several: of equal row blocks of a
            fused tensor.
        dropped: pattern of research names → why they are not needed.
    """
    mapping = KeyMapping()
    for key in shapes:
        known = key
        while known and known not in names:
            known = known.rpartition(".")[0]
        if reason := next((why for pattern, why in (dropped or {}).items() if re.search(pattern, key)), None):
            mapping.dropped[key] = reason
        elif not known:
            mapping.unknown.append(key)
        else:
            target = names[known]
            targets = [target] if isinstance(target, str) else target
            for part, target in enumerate(targets):
                mapping.sources[target + key.removeprefix(known)] = TensorSource(key, part, len(targets))
    return mapping


def map_unet_keys(shapes: Shapes) -> KeyMapping:
    """UNet or ControlNet: the ControlNet has the same encoder, the hint's embedding and the zero convolutions."""
    hints = hint_convolutions(shapes)
    names = {
        "time_embed.0": "time_embedding.linear_1",
        "time_embed.2": "time_embedding.linear_2",
        "input_blocks.0.0": "conv_in",
        **_prefixed("middle_block.0", "mid_block.resnets.0", _RESNET),
        "middle_block.1": "mid_block.attentions.0",
        **_prefixed("middle_block.2", "mid_block.resnets.1", _RESNET),
        "out.0": "conv_norm_out",
        "out.2": "conv_out",
        "middle_block_out.0": "controlnet_mid_block",
    }
    level = resnet = 0
    for i in range(1, count_modules(shapes, "input_blocks")):
        if f"input_blocks.{i}.0.op.weight" in shapes:
            names[f"input_blocks.{i}.0.op"] = f"down_blocks.{level}.downsamplers.0.conv"
            level, resnet = level + 1, 0
        else:
            names |= _prefixed(f"input_blocks.{i}.0", f"down_blocks.{level}.resnets.{resnet}", _RESNET)
            names[f"input_blocks.{i}.1"] = f"down_blocks.{level}.attentions.{resnet}"
            resnet += 1
    for i in range(count_modules(shapes, "output_blocks")):
        level, last = divmod(i, resnet + 1)
        names |= _prefixed(f"output_blocks.{i}.0", f"up_blocks.{level}.resnets.{last}", _RESNET)
        names[f"output_blocks.{i}.1"] = f"up_blocks.{level}.attentions.{last}"
        # The upsampler comes after the transformer, where there is one.
        names |= {f"output_blocks.{i}.{index}.conv": f"up_blocks.{level}.upsamplers.0.conv" for index in (1, 2)}
    for i in range(count_modules(shapes, "zero_convs")):
        names[f"zero_convs.{i}.0"] = f"controlnet_down_blocks.{i}"
    dropped = {r"\.blend_mlp\.": "blend_mlp is never called by the research network"}
    if hints:
        layers = ["conv_in", *(f"blocks.{i}" for i in range(len(hints) - 2)), "conv_out"]
        names |= {hint: f"controlnet_cond_embedding.{layer}" for hint, layer in zip(hints, layers, strict=True)}
        dropped[r"^input_blocks\.0\.0\."] = "the hint embedding replaces the ControlNet's input convolution"
    return _map_keys(shapes, names, dropped)


def _prefixed(source: str, target: str, inside: Mapping[str, str]) -> dict[str, str]:
    """Full research names → full names here, of a block with these names inside."""
    return {f"{source}.{name}": f"{target}.{inner_target}" for name, inner_target in inside.items()}


def hint_convolutions(shapes: Shapes) -> list[str]:
    """Modules of the hint's convolutions, in order; activations lie between them."""
    indices = {int(key.split(".")[1]) for key in shapes if key.startswith("input_hint_block.")}
    return [f"input_hint_block.{i}" for i in sorted(indices)]


def map_vae_keys(shapes: Shapes) -> KeyMapping:
    """Autoencoder: the decoder's levels are counted from the other end, the attention's 1×1 convolutions are linear."""
    names = {"quant_conv": "quant_conv", "post_quant_conv": "post_quant_conv"}
    for side, way in (("encoder", "down"), ("decoder", "up")):
        names |= {f"{side}.{name}": f"{side}.{name}" for name in ("conv_in", "conv_out")}
        names[f"{side}.norm_out"] = f"{side}.conv_norm_out"
        names |= _prefixed(f"{side}.mid.attn_1", f"{side}.mid_block.attentions.0", _VAE_ATTENTION)
        for i in range(2):
            names |= _prefixed(f"{side}.mid.block_{i + 1}", f"{side}.mid_block.resnets.{i}", _VAE_RESNET)
        levels = count_modules(shapes, f"{side}.{way}")
        for level in range(levels):
            source = f"{side}.{way}.{level}"
            target = f"{side}.{way}_blocks.{level if way == 'down' else levels - 1 - level}"
            names[f"{source}.{way}sample"] = f"{target}.{way}samplers.0"
            for i in range(count_modules(shapes, f"{source}.block")):
                names |= _prefixed(f"{source}.block.{i}", f"{target}.resnets.{i}", _VAE_RESNET)
    return _map_keys(shapes, names, {r"^loss\.": "the autoencoder's training loss"})


def map_dinov2_keys(shapes: Shapes, grid: int) -> KeyMapping:
    """The original DINOv2.

    Args:
        shapes: of the original file's tensors.
        grid: patches a side of the pictures that the model will see, to which the position table is resampled.
    """
    inside = {
        **{name: name for name in ("norm1", "norm2", "mlp.fc1", "mlp.fc2")},
        "ls1.gamma": "layer_scale1.lambda1",
        "ls2.gamma": "layer_scale2.lambda1",
        "attn.proj": "attention.output.dense",
        "mlp.w12": "mlp.weights_in",
        "mlp.w3": "mlp.weights_out",
    }
    names: dict[str, Any] = {
        "cls_token": "embeddings.cls_token",
        "mask_token": "embeddings.mask_token",
        "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj": "embeddings.patch_embeddings.projection",
        "norm": "layernorm",
    }
    for i in range(count_modules(shapes, "blocks")):
        block, layer = f"blocks.{i}", f"encoder.layer.{i}"
        names |= _prefixed(block, layer, inside)
        names[f"{block}.attn.qkv"] = [f"{layer}.attention.attention.{name}" for name in ("query", "key", "value")]
    mapping = _map_keys(shapes, names)
    if "pos_embed" in shapes:
        mapping.sources[names["pos_embed"]] = TensorSource("pos_embed", grid=grid)
    return mapping


def map_projector_keys(shapes: Shapes) -> KeyMapping:
    """The linear layer from DINOv2's width to the networks'."""
    return _map_keys(shapes, {"weight": "weight", "bias": "bias"})


def resample_positions(table: Tensor, grid: int) -> Tensor:
    """Position table [1, 1 + n², C] for `grid` patches a side: [1, 1 + grid², C], resampled as the research code does.

    It gives a scale factor of (grid + 0.1) / n where transformers' own resampling gives the size, which moves every
    position a little: stored so, with a picture size that needs no resampling, the features agree.
    """
    side = round((table.shape[1] - 1) ** 0.5)
    if side == grid:
        return table
    patches = table[:, 1:].float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    scale = (grid + 0.1) / side
    patches = F.interpolate(patches, scale_factor=(scale, scale), mode="bicubic")
    return torch.cat([table[:, :1], patches.permute(0, 2, 3, 1).flatten(1, 2).to(table.dtype)], 1)


def count_modules(shapes: Shapes, name: str) -> int:
    """Number of numbered modules under a name."""
    pattern = re.compile(re.escape(name) + r"\.(\d+)\.")
    return max((int(match[1]) + 1 for key in shapes if (match := pattern.match(key))), default=0)


def _is_linear(shape: Shape, wanted: Shape) -> bool:
    return len(wanted) == 2 and len(shape) == 4 and shape[2:] == (1, 1)
