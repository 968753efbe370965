"""`pics annotate`: masks for the boxes of a dataset, block by block: each process runs the model on its own blocks."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from pics_cli.core.datasets.readers.base import no_picture
from pics_cli.core.datasets.readers.index_cache import opened_indexes
from pics_cli.core.model.devices import DTYPES, choose_device, choose_dtype
from pics_cli.core.runtime.bad_samples import stop_at_max_bad
from pics_cli.core.runtime.locks import InUse
from pics_cli.core.runtime.ranks import Ranks
from pics_cli.core.runtime.requirements import Requirements, existing_folder, installed_versions, worker_memory
from pics_cli.core.runtime.worker_group import OpenEngine, open_group
from pics_cli.core.segmentation.annotator import (
    AnnotationProgress,
    BlockJob,
    BlocksReport,
    open_annotator,
    segment_blocks,
    stop_at_bad_images,
)
from pics_cli.core.segmentation.blocks import AnnotationJob, BlockPlan
from pics_cli.core.segmentation.boxes import BoxSource, open_boxes
from pics_cli.core.segmentation.label_folder import (
    LIBRARIES,
    check_label_folder,
    claim_label_folder,
    label_identity,
    remove_temporary_files,
    write_manifest,
)
from pics_cli.core.segmentation.sam import find_checkpoint
from pics_cli.errors import PicsError


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


def annotate(
    job: AnnotationJob, ranks: Ranks, progress: AnnotationProgress, open_engine: OpenEngine | None = None
) -> AnnotationReport:
    """Write the label files that are missing.

    Args:
        job: what to do.
        ranks: the processes of the run; each calls this.
        progress: of this process's share; updated as the work goes on.
        open_engine: whose workers do the blocks; None: the ranks do.

    Raises:
        PicsError: dataset, model or folder are not what they should be; too many unreadable images; out of memory.
    """
    first = ranks.rank == 0
    boxes = ranks.run_first_alone(lambda: _open_boxes(job))  # one builds the index, then all open it
    records = boxes.bad_records
    ranks.run_on_all(lambda: stop_at_max_bad(job.max_bad, len(boxes), [], records, "records", "nothing was begun"))
    plan = BlockPlan(job, len(boxes))
    all_blocks = ranks.run_local(plan.in_range)
    with open_group(ranks, progress, open_engine, lambda: _requirements(job, boxes)) as group:
        device, precision = group.call(_settle_precision, job.device, ranks.device, job.dtype)
        checkpoint = ranks.run_local(lambda: find_checkpoint(job.sam, job.checkpoint))
        identity = label_identity(job, boxes, checkpoint, precision)
        ranks.run_on_all(lambda: check_label_folder(job, identity))
        own_blocks = group.own(all_blocks)
        due_rows = plan.all_due_rows(own_blocks)
        due_blocks, due_images = [*due_rows], sum(map(len, due_rows.values()))
        settled = replace(job, device=device, dtype=precision, workers=group.cores or job.workers)
        work = BlockJob(
            settled, len(boxes), due_images, checkpoint.sha256,
            locked=group.engine is not None, rank=ranks.rank if ranks.size > 1 else None,
        )  # fmt: skip
        progress.activity = "reading the model"
        with group.open(open_annotator, work, bool(due_blocks)) as annotator:
            progress.activity = ""
            # Only after the model has been read: a job that cannot begin leaves no folder.
            ranks.run_on_all(lambda: claim_label_folder(job, identity, len(boxes)) if first else None)
            progress.total = sum(len(plan.rows(block)) for block in own_blocks)
            progress.done = progress.done_before = progress.total - due_images
            start = time.monotonic()
            with _Handout(plan, work) as handout:
                annotator.run(segment_blocks, due_blocks, progress, handout.lock(due_blocks), handout.take)
            seconds = time.monotonic() - start
    return AnnotationReport(
        segmented=handout.report.segmented,
        seconds=seconds,
        in_use=handout.report.in_use,
        manifest=ranks.run_on_all(lambda: write_manifest(job, identity, boxes) if first else {})[0],
    )


def _requirements(job: AnnotationJob, boxes: BoxSource) -> Requirements:
    raw, checkpoint = job.source.raw, find_checkpoint(job.sam, job.checkpoint)
    return Requirements(
        reads=[*([] if raw is None else [raw]), boxes.annotations, checkpoint.path],
        writes=[existing_folder(job.state)],
        versions=partial(installed_versions, LIBRARIES),
        built=opened_indexes([boxes.annotations]),
        memory=worker_memory(checkpoint.path.stat().st_size),
    )


class _Handout:
    """Blocks on their way to an engine's workers and back: this process holds their locks meanwhile.

    So another worker can take over from one that is lost, at once and wherever it was.

    Attributes:
        report: of all that are back, and on those that were left to other runs.
    """

    def __init__(self, plan: BlockPlan, work: BlockJob) -> None:
        self._plan, self._work, self.report = plan, work, BlocksReport()
        self._locks, self._numbers = deque[ExitStack](), set[int]()

    def lock(self, blocks: Sequence[int]) -> Iterator[list[int]]:
        """Lock and yield each block, but for those that another run is working on."""
        for number in blocks:
            try:
                self._locks.append(self._plan.lock(number))
            except InUse as error:
                self.report.leave(number, error)
                continue
            self._numbers.add(number)
            yield [number]

    def take(self, report: BlocksReport) -> None:
        """Add the report of a rank, or of the next block, and unlock that.

        Raises:
            PicsError: too many images of all blocks so far were bad.
        """
        self.report.add(report)
        if self._work.locked:
            self._locks.popleft().close()
            stop_at_bad_images(self._work, self.report.bad)

    def __enter__(self) -> _Handout:
        return self

    def __exit__(self, *_error: object) -> None:
        for lock in self._locks:
            lock.close()
        if self._numbers:
            remove_temporary_files(self._plan.job, self._numbers)


def _settle_precision(device_name: str, rank_device: str | None, dtype_name: str) -> tuple[str, str]:
    """Device and precision, by their names, of the process that calls this."""
    device = choose_device(device_name, rank_device)
    dtype = choose_dtype(dtype_name, device)
    return str(device), next(name for name, value in DTYPES.items() if value == dtype)


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
