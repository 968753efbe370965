"""Opening picture files that may be damaged, hostile or huge: a fixed list of decoders, a limit, checksums compared."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import os
import re
import warnings
from collections.abc import Iterator
from typing import IO, BinaryIO

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from pics_cli.core.images.jpeg_seams import find_seam
from pics_cli.core.images.png_chunks import SIGNATURE, Chunk, check_png, find_exif
from pics_cli.errors import BadSample, PicsError, reason_of

Bytes = npt.NDArray[np.uint8]

MAX_PIXELS = 1 << 29
LIMIT_VARIABLE, _DEFAULT_LIMIT_MB = "PICS_MAX_IMAGE_MB", 1000
_ORIENTATION, _BITS_PER_SAMPLE = 0x0112, 258
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257
_XMP, _XMP_ORIENTATION = ("xmp", "XML:com.adobe.xmp"), re.compile(rb"tiff:Orientation(?:=[\"']|>)([2-8])")
_JPEGS = ("JPEG", "MPO")  # the second is found by the decoder of the first
# Pillow would try every decoder that it knows, one of which (EPS) runs another program.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
_KINDS = "JPEG, PNG, WebP, AVIF, BMP and TIFF are read"
_ISO_MEDIA = slice(4, 8)  # where HEIC and AVIF have b"ftyp"
# Of libjpeg's warnings those that concern no pixel: of headers, and of bytes between them.
_HARMLESS_JPEG = ("extraneous bytes before marker", "JFIF revision", "Adobe color transform", "bad ICC marker")
# What turboJPEG cannot decode though libjpeg can: nothing is wrong with such files.
_UNSUPPORTED_JPEG = ("determine subsampling", "colorspace", "Unsupported color conversion")

# Pillow warns at 89 million pixels, which panoramas exceed; `open_image` has a limit of its own.
Image.MAX_IMAGE_PIXELS = None


def image_limit() -> int:
    """Bytes that decoding one picture may take: 1 GB, or what the environment variable PICS_MAX_IMAGE_MB says.

    Raises:
        PicsError: its value is no number of megabytes.
    """
    text = os.environ.get(LIMIT_VARIABLE) or str(_DEFAULT_LIMIT_MB)
    try:
        megabytes = int(text)
        if megabytes < 1:
            raise ValueError
    except ValueError:
        raise PicsError(f"{LIMIT_VARIABLE}={text[:80]}: expected a whole number of megabytes, at least 1") from None
    return megabytes * 1_000_000


@contextlib.contextmanager
def decoding(prefix: str = "", reason: str | None = None) -> Iterator[None]:
    """Raise `BadSample` for whatever a decoder raises: it is the picture's fault, never the job's.

    Args:
        prefix: stands before what is wrong.
        reason: for counting, whatever is wrong; None: as it is.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd EXIF data, which does not concern the pixels
            yield
    except PicsError:
        raise
    except BadSample as error:
        raise BadSample(reason or error.reason, f"{prefix}{error.detail}") from None
    except MemoryError:
        raise BadSample(reason or "unreadable_image", f"{prefix}does not fit into memory") from None
    except UnidentifiedImageError:  # its text holds an address in memory
        raise BadSample(reason or "unreadable_image", f"{prefix}not a picture of a known kind: {_KINDS}") from None
    except Exception as error:
        own = "truncated_image" if "truncated" in str(error).lower() else "unreadable_image"
        detail = reason_of(error) if isinstance(error, OSError) and error.errno else str(error) or type(error).__name__
        raise BadSample(reason or own, f"{prefix}{detail}") from None


def open_header(file: BinaryIO) -> Image.Image:
    """A picture whose header is read, its decoder one of a fixed list, its cost within the limit.

    Within `decoding`.

    Args:
        file: at its start; it may be closed once no pixel is needed.

    Raises:
        BadSample: `unreadable_image` or `image_too_large`.
    """
    head = file.read(32)
    if not head:
        raise BadSample("unreadable_image", "the file is empty")
    file.seek(0)
    image = Image.open(file, formats=_formats(head))
    size, pixels = f"{image.width} x {image.height}", image.width * image.height
    if pixels > MAX_PIXELS:
        raise BadSample("image_too_large", f"claims {size} pixels")
    _check_limit(pixels * _bytes_per_pixel(image, head), f"decoding {size} pixels")
    return image


