"""Whether the parts of a model fit its configuration and each other, and the configuration that follows from them."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from pics_cli.core.model.config import ModelConfig
from pics_cli.core.model.pixel_autoencoder import PixelAutoencoder


def config_of_parts(
    config: ModelConfig,
    unet: Any,
    encoder: Any,
    vae: Any,
    noise: Mapping[str, Any] | None = None,
    keep: Collection[str] = (),
) -> ModelConfig:
    """A configuration with the values that follow from the parts.

    Args:
        config: has the other values.
        unet, encoder, vae: the parts.
        noise: configuration of the base model's scheduler.
        keep: names of values of `config` that are not replaced: prediction_type, latent_scale.
    """
    own = {
        "latent_scale": vae.config.scaling_factor,
        "prediction_type": (noise or {}).get("prediction_type", "epsilon"),
    }
    return replace(
        config,
        object_tokens=1 + (config.reference_size // encoder.config.patch_size) ** 2,
        context_width=unet.config.context_width,
        latent_channels=unet.config.in_channels,
        downsampling=vae_downsampling(vae),
        **{key: value for key, value in own.items() if key not in keep},
    )


def find_mismatches(
    config: ModelConfig, unet: Any, controlnet: Any, image_encoder: Any, projector: nn.Linear, vae: Any
) -> list[str]:
    """Contradictions between the parts of a model and its configuration, a line for each."""
    encoder, levels = image_encoder.config, len(unet.config.block_out_channels)
    patches = config.reference_size // max(encoder.patch_size, 1)
    lines = [
        f"{key} is {expected} in pics.json, {actual} in {where}"
        for key, expected, where, actual in (
            ("tau", config.tau, "unet", unet.config.tau),
            ("tau", config.tau, "controlnet", controlnet.config.tau),
            ("context_width", config.context_width, "unet", unet.config.context_width),
            ("context_width", config.context_width, "controlnet", controlnet.config.context_width),
            ("context_width", config.context_width, "projector", projector.out_features),
            ("latent_channels", config.latent_channels, "unet", unet.config.in_channels),
            ("latent_channels", config.latent_channels, "vae", vae.config.latent_channels),
            ("downsampling", config.downsampling, "vae", vae_downsampling(vae)),
            ("downsampling", config.downsampling, "controlnet", 2 ** (len(controlnet.config.hint_widths) - 1)),
            ("reference_size", config.reference_size, "image_encoder", encoder.image_size),
            ("object_tokens", config.object_tokens, "image_encoder", 1 + patches**2),
        )
        if expected != actual
    ]
    lines += [
        f"{key} is {unet.config[key]} in unet, {controlnet.config[key]} in controlnet"
        for key in ("block_out_channels", "layers_per_block", "attention_levels", "norm_groups")
        if json.dumps(unet.config[key]) != json.dumps(controlnet.config[key])  # a tuple is a list there
    ]
    lines += [
        f"{where} has {actual} channels, expected {expected}"
        for where, actual, expected in (
            ("controlnet's hint", controlnet.config.hint_channels, config.hint_channels),
            ("unet's output", unet.config.out_channels, config.output_channels),
            ("vae's input", vae.config.in_channels, 3),
            ("vae's output", vae.config.out_channels, 3),
        )
        if actual != expected
    ]
    if bool(controlnet.config.get("estimates_light")) != config.shadows:
        lines.append(f"shadows is {config.shadows} in pics.json, estimates_light the opposite in controlnet")
    if encoder.hidden_size != projector.in_features:
        lines.append(f"projector takes width {projector.in_features}, image_encoder gives {encoder.hidden_size}")
    if config.latent_size % 2 ** (levels - 1):
        lines.append(
            f"image_size {config.image_size} is no multiple of {config.downsampling * 2 ** (levels - 1)}: "
            f"{config.downsampling} for the latent, halved {levels - 1} times by unet"
        )
    return lines


def vae_downsampling(vae: Any) -> int:
    """Pixels that a position of the autoencoder's latent stands for, across and down."""
    if isinstance(vae, PixelAutoencoder):
        return vae.config.patch
    return int(2 ** (len(vae.config.block_out_channels) - 1))
