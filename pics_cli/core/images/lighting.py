"""The main light of a picture and the camera's angle, as scenes with known truth state them and shadows are cast by."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pics_cli.errors import BadSample


@dataclass(frozen=True, slots=True)
class Lighting:
    """The lamp (or sun) that casts a picture's shadows, and the angle at which the camera looks at the ground.

    Attributes:
        azimuth: degrees, where the light comes from: 0 from behind the camera, 90 from the picture's right, 180 from
            behind the scene, -90 from the left.
        elevation: degrees above the ground, 0 to 90.
        radius: angular radius of the lamp in degrees: how soft its shadows are.
        strength: its share of the light on open ground, 0 (overcast: it casts no shadow) to 1.
        pitch: degrees by which the camera looks down, 0 (along the ground) to 90.
    """

    azimuth: float
    elevation: float
    radius: float
    strength: float
    pitch: float

    def __post_init__(self) -> None:
        values = asdict(self)
        limits = {"azimuth": 360, "elevation": 90, "radius": 90, "strength": 1, "pitch": 90}
        for name, limit in limits.items():
            low = -limit if name == "azimuth" else 0
            if not (math.isfinite(values[name]) and low <= values[name] <= limit):
                raise ValueError(f"{name} is {values[name]}, expected {low} to {limit}")

    def to_json(self) -> dict[str, float]:
        """As the json of a sample holds it under `light`."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


def read_lighting(metadata: Mapping[str, Any]) -> Lighting | None:
    """The lighting of a sample, from its json; None where it has none.

    Raises:
        BadSample: `bad_json`.
    """
    values = metadata.get("light")
    if values is None:
        return None
    try:
        return Lighting(**{name: float(value) for name, value in values.items()})
    except (AttributeError, TypeError, ValueError) as error:
        raise BadSample("bad_json", f"light: {error}") from None


def to_linear(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """sRGB in 0..1 to linear light in 0..1 (IEC 61966-2-1)."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def from_linear(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Linear light in 0..1 to sRGB in 0..1."""
    return np.where(values <= 0.0031308, values * 12.92, 1.055 * values ** (1 / 2.4) - 0.055)
