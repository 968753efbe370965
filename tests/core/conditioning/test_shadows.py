"""Shadow maps: on the right side, as long and as soft as the lamp says, and where ray-cast scenes have them."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from pics_cli.core.conditioning.shadows import (
    PlacedAlpha,
    draw_shadow_maps,
    layer_shadows,
    shadows_of_orders,
)
from pics_cli.core.images.geometry import Letterbox
from pics_cli.core.images.lighting import Lighting
from pics_cli.core.scenes.drawn.plan import plan_scene
from pics_cli.core.scenes.drawn.render import render_scene
from pics_cli.core.scenes.drawn.spec import SceneSettings

LAMP = Lighting(azimuth=90, elevation=45, radius=2, strength=1, pitch=30)
SIDE = 200


def bottle(mirrored: bool = False) -> PlacedAlpha:
    """An outline that is wider at one side, standing in the middle."""
    alpha = np.zeros((60, 31), np.uint8)
    alpha[:25, 11:20] = 255
    alpha[25:, 4:27] = 255
    alpha[10:20, 20:29] = 255
    return PlacedAlpha(85, 80, alpha[:, ::-1].copy() if mirrored else alpha)


def cast_by(lamp: Lighting | None, placed: PlacedAlpha | None = None) -> npt.NDArray[np.float32]:
    return draw_shadow_maps(placed or bottle(), lamp, SIDE, SIDE)[0]


def centre(weights: npt.NDArray[np.float32]) -> tuple[float, float]:
    y, x = np.indices(weights.shape)
    return float((x * weights).sum() / weights.sum()), float((y * weights).sum() / weights.sum())


def test_the_shadow_falls_away_from_the_lamp() -> None:
    x, y = centre(cast_by(LAMP))
    assert x < 85
    assert centre(cast_by(replace(LAMP, azimuth=-90)))[0] > 115
    assert centre(cast_by(replace(LAMP, azimuth=0)))[1] < y - 4 < centre(cast_by(replace(LAMP, azimuth=180)))[1] - 8


def test_a_mirrored_scene_has_a_mirrored_shadow() -> None:
    straight = draw_shadow_maps(bottle(), LAMP, SIDE, SIDE + 1)
    mirrored = draw_shadow_maps(bottle(mirrored=True), replace(LAMP, azimuth=-90), SIDE, SIDE + 1)
    assert np.abs(straight[:, :, ::-1] - mirrored).mean() < 0.002


def test_higher_lamps_cast_shorter_shadows_and_larger_ones_softer() -> None:
    reach = [SIDE - np.flatnonzero(cast_by(replace(LAMP, elevation=e)).max(0) > 0.5)[0] for e in (25, 45, 70)]
    assert reach[0] > reach[1] > reach[2]
    steepest = [np.abs(np.diff(cast_by(replace(LAMP, radius=radius)))).max() for radius in (0.3, 8, 25)]
    assert steepest[0] > steepest[1] > steepest[2]
    soft = cast_by(replace(LAMP, radius=12))
    widths = [np.count_nonzero((soft[:, x] > 0.1) & (soft[:, x] < 0.9)) for x in (80, 45)]
    assert widths[0] < widths[1], "softer where it is far from the object"


def test_without_a_lamp_only_the_sky_is_missing() -> None:
    for lamp in (None, replace(LAMP, strength=0)):
        cast, ambient, contact = draw_shadow_maps(bottle(), lamp, SIDE, SIDE)
        assert not cast.any()
        assert ambient.max() > 0.5
        assert contact.max() > 0.5
        assert np.count_nonzero(contact > 0.05) < np.count_nonzero(ambient > 0.05)
    half = cast_by(replace(LAMP, strength=0.5))
    np.testing.assert_allclose(half, cast_by(LAMP) / 2, atol=1e-6)


def test_contact_is_at_the_lower_edge() -> None:
    contact = draw_shadow_maps(bottle(), LAMP, SIDE, SIDE)[2]
    assert centre(contact)[1] == pytest.approx(140, abs=6)
    assert not contact[:120].any()


@pytest.mark.parametrize("side", [1, 5])
def test_nothing_casts_no_shadow(side: int) -> None:
    placed = PlacedAlpha(0, 0, np.zeros((side, side), np.uint8))
    assert not draw_shadow_maps(placed, LAMP, 20, 20).any()


def test_objects_partly_outside_and_of_one_pixel() -> None:
    for placed in (bottle()._replace(left=-20.0, top=170.0), PlacedAlpha(3, 4, np.full((1, 1), 255, np.uint8))):
        maps = draw_shadow_maps(placed, LAMP, SIDE, SIDE)
        assert np.isfinite(maps).all()
        assert 0 <= maps.min() <= maps.max() <= 1


def test_shadows_fall_on_what_is_behind_and_not_on_what_is_in_front() -> None:
    shadow = np.full((1, 1, 4, 4), 0.5, np.float32)
    maps, alphas = np.concatenate([shadow, 0 * shadow]), np.zeros((2, 4, 4), np.float32)
    alphas[1, :, :2] = 1
    np.testing.assert_array_equal(layer_shadows(maps, alphas, (0, 1))[0], [[0, 0, 0.5, 0.5]] * 4)
    np.testing.assert_array_equal(layer_shadows(maps, alphas, (1, 0))[0], [[0.5] * 4] * 4)


def test_at_another_size_it_is_the_same_shadow() -> None:
    fine = shadows_of_orders([bottle()], LAMP, [(0,)], SIDE, SIDE)[0]
    letterbox = Letterbox(SIDE, SIDE, SIDE // 2)
    coarse = shadows_of_orders([bottle().scaled(letterbox)], LAMP, [(0,)], SIDE // 2, SIDE // 2)[0]
    for large, small in zip(fine, coarse, strict=True):
        shrunk = cv2.resize(large, (SIDE // 2, SIDE // 2), interpolation=cv2.INTER_AREA)
        assert np.abs(shrunk - small).mean() < 0.01


def test_ray_cast_scenes_have_their_shadows_there() -> None:
    """Where drawn scenes are darker than their clean plates: as the maps say, and not as those of the opposite lamp."""
    settings = SceneSettings(128, 2, (("apart", 1.0), ("touching", 1.0), ("occluding", 1.0)), 0, 0)
    right, wrong = list[float](), list[float]()
    for index in range(10):
        plan = plan_scene(settings, "train", 5, index)
        scene = render_scene(plan)
        placed = [PlacedAlpha(0, 0, mask.astype(np.uint8) * 255) for mask in scene.full_masks]
        ground = ~np.any(scene.full_masks, axis=0)
        darker = np.log((scene.clean.mean(2) + 5) / (scene.image.mean(2) + 5))[ground]
        lamp = plan.lighting
        opposite = replace(lamp, azimuth=-lamp.azimuth)
        for light, found in ((lamp, right), (opposite, wrong)):
            cast = shadows_of_orders(placed, light, [plan.order[::-1]], 128, 128)[0, 0]
            found.append(np.corrcoef(cast[ground], darker)[0, 1])
    assert np.mean(right) > 0.6
    assert np.mean(right) > np.mean(wrong) + 0.4
