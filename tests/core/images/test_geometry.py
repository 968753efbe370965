"""The square that a network sees of a picture, against a pixel by pixel reckoning."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pics_cli.core.images.geometry import Box, Letterbox, check_boxes

SIDES = st.integers(1, 70)
SIZES = st.sampled_from([8, 16, 31, 64])


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def plain_letterbox(picture: np.ndarray, size: int, fill: int) -> np.ndarray:
    """Every pixel from its four neighbours in the padded square, in float64."""
    height, width = picture.shape[:2]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2

    def at(y: int, x: int) -> np.ndarray:
        y, x = min(max(y, 0), side - 1), min(max(x, 0), side - 1)
        inside = top <= y < top + height and left <= x < left + width
        return picture[y - top, x - left].astype(float) if inside else np.full(3, float(fill))

    out = np.zeros((size, size, 3))
    for i in range(size):
        for j in range(size):
            y, x = (i + 0.5) * side / size - 0.5, (j + 0.5) * side / size - 0.5
            a, b = int(np.floor(y)), int(np.floor(x))
            v, u = y - a, x - b
            out[i, j] = (1 - v) * ((1 - u) * at(a, b) + u * at(a, b + 1))
            out[i, j] += v * ((1 - u) * at(a + 1, b) + u * at(a + 1, b + 1))
    return out


@pytest.mark.parametrize(("height", "width", "size"), [(9, 20, 16), (31, 12, 8), (7, 7, 7), (5, 3, 21), (40, 41, 16)])
@pytest.mark.parametrize("fill", [0, 255])
def test_forward_is_padding_then_bilinear(height: int, width: int, size: int, fill: int) -> None:
    picture = noise(height, width)
    ours = Letterbox(width, height, size).forward(picture, fill)
    assert ours.dtype == np.uint8
    assert np.abs(ours - plain_letterbox(picture, size, fill)).max() <= 1


def test_shrinks_by_area_where_asked() -> None:
    picture = noise(32, 32)
    ours = Letterbox(32, 32, 8).forward(picture, antialias=True)
    assert np.abs(ours - picture.reshape(8, 4, 8, 4, 3).mean(axis=(1, 3))).max() <= 0.5
    larger = Letterbox(32, 32, 64)
    np.testing.assert_array_equal(larger.forward(picture, antialias=True), larger.forward(picture))


@given(SIDES, SIDES, SIZES, st.data())
@settings(max_examples=200, deadline=None)
def test_box_is_what_nearest_resampling_shows(width: int, height: int, size: int, data: st.DataObject) -> None:
    """As published: the mask is drawn on the picture, padded and resized with OpenCV's nearest neighbour."""
    x0, y0 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    box = (x0, y0, data.draw(st.integers(x0 + 1, width)), data.draw(st.integers(y0 + 1, height)))
    check_same_mask(width, height, size, box)


@pytest.mark.parametrize("side", [511, 513, 640, 1023, 1333, 1537, 2048, 4001, 5712])
def test_box_of_large_pictures(side: int) -> None:
    """Where i * side / S is a whole number or all but, the floating point must be OpenCV's."""
    for x0 in (1, side // 7, side // 3, side // 2, side - 9):
        check_same_mask(side, 40, 512, (x0, 3, min(x0 + 37, side), 40))


def check_same_mask(width: int, height: int, size: int, box: Box) -> None:
    side = max(width, height)
    mask = np.zeros((height, width), np.uint8)
    mask[box[1] : box[3], box[0] : box[2]] = 1
    top, left = (side - height) // 2, (side - width) // 2
    padded = np.pad(mask, ((top, side - height - top), (left, side - width - left)))
    theirs = cv2.resize(padded, (size, size), interpolation=cv2.INTER_NEAREST)
    ours = np.zeros((size, size), np.uint8)
    x0, y0, x1, y1 = Letterbox(width, height, size).forward_box(box)
    assert x0 <= x1
    assert y0 <= y1
    ours[y0:y1, x0:x1] = 1
    np.testing.assert_array_equal(ours, theirs)


@given(SIDES, SIDES)
@settings(max_examples=60, deadline=None)
def test_inverse_undoes_forward_at_the_same_size(width: int, height: int) -> None:
    picture = noise(height, width)
    letterbox = Letterbox(width, height, max(width, height))
    np.testing.assert_array_equal(letterbox.inverse(letterbox.forward(picture)), picture)


@given(st.integers(12, 90), st.integers(12, 90), SIZES)
@settings(max_examples=100, deadline=None)
def test_inverse_brings_no_padding_along(width: int, height: int, size: int) -> None:
    # A strip thinner than two pixels of the square may have none of them to itself.
    assume(min(width, height) * size >= 2 * max(width, height))
    picture = np.full((height, width, 3), (200, 90, 255), np.uint8)
    letterbox = Letterbox(width, height, size)
    back = letterbox.inverse(letterbox.forward(picture))
    assert back.shape == picture.shape
    np.testing.assert_array_equal(back, picture)


@pytest.mark.parametrize(("width", "height", "size"), [(300, 180, 128), (97, 200, 256), (150, 150, 512)])
def test_inverse_of_a_smooth_picture_stays_in_place(width: int, height: int, size: int) -> None:
    """A shift by half a pixel would show as 0.4 and more in the mean."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    picture = np.stack([x * 250 / width, y * 250 / height, 0 * x + 60], axis=2).round().astype(np.uint8)
    letterbox = Letterbox(width, height, size)
    back = letterbox.inverse(letterbox.forward(picture)).astype(int)
    assert np.abs(back - picture)[4:-4, 4:-4].max() <= 2
    assert np.abs(np.mean(back - picture, axis=(0, 1))).max() < 0.2


@pytest.mark.parametrize(("width", "height"), [(5000, 1), (3, 3000), (1, 1)])
def test_thinnest_pictures(width: int, height: int) -> None:
    letterbox = Letterbox(width, height, 64)
    assert letterbox.inverse(letterbox.forward(noise(height, width))).shape == (height, width, 3)


@pytest.mark.parametrize(
    ("boxes", "text"),
    [
        ([], "no boxes: at least one object is needed"),
        ([(1, 1, 4, 4), (3, 2, 3, 9)], r"box 1 \(3, 2, 3, 9\) is empty"),
        ([(5, 5, 4, 9)], r"box 0 \(5, 5, 4, 9\) is empty"),
        ([(-1, 0, 4, 4)], r"box 0 \(-1, 0, 4, 4\) reaches outside the picture, which is 20x10"),
        ([(0, 0, 20, 11)], "reaches outside"),
    ],
)
def test_boxes_that_cannot_be(boxes: list[Box], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        check_boxes(boxes, 20, 10)
    check_boxes([(0, 0, 20, 10)], 20, 10)
