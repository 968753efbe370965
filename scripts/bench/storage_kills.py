"""Kills training, compositing and evaluation on an S3 server at random moments, and holds what comes of them against
runs on a disk: weights, pixels and tables must be the same.

    python scripts/bench/storage_kills.py [--kills N] [COMMAND ...]

The server is moto's, in a process of its own. Models are tiny and untrained. Exit code 1 where something differs.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import random
import runpy
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import s3fs
import torch
import yaml
from PIL import Image

from pics_cli.core.evaluation import run as _evaluation  # noqa: F401  # loaded once, for all processes that are forked
from pics_cli.core.inference import run as _inference  # noqa: F401
from pics_cli.core.inference.inputs import BUNDLED_SAMPLES
from pics_cli.core.model.tiny_model import tiny_model
from pics_cli.core.training import run as _training  # noqa: F401
from storage import make_shards, s3_server

BUCKET = "kills"
# Seconds that workers of a killed process may take to notice.
_EXIT = 2.0
SAMPLES, STEPS = 64, 12
RECIPE = {
    "kind": "training", "name": "small", "out": "LOGS/small", "steps": STEPS, "batch_size": 2, "train": "full",
    "train_encoder": True, "precision": "fp32", "data": {"workers": 1, "sets": {"made": {"shards": "made"}}},
    "model": {
        "shape": {
            "block_out_channels": [8], "attention_levels": [True], "norm_groups": 4, "head_width": 8,
            "hint_widths": [8, 8, 8, 8], "encoder_width": 16, "encoder_layers": 1, "encoder_heads": 2,
            "context_width": 16,
        },
        "image_size": 32, "reference_size": 28, "hint": "background", "scheduler": "ddim", "steps": 1, "guidance": 1.0,
    },
    "validation": {"every": 100, "samples": 2, "sheet": 1, "bins": 2}, "checkpoints": {"every": 3}, "log": {"every": 1},
}  # fmt: skip
COMMANDS: dict[str, list[str]] = {
    "infer": ["infer", "--input", "{root}/samples", "--model", "{root}/tiny", "--output", "{out}", "--steps", "1",
              "--cutout", "none", "--device", "cpu"],
    "eval": ["eval", "--shards", "{root}/made", "--methods", "paste", "--metrics", "psnr,untouched", "--limit", "40",
             "--output", "{out}", "--device", "cpu"],
    "train": ["train", "--recipe", "{root}/small.yaml", "--data-root", "{root}", "--root-dir", "{disk}/run", "--device",
              "cpu"],
}  # fmt: skip


def pixels(files: dict[str, bytes]) -> dict[str, bytes]:
    return {
        name: np.asarray(Image.open(io.BytesIO(data))).tobytes()
        for name, data in files.items()
        if name.startswith("composed/")
    }


def tables(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: files[name] for name in ("table.md", "per_sample.parquet") if name in files}


def weights(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if name.startswith("model/") and name.endswith(".safetensors")}


RESULTS: dict[str, Callable[[dict[str, bytes]], dict[str, bytes]]] = {
    "infer": pixels, "eval": tables, "train": weights,
}  # fmt: skip


def command(words: list[str], log: Path) -> None:
    """`pics`, in a process that was forked for it."""
    with log.open("a") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    torch.set_num_threads(1)
    sys.argv = ["pics", *words]
    runpy.run_module("pics_cli", run_name="__main__", alter_sys=True)


def start(words: list[str], log: Path) -> multiprocessing.process.BaseProcess:
    process = multiprocessing.get_context("fork").Process(target=command, args=(words, log))
    process.start()
    return process


def finish(words: list[str], log: Path) -> float:
    """Run to the end; seconds."""
    begun, process = time.monotonic(), start(words, log)
    process.join()
    if process.exitcode != 0:
        raise SystemExit(f"{' '.join(words)}: exit code {process.exitcode}\n{log.read_text()[-3000:]}")
    return time.monotonic() - begun


def files_of(root: str) -> dict[str, bytes]:
    """Every file of a folder, here or in the store."""
    if not root.startswith("s3://"):
        folder = Path(root)
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    store, prefix = s3fs.S3FileSystem(skip_instance_cache=True), root.removeprefix("s3://")
    return {name[len(prefix) + 1 :]: store.cat_file(name) for name in store.find(prefix)}


def survives(name: str, folder: Path, kills: int, draw: random.Random) -> bool:
    """Whether a command that is killed again and again ends with what it gives on a disk."""
    outs = {"disk": f"{folder}/{name}", "store": f"s3://{BUCKET}/{name}"}
    roots = {"disk": str(folder), "store": f"s3://{BUCKET}"}
    found, happened, taken = dict[str, dict[str, bytes]](), 0, 0.0
    for side, out in outs.items():
        disk = folder / name / side
        disk.mkdir(parents=True, exist_ok=True)
        words = [word.format(root=roots[side], out=out, disk=disk) for word in COMMANDS[name]]
        log = folder / f"{name}.{side}.log"
        for _ in range(kills if side == "store" else 0):
            process = start(words, log)
            process.join(draw.uniform(0.1, 1.0) * taken)
            happened += process.is_alive()
            process.kill()
            process.join()
            time.sleep(_EXIT)
        taken = finish(words, log)
        where = str(disk / "run") if name == "train" else out
        found[side] = RESULTS[name](files_of(where))
    same = bool(found["disk"]) and found["disk"] == found["store"]
    print(f"{name}: killed {happened} times, then {'the same' if same else 'OTHER'} {len(found['disk'])} results",
          flush=True)  # fmt: skip
    return same


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs="*", metavar="COMMAND", help=f"of {', '.join(COMMANDS)}; default: all")
    parser.add_argument("--kills", type=int, default=10, metavar="N", help="of each command; default 10")
    parser.add_argument("--seed", type=int, default=0, help="of the moments; default 0")
    arguments = parser.parse_args()
    if unknown := set(arguments.commands) - COMMANDS.keys():
        parser.error(f"unknown command {', '.join(sorted(unknown))}; known: {', '.join(COMMANDS)}")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary, s3_server():
        folder = Path(temporary)
        os.environ["PICS_CACHE"] = str(folder / "cache")
        make_shards(folder / "made", SAMPLES)
        tiny_model().save_pretrained(folder / "tiny")
        (folder / "samples").symlink_to(BUNDLED_SAMPLES)
        (folder / "small.yaml").write_text(yaml.safe_dump(RECIPE))
        store = s3fs.S3FileSystem(skip_instance_cache=True)
        store.mkdir(BUCKET)
        for part in ("made", "tiny", "samples"):
            store.put(f"{(folder / part).resolve()}/", f"{BUCKET}/{part}", recursive=True)
        store.put_file(str(folder / "small.yaml"), f"{BUCKET}/small.yaml")
        draw = random.Random(arguments.seed)
        results = [survives(name, folder, arguments.kills, draw) for name in arguments.commands or COMMANDS]
    raise SystemExit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
