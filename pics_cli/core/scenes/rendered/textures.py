"""Photographs as the reflectance of grounds and walls."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from pics_cli.core.images.image_io import RGB, decode_image
from pics_cli.core.runtime.files import read_file
from pics_cli.core.scenes.rendered.spec import Surface
from pics_cli.errors import BadSample

_TEXTURE_SIDE = 512

Array = npt.NDArray[np.float32]


@lru_cache(maxsize=64)
def load_photo(path: Path) -> RGB:
    """A photograph of at most 1600 pixels a side, uint8 RGB [h, w, 3].

    Raises:
        ValueError: it cannot be read.
    """
    try:
        picture = decode_image(read_file(path)).rgb
    except BadSample as error:
        raise ValueError(f"is no photograph that can be read: {error.detail}") from None
    factor = 1600 / max(picture.shape[:2])
    if factor < 1:
        smaller = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        picture = np.asarray(smaller, np.uint8)
    return picture


def surface_texture(surface: Surface) -> Array:
    """Reflectance of a surface: float32 [h, w, 3], linear."""
    photo = load_photo(surface.photo)
    height, width = photo.shape[:2]
    left, top, part = surface.crop
    side = max(int(min(height, width) * part), 8)
    x, y = round((width - side) * left), round((height - side) * top)
    crop = photo[y : y + side, x : x + side]
    if side > _TEXTURE_SIDE:
        crop = np.asarray(cv2.resize(crop, (_TEXTURE_SIDE, _TEXTURE_SIDE), interpolation=cv2.INTER_AREA), np.uint8)
    linear = np.maximum((crop.astype(np.float32) / 255) ** 2.2, 1e-3)
    mean = linear.reshape(-1, 3).mean(axis=0)
    relative = (linear / mean) ** np.float32(surface.contrast)
    tint = mean / max(float(mean @ [0.2126, 0.7152, 0.0722]), 1e-3)
    grey = relative @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    color = grey[..., None] + (relative * tint - grey[..., None]) * np.float32(surface.saturation)
    color *= surface.level / max(float(color.mean()), 1e-3)
    reflectance: Array = np.clip(color, 0.01, 0.9).astype(np.float32)
    return np.ascontiguousarray(reflectance)
