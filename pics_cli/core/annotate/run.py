"""The run: which blocks are this process's, pictures through workers and model, a file for each block."""

from __future__ import annotations

import contextlib
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pics_cli.core.annotate import finish as finishing
from pics_cli.core.annotate import sam as models
from pics_cli.core.annotate.boxes import BoxSource, open_boxes
from pics_cli.core.annotate.job import SCORE_BINS, Job, Progress, Report
from pics_cli.core.annotate.labels import Found, Labelled, block_path, read_block, read_stats, stats_path, write_block
from pics_cli.core.annotate.output import check_folder, claim_folder, label_identity, options_of, write_manifest
from pics_cli.core.annotate.prepare import Prepared, prepare
from pics_cli.core.annotate.published import write_published
from pics_cli.core.annotate.segment import Segmenter
from pics_cli.core.data.bad import stop_at_max_bad
from pics_cli.core.executors import in_order, let_signals_in, local_executor
from pics_cli.core.files import InUse, only_writer, write_json
from pics_cli.core.model.devices import DTYPES, choose_device, choose_dtype
from pics_cli.core.ranks import Ranks
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
    boxes = ranks.each(lambda: _opened(job, ranks, on_index))
    size = options_of(job).block
    device = choose_device(job.device if ranks.device is None or job.device != "auto" else ranks.device)
    dtype = choose_dtype(job.dtype, device)
    precision = next(name for name, each in DTYPES.items() if each == dtype)
    weights = ranks.each(lambda: models.find(job.sam, job.checkpoint))
    wanted = label_identity(job, boxes, weights, precision)
    ranks.together(lambda: check_folder(job, wanted))
    mine = _blocks(job, len(boxes), size)[ranks.rank :: ranks.size]
    todo = [block for block in mine if job.overwrite or _is_due(job, block)]
    progress.doing = "reading the model"
    model = ranks.each(lambda: models.load(weights, device, dtype) if todo else None)
    progress.doing = ""
    # Not before the model is known to be one: what cannot be begun leaves no folder.
    ranks.together(lambda: claim_folder(job, wanted, len(boxes)) if ranks.rank == 0 else None)
    progress.total, progress.before = (sum(_length(b, len(boxes), size) for b in some) for some in (todo, mine))
    progress.before -= progress.total
    report = Report()

    def work() -> None:
        if model is None:
            return
        segmenter = Segmenter(
            model, batch_images=job.batch_images, batch_boxes=job.batch_boxes, multimask=job.multimask, note=note
        )
        begun = time.monotonic()
        with local_executor(job.workers) as executor:
            _Run(job, boxes, segmenter, weights.shape.side, executor, progress, report).go(todo)
        report.seconds = time.monotonic() - begun

    ranks.together(work)
    everyone = ranks.gather((dict(report.made), report.seconds, report.held))
    report.made = sum((Counter(made) for made, _, _ in everyone), Counter[str]())
    report.seconds = max(seconds for _, seconds, _ in everyone)
    report.held = list(dict.fromkeys(line for _, _, held in everyone for line in held))
    report.manifest = ranks.together(lambda: write_manifest(job, wanted, boxes, size) if ranks.rank == 0 else {})[0]
    return report


def _opened(job: Job, ranks: Ranks, on_index: Callable[[Path], None]) -> BoxSource:
    source = job.source
    found = open_boxes(source.recipe, source.split, source.raw, on_index if ranks.rank == 0 else None)
    low, high = job.rows
    if low >= len(found) or (high is not None and high <= low):
        shown = f"{low}:{'' if high is None else high}"
        raise PicsError(
            f"--range {shown}: the dataset has pictures 0 to {len(found) - 1:,}" if len(found) else
            f"{found.place}: lists no picture",
            "expected LOW:HIGH with LOW below HIGH; HIGH itself is not included",
        )  # fmt: skip
    return found


