"""Reference and mask files, or images of Pillow, to arrays and boxes."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from pics_cli.core.images.geometry import Box
from pics_cli.core.images.image_io import decode_image, upright_size
from pics_cli.core.inference.sample import Bytes, drop_opaque_alpha
from pics_cli.errors import BadSample

# The value above which a mask's pixel is set, by the mask's type.
_HALF = {np.dtype(np.bool_): 0, np.dtype(np.uint8): 127, np.dtype(np.uint16): 32767, np.dtype(np.int32): 32767}


def decode_reference(data: bytes, path: Path) -> Bytes:
    """An object's picture: uint8 [h, w, 4] where some of it is transparent, else [h, w, 3].

    Raises:
        BadSample: it cannot be decoded, or is transparent all over.
    """
    try:
        rgb = decode_image(data).rgb
        rgba = alpha_picture(Image.open(io.BytesIO(data)))
        return rgb if rgba is None else drop_opaque_alpha(rgba)
    except BadSample as error:
        raise BadSample(error.reason, f"{path}: {error.detail}") from None


def alpha_picture(image: Image.Image) -> Bytes | None:
    """Upright uint8 [h, w, 4] of an image with alpha; None of one without."""
    if image.mode not in ("RGBA", "LA", "PA") and "transparency" not in image.info:
        return None
    return np.asarray(ImageOps.exif_transpose(image).convert("RGBA"))


def mask_region(data: bytes, name: str, size: tuple[int, int]) -> Box:
    """The box of a mask file's set pixels; see `mask_box`.

    Args:
        data: the file.
        name: what it is called, for messages.
        size: the (width, height) that it must have, checked before anything is decoded.

    Raises:
        BadSample: `bad_mask` where it cannot be decoded, `mask_size`, `empty_mask`.
    """
    try:
        own = upright_size(data)
    except BadSample as error:
        raise BadSample("bad_mask", f"{name}: {error.detail}") from None
    check_mask_size(own, name, size)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values = mask_values(Image.open(io.BytesIO(data)))
    except MemoryError:
        raise BadSample("bad_mask", f"{name}: does not fit into memory") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise BadSample("bad_mask", f"{name}: {error}") from None
    return mask_box(values, name)


def check_mask_size(own: tuple[int, int], name: str, size: tuple[int, int]) -> None:
    """Raise BadSample (`mask_size`) for a mask of another (width, height) than its background."""
    if own != size:
        shown = f"{name} is {own[0]}x{own[1]}, its background {size[0]}x{size[1]} (width x height)"
        raise BadSample("mask_size", f"{shown}; a mask has the size of the whole background")


def mask_values(image: Image.Image) -> npt.NDArray[Any]:
    """One number for each pixel, upright [H, W]: bool, uint8, or 16-bit numbers as uint16 or int32.

    Of colours the brightest channel counts. Alpha that varies is the mask, whatever the colours are.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        if len(set(alpha.getextrema())) == 2:
            return np.asarray(alpha)
    if image.mode in ("1", "L") or image.mode.startswith("I"):
        values = np.asarray(image)
        return values if values.dtype in _HALF else values.astype(np.int32)
    red, green, blue = image.convert("RGB").split()
    return cv2.max(cv2.max(np.asarray(red), np.asarray(green)), np.asarray(blue))


def mask_box(values: npt.NDArray[Any], name: str) -> Box:
    """The box of the pixels above half of what their type can hold; where the highest value is 1, of those that are 1.

    Args:
        values: [H, W], as `mask_values` gives them.
        name: of the mask, for the message.

    Raises:
        BadSample: `empty_mask`.
    """
    highest, half = int(values.max()), _HALF[values.dtype]
    mask = values > (0 if highest == 1 else half)
    x, y, width, height = map(int, cv2.boundingRect(mask.view(np.uint8)))
    if not width:
        raise BadSample("empty_mask", f"{name}: no pixel is set (the highest value is {highest}, set is above {half})")
    return (x, y, x + width, y + height)
