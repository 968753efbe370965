"""The folder a build writes to: whose it is, what it was made from, and its manifest."""

from __future__ import annotations

import platform
import zlib
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pics_cli import __version__
from pics_cli.core.datasets.blocks import Outcome
from pics_cli.core.datasets.job import Input, Job
from pics_cli.core.datasets.readers import Reader
from pics_cli.core.recipes.base import digest
from pics_cli.core.recipes.dataset import dataset_identity
from pics_cli.core.runtime.manifest import MANIFEST, read_manifest
from pics_cli.core.runtime.resumable import ResumableFolder
from pics_cli.core.shards.layouts import SCHEMA_VERSION
from pics_cli.core.shards.shard_files import read_stats, shard_folder_files, shard_path

LIBRARIES = ("numpy", "opencv-python-headless", "pillow", "pycocotools", "simplejpeg")


def build_identity(source: Input, reader: Reader) -> dict[str, Any]:
    """What a resumed run must share with the first."""
    recipe = dataset_identity(source.recipe)
    recipe["source"]["splits"] = {source.split: recipe["source"]["splits"][source.split]}
    return {
        "schema": SCHEMA_VERSION,
        "split": source.split,
        "recipe_sha256": digest(recipe),
        "recipe": recipe,
        "input": dict(reader.source),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Of everything that the bytes of a shard may depend on."""
    libraries = {name: version(name) for name in LIBRARIES}
    return {"pics": __version__, **libraries, "zlib": zlib.ZLIB_RUNTIME_VERSION, "cpu": platform.machine()}


def claim_folder(folder: Path, wanted: dict[str, Any], overwrite: bool) -> dict[str, Any] | None:
    """The manifest of an earlier run of this very build in the folder; refuse anything else found there."""
    manifest = read_manifest(folder)
    if overwrite:
        _remove_build(folder, manifest)
        manifest = None
    tars = sorted(folder.glob("*.tar"))
    foreign = f"{len(tars)} tar files ({tars[0].name}, …) that this tool did not write here" if tars else None
    if ResumableFolder(folder, "--out", "built").resumes(manifest, wanted, foreign):
        return manifest
    for path in shard_folder_files(folder):
        path.unlink()  # stats of blocks without a tar, of a build that nobody can name any more
    return None


def _remove_build(folder: Path, manifest: dict[str, Any] | None) -> None:
    """Delete an earlier build, the manifest last: without a manifest of ours nothing, else all that bears our names."""
    if manifest is not None:
        for path in shard_folder_files(folder):
            if path.name != MANIFEST:
                path.unlink()
        (folder / MANIFEST).unlink(missing_ok=True)


def is_whole(folder: Path, manifest: dict[str, Any]) -> bool:
    shards = manifest["shards"]
    return all((folder / shard["file"]).exists() for shard in shards) and all(
        read_stats(folder, shard["block"]) for shard in shards
    )


def build_manifest(
    job: Job, wanted: dict[str, Any], reader: Reader, pictures: int, chosen: Outcome, blocks: list[dict[str, Any]]
) -> dict[str, Any]:
    """Everything in the order of the pictures, so that the bytes do not depend on who finished first."""
    for stats in blocks:
        chosen.add(Outcome.from_plain(stats))
    keys = ("block", "samples", "bytes", "sha256")
    shards = [
        {"file": shard_path(job.folder, stats["block"]).name, **{key: stats[key] for key in keys}}
        for stats in blocks
        if stats["samples"]
    ]
    outcome = chosen.plain()
    by_reason = Counter(entry["reason"] for entry in outcome["bad"])
    bad = {"pictures": dict(sorted(by_reason.items())), "records": reader.bad["counts"]}
    return {
        "complete": True,
        "pictures": pictures,
        "of_pictures": len(reader),
        "samples": sum(shard["samples"] for shard in shards),
        "skipped": outcome["skipped"],
        "bad": bad,
        **wanted,
        "shards": shards,
        "skipped_examples": outcome["examples"],
        "bad_pictures": sorted(outcome["bad"], key=lambda entry: str(entry["item"])),
        "bad_records": reader.bad["lines"],
    }
