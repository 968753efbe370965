"""Procedural textures of objects: noise, patterns and pasted photographs. All are tileable.

T: side of a texture in pixels. Patterns are float32 [T, T] fields of about [0, 1] that are coloured afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from pics_cli.core.images.image_io import RGB
from pics_cli.core.runtime.rng import generator
from pics_cli.core.scenes.drawn.camera import Array
from pics_cli.core.scenes.drawn.colors import Palette, color_ramp, rgb
from pics_cli.core.scenes.drawn.photos import random_crop

_NOISE_SIZE = 512


@lru_cache(maxsize=16)
def _spectral_noise(pool: str, steepness: float, stretch: float) -> Array:
    """Noise whose amplitudes fall off as frequency ** -steepness, `stretch` times as long across as it is high."""
    rng = generator(0, "synth", "noise", pool, f"{steepness} {stretch}")
    fy = np.fft.fftfreq(_NOISE_SIZE)[:, None]
    fx = np.fft.rfftfreq(_NOISE_SIZE)[None] * stretch
    spectrum = np.fft.rfft2(rng.standard_normal((_NOISE_SIZE, _NOISE_SIZE)))
    spectrum /= np.maximum(np.hypot(fx, fy), 1.5 / _NOISE_SIZE) ** steepness
    spectrum[0, 0] = 0
    noise = np.fft.irfft2(spectrum, (_NOISE_SIZE, _NOISE_SIZE))
    return np.asarray(np.clip(noise / (4.5 * noise.std()) + 0.5, 0, 1), np.float32)


@lru_cache(maxsize=48)
def _noise(pool: str, size: int, steepness: float, stretch: float) -> Array:
    noise = _spectral_noise(pool, steepness, stretch)
    return cv2.resize(noise, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32, copy=False)


@lru_cache(maxsize=4)
def _coordinates(size: int) -> Array:
    return ((np.arange(size) + 0.5) / size).astype(np.float32)


@dataclass(frozen=True)
class Canvas:
    """Inputs of a texture: coordinates, noise and random numbers.

    Attributes:
        pool: whose noise and photographs it may use.
        size: T, at most 512.
        rng: for its parameters.
    """

    pool: str
    size: int
    rng: np.random.Generator

    @property
    def u(self) -> Array:
        """Horizontal coordinate of the pixels, [1, T] in [0, 1]."""
        return _coordinates(self.size)[None]

    @property
    def v(self) -> Array:
        """Vertical coordinate of the pixels, [T, 1] in [0, 1]."""
        return _coordinates(self.size)[:, None]

    def integer(self, low: int, high: int) -> int:
        """A random integer, `high` excluded."""
        return int(self.rng.integers(low, high))

    def noise(self, steepness: float = 1.6, stretch: float = 1.0) -> Array:
        """Noise of several octaves, mean 0.5, at a random offset."""
        noise = _noise(self.pool, self.size, steepness, stretch)
        return np.roll(noise, self.rng.integers(self.size, size=2).tolist(), axis=(0, 1))

    def edge(self, wave: Array, frequency: float) -> Array:
        """A step where a wave of that many periods per texture crosses 0, one or two pixels wide."""
        return np.clip(wave * (self.size / (2 * math.pi * frequency)) + 0.5, 0, 1)


def _wave(x: Array, frequency: float) -> Array:
    wave: Array = np.sin(np.float32(2 * math.pi * frequency) * x)
    return wave


def _plain(c: Canvas) -> Array:
    return 0.4 * c.noise() - 0.1


def _bands(c: Canvas) -> Array:
    count, width = c.integer(3, 9), c.rng.uniform(-0.6, 0.6)
    return np.repeat(c.edge(_wave(c.v, count) + width, count), c.size, axis=1)


def _stripes(c: Canvas) -> Array:
    count, width = c.integer(6, 16), c.rng.uniform(-0.5, 0.5)
    return np.repeat(c.edge(_wave(c.u, count) + width, count), c.size, axis=0)


def _checks(c: Canvas) -> Array:
    count = c.integer(3, 7)
    across, down = c.edge(_wave(c.u, 2 * count), 2 * count), c.edge(_wave(c.v, count), count)
    gingham = c.rng.random() < 0.5  # two layers of stripes rather than squares
    checks: Array = 0.5 * across + 0.5 * down if gingham else across * (1 - down) + down * (1 - across)
    return checks


def _dots(c: Canvas) -> Array:
    count = c.integer(3, 7)
    a, b = np.float32(4 * math.pi * count) * c.u, np.float32(2 * math.pi * count) * c.v
    return c.edge(np.cos(a) * np.cos(b) - c.rng.uniform(0.3, 0.7), count)


def _marble(c: Canvas) -> Array:
    bent = c.noise(1.9) * c.rng.uniform(3, 6) + c.u + c.v * c.integer(1, 3)
    return np.sqrt(np.abs(_wave(bent, 1.0)))


def _wood(c: Canvas) -> Array:
    bent = c.noise(1.8, 6.0) * 1.4 + c.v
    grain = c.noise(0.7, 12.0)
    return 0.5 + 0.32 * _wave(bent, c.integer(4, 8)) + 0.5 * (grain - 0.5)


def _speckle(c: Canvas) -> Array:
    spots = c.noise(1.1)
    return np.clip((spots - c.rng.uniform(0.58, 0.7)) * 14, 0, 1) + 0.25 * (c.noise() - 0.5)


def _glaze(c: Canvas) -> Array:
    level = c.rng.uniform(0.35, 0.65)
    return np.clip((c.v - level + 0.5 * (c.noise(1.5) - 0.5)) * 14 + 0.5, 0, 1)


def _brushed(c: Canvas) -> Array:
    return 0.5 * c.noise(0.9, 14.0) - 0.1


def _zigzag(c: Canvas) -> Array:
    count, rows = c.integer(5, 11), c.integer(3, 7)
    fold = np.abs((c.u * count) % 1 - 0.5)
    return c.edge(_wave(c.v * rows + fold, 1.0) + c.rng.uniform(-0.4, 0.4), rows + count)


def _diamonds(c: Canvas) -> Array:
    count = c.integer(3, 7)
    a, b = _wave(2 * count * c.u + count * c.v, 1.0), _wave(2 * count * c.u - count * c.v, 1.0)
    return 0.7 * c.edge(a * b, 2 * count) + 0.3 * c.edge(np.abs(a) - 0.95, 2 * count)


def _waves(c: Canvas) -> Array:
    rows, count = c.integer(4, 9), c.integer(2, 6)
    return c.edge(_wave(c.v * rows + c.rng.uniform(0.2, 0.5) * _wave(c.u, count), 1.0), rows)


def _chips(c: Canvas) -> Array:
    """Cells of a Voronoi diagram, most of them of the ground's tone: terrazzo."""
    small = c.size // 2
    points = c.rng.random((140, 2)) * small
    seeds = np.full((small, small), 255, np.uint8)
    seeds[points[:, 1].astype(int), points[:, 0].astype(int)] = 0
    labels = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)[1]
    cells = len(points) + 1
    tone = np.where(c.rng.random(cells) < 0.6, 0.0, c.rng.uniform(0.5, 1, cells)).astype(np.float32)
    chips: Array = cv2.resize(tone[labels], (c.size, c.size), interpolation=cv2.INTER_LINEAR)
    return chips + 0.15 * (c.noise() - 0.5)


