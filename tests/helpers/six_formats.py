"""Raw folders of the six formats from the same few boxes: `SIX[recipe].write(root, {"a": boxes})` makes one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from helpers.compat_making import write_lvis
from helpers.making import annotation, encoded, smooth
from helpers.street import bdd_label, put, thing, write_bdd, write_cityscapes, write_vistas, write_viton

Box = tuple[int, int, int, int]

SIZE = HEIGHT, WIDTH = 64, 96
FIRST, SECOND = (10, 10, 40, 40), (30, 20, 70, 50)
PAIR = (FIRST, SECOND)


def region(*box: int) -> npt.NDArray[np.bool_]:
    mask = np.zeros(SIZE, bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


def lvis(root: Path, pictures: Mapping[str, Sequence[Box]]) -> Path:
    numbered = enumerate(pictures.values())
    return write_lvis(root, {i: (smooth(*SIZE, i), [annotation(i, box) for box in boxes]) for i, boxes in numbered})


def objects365(root: Path, pictures: Mapping[str, Sequence[Box]]) -> Path:
    for i, (name, boxes) in enumerate(pictures.items()):
        put(root / f"object365/images/train/patch0/{name}.jpg", encoded(smooth(*SIZE, i)))
        entries = {"annotations": [annotation(i, box) for box in boxes]}
        put(root / f"object365/labels/train/patch0/{name}.json", json.dumps(entries))
    return root / "object365"


def viton_hd(root: Path, pictures: Mapping[str, Sequence[Box]]) -> Path:
    return write_viton(root, {name: (smooth(*SIZE, i), ids(boxes)) for i, (name, boxes) in enumerate(pictures.items())})


def cityscapes(root: Path, pictures: Mapping[str, Sequence[Box]]) -> Path:
    cars = {f"ulm_{name}": [car(box) for box in boxes] for name, boxes in pictures.items()}
    return write_cityscapes(root, {stem: (smooth(*SIZE, i), found) for i, (stem, found) in enumerate(cars.items())})


def mapillary_vistas(root: Path, pictures: Mapping[str, Sequence[Box]]) -> Path:
    numbers = {name: ids(boxes) for name, boxes in pictures.items()}
    return write_vistas(root, {name: (smooth(*SIZE), np.where(n > 0, 108, 21), n) for name, n in numbers.items()})


def bdd100k(root: Path, pictures: Mapping[str, Sequence[Box]]) -> Path:
    labels = {name: [bdd_label(f"{k}", region(*box)) for k, box in enumerate(b)] for name, b in pictures.items()}
    frames = [{"name": f"{name}.jpg", "labels": found} for name, found in labels.items()]
    return write_bdd(root, frames, {name: smooth(*SIZE, i) for i, name in enumerate(pictures)})


def ids(boxes: Sequence[Box]) -> npt.NDArray[np.uint8]:
    found = np.zeros(SIZE, np.uint8)
    for box, number in zip(boxes, (5, 9, 14, 15), strict=False):
        found[region(*box)] = number
    return found


def car(box: Box, label: str = "car", **more: Any) -> dict[str, Any]:
    x0, y0, x1, y1 = box
    return thing(label, [[x0, y0], [x1 - 1, y0], [x1 - 1, y1 - 1], [x0, y1 - 1]], **more)


class Format(NamedTuple):
    """How a raw folder is written, and where the files of its picture `b` lie, the second of three.

    In the formats of one label a pixel, and in Cityscapes, a later box hides earlier ones.
    """

    write: Callable[[Path, Mapping[str, Sequence[Box]]], Path]
    picture: str
    annotation: str | None  # where there is one a picture


SIX = {
    "lvis": Format(lvis, "train2017/000000000001.jpg", None),
    "objects365": Format(objects365, "images/train/patch0/b.jpg", "labels/train/patch0/b.json"),
    "viton_hd": Format(viton_hd, "train/image/b.jpg", "train/image-parse-v3/b.png"),
    "cityscapes": Format(
        cityscapes, "leftImg8bit/train/ulm/ulm_b_leftImg8bit.png", "gtFine/train/ulm/ulm_b_gtFine_polygons.json"
    ),
    "mapillary_vistas": Format(mapillary_vistas, "training/images/b.jpg", "training/v2.0/instances/b.png"),
    "bdd100k": Format(bdd100k, "images/10k/train/b.jpg", None),
}
