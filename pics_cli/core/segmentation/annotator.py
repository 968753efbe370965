"""Segments blocks of images: workers read images ahead, the model runs in this process, workers clean up masks."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any

from pics_cli.core.datasets.labels import MaskAnnotation, block_path, stats_path, write_block
from pics_cli.core.model.devices import DTYPES, choose_device
from pics_cli.core.runtime.bad_samples import stop_at_max_bad
from pics_cli.core.runtime.engines import explain_lost_worker, local_executor, map_in_order
from pics_cli.core.runtime.files import write_json, writer_number
from pics_cli.core.runtime.locks import InUse
from pics_cli.core.runtime.progress import Progress
from pics_cli.core.runtime.signals import process_pending_signals
from pics_cli.core.segmentation.blocks import AnnotationJob, Block, BlockPlan, encoder_batch_size
from pics_cli.core.segmentation.label_folder import SCORE_BINS
from pics_cli.core.segmentation.postprocessing import label_statistics, make_labels
from pics_cli.core.segmentation.preprocessing import PreparedImage, prepare
from pics_cli.core.segmentation.published_labels import label_name, write_published
from pics_cli.core.segmentation.sam import find_checkpoint, load_sam
from pics_cli.core.segmentation.segmenter import Segmenter
from pics_cli.errors import BadSample, PicsError

logger = logging.getLogger(__name__)

# Images of a block that its stats name for the contact sheet.
_WORST = 4


@dataclass(frozen=True)
class BlockJob:
    """What a process needs to segment blocks, whose numbers it is given.

    Attributes:
        job: with its device and dtype as they were settled.
        images: of the dataset.
        due_images: to be segmented by whoever counts the unreadable ones.
        sha256: of the model's weights.
        locked: whoever hands out the blocks holds their locks, and has a lost process's blocks made again.
        rank: number of this process among several that share the blocks; None: it is alone, or told to by one.
    """

    job: AnnotationJob
    images: int
    due_images: int
    sha256: str
    locked: bool = False
    rank: int | None = None


@dataclass
class AnnotationProgress(Progress):
    """Images of this process; of this run also the boxes and the unreadable images."""

    boxes: int = 0
    bad: int = 0

    def add(self, block: Progress) -> None:
        """As that of `Progress`."""
        super().add(block)
        assert isinstance(block, AnnotationProgress)
        self.boxes += block.boxes
        self.bad += block.bad

    @property
    def detail(self) -> str:
        parts = [self.activity, f"{self.boxes:,} boxes"]
        parts += [f"bad {self.bad:,}"] * bool(self.bad)
        parts += [f"{self.done_before:,} pictures from earlier runs"] * bool(self.done_before)
        return ", ".join(filter(None, parts))


@dataclass
class BlocksReport:
    """What became of some blocks.

    Attributes:
        segmented: `pictures` and `boxes`.
        bad: images that could not be read: `item`, `reason`, `detail`.
        in_use: a line for each block that another run is working on.
    """

    segmented: Counter[str] = field(default_factory=Counter)
    bad: list[dict[str, Any]] = field(default_factory=list)
    in_use: list[str] = field(default_factory=list)

    def add(self, other: BlocksReport) -> None:
        """Take in the report on further blocks."""
        self.segmented.update(other.segmented)
        self.bad += other.bad
        self.in_use += other.in_use

    def leave(self, block: int, error: InUse) -> None:
        """Note a block that another run has locked."""
        self.in_use.append(f"block {block:05d}: {error.message}")


@dataclass(frozen=True)
class Annotator:
    """A model, the processes that read and write for it, and what they are for."""

    work: BlockJob
    segmenter: Segmenter
    side: int
    executor: Executor


@contextlib.contextmanager
def open_annotator(work: BlockJob) -> Iterator[Annotator]:
    """Load the model of a job.

    Raises:
        PicsError: it cannot be loaded, or is not the job's.
    """
    job = work.job
    checkpoint = find_checkpoint(job.sam, job.checkpoint)
    if checkpoint.sha256 != work.sha256:
        raise PicsError(
            f"{checkpoint.path} on {socket.gethostname()}: other weights (sha256 {checkpoint.sha256[:8]}) than those "
            f"that this job began with ({work.sha256[:8]})",
            "have all machines see the same file",
        )
    device = choose_device(job.device)
    segmenter = Segmenter(
        load_sam(checkpoint, device, DTYPES[job.dtype]),
        batch_images=encoder_batch_size(job, device.type),
        batch_boxes=job.batch_boxes,
        multimask=job.multimask,
    )
    with local_executor(job.workers) as executor:
        yield Annotator(work, segmenter, checkpoint.shape.side, executor)


def segment_blocks(annotator: Annotator, blocks: Sequence[int], progress: AnnotationProgress) -> BlocksReport:
    """Segment blocks, by their numbers, and write their files; but for those that another run is working on.

    Raises:
        PicsError: too many unreadable images; out of memory; disk full.
    """
    report, rank = BlocksReport(), annotator.work.rank
    try:
        with explain_lost_worker():
            _BlockRunner(annotator, progress, report).run(blocks)
    except PicsError as error:
        if rank is not None:  # the others go on for hours before they hear of it
            logger.error("process %d stopped, the others finish their blocks: %s", rank, error.message)
        raise
    return report


class _BlockRunner:
    """Segments blocks one after the other, each under its lock."""

    def __init__(self, annotator: Annotator, progress: AnnotationProgress, report: BlocksReport) -> None:
        work = annotator.work
        self.work, self.job, self.plan = work, work.job, BlockPlan(work.job, work.images)
        self.segmenter, self.side, self.executor = annotator.segmenter, annotator.side, annotator.executor
        self.progress, self.report = progress, report
        self.claimed: deque[Block] = deque()
        self.batch_size = annotator.segmenter.batch_images

    def run(self, blocks: Sequence[int]) -> None:
        """Segment the blocks, but for those that another run is working on."""
        ahead = 2 * self.batch_size + self.job.workers
        running: deque[Block] = deque()
        try:
            # Blocks are claimed when workers begin to read their images, and segmented in the same order.
            images = map_in_order(self.executor, ahead, prepare, self._arguments(blocks))
            for first_image in images:
                block = self.claimed.popleft()
                running.append(block)
                self._segment_block(block, first_image, images)
                while running and running[0].is_done():
                    self._write(running.popleft())
            while running:
                self._write(running.popleft())
        finally:
            for block in (*running, *self.claimed):
                block.lock.close()

    def _arguments(self, blocks: Sequence[int]) -> Iterator[tuple[Any, int, int]]:
        for number in blocks:
            try:
                block = self.plan.claim(number, self.work.locked)
            except InUse as error:
                self.report.leave(number, error)
                continue
            if block is not None:
                self.claimed.append(block)
                yield from ((self.job.source, row, self.side) for row in block.rows)

    def _segment_block(
        self, block: Block, first_image: PreparedImage | BadSample, following: Iterator[PreparedImage | BadSample]
    ) -> None:
        """Segment a block in batches that never cross its border: results do not depend on where a run began."""
        batch: list[tuple[int, PreparedImage]] = []
        for at, row in enumerate(block.rows):
            image = self._check_name(first_image if at == 0 else next(following))
            if isinstance(image, BadSample):
                self._fail(block, row, image)
            else:
                block.dropped.update(image.dropped)
                batch.append((row, image))
            if len(batch) == self.batch_size or (batch and at + 1 == len(block.rows)):
                self._segment_batch(block, batch)
                batch = []
            process_pending_signals()

    def _check_name(self, image: PreparedImage | BadSample) -> PreparedImage | BadSample:
        """The image; in layout `published`, whose label files take its name, an error where no file can have it."""
        if self.job.layout == "published" and not isinstance(image, BadSample):
            try:
                label_name(image.annotated.file_name)
            except BadSample as error:
                return error
        return image

    def _segment_batch(self, block: Block, batch: Sequence[tuple[int, PreparedImage]]) -> None:
        results = self.segmenter([image.resized for _, image in batch if image.resized is not None])
        for row, image in batch:
            future: Future[list[MaskAnnotation]] = Future()
            if image.resized is None:
                future.set_result([])
            else:
                masks = next(results)
                if isinstance(masks, BadSample):
                    self._fail(block, row, masks)
                    continue
                future = self.executor.submit(
                    make_labels, masks.packed, masks.scores.tolist(), masks.stability.tolist(), image.boxes,
                    image.corners, self.job.options,
                )  # fmt: skip
            block.pending[row] = image._replace(resized=None), future
            self.progress.done += 1
            self.progress.boxes += len(image.boxes)
            self.report.segmented.update(pictures=1, boxes=len(image.boxes))

    def _fail(self, block: Block, row: int, error: BadSample) -> None:
        block.pending[row] = error
        self.progress.done += 1
        self.progress.bad += 1
        self.report.bad.append({"item": row, "reason": error.reason, "detail": error.detail})
        stop_at_bad_images(self.work, self.report.bad)

    def _write(self, block: Block) -> None:
        """The block's files, the stats last: they say that it is finished."""
        labels, bad = block.result()
        # Only the holder of the block's lock writes it; of those who do so for a holder, one that seemed lost may, too.
        unique = f".{writer_number()}" if self.work.locked else ""
        temporary = self.job.state / f"{block.number:05d}{unique}.tmp"
        if self.job.layout == "blocks":
            written = write_block(block_path(self.job.folder, block.number), labels, temporary)
        else:
            written = write_published(self.job.folder, labels, temporary)
        objects = [label for image in labels for label in image.objects]
        lowest = [
            (min(label.score for label in image.objects), line) for line, image in enumerate(labels) if image.objects
        ]
        worst, usual = sorted(lowest)[:_WORST], lowest[block.number % len(lowest)] if lowest else None
        stats = {
            "block": block.number, "pictures": len(labels), **label_statistics(objects, SCORE_BINS),
            "dropped": dict(sorted(block.dropped.items())), **written,
            "worst": [{"line": line, "score": score} for score, line in worst],
            "usual": None if usual is None else {"line": usual[1], "score": usual[0]}, "bad": bad,
        }  # fmt: skip
        write_json(stats_path(self.job.state, block.number), stats, temporary)
        block.lock.close()


def stop_at_bad_images(work: BlockJob, bad: Sequence[dict[str, Any]]) -> None:
    """`stop_at_max_bad` for the images of a job's blocks.

    Raises:
        PicsError: too many are bad.
    """
    stop_at_max_bad(work.job.max_bad, work.due_images, bad, None, "pictures", "finished blocks are kept")
