"""The window of a picture that the network sees."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pics_cli.core.conditioning.placement import choose_window, grow_regions, region_fade, to_window
from pics_cli.core.images.geometry import Box


@st.composite
def scenes(draw: st.DrawFn, largest: int) -> tuple[int, int, list[Box]]:
    width, height = draw(st.integers(1, largest)), draw(st.integers(1, largest))
    boxes = []
    for _ in range(draw(st.integers(1, 3))):
        x0, y0 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
        boxes.append((x0, y0, draw(st.integers(x0 + 1, width)), draw(st.integers(y0 + 1, height))))
    return width, height, boxes


@given(scenes(6000), st.sampled_from([64, 256, 512]))
@settings(max_examples=300, deadline=None)
def test_window_holds_every_box_with_context(scene: tuple[int, int, list[Box]], size: int) -> None:
    width, height, boxes = scene
    x0, y0, x1, y1 = choose_window(boxes, width, height, "auto", size)
    assert 0 <= x0 < x1 <= width
    assert 0 <= y0 < y1 <= height
    assert all(x0 <= a and y0 <= b and c <= x1 and d <= y1 for a, b, c, d in boxes)
    longer = max(
        max(b[2] for b in boxes) - min(b[0] for b in boxes), max(b[3] for b in boxes) - min(b[1] for b in boxes)
    )
    for side, whole in ((x1 - x0, width), (y1 - y0, height)):
        assert side == whole or side >= 1.5 * longer
        assert side >= min(size // 2, width, height)
    assert x1 - x0 == y1 - y0 or x1 - x0 == width or y1 - y0 == height
    assert choose_window(boxes, width, height, "full", size) == (0, 0, width, height)


@pytest.mark.parametrize(
    ("boxes", "width", "height", "expected"),
    [
        ([(1000, 900, 1200, 1300)], 4000, 3000, (800, 800, 1400, 1400)),  # 1.5 x 400, in the middle
        ([(0, 0, 300, 400)], 4000, 3000, (0, 0, 600, 600)),  # moved inside
        ([(3900, 2900, 4000, 3000)], 4000, 3000, (3744, 2744, 4000, 3000)),  # half of S, not 150
        ([(2000, 1500, 2300, 1800)], 4000, 3000, (1894, 1394, 2406, 1906)),  # 450 is nearly S
        ([(100, 300, 900, 700)], 3000, 1000, (0, 0, 1200, 1000)),  # ends with the picture
        ([(0, 0, 600, 600)], 1000, 800, (0, 0, 1000, 800)),  # nearly all of it
        ([(10, 10, 20, 20)], 300, 100, (0, 0, 100, 100)),  # no smaller picture is enlarged for a tiny box
        ([(0, 0, 1, 1)], 1, 1, (0, 0, 1, 1)),
    ],
)
def test_windows(boxes: list[Box], width: int, height: int, expected: Box) -> None:
    assert choose_window(boxes, width, height, "auto", 512) == expected


def test_window_refuses() -> None:
    with pytest.raises(ValueError, match="no boxes"):
        choose_window([], 10, 10, "auto", 64)
    with pytest.raises(ValueError, match="reaches outside"):
        choose_window([(0, 0, 11, 5)], 10, 10, "full", 64)
    with pytest.raises(ValueError, match="crop 'square' is none of auto, full"):
        choose_window([(0, 0, 5, 5)], 10, 10, "square", 64)  # type: ignore[arg-type]


def test_boxes_move_with_their_window() -> None:
    assert to_window([(10, 20, 30, 40), (5, 5, 6, 6)], (5, 4, 50, 60)) == [(5, 16, 25, 36), (0, 1, 1, 2)]


def test_fade_is_one_where_objects_are_pasted_and_nothing_at_borders() -> None:
    fade = region_fade([(20, 30, 60, 110)], (0, 0, 100, 120), 120, 100, 0.125)
    assert (fade[40:100, 25:55] == 1).all()
    outside = np.ones_like(fade, dtype=bool)
    outside[30:110, 20:60] = False
    assert not fade[outside].any()
    assert 0 < fade[31:109, [20, 59]].max() < 0.04
    rising = fade[70, 20:26]
    assert (np.diff(rising) > 0).all()


def test_fade_knows_no_border_where_the_picture_ends() -> None:
    fade = region_fade([(0, 60, 40, 100)], (0, 0, 80, 100), 100, 80, 0.25)
    assert fade[99, 0] == 1
    assert fade[60, 20] < 0.05
    assert fade[80, 39] < 0.05


def test_fade_of_regions_that_overlap_is_the_larger() -> None:
    boxes = [(10, 10, 50, 50), (30, 20, 90, 80)]
    both = region_fade(boxes, (0, 0, 100, 100), 100, 100, 0.1)
    one, other = (region_fade([box], (0, 0, 100, 100), 100, 100, 0.1) for box in boxes)
    np.testing.assert_array_equal(both, np.maximum(one, other))
    assert not region_fade([(5, 5, 5, 9)], (0, 0, 10, 10), 10, 10, 0.1).any()


def test_regions_grow_inside_the_picture() -> None:
    assert grow_regions([(10, 20, 30, 60), (0, 0, 40, 40)], 0.5, 100, 70) == [(5, 10, 35, 70), (0, 0, 50, 50)]
    assert grow_regions([(10, 20, 30, 60)], 0, 100, 70) == [(10, 20, 30, 60)]
