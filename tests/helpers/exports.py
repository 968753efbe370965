"""Exports of annotation tools and of two datasets, in their real layouts, from the same few boxes:
`EXPORTS[recipe](root, {"a": boxes})` makes one and returns the folder to give as `--raw`.

Pictures are smooth ones of `SIZE`; in label maps a later box hides earlier ones. Every object is a `cup` or `bowl` in
turn.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from helpers.making import annotation, encoded, smooth
from helpers.six_formats import HEIGHT, SIZE, WIDTH, Box, region
from helpers.street import put

Boxes = Mapping[str, Sequence[Box]]
Map = npt.NDArray[Any]

NAMES = ("cup", "bowl")
_PICTURE = encoded(smooth(*SIZE))


# --- LabelMe ----------------------------------------------------------------------------------------------------------


def shape(label: str, points: Sequence[Sequence[float]], kind: str = "polygon", **more: Any) -> dict[str, Any]:
    """One entry of `shapes`, as LabelMe 5 writes it."""
    given = {"label": label, "points": [list(point) for point in points], "group_id": None, "description": ""}
    return {**given, "shape_type": kind, "flags": {}, "mask": None, **more}


def mask_shape(label: str, box: Box, mask: npt.NDArray[np.bool_], **more: Any) -> dict[str, Any]:
    """A mask: a PNG of ones and zeros, and the corners of its box, the last pixel included."""
    x0, y0, x1, y1 = box
    png = base64.b64encode(encoded(Image.fromarray(mask.astype(np.uint8)), "PNG")).decode()
    return shape(label, [(x0, y0), (x1 - 1, y1 - 1)], "mask", mask=png, **more)


def labelme_file(shapes: Sequence[Mapping[str, Any]], picture: str, **more: Any) -> str:
    """The contents of a file."""
    size = {"imageHeight": HEIGHT, "imageWidth": WIDTH}
    parts: dict[str, Any] = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": picture, "imageData": None}
    return json.dumps({**parts, **size, **more}, indent=2)


def labelme(root: Path, pictures: Boxes) -> Path:
    """`X.json` beside `X.jpg`."""
    for name, boxes in pictures.items():
        shapes = [shape(NAMES[k % 2], corners(box)) for k, box in enumerate(boxes)]
        put(root / "photos" / f"{name}.json", labelme_file(shapes, f"{name}.jpg".rpartition("/")[2]))
        put(root / "photos" / f"{name}.jpg", _PICTURE)
    return root / "photos"


def corners(box: Sequence[float]) -> list[tuple[float, float]]:
    x0, y0, x1, y1 = box
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


# --- YOLO -------------------------------------------------------------------------------------------------------------


def yolo_line(number: int, points: Sequence[Sequence[float]]) -> str:
    """A class and an outline in shares of the picture."""
    return " ".join([str(number), *(f"{x / WIDTH:.6f} {y / HEIGHT:.6f}" for x, y in points)])


def yolo_seg(root: Path, pictures: Boxes, labels: str = "labels/train", images: str = "images/train") -> Path:
    """`data.yaml`, `images/train/X.jpg`, `labels/train/X.txt`, as Ultralytics lays them out."""
    for name, boxes in pictures.items():
        lines = [yolo_line(k % 2, corners(box)) for k, box in enumerate(boxes)]
        put(root / "yolo" / labels / f"{name}.txt", "\n".join(lines))
        put(root / "yolo" / images / f"{name}.jpg", _PICTURE)
    put(
        root / "yolo/data.yaml",
        "path: ../datasets/yolo\ntrain: images/train\nval: images/val\nnames:\n  0: cup\n  1: bowl\n",
    )
    return root / "yolo"


# --- Pascal VOC -------------------------------------------------------------------------------------------------------


def voc_palette() -> bytes:
    """The colours of the development kit."""
    colours = np.zeros((256, 3), np.uint8)
    for i in range(256):
        for bit in range(8):
            for channel in range(3):
                colours[i, channel] |= ((i >> (3 * bit + channel)) & 1) << (7 - bit)
    return colours.tobytes()


def palette_png(values_HW: Map) -> bytes:
    image = Image.fromarray(values_HW.astype(np.uint8))
    image.putpalette(voc_palette())
    return encoded(image, "PNG")


def write_voc(root: Path, pictures: Mapping[str, tuple[Map, Map]], split: str = "train") -> Path:
    """`VOCdevkit/VOC2012` of maps of objects and classes."""
    base = root / "VOCdevkit/VOC2012"
    for name, (objects, classes) in pictures.items():
        put(base / f"SegmentationObject/{name}.png", palette_png(objects))
        put(base / f"SegmentationClass/{name}.png", palette_png(classes))
        put(base / f"JPEGImages/{name}.jpg", _PICTURE)
    put(base / f"ImageSets/Segmentation/{split}.txt", "".join(f"{name}\n" for name in pictures))
    return root / "VOCdevkit"


def voc_maps(boxes: Sequence[Box]) -> tuple[Map, Map]:
    """Objects 1, 2, …, of the classes 1 (aeroplane) and 2 in turn, with a rim of void around each."""
    objects, classes = np.zeros(SIZE, int), np.zeros(SIZE, int)
    for number, box in enumerate(boxes, 1):
        x0, y0, x1, y1 = box
        rim = region(max(x0 - 1, 0), max(y0 - 1, 0), x1 + 1, y1 + 1)
        objects[rim], classes[rim] = 255, 255
        objects[region(*box)], classes[region(*box)] = number, (number - 1) % 2 + 1
    return objects, classes


def voc(root: Path, pictures: Boxes) -> Path:
    return write_voc(root, {name: voc_maps(boxes) for name, boxes in pictures.items()})


# --- COCO panoptic ----------------------------------------------------------------------------------------------------

CATEGORIES = [
    {"supercategory": "kitchen", "color": [220, 20, 60], "isthing": 1, "id": 47, "name": "cup"},
    {"supercategory": "kitchen", "color": [119, 11, 32], "isthing": 1, "id": 51, "name": "bowl"},
    {"supercategory": "plant", "color": [0, 0, 142], "isthing": 0, "id": 193, "name": "grass-merged"},
]


def rgb_ids(ids_HW: Map) -> bytes:
    """PNG of segment ids: R + 256 G + 65,536 B."""
    return encoded(np.stack([ids_HW & 255, ids_HW >> 8 & 255, ids_HW >> 16], axis=2).astype(np.uint8), "PNG")


def segment(ids_HW: Map, number: int, category: int, **more: Any) -> dict[str, Any]:
    """One entry of `segments_info`."""
    rows, columns = np.nonzero(ids_HW == number)
    x, y = int(columns.min()), int(rows.min())
    box = [x, y, int(columns.max()) + 1 - x, int(rows.max()) + 1 - y]
    return {"id": number, "category_id": category, "iscrowd": 0, "bbox": box, "area": len(rows), **more}


def write_panoptic(
    root: Path, pictures: Mapping[int, tuple[Map, Sequence[Mapping[str, Any]]]], split: str = "train"
) -> Path:
    """`coco/annotations/panoptic_train2017.json`, its folder of PNG files, and `train2017`."""
    base, images, annotations = root / "coco", [], []
    for number, (ids_HW, segments) in pictures.items():
        name = f"{number:012d}"
        put(base / f"annotations/panoptic_{split}2017/{name}.png", rgb_ids(ids_HW))
        put(base / f"{split}2017/{name}.jpg", _PICTURE)
        images.append({"license": 2, "file_name": f"{name}.jpg", "height": HEIGHT, "width": WIDTH, "id": number})
        annotations.append({"segments_info": list(segments), "file_name": f"{name}.png", "image_id": number})
    data = {"info": {}, "licenses": [], "images": images, "annotations": annotations, "categories": CATEGORIES}
    put(base / f"annotations/panoptic_{split}2017.json", json.dumps(data))
    return base


def panoptic_map(boxes: Sequence[Box]) -> tuple[Map, list[dict[str, Any]]]:
    """Objects over grass (of half the picture; the rest is void), under ids that need all three channels."""
    ids_HW = np.zeros(SIZE, int)
    ids_HW[HEIGHT // 2 :] = 7
    numbers = [(k + 1) * 0x30201 for k in range(len(boxes))]
    for number, box in zip(numbers, boxes, strict=True):
        ids_HW[region(*box)] = number
    segments = [segment(ids_HW, number, (47, 51)[k % 2]) for k, number in enumerate(numbers)]
    return ids_HW, [*segments, segment(ids_HW, 7, 193)]


def coco_panoptic(root: Path, pictures: Boxes) -> Path:
    return write_panoptic(root, {i: panoptic_map(boxes) for i, boxes in enumerate(pictures.values(), 1)})


# --- COCO exports of annotation tools ---------------------------------------------------------------------------------


def coco_export(pictures: Boxes, name: str = "{}.jpg", first_category: int = 1, **more: Any) -> str:
    """A json of polygons; `name` makes a file name of a picture's."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for i, (stem, boxes) in enumerate(pictures.items()):
        images.append({"id": i, "file_name": name.format(stem), "width": WIDTH, "height": HEIGHT})
        for k, box in enumerate(boxes):
            number = {"id": len(annotations), "category_id": first_category + k % 2, "iscrowd": 0}
            annotations.append({**annotation(i, box), **number, **more})
    categories = [{"id": first_category + k, "name": each, "supercategory": ""} for k, each in enumerate(NAMES)]
    return json.dumps({"info": {}, "images": images, "annotations": annotations, "categories": categories})


