"""The descriptor tells objects apart through another view, another light and what hides them."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from pics_cli.core.evaluation.descriptor import describe, describe_references
from pics_cli.core.images.masks import box_mask
from pics_cli.core.recipes.sources import SceneRelation
from pics_cli.core.runtime.rng import generator
from pics_cli.core.scenes.drawn.plan import plan_scene
from pics_cli.core.scenes.drawn.render import RenderedScene, render_scene
from pics_cli.core.scenes.drawn.spec import SceneSettings

SCENES = 50
RELATIONS: tuple[tuple[SceneRelation, float], ...] = (
    ("apart", 1.0), ("touching", 1.0), ("occluding", 3.0), ("supporting", 2.0), ("containing", 2.0),
)  # fmt: skip


@cache
def scenes() -> list[RenderedScene]:
    """Held-out scenes whose other views are reverse_objects by up to 25 degrees and lit otherwise."""
    style = SceneSettings(160, 2, RELATIONS, 25.0, 0.5)
    return [render_scene(plan_scene(style, "held_out", 77, number)) for number in range(SCENES)]


@cache
def references() -> np.ndarray:
    return np.concatenate([describe_references(scene.alternates) for scene in scenes()])


def right(seen: np.ndarray) -> float:
    """Share of the objects nearest to their own other view: among 16, the scene's other object one of them."""
    nearest = []
    for number, descriptor in enumerate(seen):
        strangers = np.delete(np.arange(len(seen)), [number, number ^ 1])
        others = generator(0, "others", number).choice(strangers, 14, replace=False)
        rivals = references()[[number ^ 1, *others]]
        nearest.append(references()[number] @ descriptor > (rivals @ descriptor).max())
    return float(np.mean(nearest))


def seen_in_pictures(masks_of: int = 0) -> np.ndarray:
    """Every object as the pictures show it; masks_of: those of the scene that many further on."""
    found = []
    for number, scene in enumerate(scenes()):
        other = scenes()[(number + masks_of) % SCENES]
        for mask, full in zip(other.masks, other.full_masks, strict=True):
            found.append(describe(scene.image, mask, box_mask(full).box))
    return np.stack(found)


def test_two_views_of_one_object_against_15_others() -> None:
    assert right(seen_in_pictures()) >= 0.97
    assert right(seen_in_pictures(masks_of=1)) < 0.6


def test_only_the_object_counts() -> None:
    scene = scenes()[0]
    mask = scene.masks[0]
    other = np.where(mask[..., None], scene.image, 255 - scene.image)
    found = describe(scene.image, mask)
    assert found.dtype == np.float32
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(found, describe(other, mask))
    assert found @ describe(other, ~mask) < 0.9


@pytest.mark.parametrize("factor", [0.5, 2])
def test_size_hardly_matters(factor: float) -> None:
    scene = scenes()[1]
    big = (round(160 * factor),) * 2
    rows, columns = (np.arange(side) * 160 // side for side in big)
    at = np.ix_(rows, columns)
    one, other = describe(scene.image, scene.masks[0]), describe(scene.image[at], scene.masks[0][at])
    assert one @ other > 0.95


def test_any_shape() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (40, 300, 3), np.uint8)
    mask = np.zeros((40, 300), np.bool_)
    mask[7, 3:290] = True  # a line
    assert np.isfinite(describe(rgb, mask)).all()
    mask[:] = False
    mask[39, 299] = True  # a pixel
    assert np.linalg.norm(describe(rgb, mask, (0, 0, 300, 40))) == pytest.approx(1, abs=1e-5)


def test_bad_masks() -> None:
    rgb = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match="empty"):
        describe(rgb, np.zeros((8, 8), np.bool_))
    with pytest.raises(ValueError, match="expected the picture's"):
        describe(rgb, np.ones((4, 8), np.bool_))
    corner = np.zeros((8, 8), np.bool_)
    corner[0, 0] = True
    with pytest.raises(ValueError, match="empty"):
        describe(rgb, corner, (4, 4, 8, 8))
