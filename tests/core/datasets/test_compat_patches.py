"""`compat: true` cuts patches and boxes as the research code does, worked out by hand for every padding."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from helpers.compat_making import RGB, Read, assert_masks, block, build, square, write_lvis
from helpers.making import annotation, rectangle, smooth
from helpers.street import bdd_label, thing, write_bdd, write_cityscapes, write_vistas

BLUE, RED = (10, 40, 200), (220, 20, 20)


def canvas(side: int) -> RGB:
    return np.full((side, side, 3), 255, np.uint8)


def resized(image: RGB) -> RGB:
    return cv2.resize(image, (224, 224), interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)


# --- D7: the last row and column are cut off --------------------------------------------------------------------------

# A car of 10 x 4 pixels, blue but for its last row and column: 9 x 3 = 27 of its 40 pixels are in the patch.
FLAT = {1.1: (9, 3, 0), 1.2: (10, 3, 0), 1.3: (11, 4, 1), 1.4: (12, 4, 1)}  # padding: side of the square, top, left


def cut_off(tmp_path: Path, compat: bool) -> Read:
    rgb = smooth(40, 40)
    rgb[5:9, 5:15] = RED
    rgb[5:8, 5:14] = BLUE
    objects = [thing("car", square(5, 5, 14, 8)), thing("car", square(12, 7, 30, 30))]
    raw = write_cityscapes(tmp_path, {"a_000001_000019": (rgb, objects)})
    (found,) = build("cityscapes", raw, 0.01, compat=compat).values()
    return found


def test_d7_patch_lacks_the_last_row_and_column(tmp_path: Path) -> None:
    found = cut_off(tmp_path, compat=True)
    assert_masks(found, block(40, 40, 5, 5, 15, 9), block(40, 40, 12, 7, 31, 31))
    assert found.crops[0] == [5, 5, 14, 8]
    side, top, left = FLAT[found.paddings[0]]
    expected = canvas(side)
    expected[top : top + 3, left : left + 9] = BLUE
    assert np.array_equal(found.patches[0], resized(expected))


def test_d7_is_mended_without_compat(tmp_path: Path) -> None:
    found = cut_off(tmp_path, compat=False)
    assert found.crops[0] == [5, 5, 15, 9]


@pytest.mark.parametrize("second", [29, 28])
@pytest.mark.parametrize("recipe", ["cityscapes", "bdd100k", "mapillary_vistas"])
def test_d7_boxes_end_at_their_last_pixel(recipe: str, second: int, tmp_path: Path) -> None:
    # Pixels 10 to 29 and 29 to 49 share a column, boxes from 10 to 29 and from 29 to 49 none.
    rgb, masks = smooth(64, 96), (block(64, 96, 10, 10, 30, 30), block(64, 96, second, 15, 50, 40))
    if recipe == "cityscapes":
        objects = [thing("car", square(10, 10, 29, 29)), thing("car", square(second, 15, 49, 39))]
        raw = write_cityscapes(tmp_path, {"a_000001_000019": (rgb, objects)})
    elif recipe == "bdd100k":
        frame = {"name": "a.jpg", "labels": [bdd_label(str(i), mask) for i, mask in enumerate(masks)]}
        raw = write_bdd(tmp_path, [frame], {"a": rgb})
    else:
        labels, numbers = np.full((64, 96), 21), np.zeros((64, 96), int)
        labels[masks[0]], labels[masks[1]], numbers[masks[1]], numbers[0, 0] = 108, 108, 1, 2
        raw = write_vistas(tmp_path, {"a": (rgb, labels, numbers)})
    assert len(build(recipe, raw)) == (second == 28)
    if recipe != "cityscapes":  # there the second hides what they share
        assert len(build(recipe, raw, compat=False)) == 1


# --- D8: tiny and thin masks ------------------------------------------------------------------------------------------

# Grey picture of 40 x 40 and masks of 9 and of 10 pixels whose annotations claim more: of the first the patch is the
# whole picture, 40 a side; of the second, 2 x 5 pixels, it is 1 x 4.
WHOLE = {1.1: (44, 2), 1.2: (48, 4), 1.3: (52, 6), 1.4: (56, 8)}  # padding: side, top and left
THIN = {1.1: (4, 0, 1), 1.2: (4, 0, 1), 1.3: (5, 0, 2), 1.4: (5, 0, 2)}  # padding: side, top, left


def odd_mask(tmp_path: Path, *box: int) -> Read | None:
    """Sample of an object whose mask is the box, and another one; None where there is none."""
    grey = np.full((40, 40, 3), 96, np.uint8)
    entries = [annotation(1, (8, 8, 24, 24), [rectangle(*box)]), annotation(1, (20, 20, 36, 36))]
    raw = write_lvis(tmp_path, {1: (grey, entries)})
    found = build("lvis", raw).get("000000000001")
    if found:
        assert_masks(found, block(40, 40, *box), block(40, 40, 20, 20, 36, 36))
    return found


def test_d8_nine_pixels_give_the_whole_picture(tmp_path: Path) -> None:
    found = odd_mask(tmp_path, 10, 10, 13, 13)
    assert found
    side, at = WHOLE[found.paddings[0]]
    expected = canvas(side)
    expected[at + 10 : at + 13, at + 10 : at + 13] = 96
    assert np.array_equal(found.patches[0], resized(expected))


def test_d8_ten_pixels_are_cropped(tmp_path: Path) -> None:
    found = odd_mask(tmp_path, 10, 10, 12, 15)
    assert found
    side, top, left = THIN[found.paddings[0]]
    expected = canvas(side)
    expected[top : top + 4, left] = 96
    assert np.array_equal(found.patches[0], resized(expected))


@pytest.mark.parametrize("box", [(10, 10, 11, 24), (10, 10, 24, 11)])
def test_d8_thin_masks_give_a_white_patch(tmp_path: Path, box: tuple[int, int, int, int]) -> None:
    found = odd_mask(tmp_path, *box)
    assert found
    assert (found.patches[0] == 255).all()
    assert (found.patches[1] != 255).any()


def test_empty_masks_and_masks_of_the_whole_frame_are_refused_all_the_same(tmp_path: Path) -> None:
    assert odd_mask(tmp_path / "whole", 0, 0, 40, 40) is None
    assert odd_mask(tmp_path / "empty", 50, 50, 60, 60) is None
