"""Speed and size of `pics build-shards`, each figure against a baseline measured in the same run.

    python scripts/bench/build_shards.py [lvis objects365 labels workers index startup] [--pictures N] [--repeats R]

Ratios mean something on any machine, absolute figures on the one they were measured on. CPU time is that of the process
(user and system), which other work on the machine disturbs little; `workers` and `startup` are wall time and want an
idle machine. docs/benchmarks.md says what each figure means.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import cv2

from common import Bench, Row, cpu_time, demo, make_objects365, spread
from pics_cli.core.data.blocks import build_block, choose_block
from pics_cli.core.data.job import Input
from pics_cli.core.data.readers import open_reader
from pics_cli.core.data.scene import Item
from pics_cli.core.data.shards import read_shard
from pics_cli.core.recipe import Override, find_recipe, load_dataset
from plain_builder import PlainLvis, PlainObjects365, build_plain
from processes import index, startup, workers

BLOCK = 20
FEW, MANY, AMORTISED = 2_000, 100_000, 2_000


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
        bench.made(f"labels-{files}-{real}", lambda path, n=files: make_objects365(path, n, pictures=real))
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


FIGURES = {figure.__name__: figure for figure in (lvis, objects365, labels, workers, index, startup)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=f"of {', '.join(FIGURES)}; all when none is named")
    parser.add_argument("--pictures", type=int, metavar="N", help="built per figure; 400, workers 2400, labels 200")
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
