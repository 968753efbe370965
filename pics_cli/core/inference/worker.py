"""One process's share of a run: samples are read, composited and written."""

from __future__ import annotations

import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from pics_cli import __version__
from pics_cli.core.images.output_formats import check_format
from pics_cli.core.inference.batch_compositor import DenoisingStep
from pics_cli.core.inference.composite import CompositeResult, composite
from pics_cli.core.inference.cutout import Method, ReferenceCutter
from pics_cli.core.inference.inputs import decode, part_hashes, read_parts
from pics_cli.core.inference.layer_files import remove_layers, write_layers
from pics_cli.core.inference.layers import merge, values_differing
from pics_cli.core.inference.marking import creation_date
from pics_cli.core.inference.pick import Score, remove_pick, write_pick
from pics_cli.core.inference.plan import (
    FailedSample,
    InferenceJob,
    Task,
    composed_path,
    explain_paths,
    grid_path,
    layers_path,
    needs_grid,
    needs_pick,
    other_formats,
)
from pics_cli.core.inference.record import creation_record, input_record, write_composite
from pics_cli.core.inference.sample import CompositeOptions, CompositeSample
from pics_cli.core.inference.sheets import write_explanation, write_grid
from pics_cli.core.model.config import ModelConfig
from pics_cli.core.model.devices import peak_memory, reset_peak_memory
from pics_cli.core.runtime.progress import Progress
from pics_cli.core.runtime.storage import remove_files
from pics_cli.errors import BadSample

if TYPE_CHECKING:
    from pics_cli.core.model.pics_model import PicsModel

# What part of its box an object takes where the box is half as wide, or as high, again: less is told.
_SMALL_SHARE = 1 / 1.5
LIBRARIES = ("torch", "diffusers", "transformers", "numpy", "opencv-python-headless")


@dataclass
class InferenceProgress(Progress):
    """A process's progress in denoising steps: those of a batch count for each of its samples.

    Attributes:
        pictures, total_pictures: written so far, and how many there will be.
        sample: names of the samples being composited.
        step, last_step: of the denoising of these.
        started: when the first was begun (`time.monotonic`); None before that.
        failed_steps, failed_pictures: that were in the totals and are not any more.
    """

    pictures: int = 0
    total_pictures: int = 0
    sample: str = ""
    step: int = 0
    last_step: int = 0
    started: float | None = None
    failed_steps: int = 0
    failed_pictures: int = 0

    def fail(self, steps: int, pictures: int) -> None:
        """Take out of the totals what a sample would have had, had it not failed."""
        self.total, self.failed_steps = self.total - steps, self.failed_steps + steps
        self.total_pictures, self.failed_pictures = self.total_pictures - pictures, self.failed_pictures + pictures

    def add(self, block: Progress) -> None:
        """As that of `Progress`."""
        super().add(block)
        assert isinstance(block, InferenceProgress)
        self.pictures += block.pictures
        self.fail(block.failed_steps, block.failed_pictures)

    @property
    def detail(self) -> str:
        """Current samples, their step, pictures written, and seconds a picture."""
        words = []
        if self.sample:
            words.append(f"sample {self.sample}")
        if self.last_step:
            words.append(f"step {self.step}/{self.last_step}")
        if self.total_pictures:
            words.append(f"{self.pictures}/{self.total_pictures} pictures")
        if self.started is not None and self.pictures:
            words.append(f"{(time.monotonic() - self.started) / self.pictures:,.1f} s a picture")
        return ", ".join(words)


@dataclass
class InferenceReport:
    """How a run ended: of one process, or of all.

    Attributes:
        samples: asked for.
        finished_before: pictures of earlier runs.
        written: pictures written.
        seconds: spent on them.
        peak: bytes of memory, and whose: `cuda` or `process`.
        changed: pixels that differ outside the regions, over all pictures.
        layered: pictures whose layers were written.
        differing: values of these in which the layers, put together, are another picture.
        unguided: samples with objects too small for their references to reach, and which objects.
        small: samples with objects that take clearly less than their boxes, whose aspect is another: which objects, and
            what part they take.
        notes: samples with pictures that the user should look at, and why.
        picks: samples and their candidates' scores, where the best was asked for.
        failures: samples that could not be composited.
    """

    samples: int = 0
    finished_before: int = 0
    written: int = 0
    seconds: float = 0.0
    peak: tuple[int, str] = (0, "process")
    changed: int = 0
    layered: int = 0
    differing: int = 0
    unguided: list[tuple[str, list[int]]] = field(default_factory=list)
    small: list[tuple[str, dict[int, float]]] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)
    picks: list[tuple[str, list[Score]]] = field(default_factory=list)
    failures: list[FailedSample] = field(default_factory=list)

    def add(self, other: InferenceReport) -> None:
        """Take in another process's share."""
        self.written += other.written
        self.seconds += other.seconds
        self.peak = max(self.peak, other.peak)
        self.changed += other.changed
        self.layered += other.layered
        self.differing += other.differing
        self.unguided += other.unguided
        self.small += other.small
        self.notes += other.notes
        self.failures += other.failures

    @property
    def remarks(self) -> list[str]:
        """One line for each sample with objects that are too small, or smaller than their boxes."""
        lines = []
        for name, objects in self.unguided:
            shown = ", ".join(map(str, objects))
            lines.append(
                f"{name}: the region of object {shown} is too small beside the others to take in its reference"
            )
        for name, shares in self.small:
            shown = ", ".join(f"object {k} takes {share:.0%}" for k, share in shares.items())
            lines.append(f"{name}: {shown} of its region's place for it, as its aspect is another (see --fit)")
        return lines

    @property
    def reasons(self) -> Counter[str]:
        """Failures by reason."""
        return Counter(failure.reason for failure in self.failures)


