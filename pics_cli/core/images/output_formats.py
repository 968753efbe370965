"""Formats that results are written in, what each of them holds, and the XMP packet in its place in each.

PNG holds whatever a background's file stores. WebP is written without loss and holds 8 bits with alpha. JPEG is written
at quality 95 without subsampling of colours: 8 bits without alpha, and no pixel is sure to stay as it was.
"""

from __future__ import annotations

import io
from typing import IO, Any, Literal, get_args

import numpy as np
from PIL import Image

from pics_cli.core.images.image_files import decoding, open_header, open_undamaged
from pics_cli.core.images.image_io import BACKGROUND_QUALITY
from pics_cli.core.images.png_chunks import SIGNATURE, XMP_KEYWORD, Chunk
from pics_cli.core.images.stored_image import StoredImage, encode_stored
from pics_cli.errors import BadSample

OutputFormat = Literal["png", "jpeg", "webp"]

SUFFIXES: dict[OutputFormat, str] = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
# What a record says of each.
ENCODINGS: dict[OutputFormat, dict[str, Any]] = {
    "png": {"format": "png", "lossless": True},
    "jpeg": {"format": "jpeg", "lossless": False, "quality": BACKGROUND_QUALITY},
    "webp": {"format": "webp", "lossless": True},
}
_NAMES = {"png": "PNG", "jpeg": "JPEG", "webp": "WebP"}
_MAX_SIDES = {"jpeg": 65_535, "webp": 16_383}
# Of WebP: effort from 0 to 100, and how many transforms are tried. The best of both saves 6 % in ten times the time.
_WEBP_EFFORT, _WEBP_METHOD = 50, 2
_XMP_SEGMENT = b"http://ns.adobe.com/xap/1.0/\0"
# Bytes of a JPEG's segment after its marker, the two of its length counted.
_MAX_SEGMENT = 65_535


def format_of(suffix: str) -> OutputFormat | None:
    """The format that a file name's ending asks for, such as `.jpg`; None: none of them."""
    name = suffix.lower().removeprefix(".").replace("jpg", "jpeg")
    return next((each for each in get_args(OutputFormat) if each == name), None)


def check_format(stored: StoredImage, format: OutputFormat) -> list[str]:
    """Refuse to lose depth, alpha or pixels of a picture in a format that does not hold them.

    Returns:
        What else of the picture the format does not hold, one line each.

    Raises:
        BadSample: `output_format`.
    """
    if format == "png":
        return []
    height, width = stored.pixels.shape[:2]
    problems = []
    if stored.pixels.dtype == np.uint16:
        problems.append("16 bits for each value")
    if stored.has_alpha and format == "jpeg":
        problems.append("alpha")
    if max(width, height) > _MAX_SIDES[format]:
        problems.append(f"{width}x{height} pixels")
    if problems:
        others = "png or webp" if problems == ["alpha"] else "png"
        raise BadSample(
            "output_format",
            f"its background has {' and '.join(problems)}, which {_NAMES[format]} cannot hold: take --output-format "
            f"{others}",
        )
    kinds = [name.decode() for name, _ in stored.chunks]
    if not kinds or ("sRGB" in kinds and "cICP" not in kinds):  # what a picture without a profile is taken for
        return []
    return [f"{', '.join(kinds)} of its PNG, which say what its colours mean, are not in the {_NAMES[format]}"]


def encode_result(stored: StoredImage, format: OutputFormat, packet: bytes, *chunks: Chunk) -> bytes:
    """A picture file with its colour profile and an XMP packet; of a PNG, with further chunks.

    Raises:
        BadSample: see `check_format`; or `long_record` where a JPEG cannot hold the packet.
    """
    check_format(stored, format)
    if format == "png":
        return encode_stored(stored, *chunks, (b"iTXt", XMP_KEYWORD + b"\0\0\0\0" + packet))
    file = io.BytesIO()
    image, profile = Image.fromarray(stored.pixels), stored.icc_profile
    if format == "webp":
        effort: dict[str, Any] = {"quality": _WEBP_EFFORT, "method": _WEBP_METHOD}
        image.save(file, "WEBP", lossless=True, exact=True, **effort, icc_profile=profile or b"", xmp=packet)
        return file.getvalue()
    size = 2 + len(_XMP_SEGMENT) + len(packet)
    if size > _MAX_SEGMENT:
        raise BadSample(
            "long_record", f"its record takes {size:,} bytes, a JPEG holds {_MAX_SEGMENT:,}: take --output-format png"
        )
    segment = b"\xff\xe1" + size.to_bytes(2, "big") + _XMP_SEGMENT + packet
    image.save(file, "JPEG", quality=BACKGROUND_QUALITY, subsampling=0, icc_profile=profile, extra=segment)
    return file.getvalue()


def format_of_file(file: IO[bytes]) -> OutputFormat | None:
    """Which of these formats a file has, by its first bytes; None: none, or cut short within them."""
    head = file.read(12)
    file.seek(0)
    if head.startswith(SIGNATURE):
        return "png"
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    return "webp" if head[:4] == b"RIFF" and head[8:] == b"WEBP" else None


def read_packet(file: IO[bytes], whole: bool) -> bytes | None:
    """The XMP packet of a JPEG or WebP file, None where it has none.

    Args:
        file: at its start.
        whole: decode the picture, too, to see whether it is damaged.

    Raises:
        BadSample: it is.
    """
    with decoding():
        if whole:
            data = file.read()
            image = open_undamaged(data)
            image.load()
        else:
            image = open_header(file)  # type: ignore[arg-type]
        if image.format == "WEBP":
            return image.info.get("xmp")
        segments = [data for name, data in getattr(image, "applist", ()) if name == "APP1"]
        packets = (data[len(_XMP_SEGMENT) :] for data in segments if data.startswith(_XMP_SEGMENT))
        return next(packets, None)