def open_image(data: bytes) -> Image.Image:
    """A picture whose header is read and, of PNGs, checksums compared; no pixel is decoded yet.

    Within `decoding`. Whether a JPEG is damaged `decode_jpeg` tells.

    Raises:
        BadSample: `unreadable_image`, `damaged_image`, `truncated_image`, `image_too_large`.
    """
    return open_with_chunks(data)[0]


def open_with_chunks(data: bytes) -> tuple[Image.Image, list[Chunk]]:
    """As `open_image`; and of PNGs name and data of the chunks before the pixels."""
    chunks = check_png(data) if data.startswith(SIGNATURE) else []
    return open_header(io.BytesIO(data)), chunks


def open_undamaged(data: bytes) -> Image.Image:
    """As `open_image`, and a JPEG is decoded once to see whether it is damaged: for masks, which Pillow decodes."""
    image = open_image(data)
    check_jpeg(data, image)
    return image


def check_jpeg(data: bytes, image: Image.Image) -> None:
    """Decode a JPEG to see whether it is damaged; other pictures are left alone.

    Raises:
        BadSample: see `decode_jpeg`.
    """
    if is_jpeg(image):
        decode_jpeg(data, image)


def exif_orientation(image: Image.Image) -> int:
    """EXIF orientation 1 to 8; what is none of these turns nothing.

    That of XMP alone counts as little as in browsers and OpenCV; Pillow, or some versions of it, would follow it.
    """
    if isinstance(image, PngImageFile) and "exif" not in image.info and image.fp is not None:
        _find_late_exif(image, image.fp)
    xmp = {key: image.info.pop(key) for key in _XMP if key in image.info}
    value = image.getexif().get(_ORIENTATION, 1)
    image.info.update(xmp)
    return value if isinstance(value, int) and value in range(1, 9) else 1


def pixel_orientation(image: Image.Image) -> int:
    """The EXIF orientation that pixels decoded by Pillow or OpenCV still have: both turn those of a TIFF themselves.

    To be asked before a pixel is decoded: Pillow would turn a TIFF by its XMP data, too.
    """
    orientation = exif_orientation(image)
    return 1 if image.format == "TIFF" else orientation


def upright_image_size(image: Image.Image) -> tuple[int, int]:
    """Upright (width, height) of a picture whose header is read."""
    size = image.size
    if isinstance(image, TiffImageFile):  # whose size is the upright one in some versions of Pillow only
        size = image.tag_v2[_TIFF_WIDTH], image.tag_v2[_TIFF_HEIGHT]
    return (size[1], size[0]) if exif_orientation(image) >= 5 else size


def xmp_orientation(image: Image.Image) -> int | None:
    """Orientation 2 to 8 that a picture's XMP data names; None where it names none."""
    for key in _XMP:
        text = image.info.get(key) or b""
        if match := _XMP_ORIENTATION.search(text if isinstance(text, bytes) else text.encode()):
            return int(match[1])
    return None


def decode_jpeg(data: bytes, image: Image.Image) -> Bytes:
    """Pixels of a JPEG as they are stored: uint8 [H, W, 3], or of CMYK [H, W, 4] as the file has them.

    Every warning of libjpeg that concerns pixels refuses the file, and so does damage that it does not notice (see
    `jpeg_seams`). Pillow decodes such files in silence, turboJPEG names the first warning only: where that is harmless,
    it is asked again without what it was about.

    Args:
        data: the file.
        image: as `open_image` gives it.

    Raises:
        BadSample: `damaged_image` or `truncated_image`.
    """
    space = "CMYK" if image.mode == "CMYK" else "RGB"
    try:
        try:
            pixels: Bytes = simplejpeg.decode_jpeg(data, space)
        except ValueError as error:
            if not any(words in str(error) for words in _HARMLESS_JPEG):
                raise
            pixels = simplejpeg.decode_jpeg(_plain_jpeg(data), space)
    except ValueError as error:
        if any(words in str(error) for words in _UNSUPPORTED_JPEG):
            return np.asarray(image if image.mode == "CMYK" else image.convert("RGB"))
        reason = "truncated_image" if "remature end" in str(error) else "damaged_image"
        raise BadSample(reason, str(error)) from None
    if isinstance(image, JpegImageFile) and (row := _find_jpeg_seam(pixels, image)) is not None:
        raise BadSample("damaged_image", f"Corrupt JPEG data: its colours change for good at row {row}")
    return pixels


