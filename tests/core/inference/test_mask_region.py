"""Regions of masks, and what of a mask is told."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from pics_cli.core.inference.decoding import mask_region
from pics_cli.core.inference.mask_region import MaskRegion, RegionRule, find_kept, find_region
from pics_cli.errors import BadSample

HEIGHT, WIDTH = 60, 80
BOX = (20, 10, 50, 40)
WHOLE = (0, 0, WIDTH, HEIGHT)


def mask(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    """uint8 [H, W], 255 in the boxes."""
    values = np.zeros((HEIGHT, WIDTH), np.uint8)
    for x0, y0, x1, y1 in boxes or (BOX,):
        values[y0:y1, x0:x1] = 255
    return values


def read(values: np.ndarray, rule: RegionRule = "box") -> MaskRegion:
    """The region of a PNG of these values."""
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    return mask_region(file.getvalue(), "m.png", (WIDTH, HEIGHT), rule)


def rgba(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return np.dstack([colours, colours, colours, alpha])


def test_a_stray_pixel() -> None:
    values = mask(BOX, (75, 55, 76, 56))
    found = read(values)
    assert found.box == (20, 10, 76, 56)
    assert found.note == (
        "m.png: its region is 56x46 at 20,10, of which 35.0% is set, in 2 parts; the largest, 30x30 at 20,10, has "
        "99.9% of the set pixels (region: component takes it alone)"
    )
    box, note = read(values, "component")
    assert box == BOX
    assert note is not None
    assert note.endswith("100.0% is set; other parts, with 0.1% of the set pixels, are left out")


@pytest.mark.parametrize("rule", ["box", "component"])
def test_an_inverted_mask(rule: RegionRule) -> None:
    """As grey, as a palette with a black object, and as a hole in alpha."""
    inverted = 255 - mask()
    palette = Image.fromarray(inverted // 255, "L").convert("P")
    palette.putpalette([0, 0, 0, 255, 255, 255])
    file = io.BytesIO()
    palette.save(file, "PNG")
    regions = [read(inverted, rule), mask_region(file.getvalue(), "m.png", (WIDTH, HEIGHT), rule)]
    regions.append(read(rgba(np.full_like(inverted, 255), inverted), rule))
    for box, note in regions:
        assert box == WHOLE
        assert note == (
            "m.png: its region is 80x60 at 0,0, the whole picture, of which 81.2% is set; what is not set is 30x30 at "
            "20,10: is the mask inverted?"
        )


def test_the_channel_that_varies() -> None:
    """Alpha that is not quite opaque somewhere is no mask; where both vary, alpha is."""
    alpha = np.full((HEIGHT, WIDTH), 255, np.uint8)
    alpha[3, 3] = 254
    assert read(rgba(mask(), alpha)) == (BOX, None)
    assert read(rgba(np.full_like(alpha, 255), mask())) == (BOX, None)
    assert read(rgba(255 - mask((0, 0, 9, 9)), mask())) == (BOX, None)
    with pytest.raises(BadSample, match="the highest value is 100, set is above 127"):
        read(rgba(np.full_like(alpha, 255), mask() // 255 * 100))


def test_sparse_and_full_masks() -> None:
    line = np.zeros((HEIGHT, WIDTH), np.uint8)
    for at in range(50):
        line[at, at] = 255
    box, note = read(line)
    assert (box, note) == ((0, 0, 50, 50), "m.png: its region is 50x50 at 0,0, of which 2.0% is set")
    box, note = read(mask(WHOLE))
    assert (box, note) == (WHOLE, "m.png: its region is 80x60 at 0,0, the whole picture, of which 100.0% is set")


@pytest.mark.parametrize("values", [mask(), mask(BOX, (30, 42, 45, 46)), np.roll(mask(), 5, 1)])
def test_nothing_is_said_of_ordinary_masks(values: np.ndarray) -> None:
    """One part, or a small one beside it; the box is that of the set pixels."""
    found = read(values)
    ys, xs = np.nonzero(values)
    assert found == ((xs.min(), ys.min(), xs.max() + 1, ys.max() + 1), None)


def test_the_largest_part_is_that_of_most_pixels() -> None:
    """Not the one of the largest box; parts that touch by a corner are one."""
    ring = mask((0, 0, 40, 40))
    ring[1:39, 1:39] = 0
    ring[45:55, 50:75] = 255
    assert find_region(ring, "m", "component").box == (50, 45, 75, 55)
    assert find_region(mask((0, 0, 9, 9), (9, 9, 12, 12)), "m", "component").box == (0, 0, 12, 12)


def test_what_a_mask_keeps() -> None:
    values = mask((0, 0, 30, 60))
    kept, note = find_kept(values, "keep.png", [BOX])
    np.testing.assert_array_equal(kept, values > 0)
    assert note is None
    _, note = find_kept(values, "keep.png", [BOX, (2, 2, 32, 30)])
    assert note == "keep.png: keeps 93% of the region of object 1: is the mask inverted?"
    _, note = find_kept(values, "keep.png", [(40, 0, 50, 9)])
    assert note == "keep.png: keeps nothing of any region: the picture is as it would be without it"


@pytest.mark.parametrize(
    ("values", "reason", "text"),
    [
        (mask(WHOLE), "full_mask", "keep.png: keeps the whole picture, so that nothing can be put in"),
        (mask(BOX), "full_mask", "keep.png: keeps all of every region, so that nothing can be put in"),
        (mask() * 0, "empty_mask", "keep.png: no pixel is set (the highest value is 0, set is above 127)"),
    ],
)
def test_masks_that_keep_nothing_or_all(values: np.ndarray, reason: str, text: str) -> None:
    with pytest.raises(BadSample) as caught:
        find_kept(values, "keep.png", [BOX])
    assert caught.value.reason == reason
    assert text in caught.value.detail
