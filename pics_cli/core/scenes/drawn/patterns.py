"""Patterns of surfaces, tileable. T: side of a texture in pixels; fields are float32 [T, T] in [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from pics_cli.core.images.image_io import RGB
from pics_cli.core.runtime.rng import generator
from pics_cli.core.scenes.drawn.camera import Array
from pics_cli.core.scenes.drawn.colors import Palette, ramp, rgb
from pics_cli.core.scenes.drawn.photos import cut

_TILE = 512


@lru_cache(maxsize=16)
def _tile(pool: str, steepness: float, stretch: float) -> Array:
    """Noise whose octaves fall off as frequency ** -steepness, `stretch` times as long across as it is high."""
    rng = generator(0, "synth", "noise", pool, f"{steepness} {stretch}")
    fy = np.fft.fftfreq(_TILE)[:, None]
    fx = np.fft.rfftfreq(_TILE)[None] * stretch
    spectrum = np.fft.rfft2(rng.standard_normal((_TILE, _TILE)))
    spectrum /= np.maximum(np.hypot(fx, fy), 1.5 / _TILE) ** steepness
    spectrum[0, 0] = 0
    noise = np.fft.irfft2(spectrum, (_TILE, _TILE))
    tile: Array = np.clip(noise / (4.5 * noise.std()) + 0.5, 0, 1).astype(np.float32)
    return tile


@lru_cache(maxsize=48)
def _reduced(pool: str, size: int, steepness: float, stretch: float) -> Array:
    small = cv2.resize(_tile(pool, steepness, stretch), (size, size), interpolation=cv2.INTER_AREA)
    return small.astype(np.float32, copy=False)


def noise(pool: str, size: int, rng: np.random.Generator, steepness: float = 1.6, stretch: float = 1.0) -> Array:
    """A tileable field of several octaves, mean 0.5, with another offset for every generator; T is at most 512."""
    tile = _reduced(pool, size, steepness, stretch)
    field: Array = np.roll(tile, rng.integers(size, size=2).tolist(), axis=(0, 1))
    return field


@lru_cache(maxsize=4)
def _grid(size: int) -> tuple[Array, Array]:
    """u [1, T] and v [T, 1] of a texture's pixels."""
    at = ((np.arange(size) + 0.5) / size).astype(np.float32)
    return at[None], at[:, None]


def _edge(wave: Array, size: int, count: float) -> Array:
    """A step where a wave of slope about `count` per texture crosses 0, one or two pixels wide."""
    return np.clip(wave * (size / (2 * math.pi * count)) + 0.5, 0, 1)


def _wave(x: Array, count: float) -> Array:
    wave: Array = np.sin(np.float32(2 * math.pi * count) * x)
    return wave


def _plain(pool: str, size: int, rng: np.random.Generator) -> Array:
    return 0.4 * noise(pool, size, rng) - 0.1


def _bands(pool: str, size: int, rng: np.random.Generator) -> Array:  # noqa: ARG001
    count = int(rng.integers(3, 9))
    width = rng.uniform(-0.6, 0.6)
    return np.repeat(_edge(_wave(_grid(size)[1], count) + width, size, count), size, axis=1)


def _stripes(pool: str, size: int, rng: np.random.Generator) -> Array:  # noqa: ARG001
    count = int(rng.integers(6, 16))
    width = rng.uniform(-0.5, 0.5)
    return np.repeat(_edge(_wave(_grid(size)[0], count) + width, size, count), size, axis=0)


def _checks(pool: str, size: int, rng: np.random.Generator) -> Array:  # noqa: ARG001
    u, v = _grid(size)
    count = int(rng.integers(3, 7))
    across, down = _edge(_wave(u, 2 * count), size, 2 * count), _edge(_wave(v, count), size, count)
    if rng.random() < 0.5:  # gingham: two layers of stripes rather than squares
        gingham: Array = 0.5 * across + 0.5 * down
        return gingham
    checks: Array = across * (1 - down) + down * (1 - across)
    return checks


def _dots(pool: str, size: int, rng: np.random.Generator) -> Array:  # noqa: ARG001
    u, v = _grid(size)
    count = int(rng.integers(3, 7))
    a, b = np.float32(4 * math.pi * count) * u, np.float32(2 * math.pi * count) * v
    return _edge(np.cos(a) * np.cos(b) - rng.uniform(0.3, 0.7), size, count)


def _marble(pool: str, size: int, rng: np.random.Generator) -> Array:
    u, v = _grid(size)
    bent = noise(pool, size, rng, 1.9) * rng.uniform(3, 6) + u + v * int(rng.integers(1, 3))
    veins: Array = np.sqrt(np.abs(_wave(bent, 1.0)))
    return veins


def _wood(pool: str, size: int, rng: np.random.Generator) -> Array:
    v = _grid(size)[1]
    bent = noise(pool, size, rng, 1.8, 6.0) * 1.4 + v
    grain = noise(pool, size, rng, 0.7, 12.0)
    return 0.5 + 0.32 * _wave(bent, float(rng.integers(4, 8))) + 0.5 * (grain - 0.5)


def _speckle(pool: str, size: int, rng: np.random.Generator) -> Array:
    spots = noise(pool, size, rng, 1.1)
    return np.clip((spots - rng.uniform(0.58, 0.7)) * 14, 0, 1) + 0.25 * (noise(pool, size, rng) - 0.5)


