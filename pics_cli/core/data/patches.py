"""Reference patches: one object on white, 224×224."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from pics_cli.core.data.masks import BoxMask
from pics_cli.core.data.pictures import RGB
from pics_cli.core.geometry import Box
from pics_cli.core.rng import generator

PATCH_SIZE = 224


@dataclass(frozen=True, slots=True)
class Patch:
    """A reference patch and how it was cut.

    Attributes:
        rgb: uint8 [224, 224, 3], white outside the mask.
        crop: which box of the picture it shows, half-open: that of the mask, unless asked otherwise.
        padding: by which ratio the crop was widened with white before it was made square.
    """

    rgb: RGB
    crop: Box
    padding: float


def padding_ratios(choices: Sequence[float], seed: int, key: str, count: int) -> list[float]:
    """The padding ratio of each object of a sample: a function of the seed and the sample's key."""
    draws = generator(seed, "padding", key).integers(len(choices), size=count)
    return [choices[i] for i in draws]


def cut_patch(rgb: RGB, mask: BoxMask, padding: float, crop: Box | None = None) -> Patch:
    """Cut an object out of a picture.

    The box of the mask (or another crop) is cropped, whitened outside the mask, padded with white to
    `int(side * padding)` on both sides (the smaller half first), padded to a square likewise and resized bilinearly,
    as the published shards were.

    Args:
        rgb: uint8 [H, W, 3].
        mask: non-empty, of the same picture.
        padding: at least 1.
        crop: inside the picture; None: the box of the mask.
    """
    crop = crop or mask.box
    x0, y0, x1, y1 = crop
    height, width = int((y1 - y0) * padding), int((x1 - x0) * padding)
    side = max(height, width)
    top = (height - (y1 - y0)) // 2 + (side - height) // 2
    left = (width - (x1 - x0)) // 2 + (side - width) // 2
    square = np.full((side, side, 3), 255, np.uint8)
    inside = square[top : top + y1 - y0, left : left + x1 - x0]
    if inside.size:  # the published crop of a mask one pixel wide is empty, and its patch white
        cv2.copyTo(rgb[y0:y1, x0:x1], mask.window(crop).view(np.uint8), inside)
    resized = cv2.resize(square, (PATCH_SIZE, PATCH_SIZE), interpolation=cv2.INTER_LINEAR)
    return Patch(resized.astype(np.uint8, copy=False), crop, padding)
