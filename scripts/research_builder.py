"""The research project's builders, faults included, as such code is usually written in plain NumPy and OpenCV.

Own code, after a description of them, without a line of the package: the baseline of the benchmarks, and what the tests
compare `--compat` with. A whole image is decoded first, IoU is a double loop, masks and white background are made
on the full frame, masks of all objects before any is chosen (where they are not COCO's), boxes from the coordinates of
all set pixels; a patch carries an alpha channel that is dropped in the end, a sample is a folder with 8-bit masks.
Nothing is made slow on purpose. Left out: the walk through all label files and the listing of the image folder that the
published code repeats for every image, and the IoUs that it throws away for VITON-HD.
"""

from __future__ import annotations

import json
import shutil
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

Array = npt.NDArray[Any]
Corners = Sequence[float]
"""x0, y0, x1, y1."""

CITY_VEHICLES = ("car", "truck", "bus")
VISTAS_VEHICLES = (107, 108, 109, 114)


class Thing(NamedTuple):
    """One object: area and box by the dataset's own rule; its mask, uint8 0/1 [H, W], or COCO's segmentation."""

    area: float
    box: Corners
    shape: Any


class Chosen(NamedTuple):
    """The two objects of an image, in the order in which they are stored.

    Attributes:
        path: of the image.
        image: uint8 RGB [H, W, 3].
        boxes: by the dataset's own rule.
        masks: uint8 0/1 [H, W].
    """

    path: Path
    image: Array
    boxes: list[Corners]
    masks: list[Array]


class ResearchBuilder(ABC):
    """Chooses and cuts the samples of one dataset."""

    @abstractmethod
    def items(self) -> Iterable[int | str]:
        """All images, as the package names them."""

    @abstractmethod
    def find(self, item: int | str) -> tuple[Path, Any]:
        """An image's file and its annotations."""

    @abstractmethod
    def things(self, annotations: Any) -> Iterator[Thing]:
        """The objects of an image."""

    def choose_pair(self, things: Sequence[Thing]) -> tuple[int, int] | None:
        """Which two are stored."""
        return closest_pair([thing.box for thing in things])

    def choose(self, item: int | str, area_ratio: float) -> Chosen | None:
        """The two objects of an image, None where it gives no sample."""
        path, annotations = self.find(item)
        image = read_rgb(path)
        candidates = large(self.things(annotations), image, area_ratio)
        pair = self.choose_pair(candidates) if len(candidates) > 1 else None
        if pair is None:
            return None
        boxes, shapes = [candidates[i].box for i in pair], [candidates[i].shape for i in pair]
        masks = [shape if isinstance(shape, np.ndarray) else full_mask(shape, image) for shape in shapes]
        return Chosen(path, image, boxes, masks)

    def build(self, item: int | str, area_ratio: float, out: Path) -> bool:
        """Build the sample folder of an image inside `out`; False where no pair is found."""
        chosen = self.choose(item, area_ratio)
        if chosen is not None:
            write_sample(chosen, out)
        return chosen is not None


class Lvis(ResearchBuilder):
    """Looks images up by id, as the LVIS API does: everything in dictionaries, made once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        data = json.loads((root / "lvis_v1/lvis_v1_train.json").read_text())
        self.images = {image["id"]: image for image in data["images"]}
        self.annotations = defaultdict(list)
        for annotation in data["annotations"]:
            self.annotations[annotation["image_id"]].append(annotation)

    def items(self) -> Iterable[int | str]:
        return sorted(self.images)

    def find(self, item: int | str) -> tuple[Path, Any]:
        path = self.root / "train2017" / f"{item:012d}.jpg"
        return path if path.exists() else self.root / "val2017" / path.name, self.annotations[item]

    def things(self, annotations: Any) -> Iterator[Thing]:
        """As annotated, whatever else the annotation says (iscrowd, ignore, category)."""
        for annotation in annotations:
            x, y, w, h = annotation["bbox"]
            yield Thing(annotation["area"], (x, y, x + w, y + h), annotation["segmentation"])


class _FileBuilder(ResearchBuilder):
    """Of datasets with one annotation file an image, named by its path in a folder."""

    folder: Path
    suffix: str

    def items(self) -> Iterable[int | str]:
        return sorted(path.relative_to(self.folder).as_posix() for path in self.folder.rglob(f"*{self.suffix}"))


class Objects365(_FileBuilder):
    """Reads an image's label file. The published code walks the whole label tree before it: not done here."""

    suffix = ".json"
    things = Lvis.things

    def __init__(self, root: Path) -> None:
        self.folder, self.images = root / "labels/train", root / "images/train"

    def find(self, item: int | str) -> tuple[Path, Any]:
        annotations = json.loads((self.folder / str(item)).read_text())["annotations"]
        return self.images / f"{str(item).removesuffix('.json')}.jpg", annotations


