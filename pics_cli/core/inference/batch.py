"""Batches of samples through the network and back into their pictures.

B: samples of a batch, n: candidates of each, K: objects, S: model size.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from pics_cli.core.images.cutouts import is_blank
from pics_cli.core.images.geometry import Box
from pics_cli.core.images.image_io import RGB
from pics_cli.core.inference import sheets
from pics_cli.core.inference.job import Failure, Job, Progress, Report
from pics_cli.core.inference.paste import changed_outside, corrected, native, paste_back
from pics_cli.core.inference.plan import Task, composed_path, explain_paths, grid_path
from pics_cli.core.inference.prepare import Prepared, inputs_of, painters_of, prepare
from pics_cli.core.inference.record import write_composite
from pics_cli.core.inference.settings import Settings
from pics_cli.core.model.blending import LayerBlend
from pics_cli.core.model.devices import peak_memory, reset_peak_memory
from pics_cli.core.model.gate_trace import GateTrace
from pics_cli.core.model.pics_model import PicsModel

Painters = Sequence[Callable[[RGB], None]]


class Composite(NamedTuple):
    """A finished picture: whose, which candidate, uint8 [H, W, 3]."""

    sample: Prepared
    candidate: int
    picture: RGB


class _Made(NamedTuple):
    """What the network made: pictures uint8 [B, n, S, S, 3], and what it did to its hint, where that is known."""

    pictures: npt.NDArray[np.uint8]
    blend: LayerBlend | None


class Compositor:
    """Makes the pictures of tasks.

    Args:
        job, settings: what is asked for.
        pipeline: the model.
        progress, report: updated as the work goes on.
        versions: of the libraries, for the records.
    """

    def __init__(
        self, job: Job, settings: Settings, pipeline: PicsModel, progress: Progress, report: Report,
        versions: dict[str, str],
    ) -> None:  # fmt: skip
        self.job, self.settings, self.pipeline = job, settings, pipeline
        self.progress, self.report, self.versions = progress, report, versions

    def run(self, tasks: Sequence[Task]) -> None:
        """Make and write every picture of the tasks, and their sheets; a sample that is at fault is a failure."""
        self.progress.of_steps = sum(map(self._steps, tasks))
        self.progress.of_pictures = sum(len(task.candidates) for task in tasks)
        self.progress.started = time.monotonic()
        batches = list(_batches(tasks, self.job.batch_size))
        # The next batch is read while this one is computed.
        with ThreadPoolExecutor(1) as reader:
            ahead = [reader.submit(self._prepare, batch) for batch in batches[:1]]
            for following in [*batches[1:], None]:
                ready = ahead.pop().result()
                if following is not None:
                    ahead.append(reader.submit(self._prepare, following))
                self._make([one for one in ready if isinstance(one, Prepared)])
                self._fail([one for one in ready if isinstance(one, Failure)], tasks)

    def _steps(self, task: Task) -> int:
        runs = len(task.files.objects) * len(task.candidates) if self.settings.mode == "sequential" else 1
        return self.settings.steps * runs

    def _prepare(self, batch: Sequence[Task]) -> list[Prepared | Failure]:
        return [prepare(task, self.settings, self.pipeline.config) for task in batch]

    def _fail(self, failures: Sequence[Failure], tasks: Sequence[Task]) -> None:
        self.report.failures += failures
        names = {failure.id for failure in failures}
        for task in tasks if names else ():
            if task.files.id in names:
                self.progress.of_steps -= self._steps(task)
                self.progress.of_pictures -= len(task.candidates)

    def _make(self, batch: Sequence[Prepared]) -> None:
        if not batch:
            return
        reset_peak_memory(self.pipeline.device)
        self.progress.sample = ", ".join(one.task.files.id for one in batch)
        trace = GateTrace() if self.job.explain and self.settings.mode == "parallel" else None
        composites = self._one_by_one(batch) if self.settings.mode == "sequential" else self._together(batch, trace)
        count = len(batch) * len(batch[0].task.candidates)
        begun = mark = time.monotonic()
        shared = None
        for composite in composites:
            spent = time.monotonic() - mark
            if shared is None:  # the first comes when the network is done with all of them
                shared, spent = spent / count, 0.0
            self._write(composite, shared + spent)
            mark = time.monotonic()
        self.report.seconds += mark - begun
        self.report.unguided += [(one.task.files.id, one.unguided) for one in batch if one.unguided]
        if self.job.explain:
            sheets.write_explanations(self.job.output, self.pipeline, batch, trace)
        if self.job.grid:
            for one in batch:
                sheets.write_grid(self.job.output, one.task, one.inputs, self.job.num)

    def _together(self, batch: Sequence[Prepared], trace: GateTrace | None) -> Iterator[Composite]:
        """All objects of a sample in one pass."""
        bias = None if batch[0].bias is None else torch.tensor([one.bias for one in batch])
        made = self._call([one.network for one in batch], self._noise(batch, 0), bias, trace)
        for b, one in enumerate(batch):
            paint = self._painters(made, one.seen, one.boxes, one.inputs.references, one.known)
            for n, candidate in enumerate(one.task.candidates):
                picture = _native(made, b, n, one.seen, paint)
                boxes = self._painted(one.inputs.boxes, one.inputs.references)
                done = _put_back(one.inputs.background, picture, one.window, boxes, one.feather)
                yield Composite(one, candidate, done)

    def _one_by_one(self, batch: Sequence[Prepared]) -> Iterator[Composite]:
        """The objects of a sample one after the other, from back to front, each into the picture with those before."""
        seen = [[one.seen for _ in one.task.candidates] for one in batch]
        for step in range(len(batch[0].boxes)):
            noise = self._noise(batch, step)
            entries = [(b, n) for b in range(len(batch)) for n in range(len(seen[b]))]
            for some in _pieces(entries, self.job.batch_size):
                inputs = []
                for b, n in some:
                    k = batch[b].order[step]
                    boxes, references = [batch[b].boxes[k]], [batch[b].inputs.references[k]]
                    inputs.append(inputs_of(seen[b][n], boxes, references, self.pipeline.config))
                made = self._call(inputs, torch.stack([noise[b, n] for b, n in some])[:, None], None, None)
                for at, (b, n) in enumerate(some):
                    whole = (0, 0, seen[b][n].shape[1], seen[b][n].shape[0])
                    k = batch[b].order[step]
                    boxes, references = [batch[b].boxes[k]], [batch[b].inputs.references[k]]
                    paint = self._painters(made, seen[b][n], boxes, references, None)
                    picture = _native(made, at, 0, seen[b][n], paint)
                    boxes = self._painted(boxes, references)
                    seen[b][n] = _put_back(seen[b][n], picture, whole, boxes, batch[b].feather)
        for b, one in enumerate(batch):
            x0, y0, x1, y1 = one.window
            for n, candidate in enumerate(one.task.candidates):
                picture = one.inputs.background.copy()
                picture[y0:y1, x0:x1] = seen[b][n]
                yield Composite(one, candidate, picture)

    def _painted(self, boxes: Sequence[Box], references: Sequence[RGB]) -> list[Box]:
        """The regions that are painted: not those of empty references, where the hint shows the background as it is."""
        kept = self.pipeline.config.hint in ("background", "collage")  # which blank or fill every region
        return [box for box, each in zip(boxes, references, strict=True) if kept or not is_blank(each)]

    def _painters(
        self, made: _Made, seen: RGB, boxes: Sequence[Box], references: Sequence[Any], order: Sequence[int] | None
    ) -> Painters:
        """What makes the hint's pictures at a window's size; nothing where no blend wants them."""
        return () if made.blend is None else painters_of(seen, boxes, references, self.pipeline.config, order)

    def _noise(self, batch: Sequence[Prepared], step: int) -> torch.Tensor:
        """float32 [B, n, c, h, w]."""
        return torch.stack(
            [
                torch.stack(
                    [self.pipeline.noise(self.job.seed, one.task.files.id, n, step) for n in one.task.candidates]
                )
                for one in batch
            ]
        )

    def _call(
        self, inputs: Sequence[Any], noise: torch.Tensor, bias: torch.Tensor | None, trace: GateTrace | None
    ) -> _Made:
        before = self.progress.steps
        config = self.pipeline.config
        blends: list[LayerBlend] | None = [] if config.correct_hint and config.on_pixels else None

        def on_step(number: int, count: int) -> None:
            self.progress.step, self.progress.last_step = number, count
            # Some schedulers take more steps than were asked for.
            self.progress.steps = before + len(inputs) * self.settings.steps * number / count

        pictures = self.pipeline(
            inputs,
            noise,
            steps=self.settings.steps,
            guidance=self.settings.guidance,
            scheduler=self.settings.scheduler,
            order_bias=bias,
            callback_on_step_end=on_step,
            trace=trace,
            layer_blends=blends,
        )
        return _Made(pictures, blends[0] if blends else None)

    def _write(self, composite: Composite, seconds: float) -> None:
        one, candidate, picture = composite
        files, used = one.task.files, peak_memory(self.pipeline.device)
        changed = int(changed_outside(one.inputs.background, picture, one.inputs.boxes))
        path = composed_path(self.job.output, files.id, candidate)
        record = {
            "id": files.id,
            "candidate": candidate,
            "file": f"composed/{path.name}",
            **one.task.record,
            "size": [picture.shape[1], picture.shape[0]],
            "boxes": one.inputs.boxes,
            "window": one.window,
            "feather": one.feather,
            "order": one.order,
            "unguided": one.unguided,
            "changed_outside": changed,
            "seconds": round(seconds, 3),
            "peak_memory": {"bytes": used[0], "of": used[1]},
            "run": {
                "device": str(self.pipeline.device),
                "memory": self.pipeline.memory,
                "batch_size": self.job.batch_size,
                "compiled": self.job.compile,
            },
            "versions": self.versions,
        }
        # Sheets of a picture that was there before would outlive it where this run makes none, or is stopped.
        for sheet in (grid_path(self.job.output, files.id), *explain_paths(self.job.output, files.id)):
            sheet.unlink(missing_ok=True)
        write_composite(path, picture, record)
        self.report.made += 1
        self.report.changed += changed
        self.report.peak = max(self.report.peak, used)
        self.progress.pictures += 1


def _put_back(background: RGB, picture: RGB, window: Box, boxes: Sequence[Box], feather: int) -> RGB:
    return paste_back(background, picture, window, boxes, feather) if boxes else background.copy()


def _native(made: _Made, b: int, n: int, seen: RGB, paint: Painters) -> RGB:
    """Candidate n of composite b at the size of its window, uint8 [h, w, 3]."""
    if made.blend is None:
        return native(made.pictures[b, n], seen.shape[1], seen.shape[0])
    return corrected(seen, paint, *(each[b, n].numpy() for each in made.blend))


def _batches(tasks: Sequence[Task], size: int) -> Iterator[list[Task]]:
    """Consecutive tasks with as many objects and the same number of candidates."""
    for _, group in groupby(tasks, lambda task: (len(task.files.objects), len(task.candidates))):
        yield from _pieces(list(group), size)


def _pieces(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
