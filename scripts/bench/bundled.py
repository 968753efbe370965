"""The bundled model on the bundled samples: start-up, seconds a picture, memory; objects in one pass and one by entry.

Also on a picture of 19 megapixels, of which the regions are a sixth.

    python scripts/bench/bundled.py [--rounds 3]

The real command each time, whole processes, one pass and one by one in turns. Start-up is what a run takes besides its
pictures: imports, model, the check of its hashes.
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
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

PICS = Path(sys.executable).with_name("pics")
MODES = ("parallel", "sequential")
LONGEST, MOST_START, MOST_ALL, MOST_BYTES, LONGEST_LARGE = 10.0, 15.0, 60.0, 2e9, 3.0
LARGE, LARGE_BOXES = (5000, 3800), ("1000,1300,1400,1200", "2700,1400,1200,1300")


class Run(NamedTuple):
    """Seconds of a run, of its pictures, their number, and its largest memory."""

    wall: float
    compositing: float
    pictures: int
    peak: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each mode (default 3)")
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder)
        runs = [{mode: run(empty, "--input", "sample", "--mode", mode) for mode in MODES} for _ in range(rounds)]
        sample = make_large(empty)
        large = [run(empty, *sample) for _ in range(rounds)]
    together = [entry["parallel"] for entry in runs]
    print(f"{together[0].pictures} pictures, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {rounds} rounds")
    for what, values, goal, unit in (
        ("start-up", [entry.wall - entry.compositing for entry in together], MOST_START, "s"),
        ("a picture", [entry.compositing / entry.pictures for entry in together], LONGEST, "s"),
        ("19 MP", [entry.compositing for entry in large], LONGEST_LARGE, "s"),
        ("all", [entry.wall for entry in together], MOST_ALL, "s"),
        ("memory", [entry.peak / 1e9 for entry in together], MOST_BYTES / 1e9, "GB"),
    ):
        met = "met" if median(values) <= goal else "NOT MET"
        print(
            f"{what:12} {median(values):6.2f} {unit} ({min(values):.2f} to {max(values):.2f}), at most {goal:g}: {met}"
        )
    ratios = [entry["sequential"].compositing / entry["parallel"].compositing for entry in runs]
    print(f"one by one against one pass: {median(ratios):.2f} times the time ({min(ratios):.2f} to {max(ratios):.2f})")


def make_large(folder: Path) -> list[str]:
    """Arguments for a made picture of 19 megapixels with grain, and two objects."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(40, 220, (60, 80, 3), np.uint8)).resize(LARGE, Image.Resampling.BICUBIC)
    pixels = np.asarray(coarse) + rng.normal(0, 4, (LARGE[1], LARGE[0], 3)).astype(np.float32)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / "large.jpg", quality=95)
    arguments = ["--background", "large.jpg"]
    for k, box in enumerate(LARGE_BOXES):
        reference = Image.new("RGBA", (900, 900))
        ImageDraw.Draw(reference).ellipse((40, 40, 860, 860), (200, 90 + 60 * k, 50))
        reference.save(folder / f"thing_{k}.png")
        arguments += ["--object", f"thing_{k}.png", "--box", box]
    return arguments


def run(folder: Path, *arguments: str) -> Run:
    """One run of the command, in a folder of its inputs."""
    output = folder / "out"
    shutil.rmtree(output, ignore_errors=True)
    command = [str(PICS), "infer", *arguments, "--output", "out", "--device", "cpu"]
    start = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    wall = time.perf_counter() - start
    records = [json.loads(line) for line in (output / "manifest.jsonl").read_text().splitlines()]
    peak = max(record["peak_memory"]["bytes"] for record in records)
    return Run(wall, sum(record["seconds"] for record in records), len(records), peak)


if __name__ == "__main__":
    main()
