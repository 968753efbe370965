"""Out of memory, told as what to do; and how much was used."""

from __future__ import annotations

import contextlib
import resource
import sys
from collections.abc import Iterator

import cv2
import torch

from pics_cli.core.inference.job import Job
from pics_cli.errors import PicsError

# How torch's allocators for CUDA, Apple GPUs and the CPU begin.
_WORDS = ("out of memory", "can't allocate memory", "alloc_failed", "insufficient memory")


@contextlib.contextmanager
def memory_told(job: Job, device: torch.device) -> Iterator[None]:
    """Turn running out of memory into an error that names the cheaper flags.

    Raises:
        PicsError: out of memory, of the device or of the machine.
    """
    try:
        yield
    except (MemoryError, RuntimeError, cv2.error) as error:
        if not isinstance(error, MemoryError) and not any(words in str(error).lower() for words in _WORDS):
            raise
        first = (str(error).strip() or "no more can be allocated").splitlines()[0]
        raise PicsError(f"out of memory on {device} ({first[:200]})", advice(job, device)) from None


def advice(job: Job, device: torch.device) -> str:
    """Which flags make this job cheaper."""
    flags = []
    if job.batch_size > 1:
        flags.append("--batch-size 1")
    if job.num > 1:
        flags.append("a smaller --num (candidates of later runs differ by --seed)")
    if device.type != "cpu":
        flags += {"sequential": ["--memory offload"], "offload": []}.get(
            job.memory, ["--memory sequential", "--memory offload"]
        )
        if job.dtype == "fp32":
            flags.append("--dtype bf16")
        return f"try {', then '.join(flags or ['--device cpu'])}; what is finished is kept"
    return f"try {', then '.join([*flags, 'closing other programs'])}; what is finished is kept"


def start_measuring(device: torch.device) -> None:
    """Forget the peak so far, where that can be."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak(device: torch.device) -> tuple[int, str]:
    """Bytes at the peak, and of what: `cuda`: allocated there; `process`: resident, since it began."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device), "cuda"
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "process"
