"""Processes that read samples: how they begin, and how they end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

import cv2

from pics_cli.core.executors import end_with_parent
from pics_cli.errors import FAILED, PicsError

# Seconds that the end of a worker may take after its connection.
_GONE = 5.0


def start_worker(_: int) -> None:
    """Signals to all processes of a job are for the main one alone, which still wants samples for the step it is in."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_when_told, daemon=True).start()
    end_with_parent()
    cv2.setNumThreads(0)


def _end_when_told() -> None:
    """By the main process, that is, and not by whoever asks the whole job to end."""
    parent = multiprocessing.parent_process()  # not the process that forked this one, where a server does that
    while parent is not None and signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent.pid:
        pass
    os._exit(0)


def worker_died(error: Exception, workers: Sequence[BaseProcess] = ()) -> PicsError | None:
    """What the user reads where a loader's worker ended of itself, or could not hand over what it read.

    Args:
        error: as PyTorch raised it.
        workers: the processes.

    Returns:
        None for another error.
    """
    if workers and not isinstance(error, RuntimeError):  # one broke off, but may not be gone quite yet
        ends = wait([worker.sentinel for worker in workers], _GONE)
        for worker in workers:
            if worker.sentinel in ends:
                worker.join(_GONE)
    codes = [worker.exitcode for worker in workers]
    fewer = "run the same command again with fewer --set data.workers: it resumes"
    if "open files" in str(error):
        return PicsError("too many open files", f"allow more (ulimit -n 65536), or {fewer}", FAILED)
    if -signal.SIGBUS in codes:
        hint = f"give the container more (docker run --shm-size=8g), or {fewer}"
        return PicsError("a process that reads samples ran out of shared memory", hint, FAILED)
    if any(codes) or "DataLoader worker (pid" in str(error):
        return PicsError("a process that reads samples died; often the machine ran out of memory", fewer, FAILED)
    return None
