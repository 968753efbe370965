"""Small models: new networks of any shape that work on pixels (`model.shape` of a recipe).

Initial weights: the UNet's output convolution is zero, so that the first prediction is 0, and a network that predicts
a residual gives the control image, or of several layers mostly the first. `attn_bg`'s output projection is zero, as in
`new_model`. The ControlNet's zero convolutions and its embedding of the hint are not zero and keep the hint's variance.
All other layers have torch's own initial weights. The encoder of the references is a DINOv2 with random weights.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from pics_cli.core.model.blending import initial_output_bias
from pics_cli.core.model.config import ModelConfig, checked_config
from pics_cli.core.model.dinov2 import Dinov2Encoder
from pics_cli.core.model.image_encoder import Projector
from pics_cli.core.model.load_weights import build_on_meta
from pics_cli.core.model.new_model import blank_controlnet, controlnet_from_unet, fill_module, new_projector
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.model.pixel_autoencoder import LATENT_SCALE, PixelAutoencoder
from pics_cli.core.model.schedulers import pixel_scheduler
from pics_cli.core.model.unet import InteractionUNet
from pics_cli.core.recipes.training_sections import ModelShape
from pics_cli.errors import PicsError

_WHERE = "model.shape"
_ALL_LAYERS = re.compile("")


def small_config(shape: ModelShape, overrides: Mapping[str, Any]) -> ModelConfig:
    """The configuration of a small network.

    Args:
        shape: of the network.
        overrides: values of `ModelConfig` that do not follow from the shape; the others are as published, but for the
            factor on the latent: pixels need none.

    Raises:
        PicsError: with every error in the shape, or in the values, by keys of a training recipe.
    """
    published = ModelConfig()
    size = overrides.get("image_size", published.image_size)
    reference_size = overrides.get("reference_size", published.reference_size)
    if errors := list(_shape_errors(shape, size, reference_size)):
        raise PicsError("\n".join(errors), "change the recipe, or give another value with --set KEY=VALUE")
    derived = {
        "object_tokens": 1 + (reference_size // shape.encoder_patch) ** 2,
        "context_width": shape.context_width,
        "latent_channels": 3 * shape.patch**2,
        "downsampling": shape.patch,
    }
    return checked_config({"latent_scale": LATENT_SCALE, **overrides, **derived})


def blank_small_parts(config: ModelConfig, shape: ModelShape) -> dict[str, Any]:
    """The parts of a small network by name, without memory; `config`: from `small_config`."""
    unet = _blank_unet(config, shape)
    return {
        "unet": unet,
        "controlnet": blank_controlnet(unet, shape.hint_widths, config.hint_channels, config.shadows),
        "image_encoder": build_on_meta(lambda: _encoder(config, shape), _WHERE),
        "projector": build_on_meta(lambda: Projector(shape.encoder_width, shape.context_width), _WHERE),
        "vae": PixelAutoencoder(shape.patch),
    }


def _blank_unet(config: ModelConfig, shape: ModelShape) -> Any:
    return build_on_meta(
        lambda: InteractionUNet(
            in_channels=config.latent_channels, out_channels=config.output_channels,
            block_out_channels=tuple(shape.block_out_channels), layers_per_block=shape.layers_per_block,
            attention_levels=tuple(shape.attention_levels), head_width=shape.head_width,
            context_width=shape.context_width, norm_groups=shape.norm_groups, tau=config.tau,
        ),
        _WHERE,
    )  # fmt: skip


def new_small_model(shape: ModelShape, overrides: Mapping[str, Any], seed: int = 0) -> PicsModel:
    """A new network in float32, on the CPU.

    Args:
        shape, overrides: see `small_config`.
        seed: of the weights.

    Raises:
        PicsError: see `small_config`.
    """
    config = small_config(shape, overrides)
    blank_unet = _blank_unet(config, shape)
    build_on_meta(lambda: _encoder(config, shape), _WHERE)  # a shape that cannot be built is said
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet: Any = fill_module(blank_unet, {}, _ALL_LAYERS, _WHERE)
        nn.init.zeros_(unet.conv_out.weight)
        unet.conv_out.bias.data.copy_(initial_output_bias(config))
        controlnet: Any = controlnet_from_unet(unet, shape.hint_widths, config.hint_channels, config.shadows)
        _init_hint_layers(controlnet)
        encoder = _encoder(config, shape)
        projector = new_projector(encoder, shape.context_width)
    scheduler = pixel_scheduler(config.noise_schedule == "zero_terminal_snr")
    return PicsModel(config, unet, controlnet, encoder, projector, PixelAutoencoder(shape.patch), scheduler)


def _init_hint_layers(controlnet: Any) -> None:
    """Initialise the ControlNet's hint embedding and zero convolutions so that the hint's deviation is kept.

    Layers that start at zero keep a trained network as it is; in a new one they would only hide the hint. So would
    torch's initial weights: each convolution reduces the deviation to a third and no norm restores it, so that a
    thousandth was left in the end. SiLU halves small values, so weights before it have twice the deviation.
    """
    embedding = controlnet.controlnet_cond_embedding
    last_layers = (embedding.conv_out, *controlnet.controlnet_down_blocks, controlnet.controlnet_mid_block)
    for gain, layers in ((2.0, (embedding.conv_in, *embedding.blocks)), (1.0, last_layers)):
        for layer in layers:
            nn.init.normal_(layer.weight, std=gain / math.sqrt(layer.weight[0].numel()))
            nn.init.zeros_(layer.bias)


def _encoder(config: ModelConfig, shape: ModelShape) -> Dinov2Encoder:
    return Dinov2Encoder(
        hidden_size=shape.encoder_width, num_hidden_layers=shape.encoder_layers,
        num_attention_heads=shape.encoder_heads, image_size=config.reference_size, patch_size=shape.encoder_patch,
    )  # fmt: skip


def _shape_errors(shape: ModelShape, image_size: int, reference_size: int) -> Iterator[str]:
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
