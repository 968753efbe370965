"""Shards of made pictures of one size, as the loader's figures want them."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from demo_drawing import blob, paint, photo
from pics_cli.core.images.image_io import decode_image
from pics_cli.core.images.masks import BoxMask, box_mask
from pics_cli.core.shards.layouts import PatchGeometry, SampleParts, pack_sample
from pics_cli.core.shards.shard_files import ShardWriter

PADDING = 1.2
QUALITY = 93
LAYOUTS = ("published", "ours", "compact")
_SMALLEST, _LARGEST = 0.12, 0.32


def make_shards(folder: Path, width: int, height: int, count: int, seed: int = 0) -> None:
    """One shard of the same samples in each layout: `published` with the 8-bit masks that the research code writes."""
    folder.mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        published, ours, compact = (stack.enter_context(ShardWriter(folder / f"{layout}.tar")) for layout in LAYOUTS)
        for i in range(count):
            key = f"{i:06d}"
            parts, rgb = sample(np.random.default_rng([seed, width, height, i]), width, height)
            members = pack_sample(parts, "published", rgb)
            ours.add(key, members)
            compact.add(key, pack_sample(parts, "compact", rgb))
            plain = {name: data for name, data in members.items() if name != "json"}
            for k, mask in enumerate(parts.masks):
                plain[f"mask{k}.png"] = encoded_mask(mask)
            published.add(key, plain)


def encoded_mask(mask: BoxMask) -> bytes:
    """8-bit grey PNG, 0 and 255, as OpenCV writes it."""
    data: bytes = cv2.imencode(".png", mask.full().astype(np.uint8) * 255)[1].tobytes()
    return data


def sample(rng: np.random.Generator, width: int, height: int) -> tuple[SampleParts, Any]:
    """Two overlapping objects on a textured background, and the picture, uint8 [H, W, 3]."""
    shapes: list[np.ndarray] = []
    masks: list[BoxMask] = []
    while len(masks) < 2 or min(mask.area for mask in masks) < 0.01 * height * width:
        radii = min(height, width) * rng.uniform(_SMALLEST, _LARGEST, (2, 2))
        centre = np.array([rng.uniform(0.3, 0.7) * width, rng.uniform(0.3, 0.7) * height])
        angle = rng.uniform(0, 2 * math.pi)
        other = centre + 0.7 * radii.mean(0) * [math.cos(angle), math.sin(angle)]
        shapes = [
            np.clip(blob(rng, *at, *radius), 0, [width - 1, height - 1])
            for at, radius in zip((centre, other), radii, strict=True)
        ]
        masks = visible(shapes, width, height)
    pixels = paint(rng, photo(rng, height, width), shapes)
    data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
    rgb = decode_image(data).rgb
    geometry = [PatchGeometry(crop=mask.box, padding=PADDING) for mask in masks]
    entries = [{"mask": {"source": "polygon"}, "patch": {"crop": list(mask.box), "padding": PADDING}} for mask in masks]
    return SampleParts(data, masks, {"schema": 1, "objects": entries}, geometry, [None, None]), rgb


def visible(shapes: list[np.ndarray], width: int, height: int) -> list[BoxMask]:
    """Masks of outlines, of which later ones hide earlier ones."""
    drawn = np.zeros((height, width), np.uint8)
    for k, shape in enumerate(shapes):
        cv2.fillPoly(drawn, [np.round(shape).astype(np.int32)], k + 1)
    return [box_mask(drawn == k + 1) for k in range(len(shapes))]
