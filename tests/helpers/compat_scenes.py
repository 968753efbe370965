"""Random raw folders of the six formats for the comparison with the research code, each picture of a kind that one of
its rules turns on. `RAW[recipe](root)` writes one and returns the folder for `--raw`.

A shape is a list of parts, a part float [points, 2] of x, y; the integer rectangle of x0, y0, x1, y1 covers exactly the
pixels x0 <= x < x1, y0 <= y < y1.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from helpers.making import encoded, smooth
from helpers.oracle import mask_to_runs
from helpers.street import bdd_label, put, rle, thing, write_bdd, write_cityscapes, write_vistas, write_viton

Shape = list[npt.NDArray[np.float64]]
RGB = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]

SIZES = ((100, 64), (64, 100), (96, 100), (120, 80))  # 2 % of these are 128, 128, 192 and 192 pixels exactly
KINDS = (
    "inside left", "inside right", "inside above", "inside below", "blobs", "threshold", "tie", "duplicate", "blobs",
    "two parts", "apart", "touching", "one", "blobs", "inside right", "tie", "threshold", "inside below", "blobs",
    "two parts", "duplicate", "equal areas", "blobs", "threshold alone", "nothing",
)  # fmt: skip
VEHICLES = (107, 108, 109, 114)


class Scene(NamedTuple):
    number: int
    kind: str
    rng: np.random.Generator
    rgb: RGB
    shapes: list[Shape]

    @property
    def size(self) -> tuple[int, int]:
        return self.rgb.shape[0], self.rgb.shape[1]


def scenes(seed: int, kinds: Sequence[str] = KINDS) -> Iterator[Scene]:
    """One scene of every kind, shapes in any order."""
    for i, kind in enumerate(kinds):
        rng = np.random.default_rng([seed, i])
        width, height = SIZES[(i + seed) % len(SIZES)]
        shapes = draw_shapes(rng, kind, width, height)
        order = rng.permutation(len(shapes))
        yield Scene(i, kind, rng, smooth(height, width, seed * 100 + i), [shapes[j] for j in order])


def rect(x0: float, y0: float, x1: float, y1: float) -> Shape:
    return [np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], float)]


def draw_shapes(rng: np.random.Generator, kind: str, width: int, height: int) -> list[Shape]:
    unit: Any = np.array([width, height])  # Any: bounds of `Generator.integers` may be floats, its stub knows none
    if kind.startswith("inside"):
        # A large box, a small one within it whose centre lies to one side, and one that merely overlaps the large one.
        low = rng.integers(2, 0.1 * unit)
        extent, inner = (0.6 * unit).astype(int), (0.25 * unit).astype(int)
        side = {"left": (-1, 0), "right": (1, 0), "above": (0, -1), "below": (0, 1)}[kind.split()[1]]
        at = low + (extent - inner) // 2 + side * ((extent - inner) // 2 - 2)
        high = low + extent
        return [rect(*low, *high), rect(*at, *(at + inner)), rect(*(high - 4), *(high + 0.25 * unit).astype(int))]
    if kind.startswith("threshold"):  # the second holds exactly 2 % and would be the best partner
        low, extent = rng.integers(2, 0.2 * unit), (0.4 * unit).astype(int)
        high, tall = low + extent, width * height // 50 // 16
        exact = rect(high[0] - 12, high[1] - tall + 3, high[0] + 4, high[1] + 3)
        third = rect(*(high - 2), *(high + 0.3 * unit).astype(int))
        return [rect(*low, *high), exact, third] if kind == "threshold" else [rect(*low, *high), exact]
    if kind in ("tie", "duplicate"):
        low, extent = (0.3 * unit).astype(int), (0.4 * unit).astype(int)
        steps = (0, 1, -1) if kind == "tie" else (0, 0.3, 0.1)
        shifts = [(step * 0.2 * unit).astype(int) for step in steps]
        return [rect(*(low + shift), *(low + shift + extent)) for shift in shifts]
    if kind in ("apart", "equal areas", "touching", "one"):
        low, extent = rng.integers(1, 0.05 * unit + 2), (0.25 * unit).astype(int)
        gap = 0 if kind == "touching" else 3
        offsets = [np.array([i * (extent[0] + gap), 0]) for i in range(1 if kind == "one" else 3)]
        grow = [0 if kind == "equal areas" else i for i in range(len(offsets))]
        return [rect(*(low + s), *(low + s + extent + [0, g])) for s, g in zip(offsets, grow, strict=True)]
    if kind == "nothing":
        return []
    found: list[Shape] = []
    for _ in range(int(rng.integers(3, 7))):  # they may leave the frame
        found.append([blob(rng, rng.uniform(0.1, 0.9, 2) * unit, rng.uniform(0.1, 0.35, 2) * unit)])
        if kind == "two parts":
            found[-1].append(np.round(found[-1][0] * 0.4 + rng.uniform(0, 0.5, 2) * unit, 2))
    return found


def blob(rng: np.random.Generator, centre: Any, radii: Any) -> npt.NDArray[np.float64]:
    """A star of 5 to 12 vertices, at two decimals."""
    angle = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(5, 13))))
    reach = rng.uniform(0.6, 1, len(angle))[:, None] * radii
    return np.round(centre + reach * np.stack([np.cos(angle), np.sin(angle)], 1), 2)


def fill(shape: Shape, height: int, width: int) -> Bools:
    parts = [part.ravel().tolist() for part in shape]
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(parts, height, width))) == 1


def paint(scene: Scene) -> list[Bools]:
    """Masks of a map: the smaller shape hides the larger one."""
    masks = [fill(shape, *scene.size) for shape in scene.shapes]
    order = sorted(range(len(masks)), key=lambda i: -masks[i].sum())
    owner = np.full(scene.size, -1)
    for i in order:
        owner[masks[i]] = i
    return [owner == i for i in range(len(masks))]


def annotate(scene: Scene, shape: Shape) -> dict[str, Any]:
    """Annotated box and area as people give them: of the outline, the area not quite that of the pixels."""
    points = np.concatenate(shape)
    low, high = points.min(0), points.max(0)
    if len(points) == 4:
        area = float(np.prod(high - low))
    else:
        area = round(float(fill(shape, *scene.size).sum() * scene.rng.uniform(0.8, 1.1)), 2)
    box = [round(float(v), 2) for v in (*low, *(high - low))]
    return {"segmentation": [part.ravel().tolist() for part in shape], "bbox": box, "area": area}


# --- raw folders ------------------------------------------------------------------------------------------------------


def lvis(root: Path) -> Path:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for scene in scenes(1):
        image_id, folder = 900 - 7 * scene.number, ("train2017", "val2017")[scene.number % 3 == 2]
        name, (height, width) = f"{image_id:012d}.jpg", scene.size
        put(root / "COCO" / folder / name, encoded(scene.rgb, quality=95))
        url = f"http://images.cocodataset.org/{folder}/{name}"
        images.append({"id": image_id, "coco_url": url, "width": width, "height": height})
        for k, shape in enumerate(scene.shapes):
            entry = annotate(scene, shape)
            if k == 1 and scene.number % 3 == 1:
                entry["segmentation"] = rle(fill(shape, height, width))
            elif k == 1 and scene.number % 3 == 2:
                counts = mask_to_runs(fill(shape, height, width))
                entry["segmentation"] = {"counts": counts, "size": [height, width]}
            ids = {"id": len(annotations) + 1, "image_id": image_id, "category_id": int(scene.rng.integers(1, 4))}
            annotations.append({**ids, "iscrowd": int(scene.number % 4 == 1), **entry})
    categories = [{"id": i, "name": f"thing_{i}"} for i in (1, 2, 3)]
    data = json.dumps({"images": images, "annotations": annotations, "categories": categories})
    put(root / "COCO/lvis_v1/lvis_v1_train.json", data)
    return root / "COCO"


def objects365(root: Path) -> Path:
    base = root / "object365"
    for scene in scenes(2):
        stem = f"patch{scene.number % 3}/" + (f"shop.{scene.number}" if scene.number % 5 == 1 else f"o_{scene.number}")
        put(base / "images/train" / f"{stem}.jpg", encoded(scene.rgb, quality=95))
        entries = [annotate(scene, shape) | {"category_id": 1} for shape in scene.shapes]
        put(base / "labels/train" / f"{stem}.json", json.dumps({"image_id": scene.number, "annotations": entries}))
    return base


def bdd100k(root: Path) -> Path:
    frames, pictures = [], {}
    for scene in scenes(3):
        stem = f"{scene.number:08x}-{scene.number:08x}"
        labels = []
        for k, shape in enumerate(scene.shapes):
            mask = fill(shape, *scene.size)
            if mask.any():
                flags: dict[str, Any] = {
                    "crowd": scene.number % 4 == 1 and k == 0,
                    "ignored": scene.number % 4 == 2 and k == 0,
                }
                labels.append(bdd_label(f"{scene.number}-{k}", mask, category=("car", "person")[k % 2], **flags))
                if scene.kind in ("blobs", "duplicate"):  # a box of its own, with fractions
                    moved = {key: value + scene.rng.uniform(-2, 2) for key, value in labels[-1]["box2d"].items()}
                    labels[-1]["box2d"] = moved
        frames.append({"name": f"{stem}.jpg", "labels": labels})
        pictures[stem] = scene.rgb
    return write_bdd(root, frames[::-1], pictures)


def cityscapes(root: Path) -> Path:
    pictures = {}
    for scene in scenes(4, KINDS + KINDS):
        height, width = scene.size
        objects = [thing("road", rect(0, height // 2, width, height)[0].tolist())]
        for shape in scene.shapes:
            (part, *_) = shape  # an object is one polygon; its vertices are those of pixels, the last ones included
            points = np.where(part == part.max(0), part - 1, part).round().astype(int).tolist()
            names = ["car", "car", "truck", "bus", "cargroup", "truckgroup", "busgroup", "person", "caravan"]
            more = {"deleted": 1} if scene.rng.random() < 0.15 else {}
            objects.append(thing(str(scene.rng.choice(names)), points, **more))
            if scene.rng.random() < 0.2:
                x, y = points[0]
                objects.append(thing("pole", rect(x, y, x + 3, y + 20)[0].tolist()))
        pictures[f"aachen_{scene.number:06d}_000019"] = (scene.rgb, objects)
    return write_cityscapes(root, pictures)


def mapillary_vistas(root: Path) -> Path:
    pictures = {}
    for scene in scenes(5, KINDS + KINDS):
        labels, instances = np.full(scene.size, 21), np.zeros(scene.size, int)
        masks, way = paint(scene), (scene.number + scene.number // len(KINDS)) % 5
        numbers = list(range(len(masks)))
        if way == 3:  # gaps, and the largest that there is
            numbers = [255, *scene.rng.choice(200, 9, replace=False).tolist()][: len(masks)]
        classes = [int(c) for c in scene.rng.choice((*VEHICLES, *VEHICLES, 110), len(masks))]
        if way == 2:  # numbered within each class
            numbers = [classes[:k].count(c) for k, c in enumerate(classes)]
        if scene.kind == "apart":  # the only number is 0
            classes, numbers = list(VEHICLES[: len(masks)]), [0] * len(masks)
        for mask, label, number in zip(masks, classes, numbers, strict=True):
            labels[mask], instances[mask] = label, number
        if way in (0, 2):  # the highest number is a traffic sign's
            labels[:3, :3], instances[:3, :3] = 100, max(numbers, default=0) + 1
        pictures[f"mvd_{scene.number:03d}"] = (scene.rgb, labels, instances)
    return write_vistas(root, pictures)


def viton_hd(root: Path) -> Path:
    pictures = {}
    for scene in scenes(6):
        ids = np.zeros(scene.size, np.uint8)
        names = scene.rng.choice(np.arange(1, 20), len(scene.shapes), replace=False)
        if scene.number % 4 == 0 and len(names):  # stray pixels, or an id that nobody knows
            names[0] = (3, 11, 77)[scene.number // 4 % 3]
        for mask, name in zip(paint(scene), names, strict=True):
            ids[mask] = name
        stem = f"{scene.number:05d}_00" if scene.number % 6 else f"{scene.number:05d}.é"
        pictures[stem] = (scene.rgb, ids)
    return write_viton(root, pictures)


RAW: dict[str, Callable[[Path], Path]] = {
    "lvis": lvis, "objects365": objects365, "bdd100k": bdd100k, "cityscapes": cityscapes,
    "mapillary_vistas": mapillary_vistas, "viton_hd": viton_hd,
}  # fmt: skip
