"""Picture files of every kind become upright RGB, or say why not."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from helpers.making import RGB, UPRIGHT, encoded, smooth, with_orientation, with_tiff_orientation
from helpers.oracle import read_rgb
from pics_cli.core.images.image_io import (
    decode_image,
    encode_jpeg,
    encode_png,
    first_image_size,
    read_first_existing,
    upright_size,
)
from pics_cli.core.images.png_chunks import chunk
from pics_cli.core.images.stored_image import decode_stored, stored_image
from pics_cli.errors import BadSample

BASE = smooth(37, 53)
GREY = BASE[..., 0]

KEPT = {
    "4:2:0": encoded(BASE, quality=90, subsampling=2),
    "4:2:2": encoded(BASE, quality=90, subsampling=1),
    "4:4:4": encoded(BASE, quality=90, subsampling=0),
    "progressive": encoded(BASE, quality=85, progressive=True),
    "restart markers": encoded(BASE, quality=85, restart_marker_rows=1),
    "orientation 1": encoded(BASE, exif=with_orientation(1)),
    "orientation 0, as some cameras write": encoded(BASE, exif=with_orientation(0)),
    "colour profile and comment": encoded(BASE, icc_profile=b"profile" * 20, comment=b"hello"),
    "one row": encoded(smooth(1, 53)),
    "one column": encoded(smooth(53, 1)),
    "one pixel": encoded(smooth(1, 1)),
    "512 x 512": encoded(smooth(512, 512)),
}


@pytest.mark.parametrize("name", KEPT)
def test_upright_rgb_jpeg_keeps_its_bytes(name: str) -> None:
    data = KEPT[name]
    picture = decode_image(data)
    assert picture.source == data
    assert picture.rgb.dtype == np.uint8
    assert np.array_equal(picture.rgb, read_rgb(data))
    # What the research code reads.
    by_opencv = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert by_opencv is not None
    assert np.array_equal(picture.rgb, by_opencv)


def palette(transparent: int | None) -> tuple[bytes, RGB]:
    """A PNG of 16 colours, one of them transparent, and its pixels over white."""
    image = Image.fromarray(BASE).quantize(16)
    stored = image.getpalette()
    assert stored
    colours = np.array(stored[:48], np.uint8).reshape(-1, 3)
    if transparent is not None:
        colours[transparent] = 255
        return encoded(image, "PNG", transparency=transparent), colours[np.asarray(image)]
    return encoded(image, "PNG"), colours[np.asarray(image)]


def sixteen_bits() -> tuple[bytes, RGB]:
    values = np.random.default_rng(1).integers(0, 65536, (37, 53)).astype(np.uint16)
    return encoded(Image.fromarray(values), "PNG"), grey(np.rint(values / 257).astype(np.uint8))


def grey(values: np.ndarray) -> RGB:
    return np.stack([values] * 3, axis=-1)


def over_white(rgb: np.ndarray, alpha: np.ndarray) -> RGB:
    share = alpha[..., None] / 255
    return np.rint(rgb * share + 255 * (1 - share)).astype(np.uint8)


def gradient() -> np.ndarray:
    """Alpha from 0 to 255."""
    return np.linspace(0, 255, 37 * 53).reshape(37, 53).astype(np.uint8)


BITS = GREY > 128
CONVERTED = {
    "grey png": (encoded(Image.fromarray(GREY), "PNG"), grey(GREY), 0),
    "rgb png": (encoded(BASE, "PNG"), BASE, 0),
    "1-bit png": (encoded(Image.fromarray(BITS), "PNG"), grey(BITS * np.uint8(255)), 0),
    "rgba png": (encoded(np.dstack([BASE, gradient()]), "PNG"), over_white(BASE, gradient()), 1),
    "grey and alpha png": (
        encoded(Image.fromarray(np.dstack([GREY, gradient()]), "LA"), "PNG"),
        over_white(grey(GREY), gradient()),
        1,
    ),
    "palette png": (*palette(None), 0),
    "palette png with a transparent colour": (*palette(5), 0),
    "16-bit grey png": (*sixteen_bits(), 0),
    "lossless webp": (encoded(BASE, "WEBP", lossless=True), BASE, 0),
    "bmp": (encoded(BASE, "BMP"), BASE, 0),
    "grey jpeg": (encoded(Image.fromarray(GREY), quality=95), read_rgb(encoded(Image.fromarray(GREY), quality=95)), 0),
}


@pytest.mark.parametrize("name", CONVERTED)
def test_other_kinds_are_converted_and_not_kept(name: str) -> None:
    data, expected, tolerance = CONVERTED[name]
    picture = decode_image(data)
    assert picture.source is None
    assert picture.rgb.dtype == np.uint8
    assert picture.rgb.shape == expected.shape
    assert np.abs(picture.rgb.astype(int) - expected).max() <= tolerance


def test_16_bit_rgb_png() -> None:
    values = np.random.default_rng(2).integers(0, 65536, (37, 53, 3)).astype(np.uint16)
    picture = decode_image(cv2.imencode(".png", values[..., ::-1])[1].tobytes())
    assert picture.source is None
    assert np.abs(picture.rgb - values / 257).max() <= 1


def test_cmyk_jpeg() -> None:
    ink = np.zeros((48, 64, 4), np.uint8)
    patches = {(0, 0): (255, 0, 0, 0), (0, 1): (0, 255, 0, 0), (1, 0): (0, 0, 0, 255), (1, 1): (0, 0, 0, 0)}
    for (row, column), value in patches.items():
        ink[24 * row : 24 * row + 24, 32 * column : 32 * column + 32] = value
    data = encoded(Image.fromarray(ink, "CMYK"), quality=95, subsampling=0)
    picture = decode_image(data)
    assert picture.source is None
    middle = picture.rgb[12::24, 16::32].astype(int)
    assert np.abs(middle - [[[0, 255, 255], [255, 0, 255]], [[0, 0, 0], [255, 255, 255]]]).max() <= 4


@pytest.mark.parametrize("value", range(2, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_exif_orientation_is_applied(tmp_path: Path, kind: str, value: int) -> None:
    # Decoders that turn by themselves (Pillow's of TIFF) must not have it done twice.
    best: dict[str, dict[str, Any]] = {"WEBP": {"lossless": True}, "AVIF": {"quality": 100, "subsampling": "4:4:4"}}
    data = encoded(BASE, kind, exif=with_orientation(value), **best.get(kind, {}))
    picture = decode_image(data)
    assert picture.source is None
    assert picture.turned
    shown = UPRIGHT[value](read_rgb(data) if kind == "JPEG" else BASE)
    assert picture.rgb.shape == shown.shape
    assert np.abs(picture.rgb.astype(int) - shown).max() <= (8 if kind == "AVIF" else 0)
    assert np.array_equal(decode_stored(data).pixels, picture.rgb)
    (tmp_path / "x").write_bytes(data)
    assert first_image_size((tmp_path / "x",)) == upright_size(data) == shown.shape[1::-1]
    assert not decode_image(encoded(BASE, kind, exif=with_orientation(1))).turned


@pytest.mark.parametrize("value", range(2, 9))
def test_deep_tiff_is_turned_once(value: int) -> None:
    grey = np.repeat(BASE[..., :1], 3, axis=2)
    data = encoded(Image.fromarray(grey[..., 0].astype(np.uint16) * 257), "TIFF", exif=with_orientation(value))
    assert np.array_equal(decode_image(data).rgb, UPRIGHT[value](grey))
    assert np.array_equal(decode_stored(data).pixels, UPRIGHT[value](grey.astype(np.uint16) * 257))
    # Pillow writes no 16-bit colours: OpenCV does, without the tag, which is put in as a further entry of the list.
    deep = with_tiff_orientation(cv2.imencode(".tiff", BASE[..., ::-1].astype(np.uint16) * 257)[1].tobytes(), value)
    assert np.array_equal(decode_stored(deep).pixels, UPRIGHT[value](BASE.astype(np.uint16) * 257))


@pytest.mark.parametrize("value", range(2, 9))
def test_orientations_are_what_their_names_say(value: int) -> None:
    # Where the stored picture's first row and first column lie when it is shown (EXIF 2.3, tag 0x0112).
    row, column = {
        2: ("top", "right"), 3: ("bottom", "right"), 4: ("bottom", "left"), 5: ("left", "top"),
        6: ("right", "top"), 7: ("right", "bottom"), 8: ("left", "bottom"),
    }[value]  # fmt: skip
    edges: dict[str, Any] = {"top": np.s_[0, :], "bottom": np.s_[-1, :], "left": np.s_[:, 0], "right": np.s_[:, -1]}
    stored = np.zeros((3, 5, 3), np.uint8)
    stored[0, :, 0] = 200
    stored[:, 0, 1] = 200
    shown = decode_image(encoded(stored, "PNG", exif=with_orientation(value))).rgb
    assert (shown[edges[row]][:, 0] == 200).all()
    assert (shown[edges[column]][:, 1] == 200).all()
    assert ((shown[..., 0] == 200).sum(), (shown[..., 1] == 200).sum()) == (5, 3)


@pytest.mark.parametrize("value", range(10))
def test_size_from_the_header_is_that_of_the_upright_pixels(tmp_path: Path, value: int) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(encoded(BASE, exif=with_orientation(value)))
    height, width = decode_image(path.read_bytes()).rgb.shape[:2]
    assert first_image_size((path,)) == (width, height)


@pytest.mark.parametrize("name", KEPT)
def test_size_from_the_header(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(KEPT[name])
    assert first_image_size((path,)) == read_rgb(KEPT[name]).shape[1::-1]


@pytest.mark.parametrize("kind", [2, 7])
def test_orientation_that_is_text_is_no_orientation(tmp_path: Path, kind: int) -> None:
    # Tag 0x0112 of type ASCII or UNDEFINED instead of SHORT.
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHI", 0x0112, kind, 2) + b"6\0\0\0" + bytes(4)
    path = tmp_path / "x.jpg"
    path.write_bytes(encoded(BASE, exif=exif))
    assert decode_image(path.read_bytes()).rgb.shape == BASE.shape
    assert first_image_size((path,)) == (53, 37)


def fails(data: bytes) -> str:
    with pytest.raises(BadSample) as error:
        decode_image(data)
    return error.value.reason


def pixels_or_reason(data: bytes) -> RGB | str:
    try:
        return decode_image(data).rgb
    except BadSample as error:
        return error.reason


@pytest.mark.parametrize("name", ["4:2:0", "4:4:4", "progressive", "restart markers", "orientation 6", "grey"])
def test_truncated_jpeg_is_refused_at_every_length(name: str) -> None:
    more = {"orientation 6": encoded(BASE, exif=with_orientation(6)), "grey": CONVERTED["grey jpeg"][0]}
    data = (KEPT | more)[name]
    whole = decode_image(data).rgb
    body = data.index(b"\xff\xda") + 14  # past the header of the first scan
    for length in range(1, len(data), 7):
        reason = fails(data[:length])
        assert reason in ("truncated_image", "damaged_image") or length < body, length
    # Without the end marker alone no pixel is missing: refused or whole, never a picture with a grey rest.
    for length in range(len(data) - 8, len(data)):
        found = pixels_or_reason(data[:length])
        assert found == "truncated_image" if isinstance(found, str) else np.array_equal(found, whole)


@pytest.mark.parametrize("name", ["4:2:0", "progressive"])
def test_jpeg_that_lacks_its_middle_is_refused(name: str) -> None:
    # The end marker is there, half of the scan is not: decoders fill in grey and warn at most.
    data = KEPT[name]
    assert fails(data[: len(data) * 2 // 3] + b"\xff\xd9") == "truncated_image"


@pytest.mark.parametrize("tail", [b"\0" * 100, b"junk" * 9])
def test_jpeg_with_something_behind_it_is_whole(tail: bytes) -> None:
    data = KEPT["4:2:0"] + tail
    picture = decode_image(data)
    assert picture.source == data
    assert np.array_equal(picture.rgb, read_rgb(KEPT["4:2:0"]))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_other_truncated_pictures_are_refused(kind: str) -> None:
    data = encoded(smooth(64, 96), kind)
    for share in (0.05, 0.3, 0.6, 0.9):
        assert fails(data[: int(share * len(data))]) in ("truncated_image", "unreadable_image")


@pytest.mark.parametrize("data", [b"", b"\xff", b"\xff\xd8\xff", b"<html>404</html>", bytes(2000), b"{}"])
def test_no_picture(tmp_path: Path, data: bytes) -> None:
    assert fails(data) == "unreadable_image"
    path = tmp_path / "x.jpg"
    path.write_bytes(data)
    with pytest.raises(BadSample) as error:
        first_image_size((path,))
    assert error.value.reason == "unreadable_image"


def test_first_file_that_exists_is_read(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"second")
    (tmp_path / "c").write_bytes(b"third")
    assert read_first_existing((tmp_path / "a", tmp_path / "b", tmp_path / "c")) == b"second"
    # A file stands where a folder is asked for.
    assert read_first_existing((tmp_path / "b" / "x", tmp_path / "c")) == b"third"


def test_missing_file_is_named(tmp_path: Path) -> None:
    for read in (read_first_existing, first_image_size):
        with pytest.raises(BadSample) as error:
            read((tmp_path / "é.jpg",))
        assert error.value.reason == "missing_image"
        assert str(tmp_path / "é.jpg") in error.value.detail
    with pytest.raises(BadSample) as error:
        read_first_existing(())
    assert error.value.reason == "missing_image"


def test_file_too_large_for_a_picture_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "x.jpg").open("wb") as file:
        file.truncate((1 << 30) + 1)  # a hole: nothing is written
    with pytest.raises(BadSample, match="holds 1,073,741,825 bytes, expected at most 1,073,741,824") as error:
        read_first_existing((tmp_path / "x.jpg",))
    assert error.value.reason == "image_too_large"
    assert error.value.detail.startswith(str(tmp_path / "x.jpg"))


def test_folder_in_the_place_of_a_file(tmp_path: Path) -> None:
    for read in (read_first_existing, first_image_size):
        with pytest.raises(BadSample) as error:
            read((tmp_path,))
        assert error.value.reason == "unreadable_image"


@pytest.mark.parametrize("shape", [(37, 53), (1, 40), (40, 1), (1, 1)])
def test_encoders_give_back_the_picture(shape: tuple[int, int]) -> None:
    rgb = smooth(*shape)
    assert np.array_equal(read_rgb(encode_png(rgb)), rgb)
    assert np.abs(read_rgb(encode_jpeg(rgb)).astype(int) - rgb).mean() < 4
    turned = rgb[:, ::-1]
    assert np.array_equal(read_rgb(encode_png(turned)), turned)
    assert encode_jpeg(turned) == encode_jpeg(np.ascontiguousarray(turned))


def behind_the_pixels(data: bytes, name: bytes, content: bytes) -> bytes:
    end = data.index(b"IEND") - 4
    return data[:end] + chunk(name, content) + data[end:]


def undecodable(data: bytes) -> bytes:
    """A PNG whose checksums fit, and whose pixels no decoder reads."""
    start = data.index(b"IDAT") - 4
    return data[:start] + chunk(b"IDAT", b"no deflate stream") + data[data.index(b"IEND") - 4 :]


def test_the_size_of_a_png_is_found_without_its_pixels(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    exif = with_orientation(6).tobytes()
    assert decode_image(behind_the_pixels(encoded(BASE, "PNG"), b"eXIf", exif[6:])).rgb.shape == (53, 37, 3)
    upright = undecodable(encoded(BASE, "PNG"))
    for data, size in ((upright, (53, 37)), (behind_the_pixels(upright, b"eXIf", exif[6:]), (37, 53))):
        path.write_bytes(data)
        assert first_image_size((path,)) == upright_size(data) == size
    raw = b"\nexif\n%8d\n%s\n" % (len(exif), exif.hex().encode())
    text = behind_the_pixels(encoded(BASE, "PNG"), b"tEXt", b"Raw profile type exif\0" + raw)
    assert upright_size(text) == (37, 53)
    assert decode_image(text).rgb.shape == (53, 37, 3)
    path.write_bytes(encoded(BASE, "PNG")[:-20])
    with pytest.raises(BadSample, match="cut short"):
        first_image_size((path,))


@pytest.mark.parametrize("value", range(2, 9))
@pytest.mark.parametrize("kind", ["8 bits", "16 bits", "16 bits, colours"])
def test_tiffs_opened_by_pillow_are_turned_once(kind: str, value: int) -> None:
    deep = cv2.imencode(".tiff", BASE[..., ::-1].astype(np.uint16) * 257)[1].tobytes()
    data = {
        "8 bits": encoded(BASE, "TIFF", exif=with_orientation(value)),
        "16 bits": encoded(Image.fromarray(GREY.astype(np.uint16) * 257), "TIFF", exif=with_orientation(value)),
        "16 bits, colours": with_tiff_orientation(deep, value),
    }[kind]
    shown = UPRIGHT[value](np.repeat(GREY[..., None], 3, axis=2) if kind == "16 bits" else BASE)
    lazy, loaded = (Image.open(io.BytesIO(data)) for _ in range(2))
    loaded.load()
    for image in (lazy, loaded, loaded.copy(), Image.open(io.BytesIO(data)).copy()):
        pixels = stored_image(image).pixels
        assert np.array_equal(pixels // (257 if pixels.dtype == np.uint16 else 1), shown)


def test_xmp_alone_turns_no_tiff() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    data = encoded(BASE, "TIFF", tiffinfo={700: xmp})
    assert Image.open(io.BytesIO(data)).info["xmp"] == xmp
    assert np.array_equal(stored_image(Image.open(io.BytesIO(data))).pixels, BASE)
    assert np.array_equal(decode_image(data).rgb, BASE)