def roboflow(root: Path, pictures: Boxes, folder: str = "train") -> Path:
    """`train/_annotations.coco.json` beside its pictures."""
    stem = "{}_jpg.rf.0a1b2c3d"
    put(
        root / "kitchen.v1i.coco-segmentation" / folder / "_annotations.coco.json", coco_export(pictures, f"{stem}.jpg")
    )
    for name in pictures:
        put(root / "kitchen.v1i.coco-segmentation" / folder / f"{stem.format(name)}.jpg", _PICTURE)
    return root / "kitchen.v1i.coco-segmentation"


def cvat(root: Path, pictures: Boxes, images: str = "images", subset: str = "default") -> Path:
    """`annotations/instances_default.json` and `images/`; masks drawn with the brush: run lengths, marked as crowds."""
    data = json.loads(coco_export(pictures, iscrowd=1, attributes={"occluded": False}))
    for entry in data["annotations"]:
        x, y, w, h = map(int, entry["bbox"])
        flat = region(x, y, x + w, y + h).ravel(order="F")
        edges = np.flatnonzero(np.diff(flat)) + 1
        counts = np.diff([0, *edges.tolist(), flat.size]).tolist()
        entry["segmentation"] = {"counts": [0] * bool(flat[0]) + counts, "size": list(SIZE)}
    put(root / "cvat" / f"annotations/instances_{subset}.json", json.dumps(data))
    for name in pictures:
        put(root / "cvat" / images / f"{name}.jpg", _PICTURE)
    return root / "cvat"


def label_studio(root: Path, pictures: Boxes, name: str = "images/{}.jpg") -> Path:
    """`result.json` and `images/`; no crowd key."""
    data = json.loads(coco_export(pictures, name, 0, ignore=0))
    put(root / "project-1/result.json", json.dumps(data))
    for stem in pictures:
        put(root / "project-1/images" / f"{stem}.jpg", _PICTURE)
    return root / "project-1"


EXPORTS: dict[str, Callable[[Path, Boxes], Path]] = {
    "labelme": labelme, "yolo_seg": yolo_seg, "voc": voc, "coco_panoptic": coco_panoptic, "roboflow": roboflow,
    "cvat": cvat, "label_studio": label_studio}  # fmt: skip
