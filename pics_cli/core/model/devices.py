"""Device and precision of a model, its peak memory, and errors of running out of memory."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator

import torch

from pics_cli.core.runtime.resources import peak_resident_bytes
from pics_cli.errors import PicsError

logger = logging.getLogger(__name__)

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str = "auto", rank_device: str | None = None) -> torch.device:
    """The device of that name; `auto`: a GPU where there is one, else the CPU.

    Args:
        name: `auto`, or a device of torch.
        rank_device: GPU of this process where several share a job; `auto` and its kind, such as `cuda`, mean this one.

    Raises:
        PicsError: there is no such device on this machine.
    """
    if rank_device is not None and name in ("auto", rank_device.partition(":")[0]):
        name = rank_device
    if name == "auto":
        return torch.device(
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
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
    if device.type == "mps" and not torch.backends.mps.is_available():
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
    chosen = torch.float32
    if device.type == "cuda":
        chosen = torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    elif device.type == "cpu" and full_size and cpu_has_bf16():
        chosen = torch.bfloat16
    logger.debug("precision on %s: %s", device, chosen)
    return chosen


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies in bf16; one that emulates it is several times slower than in float32."""
    if not hasattr(torch.cpu, "get_capabilities"):  # before torch 2.11
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


# Parts of the messages of torch's allocators for CUDA, Apple GPUs and the CPU.
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "alloc_failed", "insufficient memory")


def is_out_of_memory(error: Exception) -> bool:
    """Whether an exception says that memory is exhausted."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in _OUT_OF_MEMORY)


@contextlib.contextmanager
def explain_out_of_memory(device: torch.device, advice: Callable[[], str]) -> Iterator[None]:
    """Turn running out of memory into an error with advice.

    Raises:
        PicsError: out of memory, of the device or of the machine.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, PicsError) or not is_out_of_memory(error):
            raise
        first = (str(error).strip() or "no more can be allocated").splitlines()[0]
        raise PicsError(f"out of memory on {device} ({first[:200]})", advice()) from None


def reset_peak_memory(device: torch.device) -> None:
    """Reset the peak on CUDA; that of a process cannot be reset."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> tuple[int, str]:
    """Peak in bytes, and what it counts: `cuda`: allocated on the device; `process`: resident since its start."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device), "cuda"
    return peak_resident_bytes(), "process"
