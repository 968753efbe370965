"""Damaged, hostile and huge picture files are refused by name, wherever they are decoded."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.making import encoded, smooth, with_orientation
from pics_cli.core.datasets.readers.label_maps import decode_label_map
from pics_cli.core.datasets.readers.vistas import _decode_map as decode_instance_map
from pics_cli.core.images.image_files import image_limit
from pics_cli.core.images.image_io import decode_image, decode_rgba
from pics_cli.core.images.mask_png import HEADER
from pics_cli.core.images.masks import decode_box_mask
from pics_cli.core.images.png_chunks import SIGNATURE, check_png, chunk
from pics_cli.core.images.stored_image import decode_stored
from pics_cli.core.inference.decoding import decode_reference, mask_region
from pics_cli.errors import BadSample, PicsError

SIZE = (96, 64)
RGB = smooth(64, 96)
GREY = RGB[..., 0]
MASK = np.where(GREY > 128, 255, 0).astype(np.uint8)


def png(values: np.ndarray | Image.Image, mode: str | None = None) -> bytes:
    image = values if isinstance(values, Image.Image) else Image.fromarray(values)
    return encoded(image if mode is None else image.convert(mode), "PNG")


# What each place where a PNG is read makes of its bytes.
READERS: dict[str, tuple[bytes, Callable[[bytes], object]]] = {
    "picture": (png(RGB), lambda data: decode_image(data).rgb.tobytes()),
    "background": (png(RGB), lambda data: decode_stored(data).pixels.tobytes()),
    "background of 16 bits": (
        encoded(Image.fromarray(GREY.astype(np.uint16) * 257), "PNG"),
        lambda data: decode_stored(data).pixels.tobytes(),
    ),
    "reference": (png(np.dstack([RGB, MASK])), lambda data: decode_reference(data, Path("a"))[0].tobytes()),
    "alternate view": (png(np.dstack([RGB, MASK])), lambda data: decode_rgba(data, SIZE).tobytes()),
    "sample's mask": (png(MASK), lambda data: mask_region(data, "m", SIZE)),
    "shard's mask": (png(MASK), lambda data: decode_box_mask(data, "m", SIZE).full().tobytes()),
    "shard's mask, 1 bit": (png(MASK, "1"), lambda data: decode_box_mask(data, "m", SIZE).full().tobytes()),
    "parse map": (png(GREY // 16), lambda data: decode_label_map(data, "p").tobytes()),
    "instance map": (
        encoded(Image.fromarray(GREY.astype(np.uint16)), "PNG"),
        lambda data: decode_instance_map(data, Path("p")).tobytes(),
    ),
}


@pytest.mark.parametrize("name", READERS)
def test_a_flipped_bit_of_a_png_never_gives_another_picture(name: str) -> None:
    data, read = READERS[name]
    whole = read(data)
    start, end = data.index(b"IDAT") - 4, data.index(b"IEND") - 4
    rng = np.random.default_rng(len(name))
    for place in rng.integers(8 * start, 8 * end, 40):
        damaged = bytearray(data)
        damaged[place // 8] ^= 1 << place % 8
        with contextlib.suppress(BadSample):
            assert read(bytes(damaged)) == whole, place


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (png(RGB)[:-12], "it has no end"),
        (png(RGB)[:-20], "cut short in its chunk b'IDAT'"),
        (png(RGB).replace(b"IDAT", b"IDAU"), "the checksum of its chunk b'IDAU' does not fit"),
    ],
)
def test_what_is_wrong_with_a_png_is_told(data: bytes, words: str) -> None:
    with pytest.raises(BadSample, match=words):
        decode_image(data)
    assert check_png(png(RGB))[0][0] == b"IHDR"


EXIF_6 = with_orientation(6)
JPEGS = {
    "rgb": encoded(smooth(240, 352), quality=92),
    "turned": encoded(smooth(352, 240), quality=92, exif=EXIF_6),
    "grey": encoded(Image.fromarray(smooth(240, 352)).convert("L"), quality=92),
    "cmyk": encoded(Image.fromarray(smooth(240, 352)).convert("CMYK"), quality=92),
}


@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize("read", [decode_image, decode_stored], ids=["picture", "background"])
def test_jpegs_with_bytes_lost_in_the_middle_are_refused(kind: str, read: Callable[[bytes], object]) -> None:
    data = JPEGS[kind]
    read(data)
    for share in (0.4, 0.6, 0.8):
        place = int(len(data) * share)
        with pytest.raises(BadSample) as error:
            read(data[:place] + data[place + 200 :])
        assert error.value.reason in ("damaged_image", "truncated_image")


@pytest.mark.parametrize("kind", JPEGS)
def test_few_jpegs_with_other_bytes_in_the_middle_are_taken_for_good(kind: str) -> None:
    data = JPEGS[kind]
    clean = decode_image(data).rgb.astype(int)
    wrong = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        damaged = bytearray(data)
        place = int(len(data) * rng.uniform(0.3, 0.9))
        damaged[place : place + 64] = rng.bytes(64)
        try:
            rgb = decode_image(bytes(damaged)).rgb.astype(int)
        except BadSample:
            continue
        wrong += (np.abs(rgb - clean).mean(axis=2) > 20).mean() > 0.05
    assert wrong <= 2


def test_a_jpeg_whose_headers_alone_are_odd_is_whole() -> None:
    data = JPEGS["rgb"]
    whole = decode_image(data).rgb
    first = data.index(b"\xff\xdb")
    junk = data[:first] + b"junk" + data[first:]  # libjpeg warns of four bytes before the marker
    revision = data.replace(b"JFIF\0\1", b"JFIF\0\7")
    assert revision != data
    for odd in (junk, revision):
        assert np.array_equal(decode_image(odd).rgb, whole)
        with pytest.raises(BadSample):  # lost pixels behind such a header are not hidden by it
            decode_image(odd[: len(odd) * 2 // 3] + odd[len(odd) * 2 // 3 + 300 :])


def test_no_decoder_that_runs_another_program() -> None:
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 96 64\n%%EndComments\nshowpage\n"
    for read in (decode_image, decode_stored, lambda data: mask_region(data, "m", SIZE)):
        with pytest.raises(BadSample, match="not a picture of a known kind: JPEG, PNG, WebP, AVIF, BMP and TIFF"):
            read(postscript)
    gif = encoded(Image.fromarray(GREY), "GIF")
    with pytest.raises(BadSample, match="not a picture of a known kind"):
        decode_image(gif)
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    with pytest.raises(BadSample, match=r"pillow-heif|known kind|HEIC"):
        decode_image(heic)


def test_whatever_a_decoder_raises_is_the_picture_s_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise NotImplementedError("pixel format 7")

    data = png(RGB)
    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(BadSample, match="pixel format 7"):
        decode_image(data)


def bomb(width: int, height: int, kind: int = 6, bits: int = 8) -> bytes:
    header = HEADER.pack(width, height, bits, kind, 0, 0, 0)
    rows = zlib.compress(bytes(1 << 16), 9)
    return SIGNATURE + b"".join(chunk(*each) for each in ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")))


@pytest.mark.parametrize("read", [decode_image, decode_stored, lambda data: mask_region(data, "m", (20_000, 20_000))])
def test_a_small_file_of_a_huge_picture_is_refused_by_its_header(read: Callable[[bytes], object]) -> None:
    with pytest.raises(BadSample, match=r"decoding 20000 x 20000 pixels takes up to .* GB, the limit is 1 GB"):
        read(bomb(20_000, 20_000))
    with pytest.raises(BadSample, match="claims 60000 x 60000 pixels"):
        read(bomb(60_000, 60_000))


def test_the_limit_is_the_user_s(monkeypatch: pytest.MonkeyPatch) -> None:
    data = bomb(9_000, 9_000)  # 81 million pixels with alpha
    for limit, words in ((None, "the limit is 1 GB"), ("1200", "1.2 GB"), ("4000", "truncated|cut short|damaged")):
        if limit is not None:
            monkeypatch.setenv("PICS_MAX_IMAGE_MB", limit)
        if limit != "4000":
            with pytest.raises(BadSample, match=words):
                decode_image(data)
    assert image_limit() == 4_000_000_000
    for value in ("much", "0", "-1", "1e3"):
        monkeypatch.setenv("PICS_MAX_IMAGE_MB", value)
        with pytest.raises(PicsError, match=r"PICS_MAX_IMAGE_MB=.*: expected a whole number of megabytes"):
            decode_image(data)


def jpeg_header(width: int, height: int) -> bytes:
    """A JPEG whose header claims another size."""
    data = encoded(RGB)
    place = data.index(b"\xff\xc0") + 5
    return data[:place] + struct.pack(">HH", height, width) + data[place + 4 :]


def test_large_pictures_of_cameras_are_within_the_limit() -> None:
    with pytest.raises(BadSample) as error:  # it is decoded, and found to lack its pixels
        decode_image(jpeg_header(12_000, 8_333))
    assert error.value.reason in ("truncated_image", "damaged_image")
    with pytest.raises(BadSample) as error:
        decode_stored(bomb(4000, 3000, kind=2, bits=16))
    assert error.value.reason != "image_too_large"


def test_orientation_in_xmp_alone_turns_nothing() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    data = encoded(RGB, xmp=xmp)
    assert Image.open(io.BytesIO(data)).info["xmp"]
    assert decode_image(data).rgb.shape == RGB.shape
    (note,) = decode_stored(data).notes
    assert note.startswith("its orientation 6 stands in XMP alone")
    both = decode_stored(encoded(RGB, xmp=xmp, exif=EXIF_6))
    assert (both.pixels.shape[:2], both.notes) == ((96, 64), ())
