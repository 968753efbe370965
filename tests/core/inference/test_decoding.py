"""Masks of every kind, and every fault of one by name."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.composites import BOXES, SIZE, mask_of
from pics_cli.core.inference.decoding import mask_region
from pics_cli.errors import BadSample

BOX = BOXES[0]


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def with_alpha(colour: int, mode: str = "RGBA") -> Image.Image:
    image = Image.new("RGB" if mode == "RGBA" else "L", SIZE, (colour,) * 3 if mode == "RGBA" else colour)
    image.putalpha(mask_of(BOX, mode="L"))
    return image


def palette(colours: list[int]) -> Image.Image:
    image = Image.fromarray(np.asarray(mask_of(BOX, mode="L")) // 255, "L").convert("P")
    image.putpalette(colours)
    return image


def sixteen(high: int) -> Image.Image:
    return Image.fromarray((np.asarray(mask_of(BOX, mode="L")) > 0).astype(np.uint16) * high)


def coloured() -> Image.Image:
    empty = Image.new("L", SIZE)
    return Image.merge("RGB", [mask_of(BOX, mode="L"), empty, empty])


MASKS: dict[str, Callable[[], bytes]] = {
    "1 bit": lambda: encoded(mask_of(BOX)),
    "grey": lambda: encoded(mask_of(BOX, mode="L")),
    "rgb": lambda: encoded(mask_of(BOX, mode="RGB")),
    "red": lambda: encoded(coloured()),
    "rgba whose alpha varies": lambda: encoded(with_alpha(255)),
    "rgba, black": lambda: encoded(with_alpha(0)),
    "la": lambda: encoded(with_alpha(255, "LA")),
    "rgba, opaque": lambda: encoded(mask_of(BOX, mode="RGBA")),
    "palette": lambda: encoded(palette([0, 0, 0, 255, 255, 255])),
    "palette, label colours": lambda: encoded(palette([0, 0, 0, 128, 0, 0])),
    "palette, one colour transparent": lambda: encoded(palette([9, 9, 9, 9, 9, 9]), transparency=0),
    "16 bit": lambda: encoded(sixteen(65535)),
    "16 bit, 0 and 1": lambda: encoded(sixteen(1)),
    "0 and 1": lambda: encoded(Image.fromarray(np.asarray(mask_of(BOX, mode="L")) // 255)),
    "webp": lambda: encoded(mask_of(BOX, mode="RGB"), "WEBP", lossless=True),
}


@pytest.mark.parametrize("kind", MASKS)
def test_masks_of_every_kind(kind: str) -> None:
    assert mask_region(MASKS[kind](), "m.png", SIZE) == (BOX, None)


def test_ringing_of_a_jpeg_does_not_widen_a_region() -> None:
    data = encoded(mask_of(BOX, mode="L"), "JPEG", quality=20)
    values = np.asarray(Image.open(io.BytesIO(data)))
    ys, xs = np.nonzero(values)
    assert (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) != BOX, "no ringing: the test shows nothing"
    assert mask_region(data, "m.jpg", SIZE) == (BOX, None)


def test_a_mask_is_turned_as_its_picture_is() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = mask_of(BOX, mode="L").transpose(Image.Transpose.ROTATE_90)
    assert mask_region(encoded(stored, "JPEG", quality=95, exif=exif), "m.jpg", SIZE) == (BOX, None)


@pytest.mark.parametrize(
    ("data", "reason", "words"),
    [
        (encoded(mask_of(BOX, (50, 40))), "mask_size", "m.png is 50x40, its background 120x96"),
        (
            encoded(Image.new("L", SIZE)),
            "empty_mask",
            "m.png: no pixel is set (the highest value is 0, set is above 127)",
        ),
        (encoded(sixteen(255)), "empty_mask", "the highest value is 255, set is above 32767"),
        (encoded(mask_of(BOX))[:60], "bad_mask", "m.png: "),
        (b"", "bad_mask", "m.png: the file is empty"),
        (b"no picture", "bad_mask", "m.png: not a picture of a known kind"),
    ],
)
def test_bad_masks_are_named(data: bytes, reason: str, words: str) -> None:
    with pytest.raises(BadSample) as caught:
        mask_region(data, "m.png", SIZE)
    assert caught.value.reason == reason
    assert words in caught.value.detail
