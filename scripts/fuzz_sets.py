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


RAW_SETS: dict[str, Callable[[Path], str]] = {
    "coco": coco, "objects365": objects365, "viton_hd": viton_hd, "cityscapes": cityscapes,
    "mapillary_vistas": mapillary_vistas, "bdd100k": bdd100k,
}  # fmt: skip
