"""Checkpoint files, safetensors or of `torch.save`: named tensors that stay in the file until they are read."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pics_cli.core.model.inert_pickle import Inert, StoredTensor, open_tensor_file
from pics_cli.core.model.key_mapping import Shape
from pics_cli.core.runtime.files import AtomicFile, open_file
from pics_cli.errors import PicsError, read_error

_SAFETENSORS_DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


@dataclass(frozen=True)
class Checkpoint:
    """An open checkpoint; `read` loads a tensor by name."""

    path: Path
    shapes: Mapping[str, Shape]
    read: Callable[[str], Tensor]
    steps: int | None = None
    """Optimiser steps, where a Lightning checkpoint says so."""
    other_entries: tuple[str, ...] = ()
    """Names of entries that are not tensors."""


def read_weights(path: Path, hint: str) -> dict[str, Tensor]:
    """The tensors of a checkpoint file that holds nothing else, by name, on the CPU.

    Args:
        path: of the file.
        hint: advice where it is readable, but holds something else.

    Raises:
        PicsError: it cannot be read, or holds anything but tensors by name.
    """
    checkpoint = open_checkpoint(path)
    if checkpoint.other_entries:
        raise PicsError(f"{path}: holds {checkpoint.other_entries[0]}, which is not a tensor", hint)
    return {name: checkpoint.read(name) for name in checkpoint.shapes}


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a file of named tensors, without reading them.

    Raises:
        PicsError: no such file, not a checkpoint, damaged, or it holds no named tensors.
    """
    try:
        with open_file(path) as file:
            head = file.read(9)
    except OSError as error:
        raise read_error(path, error, "name the checkpoint file") from None
    if head[8:9] == b"{":
        return _open_safetensors(path)
    # `torch.save` writes a zip archive, and wrote a bare pickle before version 1.6.
    if head.startswith(b"PK") or head.startswith(b"\x80"):
        return _open_torch(path)
    raise PicsError(
        f"{path}: not a checkpoint (neither safetensors nor a file of torch.save)",
        "was the download complete, and not a web page or a git-lfs pointer?",
    )


def _open_safetensors(path: Path) -> Checkpoint:
    try:
        file: Any = safe_open(path, framework="pt")
        shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from None
    return Checkpoint(path, shapes, file.get_tensor)


def _open_torch(path: Path) -> Checkpoint:
    try:
        file = open_tensor_file(path)
    except Exception as error:  # damaged and foreign pickles raise anything
        raise _damaged(path, error) from None
    data: Any = file.data
    state = data.get("state_dict", data) if isinstance(data, dict) else data
    if isinstance(state, Inert):
        raise PicsError(
            f"{path}: holds an object of class {type(state).__name__}, which is not loaded: loading it could run code",
            "save its tensors alone where that class is installed: torch.save of its state_dict, or safetensors",
        )
    if not isinstance(state, dict):
        raise PicsError(f"{path}: holds a {type(state).__name__}, expected named tensors", "name a checkpoint file")
    tensors = {str(key): value for key, value in state.items() if isinstance(value, StoredTensor)}
    if not tensors:
        raise PicsError(f"{path}: holds no tensors", "name a checkpoint file")

    def read(key: str) -> Tensor:
        try:
            return file.read(tensors[key])
        except (OSError, ValueError, RuntimeError) as error:
            raise _damaged(path, ValueError(f"{key}: {error}")) from None

    steps = data.get("global_step")
    return Checkpoint(
        path,
        {key: value.shape for key, value in tensors.items()},
        read,
        steps if isinstance(steps, int) else None,
        tuple(str(key) for key in state if str(key) not in tensors),
    )


def write_safetensors(
    path: Path, shapes: Mapping[str, Shape], dtype: torch.dtype, read: Callable[[str], Tensor]
) -> None:
    """Write a file of safetensors with one tensor in memory at a time, where the library's own takes all at once.

    Args:
        path: of the file; it appears when it is complete.
        shapes: of the tensors, by name.
        dtype: of all of them; a floating-point one.
        read: gives a tensor of that name and shape, of any dtype.

    Raises:
        PicsError: the disk is full, or the file cannot be written.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": _SAFETENSORS_DTYPES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the numbers are aligned to 8 bytes
    with AtomicFile(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in shapes:
            file.write(read(name).to(dtype).contiguous().flatten().view(torch.uint8).numpy().data)


def _damaged(path: Path, error: BaseException) -> PicsError:
    why = (str(error).strip() or type(error).__name__).splitlines()[0]
    return PicsError(f"{path}: a damaged checkpoint: {why}", "download or copy it again")
