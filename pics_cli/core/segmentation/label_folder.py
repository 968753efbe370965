"""The folder of labels: whose it is, what it was made with, and its manifest."""

from __future__ import annotations

import contextlib
import platform
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pics_cli import __version__
from pics_cli.core.datasets.labels import HIDDEN, OURS, SCHEMA, block_path, finished_stats, stats_path
from pics_cli.core.recipes.dataset import CocoSource, SamSettings, ScalabelSource
from pics_cli.core.runtime.files import InUse, make_folder, single_writer, write_json
from pics_cli.core.runtime.manifest import MANIFEST, read_manifest
from pics_cli.core.runtime.resumable import ResumableFolder, identity_differences
from pics_cli.core.segmentation.boxes import BoxSource
from pics_cli.core.segmentation.job import SCORE_BINS, Job
from pics_cli.core.segmentation.sam import SHAPES, Weights
from pics_cli.errors import PicsError

LIBRARIES = ("numpy", "opencv-python-headless", "pillow", "pycocotools", "segment-anything", "simplejpeg", "torch")
# Seconds that another run may take to write the manifest.
_PATIENCE = 600.0
_LOCK = re.compile(r"\.([0-9]{5,})\.lock")
# Of the recipe: what build-shards does with labels has no influence on them.
_OTHERS = ("min_score", "min_agreement")


def options_of(job: Job) -> SamSettings:
    """How the recipe wants masks made."""
    source = job.source.recipe.source
    assert isinstance(source, (CocoSource, ScalabelSource))
    return source.sam


def label_identity(job: Job, boxes: BoxSource, weights: Weights, dtype: str) -> dict[str, Any]:
    """What a resumed run must share with the first."""
    made = {key: value for key, value in asdict(options_of(job)).items() if key not in _OTHERS}
    return {
        "schema": SCHEMA,
        "made_by": "annotate",
        "dataset": job.source.recipe.name,
        "split": job.source.split,
        "layout": job.layout,
        "sam": weights.name if weights.name in SHAPES else "own",  # not the folder as it was typed
        "weights": weights.sha256,
        "multimask": "best" if job.multimask else "off",
        "dtype": dtype,
        "options": made,
        "input": dict(boxes.source),
        "versions": {"pics": __version__, **{name: version(name) for name in LIBRARIES}, "cpu": platform.machine()},
    }


def check_folder(job: Job, wanted: Mapping[str, Any]) -> None:
    """Refuse a folder with anything but labels of this kind in it; nothing is written.

    Raises:
        PicsError: labels made otherwise or in another layout, or files of somebody else's.
    """
    if stranger := _other_layout(job):
        raise PicsError(
            f"{job.folder}: holds labels of another layout, or of another program ({stranger})",
            "choose another --out, or move them away; build-shards would take one for the other",
        )
    manifest = read_manifest(job.state)
    if manifest is not None and manifest.get("made_by") != wanted["made_by"]:
        raise PicsError(f"{job.folder}: holds something else than labels of pics annotate", "choose another --out")
    files = sorted(job.state.glob("*.jsonl.gz"))
    foreign = f"{len(files)} label files ({files[0].name}, …) and no manifest that says whose" if files else None
    ResumableFolder(job.folder, "--out", "made").resumes(manifest, wanted, foreign, job.overwrite)


def claim_folder(job: Job, wanted: Mapping[str, Any], pictures: int) -> None:
    """Make the folder this run's, unless it is one of the same kind.

    Raises:
        PicsError: as `check_folder`; or it cannot be written to.
    """
    make_folder(job.state, "name a folder that can be written to with --out")
    with _manifest_lock(job):
        check_folder(job, wanted)
        manifest = read_manifest(job.state)
        if manifest is not None and identity_differences(manifest, wanted):
            _clear(job)
            manifest = None
        if manifest is None:
            _write(job, {"complete": False, "of_pictures": pictures, **wanted})


