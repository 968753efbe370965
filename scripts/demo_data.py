"""Make raw datasets in the real formats from a seed, for the quickstart, the tests and the benchmarks.

    python scripts/demo_data.py OUT --lvis 40 --objects365 40 --boxes 1000 20000

`--lvis` writes COCO/lvis_v1/*.json with COCO/{train,val}2017, `--objects365` label files of the research project's SAM
script beside pictures in patchN folders, `--boxes` a large detection json without pictures. Picture sizes, object
counts and shapes follow what the real datasets look like to a builder; the textures are noise of several octaves.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

LVIS_SIZES = ((480, 640), (427, 640), (640, 480), (500, 375))
OBJECTS365_SIZES = ((480, 640), (683, 1024), (768, 1024))
OBJECT_NOISE = 5.0


def photo(rng: np.random.Generator, height: int, width: int, noise: float = 6.0) -> np.ndarray:
    """uint8 BGR [height, width, 3] that compresses about as a photograph does: 1/f texture and sensor noise."""
    image = np.full((height, width, 3), rng.uniform(70, 180, 3), np.float32)
    for octave in (2, 4, 6):
        cells = (max(2, height * 2**octave // 512), max(2, width * 2**octave // 512))
        texture = rng.normal(0, 1, (*cells, 1)) * rng.uniform(0.6, 1.4, 3)
        image += 90 / octave * cv2.resize(texture.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    grain = np.empty((height, width, 3), np.float32)
    cv2.setRNGSeed(int(rng.integers(1 << 30)))
    cv2.randn(grain, (0, 0, 0), (noise, noise, noise))
    return np.clip(image + grain, 0, 255).astype(np.uint8)


def blob(rng: np.random.Generator, x: float, y: float, rx: float, ry: float) -> np.ndarray:
    """Outline of a lumpy shape, float [points, 2]."""
    count = int(rng.integers(14, 60))
    angle = np.sort(rng.uniform(0, 2 * math.pi, count))
    radius = 1 + 0.25 * np.cos(angle * rng.integers(2, 6) + rng.uniform(0, 6)) + rng.normal(0, 0.06, count)
    return np.stack([x + rx * radius * np.cos(angle), y + ry * radius * np.sin(angle)], 1)


def outlines(
    rng: np.random.Generator, height: int, width: int, count: int, big: float, contained: float = 0.25
) -> list[np.ndarray]:
    """Outlines of up to `count` objects, clustered so that boxes overlap; a share lies inside an earlier one."""
    found: list[np.ndarray] = []
    for _ in range(count):
        size = min(height, width) * float(np.clip(rng.lognormal(math.log(0.16), 0.55), 0.03, big))
        centre = np.array([rng.uniform(0.1 * width, 0.9 * width), rng.uniform(0.1 * height, 0.9 * height)])
        if found and rng.random() < contained:
            other = found[rng.integers(len(found))]
            low, high = other.min(0), other.max(0)
            centre = rng.uniform(low * 0.75 + high * 0.25, high * 0.75 + low * 0.25)
            size = max(4.0, min(size, 0.2 * float((high - low).min())))
        elif found and rng.random() < 0.5:
            other = found[rng.integers(len(found))]
            centre = other.mean(0) + rng.normal(0, 0.6, 2) * np.ptp(other, axis=0)
        outline = blob(rng, *centre, size * rng.uniform(0.7, 1.6), size * rng.uniform(0.7, 1.6))
        outline = np.clip(outline, 0, [width - 1, height - 1])
        if np.ptp(outline, axis=0).min() >= 4:
            found.append(np.round(outline, 2))
    return found


def paint(rng: np.random.Generator, image: np.ndarray, shapes: list[np.ndarray]) -> np.ndarray:
    """Fill each outline with a texture of its own, later ones in front."""
    for shape in shapes:
        x0, y0 = np.floor(shape.min(0)).astype(int)
        x1, y1 = np.minimum(np.ceil(shape.max(0)).astype(int) + 1, image.shape[1::-1])
        inside = np.zeros((y1 - y0, x1 - x0), np.uint8)
        cv2.fillPoly(inside, [np.round(shape - [x0, y0]).astype(np.int32)], 1)
        image[y0:y1, x0:x1][inside > 0] = photo(rng, y1 - y0, x1 - x0, OBJECT_NOISE)[inside > 0]
    return image


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
            found = _annotation(rng, shape, height, width)
            if found["area"] > 0:
                base = {"id": len(annotations) + 1, "image_id": image_id, "category_id": int(rng.integers(1, 1204))}
                annotations.append(base | found)
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
        annotations = [found for shape in shapes if (found := _sam_label(shape, height, width))]
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--lvis", type=int, default=0, metavar="PICTURES")
    parser.add_argument("--objects365", type=int, default=0, metavar="PICTURES")
    parser.add_argument("--boxes", type=int, nargs=2, metavar=("PICTURES", "BOXES"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.lvis:
        print(make_lvis(arguments.out, arguments.lvis, arguments.seed))
    if arguments.objects365:
        print(make_objects365(arguments.out, arguments.objects365, arguments.seed))
    if arguments.boxes:
        print(make_boxes(arguments.out / "zhiyuan_objv2_train.json", *arguments.boxes, arguments.seed))


if __name__ == "__main__":
    main()
