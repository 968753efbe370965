"""Small models of real parts, batches and recipes to train them by."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.model.regions import Regions
from pics_cli.core.model.small_model import new_small_model
from pics_cli.core.model.tiny_model import tiny_model
from pics_cli.core.recipes.training import TrainingRecipe
from pics_cli.core.recipes.training_sections import ModelShape, ObjectiveSettings
from pics_cli.core.training.networks import TrainingNetworks
from pics_cli.core.training.objective import DiffusionLoss

CPU = torch.device("cpu")
GIVEN: dict[str, Any] = {"image_size": 64, "reference_size": 28}
CORRECTING: dict[str, Any] = {**GIVEN, "prediction_type": "sample", "correct_hint": True, "input_scaling": "signal"}
LAYERS: dict[str, Any] = {**CORRECTING, "hint": "layers", "fill": 0.75, "share_grid": 2}
SHAPE = asdict(
    ModelShape(
        block_out_channels=(16, 32), attention_levels=(True, False), head_width=16, norm_groups=8, context_width=32,
        hint_widths=(8, 8, 8, 8), encoder_width=24, encoder_layers=1, encoder_heads=2,
    )
)  # fmt: skip
SHADOWS: dict[str, Any] = {**LAYERS, "shadows": True, "noise_schedule": "zero_terminal_snr"}
# In a square of 64: two that overlap at 8×8 and (in the middle block) at 4×4 latent positions, two apart, and one that
# holds the other.
LAYOUTS = (
    ((4, 8, 40, 40), (20, 12, 60, 60)),
    ((0, 0, 20, 24), (40, 30, 64, 64)),
    ((8, 8, 56, 56), (16, 20, 44, 48)),
)


def small(seed: int = 0, *, stirred: bool = True, **overrides: Any) -> PicsModel:
    """A model for 64×64 pictures that works on pixels; stirred: no layer is zero, so that every branch shows."""
    return copy.deepcopy(_small(seed, stirred, **overrides))


@cache  # making one takes longer than training it a step
def _small(seed: int, stirred: bool, **overrides: Any) -> PicsModel:
    pipeline = new_small_model(ModelShape(**SHAPE), {**GIVEN, **overrides}, seed)
    if stirred:
        stir(pipeline, seed)
    return pipeline


@cache
def _tiny(**overrides: Any) -> PicsModel:
    return tiny_model(**overrides)


def stir(pipeline: PicsModel, seed: int = 0) -> None:
    """Give every parameter that is zero random values."""
    draw = torch.Generator().manual_seed(seed)
    for part in pipeline.parts.values():
        for parameter in part.parameters():
            if not parameter.any():
                scale = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
                nn.init.normal_(parameter, std=scale, generator=draw)


def pipeline_of(kind: str, **overrides: Any) -> PicsModel:
    """`small`, or `tiny` with a real autoencoder."""
    return small(**overrides) if kind == "small" else copy.deepcopy(_tiny(**overrides))


def batch_of(
    pipeline: PicsModel,
    layouts: Sequence[Sequence[Sequence[int]]] = LAYOUTS,
    *,
    timesteps: Sequence[int] = (7, 480, 999),
    dropped: Sequence[bool] = (False, False, False),
    content: Sequence[int] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """A batch as the loader makes it, of noise; layouts in a square of 64, whatever the model's size is."""
    config, random = pipeline.config, np.random.default_rng(seed)
    count, size, latent = len(layouts), config.image_size, config.latent_size
    objects = max(len(boxes) for boxes in layouts)

    def pictures(*shape: int, channels: int = 3) -> Tensor:
        return torch.from_numpy(random.integers(0, 256, (*shape, channels), np.uint8))

    def normal() -> Tensor:
        return torch.from_numpy(random.standard_normal((count, config.latent_channels, latent, latent), np.float32))

    boxes = torch.zeros(count, objects, 4, dtype=torch.int16)
    for row, layout in zip(boxes, layouts, strict=True):
        row[: len(layout)] = torch.tensor(layout) * size // 64
    inside = torch.tensor(content or (0, 0, size, size), dtype=torch.int16)
    lit: dict[str, Any] = {}
    if config.shadows:
        light = torch.rand(count, 6, generator=torch.Generator().manual_seed(seed))
        lit = {"fade": torch.ones(count, size, size), "light": light}
        light[:, 5] = 1
    return {
        **lit,
        "control_image": pictures(count, size, size, channels=config.hint_channels - 1),
        "target": pictures(count, size, size),
        "references": pictures(count, objects, config.reference_size, config.reference_size),
        "boxes": boxes,
        "content": inside.repeat(count, 1),
        "timestep": torch.tensor(timesteps[:count]),
        "dropped": torch.tensor(dropped[:count]),
        "noise": normal(),
        "posterior": normal(),
    }


def rows(batch: dict[str, Any], *which: int) -> dict[str, Any]:
    """Some samples of a batch."""
    return {name: value[list(which)] for name, value in batch.items()}


def loss_of(model: PicsModel, network: Any = None, **objective: Any) -> DiffusionLoss:
    """The loss in float32 of the model's own networks, or of something in their place."""
    network = TrainingNetworks(model) if network is None else network
    return DiffusionLoss(model, network, ObjectiveSettings(**objective), torch.float32)


class Recorded:
    """A network that keeps what it is given and what it answers."""

    def __init__(self, network: Any) -> None:
        self.network, self.given, self.answer = network, dict[str, Tensor](), torch.empty(0)

    def __call__(
        self, latent: Tensor, timestep: Tensor, hint: Tensor, regions: Regions, references: Tensor
    ) -> tuple[Tensor, Any]:
        self.given = {"latent": latent, "timestep": timestep, "hint": hint, "masks": regions.masks,
                      "references": references}  # fmt: skip
        self.answer, light = self.network(latent, timestep, hint, regions, references)
        return self.answer, light


def recipe_of(**changes: Any) -> TrainingRecipe:
    """A training recipe of the small model."""
    model = {"shape": SHAPE, **changes.pop("model", {}), **GIVEN}
    plain = {"kind": "training", "name": "mine", "out": "LOGS/mine", "batch_size": 2, "precision": "fp32",
             "data": {"sets": {"A": {"shards": "train/A"}}}, "model": model, **changes}  # fmt: skip
    return TypeAdapter(TrainingRecipe).validate_python(plain, strict=False)
