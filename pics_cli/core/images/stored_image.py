"""Pictures as their files store them: depth, alpha and colour profile, what networks see of them, and the way back."""

from __future__ import annotations

import io
import zlib
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from pics_cli.core.images.image_files import (
    decoding,
    exif_orientation,
    open_with_chunks,
    pixel_orientation,
    xmp_orientation,
)
from pics_cli.core.images.image_io import RGB, encode_png
from pics_cli.core.images.pixels import Pixels, decode_pixels, over_white, row_blocks, to_8_bits, turned
from pics_cli.core.images.png_chunks import Chunk, chunk

Bytes = npt.NDArray[np.uint8]

# Chunks of a PNG that say what colours its values mean, besides iCCP, which is a profile.
_COLOUR_CHUNKS = (b"cICP", b"gAMA", b"cHRM", b"sRGB", b"mDCV", b"cLLI")
_HEADER_END = 33  # of a PNG: its signature and the header chunk, of fixed length
# Levels of 255 by which a pixel may differ from what it was and still keep what 8-bit sRGB cannot say of that.
_FADE = 32
# A profile that moves no colour further than this is sRGB's.
_SRGB_TOLERANCE = 2


class StoredImage(NamedTuple):
    """A picture as its file stores it, upright.

    Attributes:
        pixels: RGB or RGBA, uint8 or uint16 [H, W, 3 | 4]; of a grey or palette picture its colours.
        icc_profile: of RGB values; None where the file has none.
        chunks: name and data of the chunks that say otherwise what colours the values mean, in a PNG.
        notes: what of the file is not in this, one line each.
    """

    pixels: Pixels
    icc_profile: bytes | None = None
    chunks: tuple[Chunk, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def has_alpha(self) -> bool:
        """Whether there is a fourth channel."""
        return bool(self.pixels.shape[2] == 4)


def decode_stored(data: bytes) -> StoredImage:
    """Decode a picture file to what it stores.

    Raises:
        BadSample: see `decode_image`.
    """
    with decoding():
        image, chunks = open_with_chunks(data)
        stored = _to_stored(image, data)
        return stored._replace(chunks=tuple(each for each in chunks if each[0] in _COLOUR_CHUNKS))


def stored_image(image: Image.Image) -> StoredImage:
    """An image of any of Pillow's modes as `decode_stored` gives that of a file.

    Raises:
        BadSample: it cannot be decoded.
    """
    with decoding():
        return _to_stored(image, None)


def to_pillow(stored: StoredImage) -> Image.Image:
    """The picture with 8 bits for each value, and its colour profile."""
    image = Image.fromarray(to_8_bits(stored.pixels))
    if stored.icc_profile is not None:
        image.info["icc_profile"] = stored.icc_profile
    return image


def to_srgb(stored: StoredImage) -> RGB:
    """What a network sees of it: uint8 [H, W, 3] in sRGB, alpha over white; without copying where that is stored."""
    if _to_srgb_transform(stored.icc_profile) is None:
        return over_white(stored.pixels)
    out = np.empty((*stored.pixels.shape[:2], 3), np.uint8)
    for rows in row_blocks(stored.pixels):
        out[rows] = over_white(to_srgba(stored._replace(pixels=stored.pixels[rows])))
    return out


def to_srgba(stored: StoredImage) -> Bytes:
    """The picture in 8-bit sRGB with its alpha where it has one: uint8 [H, W, 3 | 4]."""
    values = to_8_bits(stored.pixels)
    transform = _to_srgb_transform(stored.icc_profile)
    if transform is None:
        return values
    colours = _transformed(values[..., :3], transform)
    return np.dstack([colours, values[..., 3]]) if stored.has_alpha else colours


def put_back(stored: StoredImage, before: RGB, after: RGB, opaque: Bytes | None = None) -> StoredImage:
    """The stored picture with the changes that a network made to what it saw of it.

    Pixels that did not change stay as they are stored, to the bit. Others get the new colour; as far as they hardly
    changed, they keep what 8-bit sRGB could not say of the old one: fine steps of 16 bits, colours outside its gamut.
    Transparent ones become as opaque as the new colour over white needs.

    Args:
        stored: the picture.
        before: `to_srgb` of it.
        after: uint8 [H, W, 3], the same changed.
        opaque: uint8 [H, W], alpha that pixels which changed have at least; None: they become opaque.
    """
    if stored.pixels is before:
        return stored._replace(pixels=after)
    out = stored.pixels.copy()
    back = _from_srgb_transform(stored.icc_profile)
    highest = float(np.iinfo(out.dtype).max)
    for rows in row_blocks(out):
        changed = (before[rows] != after[rows]).any(axis=2)
        if not changed.any():
            continue
        old, new, own = before[rows][changed], after[rows][changed], out[rows][changed].astype(np.float32)
        keep = np.maximum(1 - np.abs(new.astype(np.int16) - old).max(axis=1) / _FADE, 0)[:, None]
        if stored.has_alpha:
            least = np.full(len(new), 255, np.uint8) if opaque is None else opaque[rows][changed]
            needed = np.maximum(least, 255 - new.min(axis=1)) / np.float32(255)
            alpha = np.maximum(own[:, 3] / highest, needed)[:, None]
            keep *= own[:, 3:] == highest  # of any other the old colour is another than it looked over white
            new = np.rint(255 - (255 - new) / np.maximum(alpha, 1 / 255)).clip(0, 255).astype(np.uint8)
            own[:, 3:] = np.rint(alpha * highest)
        shown_old, shown_new = (_back(colours, back) * np.float32(highest / 255) for colours in (old, new))
        own[:, :3] = np.rint(shown_new + (own[:, :3] - shown_old) * keep)
        out[rows][changed] = own.clip(0, highest).astype(out.dtype)
    return stored._replace(pixels=out)


def encode_stored(stored: StoredImage, *chunks: Chunk) -> bytes:
    """PNG of 8 or 16 bits with its alpha and colour profile, and with further chunks before the pixels."""
    if stored.icc_profile is not None:
        chunks = ((b"iCCP", b"ICC profile\0\0" + zlib.compress(stored.icc_profile)), *chunks)
    data = encode_png(stored.pixels)
    own = b"".join(chunk(*each) for each in (*stored.chunks, *chunks))
    return data[:_HEADER_END] + own + data[_HEADER_END:]


def _to_stored(image: Image.Image, data: bytes | None) -> StoredImage:
    notes = []
    orientation, file_orientation = pixel_orientation(image), exif_orientation(image)
    if image.format != "MPO" and (frames := getattr(image, "n_frames", 1)) > 1:
        notes.append(f"the first of its {frames} frames or pages is used")
    if file_orientation == 1 and (value := xmp_orientation(image)):
        notes.append(f"its orientation {value} stands in XMP alone and is not followed, as by browsers and OpenCV")
    profile = image.info.get("icc_profile") or None
    space = profile[16:20] if profile else b""
    pixels = decode_pixels(image, data)
    if image.mode == "CMYK":
        notes.append("CMYK: its colours are converted to sRGB")
        profile = None
    elif image.mode == "F":
        notes.append("floating-point values from 0 to 1: read as 16 bits")
    if profile is not None and space == b"GRAY":
        if image.mode == "L":
            notes.append("a grey colour profile: its values are converted to sRGB")
            pixels = _grey_to_srgb(pixels, profile)
        else:
            notes.append("a grey colour profile that is not used")
        profile = None
    elif profile is not None and space != b"RGB ":
        notes.append(f"a colour profile of {space!r} that is not used")
        profile = None
    return StoredImage(turned(pixels, orientation), profile, (), tuple(notes))


def _transformed(colours: Bytes, transform: ImageCms.ImageCmsTransform) -> Bytes:
    """Of uint8 [h, w, 3]."""
    image = Image.fromarray(np.ascontiguousarray(colours))
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None
    return np.asarray(converted)


def _back(colours: Bytes, transform: ImageCms.ImageCmsTransform | None) -> npt.NDArray[np.float32]:
    """sRGB colours uint8 [n, 3] as values of 0 to 255 in the picture's own space."""
    own = colours if transform is None else _transformed(colours[None], transform)[0]
    return own.astype(np.float32)


@lru_cache(8)
def _to_srgb_transform(profile: bytes | None) -> ImageCms.ImageCmsTransform | None:
    """None where nothing is to be converted: no profile, one that cannot be used, or sRGB's."""
    transform = _transform(profile)
    if transform is None:
        return None
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
    moved = np.abs(_transformed(cube, transform).astype(np.int16) - cube).max()
    return transform if moved > _SRGB_TOLERANCE else None


@lru_cache(8)
def _from_srgb_transform(profile: bytes | None) -> ImageCms.ImageCmsTransform | None:
    return None if _to_srgb_transform(profile) is None else _transform(profile, back=True)


def _transform(profile: bytes | None, back: bool = False) -> ImageCms.ImageCmsTransform | None:
    if profile is None:
        return None
    try:
        own, srgb = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
        ends = (srgb, own) if back else (own, srgb)
        return ImageCms.buildTransform(ends[0], ends[1], "RGB", "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC)
    except (ImageCms.PyCMSError, OSError):  # damaged: it is kept as it is, and viewers make of it what they did
        return None


def _grey_to_srgb(pixels: Pixels, profile: bytes | None) -> Pixels:
    """Grey values, as uint8 [H, W, 3], by a table of the 256 that there are."""
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    try:
        own, srgb = ImageCms.ImageCmsProfile(io.BytesIO(profile or b"")), ImageCms.createProfile("sRGB")
        table = ImageCms.profileToProfile(ramp, own, srgb, ImageCms.Intent.RELATIVE_COLORIMETRIC, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        return pixels
    return pixels if table is None else np.asarray(table)[0][pixels[..., 0]]
