"""A part of a build, for sites with a batch scheduler alone: several runs on one folder, each with a range of shards.

The bytes are those of one run. Each run holds a lock of its own, which keeps a run without a range away, and one for
each shard that it builds; whoever finds all shards there writes the manifest.
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pics_cli.core.datasets.build import (
    BuildOutcome,
    OpenEngine,
    build_identity,
    check_recipe,
    complete_manifest,
    image_count,
    requirements,
    resume_build,
)
from pics_cli.core.datasets.build_blocks import BuildStats, Candidate, build_block
from pics_cli.core.datasets.build_job import BuildJob, BuildProgress
from pics_cli.core.datasets.build_schedule import choose_all, finished_stats, stop_at_bad_pictures
from pics_cli.core.datasets.chosen_groups import Choice, range_run, read_choice, remove_leftovers, share_choice
from pics_cli.core.datasets.readers.base import Reader
from pics_cli.core.runtime.bad_samples import stop_at_max_bad
from pics_cli.core.runtime.engines import Engine, map_in_order
from pics_cli.core.runtime.files import make_folder, write_json
from pics_cli.core.runtime.locks import InUse, single_writer
from pics_cli.core.runtime.manifest import MANIFEST, read_manifest
from pics_cli.core.runtime.resumable import identity_differences, take_turns
from pics_cli.core.runtime.storage import is_remote
from pics_cli.core.shards.shard_files import read_all_stats, read_stats, remove_temporary_files
from pics_cli.errors import PicsError

logger = logging.getLogger(__name__)


@dataclass
class RangeReport:
    """What a run with a range did, and what its folder holds now.

    Attributes:
        of_range, of_shards: shards in its range, and of the whole split.
        built: shards that this run built.
        in_use: a line for each shard of the range that another run is building.
        missing: shards that are not there yet, of the whole split.
        manifest: of the folder; complete where nothing is missing.
    """

    of_range: int
    of_shards: int
    built: int = 0
    in_use: list[str] = field(default_factory=list)
    missing: int = 0
    manifest: dict[str, Any] = field(default_factory=dict)


def build_range(
    job: BuildJob, shards: tuple[int, int | None], reader: Reader, open_engine: OpenEngine, progress: BuildProgress
) -> RangeReport:
    """Build what is missing of the shards from the first number on and below the second, of all if that is None.

    Raises:
        PicsError: the folder belongs to another build or to a run without a range; too many bad images; disk full.
    """
    check_recipe(job.dataset, reader)
    make_folder(job.folder, "choose another --out")
    with range_run(job.folder):
        progress.total = image_count(job, reader)
        wanted = build_identity(job, reader)
        with take_turns(job.folder):
            earlier = resume_build(job, wanted, progress)
            if earlier["complete"]:
                return RangeReport(0, len(earlier["shards"]), manifest=earlier)
        origin = {"pictures": progress.total, **wanted}
        with open_engine(progress.counter, requirements(job, reader, [job.folder])) as engine:
            share_choice(
                job.folder, origin, lambda: _make_choice(job, reader, engine, progress),
                job.dataset.recipe.shards.size, lambda: setattr(progress, "activity", "another run chooses pairs"),
            )  # fmt: skip
            choice = read_choice(job.folder, *shards)
            images, progress.activity = progress.total, ""
            progress.settled, progress.stats = 0, BuildStats()
            progress.total = sum(len(candidates) for _, candidates in choice.blocks)
            report = RangeReport(len(choice.blocks), len(choice.digests))
            run = _RangeRun(job, reader, progress, report, images)
            arguments = run.claim_blocks(choice.blocks)
            try:
                for stats in map_in_order(engine, lambda: 2 * engine.slots, build_block, arguments):
                    run.finish(stats)
            finally:
                run.release()
        with take_turns(job.folder):
            _finish(job, reader, wanted, images, choice, report)
        return report


def _make_choice(
    job: BuildJob, reader: Reader, engine: Engine, progress: BuildProgress
) -> Iterator[tuple[list[Candidate], BuildStats]]:
    progress.activity = "choosing pairs"
    for candidates, skipped in choose_all(job.dataset, reader, engine, progress.total):
        progress.stats.add(skipped)
        progress.settled += len(candidates) + skipped.images
        stop_at_bad_pictures(job, reader, progress)
        yield candidates, skipped


class _RangeRun:
    """Claims blocks one by one, a few ahead of those that are built, and counts what is done."""

    def __init__(
        self, job: BuildJob, reader: Reader, progress: BuildProgress, report: RangeReport, images: int
    ) -> None:
        self.job, self.reader, self.progress, self.report, self.images = job, reader, progress, report, images
        self.locks: deque[contextlib.ExitStack] = deque()

    def claim_blocks(
        self, blocks: list[tuple[int, list[Candidate]]]
    ) -> Iterator[tuple[Any, Path, int, list[Candidate]]]:
        """Arguments of `build_block` for those that are missing and that no other run is building."""
        folder, progress = self.job.folder, self.progress
        for number, candidates in blocks:
            lock = contextlib.ExitStack()
            finished = finished_stats(self.job, number, candidates, read_stats(folder, number))
            if finished is None:
                try:
                    lock.enter_context(single_writer(folder, f".{number:05d}.lock"))
                except InUse as error:
                    self.report.in_use.append(f"shard {number:05d}: {error.message}")
                    progress.total -= len(candidates)
                    continue
                finished = finished_stats(self.job, number, candidates, read_stats(folder, number))  # meanwhile
            if finished is not None:
                lock.close()
                progress.resumed += 1
                progress.settled += finished["candidates"]
                progress.kept_before += finished["samples"]
                continue
            for path in () if is_remote(folder) else folder.glob(f"{number:05d}.*.tmp"):  # of a run that was killed
                path.unlink(missing_ok=True)
            self.locks.append(lock)
            yield self.job.dataset, folder, number, candidates

    def finish(self, stats: dict[str, Any]) -> None:
        """The block that was claimed first is done."""
        self.locks.popleft().close()
        self.report.built += 1
        self.progress.stats.add(BuildStats.from_dict(stats))
        stop_at_max_bad(self.job.max_bad, self.images, self.progress.stats.bad, self.reader.bad_records)

    def release(self) -> None:
        """Let go of what was claimed and not built."""
        while self.locks:
            self.locks.popleft().close()


def _finish(
    job: BuildJob, reader: Reader, wanted: dict[str, Any], images: int, choice: Choice, report: RangeReport
) -> None:
    """Write the manifest where every shard is there, by whatever run; the holder of the folder's lock calls it.

    Raises:
        PicsError: another build was begun in the folder meanwhile; the runs together met too many bad images.
    """
    recorded = read_manifest(job.folder) or {"complete": False}
    if identity_differences(recorded, {"pictures": images, **wanted}):
        raise PicsError(f"{job.folder}: was begun anew with other settings meanwhile", "choose another --out")
    blocks, there = [], read_all_stats(job.folder)
    for number, (count, digest) in enumerate(choice.digests):
        stats = there.get(number)
        if stats is not None and (stats["candidates"], stats["candidates_sha256"]) == (count, digest):
            blocks.append(stats)
    report.missing, report.manifest = len(choice.digests) - len(blocks), recorded
    if report.missing:
        return
    manifest = complete_manifest(wanted, reader, images, choice.unchosen, BuildOutcome(blocks))
    bad = manifest["bad_pictures"]
    stop_at_max_bad(job.max_bad, images, bad, reader.bad_records)
    if not recorded["complete"]:
        write_json(job.folder / MANIFEST, manifest)
    remove_leftovers(job.folder)
    remove_temporary_files(job.folder)
    report.manifest = manifest
