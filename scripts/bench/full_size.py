"""A picture by the full-size model on this machine's CPU: time and memory of the whole command.

    python scripts/bench/full_size.py [--steps 20] [--dtype bf16] [--memory sequential] [--keep DIR]

Writes a model of the published shape with random weights (5.3 GB in bf16; removed afterwards unless it is kept), then
runs `pics infer` on a bundled sample in a process of its own. What it paints is noise.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import torch

import common  # noqa: F401  # where the scripts are
from bundled import run
from networks import full_pipeline

SAMPLE = Path(__file__).parents[2] / "pics_cli/samples/bowl_and_egg"
MOST_SECONDS, MOST_BYTES = 120.0, 8e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20, help="denoising steps (default 20)")
    parser.add_argument("--dtype", default="auto", help="as of pics infer")
    parser.add_argument("--memory", default="auto", help="as of pics infer")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the model there, or use the one that is")
    parser.add_argument("--tiny", action="store_true", help="a small model, to try the script out")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        model = (options.keep or Path(work) / "model").absolute()
        if not model.exists():
            full_pipeline(options.tiny, torch.device("cpu"), "resident").save_pretrained(model)
        words = ["--input", str(SAMPLE), "--model", str(model), "--steps", str(options.steps)]
        one = run(Path(work), *words, "--dtype", options.dtype, "--memory", options.memory)
    print(f"{options.steps} steps, {options.dtype}, --memory {options.memory}; {os.cpu_count()} cores, "
          f"load {os.getloadavg()[0]:.1f}")  # fmt: skip
    for what, value, goal, unit in (
        ("the command", one.wall, MOST_SECONDS, "s"),
        ("the picture", one.compositing, MOST_SECONDS, "s"),
        ("memory", one.peak / 1e9, MOST_BYTES / 1e9, "GB"),
    ):
        print(f"{what:12} {value:6.1f} {unit}, at most {goal:g}: {'met' if value <= goal else 'NOT MET'}")


if __name__ == "__main__":
    main()
