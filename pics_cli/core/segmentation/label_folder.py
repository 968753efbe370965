"""The label folder of an annotation run: its manifest, and whether a run may write into it."""

from __future__ import annotations

import contextlib
import platform
import re
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pics_cli import __version__
from pics_cli.core.datasets.labels import (
    HIDDEN_FOLDER,
    LABEL_FILE_NAMES,
    SCHEMA,
    block_path,
    finished_stats,
    stats_path,
)
from pics_cli.core.runtime.files import make_folder, write_json
from pics_cli.core.runtime.locks import InUse, single_writer
from pics_cli.core.runtime.manifest import MANIFEST, read_manifest
from pics_cli.core.runtime.resumable import ResumableFolder, identity_differences, take_turns
from pics_cli.core.runtime.storage import list_folder, remove_files
from pics_cli.core.segmentation.blocks import AnnotationJob, BlockPlan
from pics_cli.core.segmentation.boxes import BoxSource
from pics_cli.core.segmentation.sam import SHAPES, SamCheckpoint
from pics_cli.errors import PicsError

# Bins of the histogram of scores, over [0, 1].
SCORE_BINS = 20
LIBRARIES = ("numpy", "opencv-python-headless", "pillow", "pycocotools", "segment-anything", "simplejpeg", "torch")
_LOCK = re.compile(r"\.([0-9]{5,})\.lock")
_TEMPORARY = re.compile(r"([0-9]{5,})\.[0-9]+\.tmp")
# Options of the recipe that concern readers of the labels, not the labels.
_READERS_OPTIONS = ("min_score", "min_agreement")


def label_identity(job: AnnotationJob, boxes: BoxSource, checkpoint: SamCheckpoint, dtype: str) -> dict[str, Any]:
    """What a resumed run must share with the first, as plain data."""
    options = {key: value for key, value in asdict(job.options).items() if key not in _READERS_OPTIONS}
    return {
        "schema": SCHEMA,
        "made_by": "annotate",
        "dataset": job.source.recipe.name,
        "split": job.source.split,
        "layout": job.layout,
        "sam": checkpoint.name if checkpoint.name in SHAPES else "own",  # not the folder as it was typed
        "weights": checkpoint.sha256,
        "multimask": "best" if job.multimask else "off",
        "dtype": dtype,
        "options": options,
        "input": dict(boxes.source),
        "versions": {"pics": __version__, **{name: version(name) for name in LIBRARIES}, "cpu": platform.machine()},
    }


def check_label_folder(job: AnnotationJob, identity: Mapping[str, Any]) -> None:
    """Refuse a folder that holds anything but labels of this identity; nothing is written.

    Raises:
        PicsError: it holds labels of other settings or in another layout, or files of another program.
    """
    if foreign := _find_other_layout(job):
        raise PicsError(
            f"{job.folder}: holds labels of another layout, or of another program ({foreign})",
            "choose another --out, or move them away; build-shards would take one for the other",
        )
    manifest = read_manifest(job.state)
    if manifest is not None and manifest.get("made_by") != identity["made_by"]:
        raise PicsError(f"{job.folder}: holds something else than labels of pics annotate", "choose another --out")
    files = sorted(job.state.glob("*.jsonl.gz"))
    foreign = f"{len(files)} label files ({files[0].name}, …) and no manifest that says whose" if files else None
    ResumableFolder(job.folder, "--out", "made").resumes(manifest, identity, foreign, job.overwrite)


def claim_label_folder(job: AnnotationJob, identity: Mapping[str, Any], pictures: int) -> None:
    """Begin the folder, or go on with one of the same identity.

    Raises:
        PicsError: as `check_label_folder`; or it cannot be written to.
    """
    make_folder(job.state, "name a folder that can be written to with --out")
    with take_turns(job.state):
        check_label_folder(job, identity)
        manifest = read_manifest(job.state)
        if manifest is not None and identity_differences(manifest, identity):
            _remove_labels(job)
            manifest = None
        if manifest is None:
            _save(job, {"complete": False, "of_pictures": pictures, **identity})


