"""Figures of whole processes: workers, the annotation index, start-up."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from common import Bench, Row, demo, make_boxes, spread

BOX_PICTURES, BOXES = 137_000, 2_000_000
PICS = Path(sys.executable).with_name("pics")

TIMED = """
import json, sys, time
from collections import defaultdict
from pathlib import Path
IMPORTS
path = Path(sys.argv[1])
cpu, wall = time.process_time(), time.perf_counter()
ACTION
cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({"cpu": cpu, "wall": wall, "peak": peak * 1024 / 1e6}))
"""
BUILD_IMPORTS = """
from pics_cli.core.datasets.build_blocks import build_block, choose_block
from pics_cli.core.datasets.readers import open_reader
from pics_cli.core.datasets.readers.base import DatasetSplit
from pics_cli.core.recipes.base import find_recipe
from pics_cli.core.recipes.dataset import load_dataset
"""
BUILD = """
source = DatasetSplit(load_dataset(find_recipe(sys.argv[2], "dataset")), "train", path)
items = open_reader(source).item_ids(0, int(sys.argv[4]))
build_block(source, Path(sys.argv[3]), 0, choose_block(source, items)[0])
"""
RUN = """
try:
    main()
except SystemExit as stop:
    assert not stop.code
"""
OPEN_INDEX = ("from pics_cli.core.datasets.readers.coco_index import open_coco_index", "open_coco_index(path)")
LOAD = "boxes = defaultdict(list)\nfor box in json.load(open(path))['annotations']: boxes[box['image_id']].append(box)"


def workers(bench: Bench) -> Iterator[Row]:
    """The real command with one and with two workers, start-up and all, wall time."""
    count = bench.pictures or 2400
    raw = demo(bench, "lvis", count)
    walls: tuple[list[float], ...] = ([], [])
    samples, loads = 0, []
    for turn in range(bench.repeats + 1):
        for side in (0, 1) if turn % 2 else (1, 0):
            out = bench.work / "out"
            loads.append(os.getloadavg()[0])
            command: list[str | Path] = [
                PICS,
                "build-shards",
                "lvis",
                "--raw",
                raw,
                "--out",
                out,
                "--area-ratio",
                "0.05",
            ]
            command += ["--shard-size", str(max(1, count // 40)), "--workers", str(side + 1)]
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            walls[side].append(time.perf_counter() - start)
            samples = json.loads((out / "manifest.json").read_text())["samples"]
            shutil.rmtree(out)
    rounds = list(zip(*walls, strict=True))[1:]  # the first one also made the index
    ratios = [one / two for one, two in rounds]
    one, two = (median(values) for values in zip(*rounds, strict=True))
    yield Row("workers, 2 against 1", spread(ratios), ">= 1.7x", median(ratios) >= 1.7)
    yield Row("  wall s", f"{one:.2f} against {two:.2f}, {samples} samples of {count} pictures, area ratio 0.05")
    yield Row("  load before each run", f"{min(loads):.1f} to {max(loads):.1f} on {os.cpu_count()} cores")


def index(bench: Bench) -> Iterator[Row]:
    """Building the index of a large detection json against loading it, each in a fresh process."""
    path = bench.cached_input("boxes.json", lambda path: make_boxes(path, BOX_PICTURES, BOXES))
    rounds = []
    for turn in range(bench.repeats):
        shutil.rmtree(os.environ["PICS_CACHE"], ignore_errors=True)
        loaded = in_fresh_process("", LOAD, path) if turn % 2 else None
        built, again = (in_fresh_process(*OPEN_INDEX, path) for _ in range(2))
        loaded = loaded or in_fresh_process("", LOAD, path)
        rounds.append((built["cpu"], built["peak"], again["wall"], loaded["cpu"], loaded["peak"]))
    cpu, peak, reopen, plain_cpu, plain_peak = (median(values) for values in zip(*rounds, strict=True))
    times, sizes = [r[3] / r[0] for r in rounds], [r[4] / r[1] for r in rounds]
    yield Row(f"index of {BOXES:,} boxes, time", spread(times))
    yield Row("  memory", spread(sizes))
    yield Row("  CPU", f"{cpu:.2f} s against {plain_cpu:.2f} s", "<= 6 s", cpu <= 6)
    yield Row("  peak memory", f"{peak:.0f} MB against {plain_peak:.0f} MB", "<= 250 MB", peak <= 250)
    yield Row("  open again", f"{reopen:.4f} s wall", "< 0.1 s", reopen < 0.1)


def worker_memory(recipe: str, raw: Path, work: Path, count: int) -> float:
    """Peak MB of a fresh process that chooses and builds the first pictures as a worker does."""
    return in_fresh_process(BUILD_IMPORTS, BUILD, raw, recipe, work, count)["peak"]


def in_fresh_process(imports: str, action: str, path: Path, *more: object) -> dict[str, float]:
    """CPU and wall seconds of an action, without its imports, and peak MB of its whole process.

    The peak is VmHWM: ru_maxrss would count the parent's memory from before the exec.
    """
    text = TIMED.replace("IMPORTS", imports).replace("ACTION", action)
    command = [sys.executable, "-c", text, str(path), *map(str, more)]
    done = subprocess.run(command, check=True, capture_output=True)
    report: dict[str, float] = json.loads(done.stdout.splitlines()[-1])  # the action may print, too
    return report


def command(words: Sequence[str], place: Path, then: str = "") -> dict[str, float]:
    """As `in_fresh_process`, of a whole `pics` command; `then`: looked at when it is done."""
    action = f"sys.argv = {['pics', *words]!r}\n{RUN}{then}"
    return in_fresh_process("from pics_cli.__main__ import main", action, place)


def startup(bench: Bench) -> Iterator[Row]:
    """Wall time of a whole process, the best of at least five."""
    commands: dict[str, list[str | Path]] = {
        "pics --help": [PICS, "--help"],
        "pics build-shards --help": [PICS, "build-shards", "--help"],
        "python -c 'import numpy'": [sys.executable, "-c", "import numpy"],
        "python -c pass": [sys.executable, "-c", "pass"],
    }
    best = dict.fromkeys(commands, float("inf"))
    for _ in range(max(5, bench.repeats)):
        for name, command in commands.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            best[name] = min(best[name], time.perf_counter() - start)
    numpy = best["python -c 'import numpy'"]
    for name, seconds in best.items():
        goal, met = ("< 0.3 s", seconds < 0.3) if name.startswith("pics") else ("", None)
        yield Row(name, f"{seconds / numpy:.2f} of importing numpy: {seconds:.3f} s", goal, met)
