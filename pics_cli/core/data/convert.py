"""Shards of one layout into the other; the research project's shards get our json on the way."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pics_cli.core.data.assemble import box_pairs
from pics_cli.core.data.build import stop_at_max_bad
from pics_cli.core.data.check import list_shards
from pics_cli.core.data.layouts import SCHEMA, Parts, cut_again, pack, unpack
from pics_cli.core.data.masks import BoxMask
from pics_cli.core.data.output import claim_folder, is_whole, versions
from pics_cli.core.data.patches import cut_patch
from pics_cli.core.data.pictures import RGB, decode_picture
from pics_cli.core.data.published import published_crop
from pics_cli.core.data.shards import (
    SHARD_NAME,
    ShardWriter,
    read_shard,
    read_stats,
    remove_temporaries,
    shard_path,
    stats_path,
)
from pics_cli.core.executors import tick
from pics_cli.core.files import make_folder, only_writer, write_json
from pics_cli.core.manifest import MANIFEST, read_manifest
from pics_cli.core.recipe import digest
from pics_cli.errors import BadSample, PicsError

# The ratios between which the research code drew.
_PUBLISHED_PADDING = (1.1, 1.2, 1.3, 1.4)


@dataclass(frozen=True)
class Conversion:
    """Shards to be converted.

    Attributes:
        source: folder of shards, ours or the research project's.
        layout: `published` or `compact`; None: the one that the source does not have.
        split: written into the json of samples that have none.
    """

    source: Path
    folder: Path
    layout: str | None = None
    split: str = "train"
    max_bad: int | None = None
    overwrite: bool = False


def convert(job: Conversion, executor: Executor) -> tuple[dict[str, Any], int]:
    """Convert what is not converted yet; the manifest, and how many shards were there already.

    Raises:
        PicsError: no shards, a folder of another build, too many bad samples, disk full.
    """
    shards, _ = list_shards(job.source)
    if job.folder.resolve() == job.source.resolve():
        raise PicsError(f"--out {job.folder} is the folder to convert", "choose another --out")
    earlier = read_manifest(job.source)
    layout = job.layout or _other_layout(shards[0])
    recipe = (earlier or {}).get("recipe") or {"name": job.source.resolve().name}
    recipe = {**recipe, "shards": {**recipe.get("shards", {}), "layout": layout}}
    split = (earlier or {}).get("split") or job.split
    numbered = all(SHARD_NAME.fullmatch(path.name) for path in shards)
    numbers = [int(path.stem) for path in shards] if numbered else list(range(len(shards)))
    listing = [(path.name, path.stat().st_size) for path in shards]
    wanted = {
        "schema": SCHEMA,
        "split": split,
        "recipe_sha256": digest(recipe),
        "recipe": recipe,
        "input": {"format": "shards", "shards": len(shards), "listing": digest({"shards": listing})},
        "versions": versions(),
    }
    make_folder(job.folder)
    with only_writer(job.folder):
        remove_temporaries(job.folder)
        there = claim_folder(job.folder, wanted, job.overwrite)
        if there and there["complete"] and is_whole(job.folder, there):
            return there, len(shards)
        write_json(job.folder / MANIFEST, {"complete": False, **wanted})
        finished = [read_stats(job.folder, block) for block in numbers]
        futures = [
            None if stats else executor.submit(convert_shard, path, job.folder, block, layout, recipe["name"], split)
            for block, path, stats in zip(numbers, shards, finished, strict=True)
        ]
        blocks: list[dict[str, Any]] = []
        try:
            for stats, future in zip(finished, futures, strict=True):
                blocks.append(stats or future.result())  # type: ignore[union-attr]
                bad = [entry for block in blocks for entry in block["bad"]]
                done = sum(block["samples"] for block in blocks)
                stop_at_max_bad(job.max_bad, done + len(bad), bad, {"counts": {}, "lines": []})
        finally:
            remove_temporaries(job.folder)
        manifest = _manifest(wanted, earlier, job.folder, blocks)
        write_json(job.folder / MANIFEST, manifest)
        return manifest, sum(stats is not None for stats in finished)


def convert_shard(path: Path, folder: Path, block: int, layout: str, dataset: str, split: str) -> dict[str, Any]:
    """Convert one shard, then write its stats file. Returns the stats. A function of its arguments alone."""
    cv2.setNumThreads(1)
    bad: list[dict[str, Any]] = []
    out = shard_path(folder, block)
    try:
        with ShardWriter(out) as writer:
            for key, members in read_shard(path):
                try:
                    parts = unpack(members)
                    rgb = decode_picture(parts.picture).rgb
                    if not parts.meta:
                        parts.meta = _describe(key, parts, rgb, dataset, split)
                    _drop_what_can_be_cut_again(parts, rgb)
                    writer.add(key, pack(parts, layout, rgb))
                except BadSample as error:
                    bad.append({"item": f"{path.name} {key}", "reason": error.reason, "detail": error.detail})
                tick(kept=True)
    except BadSample as error:
        raise PicsError(f"{path}: {error.detail}", "look at it with pics build-shards --check") from None
    summary = writer.summary
    if not writer.samples:
        out.unlink(missing_ok=True)
        summary = {"samples": 0, "bytes": None, "sha256": None}
    stats = {"block": block, "source": path.name, **summary, "bad": bad}
    write_json(stats_path(folder, block), stats)
    return stats


def _other_layout(path: Path) -> str:
    for _, members in read_shard(path):
        return "compact" if "mask0.png" in members else "published"
    raise PicsError(f"{path}: no sample in it", "name the wanted form with --layout")


def _drop_what_can_be_cut_again(parts: Parts, rgb: RGB) -> None:
    """Forget the patches that the json describes exactly."""
    for k, (mask, patch) in enumerate(zip(parts.masks, parts.patches, strict=True)):
        if (mask.height, mask.width) != rgb.shape[:2]:
            raise BadSample("mask_size", f"mask{k}.png is {mask.width}x{mask.height}, its picture is not")
        described = parts.meta["objects"][k].get("patch", {}).get("crop") is not None
        if patch is not None and described and np.array_equal(cut_again(rgb, mask, parts.meta, k), _pixels(patch, k)):
            parts.patches[k] = None


def _describe(key: str, parts: Parts, rgb: RGB, dataset: str, split: str) -> dict[str, Any]:
    """Our json for a sample that has none: what its picture, masks and patches tell."""
    objects = []
    for k, (mask, patch) in enumerate(zip(parts.masks, parts.patches, strict=True)):
        if not mask.area:
            raise BadSample("empty_mask", f"mask{k}.png has no pixel set")
        geometry = _find_geometry(rgb, mask, _pixels(patch, k)) if patch else None
        objects.append({
            "category": None, "category_id": None, "annotation_id": None, "box": list(mask.box),
            "annotated_box": None, "area": mask.area, "pixels": mask.area, "mask": {"source": None},
            "patch": geometry or {"crop": None, "padding": None},
        })  # fmt: skip
    return {
        "schema": SCHEMA, "dataset": dataset, "split": split, "image_id": key,
        "width": rgb.shape[1], "height": rgb.shape[0], "objects": objects,
        "pairs": box_pairs([mask.box for mask in parts.masks]),
    }  # fmt: skip


def _find_geometry(rgb: RGB, mask: BoxMask, patch: RGB) -> dict[str, Any] | None:
    """How a patch was cut, by trying the few ways there are; None where none gives these very pixels."""
    if (mask.height, mask.width) != rgb.shape[:2]:
        return None
    for crop, padding in product((published_crop(mask), mask.box), _PUBLISHED_PADDING):
        if np.array_equal(cut_patch(rgb, mask, padding, crop).rgb, patch):
            return {"crop": list(crop), "padding": padding}
    return None


def _pixels(patch: bytes, k: int) -> RGB:
    try:
        return decode_picture(patch).rgb
    except BadSample as error:
        raise BadSample("bad_reference", f"obj{k}.png: {error.detail}") from None


def _manifest(
    wanted: dict[str, Any], earlier: dict[str, Any] | None, folder: Path, blocks: list[dict[str, Any]]
) -> dict[str, Any]:
    """The source's manifest (if it has one) with what the conversion changed."""
    keys = ("block", "samples", "bytes", "sha256")
    shards = [
        {"file": shard_path(folder, stats["block"]).name, **{key: stats[key] for key in keys}}
        for stats in blocks
        if stats["samples"]
    ]
    bad = [entry for stats in blocks for entry in stats["bad"]]
    origin = {"input": (earlier or {}).get("input"), "recipe_sha256": (earlier or {}).get("recipe_sha256")}
    samples = sum(shard["samples"] for shard in shards)
    before = earlier or {"pictures": samples + len(bad), "of_pictures": samples + len(bad), "skipped": {}}
    bad_before = before.get("bad", {"pictures": {}, "records": {}})
    reasons = Counter(bad_before["pictures"]) + Counter(entry["reason"] for entry in bad)
    return {
        **before,
        "complete": True,
        "samples": samples,
        "bad": {**bad_before, "pictures": dict(sorted(reasons.items()))},
        **wanted,
        "converted_from": before.get("converted_from", origin),  # of several conversions the first source
        "shards": shards,
        "bad_pictures": [*before.get("bad_pictures", []), *bad],
    }
