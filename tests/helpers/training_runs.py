"""Small runs of `pics train`: data, a recipe, and the command in this process or in one of its own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate.state import AcceleratorState, PartialState
from typer.testing import CliRunner, Result

from helpers import processes
from helpers.processes import Started
from helpers.training_shards import write_shard
from pics_cli.cli import app
from pics_cli.core.training import trainer
from pics_cli.core.training.data import training_batches

SHAPE: dict[str, Any] = {
    "block_out_channels": [8], "attention_levels": [True], "norm_groups": 4, "head_width": 8,
    "hint_widths": [8, 8, 8, 8], "encoder_width": 16, "encoder_layers": 1, "encoder_heads": 2, "context_width": 16,
}  # fmt: skip
MODEL: dict[str, Any] = {"shape": SHAPE, "image_size": 32, "reference_size": 28, "hint": "background",
                         "scheduler": "ddim", "steps": 1, "guidance": 1.0}  # fmt: skip
# Samples in the shards of each set; A has shards for validation, too.
PER_SHARD, SHARDS, FIRST = 8, {"A": 3, "B": 2}, {"A": 0, "B": 500}


def make_data(folder: Path) -> Path:
    """Shards of the sets A and B, by hand, in the published layout."""
    for name, shards in SHARDS.items():
        for shard in range(shards):
            first = FIRST[name] + shard * PER_SHARD
            write_shard(folder / f"train/{name}/{shard:05d}.tar", range(first, first + PER_SHARD))
    write_shard(folder / "val/A/00000.tar", range(100, 103))
    return folder


def write_recipe(path: Path, **changes: Any) -> Path:
    """A recipe over A and B (twice) for a very small model; keywords are keys, `__` for the dot."""
    plain: dict[str, Any] = {
        "kind": "training", "name": "small", "out": "LOGS/small", "steps": 20, "batch_size": 2, "train": "full",
        "train_encoder": True, "precision": "fp32",
        "data": {"root": "data", "workers": 0,
                 "sets": {"A": {"shards": "{split}/A"}, "B": {"shards": "{split}/B", "repeat": 2}}},
        "model": MODEL,
        "optimizer": {"learning_rate": 1.0e-3, "warmup": 2},
        "validation": {"every": 100, "samples": 2, "sheet": 1, "bins": 2},
        "checkpoints": {"every": 100},
        "log": {"every": 1},
    }  # fmt: skip
    for key, value in changes.items():
        *parents, last = key.split("__")
        inner = plain
        for parent in parents:
            inner[parent] = dict(inner.get(parent, {}))
            inner = inner[parent]
        inner[last] = value
    path.write_text(yaml.safe_dump(plain, sort_keys=False))
    return path


def train(*words: str | Path) -> Result:
    """`pics train` on the CPU in this process: another one would have to load the libraries first."""
    return command("train", *words, "--device", "cpu")


def train_in(folder: Path, recipe: str, *words: str | Path) -> Result:
    """`train` with a recipe of the folder's parent, in the folder, whose run is `run`."""
    folder.mkdir(exist_ok=True)
    before = Path.cwd()
    os.chdir(folder)
    try:
        return train("--recipe", f"../{recipe}", "--root-dir", "run", *words)
    finally:
        os.chdir(before)


def command(*words: str | Path) -> Result:
    """`pics` in this process."""
    torch.set_num_threads(1)
    AcceleratorState._reset_state(reset_partial_state=True)
    before = signal.getsignal(signal.SIGTERM)
    try:
        done = CliRunner().invoke(app, [*map(str, words)])
    finally:
        signal.signal(signal.SIGTERM, before)
        PartialState._reset_state()
        AcceleratorState._reset_state(reset_partial_state=True)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert "Traceback" not in done.stderr
    assert "fault of pics" not in done.stderr, done.stderr
    return done


def start(at: Path, *words: str | Path, keys: Path | None = None, **environment: str) -> Started:
    """Start `pics train`; `keys`: a file that gets the keys of each batch, a line of JSON for each."""
    prepare = None if keys is None else partial(_record, keys)
    return processes.start(at, "train", *words, "--device", "cpu", environment=environment, prepare=prepare)


def _record(path: Path) -> None:
    """Have the keys of every batch written down."""
    batches = training_batches

    @contextlib.contextmanager
    def recorded(*arguments: Any) -> Iterator[Iterator[dict[str, Any]]]:
        with path.open("w") as file, batches(*arguments) as found:
            yield noted(file, found)

    def noted(file: Any, found: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for batch in found:
            print(json.dumps(batch["keys"]), file=file, flush=True)
            yield batch

    trainer.training_batches = recorded  # type: ignore[assignment, attr-defined]


def lines(root: Path, kind: str = "train") -> list[dict[str, Any]]:
    """The log of a run, without what no two runs share: times and memory."""
    found = [json.loads(line) for line in (root / "log.jsonl").read_text().splitlines()]
    timing = {"samples_per_second", "data_seconds", "compute_seconds", "memory_bytes"}
    return [{key: value for key, value in one.items() if key not in timing} for one in found if one["kind"] == kind]


def losses(root: Path) -> list[float]:
    """Of each step."""
    return [one["loss"] for one in lines(root)]


def model_files(root: Path) -> dict[str, bytes]:
    """Every file of the trained model."""
    return files(root / "model")


def files(folder: Path) -> dict[str, bytes]:
    """Every file in a folder, by its path there."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def checkpoints(root: Path) -> list[str]:
    """Whatever lies in the folder of the checkpoints."""
    return sorted(path.name for path in (root / "checkpoints").iterdir())


def last_step(root: Path) -> int:
    """The last step in the log, 0 without one."""
    path = root / "log.jsonl"
    found = re.findall(r'"step": (\d+)', path.read_text()) if path.is_file() else []
    return int(found[-1]) if found else 0


def copied(run: Path, to: Path) -> Path:
    """A run's folder once more, to go on from."""
    shutil.copytree(run, to)
    return to
