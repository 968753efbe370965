"""The baseline: training samples made as research code usually makes them, with Pillow, float64 and whole pictures.

Own code, after a description of the published loader: every member is decoded by Pillow to RGB, masks lie at the full
resolution in three channels, everything is padded by NumPy before it is resized, pixels of a patch that are nearly
white become white, and a sample leaves as float tensors: 11.85 MB. Nothing is made slow on purpose. Augmentation and
the random padding of patches are left out: `ratio` and `growth` are given instead. H, W: sides of the picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import webdataset

Array = npt.NDArray[Any]

SIZE, REFERENCE = 512, 224
NEARLY_WHITE = 250


def samples(shard: Path, count: int, ratio: float = 1.2, growth: float = 1.0) -> Any:
    """An iterable of this many samples of a published shard, in its order, again and again."""
    dataset = webdataset.WebDataset([str(shard)], shardshuffle=False, empty_check=False)
    return dataset.decode("pil").map(partial(construct, ratio=ratio, growth=growth)).with_epoch(count)


def construct(sample: Mapping[str, Any], ratio: float, growth: float) -> dict[str, Array]:
    """What a training step sees of a decoded sample.

    Args:
        sample: Pillow pictures by extension.
        ratio: side of the padded patch over its own.
        growth: side of a region over that of the object's box.

    Returns:
        jpg float32 [S, S, 3] and hint float32 [S, S, 4], both in [-1, 1]; ref0, ref1 float64 [R, R, 3] in [0, 1];
        mask0, mask1 float32 [S, S]; time_steps int64 [1].
    """
    image = np.array(sample["bg.jpg"].convert("RGB"))
    collage, known = image.astype(np.float64), np.zeros(image.shape, np.float64)
    made: dict[str, Array] = {}
    for k in range(2):
        made[f"ref{k}"] = reference(np.array(sample[f"obj{k}.png"].convert("RGB")), ratio)
        mask = np.array(sample[f"mask{k}.png"].convert("RGB"))
        y0, y1, x0, x1 = grown(inclusive_box(mask[..., 0] > 127), growth, *image.shape[:2])
        region = np.zeros(image.shape, np.float64)
        region[y0:y1, x0:x1] = known[y0:y1, x0:x1] = 1
        collage[y0:y1, x0:x1] = 0
        made[f"mask{k}"] = nearest(square(region, 0))[..., 0].astype(np.float32)
    made["jpg"] = bilinear(square(image, 0)) / 127.5 - 1
    inside = nearest(square(known, 2)).astype(np.float32)
    inside[inside == 2] = -1
    made["hint"] = np.concatenate([bilinear(square(collage, 0)) / 127.5 - 1, inside[..., :1]], -1)
    made["time_steps"] = np.random.randint(0, 1000 if np.random.uniform() < 0.3 else 500, 1)
    return made


def reference(patch: Array, ratio: float) -> Array:
    """A patch padded with white, nearly white pixels made white: float64 [R, R, 3] in [0, 1]."""
    patch = around(patch, int(patch.shape[0] * ratio), int(patch.shape[1] * ratio), 255)
    patch = square(patch, 255)
    grey = cv2.cvtColor(patch.astype(np.uint8), cv2.COLOR_RGB2GRAY)
    kept = (grey < NEARLY_WHITE).astype(np.float64)
    kept = np.stack([kept, kept, kept], -1)
    white = patch * kept + np.ones_like(patch) * 255 * (1 - kept)
    resized: Array = cv2.resize(white.astype(np.uint8), (REFERENCE, REFERENCE)).astype(np.float64) / 255
    return resized


def inclusive_box(mask: Array) -> tuple[int, int, int, int]:
    """y0, y1, x0, x1 of the first and last set pixels of a mask, bool [H, W]."""
    y0, y1 = np.where(np.any(mask, axis=1))[0][[0, -1]]
    x0, x1 = np.where(np.any(mask, axis=0))[0][[0, -1]]
    return y0, y1, x0, x1


def grown(box: Sequence[int], growth: float, height: int, width: int) -> tuple[int, int, int, int]:
    """An inclusive box grown about its centre and cut off where the picture ends: half-open y0, y1, x0, x1."""
    y0, y1, x0, x1 = box
    down, right = growth * (y1 - y0 + 1), growth * (x1 - x0 + 1)
    y, x = (y0 + y1 + 1) / 2, (x0 + x1 + 1) / 2
    low, high = (max(0, int(y - down / 2)), max(0, int(x - right / 2))), (int(y + down / 2), int(x + right / 2))
    return low[0], min(height, high[0]), low[1], min(width, high[1])


def around(picture: Array, height: int, width: int, value: float) -> Array:
    """`value` on all sides up to height x width, the smaller half first."""
    down, right = height - picture.shape[0], width - picture.shape[1]
    sides = ((down // 2, down - down // 2), (right // 2, right - right // 2), (0, 0))
    return np.pad(picture, sides, "constant", constant_values=value)


def square(picture: Array, value: float) -> Array:
    """Padded to a square."""
    side = max(picture.shape[:2])
    return around(picture, side, side, value)


def bilinear(picture: Array) -> Array:
    """float32 [S, S, 3] in [0, 255]."""
    resized: Array = cv2.resize(picture.astype(np.uint8), (SIZE, SIZE)).astype(np.float32)
    return resized


def nearest(picture: Array) -> Array:
    """uint8 [S, S, 3]."""
    return cv2.resize(picture.astype(np.uint8), (SIZE, SIZE), interpolation=cv2.INTER_NEAREST)