def _blocks(job: Job, pictures: int, size: int) -> list[int]:
    """Blocks whose first picture lies in the range."""
    low, high = job.rows
    stop = pictures if high is None else min(high, pictures)
    return list(range(-(-low // size), -(-stop // size)))


def _length(block: int, pictures: int, size: int) -> int:
    return min((block + 1) * size, pictures) - block * size


def _is_due(job: Job, block: int) -> bool:
    stats = read_stats(job.state, block)
    return bool(stats and stats["bad"]) if job.retry else stats is None


@dataclass
class _Block:
    """A block in the making.

    Attributes:
        number: its own.
        rows: of its pictures that are to be made.
        stack: holds its lock.
        waiting: labels of each row, as they come; what is wrong with a picture; or what was there.
    """

    number: int
    rows: list[int]
    stack: contextlib.ExitStack
    before: dict[int, Labelled] = field(default_factory=dict)
    waiting: dict[int, tuple[Prepared, Future[list[Found]]] | BadSample] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)

    def is_done(self) -> bool:
        """Whether nothing is being computed any more."""
        return len(self.waiting) == len(self.rows) and all(
            isinstance(each, BadSample) or each[1].done() for each in self.waiting.values()
        )


class _Run:
    """This process's share of the blocks."""

    def __init__(
        self, job: Job, boxes: BoxSource, segmenter: Segmenter, side: int, executor: Executor, progress: Progress,
        report: Report,
    ) -> None:  # fmt: skip
        self.job, self.boxes, self.segmenter, self.side, self.executor = job, boxes, segmenter, side, executor
        self.progress, self.report, self.options = progress, report, options_of(job)
        self.bad: list[dict[str, Any]] = []
        self.claimed: deque[_Block] = deque()

    def go(self, blocks: Sequence[int]) -> None:
        """Make the blocks; those that another run is at are left to it."""
        ahead = 2 * self.job.batch_images + self.job.workers
        running: deque[_Block] = deque()
        try:
            # Claimed as pictures are begun ahead, taken in the same order as they come.
            pictures = in_order(self.executor, ahead, prepare, self._arguments(blocks))
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

    def _claim(self, number: int) -> _Block | None:
        stack = contextlib.ExitStack()
        lock = f".{number:05d}.lock"
        try:
            stack.enter_context(only_writer(self.job.state, lock))
        except InUse as error:
            self.report.held.append(error.message)
            return None
        if not _is_due(self.job, number):  # another run was faster
            stack.close()
            return None
        size = self.options.block
        rows = list(range(number * size, number * size + _length(number, len(self.boxes), size)))
        stats = read_stats(self.job.state, number)
        if stats is None:
            return _Block(number, rows, stack)
        failed = [entry["item"] for entry in stats["bad"]]
        there = [row for row in rows if row not in failed]
        try:
            kept = read_block(block_path(self.job.folder, number)) if self.job.layout == "blocks" else []
        except BadSample:
            kept = []
        if len(kept) != len(there):  # damaged, or in files of their own: all of it again
            return _Block(number, rows, stack)
        return _Block(number, failed, stack, dict(zip(there, kept, strict=True)), dropped=Counter(stats["dropped"]))

    def _compute(self, block: _Block, first: Any, following: Iterator[Any]) -> None:
        """Batches never cross the border of a block, so that what is computed does not depend on where a run began."""
        rows = iter(block.rows)
        batch: list[tuple[int, Prepared]] = []
        for at, row in enumerate(rows):
            found = first if at == 0 else next(following)
            if isinstance(found, BadSample):
                block.waiting[row] = found
                self._fail(row, found)
            else:
                block.dropped.update(found.dropped)
                batch.append((row, found))
            if len(batch) == self.job.batch_images or (batch and at + 1 == len(block.rows)):
                self._segment(block, batch)
                batch = []
            let_signals_in()

    def _segment(self, block: _Block, batch: Sequence[tuple[int, Prepared]]) -> None:
        masks = self.segmenter([found.ready for _, found in batch if found.ready is not None])
        for row, found in batch:
            future: Future[list[Found]] = Future()
            if found.ready is None:
                future.set_result([])
            else:
                made = next(masks)
                future = self.executor.submit(
                    finishing.finish, finishing.pack(made.masks), made.scores.tolist(), made.stability.tolist(),
                    found.boxes, found.corners, self.options,
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
        what = {"what": "pictures or records", "kept": "finished blocks are kept"}
        stop_at_max_bad(self.job.max_bad, self.progress.total, self.bad, self.boxes.bad, **what)

    def _write(self, block: _Block) -> None:
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
        worst = sorted((min(each.score for each in p.objects), n) for n, p in enumerate(pictures) if p.objects)[:_WORST]
        stats = {
            "block": block.number, "pictures": len(pictures), **finishing.count(objects, SCORE_BINS),
            "dropped": dict(sorted(block.dropped.items())), **written,
            "worst": [{"line": line, "score": score} for score, line in worst], "bad": bad,
        }  # fmt: skip
        write_json(stats_path(self.job.state, block.number), stats, temporary)
        block.stack.close()
