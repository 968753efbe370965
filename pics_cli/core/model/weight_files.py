"""Files of weights by name, read without running any code of theirs."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from pics_cli.errors import PicsError


def read_weights(path: Path, hint: str) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of a pickle that holds nothing but tensors, on the CPU.

    Args:
        path: of the file.
        hint: what to do where it is whole, but holds something else.

    Raises:
        PicsError: it cannot be read, or holds anything but tensors by name.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged pickles raise anything
        first = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise PicsError(
            f"{path}: cannot be read as weights: {first}",
            "fetch it again; files that hold anything but tensors are refused",
        ) from None
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise PicsError(f"{path}: holds no weights by name", hint)
    return state
