"""What a run records: a line of JSON for each event, TensorBoard always, Weights & Biases when asked."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from accelerate import Accelerator
from accelerate.tracking import GeneralTracker

from pics_cli.core.images.image_io import RGB, encode_png
from pics_cli.core.runtime.files import AtomicFile, make_folder
from pics_cli.errors import PicsError, write_error

LOG, TENSORBOARD, SHEETS = "log.jsonl", "tensorboard", "samples"


def trackers(wandb: bool) -> list[str]:
    """Names of the trackers for Accelerate.

    Raises:
        PicsError: one that is asked for is not installed.
    """
    if wandb and find_spec("wandb") is None:
        raise PicsError(
            "log.wandb: Weights & Biases is not installed", "pip install 'pics-cli[wandb]', or --set log.wandb=false"
        )
    return ["tensorboard", *(["wandb"] if wandb else [])]


class Recorder:
    """Writes events of a run; of several processes only the first has one.

    Args:
        root: of the run.
        accelerator: with `trackers` as its `log_with`.
        name: of the run.
        after: steps that are behind, -1 where a run begins: what is recorded beyond them will be recorded again.
    """

    def __init__(self, root: Path, accelerator: Accelerator, name: str, after: int) -> None:
        self.root = root
        keep_until(root / LOG, after)
        try:
            self._file: IO[str] = (root / LOG).open("a", encoding="utf-8")
        except OSError as error:
            raise write_error(root / LOG, error) from None
        accelerator.init_trackers(
            TENSORBOARD,
            init_kwargs={"tensorboard": {"purge_step": max(after, 0) + 1}, "wandb": {"name": name, "dir": str(root)}},
        )
        self._trackers: list[GeneralTracker] = list(accelerator.trackers)

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Record an event: `train` or `validation`, after a step."""
        with self._room():
            self._file.write(json.dumps({"kind": kind, "step": step, **values}, allow_nan=False) + "\n")
            self._file.flush()
        numbers = {f"{kind}/{key}": value for key, value in values.items() if isinstance(value, (int, float))}
        with self._room():
            for tracker in self._trackers:
                tracker.log(numbers, step=step)

    def draw(self, step: int, sheet: RGB) -> Path:
        """Record a sheet of pictures, uint8 [h, w, 3]; returns where it lies."""
        path = self.root / SHEETS / f"step_{step:08d}.png"
        make_folder(path.parent)
        with AtomicFile(path) as file:
            file.write(encode_png(sheet))
        for tracker in self._trackers:
            if tracker.name == "tensorboard":
                tracker.log_images({"samples": sheet[None]}, step=step, dataformats="NHWC")
            else:
                tracker.log_images({"samples": [sheet]}, step=step)
        return path

    def close(self) -> None:
        """Finish all records, as far as that can be: what went wrong while writing has been told."""
        with contextlib.suppress(OSError):
            self._file.close()
        for tracker in self._trackers:
            with contextlib.suppress(OSError):
                tracker.finish()

    @contextlib.contextmanager
    def _room(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise write_error(self.root / LOG, error) from None


def keep_until(path: Path, step: int) -> None:
    """Drop a log's events after a step, and a last line that was cut off."""
    if not path.is_file():
        return
    with AtomicFile(path) as file:
        for line in _lines(path):
            if line["step"] <= step:
                file.write((json.dumps(line) + "\n").encode())


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("step"), int):
            yield line
