"""References and boxes as training varies them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pics_cli.core.conditioning.network_inputs import REFERENCE_FRAME, prepare_reference
from pics_cli.core.images.geometry import clip_box
from pics_cli.core.images.lighting import to_linear
from pics_cli.core.images.masks import box_mask
from pics_cli.core.loading.augment import (
    View,
    add_dirt,
    augment_reference,
    cut_reference,
    draw_view,
    grow_box,
    render_view,
)
from pics_cli.core.recipes.training_sections import AugmentSettings
from pics_cli.core.runtime.rng import generator
from pics_cli.errors import BadSample

STILL = AugmentSettings(
    flip=0, rotation=0, perspective=0, scale=(REFERENCE_FRAME, REFERENCE_FRAME), brightness=0, contrast=0
)


def noise(height: int, width: int, channels: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def thing(height: int, width: int, seed: int = 0, soft: bool = False) -> np.ndarray:
    """Noise in an outline of its own that touches all sides; loud colours behind alpha 0."""
    rgba = noise(height, width, seed=seed)
    rng = np.random.default_rng(seed + 1)
    alpha = np.zeros((height, width), np.uint8)
    alpha[rng.integers(height), :] = 255
    alpha[:, rng.integers(width)] = 255
    alpha[rng.random((height, width)) < 0.2] = 255
    rgba[..., 3] = cv2.blur(alpha, (3, 3)) if soft else alpha
    rgba[rgba[..., 3] == 0, :3] = (0, 255, 0)
    return rgba


shapes = st.tuples(st.integers(1, 70), st.integers(1, 70))
views = st.builds(
    View,
    flip=st.booleans(),
    roll=st.floats(0.5, 180),
    yaw=st.floats(-60, 60),
    pitch=st.floats(-45, 45),
    scale=st.floats(1, 4),
    brightness=st.floats(-1, 1),
    contrast=st.floats(-1, 1),
    exposure=st.floats(-2, 2),
    warmth=st.floats(-70, 150),
)


@given(shapes, views, st.sampled_from([56, 100, 224]), st.integers(0, 99))
@settings(max_examples=120, deadline=None)
def test_nothing_is_ever_cut_off(shape: tuple[int, int], view: View, size: int, seed: int) -> None:
    rgba = thing(*shape, seed=seed)
    rgba[..., :3] = 0
    patch = render_view(rgba, view._replace(brightness=0, contrast=0), size).patch
    assert patch.shape == (size, size, 3)
    for rim in (patch[0], patch[-1], patch[:, 0], patch[:, -1]):
        assert (rim == 255).all()
    assert (patch < 255).any()


@given(shapes, views, st.booleans(), st.tuples(*[st.integers(0, 255)] * 3), st.integers(0, 99))
@settings(max_examples=120, deadline=None)
def test_one_colour_on_white_shows_no_other(
    shape: tuple[int, int], view: View, soft: bool, colour: tuple[int, int, int], seed: int
) -> None:
    """Every pixel lies between the object's colour and white; what alpha 0 hides comes out nowhere."""
    rgba = thing(*shape, seed=seed, soft=soft)
    rgba[rgba[..., 3] > 0, :3] = colour
    view = view._replace(brightness=0, contrast=0, exposure=0, warmth=0)
    ours = render_view(rgba, view, 64, detail=100)
    away = 255 - ours.patch.astype(np.float64)
    full = 255 - np.array(colour, np.float64)
    share = away @ full / max(float(full @ full), 1)
    # Rounded to 8 bits in each of five steps; a halo would be tens of levels.
    assert np.abs(away - share[..., None] * full).max() <= 3
    assert share.max() <= 1.01
    seen = ours.rgba[..., 3] > 0
    error = np.abs(ours.rgba[seen, :3].astype(int) - colour) * (ours.rgba[seen, 3:] / 255)
    assert error.max() <= 3, "where it is laid over anything"


