"""Build a folder of shards from a raw dataset: plan, run blocks, resume, manifest."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, NamedTuple

from pics_cli.core.datasets.blocks import Candidate, Outcome, build_block, choose_block, digest_candidates
from pics_cli.core.datasets.build_folder import build_identity, build_manifest, claim_folder, is_whole
from pics_cli.core.datasets.job import Input, Job
from pics_cli.core.datasets.readers import Reader
from pics_cli.core.recipes.dataset import CityscapesSource, SynthSource
from pics_cli.core.runtime.bad_samples import stop_at_max_bad
from pics_cli.core.runtime.engines import PictureCounter, map_in_order
from pics_cli.core.runtime.files import write_json
from pics_cli.core.runtime.manifest import MANIFEST
from pics_cli.core.runtime.resumable import ResumableFolder
from pics_cli.core.shards.shard_files import read_stats, remove_temporary_files
from pics_cli.errors import PicsError

# Few enough that a block of 12-megapixel label maps takes seconds, and an interrupt no longer.
CHOICE_BLOCK = 64


@dataclass
class Progress:
    """How far a build is; read by whoever displays it.

    Attributes:
        pictures: how many the job looks at.
        settled: pictures decided upon, besides those in the blocks that run.
        resumed: shards that were there already.
        outcome: why pictures gave no sample, so far, in no particular order.
    """

    pictures: int = 0
    settled: int = 0
    kept_before: int = 0
    resumed: int = 0
    outcome: Outcome = field(default_factory=Outcome)
    tally: PictureCounter = field(default_factory=PictureCounter)

    @property
    def done(self) -> int:
        return self.settled + self.tally.done

    @property
    def kept(self) -> int:
        return self.kept_before + self.tally.kept


class Engine(NamedTuple):
    """Where blocks run.

    Attributes:
        start: gives an executor for the time of a `with` block; the tally counts its pictures as they are done.
        slots: how many blocks it runs side by side.
    """

    start: Callable[[PictureCounter], AbstractContextManager[Executor]]
    slots: int


def build(job: Job, reader: Reader, engine: Engine, progress: Progress, note: Callable[[str], None]) -> dict[str, Any]:
    """Build what is missing in the folder and return its manifest.

    Args:
        job: what to build, and where.
        reader: the opened input of the job.
        engine: where the blocks run.
        progress: updated as the work goes on.
        note: told single lines worth reading, such as what is resumed.

    Raises:
        PicsError: the folder belongs to another build or writer, too many bad pictures, disk full.
    """
    check_recipe(job.source, reader)
    with ResumableFolder(job.folder, "--out").hold():
        remove_temporary_files(job.folder)
        wanted = build_identity(job.source, reader)
        earlier = claim_folder(job.folder, wanted, job.overwrite)
        progress.pictures = len(reader) if job.limit is None else min(job.limit, len(reader))
        if earlier and earlier["complete"] and earlier["pictures"] >= progress.pictures:
            if is_whole(job.folder, earlier):
                note(f"{job.folder} is complete already: nothing to do")
                progress.settled, progress.kept_before = progress.pictures, earlier["samples"]
                return earlier
            note(f"{job.folder} is complete by its manifest, but shards are missing: building those")
        if earlier and earlier["pictures"] > progress.pictures:
            raise PicsError(
                f"{job.folder}: holds an unfinished build of {earlier['pictures']:,} pictures, more than --limit "
                f"{job.limit} asks for",
                "finish it without --limit (or with a larger one), or choose another --out",
            )
        write_json(job.folder / MANIFEST, {"complete": False, "pictures": progress.pictures, **wanted})
        chosen = Outcome()
        try:
            with engine.start(progress.tally) as executor:
                blocks = list(_run(job, reader, executor, engine.slots, progress, chosen))
        finally:
            remove_temporary_files(job.folder)
        manifest = build_manifest(job, wanted, reader, progress.pictures, chosen, blocks)
        write_json(job.folder / MANIFEST, manifest)
        return manifest


def dry_run(job: Job, reader: Reader, engine: Engine, progress: Progress) -> tuple[list[Candidate], Outcome]:
    """Make the choice alone, writing nothing: the candidates, and why the other pictures are skipped."""
    check_recipe(job.source, reader)
    progress.pictures = len(reader) if job.limit is None else min(job.limit, len(reader))
    candidates = []
    with engine.start(progress.tally) as executor:
        for chosen, outcome in _choices(job.source, reader, executor, engine.slots, progress.pictures):
            candidates.extend(chosen)
            progress.outcome.add(outcome)
            progress.settled += len(chosen) + sum(outcome.skipped.values()) + len(outcome.bad)
            progress.kept_before += len(chosen)
            _stop_at_max_bad(job, reader, progress)
    return candidates, progress.outcome


def check_recipe(source: Input, reader: Reader) -> None:
    """Refuse what the data cannot give: classes that they lack, compat beyond two objects."""
    if source.recipe.compat and isinstance(source.recipe.source, SynthSource):
        raise PicsError(
            f"{source.recipe.name} is drawn: compat reproduces what the research code does with photographs",
            "build without --compat",
        )
    if source.recipe.compat and source.recipe.pairs.objects != 2:
        raise PicsError(
            f"pairs.objects is {source.recipe.pairs.objects}: compat reproduces the research code, which takes two",
            "build without --compat, or with two objects",
        )
    classes = source.recipe.pairs.classes
    named = [*classes.include, *classes.exclude]
    if named and not reader.categories:
        raise PicsError(
            f"{reader.place}: these labels name no categories, so pairs.classes cannot be applied",
            "remove pairs.classes, or use annotations with categories",
        )
    known = set(reader.categories)
    where = "the recipe's source.labels" if isinstance(source.recipe.source, CityscapesSource) else reader.place
    if unknown := [name for name in named if name not in known]:
        near = [name for name in reader.categories if unknown[0].lower() in name.lower()]  # car: object--vehicle--car
        near = near[:3] or get_close_matches(unknown[0], reader.categories, n=3)
        raise PicsError(
            f"pairs.classes: {', '.join(map(repr, unknown))} not among the {len(known)} categories of {where}",
            f"nearest: {', '.join(near)}" if near else f"it has: {', '.join(sorted(known)[:10])}, …",
        )


def _run(
    job: Job, reader: Reader, executor: Executor, slots: int, progress: Progress, chosen: Outcome
) -> Iterator[dict[str, Any]]:
    """Run the choice ahead of the building, both on the executor, and yield block stats in order.

    `chosen` gathers, in order, why the choice left pictures out.
    """
    choices = _choices(job.source, reader, executor, slots, progress.pictures)
    running: deque[Future[dict[str, Any]]] = deque()
    waiting: list[Candidate] = []
    size, block, more = job.source.recipe.shards.size, 0, True
    while more or waiting or running:
        while running and running[0].done():
            stats = running.popleft().result()
            progress.outcome.add(Outcome.from_plain(stats))
            _stop_at_max_bad(job, reader, progress)
            yield stats
        busy = [future for future in running if not future.done()]
        if len(busy) > slots or (busy and not more and not waiting):
            for future in wait(busy, return_when=FIRST_COMPLETED).done:
                future.result()  # a failure stops the job at once, whatever its place in the row
        elif more and len(waiting) < size:
            try:
                candidates, outcome = next(choices)
            except StopIteration:
                more = False
                continue
            waiting.extend(candidates)
            chosen.add(outcome)
            progress.outcome.add(outcome)
            progress.settled += sum(outcome.skipped.values()) + len(outcome.bad)
            _stop_at_max_bad(job, reader, progress)
        elif waiting:
            candidates, waiting = waiting[:size], waiting[size:]
            there = _finished(job, block, candidates)
            if there:
                progress.resumed += 1
                progress.settled += there["candidates"]
                progress.kept_before += there["samples"]
                running.append(Future())
                running[-1].set_result(there)
            else:
                running.append(executor.submit(build_block, job.source, job.folder, block, candidates))
            block += 1


def _finished(job: Job, block: int, candidates: Sequence[Candidate]) -> dict[str, Any] | None:
    """Stats of a block that an earlier run finished; a block that --limit had cut short is to be built again."""
    stats = read_stats(job.folder, block)
    if stats and stats["candidates_sha256"] != digest_candidates(candidates[: stats["candidates"]]):
        raise PicsError(
            f"{job.folder}: the annotations have changed since block {block} was built",
            "choose another --out, or replace what is there with --overwrite",
        )
    return stats if stats and stats["candidates"] == len(candidates) else None


def _choices(
    source: Input, reader: Reader, executor: Executor, slots: int, pictures: int
) -> Iterator[tuple[list[Candidate], Outcome]]:
    """Choices of consecutive runs of pictures, in order, a few of them ahead of the reader."""
    starts = range(0, pictures, CHOICE_BLOCK)
    runs = (reader.items(start, min(start + CHOICE_BLOCK, pictures)) for start in starts)
    return map_in_order(executor, slots + 1, choose_block, ((source, items) for items in runs))


def _stop_at_max_bad(job: Job, reader: Reader, progress: Progress) -> None:
    stop_at_max_bad(job.max_bad, progress.pictures, progress.outcome.bad, reader.bad)
