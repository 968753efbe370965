"""Pictures and shapes for made datasets: textures of noise in several octaves, lumpy outlines, both from a seed."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

OBJECT_NOISE = 5.0


def photo(rng: np.random.Generator, height: int, width: int, noise: float = 6.0) -> np.ndarray:
    """uint8 BGR [height, width, 3] that compresses about as a photograph does: 1/f texture and sensor noise."""
    image = np.full((height, width, 3), rng.uniform(70, 180, 3), np.float32)
    for octave in (2, 4, 6):
        cells = (max(2, height * 2**octave // 512), max(2, width * 2**octave // 512))
        texture = rng.normal(0, 1, (*cells, 1)) * rng.uniform(0.6, 1.4, 3)
        image += 90 / octave * cv2.resize(texture.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    grain = np.empty((height, width, 3), np.float32)
    cv2.setRNGSeed(int(rng.integers(1 << 30)))
    cv2.randn(grain, np.zeros(3), np.full(3, noise))
    image += grain
    drawn: npt.NDArray[np.uint8] = np.clip(image, 0, 255, out=image).astype(np.uint8)
    return drawn


def blob(rng: np.random.Generator, x: float, y: float, rx: float, ry: float) -> np.ndarray:
    """Outline of a lumpy shape, float [points, 2]."""
    count = int(rng.integers(14, 60))
    angle = np.sort(rng.uniform(0, 2 * math.pi, count))
    radius = 1 + 0.25 * np.cos(angle * rng.integers(2, 6) + rng.uniform(0, 6)) + rng.normal(0, 0.06, count)
    return np.stack([x + rx * radius * np.cos(angle), y + ry * radius * np.sin(angle)], 1)


def outlines(
    rng: np.random.Generator, height: int, width: int, count: int, big: float, contained: float = 0.25
) -> list[np.ndarray]:
    """Outlines of up to `count` objects, clustered so that boxes overlap; a share lies inside an earlier one."""
    shapes: list[np.ndarray] = []
    for _ in range(count):
        size = min(height, width) * float(np.clip(rng.lognormal(math.log(0.16), 0.55), 0.03, big))
        centre = np.array([rng.uniform(0.1 * width, 0.9 * width), rng.uniform(0.1 * height, 0.9 * height)])
        if shapes and rng.random() < contained:
            other = shapes[rng.integers(len(shapes))]
            low, high = other.min(0), other.max(0)
            centre = rng.uniform(low * 0.75 + high * 0.25, high * 0.75 + low * 0.25)
            size = max(4.0, min(size, 0.2 * float((high - low).min())))
        elif shapes and rng.random() < 0.5:
            other = shapes[rng.integers(len(shapes))]
            centre = other.mean(0) + rng.normal(0, 0.6, 2) * np.ptp(other, axis=0)
        outline = blob(rng, centre[0], centre[1], size * rng.uniform(0.7, 1.6), size * rng.uniform(0.7, 1.6))
        outline = np.clip(outline, 0, [width - 1, height - 1])
        if np.ptp(outline, axis=0).min() >= 4:
            shapes.append(np.round(outline, 2))
    return shapes


def paint(
    rng: np.random.Generator, image: np.ndarray, shapes: list[np.ndarray], noise: float = OBJECT_NOISE
) -> np.ndarray:
    """Fill each outline with a texture of its own, later ones in front."""
    for shape in shapes:
        x0, y0 = np.floor(shape.min(0)).astype(int)
        x1, y1 = np.minimum(np.ceil(shape.max(0)).astype(int) + 1, image.shape[1::-1])
        inside = np.zeros((y1 - y0, x1 - x0), np.uint8)
        cv2.fillPoly(inside, [np.round(shape - [x0, y0]).astype(np.int32)], 1)
        cv2.copyTo(photo(rng, y1 - y0, x1 - x0, noise), inside, image[y0:y1, x0:x1])
    return image
