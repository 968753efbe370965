"""Memory of tensors, counted where they are made: the same on a CPU, on a GPU and on the meta device."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# What CUDA's autocast computes in 16 bit, and what in float32, of the functions that our networks call.
_HALF, _EXACT = ("linear", "conv2d"), ("layer_norm", "group_norm")
_ATTENTION = "scaled_dot_product_attention"


class Meter(TorchDispatchMode):
    """Counts the bytes of live tensors that are made while its `with` block runs.

    What kernels take for themselves while they run (workspaces of convolutions and matrix products) is not seen, nor is
    what an allocator holds back; everything that operations return, and autograd keeps, is. A tensor of the meta device
    counts as much as it would elsewhere; attention is fused there, too, which torch's own is not.

    Args:
        device: count what lies on devices of this type alone, such as "cuda"; None: on all.
        half: on the meta device, which knows no autocast, compute in this type what CUDA's autocast would; None: in
            the types of the tensors.

    Attributes:
        current: bytes that live now.
        peak: the most that lived at once.
    """

    def __init__(self, device: str | None = None, half: torch.dtype | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.current = self.peak = 0
        self._device, self._half = device, half
        self._known: dict[int, weakref.ref[Any]] = {}
        self._sizes: dict[int, int] = {}
        self._replaced: dict[str, Callable[..., Tensor]] = {}

    def watch(self, *held: nn.Module | Tensor) -> None:
        """Count what was there before, too: tensors; parameters, their gradients and buffers of modules."""
        for one in held:
            for tensor in (one,) if isinstance(one, Tensor) else _tensors(one):
                self._count(tensor, watched=True)

    def __enter__(self) -> Meter:
        super().__enter__()  # type: ignore[no-untyped-call]
        # A mode for torch's functions would be off while a backward pass computes layers again.
        for name in (_ATTENTION, *_HALF, *_EXACT):
            self._replaced[name] = getattr(F, name)
            setattr(F, name, _on_meta(name, self._replaced[name], self._half))
        return self

    def __exit__(self, *raised: Any) -> None:
        for name, function in self._replaced.items():
            setattr(F, name, function)
        super().__exit__(*raised)  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation, and count what it returns."""
        kwargs = kwargs or {}
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, Tensor):
                self._count(leaf, made_here=False)
        result = func(*args, **kwargs)
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf)
        return result

    def _count(self, tensor: Tensor, made_here: bool = True, watched: bool = False) -> None:
        if self._device is not None and tensor.device.type != self._device:
            return
        # Views share a storage; torch keeps one object for it as long as it lives.
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._known:
            self._known[key] = weakref.ref(storage, lambda _: self._forget(key))
            self._sizes[key] = 0
        elif not watched:
            return
        if made_here:
            self.current += storage.nbytes() - self._sizes[key]
            self._sizes[key] = storage.nbytes()
            self.peak = max(self.peak, self.current)

    def _forget(self, key: int) -> None:
        del self._known[key]
        self.current -= self._sizes.pop(key)


def _on_meta(name: str, function: Callable[..., Tensor], half: torch.dtype | None) -> Callable[..., Tensor]:
    """A function of `torch.nn.functional` that takes a GPU's memory where its tensors are on the meta device."""

    def run(*given: Any, **options: Any) -> Tensor:
        if not given[0].is_meta:
            return function(*given, **options)
        if half is not None:
            dtype = torch.float32 if name in _EXACT else half
            given = tuple(_cast(value, dtype) for value in given)
            options = {key: _cast(value, dtype) for key, value in options.items()}
        if name == _ATTENTION:
            # As fused kernels do: without Q Kᵀ.
            attended: Tensor = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*given[:3])[0]
            return attended
        return function(*given, **options)

    return run


def _cast(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    for parameter in module.parameters():
        yield parameter
        if parameter.grad is not None:
            yield parameter.grad
    yield from module.buffers()
