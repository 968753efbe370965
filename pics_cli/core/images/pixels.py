"""Pixels of opened pictures: whatever Pillow's mode and the depth, as RGB or RGBA of 8 or 16 bits."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from pics_cli.core.images.image_files import decode_jpeg, has_alpha, is_deep, is_jpeg, upright_image_size
from pics_cli.errors import BadSample

Bytes = npt.NDArray[np.uint8]
Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

_BLOCK = 1 << 20  # pixels that are converted at a time


def decode_pixels(image: Image.Image, data: bytes | None = None, deep: bool = True) -> Pixels:
    """Pixels as they are stored, not turned: RGB or RGBA, uint8 or uint16 [H, W, 3 | 4]; CMYK as sRGB.

    Args:
        image: any, or as `open_image` gives it.
        data: its file, so that damage of a JPEG is found; None: there is none.
        deep: colours of more than 8 bits as uint16, of which Pillow gives the upper eight.

    Raises:
        BadSample: it is damaged, or of a kind that is not read.
    """
    if data is not None and is_jpeg(image):
        pixels = decode_jpeg(data, image)  # of CMYK for its warnings alone
        if image.mode != "CMYK":
            return pixels
    if image.mode == "CMYK":
        return np.asarray(_cmyk_to_srgb(image))
    if image.mode.startswith(("I", "F")):
        return _with_transparent_value(grey_16_bits(image), image.info.get("transparency"))
    if deep and data is not None and is_deep(image, data) and image.mode in ("RGB", "RGBA", "LA"):
        return _with_transparent_value(_decode_16_bits(data, image), image.info.get("transparency"))
    mode = "RGBA" if has_alpha(image) else "RGB"
    return np.asarray(image if image.mode == mode else image.convert(mode))


def over_white(pixels: Pixels) -> Bytes:
    """RGB of 8 bits, uint8 [H, W, 3], alpha over white; not copied where it is that already."""
    if pixels.dtype == np.uint8 and pixels.shape[2] == 3:
        return np.asarray(pixels, np.uint8)
    out = np.empty((*pixels.shape[:2], 3), np.uint8)
    for rows in row_blocks(pixels):
        part = to_8_bits(pixels[rows])
        if pixels.shape[2] == 4:
            image = Image.fromarray(part)
            part = np.asarray(Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB"))
        out[rows] = part
    return out


def to_8_bits(pixels: Pixels) -> Bytes:
    """Values of 8 bits; not copied where they are that already."""
    return np.asarray(pixels if pixels.dtype == np.uint8 else np.rint(pixels / np.float32(257)), np.uint8)


def row_blocks(pixels: Pixels) -> Iterator[slice]:
    """Rows of a picture, some at a time: what converting them takes in between is then small."""
    step = max(_BLOCK // pixels.shape[1], 1)
    for first in range(0, pixels.shape[0], step):
        yield slice(first, first + step)


def turned(pixels: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Stored pixels [H, W, …] as an EXIF orientation of 1 to 8 shows them."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(pixels[::rows, ::columns])


def grey_16_bits(image: Image.Image) -> npt.NDArray[np.uint16]:
    """Values of a grey image of more than 8 bits, uint16 [H, W]; floating-point ones from 0 to 1 are scaled.

    Raises:
        BadSample: `unreadable_image` where they have another range, which cannot be guessed.
    """
    values = np.asarray(image)
    low, high = values.min(), values.max()
    allowed = 1 if image.mode == "F" else 65535
    if not 0 <= low <= high <= allowed:  # nor is any comparison with nan true
        kind = "floating-point" if image.mode == "F" else "32-bit"
        raise BadSample(
            "unreadable_image", f"{kind} values from {low:g} to {high:g}, expected 0 to {allowed}: save it with 8 bits"
        )
    return np.rint(values * 65535).astype(np.uint16) if image.mode == "F" else values.astype(np.uint16)


def _decode_16_bits(data: bytes, image: Image.Image) -> npt.NDArray[np.uint16]:
    """Colours with 16 bits for each value, of which Pillow gives the upper eight."""
    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    size = upright_image_size(image) if image.format == "TIFF" else image.size  # TIFFs are turned here, as by Pillow
    if values is None or values.dtype != np.uint16 or values.ndim != 3 or values.shape[1::-1] != size:
        raise BadSample("unreadable_image", f"a {image.format} of more than 8 bits of a kind that is not read")
    code = cv2.COLOR_BGR2RGB if values.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
    return np.asarray(cv2.cvtColor(values, code), np.uint16)


def _with_transparent_value(values: npt.NDArray[np.uint16], transparent: object) -> npt.NDArray[np.uint16]:
    """Grey or colours as colours, uint16 [H, W, 3], with alpha where a PNG names one value that is transparent."""
    if values.ndim == 2:
        transparent = (transparent,) * 3 if isinstance(transparent, int) else None
        values = np.repeat(values[..., None], 3, axis=2)
    if not isinstance(transparent, tuple) or values.shape[2] != 3:
        return values
    alpha = np.where((values == np.array(transparent)).all(axis=2), 0, 65535).astype(np.uint16)
    return np.dstack([values, alpha])


def _cmyk_to_srgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if profile and profile[16:20] == b"CMYK":
        try:
            own, srgb = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(
                image, own, srgb, ImageCms.Intent.RELATIVE_COLORIMETRIC, outputMode="RGB"
            )
            if converted is not None:
                return converted
        except (ImageCms.PyCMSError, OSError):
            pass
    return image.convert("RGB")