def _glaze(pool: str, size: int, rng: np.random.Generator) -> Array:
    v = _grid(size)[1]
    level = rng.uniform(0.35, 0.65)
    return np.clip((v - level + 0.5 * (noise(pool, size, rng, 1.5) - 0.5)) * 14 + 0.5, 0, 1)


def _brushed(pool: str, size: int, rng: np.random.Generator) -> Array:
    return 0.5 * noise(pool, size, rng, 0.9, 14.0) - 0.1


def _zigzag(pool: str, size: int, rng: np.random.Generator) -> Array:  # noqa: ARG001
    u, v = _grid(size)
    count, rows = int(rng.integers(5, 11)), int(rng.integers(3, 7))
    fold = np.abs((u * count) % 1 - 0.5)
    return _edge(_wave(v * rows + fold, 1.0) + rng.uniform(-0.4, 0.4), size, rows + count)


def _diamonds(pool: str, size: int, rng: np.random.Generator) -> Array:  # noqa: ARG001
    u, v = _grid(size)
    count = int(rng.integers(3, 7))
    a, b = _wave(2 * count * u + count * v, 1.0), _wave(2 * count * u - count * v, 1.0)
    return 0.7 * _edge(a * b, size, 2 * count) + 0.3 * _edge(np.abs(a) - 0.95, size, 2 * count)


def _waves(pool: str, size: int, rng: np.random.Generator) -> Array:  # noqa: ARG001
    u, v = _grid(size)
    rows, count = int(rng.integers(4, 9)), int(rng.integers(2, 6))
    return _edge(_wave(v * rows + rng.uniform(0.2, 0.5) * _wave(u, count), 1.0), size, rows)


def _chips(pool: str, size: int, rng: np.random.Generator) -> Array:
    """Cells of a Voronoi diagram, most of them of the ground's tone: terrazzo."""
    small = size // 2
    points = rng.random((140, 2)) * small
    canvas = np.full((small, small), 255, np.uint8)
    canvas[points[:, 1].astype(int), points[:, 0].astype(int)] = 0
    labels = cv2.distanceTransformWithLabels(canvas, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)[1]
    tone = np.where(rng.random(len(points) + 1) < 0.6, 0.0, rng.uniform(0.5, 1, len(points) + 1)).astype(np.float32)
    chips = cv2.resize(tone[labels], (size, size), interpolation=cv2.INTER_LINEAR)
    rough: Array = chips + 0.15 * (noise(pool, size, rng) - 0.5)
    return rough


def _fade(pool: str, size: int, rng: np.random.Generator) -> Array:
    u, v = _grid(size)
    return 0.5 + 0.45 * _wave(u * int(rng.integers(1, 3)) + v, 1.0) + 0.2 * (noise(pool, size, rng) - 0.5)


_Field = Callable[[str, int, np.random.Generator], Array]
LABEL = "label"
# A pattern named `label` is a cut of a photograph on a plain surface, in either pool.
FIELDS: dict[str, dict[str, _Field]] = {
    "train": {
        "plain": _plain,
        "bands": _bands,
        "stripes": _stripes,
        "checks": _checks,
        "dots": _dots,
        "marble": _marble,
        "wood": _wood,
        "speckle": _speckle,
        "glaze": _glaze,
    },
    "held_out": {
        "brushed": _brushed,
        "zigzag": _zigzag,
        "diamonds": _diamonds,
        "waves": _waves,
        "chips": _chips,
        "fade": _fade,
    },
}


def steps(field: Array) -> npt.NDArray[np.uint8]:
    """A field from 0 to 1 in 256 steps."""
    return cv2.convertScaleAbs(np.maximum(field, 0), alpha=255).astype(np.uint8, copy=False)


def paint(index: npt.NDArray[np.uint8], colours: tuple[int, ...]) -> RGB:
    """Steps in colours from the first (0) to the last (255): uint8 [T, T, 3]."""
    return cv2.applyColorMap(index, ramp(colours)[:, None]).astype(np.uint8, copy=False)


def texture(pool: str, pattern: str, palette: Palette, seed: int, size: int) -> RGB:
    """The texture of an object's main slot: uint8 [T, T, 3]; u runs across, v up from the first row."""
    rng = generator(seed, "synth", "texture", pool, pattern)
    if pattern != LABEL:
        colours = palette[1:3] + palette[:1] if pattern == "chips" else palette[:2]
        return paint(steps(FIELDS[pool][pattern](pool, size, rng)), colours)
    quiet = FIELDS[pool]["plain" if pool == "train" else "brushed"]
    base = paint(steps(quiet(pool, size, rng)), palette[:2])
    height, width = int(size * rng.uniform(0.4, 0.62)), int(size * rng.uniform(0.26, 0.4))
    part = cv2.resize(cut(pool, rng), (width, height), interpolation=cv2.INTER_AREA)[::-1]
    border = max(2, size // 64)
    top = (size - height) // 2
    for left in (size // 2 - width - border, size - border - width):  # twice around, so that one always shows
        base[top - border : top + height + border, left - border : left + width + border] = rgb(palette[3])
        base[top : top + height, left : left + width] = part
    return base