def write_manifest(job: AnnotationJob, identity: Mapping[str, Any], boxes: BoxSource) -> dict[str, Any]:
    """Write the manifest of all blocks that are finished now, and return it; the last of several runs sees them all.

    Raises:
        PicsError: another run has begun labels of other settings in this folder meanwhile.
    """
    with take_turns(job.state):
        if identity_differences(read_manifest(job.state) or {}, identity):
            raise PicsError(f"{job.folder}: was begun anew with other settings meanwhile", "choose another --out")
        blocks = BlockPlan(job, len(boxes)).count
        finished = finished_stats(job.state, blocks)
        manifest = sum_statistics(finished, len(boxes), blocks) | dict(identity)
        manifest["bad_records"], manifest["categories"] = boxes.bad_records.counts, list(boxes.categories)
        if job.layout == "blocks":
            manifest["blocks"] = [
                {
                    "file": block_path(job.folder, stats["block"]).name,
                    **{key: stats[key] for key in ("bytes", "sha256")},
                }
                for stats in finished
            ]
        _save(job, manifest)
        for path in job.state.glob(".*.lock"):  # of processes that were killed once their block was done
            if (number := _LOCK.fullmatch(path.name)) and stats_path(job.state, int(number.group(1))).exists():
                with contextlib.suppress(InUse), single_writer(job.state, path.name):
                    pass
        return manifest


def remove_temporary_files(job: AnnotationJob, blocks: Container[int]) -> None:
    """Remove what lost workers left of these blocks half written."""
    for path in job.state.glob("*.*.tmp"):
        if (number := _TEMPORARY.fullmatch(path.name)) and int(number.group(1)) in blocks:
            path.unlink(missing_ok=True)


def _find_other_layout(job: AnnotationJob) -> str | None:
    """A manifest or label file of the other layout, by this program or the research script; None if there is none."""
    if job.layout == "blocks":
        hidden = job.folder / HIDDEN_FOLDER / MANIFEST
        return str(hidden.relative_to(job.folder)) if hidden.exists() else _find_published_label(job.folder)
    block = next((path.name for path in job.folder.glob("*.jsonl.gz")), None)
    is_own = (job.state / MANIFEST).exists()
    return block or (None if is_own else _find_published_label(job.folder))


def _find_published_label(folder: Path) -> str | None:
    """A label file of a single image, `patchN/X.json`; None if there is none."""
    if not folder.is_dir():
        return None
    listed = list_folder(folder).items()
    subfolders = (folder / name for name, entry in listed if entry.is_dir and not name.startswith("."))
    label = next((path for subfolder in subfolders for path in subfolder.glob("*.json")), None)
    return None if label is None else str(label.relative_to(folder))


def _remove_labels(job: AnnotationJob) -> None:
    """Remove all labels of another identity, so that no two kinds are mixed.

    Raises:
        PicsError: this run has only part of the images, or another one is working in the folder.
    """
    if job.rows != (0, None):
        raise PicsError(
            f"{job.folder}: was made otherwise, and --range would leave a mixture",
            "give --overwrite without --range once, or choose another --out",
        )
    with contextlib.ExitStack() as stack:
        for path in job.state.glob(".*.lock"):
            if _LOCK.fullmatch(path.name):
                stack.enter_context(single_writer(job.state, path.name))  # raises where another run works
        remove_files(path for path in job.state.iterdir() if LABEL_FILE_NAMES.fullmatch(path.name))


def _save(job: AnnotationJob, manifest: Mapping[str, Any]) -> None:
    """Write the manifest, whose lock the caller holds."""
    write_json(job.state / MANIFEST, manifest, (job.state / MANIFEST).with_suffix(".tmp"))


def sum_statistics(finished: Sequence[Mapping[str, Any]], of_pictures: int, blocks: int) -> dict[str, Any]:
    """The manifest's counts: the stats of all finished blocks added up."""
    scores = [sum(counts) for counts in zip(*(stats["scores"] for stats in finished), strict=True)] or [0] * SCORE_BINS
    return {
        "complete": len(finished) == blocks,
        "blocks_done": len(finished),
        "of_blocks": blocks,
        "pictures": sum(stats["pictures"] for stats in finished),
        "of_pictures": of_pictures,
        "boxes": sum(stats["boxes"] for stats in finished),
        "dropped": _sum_counts(stats["dropped"] for stats in finished),
        "flags": _sum_counts(stats["flags"] for stats in finished),
        "scores": scores,
        "bad_pictures": _sum_counts(Counter(entry["reason"] for entry in stats["bad"]) for stats in finished),
    }


def _sum_counts(counts: Iterator[Mapping[str, int]]) -> dict[str, int]:
    return dict(sorted(sum(map(Counter[str], counts), Counter[str]()).items()))
