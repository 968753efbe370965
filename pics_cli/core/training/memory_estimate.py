"""The memory that a training step needs, counted while it runs on the meta device, on tensors without contents.

What torch's allocator hands out for tensors is counted; workspaces that kernels take, and what the process needs
besides (about 0.5 GB for CUDA), are not.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Hashable, Iterator, ValuesView
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.recipes.training import TrainingRecipe
from pics_cli.core.runtime.rng import generator
from pics_cli.core.training.adapters import add_adapters
from pics_cli.core.training.networks import TrainingNetworks, prepare_for_training
from pics_cli.core.training.objective import DiffusionLoss, NoiseSampler

# The standard case: two boxes of 30 % of a 512×512 picture, which overlap.
_BOXES, _BOXES_SIDE = ((147, 75, 364, 292), (147, 219, 364, 436)), 512
# Of the functions that the networks call, those that CUDA's autocast computes in 16 bit, and those in float32.
_HALF, _EXACT = ("linear", "conv2d"), ("layer_norm", "group_norm")
_ATTENTION = "scaled_dot_product_attention"


class MemoryCounter(TorchDispatchMode):
    """Counts the bytes of live tensors that operations return while its `with` block runs, on any device.

    Tensors of the meta device count as much as they would elsewhere. Not counted: tensors that existed before, and
    workspaces of kernels.

    Attributes:
        current: bytes that live now.
        peak: the most that lived at once.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.current = self.peak = 0
        self._storages: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation, and count what it returns."""
        given = list(_tensors((args, (kwargs or {}).values())))
        for tensor in given:
            self._count(tensor, 0)
        result = _run(func, args, kwargs or {}, given)
        for tensor in _tensors(result):
            self._count(tensor, tensor.untyped_storage().nbytes())
        return result

    def _count(self, tensor: Tensor, size: int) -> None:
        # Views share a storage; torch keeps one object for it as long as it lives.
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._storages:
            self._storages[key] = weakref.ref(storage, lambda _: self._release(key, size))
            self.current += size
            self.peak = max(self.peak, self.current)

    def _release(self, key: int, size: int) -> None:
        del self._storages[key]
        self.current -= size


def _tensors(value: Any) -> Iterator[Tensor]:
    """Those of an operation's arguments or results, which may lie in lists."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple, ValuesView)):
        for part in value:
            yield from _tensors(part)


# What operations on the meta device give, by operation and arguments. Most are inferred by functions in Python, half a
# millisecond each, and layers repeat them: memory of the published model is estimated in a sixth of the time so.
_INFERRED: dict[Hashable, Any] = {}


