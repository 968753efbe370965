"""Adapters in training: PEFT puts them beside the projections of the interaction blocks' attentions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pics_cli import __version__
from pics_cli.core.model.adapters import AdapterConfig
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.recipes.base import digest, plain_recipe
from pics_cli.core.recipes.training import TrainingRecipe
from pics_cli.core.recipes.training_sections import LoraSettings
from pics_cli.core.runtime.extras import require
from pics_cli.core.training.networks import is_adapter
from pics_cli.errors import PicsError

PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")
# PEFT's name of the only adapter there is while it is trained; no file holds it.
_NAME = "default"


def target_modules(settings: LoraSettings) -> tuple[str, ...]:
    """Ends of the names of the projections that get an adapter."""
    return tuple(f"{attention}.{projection}" for attention in settings.attentions for projection in PROJECTIONS)


def add_adapters(model: PicsModel, settings: LoraSettings, seed: int) -> None:
    """Put a new adapter into UNet and ControlNet; its B are zero, so that it changes nothing yet.

    Args:
        model: changed in place: a projection becomes PEFT's, with the former one inside as `base_layer`.
        settings: rank, and where.
        seed: of the matrices A.

    Raises:
        PicsError: PEFT is not installed, or the rank is above what the narrowest projection can have.
    """
    require("lora", "train: lora")
    from peft import LoraConfig, inject_adapter_in_model

    targets = target_modules(settings)
    networks: tuple[Any, ...] = (model.unet, model.controlnet)
    widths = [
        min(layer.weight.shape)
        for network in networks
        for name, layer in network.named_modules()
        if name.endswith(tuple(f".{target}" for target in targets))
    ]
    if settings.rank > min(widths):
        raise PicsError(
            f"lora.rank: got {settings.rank}, expected at most {min(widths)}, the width of this model's narrowest "
            "attention",
            "such as --set lora.rank=16; at full width train the weights themselves: --set train=experts",
        )
    config = LoraConfig(r=settings.rank, lora_alpha=settings.scale, target_modules=list(targets))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for network in networks:
            inject_adapter_in_model(config, network, _NAME)


def adapter_config(recipe: TrainingRecipe, base_fingerprint: str, steps: int) -> AdapterConfig:
    """What `adapter.json` says of an adapter that a recipe has trained."""
    settings = recipe.lora_settings
    return AdapterConfig(
        rank=settings.rank,
        alpha=settings.scale,
        target_modules=target_modules(settings),
        base=recipe.model.base or "",
        base_fingerprint=base_fingerprint,
        trained_steps=steps,
        recipe_hash=digest(plain_recipe(recipe)),
        pics=__version__,
    )


def adapter_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An adapter's tensors, of those of a checkpoint, as `AdapterConfig`'s file names them."""
    return {name.replace(f".{_NAME}.", "."): value for name, value in tensors.items() if is_adapter(name)}
