"""A tiny model with random weights: for trying out the commands, for tests and for benchmarks on small shapes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from pics_cli.core.model.config import ModelConfig
from pics_cli.core.model.controlnet import BackgroundControlNet
from pics_cli.core.model.dinov2 import Dinov2Encoder
from pics_cli.core.model.image_encoder import Projector
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.model.schedulers import published_scheduler
from pics_cli.core.model.unet import InteractionUNet

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
    import diffusers

    config = replace(TINY_CONFIG, **overrides)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = InteractionUNet(config.latent_channels, config.latent_channels, **_TINY_SHAPE, tau=config.tau)
        controlnet = BackgroundControlNet(hint_widths=(8, 8, 16, 16), **_TINY_SHAPE, tau=config.tau)
        encoder = Dinov2Encoder(
            hidden_size=48, num_hidden_layers=2, num_attention_heads=3, image_size=config.reference_size,
            patch_size=14, use_swiglu_ffn=True, mlp_ratio=4,
        )  # fmt: skip
        vae = diffusers.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(8, 8, 16, 16), layers_per_block=1, norm_num_groups=8, sample_size=config.image_size,
            latent_channels=config.latent_channels, scaling_factor=config.latent_scale,
        )  # fmt: skip
        projector = Projector(48, config.context_width)
        for module in (unet, controlnet, encoder, projector, vae):
            _randomize_zeros(module)
    scheduler = published_scheduler()
    return PicsModel(config, unet, controlnet, encoder, projector, vae, scheduler, device=device, memory=memory)


def _randomize_zeros(module: nn.Module) -> None:
    """Give every layer that starts at zero random weights of the usual scale."""
    for parameter in module.parameters():
        if not parameter.any():
            scale = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
            nn.init.normal_(parameter, std=scale)
