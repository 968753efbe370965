"""What an annotation run is asked to do, and how far it is."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pics_cli.core.datasets.job import Input
from pics_cli.core.datasets.labels import HIDDEN

Layout = Literal["blocks", "published"]
SCORE_BINS = 20


@dataclass(frozen=True)
class Job:
    """Boxes of one split to be turned into masks in one folder.

    Attributes:
        source: whose boxes.
        folder: for the labels.
        rows: pictures from, to (not included); None: to the end. A block belongs to the run that has its first picture.
        sam, checkpoint: the model, see `sam.find`.
        batch_images, batch_boxes: at a time; None: see `plan.pictures_at_once`.
        multimask: take the best of three masks.
        device, dtype: as asked for.
        workers: processes beside the one that computes.
        max_bad: see `stop_at_max_bad`.
        overwrite: make this run's blocks again, whether they are there or not.
        layout: of the label files.
        retry: look again at pictures that failed before, and at nothing else.
    """

    source: Input
    folder: Path
    rows: tuple[int, int | None] = (0, None)
    sam: str = "vit_h"
    checkpoint: Path | None = None
    batch_images: int | None = None
    batch_boxes: int = 64
    multimask: bool = True
    device: str = "auto"
    dtype: str = "auto"
    workers: int = 1
    max_bad: int | None = None
    overwrite: bool = False
    layout: Layout = "blocks"
    retry: bool = False

    @property
    def state(self) -> Path:
        """Where manifest and stats lie: out of the way where others read the folder's files."""
        return self.folder / HIDDEN if self.layout == "published" else self.folder


@dataclass
class Progress:
    """How far it is; read by whoever displays it.

    Attributes:
        pictures, total: done, and to be done by this process.
        before: those that were there.
    """

    pictures: int = 0
    total: int = 0
    before: int = 0
    boxes: int = 0
    bad: int = 0
    doing: str = ""


@dataclass
class Report:
    """What was done, and what is there now.

    Attributes:
        made: pictures, boxes and seconds of this run, of all processes.
        held: blocks that other runs are at.
        stale: locks of blocks whose processes were on other machines and may be gone.
        manifest: of the folder.
    """

    made: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    held: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    manifest: dict[str, Any] = field(default_factory=dict)
