"""Metrics and sheets of a run: a line of JSON for each event, TensorBoard always, Weights & Biases when asked."""

from __future__ import annotations

import contextlib
import json
import logging
import math
from pathlib import Path
from typing import IO, Any

from accelerate import Accelerator
from accelerate.tracking import GeneralTracker

from pics_cli.core.images.image_io import RGB, write_png
from pics_cli.core.runtime.extras import require
from pics_cli.core.runtime.files import AtomicFile, load_json
from pics_cli.errors import abbreviate, write_error

logger = logging.getLogger(__name__)

LOG, TENSORBOARD, SHEETS = "log.jsonl", "tensorboard", "samples"


def tracker_names(wandb: bool) -> list[str]:
    """Names of the trackers that Accelerate is to start.

    Raises:
        PicsError: one that is asked for is not installed.
    """
    if wandb:
        require("wandb", "log.wandb")
    return ["tensorboard", *(["wandb"] if wandb else [])]


class MetricLogger:
    """Writes log.jsonl, TensorBoard's files and sheets of samples; of several processes only the first has one.

    Args:
        accelerator: with `tracker_names` as its `log_with`.
        last_step: the step that the run is resumed from, -1 where it begins: later events are dropped from the log,
            for they will come again.
    """

    def __init__(self, root: Path, accelerator: Accelerator, name: str, last_step: int) -> None:
        self.root = root
        truncate_log(root / LOG, last_step)
        try:
            self._file: IO[str] = (root / LOG).open("a", encoding="utf-8")
        except OSError as error:
            raise write_error(root / LOG, error) from None
        options = {
            "tensorboard": {"purge_step": max(last_step, 0) + 1},
            "wandb": {"name": name, "dir": str(root)},
        }
        accelerator.init_trackers(TENSORBOARD, init_kwargs=options)
        self._trackers: list[GeneralTracker] = list(accelerator.trackers)

    def log(self, kind: str, step: int, metrics: dict[str, Any]) -> None:
        """Record an event: `train` or `validation`, after a step. Numbers that are none are null in the log, and told.

        Raises:
            PicsError: it cannot be written.
        """
        numbers = {f"{kind}/{key}": value for key, value in metrics.items() if isinstance(value, (int, float))}
        broken = [key for key, value in metrics.items() if isinstance(value, float) and not math.isfinite(value)]
        if broken:
            logger.warning("step %s, %s: nan or inf: %s", f"{step:,}", kind, abbreviate(broken, 4))
        event = {"kind": kind, "step": step, **metrics, **dict.fromkeys(broken)}
        try:
            self._file.write(json.dumps(event, allow_nan=False) + "\n")
            self._file.flush()
            for tracker in self._trackers:
                tracker.log(numbers, step=step)
        except OSError as error:
            raise write_error(self.root / LOG, error) from None

    def log_sheet(self, step: int, sheet: RGB) -> None:
        """Record a sheet of samples, uint8 [H, W, 3]."""
        write_png(self.root / SHEETS / f"step_{step:08d}.png", sheet)
        for tracker in self._trackers:
            if tracker.name == "tensorboard":
                tracker.log_images({"samples": sheet[None]}, step=step, dataformats="NHWC")
            else:
                tracker.log_images({"samples": [sheet]}, step=step)

    def close(self) -> None:
        """Finish all records; errors are left out, for those of writing were raised before."""
        with contextlib.suppress(OSError):
            self._file.close()
        for tracker in self._trackers:
            with contextlib.suppress(OSError):
                tracker.finish()


def truncate_log(path: Path, last_step: int) -> None:
    """Drop a log's events after a step, and lines that are incomplete or no events."""
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    with AtomicFile(path) as file:
        for text in lines:
            try:
                event = load_json(text)
            except ValueError:
                continue
            if isinstance(event, dict) and isinstance(event.get("step"), int) and event["step"] <= last_step:
                file.write((json.dumps(event) + "\n").encode())
