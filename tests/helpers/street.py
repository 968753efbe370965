"""Small raw folders in the official layouts of VITON-HD, Cityscapes, Mapillary Vistas and BDD100K, from arrays and
dicts. Every `write_*` returns the dataset's own folder, to be given as `--raw`; its parent will do as well.

Pictures are uint8 RGB [H, W, 3], masks bool [H, W]; a stem is a file's name without what the dataset appends to it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pycocotools import mask as coco_mask

from helpers.making import encoded

RGB = npt.NDArray[np.uint8]
Map = npt.NDArray[Any]

# Mapillary's ids of the four classes that the recipe takes, and of what stands beside them in the official lists.
VEHICLES = {"v2.0": {"bus": 107, "car": 108, "caravan": 109, "truck": 114},
            "v1.2": {"bus": 54, "car": 55, "caravan": 56, "truck": 61}}  # fmt: skip
_NEIGHBOURS = {
    "v2.0": {100: "object--traffic-sign--front", 110: "object--vehicle--motorcycle", 111: "object--vehicle--on-rails",
             112: "object--vehicle--other-vehicle", 113: "object--vehicle--trailer",
             115: "object--vehicle--vehicle-group", 21: "construction--flat--road", 123: "void--unlabeled"},
    "v1.2": {50: "object--traffic-sign--front", 57: "object--vehicle--motorcycle", 58: "object--vehicle--on-rails",
             59: "object--vehicle--other-vehicle", 60: "object--vehicle--trailer", 13: "construction--flat--road",
             65: "void--unlabeled"},
}  # fmt: skip
_LABELS = {"v2.0": 124, "v1.2": 66}


def put(path: Path, contents: bytes | str) -> None:
    """Write a file, its folders first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(contents.encode() if isinstance(contents, str) else contents)


