"""Speed and memory of reading training samples, each figure against a baseline measured in the same run.

    python scripts/bench/loader.py [FIGURE ...] [--pictures N] [--rounds R] [--data DIR]

Pictures of 640x480, 1280x720 and 2048x1024 with two objects, made from a seed. Ratios mean something on any machine,
absolute figures on the one they were measured on; CPU time is disturbed little by other work. docs/benchmarks.md says
what each figure means.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

from common import Bench, Row, cpu_time, spread
from made_shards import make_shards
from pics_cli.core.loading.dataset import TrainingDataset
from pics_cli.core.loading.loader import batch_positions, build_dataloader
from pics_cli.core.loading.mixture import Mixture
from pics_cli.core.loading.training_sample import without_augmentation
from pics_cli.core.model.config import ModelConfig
from pics_cli.core.recipes.training_sections import AugmentSettings, ObjectiveSettings
from pics_cli.core.shards.shard_files import read_shard
from pics_cli.core.shards.shard_sets import ShardSet
from pics_cli.core.shards.tar_index import index_shard
from pics_cli.core.training.objective import NoiseSampler
from plain_loader import samples

# Width and height, samples of a round, and the aim.
SIZES = ((640, 480, 24, 4.5), (1280, 720, 12, 6.0), (2048, 1024, 8, 6.0))
PICTURES = 24
CONFIG = ModelConfig()
DRAWS = NoiseSampler(ObjectiveSettings(), (CONFIG.latent_channels, CONFIG.latent_size, CONFIG.latent_size), 1000, True)
BATCH, ENDLESS = 4, 10**9
# As the published loader is set up.
PUBLISHED_BATCH, WORKERS, SHUFFLED = 16, 8, 10_000


class Side(NamedTuple):
    """Who makes samples, and of what."""

    words: str
    make: Callable[[], object]


def speed(bench: Bench) -> Iterator[Row]:
    """CPU time of making samples in this process, all sides taking turns."""
    for width, height, most, goal in SIZES:
        folder, count, rounds = shards(bench, width, height), min(most, pictures(bench)), list[list[float]]()
        sides = makers(folder)
        for turn in range(bench.repeats + 1):
            spent = [0.0] * len(sides)
            for side in rotated(len(sides), turn):
                spent[side] = cpu_time(several, sides[side].make, count)[0] / count
            rounds.append(spent)
        del rounds[0]  # it warmed the caches up
        plain = [spent[0] for spent in rounds]
        for side, (words, _) in enumerate(sides[1:], 1):
            ratios = [spent[0] / spent[side] for spent in rounds]
            rate = f"{1 / median(spent[side] for spent in rounds):.1f} against {1 / median(plain):.1f} samples/s"
            wanted = (f">= {goal:g}x", median(ratios) >= goal) if side == 1 else ()
            name = f"speed, {width}x{height}" if side == 1 else f"  {words}"
            yield Row(name, f"{spread(ratios)}; {rate} per thread", *wanted)
        decoded = decoding(folder, count)
        shown = median(plain) / decoded
        yield Row("  plain, in JPEGs decoded by Pillow", f"{shown:.1f} of {1e3 * decoded:.1f} ms")


def makers(folder: Path) -> list[Side]:
    """The baseline, ours, and ours from other layouts and with augmentation: the next sample at each call."""
    plain = iter(samples(folder / "published.tar", ENDLESS))

    def ours(layout: str, augment: AugmentSettings) -> Callable[[], object]:
        data, at = training_dataset([folder / f"{layout}.tar"], augment), itertools.count()
        return lambda: data[next(at)]

    return [
        Side("plain", lambda: next(plain)),
        Side("ours", ours("published", without_augmentation(AugmentSettings()))),
        Side("masks of 1 bit, as we build them", ours("ours", without_augmentation(AugmentSettings()))),
        Side("compact layout", ours("compact", without_augmentation(AugmentSettings()))),
        Side("with augmentation", ours("published", AugmentSettings())),
    ]


def worker(bench: Bench) -> Iterator[Row]:
    """One worker process of a loader: its CPU time, wall time until the last batch is here, bytes that come over."""
    for width, height, most, goal in SIZES:
        folder, rounds = shards(bench, width, height), list[tuple[LoaderCost, ...]]()
        count = 2 * BATCH * -(-min(most, pictures(bench)) // BATCH)
        for turn in range(bench.repeats):
            found = {}
            for side in rotated(2, turn):
                loader = our_loader if side else plain_loader
                found[side] = measure_loader(loader(folder / "published.tar", count))
            rounds.append((found[0], found[1]))
        for name, index, wanted in (("CPU time of the worker", 0, goal), ("  wall time", 1, None)):
            ratios = [plain[index] / ours[index] for plain, ours in rounds]
            plain, ours = (1 / median(sides[side][index] for sides in rounds) for side in (0, 1))
            shown = f"{spread(ratios)}; {ours:.1f} against {plain:.1f} samples/s"
            met = (f">= {wanted:g}x", median(ratios) >= wanted) if wanted else ()
            yield Row(f"worker, {width}x{height}, {name}" if wanted else name, shown, *met)
        theirs, sent = (side.bytes / count / 1e6 for side in rounds[0])
        yield Row("  MB a sample to the trainer", f"{sent:.2f} against {theirs:.2f}", "<= 2.7", sent <= 2.7)


class LoaderCost(NamedTuple):
    """What a loader took for a sample: CPU seconds of its worker, wall seconds; bytes of all tensors that came."""

    cpu: float
    wall: float
    bytes: int


def measure_loader(loader: Iterable[Any]) -> LoaderCost:
    """Take all batches from a loader with one worker; the time before the first does not count."""
    used, came, size = list[float](), list[float](), 0
    for batch in loader:
        came.append(time.perf_counter())
        used += batch["cpu"].tolist()
        size += sum(value.nbytes for value in batch.values() if isinstance(value, torch.Tensor))
    return LoaderCost((used[-1] - used[0]) / (len(used) - 1), (came[-1] - came[0]) / (len(used) - BATCH), size)


def stamped(sample: dict[str, Any]) -> dict[str, Any]:
    """With the CPU time that its process has taken so far."""
    return {**sample, "cpu": np.array(time.process_time())}


def drawn(rng: np.random.Generator) -> dict[str, Any]:
    """What is drawn for a training step, and the stamp."""
    return stamped(DRAWS(rng))


def memory(bench: Bench) -> Iterator[Row]:
    """Memory of all worker processes while they read samples of all sizes, batches that wait included."""
    folders = [shards(bench, width, height) for width, height, *_ in SIZES]
    data = training_dataset([folder / "published.tar" for folder in folders], AugmentSettings())
    taken = WORKERS * bench.repeats * 2
    loader = build_dataloader(data, itertools.islice(batch_positions(0, 0, 1, PUBLISHED_BATCH), taken), WORKERS)
    held = []
    with contextlib.closing(iter(loader)) as iterator:
        for at, batch in enumerate(iterator):
            del batch
            if at % WORKERS == WORKERS - 1 and at < taken - 2 * WORKERS:
                held.append([worker_memory(name) for name in ("Pss", "Rss")])
    peak, start = max(pss for pss, _ in held), held[0][0]
    shown = f"{peak / 1e9:.2f} GB: {WORKERS} workers, batches of {PUBLISHED_BATCH}, two of each waiting"
    yield Row("memory, all workers", shown, "<= 2.5 GB", peak <= 2.5e9)
    yield Row("  after the first and the last batches", f"{start / 1e9:.2f} and {held[-1][0] / 1e9:.2f} GB")
    yield Row("  pages that they share counted for each", f"{max(rss for _, rss in held) / 1e9:.2f} GB")
    size = sum(len(data) for _, members in read_shard(folders[0] / "published.tar") for data in members.values())
    shuffled = WORKERS * SHUFFLED * size / pictures(bench)
    yield Row("  published shuffle buffers, computed", f"{shuffled / 1e9:.1f} GB of encoded 640x480 samples")


def worker_memory(name: str) -> int:
    """Bytes of all worker processes: `Pss` counts a page that n processes share as 1 / n, `Rss` as 1."""
    total = 0
    for process in multiprocessing.active_children():
        for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(f"{name}:"):
                total += 1024 * int(line.split()[1])
    return total


def pictures(bench: Bench) -> int:
    """How many there are of each size."""
    return bench.pictures or PICTURES


def shards(bench: Bench, width: int, height: int) -> Path:
    """The folder of shards of one size."""
    count = pictures(bench)
    return bench.cached_input(f"{width}x{height}-{count}", lambda path: make_shards(path, width, height, count))


def training_dataset(paths: Sequence[Path], augment: AugmentSettings) -> TrainingDataset:
    """Our samples of a mixture of one set for each shard, with all that is drawn for a training step."""
    sets = [
        ShardSet(path.parent.name, 1.0, None, [path], [len(index_shard(path)) - 1], False, [None]) for path in paths
    ]
    order = Mixture([shard_set.counts for shard_set in sets], [1.0] * len(sets), 0)
    options: dict[str, Any] = {"size": CONFIG.image_size, "reference_size": CONFIG.reference_size, "hint": CONFIG.hint}
    return TrainingDataset(sets, order, augment=augment, seed=0, noise_sampler=drawn, **options)


def our_loader(shard: Path, count: int) -> Iterable[Any]:
    """Batches of our first samples from one worker."""
    chosen = itertools.islice(batch_positions(0, 0, 1, BATCH), count // BATCH)
    return build_dataloader(training_dataset([shard], without_augmentation(AugmentSettings())), chosen, 1)


def plain_loader(shard: Path, count: int) -> Iterable[Any]:
    """Batches of the baseline's first samples from one worker."""
    return DataLoader(samples(shard, count).map(stamped), batch_size=BATCH, num_workers=1)


