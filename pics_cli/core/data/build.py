"""Build a folder of shards from a raw dataset: plan, run blocks, resume, manifest."""

from __future__ import annotations

import platform
import zlib
from difflib import get_close_matches
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from pics_cli import __version__
from pics_cli.core.data.blocks import Candidate, Input, Outcome, build_block, choose_block
from pics_cli.core.data.readers import Reader
from pics_cli.core.data.samples import SCHEMA
from pics_cli.core.data.shards import own_files, read_stats, remove_temporaries, shard_path
from pics_cli.core.executors import Tally
from pics_cli.core.files import make_folder, only_writer, write_json
from pics_cli.core.manifest import MANIFEST, differences, read_manifest
from pics_cli.core.recipe import digest, identity
from pics_cli.errors import FAILED, PicsError

CHOICE_BLOCK = 512
LIBRARIES = ("numpy", "opencv-python-headless", "pillow", "pycocotools", "simplejpeg")
BAD_SHARE, BAD_FLOOR = 0.01, 100


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
    tally: Tally = field(default_factory=Tally)

    @property
    def done(self) -> int:
        return self.settled + self.tally.done

    @property
    def kept(self) -> int:
        return self.kept_before + self.tally.kept


@dataclass(frozen=True)
class Job:
    """One split of a raw dataset to be built into one folder.

    Attributes:
        limit: look at the first so many pictures only.
        max_bad: unreadable pictures and records that are put up with; None: 1 % of the pictures, at least 100.
        overwrite: remove the shards that an earlier build left in the folder.
    """

    source: Input
    folder: Path
    limit: int | None = None
    max_bad: int | None = None
    overwrite: bool = False


class Engine(NamedTuple):
    """Where blocks run.

    Attributes:
        start: gives an executor for the time of a `with` block; the tally counts its pictures as they are done.
        slots: how many blocks it runs side by side.
    """

    start: Callable[[Tally], AbstractContextManager[Executor]]
    slots: int


def build(
    job: Job, reader: Reader, engine: Engine, progress: Progress, note: Callable[[str], None]
) -> dict[str, Any]:
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
    check_classes(job.source, reader)
    make_folder(job.folder)
    with only_writer(job.folder):
        remove_temporaries(job.folder)
        wanted = _identity(job.source, reader)
        earlier = _claim(job, wanted)
        progress.pictures = len(reader) if job.limit is None else min(job.limit, len(reader))
        if earlier and earlier["complete"] and earlier["pictures"] >= progress.pictures:
            if _is_whole(job.folder, earlier):
                note(f"{job.folder} is complete already: nothing to do")
                return earlier
            note(f"{job.folder} is complete by its manifest, but shards are missing: building those")
        write_json(job.folder / MANIFEST, {"complete": False, **wanted})
        chosen = Outcome()
        try:
            with engine.start(progress.tally) as executor:
                blocks = list(_run(job, reader, executor, engine.slots, progress, chosen))
        except BrokenProcessPool:
            raise PicsError(
                "a worker process died; often the machine ran out of memory",
                "run the same command again with fewer --workers: it resumes",
                FAILED,
            ) from None
        finally:
            remove_temporaries(job.folder)
        manifest = _manifest(job, wanted, reader, progress.pictures, chosen, blocks)
        write_json(job.folder / MANIFEST, manifest)
        return manifest


def dry_run(job: Job, reader: Reader, engine: Engine, progress: Progress) -> tuple[list[Candidate], Outcome]:
    """Make the choice alone, writing nothing: the candidates, and why the other pictures are skipped."""
    check_classes(job.source, reader)
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


def check_classes(source: Input, reader: Reader) -> None:
    """Refuse a class filter that names what the data lacks."""
    classes = source.recipe.pairs.classes
    named = [*classes.include, *classes.exclude]
    if named and not reader.categories:
        raise PicsError(
            f"{reader.place}: these labels name no categories, so pairs.classes cannot be applied",
            "remove pairs.classes, or use annotations with categories",
        )
    known = set(reader.categories)
    if unknown := [name for name in named if name not in known]:
        near = get_close_matches(unknown[0], reader.categories, n=3)
        raise PicsError(
            f"pairs.classes: {', '.join(map(repr, unknown))} not among the {len(known)} categories of {reader.place}",
            f"nearest: {', '.join(near)}" if near else f"it has: {', '.join(sorted(known)[:10])}, …",
        )