class VitonHd(_FileBuilder):
    """The two largest parts of the parse map, of equals the later one first, overlapping or not."""

    suffix = ".png"

    def __init__(self, root: Path) -> None:
        self.folder, self.images = root / "train/image-parse-v3", root / "train/image"

    def find(self, item: int | str) -> tuple[Path, Any]:
        path = self.folder / str(item)
        return self.images / f"{path.name.removesuffix('.png')}.jpg", path

    def things(self, annotations: Any) -> Iterator[Thing]:
        parse = np.array(Image.open(annotations))
        for label in np.unique(parse):
            mask = (parse == label).astype(np.uint8)
            if label != 0:
                yield Thing(mask.sum(), set_pixels_box(mask), mask)

    def choose_pair(self, things: Sequence[Thing]) -> tuple[int, int] | None:
        order = np.argsort([thing.area for thing in things], kind="stable")[::-1]
        return int(order[0]), int(order[1])


class Cityscapes(_FileBuilder):
    """Polygons of cars, trucks and buses, groups of them too, each drawn in full whatever hides it."""

    suffix = "_gtFine_polygons.json"

    def __init__(self, root: Path) -> None:
        self.folder, self.images = root / "gtFine/train", root / "leftImg8bit/train"

    def find(self, item: int | str) -> tuple[Path, Any]:
        record = json.loads((self.folder / str(item)).read_text())
        return self.images / str(item).replace(self.suffix, "_leftImg8bit.png"), record

    def things(self, annotations: Any) -> Iterator[Thing]:
        for entry in annotations["objects"]:
            if entry["label"].removesuffix("group") in CITY_VEHICLES:
                canvas = Image.new("RGBA", (annotations["imgWidth"], annotations["imgHeight"]))
                ImageDraw.Draw(canvas).polygon([tuple(point) for point in entry["polygon"]], fill=(255, 255, 255, 255))
                mask = (np.array(canvas)[:, :, 3] > 127).astype(np.uint8)
                yield Thing(mask.sum(), set_pixels_box(mask), mask)


class MapillaryVistas(_FileBuilder):
    """A full-frame mask for each class and instance number below the image's highest, whether it occurs or not."""

    suffix = ".png"

    def __init__(self, root: Path) -> None:
        self.folder, self.images = root / "training/v2.0/instances", root / "training/images"

    def find(self, item: int | str) -> tuple[Path, Any]:
        path = self.folder / str(item)
        return self.images / f"{path.name.removesuffix('.png')}.jpg", path

    def things(self, annotations: Any) -> Iterator[Thing]:
        values = np.array(Image.open(annotations))
        labels, instances = values // 256, values % 256
        for label in VISTAS_VEHICLES:
            for instance in instance_numbers(instances):
                mask = ((labels == label) & (instances == instance)).astype(np.uint8)
                yield Thing(mask.sum(), set_pixels_box(mask), mask)


class Bdd100k(ResearchBuilder):
    """Every object's run lengths decoded for its area; boxes as given, whose far corner is the last pixel."""

    def __init__(self, root: Path) -> None:
        self.images = root / "images/10k/train"
        self.frames = json.loads((root / "labels/ins_seg/rles/ins_seg_train.json").read_text())["frames"]

    def items(self) -> Iterable[int | str]:
        return range(len(self.frames))

    def find(self, item: int | str) -> tuple[Path, Any]:
        frame = self.frames[item]
        return self.images / frame["name"], frame["labels"]

    def things(self, annotations: Any) -> Iterator[Thing]:
        for label in annotations:
            mask = coco_mask.decode(label["rle"])
            yield Thing(mask.sum(), tuple(label["box2d"][key] for key in ("x1", "y1", "x2", "y2")), mask)


BUILDERS: dict[str, Callable[[Path], ResearchBuilder]] = {
    "lvis": Lvis, "objects365": Objects365, "viton_hd": VitonHd, "cityscapes": Cityscapes,
    "mapillary_vistas": MapillaryVistas, "bdd100k": Bdd100k,
}  # fmt: skip
"""By the name of the recipe; the argument is the dataset's own folder."""


def read_rgb(path: Path) -> Array:
    bgr: Any = cv2.imread(str(path))
    rgb: Array = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    return rgb


def large(things: Iterable[Thing], image: Array, area_ratio: float) -> list[Thing]:
    """Those above the threshold."""
    return [thing for thing in things if thing.area > area_ratio * (image.shape[0] * image.shape[1])]


