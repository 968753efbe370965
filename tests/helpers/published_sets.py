"""Drawn folders in the layouts of data sets that are published: DESOBAv2, InstaOrder and Open Images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from helpers.making import RGB, encoded, smooth
from helpers.street import put

SHADOW_SIZE = 96


def write_desobav2(root: Path, names: Sequence[str] = ("a", "b"), split: str = "test") -> Path:
    """A post on a lawn with a long shadow, a photograph each: the folders of DESOBAv2, and the list of a split."""
    for i, name in enumerate(names):
        with_shadow, without, post, shadow = shadow_scene(i)
        pictures = {
            "shadow_imgs": with_shadow, "shadowfree_imgs": without, "object_masks": post, "shadow_masks": shadow,
            "background_object_masks": post * 0, "background_shadow_masks": post * 0,
        }  # fmt: skip
        for folder, picture in pictures.items():
            put(root / folder / f"{name}.jpg", encoded(picture, quality=95))
    put(root / f"{split}.txt", "".join(f"{name}\n" for name in names))
    return root


def shadow_scene(seed: int) -> tuple[RGB, RGB, RGB, RGB]:
    """A picture with a shadow, the same without it, the object's mask and the shadow's, uint8 [96, 96(, 3)]."""
    side = SHADOW_SIZE
    lawn = smooth(side, side, seed) // 2 + 80
    post, shadow = np.zeros((side, side), np.uint8), np.zeros((side, side), np.uint8)
    cv2.rectangle(post, (30, 20), (45, 70), 255, -1)
    cv2.fillPoly(shadow, [np.array([[30, 70], [45, 70], [88, 84], [72, 88]], np.int32)], 255)
    without, dark = lawn.copy(), lawn.copy()
    dark[shadow > 0] = dark[shadow > 0] // 2
    for picture in (without, dark):
        picture[post > 0] = (200, 60 + 40 * seed, 40)
    return dark, without, post, shadow
