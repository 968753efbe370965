"""Objects get the blur and grain that they lack."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from helpers.dirt import GREY, edges, grainy, ramp, rng
from pics_cli.core.images.cutouts import paste_object
from pics_cli.core.images.geometry import Box
from pics_cli.core.images.grain import Grain, measure_grain
from pics_cli.core.images.sharpness import measure_blur
from pics_cli.core.inference.match import (
    Match,
    MatchedObjects,
    PastedObject,
    Surroundings,
    apply_match,
    find_match,
    measure_surroundings,
)

BOX: Box = (30, 20, 230, 180)


def disc(colour: np.ndarray) -> PastedObject:
    """A round object of a picture's colours, in the box at the canvas's corner."""
    height, width = colour.shape[:2]
    alpha = np.zeros((height, width), np.float32)
    cv2.circle(alpha, (width // 2, height // 2), min(height, width) // 2 - 1, 1.0, -1)
    return PastedObject((0, 0, width, height), colour.astype(np.float32), alpha)


def test_large_windows_are_measured_in_parts() -> None:
    found = measure_surroundings(grainy(4, height=1000, width=1300))
    assert found.grain is not None
    assert found.grain.deviation == pytest.approx(4, rel=0.05)
    assert found.blur is None


def test_a_clean_object_gets_the_grain_it_lacks() -> None:
    surroundings = Surroundings(None, Grain(GREY * 25, 0.7))
    match = find_match(disc(ramp(160, 200)), surroundings)
    assert match.blur == 0
    assert match.grain is not None
    assert match.grain.deviation == pytest.approx(5, rel=0.02)
    given = apply_match(disc(ramp(160, 200)), match, rng())
    found = measure_grain([(given.colour, given.alpha > 0)], 8)
    assert found is not None
    assert found.deviation == pytest.approx(5, rel=0.1)
    partly = find_match(disc(grainy(2, 0.7, height=160, width=200)), surroundings)
    assert partly.grain is not None
    assert partly.grain.deviation == pytest.approx(np.sqrt(21), rel=0.1)


def test_a_sharp_object_gets_the_blur_it_lacks() -> None:
    match = find_match(disc(edges(0.8, 200)), Surroundings(2.5, None))
    assert match.grain is None
    assert match.blur == pytest.approx(np.sqrt(2.5**2 - 0.8**2), rel=0.05)
    given = apply_match(disc(edges(0.8, 200)), match, rng())
    inside = cv2.erode(np.where(given.alpha > 0.98, 255, 0).astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    assert measure_blur([(given.colour, inside)], 0.5) == pytest.approx(2.5, rel=0.1)
    assert (given.alpha <= disc(edges(0.8, 200)).alpha).all()


@pytest.mark.parametrize(
    ("own", "surroundings"),
    [
        (edges(2.0, 200), Surroundings(2.2, None)),  # as blurred, within the tolerance
        (edges(3.0, 200), Surroundings(1.5, None)),  # more: never sharpened
        (edges(0.5, 200), Surroundings(0.9, None)),  # nobody sees it
        (edges(0.5, 200), Surroundings(None, None)),  # not measured
        (ramp(160, 200), Surroundings(3.0, None)),  # no edges of its own
        (grainy(5, height=160, width=200), Surroundings(None, Grain(GREY * 36, 0))),
        (grainy(9, height=160, width=200), Surroundings(None, Grain(GREY * 16, 0))),  # more: never cleaned
        (ramp(160, 200), Surroundings(None, Grain(GREY * 0.64, 0))),
    ],
)
def test_nothing_within_the_tolerance(own: np.ndarray, surroundings: Surroundings) -> None:
    match = find_match(disc(own), surroundings)
    assert match == Match()
    assert not match
    same = apply_match(disc(own), match, rng())
    np.testing.assert_array_equal(same.colour, own.astype(np.float32))


def cutout() -> np.ndarray:
    picture = np.zeros((150, 150, 4), np.uint8)
    cv2.circle(picture, (75, 75), 70, (180, 120, 60, 255), -1)
    return picture


def test_objects_are_pasted_with_what_they_lack_and_nowhere_else() -> None:
    window = grainy(6)
    matched = MatchedObjects(window, 400, 300, [BOX, BOX], [cutout(), None])
    assert [bool(match) for match in matched.matches] == [True, False]
    plain = window.copy()
    pasted = PastedObject.of(400, 300, BOX, cutout())
    assert pasted is not None
    pasted.paint(plain)
    first, again, other = window.copy(), window.copy(), window.copy()
    for canvas, candidate in ((first, 0), (again, 0), (other, 1)):
        paint, nothing = matched.painters(5, "name", candidate)
        assert nothing is None
        assert paint is not None
        paint(canvas)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    x0, y0, x1, y1 = pasted.box
    outside = np.ones((300, 400), np.bool_)
    outside[y0:y1, x0:x1] = pasted.alpha == 0
    np.testing.assert_array_equal(first[outside], window[outside])
    inside = ~outside
    assert np.std(first[inside].astype(float) - plain[inside]) == pytest.approx(6, rel=0.1)


def test_on_a_clean_sharp_background_objects_are_pasted_as_they_are() -> None:
    matched = MatchedObjects(edges(0), 400, 400, [BOX], [cutout()])
    assert matched.painters(0, "name", 0) == [None]


def test_a_pasted_object_is_the_one_that_is_pasted() -> None:
    """Without anything to match, its painting is that of `paste_object`, within rounding."""
    soft = cutout()
    soft[..., 3] = cv2.GaussianBlur(soft[..., 3], (0, 0), 3)
    theirs, ours = edges(1), edges(1)
    paste_object(theirs, BOX, soft)
    pasted = PastedObject.of(400, 400, BOX, soft)
    assert pasted is not None
    pasted.paint(ours)
    assert np.abs(ours.astype(int) - theirs).max() <= 2
