"""Small models: new networks of any shape that work on pixels (`model.shape` of a recipe), and a tiny one for tests.

What starts how: the UNet's output convolution has weights of zero, so that the first prediction is 0, and a network
that corrects its hint paints the hint, or of several pictures mostly the first; `attn_bg`'s output projection is zero,
as `initial` says; the ControlNet's zero convolutions and its embedding of the hint are not zero and keep the hint's
variance; all other layers start as torch has them. The encoder of the references is a DINOv2 with random weights.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import diffusers
import torch
from torch import nn
from transformers import Dinov2Config, Dinov2Model

from pics_cli.core.model.blending import initial_output_bias
from pics_cli.core.model.config import ModelConfig, checked_config
from pics_cli.core.model.controlnet import BackgroundControlNet
from pics_cli.core.model.load_weights import build_on_meta
from pics_cli.core.model.new_model import blank_controlnet, controlnet_from_unet, fill_module, new_projector
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.model.pixel_autoencoder import LATENT_SCALE, PixelAutoencoder
from pics_cli.core.model.schedulers import pixel_scheduler, published_scheduler
from pics_cli.core.model.unet import InteractionUNet
from pics_cli.errors import PicsError

_WHERE = "model.shape"
_ALL_LAYERS = re.compile("")


@dataclass(frozen=True, kw_only=True)
class SmallShape:
    """`model.shape` of a training recipe; see `ModelShape` for the meaning of the values."""

    block_out_channels: tuple[int, ...]
    layers_per_block: int
    attention_levels: tuple[bool, ...]
    head_width: int
    norm_groups: int
    context_width: int
    hint_widths: tuple[int, ...]
    encoder_width: int
    encoder_layers: int
    encoder_heads: int
    encoder_patch: int
    patch: int


def small_config(shape: Mapping[str, Any], overrides: Mapping[str, Any]) -> ModelConfig:
    """The configuration of a small network.

    Args:
        shape: values of `SmallShape`, all of them.
        overrides: values of `ModelConfig` that do not follow from the shape; the others are as published, but for the
            factor on the latent: pixels need none.

    Raises:
        PicsError: with every fault of the shape, or of the values; they name keys of a training recipe.
    """
    small_shape = SmallShape(**shape)
    published = ModelConfig()
    size = overrides.get("image_size", published.image_size)
    reference_size = overrides.get("reference_size", published.reference_size)
    if errors := list(_shape_errors(small_shape, size, reference_size)):
        raise PicsError("\n".join(errors), "change the recipe, or say another value with --set KEY=VALUE")
    derived = {
        "object_tokens": 1 + (reference_size // small_shape.encoder_patch) ** 2,
        "context_width": small_shape.context_width,
        "latent_channels": 3 * small_shape.patch**2,
        "downsampling": small_shape.patch,
    }
    return checked_config({"latent_scale": LATENT_SCALE, **overrides, **derived})


def blank_small_parts(config: ModelConfig, shape: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a small network by name, without memory; `config`: from `small_config`."""
    small_shape = SmallShape(**shape)
    unet = build_on_meta(
        lambda: InteractionUNet(
            in_channels=config.latent_channels, out_channels=config.output_channels,
            block_out_channels=tuple(small_shape.block_out_channels), layers_per_block=small_shape.layers_per_block,
            attention_levels=tuple(small_shape.attention_levels), head_width=small_shape.head_width,
            context_width=small_shape.context_width, norm_groups=small_shape.norm_groups, tau=config.tau,
        ),
        _WHERE,
    )  # fmt: skip
    return {
        "unet": unet,
        "controlnet": blank_controlnet(unet, small_shape.hint_widths, config.hint_channels),
        "image_encoder": build_on_meta(lambda: _encoder(config, small_shape), _WHERE),
        "projector": build_on_meta(lambda: nn.Linear(small_shape.encoder_width, small_shape.context_width), _WHERE),
        "vae": PixelAutoencoder(small_shape.patch),
    }


