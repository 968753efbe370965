"""Other views drawn finer than the picture, and vessels that one cannot look through."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pics_cli.core.scenes.drawn.plan import plan_scene
from pics_cli.core.scenes.drawn.render import RenderedScene, render_scene
from pics_cli.core.scenes.drawn.spec import SceneSettings


def scene(index: int, relation: str, detail: float = 1.0, size: int = 128) -> RenderedScene:
    return render_scene(plan_scene(SceneSettings(size, 2, ((relation, 1.0),), 5.0, 0.3, detail), "held_out", 11, index))


def fineness(rgba: np.ndarray) -> float:
    """Mean strength of the edges inside the object."""
    inside = cv2.erode((rgba[..., 3] == 255).astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    grey = cv2.cvtColor(np.ascontiguousarray(rgba[..., :3]), cv2.COLOR_RGB2GRAY).astype(np.float32)
    return float(np.abs(cv2.Laplacian(grey, cv2.CV_32F))[inside].mean())


def test_detail_sharpens_the_other_views_alone() -> None:
    gains = []
    for index in range(3):
        coarse, fine = scene(index, "occluding", size=192), scene(index, "occluding", 2.0, 192)
        for name in ("image", "clean"):
            assert np.array_equal(getattr(coarse, name), getattr(fine, name))
        for one, other in zip(coarse.alternates, fine.alternates, strict=True):
            assert one.shape == other.shape == (224, 224, 4)
            gains.append(fineness(other) / fineness(one))
            same = (one[..., 3] == 255) & (other[..., 3] == 255)
            assert same.sum() > 0.9 * (one[..., 3] == 255).sum()
            assert np.abs(one[same].astype(int) - other[same]).mean() < 12
    assert np.median(gains) > 1.15, gains


@pytest.mark.parametrize("index", range(6))
def test_nothing_is_seen_through_below_a_vessels_lip(index: int) -> None:
    """No hole in the outline but where a handle has one, which is far larger than a slit of some pixels."""
    for rgba in scene(index, "containing", 2.0, 256).alternates:
        clear = (rgba[..., 3] < 128).astype(np.uint8)
        _, labels, stats, _ = cv2.connectedComponentsWithStats(clear, connectivity=4)
        outside = labels[0, 0]
        holes = [area for at, area in enumerate(stats[:, cv2.CC_STAT_AREA]) if at not in (0, outside)]
        assert all(area > 60 for area in holes), holes
