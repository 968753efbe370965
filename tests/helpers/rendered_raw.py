"""Raw material of rendered scenes, made from nothing: solids as OBJ and in a .sh3f, panoramas, photographs."""

from __future__ import annotations

import zipfile
from pathlib import Path

import cv2
import mitsuba as mi
import numpy as np
import trimesh
from trimesh.visual.material import SimpleMaterial

CATALOGUE = """id=X
license={licence}
id#1=a
name#1=Red box
category#1=Kitchen
model#1=/models/red/red.obj
width#1=20
depth#1=10
height#1=5
creator#1=Somebody
movable#1=true
doorOrWindow#1=false
id#2=b
name#2=Door
category#2=Doors and windows
model#2=/models/door/door.obj
movable#2=false
doorOrWindow#2=true
id#3=c
name#3=Outside
model#3=/../outside.obj
movable#3=true
"""


def lathe(profile: list[tuple[float, float]], sections: int = 24) -> trimesh.Trimesh:
    """A solid of revolution about the y axis, from (radius, height) pairs."""
    solid = trimesh.creation.revolve(np.array(profile), sections=sections)
    solid.apply_transform(trimesh.transformations.rotation_matrix(-np.pi / 2, [1, 0, 0]))
    return solid


def bowl() -> trimesh.Trimesh:
    """A bowl of width 1, with walls of 0.05, its rim at 0.5."""
    outer = [(0.0, 0.0), (0.3, 0.0), (0.5, 0.5)]
    return lathe([*outer, (0.45, 0.5), (0.26, 0.05), (0.0, 0.05)])


def cup() -> trimesh.Trimesh:
    """A cup with a handle."""
    body = lathe([(0.0, 0.0), (0.3, 0.0), (0.34, 0.7), (0.3, 0.7), (0.26, 0.06), (0.0, 0.06)])
    handle = trimesh.creation.torus(0.18, 0.04, major_sections=16, minor_sections=8)
    handle.apply_translation([0.42, 0.35, 0])
    return trimesh.Trimesh(*trimesh.util.append_faces([body.vertices, handle.vertices], [body.faces, handle.faces]))


def solids() -> dict[str, trimesh.Trimesh]:
    """Models by name, y up."""
    return {
        "box": trimesh.creation.box((1.0, 0.6, 0.7)),
        "slab": trimesh.creation.box((1.2, 0.3, 1.0)),
        "cube": trimesh.creation.box((0.5, 0.5, 0.5)),
        "ball": trimesh.creation.icosphere(subdivisions=2, radius=0.3),
        "column": lathe([(0.0, 0.0), (0.2, 0.0), (0.2, 0.6), (0.0, 0.6)]),
        "bowl": bowl(),
        "cup": cup(),
        "cone": lathe([(0.0, 0.0), (0.4, 0.0), (0.1, 0.6), (0.0, 0.6)]),
    }


def make_raw(folder: Path) -> Path:
    """A raw folder: eight OBJ models, three panoramas and three photographs."""
    rng = np.random.default_rng(0)
    for name in ("models", "hdris", "grounds"):
        (folder / name).mkdir(parents=True)
    for name, solid in solids().items():
        write_obj(folder / "models" / f"{name}.obj", solid, rng.integers(40, 250, 3).tolist())
    for number in range(3):
        write_hdri(folder / "hdris" / f"sky{number}.exr", 32 + number)
        photo = cv2.GaussianBlur(rng.integers(0, 255, (64, 80, 3), dtype=np.uint8), (0, 0), 2)
        cv2.imwrite(str(folder / "grounds" / f"ground{number}.png"), photo)
    return folder


def write_obj(path: Path, solid: trimesh.Trimesh, color: list[int]) -> None:
    """A model with one material of its own."""
    material = SimpleMaterial(name=path.stem, diffuse=[*color, 255])
    colored = solid.copy()
    colored.visual = trimesh.visual.TextureVisuals(uv=np.zeros((len(solid.vertices), 2)), material=material)
    text, files = trimesh.exchange.obj.export_obj(colored, return_texture=True, mtl_name=f"{path.stem}.mtl")
    path.write_text(text)
    for name, data in files.items():
        path.with_name(name).write_bytes(data)


def write_hdri(path: Path, height: int, width: int | None = None) -> None:
    """A grey sky above a dark ground, and in it a sun."""
    pixels = np.full((height, width or 2 * height, 3), 0.2, np.float32)
    pixels[: height // 2] = (0.6, 0.8, 1.0)
    pixels[height // 4, height // 3] = 500
    mi.set_variant("scalar_rgb")
    mi.Bitmap(pixels).write(str(path))


def write_library(path: Path, licence: str = "Public domain") -> None:
    """A library of Sweet Home 3D: a box, a door, and an entry that leaves the archive."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("PluginFurnitureCatalog.properties", CATALOGUE.format(licence=licence))
        text = trimesh.exchange.obj.export_obj(trimesh.creation.box((1, 1, 1)))
        for name in ("models/red/red.obj", "models/door/door.obj", "../outside.obj"):
            archive.writestr(name, text)
