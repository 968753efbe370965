"""The other view of each object: what it shows, how fine it is, and that one cannot look through vessels."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from pics_cli.core.images.cutouts import cut_patch
from pics_cli.core.images.masks import box_mask
from pics_cli.core.recipes.sources import SceneRelation
from pics_cli.core.scenes.drawn.plan import plan_scene
from pics_cli.core.scenes.drawn.render import RenderedScene, render_scene
from pics_cli.core.scenes.drawn.spec import ScenePlan, SceneSettings

ONE_OBJECT = SceneSettings(256, 1, (("apart", 1.0),), 25.0, 0.6)


def detailed(index: int, relation: SceneRelation, detail: float = 1.0, size: int = 128) -> RenderedScene:
    return render_scene(plan_scene(SceneSettings(size, 2, ((relation, 1.0),), 5.0, 0.3, detail), "held_out", 11, index))


def fineness(rgba: np.ndarray) -> float:
    """Mean strength of the edges inside the object."""
    inside = cv2.erode((rgba[..., 3] == 255).astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    grey = cv2.cvtColor(np.ascontiguousarray(rgba[..., :3]), cv2.COLOR_RGB2GRAY).astype(np.float32)
    return float(np.abs(cv2.Laplacian(grey, cv2.CV_32F))[inside].mean())


def over_white(rgba: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    alpha = rgba[..., 3:] / 255
    return rgba[..., :3] * alpha + 255 * (1 - alpha)


def square(picture: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The box of what is not white, 64x64."""
    x, y, across, down = cv2.boundingRect((picture.min(axis=2) < 250).astype(np.uint8))
    part = picture[y : y + down, x : x + across].astype(np.float32)
    return cv2.resize(part, (64, 64), interpolation=cv2.INTER_AREA).astype(np.float64)


@pytest.mark.parametrize("size", [64, 256, 512])
def test_alternates_are_centred_on_nothing(size: int) -> None:
    for index in range(4):
        for rgba in render_scene(plan_scene(replace(ONE_OBJECT, size=size), "train", 3, index)).alternates:
            assert rgba.shape == (224, 224, 4)
            assert rgba.dtype == np.uint8
            alpha = rgba[..., 3]
            assert np.all(rgba[alpha == 0] == (255, 255, 255, 0))
            assert np.mean(alpha == 255) > 0.03
            x, y, across, down = cv2.boundingRect((alpha > 127).astype(np.uint8))
            assert 0.68 * 224 <= max(across, down) <= 0.92 * 224
            assert abs(x + across / 2 - 112) < 8
            assert abs(y + down / 2 - 112) < 8


def without_change(index: int) -> tuple[ScenePlan, ScenePlan]:
    """The same scene with other views that are not other, and with turned ones."""
    plan = plan_scene(ONE_OBJECT, "train", 4, index)
    return replace(plan, settings=replace(ONE_OBJECT, turn=0.0, light=0.0)), plan


def test_an_alternate_without_turn_and_light_is_the_object_itself() -> None:
    turned_away = 0
    for index in range(8):
        same, other = without_change(index)
        drawn = render_scene(same)
        own = square(cut_patch(drawn.image, box_mask(drawn.masks[0]), 1.1).rgb.astype(np.float64))
        near = np.abs(square(over_white(drawn.alternates[0])) - own).mean()
        far = np.abs(square(over_white(render_scene(other).alternates[0])) - own).mean()
        assert near < 12
        turned_away += far > 1.5 * near
    assert turned_away >= 6


def test_turn_and_light_each_change_the_view() -> None:
    for index in range(4):
        same, _ = without_change(index)
        still = over_white(render_scene(same).alternates[0])
        for settings in (replace(same.settings, turn=60.0), replace(same.settings, light=1.0)):
            moved = over_white(render_scene(replace(same, settings=settings)).alternates[0])
            assert np.abs(moved - still).mean() > 1.0


def test_detail_sharpens_the_other_views_alone() -> None:
    gains = []
    for index in range(3):
        coarse, fine = detailed(index, "occluding", size=192), detailed(index, "occluding", 2.0, 192)
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
    for rgba in detailed(index, "containing", 2.0, 256).alternates:
        clear = (rgba[..., 3] < 128).astype(np.uint8)
        _, labels, stats, _ = cv2.connectedComponentsWithStats(clear, connectivity=4)
        outside = labels[0, 0]
        holes = [area for at, area in enumerate(stats[:, cv2.CC_STAT_AREA]) if at not in (0, outside)]
        assert all(area > 60 for area in holes), holes
