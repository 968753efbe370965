"""Speed of reading training samples from an S3 server on this machine, against the same shards on its disk.

    python scripts/bench/storage.py [--samples N] [--rounds R]

Two workers read every sample once: from the disk; from the server into an empty cache (streaming), checksums and
indexes included; and from the server with what is in the cache by then (cached). Wall times are of a machine that the
server, moto, shares with the workers; CPU times are the workers' and the main process's alone. Needs `pip install
"moto[s3]" flask flask-cors s3fs`.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from statistics import median
from typing import Any, NamedTuple

import cv2
import numpy as np
import s3fs
import torch

from common import Row, spread
from made_shards import sample
from pics_cli.core.loading.dataset import TrainingDataset
from pics_cli.core.loading.loader import batch_positions, build_dataloader
from pics_cli.core.loading.mixture import Mixture
from pics_cli.core.model.config import ModelConfig
from pics_cli.core.recipes.training_sections import AugmentSettings, DataSettings, TrainingSet
from pics_cli.core.runtime.files import write_json
from pics_cli.core.runtime.manifest import MANIFEST
from pics_cli.core.shards.layouts import pack_sample
from pics_cli.core.shards.shard_files import ShardWriter
from pics_cli.core.shards.shard_sets import SHARD_WINDOW, resolve_shard_sets

SHARDS, DIFFERENT, BATCH, WORKERS = 8, 40, 4, 2
GOAL = 0.8
CONFIG = ModelConfig()
KEYS = {
    "AWS_ACCESS_KEY_ID": "pics", "AWS_SECRET_ACCESS_KEY": "pics", "AWS_DEFAULT_REGION": "us-east-1",
    "NO_PROXY": "127.0.0.1",
}  # fmt: skip


class Cost(NamedTuple):
    """Seconds a sample: on the clock, and of CPUs."""

    wall: float
    cpu: float


def make_shards(folder: Path, samples: int) -> None:
    """Shards of pictures of 640x480, as `pics build-shards` makes them, of which a few serve again and again."""
    folder.mkdir(parents=True)
    members = []
    for i in range(min(DIFFERENT, samples)):
        parts, rgb = sample(np.random.default_rng([0, i]), 640, 480)
        members.append(pack_sample(parts, "compact", rgb))
    entries = []
    for shard in range(SHARDS):
        with ShardWriter(folder / f"{shard:05d}.tar") as writer:
            for number in range(shard, samples, SHARDS):
                writer.add(f"{number:06d}", members[number % len(members)])
        entries.append({"file": f"{shard:05d}.tar", "block": shard, **writer.summary})
    counts = {"pictures": samples, "samples": samples}
    write_json(folder / MANIFEST, {"schema": 1, "complete": True, **counts, "shards": entries})


@contextlib.contextmanager
def s3_server() -> Iterator[None]:
    """moto's, in a process of its own; the environment leads to it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    url = f"http://127.0.0.1:{port}"
    os.environ.update({**KEYS, "AWS_ENDPOINT_URL": url})
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            for _ in range(600):
                with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/moto-api/"):
                    break
                time.sleep(0.1)
            yield
        finally:
            server.terminate()


def read_all(root: str, samples: int) -> tuple[Cost, str]:
    """Read an epoch with two workers; what it took, and which samples came, with their boxes."""
    (shards,) = resolve_shard_sets(DataSettings(root=root, sets={"made": TrainingSet(shards="made")}), "train")
    order = Mixture([shards.counts], [1.0], 0, windows=[SHARD_WINDOW if shards.windowed else None])
    options: dict[str, Any] = {"size": CONFIG.image_size, "reference_size": CONFIG.reference_size, "hint": CONFIG.hint}
    dataset = TrainingDataset([shards], order, augment=AugmentSettings(), seed=0, **options)
    positions = itertools.islice(batch_positions(0, 0, 1, BATCH), samples // BATCH)
    read = list[Any]()
    start, before = time.perf_counter(), cpu_seconds()
    for batch in build_dataloader(dataset, positions, WORKERS):
        read.append([batch["keys"], batch["boxes"].tolist()])
    taken = time.perf_counter() - start
    return Cost(taken / samples, (cpu_seconds() - before) / samples), json.dumps(read)


def cpu_seconds() -> float:
    """Of this process and those that it started and that ended."""
    return sum(usage.ru_utime + usage.ru_stime for usage in map(getrusage, (RUSAGE_SELF, RUSAGE_CHILDREN)))


def reading(samples: int, rounds: int) -> Iterator[Row]:
    """Samples a second from the server, streaming and cached, against those from the disk, taking turns."""
    samples -= samples % (BATCH * SHARDS)
    with tempfile.TemporaryDirectory() as temporary, s3_server():
        folder, found = Path(temporary), list[tuple[Cost, Cost, Cost]]()
        make_shards(folder / "made", samples)
        s3fs.S3FileSystem().mkdir("bench")
        s3fs.S3FileSystem().put(str(folder / "made"), "bench/made", recursive=True)
        size = sum(path.stat().st_size for path in (folder / "made").iterdir())
        os.environ["PICS_CACHE"] = str(folder / "cache")
        for turn in range(rounds):
            shutil.rmtree(folder / "cache", ignore_errors=True)
            first = read_all(temporary, samples) if turn % 2 else None
            streaming, cached = read_all("s3://bench", samples), read_all("s3://bench", samples)
            local = first or read_all(temporary, samples)
            assert local[1] == streaming[1] == cached[1], "not the same samples in the same order"
            found.append((local[0], streaming[0], cached[0]))
    for k, name in ((2, "cached"), (1, "streaming")):
        ratios = [costs[0].wall / costs[k].wall for costs in found]
        rates = [1 / median(costs[side].wall for costs in found) for side in (k, 0)]
        shown = f"{spread(ratios)}; {rates[0]:.0f} against {rates[1]:.0f} samples/s"
        yield Row(f"from an S3 server, {name}", shown, f">= {GOAL}x", median(ratios) >= GOAL)
        cpu = [costs[0].cpu / costs[k].cpu for costs in found]
        milliseconds = [1e3 * median(costs[side].cpu for costs in found) for side in (k, 0)]
        yield Row("  CPU time", f"{spread(cpu)}; {milliseconds[0]:.1f} against {milliseconds[1]:.1f} ms a sample")
    yield Row("  data", f"{samples:,} samples in {SHARDS} shards of {size / SHARDS / 1e6:.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1600, metavar="N", help="in all; default 1600")
    parser.add_argument("--rounds", type=int, default=3, metavar="R", help="default 3")
    arguments = parser.parse_args()
    if arguments.samples < BATCH * SHARDS or arguments.rounds < 1:
        parser.error(f"--samples: at least {BATCH * SHARDS}; --rounds: at least 1")
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    print("| figure | result | goal | met |\n| --- | --- | --- | --- |")
    for row in reading(arguments.samples, arguments.rounds):
        met = {None: "", True: "yes", False: "no"}[row.met]
        print(f"| {row.figure} | {row.result} | {row.goal} | {met} |", flush=True)


if __name__ == "__main__":
    main()
