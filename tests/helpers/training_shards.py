"""Small shards of samples made by hand, to train on."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from helpers.making import encoded, smooth
from pics_cli.core.images.cutouts import cut_patch
from pics_cli.core.images.image_io import decode_image, encode_png
from pics_cli.core.images.masks import box_mask
from pics_cli.core.loading.mixture import Mixture
from pics_cli.core.recipes.training_sections import AugmentSettings
from pics_cli.core.shards.layouts import Members
from pics_cli.core.shards.shard_files import ShardWriter
from pics_cli.core.shards.shard_sets import ShardSet
from pics_cli.core.shards.tar_index import index_shard

# Neither references nor boxes are varied.
STILL = AugmentSettings(
    flip=0.0, rotation=0.0, perspective=0.0, scale=(1.2, 1.2), brightness=0.0, contrast=0.0, alternate=0.0,
    box_growth=(1.0, 1.0),
)  # fmt: skip


def boxes_of(objects: int, width: int = 96, height: int = 64) -> list[tuple[int, int, int, int]]:
    """Boxes of the objects, side by side and overlapping."""
    step = width // (objects + 1)
    return [(k * step + 3, 8 + 5 * k, (k + 2) * step - 3, height - 14 + 5 * k) for k in range(objects)]


def members(seed: int = 0, objects: int = 2, width: int = 96, height: int = 64, meta: Any = None) -> Members:
    """A sample in the published layout: elliptic objects on a smooth picture; with our json where `meta` is given."""
    picture = encoded(smooth(height, width, seed), quality=90)
    rgb = decode_image(picture).rgb
    found = {"bg.jpg": picture}
    y, x = np.mgrid[:height, :width]
    for k, (x0, y0, x1, y1) in enumerate(boxes_of(objects, width, height)):
        inside = ((x + 0.5 - (x0 + x1) / 2) / (x1 - x0)) ** 2 + ((y + 0.5 - (y0 + y1) / 2) / (y1 - y0)) ** 2 <= 0.25
        mask = box_mask(inside)
        found[f"obj{k}.png"] = encode_png(cut_patch(rgb, mask, 1.2).rgb)
        found[f"mask{k}.png"] = mask.png()
    if meta is not None:
        entries = [{"mask": {"source": "test"}, "patch": {}} for _ in range(objects)]
        found["json"] = json.dumps({"schema": 1, "objects": entries, **meta}).encode()
    return found


def write_shard(path: Path, numbers: Iterable[int], **options: Any) -> Path:
    """A shard of samples with these numbers, which are keys and seeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with ShardWriter(path) as writer:
        for number in numbers:
            writer.add(f"{number:04d}", members(number, **options))
    return path


def local_set(
    name: str, paths: Iterable[Path], repeat: float = 1.0, augment: AugmentSettings | None = None
) -> ShardSet:
    """Local shards as `resolve` gives them."""
    sources: list[str | Path] = list(paths)
    counts = [len(index_shard(Path(path))) - 1 for path in sources]
    return ShardSet(name, repeat, augment, sources, counts, False, [None] * len(sources))


def mixed(sets: list[ShardSet], seed: int = 0, **options: Any) -> Mixture:
    """The mixture of some sets."""
    return Mixture([each.counts for each in sets], [each.repeat for each in sets], seed, **options)
