"""Which parameters are trained, which a checkpoint holds, and in what precision each lies."""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch
from torch import nn

from pics_cli.core.model.initial import EXPERT
from pics_cli.core.model.pipeline import PicsPipeline
from pics_cli.core.training_sections import Trained

_DECODER = re.compile(r"(up_blocks|conv_norm_out|conv_out)\.")
# Parts whose parameters may be trained; the autoencoder never is.
PARTS = ("unet", "controlnet", "projector", "image_encoder")


def named(pipeline: PicsPipeline) -> Iterator[tuple[str, nn.Parameter]]:
    """Every parameter that can be trained, as `part.name`."""
    for part in PARTS:
        yield from pipeline.parts[part].named_parameters(prefix=part)


def is_trained(name: str, kind: Trained, encoder: bool) -> bool:
    """Whether a parameter is trained.

    Args:
        name: as `part.name`.
        kind: `published`: ControlNet and UNet decoder; `experts`: those, every new layer of the UNet's encoder and
            middle, and the projector; `full`: both networks and the projector.
        encoder: whether the encoder of the references is, too.
    """
    part, _, inside = name.partition(".")
    if part == "image_encoder":
        # Unused where whole pictures are encoded: DINOv2's token for hidden patches.
        return encoder and not inside.endswith("mask_token")
    if part == "controlnet" or kind == "full":
        return True
    if part == "projector":
        return kind == "experts"
    return bool(_DECODER.match(inside)) or (kind == "experts" and EXPERT.search(f".{inside}") is not None)


def is_new(name: str, small: bool) -> bool:
    """Whether a checkpoint needs a parameter although it is not trained: no base model has it.

    Args:
        name: as `part.name`.
        small: the whole network is new, not made from a base model.
    """
    part, _, inside = name.partition(".")
    return small or part in ("projector", "controlnet") or (part == "unet" and EXPERT.search(f".{inside}") is not None)


def set_up(pipeline: PicsPipeline, kind: Trained, encoder: bool, half: torch.dtype) -> dict[str, nn.Parameter]:
    """Make the chosen parameters trainable, in float32; all others are frozen, in `half`.

    Returns:
        The trained parameters by name.
    """
    chosen = {}
    for name, parameter in named(pipeline):
        here = is_trained(name, kind, encoder)
        parameter.requires_grad_(here)
        parameter.data = parameter.data.to(torch.float32 if here else half)
        if here:
            chosen[name] = parameter
    for parameter in pipeline.vae.parameters():
        parameter.data = parameter.data.to(half)
    for network in (pipeline.unet, pipeline.controlnet):
        network.train()
    if encoder:
        pipeline.image_encoder.train()
    return chosen
