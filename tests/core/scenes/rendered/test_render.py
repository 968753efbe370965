"""Rendered scenes against a rasterizer of a few lines, against themselves with objects hidden, and byte for byte."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from helpers.rendered_raw import make_raw
from pics_cli.core.recipes.sources import SceneRelation
from pics_cli.core.runtime.bad_samples import BadRecords
from pics_cli.core.scenes.drawn.render import RenderedScene
from pics_cli.core.scenes.drawn.spec import SceneSettings
from pics_cli.core.scenes.rendered.material import open_material
from pics_cli.core.scenes.rendered.mitsuba_scene import model_shapes, render_guides, render_linear, surface_shapes
from pics_cli.core.scenes.rendered.models import load_model
from pics_cli.core.scenes.rendered.plan import plan_scene
from pics_cli.core.scenes.rendered.render import render_scene, tone_map
from pics_cli.core.scenes.rendered.spec import RenderedPlan

SIZE, FINE = 96, 2
RELATIONS: tuple[tuple[SceneRelation, float], ...] = (("occluding", 1.0), ("supporting", 1.0), ("containing", 1.0))
Depth = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> list[RenderedPlan]:
    raw: Path = make_raw(tmp_path_factory.mktemp("raw") / "rendered")
    material = open_material(raw / "models", raw / "hdris", raw / "grounds", "train", BadRecords())
    settings = [SceneSettings(SIZE, count, RELATIONS, 10, 1) for count in (2, 3)]
    return [plan_scene(s, material, "train", 2, 1, index) for index, s in enumerate(settings)]


@pytest.fixture(scope="module")
def scenes(plans: list[RenderedPlan]) -> list[RenderedScene]:
    return [render_scene(plan) for plan in plans]


def rasterize(plan: RenderedPlan, k: int) -> Depth:
    """Depths of an object by triangles, inf where it is not; `FINE` samples along each side of a pixel."""
    placed, camera = plan.objects[k], plan.camera.scaled(FINE)
    side = SIZE * FINE
    depth = np.full((side, side), np.inf)
    for part in load_model(placed.entry).parts:
        for corners in camera.project(placed.to_world(part.positions)).reshape(-1, 3, 3):
            x0, y0 = np.maximum(np.floor(corners[:, :2].min(axis=0)).astype(int), 0).tolist()
            x1, y1 = np.minimum(np.ceil(corners[:, :2].max(axis=0)).astype(int) + 1, side).tolist()
            if x1 <= x0 or y1 <= y0:
                continue
            y, x = np.mgrid[y0:y1, x0:x1] + 0.5
            (ax, ay, az), (bx, by, bz), (cx, cy, cz) = corners.tolist()
            area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
            if abs(area) < 1e-9:
                continue
            u = ((bx - x) * (cy - y) - (by - y) * (cx - x)) / area
            v = ((cx - x) * (ay - y) - (cy - y) * (ax - x)) / area
            inverse = u / az + v / bz + (1 - u - v) / cz
            inside = (u >= 0) & (v >= 0) & (u + v <= 1)
            found = np.where(inside, 1 / np.where(inside, inverse, 1), np.inf)
            depth[y0:y1, x0:x1] = np.minimum(depth[y0:y1, x0:x1], found)
    return depth


def half_covered(fine: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    return fine.reshape(SIZE, FINE, SIZE, FINE).mean(axis=(1, 3)) >= 0.5


def agreement(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> float:
    return int(np.count_nonzero(a & b)) / max(int(np.count_nonzero(a | b)), 1)


def test_masks_and_order_agree_with_a_rasterizer(plans: list[RenderedPlan], scenes: list[RenderedScene]) -> None:
    overlaps = 0
    for plan, scene in zip(plans, scenes, strict=True):
        depths = np.stack([rasterize(plan, k) for k in range(len(plan.objects))])
        nearest = depths.min(axis=0)
        for k, depth in enumerate(depths):
            assert agreement(scene.full_masks[k], half_covered(np.isfinite(depth))) > 0.95
            assert agreement(scene.masks[k], half_covered(np.isfinite(depth) & (depth <= nearest))) > 0.93
            assert not np.any(scene.masks[k] & ~scene.full_masks[k])
        containers = {(p.subject, sum(p.objects) - p.subject) for p in plan.placed_pairs if p.relation == "containing"}
        for position, front in enumerate(scene.order):
            for back in scene.order[position + 1 :]:
                both = np.isfinite(depths[front]) & np.isfinite(depths[back])
                if both.sum() > 20 and (front, back) not in containers:
                    overlaps += 1
                    assert np.mean(depths[front][both] < depths[back][both]) > 0.5
    assert overlaps >= 1


def test_one_object_hidden_at_a_time(plans: list[RenderedPlan], scenes: list[RenderedScene]) -> None:
    """What was behind a hidden object is seen whole; without all of them the picture is the clean plate."""
    for plan, scene in zip(plans, scenes, strict=True):
        for k in plan.order[-1:]:
            alone = render_scene(
                replace(plan, objects=(plan.objects[k],), other_lighting=(plan.other_lighting[k],), order=(0,),
                        placed_pairs=())
            )  # fmt: skip
            np.testing.assert_array_equal(alone.masks[0], scene.full_masks[k])
            np.testing.assert_allclose(alone.clean.mean(), scene.clean.mean(), atol=0.5)
        background = surface_shapes(plan.ground, plan.wall, plan.wall_distance)
        for number, placed in enumerate(plan.bystanders):
            background |= model_shapes(placed, f"other{number}")
        guides = render_guides(background, plan.camera, SIZE, 77)
        empty = tone_map(render_linear(background, plan.lighting, plan.camera, guides, 16, 77)[0], plan.lighting)
        difference = np.abs(scene.clean.astype(int) - empty).mean(axis=2)
        assert difference.mean() < 6  # few paths, and grain
        changed = np.abs(scene.image.astype(int) - scene.clean).mean(axis=2)
        covered = np.any(scene.full_masks, axis=0)
        assert changed[covered].mean() > 2 * difference.mean()


def test_other_views_are_cut_out_softly(scenes: list[RenderedScene]) -> None:
    for scene in scenes:
        for view in scene.alternates:
            assert view.shape == (224, 224, 4)
            alpha = view[..., 3]
            rows, columns = np.where(alpha > 127)
            assert 0.68 < max(np.ptp(rows), np.ptp(columns)) / 224 < 0.92
            assert (view[alpha == 0, :3] == 255).all()
            assert 0 < np.mean((alpha > 0) & (alpha < 255)) < 0.1


def test_without_a_change_of_light_and_turn_the_view_is_what_the_picture_shows(plans: list[RenderedPlan]) -> None:
    plan = plans[0]
    k = plan.order[0]
    plan = replace(
        plan, settings=replace(plan.settings, turn=0.0, light=0.0), samples=6, objects=(plan.objects[k],),
        other_lighting=(plan.lighting,), order=(0,), placed_pairs=(), bystanders=(), wall=None,
    )  # fmt: skip
    scene = render_scene(plan)
    seen = scene.image[scene.masks[0]].mean(axis=0)
    view = scene.alternates[0]
    assert view[view[..., 3] > 200, :3].mean(axis=0) == pytest.approx(seen, abs=30)  # but for light off the ground


def test_the_same_plan_gives_the_same_bytes(plans: list[RenderedPlan], scenes: list[RenderedScene]) -> None:
    """Also from a pickled plan, as workers get it; in other processes: `test_rendered_scenes`."""
    again = render_scene(pickle.loads(pickle.dumps(plans[0])))  # noqa: S301  (made in this line)
    assert np.array_equal(again.image, scenes[0].image)
    assert np.array_equal(again.clean, scenes[0].clean)
    assert all(map(np.array_equal, again.masks, scenes[0].masks))
    assert all(map(np.array_equal, again.alternates, scenes[0].alternates))
    assert not np.array_equal(again.image, scenes[1].image)
