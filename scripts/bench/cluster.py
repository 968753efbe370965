"""Blocks on a Ray cluster: throughput, overhead and memory of the driver, nodes kept busy, and a model of more nodes.

    python scripts/bench/cluster.py [FIGURE ...] [--blocks N] [--pictures N] [--repeats R] [--data DIR]

Needs the extra [ray]. Each figure starts a Ray of its own and may be asked for alone. `throughput`: the build of 2,400
pictures with 2 workers against our pool of processes, after both have started; `overhead`: the time between two blocks
of a worker, and the driver's CPU time for a block; `memory`: of the driver, with blocks that do nothing; `nodes`: eight
fake nodes and blocks that sleep for 2 s; `model`: the same and larger clusters simulated, with the constants that
`overhead` has just measured. docs/scale.md says what follows; docs/scale.json holds the constants.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from itertools import pairwise
from pathlib import Path
from queue import SimpleQueue
from statistics import mean, median
from typing import Any, NamedTuple, cast

import ray
from ray.cluster_utils import Cluster

from common import Bench, Row, demo, spread
from pics_cli.core.datasets import build_schedule
from pics_cli.core.datasets.build import BuildOutcome, build
from pics_cli.core.datasets.build_blocks import BuildStats, Candidate
from pics_cli.core.datasets.build_job import BuildJob, BuildProgress
from pics_cli.core.datasets.build_schedule import run_blocks
from pics_cli.core.datasets.readers import open_reader
from pics_cli.core.datasets.readers.base import DatasetSplit
from pics_cli.core.recipes.base import Override, find_recipe
from pics_cli.core.recipes.dataset import load_dataset
from pics_cli.core.runtime.engines import Engine, PictureCounter
from pics_cli.core.runtime.open_engine import open_engine
from simulate_cluster import simulate

NODES, SLOTS, SECONDS, ROUNDS = 8, 2, 2.0, 10
FEW, MANY = 1_000, 100_000
_QUIET: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False, "include_dashboard": False}


@contextlib.contextmanager
def ray_here(cores: int) -> Iterator[None]:
    """A Ray of one node."""
    ray.init("local", num_cpus=cores, **_QUIET)
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def fake_nodes(nodes: int, cores: int) -> Iterator[None]:
    """A Ray of several nodes, all on this machine."""
    arguments = {"num_cpus": cores, "object_store_memory": 100 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**arguments, "include_dashboard": False})
    try:
        for _ in range(nodes - 1):
            cluster.add_node(**arguments)
        ray.init(cluster.address, logging_level=logging.ERROR, log_to_driver=False)
        cluster.wait_for_nodes()
        yield
    finally:
        ray.shutdown()
        cluster.shutdown()


class Slept(NamedTuple):
    """A block that did nothing: in which process, from when to when."""

    pid: int
    start: float
    end: float


def sleep(seconds: float) -> Slept:
    """A block."""
    start = time.time()
    time.sleep(seconds)
    return Slept(os.getpid(), start, time.time())


def run_all(engine: Engine, blocks: int, seconds: float) -> list[Slept]:
    """Submit blocks as a build does: one more than run side by side, the next one when any has ended."""
    ended: SimpleQueue[Future[Slept]] = SimpleQueue()
    times, submitted = list[Slept](), 0
    while len(times) < blocks:
        while submitted < blocks and submitted - len(times) <= engine.slots:
            engine.submit(sleep, seconds).add_done_callback(ended.put)
            submitted += 1
        times.append(ended.get().result())
    return times


@contextlib.contextmanager
def warm(choice: str, workers: int | None) -> Iterator[Engine]:
    """An engine whose workers have all run a block."""
    with open_engine(choice, workers, PictureCounter()) as engine:
        run_all(engine, 4 * engine.slots, 0.2)
        yield engine


def throughput(bench: Bench) -> Iterator[Row]:
    """Wall time of the same build on both, in turns; the bytes are the same."""
    count = bench.pictures or 2400
    overrides = [
        Override("shards.size", max(1, count // 40), "--shard-size"), Override("pairs.min_area_ratio", 0.05, "--area"),
    ]  # fmt: skip
    recipe = load_dataset(find_recipe("lvis", "dataset"), overrides)
    source = DatasetSplit(recipe, "train", demo(bench, "lvis", count))
    walls: tuple[list[float], list[float]] = ([], [])
    with ray_here(2), warm("local", 2) as pool, warm("ray", 2) as cluster:
        for turn in range(bench.repeats + 1):
            for side in (0, 1) if turn % 2 else (1, 0):
                engine = (pool, cluster)[side]
                job = BuildJob(source, bench.work / f"out{side}")
                start = time.perf_counter()
                build(job, open_reader(source), lambda *_: contextlib.nullcontext(engine), BuildProgress())  # noqa: B023
                walls[side].append(time.perf_counter() - start)
            same = all(
                path.read_bytes() == (bench.work / "out1" / path.name).read_bytes()
                for path in (bench.work / "out0").iterdir()
            )
            for side in (0, 1):
                shutil.rmtree(bench.work / f"out{side}")
    ratios = [ours / theirs for ours, theirs in zip(*walls, strict=True)][1:]  # the first one opened readers
    yield Row("Ray against the pool, 2 workers", spread(ratios), ">= 0.9x", median(ratios) >= 0.9)
    yield Row("  wall s", f"{median(walls[1][1:]):.2f} against {median(walls[0][1:]):.2f}, {count} pictures")
    yield Row("  the same bytes", str(same), "", same)


def constants(bench: Bench, blocks: int, choice: str = "ray") -> tuple[float, float]:
    """Seconds between two blocks of a worker, the least of some rounds; and CPU seconds of the driver for a block."""
    nap, gaps, cpu = 0.05, list[float](), list[float]()
    with warm(choice, 1 if choice == "ray" else 2) as engine:
        for _ in range(bench.repeats):
            times = run_all(engine, max(20, blocks // 20), nap)
            if choice == "ray":
                gaps += between(times)
            start = time.process_time()
            run_all(engine, blocks, 0.0)
            cpu.append((time.process_time() - start) / blocks)
    return median(gaps) if gaps else 0.0, median(cpu)


def between(times: list[Slept]) -> list[float]:
    """Seconds between two blocks of a worker."""
    by_worker: dict[int, list[Slept]] = {}
    for block in sorted(times, key=lambda block: block.start):
        by_worker.setdefault(block.pid, []).append(block)
    return [later.start - earlier.end for blocks in by_worker.values() for earlier, later in pairwise(blocks)]


def overhead(bench: Bench) -> Iterator[Row]:
    """Of a cluster of one node."""
    blocks = bench.blocks or 1000
    start = time.perf_counter()
    with ray_here(2):
        begun = time.perf_counter() - start
        start = time.perf_counter()
        with open_engine("ray", 1, PictureCounter()) as engine:
            run_all(engine, 1, 0.0)
            first = time.perf_counter() - start
        gap, dispatch = constants(bench, blocks)
    yield Row("between two blocks of a worker", f"{1e3 * gap:.1f} ms", "<= 20 ms", gap <= 0.02)
    yield Row("  CPU time of the driver for a block", f"{1e3 * dispatch:.2f} ms: {1 / dispatch:,.0f} blocks/s at most")
    _, pool = constants(bench, blocks, "local")
    yield Row("  the same of the pool of processes", f"{1e3 * pool:.2f} ms")
    yield Row("  start of Ray, of the first worker", f"{begun:.1f} s, {first:.1f} s")


def memory(bench: Bench) -> Iterator[Row]:
    """Of the driver of a build whose choice and blocks do nothing: what it keeps for each block is for the manifest."""
    few, many = FEW, bench.blocks or MANY
    source = DatasetSplit(
        load_dataset(find_recipe("lvis", "dataset"), [Override("shards.size", 64, "--shard-size")]), "train",
        demo(bench, "lvis", 48),
    )  # fmt: skip
    sizes = list[tuple[int, float]]()

    def watched(blocks: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for count, stats in enumerate(blocks, 1):
            yield stats
            if count in (few, many // 10, many):
                sizes.append((count, resident()))

    (bench.work / "out").mkdir()
    with ray_here(2), warm("ray", 2) as engine, _nothing_is_done():
        progress = BuildProgress(total=64 * many)
        job, reader = BuildJob(source, bench.work / "out"), _Long(open_reader(source), 64 * many)
        BuildOutcome(watched(run_blocks(job, cast(Any, reader), engine, progress, BuildStats())))
    for count, size in sizes:
        yield Row(f"driver after {count:,} blocks", f"{size:.0f} MB")
    grown = sizes[-1][1] - sizes[0][1]
    each = 1e6 * grown / (many - few)
    flat = sizes[-1][1] <= 1.25 * sizes[0][1]
    yield Row("  growth", f"{grown:.0f} MB, {each:,.0f} bytes a block", "<= a quarter", flat)


class _Long:
    """A reader that says it has so many pictures."""

    def __init__(self, reader: Any, images: int) -> None:
        self._reader, self._images = reader, images

    def __len__(self) -> int:
        return self._images

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)

    def item_ids(self, start: int, stop: int) -> range:
        return range(start, stop)


def choose_nothing(_: DatasetSplit, item_ids: range) -> tuple[list[Candidate], BuildStats, float]:
    """A choice that looks at nothing: every picture, with a group of two."""
    return [Candidate(item, (0, 1), (0.0,) * 10) for item in item_ids], BuildStats(), 0.0


def build_nothing(_: DatasetSplit, __: Path, block: int, candidates: list[Candidate]) -> dict[str, Any]:
    """The stats of a block that was not built."""
    return {
        "block": block, "candidates": len(candidates), "candidates_sha256": f"{block:064x}", "samples": len(candidates),
        "bytes": 1 << 27, "sha256": f"{block:064x}", "skipped": {}, "examples": {}, "bad": [],
    }  # fmt: skip


@contextlib.contextmanager
def _nothing_is_done() -> Iterator[None]:
    module = vars(build_schedule)
    before = {name: module[name] for name in ("_timed_choice", "build_block")}
    module.update(_timed_choice=choose_nothing, build_block=build_nothing)
    try:
        yield
    finally:
        module.update(before)


def resident() -> float:
    """MB of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def nodes(_: Bench) -> Iterator[Row]:
    """Eight nodes of two workers, each with ten blocks that sleep: the share of the time in which workers work."""
    slots, blocks = NODES * SLOTS, ROUNDS * NODES * SLOTS
    with fake_nodes(NODES, SLOTS), open_engine("ray", slots, PictureCounter()) as engine:
        run_all(engine, 2 * slots, 1.0)
        cpu = time.process_time()
        times = run_all(engine, blocks, SECONDS)
        cpu = (time.process_time() - cpu) / blocks
    begin, end = min(block.start for block in times), max(block.end for block in times)
    busy = sum(block.end - block.start for block in times) / (slots * (end - begin))
    yield Row(f"{NODES} nodes of {SLOTS} workers, {SECONDS:g} s blocks", f"{busy:.1%} busy", ">= 95 %", busy >= 0.95)
    gap = mean(between(times))
    simulated = simulate(slots, blocks, lambda _: SECONDS, cpu, gap).busy
    agrees = abs(simulated - busy) <= 0.02
    constants = f"with a gap of {1e3 * gap:.1f} ms, driver {1e3 * cpu:.2f} ms a block"
    yield Row("  simulated", f"{simulated:.1%}, {constants}", "2 % off", agrees)


