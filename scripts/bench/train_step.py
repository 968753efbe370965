"""Memory and time of a training step: predicted for the full shape, measured where it can be.

    python scripts/bench/train_step.py [FIGURE ...] [--rounds N] [--tiny]

`predicted` runs the step of the published shape without its contents; `cpu` compares prediction and truth on a small
network and measures it with and without gradient checkpointing; `gpu` measures the published shape with random weights
and needs a CUDA device. docs/benchmarks.md says what each figure means.
"""

from __future__ import annotations

import argparse
import gc
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import median
from typing import NamedTuple

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from common import Row, cpu_time, spread
from denoise import allocated
from networks import Run, full_pipeline
from on_gpu import MISSING, device_for, empty, name_of, peak, wall
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.recipes.training import TrainingRecipe, load_training
from pics_cli.core.recipes.training_sections import Precision, TrainedParts
from pics_cli.core.training.ema import ModelEma
from pics_cli.core.training.initial_model import blank_initial_model, load_initial_model
from pics_cli.core.training.memory_estimate import Memory, estimate_memory, standard_batch
from pics_cli.core.training.networks import TrainingNetworks, on_device, prepare_for_training
from pics_cli.core.training.objective import DiffusionLoss
from pics_cli.core.training.optimizer import make_optimizer


class Setting(NamedTuple):
    """What memory depends on, and the aim in GB; None where there is none."""

    train: TrainedParts
    batch: int
    recompute: bool
    dtype: torch.dtype
    aim: float | None

    @property
    def words(self) -> str:
        """For a row."""
        how = ", recomputed" if self.recompute else ""
        return f"{self.train}, batch {self.batch}{how}, {str(self.dtype).removeprefix('torch.')}"


AIMS = {("published", 16, False): 45.0, ("published", 16, True): 25.0, ("published", 1, False): 20.0}
TRAINED: tuple[TrainedParts, ...] = ("published", "experts")
SETTINGS = [
    Setting(train, batch, recompute, dtype, AIMS.get((train, batch, recompute)) if dtype == torch.bfloat16 else None)
    for dtype in (torch.bfloat16, torch.float32)
    for train in TRAINED
    for batch in (1, 16)
    for recompute in (False, True)
]


def recipe_of(name: str, setting: Setting) -> TrainingRecipe:
    """The recipe with a setting."""
    precision: Precision = "bf16" if setting.dtype == torch.bfloat16 else "fp32"
    return replace(
        load_training(name),
        train=setting.train,
        batch_size=setting.batch,
        gradient_checkpointing=setting.recompute,
        precision=precision,
    )


def predicted(run: Run) -> Iterator[Row]:
    """Peak of a step of the full shape on the meta device, where it needs neither memory nor a GPU."""
    for setting in SETTINGS[:2] if run.tiny else SETTINGS:
        recipe = recipe_of("tiny" if run.tiny else "joint", setting)
        taken, memory = cpu_time(estimate_memory, recipe, blank_initial_model(recipe.model)[0], setting.dtype)
        fixed = memory.peak - memory.average
        parts = {"weights": memory.weights, "optimiser": memory.optimizer, "step": memory.step}
        shown = ", ".join(f"{name} {gb(size)}" for name, size in parts.items())
        yield Row(f"predicted, {setting.words}", f"{gb(fixed)} GB: {shown}", *wanted(setting, fixed))
        everything, trained = memory.parameters / 1e6, memory.trained / 1e6
        shown = f"{gb(memory.peak)} GB; trained {trained:.1f} of {everything:.1f} million; {taken:.1f} s CPU"
        yield Row("  with the moving average beside it", shown, *wanted(setting, memory.peak))


def wanted(setting: Setting, size: int) -> tuple[str, bool | None]:
    """The aim, and whether it is met."""
    return ("", None) if setting.aim is None else (f"<= {setting.aim:g} GB", size <= 1e9 * setting.aim)


def gb(size: float) -> str:
    return f"{size / 1e9:.3g}"


class Trainer:
    """Steps of training as `pics train` takes them, without data: always the standard batch.

    Args:
        recipe: what is trained, and how.
        pipeline: where it is trained.
        half: precision of what is not trained.
        accelerator: of that precision and device.
    """

    def __init__(
        self, recipe: TrainingRecipe, pipeline: PicsModel, half: torch.dtype, accelerator: Accelerator
    ) -> None:
        self.recipe, self.pipeline, self.accelerator = recipe, pipeline, accelerator
        self.trained = prepare_for_training(
            pipeline, recipe.train, recipe.train_encoder, half, recipe.gradient_checkpointing
        )
        self.batch = standard_batch(recipe, pipeline)
        network = accelerator.prepare(TrainingNetworks(pipeline))
        self.optimizer = accelerator.prepare(make_optimizer(self.trained, recipe.optimizer))
        self.ema = ModelEma(self.trained, recipe.ema) if recipe.ema.enabled else None
        self.loss = DiffusionLoss(pipeline, network, recipe.objective, half)

    def step(self) -> None:
        """One optimiser step."""
        losses = self.loss(self.batch, self.accelerator.device)
        self.accelerator.backward(losses.weighted.mean())
        self.accelerator.clip_grad_norm_(self.trained.values(), self.recipe.optimizer.clip or math.inf)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.step()

    @property
    def lasting(self) -> int:
        """Bytes that lie there between two steps: weights, moments, average."""
        weights = sum(value.nbytes for part in self.pipeline.parts.values() for value in part.parameters())
        return weights + (3 if self.ema else 2) * sum(value.nbytes for value in self.trained.values())


