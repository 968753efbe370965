"""Everything that only a GPU can show, in one go; `scripts/gpu_check.sh` runs it after the tests marked `gpu`.

    python scripts/bench/gpu_check.py [SECTION ...] [--out DIR] [--rounds N] [--tiny]

Networks have the published shape and random weights; nothing is downloaded. Writes DIR/gpu_check.json and
DIR/gpu_check.md, a table for docs/benchmarks.md. A section that fails is a row of its own, and the exit code is 1.
`--tiny` rehearses it on a CPU with small shapes; its figures say nothing.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import diffusers
import torch
import transformers
from torch import nn

import annotate
import train_step
from common import Row, cpu_time
from networks import CASES, Networks, Run, full_pipeline
from on_gpu import MISSING, device_for, empty, gpu_memory, name_of, speed, wall
from pics_cli.core.segmentation.sam import TINY

# Relative L2 of the fast path to the plain one: as far apart as rounding of that precision sets them.
PARITY = {torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 6e-2}


def parity(run: Run) -> Iterator[Row]:
    """The fast path against the equations as they stand, on the device, in every precision."""
    device = device_for(run)
    if device is None:
        yield Row("parity", MISSING)
        return
    nets = Networks(run.tiny)
    expected: dict[str, torch.Tensor] = {}
    for dtype, goal in PARITY.items():
        for name, value in vars(nets).items():
            if isinstance(value, nn.Module):
                nn.Module.to(value, device, dtype)
            elif isinstance(value, torch.Tensor):
                setattr(nets, name, value.to(device, dtype if value.is_floating_point() else None))
        for case in CASES:
            nets.layout(fast=True)
            fast, _ = nets.predictions(nets.fast_step(case))
            nets.layout(fast=False)
            plain, _ = nets.predictions(nets.baseline_step(case))
            exact = expected.setdefault(case, plain.float())
            words = f"parity, {str(dtype).removeprefix('torch.')}, {case}"
            error = distance(fast, plain)
            yield Row(words, f"{error:.1e}; from fp32 {distance(fast, exact):.1e}", f"<= {goal:g}", error <= goal)


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Relative L2."""
    return float((a.float() - b.float()).norm() / b.float().norm())


def eager(run: Run) -> Iterator[Row]:
    """Seconds a picture at batch 1 and 8, 50 and 20 steps."""
    yield from speed(run, compiled=False)


def compiled(run: Run) -> Iterator[Row]:
    """The same of one picture, compiled: minutes for the first."""
    yield from speed(run, compiled=True, alone=True)


def training(run: Run) -> Iterator[Row]:
    """A step of batch 1 and 16, layers computed again for the gradient."""
    chosen = [train_step.Setting("published", batch, True, torch.bfloat16, None) for batch in (1, 16)]
    yield from train_step.gpu(run, () if run.tiny else chosen)


def sam(run: Run) -> Iterator[Row]:
    """Boxes to masks in batches, against the predictor one by one."""
    with tempfile.TemporaryDirectory() as work:
        options = annotate.Run(run.rounds, 1 if run.tiny else 8, run.tiny, Path(work))
        if torch.cuda.is_available():
            yield from annotate.gpu(options)
        else:
            yield from annotate.race(options, TINY, torch.device("cpu"), torch.float32, lambda do: cpu_time(do)[0])


def features(run: Run) -> Iterator[Row]:
    """Pictures a second through the encoder that evaluation uses, in bf16."""
    device = device_for(run)
    if device is None:
        yield Row("features", MISSING)
        return
    model = full_pipeline(run.tiny, device, "resident")
    side, dtype = model.config.reference_size, next(model.image_encoder.parameters()).dtype
    for batch in (1, 2) if run.tiny else (8, 64):
        pictures = torch.rand(batch, 3, side, side, device=device, dtype=dtype)
        encode: Callable[[], Any] = partial(model.image_encoder, pixel_values=pictures)
        encode()
        taken = median(wall(encode, device) for _ in range(run.rounds))
        yield Row(f"features, batch {batch}", f"{batch / taken:.1f} pictures/s")


SECTIONS: dict[str, Callable[[Run], Iterator[Row]]] = {
    section.__name__: section for section in (parity, eager, gpu_memory, training, sam, features, compiled)
}


def check(name: str, run: Run) -> Iterator[dict[str, Any]]:
    """The rows of a section as plain data; what it raises is a row, too."""
    start = time.perf_counter()
    try:
        with torch.enable_grad() if name == "training" else torch.no_grad():
            for row in SECTIONS[name](run):
                yield {"section": name, **row._asdict()}
    except Exception as error:  # whatever a driver or a kernel raises is what is looked for
        text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        yield {"section": name, "figure": f"{name} failed", "result": text, "goal": "", "met": False, "failed": True}
    device = device_for(run)
    gc.collect()
    if device is not None:
        empty(device)
    yield {"section": name, "figure": f"  {name}, in all", "result": f"{time.perf_counter() - start:.0f} s",
           "goal": "", "met": None}  # fmt: skip


def table(rows: list[dict[str, Any]], facts: dict[str, str]) -> str:
    """The rows as markdown."""
    lines = [", ".join(f"{name} {value}" for name, value in facts.items()) + "", "", "| figure | result | goal | met |"]
    lines.append("| --- | --- | --- | --- |")
    met = {True: "yes", False: "no", None: ""}
    lines += [f"| {row['figure'].strip()} | {row['result']} | {row['goal']} | {met[row['met']]} |" for row in rows]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; all when none")
    parser.add_argument("--out", type=Path, default=Path("gpu_check"), metavar="DIR", help="default gpu_check")
    parser.add_argument("--rounds", type=int, default=2, metavar="N", help="of what takes time; default 2")
    parser.add_argument("--tiny", action="store_true", help="small shapes, on a CPU if there is no GPU")
    options = parser.parse_args()
    if unknown := set(options.sections) - SECTIONS.keys():
        parser.error(f"unknown section {', '.join(sorted(unknown))}; known: {', '.join(SECTIONS)}")
    run = Run(options.tiny, options.rounds)
    device = device_for(run)
    if device is None:
        parser.error("no CUDA device here; --tiny rehearses the check on a CPU")
    facts = {"device": name_of(device), "torch": torch.__version__, "diffusers": diffusers.__version__,
             "transformers": transformers.__version__, "shapes": "tiny" if run.tiny else "published"}  # fmt: skip
    options.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for name in options.sections or SECTIONS:
        for row in check(name, run):
            rows.append({**row, "goal": "", "met": None} if run.tiny and not row.get("failed") else row)
            print(f"{row['figure']:<48} {row['result']}", flush=True)
            # After each row: what was measured is there if the card's time ends.
            (options.out / "gpu_check.json").write_text(json.dumps({**facts, "rows": rows}, indent=1) + "\n")
            (options.out / "gpu_check.md").write_text(table(rows, facts))
    if any(row.get("failed") for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
