"""Checkpoint files, safetensors or of `torch.save`: named tensors that stay in the file until they are read."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pics_cli.core.model.key_mapping import Shape
from pics_cli.errors import PicsError, read_error


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
        PicsError: no such file, not a checkpoint, damaged, or it holds objects and not tensors and plain values alone.
    """
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise read_error(path, error, "name the checkpoint file") from None
    if head[8:9] == b"{":
        return _open_safetensors(path)
    # `torch.save` writes a zip archive, and wrote a bare pickle before version 1.6.
    if head.startswith(b"PK") or head.startswith(b"\x80"):
        return _open_torch(path, mapped=head.startswith(b"PK"))
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


def _open_torch(path: Path, mapped: bool) -> Checkpoint:
    try:
        if mapped and not zipfile.is_zipfile(path):
            raise ValueError("the archive has no end")
        data = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped or None)
    except Exception as error:  # damaged and foreign pickles raise anything
        if refused := re.search(r"(?:GLOBAL|class) ([\w.]+)", str(error)):
            raise PicsError(
                f"{path}: holds an object of class {refused[1]}, which is not loaded: loading it could run code",
                "save its tensors alone where that class is installed: torch.save of its state_dict, or safetensors",
            ) from None
        raise _damaged(path, error) from None
    if not isinstance(data, dict):
        raise PicsError(f"{path}: holds a {type(data).__name__}, expected named tensors", "name a checkpoint file")
    state: dict[str, Any] = data["state_dict"] if isinstance(data.get("state_dict"), dict) else data
    tensors = {str(key): value for key, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        raise PicsError(f"{path}: holds no tensors", "name a checkpoint file")
    steps = data.get("global_step")
    return Checkpoint(
        path,
        {key: tuple(value.shape) for key, value in tensors.items()},
        tensors.__getitem__,
        steps if isinstance(steps, int) else None,
        tuple(str(key) for key in state if str(key) not in tensors),
    )


def _damaged(path: Path, error: BaseException) -> PicsError:
    why = (str(error).strip() or type(error).__name__).splitlines()[0]
    return PicsError(f"{path}: a damaged checkpoint: {why}", "download or copy it again")
