"""The baseline: sample building as research code usually writes it, in plain NumPy and OpenCV.

Own code, after a description of the published builders: the whole picture is decoded first, IoU is a double loop, masks
and white background are made on the full frame, a patch carries an alpha channel that is dropped in the end, a sample
is a folder with 8-bit masks. Nothing is made slow on purpose, and the walk through all label files that the published
code repeats for every picture is left out. Its containment test is the published one, which reads corners as
x, y, w, h and so lets most nested pairs pass.
"""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

Array = npt.NDArray[Any]


class Found(NamedTuple):
    """What the published code looks up for a picture: its file and its annotations."""

    path: Path
    annotations: Any


class PlainLvis:
    """Looks pictures up by id, as the LVIS API does: everything in dictionaries, made once."""

    def __init__(self, root: Path, split: str = "train") -> None:
        self.root = root
        data = json.loads((root / f"lvis_v1/lvis_v1_{split}.json").read_text())
        self.images = {image["id"]: image for image in data["images"]}
        self.annotations = defaultdict(list)
        for annotation in data["annotations"]:
            self.annotations[annotation["image_id"]].append(annotation)

    def find(self, item: int | str) -> Found:
        path = self.root / "train2017" / f"{item:012d}.jpg"
        if not path.exists():
            path = self.root / "val2017" / path.name
        return Found(path, self.annotations[item])

    def build(self, found: Found, area_ratio: float, out: Path) -> bool:
        return build_annotated(found, area_ratio, out)


class PlainObjects365:
    """Reads a picture's label file. The published code walks the whole label tree before it: not done here."""

    def __init__(self, root: Path, split: str = "train") -> None:
        self.labels, self.images = root / "labels" / split, root / "images" / split

    def find(self, item: int | str) -> Found:
        annotations = json.loads((self.labels / str(item)).read_text())["annotations"]
        return Found((self.images / str(item)).with_suffix(".jpg"), annotations)

    def build(self, found: Found, area_ratio: float, out: Path) -> bool:
        return build_annotated(found, area_ratio, out)


def build_annotated(found: Found, area_ratio: float, out: Path) -> bool:
    """Build the sample folder of a picture with COCO's annotations inside `out`; False where no pair is found."""
    image = read_rgb(found.path)
    height, width = image.shape[:2]
    large = [annotation for annotation in found.annotations if annotation["area"] > area_ratio * height * width]
    corners = [(x, y, x + w, y + h) for x, y, w, h in (annotation["bbox"] for annotation in large)]
    pair = closest_pair(corners)
    if pair is None:
        return False
    masks = [full_mask(large[index]["segmentation"], height, width) for index in pair]
    write_sample(found.path, image, masks, out)
    return True


def read_rgb(path: Path) -> Array:
    bgr: Any = cv2.imread(str(path))
    rgb: Array = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    return rgb


def closest_pair(corners: Sequence[Sequence[float]]) -> tuple[int, int] | None:
    """The two boxes (x0, y0, x1, y1) of the highest IoU; None where none overlap."""
    if len(corners) < 2:
        return None
    boxes = np.array(corners, np.float32)
    overlaps = np.full((len(boxes), len(boxes)), -1, np.float32)
    for i in range(len(boxes)):
        for j in range(i + 1, len(boxes)):
            nested = almost_contained(boxes[i], boxes[j]) or almost_contained(boxes[j], boxes[i])
            overlaps[i, j] = overlaps[j, i] = 0 if nested else iou(boxes[i], boxes[j])
    first, second = np.unravel_index(overlaps.argmax(), overlaps.shape)
    return (int(first), int(second)) if overlaps[first, second] > 0 else None


def write_sample(path: Path, image: Array, masks: Sequence[Array], out: Path) -> None:
    """The folder of one sample: the picture file as it is, masks (uint8 0/1 [H, W]) and patches."""
    folder = out / path.stem
    folder.mkdir(parents=True)
    shutil.copyfile(path, folder / "image.jpg")
    for k, mask in enumerate(masks):
        ratio = np.random.randint(11, 15) / 10
        patch = cut_patch(image, mask, ratio)
        cv2.imwrite(str(folder / f"object_{k}_mask.png"), mask * 255)
        cv2.imwrite(str(folder / f"object_{k}.png"), cv2.cvtColor(patch, cv2.COLOR_RGB2BGR))


def almost_contained(a: Array, b: Array, slack: float = 2) -> bool:
    """The published test: given corners, it compares x0 + x1 and y0 + y1 as if x1, y1 were width and height."""
    return bool(
        a[0] >= b[0] - slack
        and a[1] >= b[1] - slack
        and a[0] + a[2] <= b[0] + b[2] + slack
        and a[1] + a[3] <= b[1] + b[3] + slack
    )


def iou(a: Array, b: Array) -> float:
    """Intersection over union of two boxes (corners)."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return float(shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared))


def full_mask(segmentation: Any, height: int, width: int) -> Array:
    """uint8 0/1 [H, W] of polygons or run lengths, as COCO's `annToMask` gives it."""
    if isinstance(segmentation, list):
        rle = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        rle = coco_mask.frPyObjects(segmentation, height, width)
    else:
        rle = segmentation
    mask: Array = coco_mask.decode(rle)
    return mask


def cut_patch(image: Array, mask: Array, ratio: float) -> Array:
    """White outside the mask, on the full frame; crop, pad with white, make square, resize. uint8 [224, 224, 3]."""
    y0, y1, x0, x1 = inclusive_box(mask)
    mask_3 = np.stack([mask, mask, mask], -1)
    white = image * mask_3 + np.ones_like(image) * 255 * (1 - mask_3)
    white = np.concatenate([white, mask[..., None] * 255], -1)  # the alpha channel that is dropped in the end
    crop = white[y0:y1, x0:x1]
    crop = pad(crop, int(crop.shape[0] * ratio), int(crop.shape[1] * ratio))
    crop = pad(crop, max(crop.shape[:2]), max(crop.shape[:2]))
    return cv2.cvtColor(cv2.resize(crop.astype(np.uint8), (224, 224)), cv2.COLOR_RGBA2RGB)


def inclusive_box(mask: Array) -> tuple[int, int, int, int]:
    """y0, y1, x0, x1 of the first and last set pixels; the whole picture where there are fewer than 10."""
    if mask.sum() < 10:
        return 0, mask.shape[0], 0, mask.shape[1]
    y0, y1 = np.where(np.any(mask, axis=1))[0][[0, -1]]
    x0, x1 = np.where(np.any(mask, axis=0))[0][[0, -1]]
    return y0, y1, x0, x1


def pad(image: Array, height: int, width: int) -> Array:
    """White on all sides up to height x width, the smaller half first."""
    down, right = height - image.shape[0], width - image.shape[1]
    sides = ((down // 2, down - down // 2), (right // 2, right - right // 2), (0, 0))
    return np.pad(image, sides, "constant", constant_values=255)
