"""Turned objects against rays cast through every part of every pixel, in float64."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from pics_cli.core.loading.augment import View, render_view

DISTANCE = 2.0
FINE = 8


def turned(vectors: np.ndarray, view: View) -> np.ndarray:
    """Vectors [..., 3] (x right, y down, z away) after yaw about y, then pitch about x."""
    x, y, z = np.moveaxis(np.asarray(vectors, np.float64), -1, 0)
    a, b = math.radians(view.yaw), math.radians(view.pitch)
    x, z = math.cos(a) * x + math.sin(a) * z, -math.sin(a) * x + math.cos(a) * z
    y, z = math.cos(b) * y - math.sin(b) * z, math.sin(b) * y + math.cos(b) * z
    return np.stack([x, y, z], axis=-1)


def oracle(rgba: np.ndarray, view: View, size: int) -> np.ndarray:
    """float64 [R, R, 4], premultiplied, 0..1: the share of each pixel that the object's pixels, as squares, cover."""
    height, width = rgba.shape[:2]
    longer = max(height, width)
    sets = np.argwhere(rgba[..., 3] > 0)[:, ::-1]
    corners = np.concatenate([sets + np.array([dx, dy]) for dx in (0, 1) for dy in (0, 1)])
    points = np.zeros((len(corners), 3))
    points[:, :2] = (corners - (width / 2, height / 2)) / longer
    points = turned(points, view)
    seen = DISTANCE * points[:, :2] / (DISTANCE + points[:, 2:])
    c, s = math.cos(math.radians(view.roll)), math.sin(math.radians(view.roll))
    seen = seen @ np.array([[c, s], [-s, c]])
    low, high = seen.min(axis=0), seen.max(axis=0)
    zoom = size / (view.scale * (high - low).max())
    # From every part of every pixel back onto the object's plane.
    steps = (np.arange(size * FINE) + 0.5) / FINE
    across, down = np.meshgrid(steps, steps)
    flat = (np.stack([across, down], axis=-1) - size / 2) / zoom + (low + high) / 2
    flat = flat @ np.array([[c, -s], [s, c]])
    eye = np.array([0, 0, -DISTANCE])
    ray = np.concatenate([flat, np.full_like(flat[..., :1], DISTANCE)], axis=-1)
    right, below, normal = turned(np.eye(3), view)
    hit = eye + ray * (-(eye @ normal) / (ray @ normal))[..., None]
    column = np.floor(hit @ right * longer + width / 2).astype(int)
    row = np.floor(hit @ below * longer + height / 2).astype(int)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    values = rgba[np.where(inside, row, 0), np.where(inside, column, 0)] / 255 * inside[..., None]
    values[..., :3] *= values[..., 3:]
    return values.reshape(size, FINE, size, FINE, 4).mean(axis=(1, 3))


def area(mask: np.ndarray, view: View, size: int) -> float:
    """Pixels that a mask covers in the patch: the sum of its pixels' quadrangles."""
    height, width = mask.shape
    at = np.argwhere(mask)[:, ::-1]
    quads = np.stack([at + np.array(corner) for corner in ((0, 0), (1, 0), (1, 1), (0, 1))], axis=1)
    points = np.concatenate([(quads - (width / 2, height / 2)) / max(height, width), np.zeros((len(at), 4, 1))], axis=2)
    points = turned(points, view)
    x, y = np.moveaxis(DISTANCE * points[..., :2] / (DISTANCE + points[..., 2:]), -1, 0)
    c, s = math.cos(math.radians(view.roll)), math.sin(math.radians(view.roll))
    x, y = c * x - s * y, s * x + c * y
    zoom = size / (view.scale * max(np.ptp(x), np.ptp(y)))
    return float(0.5 * (x * np.roll(y, -1, axis=1) - np.roll(x, -1, axis=1) * y).sum() * zoom**2)


def on_white(premultiplied: np.ndarray) -> np.ndarray:
    return 255 * (premultiplied[..., :3] + 1 - premultiplied[..., 3:])


