"""Which device, precision and memory mode a name stands for, and what is said where there is no such thing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from pics_cli.core.model.devices import choose_device, choose_dtype, cpu_has_bf16, explain_out_of_memory
from pics_cli.core.model.offload import WORKING_BYTES, choose_memory, weight_bytes
from pics_cli.errors import PicsError

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without any GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("name", ["auto", "cpu"])
def test_cpu(name: str) -> None:
    assert choose_device(name) == CPU


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("cuda", "--device cuda: no CUDA on this machine", "--device cpu"),
        ("cuda:1", "--device cuda:1: no CUDA on this machine", "nvidia-smi"),
        ("mps", "--device mps: no Apple GPU on this machine", "--device cpu"),
        ("gpu", "--device: got gpu, expected auto, cpu, cuda, cuda:N or mps", None),
        ("meta", "--device: got meta, expected auto, cpu, cuda, cuda:N or mps", None),
        ("cuda:x", "--device: got cuda:x, expected auto, cpu, cuda, cuda:N or mps", None),
        ("", "--device: got , expected auto, cpu, cuda, cuda:N or mps", None),
    ],
)
def test_devices_that_are_not_there(name: str, message: str, hint: str | None) -> None:
    with pytest.raises(PicsError) as error:
        choose_device(name)
    assert error.value.message == message
    assert error.value.exit_code == 2
    assert hint is None or hint in str(error.value.hint)


@pytest.mark.usefixtures("two_gpus")
def test_gpus_are_counted_from_0() -> None:
    assert choose_device("auto") == CUDA
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(PicsError, match="--device cuda:2: this machine has 2 CUDA devices, counted from 0"):
        choose_device("cuda:2")


@pytest.mark.parametrize(
    ("name", "expected"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_dtype_by_name(name: str, expected: torch.dtype) -> None:
    assert choose_dtype(name, CPU) == expected
    assert choose_dtype(name, CUDA) == expected


def test_unknown_dtype() -> None:
    with pytest.raises(PicsError, match="--dtype: got float64, expected auto, fp32, bf16, fp16"):
        choose_dtype("float64", CPU)


@pytest.mark.parametrize(
    ("capability", "expected"),
    [({}, torch.float32), ({"avx512_bf16": True}, torch.bfloat16), ({"amx_bf16": True}, torch.bfloat16)],
)
def test_a_cpu_takes_bf16_only_for_full_size_models_and_where_it_computes_in_it(
    monkeypatch: pytest.MonkeyPatch, capability: dict[str, bool], expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capability, raising=False)
    assert choose_dtype("auto", CPU) == torch.float32
    assert choose_dtype("auto", CPU, full_size=True) == expected
    assert cpu_has_bf16() == bool(capability)
    monkeypatch.delattr(torch.cpu, "get_capabilities")  # as before torch 2.11
    for name in ("avx512_bf16", "amx_tile"):
        monkeypatch.setattr(torch.cpu, f"_is_{name}_supported", lambda name=name: name[:4] in str([*capability]))
    assert cpu_has_bf16() == bool(capability)


@pytest.mark.parametrize(("able", "expected"), [(True, torch.bfloat16), (False, torch.float16)])
def test_a_gpu_takes_bf16_where_it_can(monkeypatch: pytest.MonkeyPatch, able: bool, expected: torch.dtype) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: able)
    assert choose_dtype("auto", CUDA) == expected


# float32 parts of 4, 1, 8, 4 and 2 MB
PARTS = {
    name: nn.Linear(1000, 250 * megabytes, bias=False)
    for name, megabytes in (("image_encoder", 4), ("projector", 1), ("unet", 8), ("controlnet", 4), ("vae", 2))
}


def test_weight_bytes() -> None:
    assert weight_bytes(PARTS["unet"]) == 8_000_000
    assert weight_bytes(nn.BatchNorm1d(10)) == 4 * 40 + 8  # two parameters, two buffers and a counter


@pytest.mark.parametrize("name", ["resident", "sequential", "offload"])
def test_memory_by_name(name: str) -> None:
    assert choose_memory(name, CPU, PARTS) == name


@pytest.mark.parametrize(
    ("free", "expected"),
    [(19, "resident"), (18.9, "sequential"), (12, "sequential"), (11.9, "offload"), (0, "offload")],
)
def test_automatic_memory_is_the_fastest_that_fits(monkeypatch: pytest.MonkeyPatch, free: float, expected: str) -> None:
    """All parts are 19 MB, the largest phase (both networks) is 12; working memory comes on top."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (WORKING_BYTES + int(free * 1e6), 0))
    assert choose_memory("auto", CUDA, PARTS) == expected
    assert choose_memory("auto", CPU, PARTS) == "resident"


def test_unknown_memory_mode() -> None:
    with pytest.raises(PicsError, match="--memory: got disk, expected one of auto, resident, sequential, offload"):
        choose_memory("disk", CPU, PARTS)


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("asked", "own", "expected"),
    [
        ("auto", "cuda:1", "cuda:1"),
        ("cuda", "cuda:1", "cuda:1"),
        ("cuda:0", "cuda:1", "cuda:0"),
        ("cpu", "cuda:1", "cpu"),
        ("auto", "cpu", "cpu"),
        ("cuda", "cpu", "cuda"),
        ("cuda", None, "cuda"),
    ],
)
def test_each_process_has_its_own(asked: str, own: str | None, expected: str) -> None:
    assert str(choose_device(asked, own)) == expected


@pytest.mark.parametrize("allocate", [lambda: torch.empty(1 << 60), lambda: np.empty(1 << 60, np.uint8)])
def test_out_of_memory_is_explained(allocate: Callable[[], object]) -> None:
    with pytest.raises(PicsError, match=r"out of memory on cpu .*allocate") as error, explain_out_of_memory(CPU, str):
        allocate()
    assert error.value.hint == ""


def test_out_of_memory_of_a_gpu_is_explained_and_other_errors_are_not() -> None:
    with pytest.raises(PicsError, match="out of memory on cpu") as error, explain_out_of_memory(CPU, lambda: "less"):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    assert error.value.hint == "less"
    with pytest.raises(RuntimeError, match="shapes"), explain_out_of_memory(CPU, lambda: "less"):
        raise RuntimeError("shapes do not fit")
