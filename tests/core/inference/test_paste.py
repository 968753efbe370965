"""Layers blended at a window's size, and the feathered paste."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pics_cli.core.conditioning.placement import choose_window
from pics_cli.core.images.geometry import Box, Letterbox
from pics_cli.core.inference.paste import changed_outside, feather_width, kept_weight, paste_back
from pics_cli.core.model.config import ModelConfig


def noise(height: int, width: int, seed: int = 0, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def drawn(boxes: list[Box], width: int, height: int) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    for x0, y0, x1, y1 in boxes:
        mask[y0:y1, x0:x1] = True
    return mask


@st.composite
def scenes(draw: st.DrawFn, largest: int) -> tuple[int, int, list[Box]]:
    width, height = draw(st.integers(1, largest)), draw(st.integers(1, largest))
    boxes = []
    for _ in range(draw(st.integers(1, 3))):
        x0, y0 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
        boxes.append((x0, y0, draw(st.integers(x0 + 1, width)), draw(st.integers(y0 + 1, height))))
    return width, height, boxes


@given(scenes(60), st.sampled_from([16, 40]), st.integers(0, 20), st.sampled_from(["auto", "full"]))
@settings(max_examples=150, deadline=None)
def test_paste_changes_the_boxes_alone(scene: tuple[int, int, list[Box]], size: int, feather: int, kind: str) -> None:
    width, height, boxes = scene
    before = noise(height, width)
    kept = before.copy()
    part = choose_window(boxes, width, height, kind, size)  # type: ignore[arg-type]
    made = Letterbox(part[2] - part[0], part[3] - part[1], size).inverse(noise(size, size, 1))
    after = paste_back(before, made, part, boxes, feather)
    np.testing.assert_array_equal(before, kept)
    outside = ~drawn(boxes, width, height)
    np.testing.assert_array_equal(after[outside], before[outside])
    assert changed_outside(before, after, boxes) == 0


@given(scenes(40), st.integers(0, 60), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_changed_outside_counts(scene: tuple[int, int, list[Box]], changes: int, seed: int) -> None:
    width, height, boxes = scene
    before = noise(height, width)
    after = before.copy()
    rng = np.random.default_rng(seed)
    for _ in range(changes):
        after[rng.integers(height), rng.integers(width), rng.integers(3)] ^= 1
    covered = drawn(boxes, width, height)
    expected = sum(
        bool((before[y, x] != after[y, x]).any()) and not covered[y, x] for y in range(height) for x in range(width)
    )
    assert changed_outside(before, after, boxes) == expected


def test_changed_outside_refuses_other_sizes() -> None:
    with pytest.raises(ValueError, match="pictures of different sizes"):
        changed_outside(noise(4, 5), noise(5, 4), [(0, 0, 1, 1)])


def weights(boxes: list[Box], width: int, height: int, feather: int) -> np.ndarray:
    """How much of white over black arrives, 0 to 1."""
    black, white = np.zeros((height, width, 3), np.uint8), np.full((height, width, 3), 255, np.uint8)
    pasted = paste_back(black, white, (0, 0, width, height), boxes, feather)
    assert (pasted == pasted[..., :1]).all()
    return pasted[..., 0] / 255


def plain_weights(boxes: list[Box], width: int, height: int, feather: int) -> np.ndarray:
    """The same from the distance to each pixel outside, one by one."""
    covered = drawn(boxes, width, height)
    feather = min(feather, *(min(x1 - x0, y1 - y0) // 4 for x0, y0, x1, y1 in boxes))
    outside = np.argwhere(~covered)
    expected = np.zeros((height, width))
    for y, x in np.argwhere(covered):
        nearest = np.hypot(*(outside - (y, x)).T).min() if len(outside) else np.inf
        expected[y, x] = 0.5 - 0.5 * np.cos(np.pi * min(nearest / (feather + 1), 1))
    return expected


@given(scenes(40), st.integers(0, 12))
@settings(max_examples=60, deadline=None)
def test_ramp_is_of_the_distance_to_the_outside(scene: tuple[int, int, list[Box]], feather: int) -> None:
    width, height, boxes = scene
    np.testing.assert_allclose(
        weights(boxes, width, height, feather), plain_weights(*scene_of(scene), feather), atol=0.003
    )


def scene_of(scene: tuple[int, int, list[Box]]) -> tuple[list[Box], int, int]:
    width, height, boxes = scene
    return boxes, width, height


def test_ramp_in_blocks_is_as_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = [(5, 0, 60, 70), (40, 30, 90, 100), (0, 80, 30, 99)]
    in_one = weights(boxes, 90, 100, 7)
    monkeypatch.setattr("pics_cli.core.inference.paste._BLOCK", 90 * 3)
    np.testing.assert_array_equal(weights(boxes, 90, 100, 7), in_one)


def test_feather_stays_in_its_band_and_off_the_pictures_edge() -> None:
    found = weights([(0, 20, 80, 100)], 100, 120, 10)
    assert (found[30:90, 0:70] == 1).all(), "full weight where the picture ends, and inside the band"
    assert ((found[20, :79] > 0) & (found[20, :79] < 0.1)).all()
    assert (np.diff(found[19:31, 30]) > 0).all()
    hard = weights([(0, 20, 80, 100)], 100, 120, 0)
    assert set(np.unique(hard)) == {0, 1}


def test_boxes_that_touch_have_no_feather_between_them() -> None:
    found = weights([(10, 10, 50, 90), (50, 10, 90, 90)], 100, 100, 8)
    assert (found[20:80, 20:80] == 1).all()


def test_small_boxes_keep_a_middle() -> None:
    for side in range(1, 12):
        found = weights([(20, 20, 20 + side, 20 + side)], 50, 50, 30)
        assert found[20 + side // 2, 20 + side // 2] == 1


def test_pasted_pixels_are_the_networks_own_where_nothing_is_resized() -> None:
    background, picture = noise(200, 300), noise(64, 64, 1)
    out = paste_back(background, picture, (100, 50, 164, 114), [(110, 60, 150, 110)], 5)
    np.testing.assert_array_equal(out[66:104, 116:144], picture[16:54, 16:44])


def test_boxes_outside_the_window_are_refused() -> None:
    with pytest.raises(ValueError, match="reaches outside"):
        paste_back(noise(50, 50), noise(30, 30), (10, 10, 40, 40), [(5, 20, 30, 30)], 0)


def test_nothing_changes_without_boxes() -> None:
    background = noise(50, 50)
    np.testing.assert_array_equal(paste_back(background, noise(50, 50, 1), (0, 0, 50, 50), [], 3), background)


def test_memory_of_a_large_picture() -> None:
    """Besides the background: the result, the network's picture at its size, and blocks. Not a float copy of all."""
    background = np.zeros((4284, 5712, 3), np.uint8)
    boxes = [(0, 0, 4000, 4000), (2000, 1000, 5712, 4284)]
    tracemalloc.start()
    after = paste_back(background, Letterbox(5712, 4284, 512).inverse(noise(512, 512)), (0, 0, 5712, 4284), boxes, 40)
    assert changed_outside(background, after, boxes) == 0
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 230e6


