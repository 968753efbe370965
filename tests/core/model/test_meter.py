"""Counted memory against what torch's own profiler records of the allocator, and on the meta device."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.profiler import ProfilerActivity, profile

from pics_cli.core.model.meter import Meter
from pics_cli.core.model.objects import Objects
from pics_cli.core.model.regions import Regions
from pics_cli.core.model.small_model import tiny_pipeline


def step_on(device: str, recompute: bool) -> Callable[[], None]:
    """Forward and backward through the tiny UNet and ControlNet, two samples, all gradients kept."""
    pipeline = tiny_pipeline()
    for network in (pipeline.unet, pipeline.controlnet):
        network.to(device).requires_grad_()
        network.gradient_checkpointing = recompute
    masks = torch.zeros(2, 2, 128, 128, dtype=torch.bool)
    masks[:, 0, :80, :80] = masks[:, 1, 40:, 40:] = True
    hint, latent = torch.ones(2, 4, 128, 128, device=device), torch.ones(2, 4, 16, 16, device=device)
    contexts, timesteps = torch.ones(2, 2, 17, 48, device=device), torch.ones(2, device=device)

    def step() -> None:
        objects, regions = Objects(contexts), Regions(masks, device=torch.device(device))
        residuals = pipeline.controlnet(pipeline.controlnet.embed_hint(hint), timesteps, objects, regions)
        pipeline.unet(latent, timesteps, objects, regions, residuals).square().mean().backward()

    return step


def metered(action: Callable[[], None]) -> int:
    with Meter() as meter:
        action()
    return meter.peak


def profiled(action: Callable[[], None]) -> int:
    """What a call holds at most, above what was there before; see scripts/bench/denoise.py."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        action()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())))


@pytest.mark.parametrize("recompute", [False, True])
def test_agrees_with_the_profiler_and_on_the_meta_device(recompute: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KINETO_LOG_LEVEL", "99")
    counted = metered(step_on("cpu", recompute))
    assert counted == pytest.approx(profiled(step_on("cpu", recompute)), rel=0.1)
    assert metered(step_on("meta", recompute)) == pytest.approx(counted, rel=0.1)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_what_lives_and_what_lived(device: str) -> None:
    before = torch.zeros(1000, device=device)
    with Meter() as meter:
        one = before + 1
        assert (meter.current, meter.peak) == (4000, 4000)
        view = one.view(10, 100)[2:]  # the same memory
        before.add_(1)  # not made here
        two = one.double()
        assert (meter.current, meter.peak) == (12000, 12000)
        del one
        assert meter.current == 12000  # the view holds it
        del view
        assert (meter.current, meter.peak) == (8000, 12000)
        meter.watch(before)
        meter.watch(before, two)
        assert meter.current == 12000
        del two
    assert (meter.current, meter.peak) == (4000, 12000)


def test_watched_from_the_start() -> None:
    layer = torch.nn.Linear(10, 10, bias=False)
    layer.weight.grad = torch.zeros(10, 10)
    layer.register_buffer("extra", torch.zeros(5))
    held = torch.zeros(7)
    meter = Meter()
    meter.watch(layer, held, held.view(7, 1))
    assert meter.current == 400 + 400 + 20 + 28
    layer.weight.grad = None
    assert (meter.current, meter.peak) == (448, 848)


def test_one_kind_of_device_alone() -> None:
    with Meter("meta") as meter:
        here, there = torch.zeros(100), torch.zeros(10, device="meta")
    assert (len(here), len(there), meter.current) == (100, 10, 40)


def call(name: str, device: str) -> Tensor:
    """A function of `torch.nn.functional` on tensors in float32."""
    made = {
        "linear": ((2, 8), (4, 8), (4,)),
        "conv2d": ((1, 4, 8, 8), (4, 4, 3, 3), (4,)),
        "layer_norm": ((2, 8),),
        "group_norm": ((1, 4, 8, 8),),
        "scaled_dot_product_attention": ((1, 2, 8, 16),) * 3,
    }[name]
    others = {"layer_norm": [(8,)], "group_norm": [2]}.get(name, [])
    found: Tensor = getattr(F, name)(*(torch.empty(shape, device=device) for shape in made), *others)
    return found


@pytest.mark.parametrize("name", ["linear", "conv2d", "layer_norm", "group_norm", "scaled_dot_product_attention"])
def test_half_computes_what_autocast_does_on_a_gpu(name: str) -> None:
    """Against torch's own rules for CUDA, which tensors that only pretend to be there follow, too."""
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    torch.set_autocast_enabled("cuda", True)
    try:
        with FakeTensorMode():
            expected = call(name, "cuda").dtype
    finally:
        torch.set_autocast_enabled("cuda", False)
    with Meter(half=torch.bfloat16):
        assert call(name, "meta").dtype == expected
    with Meter():
        assert call(name, "meta").dtype == torch.float32


def test_half_takes_less_and_its_gradients_are_exact() -> None:
    peaks = []
    for half in (None, torch.bfloat16):
        layer = torch.nn.Linear(256, 256, device="meta")
        rows = torch.empty(4096, 256, device="meta")
        with Meter(half=half) as meter:
            layer(layer(rows)).sum().backward()
        assert layer.weight.grad is not None
        assert layer.weight.grad.dtype == torch.float32
        peaks.append(meter.peak)
    assert 0.4 < peaks[1] / peaks[0] < 0.8


def test_leaves_torchs_functions_as_they_were() -> None:
    before = F.scaled_dot_product_attention, F.linear, F.layer_norm
    with pytest.raises(ZeroDivisionError), Meter(half=torch.bfloat16):
        raise ZeroDivisionError
    assert (F.scaled_dot_product_attention, F.linear, F.layer_norm) == before
