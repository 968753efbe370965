"""Models: what is read from OBJ, GLB and libraries, what they are good for, and what is passed over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from helpers.rendered_raw import bowl, cup, lathe, write_library, write_obj
from pics_cli.core.recipes.sources import RenderedPool
from pics_cli.core.runtime.bad_samples import BadRecords
from pics_cli.core.scenes.rendered.catalogue import ModelEntry, find_models, pool_of
from pics_cli.core.scenes.rendered.models import NUM_POINTS, Model, UnusableModel, load_model
from pics_cli.errors import PicsError

BOX = trimesh.creation.box((1.0, 0.5, 0.25))


@pytest.fixture(autouse=True)
def _nothing_remembered() -> Iterator[None]:
    load_model.cache_clear()
    yield
    load_model.cache_clear()


def read(path: Path) -> Model:
    return load_model(ModelEntry(path.name, path, "", path.stem))


def test_a_model_stands_on_the_ground_and_is_one_long(tmp_path: Path) -> None:
    moved = BOX.copy().apply_translation([5, 7, 9])
    write_obj(tmp_path / "box.obj", moved, [200, 30, 20])
    model = read(tmp_path / "box.obj")
    assert model.size == pytest.approx((1, 0.25, 0.5))  # y of the file is up
    assert model.length == pytest.approx(100)  # its unit could be metres
    corners = model.parts[0].positions
    np.testing.assert_allclose(corners.min(axis=0), (-0.5, -0.125, 0), atol=1e-6)
    np.testing.assert_allclose(corners.max(axis=0), (0.5, 0.125, 0.5), atol=1e-6)
    assert model.parts[0].color == pytest.approx((200 / 255, 30 / 255, 20 / 255))
    assert model.support == pytest.approx(0.5, abs=1e-3)
    assert model.cavity is None


def test_points_lie_on_the_surface_everywhere(tmp_path: Path) -> None:
    write_obj(tmp_path / "box.obj", BOX, [200, 30, 20])
    points = read(tmp_path / "box.obj").points
    assert points.shape == (NUM_POINTS, 3)
    half = np.array([0.5, 0.125, 0.25])
    distance = np.abs(np.abs(points - [0, 0, 0.25]) - half).min(axis=1)
    assert distance.max() < 1e-6
    faces = 2 * np.array([0.25 * 0.5, 1 * 0.5, 1 * 0.25])  # each axis' pair of faces, by area
    inner = points[: NUM_POINTS * 4 // 5]  # then there are corners
    on_axis = np.argmin(np.abs(np.abs(inner - [0, 0, 0.25]) - half), axis=1)
    np.testing.assert_allclose(np.bincount(on_axis) / len(inner), faces / faces.sum(), atol=0.02)


def test_normals_are_smooth_on_round_things_and_sharp_on_edges(tmp_path: Path) -> None:
    ball = trimesh.creation.icosphere(subdivisions=3, radius=1.0)
    write_obj(tmp_path / "ball.obj", ball, [9, 9, 9])
    part = read(tmp_path / "ball.obj").parts[0]
    outward = (part.positions - [0, 0, 0.5]) / 0.5
    assert (np.einsum("nk,nk->n", part.normals, outward) > 0.999).all()
    write_obj(tmp_path / "box.obj", BOX, [9, 9, 9])
    assert np.abs(read(tmp_path / "box.obj").parts[0].normals).max(axis=1).min() == pytest.approx(1)


def test_hollows_are_found(tmp_path: Path) -> None:
    for name, solid in (("bowl", bowl()), ("cup", cup())):
        write_obj(tmp_path / f"{name}.obj", solid, [9, 9, 9])
    found = read(tmp_path / "bowl.obj").cavity
    assert found is not None
    assert (found.rim, found.depth) == pytest.approx((0.5, 0.45), abs=0.01)
    assert found.radius == pytest.approx(0.38, abs=0.04)
    assert (found.x, found.y) == pytest.approx((0, 0), abs=0.03)
    of_cup = read(tmp_path / "cup.obj")
    assert of_cup.cavity is not None
    assert of_cup.cavity.x < -0.1  # the handle is on the other side
    assert of_cup.support is None  # nothing stands on the floor of a cup without being in it
    torus = trimesh.creation.torus(1, 0.3).apply_transform(
        trimesh.transformations.rotation_matrix(np.pi / 2, [1, 0, 0])
    )
    write_obj(tmp_path / "ring.obj", torus, [9, 9, 9])  # lies flat: its hole has no bottom but the ground
    ring = read(tmp_path / "ring.obj")
    assert ring.cavity is not None
    assert ring.cavity.depth == pytest.approx(ring.size[2], abs=0.02)


def test_textures_and_glb(tmp_path: Path) -> None:
    picture = Image.fromarray(np.full((900, 30, 3), (10, 200, 30), np.uint8))
    solid = BOX.copy()
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=picture, roughnessFactor=0.4, metallicFactor=0.0)
    solid.visual = trimesh.visual.TextureVisuals(uv=np.zeros((len(solid.vertices), 2)), material=material)
    solid.export(tmp_path / "box.glb")
    part = read(tmp_path / "box.glb").parts[0]
    assert part.texture is not None
    assert part.texture.shape == (512, 17, 3)
    assert part.texture.reshape(-1, 3).mean(axis=0) == pytest.approx((10, 200, 30))
    assert part.uv is not None
    assert part.roughness == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda path: path.write_text("v 1 2 nonsense\nf 1 2 3\n"), "unreadable_model"),
        (lambda path: path.write_text("v 1 2 3\n"), "unreadable_model|no_faces"),
        (lambda path: write_obj(path, trimesh.creation.box((1, 0.01, 1)), [9, 9, 9]), "flat"),
        (lambda path: path.write_text(f"{path.read_text()}".replace("v ", "v nan ", 3)), "unreadable_model|flat"),
    ],
)
def test_what_cannot_stand_in_a_scene_is_named(tmp_path: Path, change, reason: str) -> None:
    write_obj(tmp_path / "model.obj", BOX, [9, 9, 9])
    change(tmp_path / "model.obj")
    with pytest.raises(UnusableModel, match=reason):
        read(tmp_path / "model.obj")


def test_transparent_parts_are_left_out_and_glass_models_passed_over(tmp_path: Path) -> None:
    write_obj(tmp_path / "model.obj", BOX, [9, 9, 9])
    material = next(tmp_path.glob("*.mtl"))
    material.write_text(material.read_text() + "\nd 0.2\n")
    with pytest.raises(UnusableModel, match="transparent"):
        read(tmp_path / "model.obj")


def test_no_file_outside_its_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    write_obj(tmp_path / "model.obj", BOX, [200, 0, 0])
    material = next(tmp_path.glob("*.mtl"))
    text = (tmp_path / "model.obj").read_text()
    (tmp_path / "inner/model.obj").write_text(text.replace(material.name, f"../{material.name}"))
    assert read(tmp_path / "model.obj").parts[0].color[0] == pytest.approx(200 / 255)
    assert read(tmp_path / "inner/model.obj").parts[0].color[0] < 0.7


def test_a_library_gives_names_and_sizes_and_no_doors(tmp_path: Path) -> None:
    write_library(tmp_path / "things.sh3f")
    bad = BadRecords()
    (entry,) = find_models(tmp_path, bad)
    assert (entry.category, entry.size) == ("red box", (20, 10, 5))
    assert bad.lines == ["missing_model: things.sh3f: model#3=../outside.obj is not in it"]
    model = load_model(entry)
    assert model.size == pytest.approx((1, 0.5, 0.25))
    assert model.length == 20


@pytest.mark.parametrize("licence", ["Creative Commons Attribution-ShareAlike 4.0", "GPL", ""])
def test_libraries_of_other_licences_are_passed_over(tmp_path: Path, licence: str) -> None:
    write_library(tmp_path / "things.sh3f", licence)
    bad = BadRecords()
    with pytest.raises(PicsError, match="no 3D models"):
        find_models(tmp_path, bad)
    assert bad.lines == [f"licence: things.sh3f: {licence or 'none stated'}; CC0 and CC BY are used"]


def test_pools_share_nothing_and_depend_on_names_alone() -> None:
    items = [(f"model{k}", k) for k in range(40)]
    names: tuple[RenderedPool, ...] = ("train", "val", "test")
    pools = {name: pool_of(items, name, "models") for name in names}
    assert sorted(k for pool in pools.values() for k in pool) == list(range(40))
    assert [len(pools[name]) for name in ("train", "val", "test")] == [28, 6, 6]
    assert {name: sorted(pool_of(items[::-1], name, "models")) for name in pools} == {
        name: sorted(pool) for name, pool in pools.items()
    }
    assert pools["test"] == [37, 13, 30, 1, 34, 15]  # so it stays on every machine
    with pytest.raises(PicsError, match=r"only 2 models \(model0, model1\)"):
        pool_of(items[:2], "train", "models")


def test_a_cone_is_neither_host(tmp_path: Path) -> None:
    write_obj(tmp_path / "cone.obj", lathe([(0.0, 0.0), (0.4, 0.0), (0.02, 0.6), (0.0, 0.6)]), [9, 9, 9])
    model = read(tmp_path / "cone.obj")
    assert (model.support, model.cavity) == (None, None)
