"""What 8-bit sRGB cannot say of a picture stays in it: depth, alpha, colour profile."""

from __future__ import annotations

import io
import struct
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageCms

from helpers.making import encoded, smooth, wide_gamut, with_orientation
from pics_cli.core.images import image_files
from pics_cli.core.images.image_io import decode_image
from pics_cli.core.images.png_chunks import Chunk, check_png, chunk
from pics_cli.core.images.stored_image import (
    StoredImage,
    decode_stored,
    encode_stored,
    put_back,
    stored_image,
    to_pillow,
    to_srgb,
    to_srgba,
)
from pics_cli.errors import BadSample

Pixels = npt.NDArray[Any]
RGB = smooth(40, 60)
ALPHA = np.linspace(0, 255, 40 * 60).reshape(40, 60).astype(np.uint8)
REGION = np.s_[10:30, 20:50]


PROFILE = wide_gamut()
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def reread(stored: StoredImage) -> Pixels:
    values = cv2.imdecode(np.frombuffer(encode_stored(stored), np.uint8), cv2.IMREAD_UNCHANGED)
    assert values is not None
    return cv2.cvtColor(values, cv2.COLOR_BGR2RGB if values.shape[2] == 3 else cv2.COLOR_BGRA2RGBA)


def seen(image: Image.Image) -> Pixels:
    """As a colour-managed viewer shows it."""
    profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
    shown = ImageCms.profileToProfile(image.convert("RGB"), profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    return np.asarray(shown)


def deep() -> bytes:
    values = (RGB.astype(np.uint16) << 8) + np.arange(60, dtype=np.uint16)[:, None]
    return cv2.imencode(".png", values)[1].tobytes()


FILES: dict[str, tuple[bytes, type, int]] = {
    "rgb": (encoded(RGB, "PNG"), np.uint8, 3),
    "jpeg": (encoded(RGB, quality=95), np.uint8, 3),
    "turned jpeg": (encoded(RGB, quality=95, exif=with_orientation(6)), np.uint8, 3),
    "grey": (encoded(Image.fromarray(RGB[..., 0]), "PNG"), np.uint8, 3),
    "alpha": (encoded(np.dstack([RGB, ALPHA]), "PNG"), np.uint8, 4),
    "grey and alpha": (encoded(Image.fromarray(np.dstack([RGB[..., 0], ALPHA]), "LA"), "PNG"), np.uint8, 4),
    "webp with alpha": (encoded(np.dstack([RGB, ALPHA]), "WEBP", lossless=True, exact=True), np.uint8, 4),
    "profile": (encoded(RGB, "PNG", icc_profile=PROFILE), np.uint8, 3),
    "jpeg with a profile": (encoded(RGB, quality=95, icc_profile=PROFILE), np.uint8, 3),
    "profile and alpha": (encoded(np.dstack([RGB, ALPHA]), "PNG", icc_profile=PROFILE), np.uint8, 4),
    "16 bits": (deep(), np.uint16, 3),
    "16 bits, grey": (encoded(Image.fromarray(RGB[..., 0].astype(np.uint16) * 251), "PNG"), np.uint16, 3),
    "16 bits, alpha": (
        cv2.imencode(".png", np.dstack([RGB, ALPHA]).astype(np.uint16) * 255)[1].tobytes(), np.uint16, 4
    ),
    "16 bits, tiff": (cv2.imencode(".tiff", RGB.astype(np.uint16) * 251)[1].tobytes(), np.uint16, 3),
    "floating point": (encoded(Image.fromarray(RGB[..., 0].astype(np.float32) / 255), "TIFF"), np.uint16, 3),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_outside_of_what_changed_the_stored_values_stay(name: str) -> None:
    data, kind, channels = FILES[name]
    stored = decode_stored(data)
    assert (stored.pixels.dtype, stored.pixels.shape[2]) == (kind, channels)
    before = to_srgb(stored)
    if stored.icc_profile is None:
        assert np.abs(before.astype(int) - decode_image(data).rgb).max() <= 2
    after = before.copy()
    after[REGION] = (12, 200, 90)
    changed = np.zeros(before.shape[:2], np.bool_)
    changed[REGION] = True
    result = put_back(stored, before, after)
    written = reread(result)
    assert written.dtype == kind
    assert np.array_equal(written, result.pixels)
    assert np.array_equal(written[~changed], stored.pixels[~changed])
    assert np.abs(to_srgb(result).astype(int) - after)[changed].max() <= 3
    if channels == 4:
        assert (written[changed][:, 3] == np.iinfo(kind).max).all()


def test_16_bits_under_a_light_shadow_keep_their_steps() -> None:
    stored = decode_stored(deep())
    before = to_srgb(stored)
    after = before - (before > 2)
    result = put_back(stored, before, after).pixels.astype(int)
    moved = (stored.pixels.astype(int) - result)[(before != after)]
    assert set(np.unique(moved)) <= set(range(249, 266))  # one level, and a 32nd of what rounding took


def test_a_profile_is_converted_for_the_network_and_kept_in_the_result() -> None:
    stored = decode_stored(FILES["profile"][0])
    before = to_srgb(stored)
    original = Image.open(io.BytesIO(FILES["profile"][0]))
    assert np.abs(before.astype(int) - seen(original)).max() <= 2
    assert np.abs(before.astype(int) - RGB).max() > 10, "the profile moves nothing: the test shows nothing"
    after = before.copy()
    after[REGION] = (200, 120, 40)
    result = Image.open(io.BytesIO(encode_stored(put_back(stored, before, after))))
    assert result.info["icc_profile"] == PROFILE
    assert np.array_equal(seen(result)[:10], seen(original)[:10])
    assert np.abs(seen(result)[REGION].astype(int) - (200, 120, 40)).max() <= 3


def test_a_colour_outside_srgb_does_not_shine_through_an_object() -> None:
    green = np.zeros((8, 8, 3), np.uint8)
    green[..., 1] = 255
    stored = decode_stored(encoded(green, "PNG", icc_profile=PROFILE))
    before = to_srgb(stored)
    after = np.full_like(before, 128)
    assert np.abs(to_srgb(put_back(stored, before, after)).astype(int) - 128).max() <= 2


@pytest.mark.parametrize("profile", [SRGB, b"nonsense" * 30])
def test_srgb_s_own_profile_and_one_that_is_none_change_nothing(profile: bytes) -> None:
    stored = decode_stored(encoded(RGB, "PNG", icc_profile=profile))
    assert to_srgb(stored) is stored.pixels


def test_chunks_of_a_png_that_say_what_its_colours_mean_are_kept() -> None:
    data = encoded(RGB, "PNG")
    data = data[:33] + chunk(b"gAMA", struct.pack(">I", 100000)) + chunk(b"tIME", bytes(7)) + data[33:]
    stored = decode_stored(data)
    assert stored.chunks == ((b"gAMA", struct.pack(">I", 100000)),)
    assert chunk(*stored.chunks[0]) in encode_stored(stored, (b"tEXt", b"a\0b"))
    assert np.array_equal(reread(stored), RGB)


def test_transparent_ground_becomes_as_opaque_as_what_is_put_there() -> None:
    stored = StoredImage(np.zeros((1, 4, 4), np.uint8))  # nothing but transparent black
    before = to_srgb(stored)
    assert (before == 255).all()
    after = np.array([[[255, 255, 255], [200, 200, 200], [255, 255, 255], [250, 40, 40]]], np.uint8)
    opaque = np.array([[0, 0, 255, 255]], np.uint8)
    result = put_back(stored, before, after, opaque)
    # Untouched, a shadow (black of 55 / 255), still untouched (white on white is no change), an object.
    assert result.pixels.tolist() == [[[0, 0, 0, 0], [0, 0, 0, 55], [0, 0, 0, 0], [250, 40, 40, 255]]]
    assert np.abs(to_srgb(result).astype(int) - after).max() <= 1


def test_what_is_not_kept_is_told() -> None:
    frames = [Image.fromarray(RGB), Image.fromarray(RGB[::-1].copy())]
    for kind in ("PNG", "WEBP", "TIFF"):
        stored = decode_stored(encoded(frames[0], kind, save_all=True, append_images=frames[1:]))
        assert stored.notes == ("the first of its 2 frames or pages is used",)
    (note,) = decode_stored(encoded(frames[0].convert("CMYK"))).notes
    assert "CMYK" in note
    assert decode_stored(encoded(RGB, "PNG")).notes == ()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.full((4, 4), 200, np.float32), "floating-point values from 200 to 200, expected 0 to 1"),
        (np.full((4, 4), np.nan, np.float32), "floating-point values from nan to nan"),
        (np.full((4, 4), 70_000, np.int32), "32-bit values from 70000 to 70000, expected 0 to 65535"),
    ],
)
def test_values_of_an_unknown_range_are_refused(values: Pixels, words: str) -> None:
    data = encoded(Image.fromarray(values), "TIFF")
    for read in (decode_image, decode_stored):
        with pytest.raises(BadSample, match=words):
            read(data)