def instance_numbers(instances: Array) -> range:
    """The numbers looked for, of whatever classes: without the highest."""
    return range(int(instances.max()))


def closest_pair(corners: Sequence[Corners]) -> tuple[int, int] | None:
    """The two boxes of the highest IoU, the first of equals row by row; None where none overlap."""
    boxes = np.array(corners, np.float32)
    overlaps = np.full((len(boxes), len(boxes)), -1, np.float32)
    for i in range(len(boxes)):
        for j in range(i + 1, len(boxes)):
            nested = almost_contained(boxes[i], boxes[j]) or almost_contained(boxes[j], boxes[i])
            overlaps[i, j] = overlaps[j, i] = 0 if nested else iou(boxes[i], boxes[j])
    first, second = np.unravel_index(overlaps.argmax(), overlaps.shape)
    return (int(first), int(second)) if overlaps[first, second] > 0 else None


def almost_contained(a: Array, b: Array) -> bool:
    """The published test: given corners, it compares x0 + x1 and y0 + y1 as if x1, y1 were width and height."""
    if a[0] < b[0] - 2 or a[1] < b[1] - 2:
        return False
    return bool(a[0] + a[2] <= b[0] + b[2] + 2 and a[1] + a[3] <= b[1] + b[3] + 2)


def iou(a: Array, b: Array) -> float:
    """Intersection over union of two boxes (corners)."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return float(shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared))


def full_mask(segmentation: Any, image: Array) -> Array:
    """uint8 0/1 [H, W] of polygons or run lengths, as COCO's `annToMask` gives it."""
    size = image.shape[:2]
    if isinstance(segmentation, list):
        rle = coco_mask.merge(coco_mask.frPyObjects(segmentation, *size))
    elif isinstance(segmentation["counts"], list):
        rle = coco_mask.frPyObjects(segmentation, *size)
    else:
        rle = segmentation
    mask: Array = coco_mask.decode(rle)
    return mask


def write_sample(chosen: Chosen, out: Path) -> None:
    """The folder of one sample: the image file as it is, masks and patches."""
    folder = out / chosen.path.stem
    folder.mkdir(parents=True)
    shutil.copyfile(chosen.path, folder / "image.jpg")
    for k, mask in enumerate(chosen.masks):
        patch = cut_patch(chosen.image, mask, np.random.randint(11, 15) / 10)
        cv2.imwrite(str(folder / f"object_{k}_mask.png"), mask * 255)
        cv2.imwrite(str(folder / f"object_{k}.png"), cv2.cvtColor(patch, cv2.COLOR_RGB2BGR))


def cut_patch(image: Array, mask: Array, ratio: float) -> Array:
    """White outside the mask, on the full frame; crop short of the last row and column, or the whole image where fewer
    than 10 pixels are set; pad with white, make square, resize. uint8 [224, 224, 3]."""
    x0, y0, x1, y1 = (0, 0, *mask.shape[::-1]) if mask.sum() < 10 else last_pixel_box(mask)
    mask_3 = np.stack([mask, mask, mask], -1)
    white = image * mask_3 + np.ones_like(image) * 255 * (1 - mask_3)
    white = np.concatenate([white, mask[..., None] * 255], -1)  # the alpha channel that is dropped in the end
    crop = white[y0:y1, x0:x1]
    crop = pad(crop, int(crop.shape[0] * ratio), int(crop.shape[1] * ratio))
    crop = pad(crop, max(crop.shape[:2]), max(crop.shape[:2]))
    return cv2.cvtColor(cv2.resize(crop.astype(np.uint8), (224, 224)), cv2.COLOR_RGBA2RGB)


def last_pixel_box(mask: Array) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of the first and last set pixels, found side by side."""
    y0, y1 = np.where(np.any(mask, axis=1))[0][[0, -1]]
    x0, x1 = np.where(np.any(mask, axis=0))[0][[0, -1]]
    return int(x0), int(y0), int(x1), int(y1)


def set_pixels_box(mask: Array) -> Corners:
    """The same from the coordinates of all set pixels; zeros where none is set."""
    rows, columns = np.where(mask)
    if not len(rows):
        return 0, 0, 0, 0
    return columns.min(), rows.min(), columns.max(), rows.max()


def pad(image: Array, height: int, width: int) -> Array:
    """White on all sides up to height x width, the smaller half first."""
    down, right = height - image.shape[0], width - image.shape[1]
    sides = ((down // 2, down - down // 2), (right // 2, right - right // 2), (0, 0))
    return np.pad(image, sides, "constant", constant_values=255)
