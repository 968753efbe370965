"""Work, time and memory of a guided denoising step, each figure against a baseline measured in the same run.

    python scripts/bench/denoise.py [FIGURE ...] [--rounds N] [--tiny]

Published shape with random weights, 512×512, float32, one composite of two objects; the baseline takes a pass for each
guidance branch, every expert on every token, and attention by materialised QKᵀ. The full shape needs 8 GB of memory.
`gpu`, `gpu_compiled` and `gpu_memory` need a CUDA device. docs/benchmarks.md says what each figure means.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from functools import cache
from itertools import accumulate
from math import hypot
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from common import Row, cpu_time, spread
from networks import CASES, GUIDANCE, Networks, Run
from on_gpu import gpu, gpu_compiled, gpu_memory

TFLOP_GOALS = {"30%": 2.45, "80%": 2.55}
CANDIDATES = (1, 4, 8)
# ε_u + w (ε_c − ε_u) of two predictions that are nearly the same but for independent errors.
AMPLIFIED = hypot(GUIDANCE, GUIDANCE - 1)

networks = cache(Networks)


def work(run: Run) -> Iterator[Row]:
    """TFLOP of a step (convolutions, matrix products, attention), and that both sides predict the same."""
    nets = networks(run.tiny)
    for case, goal in TFLOP_GOALS.items():
        nets.layout(fast=True)
        once, step = tflop(nets.fast_step, case)
        fast, results = tflop(nets.predictions, step)
        nets.layout(fast=False)
        plain, expected = tflop(nets.predictions, nets.baseline_step(case))
        shown = f"{fast:.4g}, baseline {plain:.4g}: {plain / fast:.2f}x less"
        yield Row(f"work, TFLOP a step, {case}", shown, f"<= {goal}", fast <= goal)
        yield Row("  once a composite", f"{once:.2g} TFLOP: hint embedded, keys, values and gate folded")
        both, guided = (float((a - b).norm() / b.norm()) for a, b in zip(results, expected, strict=True))
        shown = f"{both:.1e}; {guided:.1e} after guidance, where rounding counts up to {AMPLIFIED:.1f} times"
        yield Row("  relative L2 of the branches' predictions", shown, "<= 1e-5", both <= 1e-5)


def seconds(run: Run) -> Iterator[Row]:
    """CPU seconds of a step on one thread (threads that wait for each other would count), the sides taking turns."""
    nets, threads = networks(run.tiny), torch.get_num_threads()
    torch.set_num_threads(1)
    for case in CASES:
        sides = nets.fast_step(case), nets.baseline_step(case)
        spent: list[list[float]] = []
        for turn in range(run.rounds):
            taken = [0.0, 0.0]
            for side in (0, 1) if turn % 2 else (1, 0):
                nets.layout(fast=side == 0)
                taken[side], _ = cpu_time(sides[side])
            spent.append(taken)
        ratios = [plain / fast for fast, plain in spent]
        yield Row(f"seconds, CPU time of a step, {case}", f"{spread(ratios)} less", ">= 2.5x", median(ratios) >= 2.5)
        fast, plain = (median(values) for values in zip(*spent, strict=True))
        yield Row("  CPU s", f"{fast:.3g} against {plain:.3g}, {run.rounds} rounds, one thread")
    torch.set_num_threads(threads)


def activations(run: Run) -> Iterator[Row]:
    """Peak of what a step allocates, by torch's profiler; weights, and what is kept between steps, lie there before."""
    nets = networks(run.tiny)
    for case in CASES:
        nets.layout(fast=True)
        _, kept, step = allocated(nets.fast_step, case)
        fast, _, _ = allocated(step)
        nets.layout(fast=False)
        plain, _, _ = allocated(nets.baseline_step(case))
        shown = f"{fast / 1e9:.3g} GB, baseline {plain / 1e9:.3g} GB: {fast / plain:.2f} of it"
        yield Row(f"activations, peak of a step, {case}", shown, "<= 0.5", fast / plain <= 0.5)
        yield Row("  kept between steps", f"{kept / 1e9:.3g} GB; with it {(fast + kept) / plain:.2f} of the baseline")


def candidates(run: Run) -> Iterator[Row]:
    """TFLOP a step and candidate when one composite gets several: the ControlNet is paid for once."""
    nets = networks(run.tiny)
    counts = CANDIDATES[:2] if run.tiny else CANDIDATES
    for case in list(CASES)[-1:] if run.tiny else CASES:
        results = []
        for count in counts:
            step = nets.fast_step(case, count)
            with FakeTensorMode(allow_non_fake_inputs=True):
                results.append(tflop(step)[0] / count)
        shown = ", ".join(f"{count}: {work:.4g}" for count, work in zip(counts, results, strict=True))
        yield Row(f"candidates, TFLOP a step and candidate, {case}", shown)


def tflop(action: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """TFLOP of a call, and what it returned."""
    with FlopCounterMode(display=False) as counter:
        result = action(*arguments)
    return counter.get_total_flops() / 1e12, result


def check_counter() -> None:
    """Some releases of torch count no attention on a CPU."""
    q, k = torch.ones(1, 2, 3, 8), torch.ones(1, 2, 5, 8)
    counted, expected = 1e12 * tflop(F.scaled_dot_product_attention, q, k, k)[0], 4 * 2 * 3 * 5 * 8
    if round(counted) != expected:
        raise SystemExit(f"torch {torch.__version__} counts {counted:g} of {expected} operations of an attention")


def allocated(action: Callable[..., Any], *arguments: Any) -> tuple[int, int, Any]:
    """Bytes of main memory that a call holds at most and at its end, above those before; and what it returned."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = action(*arguments)
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = list(accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())))
    return max(held), held[-1], result


FIGURES = {
    figure.__name__: figure for figure in (work, seconds, activations, candidates, gpu, gpu_compiled, gpu_memory)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=f"of {', '.join(FIGURES)}; all when none is named")
    parser.add_argument("--rounds", type=int, default=2, metavar="N", help="of figures that take time; default 2")
    parser.add_argument("--tiny", action="store_true", help="small shapes, to try the script out: no goal applies")
    arguments = parser.parse_args()
    if unknown := set(arguments.figures) - FIGURES.keys():
        parser.error(f"unknown figure {', '.join(sorted(unknown))}; known: {', '.join(FIGURES)}")
    if arguments.rounds < 1:
        parser.error(f"--rounds: got {arguments.rounds}, expected at least 1")
    check_counter()
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler talks
    run = Run(arguments.tiny, arguments.rounds)
    if run.tiny:
        torch.set_num_threads(1)
    print("| figure | result | goal | met |\n| --- | --- | --- | --- |")
    with torch.no_grad():
        for name in arguments.figures or FIGURES:
            for row in FIGURES[name](run):
                goal, met = ("", None) if run.tiny else (row.goal, row.met)
                print(
                    f"| {row.figure} | {row.result} | {goal} | {({True: 'yes', False: 'no', None: ''})[met]} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
