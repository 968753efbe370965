"""Encoders of pictures as transformers saves them, tiny and with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

_SEEN = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.25, 0.3]}


def save_dino(folder: Path) -> Any:
    """A DINOv2 for squares of 28 pixels."""
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14)
    model = Dinov2Model(config).eval()
    model.save_pretrained(folder)
    crop = {"crop_size": {"height": 30, "width": 30}}  # of which two patches are left
    (folder / "preprocessor_config.json").write_text(json.dumps({**_SEEN, **crop}))
    return model


def save_clip(folder: Path) -> Any:
    """A CLIP image encoder for squares of 32 pixels."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=24, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8,
        projection_dim=12,
    )  # fmt: skip
    model = CLIPVisionModelWithProjection(config).eval()
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(_SEEN))
    return model
