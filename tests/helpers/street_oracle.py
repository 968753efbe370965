"""VITON-HD, Cityscapes, Mapillary Vistas and BDD100K read a second time: plain, slow, without a line of the package.

Every reader returns `oracle.Picture`s in the order of the build.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from helpers import oracle
from helpers.oracle import Picture, Thing

Bools = npt.NDArray[np.bool_]

REGIONS = {
    "hat": (1,), "hair": (2,), "face": (4, 13), "upper clothes": (5,), "dress": (6,), "coat": (7,), "socks": (8,),
    "trousers": (9,), "neck": (10,), "skirt": (12,), "left arm": (14,), "right arm": (15,), "left leg": (16,),
    "right leg": (17,), "left shoe": (18,), "right shoe": (19,),
}  # fmt: skip
VOID = (0, 3, 11)
CITY_OBJECTS = (
    "person", "rider", "car", "truck", "bus", "caravan", "trailer", "train", "motorcycle", "bicycle"
)  # fmt: skip
CITY_RULE = oracle.Rule(include=("car", "truck", "bus"))
VISTAS_RULE = oracle.Rule(include=tuple(f"object--vehicle--{name}" for name in ("bus", "car", "caravan", "truck")))
VITON_RULE = oracle.Rule(rule="largest", contained="keep")
BDD_RULE = oracle.Rule()


# --- readers ----------------------------------------------------------------------------------------------------------


def viton(folder: Path, maps: str = "image-parse-v3", regions: Mapping[str, Sequence[int]] = REGIONS) -> list[Picture]:
    """A split's folder, which holds `image/` and the maps."""
    known = {*VOID, *(i for ids in regions.values() for i in ids)}
    pictures = []
    for name in _names(folder / maps, ".png"):
        ids = np.asarray(Image.open(folder / maps / f"{name}.png"))
        things = []
        for category, wanted in regions.items():
            mask = np.zeros(ids.shape, bool)
            for i in wanted:
                mask |= ids == i
            if mask.any():
                things.append(thing(mask, "parse", category, wanted[0]))
        fault = None if set(ids.ravel().tolist()) <= known else "unknown_label"
        path = folder / "image" / f"{name.rpartition('/')[2]}.jpg"
        pictures.append(Picture(name, name, ids.shape[1], ids.shape[0], things, path, fault=fault))
    return pictures


def cityscapes(jsons: Path, image_of: Any, transparent: Sequence[str] = ("license plate",)) -> list[Picture]:
    """A folder of polygon files; `image_of` gives the picture's file from the name of one (`city/stem` or `stem`)."""
    pictures = []
    for name in _names(jsons, "_gtFine_polygons.json"):
        record = json.loads((jsons / f"{name}_gtFine_polygons.json").read_text())
        height, width = record["imgHeight"], record["imgWidth"]
        drawn = [entry for entry in record["objects"] if not entry.get("deleted")]
        drawn = [entry for entry in drawn if entry["label"] not in transparent]
        owner = np.full((height, width), -1)
        for i, entry in enumerate(drawn):
            owner[filled(entry["polygon"], height, width)] = i
        things = [
            thing(owner == i, "polygon", entry["label"])
            for i, entry in enumerate(drawn)
            if entry["label"] in CITY_OBJECTS and (owner == i).any()
        ]
        path = image_of(name)
        rgb = np.asarray(Image.open(path)) if path.exists() else None
        pictures.append(Picture(name, name.rpartition("/")[2], width, height, things, path, rgb))
    return pictures


