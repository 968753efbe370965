"""Names in a research checkpoint → names in diffusers' and transformers' modules, for networks of any shape.

The research code is built on Latent Diffusion's classes (UNet, ControlNet, autoencoder) and on the original DINOv2.
Every function takes the shapes of one part's tensors, with the part's prefix taken off the names, and returns a
`KeyMapping`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

UNUSED_EXPERT = "blend_mlp is never called by the research network"
UNUSED_INPUT = "the hint embedding replaces the ControlNet's input convolution"
UNUSED_MASK = "mask token, used in DINOv2's pretraining only"

_RESIDUAL = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_VAE_RESIDUAL = {**{name: name for name in ("norm1", "conv1", "norm2", "conv2")}, "nin_shortcut": "conv_shortcut"}
_VAE_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
_VAE_ENDS = {"conv_in": "conv_in", "norm_out": "conv_norm_out", "conv_out": "conv_out"}


class TensorSource(NamedTuple):
    """Where a tensor of ours comes from: part `part` of `parts` equal row blocks of a research tensor."""

    key: str
    part: int = 0
    parts: int = 1
    grid: int = 0
    """Above 0: a position table, to be resampled to this many patches a side."""

    def shape(self, shapes: Shapes, wanted: Shape) -> Shape:
        """The shape that `read` will give."""
        shape = shapes[self.key]
        if self.grid:
            return (1, 1 + self.grid**2, *shape[2:])
        rows = (shape[0] // self.parts, *shape[1:]) if shape else shape
        return rows[:2] if _is_linear(rows, wanted) else rows

    def read(self, tensor: Tensor, wanted: Shape) -> Tensor:
        """Our tensor, of shape `wanted`; a 1×1 convolution may stand where we have a linear layer."""
        if self.grid:
            return resample_positions(tensor, self.grid)
        rows = tensor.chunk(self.parts)[self.part] if self.parts > 1 else tensor
        return rows[..., 0, 0] if _is_linear(tuple(rows.shape), wanted) else rows


@dataclass
class KeyMapping:
    """Where the tensors of one part come from."""

    sources: dict[str, TensorSource] = field(default_factory=dict)
    """Our name → where it comes from."""
    dropped: dict[str, str] = field(default_factory=dict)
    """Research name → why it is not needed."""
    unknown: list[str] = field(default_factory=list)
    """Research names that nothing is known of."""


def map_unet_keys(shapes: Shapes) -> KeyMapping:
    """UNet or ControlNet: the ControlNet has the same encoder, the hint's embedding and the zero convolutions."""
    control = any(key.startswith("input_hint_block.") for key in shapes)
    blocks = dict(_network_blocks(shapes, control))
    mapping = KeyMapping()
    for key in shapes:
        module, _, kind = key.rpartition(".")
        if ".blend_mlp." in key:
            mapping.dropped[key] = UNUSED_EXPERT
        elif control and module == "input_blocks.0.0":
            mapping.dropped[key] = UNUSED_INPUT
        elif (target := _inside(module, blocks)) is not None:
            mapping.sources[f"{target}.{kind}"] = TensorSource(key)
        else:
            mapping.unknown.append(key)
    return mapping


def _inside(module: str, blocks: Mapping[str, str]) -> str | None:
    """The name of a research module, whose block or itself is in the table."""
    if module in blocks:
        return blocks[module]
    match = re.match(r"((?:input|output)_blocks\.\d+\.\d+|middle_block\.\d+)\.(.+)", module)
    if not match or match[1] not in blocks:
        return None
    block, rest = blocks[match[1]], match[2]
    if "resnets." not in block:
        return f"{block}.{rest}"  # transformers have the same names inside
    return f"{block}.{_RESIDUAL[rest]}" if rest in _RESIDUAL else None


def _network_blocks(shapes: Shapes, control: bool) -> Iterator[tuple[str, str]]:
    """Research block → our block."""
    yield from {"time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2"}.items()
    yield from {"input_blocks.0.0": "conv_in", "out.0": "conv_norm_out", "out.2": "conv_out"}.items()
    yield from {"middle_block.0": "mid_block.resnets.0", "middle_block.1": "mid_block.attentions.0"}.items()
    yield "middle_block.2", "mid_block.resnets.1"
    level = residual = 0
    for i in range(1, count_modules(shapes, "input_blocks")):
        if f"input_blocks.{i}.0.op.weight" in shapes:
            yield f"input_blocks.{i}.0.op", f"down_blocks.{level}.downsamplers.0.conv"
            level, residual = level + 1, 0
        else:
            yield f"input_blocks.{i}.0", f"down_blocks.{level}.resnets.{residual}"
            yield f"input_blocks.{i}.1", f"down_blocks.{level}.attentions.{residual}"
            residual += 1
    for i in range(count_modules(shapes, "output_blocks")):
        level, last = divmod(i, residual + 1)
        yield f"output_blocks.{i}.0", f"up_blocks.{level}.resnets.{last}"
        yield f"output_blocks.{i}.1", f"up_blocks.{level}.attentions.{last}"
        for index in (1, 2):
            if f"output_blocks.{i}.{index}.conv.weight" in shapes:
                yield f"output_blocks.{i}.{index}.conv", f"up_blocks.{level}.upsamplers.0.conv"
    if control:
        hints = hint_convolutions(shapes)
        names = ["conv_in", *(f"blocks.{i}" for i in range(len(hints) - 2)), "conv_out"]
        for hint, name in zip(hints, names, strict=True):
            yield hint, f"controlnet_cond_embedding.{name}"
        yield "middle_block_out.0", "controlnet_mid_block"
        for i in range(count_modules(shapes, "zero_convs")):
            yield f"zero_convs.{i}.0", f"controlnet_down_blocks.{i}"