def _find_jpeg_seam(pixels: Bytes, image: JpegImageFile) -> int | None:
    if image.info.get("progressive"):
        return None
    factors = [(1, 1)] if len(image.layer) == 1 else [component[1:3] for component in image.layer]
    return find_seam(pixels, (8 * max(h for h, _ in factors), 8 * max(v for _, v in factors)))


def is_jpeg(image: Image.Image) -> bool:
    """Whether `decode_jpeg` decodes it."""
    return image.format in _JPEGS and image.mode in ("L", "RGB", "CMYK")


def has_alpha(image: Image.Image) -> bool:
    """Whether an image of Pillow has transparent pixels, or may have: a channel of them, or a value that is."""
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info


def is_deep(image: Image.Image, head: bytes) -> bool:
    """Whether a picture's file has more than 8 bits for each value; `head`: its first bytes."""
    bits = (head[24],) if image.format == "PNG" else getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (8,))
    return max(bits) > 8


def _formats(head: bytes) -> tuple[str, ...]:
    if head[_ISO_MEDIA] != b"ftyp":
        return _FORMATS
    formats = ["AVIF"] if importlib.util.find_spec("PIL.AvifImagePlugin") else []
    if importlib.util.find_spec("pillow_heif"):
        importlib.import_module("pillow_heif").register_heif_opener()
        formats.append("HEIF")
    elif head[8:12] in (b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1", b"hevc"):
        raise BadSample(
            "unreadable_image", "a HEIC picture: pip install pillow-heif to have it read, or save it as JPEG"
        )
    return tuple(formats)


def _check_limit(size: int, what: str) -> None:
    if size > (limit := image_limit()):
        why = f"{what} takes up to {size / 1e9:,.1f} GB, the limit is {limit / 1e9:g} GB (it is {LIMIT_VARIABLE})"
        raise BadSample("image_too_large", why)


def _bytes_per_pixel(image: Image.Image, head: bytes) -> int:
    """What decoding takes at its peak, for each pixel: the decoder's picture, copies of it, and what is returned."""
    alpha = has_alpha(image)
    if is_jpeg(image):
        channels = len(image.getbands())
        # A progressive file's coefficients are all kept, two bytes each; else a turned copy of the pixels, or CMYK's.
        return max(2 * channels * bool(image.info.get("progressive")) + 3, 6 if channels < 4 else 16)
    if image.mode.startswith(("I", "F")) or is_deep(image, head):
        return 28 if alpha else 22
    return 20 if alpha else 11


def _find_late_exif(image: PngImageFile, file: IO[bytes]) -> None:
    """Put EXIF data that may stand behind a PNG's pixels where Pillow, which would decode these, looks for it."""
    place = file.tell()
    file.seek(0)
    exif = find_exif(file)
    file.seek(place)
    if exif is None:
        image.load()
    else:
        image.info["exif"] = exif


def _plain_jpeg(data: bytes) -> bytes:
    """A JPEG without application segments (but Adobe's, of colours), comments and bytes between its headers."""
    parts, position = [data[:2]], 2
    while (position := data.find(b"\xff", position)) >= 0:
        marker = data[position + 1 : position + 2]
        if marker in (b"", b"\xff", b"\x00"):
            position += 1
            continue
        if marker == b"\xda":
            return b"".join([*parts, data[position:]])
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        segment = data[position:end]
        adobe = marker == b"\xee" and segment[4:9] == b"Adobe" and segment[15:16] in (b"\0", b"\1", b"\2")
        if adobe or not (b"\xe0" <= marker <= b"\xef" or marker == b"\xfe"):
            parts.append(segment)
        position = end
    return data
