"""Small raw datasets made by hand, and builds of them in this process."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from pics_cli.core.datasets.build import build
from pics_cli.core.datasets.build_job import BuildJob, BuildProgress
from pics_cli.core.datasets.readers import open_reader
from pics_cli.core.datasets.readers.base import DatasetSplit
from pics_cli.core.recipes.base import Override, find_recipe
from pics_cli.core.recipes.dataset import load_dataset
from pics_cli.core.runtime.open_engine import open_engine

RGB = npt.NDArray[np.uint8]

COCO_YAML = """
kind: dataset
name: Mine
raw: unused
out: unused
source:
  format: coco
  splits:
    train:
      annotations: [labels.json]
      images: ["pictures/{file_name}"]
"""


def build_folder(
    recipe: str | Path, raw: Path | None, out: Path, split: str = "train", limit: int | None = None, **values: Any
) -> tuple[dict[str, Any], Path]:
    """Build shards as the command does, in this process; keywords are recipe keys with `__` for the dot."""
    overrides = [Override(key.replace("__", "."), value, key) for key, value in values.items()]
    tree = load_dataset(find_recipe(str(recipe)), overrides)
    dataset = DatasetSplit(tree, split, raw)
    engine = partial(open_engine, "local", 1)
    manifest = build(BuildJob(dataset, out, limit), open_reader(dataset), engine, BuildProgress())
    return manifest, out


def smooth(height: int, width: int, seed: int = 0) -> RGB:
    """A picture without hard edges, so that JPEG keeps it nearly."""
    rng = np.random.default_rng([seed, height, width])
    cells = rng.integers(20, 236, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
    return cv2.resize(cells, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)


def encoded(image: RGB | Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    """A picture file's bytes."""
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def with_orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


# How a viewer turns stored pixels upright, by the EXIF orientation.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a.transpose(1, 0, 2)[:, ::-1],
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: a.transpose(1, 0, 2)[::-1],
}


def rectangle(x0: float, y0: float, x1: float, y1: float) -> list[float]:
    """A polygon part."""
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def annotation(image_id: int, box: Sequence[float], segmentation: Any = None, **more: Any) -> dict[str, Any]:
    """A COCO annotation of an xyxy box, its area that of the box, its mask the box unless given."""
    x0, y0, x1, y1 = box
    return {
        "image_id": image_id, "bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0), "category_id": 1,
        "segmentation": [rectangle(*box)] if segmentation is None else segmentation, **more,
    }  # fmt: skip


def write_coco(
    folder: Path,
    files: Mapping[str, bytes],
    images: Sequence[Mapping[str, Any]],
    annotations: Sequence[dict[str, Any]],
) -> tuple[Path, dict[str, Any]]:
    """`labels.json`, `pictures/` and the recipe `mine.yaml`; returns the recipe and the json's contents."""
    for name, contents in files.items():
        path = folder / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents)
    numbered = [{"id": i + 1, **entry} for i, entry in enumerate(annotations)]
    categories = [{"id": i, "name": name} for i, name in ((1, "cup"), (2, "bowl"), (3, "spoon"))]
    data = {"images": list(images), "annotations": numbered, "categories": categories}
    (folder / "labels.json").write_text(json.dumps(data))
    recipe = folder / "mine.yaml"
    recipe.write_text(COCO_YAML)
    return recipe, data


def wide_gamut() -> bytes:
    """The ICC profile of a space wider than sRGB: green and red of Display P3, sRGB's curve left out (gamma 2.2)."""

    def s15(*values: float) -> bytes:
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    columns = {
        b"rXYZ": (0.51512, 0.2412, -0.00105),
        b"gXYZ": (0.29198, 0.69225, 0.04189),
        b"bXYZ": (0.1571, 0.06657, 0.78407),
    }
    tags = {name: b"XYZ \0\0\0\0" + s15(*values) for name, values in columns.items()}
    gamma = b"curv\0\0\0\0\0\0\0\1" + struct.pack(">HH", round(2.2 * 256), 0)
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), gamma)
    tags |= {b"wtpt": b"XYZ \0\0\0\0" + s15(0.9642, 1, 0.8249), b"desc": b"desc\0\0\0\0\0\0\0\5wide\0" + bytes(79)}
    table, body, offset = b"", b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", offset + len(body), len(data))
        body += data.ljust(-(-len(data) // 4) * 4, b"\0")
    size = offset + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"\0\0\0\0", 0x02400000, b"mntr", b"RGB ", b"XYZ ") + bytes(12)
    head += b"acsp" + bytes(28) + s15(0.9642, 1, 0.8249)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def with_tiff_orientation(data: bytes, value: int) -> bytes:
    """A little-endian TIFF with its list of tags copied to its end, orientation 274 among them."""
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    entries = [data[start + 2 + 12 * i : start + 14 + 12 * i] for i in range(count)]
    others = [entry for entry in entries if entry[:2] != struct.pack("<H", 274)]
    listed = sorted([*others, struct.pack("<HHIHH", 274, 3, 1, value, 0)], key=lambda entry: entry[1::-1])
    padded = data + bytes(len(data) % 2)
    tags = struct.pack("<H", len(listed)) + b"".join(listed) + bytes(4)
    return padded[:4] + struct.pack("<I", len(padded)) + padded[8:] + tags
