"""Modules from a research checkpoint: their options from the shapes of its tensors, their weights by a key mapping."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from pics_cli.core.model.key_mapping import KeyMapping, Shape, count_modules, hint_convolutions
from pics_cli.core.model.weight_files import Checkpoint
from pics_cli.errors import PicsError, abbreviate


class CheckpointPart(dict[str, Shape]):
    """Shapes of the tensors of a checkpoint under a prefix, by their names without it.

    Raises:
        PicsError: (on look-up) the checkpoint has no such tensor.
    """

    def __init__(self, checkpoint: Checkpoint, prefix: str = "") -> None:
        self.checkpoint, self.prefix = checkpoint, prefix
        shapes = checkpoint.shapes.items()
        super().__init__((key.removeprefix(prefix), shape) for key, shape in shapes if key.startswith(prefix))

    def __missing__(self, key: str) -> Shape:
        raise PicsError(
            f"{self.checkpoint.path}: {self.prefix}{key} is missing",
            "the file is not complete, or not a checkpoint of the research code",
        )

    def read(self, key: str) -> torch.Tensor:
        return self.checkpoint.read(self.prefix + key)


def network_options(part: CheckpointPart, head_width: int) -> dict[str, Any]:
    """Arguments of `InteractionUNet` (or, where the part has a hint, `BackgroundControlNet`) but for τ."""
    widths: list[int] = []
    attention: list[bool] = []
    residuals = [0]
    for i in range(1, count_modules(part, "input_blocks")):
        if f"input_blocks.{i}.0.op.weight" in part:
            residuals.append(0)
            continue
        if not residuals[-1]:
            widths.append(part[f"input_blocks.{i}.0.out_layers.3.weight"][0])
            attention.append(f"input_blocks.{i}.1.proj_in.weight" in part)
        residuals[-1] += 1
    where = f"{part.checkpoint.path}: {part.prefix}input_blocks"
    if len(set(residuals)) > 1 or not widths:
        raise PicsError(f"{where}: residual blocks per level are {residuals}, expected the same number in every level")
    if bad := [width for width in widths if width % head_width]:
        raise PicsError(
            f"{where}: widths {widths} are not multiples of the head width {head_width} ({bad[0]} is not)",
            "name the network's head width, which its weights do not tell: --head-width N",
        )
    options = {
        "block_out_channels": tuple(widths),
        "layers_per_block": residuals[0],
        "attention_levels": tuple(attention),
        "head_width": head_width,
        "context_width": part["middle_block.1.transformer_blocks.0.attn2.to_k.weight"][1],
    }
    if hints := hint_convolutions(part):
        widths_of_hint = tuple(part[f"{hint}.weight"][0] for hint in hints[:-1:2])
        return {"hint_channels": part[f"{hints[0]}.weight"][1], "hint_widths": widths_of_hint, **options}
    return {"in_channels": part["input_blocks.0.0.weight"][1], "out_channels": part["out.2.weight"][0], **options}


def vae_options(part: CheckpointPart) -> dict[str, Any]:
    """Arguments of diffusers' AutoencoderKL but for its scaling factor."""
    levels = count_modules(part, "encoder.down")
    return {
        "in_channels": part["encoder.conv_in.weight"][1],
        "out_channels": part["decoder.conv_out.weight"][0],
        "latent_channels": part["post_quant_conv.weight"][1],
        "block_out_channels": tuple(part[f"encoder.down.{i}.block.0.conv2.weight"][0] for i in range(levels)),
        "layers_per_block": count_modules(part, "encoder.down.0.block"),
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
    }


def dinov2_options(part: CheckpointPart, head_width: int, reference_size: int) -> dict[str, Any]:
    """Arguments of transformers' Dinov2Config for the original's tensors.

    Raises:
        PicsError: a tensor is missing; head or patch do not divide what they have to.
    """
    width, patch = part["cls_token"][-1], part["patch_embed.proj.weight"][-1]
    where = f"{part.checkpoint.path}: {part.prefix}"
    if width % head_width:
        raise PicsError(
            f"{where}cls_token: width {width} is not a multiple of the head width {head_width}",
            "name DINOv2's head width, which its weights do not tell: --encoder-head-width N",
        )
    if reference_size % patch:
        raise PicsError(f"{where}patch_embed: patches of {patch} do not divide references of {reference_size} pixels")
    gated = "blocks.0.mlp.w12.weight" in part
    if gated:
        hidden = part["blocks.0.mlp.w3.weight"][1]
        ratio = next((r for r in range(1, 17) if (int(width * r * 2 / 3) + 7) // 8 * 8 == hidden), 4)
    else:
        ratio = part["blocks.0.mlp.fc1.weight"][0] // width
    return {
        "hidden_size": width,
        "num_hidden_layers": count_modules(part, "blocks"),
        "num_attention_heads": width // head_width,
        "mlp_ratio": ratio,
        "use_swiglu_ffn": gated,
        "patch_size": patch,
        "image_size": reference_size,
        "qkv_bias": "blocks.0.attn.qkv.bias" in part,
    }


def build_on_meta(build: Callable[[], nn.Module], where: str) -> nn.Module:
    """A module on the meta device.

    Raises:
        PicsError: its library rejects the shape.
    """
    try:
        with torch.device("meta"):
            return build()
    except ValueError as error:
        raise PicsError(f"{where}: a shape that cannot be built: {error}") from None


def mapping_errors(name: str, module: nn.Module, mapping: KeyMapping, part: CheckpointPart) -> list[str]:
    """Reasons why a part cannot be filled, a line for each kind of error."""
    expected = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    unexpected = [part.prefix + source.key for key, source in mapping.sources.items() if key not in expected]
    errors = {
        "unknown tensors": [part.prefix + key for key in mapping.unknown] + list(dict.fromkeys(unexpected)),
        "no tensors for": [key for key in expected if key not in mapping.sources],
        "tensors of another shape": [
            f"{part.prefix}{source.key} {source.shape(part, expected[key])} for {expected[key]}"
            for key, source in mapping.sources.items()
            if key in expected and source.shape(part, expected[key]) != expected[key]
        ],
    }
    return [f"{part.checkpoint.path}: {name}: {what}: {abbreviate(keys)}" for what, keys in errors.items() if keys]


def load_mapped_weights(module: nn.Module, mapping: KeyMapping, part: CheckpointPart, dtype: torch.dtype) -> None:
    """Give a module on the meta device its weights, one tensor after the other; the mapping must have no errors."""
    state = {}
    for key, value in module.state_dict().items():
        source = mapping.sources[key]
        tensor = source.read(part.read(source.key), tuple(value.shape)).to(dtype)
        # Parts of a fused tensor would share its memory, which cannot be saved as separate tensors.
        state[key] = tensor.clone() if source.parts > 1 else tensor.contiguous()
    module.load_state_dict(state, strict=True, assign=True)


def check_image_size(size: int, downsampling: int, levels: int) -> None:
    """Refuse a picture size that the networks' levels do not divide.

    Raises:
        PicsError: with the step between allowed sizes.
    """
    step = downsampling * 2 ** (levels - 1)
    if size < step or size % step:
        raise PicsError(f"--image-size {size}: expected a multiple of {step}, by which the networks reduce pictures")