@given(shapes, views, st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_light_changes_the_object_alone(shape: tuple[int, int], view: View, seed: int) -> None:
    rgba = thing(*shape, seed=seed)
    dark, lit = rgba.copy(), render_view(rgba, view, 64)
    dark[..., :3] = 0
    unlit = render_view(dark, view._replace(brightness=0, contrast=0), 64)
    np.testing.assert_array_equal(lit.rgba[..., 3], unlit.rgba[..., 3])
    assert (lit.patch[(unlit.patch == 255).all(axis=2)] == 255).all()


@pytest.mark.parametrize("light", [(0.3, 0.0), (-1.0, 0.0), (0.0, 0.5), (0.1, -1.0), (-0.2, 0.4)])
def test_brightness_and_contrast(light: tuple[float, float]) -> None:
    rgba = thing(40, 30)
    ours = render_view(rgba, View(brightness=light[0], contrast=light[1]), 64).rgba
    inside = rgba[..., 3] > 0
    values = rgba[inside, :3].astype(np.float64)
    expected = (values - values.mean()) * (1 + light[1]) + values.mean() + 255 * light[0]
    assert np.abs(ours[inside, :3] - expected.clip(0, 255)).max() <= 0.51
    np.testing.assert_array_equal(ours[..., 3], rgba[..., 3])


def test_flipped_twice_is_as_before() -> None:
    rgba = thing(41, 30)
    once = render_view(rgba, View(flip=True), 64).rgba
    np.testing.assert_array_equal(once, rgba[:, ::-1])
    np.testing.assert_array_equal(render_view(once, View(flip=True), 64).rgba, rgba)
    mirrored = render_view(once, View(roll=-20, yaw=-15, pitch=8), 100).patch[:, ::-1].astype(int)
    assert np.abs(mirrored - render_view(rgba, View(roll=20, yaw=15, pitch=8), 100).patch).mean() < 0.5


@given(shapes, st.integers(0, 99), st.sampled_from([REFERENCE_FRAME, 1.0, 1.1, 1.37]))
@settings(max_examples=40, deadline=None)
def test_without_strengths_it_is_what_inference_shows(shape: tuple[int, int], seed: int, frame: float) -> None:
    rgba = np.pad(thing(*shape, seed=seed), ((3, 0), (1, 9), (0, 0)))
    rng = generator(seed)
    ours = augment_reference(
        rgba,
        AugmentSettings(flip=0, rotation=0, perspective=0, scale=(frame, frame), brightness=0, contrast=0),
        rng,
        56,
    )
    np.testing.assert_array_equal(ours.patch, prepare_reference(rgba, 56, frame))
    np.testing.assert_array_equal(ours.rgba, rgba[3:, 1:-9])
    if frame == REFERENCE_FRAME:
        np.testing.assert_array_equal(ours.patch, render_view(rgba, View(), 56).patch)
        np.testing.assert_array_equal(ours.patch, prepare_reference(rgba, 56))


def test_what_is_given_stays_and_the_same_draw_gives_the_same() -> None:
    rgba = thing(50, 40)
    kept = rgba.copy()
    first, again, other = (
        augment_reference(rgba, AugmentSettings(), generator(3, key), 224) for key in ("a", "a", "b")
    )
    np.testing.assert_array_equal(rgba, kept)
    np.testing.assert_array_equal(first.patch, again.patch)
    np.testing.assert_array_equal(first.rgba, again.rgba)
    assert not np.array_equal(first.patch, other.patch)


def test_draws_fill_their_ranges_and_do_not_hang_together() -> None:
    augment, rng = AugmentSettings(flip=0.3, brightness=0.2), generator(0)
    drawn = [draw_view(augment, rng) for _ in range(2000)]
    assert np.mean([view.flip for view in drawn]) == pytest.approx(0.3, abs=0.04)
    tilt = np.hypot([view.yaw for view in drawn], [view.pitch for view in drawn])
    for values, low, high in (
        ([view.roll for view in drawn], -10, 10),
        (tilt, 0, 20),
        ([view.scale for view in drawn], 1.1, 1.4),
        ([view.brightness for view in drawn], -0.2, 0.2),
        ([view.contrast for view in drawn], -0.1, 0.1),
    ):
        assert low <= min(values) < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < max(values) <= high
        assert np.mean(values) == pytest.approx((low + high) / 2, abs=0.03 * (high - low))
    for sides in ([view.yaw for view in drawn], [view.pitch for view in drawn]):
        assert np.mean(sides) == pytest.approx(0, abs=1)
        assert np.std(sides) > 7
    a, b = (
        draw_view(one, generator(5)) for one in (AugmentSettings(), AugmentSettings(rotation=0, perspective=0, flip=1))
    )
    assert b._replace(flip=a.flip, roll=a.roll, yaw=a.yaw, pitch=a.pitch) == a


def test_cut_by_the_mask_and_nothing_else_is_seen() -> None:
    rgb, mask = noise(60, 80, 3), np.zeros((60, 80), np.bool_)
    cv2.circle(mask.view(np.uint8), (50, 20), 15, 1, 4)
    cut = cut_reference(rgb, box_mask(mask))
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    np.testing.assert_array_equal(cut[..., 3], mask[window] * 255)
    np.testing.assert_array_equal(cut[mask[window], :3], rgb[window][mask[window]])
    other = rgb.copy()
    other[~mask] = 255 - other[~mask]
    for key in range(20):
        ours, theirs = (
            augment_reference(cut_reference(one, box_mask(mask)), AugmentSettings(), generator(key), 100)
            for one in (rgb, other)
        )
        np.testing.assert_array_equal(ours.patch, theirs.patch)
        np.testing.assert_array_equal(ours.rgba, theirs.rgba)


@pytest.mark.parametrize("view", [View(), View(roll=3)])
@pytest.mark.parametrize("empty", [np.full((4, 5, 4), (9, 9, 9, 0), np.uint8), np.zeros((0, 0, 4), np.uint8)])
def test_nothing_to_show_is_a_bad_sample(view: View, empty: np.ndarray) -> None:
    with pytest.raises(BadSample, match="wholly transparent"):
        render_view(empty, view, 64)


def test_too_thin_to_be_seen_is_a_bad_sample() -> None:
    with pytest.raises(BadSample, match="1x60000: too thin to be seen at 28 pixels"):
        render_view(np.full((60000, 1, 4), 255, np.uint8), View(roll=30), 28)


@given(st.data(), st.integers(1, 60), st.integers(1, 60), st.integers(0, 999))
@settings(max_examples=150, deadline=None)
def test_grown_boxes(data: st.DataObject, width: int, height: int, seed: int) -> None:
    x0, y0 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    x1, y1 = data.draw(st.integers(x0 + 1, width)), data.draw(st.integers(y0 + 1, height))
    low, high = sorted(data.draw(st.tuples(st.floats(1, 4), st.floats(1, 4))))
    box, augment = (x0, y0, x1, y1), AugmentSettings(box_growth=(low, high))
    e, f, g, h = grow_box(box, augment, generator(seed))
    assert e <= x0 < x1 <= g
    assert f <= y0 < y1 <= h
    assert grow_box(box, AugmentSettings(box_growth=(1, 1)), generator(seed)) == box
    assert (e + g, f + h) == (x0 + x1, y0 + y1)
    for grown, side in ((g - e, x1 - x0), (h - f, y1 - y0)):
        assert low * side - 1 <= grown <= high * side + 1
    a, b, c, d = clip_box((e, f, g, h), width, height)
    assert (a, b, c, d) == (max(e, 0), max(f, 0), min(g, width), min(h, height))


def test_growth_is_drawn_for_each_side() -> None:
    rng, augment = generator(0), AugmentSettings(box_growth=(1.0, 1.2))
    grown = np.array([grow_box((400, 400, 600, 600), augment, rng) for _ in range(400)])
    sides = (grown[:, 2:] - grown[:, :2]) / 200
    assert sides.min() < 1.02
    assert sides.max() > 1.18
    assert sides.mean() == pytest.approx(1.1, abs=0.02)
    assert abs(np.corrcoef(sides.T)[0, 1]) < 0.2


def test_exposure_multiplies_linear_light() -> None:
    grey = np.dstack([np.full((8, 8, 3), 120, np.uint8), np.full((8, 8), 255, np.uint8)])
    for stops in (-1.5, -0.5, 0.8):
        lit = render_view(grey, View(exposure=stops), 28).rgba[4, 4, :3] / 255
        assert to_linear(lit) / to_linear(np.float64(120 / 255)) == pytest.approx(2**stops, rel=0.03)


def test_warm_light_is_redder_and_keeps_its_brightness() -> None:
    grey = np.dstack([np.full((8, 8, 3), 120, np.uint8), np.full((8, 8), 255, np.uint8)])
    red, green, blue = render_view(grey, View(warmth=120), 28).rgba[4, 4, :3].tolist()
    assert red > green > blue
    cold = render_view(grey, View(warmth=-60), 28).rgba[4, 4, :3].tolist()
    assert cold[0] < cold[1] < cold[2]
    for values in ((red, green, blue), cold):
        assert np.dot([0.2126, 0.7152, 0.0722], to_linear(np.array(values) / 255)) == pytest.approx(
            float(to_linear(np.float64(120 / 255))), rel=0.25
        )


def test_most_references_nearly_fit_their_scene() -> None:
    lights = AugmentSettings(exposure=1.5, temperature=(3000, 9000), relit=0.4)
    stops = np.array([draw_view(lights, generator(0, "view", i)).exposure for i in range(2000)])
    warmth = np.array([draw_view(lights, generator(0, "view", i)).warmth for i in range(2000)])
    assert 0.6 < np.mean(np.abs(stops) < 0.2) < 0.72
    assert 1.3 < np.abs(stops).max() <= 1.5
    assert 1e6 / 9000 - 1e6 / 5500 <= warmth.min() < -50
    assert 120 < warmth.max() <= 1e6 / 3000 - 1e6 / 5500
    still = draw_view(AugmentSettings(), generator(0, "view"))
    assert (still.exposure, still.warmth) == (0, 0)


def test_dirt_leaves_the_object_itself() -> None:
    rgba = np.zeros((60, 60, 4), np.uint8)
    rgba[..., :3] = cv2.GaussianBlur(noise(60, 60, 3), (0, 0), 6)
    rgba[10:50, 10:50, 3] = 255
    kinds = set()
    for seed in range(12):
        dirty = add_dirt(rgba, np.random.default_rng(seed))
        inside = (rgba[..., 3] > 0) & (dirty[..., 3] > 0)
        change = np.abs(dirty[..., :3].astype(int) - rgba[..., :3])[inside].mean()
        assert change < 12
        kinds.add((change > 0.5, bool((dirty[..., 3] != rgba[..., 3]).any())))
    assert len(kinds) >= 3
