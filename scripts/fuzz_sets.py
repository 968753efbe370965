"""Raw folders for `fuzz.py`, one in each format that pics reads: two small pictures of two objects that overlap."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

Box = tuple[int, int, int, int]
WIDTH, HEIGHT = 96, 64
BOXES: tuple[Box, Box] = ((8, 8, 60, 50), (36, 20, 90, 60))


def _save(path: Path, content: Image.Image | Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, Image.Image):
        content.save(path)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))


def _photo(seed: int) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (8, 12, 3), np.uint8)
    return Image.fromarray(noise).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)


def _corners(box: Box) -> list[list[int]]:
    x0, y0, x1, y1 = box
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]


def _regions() -> np.ndarray:
    """uint8 [H, W]: 1 and 2 in the boxes."""
    found = np.zeros((HEIGHT, WIDTH), np.uint8)
    for k, (x0, y0, x1, y1) in enumerate(BOXES):
        found[y0:y1, x0:x1] = k + 1
    return found


def _run_lengths(k: int) -> dict[str, Any]:
    rle = coco_mask.encode(np.asfortranarray(_regions() == k + 1))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def _annotations(image_id: int, first: int) -> list[dict[str, Any]]:
    found = []
    for k, (x0, y0, x1, y1) in enumerate(BOXES):
        outline = [float(value) for corner in _corners((x0, y0, x1, y1)) for value in corner]
        found.append({
            "id": first + k, "image_id": image_id, "category_id": 1, "bbox": [x0, y0, x1 - x0, y1 - y0], "iscrowd": 0,
            "segmentation": [outline] if (image_id + k) % 2 else _run_lengths(k), "area": (x1 - x0) * (y1 - y0),
        })  # fmt: skip
    return found


def coco(raw: Path) -> str:
    """A recipe of one's own, with a JPEG and a PNG."""
    names = ["a.jpg", "b.png"]
    for i, name in enumerate(names):
        _save(raw / "photos" / name, _photo(i))
    images = [{"id": i, "file_name": name, "width": WIDTH, "height": HEIGHT} for i, name in enumerate(names)]
    annotations = [*_annotations(0, 1), *_annotations(1, 3)]
    _save(raw / "all.json", {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cup"}]})
    recipe = raw.parent / "coco.yaml"
    _save(recipe, (
        "kind: dataset\nname: own\nout: out\nsource:\n  format: coco\n  splits:\n"
        "    train: {annotations: [all.json], images: [photos/{file_name}]}\n"
    ))  # fmt: skip
    return str(recipe)


def objects365(raw: Path) -> str:
    """One json a picture, as the research project's SAM script writes them."""
    for i in range(2):
        _save(raw / f"images/train/patch0/p{i}.jpg", _photo(i))
        _save(raw / f"labels/train/patch0/p{i}.json", {"annotations": _annotations(i, 1)})
    return "objects365"


def viton_hd(raw: Path) -> str:
    """Palette PNG of ids."""
    for i in range(2):
        _save(raw / f"train/image/p{i}.jpg", _photo(i))
        labels = Image.fromarray(np.choose(_regions(), [0, 5, 9]).astype(np.uint8))
        labels.putpalette(bytes(range(256)) * 3)
        _save(raw / f"train/image-parse-v3/p{i}.png", labels)
    return "viton_hd"


def cityscapes(raw: Path) -> str:
    """Polygons in paint order, PNG pictures."""
    for i in range(2):
        stem = f"ulm_{i:06d}_000019"
        _save(raw / f"leftImg8bit/train/ulm/{stem}_leftImg8bit.png", _photo(i))
        objects = [{"label": "car", "polygon": _corners(box)} for box in BOXES]
        data = {"imgHeight": HEIGHT, "imgWidth": WIDTH, "objects": objects}
        _save(raw / f"gtFine/train/ulm/{stem}_gtFine_polygons.json", data)
    return "cityscapes"


def mapillary_vistas(raw: Path) -> str:
    """16-bit PNG of label * 256 + number."""
    labels: list[dict[str, Any]] = [{"name": "void", "instances": False}]
    for name in ("car", "bus", "caravan", "truck"):
        labels.append({"name": f"object--vehicle--{name}", "instances": True})
    _save(raw / "config_v2.0.json", {"version": "2.0", "labels": labels})
    for i in range(2):
        _save(raw / f"training/images/p{i}.jpg", _photo(i))
        values = np.choose(_regions(), [0, 256, 257]).astype(np.uint16)
        _save(raw / f"training/v2.0/instances/p{i}.png", Image.fromarray(values))
    return "mapillary_vistas"


def bdd100k(raw: Path) -> str:
    """Scalabel's json with run lengths."""
    frames = []
    for i in range(2):
        _save(raw / f"images/10k/train/p{i}.jpg", _photo(i))
        labels = [
            {"id": f"{i}-{k}", "category": "car", "box2d": {"x1": x0, "y1": y0, "x2": x1 - 1, "y2": y1 - 1},
             "attributes": {"crowd": False}, "rle": _run_lengths(k)}
            for k, (x0, y0, x1, y1) in enumerate(BOXES)
        ]  # fmt: skip
        frames.append({"name": f"p{i}.jpg", "labels": labels})
    _save(raw / "labels/ins_seg/rles/ins_seg_train.json", {"frames": frames, "config": None})
    return "bdd100k"


def labelme(raw: Path) -> str:
    """A json of polygons and a rectangle beside each picture."""
    for i in range(2):
        _save(raw / f"p{i}.jpg", _photo(i))
        shapes = [
            {"label": "cup", "points": _corners(BOXES[0]), "shape_type": "polygon", "group_id": None},
            {"label": "cup", "points": [BOXES[1][:2], BOXES[1][2:]], "shape_type": "rectangle", "group_id": None},
        ]
        data = {"version": "5.5.0", "shapes": shapes, "imagePath": f"p{i}.jpg", "imageHeight": HEIGHT}
        _save(raw / f"p{i}.json", {**data, "imageWidth": WIDTH, "imageData": None})
    return "labelme"


def yolo_seg(raw: Path) -> str:
    """Lines of a class and an outline in shares of the picture."""
    _save(raw / "data.yaml", "names: [cup, bowl]\n")
    for i in range(2):
        _save(raw / f"images/train/p{i}.jpg", _photo(i))
        outlines = [" ".join(f"{x / WIDTH:.6f} {y / HEIGHT:.6f}" for x, y in _corners(box)) for box in BOXES]
        _save(raw / f"labels/train/p{i}.txt", "".join(f"{k} {outline}\n" for k, outline in enumerate(outlines)))
    return "yolo_seg"


def voc(raw: Path) -> str:
    """A list, and palette PNGs of objects and classes."""
    for i in range(2):
        _save(raw / f"JPEGImages/p{i}.jpg", _photo(i))
        for folder, values in (("SegmentationObject", [0, 1, 2]), ("SegmentationClass", [0, 5, 15])):
            labels = Image.fromarray(np.choose(_regions(), values).astype(np.uint8))
            labels.putpalette(bytes(range(256)) * 3)
            _save(raw / f"{folder}/p{i}.png", labels)
    _save(raw / "ImageSets/Segmentation/train.txt", "p0\np1\n")
    return "voc"


def coco_panoptic(raw: Path) -> str:
    """A json of segments, and PNGs of their ids."""
    images, annotations = [], []
    for i in range(2):
        _save(raw / f"train2017/p{i}.jpg", _photo(i))
        ids = np.choose(_regions(), [0, 300, 70_000]).astype(np.uint32)
        _save(
            raw / f"annotations/panoptic_train2017/p{i}.png",
            Image.fromarray(np.stack([ids >> shift & 255 for shift in (0, 8, 16)], 2).astype(np.uint8)),
        )
        images.append({"id": i, "file_name": f"p{i}.jpg", "width": WIDTH, "height": HEIGHT})
        segments = [{"id": number, "category_id": 1, "iscrowd": 0} for number in (300, 70_000)]
        annotations.append({"image_id": i, "file_name": f"p{i}.png", "segments_info": segments})
    categories = [{"id": 1, "name": "cup", "isthing": 1}]
    data = {"images": images, "annotations": annotations, "categories": categories}
    _save(raw / "annotations/panoptic_train2017.json", data)
    return "coco_panoptic"


RAW_SETS: dict[str, Callable[[Path], str]] = {
    "coco": coco, "objects365": objects365, "viton_hd": viton_hd, "cityscapes": cityscapes,
    "mapillary_vistas": mapillary_vistas, "bdd100k": bdd100k, "labelme": labelme, "yolo_seg": yolo_seg, "voc": voc,
    "coco_panoptic": coco_panoptic,
}  # fmt: skip