def test_a_transparent_value_of_16_bits() -> None:
    values = np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG", transparency=10_000)
    pixels = to_srgba(decode_stored(file.getvalue()))
    assert np.array_equal(pixels[..., 3] == 0, values == 10_000)
    assert np.array_equal(pixels[..., 0], np.rint(values / 257))


def test_images_of_pillow_as_their_files() -> None:
    for data, _, _ in FILES.values():
        image = Image.open(io.BytesIO(data))
        ours, theirs = stored_image(image), decode_stored(data)
        assert ours.icc_profile == theirs.icc_profile
        assert np.abs(to_srgb(ours).astype(int) - to_srgb(theirs)).max() <= 2
    again = to_pillow(decode_stored(FILES["profile and alpha"][0]))
    assert (again.mode, again.info["icc_profile"]) == ("RGBA", PROFILE)


def test_both_ways_of_decoding_agree() -> None:
    """What a picture without a profile is to training, which takes the upper 8 bits, and to compositing."""
    grey = encoded(Image.fromarray(RGB[..., 0].astype(np.uint16) * 251), "PNG", transparency=int(RGB[3, 5, 0]) * 251)
    for data in (grey, *(data for data, _, _ in FILES.values())):
        stored = decode_stored(data)
        if stored.icc_profile is None:
            assert np.abs(to_srgb(stored).astype(int) - decode_image(data).rgb).max() <= 2


def test_a_png_is_walked_through_once(monkeypatch: pytest.MonkeyPatch) -> None:
    walks: list[int] = []

    def counted(data: bytes) -> list[Chunk]:
        walks.append(len(data))
        return check_png(data)

    monkeypatch.setattr(image_files, "check_png", counted)
    for name in ("rgb", "profile and alpha", "16 bits"):
        walks.clear()
        decode_stored(FILES[name][0])
        assert len(walks) == 1
