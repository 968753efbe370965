"""Shards of one layout into the other; the research project's shards get our json on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pics_cli.core.datasets.build_sample import box_pairs
from pics_cli.core.datasets.compat import COMPAT_PADDING, compat_crop
from pics_cli.core.datasets.shard_folder import (
    finish_shard,
    folder_identity,
    is_complete,
    list_shards,
    manifest_shards,
    resume_manifest,
)
from pics_cli.core.images.cutouts import cut_patch
from pics_cli.core.images.image_io import RGB, decode_image
from pics_cli.core.images.masks import BoxMask
from pics_cli.core.recipes.base import digest
from pics_cli.core.runtime.bad_samples import stop_at_max_bad
from pics_cli.core.runtime.engines import count_picture, map_in_order
from pics_cli.core.runtime.files import file_sha256, fingerprint, write_json
from pics_cli.core.runtime.manifest import MANIFEST, read_manifest
from pics_cli.core.runtime.outputs import refuse_overwriting
from pics_cli.core.runtime.resumable import ResumableFolder
from pics_cli.core.runtime.storage import borrowed_file
from pics_cli.core.shards.layouts import (
    SCHEMA_VERSION,
    Members,
    PatchGeometry,
    SampleParts,
    pack_sample,
    recut_patch,
    unpack_sample,
)
from pics_cli.core.shards.samples import decode_alternate_view, decode_clean_background, decode_patch
from pics_cli.core.shards.shard_files import (
    REBUILD_HINT,
    SHARD_NAME,
    ShardWriter,
    file_sizes,
    read_all_stats,
    read_shard,
    remove_temporary_files,
    shard_path,
)
from pics_cli.errors import BadSample, PicsError

_LOOK = "look at it with pics build-shards --check"


@dataclass(frozen=True)
class ConversionJob:
    """Shards to be converted.

    Attributes:
        source: folder of shards, ours or the research project's.
        folder: of the converted ones.
        layout: `published` or `compact`; None: the one that the source does not have.
        split: of the samples; written into the json of those that have none.
        max_bad: samples that may fail to be converted; None: 1 %, at least 100.
        overwrite: replace an earlier build in `folder`.
    """

    source: Path
    folder: Path
    layout: str | None = None
    split: str = "train"
    max_bad: int | None = None
    overwrite: bool = False


def convert(job: ConversionJob, executor: Executor, slots: int) -> tuple[dict[str, Any], int]:
    """Convert what is not converted yet.

    Args:
        job: what to convert.
        executor: where the shards are converted.
        slots: how many it converts side by side.

    Returns:
        The manifest, and how many shards earlier runs had converted.

    Raises:
        PicsError: no shards, shards that are not what their manifest says, a folder of another build, too many bad
            samples, disk full.
    """
    refuse_overwriting([("--out", job.folder)], [("--convert", job.source)])
    shards, expected = list_shards(job.source)
    if differing := sorted({path.name for path in shards} ^ expected.keys()) if expected else []:
        raise PicsError(
            f"{job.source}: {', '.join(differing[:3])}: not both in the folder and in its {MANIFEST}",
            f"{_LOOK}, and build or download what is missing",
        )
    earlier = read_manifest(job.source)
    layout = job.layout or _other_layout(shards)
    recipe = (earlier or {}).get("recipe") or {"name": job.source.resolve().name}
    recipe = {**recipe, "shards": {**recipe.get("shards", {}), "layout": layout}}
    listing = {path.name: expected[path.name]["sha256"] if expected else fingerprint(path) for path in shards}
    source = {"format": "shards", "shards": len(shards), "listing": digest(listing)}
    wanted = folder_identity(job.split, recipe, source)
    with ResumableFolder(job.folder, "--out").hold():
        remove_temporary_files(job.folder)
        existing = resume_manifest(job.folder, wanted, job.overwrite)
        if existing and is_complete(job.folder, existing):
            return existing, len(shards)
        write_json(job.folder / MANIFEST, {"complete": False, **wanted})
        numbers, there = _block_numbers(shards), read_all_stats(job.folder)
        finished = {number: there[number] for number in numbers if number in there}
        pending = (
            (path, expected.get(path.name), job.folder, number, layout, recipe["name"], job.split)
            for number, path in zip(numbers, shards, strict=True)
            if number not in finished
        )
        converted = map_in_order(executor, slots + 1, convert_shard, pending)
        try:
            blocks = _collect(job, shards, (finished.get(number) or next(converted) for number in numbers))
        finally:
            remove_temporary_files(job.folder)
        manifest = _manifest(wanted, earlier, blocks)
        write_json(job.folder / MANIFEST, manifest)
        return manifest, len(finished)


def convert_shard(
    path: Path, expected: Mapping[str, Any] | None, folder: Path, block: int, layout: str, dataset: str, split: str
) -> dict[str, Any]:
    """Convert one shard, then write its stats file. Returns the stats. A function of its arguments alone."""
    cv2.setNumThreads(1)
    with borrowed_file(path) as file:
        if expected is not None and file_sha256(file) != expected["sha256"]:
            raise PicsError(f"{path}: is not the file that its {MANIFEST} describes", REBUILD_HINT)
        return _convert_file(path, file, folder, block, layout, dataset, split)


def _convert_file(
    path: Path, file: Path, folder: Path, block: int, layout: str, dataset: str, split: str
) -> dict[str, Any]:
    """Convert the shard `path`, whose contents are those of `file`."""
    bad: list[dict[str, Any]] = []
    try:
        with ShardWriter(shard_path(folder, block)) as writer:
            for key, members in read_shard(file, path):
                try:
                    writer.add(key, _convert_sample(key, members, layout, dataset, split))
                except BadSample as error:
                    bad.append({"item": f"{path.name} {key}", "reason": error.reason, "detail": error.detail})
                count_picture(kept=True)
    except BadSample as error:
        raise PicsError(f"{path}: {error.detail}", _LOOK) from None
    return finish_shard(folder, block, writer, {"source": path.name}, {"bad": bad})


def _collect(job: ConversionJob, shards: list[Path], stats: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    """Stats of all shards in order; stops where too many samples are bad, for as large a job as it looks so far."""
    listed = file_sizes(job.source)
    sizes = [listed[path.name] for path in shards]
    blocks: list[dict[str, Any]] = []
    bad: list[dict[str, Any]] = []
    samples = read = 0
    for block, size in zip(stats, sizes, strict=True):
        blocks.append(block)
        bad.extend(block["bad"])
        samples, read = samples + block["samples"], read + size
        stop_at_max_bad(job.max_bad, (samples + len(bad)) * sum(sizes) / read, bad)
    return blocks


def _block_numbers(shards: list[Path]) -> list[int]:
    """The numbers that are the shards' names, unless not all have one of their own; else 0, 1, …"""
    if all(SHARD_NAME.fullmatch(path.name) for path in shards):
        numbers = [int(path.stem) for path in shards]
        if len(set(numbers)) == len(numbers):
            return numbers
    return list(range(len(shards)))


