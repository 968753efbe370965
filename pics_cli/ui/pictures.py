"""Uploaded pictures: what kind they are, what a browser shows of them, cut-outs and their correction with a brush."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pics_cli.core.images.image_files import decoding, open_image
from pics_cli.core.images.image_io import encode_png
from pics_cli.core.images.masks import box_mask
from pics_cli.core.images.stored_image import decode_stored, to_srgb
from pics_cli.core.inference.decoding import check_mask_size
from pics_cli.core.inference.sample import Bytes
from pics_cli.errors import BadSample

# Endings of files by Pillow's names of their formats.
_SUFFIXES = {
    "JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp", "BMP": "bmp", "TIFF": "tif", "AVIF": "avif",
    "HEIF": "heic",
}  # fmt: skip
# Of those, what every browser shows, and how the pixels must be stored.
_SHOWN, _SHOWN_MODES = ("jpg", "png", "webp"), ("1", "L", "P", "RGB", "RGBA")


class Background(NamedTuple):
    """An uploaded background: ending of its file, (width, height), and a PNG to show where a browser cannot read it."""

    suffix: str
    size: tuple[int, int]
    shown: bytes | None


def read_background(data: bytes, label: str) -> Background:
    """Decode an uploaded background.

    Raises:
        BadSample: it cannot be decoded; `label` is what it is called.
    """
    suffix, mode = _kind(data, label)
    try:
        stored = decode_stored(data)
    except BadSample as error:
        raise BadSample(error.reason, f"{label}: {error.detail}") from None
    height, width = stored.pixels.shape[:2]
    shown = None if suffix in _SHOWN and mode in _SHOWN_MODES else encode_png(to_srgb(stored))
    return Background(suffix, (width, height), shown)


def picture_suffix(data: bytes, label: str) -> str:
    """Ending of a picture's file, by its contents.

    Raises:
        BadSample: it is none; `label` is what it is called.
    """
    return _kind(data, label)[0]


def _kind(data: bytes, label: str) -> tuple[str, str]:
    with decoding(f"{label}: "):
        image = open_image(data)
        return _SUFFIXES[str(image.format)], image.mode


def opaque_bounds(picture: Bytes) -> tuple[int, int, int, int]:
    """Box of what is not transparent, half-open; the whole picture where nothing is."""
    height, width = picture.shape[:2]
    found = box_mask(picture[..., 3] > 0).box if picture.shape[2] == 4 else (0, 0, 0, 0)
    return found if any(found) else (0, 0, width, height)


def decode_strokes(data: bytes, label: str, size: tuple[int, int]) -> Bytes:
    """Strokes of a brush over a picture of a (width, height): uint8 RGBA, green adds, red takes away.

    Raises:
        BadSample: it cannot be decoded, has no alpha, or is of another size.
    """
    name = f"brush strokes on {label}"
    with decoding(f"{name}: "):
        image = open_image(data)
    check_mask_size(image.size, name, size)
    try:
        stored = decode_stored(data)
    except BadSample as error:
        raise BadSample(error.reason, f"{name}: {error.detail}") from None
    if not stored.has_alpha or stored.pixels.dtype != np.uint8:
        raise BadSample("bad_mask", f"{name}: expected 8-bit RGBA")
    return stored.pixels.astype(np.uint8)


def correct_cutout(reference: Bytes, cut: Bytes, strokes: Bytes) -> Bytes:
    """A cut-out with what a brush added and took away.

    Args:
        reference: the picture, uint8 [h, w, 3 | 4].
        cut: as it was cut out, likewise.
        strokes: see `decode_strokes`.

    Returns:
        uint8 [h, w, 4]; where strokes are soft, so is its alpha.
    """
    strength: npt.NDArray[np.float32] = strokes[..., 3] / np.float32(255)
    adds = strokes[..., 1] > strokes[..., 0]
    alpha = np.full(cut.shape[:2], 255, np.float32) if cut.shape[2] == 3 else cut[..., 3].astype(np.float32)
    added, left = np.maximum(alpha, 255 * strength), np.minimum(alpha, 255 * (1 - strength))
    fresh = (adds * strength)[..., None]  # of what is added, the picture's own colours
    colours = cut[..., :3] * (1 - fresh) + reference[..., :3] * fresh
    return np.dstack([np.rint(colours), np.rint(np.where(adds, added, left))]).astype(np.uint8)
