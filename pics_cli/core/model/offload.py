"""Memory modes: which parts of a model are in the device's memory, and when."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

import torch
from torch import nn

from pics_cli.errors import PicsError

Memory = Literal["resident", "sequential", "offload"]
MEMORY_MODES = ("auto", "resident", "sequential", "offload")
# Activations, context caches and the CUDA libraries' own share at 512×512 in 16 bit, computed (reference: 0.2 + 0.18 GB
# while denoising, 0.6 to 1.0 GB while decoding).
WORKING_BYTES = 1_500_000_000


def choose_memory(name: str, device: torch.device, parts: Mapping[str, nn.Module]) -> Memory:
    """The mode of that name; `auto`: the fastest whose weights and working memory fit the device's free memory.

    Raises:
        PicsError: unknown name.
    """
    if name not in MEMORY_MODES:
        raise PicsError(f"--memory: got {name}, expected one of {', '.join(MEMORY_MODES)}")
    if name != "auto":
        return name  # type: ignore[return-value]
    if device.type != "cuda":
        return "resident"
    free = torch.cuda.mem_get_info(device)[0] - WORKING_BYTES
    if sum(map(weight_bytes, parts.values())) <= free:
        return "resident"
    phases = (("image_encoder", "projector"), ("unet", "controlnet"), ("vae",))
    largest = max(sum(weight_bytes(parts[name]) for name in phase) for phase in phases)
    return "sequential" if largest <= free else "offload"


def weight_bytes(module: nn.Module) -> int:
    """Bytes of a module's parameters and buffers."""
    return sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))


class ModelOffloader:
    """Moves the parts of a model between device and main memory.

    resident: all on the device, always. sequential: on the device while in use, in main memory else. offload: each
    layer (interaction block, convolution, …) goes to the device for its own forward pass.

    Args:
        parts: the modules, by name; in main memory.
        device: where they run.
        mode: one of the three.
    """

    def __init__(self, parts: Mapping[str, nn.Module], device: torch.device, mode: Memory) -> None:
        self.parts, self.device, self.mode = parts, device, mode
        self._host_tensors: dict[int, torch.Tensor] = {}
        if mode == "resident":
            for part in parts.values():
                part.to(device)
        elif mode == "offload":
            from accelerate import cpu_offload

            for part in parts.values():
                # These read weights of their children directly, so they are loaded whole.
                whole = ["InteractionBlock", "OrderHead"]
                cpu_offload(part, device, offload_buffers=True, preload_module_classes=whole)

    @contextlib.contextmanager
    def use(self, *names: str) -> Iterator[None]:
        """Have these parts on the device while the block runs."""
        if self.mode != "sequential":
            yield
            return
        try:
            for name in names:
                self._to_device(self.parts[name])
            yield
        finally:
            for name in names:
                self._to_host(self.parts[name])

    def _to_device(self, part: nn.Module) -> None:
        # The tensors in main memory are kept, so that the way back costs no transfer: weights do not change here.
        for tensor in (*part.parameters(), *part.buffers()):
            self._host_tensors[id(tensor)] = tensor.data
            tensor.data = tensor.data.to(self.device, non_blocking=True)

    def _to_host(self, part: nn.Module) -> None:
        for tensor in (*part.parameters(), *part.buffers()):
            tensor.data = self._host_tensors.pop(id(tensor), tensor.data)  # out of memory: some were not moved


class PartReader:
    """Reads parts of a model from disk for as long as they are used: on a CPU, what `sequential` and `offload` do.

    Args:
        model: its attributes of the parts' names are replaced while they are used; else they are on the meta device.
        read: gives a part by name, with its weights.
    """

    def __init__(self, model: object, read: Callable[[str], nn.Module]) -> None:
        self.model, self.read = model, read

    @contextlib.contextmanager
    def use(self, *names: str) -> Iterator[None]:
        """Have these parts with their weights while the block runs."""
        blank = {name: getattr(self.model, name) for name in names}
        try:
            for name in names:
                setattr(self.model, name, self.read(name))
            yield
        finally:
            for name in names:
                setattr(self.model, name, blank[name])
