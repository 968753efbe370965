"""Tones of grounds, tileable: from 0 (dark) to 1 (light). T: side of a texture in pixels."""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np

from pics_cli.core.scenes.drawn import patterns
from pics_cli.core.scenes.drawn.camera import Array


def _planks(pool: str, size: int, rng: np.random.Generator) -> Array:
    count = 6
    rows = np.arange(size) * count // size
    tone = rng.uniform(-0.12, 0.12, count)[rows][:, None]
    shift = rng.integers(size, size=count)
    grain = patterns.noise(pool, size, rng, 0.8, 12.0)
    rings = patterns.noise(pool, size, rng, 1.8, 6.0)
    columns = (np.arange(size)[None] + shift[rows][:, None]) % size
    wood = 0.5 + 0.28 * np.sin(40 * rings[np.arange(size)[:, None], columns]) + 0.7 * (grain - 0.5) + tone
    at = np.arange(size) * count % size
    gap = np.where((at < count) | (at >= size - count), 0.35, 0)[:, None]
    boards: Array = (wood - gap).astype(np.float32)
    return boards


def _joints(size: int, across: int, down: int, shift: bool) -> Array:
    """1 in the joints between tiles laid in rows; lines two pixels wide."""
    joints = np.zeros((size, size), np.float32)
    width = max(2, size // 128)
    for row in range(down):
        top, end = row * size // down, (row + 1) * size // down
        joints[top : top + width] = 1
        for column in range(across):
            left = int((column + (0.5 * (row % 2) if shift else 0)) * size / across) % size
            joints[top:end, left : left + width] = 1
    return joints


def _tiles(pool: str, size: int, rng: np.random.Generator) -> Array:
    tone = cv2.resize(rng.uniform(-0.08, 0.08, (4, 4)), (size, size), interpolation=cv2.INTER_NEAREST)
    return (0.62 + tone + 0.25 * (patterns.noise(pool, size, rng) - 0.5) - 0.5 * _joints(size, 4, 4, False)).astype(
        np.float32
    )


def _bricks(pool: str, size: int, rng: np.random.Generator) -> Array:
    stone = patterns.noise(pool, size, rng, 1.2)
    return 0.6 + 0.6 * (stone - 0.5) - 0.5 * _joints(size, 3, 6, True)


def _cloth(size: int, threads: int, slant: int) -> Array:
    at = (np.arange(size) / size * (2 * math.pi)).astype(np.float32)
    x, y = at[None], at[:, None]
    cloth: Array = 0.1 * np.sin(x * threads + slant * y) + 0.1 * np.sin(y * threads - slant * x)
    return cloth


def _weave(pool: str, size: int, rng: np.random.Generator) -> Array:
    field = 0.5 + _cloth(size, size // 6, 0) + 0.35 * (patterns.noise(pool, size, rng, 1.0) - 0.5)
    if rng.random() < 0.5:  # a striped cloth
        at = np.sin(np.arange(size) * (2 * math.pi * int(rng.integers(3, 7)) / size))
        field = field + 0.3 * np.clip(at * 6, -0.2, 1)[None].astype(np.float32)
    return field


def _linen(pool: str, size: int, rng: np.random.Generator) -> Array:
    return 0.5 + _cloth(size, size // 7, size // 7) + 0.4 * (patterns.noise(pool, size, rng, 0.9, 5.0) - 0.5)


def _stone(pool: str, size: int, rng: np.random.Generator) -> Array:
    bent = patterns.noise(pool, size, rng, 1.9)
    veins = 1 - np.abs(np.sin(bent * 16 + 0.8))  # where the noise is cut off, at 0 and 1, there is no vein
    return 0.75 - 0.55 * veins**4 + 0.5 * (patterns.noise(pool, size, rng, 1.6) - 0.5)


def _matt(pool: str, size: int, rng: np.random.Generator) -> Array:
    return 0.5 + 0.18 * (patterns.noise(pool, size, rng) - 0.5)


def _rough(steepness: float, strength: float) -> Callable[[str, int, np.random.Generator], Array]:
    def field(pool: str, size: int, rng: np.random.Generator) -> Array:
        broad = patterns.noise(pool, size, rng, 1.9)
        return 0.5 + strength * (patterns.noise(pool, size, rng, steepness) - 0.5) + 0.3 * (broad - 0.5)

    return field


def _mosaic(pool: str, size: int, rng: np.random.Generator) -> Array:
    return 0.75 - 0.6 * patterns.FIELDS["held_out"]["chips"](pool, size, rng)


GROUNDS: dict[str, dict[str, Callable[[str, int, np.random.Generator], Array]]] = {
    "train": {
        "planks": _planks,
        "weave": _weave,
        "stone": _stone,
        "matt": _matt,
        "tiles": _tiles,
        "lawn": _rough(0.55, 0.95),
        "carpet": _rough(0.35, 0.6),
    },
    "held_out": {
        "concrete": _rough(1.3, 0.5),
        "bricks": _bricks,
        "linen": _linen,
        "terrazzo": _mosaic,
        "sand": _rough(0.75, 0.45),
    },
}
