"""The order in which an engine gets a build's work: the choice of pairs ahead, and the blocks that it feeds."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

from pics_cli.core.datasets.build_blocks import BuildStats, Candidate, build_block, choose_block, digest_candidates
from pics_cli.core.datasets.build_job import BuildJob, BuildProgress
from pics_cli.core.datasets.readers.base import DatasetSplit, Reader
from pics_cli.core.datasets.scene import ItemId
from pics_cli.core.runtime.bad_samples import stop_at_max_bad
from pics_cli.core.runtime.engines import Engine, map_in_order
from pics_cli.core.shards.shard_files import read_all_stats
from pics_cli.errors import PicsError

# Images of a run of the choice: so few that 12-megapixel label maps take seconds, and an interrupt no longer; so many
# that what is chosen ahead takes little memory. And how many runs are ahead.
_SHORTEST_RUN, LONGEST_RUN, _MOST_RUNS = 64, 4096, 256


def run_blocks(
    job: BuildJob, reader: Reader, engine: Engine, progress: BuildProgress, unchosen: BuildStats
) -> Iterator[dict[str, Any]]:
    """Run the choice ahead of the building, both on the engine, and yield block stats in order.

    `unchosen` gathers, in order, why the choice left images out.
    """
    choices = choose_all(job.dataset, reader, engine, progress.total)
    before = read_all_stats(job.folder)
    running: deque[Future[dict[str, Any]]] = deque()
    ended: SimpleQueue[Future[dict[str, Any]]] = SimpleQueue()
    waiting: list[Candidate] = []
    size, block, busy, more = job.dataset.recipe.shards.size, 0, 0, True
    while more or waiting or running:
        while running and running[0].done():
            stats = running.popleft().result()
            progress.stats.add(BuildStats.from_dict(stats))
            stop_at_bad_pictures(job, reader, progress)
            yield stats
        if busy > engine.slots or (busy and not more and not waiting) or not ended.empty():
            ended.get().result()  # a failure stops the job at once, whatever its place in the row
            busy -= 1
        elif more and len(waiting) < size:
            try:
                candidates, skipped = next(choices)
            except StopIteration:
                more = False
                continue
            waiting.extend(candidates)
            unchosen.add(skipped)
            progress.stats.add(skipped)
            progress.settled += skipped.images
            stop_at_bad_pictures(job, reader, progress)
        elif waiting:
            candidates, waiting = waiting[:size], waiting[size:]
            if finished := finished_stats(job, block, candidates, before.get(block)):
                progress.resumed += 1
                progress.settled += finished["candidates"]
                progress.kept_before += finished["samples"]
                running.append(Future())
                running[-1].set_result(finished)
            else:
                running.append(engine.submit(build_block, job.dataset, job.folder, block, candidates))
                running[-1].add_done_callback(ended.put)
                busy += 1
            block += 1


def finished_stats(
    job: BuildJob, block: int, candidates: Sequence[Candidate], stats: dict[str, Any] | None
) -> dict[str, Any] | None:
    """Stats of a block that an earlier run finished, if they are; one that --limit had cut short is built again."""
    if stats is None:
        return None
    try:
        BuildStats.from_dict(stats)
        same = stats["candidates_sha256"] == digest_candidates(candidates[: stats["candidates"]])
    except (AttributeError, KeyError, TypeError, ValueError):  # damaged: the block is built again
        return None
    if not same:
        raise PicsError(
            f"{job.folder}: the annotations have changed since block {block} was built",
            "choose another --out, or replace what is there with --overwrite",
        )
    return stats if stats["candidates"] == len(candidates) else None


def choose_all(
    dataset: DatasetSplit, reader: Reader, engine: Engine, images: int
) -> Iterator[tuple[list[Candidate], BuildStats]]:
    """Choices of consecutive runs of images, in order, a few of them ahead of the reader.

    Runs are as long as takes a worker about a second, so that the driver of many workers has few to hand out; what is
    chosen does not depend on it.
    """
    size = _SHORTEST_RUN

    def runs() -> Iterator[tuple[DatasetSplit, Sequence[ItemId]]]:
        start = 0
        while start < images:
            stop = min(start + size, images)
            yield dataset, reader.item_ids(start, stop)
            start = stop  # the size may be another one by now

    for candidates, stats, seconds in map_in_order(
        engine, lambda: min(engine.slots + 1, _MOST_RUNS), _timed_choice, runs()
    ):
        if seconds < 0.5:
            size = min(2 * size, LONGEST_RUN)
        elif seconds > 2:
            size = max(size // 2, _SHORTEST_RUN)
        yield candidates, stats


def _timed_choice(dataset: DatasetSplit, item_ids: Sequence[ItemId]) -> tuple[list[Candidate], BuildStats, float]:
    start = time.monotonic()
    candidates, stats = choose_block(dataset, item_ids)
    return candidates, stats, time.monotonic() - start


def stop_at_bad_pictures(job: BuildJob, reader: Reader, progress: BuildProgress) -> None:
    """Stop a build that has met more unreadable images and records than --max-bad allows."""
    stop_at_max_bad(job.max_bad, progress.total, progress.stats.bad, reader.bad_records)
