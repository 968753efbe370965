"""The hint of three pictures, where objects are pasted in it, and references without an object."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pics_cli.core.conditioning.network_inputs import layer_painters, prepare_network_inputs
from pics_cli.core.conditioning.placement import fit_paste_boxes
from pics_cli.core.images.cutouts import cut_out, is_blank, paste_object
from pics_cli.core.images.geometry import Box, check_boxes, clip_box, scale_box
from pics_cli.core.model.config import HintKind

BOXES: list[Box] = [(4, 6, 30, 40), (20, 10, 44, 36)]


def flat(height: int, width: int, *colour: int) -> np.ndarray:
    return np.full((height, width, len(colour)), colour, np.uint8)


def noisy(height: int, width: int, seed: int = 0) -> np.ndarray:
    rgba = np.random.default_rng(seed).integers(0, 256, (height, width, 4), np.uint8)
    rgba[..., 3] = 255
    return rgba


def hint_of(kind: HintKind, references: list[np.ndarray], **options: Any) -> np.ndarray:
    background = noisy(48, 48, 9)[..., :3]
    return prepare_network_inputs(
        background, BOXES, references, size=32, reference_size=28, hint=kind, **options
    ).control_image


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
def test_nothing_is_pasted_of_white(kind: HintKind) -> None:
    """White all over is no object; one dark pixel makes it one."""
    white, other = flat(9, 9, 252, 255, 250), noisy(16, 20, 2)
    empty = hint_of(kind, [white, other])
    speck = white.copy()
    speck[4, 4] = 0
    assert is_blank(white)
    assert not is_blank(speck)
    assert not is_blank(flat(3, 3, 255, 255, 255, 255))
    seen = hint_of(kind, [speck, other])
    assert not np.array_equal(empty, seen)
    background = noisy(48, 48, 9)[..., :3]
    alone = prepare_network_inputs(background, BOXES[1:], [other], size=32, reference_size=28, hint=kind).control_image
    if kind != "collage":  # which fills the other box as well
        assert np.array_equal(empty, alone)


def test_places_are_where_objects_are_pasted_and_boxes_what_is_painted() -> None:
    background, red = flat(40, 40, 10, 20, 30), flat(8, 8, 255, 0, 0)
    found = prepare_network_inputs(
        background, [(0, 0, 20, 20)], [red], size=40, reference_size=28, hint="overlay", paste_boxes=[(5, 5, 15, 15)]
    )
    painted = (found.control_image == (255, 0, 0)).all(axis=2)
    assert np.argwhere(painted).min(axis=0).tolist() == [5, 5]
    assert np.argwhere(painted).max(axis=0).tolist() == [14, 14]
    assert found.masks[0].sum() == 400
    with pytest.raises(ValueError, match="1 boxes, but 2 paste boxes"):
        prepare_network_inputs(
            background, [(0, 0, 20, 20)], [red], size=40, hint="overlay", paste_boxes=[(5, 5, 15, 15)] * 2
        )
    with pytest.raises(ValueError, match="outside"):
        prepare_network_inputs(
            background, [(0, 0, 20, 20)], [red], size=40, hint="overlay", paste_boxes=[(35, 5, 45, 15)]
        )


def test_a_soft_rim_does_not_make_the_object_smaller() -> None:
    """What is half opaque or more spans the box."""
    rgba = flat(20, 20, 200, 0, 0, 60)
    rgba[5:15, 5:15, 3] = 255
    canvas = flat(30, 30, 0, 0, 255)
    paste_object(canvas, (10, 10, 20, 20), cut_out(rgba))
    assert (canvas[10:20, 10:20] == (200, 0, 0)).all()
    faint = flat(10, 10, 200, 0, 0, 100)  # nothing of it is solid: then all of it spans the box
    canvas = flat(30, 30, 0, 0, 0)
    paste_object(canvas, (10, 10, 20, 20), cut_out(faint))
    assert (canvas[10:20, 10:20, 0] > 70).all()
    assert not canvas[:10].any()


def test_painters_draw_what_the_hint_shows() -> None:
    """At the picture's own size; the hint is that, made smaller."""
    background, references = noisy(32, 32, 9)[..., :3], [noisy(20, 16, 1), noisy(16, 20, 2)]
    boxes: list[Box] = [(2, 3, 20, 28), (12, 6, 30, 24)]
    paste_boxes = [scale_box(box, 0.75) for box in boxes]
    drawn = []
    for paint in layer_painters(background, boxes, references, hint="layers", paste_boxes=paste_boxes):
        canvas = background.copy()
        paint(canvas)
        drawn.append(canvas)
    whole = prepare_network_inputs(
        background, boxes, references, size=32, reference_size=28, hint="layers", paste_boxes=paste_boxes
    )
    assert np.array_equal(np.concatenate(drawn, axis=2), whole.control_image)