def _run(
    job: Job, reader: Reader, executor: Executor, slots: int, progress: Progress, chosen: Outcome
) -> Iterator[dict[str, Any]]:
    """Run the choice ahead of the building, both on the executor, and yield block stats in order.

    `chosen` gathers, in order, why the choice left pictures out.
    """
    choices = _choices(job.source, reader, executor, slots, progress.pictures)
    running: deque[dict[str, Any] | Future[dict[str, Any]]] = deque()
    waiting: list[Candidate] = []
    size, block, more = job.source.recipe.shards.size, 0, True
    while more or waiting or running:
        while running and (not isinstance(running[0], Future) or running[0].done()):
            first = running.popleft()
            stats = first.result() if isinstance(first, Future) else first
            progress.outcome.add(Outcome.from_plain(stats))
            _stop_at_max_bad(job, reader, progress)
            yield stats
        if sum(isinstance(entry, Future) for entry in running) > slots:
            wait([entry for entry in running if isinstance(entry, Future)], return_when=FIRST_COMPLETED)
            _settle(running)
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
            stats = read_stats(job.folder, block)
            if stats and stats["candidates"] >= len(candidates):
                progress.resumed += 1
                progress.settled += stats["candidates"]
                progress.kept_before += stats["samples"]
                running.append(stats)
            else:
                running.append(executor.submit(build_block, job.source, job.folder, block, candidates))
            block += 1
        elif running:
            wait([entry for entry in running if isinstance(entry, Future)], return_when=FIRST_COMPLETED)
            _settle(running)


def _settle(running: deque[dict[str, Any] | Future[dict[str, Any]]]) -> None:
    """Put results in the place of finished futures; a failed one raises at once, whatever its place in the row."""
    for at, entry in enumerate(running):
        if isinstance(entry, Future) and entry.done():
            running[at] = entry.result()


def _choices(
    source: Input, reader: Reader, executor: Executor, slots: int, pictures: int
) -> Iterator[tuple[list[Candidate], Outcome]]:
    """Choices of consecutive runs of pictures, in order, a few of them ahead of the reader."""
    ahead: deque[Future[tuple[list[Candidate], Outcome]]] = deque()
    start = 0
    while start < pictures or ahead:
        while start < pictures and len(ahead) < slots + 1:
            stop = min(start + CHOICE_BLOCK, pictures)
            ahead.append(executor.submit(choose_block, source, reader.items(start, stop)))
            start = stop
        yield ahead.popleft().result()


def _stop_at_max_bad(job: Job, reader: Reader, progress: Progress) -> None:
    bad = len(progress.outcome.bad) + sum(reader.bad["counts"].values())
    allowed = job.max_bad
    if allowed is None:
        allowed = max(BAD_FLOOR, int(BAD_SHARE * progress.pictures))
    if bad > allowed:
        lines = [f"  {entry['item']}: {entry['reason']}: {entry['detail']}" for entry in progress.outcome.bad]
        lines += [f"  {line}" for line in reader.bad["lines"]]
        shown = "\n".join(lines[:5]) + (f"\n  and {len(lines) - 5} more" if len(lines) > 5 else "")
        raise PicsError(
            f"{bad} bad pictures or records, more than --max-bad {allowed}; the first:\n{shown}",
            "mend the input, or allow more with --max-bad N; finished shards are kept and a second run resumes",
        )


def _identity(source: Input, reader: Reader) -> dict[str, Any]:
    """What a resumed run must share with the first."""
    recipe = identity(source.recipe)
    libraries = {name: version(name) for name in LIBRARIES}
    return {
        "schema": SCHEMA,
        "split": source.split,
        "recipe_sha256": digest(recipe),
        "recipe": recipe,
        "input": dict(reader.source),
        "versions": {"pics": __version__, **libraries, "zlib": zlib.ZLIB_RUNTIME_VERSION, "cpu": platform.machine()},
    }


def _claim(job: Job, wanted: dict[str, Any]) -> dict[str, Any] | None:
    """The manifest of an earlier run of this very build in the folder; refuse anything else found there."""
    manifest = read_manifest(job.folder)
    if job.overwrite:
        _remove_build(job.folder, manifest)
        manifest = None
    if manifest is None:
        if tars := sorted(job.folder.glob("*.tar")):
            raise PicsError(
                f"{job.folder}: holds {len(tars)} tar files ({tars[0].name}, …) that this tool did not write here",
                "choose another --out, or move them away",
            )
        return None
    if found := differences({key: manifest.get(key) for key in wanted}, wanted):
        shown = "\n".join(f"  {line}" for line in found[:8])
        raise PicsError(
            f"{job.folder}: was built otherwise:\n{shown}",
            "choose another --out, or replace what is there with --overwrite",
        )
    return manifest


def _remove_build(folder: Path, manifest: dict[str, Any] | None) -> None:
    """Delete the shards of an earlier build, the manifest last; files that no manifest of ours vouches for stay."""
    if manifest is not None:
        for path in own_files(folder):
            if path.name != MANIFEST:
                path.unlink()
        (folder / MANIFEST).unlink(missing_ok=True)


def _is_whole(folder: Path, manifest: dict[str, Any]) -> bool:
    shards = manifest["shards"]
    return all((folder / shard["file"]).exists() for shard in shards) and all(
        read_stats(folder, shard["block"]) for shard in shards
    )


def _manifest(
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
    bad = {"pictures": len(outcome["bad"]), "records": reader.bad["counts"]}
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

