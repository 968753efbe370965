"""Light: what a panorama and a lamp are worth on open ground, and how other views' light compares with the scene's."""

from __future__ import annotations

import math
from pathlib import Path

import mitsuba as mi
import numpy as np
import pytest

from helpers.rendered_raw import write_hdri
from pics_cli.core.scenes.drawn.camera import Camera
from pics_cli.core.scenes.rendered.lights import (
    Lamp,
    SceneLight,
    black_body,
    load_hdri,
    sample_lighting,
    vary_lighting,
)
from pics_cli.core.scenes.rendered.mitsuba_scene import Shapes, render_guides, render_linear


@pytest.fixture(scope="module")
def hdri(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hdri") / "sky.exr"
    write_hdri(path, 64)
    return path


WHITE = (1.0, 1.0, 1.0)


def ground_and_post(height: float) -> Shapes:
    """A white ground, and a thin post in the middle of it."""
    bsdf = {"type": "diffuse", "reflectance": {"type": "rgb", "value": 0.5}}
    plane = {"type": "rectangle", "to_world": mi.ScalarTransform4f().scale(20), "bsdf": bsdf}
    post = {"type": "cylinder", "p0": [0, 0, 0], "p1": [0, 0, height], "radius": 0.03, "bsdf": bsdf}
    return {"ground": plane} | ({"post": post} if height else {})


def from_above(size: int) -> Camera:
    return Camera((0.0, -0.0, 6.0), math.pi / 2, size * 3.0, (size / 2, size / 2))


@pytest.mark.parametrize(("strength", "elevation"), [(0.0, 40), (0.7, 60), (0.7, 15), (0.95, 30)])
def test_open_ground_receives_one(hdri: Path, strength: float, elevation: float) -> None:
    light = SceneLight(Lamp(30, elevation, 3, strength), WHITE, WHITE, hdri, 70, 1.0, 0.0)
    camera = Camera((0.0, -4.0, 4.0), math.pi / 4, 96.0, (16, 16))
    shapes = ground_and_post(0)
    picture, _ = render_linear(shapes, light, camera, render_guides(shapes, camera, 32, 1), 64, 1)
    luminance = picture @ np.array([0.2126, 0.7152, 0.0722])
    assert luminance.mean() * math.pi / 0.5 == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize("azimuth", [0.0, 60.0, 90.0, 180.0, -135.0])
def test_shadows_fall_away_from_the_lamp(hdri: Path, azimuth: float) -> None:
    """0: from behind the camera, so the shadow points up in the picture; 90: from the right, so it points left."""
    light = SceneLight(Lamp(azimuth, 45, 1, 0.9), WHITE, WHITE, hdri, 0, 1.0, 0.0)
    size, camera = 64, from_above(64)
    lit, shadowed = (
        render_linear(shapes, light, camera, render_guides(shapes, camera, size, 1), 16, 1)[0].mean(axis=2)
        for shapes in (ground_and_post(0), ground_and_post(0.4))
    )
    dark = shadowed < 0.6 * lit
    y, x = np.mean(np.argwhere(dark), axis=0) - size / 2
    length = math.hypot(x, y)
    assert length > 3
    assert (x / length, y / length) == pytest.approx(
        (-math.sin(math.radians(azimuth)), -math.cos(math.radians(azimuth))), abs=0.2
    )


def test_a_panorama_is_cut_and_scaled(hdri: Path) -> None:
    pixels = load_hdri(hdri)
    assert pixels.shape == (256, 512, 3)
    height = np.cos((np.arange(256) + 0.5) / 256 * np.pi)
    weights = np.maximum(height, 0) * np.sqrt(1 - height**2) * 2 * np.pi**2 / (256 * 512)
    luminance = pixels @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    assert (luminance.sum(axis=1) * weights).sum() == pytest.approx(1, abs=1e-3)
    assert luminance.max() < 6 * luminance[:128].mean()


def test_what_is_no_panorama_is_named(tmp_path: Path) -> None:
    write_hdri(tmp_path / "square.exr", 32, 32)
    with pytest.raises(ValueError, match="is 32 x 32 pixels, and no panorama: those are twice as wide as high"):
        load_hdri(tmp_path / "square.exr")
    (tmp_path / "broken.exr").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot be read"):
        load_hdri(tmp_path / "broken.exr")


def test_black_bodies_have_luminance_one_and_turn_blue() -> None:
    ratios = []
    for kelvin in (2000, 3000, 5000, 6500, 9000, 12000):
        red, green, blue = black_body(kelvin)
        assert 0.2126 * red + 0.7152 * green + 0.0722 * blue == pytest.approx(1)
        ratios.append(blue / red)
    assert ratios == sorted(ratios)
    assert ratios[3] == pytest.approx(1, abs=0.1)


def test_most_views_nearly_fit_their_scene_and_some_do_not(hdri: Path) -> None:
    rng = np.random.default_rng(0)
    near = 0
    for _ in range(300):
        scene = sample_lighting([hdri], rng)
        assert -180 < scene.lamp.azimuth <= 180
        assert 0 <= scene.lamp.strength < 1
        assert vary_lighting(scene, [hdri], 0, rng) == scene
        other = vary_lighting(scene, [hdri], 1, rng)
        assert -180 < other.lamp.azimuth <= 180
        near += abs(math.log2(other.exposure / scene.exposure)) < 0.8 and other.contrast == scene.contrast
    assert 0.5 < near / 300 < 0.7
