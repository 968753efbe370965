"""Reading and writing picture files: any common kind to upright RGB; RGB to JPEG and PNG."""

from __future__ import annotations

import errno
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg

from pics_cli.core.images.image_files import (
    decoding,
    exif_orientation,
    is_jpeg,
    open_header,
    open_image,
    pixel_orientation,
    upright_image_size,
)
from pics_cli.core.images.pixels import decode_pixels, over_white, turned
from pics_cli.core.runtime.files import AtomicFile, make_folder, open_file, read_file
from pics_cli.core.runtime.storage import is_remote
from pics_cli.errors import BadSample, reason_of

RGB = npt.NDArray[np.uint8]
T = TypeVar("T")
BACKGROUND_QUALITY = 95
# Bytes of a picture in a store in which its header lies, nearly always.
_HEADER = 1 << 16


class DecodedImage(NamedTuple):
    """A decoded picture.

    Attributes:
        rgb: uint8 [H, W, 3], EXIF orientation applied.
        source: the file's bytes where they are an upright RGB JPEG, else None.
        turned: whether EXIF data turns or mirrors what the file stores.
    """

    rgb: RGB
    source: bytes | None
    turned: bool = False


def read_first_existing(files: Sequence[Path]) -> bytes:
    """Bytes of the first file that exists.

    Raises:
        BadSample: `missing_image`, `unreadable_image` or `image_too_large`.
    """
    with decoding():
        return _first_existing(files, read_file)[1]


def first_image_size(files: Sequence[Path]) -> tuple[int, int]:
    """Upright (width, height) of the first picture that exists, from its header alone.

    Raises:
        BadSample: `missing_image`, `unreadable_image` or `image_too_large`.
    """
    path, file = _first_existing(files, _open_header)
    with file, decoding(f"{path}: "):
        return upright_image_size(open_header(file))


def _open_header(path: Path) -> BinaryIO:
    return open_file(path, _HEADER) if is_remote(path) else open_file(path)


def decode_image(data: bytes, size: tuple[int, int] | None = None) -> DecodedImage:
    """Decode a picture file: JPEG, PNG, WebP, AVIF, BMP, TIFF; grey, palette, CMYK, 16-bit, alpha over white; EXIF
    applied, colour profiles not.

    Args:
        data: the file's bytes.
        size: the (width, height) that it must have upright, compared before anything is decoded.

    Raises:
        BadSample: `unreadable_image`, `truncated_image`, `damaged_image` (a checksum that does not fit, pixels that a
            JPEG's decoder warns of), `image_too_large` or `size_mismatch`.
    """
    with decoding():
        image = open_image(data)
        orientation, is_turned = pixel_orientation(image), exif_orientation(image) != 1
        if size is not None and (upright := upright_image_size(image)) != size:
            raise BadSample("size_mismatch", f"picture is {upright[0]}x{upright[1]}, annotated as {size[0]}x{size[1]}")
        rgb = over_white(decode_pixels(image, data, deep=False))
        if is_jpeg(image) and image.mode == "RGB" and orientation == 1:
            return DecodedImage(rgb, data)
        return DecodedImage(turned(rgb, orientation), None, is_turned)


def upright_size(data: bytes, turn: bool = True) -> tuple[int, int]:
    """Upright (width, height) of a picture file's bytes.

    Args:
        data: the file's bytes.
        turn: False: as the header has it. That alone is quick: EXIF data of a PNG may stand behind its pixels.

    Raises:
        BadSample: `unreadable_image` or `image_too_large`.
    """
    with decoding():
        image = open_header(io.BytesIO(data))
        return upright_image_size(image) if turn else image.size


def decode_rgba(data: bytes, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """uint8 RGBA [H, W, 4] of a PNG with alpha and of this (width, height).

    Raises:
        BadSample: as `decode_image`.
    """
    with decoding():
        image = open_image(data)
        if image.mode != "RGBA" or image.size != size:
            stored = f"{image.mode} {image.width}x{image.height}"
            raise BadSample("unreadable_image", f"stored as {stored}, expected RGBA {size[0]}x{size[1]}")
        return np.asarray(image)


def encode_jpeg(rgb: RGB, quality: int = BACKGROUND_QUALITY) -> bytes:
    """JPEG of a quality of 1 to 100 from uint8 [H, W, 3]."""
    data: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(rgb), quality=quality)
    return data


def encode_png(rgb: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> bytes:
    """PNG from uint8 or uint16, RGB [H, W, 3] or RGBA [H, W, 4]."""
    order = cv2.COLOR_RGB2BGR if rgb.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
    return cv2.imencode(".png", cv2.cvtColor(rgb, order))[1].tobytes()


def write_png(path: Path, rgb: RGB) -> None:
    """Write a PNG file, whole or not at all; its folder is created where it is missing.

    Raises:
        PicsError: it cannot be written.
    """
    make_folder(path.parent)
    with AtomicFile(path) as file:
        file.write(encode_png(rgb))


def _first_existing(files: Sequence[Path], read: Callable[[Path], T]) -> tuple[Path, T]:
    for path in files:
        try:
            return path, read(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            reason = "image_too_large" if error.errno == errno.EFBIG else "unreadable_image"
            raise BadSample(reason, f"{path}: {reason_of(error)}") from None
    names = " or ".join(str(path) for path in files[:3]) or "that fits a picture pattern of the recipe"
    raise BadSample("missing_image", f"no file {names}")