def hint_convolutions(shapes: Shapes) -> list[str]:
    """Modules of the hint's convolutions, in order; activations lie between them."""
    places = {int(key.split(".")[1]) for key in shapes if key.startswith("input_hint_block.")}
    return [f"input_hint_block.{i}" for i in sorted(places)]


def map_vae_keys(shapes: Shapes) -> KeyMapping:
    """Autoencoder: the decoder's levels are counted from the other end, the attention's 1×1 convolutions are linear."""
    levels = count_modules(shapes, "decoder.up")
    mapping = KeyMapping()
    for key in shapes:
        module, _, kind = key.rpartition(".")
        if (target := _vae_module(module, levels)) is not None:
            mapping.sources[f"{target}.{kind}"] = TensorSource(key)
        elif key.startswith("loss."):
            mapping.dropped[key] = "the autoencoder's training loss"
        else:
            mapping.unknown.append(key)
    return mapping


def _vae_module(module: str, levels: int) -> str | None:
    if module in ("quant_conv", "post_quant_conv"):
        return module
    side, _, rest = module.partition(".")
    if side not in ("encoder", "decoder"):
        return None
    if rest in _VAE_ENDS:
        return f"{side}.{_VAE_ENDS[rest]}"
    if match := re.fullmatch(r"mid\.block_([12])\.(\w+)", rest):
        inside = _VAE_RESIDUAL.get(match[2])
        return inside and f"{side}.mid_block.resnets.{int(match[1]) - 1}.{inside}"
    if match := re.fullmatch(r"mid\.attn_1\.(\w+)", rest):
        inside = _VAE_ATTENTION.get(match[1])
        return inside and f"{side}.mid_block.attentions.0.{inside}"
    if match := re.fullmatch(r"(down|up)\.(\d+)\.(\w+)\.(.+)", rest):
        way, level = match[1], int(match[2])
        block = f"{side}.{way}_blocks.{level if way == 'down' else levels - 1 - level}"
        if match[3] == f"{way}sample" and match[4] == "conv":
            return f"{block}.{way}samplers.0.conv"
        number, _, inside = match[4].partition(".")
        if match[3] == "block" and inside in _VAE_RESIDUAL:
            return f"{block}.resnets.{number}.{_VAE_RESIDUAL[inside]}"
    return None


def map_dinov2_keys(shapes: Shapes, ours: Collection[str], grid: int) -> KeyMapping:
    """The original DINOv2.

    Args:
        shapes: of the original file's tensors.
        ours: names in the Dinov2Model at hand: transformers has renamed them between its versions.
        grid: patches a side of the pictures that the model will see, to which the position table is resampled.
    """
    fused = any(".mlp.weights_in." in name for name in ours)
    separate = any(".attention.q_proj." in name for name in ours)
    attention = [f"attention.{n}_proj" for n in "qkv"] if separate else [
        f"attention.attention.{n}" for n in ("query", "key", "value")
    ]  # fmt: skip
    inside = {
        "norm1": ["norm1"],
        "norm2": ["norm2"],
        "attn.qkv": attention,
        "attn.proj": ["attention.o_proj" if separate else "attention.output.dense"],
        "ls1": ["layer_scale1"],
        "ls2": ["layer_scale2"],
        "mlp.fc1": ["mlp.fc1"],
        "mlp.fc2": ["mlp.fc2"],
        "mlp.w12": ["mlp.weights_in"] if fused else ["mlp.gate_proj", "mlp.up_proj"],
        "mlp.w3": ["mlp.weights_out" if fused else "mlp.down_proj"],
    }
    outside = {"norm": "layernorm", "patch_embed.proj": "embeddings.patch_embeddings.projection"}
    embeddings = {f"{name}_token": f"embeddings.{name}_token" for name in ("cls", "mask")}
    mapping = KeyMapping()
    for key in shapes:
        module, _, kind = key.rpartition(".")
        match = re.fullmatch(r"blocks\.(\d+)\.(.+)", module)
        if match and match[2] in inside:
            targets = inside[match[2]]
            for part, target in enumerate(targets):
                name = f"encoder.layer.{match[1]}.{target}.{'lambda1' if kind == 'gamma' else kind}"
                mapping.sources[name] = TensorSource(key, part, len(targets))
        elif module in outside:
            mapping.sources[f"{outside[module]}.{kind}"] = TensorSource(key)
        elif key == "pos_embed":
            mapping.sources["embeddings.position_embeddings"] = TensorSource(key, grid=grid)
        elif key == "mask_token" and embeddings[key] not in ours:
            mapping.dropped[key] = UNUSED_MASK
        elif key in embeddings:
            mapping.sources[embeddings[key]] = TensorSource(key)
        else:
            mapping.unknown.append(key)
    return mapping


def map_projector_keys(shapes: Shapes) -> KeyMapping:
    """The linear layer from DINOv2's width to the networks'."""
    known = ("weight", "bias")
    return KeyMapping(
        {key: TensorSource(key) for key in shapes if key in known}, {}, [key for key in shapes if key not in known]
    )


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
    """How many numbered modules lie under a name."""
    pattern = re.compile(re.escape(name) + r"\.(\d+)\.")
    return max((int(match[1]) + 1 for key in shapes if (match := pattern.match(key))), default=0)


def _is_linear(shape: Shape, wanted: Shape) -> bool:
    return len(wanted) == 2 and len(shape) == 4 and shape[2:] == (1, 1)