def decoding(folder: Path, count: int) -> float:
    """CPU seconds in which Pillow decodes a background."""
    backgrounds = [members["bg.jpg"] for _, members in read_shard(folder / "published.tar")]
    chosen = list(itertools.islice(itertools.cycle(backgrounds), count))
    read = cpu_time(lambda: [Image.open(io.BytesIO(data)).convert("RGB") for data in chosen])[0]
    return read / count


def several(make: Callable[[], object], count: int) -> None:
    for _ in range(count):
        make()


def rotated(count: int, turn: int) -> list[int]:
    """0 to count - 1, each turn from another one on."""
    return [(at + turn) % count for at in range(count)]


FIGURES = {figure.__name__: figure for figure in (speed, worker, memory)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=f"of {', '.join(FIGURES)}; all when none is named")
    parser.add_argument("--pictures", type=int, metavar="N", help=f"made of each size; default {PICTURES}")
    parser.add_argument("--rounds", type=int, default=5, metavar="R", help="of every figure; default 5")
    parser.add_argument("--data", type=Path, metavar="DIR", help="keep the shards here and use them again")
    arguments = parser.parse_args()
    if unknown := set(arguments.figures) - FIGURES.keys():
        parser.error(f"unknown figure {', '.join(sorted(unknown))}; known: {', '.join(FIGURES)}")
    if arguments.rounds < 2:
        parser.error(f"--rounds: got {arguments.rounds}, expected at least 2")
    if arguments.pictures is not None and arguments.pictures < 1:
        parser.error(f"--pictures: got {arguments.pictures}, expected at least 1")
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["PICS_CACHE"] = str(Path(temporary) / "cache")
        data = arguments.data or Path(temporary) / "data"
        data.mkdir(parents=True, exist_ok=True)
        bench = Bench(data.resolve(), Path(temporary), arguments.pictures, arguments.rounds)
        print("| figure | result | goal | met |\n| --- | --- | --- | --- |")
        for name in arguments.figures or FIGURES:
            for row in FIGURES[name](bench):
                met = {None: "", True: "yes", False: "no"}[row.met]
                print(f"| {row.figure} | {row.result} | {row.goal} | {met} |", flush=True)


if __name__ == "__main__":
    main()