def _other_layout(shards: list[Path]) -> str:
    for path in shards:
        try:
            for _, members in read_shard(path):
                return "compact" if "mask0.png" in members else "published"
        except BadSample as error:
            raise PicsError(f"{path}: {error.detail}", _LOOK) from None
    raise PicsError(f"{shards[0].parent}: no sample in its {len(shards)} shards", "name a folder of samples")


def _convert_sample(key: str, members: Mapping[str, bytes], layout: str, dataset: str, split: str) -> Members:
    """The members of a sample in another layout.

    Raises:
        BadSample: it cannot be read.
    """
    parts = unpack_sample(members)
    rgb = decode_image(parts.image).rgb
    patches = [None if data is None else decode_patch(data, k) for k, data in enumerate(parts.patches)]
    # Both are copied as they are, once it is sure that they can be decoded.
    decode_clean_background(parts, (rgb.shape[1], rgb.shape[0]))
    for k in range(len(parts.masks)):
        decode_alternate_view(parts, k)
    if not parts.metadata:
        parts.geometry = [_find_geometry(rgb, *cut) for cut in zip(parts.masks, patches, strict=True)]
        parts.metadata = _describe(key, parts, rgb, dataset, split)
    for k, (mask, patch, geometry) in enumerate(zip(parts.masks, patches, parts.geometry, strict=True)):
        if layout == "compact" and patch is not None and geometry.crop is not None:
            parts.patches[k] = None if np.array_equal(recut_patch(rgb, mask, geometry, k), patch) else parts.patches[k]
    return pack_sample(parts, layout, rgb)


def _describe(key: str, parts: SampleParts, rgb: RGB, dataset: str, split: str) -> dict[str, Any]:
    """Our json for a sample that has none: what its picture, masks and patches tell."""
    objects = [
        {
            "category": None, "category_id": None, "annotation_id": None, "box": list(mask.box),
            "annotated_box": None, "area": mask.area, "pixels": mask.area, "mask": {"source": None},
            "patch": {"crop": list(geometry.crop) if geometry.crop else None, "padding": geometry.padding},
        }
        for mask, geometry in zip(parts.masks, parts.geometry, strict=True)
    ]  # fmt: skip
    return {
        "schema": SCHEMA_VERSION, "dataset": dataset, "split": split, "image_id": key,
        "width": rgb.shape[1], "height": rgb.shape[0], "objects": objects,
        "pairs": box_pairs([mask.box for mask in parts.masks]),
    }  # fmt: skip


def _find_geometry(rgb: RGB, mask: BoxMask, patch: RGB | None) -> PatchGeometry:
    """How a patch was cut, by trying the few published ways; unknown where none gives these very pixels."""
    for crop, padding in product((compat_crop(mask), mask.box), COMPAT_PADDING):
        if patch is not None and np.array_equal(cut_patch(rgb, mask, padding, crop).rgb, patch):
            return PatchGeometry(crop, padding)
    return PatchGeometry()


def _manifest(wanted: dict[str, Any], earlier: dict[str, Any] | None, blocks: list[dict[str, Any]]) -> dict[str, Any]:
    """The source's manifest (if it has one) with what the conversion changed."""
    shards = manifest_shards(blocks)
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
