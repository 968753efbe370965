"""Build a folder of shards from a raw dataset: checks, resumption, manifest."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pics_cli.core.datasets.build_blocks import BuildStats, Candidate
from pics_cli.core.datasets.build_job import BuildJob, BuildProgress
from pics_cli.core.datasets.build_schedule import choose_all, run_blocks, stop_at_bad_pictures
from pics_cli.core.datasets.chosen_groups import refuse_while_ranges_run, remove_leftovers
from pics_cli.core.datasets.compat import check_compat
from pics_cli.core.datasets.readers.base import DatasetSplit, Reader
from pics_cli.core.datasets.readers.index_cache import opened_indexes
from pics_cli.core.datasets.shard_folder import (
    folder_identity,
    is_complete,
    library_versions,
    manifest_shards,
    resume_manifest,
)
from pics_cli.core.recipes.dataset import dataset_identity
from pics_cli.core.recipes.sources import CityscapesSource
from pics_cli.core.runtime.engines import Engine, PictureCounter
from pics_cli.core.runtime.files import write_json
from pics_cli.core.runtime.manifest import MANIFEST
from pics_cli.core.runtime.requirements import Requirements
from pics_cli.core.runtime.resumable import ResumableFolder
from pics_cli.core.shards.shard_files import remove_temporary_files
from pics_cli.errors import PicsError

logger = logging.getLogger(__name__)

# Opens the engine that blocks run on: it counts their pictures, and its machines are what the job requires.
OpenEngine = Callable[[PictureCounter, Requirements], AbstractContextManager[Engine]]


def build(job: BuildJob, reader: Reader, open_engine: OpenEngine, progress: BuildProgress) -> dict[str, Any]:
    """Build what is missing in the folder and return its manifest.

    Args:
        job: what to build, and where.
        reader: of the job's dataset.
        open_engine: where the blocks run.
        progress: updated as the work goes on.

    Raises:
        PicsError: the folder belongs to another build or writer, too many bad images, disk full.
    """
    check_recipe(job.dataset, reader)
    with ResumableFolder(job.folder, "--out").hold():
        refuse_while_ranges_run(job.folder)
        remove_temporary_files(job.folder)
        wanted = build_identity(job, reader)
        progress.total = image_count(job, reader)
        manifest = resume_build(job, wanted, progress)
        if manifest["complete"]:
            return manifest
        unchosen = BuildStats()
        try:
            with open_engine(progress.counter, requirements(job, reader, [job.folder])) as engine:
                outcome = BuildOutcome(run_blocks(job, reader, engine, progress, unchosen))
        finally:
            remove_temporary_files(job.folder)
        manifest = complete_manifest(wanted, reader, progress.total, unchosen, outcome)
        write_json(job.folder / MANIFEST, manifest)
        remove_leftovers(job.folder)
        return manifest


def build_identity(job: BuildJob, reader: Reader) -> dict[str, Any]:
    """What a run that goes on with the folder must share with the one that began it."""
    recipe, split = dataset_identity(job.dataset.recipe), job.dataset.split
    recipe["source"]["splits"] = {split: recipe["source"]["splits"][split]}
    return folder_identity(split, recipe, dict(reader.source))


def resume_build(job: BuildJob, wanted: dict[str, Any], progress: BuildProgress) -> dict[str, Any]:
    """The folder's manifest: a complete one, where nothing is left to do, or the one that this begins or goes on with.

    Raises:
        PicsError: the folder belongs to another build, or to one of more images.
    """
    earlier = resume_manifest(job.folder, wanted, job.overwrite)
    if earlier and earlier["complete"] and earlier["pictures"] >= progress.total:
        if is_complete(job.folder, earlier):
            logger.info("%s is complete already: nothing to do", job.folder)
            progress.settled, progress.kept_before = progress.total, earlier["samples"]
            return earlier
        logger.info("%s is complete by its manifest, but shards are missing: building those", job.folder)
    if earlier and earlier.get("pictures", 0) > progress.total:
        raise PicsError(
            f"{job.folder}: holds an unfinished build of {earlier['pictures']:,} pictures, more than --limit "
            f"{job.limit} asks for",
            "finish it without --limit (or with a larger one), or choose another --out",
        )
    begun = {"complete": False, "pictures": progress.total, **wanted}
    write_json(job.folder / MANIFEST, begun)
    return begun


def dry_run(
    job: BuildJob, reader: Reader, open_engine: OpenEngine, progress: BuildProgress
) -> tuple[list[Candidate], BuildStats]:
    """Make the choice alone, writing nothing: the candidates, and why the other images are skipped."""
    check_recipe(job.dataset, reader)
    progress.total = image_count(job, reader)
    candidates = []
    with open_engine(progress.counter, requirements(job, reader, [])) as engine:
        for chosen, stats in choose_all(job.dataset, reader, engine, progress.total):
            candidates.extend(chosen)
            progress.stats.add(stats)
            progress.settled += len(chosen) + stats.images
            progress.kept_before += len(chosen)
            stop_at_bad_pictures(job, reader, progress)
    return candidates, progress.stats


def check_recipe(dataset: DatasetSplit, reader: Reader) -> None:
    """Refuse what the data cannot give: classes that they lack, and what `--compat` does not know."""
    if dataset.recipe.compat:
        check_compat(dataset.recipe)
    classes = dataset.recipe.pairs.classes
    named = [*classes.include, *classes.exclude]
    if not named:  # some readers go through every file for their categories
        return
    known = set(reader.categories)
    if not known:
        raise PicsError(
            f"{reader.annotations}: these labels name no categories, so pairs.classes cannot be applied",
            "remove pairs.classes, or use annotations with categories",
        )
    if unknown := [name for name in named if name not in known]:
        labels = isinstance(dataset.recipe.source, CityscapesSource)
        owner = "the recipe's source.labels" if labels else reader.annotations
        near = [name for name in reader.categories if unknown[0].lower() in name.lower()]  # car: object--vehicle--car
        near = near[:3] or get_close_matches(unknown[0], reader.categories, n=3)
        raise PicsError(
            f"pairs.classes: {', '.join(map(repr, unknown))} not among the {len(known)} categories of {owner}",
            f"nearest: {', '.join(near)}" if near else f"it has: {', '.join(sorted(known)[:10])}, …",
        )


def image_count(job: BuildJob, reader: Reader) -> int:
    """Images that a job looks at."""
    return len(reader) if job.limit is None else min(job.limit, len(reader))


def requirements(job: BuildJob, reader: Reader, writes: Sequence[Path]) -> Requirements:
    """What every machine that runs blocks of the job must see and have."""
    raw = [] if job.dataset.raw is None else [job.dataset.raw]
    files = reader.annotation_files
    return Requirements([*raw, *files], writes, library_versions, opened_indexes(files))


class BuildOutcome:
    """What blocks came to, given in their order; of each little is kept, as there may be a hundred thousand.

    Attributes:
        stats: of all their images that gave no sample.
    """

    def __init__(self, blocks: Iterable[dict[str, Any]]) -> None:
        self.stats, self._shards = BuildStats(), list[tuple[int, int, int, bytes]]()
        for block in blocks:
            self.stats.add(BuildStats.from_dict(block))
            if block["samples"]:
                sha256 = bytes.fromhex(block["sha256"])
                self._shards.append((block["block"], block["samples"], block["bytes"], sha256))

    def shards(self) -> list[dict[str, Any]]:
        """The manifest's list of shards."""
        keys = ("block", "samples", "bytes", "sha256")
        return manifest_shards([dict(zip(keys, (*row, sha256.hex()), strict=True)) for *row, sha256 in self._shards])


def complete_manifest(
    wanted: dict[str, Any], reader: Reader, images: int, unchosen: BuildStats, built: BuildOutcome
) -> dict[str, Any]:
    """Everything in the order of the images, so that the bytes do not depend on who finished first."""
    stats = BuildStats()
    stats.add(unchosen)
    stats.add(built.stats)
    shards, outcome = built.shards(), stats.as_dict()
    reasons = Counter(entry["reason"] for entry in stats.bad)
    return {
        "complete": True,
        "pictures": images,
        "of_pictures": len(reader),
        "samples": sum(shard["samples"] for shard in shards),
        "skipped": outcome["skipped"],
        "bad": {"pictures": dict(sorted(reasons.items())), "records": reader.bad_records.counts},
        "noted": dict(sorted(stats.noted.items())),
        **wanted,
        "shards": shards,
        "skipped_examples": outcome["examples"],
        "bad_pictures": sorted(stats.bad, key=lambda entry: str(entry["item"])),
        "bad_records": reader.bad_records.lines,
    }
