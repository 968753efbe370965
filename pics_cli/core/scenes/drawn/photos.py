"""Photographs that textures are cut from, in the public domain or CC0: files of `pics_cli/photos`.

docs/credits.md names their authors. Every file belongs to one pool only.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from pics_cli.core.images.image_io import RGB
from pics_cli.errors import PicsError

FOLDER = Path(__file__).parents[3] / "photos"
PHOTOS: dict[str, tuple[str, ...]] = {
    "train": ("coffee.png", "chelsea.png", "hubble_deep_field.jpg"),
    "held_out": ("rocket.jpg", "retina.jpg"),
}
# Larger files are reduced on reading: no texture shows more detail.
LONGEST_SIDE = 640


@lru_cache(maxsize=8)
def load_photo(name: str) -> RGB:
    """A photograph, uint8 [H, W, 3] with sides of at most 640, read-only.

    Raises:
        PicsError: the file is missing or damaged.
    """
    path = FOLDER / name
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR) if path.is_file() else None
    if bgr is None:
        raise PicsError(f"{path}: cannot be read", "pip install --force-reinstall --no-deps pics-cli")
    scale = LONGEST_SIDE / max(bgr.shape[:2])
    if scale < 1:
        bgr = cv2.resize(bgr, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    photo: RGB = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
    photo.setflags(write=False)
    return photo


def random_crop(pool: str, rng: np.random.Generator, min_side: float = 0.35, max_side: float = 0.8) -> RGB:
    """A random part of a random photograph of the pool, its sides `min_side` to `max_side` of the photograph's."""
    names = PHOTOS[pool]
    photo = load_photo(names[int(rng.integers(len(names)))])
    height, width = photo.shape[:2]
    h, w = (int(side * rng.uniform(min_side, max_side)) for side in (height, width))
    y, x = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    return photo[y : y + h, x : x + w]
