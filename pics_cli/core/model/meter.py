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


class Meter(TorchDispatchMode):
    """Counts the bytes of live tensors that are made while its `with` block runs.

    What kernels take for themselves while they run (workspaces of convolutions and matrix products) is not seen, nor is
    what an allocator holds back; everything that operations return, and autograd keeps, is. A tensor of the meta device
    counts as much as it would elsewhere; attention is fused there, too, which torch's own is not.

    Args:
        device: count what lies on devices of this type alone, such as "cuda"; None: on all.

    Attributes:
        current: bytes that live now.
        peak: the most that lived at once.
    """

    def __init__(self, device: str | None = None) -> None:
        super().__init__()
        self.current = self.peak = 0
        self._device = device
        self._known: dict[int, weakref.ref[Any]] = {}
        self._sizes: dict[int, int] = {}
        self._attention: Callable[..., Tensor] = F.scaled_dot_product_attention

    def watch(self, *held: nn.Module | Tensor) -> None:
        """Count what was there before, too: tensors; parameters, their gradients and buffers of modules."""
        for one in held:
            for tensor in (one,) if isinstance(one, Tensor) else _tensors(one):
                self._count(tensor, watched=True)

    def __enter__(self) -> Meter:
        super().__enter__()
        self._attention = F.scaled_dot_product_attention
        # A mode for torch's functions would be off while a backward pass computes layers again.
        F.scaled_dot_product_attention = self._attend
        return self

    def __exit__(self, *raised: Any) -> None:
        F.scaled_dot_product_attention = self._attention
        super().__exit__(*raised)

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

    def _attend(self, query: Tensor, *others: Any, **options: Any) -> Tensor:
        """Attention; on the meta device with the memory of a fused kernel, without Q Kᵀ."""
        if not query.is_meta:
            return self._attention(query, *others, **options)
        attended: Tensor = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, *others[:2])[0]
        return attended


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    for parameter in module.parameters():
        yield parameter
        if parameter.grad is not None:
            yield parameter.grad
    yield from module.buffers()