@given(st.integers(-9, 9), st.integers(-9, 9), st.integers(1, 60), st.integers(1, 60), st.floats(0.5, 1.6))
def test_scaled(x: int, y: int, width: int, height: int, factor: float) -> None:
    x0, y0, x1, y1 = scale_box((x, y, x + width, y + height), factor)
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


@given(st.data(), st.integers(30, 120), st.integers(30, 120), st.sampled_from([0.75, 0.8]))
def test_a_region_cut_by_the_border_has_its_object_where_it_was(
    data: st.DataObject, width: int, height: int, fill: float
) -> None:
    """Training pastes into the middle of the whole region; inference knows what the picture left of it."""
    x0, y0 = data.draw(st.integers(0, width - 12)), data.draw(st.integers(0, height - 12))
    x1, y1 = data.draw(st.integers(x0 + 10, width)), data.draw(st.integers(y0 + 10, height))
    box = (x0, y0, x1, y1)
    region = clip_box(scale_box(box, 1 / fill), width, height)
    (found,) = fit_paste_boxes([region], [noisy(y1 - y0, x1 - x0)], fill, width, height)
    check_boxes([found], width, height)
    uncut = [region[0] > 0 and region[2] < width, region[1] > 0 and region[3] < height]
    one_sided = (region[0] == 0) + (region[2] == width) < 2 and (region[1] == 0) + (region[3] == height) < 2
    if any(uncut) and one_sided:
        slack = 2 + 0.04 * max(x1 - x0, y1 - y0)  # rounding of a small side tells the other one's length
        assert np.abs(np.subtract(found, box)).max() <= slack + 2 * max((x1 - x0) / (y1 - y0), (y1 - y0) / (x1 - x0))
    if all(uncut):
        assert found == scale_box(region, fill)


def test_a_region_at_the_border_that_is_large_enough_is_whole() -> None:
    tall = noisy(40, 10)
    assert fit_paste_boxes([(0, 20, 60, 60)], [tall], 0.75, 100, 100) == [scale_box((0, 20, 60, 60), 0.75)]
    assert fit_paste_boxes([(0, 20, 60, 60)], [tall], 1.0, 100, 100) == [(0, 20, 60, 60)]
    wide = noisy(10, 40)  # of which the left was cut off: 30 high, so 120 wide
    (cut,) = fit_paste_boxes([(0, 20, 100, 60)], [wide], 0.75, 400, 100)
    assert cut == (0, 25, 120, 55)
    white = flat(9, 9, 255, 255, 255)
    assert fit_paste_boxes([(0, 20, 60, 60)], [white], 0.75, 100, 100) == [scale_box((0, 20, 60, 60), 0.75)]


def test_swapped_objects_are_guessed_alike() -> None:
    references = [noisy(20, 16, 1), noisy(16, 20, 2)]
    background = noisy(48, 48, 9)[..., :3]
    one, other = (
        prepare_network_inputs(background, boxes, pictures, size=32, reference_size=28, hint="layers")
        for boxes, pictures in ((BOXES, references), (BOXES[::-1], references[::-1]))
    )
    assert np.array_equal(one.control_image, other.control_image)
    assert np.array_equal(one.masks, other.masks[::-1])
