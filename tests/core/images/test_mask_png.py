"""Mask members: unpacked by hand where they are our own, by OpenCV otherwise, with the same result."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers.making import encoded
from pics_cli.core.images.mask_png import grey_part, one_bit_rows
from pics_cli.core.images.masks import BoxMask, box_mask, decode_box_mask, decode_mask_png
from pics_cli.core.images.png_chunks import SIGNATURE, chunk
from pics_cli.errors import BadSample


def drawn(width: int, height: int, seed: int, share: float) -> np.ndarray:
    """A box of noise somewhere in a mask."""
    rng = np.random.default_rng([width, height, seed])
    mask = np.zeros((height, width), bool)
    (x0, x1), (y0, y1) = (sorted(rng.integers(0, side + 1, 2)) for side in (width, height))
    mask[y0:y1, x0:x1] = rng.random((y1 - y0, x1 - x0)) < share
    return mask


def equal(one: BoxMask, other: BoxMask) -> bool:
    return (
        (one.box, one.height, one.width) == (other.box, other.height, other.width)
        and one.pixels.dtype == np.bool_
        and one.pixels.flags.c_contiguous
        and np.array_equal(one.full(), other.full())
    )


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 9), st.sampled_from([0.02, 0.5, 1.0]))
def test_as_opencv_reads_it(width: int, height: int, seed: int, share: float) -> None:
    mask = drawn(width, height, seed, share)
    expected = box_mask(mask)
    data = expected.png()
    assert one_bit_rows(data, (width, height)) is not None
    assert np.array_equal(decode_mask_png(data, "", (width, height)), mask)
    assert equal(decode_box_mask(data, "", (width, height)), expected)
    for other in (cv2.imencode(".png", mask * np.uint8(255))[1].tobytes(), encoded(Image.fromarray(mask), "PNG")):
        assert equal(decode_box_mask(other, "", (width, height)), expected)


def png(rows: bytes, header: bytes, packed: bytes | None = None) -> bytes:
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows) if packed is None else packed), (b"IEND", b""))
    return SIGNATURE + b"".join(chunk(*part) for part in parts)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 9))
def test_grey_masks_as_opencv_reads_them(width: int, height: int, seed: int) -> None:
    """Of any values, as OpenCV writes them; set above half of the range."""
    rng = np.random.default_rng(seed)
    grey = drawn(width, height, seed, 0.7) * rng.choice([1, 126, 127, 128, 129, 255], (height, width)).astype(np.uint8)
    data = cv2.imencode(".png", grey)[1].tobytes()
    assert grey_part(data, (width, height)) is not None
    assert one_bit_rows(data, (width, height)) is None
    assert equal(decode_box_mask(data, "", (width, height)), box_mask(grey > 127))


def test_bits_behind_the_last_column_count_for_nothing() -> None:
    header = struct.pack(">IIBBBBB", 9, 2, 1, 0, 0, 0, 0)
    data = png(b"\0\x01\x7f" + b"\0\x00\xff", header)
    expected = np.zeros((2, 9), bool)
    expected[0, 7] = expected[1, 8] = True
    assert np.array_equal(decode_mask_png(data, "", (9, 2)), expected)
    assert equal(decode_box_mask(data, "", (9, 2)), box_mask(expected))


def test_filters_are_left_to_opencv() -> None:
    header = struct.pack(">IIBBBBB", 8, 2, 1, 0, 0, 0, 0)
    data = png(b"\0\x0f" + b"\2\xf0", header)  # the second row is told as what is added to the first
    assert one_bit_rows(data, (8, 2)) is None
    assert decode_box_mask(data, "", (8, 2)).full().tolist() == [[False] * 4 + [True] * 4, [True] * 8]


def test_damage_and_another_size() -> None:
    """As `decode_mask_png` has it: our own are not trusted more than others."""
    good = box_mask(drawn(40, 30, 1, 0.9)).png()
    assert one_bit_rows(good, (40, 30)) is not None
    for place in range(len(good)):
        damaged = bytearray(good)
        damaged[place] ^= 0x11
        assert one_bit_rows(bytes(damaged), (40, 30)) is None
    for data in (good[:-1], good[:60], good + b"x", b""):
        assert one_bit_rows(data, (40, 30)) is None
    with pytest.raises(BadSample, match=r"mask0\.png is 40x30, its picture 30x40") as caught:
        decode_box_mask(good, "mask0.png", (30, 40))
    assert caught.value.reason == "mask_size"
    with pytest.raises(BadSample, match="not a picture"):
        decode_box_mask(b"nothing", "mask0.png", (30, 40))


@pytest.mark.parametrize("rows", [b"\0\x0f" * 3, b"\0\x0f", b"\0\x0f" * 100_000])
def test_more_or_fewer_rows_than_it_says(rows: bytes) -> None:
    header = struct.pack(">IIBBBBB", 8, 2, 1, 0, 0, 0, 0)
    assert one_bit_rows(png(rows, header), (8, 2)) is None
    assert one_bit_rows(png(b"", header, b"no zlib"), (8, 2)) is None
