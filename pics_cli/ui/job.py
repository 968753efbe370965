"""A composite that somebody asked for: how far it is, and what the page reads of it."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pics_cli.core.inference.inputs import SampleFiles
from pics_cli.core.inference.plan import EXPLANATIONS, InferenceJob, explain_path
from pics_cli.core.inference.worker import InferenceProgress, InferenceReport
from pics_cli.errors import BadSample, PicsError

logger = logging.getLogger(__name__)

State = Literal["queued", "running", "done", "failed", "cancelled"]


class Cancelled(Exception):
    """The person who asked for it does not want it any more."""


@dataclass(eq=False)
class Job:
    """A composite that somebody asked for.

    Attributes:
        number: of the job in its session, from 1.
        job: what to do.
        sample: the files, copies that nobody changes.
        folder: of the job, with these and the results.
        progress: of the denoising.
        state: how far it is.
        error: what the user reads, where it failed.
        report: how it went, where it is done.
    """

    number: int
    job: InferenceJob
    sample: SampleFiles
    folder: Path
    progress: InferenceProgress = field(default_factory=InferenceProgress)
    state: State = "queued"
    error: str = ""
    report: InferenceReport | None = None
    _cancelled: threading.Event = field(default_factory=threading.Event)

    @property
    def pending(self) -> bool:
        """Whether it is not over yet."""
        return self.state in ("queued", "running")

    def cancel(self) -> None:
        """Stop it at the end of its denoising step, or before it begins."""
        self._cancelled.set()

    def check(self) -> None:
        """Raise Cancelled where it is not wanted any more."""
        if self._cancelled.is_set():
            raise Cancelled


def job_json(job: Job, ahead: int) -> dict[str, Any]:
    """A job as plain data; `ahead`: number of jobs before it."""
    progress, report = job.progress, job.report
    done = (
        {} if report is None else {"seconds": report.seconds, "changed": report.changed, "differing": report.differing}
    )
    notes = [] if report is None else [*report.remarks, *(f"{name}: {note}" for name, note in report.notes)]
    return {
        "number": job.number,
        "state": job.state,
        "ahead": ahead,
        "share": progress.done / progress.total if progress.total else 0.0,
        "detail": progress.detail,
        "error": job.error,
        "notes": notes,
        "num": job.job.num,
        "layers": job.job.layers,
        "seed": job.job.options.seed,
        "explained": [name for name in EXPLANATIONS if explained_file(job, name).exists()],
        **done,
    }


def explained_file(job: Job, what: str) -> Path:
    """Path of a sheet of a job's explanation."""
    return explain_path(job.job.output, job.sample.id, what)


def error_text(error: Exception) -> str:
    """What the user reads of an error: the command line's words."""
    if isinstance(error, PicsError):
        return error.text
    if isinstance(error, BadSample):
        return f"error: {error.detail}"
    what = f"{type(error).__name__}: {' '.join(str(error).split())}"
    logger.error("%s", what, exc_info=error)
    return f"error: {what}\n\nhint: this is a fault of pics; please report it with what the server printed"