def write_manifest(job: Job, wanted: Mapping[str, Any], boxes: BoxSource, size: int) -> dict[str, Any]:
    """What is there now; whoever writes it last has seen all blocks.

    Raises:
        PicsError: somebody has begun other labels in this folder meanwhile.
    """
    with _manifest_lock(job):
        if identity_differences(read_manifest(job.state) or {}, wanted):
            raise PicsError(f"{job.folder}: was begun anew with other settings meanwhile", "choose another --out")
        blocks = -(-len(boxes) // size)
        found = finished_stats(job.state, blocks)
        manifest = summed(found, len(boxes), blocks) | dict(wanted)
        manifest["bad_records"], manifest["categories"] = boxes.bad["counts"], list(boxes.categories)
        if job.layout == "blocks":
            manifest["blocks"] = [
                {
                    "file": block_path(job.folder, stats["block"]).name,
                    **{key: stats[key] for key in ("bytes", "sha256")},
                }
                for stats in found
            ]
        _write(job, manifest)
        for path in job.state.glob(".*.lock"):  # of processes that were killed once their block was done
            if (number := _LOCK.fullmatch(path.name)) and stats_path(job.state, int(number.group(1))).exists():
                with contextlib.suppress(InUse), single_writer(job.state, path.name):
                    pass
        return manifest


def _other_layout(job: Job) -> str | None:
    """A file that says that the folder holds labels of the other layout, ours or the research script's."""
    if job.layout == "blocks":
        hidden = job.folder / HIDDEN / MANIFEST
        return str(hidden.relative_to(job.folder)) if hidden.exists() else _published(job.folder)
    blocks = next((path.name for path in job.folder.glob("*.jsonl.gz")), None)
    ours = (job.state / MANIFEST).exists()
    return blocks or (None if ours else _published(job.folder))


def _published(folder: Path) -> str | None:
    """A label file of one picture, patchN/X.json, if there is one."""
    if not folder.is_dir():
        return None
    inside = (path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    found = next((path for each in inside for path in each.glob("*.json")), None)
    return None if found is None else str(found.relative_to(folder))


def _clear(job: Job) -> None:
    """Remove labels that were made otherwise: all of them, so that no two kinds are mixed.

    Raises:
        PicsError: this run is for a part of the pictures only, or another one is at work.
    """
    if job.rows != (0, None):
        raise PicsError(
            f"{job.folder}: was made otherwise, and --range would leave a mixture",
            "give --overwrite without --range once, or choose another --out",
        )
    with contextlib.ExitStack() as stack:
        for path in job.state.glob(".*.lock"):
            if _LOCK.fullmatch(path.name):
                stack.enter_context(single_writer(job.state, path.name))  # raises where somebody is at it
        for path in job.state.iterdir():
            if OURS.fullmatch(path.name):
                path.unlink()


def _write(job: Job, manifest: Mapping[str, Any]) -> None:
    """Under the manifest's lock."""
    write_json(job.state / MANIFEST, manifest, (job.state / MANIFEST).with_suffix(".tmp"))


def summed(found: Sequence[Mapping[str, Any]], of_pictures: int, blocks: int) -> dict[str, Any]:
    """Stats of blocks put together."""
    scores = [sum(each) for each in zip(*(stats["scores"] for stats in found), strict=True)] or [0] * SCORE_BINS
    bad = Counter(entry["reason"] for stats in found for entry in stats["bad"])
    return {
        "complete": len(found) == blocks,
        "blocks_done": len(found),
        "of_blocks": blocks,
        "pictures": sum(stats["pictures"] for stats in found),
        "of_pictures": of_pictures,
        "boxes": sum(stats["boxes"] for stats in found),
        "dropped": _added(stats["dropped"] for stats in found),
        "flags": _added(stats["flags"] for stats in found),
        "scores": scores,
        "bad_pictures": dict(sorted(bad.items())),
    }


def _added(counts: Iterator[Mapping[str, int]]) -> dict[str, int]:
    total = Counter[str]()
    for each in counts:
        total.update(each)
    return dict(sorted(total.items()))


@contextlib.contextmanager
def _manifest_lock(job: Job) -> Iterator[None]:
    """Runs on one folder take turns at the manifest."""
    until = time.monotonic() + _PATIENCE
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(single_writer(job.state))
                break
            except InUse:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)
        yield
