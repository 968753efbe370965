"""What lights a scene: a panorama and a lamp, from noon to dusk, night and backlight; and the exposure that follows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from pics_cli.core.scenes.drawn.camera import Point

# Radiance of a panorama is cut at this multiple of its upper half's mean, so that its own sun casts no second shadow.
_CLIP = 5.0
_HDRI_SHAPE = (256, 512)
_MIN_ELEVATION = 7.0
_MAX_REFERENCE_AZIMUTH = 110.0

Array = npt.NDArray[np.float32]
Color = tuple[float, float, float]


@dataclass(frozen=True)
class Lamp:
    """The lamp that casts the shadows, or the sun; angles as in `Lighting`.

    Attributes:
        azimuth: degrees, where its light comes from: 0 from behind the camera, 90 from the picture's right.
        elevation: degrees above the ground.
        radius: half its angular width in degrees.
        strength: its part of the light on open ground, 0 to 1.
    """

    azimuth: float
    elevation: float
    radius: float
    strength: float


@dataclass(frozen=True)
class SceneLight:
    """Light on a scene whose open ground receives an irradiance of 1.

    Attributes:
        lamp: direction, size and part of the light.
        lamp_color, ambient_color: linear red, green, blue of luminance 1.
        hdri: path of the panorama that gives the ambient light.
        hdri_turn: degrees by which it is turned about the vertical.
        exposure: what radiance is multiplied by: a white sheet that faces the light comes out near 1 in a picture that
            is neither dark nor bright on purpose.
        contrast: of the tone curve, 0 to 1.
    """

    lamp: Lamp
    lamp_color: Color
    ambient_color: Color
    hdri: Path
    hdri_turn: float
    exposure: float
    contrast: float

    @property
    def direction(self) -> Point:
        """Unit vector to the lamp; x right, y away from the viewer, z up."""
        azimuth, elevation = math.radians(self.lamp.azimuth), math.radians(self.lamp.elevation)
        flat = math.cos(elevation)
        return flat * math.sin(azimuth), -flat * math.cos(azimuth), math.sin(elevation)


def sample_lighting(hdris: Sequence[Path], rng: np.random.Generator) -> SceneLight:
    """Light of a scene: a time of day or a lamp in a room, from any side."""
    kind = str(rng.choice(("day", "low_sun", "room", "overcast", "night"), p=(0.27, 0.17, 0.28, 0.12, 0.16)))
    side = str(rng.choice(("front", "side", "back"), p=(0.25, 0.5, 0.25)))
    low, high = {"front": (0, 45), "side": (45, 125), "back": (125, 180)}[side]
    azimuth = float(rng.uniform(low, high) * rng.choice((-1, 1)))
    uniform = rng.uniform
    if kind == "day":
        elevation, radius, strength = uniform(28, 72), uniform(0.27, 2.0), uniform(0.55, 0.85)
        kelvin, ambient_kelvin, stops = uniform(5000, 6200), uniform(6200, 9000), rng.normal(0, 0.3)
    elif kind == "low_sun":
        elevation, radius, strength = uniform(_MIN_ELEVATION, 26), uniform(0.3, 3.0), uniform(0.35, 0.7)
        kelvin, ambient_kelvin, stops = uniform(2600, 4200), uniform(6000, 9500), rng.normal(-0.25, 0.4)
    elif kind == "room":
        elevation, radius, strength = uniform(22, 78), uniform(2.0, 16.0), uniform(0.35, 0.8)
        kelvin, ambient_kelvin, stops = uniform(2900, 5600), uniform(3600, 6500), rng.normal(0, 0.35)
    elif kind == "overcast":
        elevation, radius, strength = uniform(40, 80), uniform(12, 28), uniform(0, 0.2)
        kelvin, ambient_kelvin, stops = uniform(5500, 7000), uniform(5500, 7500), rng.normal(0, 0.35)
    else:
        elevation, radius, strength = uniform(20, 65), uniform(0.5, 6.0), uniform(0.6, 0.93)
        kelvin, ambient_kelvin, stops = uniform(2400, 5500), uniform(6500, 11000), uniform(-2.3, -0.9)
    lamp = Lamp(azimuth, float(elevation), float(radius), float(strength))
    neutral = float(uniform(0.35, 0.8))  # how far the camera's white balance takes the colours back
    lamp_color, ambient = (_soften(black_body(k), 1 - neutral) for k in (kelvin, ambient_kelvin))
    hdri = hdris[int(rng.integers(len(hdris)))]
    exposure = _exposure(lamp, float(stops))
    return SceneLight(lamp, lamp_color, ambient, hdri, float(uniform(0, 360)), exposure, float(uniform(0, 0.7)))


def vary_lighting(lighting: SceneLight, hdris: Sequence[Path], change: float, rng: np.random.Generator) -> SceneLight:
    """Light of an object's other picture, which was taken elsewhere.

    Six in ten nearly fit the scene's light; the others are drawn anew, with colour and exposure as people's own
    photographs differ: 3000 to 9000 K and ±1.5 stops.

    Args:
        lighting: of the scene.
        hdris: to choose from.
        change: how much the light differs, 0 (not at all) to 1.
        rng: of this object.
    """
    if change == 0:
        return lighting
    if rng.random() < 0.4 * change:
        other = sample_lighting(hdris, rng)
        # Who photographs a thing to use it elsewhere has the lamp beside or behind the camera.
        azimuth = float(rng.uniform(-_MAX_REFERENCE_AZIMUTH, _MAX_REFERENCE_AZIMUTH))
        lamp = replace(other.lamp, azimuth=azimuth, strength=min(other.lamp.strength, 0.75))
        tint = _soften(black_body(float(rng.uniform(3000, 9000))), 0.5 * change)
        stops = float(np.clip(rng.normal(-0.1, 0.8), -1.5, 1.1)) * change
        colors = (_tinted(other.lamp_color, tint), _tinted(other.ambient_color, tint))
        return replace(other, lamp=lamp, lamp_color=colors[0], ambient_color=colors[1], exposure=_exposure(lamp, stops))
    lamp = lighting.lamp
    near = Lamp(
        180 - (180 - (lamp.azimuth + change * float(rng.normal(0, 35)))) % 360,  # in (-180, 180]
        float(np.clip(lamp.elevation + change * rng.normal(0, 12), 12, 80)),
        float(np.clip(lamp.radius * 2 ** (change * rng.normal(0, 1)), 0.3, 28)),
        float(np.clip(lamp.strength + change * rng.normal(0, 0.12), 0, 0.9)),
    )
    tint = _soften(black_body(float(rng.uniform(4500, 7500))), 0.4 * change)
    exposure = lighting.exposure * _exposure(near, 0) / _exposure(lamp, 0) * 2 ** (change * float(rng.normal(0, 0.3)))
    hdri = hdris[int(rng.integers(len(hdris)))] if rng.random() < change else lighting.hdri
    turn = (lighting.hdri_turn + change * float(rng.normal(0, 40))) % 360
    colors = (_tinted(lighting.lamp_color, tint), _tinted(lighting.ambient_color, tint))
    return replace(
        lighting, lamp=near, lamp_color=colors[0], ambient_color=colors[1], hdri=hdri, hdri_turn=turn, exposure=exposure
    )


def black_body(kelvin: float) -> Color:
    """Linear red, green, blue of a black body, of luminance 1.

    Source: T. Helland's fit to M. Charity's table (2012), for 1000 to 40000 K.
    """
    t = kelvin / 100
    red = 255.0 if t <= 66 else 329.698727446 * (t - 60) ** -0.1332047592
    green = 99.4708025861 * math.log(t) - 161.1195681661 if t <= 66 else 288.1221695283 * (t - 60) ** -0.0755148492
    blue = 255.0 if t >= 66 else 0.0 if t <= 19 else 138.5177312231 * math.log(t - 10) - 305.0447927307
    return _unit([(min(max(value, 0.0), 255.0) / 255) ** 2.2 for value in (red, green, blue)])


@lru_cache(maxsize=16)
def load_hdri(path: Path) -> Array:
    """A panorama that lights open ground with an irradiance of 1: float32 [256, 512, 3], highlights cut.

    Raises:
        ValueError: it cannot be read, or is no panorama, twice as wide as high.
    """
    import mitsuba  # reads EXR with any codec, where OpenCV refuses it unless asked by the environment

    mitsuba.set_variant("scalar_rgb")
    try:
        bitmap = mitsuba.Bitmap(str(path)).convert(mitsuba.Bitmap.PixelFormat.RGB, mitsuba.Struct.Type.Float32, False)
    except RuntimeError as error:
        raise ValueError(f"cannot be read: {str(error).splitlines()[-1].strip()}") from None
    picture = np.array(bitmap)
    height, width = picture.shape[:2]
    if width != 2 * height:
        raise ValueError(f"is {width} x {height} pixels, and no panorama: those are twice as wide as high")
    picture = np.maximum(np.nan_to_num(picture, posinf=6e4), 0)
    picture = cv2.resize(picture, _HDRI_SHAPE[::-1], interpolation=cv2.INTER_AREA)
    luminance = picture @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    cosine = np.cos((np.arange(_HDRI_SHAPE[0]) + 0.5) / _HDRI_SHAPE[0] * np.pi)[:, None]
    sine = np.sqrt(1 - cosine**2)
    upper = cosine > 0
    for _ in range(2):  # cutting lowers the mean that it is cut at
        mean = float((luminance * sine * upper).sum() / (np.broadcast_to(sine * upper, luminance.shape).sum()))
        cut = np.minimum(1, _CLIP * mean / np.maximum(luminance, 1e-9)).astype(np.float32)
        picture, luminance = picture * cut[..., None], luminance * cut
    solid_angle = 2 * np.pi**2 / (_HDRI_SHAPE[0] * _HDRI_SHAPE[1])
    irradiance = float((luminance * np.maximum(cosine, 0) * sine).sum()) * solid_angle
    if not irradiance > 0:
        raise ValueError("is black above its horizon")
    scaled: Array = (picture / irradiance).astype(np.float32)
    return scaled


def _exposure(lamp: Lamp, stops: float) -> float:
    """Exposure for the brighter of open ground and upright things seen from the lit side."""
    elevation, facing = math.radians(lamp.elevation), max(math.cos(math.radians(lamp.azimuth)), 0)
    upright = lamp.strength * facing / math.tan(elevation) + 0.5 * (1 - lamp.strength)
    return math.pi * 2**stops * 0.95 / (0.55 + 0.45 * max(upright, 1))


def _unit(color: list[float]) -> Color:
    luminance = 0.2126 * color[0] + 0.7152 * color[1] + 0.0722 * color[2]
    return color[0] / luminance, color[1] / luminance, color[2] / luminance


def _soften(color: Color, amount: float) -> Color:
    return _unit([max(value, 1e-3) ** amount for value in color])


def _tinted(color: Color, tint: Color) -> Color:
    return _unit([a * b for a, b in zip(color, tint, strict=True)])