def cpu(run: Run) -> Iterator[Row]:
    """The network of recipe `tiny`: predicted and real peak, CPU time of a step with and without recomputing."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    recipes = {
        recompute: replace(load_training("tiny"), gradient_checkpointing=recompute) for recompute in (False, True)
    }
    trainers = {}
    for recompute, recipe in recipes.items():
        memory = small_estimate(recipe)
        accelerator = accelerator_for(torch.device("cpu"), torch.float32)
        trainer = trainers[recompute] = Trainer(recipe, load_initial_model(recipe).model, torch.float32, accelerator)
        trainer.step()  # the optimiser makes its moments
        real = trainer.lasting + allocated(trainer.step)[0]
        name = "recomputed" if recompute else "kept"
        shown = f"{memory.peak / 1e6:.1f} MB predicted, {real / 1e6:.1f} MB by torch's profiler"
        yield Row(
            f"cpu, peak of a step, {name}", f"{memory.peak / real:.3f}: {shown}", "0.9 to 1.1", near(memory, real)
        )
    spent: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(run.rounds):
        for recompute in (False, True) if turn % 2 else (True, False):
            spent[recompute].append(cpu_time(trainers[recompute].step)[0])
    torch.set_num_threads(threads)
    ratios = [again / kept for kept, again in zip(spent[False], spent[True], strict=True)]
    kept, again = (median(spent[recompute]) for recompute in (False, True))
    batch = recipes[False].batch_size
    yield Row(
        "cpu, time of a step, recomputed to kept", f"{spread(ratios)}; {again:.2f} and {kept:.2f} s, batch {batch}"
    )


def small_estimate(recipe: TrainingRecipe) -> Memory:
    """What is predicted for a small network in float32."""
    return estimate_memory(recipe, blank_initial_model(recipe.model)[0], torch.float32)


def near(memory: Memory, real: int) -> bool:
    return 0.9 <= memory.peak / real <= 1.1


def gpu(run: Run, settings: Sequence[Setting] = ()) -> Iterator[Row]:
    """Of some settings or all: peak of what torch allocates, and samples a second, with random weights."""
    device = device_for(run)
    if device is None:
        yield Row("gpu", MISSING)
        return
    yield Row("gpu", name_of(device))
    for setting in settings or (SETTINGS[:2] if run.tiny else SETTINGS):
        recipe = recipe_of("joint", setting)
        memory = None if run.tiny else estimate_memory(recipe, blank_initial_model(recipe.model)[0], setting.dtype)
        gc.collect()
        empty(device)
        try:
            seconds, held, reserved = measure_training(device, run, recipe, setting)
        except torch.OutOfMemoryError:
            yield Row(f"gpu, {setting.words}", "out of memory")
            continue
        shown = f"{held:.2f} GB, {reserved:.2f} GB with what the allocator keeps"
        if memory is not None:
            shown += f"; predicted {gb(memory.peak)} GB"
        yield Row(f"gpu, {setting.words}, peak", shown)
        yield Row("  speed", f"{setting.batch / seconds:.2f} samples/s, {seconds:.3f} s a step")


def measure_training(
    device: torch.device, run: Run, recipe: TrainingRecipe, setting: Setting
) -> tuple[float, float, float]:
    """Seconds a step, GB allocated and reserved at most; nothing of it stays."""
    accelerator = accelerator_for(device, setting.dtype)
    pipeline = on_device(full_pipeline(run.tiny, device, "resident"), device)
    trainer = Trainer(recipe, pipeline, setting.dtype, accelerator)
    try:
        trainer.step()  # the optimiser makes its moments
        trainer.step()
        seconds = median(wall(trainer.step, device) for _ in range(run.rounds))
        return seconds, *peak(device)
    finally:
        accelerator.free_memory()


def accelerator_for(device: torch.device, dtype: torch.dtype) -> Accelerator:
    """A fresh one: a process keeps the precision of its first otherwise."""
    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(cpu=device.type == "cpu", mixed_precision="bf16" if dtype == torch.bfloat16 else "no")


FIGURES = {figure.__name__: figure for figure in (predicted, cpu, gpu)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=f"of {', '.join(FIGURES)}; all when none is named")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="of figures that take time; default 5")
    parser.add_argument("--tiny", action="store_true", help="small shapes, to try the script out: no aim applies")
    arguments = parser.parse_args()
    if unknown := set(arguments.figures) - FIGURES.keys():
        parser.error(f"unknown figure {', '.join(sorted(unknown))}; known: {', '.join(FIGURES)}")
    if arguments.rounds < 1:
        parser.error(f"--rounds: got {arguments.rounds}, expected at least 1")
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler talks
    run = Run(arguments.tiny, arguments.rounds)
    print("| figure | result | goal | met |\n| --- | --- | --- | --- |")
    for name in arguments.figures or FIGURES:
        for row in FIGURES[name](run):
            goal, met = ("", None) if run.tiny else (row.goal, row.met)
            print(
                f"| {row.figure} | {row.result} | {goal} | {({True: 'yes', False: 'no', None: ''})[met]} |", flush=True
            )


if __name__ == "__main__":
    main()
