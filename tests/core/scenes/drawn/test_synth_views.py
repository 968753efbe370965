"""Other views of the objects, and what the two pools share: nothing."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from pics_cli.core.images.cutouts import cut_patch
from pics_cli.core.images.masks import box_mask
from pics_cli.core.scenes.drawn import background, colors, grounds, patterns, photos, shapes
from pics_cli.core.scenes.drawn.plan import plan_scene
from pics_cli.core.scenes.drawn.render import render_scene
from pics_cli.core.scenes.drawn.spec import ScenePlan, SceneSettings
from pics_cli.errors import PicsError

ALONE = SceneSettings(256, 1, (("apart", 1.0),), 25.0, 0.6)


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
        for rgba in render_scene(plan_scene(replace(ALONE, size=size), "train", 3, index)).alternates:
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
    plan = plan_scene(ALONE, "train", 4, index)
    return replace(plan, settings=replace(ALONE, turn=0.0, light=0.0)), plan


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
        for change in ({"turn": 60.0}, {"light": 1.0}):
            moved = over_white(render_scene(replace(same, settings=replace(same.settings, **change))).alternates[0])
            assert np.abs(moved - still).mean() > 1.0


def things_of(pool: str) -> list[ScenePlan]:
    style = SceneSettings(64, 2, (("apart", 1.0), ("supporting", 1.0), ("containing", 1.0)), 0, 0)
    return [plan_scene(style, pool, 1, index) for index in range(60)]  # type: ignore[arg-type]


def test_pools_share_no_family_pattern_colour_or_photograph() -> None:
    for families in shapes.FAMILIES.values():
        assert not families["train"].keys() & families["held_out"].keys()
    for table in (patterns.PATTERNS, grounds.GROUNDS):
        assert not table["train"].keys() & table["held_out"].keys()
    assert not set(photos.PHOTOS["train"]) & set(photos.PHOTOS["held_out"])

    def colours(value: object) -> set[int]:
        if isinstance(value, int):
            return {value}
        items = value.values() if isinstance(value, dict) else value
        return set().union(*(colours(item) for item in items))  # type: ignore[attr-defined]

    kinds = (colors.OBJECT_PALETTES, colors.GROUND_TONES, colors.WALL_COLORS, colors.SKY_COLORS)
    train, held_out = (set().union(*(colours(kind[pool]) for kind in kinds)) for pool in ("train", "held_out"))
    assert not train & held_out


def test_plans_keep_to_their_pool() -> None:
    for pool in ("train", "held_out"):
        used = set()
        for plan in things_of(pool):
            assert plan.background.ground in grounds.GROUNDS[pool]
            assert plan.background.backdrop in background.BACKDROPS[pool]
            for thing in plan.objects:
                assert thing.family in shapes.FAMILIES[thing.category][pool]
                assert thing.material.pattern == patterns.LABEL or thing.material.pattern in patterns.PATTERNS[pool]
                used.add(thing.category)
        assert len(used) >= 9, "most categories occur"


def test_pools_open_only_their_own_photographs(monkeypatch: pytest.MonkeyPatch) -> None:
    real, opened = photos.load_photo, set()
    monkeypatch.setattr(photos, "load_photo", lambda name: (opened.add(name), real(name))[1])
    for pool in ("train", "held_out"):
        opened.clear()
        for seed in range(12):
            patterns.texture(pool, patterns.LABEL, colors.OBJECT_PALETTES[pool][0], seed, 64)
        assert opened == set(photos.PHOTOS[pool])


def test_same_index_differs_between_pools_and_seeds() -> None:
    one = plan_scene(ALONE, "train", 1, 0)
    assert one.objects != plan_scene(ALONE, "held_out", 1, 0).objects
    assert one.objects != plan_scene(ALONE, "train", 2, 0).objects
    assert one.objects != plan_scene(ALONE, "train", 1, 1).objects


def test_importing_does_not_import_scikit_image() -> None:
    code = (
        "import sys, pics_cli.core.scenes.drawn.render\n"
        "print([m for m in sys.modules if m.startswith(('skimage', 'scipy'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_missing_photographs_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    photos._photo_directory.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(PicsError, match="scikit-image, which is not installed") as caught:
        photos.load_photo.__wrapped__("coffee.png")
    assert caught.value.hint == "pip install scikit-image"
    photos._photo_directory.cache_clear()
