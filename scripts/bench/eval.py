"""Speed and memory of `pics eval`.

    python scripts/bench/eval.py [FIGURE ...] [--pictures N] [--encoder DIR]

`bench`: the benchmark's first 50 scenes with the bundled model, all figures that need no weights; wall time.
`stream`: features of N made pictures and as many others, their distances included: share of the time that the encoder
takes, and peak memory of a tenth of them against all. Without --encoder it is a DINOv2 of ViT-S/14's shape with random
weights. docs/benchmarks.md says what was measured.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from common import Row
from pics_cli.core.images.image_io import encode_png
from processes import command, in_fresh_process

SIDE = 256
_ALONE = """
at, files = 0, sorted(path.iterdir())
encoder = ImageEncoder(find_encoder(sys.argv[2]), torch.device("cpu"))
for file in files:
    encoder([decode_image(file.read_bytes()).rgb])
"""
_IMPORTS = """
import torch
from pics_cli.core.evaluation.network_weights import find_encoder
from pics_cli.core.evaluation.networks import ImageEncoder
from pics_cli.core.images.image_io import decode_image
"""


class Run(NamedTuple):
    """What was asked for."""

    pictures: int
    encoder: str | None
    work: Path


def bench(run: Run) -> Iterator[Row]:
    """The first 50 scenes of synth_bench, from the start of the process on."""
    spent = command(["eval", "--recipe", "synth_bench", "--limit", "50", "--output", str(run.work / "bench")], run.work)
    shown = f"{spent['wall']:.0f} s, {spent['wall'] / 50:.2f} s a scene, peak {spent['peak']:.0f} MB"
    yield Row("synth_bench, 50 scenes", shown, "<= 300 s", spent["wall"] <= 300)


def stream(run: Run) -> Iterator[Row]:
    """Features and distances of many pictures."""
    encoder = run.encoder or str(random_encoder(run.work / "encoder"))
    peaks, spent = [], {}
    for count in (max(run.pictures // 10, 2), run.pictures):
        folders = [make_pictures(run.work / f"{name}{count}", count, seed) for seed, name in enumerate(("a", "b"))]
        words = ["eval", "--reference", str(folders[0]), "--input", str(folders[1]), "--features", encoder]
        spent = command([*words, "--metrics", "psnr", "--output", str(run.work / f"out{count}")], run.work)
        peaks.append(spent["peak"])
    alone = [in_fresh_process(_IMPORTS, _ALONE, folder, encoder)["wall"] for folder in folders]
    share = sum(alone) / spent["wall"]
    shown = f"{spent['wall']:.0f} s, {sum(alone):.0f} s of which are decoding and encoding alone"
    yield Row(f"2 x {run.pictures:,} pictures", f"{share:.0%}: {shown}", ">= 90 %", share >= 0.9)
    grown = f"{peaks[0]:.0f} MB for 2 x {max(run.pictures // 10, 2):,}, {peaks[1]:.0f} MB for all"
    yield Row("  peak memory", grown, "<= 1.1x", peaks[1] <= 1.1 * peaks[0])


def random_encoder(folder: Path) -> Path:
    """A DINOv2 of ViT-S/14's shape, for squares of 224 pixels."""
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=518, patch_size=14)
    Dinov2Model(config).save_pretrained(folder)
    return folder


def make_pictures(folder: Path, count: int, seed: int) -> Path:
    """Pictures of texture."""
    folder.mkdir()
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        coarse = rng.integers(0, 256, (SIDE // 16, SIDE // 16, 3), np.uint8)
        rgb = cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC).astype(np.uint8)
        (folder / f"{number:06d}.png").write_bytes(encode_png(rgb))
    return folder


FIGURES = {figure.__name__: figure for figure in (bench, stream)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=f"of {', '.join(FIGURES)}; all when none is named")
    parser.add_argument("--pictures", type=int, default=5000, metavar="N", help="of stream, on each side; default 5000")
    parser.add_argument("--encoder", metavar="DIR", help="DINOv2 or CLIP, as --features takes it")
    options = parser.parse_args()
    if unknown := set(options.figures) - FIGURES.keys():
        parser.error(f"unknown figure {', '.join(sorted(unknown))}; known: {', '.join(FIGURES)}")
    work = Path(tempfile.mkdtemp())
    began = time.monotonic()
    try:
        print(f"{'figure':<28} {'result':<84} {'goal':<10} met")
        for name in options.figures or FIGURES:
            for row in FIGURES[name](Run(options.pictures, options.encoder, work)):
                met = {None: "", True: "yes", False: "no"}[row.met]
                print(f"{row.figure:<28} {row.result:<84} {row.goal:<10} {met}", flush=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(f"took {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
