"""From reference pictures to object tokens: DINOv2 and a linear projector."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pics_cli.core.model.saved_module import SavedModule, keep_arguments

# ImageNet's channel means and standard deviations, which DINOv2 was trained with.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Projector(nn.Linear, SavedModule):
    """The linear layer from the encoder's width to the context width D, saved and loaded like a model of diffusers.

    Args:
        in_features: width of the encoder.
        out_features: D.
    """

    @keep_arguments
    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)


def encode_references(encoder: Any, projector: nn.Linear, references: Tensor) -> Tensor:
    """Tokens of reference pictures.

    Args:
        encoder: a `Dinov2Encoder`, or transformers' Dinov2Model; gradients reach it where its parameters require them.
        projector: from its width to D.
        references: [B, 3, R, R] in [0, 1], on white.

    Returns:
        [B, M, D]: class token first, then the patches row by row, after the encoder's final norm and the projector.
    """
    mean, std = (references.new_tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    pixels = ((references - mean) / std).to(next(encoder.parameters()).dtype)
    features = encoder(pixel_values=pixels).last_hidden_state
    tokens: Tensor = projector(features.to(projector.weight.dtype))
    return tokens


def encode_null_reference(encoder: Any, projector: nn.Linear, size: int, device: torch.device) -> Tensor:
    """The unconditional context [M, D]: tokens of an all-zero picture, black before normalisation."""
    return encode_references(encoder, projector, torch.zeros(1, 3, size, size, device=device))[0]
