"""What the benchmark figures share: inputs, rows of the table, CPU time."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

sys.path.append(str(Path(__file__).resolve().parent.parent))

from demo_data import MAKERS, make_boxes, make_objects365

__all__ = ["Bench", "Row", "cpu_time", "demo", "make_boxes", "make_objects365", "spread"]


class Row(NamedTuple):
    """One line of the table; `goal` and `met` are empty where the line only informs."""

    figure: str
    result: str
    goal: str = ""
    met: bool | None = None


class Bench(NamedTuple):
    """Folders of inputs (kept where the user named it) and outputs; pictures or blocks of a figure, None: its own."""

    data: Path
    work: Path
    pictures: int | None
    repeats: int
    blocks: int | None = None

    def cached_input(self, name: str, make: Callable[[Path], object]) -> Path:
        """The input of that name, made unless it exists already."""
        path, part = self.data / name, self.data / f"{name}.part"
        if not path.exists():
            shutil.rmtree(part, ignore_errors=True)
            make(part)
            part.rename(path)
        return path


def cpu_time(action: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """CPU seconds of this process (all its threads) in a call, and what the call returned."""
    start = time.process_time()
    result = action(*arguments)
    return time.process_time() - start, result


def spread(ratios: Sequence[float]) -> str:
    return f"{median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})"


def demo(bench: Bench, name: str, count: int) -> Path:
    """The raw folder of a synthetic dataset: the only folder that its maker leaves."""
    return next(bench.cached_input(f"{name}-{count}", lambda path: MAKERS[name](path, count)).iterdir())