def new_small_model(
    config: ModelConfig, shape: Mapping[str, Any], seed: int = 0, *, device: str | torch.device = "cpu"
) -> PicsModel:
    """A new network in float32.

    Args:
        config: what it means; what follows from the shape (object tokens, widths, the latent's channels and
            downsampling) is taken from there.
        shape: values of `SmallShape`, all of them.
        seed: of the weights, which are the same on every device.
        device: where it is to lie.

    Raises:
        PicsError: see `small_config`.
    """
    small_shape = SmallShape(**shape)
    chosen = {"image_size": config.image_size, "reference_size": config.reference_size}
    derived = small_config(shape, chosen)
    config = replace(
        config, object_tokens=derived.object_tokens, context_width=derived.context_width,
        latent_channels=derived.latent_channels, downsampling=derived.downsampling,
    )  # fmt: skip
    blank = blank_small_parts(config, shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet: Any = fill_module(blank["unet"], {}, _ALL_LAYERS, _WHERE)
        nn.init.zeros_(unet.conv_out.weight)
        unet.conv_out.bias.data.copy_(initial_output_bias(config))
        controlnet: Any = controlnet_from_unet(unet, small_shape.hint_widths, config.hint_channels)
        _init_hint_layers(controlnet)
        encoder = _encoder(config, small_shape)
        projector = new_projector(encoder, small_shape.context_width)
    return PicsModel(config, unet, controlnet, encoder, projector, blank["vae"], pixel_scheduler(), device=device)


def _init_hint_layers(controlnet: Any) -> None:
    """Initialise the layers that lead the hint in so that its deviation is kept.

    Layers that start at zero keep a trained network as it is; in a new one they would only hide the hint. So would
    torch's own start: each convolution takes two thirds of the deviation away and no norm gives it back, a thousandth
    was left in the end. SiLU halves small values, so weights before it have twice the deviation of those that keep a
    sum's.
    """
    embedding = controlnet.controlnet_cond_embedding
    first_layers = [(layer, 2.0) for layer in (embedding.conv_in, *embedding.blocks)]
    last_layers = (embedding.conv_out, *controlnet.controlnet_down_blocks, controlnet.controlnet_mid_block)
    for layer, gain in (*first_layers, *((layer, 1.0) for layer in last_layers)):
        nn.init.normal_(layer.weight, std=gain / math.sqrt(layer.weight[0].numel()))
        nn.init.zeros_(layer.bias)


def _encoder(config: ModelConfig, shape: SmallShape) -> Any:
    return Dinov2Model(
        Dinov2Config(
            hidden_size=shape.encoder_width, num_hidden_layers=shape.encoder_layers,
            num_attention_heads=shape.encoder_heads, image_size=config.reference_size, patch_size=shape.encoder_patch,
        )
    )  # fmt: skip


def _shape_errors(shape: SmallShape, image_size: int, reference_size: int) -> Iterator[str]:
    """Reasons why a network of this shape cannot be built, a line for each."""
    widths, levels = list(shape.block_out_channels), len(shape.block_out_channels)
    if len(shape.attention_levels) != levels:
        yield (
            f"{_WHERE}.attention_levels: got {len(shape.attention_levels)} values, "
            f"expected {levels}: one for each of block_out_channels"
        )
    # The middle, as wide as the last level, always has attention.
    attended = [
        width for width, attention in zip(widths, (*shape.attention_levels[:-1], True), strict=False) if attention
    ]
    for key, divisor, what, multiples in (
        ("head_width", shape.head_width, "every width of block_out_channels with attention", attended),
        ("norm_groups", shape.norm_groups, "every width of block_out_channels", widths),
        ("encoder_heads", shape.encoder_heads, "encoder_width", [shape.encoder_width]),
        ("encoder_patch", shape.encoder_patch, "model.reference_size", [reference_size]),
    ):
        if bad := [multiple for multiple in multiples if multiple % divisor]:
            yield f"{_WHERE}.{key}: got {divisor}, expected a divisor of {what} ({bad[0]} is not a multiple of it)"
    halvings = shape.patch.bit_length() - 1
    if shape.patch != 1 << halvings:
        yield f"{_WHERE}.patch: got {shape.patch}, expected a power of 2"
    elif len(shape.hint_widths) != halvings + 1:
        yield (
            f"{_WHERE}.hint_widths: got {len(shape.hint_widths)} values, expected {halvings + 1}: all but the first "
            f"halve the picture, down to patch ({shape.patch} pixels)"
        )
    step = shape.patch << (levels - 1)
    if image_size % step:
        yield (
            f"{_WHERE}.patch: model.image_size {image_size} is not a multiple of {step}: patches of {shape.patch} "
            f"pixels, halved {levels - 1} times by block_out_channels"
        )


TINY_CONFIG = ModelConfig(
    image_size=128, object_tokens=17, context_width=48, reference_size=56, steps=4, latent_scale=0.5
)  # fmt: skip
_TINY_SHAPE: dict[str, Any] = {
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "attention_levels": (True, True),
    "head_width": 16,
    "context_width": 48,
}


def tiny_model(seed: int = 0, device: str = "cpu", memory: str = "resident", **overrides: Any) -> PicsModel:
    """A model of 1.5 million parameters for 128×128 pictures.

    Args:
        seed: of the weights; none is zero, so that every branch shows.
        device, memory: see `PicsModel`.
        overrides: values of its `ModelConfig`.
    """
    config = replace(TINY_CONFIG, **overrides)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = InteractionUNet(config.latent_channels, config.latent_channels, **_TINY_SHAPE, tau=config.tau)
        controlnet = BackgroundControlNet(hint_widths=(8, 8, 16, 16), **_TINY_SHAPE, tau=config.tau)
        encoder = Dinov2Model(
            Dinov2Config(
                hidden_size=48, num_hidden_layers=2, num_attention_heads=3, image_size=config.reference_size,
                patch_size=14, use_swiglu_ffn=True, mlp_ratio=4,
            )
        )  # fmt: skip
        vae = diffusers.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(8, 8, 16, 16), layers_per_block=1, norm_num_groups=8, sample_size=config.image_size,
            latent_channels=config.latent_channels, scaling_factor=config.latent_scale,
        )  # fmt: skip
        projector = nn.Linear(48, config.context_width)
        for module in (unet, controlnet, encoder, projector, vae):
            _randomize_zeros(module)
    return PicsModel(
        config, unet, controlnet, encoder, projector, vae, published_scheduler(), device=device, memory=memory
    )


def _randomize_zeros(module: nn.Module) -> None:
    """Give every layer that starts at zero random weights of the usual scale."""
    for parameter in module.parameters():
        if not parameter.any():
            scale = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
            nn.init.normal_(parameter, std=scale)
