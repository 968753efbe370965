"""The networks in training: which of their parameters are trained, and the one module that Accelerate wraps.

B: samples, K: objects, L: layers of the control image, S: model size, R: reference size, [c, h, w]: a latent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from pics_cli.core.model.image_encoder import encode_references
from pics_cli.core.model.interaction import ObjectContexts
from pics_cli.core.model.light_head import LightOutput
from pics_cli.core.model.new_model import EXPERT_LAYERS
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.model.regions import Regions
from pics_cli.core.recipes.training_sections import TrainedParts

# Parts whose parameters may be trained; the autoencoder never is.
PARTS = ("unet", "controlnet", "projector", "image_encoder")
_UNET_DECODER = re.compile(r"(up_blocks|conv_norm_out|conv_out)\.")


class TrainingNetworks(nn.Module):
    """Image encoder, ControlNet and UNet of a model as one module, which data-parallel training needs."""

    def __init__(self, model: PicsModel) -> None:
        super().__init__()
        self.unet, self.controlnet = model.unet, model.controlnet
        self.image_encoder, self.projector = model.image_encoder, model.projector
        layers = 3 * model.config.hint_layers
        self._background = slice(layers - 3, layers) if model.config.shadows else None

    def forward(
        self, latent: Tensor, timestep: Tensor, hint: Tensor, regions: Regions, references: Tensor
    ) -> tuple[Tensor, LightOutput | None]:
        """The prediction, without classifier-free guidance.

        Args:
            latent: [B, c, h, w], noisy and scaled.
            timestep: int64 [B].
            hint: [B, `hint_channels`, S, S].
            regions: of the B composites. Not their masks, which data-parallel training would bring to the GPU, while
                routing tables are made on the CPU.
            references: [B, K, 3, R, R] in [0, 1]; black for a dropped condition.

        Returns:
            [B, output channels, h, w]; of a model with shadows also what its light head says of the last layer of the
            control image, the background.
        """
        tokens = encode_references(self.image_encoder, self.projector, references.flatten(0, 1))
        objects = ObjectContexts(tokens.unflatten(0, references.shape[:2]))
        residuals = self.controlnet(self.controlnet.embed_hint(hint), timestep, objects, regions)
        prediction: Tensor = self.unet(latent, timestep, objects, regions, residuals)
        if self._background is None:
            return prediction, None
        return prediction, self.controlnet.light_head(hint[:, self._background])


def named_parameters(model: PicsModel) -> Iterator[tuple[str, nn.Parameter]]:
    """Every parameter that can be trained, as `part.name`."""
    for part in PARTS:
        yield from model.parts[part].named_parameters(prefix=part)


def is_trained(name: str, trained: TrainedParts, train_encoder: bool) -> bool:
    """Whether a parameter is trained.

    Args:
        name: as `part.name`.
        trained: `published`: ControlNet and UNet decoder; `experts`: those, every new layer of the UNet's encoder and
            middle, and the projector; `full`: both networks and the projector; `lora`: adapters alone.
        train_encoder: whether the encoder of the references is, too.
    """
    part, _, inner_name = name.partition(".")
    if trained == "lora":
        return is_adapter(name)
    if part == "image_encoder":
        # DINOv2's token for hidden patches is unused where whole pictures are encoded.
        return train_encoder and not inner_name.endswith("mask_token")
    if inner_name.startswith("order_head."):  # made by scripts/fit_order_head.py
        return False
    if part == "controlnet" or trained == "full":
        return True
    if part == "projector":
        return trained == "experts"
    return bool(_UNET_DECODER.match(inner_name)) or (trained == "experts" and EXPERT_LAYERS.search(name) is not None)


def is_adapter(name: str) -> bool:
    """Whether a parameter, as `part.name`, is an adapter's."""
    return ".lora_A." in name or ".lora_B." in name


def new_parameters(model: PicsModel, new_network: bool) -> set[str]:
    """Names of the parameters that no base model has: of a model with adapters only theirs, for all others are its
    base's."""
    names = [name for name, _ in named_parameters(model)]
    return set(filter(is_adapter, names)) or {name for name in names if is_new(name, new_network)}


def is_new(name: str, new_network: bool) -> bool:
    """Whether no base model has a parameter, so that a checkpoint must hold it even if it is not trained.

    Args:
        name: as `part.name`.
        new_network: the whole network is new, not made from a base model.
    """
    part, _, inner_name = name.partition(".")
    is_expert = part == "unet" and EXPERT_LAYERS.search(f".{inner_name}") is not None
    return new_network or part in ("projector", "controlnet") or is_expert


def prepare_for_training(
    model: PicsModel,
    trained: TrainedParts,
    train_encoder: bool,
    dtype: torch.dtype,
    gradient_checkpointing: bool = False,
) -> dict[str, nn.Parameter]:
    """Make the chosen parameters trainable, in float32, and freeze all others, in `dtype`.

    Args:
        model: changed in place.
        trained, train_encoder: see `is_trained`.
        dtype: of frozen parameters: what the networks compute in.
        gradient_checkpointing: compute blocks again for the gradient instead of keeping what they computed.

    Returns:
        The trained parameters by name.
    """
    chosen = {}
    for name, parameter in named_parameters(model):
        parameter.requires_grad_(is_trained(name, trained, train_encoder))
        parameter.data = parameter.data.to(torch.float32 if parameter.requires_grad else dtype)
        if parameter.requires_grad:
            chosen[name] = parameter
    for parameter in model.vae.parameters():
        parameter.data = parameter.data.to(dtype)
    for network in (model.unet, model.controlnet):
        network.train()
        network.gradient_checkpointing = gradient_checkpointing
    if train_encoder:
        model.image_encoder.train()
    return chosen


def on_device(model: PicsModel, device: torch.device) -> PicsModel:
    """The same model on another device."""
    parts: dict[str, Any] = dict(model.parts)
    return PicsModel(model.config, **parts, scheduler=model.scheduler, device=device)