def _fade(c: Canvas) -> Array:
    return 0.5 + 0.45 * _wave(c.u * c.integer(1, 3) + c.v, 1.0) + 0.2 * (c.noise() - 0.5)


Field = Callable[[Canvas], Array]


def by_name(*fields: Field) -> dict[str, Field]:
    """Functions by their names without the leading underscore."""
    return {field.__name__[1:]: field for field in fields}


PATTERNS: dict[str, dict[str, Field]] = {
    "train": by_name(_plain, _bands, _stripes, _checks, _dots, _marble, _wood, _speckle, _glaze),
    "held_out": by_name(_brushed, _zigzag, _diamonds, _waves, _chips, _fade),
}
# Of each pool, the pattern that is nearly one colour.
UNIFORM = {"train": "plain", "held_out": "brushed"}
# In either pool: a cut of a photograph on the nearly uniform pattern.
LABEL = "label"


def quantize(field: Array) -> npt.NDArray[np.uint8]:
    """A field of [0, 1] in 256 steps."""
    return cv2.convertScaleAbs(np.maximum(field, 0), alpha=255).astype(np.uint8, copy=False)


def colorize(steps: npt.NDArray[np.uint8], colors: tuple[int, ...]) -> RGB:
    """Steps in colours from the first (0) to the last (255): uint8 [T, T, 3]."""
    return cv2.applyColorMap(steps, color_ramp(colors)[:, None]).astype(np.uint8, copy=False)


def texture(pool: str, pattern: str, palette: Palette, seed: int, size: int) -> RGB:
    """The texture of a material's main slot: uint8 [T, T, 3]; u runs across, v up from the first row."""
    c = Canvas(pool, size, generator(seed, "synth", "texture", pool, pattern))
    field = PATTERNS[pool][UNIFORM[pool] if pattern == LABEL else pattern](c)
    image = colorize(quantize(field), palette[1:3] + palette[:1] if pattern == "chips" else palette[:2])
    if pattern != LABEL:
        return image
    height, width = int(size * c.rng.uniform(0.4, 0.62)), int(size * c.rng.uniform(0.26, 0.4))
    label = cv2.resize(random_crop(pool, c.rng), (width, height), interpolation=cv2.INTER_AREA)[::-1]
    border = max(2, size // 64)
    top = (size - height) // 2
    for left in (size // 2 - width - border, size - border - width):  # twice around, so that one always shows
        image[top - border : top + height + border, left - border : left + width + border] = rgb(palette[3])
        image[top : top + height, left : left + width] = label
    return image