def rle(mask: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """COCO's compressed run lengths as they stand in a json."""
    found = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {"counts": found["counts"].decode(), "size": [int(side) for side in found["size"]]}


# --- VITON-HD ---------------------------------------------------------------------------------------------------------


def write_viton(root: Path, pictures: Mapping[str, tuple[RGB, Map]], mode: str = "P", split: str = "train") -> Path:
    """`VitonHD/{split}/image/X.jpg` and `image-parse-v3/X.png`.

    Args:
        root: where the dataset's folder is made.
        pictures: by stem, a picture and its ids, uint8 [H, W].
        mode: of the map: `P` (ids are palette indices, as published), `L` (ids are grey values) or `RGB` (the colours
            of the palette alone, in which the ids are lost).
        split: `train` or `test`.
    """
    folder = root / "VitonHD" / split
    colours = np.random.default_rng(0).integers(0, 256, (256, 3), dtype=np.uint8)
    colours[0] = 0
    for stem, (rgb, ids) in pictures.items():
        parse = Image.fromarray(np.ascontiguousarray(ids, np.uint8))  # grey
        if mode != "L":
            parse.putpalette(colours.tobytes())
        put(folder / "image" / f"{stem}.jpg", encoded(rgb, quality=95))
        put(folder / "image-parse-v3" / f"{stem}.png", encoded(parse.convert(mode), "PNG"))
    return root / "VitonHD"


# --- Cityscapes -------------------------------------------------------------------------------------------------------


def thing(label: str, polygon: Sequence[Sequence[float]], **more: Any) -> dict[str, Any]:
    """One entry of a Cityscapes polygon file."""
    return {"label": label, "polygon": [list(point) for point in polygon], **more}


def write_cityscapes(
    root: Path,
    pictures: Mapping[str, tuple[RGB, Sequence[Mapping[str, Any]]]],
    layout: str = "official",
    split: str = "train",
) -> Path:
    """Pictures and polygon files of Cityscapes.

    Args:
        root: where the folder `Cityscapes` is made.
        pictures: by stem (`aachen_000000_000019`: it begins with the city), a picture and its objects, back to front.
        layout: `official` (`leftImg8bit/{split}/{city}`, `gtFine/{split}/{city}`) or `flat` (`{split}/images`,
            `{split}/jsons`).
        split: `train` or `val`.
    """
    base = root / "Cityscapes"
    for stem, (rgb, objects) in pictures.items():
        city = stem.partition("_")[0]
        if layout == "official":
            images, jsons = base / "leftImg8bit" / split / city, base / "gtFine" / split / city
        else:
            images, jsons = base / split / "images", base / split / "jsons"
        record = {"imgHeight": rgb.shape[0], "imgWidth": rgb.shape[1], "objects": list(objects)}
        put(images / f"{stem}_leftImg8bit.png", encoded(rgb, "PNG"))
        put(jsons / f"{stem}_gtFine_polygons.json", json.dumps(record))
    return base


# --- Mapillary Vistas -------------------------------------------------------------------------------------------------


def vistas_config(version: str) -> dict[str, Any]:
    """`config_{version}.json`: the vehicles and some others under their real names and ids, made-up names else."""
    names = {i: f"object--vehicle--{name}" for name, i in VEHICLES[version].items()} | _NEIGHBOURS[version]
    labels = []
    for i in range(_LABELS[version]):
        name = names.get(i, f"object--thing-{i}")
        labels.append({
            "name": name, "readable": name.rpartition("--")[2], "instances": name.startswith("object--"),
            "evaluate": True, "color": [i, 2 * i % 256, 3 * i % 256],
        })  # fmt: skip
    return {"version": version.removeprefix("v"), "labels": labels}


def write_vistas(
    root: Path, pictures: Mapping[str, tuple[RGB, Map, Map]], version: str = "v2.0", split: str = "training"
) -> Path:
    """`MVD/config_{version}.json`, `MVD/{split}/images/X.jpg` and `MVD/{split}/{version}/instances/X.png` (16 bit).

    Args:
        root: where the folder `MVD` is made.
        pictures: by stem, a picture, its labels and its instance ids (below 256), both int [H, W].
        version: `v2.0` or `v1.2`.
        split: `training` or `validation`.
    """
    base = root / "MVD"
    put(base / f"config_{version}.json", json.dumps(vistas_config(version)))
    for stem, (rgb, labels, instances) in pictures.items():
        values = Image.fromarray((np.asarray(labels, np.int64) * 256 + instances).astype(np.uint16))
        put(base / split / "images" / f"{stem}.jpg", encoded(rgb, quality=95))
        put(base / split / version / "instances" / f"{stem}.png", encoded(values, "PNG"))
    return base


# --- BDD100K ----------------------------------------------------------------------------------------------------------


def bdd_label(
    number: str, mask: npt.NDArray[np.bool_], box: Sequence[float] | None = None, category: str = "car", **flags: bool
) -> dict[str, Any]:
    """One label of a frame; the box (x1, y1, x2, y2, the last pixel included) is that of the mask unless given; flags
    (crowd, ignored, …) are False unless given."""
    if box is None:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box = (columns[0], rows[0], columns[-1], rows[-1])
    attributes = {"occluded": False, "truncated": False, "crowd": False, "ignored": False, **flags}
    corners = dict(zip(("x1", "y1", "x2", "y2"), map(float, box), strict=True))
    return {"id": number, "category": category, "attributes": attributes, "box2d": corners, "rle": rle(mask)}


def write_bdd(
    root: Path, frames: Sequence[Mapping[str, Any]], pictures: Mapping[str, RGB], split: str = "train"
) -> Path:
    """`bdd100k/labels/ins_seg/rles/ins_seg_{split}.json` and `bdd100k/images/10k/{split}/X.jpg`.

    Args:
        root: where the folder `bdd100k` is made.
        frames: Scalabel's frames, `{"name": "X.jpg", "labels": [...]}`.
        pictures: by stem; frames and pictures may lack one another.
        split: `train` or `val`.
    """
    base = root / "bdd100k"
    record = {"frames": list(frames), "config": None}
    put(base / "labels/ins_seg/rles" / f"ins_seg_{split}.json", json.dumps(record))
    for stem, rgb in pictures.items():
        put(base / "images/10k" / split / f"{stem}.jpg", encoded(rgb, quality=95))
    return base
