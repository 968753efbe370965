"""Placement: where things come to rest, and that in planned scenes nothing floats or cuts through anything."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import trimesh
from scipy.spatial import cKDTree

from helpers.rendered_raw import bowl, make_raw
from pics_cli.core.recipes.sources import SceneRelation
from pics_cli.core.runtime.bad_samples import BadRecords
from pics_cli.core.scenes.drawn.spec import SceneSettings
from pics_cli.core.scenes.rendered.material import open_material
from pics_cli.core.scenes.rendered.models import load_model
from pics_cli.core.scenes.rendered.placement import PlacedModel, collide, drop
from pics_cli.core.scenes.rendered.plan import plan_scene
from pics_cli.core.scenes.rendered.spec import Material, RenderedPlan

RELATIONS: tuple[tuple[SceneRelation, float], ...] = (
    ("apart", 1.0),
    ("touching", 1.0),
    ("occluding", 1.0),
    ("supporting", 2.0),
    ("containing", 2.0),
)
Points = npt.NDArray[np.float32]


def points_of(solid: trimesh.Trimesh, at: tuple[float, float, float] = (0, 0, 0), upright: bool = False) -> Points:
    """Points of a solid, its base at the given height."""
    solid = solid.copy()
    if upright:
        solid.apply_transform(trimesh.transformations.rotation_matrix(np.pi / 2, [1, 0, 0]))
    solid.apply_translation([0, 0, -solid.bounds[0, 2]]).apply_translation(at)
    return np.asarray(trimesh.sample.sample_surface(solid, 20_000, seed=1)[0], np.float32)


def box(*sides: float) -> trimesh.Trimesh:
    return trimesh.creation.box(sides)


def test_a_box_rests_on_a_box() -> None:
    below = points_of(box(1, 1, 0.4))
    height, stable = drop(points_of(box(0.3, 0.3, 0.3), at=(0.2, 0.1, 0)), [below])
    assert height == pytest.approx(0.4, abs=0.002)
    assert stable


def test_it_falls_to_the_ground_beside_and_tips_over_at_the_edge() -> None:
    below = points_of(box(1, 1, 0.4))
    falling = box(0.3, 0.3, 0.3)
    assert drop(points_of(falling, at=(0.9, 0, 0)), [below])[0] == 0
    height, stable = drop(points_of(falling, at=(0.6, 0, 0)), [below])
    assert height == pytest.approx(0.4, abs=0.002)
    assert not stable
    assert drop(points_of(falling, at=(0.42, 0, 0)), [below])[1]


def test_a_ball_comes_to_rest_inside_a_bowl() -> None:
    """A sphere of radius r touches the cone of the bowl's inner wall; its height follows from the wall's slope."""
    radius = 0.25
    height, stable = drop(points_of(trimesh.creation.icosphere(4, radius)), [points_of(bowl(), upright=True)])
    slope = np.arctan2(0.45, 0.45 - 0.26)  # of the inner wall, from (0.26, 0.05) to (0.45, 0.5)
    apex = 0.05 - 0.26 * np.tan(slope)
    touching = apex + radius / np.cos(slope) - radius
    assert height == pytest.approx(max(touching, 0.05), abs=0.03)
    assert stable


def test_things_collide_where_they_share_space() -> None:
    a = points_of(box(0.4, 0.4, 0.4))
    assert collide(a, points_of(box(0.4, 0.4, 0.4), at=(0.3, 0, 0)), 0.01)
    assert not collide(a, points_of(box(0.4, 0.4, 0.4), at=(0.41, 0, 0)), 0.01)
    assert not collide(a, points_of(box(0.4, 0.4, 0.4), at=(0, 0, 0.4)), 0.01)
    top, leg = points_of(box(1, 1, 0.05), at=(0, 0, 0.6)), points_of(box(0.05, 0.05, 0.6), at=(0.45, 0.45, 0))
    assert not collide(np.concatenate([top, leg]), a, 0.01)  # it may stand under a table


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    raw: Path = make_raw(tmp_path_factory.mktemp("raw") / "rendered")
    return open_material(raw / "models", raw / "hdris", raw / "grounds", "train", BadRecords())


def plan(material: Material, index: int, objects: int = 3) -> RenderedPlan:
    return plan_scene(SceneSettings(96, objects, RELATIONS, 10, 1), material, "train", 2, 5, index)


def surface(placed: PlacedModel, count: int = 4000) -> tuple[trimesh.Trimesh, npt.NDArray[np.float64]]:
    """A placed model as one mesh of the world, and points on it."""
    corners = np.concatenate([part.positions for part in load_model(placed.entry).parts])
    mesh = trimesh.Trimesh(placed.to_world(corners), np.arange(len(corners)).reshape(-1, 3), process=True)
    return mesh, np.asarray(trimesh.sample.sample_surface(mesh, count, seed=3)[0])


def depth_inside(mesh: trimesh.Trimesh, points: npt.NDArray[np.float64]) -> float:
    """How deep the deepest of some points lies in a closed mesh: winding number (van Oosterom and Strackee 1983)."""
    near = points[((points > mesh.bounds[0]) & (points < mesh.bounds[1])).all(axis=1)][:200]
    if not len(near):
        return 0.0
    a, b, c = (mesh.triangles[None, :, k] - near[:, None] for k in range(3))
    lengths = [np.linalg.norm(v, axis=2) for v in (a, b, c)]
    volume = np.einsum("nfk,nfk->nf", a, np.cross(b, c))
    dots = [np.einsum("nfk,nfk->nf", u, v) for u, v in ((a, b), (b, c), (c, a))]
    divisor = lengths[0] * lengths[1] * lengths[2]
    divisor += dots[0] * lengths[2] + dots[1] * lengths[0] + dots[2] * lengths[1]
    winding = np.arctan2(volume, divisor).sum(axis=1) / (2 * np.pi)
    inside = near[np.abs(winding) > 0.5]
    if not len(inside):
        return 0.0
    tree = cKDTree(np.asarray(trimesh.sample.sample_surface(mesh, 20_000, seed=4)[0]))
    return float(tree.query(inside)[0].max())


def test_nothing_floats_and_nothing_cuts_through(material: Material) -> None:
    """Measured on other points than those that it was placed by."""
    hosted = 0
    for index in range(4):
        scene = plan(material, index, objects=2 + index % 2)
        things = [surface(placed) for placed in (*scene.objects, *scene.bystanders)]
        for k, (mesh, points) in enumerate(things):
            others = [j for j in range(len(things)) if j != k]
            gap = mesh.bounds[0, 2]
            if gap > 1e-5:  # it stands on or in another
                hosted += 1
                gap = min(float(cKDTree(things[j][1]).query(points)[0].min()) for j in others)
            size = float(mesh.extents.max())
            assert -1e-5 <= gap < 0.03 * size, (index, k)
            for j in others:
                assert depth_inside(mesh, things[j][1]) < 0.035 * size, (index, k, j)
    assert hosted >= 2


def test_contents_lie_below_the_rim_and_guests_above_their_host(material: Material) -> None:
    seen = set()
    for index in range(8):
        scene = plan(material, index, objects=2)
        (pair,) = scene.placed_pairs
        if pair.relation not in ("containing", "supporting"):
            continue
        host, guest = scene.objects[pair.subject], scene.objects[1 - pair.subject]
        top = host.size[2]
        if pair.relation == "containing":
            assert 0 < guest.position[2] < 0.95 * top
            assert scene.order[0] == pair.subject
        else:
            assert guest.position[2] > 0.2 * top
            assert scene.order[0] != pair.subject
        seen.add(pair.relation)
    assert seen == {"containing", "supporting"}


def test_a_plan_is_a_function_of_its_arguments(material: Material) -> None:
    assert plan(material, 3) == plan(material, 3)
    assert plan(material, 3) != plan(material, 4)
