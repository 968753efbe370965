"""Where and in which precision a model runs."""

from __future__ import annotations

import contextlib
import resource
import sys
from collections.abc import Callable, Iterator

import torch

from pics_cli.errors import PicsError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str = "auto", own: str | None = None) -> torch.device:
    """The device of that name; `auto`: a GPU where there is one, else the CPU.

    Args:
        name: as asked for.
        own: this process's, where there are several and each has its GPU: `auto` and its kind, such as `cuda`, mean it.

    Raises:
        PicsError: there is no such device on this machine.
    """
    if own is not None and name in ("auto", own.partition(":")[0]):
        name = own
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if _has_mps() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda", "mps"):
        raise PicsError(f"--device: got {name}, expected auto, cpu, cuda, cuda:N or mps")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise PicsError(
            f"--device {name}: no CUDA on this machine",
            "take --device cpu, or look at `nvidia-smi` and at which build of torch is installed: "
            f"{torch.__version__} " + (f"is for CUDA {torch.version.cuda}" if torch.version.cuda else "knows no CUDA"),
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise PicsError(f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices, counted from 0")
    if device.type == "mps" and not _has_mps():
        raise PicsError(f"--device {name}: no Apple GPU on this machine", "take --device cpu")
    return device


def choose_dtype(name: str, device: torch.device, full_size: bool = False) -> torch.dtype:
    """The precision to compute in.

    `auto` on a GPU: bf16 where it computes in it, else fp16. On a CPU: fp32, so that results do not depend on the
    machine; but bf16 for a full-size model where the CPU computes in it, since fp32 takes twice the memory and time.

    Args:
        name: a key of `DTYPES`, or `auto`.
        device: where the model runs.
        full_size: whether the model is one; see `ModelConfig.full_size`.

    Raises:
        PicsError: unknown name.
    """
    if name != "auto":
        if name not in DTYPES:
            raise PicsError(f"--dtype: got {name}, expected auto, {', '.join(DTYPES)}")
        return DTYPES[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type == "cpu":
        return torch.bfloat16 if full_size and cpu_has_bf16() else torch.float32
    return torch.float32


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies in bf16; one that emulates it is several times slower than in float32."""
    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16") or found.get("bf16"))


def _has_mps() -> bool:
    return torch.backends.mps.is_available()


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
