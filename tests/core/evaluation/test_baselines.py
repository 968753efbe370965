"""Pasting is what hints show; Poisson blending keeps its place, also at the picture's border."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.composites import SIZE, outside, scene, thing
from pics_cli.core.conditioning.network_inputs import prepare_control_image
from pics_cli.core.evaluation.baselines import blend_poisson, paste_references, seamless_clone

PLACES = ((20, 16, 70, 66), (36, 30, 90, 88))
BOTH = [pytest.param(paste_references, id="paste_references"), pytest.param(blend_poisson, id="blend_poisson")]


def background() -> np.ndarray:
    return np.asarray(scene())


def references(alpha: bool = True) -> list[np.ndarray]:
    return [np.asarray(thing(k, alpha=alpha)) for k in (0, 1)]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("alpha", [True, False])
def test_a_collage_is_the_overlay_hint(order: tuple[int, int], alpha: bool) -> None:
    square = np.asarray(scene((120, 120)))
    hint = prepare_control_image(square, PLACES, references(alpha), size=120, hint="overlay", order=order)
    np.testing.assert_array_equal(paste_references(square, PLACES, references(alpha), order), hint)


@pytest.mark.parametrize("how", BOTH)
def test_only_the_places_change_and_order_counts(how) -> None:
    before = background()
    kept = before.copy()
    one, other = how(before, PLACES, references(), (0, 1)), how(before, PLACES, references(), (1, 0))
    np.testing.assert_array_equal(before, kept)
    for after in (one, other):
        assert not (after != before).any(2)[outside(PLACES)].any()
        assert (after != before).any(2)[~outside(PLACES)].mean() > 0.3
    # Both cover this pixel: the last is in front, red or blue.
    y, x = 48, 55
    assert other[y, x, 0] > other[y, x, 2]
    assert one[y, x, 2] > one[y, x, 0]


@pytest.mark.parametrize("how", BOTH)
@pytest.mark.parametrize("place", [(0, 0, 40, 60), (80, 36, 120, 96), (0, 0, *SIZE), (119, 0, 120, 96), (5, 5, 6, 6)])
def test_at_the_border_and_tiny(how, place: tuple[int, int, int, int]) -> None:
    before = background()
    after = how(before, [place], references()[:1], [0])
    assert after.shape == before.shape
    assert not (after != before).any(2)[outside([place])].any()
    assert (after != before).any()


@pytest.mark.parametrize("how", BOTH)
def test_no_object_and_no_place(how) -> None:
    white = np.full((20, 20, 3), 255, np.uint8)
    np.testing.assert_array_equal(how(background(), PLACES[:1], [white], [0]), background())
    with pytest.raises(ValueError, match="outside"):
        how(background(), [(0, 0, 121, 50)], references()[:1], [0])


@pytest.mark.parametrize("box", [(30, 20, 71, 60), (0, 0, 33, 96), (87, 50, 120, 96)])
def test_blending_a_picture_into_itself_changes_nothing(box: tuple[int, int, int, int]) -> None:
    """It would, if the mask were laid down a pixel beside its place."""
    before, mask = background(), ~outside([box])
    off = np.abs(seamless_clone(before, before, mask).astype(int) - before)
    assert off.max() <= 2
    moved = np.roll(before, 1, axis=1)
    assert np.abs(seamless_clone(moved, before, mask).astype(int) - before).max() > 5


def test_blending_takes_the_grounds_colour() -> None:
    """A flat object vanishes but for its outline: its gradients are all there is of it."""
    ground = np.full((60, 60, 3), 90, np.uint8)
    mask = np.zeros((60, 60), np.bool_)
    mask[20:40, 20:40] = True
    flat = np.full((60, 60, 3), 200, np.uint8)
    assert np.abs(seamless_clone(flat, ground, mask).astype(int) - ground).max() <= 2
