"""A small detection dataset and a Segment Anything of tiny width: real code, random weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from helpers.making import encoded, smooth
from pics_cli.core.segmentation.sam import TINY, build_sam, save_sam

YAML = """
kind: dataset
name: Boxed
raw: unused
out: unused
source:
  format: coco
  sam: {{block: {block}}}
  splits:
    train:
      labels: [labels/train]
      annotations: [boxes.json]
      images: ["pictures/{{file_name}}"]
"""


def tiny_sam(seed: int = 0) -> Any:
    """The model, with weights that give masks of many shapes."""
    torch.manual_seed(seed)
    return build_sam(TINY)


def save_tiny(folder: Path, seed: int = 0) -> Path:
    """As a folder that `--sam` takes."""
    save_sam(tiny_sam(seed), TINY, folder)
    return folder


def make_dataset(
    folder: Path,
    pictures: int = 7,
    boxes: int = 3,
    block: int = 2,
    sizes: Sequence[tuple[int, int]] = ((96, 128), (120, 80)),
) -> Path:
    """Raw files and a recipe beside them; (height, width) of the pictures take turns. Returns the recipe."""
    raw = folder / "raw"
    (raw / "pictures").mkdir(parents=True)
    images, annotations = [], []
    for number in range(pictures):
        height, width = sizes[number % len(sizes)]
        name = f"p{number}.jpg"
        (raw / "pictures" / name).write_bytes(encoded(smooth(height, width, number)))
        images.append({"id": 10 + number, "file_name": name, "width": width, "height": height})
        for k in range(boxes):
            box = [5.5 + 9 * k, 4 + 7 * k, width / 2 - k, height / 2]
            annotations.append({"id": 100 * number + k, "image_id": 10 + number, "bbox": box, "category_id": 1 + k % 2})
    categories = [{"id": 1, "name": "cup"}, {"id": 2, "name": "bowl"}]
    (raw / "boxes.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    recipe = folder / "boxed.yaml"
    recipe.write_text(YAML.format(block=block))
    return recipe
