"""Drawn folders in the layouts of data sets that are published: DESOBAv2, InstaOrder and Open Images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from helpers.making import RGB, annotation, encoded, smooth
from helpers.street import put, rle

SHADOW_SIZE = 96


def write_desobav2(root: Path, names: Sequence[str] = ("a", "b"), split: str = "test") -> Path:
    """A post on a lawn with a long shadow, a photograph each: the folders of DESOBAv2, and the list of a split."""
    for i, name in enumerate(names):
        with_shadow, without, post, shadow = shadow_scene(i)
        pictures = {
            "shadow_imgs": with_shadow, "shadowfree_imgs": without, "object_masks": post, "shadow_masks": shadow,
            "background_object_masks": post * 0, "background_shadow_masks": post * 0,
        }  # fmt: skip
        for folder, picture in pictures.items():
            put(root / folder / f"{name}.jpg", encoded(picture, quality=95))
    put(root / f"{split}.txt", "".join(f"{name}\n" for name in names))
    return root


def shadow_scene(seed: int) -> tuple[RGB, RGB, RGB, RGB]:
    """A picture with a shadow, the same without it, the object's mask and the shadow's, uint8 [96, 96(, 3)]."""
    side = SHADOW_SIZE
    lawn = smooth(side, side, seed) // 2 + 80
    post, shadow = np.zeros((side, side), np.uint8), np.zeros((side, side), np.uint8)
    cv2.rectangle(post, (30, 20), (45, 70), 255, -1)
    cv2.fillPoly(shadow, [np.array([[30, 70], [45, 70], [88, 84], [72, 88]], np.int32)], 255)
    without, dark = lawn.copy(), lawn.copy()
    dark[shadow > 0] = dark[shadow > 0] // 2
    for picture in (without, dark):
        picture[post > 0] = (200, 60 + 40 * seed, 40)
    return dark, without, post, shadow


# Of a picture of 120 x 96 pixels: two bars that cross, of which one is before the other, and a lamp away from both.
BARS = ((20, 30, 100, 60), (50, 10, 75, 90))
LAMP = (2, 2, 22, 28)
BAR_COLOURS = ((200, 40, 40), (40, 60, 200))


def bars(front: int, seed: int = 0) -> tuple[RGB, list[np.ndarray]]:
    """The picture, uint8 [96, 120, 3], and what is seen of bars and lamp, bool [96, 120]."""
    rgb = smooth(96, 120, seed) // 4 + 120
    masks = []
    for x0, y0, x1, y1 in (*BARS, LAMP):
        masks.append(np.zeros((96, 120), np.bool_))
        masks[-1][y0:y1, x0:x1] = True
    masks[1 - front] &= ~masks[front]
    for mask, colour in zip(masks, (*BAR_COLOURS, (230, 230, 60)), strict=True):
        rgb[mask] = colour
    return rgb, masks


def write_instaorder(root: Path, orders: Mapping[int, Mapping[str, Any]], split: str = "val") -> Path:
    """COCO's folders with `bars` in pictures 1, 2, …, their objects called 10 i + 0..2, and InstaOrder's json.

    Args:
        root: of COCO.
        orders: by picture, what its record says besides `image_id` and `instance_ids`, which may be given, too.
        split: train or val.
    """
    images, annotations, records = [], [], []
    for i, more in orders.items():
        rgb, masks = bars(i % 2, i)
        put(root / f"{split}2017/{i:012d}.jpg", encoded(rgb, quality=95))
        images.append({"id": i, "file_name": f"{i:012d}.jpg", "width": 120, "height": 96})
        for k, (box, mask) in enumerate(zip((*BARS, LAMP), masks, strict=True)):
            entry = annotation(i, box, rle(mask), id=10 * i + k)
            annotations.append(entry | {"area": int(mask.sum()), "category_id": 1 + k})
        records.append({"image_id": i, "instance_ids": [str(10 * i + k) for k in range(3)], **more})
    categories = [{"id": i, "name": name} for i, name in ((1, "bench"), (2, "post"), (3, "lamp"))]
    data = {"images": images, "annotations": annotations, "categories": categories}
    put(root / f"annotations/instances_{split}2017.json", json.dumps(data))
    put(root / f"annotations/InstaOrder_{split}2017.json", json.dumps({"annotations": records}))
    return root


# Of a picture of 120 x 96 pixels: a cup on a table, and a spoon inside of the cup; by label, box and colour.
OPEN_IMAGES = {
    "/m/04bcr3": ("Table", (10, 55, 110, 90), (120, 70, 30)),
    "/m/02p5f1q": ("Coffee cup", (40, 25, 80, 62), (230, 230, 230)),
    "/m/0cmx8": ("Spoon", (52, 12, 62, 40), (90, 90, 110)),
}
TABLE, CUP, SPOON = OPEN_IMAGES
MASK_HEADER = "MaskPath,ImageID,LabelName,BoxID,BoxXMin,BoxXMax,BoxYMin,BoxYMax,PredictedIoU,Clicks"
BOX_HEADER = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
)
RELATIONSHIP_HEADER = "ImageID,LabelName1,LabelName2,XMin1,XMax1,YMin1,YMax1,XMin2,XMax2,YMin2,YMax2,RelationshipLabel"


def still_life(seed: int = 0) -> tuple[RGB, dict[str, np.ndarray]]:
    """The picture, uint8 [96, 120, 3], and what is seen of each thing, bool [96, 120], by label."""
    rgb, masks = smooth(96, 120, seed) // 4 + 150, dict[str, np.ndarray]()
    for label, (_, (x0, y0, x1, y1), colour) in OPEN_IMAGES.items():
        mask = np.zeros((96, 120), np.bool_)
        mask[y0:y1, x0:x1] = True
        for before in masks:
            masks[before] &= ~mask
        masks[label] = mask
        rgb[mask] = colour
    return rgb, masks


def sides_of(label: str, digits: int = 6) -> str:
    """XMin, XMax, YMin and YMax of a thing, in shares of the picture, as lines of the files have them."""
    x0, y0, x1, y1 = OPEN_IMAGES[label][1]
    return ",".join(f"{value:.{digits}f}" for value in (x0 / 120, x1 / 120, y0 / 96, y1 / 96))


def write_open_images(
    root: Path,
    relationships: Mapping[str, Sequence[tuple[str, str, str]]],
    split: str = "train",
    groups: Sequence[str] = (),
    mask_size: tuple[int, int] = (240, 192),
) -> Path:
    """Open Images' files of `still_life` for images of these ids, masks at another size than the picture.

    Args:
        root: of the data set.
        relationships: by image: label, relationship, label.
        split: train, validation or test.
        groups: labels whose boxes are marked as groups.
        mask_size: width and height of the masks.
    """
    lines, boxes, said = [MASK_HEADER], [BOX_HEADER], [RELATIONSHIP_HEADER]
    for number, (image, found) in enumerate(relationships.items()):
        rgb, masks = still_life(number)
        put(root / f"{split}/{image}.jpg", encoded(rgb, quality=95))
        for label, mask in masks.items():
            box_id = f"{number:04x}{list(masks).index(label):04x}"
            name = f"{image}_{label[1:].replace('/', '')}_{box_id}.png"
            stored = cv2.resize(mask.astype(np.uint8) * 255, mask_size, interpolation=cv2.INTER_NEAREST)
            put(root / f"masks/{split}/{name}", encoded(Image.fromarray(stored).convert("1"), "PNG"))
            lines.append(f"{name},{image},{label},{box_id},{sides_of(label)},0.8,0.5 0.5 1;0.4 0.4 0")
            boxes.append(f"{image},xclick,{label},1,{sides_of(label, 7)},0,0,{int(label in groups)},0,0")
        said += [f"{image},{a},{b},{sides_of(a, 7)},{sides_of(b, 7)},{name}" for a, name, b in found]
    put(root / f"{split}-annotations-object-segmentation.csv", "\n".join(reversed_body(lines)) + "\n")
    put(root / f"oidv6-{split}-annotations-bbox.csv", "\n".join(boxes) + "\n")
    put(root / f"oidv6-{split}-annotations-vrd.csv", "\n".join(said) + "\n")
    classes = "".join(f'{label},"{name}"\n' for label, (name, _, _) in OPEN_IMAGES.items())
    put(root / "oidv7-class-descriptions-boxable.csv", f"LabelName,DisplayName\n{classes}")
    return root


def reversed_body(lines: Sequence[str]) -> list[str]:
    """Lines behind the first in another order: the lines of an image do not stand together there."""
    return [lines[0], *lines[1::2], *lines[2::2]]
