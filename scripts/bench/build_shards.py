"""Speed and size of `pics build-shards`, each figure against a baseline measured in the same run.

    python scripts/bench/build_shards.py [lvis objects365 labels workers index startup] [--pictures N] [--repeats R]

Ratios mean something on any machine, absolute figures on the one they were measured on. CPU time is that of the process
(user and system), which other work on the machine disturbs little; `workers` and `startup` are wall time and want an
idle machine. docs/benchmarks.md says what each figure means.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

sys.path.append(str(Path(__file__).resolve().parent.parent))

import cv2
import demo_data
from plain_builder import PlainLvis, PlainObjects365, build_plain

from pics_cli.core.data.blocks import build_block, choose_block
from pics_cli.core.data.job import Input
from pics_cli.core.data.readers import open_reader
from pics_cli.core.data.scene import Item
from pics_cli.core.data.shards import read_shard
from pics_cli.core.recipe import Override, find_recipe, load_dataset

BLOCK = 20
FEW, MANY, AMORTISED = 2_000, 100_000, 2_000
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
OPEN_INDEX = ("from pics_cli.core.data.readers.index import open_index", "open_index(path)")
LOAD = "boxes = defaultdict(list)\nfor box in json.load(open(path))['annotations']: boxes[box['image_id']].append(box)"


class Row(NamedTuple):
    """One line of the table; `goal` and `met` are empty where the line only informs."""

    figure: str
    result: str
    goal: str = ""
    met: bool | None = None


class Bench(NamedTuple):
    """Folders of inputs (kept where the user named it) and outputs; pictures a figure builds, None: its own default."""

    data: Path
    work: Path
    pictures: int | None
    repeats: int

    def made(self, name: str, make: Callable[[Path], object]) -> Path:
        """The input of that name, made now unless it is there in full."""
        path, part = self.data / name, self.data / f"{name}.part"
        if not path.exists():
            shutil.rmtree(part, ignore_errors=True)
            make(part)
            part.rename(path)
        return path


def cpu_time(action: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """CPU seconds of this process (all its threads) in a call, and what the call returned."""
    start = time.process_time()
    result = action(*arguments)
    return time.process_time() - start, result


def spread(ratios: Sequence[float]) -> str:
    return f"{median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})"


def dataset(name: str, raw: Path, area_ratio: float) -> Input:
    override = Override("pairs.min_area_ratio", area_ratio, "--area-ratio")
    return Input(load_dataset(find_recipe(name, "dataset"), [override]), "train", raw)


def area_ratio_for(name: str, raw: Path, items: Sequence[Item], share: float) -> float:
    """The area ratio at which our choice keeps about this share of the pictures."""
    low, high = 0.0, 0.5
    for _ in range(14):
        middle = (low + high) / 2
        kept = len(choose_block(dataset(name, raw, middle), items)[0]) / len(items)
        low, high = (middle, high) if kept > share else (low, middle)
    return high


def build_ours(source: Input, items: Sequence[Item], out: Path, block: int = 0) -> int:
    """Choose and build pictures as the command does; how many samples were made."""
    samples: int = build_block(source, out, block, choose_block(source, items)[0])["samples"]
    return samples


def against_plain(bench: Bench, name: str, raw: Path, count: int, share: float, plain: Any) -> Iterator[Row]:
    """Our builder against the plain one, alternating block by block; opening the annotations is not counted."""
    items = open_reader(dataset(name, raw, 0.02).recipe, "train", raw).items(0, count)
    area_ratio = area_ratio_for(name, raw, items, share)
    source, shards, folders = dataset(name, raw, area_ratio), bench.work / "shards", bench.work / "folders"
    blocks = [items[start : start + BLOCK] for start in range(0, count, BLOCK)]
    sides: list[Callable[[int], int]] = [
        lambda block: build_ours(source, blocks[block], shards, block),
        lambda block: sum(build_plain(plain.find(item), area_ratio, folders) for item in blocks[block]),
    ]
    rounds, kept = [], [0, 0]
    for turn in range(bench.repeats + 1):
        for folder in (shards, folders):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        spent, kept = [0.0, 0.0], [0, 0]
        for block in range(len(blocks)):
            for side in (0, 1) if (block + turn) % 2 else (1, 0):
                seconds, samples = cpu_time(sides[side], block)
                spent[side] += seconds
                kept[side] += samples
        rounds.append(spent)
    del rounds[0]  # it warmed the caches up
    ratios = [theirs / ours for ours, theirs in rounds]
    ours, theirs = (count / median(seconds) for seconds in zip(*rounds, strict=True))
    yield Row(name, spread(ratios), ">= 3x", median(ratios) >= 3)
    yield Row("  pictures/s per thread", f"{ours:.0f} against {theirs:.0f}")
    yield Row("  kept", f"{kept[0] / count:.1%} against {kept[1] / count:.1%} of {count}, area ratio {area_ratio:.4f}")
    if min(kept):
        yield Row("  kB per sample, ours", sizes(shard_files(shards), kept[0]))
        yield Row("  kB per sample, plain", sizes(((p.name, p.stat().st_size) for p in folders.glob("*/*")), kept[1]))


def shard_files(folder: Path) -> Iterator[tuple[str, int]]:
    """Name and size of the shards in a folder and of all that is in them."""
    for path in folder.glob("*.tar"):
        yield path.name, path.stat().st_size
        for _, members in read_shard(path):
            yield from ((extension, len(data)) for extension, data in members.items())


def sizes(files: Iterable[tuple[str, int]], samples: int) -> str:
    """kB per sample by what a file holds."""
    kinds = {"jpg": "picture", "json": "json", "tar": "whole shard"}
    total = Counter[str]()
    for name, size in files:
        total[kinds.get(name.rpartition(".")[2], "masks" if "mask" in name else "patches")] += size
    return ", ".join(f"{kind} {total[kind] / samples / 1e3:.1f}" for kind in sorted(total))


def demo(bench: Bench, name: str, count: int) -> Path:
    make = {"lvis": demo_data.make_lvis, "objects365": demo_data.make_objects365}[name]
    return bench.made(f"{name}-{count}", lambda path: make(path, count)) / ("COCO" if name == "lvis" else "object365")


def lvis(bench: Bench) -> Iterator[Row]:
    count = bench.pictures or 400
    raw = demo(bench, "lvis", count)
    yield from against_plain(bench, "lvis", raw, count, 0.34, PlainLvis(raw))


def objects365(bench: Bench) -> Iterator[Row]:
    count = bench.pictures or 400
    raw = demo(bench, "objects365", count)
    yield from against_plain(bench, "objects365", raw, count, 0.53, PlainObjects365(raw))
    walk = walk_time(raw, bench.repeats)
    yield Row("  os.walk, not charged", f"{walk:.2f} ms a picture at {count} label files")


def walk_time(raw: Path, repeats: int) -> float:
    """CPU milliseconds of walking the label tree, which the research code does for every picture."""
    return 1e3 * median(cpu_time(lambda: list(os.walk(raw / "labels")))[0] for _ in range(repeats))


def labels(bench: Bench) -> Iterator[Row]:
    """The same pictures among few and among many label files; files beyond the pictures hold no objects."""
    real = min(bench.pictures or 200, FEW)
    items = [f"patch{i % 5}/objects365_v1_{i:08d}.json" for i in range(real)]
    raws = [
        bench.made(f"labels-{files}-{real}", lambda path, n=files: demo_data.make_objects365(path, n, pictures=real))
        / "object365"
        for files in (FEW, MANY)
    ]
    sources = [dataset("objects365", raw, 0.02) for raw in raws]
    built: tuple[list[float], ...] = ([], [])
    listed: tuple[list[float], ...] = ([], [])
    for turn in range(bench.repeats + 1):
        spent = [0.0, 0.0]
        for side in (0, 1) if turn % 2 else (1, 0):
            reader = open_reader(sources[side].recipe, "train", raws[side])
            listed[side].append(cpu_time(len, reader)[0])
        for block, start in enumerate(range(0, real, BLOCK)):
            for side in (0, 1) if (block + turn) % 2 else (1, 0):
                spent[side] += cpu_time(build_ours, sources[side], items[start : start + BLOCK], bench.work)[0]
        for side in (0, 1):
            built[side].append(spent[side] / real)
    rounds = list(zip(*built, *listed, strict=True))[1:]
    alone = [b / a for a, b, _, _ in rounds]
    with_listing = [(b + m / AMORTISED) / (a + f / AMORTISED) for a, b, f, m in rounds]
    few, many, list_few, list_many = (median(values) for values in zip(*rounds, strict=True))
    yield Row(f"labels, {MANY:,} against {FEW:,} files", spread(alone), "<= 1.10x", median(alone) <= 1.1)
    within = median(with_listing) <= 1.1
    yield Row(f"  with listing over {AMORTISED:,} pictures", spread(with_listing), "<= 1.10x", within)
    yield Row("  ms a picture", f"{1e3 * many:.2f} against {1e3 * few:.2f} ({real} pictures)")
    listing = f"{list_many:.3f} s against {list_few:.4f} s"
    yield Row("  listing them", listing, "<= 0.2 s", list_many <= 0.2)
    for raw, files in zip(raws, (FEW, MANY), strict=True):
        walk = walk_time(raw, bench.repeats)
        yield Row(f"  os.walk of {files:,} files", f"{walk:.1f} ms (research code, every picture)")


def workers(bench: Bench) -> Iterator[Row]:
    """The real command with one and with two workers, start-up and all, wall time."""
    count = bench.pictures or 1200
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
    path = bench.made("boxes.json", lambda path: demo_data.make_boxes(path, BOX_PICTURES, BOXES))
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


def in_fresh_process(imports: str, action: str, path: Path) -> dict[str, float]:
    """CPU and wall seconds of an action, without its imports, and peak MB of its whole process.

    The peak is VmHWM: ru_maxrss would count the parent's memory from before the exec.
    """
    text = TIMED.replace("IMPORTS", imports).replace("ACTION", action)
    done = subprocess.run([sys.executable, "-c", text, path], check=True, capture_output=True)
    report: dict[str, float] = json.loads(done.stdout)
    return report


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


FIGURES = {figure.__name__: figure for figure in (lvis, objects365, labels, workers, index, startup)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=f"of {', '.join(FIGURES)}; all when none is named")
    parser.add_argument("--pictures", type=int, metavar="N", help="built per figure; 400, workers 1200, labels 200")
    parser.add_argument("--repeats", type=int, default=5, metavar="R")
    parser.add_argument("--data", type=Path, metavar="DIR", help="keep the input here and use it again")
    arguments = parser.parse_args()
    if unknown := set(arguments.figures) - FIGURES.keys():
        parser.error(f"unknown figure {', '.join(sorted(unknown))}; known: {', '.join(FIGURES)}")
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["PICS_CACHE"] = str(Path(temporary) / "cache")
        data = arguments.data or Path(temporary) / "data"
        data.mkdir(parents=True, exist_ok=True)
        print(f"{'figure':<40} {'result':<64} {'goal':<10} met")
        for name in arguments.figures or FIGURES:
            work = Path(temporary) / "work" / name
            work.mkdir(parents=True)
            for row in FIGURES[name](Bench(data.resolve(), work, arguments.pictures, arguments.repeats)):
                met = {None: "", True: "yes", False: "no"}[row.met]
                print(f"{row.figure:<40} {row.result:<64} {row.goal:<10} {met}", flush=True)


if __name__ == "__main__":
    main()
