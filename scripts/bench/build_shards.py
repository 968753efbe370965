"""Speed and size of `pics build-shards`, each figure against a baseline measured in the same run.

    python scripts/bench/build_shards.py [FIGURE ...] [--pictures N] [--repeats R] [--data DIR]

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
from functools import partial
from pathlib import Path
from statistics import median

import cv2

from common import Bench, Row, cpu_time, demo, make_objects365, spread
from pics_cli.core.datasets.build_blocks import build_block, choose_block
from pics_cli.core.datasets.readers import open_reader
from pics_cli.core.datasets.readers.base import DatasetSplit
from pics_cli.core.datasets.scene import ItemId
from pics_cli.core.recipes.base import Override, find_recipe
from pics_cli.core.recipes.dataset import load_dataset
from pics_cli.core.shards.shard_files import read_shard
from processes import index, startup, worker_memory, workers
from research_builder import BUILDERS
from samples import compact, synth

BLOCK = 20
REPEATS = {"vistas": 3}
FEW, MANY, AMORTISED = 2_000, 100_000, 2_000


def dataset(name: str, raw: Path, area_ratio: float, compat: bool = False) -> DatasetSplit:
    overrides = [Override("pairs.min_area_ratio", area_ratio, "--area-ratio"), Override("compat", compat, "--compat")]
    return DatasetSplit(load_dataset(find_recipe(name, "dataset"), overrides), "train", raw)


def area_ratio_for(name: str, raw: Path, items: Sequence[ItemId], share: float, compat: bool) -> float:
    """The area ratio at which our choice, or the published one, keeps this share; all pictures: the recipe's own."""
    if share == 1:
        return float(load_dataset(find_recipe(name, "dataset")).pairs.min_area_ratio)
    low, high = 0.0, 0.5
    for _ in range(14):
        middle = (low + high) / 2
        kept = len(choose_block(dataset(name, raw, middle, compat), items)[0])
        if kept == round(share * len(items)):
            return middle
        low, high = (middle, high) if kept > share * len(items) else (low, middle)
    return high


def build_ours(source: DatasetSplit, items: Sequence[ItemId], out: Path, block: int = 0) -> int:
    """Choose and build pictures as the command does; how many samples were made."""
    samples: int = build_block(source, out, block, choose_block(source, items)[0])["samples"]
    return samples


def against_plain(bench: Bench, figure: str, recipe: str, pictures: int, share: float, goal: float) -> Iterator[Row]:
    """Our builder against the plain one, alternating block by block; opening the annotations is not counted.

    Each side works at the area ratio at which it keeps that share, as what counts as an object and as a pair differs.
    """
    count = bench.pictures or pictures
    raw = demo(bench, figure, count)
    plain = BUILDERS[recipe](raw)
    items = open_reader(dataset(recipe, raw, 0.02)).item_ids(0, count)
    our_ratio, area_ratio = (area_ratio_for(recipe, raw, items, share, compat) for compat in (False, True))
    source, shards, folders = dataset(recipe, raw, our_ratio), bench.work / "shards", bench.work / "folders"
    size = min(BLOCK, -(-count // 8))
    blocks = [items[start : start + size] for start in range(0, count, size)]
    sides: list[Callable[[int], int]] = [
        lambda block: build_ours(source, blocks[block], shards, block),
        lambda block: sum(plain.build(item, area_ratio, folders) for item in blocks[block]),
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
    yield Row(figure, spread(ratios), f">= {goal:g}x", median(ratios) >= goal)
    yield Row("  pictures/s per thread", f"{ours:.3g} against {theirs:.3g}")
    shares = f"{kept[0] / count:.1%} against {kept[1] / count:.1%} of {count}"
    yield Row("  kept", f"{shares}, area ratios {our_ratio:.4f} and {area_ratio:.4f}")
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
    total = Counter[str]()
    for name, size in files:
        total[kind_of(name)] += size
    return ", ".join(f"{kind} {total[kind] / samples / 1e3:.1f}" for kind in sorted(total))


def kind_of(name: str) -> str:
    """What a file of a sample holds, ours or the plain builder's."""
    stem, _, ending = name.rpartition(".")
    if ending in ("json", "tar"):
        return {"json": "json", "tar": "whole shard"}[ending]
    return "masks" if "mask" in stem else "patches" if stem.startswith("obj") else "picture"


def lvis(bench: Bench) -> Iterator[Row]:
    yield from against_plain(bench, "lvis", "lvis", 400, share=0.34, goal=3)


def objects365(bench: Bench) -> Iterator[Row]:
    count = bench.pictures or 400
    yield from against_plain(bench, "objects365", "objects365", count, share=0.53, goal=3)
    walk = walk_time(demo(bench, "objects365", count), bench.repeats)
    yield Row("  os.walk, not charged", f"{walk:.2f} ms a picture at {count} label files")


def viton(bench: Bench) -> Iterator[Row]:
    yield from against_plain(bench, "viton", "viton_hd", 60, share=1, goal=3.5)


def cityscapes(bench: Bench) -> Iterator[Row]:
    yield from against_plain(bench, "cityscapes", "cityscapes", 40, share=0.15, goal=10)


def vistas(bench: Bench) -> Iterator[Row]:
    recipe, count = "mapillary_vistas", bench.pictures or 16
    yield from against_plain(bench, "vistas", recipe, count, share=0.25, goal=20)
    peak = worker_memory(recipe, demo(bench, "vistas", count), bench.work, count)
    yield Row("  peak memory of a worker", f"{peak:.0f} MB, at the recipe's area ratio", "<= 600 MB", peak <= 600)


def bdd(bench: Bench) -> Iterator[Row]:
    yield from against_plain(bench, "bdd", "bdd100k", 150, share=0.16, goal=9)


def walk_time(raw: Path, repeats: int) -> float:
    """CPU milliseconds of walking the label tree, which the research code does for every picture."""
    return 1e3 * median(cpu_time(lambda: list(os.walk(raw / "labels")))[0] for _ in range(repeats))


def labels(bench: Bench) -> Iterator[Row]:
    """The same pictures among few and among many label files; files beyond the pictures hold no objects."""
    real = min(bench.pictures or 200, FEW)
    items = [f"patch{i % 5}/objects365_v1_{i:08d}.json" for i in range(real)]
    raws = [
        bench.cached_input(f"labels-{files}-{real}", partial(make_objects365, count=files, pictures=real)) / "object365"
        for files in (FEW, MANY)
    ]
    sources = [dataset("objects365", raw, 0.02) for raw in raws]
    built: tuple[list[float], ...] = ([], [])
    listed: tuple[list[float], ...] = ([], [])
    for turn in range(bench.repeats + 1):
        spent = [0.0, 0.0]
        for side in (0, 1) if turn % 2 else (1, 0):
            reader = open_reader(sources[side])
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


FIGURES = {
    figure.__name__: figure
    for figure in (lvis, objects365, viton, cityscapes, vistas, bdd, compact, synth, labels, workers, index, startup)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=f"of {', '.join(FIGURES)}; all when none is named")
    parser.add_argument("--pictures", type=int, metavar="N", help="per figure; defaults: docs/benchmarks.md")
    parser.add_argument("--repeats", type=int, metavar="R", help="rounds of a figure; 5, vistas 3")
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
            repeats = arguments.repeats or REPEATS.get(name, 5)
            for row in FIGURES[name](Bench(data.resolve(), work, arguments.pictures, repeats)):
                met = {None: "", True: "yes", False: "no"}[row.met]
                print(f"{row.figure:<40} {row.result:<64} {row.goal:<10} {met}", flush=True)


if __name__ == "__main__":
    main()
