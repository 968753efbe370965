"""What only a CUDA device can show: the same pictures there, and which memory mode holds how much."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pics_cli.core.model.tiny_model import tiny_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device (gpu)"),
]


def scene(seed: int, size: int = 128) -> SimpleNamespace:
    draw = np.random.default_rng(seed)
    masks = np.zeros((2, size, size), np.bool_)
    masks[0, 20:80, 10:70] = masks[1, 50:110, 40:120] = True
    return SimpleNamespace(
        control_image=draw.integers(0, 256, (size, size, 3), np.uint8),
        control_mask=masks.any(0).astype(np.int8),
        masks=masks,
        references=draw.integers(0, 256, (2, 56, 56, 3), np.uint8),
    )


def paint(device: str, memory: str = "resident", compiled: bool = False) -> np.ndarray:
    pipeline = tiny_model(device=device, memory=memory)
    if compiled:
        pipeline.compile()
    noise = torch.stack([pipeline.noise(0, key, 0)[None] for key in "ab"])
    return pipeline([scene(0), scene(1)], noise)


def test_same_picture_as_on_the_cpu() -> None:
    torch.backends.cudnn.allow_tf32 = False
    assert np.abs(paint("cuda").astype(int) - paint("cpu")).max() <= 2


@pytest.mark.parametrize("memory", ["sequential", "offload"])
def test_memory_modes_make_the_same_picture(memory: str) -> None:
    assert np.abs(paint("cuda", memory).astype(int) - paint("cuda")).max() <= 1


def test_graphs_make_the_same_picture() -> None:
    assert np.abs(paint("cuda", compiled=True).astype(int) - paint("cuda")).max() <= 1


def test_leaner_modes_hold_less_between_pictures() -> None:
    held = {}
    for memory in ("resident", "sequential", "offload"):
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        pipeline = tiny_model(device="cuda", memory=memory)
        held[memory] = torch.cuda.memory_allocated() - before
        del pipeline
    assert held["resident"] > 10 * max(held["sequential"], 1)
    assert held["offload"] <= held["sequential"] + (1 << 20)
