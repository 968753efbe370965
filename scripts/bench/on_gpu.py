"""Denoising figures that need a CUDA device: time per picture, and memory of every `--memory` mode."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from statistics import median

import torch
from torch.utils.flop_counter import FlopCounterMode

from common import Row
from networks import Run, composite, full_pipeline
from pics_cli.core.model.pics_model import PicsModel

MISSING = "not measured: no CUDA device"
CASE = "30%"
# Scheduler, steps, aim in seconds a picture: batch 1, eager; compiled, half of it.
SCHEDULES = (("ddim", 50, 1.1), ("dpm++", 20, 0.45))
TRIAL = (("ddim", 2, 1.1), ("dpm++", 1, 0.45))
MEMORY = {"resident": 6.5, "sequential": 4.0, "offload": None}


def gpu(run: Run) -> Iterator[Row]:
    """Seconds a picture, references to pixels, and how busy that keeps the card."""
    yield from speed(run, compiled=False)


def gpu_compiled(run: Run) -> Iterator[Row]:
    """The same with CUDA graphs; compiling takes minutes for each shape."""
    yield from speed(run, compiled=True)


def speed(run: Run, compiled: bool, alone: bool = False) -> Iterator[Row]:
    """The rows of one way to run, for every number of composites and candidates; `alone`: for one picture only."""
    how = "gpu, compiled" if compiled else "gpu, eager"
    device = device_for(run)
    if device is None:
        yield Row(how, MISSING)
        return
    side = 256 if run.tiny else 8192
    rate = matrix_rate(device, side)
    yield Row(f"{how}, {name_of(device)}", f"{rate:.4g} TFLOP/s of bf16 matrix products, side {side}")
    pipeline = full_pipeline(run.tiny, device, "resident")
    picture(pipeline, 1, 1, "ddim", 1)()  # makes what all pictures share
    several = 2 if run.tiny else 8
    shapes = ((1, 1), (several, 1), (1, several))[: 1 if alone else 3]
    work = [step_tflop(pipeline, *shape) for shape in shapes]
    if compiled:
        pipeline.compile()
        if device.type != "cuda":
            torch.compiler.set_stance("force_eager")  # it would take minutes, and says nothing of a GPU
    (_, many, _), (_, few, _) = schedules = TRIAL if run.tiny else SCHEDULES
    for (batch, candidates), tflop in zip(shapes, work, strict=True):
        of = f"{candidates} candidates of a composite" if candidates > 1 else f"batch {batch}"
        first = wall(picture(pipeline, batch, candidates, "ddim", few), device)
        spent = {}
        for scheduler, steps, aim in schedules:
            spent[scheduler] = seconds(run, picture(pipeline, batch, candidates, scheduler, steps), device)
            goal = aim / (2 if compiled else 1)
            wanted = (f"<= {goal:g} s", spent[scheduler] <= goal) if batch * candidates == 1 else ("", None)
            result = f"{spent[scheduler] / batch / candidates:.3f} s a picture"
            yield Row(f"{how}, {of}, {steps} {scheduler}", result, *wanted)
        short = seconds(run, picture(pipeline, batch, candidates, "ddim", few), device)
        step = (spent["ddim"] - short) / (many - few)
        rates = f"{tflop / step:.4g} TFLOP/s, {tflop / step / rate:.1%} of the card's rate"
        yield Row(f"{how}, {of}, one step", f"{1e3 * step:.2f} ms for {tflop:.4g} TFLOP: {rates}")
        yield Row(f"{how}, {of}, first call", f"{first:.1f} s for {few} steps")


def gpu_memory(run: Run) -> Iterator[Row]:
    """Peak of what torch holds on the card while a picture is made, weights included, for every memory mode."""
    device = device_for(run)
    if device is None:
        yield Row("gpu memory", MISSING)
        return
    scheduler, steps, _ = (TRIAL if run.tiny else SCHEDULES)[1]
    for mode, aim in MEMORY.items():
        gc.collect()
        empty(device)
        pipeline = full_pipeline(run.tiny, device, mode)
        taken = seconds(run, picture(pipeline, 1, 1, scheduler, steps), device)
        held, reserved = peak(device)
        wanted = (f"<= {aim:g} GB", held <= aim) if aim else ("", None)
        shown = f"{held:.2f} GB, {reserved:.2f} GB with what the allocator keeps; {taken:.2f} s for {steps} steps"
        yield Row(f"gpu memory, {mode}", shown, *wanted)
        del pipeline


def device_for(run: Run) -> torch.device | None:
    """The GPU; the CPU stands in for one where the script is tried out."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("cpu") if run.tiny else None


def name_of(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU in its place"


def picture(pipeline: PicsModel, batch: int, candidates: int, scheduler: str, steps: int) -> Callable[[], object]:
    """A call that makes `batch` · `candidates` pictures."""
    inputs = [composite(CASE, pipeline.config)] * batch
    keys = [pipeline.noise(1, str(one), candidate) for one in range(batch) for candidate in range(candidates)]
    noise = torch.stack(keys).unflatten(0, (batch, candidates))
    return lambda: pipeline(inputs, noise, steps=steps, scheduler=scheduler)


def seconds(run: Run, make: Callable[[], object], device: torch.device) -> float:
    """Median wall seconds of a call; the first two warm up: the second may still record graphs."""
    for _ in range(1 if run.tiny else 2):
        make()
    return median(wall(make, device) for _ in range(run.rounds))


def wall(make: Callable[[], object], device: torch.device) -> float:
    synchronize(device)
    start = time.perf_counter()
    make()
    synchronize(device)
    return time.perf_counter() - start


def step_tflop(pipeline: PicsModel, batch: int, candidates: int) -> float:
    """TFLOP of one more step."""
    counts: list[int] = []
    for steps in (1, 2):
        with FlopCounterMode(display=False) as counter:
            picture(pipeline, batch, candidates, "ddim", steps)()
        counts.append(counter.get_total_flops())
    return (counts[1] - counts[0]) / 1e12


def matrix_rate(device: torch.device, side: int, repeats: int = 20) -> float:
    """TFLOP/s of bf16 matrix products, the card's own measure."""
    a, b, c = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(3))

    def multiply() -> None:
        for _ in range(repeats):
            torch.mm(a, b, out=c)

    multiply()
    taken = wall(multiply, device)
    return 2 * side**3 * repeats / taken / 1e12


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def empty(device: torch.device) -> None:
    """Give unused memory back and forget the peak."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak(device: torch.device) -> tuple[float, float]:
    """GB allocated and reserved at most."""
    if device.type != "cuda":
        return 0.0, 0.0
    return torch.cuda.max_memory_allocated(device) / 1e9, torch.cuda.max_memory_reserved(device) / 1e9
