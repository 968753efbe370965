"""The folder that shards are written to: what it was made from, which shards are finished, what its manifest says."""

from __future__ import annotations

import platform
import zlib
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pics_cli import __version__
from pics_cli.core.recipes.base import digest
from pics_cli.core.runtime.files import write_json
from pics_cli.core.runtime.manifest import MANIFEST, read_manifest
from pics_cli.core.runtime.resumable import ResumableFolder
from pics_cli.core.runtime.storage import remove_files
from pics_cli.core.shards.layouts import SCHEMA_VERSION
from pics_cli.core.shards.shard_files import ShardWriter, file_sizes, shard_folder_files, shard_path, stats_path
from pics_cli.core.shards.shard_paths import manifest_entries, tar_files
from pics_cli.errors import PicsError

_LIBRARIES = ("numpy", "opencv-python-headless", "pillow", "pycocotools", "simplejpeg")


def folder_identity(split: str, recipe: dict[str, Any], source: dict[str, Any]) -> dict[str, Any]:
    """What a resumed run must share with the first.

    Args:
        split: of the samples.
        recipe: as plain data.
        source: what tells the input from another.
    """
    return {
        "schema": SCHEMA_VERSION,
        "split": split,
        "recipe_sha256": digest(recipe),
        "recipe": recipe,
        "input": source,
        "versions": library_versions(),
    }


def library_versions() -> dict[str, str]:
    """Everything that the bytes of a shard may depend on."""
    libraries = {name: version(name) for name in _LIBRARIES}
    return {"pics": __version__, **libraries, "zlib": zlib.ZLIB_RUNTIME_VERSION, "cpu": platform.machine()}


def resume_manifest(folder: Path, identity: Mapping[str, Any], overwrite: bool) -> dict[str, Any] | None:
    """The manifest that an earlier run with this identity left in the folder, None where there is none.

    Args:
        folder: what is written to.
        identity: of this run.
        overwrite: remove an earlier build, of whatever identity.

    Raises:
        PicsError: the folder holds another build, or tar files that nobody recorded.
    """
    manifest = read_manifest(folder)
    if overwrite and manifest is not None:
        _remove_shards(folder)
        (folder / MANIFEST).unlink()  # last: without a manifest nothing here is ours to remove
        manifest = None
    tars = tar_files(folder)
    foreign = f"{len(tars)} tar files ({tars[0].name}, …) that this tool did not write here" if tars else None
    if not ResumableFolder(folder, "--out", "built").resumes(manifest, identity, foreign):
        _remove_shards(folder)  # stats without a tar, of a build whose manifest is gone
        return None
    return manifest


def _remove_shards(folder: Path) -> None:
    remove_files(path for path in shard_folder_files(folder) if path.name != MANIFEST)


def is_complete(folder: Path, manifest: Mapping[str, Any]) -> bool:
    """Whether the manifest is of a finished build and all its shards are in the folder."""
    sizes = file_sizes(folder)
    return manifest["complete"] and all(
        sizes.get(shard["file"]) == shard["bytes"] and sizes.get(stats_path(folder, shard["block"]).name)
        for shard in manifest.get("shards", ())
    )


def list_shards(folder: Path) -> tuple[list[Path], dict[str, dict[str, Any]]]:
    """The folder's tar files, and the shards of its manifest by file name ({} without one).

    Raises:
        PicsError: no such folder, no shard in it, or a build that was not finished.
    """
    if not folder.is_dir():
        raise PicsError(f"{folder}: no such folder", "name a folder of .tar shards")
    expected = manifest_entries(folder)
    shards = tar_files(folder)
    if not shards and not expected:
        raise PicsError(f"{folder}: no .tar shard in it", "name a folder of shards")
    return shards, expected


def finish_shard(
    folder: Path, block: int, writer: ShardWriter, origin: Mapping[str, Any], outcome: Mapping[str, Any]
) -> dict[str, Any]:
    """Write the stats file that says that a shard is finished; a shard without samples is removed.

    Args:
        folder: of the shard.
        block: its number.
        writer: of the shard, closed.
        origin: what it was made from.
        outcome: what became of the images or samples that it does not hold.

    Returns:
        The stats.
    """
    summary = writer.summary
    if not writer.samples:
        shard_path(folder, block).unlink(missing_ok=True)
        summary = {"samples": 0, "bytes": None, "sha256": None}
    stats = {"block": block, **origin, **summary, **outcome}
    write_json(stats_path(folder, block), stats)
    return stats


def manifest_shards(blocks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A manifest's list of shards, from the stats of the finished blocks; those without samples have none."""
    keys = ("block", "samples", "bytes", "sha256")
    return [
        {"file": shard_path(Path(), stats["block"]).name, **{key: stats[key] for key in keys}}
        for stats in blocks
        if stats["samples"]
    ]
