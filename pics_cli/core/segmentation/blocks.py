"""An annotation run's job, the blocks of images it is divided into, and the state of a block that is being segmented.

A block is a fixed number of consecutive images of the dataset (`source.sam.block` of the recipe). One process at a time
works on it, under a lock, and writes its label file; it is finished when its stats file exists.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pics_cli.core.datasets.labels import (
    HIDDEN_FOLDER,
    LabelledImage,
    MaskAnnotation,
    block_path,
    finished_stats,
    read_block,
    read_stats,
    stats_path,
)
from pics_cli.core.datasets.readers.base import DatasetSplit
from pics_cli.core.recipes.sources import CocoSource, SamSettings, ScalabelSource
from pics_cli.core.runtime.locks import single_writer
from pics_cli.core.runtime.storage import file_names
from pics_cli.core.segmentation.preprocessing import PreparedImage
from pics_cli.errors import BadSample, PicsError

Layout = Literal["blocks", "published"]


@dataclass(frozen=True)
class AnnotationJob:
    """Boxes of one split to be turned into masks in one folder.

    Attributes:
        source: the dataset and split with the boxes.
        folder: for the labels.
        rows: half-open range of images, the end None for all; in whole blocks.
        sam, checkpoint: the model, see `sam.find_checkpoint`.
        batch_images: images that the encoder takes at a time; None: see `encoder_batch_size`.
        batch_boxes: boxes that the decoder takes at a time.
        multimask: predict three masks for each box and keep the best.
        device, dtype: as given on the command line.
        workers: processes that read images and encode masks beside the one that runs the model.
        max_bad: unreadable images that are tolerated, see `stop_at_max_bad`.
        overwrite: make blocks of this run again that are finished.
        layout: of the label files.
        retry: only try images again that could not be read before.
    """

    source: DatasetSplit
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
        """Folder of manifest and stats: hidden where others read the label folder's files."""
        return self.folder / HIDDEN_FOLDER if self.layout == "published" else self.folder

    @property
    def options(self) -> SamSettings:
        """The recipe's settings of masks, `source.sam`."""
        source = self.source.recipe.source
        assert isinstance(source, (CocoSource, ScalabelSource))
        return source.sam

    @property
    def range_text(self) -> str:
        """The range of images as given on the command line, `LOW:HIGH`."""
        low, high = self.rows
        return f"{low}:{'' if high is None else high}"


