"""Mask files of any common kind → the region they name: the box of their set pixels."""

from __future__ import annotations

import io
import warnings
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from pics_cli.core.data.pictures import upright_size
from pics_cli.core.geometry import Box
from pics_cli.errors import BadSample

_HALF = {np.dtype(np.bool_): 0, np.dtype(np.uint8): 127, np.dtype(np.uint16): 32767, np.dtype(np.int32): 32767}


def mask_region(data: bytes, name: str, size: tuple[int, int]) -> Box:
    """The box of a mask file's set pixels.

    A pixel is set where its value is above half of what the file's kind can hold (for colours: the brightest channel);
    a file whose highest value is 1 is read as 0 and 1. Alpha that varies is the mask, whatever the colours.

    Args:
        data: the file.
        name: what it is called, for messages.
        size: the (width, height) that it must have, looked at before anything is decoded.

    Raises:
        BadSample: `bad_mask` where it cannot be decoded, `mask_size`, `empty_mask`.
    """
    try:
        found = upright_size(data)
    except BadSample as error:
        raise BadSample("bad_mask", f"{name}: {error.detail}") from None
    if found != size:
        shown = f"{name} is {found[0]}x{found[1]}, its background {size[0]}x{size[1]} (width x height)"
        raise BadSample("mask_size", f"{shown}; a mask has the size of the whole background")
    values = _values(data, name)
    highest, half = int(values.max()), _HALF[values.dtype]
    mask = values > (0 if highest == 1 else half)
    x, y, width, height = map(int, cv2.boundingRect(mask.view(np.uint8)))
    if not width:
        raise BadSample("empty_mask", f"{name}: no pixel is set (the highest value is {highest}, set is above {half})")
    return (x, y, x + width, y + height)


def _values(data: bytes, name: str) -> npt.NDArray[Any]:
    """One number a pixel: bool, uint8, or 16-bit numbers as uint16 or int32. [H, W]"""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                image = image.convert("RGBA")
                alpha = image.getchannel("A")
                if len(set(alpha.getextrema())) == 2:
                    return np.asarray(alpha)
            if image.mode in ("1", "L") or image.mode.startswith("I"):
                values = np.asarray(image)
                return values if values.dtype in _HALF else values.astype(np.int32)
            red, green, blue = image.convert("RGB").split()
    except MemoryError:
        raise BadSample("bad_mask", f"{name}: does not fit into memory") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise BadSample("bad_mask", f"{name}: {error}") from None
    return cv2.max(cv2.max(np.asarray(red), np.asarray(green)), np.asarray(blue))