def model(bench: Bench) -> Iterator[Row]:
    """The simulation, for the cluster that `nodes` measures and for larger ones."""
    with ray_here(2):
        gap, dispatch = constants(bench, bench.blocks or 1000)
    yield Row("measured constants", f"gap {1e3 * gap:.1f} ms, driver {1e3 * dispatch:.2f} ms a block")
    for count, slots, seconds in ((8, 2, 2.0), (200, 2, 2.0), (200, 32, 6.0), (200, 32, 60.0)):
        workers = count * slots
        found = simulate(workers, ROUNDS * workers, lambda _: seconds, dispatch, gap)  # noqa: B023
        aim = seconds == SECONDS
        yield Row(
            f"{count} nodes of {slots}, {seconds:g} s blocks", f"{found.busy:.1%} busy", ">= 95 %" if aim else "",
            found.busy >= 0.95 if aim else None,
        )  # fmt: skip


FIGURES: dict[str, Callable[[Bench], Iterator[Row]]] = {
    figure.__name__: figure for figure in (throughput, overhead, memory, nodes, model)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=f"of {', '.join(FIGURES)}; all when none is named")
    parser.add_argument("--pictures", type=int, metavar="N", help="of throughput; 2,400")
    parser.add_argument("--blocks", type=int, metavar="N", help="of overhead and model 1,000, of memory 100,000")
    parser.add_argument("--repeats", type=int, metavar="R", default=3, help="rounds; 3")
    parser.add_argument("--data", type=Path, metavar="DIR", help="keep the input here and use it again")
    arguments = parser.parse_args()
    if unknown := set(arguments.figures) - FIGURES.keys():
        parser.error(f"unknown figure {', '.join(sorted(unknown))}; known: {', '.join(FIGURES)}")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with tempfile.TemporaryDirectory(prefix="cl-") as temporary:
        os.environ["PICS_CACHE"] = str(Path(temporary) / "cache")
        os.environ["RAY_TMPDIR"] = temporary
        Path(temporary, "ray").mkdir()
        data = arguments.data or Path(temporary) / "data"
        data.mkdir(parents=True, exist_ok=True)
        print(f"{'figure':<40} {'result':<64} {'goal':<12} met")
        for name in arguments.figures or FIGURES:
            work = Path(temporary) / name
            work.mkdir()
            for row in FIGURES[name](
                Bench(data.resolve(), work, arguments.pictures, arguments.repeats, arguments.blocks)
            ):
                met = {None: "", True: "yes", False: "no"}[row.met]
                print(f"{row.figure:<40} {row.result:<64} {row.goal:<12} {met}", flush=True)


if __name__ == "__main__":
    main()