@dataclass(frozen=True)
class BlockPlan:
    """The blocks of a dataset, which has so many images, and which of them a job still has to segment."""

    job: AnnotationJob
    images: int

    @property
    def size(self) -> int:
        """Images of a block; the last one may have fewer."""
        return self.job.options.block

    @property
    def count(self) -> int:
        """Blocks of the whole dataset."""
        return -(-self.images // self.size)

    def rows(self, block: int) -> list[int]:
        """Images of a block by their number in the dataset."""
        return list(range(block * self.size, min((block + 1) * self.size, self.images)))

    def in_range(self) -> list[int]:
        """Blocks of the job's range.

        Raises:
            PicsError: an end of the range lies inside a block.
        """
        low, high = self.job.rows
        high = self.images if high is None else min(high, self.images)
        if low % self.size or (high % self.size and high < self.images):
            whole = low // self.size * self.size, min(-(-high // self.size) * self.size, self.images)
            raise PicsError(
                f"--range {self.job.range_text}: labels are made in blocks of {self.size} pictures: expected multiples "
                f"of {self.size}, or {self.images} as the end, such as {whole[0]}:{whole[1]}",
                "or choose other blocks, for all runs on the folder: --set source.sam.block=N",
            )
        return list(range(low // self.size, -(-high // self.size)))

    def due_rows(self, block: int) -> list[int]:
        """Images of a block to segment: all to overwrite or of a missing block, else those that could not be read."""
        if self.job.overwrite:
            return self.rows(block)
        return self._rows_after(block, read_stats(self.job.state, block))

    def _rows_after(self, block: int, stats: dict[str, Any] | None) -> list[int]:
        if stats is None:
            return [] if self.job.retry else self.rows(block)
        return [int(entry["item"]) for entry in stats["bad"]]

    def all_due_rows(self, blocks: Sequence[int]) -> dict[int, list[int]]:
        """`due_rows` of each of many blocks that has any; the folder is listed once."""
        if self.job.overwrite:
            return {block: self.rows(block) for block in blocks}
        there = file_names(self.job.state)
        stats = {entry["block"]: entry for entry in finished_stats(self.job.state)} if there else {}
        due = {block: self._rows_after(block, stats.get(block)) for block in blocks}
        return {block: rows for block, rows in due.items() if rows}

    def lock(self, number: int) -> contextlib.ExitStack:
        """Lock a block until the stack is closed.

        Raises:
            InUse: another run holds the lock.
        """
        lock = contextlib.ExitStack()
        lock.enter_context(single_writer(self.job.state, f".{number:05d}.lock"))
        return lock

    def claim(self, number: int, locked: bool = False) -> Block | None:
        """Lock a block to work on it; None where another run has finished it meanwhile.

        Args:
            number: of the block.
            locked: whoever hands out the blocks holds the lock.

        Raises:
            InUse: another run holds the lock.
        """
        state, lock = self.job.state, contextlib.ExitStack() if locked else self.lock(number)
        due_rows = self.due_rows(number)
        if not due_rows:
            lock.close()
            return None
        if self.job.overwrite:
            stats_path(state, number).unlink(missing_ok=True)
        stats = read_stats(state, number)
        if stats is None:
            return Block(number, due_rows, lock)
        finished = [row for row in self.rows(number) if row not in due_rows]
        labels: list[LabelledImage] = []
        if self.job.layout == "blocks":
            with contextlib.suppress(BadSample):
                labels = read_block(block_path(self.job.folder, number))
        if len(labels) != len(finished):  # a damaged file, or labels in files of their own: the whole block again
            return Block(number, self.rows(number), lock)
        return Block(
            number, due_rows, lock, dict(zip(finished, labels, strict=True)), dropped=Counter(stats["dropped"])
        )


@dataclass
class Block:
    """A block that is being segmented.

    Attributes:
        number: of the block in the dataset.
        rows: its images that are to be segmented, by their number in the dataset.
        lock: closed when the block is done.
        finished: labels of an earlier run, by row.
        pending: by row, an image with the future of its labels, or why it could not be read.
        dropped: boxes that were left out, by reason.
    """

    number: int
    rows: list[int]
    lock: contextlib.ExitStack
    finished: dict[int, LabelledImage] = field(default_factory=dict)
    pending: dict[int, tuple[PreparedImage, Future[list[MaskAnnotation]]] | BadSample] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)

    def is_done(self) -> bool:
        """Whether every image has its labels or its error."""
        return len(self.pending) == len(self.rows) and all(
            isinstance(result, BadSample) or result[1].done() for result in self.pending.values()
        )

    def result(self) -> tuple[list[LabelledImage], list[dict[str, Any]]]:
        """Labels of all readable images in order, with those of earlier runs; and the errors of the others."""
        labels, bad = dict(self.finished), []
        for row, result in self.pending.items():
            if isinstance(result, BadSample):
                bad.append({"item": row, "reason": result.reason, "detail": result.detail})
                continue
            image, future = result
            annotated, (width, height) = image.annotated, image.size
            labels[row] = LabelledImage(
                annotated.image_id, annotated.file_name, annotated.url, width, height, future.result()
            )
        return [labels[row] for row in sorted(labels)], bad


def encoder_batch_size(job: AnnotationJob, device: str) -> int:
    """Images that the encoder takes at once on a kind of device (`cpu`, `cuda`), unless the user says another number.

    On a CPU larger batches gain no time and take more memory.
    """
    return job.batch_images or (1 if device == "cpu" else 4)
