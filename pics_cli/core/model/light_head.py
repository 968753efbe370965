"""The estimate of a picture's light: where the lamp stands, how high, how soft and how strong, and the camera's angle.

A small convolutional head of the ControlNet. Azimuth is a distribution over bins, so that it can say that it does not
know; the other values are numbers. B: pictures, N: azimuth bins.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pics_cli.core.images.lighting import Lighting

AZIMUTH_BINS = 24
# Resultant length of the azimuth's distribution up to which the lamp casts no shadow, and from which a full one.
UNSURE, SURE = 0.3, 0.6
_SIZE = 128
_WIDTHS = (24, 48, 96, 128)
# Elevation over 90°, the root of the radius over 90°, strength, pitch over 90°.
_VALUES = 4


class LightOutput(NamedTuple):
    """What the head says: azimuth logits [B, N], bin n at `bin_azimuths()[n]`, and values [B, 4] in 0..1."""

    azimuth: Tensor
    values: Tensor


class LightHead(nn.Module):
    """From backgrounds to `LightOutput`."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 5  # colours and coordinates: which side the light comes from is a matter of place
        for width in _WIDTHS:
            layers += [nn.Conv2d(channels, width, 3, 2, 1), nn.GroupNorm(8, width), nn.SiLU()]
            layers += [nn.Conv2d(width, width, 3, 1, 1), nn.GroupNorm(8, width), nn.SiLU()]
            channels = width
        self.features = nn.Sequential(*layers)
        self.output = nn.Sequential(
            nn.Linear(channels * 5, channels), nn.SiLU(), nn.Linear(channels, AZIMUTH_BINS + _VALUES)
        )

    def forward(self, backgrounds: Tensor) -> LightOutput:
        """Backgrounds [B, 3, S, S] in [-1, 1]."""
        # In float32: torch has no such interpolation of bfloat16 on a CPU.
        small = F.interpolate(backgrounds.float(), (_SIZE, _SIZE), mode="bilinear", antialias=True, align_corners=False)
        small = small.to(backgrounds.dtype)
        axis = torch.linspace(-1, 1, _SIZE, dtype=small.dtype, device=small.device)
        rows, columns = torch.meshgrid(axis, axis, indexing="ij")
        places = torch.stack([rows, columns]).expand(len(small), -1, -1, -1)
        features = self.features(torch.cat([small, places], 1))
        # The whole picture and its quarters.
        pooled = torch.cat([features.mean((2, 3)), F.adaptive_avg_pool2d(features, 2).flatten(1)], 1)
        azimuth, values = self.output(pooled).split([AZIMUTH_BINS, _VALUES], 1)
        return LightOutput(azimuth, values.sigmoid())


def bin_azimuths() -> Tensor:
    """Azimuth of each bin in radians, [N]."""
    return torch.arange(AZIMUTH_BINS) * (2 * math.pi / AZIMUTH_BINS)


def light_values(lighting: Lighting) -> list[float]:
    """Azimuth in radians, then what `LightOutput.values` is to be."""
    radius = math.sqrt(lighting.radius / 90)
    return [math.radians(lighting.azimuth), lighting.elevation / 90, radius, lighting.strength, lighting.pitch / 90]


def light_loss(output: LightOutput, values: Tensor, known: Tensor) -> Tensor:
    """Cross-entropy of the azimuth and the absolute error of the values, [B]; 0 where the light is not known.

    The target of the azimuth is as flat as the lamp is weak: where nothing casts a shadow, no direction is right.

    Args:
        output: of the head.
        values: float32 [B, 5], see `light_values`.
        known: bool [B].
    """
    azimuth, targets = values[:, :1], values[:, 1:]
    peak = (4 * torch.cos(bin_azimuths().to(values) - azimuth)).softmax(1)
    strength = targets[:, 2:3]
    target = strength * peak + (1 - strength) / AZIMUTH_BINS
    entropy = -(target * output.azimuth.log_softmax(1)).sum(1)
    return known * (entropy + (output.values - targets).abs().mean(1))


def lighting_of(output: LightOutput) -> tuple[Lighting, float]:
    """The lighting of one picture, and how sure its azimuth is, from 0 to 1 (the distribution's resultant length).

    The strength is 0 where that is too unsure: a shadow on the wrong side is worse than none.

    Args:
        output: of the head, B = 1.
    """
    chances = output.azimuth[0].double().softmax(0)
    angles = bin_azimuths().double().to(chances)
    x, y = float((chances * angles.cos()).sum()), float((chances * angles.sin()).sum())
    sure = math.hypot(x, y)
    elevation, radius, strength, pitch = output.values[0].double().tolist()
    weight = min(max((sure - UNSURE) / (SURE - UNSURE), 0.0), 1.0)
    lighting = Lighting(
        azimuth=math.degrees(math.atan2(y, x)),
        elevation=90 * elevation,
        radius=90 * radius**2,
        strength=weight * strength,
        pitch=90 * pitch,
    )
    return lighting, sure
