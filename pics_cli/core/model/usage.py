"""How much memory was used, and running out of it told as what to do."""

from __future__ import annotations

import contextlib
import resource
import sys
from collections.abc import Callable, Iterator

import torch

from pics_cli.errors import PicsError

# How torch's allocators for CUDA, Apple GPUs and the CPU begin.
_WORDS = ("out of memory", "can't allocate memory", "alloc_failed", "insufficient memory")


def out_of_memory(error: Exception) -> bool:
    """Whether that is what an exception says."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in _WORDS)


@contextlib.contextmanager
def out_of_memory_told(device: torch.device, advice: Callable[[], str]) -> Iterator[None]:
    """Turn running out of memory into an error that says what to do.

    Raises:
        PicsError: out of memory, of the device or of the machine.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, PicsError) or not out_of_memory(error):
            raise
        first = (str(error).strip() or "no more can be allocated").splitlines()[0]
        raise PicsError(f"out of memory on {device} ({first[:200]})", advice()) from None


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
