"""Small base models of real parts, in the layouts that Stable Diffusion and DINOv2 are published in."""

from __future__ import annotations

from pathlib import Path

import diffusers
import torch
from torch import nn
from transformers import Dinov2Config, Dinov2Model

from helpers.research import Maker, dinov2

HEAD_WIDTH, CONTEXT, ENCODER_WIDTH = 16, 48, 64


def make_base(folder: Path, seed: int = 0, linear: bool = True) -> diffusers.UNet2DConditionModel:
    """A folder like stable-diffusion-2-1-base, and its UNet."""
    torch.manual_seed(seed)
    unet = diffusers.UNet2DConditionModel(
        in_channels=4,
        out_channels=4,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=CONTEXT,
        attention_head_dim=(2, 4),  # numbers of heads, as in Stable Diffusion 2
        use_linear_projection=linear,
    )
    for parameter in unet.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    unet.save_pretrained(folder / "unet")
    vae = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 16, 16),
        layers_per_block=1,
        norm_num_groups=8,
        scaling_factor=0.18215,
    )
    vae.save_pretrained(folder / "vae")
    diffusers.PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, skip_prk_steps=True
    ).save_pretrained(folder / "scheduler")
    return unet


def make_dinov2(folder: Path, seed: int = 0, size: int = 518) -> Dinov2Model:
    """A folder like facebook/dinov2-giant, with the table of positions for 518 pixels."""
    torch.manual_seed(seed)
    config = Dinov2Config(
        hidden_size=ENCODER_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=1,
        mlp_ratio=4,
        use_swiglu_ffn=True,
        image_size=size,
        patch_size=14,
    )
    model = Dinov2Model(config)
    nn.init.normal_(model.embeddings.position_embeddings)
    model.save_pretrained(folder)
    return model.eval()


def make_original_dinov2(path: Path, seed: int = 0) -> None:
    """A file like dinov2_vitg14_pretrain.pth."""
    maker = Maker(seed)
    dinov2(maker, "", ENCODER_WIDTH, 2)
    torch.save(maker.state, path)
