"""Hand-made pictures for the tests of `compat: true`, builds of them, and what the research code makes of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import research_builder
from helpers import oracle
from helpers.making import build_folder, encoded
from helpers.street import put
from research_builder import Chosen

Bools = npt.NDArray[np.bool_]
RGB = npt.NDArray[np.uint8]


class Read(NamedTuple):
    """A sample's members, read back."""

    masks: list[Bools]
    patches: list[RGB]
    paddings: list[float]
    crops: list[list[int]]


def build(recipe: str, raw: Path, ratio: float = 0.02, compat: bool = True) -> dict[str, Read]:
    """Samples of a build in either mode, by key."""
    out = raw.parent / ("compat" if compat else "corrected")
    build_folder(recipe, raw, out, compat=compat, pairs__min_area_ratio=ratio)
    found = {}
    for key, members in oracle.read_tars(out).items():
        objects = json.loads(members["json"])["objects"]
        found[key] = Read(
            [oracle.read_mask(members[f"mask{k}.png"]) for k in (0, 1)],
            [oracle.read_rgb(members[f"obj{k}.png"]) for k in (0, 1)],
            [entry["patch"]["padding"] for entry in objects],
            [entry["patch"]["crop"] for entry in objects],
        )
    return found


def research_choices(recipe: str, raw: Path, ratio: float) -> dict[str, Chosen]:
    """What the research code stores of a raw folder, by key.

    Samples that would hold an empty mask, or one of the whole frame, are left out: the package refuses them, by design.
    """
    builder = research_builder.BUILDERS[recipe](raw)
    chosen = {}
    for item in builder.items():
        sample = builder.choose(item, ratio)
        if sample is not None and all(mask.any() and not mask.all() for mask in sample.masks):
            assert sample.path.stem not in chosen
            chosen[sample.path.stem] = sample
    return chosen


def compare(expected: Mapping[str, Chosen], out: Path) -> None:
    """Assert that the shards in `out` hold exactly what is expected: keys, order of the objects, masks and patches."""
    samples = oracle.read_tars(out)
    assert sorted(samples) == sorted(map(oracle.escape, expected))
    for key, chosen in expected.items():
        members = samples[oracle.escape(key)]
        assert list(members) == ["bg.jpg", "obj0.png", "mask0.png", "obj1.png", "mask1.png", "json"], key
        objects = json.loads(members["json"])["objects"]
        for k, mask in enumerate(chosen.masks):
            assert np.array_equal(oracle.read_mask(members[f"mask{k}.png"]), mask), f"{key}: mask{k}"
            padding = objects[k]["patch"]["padding"]
            assert padding in (1.1, 1.2, 1.3, 1.4)
            patch = research_builder.cut_patch(chosen.image, mask, padding)
            assert np.array_equal(oracle.read_rgb(members[f"obj{k}.png"]), patch), f"{key}: obj{k}"


def write_lvis(root: Path, pictures: Mapping[int, tuple[RGB, Sequence[Mapping[str, Any]]]]) -> Path:
    images, annotations = [], []
    for image_id, (rgb, entries) in pictures.items():
        name = f"{image_id:012d}.jpg"
        put(root / "COCO/train2017" / name, encoded(rgb, quality=95))
        url = f"http://images.cocodataset.org/train2017/{name}"
        images.append({"id": image_id, "coco_url": url, "width": rgb.shape[1], "height": rgb.shape[0]})
        annotations += [{"id": 10 * image_id + i, **entry} for i, entry in enumerate(entries)]
    data = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cup"}]}
    put(root / "COCO/lvis_v1/lvis_v1_train.json", json.dumps(data))
    return root / "COCO"


def block(height: int, width: int, x0: int, y0: int, x1: int, y1: int) -> Bools:
    """True where x0 <= x < x1 and y0 <= y < y1."""
    mask = np.zeros((height, width), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def assert_masks(found: Read, *expected: Bools) -> None:
    assert [mask.sum() for mask in found.masks] == [mask.sum() for mask in expected]
    assert all(np.array_equal(*pair) for pair in zip(found.masks, expected, strict=True))


def square(x0: int, y0: int, x1: int, y1: int) -> list[list[int]]:
    """Vertices that Pillow fills to the pixels x0 <= x <= x1, y0 <= y <= y1."""
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]
