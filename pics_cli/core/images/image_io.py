"""Reading and writing picture files: any common kind to upright RGB; RGB to JPEG and PNG."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, ImageOps, UnidentifiedImageError

from pics_cli.core.runtime.files import AtomicFile, make_folder
from pics_cli.errors import BadSample, reason_of

RGB = npt.NDArray[np.uint8]
BACKGROUND_QUALITY = 95
MAX_PIXELS = 1 << 29
_ORIENTATION = 0x0112
# libjpeg's warnings that mean lost pixels; others are of markers and headers.
_LOST_DATA = ("remature end", "bad Huffman code", "instead of RST")

# Pillow warns at 89 million pixels, which panoramas exceed; MAX_PIXELS guards against damaged headers.
Image.MAX_IMAGE_PIXELS = None


class DecodedImage(NamedTuple):
    """A decoded picture.

    Attributes:
        rgb: uint8 [H, W, 3], EXIF orientation applied.
        source: the file's bytes where they are an upright RGB JPEG, else None.
    """

    rgb: RGB
    source: bytes | None


def read_first_existing(files: Sequence[Path]) -> bytes:
    """Bytes of the first file that exists.

    Raises:
        BadSample: `missing_image` or `unreadable_image`.
    """
    path, file = _open_first_existing(files)
    with file, _reading(f"{path}: "):
        return file.read()


def first_image_size(files: Sequence[Path]) -> tuple[int, int]:
    """Upright (width, height) of the first picture that exists, from its header alone.

    Raises:
        BadSample: `missing_image` or `unreadable_image`.
    """
    path, file = _open_first_existing(files)
    with file, _reading(f"{path}: "), Image.open(file) as image:
        return _upright_size(image)


def decode_image(data: bytes, size: tuple[int, int] | None = None) -> DecodedImage:
    """Decode a picture file: JPEG, PNG, WebP and others; grey, palette, CMYK, 16-bit, alpha over white; EXIF applied.

    Args:
        data: the file's bytes.
        size: the (width, height) that it must have upright, compared before anything is decoded.

    Raises:
        BadSample: `unreadable_image`, `truncated_image` or `size_mismatch`.
    """
    with _reading(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd EXIF data, which does not concern the pixels
        image = _open_image(data)
        if size is not None and (upright := _upright_size(image)) != size:
            raise BadSample("size_mismatch", f"picture is {upright[0]}x{upright[1]}, annotated as {size[0]}x{size[1]}")
        if image.format in ("JPEG", "MPO") and image.mode == "RGB" and _orientation(image) == 1:
            return DecodedImage(_decode_jpeg(data, image), data)
        ImageOps.exif_transpose(image, in_place=True)
        return DecodedImage(np.asarray(_to_rgb(image)), None)


def image_to_rgb(image: Image.Image) -> RGB:
    """An image of any of Pillow's modes, upright, as uint8 [H, W, 3]: 16-bit grey scaled, alpha over white."""
    return np.asarray(_to_rgb(ImageOps.exif_transpose(image)))


def upright_size(data: bytes, turn: bool = True) -> tuple[int, int]:
    """Upright (width, height) of a picture file's bytes.

    Args:
        data: the file's bytes.
        turn: False: as the header has it. That alone is quick: EXIF data of a PNG may stand behind its pixels.

    Raises:
        BadSample: `unreadable_image`.
    """
    with _reading():
        image = _open_image(data)
        return _upright_size(image) if turn else image.size


def decode_rgba(data: bytes, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """uint8 RGBA [H, W, 4] of a PNG with alpha and of this (width, height).

    Raises:
        BadSample: `unreadable_image` or `truncated_image`.
    """
    with _reading():
        image = _open_image(data)
        if image.mode != "RGBA" or image.size != size:
            stored = f"{image.mode} {image.width}x{image.height}"
            raise BadSample("unreadable_image", f"stored as {stored}, expected RGBA {size[0]}x{size[1]}")
        return np.asarray(image)


def encode_jpeg(rgb: RGB, quality: int = BACKGROUND_QUALITY) -> bytes:
    """JPEG of a quality of 1 to 100 from uint8 [H, W, 3]."""
    data: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(rgb), quality=quality)
    return data


def encode_png(rgb: RGB) -> bytes:
    """PNG from uint8 RGB [H, W, 3] or RGBA [H, W, 4]."""
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


def _open_first_existing(files: Sequence[Path]) -> tuple[Path, BinaryIO]:
    for path in files:
        try:
            return path, path.open("rb")
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise BadSample("unreadable_image", f"{path}: {reason_of(error)}") from None
    names = " or ".join(str(path) for path in files[:3]) or "that fits a picture pattern of the recipe"
    raise BadSample("missing_image", f"no file {names}")


@contextlib.contextmanager
def _reading(prefix: str = "") -> Iterator[None]:
    """Raise `BadSample` for what Pillow and the file system raise while a picture is read."""
    try:
        yield
    except MemoryError:
        raise BadSample("unreadable_image", f"{prefix}does not fit into memory") from None
    except UnidentifiedImageError:  # its text holds an address in memory
        raise BadSample("unreadable_image", f"{prefix}not a picture of a known kind") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        reason = "truncated_image" if "truncated" in str(error).lower() else "unreadable_image"
        detail = reason_of(error) if isinstance(error, OSError) and error.errno else str(error)
        raise BadSample(reason, f"{prefix}{detail}") from None


def _open_image(data: bytes) -> Image.Image:
    """A picture whose header is read."""
    if not data:
        raise BadSample("unreadable_image", "the file is empty")
    image = Image.open(io.BytesIO(data))
    if image.width * image.height > MAX_PIXELS:
        raise BadSample("unreadable_image", f"claims {image.width} x {image.height} pixels")
    return image


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1 to 8; what is none of these turns nothing."""
    value = image.getexif().get(_ORIENTATION, 1)
    return value if value in range(1, 9) else 1


def _upright_size(image: Image.Image) -> tuple[int, int]:
    return (image.height, image.width) if _orientation(image) >= 5 else image.size


def _decode_jpeg(data: bytes, image: Image.Image) -> RGB:
    try:
        rgb: RGB = simplejpeg.decode_jpeg(data)
    except ValueError as error:
        # simplejpeg refuses any irregularity. Pillow reads the harmless ones, but also lost data, with a grey rest, if
        # the file has its end marker.
        if any(words in str(error) for words in _LOST_DATA):
            raise BadSample("truncated_image", str(error)) from None
        rgb = np.asarray(image.convert("RGB"))
    return rgb


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey
        values = np.asarray(image).clip(0, 65535) / 257
        return Image.fromarray(np.rint(values).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