class _Empty(NamedTuple):
    """What a tensor without contents is made of."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype


class _Constant(NamedTuple):
    """What is no tensor, with its type: 1, 1.0 and True are equal."""

    type: type
    value: Any


def _run(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], given: list[Tensor]) -> Any:
    """Run an operation, or make what it gave for tensors like these."""
    if not given or not all(tensor.is_meta for tensor in given):
        return func(*args, **kwargs)
    key = func, _described(args), _described(tuple(kwargs.items()))
    if key in _INFERRED:
        return _made(_INFERRED[key])
    result = func(*args, **kwargs)
    storages = [tensor.untyped_storage()._cdata for tensor in _tensors(result)]
    # Views and arguments that were changed are no new tensors; some views are not declared as such.
    new = len({*storages}) == len(storages) and {*storages}.isdisjoint(x.untyped_storage()._cdata for x in given)
    if new and isinstance(result, (Tensor, tuple)):
        _INFERRED[key] = _described(result)
    return result


def _described(value: Any) -> Any:
    if isinstance(value, Tensor):
        return _Empty(tuple(value.shape), value.stride(), value.dtype)
    if isinstance(value, (list, tuple)):
        return tuple(map(_described, value))
    return _Constant(type(value), value)


def _made(known: Any) -> Any:
    if isinstance(known, _Empty):
        return torch.empty_strided(known.size, known.stride, dtype=known.dtype, device="meta")
    return known.value if isinstance(known, _Constant) else tuple(map(_made, known))


@contextlib.contextmanager
def as_on_gpu(dtype: torch.dtype) -> Iterator[None]:
    """Let functions of `torch.nn.functional` take the memory on the meta device that they take on a GPU.

    Attention is fused, without Q Kᵀ; functions compute in the dtype that CUDA's autocast to `dtype` takes for them.
    float32: there is no autocast.
    """
    # A mode for torch's functions would be off while a backward pass computes layers again.
    originals = {name: getattr(F, name) for name in (_ATTENTION, *_HALF, *_EXACT)}
    for name, function in originals.items():
        setattr(F, name, _on_meta(name, function, torch.float32 if name in _EXACT else dtype, dtype != torch.float32))
    try:
        yield
    finally:
        for name, function in originals.items():
            setattr(F, name, function)


def _on_meta(name: str, function: Callable[..., Tensor], dtype: torch.dtype, autocast: bool) -> Callable[..., Tensor]:
    def cast(value: Any) -> Any:
        return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

    def run(*args: Any, **kwargs: Any) -> Tensor:
        if not args[0].is_meta:
            return function(*args, **kwargs)
        if autocast:
            args, kwargs = tuple(map(cast, args)), {key: cast(value) for key, value in kwargs.items()}
        if name == _ATTENTION:
            attended: Tensor = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*args[:3])[0]
            return attended
        return function(*args, **kwargs)

    return run


class Memory(NamedTuple):
    """Bytes of tensors at the peak of a training step, by what they are for.

    Attributes:
        weights: of all parts, as they lie in training.
        optimizer: both moments of AdamW.
        average: the moving average, where it lies with the weights.
        step: the rest at the peak: gradients, what the backward pass needs, copies in the computing precision.
        parameters: numbers in the model.
        trained: how many of them are trained.
    """

    weights: int
    optimizer: int
    average: int
    step: int
    parameters: int
    trained: int

    @property
    def peak(self) -> int:
        """Bytes in all."""
        return self.weights + self.optimizer + self.average + self.step


def estimate_memory(recipe: TrainingRecipe, model: PicsModel, dtype: torch.dtype) -> Memory:
    """Memory of a step after the first.

    Args:
        recipe: batch size, what is trained, what is kept for the backward pass.
        model: on the meta device; unusable afterwards.
        dtype: what the networks compute in.
    """
    if recipe.train == "lora":
        add_adapters(model, recipe.lora_settings, recipe.seed)
    trained = prepare_for_training(model, recipe.train, recipe.train_encoder, dtype, recipe.gradient_checkpointing)
    parameters = [parameter for part in model.parts.values() for parameter in part.parameters()]
    count = sum(parameter.numel() for parameter in trained.values())
    loss = DiffusionLoss(model, TrainingNetworks(model), recipe.objective, dtype)
    with as_on_gpu(dtype), MemoryCounter() as counter:
        losses = loss(standard_batch(recipe, model), torch.device("meta"))
        losses.weighted.mean().backward()
    return Memory(
        weights=sum(parameter.nbytes for parameter in parameters),
        optimizer=8 * count,
        average=4 * count if recipe.ema.enabled and recipe.ema.device == "same" else 0,
        step=max(counter.peak, 4 * count),  # at the end of the backward pass only gradients are left
        parameters=sum(parameter.numel() for parameter in parameters),
        trained=count,
    )


def standard_batch(recipe: TrainingRecipe, model: PicsModel) -> dict[str, Any]:
    """A batch of the standard case, on the CPU, of zeros."""
    config = model.config
    size, batch, objects = config.image_size, recipe.batch_size, config.objects
    boxes = torch.tensor([_BOXES[k % 2] for k in range(objects)]) * size // _BOXES_SIDE
    drawn = NoiseSampler.for_model(recipe.objective, model)(generator(0, "estimate"))
    repeated = {name: torch.from_numpy(value)[None].repeat(batch, *[1] * value.ndim) for name, value in drawn.items()}
    picture = torch.zeros(batch, size, size, 3, dtype=torch.uint8)
    layers = {"layer_labels": picture[..., 0]} if config.hint == "layers" else {}
    if config.shadows:
        layers |= {"fade": torch.ones(batch, size, size), "light": torch.ones(batch, 6)}
    return {
        **repeated,
        **layers,
        "control_image": torch.zeros(batch, size, size, config.hint_channels - 1, dtype=torch.uint8),
        "target": picture,
        "boxes": boxes[None].repeat(batch, 1, 1),
        "content": torch.tensor([[0, 0, size, size]]).repeat(batch, 1),
        "references": torch.zeros(batch, objects, config.reference_size, config.reference_size, 3, dtype=torch.uint8),
    }
