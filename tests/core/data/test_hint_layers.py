"""The hint of three pictures, where objects are pasted in it, and references without an object."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pics_cli.core.data.compose import compose, painters, places_in
from pics_cli.core.data.cutouts import cut_out, is_empty, paste
from pics_cli.core.geometry import Box, check_boxes, clip_box, scaled

BOXES: list[Box] = [(4, 6, 30, 40), (20, 10, 44, 36)]


def flat(height: int, width: int, *colour: int) -> np.ndarray:
    return np.full((height, width, len(colour)), colour, np.uint8)


def noisy(height: int, width: int, seed: int = 0) -> np.ndarray:
    rgba = np.random.default_rng(seed).integers(0, 256, (height, width, 4), np.uint8)
    rgba[..., 3] = 255
    return rgba


def hint_of(kind: str, references: list[np.ndarray], **options: Any) -> np.ndarray:
    background = noisy(48, 48, 9)[..., :3]
    return compose(background, BOXES, references, size=32, reference_size=28, hint=kind, **options).hint_rgb


def test_layers_are_both_orders_and_the_background() -> None:
    references = [noisy(20, 16, 1), noisy(16, 20, 2)]
    found = hint_of("layers", references)
    assert found.shape == (32, 32, 9)
    # Box 0 reaches lower, so it is pasted last.
    assert np.array_equal(found[..., :3], hint_of("overlay", references, order=(1, 0)))
    assert np.array_equal(found[..., 3:6], hint_of("overlay", references, order=(0, 1)))
    assert not np.array_equal(found[..., :3], found[..., 3:6])
    assert np.array_equal(found[..., 6:], hint_of("overlay", [flat(4, 4, 255, 255, 255)] * 2))


def test_a_known_order_leaves_no_choice() -> None:
    references = [noisy(20, 16, 1), noisy(16, 20, 2)]
    found = hint_of("layers", references, order=(0, 1))
    assert np.array_equal(found[..., :3], found[..., 3:6])
    assert np.array_equal(found[..., :3], hint_of("overlay", references, order=(0, 1)))


@pytest.mark.parametrize("kind", ["overlay", "collage", "layers"])
def test_nothing_is_pasted_of_white(kind: str) -> None:
    """White all over is no object; one dark pixel makes it one."""
    white, other = flat(9, 9, 252, 255, 250), noisy(16, 20, 2)
    empty = hint_of(kind, [white, other])
    speck = white.copy()
    speck[4, 4] = 0
    assert is_empty(white)
    assert not is_empty(speck)
    assert not is_empty(flat(3, 3, 255, 255, 255, 255))
    seen = hint_of(kind, [speck, other])
    assert not np.array_equal(empty, seen)
    background = noisy(48, 48, 9)[..., :3]
    alone = compose(background, BOXES[1:], [other], size=32, reference_size=28, hint=kind).hint_rgb
    if kind != "collage":  # which fills the other box as well
        assert np.array_equal(empty, alone)


def test_places_are_where_objects_are_pasted_and_boxes_what_is_painted() -> None:
    background, red = flat(40, 40, 10, 20, 30), flat(8, 8, 255, 0, 0)
    found = compose(
        background, [(0, 0, 20, 20)], [red], size=40, reference_size=28, hint="overlay", places=[(5, 5, 15, 15)]
    )
    painted = (found.hint_rgb == (255, 0, 0)).all(axis=2)
    assert np.argwhere(painted).min(axis=0).tolist() == [5, 5]
    assert np.argwhere(painted).max(axis=0).tolist() == [14, 14]
    assert found.masks[0].sum() == 400
    with pytest.raises(ValueError, match="1 boxes, but 2 places"):
        compose(background, [(0, 0, 20, 20)], [red], size=40, hint="overlay", places=[(5, 5, 15, 15)] * 2)
    with pytest.raises(ValueError, match="outside"):
        compose(background, [(0, 0, 20, 20)], [red], size=40, hint="overlay", places=[(35, 5, 45, 15)])


def test_a_soft_rim_does_not_make_the_object_smaller() -> None:
    """What is half opaque or more spans the box."""
    rgba = flat(20, 20, 200, 0, 0, 60)
    rgba[5:15, 5:15, 3] = 255
    canvas = flat(30, 30, 0, 0, 255)
    paste(canvas, (10, 10, 20, 20), cut_out(rgba))
    assert (canvas[10:20, 10:20] == (200, 0, 0)).all()
    faint = flat(10, 10, 200, 0, 0, 100)  # nothing of it is solid: then all of it spans the box
    canvas = flat(30, 30, 0, 0, 0)
    paste(canvas, (10, 10, 20, 20), cut_out(faint))
    assert (canvas[10:20, 10:20, 0] > 70).all()
    assert not canvas[:10].any()


def test_painters_draw_what_the_hint_shows() -> None:
    """At the picture's own size; the hint is that, made smaller."""
    background, references = noisy(32, 32, 9)[..., :3], [noisy(20, 16, 1), noisy(16, 20, 2)]
    boxes: list[Box] = [(2, 3, 20, 28), (12, 6, 30, 24)]
    places = places_in(boxes, 0.75)
    drawn = []
    for paint in painters(background, boxes, references, hint="layers", places=places):
        canvas = background.copy()
        paint(canvas)
        drawn.append(canvas)
    whole = compose(background, boxes, references, size=32, reference_size=28, hint="layers", places=places)
    assert np.array_equal(np.concatenate(drawn, axis=2), whole.hint_rgb)


@given(st.integers(-9, 9), st.integers(-9, 9), st.integers(1, 60), st.integers(1, 60), st.floats(0.5, 1.6))
def test_scaled(x: int, y: int, width: int, height: int, factor: float) -> None:
    x0, y0, x1, y1 = scaled((x, y, x + width, y + height), factor)
    assert (x0 + x1, y0 + y1) == (2 * x + width, 2 * y + height)
    assert x1 > x0
    assert y1 > y0
    assert abs((x1 - x0) - width * factor) <= 1 or x1 - x0 <= 2
    if factor <= 1:
        check_boxes([(x0 + 9, y0 + 9, x1 + 9, y1 + 9)], 90, 90)
        assert x <= x0 < x1 <= x + width


def test_clip_box() -> None:
    assert clip_box((-3, 2, 50, 9), 40, 8) == (0, 2, 40, 8)
    assert clip_box((1, 2, 5, 6), 40, 8) == (1, 2, 5, 6)
