"""One job at a time, in the order that they came."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from pics_cli.core.inference.worker import InferenceReport
from pics_cli.ui.job import Cancelled, Job, State, error_text


class Queue:
    """Runs jobs in a thread of its own, first come, first served.

    Args:
        run: does a job.
    """

    def __init__(self, run: Callable[[Job], InferenceReport]) -> None:
        self._run = run
        self._waiting = deque[Job]()
        self._running: Job | None = None
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="pics-ui-queue", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Put a job at the end."""
        with self._changed:
            self._waiting.append(job)
            self._changed.notify_all()

    def cancel(self, job: Job) -> None:
        """Take a job out, or stop it at the end of its step."""
        with self._changed:
            job.cancel()
            if job in self._waiting:
                self._waiting.remove(job)
                job.state = "cancelled"

    def ahead(self, job: Job) -> int:
        """Number of jobs that come before this one, the running one included."""
        with self._changed:
            return self._waiting.index(job) + (self._running is not None) if job in self._waiting else 0

    def wait(self, job: Job, seconds: float | None = None) -> None:
        """Wait until a job is over, or for some seconds."""
        with self._changed:
            self._changed.wait_for(lambda: not job.pending, seconds)

    def close(self) -> None:
        """Stop what runs at the end of its step, and drop what waits."""
        with self._changed:
            self._closed = True
            for job in self._waiting:
                job.state = "cancelled"
            self._waiting.clear()
            if self._running is not None:
                self._running.cancel()
            self._changed.notify_all()
        self._thread.join(timeout=10)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                job = self._running = self._waiting.popleft()
                job.state = "running"
            state, error = self._outcome(job)
            with self._changed:
                self._running = None
                job.state, job.error = state, error
                self._changed.notify_all()

    def _outcome(self, job: Job) -> tuple[State, str]:
        try:
            job.check()
            report = self._run(job)
        except Cancelled:
            return "cancelled", ""
        except Exception as error:
            return "failed", error_text(error)
        job.report = report
        if report.failures:
            return "failed", "\n".join(f"error: {failure.detail}" for failure in report.failures)
        return "done", ""