def smooth(height: int, width: int, seed: int = 0) -> np.ndarray:
    """An object with soft colours, a lopsided outline and a hole; loud colours behind alpha 0."""
    small = np.random.default_rng(seed).integers(0, 230, (4, 5, 3), np.uint8)
    rgba = np.full((height, width, 4), 255, np.uint8)
    rgba[..., :3] = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    y, x = (np.indices((height, width)) + 0.5) / np.array([height, width])[:, None, None]
    inside = (x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.25 * (0.75 + 0.25 * np.sin(5 * np.arctan2(y - 0.5, x - 0.4)))
    rgba[~inside | (np.hypot(x - 0.6, y - 0.5) < 0.15)] = (0, 255, 0, 0)
    rows, columns = np.flatnonzero(rgba[..., 3].any(axis=1)), np.flatnonzero(rgba[..., 3].any(axis=0))
    return rgba[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


VIEWS = [
    View(roll=10, yaw=-14, pitch=9, scale=1.25),
    View(roll=-35, scale=1.1),
    View(yaw=40, scale=1.3),
    View(pitch=-40, scale=1.3),
    View(roll=120, yaw=30, pitch=30, scale=1.6),
    View(roll=1, yaw=-2, pitch=58, scale=1.25),
]


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: f"{view.roll}-{view.yaw}-{view.pitch}")
@pytest.mark.parametrize("shape", [(60, 60), (300, 170), (90, 400)])
def test_pixels_are_those_of_rays(shape: tuple[int, int], view: View) -> None:
    rgba, size = smooth(*shape), 64
    expected = on_white(oracle(rgba, view, size))
    difference = np.abs(render_view(rgba, view, size).patch - expected)
    # Bilinear sampling softens rims and, where the object is nearer than its middle, more than an area would.
    assert difference.mean() < 1.2
    rims = cv2.morphologyEx(expected.astype(np.float32).mean(axis=2), cv2.MORPH_GRADIENT, np.ones((3, 3))) > 40
    assert difference[~rims].max() < 12
    for other in (view._replace(yaw=-view.yaw or 9), view._replace(pitch=-view.pitch or 9), view._replace(roll=0)):
        if abs(view.roll) > 1 or other.roll:
            assert np.abs(render_view(rgba, other, size).patch - expected).mean() > 1.3 * difference.mean()


@pytest.mark.parametrize("view", VIEWS[:5], ids=lambda view: f"{view.roll}-{view.yaw}-{view.pitch}")
@pytest.mark.parametrize("shape", [(60, 60), (300, 170), (1, 300), (700, 2)])
def test_area_of_a_white_object_is_that_of_its_mask(shape: tuple[int, int], view: View) -> None:
    rgba = smooth(*shape) if min(shape) > 3 else np.full((*shape, 4), 255, np.uint8)
    white, black = rgba.copy(), rgba.copy()
    white[..., :3], black[..., :3] = 255, 0
    ours, dark = render_view(white, view, 64), render_view(black, view, 64)
    assert (ours.patch == 255).all()
    assert (ours.rgba[ours.rgba[..., 3] > 0] == 255)[..., :3].all()
    np.testing.assert_array_equal(ours.rgba[..., 3], dark.rgba[..., 3])
    covered = area(rgba[..., 3] > 0, view, 64)
    # Of a line that is thinner than a pixel, how much is seen depends a little on where it lies among the pixels.
    assert ours.rgba[..., 3].sum() / 255 == pytest.approx(covered, rel=0.005 if min(shape) > 3 else 0.12)
    assert (255 - dark.patch[..., 0].astype(int)).sum() / 255 == pytest.approx(ours.rgba[..., 3].sum() / 255, rel=1e-3)


def test_lies_in_the_middle_and_fills_as_much_as_was_drawn() -> None:
    for view in VIEWS:
        rgba = smooth(400, 300)
        rgba[..., :3] = 0
        solid = render_view(rgba, view, 224).patch[..., 0] < 128
        x, y, width, height = cv2.boundingRect(solid.view(np.uint8))
        assert max(width, height) == pytest.approx(224 / view.scale, abs=2)
        assert x + width / 2 == pytest.approx(112, abs=1)
        assert y + height / 2 == pytest.approx(112, abs=1)


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: f"{view.roll}-{view.yaw}-{view.pitch}")
def test_fine_stripes_become_grey_not_coarse_ones(view: View) -> None:
    rgba = np.full((900, 900, 4), 255, np.uint8)
    rgba[..., :3] = (np.indices((900, 900)).sum(axis=0) // 3 % 2 * 255)[..., None]
    ours = render_view(rgba, view, 112)
    inside = cv2.erode((ours.rgba[..., 3] == 255).astype(np.uint8), np.ones((7, 7)), borderValue=0) > 0
    assert inside.sum() > 800
    # Averaged 6 x 6, nothing is left but the grey: aliasing would show as a coarse pattern.
    mean = cv2.blur(ours.rgba[..., 0].astype(np.float32), (6, 6))[inside]
    assert mean.std() < 6
    assert mean.mean() == pytest.approx(127.5, abs=3)


def test_detail_keeps_the_cut_out_sharp_and_the_patch_as_it_is() -> None:
    rgba, view = smooth(500, 300), VIEWS[0]
    coarse, fine = render_view(rgba, view, 112), render_view(rgba, view, 112, detail=384)
    assert max(coarse.rgba.shape) == pytest.approx(112 / view.scale, abs=4)
    assert max(fine.rgba.shape) == pytest.approx(384, abs=4)
    assert np.abs(coarse.patch.astype(int) - fine.patch).mean() < 1
    small = smooth(50, 30)
    assert max(render_view(small, view, 224, detail=512).rgba.shape) <= 224
