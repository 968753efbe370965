"""Make raw datasets in the real formats from a seed, for the quickstart, the tests and the benchmarks.

    python scripts/demo_data.py OUT --lvis 40 --objects365 40 --viton 10 --cityscapes 10 --vistas 2 --bdd 10

`--lvis` writes COCO/lvis_v1/*.json with COCO/{train,val}2017, `--objects365` label files of the research project's SAM
script beside pictures in patchN folders, `--viton`, `--cityscapes`, `--vistas` and `--bdd` the folders VitonHD,
Cityscapes, MVD and bdd100k as they are published, `--boxes` a large detection json without pictures. Picture sizes,
object counts and shapes follow what the real datasets look like to a builder; the textures are noise of several
octaves.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from demo_drawing import outlines, paint, photo
from demo_street import make_bdd, make_cityscapes, make_vistas, make_viton

__all__ = [
    "MAKERS",
    "make_bdd",
    "make_boxes",
    "make_cityscapes",
    "make_lvis",
    "make_objects365",
    "make_vistas",
    "make_viton",
]

LVIS_SIZES = ((480, 640), (427, 640), (640, 480), (500, 375))
OBJECTS365_SIZES = ((480, 640), (683, 1024), (768, 1024))


def make_lvis(out: Path, count: int, seed: int = 0) -> Path:
    """COCO/ with pictures in train2017 and val2017 and LVIS v1 annotations of all of them in both splits."""
    root = out / "COCO"
    for name in ("lvis_v1", "train2017", "val2017"):
        (root / name).mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for i in range(count):
        rng = np.random.default_rng([seed, 1, i])
        height, width = LVIS_SIZES[rng.choice(4, p=[0.6, 0.2, 0.15, 0.05])]
        shapes = outlines(rng, height, width, int(rng.integers(8, 16)), big=0.35)
        image_id, folder = 1000 + 7 * i, "val2017" if i % 10 == 9 else "train2017"
        name = f"{image_id:012d}.jpg"
        pixels = paint(rng, photo(rng, height, width), shapes)
        cv2.imwrite(str(root / folder / name), pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])
        url = f"http://images.cocodataset.org/{folder}/{name}"
        images.append({"id": image_id, "coco_url": url, "width": width, "height": height, "license": 1})
        for shape in shapes:
            annotation = _annotation(rng, shape, height, width)
            if annotation["area"] > 0:
                base = {"id": len(annotations) + 1, "image_id": image_id, "category_id": int(rng.integers(1, 1204))}
                annotations.append(base | annotation)
    categories = [{"id": i, "name": f"thing_{i}", "synset": f"thing.n.{i}", "frequency": "f"} for i in range(1, 1204)]
    data = {"info": {}, "images": images, "annotations": annotations, "categories": categories, "licenses": []}
    for split in ("train", "val"):
        (root / "lvis_v1" / f"lvis_v1_{split}.json").write_text(json.dumps(data))
    return root


def _annotation(rng: np.random.Generator, shape: np.ndarray, height: int, width: int) -> dict[str, Any]:
    """Polygon, sometimes of two parts, sometimes run lengths as COCO gives them for crowds."""
    parts = [shape.ravel().tolist()]
    if rng.random() < 0.15:
        part = shape * 0.2 + shape.mean(0) * 0.8 + [np.ptp(shape[:, 0]) * 0.6, 0]
        part[:, 0] = np.clip(part[:, 0], 0, width - 1)
        if np.ptp(part[:, 0]) > 3:
            parts.append(np.round(part, 2).ravel().tolist())
    rle = coco_mask.merge(coco_mask.frPyObjects(parts, height, width))
    segmentation: Any = parts
    if rng.random() < 0.06:
        flat = coco_mask.decode(rle).ravel(order="F")
        edges = np.flatnonzero(np.diff(flat)) + 1
        counts = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
        segmentation = {"size": [height, width], "counts": [0, *counts] if flat[0] else counts}
    box = [float(v) for v in coco_mask.toBbox(rle)]
    return {"segmentation": segmentation, "area": float(coco_mask.area(rle)), "bbox": box}


def make_objects365(out: Path, count: int, seed: int = 0, pictures: int | None = None) -> Path:
    """object365/ with label files of the research SAM script, for the first `pictures` of them with pictures."""
    root = out / "object365"
    for i in range(count):
        rng = np.random.default_rng([seed, 2, i])
        patch, name = f"patch{i % 5}", f"objects365_v1_{i:08d}"
        labels, folder = root / "labels/train" / patch, root / "images/train" / patch
        labels.mkdir(parents=True, exist_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        if pictures is not None and i >= pictures:
            (labels / f"{name}.json").write_text(json.dumps({"image_id": i, "annotations": []}))
            continue
        height, width = OBJECTS365_SIZES[rng.choice(3, p=[0.4, 0.4, 0.2])]
        shapes = outlines(rng, height, width, int(rng.integers(6, 22)), big=0.32)
        pixels = paint(rng, photo(rng, height, width), shapes)
        cv2.imwrite(str(folder / f"{name}.jpg"), pixels, [cv2.IMWRITE_JPEG_QUALITY, 88])
        annotations = [label for shape in shapes if (label := _sam_label(shape, height, width))]
        (labels / f"{name}.json").write_text(json.dumps({"image_id": i, "annotations": annotations}))
    return root


def _sam_label(shape: np.ndarray, height: int, width: int) -> dict[str, Any] | None:
    """What the research script keeps of a mask: its largest outer contour."""
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [np.round(shape).astype(np.int32)], 1)
    contour = max(cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0], key=cv2.contourArea)
    if len(contour) < 3:
        return None
    box, area = [int(v) for v in cv2.boundingRect(contour)], float(cv2.contourArea(contour))
    return {"segmentation": [contour.ravel().tolist()], "bbox": box, "area": area, "category_id": 1}


def make_boxes(path: Path, images: int, boxes: int, seed: int = 0) -> Path:
    """A detection json with the fields of Objects365's own; annotations are not grouped by picture."""
    rng = np.random.default_rng([seed, 9])
    ids = rng.permutation(images * 2)[:images]
    owner, size = ids[rng.integers(0, images, boxes)], rng.integers(400, 1100, (images, 2))
    corner, extent = rng.uniform(0, 500, (boxes, 2)), rng.lognormal(4, 0.8, (boxes, 2))
    category = rng.integers(1, 366, boxes)
    names = json.dumps([{"supercategory": "x", "id": i, "name": f"c{i}"} for i in range(1, 366)])
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        file.write(f'{{"info":{{}},"licenses":[],"categories":{names},"images":[')
        for i, (k, (w, h)) in enumerate(zip(ids.tolist(), size.tolist(), strict=True)):
            name = f"images/v1/patch{k % 51}/objects365_v1_{k:08d}.jpg"
            record = f'{{"height":{h},"id":{k},"license":5,"width":{w},"file_name":"{name}","url":""}}'
            file.write("," * (i > 0) + record)
        file.write('],"annotations":[')
        rows = zip(owner.tolist(), corner.tolist(), extent.tolist(), category.tolist(), strict=True)
        for i, (k, (x, y), (w, h), c) in enumerate(rows):
            record = f'"area":{w * h:.10f},"isreflected":0,"bbox":[{x:.10f},{y:.10f},{w:.10f},{h:.10f}]'
            record = f'{{"id":{i + 1},"iscrowd":0,"isfake":0,{record},"image_id":{k},"category_id":{c}}}'
            file.write("," * (i > 0) + record)
        file.write("]}")
    return path


MAKERS = {
    "lvis": make_lvis,
    "objects365": make_objects365,
    "viton": make_viton,
    "cityscapes": make_cityscapes,
    "vistas": make_vistas,
    "bdd": make_bdd,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    for name in MAKERS:
        parser.add_argument(f"--{name}", type=int, default=0, metavar="PICTURES")
    parser.add_argument("--boxes", type=int, nargs=2, metavar=("PICTURES", "BOXES"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for name, make in MAKERS.items():
        if count := getattr(arguments, name):
            print(make(arguments.out, count, arguments.seed))
    if arguments.boxes:
        pictures, boxes = arguments.boxes
        print(make_boxes(arguments.out / "zhiyuan_objv2_train.json", pictures, boxes, arguments.seed))


if __name__ == "__main__":
    main()
