"""What an inference run is asked to do, how far it is, and how it ended."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from pics_cli.core.conditioning.placement import CropKind
from pics_cli.core.inference.inputs import SampleFiles
from pics_cli.core.inference.settings import Order


@dataclass(frozen=True)
class Job:
    """Samples to be composited into one folder.

    Attributes:
        samples: sample folders, or a sample given file by file.
        objects: take the first so many objects of each folder; None: all.
        model: folder, hub repository, or name of the bundled model.
        num: candidates of each sample.
        steps, guidance, scheduler: None: the model's own.
        feather: None: one cell of the latent.
        order: None: not asked for.
        overwrite: redo pictures that are there.
        grid, explain: write the sheets of these names beside the pictures.
        sheet: a PNG of all samples with their first results; None: not asked for.
    """

    samples: tuple[Path | SampleFiles, ...]
    output: Path
    model: str
    objects: int | None = None
    seed: int = 0
    num: int = 1
    steps: int | None = None
    guidance: float | None = None
    scheduler: str | None = None
    crop: CropKind = "auto"
    feather: int | None = None
    mode: str = "parallel"
    order: Order | None = None
    batch_size: int = 1
    device: str = "auto"
    dtype: str = "auto"
    memory: str = "auto"
    compile: bool = False
    overwrite: bool = False
    grid: bool = False
    explain: bool = False
    sheet: Path | None = None


class Failure(NamedTuple):
    """A sample that could not be composited: its id, one word for counting, what was found."""

    id: str
    reason: str
    detail: str


@dataclass
class Progress:
    """How far a process is with its share; read by whoever displays it.

    Attributes:
        steps, of_steps: denoising steps, those of a batch counted for each of its samples.
        pictures, of_pictures: written so far, and how many there will be.
        sample: what is being made.
        step, last_step: of the pictures that are being made.
        started: when the first of them was begun; None before that.
    """

    steps: float = 0
    of_steps: int = 0
    pictures: int = 0
    of_pictures: int = 0
    sample: str = ""
    step: int = 0
    last_step: int = 0
    started: float | None = None

    @property
    def seconds_a_picture(self) -> float | None:
        """None before the first is written."""
        if self.started is None or not self.pictures:
            return None
        return (time.monotonic() - self.started) / self.pictures


@dataclass
class Report:
    """How a run went: of one process, or of all.

    Attributes:
        samples: looked at.
        there: pictures that an earlier run had made.
        made: pictures written.
        seconds: that they took.
        peak: bytes of memory, and whose: `cuda` or `process`.
        changed: pixels that differ outside the regions, over all pictures.
        unguided: samples with objects too small for their references to reach, and which objects.
        failures: samples that could not be composited.
    """

    samples: int = 0
    there: int = 0
    made: int = 0
    seconds: float = 0.0
    peak: tuple[int, str] = (0, "process")
    changed: int = 0
    unguided: list[tuple[str, list[int]]] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def add(self, other: Report) -> None:
        """Take in another process's share."""
        self.made += other.made
        self.seconds += other.seconds
        self.peak = max(self.peak, other.peak)
        self.changed += other.changed
        self.unguided += other.unguided
        self.failures += other.failures

    @property
    def reasons(self) -> Counter[str]:
        """Failures by reason."""
        return Counter(failure.reason for failure in self.failures)
