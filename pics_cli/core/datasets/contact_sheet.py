"""Contact sheet of a build: chosen pairs with boxes, masks and patches, and images that were skipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pics_cli.core.datasets.build_blocks import Candidate
from pics_cli.core.datasets.build_sample import build_sample
from pics_cli.core.datasets.pairs import is_candidate
from pics_cli.core.datasets.readers.base import DatasetSplit, Reader
from pics_cli.core.datasets.scene import ItemId, Scene, Skip
from pics_cli.core.images.image_io import decode_image
from pics_cli.core.images.sheet_files import write_sheet_file
from pics_cli.core.images.sheets import COLOURS, Tile, draw_box, draw_sheet, fit_height, on_white, patch_column, tint
from pics_cli.core.recipes.dataset import PairSettings
from pics_cli.core.shards.samples import Sample, decode_sample, unescape_key
from pics_cli.core.shards.shard_files import read_shard
from pics_cli.errors import BadSample

SHEET_SAMPLES = 25
GREY = (120, 120, 120)


def sample_tile(sample: Sample) -> Tile:
    """Background with masks tinted and boxes drawn; beside it the patches and, where there are any, the other views."""
    rgb, scale = fit_height(sample.image)
    for mask, colour in zip(sample.masks, COLOURS, strict=False):
        small = cv2.resize(mask.astype(np.uint8), rgb.shape[1::-1], interpolation=cv2.INTER_AREA)
        tint(rgb, small > 0, colour)
        cv2.drawContours(rgb, cv2.findContours(small, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)[0], -1, colour, 1)
    for mask, colour in zip(sample.masks, COLOURS, strict=False):
        x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
        draw_box(rgb, (x, y, x + width, y + height), scale, colour, 2)
    columns = [patch_column(sample.references)]
    if any(alternate is not None for alternate in sample.alternate_views):
        columns.append(patch_column([None if view is None else on_white(view) for view in sample.alternate_views]))
    lines = [unescape_key(sample.key)]
    if sample.metadata:
        names = " + ".join(str(entry["category"] or "object") for entry in sample.metadata["objects"])
        pairs = sample.metadata["pairs"][:1]
        lines.append(names + "".join(f", IoU {pair['iou']:.2f}, {pair['relation']}" for pair in pairs))
    return Tile(np.concatenate([rgb, *columns], axis=1), tuple(lines))


def skip_tile(scene: Scene, reason: str, rule: PairSettings, detail: str = "") -> Tile:
    """A skipped image with its annotated boxes: candidates in orange, the others grey."""
    try:
        rgb, scale = fit_height(decode_image(scene.read_image()).rgb)
    except BadSample:
        rgb, scale = fit_height(np.full((scene.height, scene.width, 3), 225, np.uint8))
    for instance in scene.instances:
        x0, y0, x1, y1 = instance.box
        candidate = is_candidate(instance, scene, rule)
        box = (int(max(x0, 0)), int(max(y0, 0)), int(min(x1, scene.width)), int(min(y1, scene.height)))
        draw_box(rgb, box, scale, COLOURS[3] if candidate else GREY, 2 if candidate else 1)
    return Tile(rgb, (f"{'bad' if detail else 'skipped'}: {reason}", f"{scene.key} {detail}"))


def tiles_of_shards(folder: Path, shards: Sequence[Mapping[str, Any]]) -> list[Tile]:
    """Samples from up to four shards of a manifest, as a reader of the shards gets them."""
    chosen = shards[:: max(1, len(shards) // 4)][:4]
    samples_per_shard = -(-SHEET_SAMPLES // max(1, len(chosen)))
    return [
        sample_tile(decode_sample(key, members))
        for shard in chosen
        for key, members in islice(read_shard(folder / shard["file"]), samples_per_shard)
    ]


def tiles_of_candidates(dataset: DatasetSplit, reader: Reader, candidates: Sequence[Candidate]) -> list[Tile]:
    """Samples made from candidates spread over the dataset, without writing any."""
    tiles = []
    for item_id, group, _ in candidates[:: max(1, len(candidates) // SHEET_SAMPLES)][:SHEET_SAMPLES]:
        try:
            scene = reader.scene(item_id)
            members = build_sample(scene, group, dataset.recipe, dataset.split)
        except BadSample:
            continue  # the build itself will count it
        if not isinstance(members, Skip):
            tiles.append(sample_tile(decode_sample(scene.key, members)))
    return tiles


def tiles_of_skipped(
    reader: Reader, rule: PairSettings, examples: Mapping[str, Sequence[ItemId]], bad: Sequence[Mapping[str, Any]]
) -> list[Tile]:
    """A few images for every reason, skipped ones first."""
    shown = [(item_id, reason, "") for reason, item_ids in examples.items() for item_id in item_ids]
    for reason in sorted({entry["reason"] for entry in bad}):
        shown += [(entry["item"], reason, entry["detail"]) for entry in bad if entry["reason"] == reason][:3]
    tiles = []
    for item_id, reason, detail in shown:
        try:
            tiles.append(skip_tile(reader.scene(item_id), reason, rule, detail))
        except BadSample:
            continue  # nothing to draw; the manifest lists it
    return tiles


def write_sheet(path: Path, title: str, tiles: Sequence[Tile]) -> None:
    """Draw the sheet into a PNG file."""
    write_sheet_file(path, draw_sheet(title, tiles))