def step_count(task: Task, options: CompositeOptions, config: ModelConfig) -> int:
    """Denoising steps of a task, by resolved options."""
    sequential = options.mode == "sequential"
    passes = len(task.files.objects) if sequential else 1
    # Of a model with shadows each candidate has a light, and so a pass, of its own.
    own_passes = config.shadows or sequential
    return (options.steps or 0) * passes * (len(task.candidates) if own_passes else 1)


class Worker:
    """Makes and writes the pictures that tasks lack; samples that cannot be composited are failures in its report.

    Args:
        job: what is asked for.
        options: of the job, resolved.
        common: what every record holds: seed, model, settings.
        cutter: of references without alpha.
        tasks: this process's share.
        progress: updated as the work goes on.
    """

    def __init__(
        self,
        job: InferenceJob,
        options: CompositeOptions,
        common: dict[str, Any],
        cutter: ReferenceCutter,
        tasks: Sequence[Task],
        progress: InferenceProgress,
    ) -> None:
        self.job, self.options, self.common, self.tasks, self.progress = job, options, common, tasks, progress
        self.cutter = cutter
        self.report = InferenceReport()
        creation_date()  # refused now where it is refused at all, not when the first picture is done
        self._steps = options.steps or 0
        self._tasks = {task.files.id: task for task in tasks if task.candidates}
        self._hashes = dict[str, dict[str, str]]()
        self._cutouts = dict[str, list[Method]]()

    def composite_all(self, model: PicsModel, callback_on_step_end: Callable[[], None] | None = None) -> None:
        """Make and write every missing picture, and the sheets of their samples.

        Args:
            model: resident or not.
            callback_on_step_end: called after each denoising step; what it raises stops the work.
        """
        progress = self.progress

        def on_batch_start(batch: Sequence[CompositeSample]) -> None:
            reset_peak_memory(model.device)
            progress.sample = ", ".join(sample.name for sample in batch)

        def on_step_end(step: DenoisingStep) -> None:
            progress.step, progress.last_step = step.number, step.count
            # Some schedulers take more steps than were asked for.
            progress.done += len(step.samples) * self._steps / step.count
            if callback_on_step_end is not None:
                callback_on_step_end()

        self._step_counts = {name: step_count(task, self.options, model.config) for name, task in self._tasks.items()}
        progress.total = sum(self._step_counts.values())
        progress.total_pictures = sum(len(task.candidates) for task in self._tasks.values())
        progress.started = time.monotonic()
        results = composite(
            model,
            self._read_samples(),
            self.options,
            batch_size=self.job.batch_size,
            explain=self.job.explain,
            layers=self.job.layers,
            handle_error=lambda sample, error: self._fail(self._tasks[sample.name], error),
            callback_on_batch_start=on_batch_start,
            callback_on_step_end=on_step_end,
        )
        environment = {
            "run": {
                "device": str(model.device),
                "memory": model.memory,
                "batch_size": self.job.batch_size,
                "compiled": self.job.compile,
            },
            "versions": {
                "pics": __version__,
                "python": platform.python_version(),
                **{name: version(name) for name in LIBRARIES},
            },
        }
        for result in results:
            start = time.monotonic()
            self._write(result, peak_memory(model.device), environment)
            if result.candidate == self._tasks[result.sample.name].candidates[-1]:
                self._pick(result.sample, model.config)
            self.report.seconds += result.seconds + time.monotonic() - start

    def finish_samples(self, config: ModelConfig) -> None:
        """What is missing of samples whose pictures earlier runs made: grids, and which candidate is best."""
        for task in self.tasks:
            if not task.candidates:
                try:
                    sample = self._decode(task, read_parts(task.files))
                    if needs_grid(self.job, sample.name):
                        write_grid(self.job, sample)
                    self._pick(sample, config)
                except BadSample as error:
                    self._fail(task, error)

    def _pick(self, sample: CompositeSample, config: ModelConfig) -> None:
        job = self.job
        failed = sample.name in {failure.id for failure in self.report.failures}
        if job.pick is not None and not failed and needs_pick(job, sample.name):
            paths = [composed_path(job.output, sample.name, candidate, job.format) for candidate in range(job.num)]
            write_pick(job.output, paths, job.pick, sample, self.options, config)

    def _read_samples(self) -> Iterator[CompositeSample]:
        for name, task in self._tasks.items():
            try:
                contents = read_parts(task.files)
                self._hashes[name] = hashes = part_hashes(contents)
                for part, before in (task.hashes or {}).items():
                    if hashes[part] != before:
                        raise BadSample("changed_input", f"{task.files.parts()[part]}: changed since this run began")
                sample = self._decode(task, contents)
            except BadSample as error:
                self._fail(task, error)
            else:
                yield sample

    def _decode(self, task: Task, contents: Mapping[str, bytes]) -> CompositeSample:
        """A sample with its references cut out."""
        sample = decode(task.files, contents, self.job.order, task.candidates, self.job.region)
        lost = [] if sample.stored is None else check_format(sample.stored, self.job.format)
        cut = [
            self.cutter(reference, str(files.reference))
            for reference, files in zip(sample.references, task.files.objects, strict=True)
        ]
        self._cutouts[sample.name] = [reference.method for reference in cut]
        self.report.notes += [(sample.name, note) for note in (*sample.notes, *lost)]
        self.report.notes += [(sample.name, reference.note) for reference in cut if reference.note is not None]
        return replace(sample, references=tuple(reference.picture for reference in cut))

    def _fail(self, task: Task, error: BadSample) -> None:
        self.report.failures.append(FailedSample(task.files.id, error.reason, error.detail))
        if task.candidates:
            self.progress.fail(self._step_counts[task.files.id], len(task.candidates))

    def _write(self, result: CompositeResult, memory: tuple[int, str], environment: dict[str, Any]) -> None:
        job, sample, report = self.job, result.sample, self.report
        path = composed_path(job.output, sample.name, result.candidate, job.format)
        changed = result.changed_outside
        folder = layers_path(job.output, sample.name, result.candidate)
        differing = values_differing(merge(result.layers), result.stored.pixels) if job.layers else 0
        layered = {"layers": {"folder": f"layers/{folder.name}", "values_differing": differing}} if job.layers else {}
        record = {
            "id": sample.name,
            "candidate": result.candidate,
            "file": f"composed/{path.name}",
            **input_record(self._tasks[sample.name].files, self._hashes[sample.name]),
            **self.common,
            **creation_record(job.format),
            "size": [result.image.shape[1], result.image.shape[0]],
            "boxes": sample.boxes,
            "window": result.window,
            "feather": result.feather,
            "order": result.order,
            **({} if result.lighting is None else {"light": result.lighting.to_json()}),
            "unguided": result.unguided,
            "cutouts": self._cutouts[sample.name],
            **({"notes": sample.notes} if sample.notes else {}),
            "shares": [round(share, 3) for share in result.shares],
            **({} if sample.keep is None else {"kept": int(np.count_nonzero(sample.keep))}),
            "changed_outside": changed,
            **layered,
            "seconds": round(result.seconds, 3),
            "peak_memory": {"bytes": memory[0], "of": memory[1]},
            **environment,
        }
        # Sheets of a replaced picture would outlive it where this run makes none, or is stopped.
        remove_files([grid_path(job.output, sample.name), *explain_paths(job.output, sample.name)])
        remove_pick(job.output, sample.name)
        try:
            write_composite(path, result.stored, record, job.format)
        except BadSample as error:
            if sample.name not in {failure.id for failure in report.failures}:
                self._fail(self._tasks[sample.name], error)
            return
        remove_files(other_formats(path))
        remove_layers(folder)
        if job.layers:
            write_layers(folder, result.layers)
            report.layered += 1
            report.differing += differing
        if result.candidate == sample.candidates[-1]:
            if result.unguided:
                report.unguided.append((sample.name, result.unguided))
            if small := {k: share for k, share in enumerate(result.shares) if share < _SMALL_SHARE}:
                report.small.append((sample.name, small))
            if result.explanation is not None:
                write_explanation(job.output, sample.name, result.explanation)
            if job.grid:
                write_grid(job, sample)
        report.written += 1
        report.changed += changed
        report.peak = max(report.peak, memory)
        self.progress.pictures += 1
