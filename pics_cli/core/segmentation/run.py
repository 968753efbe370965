"""`pics annotate`: masks for the boxes of a dataset, block by block: each process runs the model on its own blocks."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any

from pics_cli.core.datasets.labels import MaskAnnotation, block_path, stats_path, write_block
from pics_cli.core.datasets.readers.base import no_picture
from pics_cli.core.model.devices import DTYPES, choose_device, choose_dtype
from pics_cli.core.runtime.bad_samples import stop_at_max_bad
from pics_cli.core.runtime.engines import local_executor, map_in_order
from pics_cli.core.runtime.files import write_json
from pics_cli.core.runtime.locks import InUse
from pics_cli.core.runtime.progress import Progress
from pics_cli.core.runtime.ranks import Ranks
from pics_cli.core.runtime.signals import process_pending_signals
from pics_cli.core.segmentation.blocks import AnnotationJob, Block, BlockPlan, encoder_batch_size
from pics_cli.core.segmentation.boxes import BoxSource, open_boxes
from pics_cli.core.segmentation.label_folder import (
    SCORE_BINS,
    check_label_folder,
    claim_label_folder,
    label_identity,
    write_manifest,
)
from pics_cli.core.segmentation.postprocessing import label_statistics, make_labels
from pics_cli.core.segmentation.preprocessing import PreparedImage, prepare
from pics_cli.core.segmentation.published_labels import label_name, write_published
from pics_cli.core.segmentation.sam import find_checkpoint, load_sam
from pics_cli.core.segmentation.segmenter import Segmenter
from pics_cli.errors import BadSample, PicsError

logger = logging.getLogger(__name__)

# Images of a block that its stats name for the contact sheet.
_WORST = 4


@dataclass
class AnnotationProgress(Progress):
    """Images of this process; of this run also the boxes and the unreadable images."""

    boxes: int = 0
    bad: int = 0

    @property
    def detail(self) -> str:
        parts = [self.activity, f"{self.boxes:,} boxes"]
        parts += [f"bad {self.bad:,}"] * bool(self.bad)
        parts += [f"{self.done_before:,} pictures from earlier runs"] * bool(self.done_before)
        return ", ".join(filter(None, parts))


@dataclass
class AnnotationReport:
    """What a run did, and what its folder holds now.

    Attributes:
        segmented: `pictures` and `boxes` that all processes of this run segmented.
        seconds: of the slowest process, without reading the model.
        in_use: a line for each block that another run is working on.
        manifest: of the folder.
    """

    segmented: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    in_use: list[str] = field(default_factory=list)
    manifest: dict[str, Any] = field(default_factory=dict)


def annotate(job: AnnotationJob, ranks: Ranks, progress: AnnotationProgress) -> AnnotationReport:
    """Write the label files that are missing.

    Raises:
        PicsError: dataset, model or folder are not what they should be; too many unreadable images; out of memory.
    """
    first = ranks.rank == 0
    boxes = ranks.run_first_alone(lambda: _open_boxes(job))  # one builds the index, then all open it
    records = boxes.bad_records
    ranks.run_on_all(lambda: stop_at_max_bad(job.max_bad, len(boxes), [], records, "records", "nothing was begun"))
    plan = BlockPlan(job, len(boxes))
    all_blocks = ranks.run_local(plan.in_range)
    device = choose_device(job.device, ranks.device)
    dtype = choose_dtype(job.dtype, device)
    precision = next(name for name, value in DTYPES.items() if value == dtype)
    checkpoint = ranks.run_local(lambda: find_checkpoint(job.sam, job.checkpoint))
    identity = label_identity(job, boxes, checkpoint, precision)
    ranks.run_on_all(lambda: check_label_folder(job, identity))
    own_blocks = all_blocks[ranks.rank :: ranks.size]
    due_blocks = [block for block in own_blocks if plan.due_rows(block)]
    progress.activity = "reading the model"
    model = ranks.run_local(lambda: load_sam(checkpoint, device, dtype) if due_blocks else None)
    progress.activity = ""
    # Only after the model has been read: a job that cannot begin leaves no folder.
    ranks.run_on_all(lambda: claim_label_folder(job, identity, len(boxes)) if first else None)
    due_images = sum(len(plan.due_rows(block)) for block in due_blocks)
    progress.total = sum(len(plan.rows(block)) for block in own_blocks)
    progress.done = progress.done_before = progress.total - due_images
    report = AnnotationReport()

    def make_blocks() -> None:
        if model is None:
            return
        segmenter = Segmenter(
            model, batch_images=encoder_batch_size(job, device.type), batch_boxes=job.batch_boxes,
            multimask=job.multimask,
        )  # fmt: skip
        start = time.monotonic()
        try:
            with local_executor(job.workers) as executor:
                _BlockRunner(plan, segmenter, checkpoint.shape.side, executor, progress, report).run(due_blocks)
        except PicsError as error:
            if ranks.size > 1:  # the others go on for hours before they hear of it
                logger.error("process %d stopped, the others finish their blocks: %s", ranks.rank, error.message)
            raise
        report.seconds = time.monotonic() - start

    ranks.run_on_all(make_blocks)
    reports = ranks.all_gather(report)
    return AnnotationReport(
        segmented=sum((part.segmented for part in reports), Counter[str]()),
        seconds=max(part.seconds for part in reports),
        in_use=[line for part in reports for line in part.in_use],
        manifest=ranks.run_on_all(lambda: write_manifest(job, identity, boxes) if first else {})[0],
    )


def _open_boxes(job: AnnotationJob) -> BoxSource:
    source = job.source
    boxes = open_boxes(source.recipe, source.split, source.raw)
    if not len(boxes):
        raise no_picture(boxes.annotations)
    low, high = job.rows
    if low >= len(boxes) or (high is not None and high <= low):
        raise PicsError(
            f"--range {job.range_text}: the dataset has pictures 0 to {len(boxes) - 1:,}",
            "expected LOW:HIGH with LOW below HIGH; HIGH itself is not included",
        )
    return boxes


class _BlockRunner:
    """Segments the blocks of one process: workers read images ahead, the model runs here, workers clean up masks."""

    def __init__(
        self, plan: BlockPlan, segmenter: Segmenter, side: int, executor: Executor, progress: AnnotationProgress,
        report: AnnotationReport,
    ) -> None:  # fmt: skip
        self.plan, self.job, self.segmenter, self.side = plan, plan.job, segmenter, side
        self.executor, self.progress, self.report = executor, progress, report
        self.due_images = progress.total - int(progress.done_before)
        self.bad: list[dict[str, Any]] = []
        self.claimed: deque[Block] = deque()
        self.batch_size = segmenter.batch_images

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
                block = self.plan.claim(number)
            except InUse as error:
                self.report.in_use.append(f"block {number:05d}: {error.message}")
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
        self.bad.append({"item": row, "reason": error.reason, "detail": error.detail})
        stop_at_max_bad(self.job.max_bad, self.due_images, self.bad, None, "pictures", "finished blocks are kept")

    def _write(self, block: Block) -> None:
        """The block's files, the stats last: they say that it is finished."""
        labels, bad = block.result()
        temporary = self.job.state / f"{block.number:05d}.tmp"  # only the holder of the block's lock writes it
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