def test_the_feather_is_the_room_or_a_latent_cell_unless_asked_for() -> None:
    boxes, config = [(0, 0, 80, 80), (0, 0, 40, 120)], ModelConfig()
    assert feather_width(None, (0, 0, 512, 512), boxes, config) == 8
    assert feather_width(None, (10, 10, 2058, 1034), boxes, config) == 32
    assert feather_width(None, (0, 0, 20, 20), boxes, config) == 1
    assert feather_width(0, (0, 0, 512, 512), boxes, config) == 0
    for side in (512, 2048):  # never wider than the room, however large a latent cell is
        assert feather_width(None, (0, 0, side, side), boxes, ModelConfig(fill=0.5)) == 10
        assert feather_width(None, (0, 0, side, side), boxes, ModelConfig(fill=0.95)) == 1
    assert feather_width(3, (0, 0, 512, 512), boxes, ModelConfig(fill=0.5)) == 3


@given(scenes(40), st.integers(0, 12), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_the_ramp_gives_way_to_what_is_pasted(scene: tuple[int, int, list[Box]], feather: int, seed: int) -> None:
    """The larger of the two weights, and none outside the boxes, whatever is pasted there."""
    width, height, boxes = scene
    black, white = np.zeros((height, width, 3), np.uint8), np.full((height, width, 3), 255, np.uint8)
    alpha = noise(height, width, seed, 1)[..., 0] // 128 * noise(height, width, seed + 1, 1)[..., 0]
    found = paste_back(black, white, (0, 0, width, height), boxes, feather, alpha)[..., 0] / 255
    expected = np.maximum(plain_weights(boxes, width, height, feather), alpha / 255) * drawn(boxes, width, height)
    np.testing.assert_allclose(found, expected, atol=0.003)


def test_a_solid_object_does_not_fade() -> None:
    """At the very border of its region it is the network's own, while the ground beside it fades."""
    background, picture, alpha = noise(100, 100), noise(60, 60, 1), np.zeros((60, 60), np.uint8)
    alpha[:30] = 255
    out = paste_back(background, picture, (20, 20, 80, 80), [(20, 20, 80, 80)], 10, alpha)
    np.testing.assert_array_equal(out[20:50, 20:80], picture[:30])
    assert (out[79, 20:80] != picture[59]).any()
    assert changed_outside(background, out, [(20, 20, 80, 80)]) == 0


@given(scenes(40), st.integers(0, 6), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_what_is_kept_never_changes(scene: tuple[int, int, list[Box]], feather: int, seed: int) -> None:
    """The ramp is of the distance to the nearest kept pixel, pixel by pixel, and lies outside what is kept."""
    width, height, boxes = scene
    keep = np.random.default_rng(seed).random((height, width)) < 0.02
    keep[seed % height, seed % width] = True
    before, picture = noise(height, width), noise(height, width, 1)
    whole = (0, 0, width, height)
    after = paste_back(before, picture, whole, boxes, feather, noise(height, width, 2, 1)[..., 0], keep)
    np.testing.assert_array_equal(after[keep], before[keep])
    assert changed_outside(before, after, boxes, keep) == 0
    assert changed_outside(before, ~before, boxes, keep) == (keep | ~drawn(boxes, width, height)).sum()
    for x0, y0, x1, y1 in boxes:
        found = kept_weight(keep, (x0, y0, x1, y1))
        for y, x in np.argwhere(found >= 0):
            distance = np.hypot(*(np.argwhere(keep) - (y + y0, x + x0)).T).min()
            assert found[y, x] == pytest.approx(0.5 + 0.5 * np.cos(np.pi * min(distance / 2, 1)), abs=1e-6)