def vistas(config: Path, maps: Path, images: Path) -> list[Picture]:
    """A folder of 16-bit maps."""
    labels = json.loads(config.read_text())["labels"]
    pictures = []
    for name in _names(maps, ".png"):
        values = np.asarray(Image.open(maps / f"{name}.png")).astype(int)
        things = []
        for value in sorted(set(values.ravel().tolist())):
            label = labels[value // 256]
            if label.get("instances", True):
                things.append(thing(values == value, "parse", label["name"], value // 256, value % 256))
        path = images / f"{name.rpartition('/')[2]}.jpg"
        pictures.append(Picture(name, name, values.shape[1], values.shape[0], things, path))
    return pictures


def bdd(frames: Sequence[Mapping[str, Any]], images: Path, size: tuple[int, int]) -> list[Picture]:
    """Frames of one size (height, width), in the order of the file."""
    pictures = []
    for frame in frames:
        things = [found for label in frame.get("labels") or () if (found := _bdd_thing(label, *size)) is not None]
        folder = f"{frame['videoName']}/" if frame.get("videoName") else ""
        key = folder + frame["name"].rpartition(".")[0]
        pictures.append(Picture(key, frame["name"], size[1], size[0], things, images / frame["name"]))
    return pictures


def _bdd_thing(label: Mapping[str, Any], height: int, width: int) -> Thing | None:
    box, flags = label.get("box2d"), label.get("attributes") or {}
    mask, source, shape = None, None, None
    if shape := label.get("rle"):
        mask, source = coco_mask.decode(shape) == 1, "rle"
    elif parts := [flat for part in label.get("poly2d") or () if len(flat := outline(part, 16)) > 4]:
        mask, source = polygon_mask(parts, height, width), "polygon"
        shape = runs(mask)
    if box is not None:
        corners = (box["x1"], box["y1"], box["x2"] + 1, box["y2"] + 1)
    elif mask is not None and mask.any():
        corners = oracle.tight_box(mask)
    else:
        return None
    area = (corners[2] - corners[0]) * (corners[3] - corners[1]) if mask is None else int(mask.sum())
    return Thing(
        corners, area, label.get("category"), annotation_id=label.get("id"),
        crowd=bool(flags.get("crowd") or flags.get("ignored")),
        segmentation=shape or None, source=source,
    )  # fmt: skip


def _names(folder: Path, suffix: str) -> list[str]:
    """Annotation files in a folder and those below, without their suffix, sorted by path; hidden ones left out."""
    found = []
    for at, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        place = Path(at).relative_to(folder).as_posix()
        prefix = "" if place == "." else f"{place}/"
        found += [prefix + name for name in files if name.endswith(suffix) and not name.startswith(".")]
    return [name.removesuffix(suffix) for name in sorted(found)]


# --- masks ------------------------------------------------------------------------------------------------------------


def runs(mask: Bools) -> dict[str, Any]:
    """COCO's run lengths as a list."""
    return {"size": list(mask.shape), "counts": oracle.mask_to_runs(mask)}


def thing(
    mask: Bools,
    source: str,
    category: str,
    category_id: int | None = None,
    annotation_id: int | None = None,
) -> Thing:
    """An object known by its pixels alone."""
    return Thing(
        oracle.tight_box(mask), int(mask.sum()), category, category_id, annotation_id, False, runs(mask), source
    )


def filled(polygon: Sequence[Sequence[float]], height: int, width: int) -> Bools:
    """One polygon as Pillow fills it, on a canvas of its own."""
    canvas = Image.new("L", (width, height))
    if len(polygon) > 2:
        ImageDraw.Draw(canvas).polygon([tuple(point) for point in polygon], fill=1)
    return np.asarray(canvas) == 1


def polygon_mask(parts: Sequence[Sequence[float]], height: int, width: int) -> Bools:
    """Union of polygons `x, y, …`, each drawn alone by pycocotools."""
    shapes = coco_mask.frPyObjects([list(part) for part in parts], height, width)
    return coco_mask.decode(shapes).any(axis=2)


def outline(part: Mapping[str, Any], steps: int) -> list[float]:
    """`x, y, …` of a Scalabel polygon as its own tools draw it (matplotlib's CURVE4): the first C of a run starts a
    cubic curve from the vertex before it, over two control points, to the vertex after them, whatever letter that
    has; the outline is closed.
    """
    points = [np.array(point, float) for point in part["vertices"]]
    types = part.get("types") or "L" * len(points)
    closed, flat, i = [*points, points[0]], [points[0]], 1
    while i < len(points):
        if types[i] == "C":
            control = [closed[i - 1], *closed[i : i + 3]]
            flat += [_casteljau(control, step / steps) for step in range(1, steps + 1)]
            i += 3
        else:
            flat.append(points[i])
            i += 1
    if np.array_equal(flat[-1], flat[0]) and len(flat) > 1:
        flat.pop()
    return [float(value) for point in flat for value in point]


def _casteljau(points: Sequence[npt.NDArray[np.float64]], t: float) -> npt.NDArray[np.float64]:
    while len(points) > 1:
        points = [(1 - t) * a + t * b for a, b in pairwise(points)]
    return points[0]


def claiming(data: bytes, width: int, height: int) -> bytes:
    """A PNG whose header, its checksum right, claims another size."""
    header = data[12:16] + struct.pack(">II", width, height) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


# --- what a build says ------------------------------------------------------------------------------------------------


class Told(NamedTuple):
    """What became of a build's pictures by its manifest, and the keys of its shards.

    Attributes:
        bad: by item, reason and detail.
        skipped: by reason, the items (the first three).
    """

    keys: list[str]
    bad: dict[Any, tuple[str, str]]
    skipped: dict[str, list[Any]]


def told(manifest: Mapping[str, Any], out: Path) -> Told:
    """Read a manifest, and assert that no picture is lost: samples, skipped and bad ones are all that there are."""
    keys = list(oracle.read_tars(out))  # which refuses keys given twice
    assert len(keys) == manifest["samples"]
    bad = {entry["item"]: (entry["reason"], entry["detail"]) for entry in manifest["bad_pictures"]}
    assert sum(manifest["bad"]["pictures"].values()) == len(manifest["bad_pictures"]) == len(bad)
    assert manifest["samples"] + sum(manifest["skipped"].values()) + len(bad) == manifest["pictures"]
    assert sum(manifest["bad"]["records"].values()) == len(manifest["bad_records"])
    return Told(keys, bad, dict(manifest["skipped_examples"]))
