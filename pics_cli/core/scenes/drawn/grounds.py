"""Procedural textures of grounds, tileable: fields from 0 (dark) to 1 (light), as `patterns` makes them for objects."""

from __future__ import annotations

import math

import cv2
import numpy as np

from pics_cli.core.scenes.drawn.camera import Array
from pics_cli.core.scenes.drawn.patterns import PATTERNS, Canvas, Field, by_name


def _planks(c: Canvas) -> Array:
    count = 6
    y = np.arange(c.size)
    plank = y * count // c.size
    tone = c.rng.uniform(-0.12, 0.12, count)[plank][:, None]
    shift = c.rng.integers(c.size, size=count)
    grain = c.noise(0.8, 12.0)
    rings = c.noise(1.8, 6.0)
    columns = (y[None] + shift[plank][:, None]) % c.size
    wood = 0.5 + 0.28 * np.sin(40 * rings[y[:, None], columns]) + 0.7 * (grain - 0.5) + tone
    in_plank = y * count % c.size
    gap = np.where((in_plank < count) | (in_plank >= c.size - count), 0.35, 0)[:, None]
    planks: Array = wood - gap
    return planks


def _joints(size: int, across: int, down: int, staggered: bool) -> Array:
    """1 in the joints between tiles laid in rows, else 0; lines are two pixels wide or more."""
    joints = np.zeros((size, size), np.float32)
    width = max(2, size // 128)
    for row in range(down):
        top, end = row * size // down, (row + 1) * size // down
        joints[top : top + width] = 1
        for column in range(across):
            left = int((column + (0.5 * (row % 2) if staggered else 0)) * size / across) % size
            joints[top:end, left : left + width] = 1
    return joints


def _tiles(c: Canvas) -> Array:
    tone = cv2.resize(c.rng.uniform(-0.08, 0.08, (4, 4)), (c.size, c.size), interpolation=cv2.INTER_NEAREST)
    return 0.62 + tone + 0.25 * (c.noise() - 0.5) - 0.5 * _joints(c.size, 4, 4, False)


def _bricks(c: Canvas) -> Array:
    return 0.6 + 0.6 * (c.noise(1.2) - 0.5) - 0.5 * _joints(c.size, 3, 6, True)


def _threads(size: int, count: int, slant: int) -> Array:
    angle = (np.arange(size) / size * (2 * math.pi)).astype(np.float32)
    x, y = angle[None], angle[:, None]
    threads: Array = 0.1 * np.sin(x * count + slant * y) + 0.1 * np.sin(y * count - slant * x)
    return threads


def _weave(c: Canvas) -> Array:
    field = 0.5 + _threads(c.size, c.size // 6, 0) + 0.35 * (c.noise(1.0) - 0.5)
    if c.rng.random() < 0.5:  # a striped cloth
        stripes = np.sin(np.arange(c.size) * (2 * math.pi * c.integer(3, 7) / c.size))
        field = field + 0.3 * np.clip(stripes * 6, -0.2, 1)[None].astype(np.float32)
    return field


def _linen(c: Canvas) -> Array:
    return 0.5 + _threads(c.size, c.size // 7, c.size // 7) + 0.4 * (c.noise(0.9, 5.0) - 0.5)


def _stone(c: Canvas) -> Array:
    veins = 1 - np.abs(np.sin(c.noise(1.9) * 16 + 0.8))  # where the noise is cut off, at 0 and 1, there is no vein
    return 0.75 - 0.55 * veins**4 + 0.5 * (c.noise(1.6) - 0.5)


def _matt(c: Canvas) -> Array:
    return 0.5 + 0.18 * (c.noise() - 0.5)


def _rough(steepness: float, strength: float) -> Field:
    def field(c: Canvas) -> Array:
        broad = c.noise(1.9)
        return 0.5 + strength * (c.noise(steepness) - 0.5) + 0.3 * (broad - 0.5)

    return field


def _terrazzo(c: Canvas) -> Array:
    return 0.75 - 0.6 * PATTERNS["held_out"]["chips"](c)


GROUNDS: dict[str, dict[str, Field]] = {
    "train": {
        **by_name(_planks, _weave, _stone, _matt, _tiles),
        "lawn": _rough(0.55, 0.95),
        "carpet": _rough(0.35, 0.6),
    },
    "held_out": {
        **by_name(_bricks, _linen, _terrazzo),
        "concrete": _rough(1.3, 0.5),
        "sand": _rough(0.75, 0.45),
    },
}
