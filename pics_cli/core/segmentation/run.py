"""The run: which blocks are this process's, pictures through workers and model, a file for each block."""

from __future__ import annotations

import contextlib
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

from pics_cli.core.datasets.labels import Found, Labelled, block_path, read_block, read_stats, stats_path, write_block
from pics_cli.core.model.devices import DTYPES, choose_device, choose_dtype
from pics_cli.core.runtime.bad_samples import stop_at_max_bad
from pics_cli.core.runtime.engines import local_executor, map_in_order
from pics_cli.core.runtime.files import InUse, single_writer, write_json
from pics_cli.core.runtime.ranks import Ranks
from pics_cli.core.runtime.signals import process_pending_signals
from pics_cli.core.segmentation import postprocessing as finishing
from pics_cli.core.segmentation import sam as models
from pics_cli.core.segmentation.blocks import Block, blocks_of, is_due, length, pictures_at_once, rounded, rows_due
from pics_cli.core.segmentation.boxes import BoxSource, open_boxes
from pics_cli.core.segmentation.job import SCORE_BINS, Job, Progress, Report
from pics_cli.core.segmentation.label_folder import (
    check_folder,
    claim_folder,
    label_identity,
    options_of,
    write_manifest,
)
from pics_cli.core.segmentation.preprocessing import Prepared, prepare
from pics_cli.core.segmentation.published_labels import label_name, write_published
from pics_cli.core.segmentation.segmenter import Segmenter
from pics_cli.errors import BadSample, PicsError

# Pictures of a block that its stats name for people to look at.
_WORST = 4


def annotate(job: Job, ranks: Ranks, progress: Progress, note: Callable[[str], None]) -> Report:
    """Make the label files that are missing, and say what is there.

    Args:
        job: what to do.
        ranks: the processes that share it; each calls this.
        progress: updated as the work goes on.
        note: told single lines worth reading.

    Raises:
        PicsError: dataset, model or folder are not what they should be; too many bad pictures; out of memory.
    """
    on_index: Callable[[Path], None] = lambda path: note(f"indexing {path} (once)")  # noqa: E731
    ranks.run_on_all(lambda: _opened(job, on_index) if ranks.rank == 0 else None)  # one makes the index, all open it
    boxes = ranks.run_local(lambda: _opened(job, None))
    ranks.run_on_all(lambda: stop_at_max_bad(job.max_bad, len(boxes), [], boxes.bad, "records", "nothing was begun"))
    size = options_of(job).block
    device = choose_device(job.device, ranks.device)
    dtype = choose_dtype(job.dtype, device)
    precision = next(name for name, each in DTYPES.items() if each == dtype)
    weights = ranks.run_local(lambda: models.find(job.sam, job.checkpoint))
    wanted = label_identity(job, boxes, weights, precision)
    ranks.run_on_all(lambda: check_folder(job, wanted))
    blocks = blocks_of(job, len(boxes), size)
    if ranks.rank == 0 and (line := rounded(job, blocks, len(boxes), size)):
        note(line)
    mine = blocks[ranks.rank :: ranks.size]
    todo = [block for block in mine if job.overwrite or is_due(job, block)]
    progress.doing = "reading the model"
    model = ranks.run_local(lambda: models.load(weights, device, dtype) if todo else None)
    progress.doing = ""
    # Not before the model is known to be one: what cannot be begun leaves no folder.
    ranks.run_on_all(lambda: claim_folder(job, wanted, len(boxes)) if ranks.rank == 0 else None)
    progress.total = sum(len(rows_due(job, block, len(boxes), size)) for block in todo)
    progress.before = sum(length(block, len(boxes), size) for block in mine) - progress.total
    report = Report()

    def work() -> None:
        if model is None:
            return
        segmenter = Segmenter(
            model, batch_images=pictures_at_once(job, device.type), batch_boxes=job.batch_boxes,
            multimask=job.multimask, note=note,
        )  # fmt: skip
        begun = time.monotonic()
        with local_executor(job.workers) as executor:
            _Run(job, boxes, segmenter, weights.shape.side, executor, progress, report).go(todo)
        report.seconds = time.monotonic() - begun

    def told() -> None:
        try:
            work()
        except PicsError as error:
            if ranks.size > 1:  # the others go on for hours before they hear of it
                note(f"stopped, the other processes finish what is theirs: {error.message}")
            raise

    ranks.run_on_all(told)
    everyone = ranks.all_gather(report)
    return Report(
        made=sum((each.made for each in everyone), Counter[str]()),
        seconds=max(each.seconds for each in everyone),
        held=[line for each in everyone for line in each.held],
        stale=[path for each in everyone for path in each.stale],
        manifest=ranks.run_on_all(lambda: write_manifest(job, wanted, boxes, size) if ranks.rank == 0 else {})[0],
    )


