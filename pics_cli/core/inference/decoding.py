"""Reference and mask files, or images of Pillow, to arrays and boxes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from pics_cli.core.images.image_files import (
    check_jpeg,
    decoding,
    has_alpha,
    open_image,
    pixel_orientation,
    upright_image_size,
)
from pics_cli.core.images.pixels import grey_16_bits, turned
from pics_cli.core.images.stored_image import StoredImage, decode_stored, to_srgba
from pics_cli.core.inference.mask_region import HALF, MaskRegion, RegionRule, find_region, varies
from pics_cli.core.inference.sample import Bytes, drop_opaque_alpha
from pics_cli.errors import BadSample


def decode_reference(data: bytes, path: Path) -> tuple[Bytes, tuple[str, ...]]:
    """An object's picture in sRGB: uint8 [h, w, 4] where some of it is transparent, else [h, w, 3]; and notes on it.

    Raises:
        BadSample: it cannot be decoded, or is transparent all over.
    """
    try:
        stored = decode_stored(data)
        return reference_pixels(stored), tuple(f"{path}: {note}" for note in stored.notes)
    except BadSample as error:
        raise BadSample(error.reason, f"{path}: {error.detail}") from None


def reference_pixels(stored: StoredImage) -> Bytes:
    """A reference in sRGB: uint8 [h, w, 4] where some of it is transparent, else [h, w, 3]."""
    pixels = to_srgba(stored)
    return drop_opaque_alpha(pixels) if stored.has_alpha else pixels


def mask_region(data: bytes, name: str, size: tuple[int, int], rule: RegionRule = "box") -> MaskRegion:
    """The region of a mask file; arguments and errors as those of `decode_mask` and `find_region`."""
    return find_region(decode_mask(data, name, size), name, rule)


def decode_mask(data: bytes, name: str, size: tuple[int, int]) -> npt.NDArray[Any]:
    """`mask_values` of a mask file.

    Args:
        data: the file.
        name: what it is called, for messages.
        size: the (width, height) that it must have, checked before anything is decoded.

    Raises:
        BadSample: `bad_mask` where it cannot be decoded, `mask_size`.
    """
    with decoding(f"{name}: ", "bad_mask"):
        image = open_image(data)
        own = upright_image_size(image)
    check_mask_size(own, name, size)
    with decoding(f"{name}: ", "bad_mask"):
        check_jpeg(data, image)
        return mask_values(image)


def check_mask_size(own: tuple[int, int], name: str, size: tuple[int, int]) -> None:
    """Raise BadSample (`mask_size`) for a mask of another (width, height) than its background."""
    if own != size:
        shown = f"{name} is {own[0]}x{own[1]}, its background {size[0]}x{size[1]} (width x height)"
        raise BadSample("mask_size", f"{shown}; a mask has the size of the whole background")


def mask_values(image: Image.Image) -> npt.NDArray[Any]:
    """One number for each pixel, upright [H, W]: bool, uint8, or 16-bit numbers as uint16 or int32.

    Of colours the brightest channel counts. Alpha that varies is the mask, whatever the colours are; but alpha that
    leaves all pixels on one side of the half, as one of 254 among those of 255 does, gives way to colours that vary.
    Floating-point values from 0 to 1 are scaled to 16 bits.

    Raises:
        BadSample: floating-point values of another range.
    """
    orientation = pixel_orientation(image)
    return turned(_stored_values(image), orientation)


def _stored_values(image: Image.Image) -> npt.NDArray[Any]:
    if image.mode == "F":
        return grey_16_bits(image)
    if image.mode == "1" or (image.mode == "L" and "transparency" not in image.info) or image.mode.startswith("I"):
        values = np.asarray(image)
        return values if values.dtype in HALF else values.astype(np.int32)
    if has_alpha(image):
        image = image.convert("RGBA")
        alpha = np.asarray(image.getchannel("A"))
        if varies(alpha) or (alpha.min() < alpha.max() and not varies(_brightest(image))):
            return alpha
    return _brightest(image)


def _brightest(image: Image.Image) -> npt.NDArray[Any]:
    red, green, blue = image.convert("RGB").split()
    return cv2.max(cv2.max(np.asarray(red), np.asarray(green)), np.asarray(blue))
