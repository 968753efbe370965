"""A 3D model as it is placed and rendered: parts with a material each, and points all over its surface."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import trimesh

from pics_cli.core.images.image_io import RGB
from pics_cli.core.runtime.rng import generator
from pics_cli.core.scenes.rendered.catalogue import ModelEntry
from pics_cli.core.scenes.rendered.heights import Cavity, find_surfaces

MAX_FACES = 120_000
MAX_TEXTURE = 512
NUM_POINTS = 20_000
# Thinner than this in any direction, as a part of the longest side, is a sheet and not a thing.
_FLAT = 0.05
# Parts less opaque than this are left out, and models that lose so much of their surface by it.
_OPAQUE, _MAX_LOST = 0.6, 0.3
# Normals are smoothed across edges that bend less than this.
_CREASE = np.cos(np.radians(40))
_MAX_FAN = 48

Array = npt.NDArray[np.float32]


class UnusableModel(Exception):
    """A model that is passed over. Its argument: one word for counting."""


@dataclass(frozen=True)
class Part:
    """Triangles of one material.

    Attributes:
        positions, normals: of each triangle's three corners, float32 [F * 3, 3].
        uv: texture coordinates of the corners, float32 [F * 3, 2]; None where the part has one colour.
        texture: uint8 [h, w, 3] sRGB; None where the part has one colour.
        color: sRGB, 0 to 1; multiplies the texture.
        roughness: of its surface, 0 (a mirror) to 1.
        metal: whether it reflects in its own colour.
    """

    positions: Array
    normals: Array
    uv: Array | None
    texture: RGB | None
    color: tuple[float, float, float]
    roughness: float
    metal: bool


@dataclass(frozen=True)
class Model:
    """A model that stands on z = 0, centred on the origin, its longest side 1. Axes: x right, y away, z up.

    Attributes:
        parts: by material.
        points: spread over its surface, float32 [`NUM_POINTS`, 3].
        size: width, depth and height.
        length: longest side in centimetres.
        support: height of a level surface that something can stand on; None where it has none.
        cavity: a hollow that opens upwards; None where it has none.
    """

    parts: tuple[Part, ...]
    points: Array
    size: tuple[float, float, float]
    length: float
    support: float | None
    cavity: Cavity | None


@lru_cache(maxsize=48)
def load_model(entry: ModelEntry) -> Model:
    """Read a model.

    Raises:
        UnusableModel: it cannot be read, or is no thing that could stand in a scene.
    """
    parts = _read_parts(entry)
    corners = np.concatenate([part.positions for part in parts]).astype(np.float64)
    low, high = corners.min(axis=0), corners.max(axis=0)
    extent = high - low
    if not np.isfinite(extent).all() or extent.min() <= _FLAT * extent.max():
        raise UnusableModel("flat")
    centimetres = np.asarray(entry.size) if entry.size else extent * 100
    length = float(centimetres.max())
    if entry.size is None and not 1 <= length <= 2000:  # no unit that could be metres
        length = 30.0
        centimetres = extent / extent.max() * length
    # A catalogue's sizes hold for each axis, as in Sweet Home 3D.
    scale = centimetres / length / extent
    offset = np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]])
    placed = []
    for part in parts:
        normals = part.normals / scale.astype(np.float32)
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
        positions = ((part.positions - offset) * scale).astype(np.float32)
        placed.append(Part(positions, normals, part.uv, part.texture, part.color, part.roughness, part.metal))
    points = _sample_points(np.concatenate([part.positions for part in placed]), entry.name)
    width, depth, height = (centimetres / length).tolist()
    support, cavity = find_surfaces(points, (width, depth, height))
    return Model(tuple(placed), points, (width, depth, height), length, support, cavity)


def _read_parts(entry: ModelEntry) -> list[Part]:
    try:
        scene = _read_scene(entry)
        geometries = [g for g in scene.dump() if isinstance(g, trimesh.Trimesh) and len(g.faces)]
    except UnusableModel:
        raise
    except Exception as error:  # trimesh raises whatever its parsers meet
        raise UnusableModel("unreadable_model") from error
    faces = sum(len(g.faces) for g in geometries)
    if not faces:
        raise UnusableModel("no_faces")
    if faces > MAX_FACES:
        raise UnusableModel("too_many_faces")
    turn = np.array(entry.turn, np.float64).reshape(3, 3) if entry.turn else np.eye(3)
    upright = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]) @ turn  # both formats have y up and z towards the viewer
    parts, lost, total = [], 0.0, 0.0
    for geometry in geometries:
        area = float(geometry.area)
        total += area
        color, opacity, roughness, metal, texture = _material(geometry)
        if opacity < _OPAQUE:
            lost += area
            continue
        vertices = (np.asarray(geometry.vertices) @ upright.T).astype(np.float64)
        corner_faces = np.asarray(geometry.faces)
        if not np.isfinite(vertices).all():
            raise UnusableModel("unreadable_model")
        positions, normals = vertices[corner_faces], _corner_normals(vertices, corner_faces)
        a, b, c = positions.transpose(1, 0, 2)
        kept = np.linalg.norm(np.cross(b - a, c - a), axis=1) > 0
        uv = getattr(geometry.visual, "uv", None)
        if uv is None or len(uv) != len(vertices):
            texture = None
        corner_uv = None if texture is None else np.asarray(uv, np.float32)[corner_faces[kept]].reshape(-1, 2)
        part = Part(
            positions[kept].reshape(-1, 3).astype(np.float32),
            normals[kept].reshape(-1, 3).astype(np.float32),
            corner_uv, texture, color, roughness, metal,
        )  # fmt: skip
        if len(part.positions):
            parts.append(part)
    if not parts or lost > _MAX_LOST * total:
        raise UnusableModel("transparent")
    return parts


class _OwnFolder(trimesh.resolvers.FilePathResolver):
    """Files beside a model and below; others are as good as missing."""

    def get(self, name: str) -> bytes:
        """Contents of a file that the model names."""
        if not (Path(self.parent) / name.strip()).resolve().is_relative_to(Path(self.parent).resolve()):
            raise FileNotFoundError(name)
        data: bytes = super().get(name)
        return data


def _read_scene(entry: ModelEntry) -> Any:
    load: Any = trimesh.load_scene  # its options are those of the format's own reader
    options = {"process": False}
    if (entry.member or entry.name).lower().endswith(".obj"):
        options |= {"group_material": True, "split_object": False}
    if not entry.member:
        with entry.path.open("rb") as file:
            kind = entry.path.suffix[1:].lower()
            return load(file, file_type=kind, resolver=_OwnFolder(str(entry.path)), **options)
    folder = str(PurePosixPath(entry.member).parent)
    with zipfile.ZipFile(entry.path) as archive:
        # Nothing but the model's own folder is offered to the parser.
        names = [name for name in archive.namelist() if name.startswith(f"{folder}/") and not name.endswith("/")]
        files = {name: io.BytesIO(archive.read(name)) for name in names}
    if any(b"map_d" in data.getvalue() for name, data in files.items() if name.lower().endswith(".mtl")):
        raise UnusableModel("cut_out_textures")
    resolver = trimesh.resolvers.ZipResolver(files, namespace=folder)
    model = io.BytesIO(files[entry.member].getvalue())
    return load(model, file_type=entry.member.rpartition(".")[2].lower(), resolver=resolver, **options)


def _material(geometry: Any) -> tuple[tuple[float, float, float], float, float, bool, RGB | None]:
    """Colour, opacity, roughness, metal and texture of a mesh."""
    material = getattr(geometry.visual, "material", None)
    if material is None:
        colors = getattr(geometry.visual, "vertex_colors", None)
        mean = np.asarray(colors, np.float64)[:, :3].mean(axis=0) / 255 if colors is not None else np.full(3, 0.6)
        return tuple(mean.tolist()), 1.0, 0.5, False, None
    if hasattr(material, "baseColorFactor"):  # glTF
        factor = material.baseColorFactor
        rgba = np.ones(4) if factor is None else np.asarray(factor, np.float64) / 255
        image = material.baseColorTexture
        roughness = 0.6 if material.roughnessFactor is None else float(material.roughnessFactor)
        metal = bool((material.metallicFactor or 0) > 0.6 and material.metallicRoughnessTexture is None)
        opacity = rgba[3] if material.alphaMode not in (None, "OPAQUE") else 1.0
    else:
        rgba = np.asarray(material.diffuse, np.float64) / 255
        image = material.image
        opacity = _number(material.kwargs.get("d"), 1.0)
        shininess = max(_number(material.glossiness, 1.0), 0.0)
        specular = float(np.mean(np.asarray(material.specular, np.float64)[:3])) / 255
        roughness = float(np.clip((2 / (shininess + 2)) ** 0.25, 0.15, 0.9)) if specular > 0.05 else 0.8
        metal = False
    texture = None
    if image is not None:
        if "A" in image.getbands():
            alpha = np.asarray(image.getchannel("A"))
            if float(alpha.mean()) < 0.9 * 255:
                raise UnusableModel("cut_out_textures")
        texture = np.asarray(image.convert("RGB"))
        longest = max(texture.shape[:2])
        if longest > MAX_TEXTURE:
            size = [max(1, round(side * MAX_TEXTURE / longest)) for side in texture.shape[1::-1]]
            texture = cv2.resize(texture, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
        rgba = np.ones(4) if rgba[:3].max() < 0.05 else rgba  # exporters write black under a texture
    red, green, blue = np.clip(rgba[:3], 0.015, 0.95).tolist()
    return (red, green, blue), float(opacity), roughness, metal, texture


def _number(value: Any, default: float) -> float:
    """A number of a material file, as the parser gives it: a number, a list of words or nothing."""
    first = value[0] if isinstance(value, list | tuple) and value else value
    try:
        return float(first)
    except (TypeError, ValueError):
        return default


def _corner_normals(vertices: npt.NDArray[np.float64], faces: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Normals of each face's corners, [F, 3, 3]: means, weighted by area, of the faces there that bend little."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    area_normals = np.cross(b - a, c - a)
    face_normals = area_normals / np.maximum(np.linalg.norm(area_normals, axis=1, keepdims=True), 1e-30)
    span = max(float(np.ptp(vertices, axis=0).max()), 1e-30)
    _, merged = np.unique(np.round(vertices / span * 1e5).astype(np.int64), axis=0, return_inverse=True)
    ids = merged.reshape(-1)[faces].reshape(-1)  # of the point that each corner lies at
    order = np.argsort(ids, kind="stable")
    counts = np.bincount(ids)
    starts = np.cumsum(counts) - counts
    # Every corner with every one at the same point; the centres of large fans are left with their faces' normals.
    partners = np.where(counts > _MAX_FAN, 0, counts)[ids[order]]
    first = np.repeat(np.arange(len(order)), partners)
    within = np.arange(len(first)) - np.repeat(np.cumsum(partners) - partners, partners)
    own, other = order[first], order[starts[ids[order[first]]] + within]
    bends_little = np.einsum("nk,nk->n", face_normals[own // 3], face_normals[other // 3]) > _CREASE
    own, other = own[bends_little], other[bends_little] // 3
    sums = np.stack([np.bincount(own, area_normals[other, k], len(ids)) for k in range(3)], axis=1)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    flat = np.repeat(face_normals, 3, axis=0)
    return np.where(lengths > 0, sums / np.maximum(lengths, 1e-30), flat).reshape(-1, 3, 3)


def _sample_points(corners: Array, name: str) -> Array:
    """Points spread evenly over triangles, and some of their corners, so that thin ends are not missed."""
    rng = generator(0, "rendered", "points", name)
    triangles = corners.reshape(-1, 3, 3)
    a, b, c = triangles[:, 0], triangles[:, 1], triangles[:, 2]
    areas = np.linalg.norm(np.cross(b - a, c - a), axis=1).astype(np.float64)
    edges = np.cumsum(areas)
    count = NUM_POINTS - NUM_POINTS // 5
    index = np.searchsorted(edges, (np.arange(count) + 0.5) / count * edges[-1]).clip(0, len(areas) - 1)
    u, v = rng.random((2, count, 1), np.float32)
    flip = u + v > 1
    u, v = np.where(flip, 1 - u, u), np.where(flip, 1 - v, v)
    inner = a[index] + u * (b - a)[index] + v * (c - a)[index]
    ends = np.concatenate([corners.argmin(axis=0), corners.argmax(axis=0)])
    chosen = np.concatenate([ends, rng.integers(len(corners), size=NUM_POINTS - count - len(ends))])
    return np.concatenate([inner, corners[chosen]]).astype(np.float32)