def _opened(job: Job, on_index: Callable[[Path], None] | None) -> BoxSource:
    source = job.source
    found = open_boxes(source.recipe, source.split, source.raw, on_index)
    low, high = job.rows
    if low >= len(found) or (high is not None and high <= low):
        shown = f"{low}:{'' if high is None else high}"
        raise PicsError(
            f"--range {shown}: the dataset has pictures 0 to {len(found) - 1:,}" if len(found) else
            f"{found.place}: lists no picture",
            "expected LOW:HIGH with LOW below HIGH; HIGH itself is not included",
        )  # fmt: skip
    return found


class _Run:
    """This process's share of the blocks."""

    def __init__(
        self, job: Job, boxes: BoxSource, segmenter: Segmenter, side: int, executor: Executor, progress: Progress,
        report: Report,
    ) -> None:  # fmt: skip
        self.job, self.boxes, self.segmenter, self.side, self.executor = job, boxes, segmenter, side, executor
        self.progress, self.report, self.options = progress, report, options_of(job)
        self.bad: list[dict[str, Any]] = []
        self.claimed: deque[Block] = deque()
        self.at_once = segmenter.batch_images

    def go(self, blocks: Sequence[int]) -> None:
        """Make the blocks; those that another run is at are left to it."""
        ahead = 2 * self.at_once + self.job.workers
        running: deque[Block] = deque()
        try:
            # Claimed as pictures are begun ahead, taken in the same order as they come.
            pictures = map_in_order(self.executor, ahead, prepare, self._arguments(blocks))
            for first in pictures:
                block = self.claimed.popleft()
                running.append(block)
                self._compute(block, first, pictures)
                while running and running[0].is_done():
                    self._write(running.popleft())
            while running:
                self._write(running.popleft())
        finally:
            for block in (*running, *self.claimed):
                block.stack.close()

    def _arguments(self, blocks: Sequence[int]) -> Iterator[tuple[Any, int, int]]:
        for number in blocks:
            block = self._claim(number)
            if block is None:
                continue
            self.claimed.append(block)
            for row in block.rows:
                yield self.job.source, row, self.side

    def _claim(self, number: int) -> Block | None:
        stack = contextlib.ExitStack()
        lock = f".{number:05d}.lock"
        try:
            stack.enter_context(single_writer(self.job.state, lock))
        except InUse as error:
            if error.alive:
                self.report.held.append(f"block {number:05d}: {error.message}")
            else:
                self.report.stale.append(str(error.path))
            return None
        if self.job.overwrite:
            stats_path(self.job.state, number).unlink(missing_ok=True)
        elif not is_due(self.job, number):  # another run was faster
            stack.close()
            return None
        size = self.options.block
        rows = list(range(number * size, number * size + length(number, len(self.boxes), size)))
        stats = read_stats(self.job.state, number)
        if stats is None:
            return Block(number, rows, stack)
        failed = rows_due(self.job, number, len(self.boxes), size)
        there = [row for row in rows if row not in failed]
        try:
            kept = read_block(block_path(self.job.folder, number)) if self.job.layout == "blocks" else []
        except BadSample:
            kept = []
        if len(kept) != len(there):  # damaged, or in files of their own: all of it again
            return Block(number, rows, stack)
        return Block(number, failed, stack, dict(zip(there, kept, strict=True)), dropped=Counter(stats["dropped"]))

    def _compute(self, block: Block, first: Any, following: Iterator[Any]) -> None:
        """Batches never cross the border of a block, so that what is computed does not depend on where a run began."""
        rows = iter(block.rows)
        batch: list[tuple[int, Prepared]] = []
        for at, row in enumerate(rows):
            found = self._named(first if at == 0 else next(following))
            if isinstance(found, BadSample):
                block.waiting[row] = found
                self._fail(row, found)
            else:
                block.dropped.update(found.dropped)
                batch.append((row, found))
            if len(batch) == self.at_once or (batch and at + 1 == len(block.rows)):
                self._segment(block, batch)
                batch = []
            process_pending_signals()

    def _named(self, found: Prepared | BadSample) -> Prepared | BadSample:
        """Published label files are called after their pictures, which must have a name."""
        if self.job.layout == "blocks" or isinstance(found, BadSample):
            return found
        try:
            label_name(found.listed.file_name)
        except BadSample as error:
            return error
        return found

    def _segment(self, block: Block, batch: Sequence[tuple[int, Prepared]]) -> None:
        masks = self.segmenter([found.ready for _, found in batch if found.ready is not None])
        for row, found in batch:
            future: Future[list[Found]] = Future()
            if found.ready is None:
                future.set_result([])
            else:
                made = next(masks)
                if isinstance(made, BadSample):
                    block.waiting[row] = made
                    self._fail(row, made)
                    continue
                future = self.executor.submit(
                    finishing.finish, made.packed, made.scores.tolist(), made.stability.tolist(), found.boxes,
                    found.corners, self.options,
                )  # fmt: skip
            block.waiting[row] = found._replace(ready=None), future
            self._count(len(found.boxes))

    def _count(self, boxes: int) -> None:
        self.progress.pictures += 1
        self.progress.boxes += boxes
        self.report.made.update(pictures=1, boxes=boxes)

    def _fail(self, row: int, error: BadSample) -> None:
        self.progress.pictures += 1
        self.progress.bad += 1
        self.bad.append({"item": row, "reason": error.reason, "detail": error.detail})
        stop_at_max_bad(self.job.max_bad, self.progress.total, self.bad, None, "pictures", "finished blocks are kept")

    def _write(self, block: Block) -> None:
        """The block's files, the stats last."""
        lines, bad = dict(block.before), []
        for row, found in block.waiting.items():
            if isinstance(found, BadSample):
                bad.append({"item": row, "reason": found.reason, "detail": found.detail})
                continue
            prepared, future = found
            listed, (width, height) = prepared.listed, prepared.size
            lines[row] = Labelled(listed.image_id, listed.file_name, listed.url, width, height, future.result())
        pictures = [lines[row] for row in sorted(lines)]
        temporary = self.job.state / f"{block.number:05d}.tmp"  # of whoever holds the block's lock
        if self.job.layout == "blocks":
            written = write_block(block_path(self.job.folder, block.number), pictures, temporary)
        else:
            written = write_published(self.job.folder, pictures, temporary)
        objects = [each for picture in pictures for each in picture.objects]
        lowest = [(min(each.score for each in p.objects), n) for n, p in enumerate(pictures) if p.objects]
        worst, usual = sorted(lowest)[:_WORST], lowest[block.number % len(lowest)] if lowest else None
        stats = {
            "block": block.number, "pictures": len(pictures), **finishing.count(objects, SCORE_BINS),
            "dropped": dict(sorted(block.dropped.items())), **written,
            "worst": [{"line": line, "score": score} for score, line in worst],
            "usual": None if usual is None else {"line": usual[1], "score": usual[0]}, "bad": bad,
        }  # fmt: skip
        write_json(stats_path(self.job.state, block.number), stats, temporary)
        block.stack.close()
