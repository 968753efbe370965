"""Layers blended at a window's own size, in the part that matters."""

from __future__ import annotations

import math
import tracemalloc

import cv2
import numpy as np
import pytest

from pics_cli.core.conditioning.network_inputs import layer_painters
from pics_cli.core.conditioning.placement import to_window
from pics_cli.core.images.geometry import Box, Letterbox
from pics_cli.core.inference.blend import blend_layers, seen_alphas


def noise(height: int, width: int, seed: int = 0, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def random_blend(size: int, layers: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits, gain and residual as a network might give them."""
    rng = np.random.default_rng(layers)
    scales = (3, layers), (0.3, 3), (20, 3)
    logits, gain, residual = (rng.normal(0, scale, (n, size, size)).astype(np.float32) for scale, n in scales)
    return logits, gain, residual


@pytest.mark.parametrize(("width", "height"), [(64, 64), (64, 40), (30, 64), (20, 20), (200, 130)])
def test_layers_at_the_windows_size_by_loops(width: int, height: int) -> None:
    """Logits enlarged bilinearly, then shares, one a pixel for all colours; the pictures were never resized."""
    seen, size = noise(height, width), 64
    logits = np.random.default_rng(1).normal(0, 3, (2, size, size)).astype(np.float32)
    residual = np.random.default_rng(2).normal(0, 20, (3, size, size)).astype(np.float32)
    gain = np.random.default_rng(3).normal(0, 0.3, (3, size, size)).astype(np.float32)
    inverted = np.full_like(seen, 255) - seen

    def invert(canvas: np.ndarray) -> None:
        canvas[:] = inverted

    found = blend_layers(seen, (0, 0, width, height), [lambda _: None, invert], logits, gain, residual)
    letterbox = Letterbox(width, height, size)
    for y in range(0, height, 7):
        for x in range(0, width, 5):
            powers = [math.exp(float(letterbox.inverse_map(one)[y, x])) for one in logits]
            added, light = (
                np.array([float(letterbox.inverse_map(one)[y, x]) for one in each]) for each in (residual, gain)
            )
            mixed = (powers[0] * seen[y, x] + powers[1] * inverted[y, x]) / sum(powers)
            expected = mixed * np.exp(light) + added
            assert np.abs(found[y, x] - np.clip(expected, 0, 255)).max() <= 0.51


BOXES: list[Box] = [(20, 5, 90, 60), (60, 40, 150, 100), (10, 120, 40, 140)]


@pytest.mark.parametrize(("width", "height", "size"), [(210, 150, 64), (160, 300, 64), (160, 141, 256)])
def test_a_part_is_that_of_the_whole(width: int, height: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit, whatever part is asked for and in whatever blocks: the regions' boxes, and nothing of what is not."""
    seen, blend = noise(height, width), random_blend(size)
    references = [noise(40, 50, 1, 4), noise(30, 30, 2, 4), noise(20, 60, 3, 4)]
    whole = blend_layers(seen, (0, 0, width, height), layer_painters(seen, BOXES, references, hint="layers"), *blend)
    part = (10, 5, 150, 140)
    seen_part = seen[5:140, 10:150]
    painters = layer_painters(seen_part, to_window(BOXES, part), references, hint="layers")
    found = blend_layers(seen, part, painters, *blend)
    np.testing.assert_array_equal(found, whole[5:140, 10:150])
    monkeypatch.setattr("pics_cli.core.inference.blend._BLOCK", 140 * 7)
    found = blend_layers(seen, part, painters, *blend, boxes=BOXES)
    for x0, y0, x1, y1 in BOXES:
        np.testing.assert_array_equal(found[y0 - 5 : y1 - 5, x0 - 10 : x1 - 10], whole[y0:y1, x0:x1])
    np.testing.assert_array_equal(found[98:112], seen_part[98:112])
    np.testing.assert_array_equal(found[116:, 31:], seen_part[116:, 31:])


@pytest.mark.parametrize(("width", "height", "size"), [(300, 200, 64), (130, 64, 65), (256, 256, 256), (90, 80, 256)])
def test_parts_of_an_enlarged_map(width: int, height: int, size: int) -> None:
    """Of the very values of the whole, and those of OpenCV within the precision of its steps."""
    letterbox, values = Letterbox(width, height, size), random_blend(size)[0].transpose(1, 2, 0)
    whole = letterbox.inverse_map(values)
    rng = np.random.default_rng(0)
    for _ in range(20):
        x0, y0 = int(rng.integers(width)), int(rng.integers(height))
        x1, y1 = int(rng.integers(x0 + 1, width + 1)), int(rng.integers(y0 + 1, height + 1))
        part = letterbox.inverse_map(values, (x0, y0, x1, y1))
        np.testing.assert_array_equal(part, whole[y0:y1, x0:x1])
        np.testing.assert_array_equal(letterbox.inverse_map(values[..., 1], (x0, y0, x1, y1)), part[..., 1])
    if width == height:  # no padding
        side = letterbox.side
        kind = cv2.INTER_LINEAR if side >= size else cv2.INTER_AREA
        theirs = cv2.resize(np.ascontiguousarray(values), (side, side), interpolation=kind)
        np.testing.assert_allclose(whole, theirs, atol=1e-3)


def test_memory_is_that_of_the_part() -> None:
    """Of 19 million pixels 1.2 are painted: the part, its layers and one block; no float of all of it."""
    seen = np.zeros((3800, 5000, 3), np.uint8)
    boxes: list[Box] = [(1000, 1000, 2000, 1800), (1600, 1200, 2500, 1800)]
    part = (1000, 1000, 2500, 1800)
    references = [noise(50, 50, 1, 4), noise(50, 50, 2, 4)]
    blend = random_blend(128)
    tracemalloc.start()
    painters = layer_painters(seen[1000:1800, 1000:2500], to_window(boxes, part), references, hint="layers")
    blend_layers(seen, part, painters, *blend, boxes=boxes)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6


@pytest.mark.parametrize(("width", "height", "size"), [(64, 40, 64), (130, 64, 65), (40, 40, 64)])
def test_enlarged_is_a_plane_where_the_square_is(width: int, height: int, size: int) -> None:
    """Of values that rise evenly, a pixel of the picture has the one of its middle; without a rim from the padding."""
    side = max(width, height)
    across = ((np.arange(size, dtype=np.float32) + 0.5) * side / size).astype(np.float32)[None].repeat(size, 0)
    found = Letterbox(width, height, size).inverse_map(across)
    assert found.shape == (height, width)
    left = (side - width) // 2
    expected = np.arange(width) + 0.5 + left
    inner = slice(2, -2)
    np.testing.assert_allclose(found[height // 2, inner], expected[inner], atol=1e-3 if side >= size else 0.1)


def test_layers_are_untouched_where_nothing_is_added() -> None:
    """All of the background in its own light gives its very pixels, at any size: nothing is blurred."""
    seen = noise(150, 210)
    logits, nothing = np.zeros((3, 64, 64), np.float32), np.zeros((3, 64, 64), np.float32)
    logits[2] = 40
    boxes, references = [(10, 10, 100, 100), (60, 40, 200, 140)], [noise(40, 50, 1, 4), noise(30, 30, 2, 4)]
    paint = layer_painters(seen, boxes, references, hint="layers")
    assert np.array_equal(blend_layers(seen, (0, 0, 210, 150), paint, logits, nothing, nothing), seen)
    first = seen.copy()
    paint[0](first)
    assert np.array_equal(blend_layers(seen, (0, 0, 210, 150), paint, logits[::-1], nothing, nothing), first)


def test_what_is_seen_of_objects_that_cover_each_other() -> None:
    """By the order of the layer that is taken, the ground by the third; a part is as the whole."""
    rng = np.random.default_rng(0)
    alphas = rng.integers(0, 256, (2, 70, 90), np.uint8)
    alphas[:, :20] = 255
    a, b = alphas / 255.0
    for taken, expected in ((0, (a * (1 - b), b)), (1, (a, b * (1 - a))), (2, (a * 0, b * 0))):
        logits = np.full((3, 8, 8), -50, np.float32)
        logits[taken] = 50
        seen = seen_alphas((90, 70), (0, 0, 90, 70), alphas, ((0, 1), (1, 0)), logits)
        np.testing.assert_allclose(seen / 255, expected, atol=0.003)
        part = seen_alphas((90, 70), (30, 10, 60, 50), alphas[:, 10:50, 30:60], ((0, 1), (1, 0)), logits)
        np.testing.assert_array_equal(part, seen[:, 10:50, 30:60])
    seen = seen_alphas((90, 70), (0, 0, 90, 70), alphas, ((1, 0), (1, 0)), None)
    np.testing.assert_allclose(seen / 255, (a, b * (1 - a)), atol=0.003)
