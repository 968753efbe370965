"""The training loop: optimizer steps, with validation and checkpoints between them."""

from __future__ import annotations

import contextlib
import logging
import math
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from pics_cli import __version__
from pics_cli.core.images.image_io import RGB
from pics_cli.core.model.devices import peak_memory, reset_peak_memory
from pics_cli.core.recipes.base import plain_recipe
from pics_cli.core.recipes.training import TrainingRecipe, training_identity
from pics_cli.core.runtime.bad_samples import stop_at_max_bad
from pics_cli.core.runtime.files import write_json
from pics_cli.core.runtime.ranks import Ranks, SharedError
from pics_cli.core.runtime.signals import process_pending_signals, signal_pending
from pics_cli.core.training import checkpoint
from pics_cli.core.training.checkpoint import Checkpoint
from pics_cli.core.training.data import DataSplit, load_validation_samples, training_batches
from pics_cli.core.training.objective import DiffusionLoss, NoiseSampler
from pics_cli.core.training.optimizer import make_schedule
from pics_cli.core.training.progress import TrainingProgress, TrainingReport
from pics_cli.core.training.state import TrainingState
from pics_cli.core.training.tracking import MetricLogger
from pics_cli.core.training.validation import (
    ValidationSample,
    composite_samples,
    describe,
    draw_validation_sheet,
    summarise,
    validation_losses,
)
from pics_cli.errors import FAILED, abbreviate

logger = logging.getLogger(__name__)
BAD_SAMPLES = "bad.json"
# Steps in a row that the gradient scaler of fp16 may leave out; it halves its factor each time, from 65536.
_MAX_OVERFLOWS = 40


@dataclass
class Trainer:
    """Trains a model from the state it is in to the recipe's last step.

    Attributes:
        root: folder of the run.
        ranks: the processes that share the run; each has a trainer.
        accelerator: mixed precision, data-parallel gradients, trackers.
        max_bad: unreadable samples that are allowed; None: 1 % of all, at least 100.
        validation_samples: by number, those that this process evaluates or draws.
        resumed: whether the run was resumed from a checkpoint.
        last_validated_step, last_saved_step: -1: none.
    """

    recipe: TrainingRecipe
    root: Path
    ranks: Ranks
    accelerator: Accelerator
    state: TrainingState
    loss: DiffusionLoss
    data: DataSplit
    progress: TrainingProgress
    max_bad: int | None = None
    validation_samples: dict[int, ValidationSample] = field(default_factory=dict)
    resumed: bool = False
    last_validated_step: int = -1
    last_saved_step: int = -1

    def __post_init__(self) -> None:
        self.model, self.device = self.state.model, self.state.model.device
        self.samples_per_step = self.recipe.batch_size * self.recipe.accumulation * self.ranks.size
        self.report = TrainingReport()
        self._metrics: MetricLogger | None = None
        self._overflows = 0

    @property
    def identity(self) -> dict[str, Any]:
        """What must be the same for a later run to resume this one."""
        return {"recipe": training_identity(plain_recipe(self.recipe)), "data": self.data.contents}

    @property
    def world(self) -> dict[str, int]:
        """Factors of the number of samples of a step."""
        recipe = self.recipe
        return {"processes": self.ranks.size, "batch_size": recipe.batch_size, "accumulation": recipe.accumulation}

    def resume(self, saved: Checkpoint) -> None:
        """Restore a checkpoint of this or another folder.

        Raises:
            PicsError: it is of another architecture, or of other trained parts.
        """
        self.state.load(saved)
        self.resumed = True
        self.report.bad_samples = list(saved.state["bad"])
        self.last_validated_step = int(saved.state["looked"])
        if saved.folder.parent == (self.root / checkpoint.FOLDER).resolve():
            self.last_saved_step = self.state.step

    def load_validation_samples(self) -> None:
        """Read the validation samples of this process.

        Raises:
            PicsError: they cannot be read.
        """
        numbers = {*self._evaluated_numbers(), *(self._drawn_numbers() if self.ranks.rank == 0 else ())}
        self.validation_samples = load_validation_samples(self.recipe, self.data, self.model.config, sorted(numbers))

    def train(self) -> TrainingReport:
        """Train to the end.

        Raises:
            PicsError: a loss that is nan or inf, too many unreadable samples, a full disk.
            KeyboardInterrupt: after saving, when a signal came.
        """
        reset_peak_memory(self.device)
        first_step = self.state.step
        self.schedule = make_schedule(self.state.optimizer, self.recipe.optimizer, self.recipe.steps, first_step)
        if self.ranks.rank == 0:
            last_logged_step = first_step if self.resumed else -1
            self._metrics = MetricLogger(self.root, self.accelerator, self.recipe.name, last_logged_step)
        try:
            # Of the untrained model, or one that a signal interrupted.
            if self._validation_is_due() and self.last_validated_step != first_step:
                self.validate()
            with training_batches(self.recipe, self.data, self.model, self.state.position, self.ranks) as batches:
                while self.state.step < self.recipe.steps:
                    self.step(batches)
                    if self._validation_is_due():
                        self.validate()
                    if self.state.step % self.recipe.checkpoints.every == 0:
                        self.save()
            if self.last_saved_step != self.state.step:
                self.save()
        finally:
            if self._metrics is not None:
                self._metrics.close()
        self.report.step, self.report.new_steps = self.state.step, self.state.step - first_step
        self.report.peak_memory = peak_memory(self.device)
        return self.report

    def step(self, batches: Iterator[dict[str, Any]]) -> None:
        """Make one optimizer step, over as many batches as the recipe accumulates.

        Raises:
            PicsError: see `train`.
            KeyboardInterrupt: a signal came to one of the processes; the step is saved.
        """
        start = time.perf_counter()
        losses, keys, bad_samples, data_seconds = self._accumulate_gradients(batches)
        loss, is_nan, signalled, met_bad_samples = self._reduce(losses, bad_samples)
        if is_nan:
            self._stop_at_nan(losses, keys)
        clip = self.recipe.optimizer.clip or math.inf
        norm = float(self.accelerator.clip_grad_norm_(self.state.trained.values(), clip))
        if not math.isfinite(norm) and self.accelerator.scaler is None:
            self._stop_at_nan(torch.full((len(keys),), norm), keys)
        self._count_overflows(norm)
        rate = self.schedule.get_last_lr()[0]
        self.state.optimizer.step()
        self.schedule.step()
        self.state.optimizer.zero_grad(set_to_none=True)
        if self.state.ema is not None:
            self.state.ema.step()
        self.state.step += 1
        self.state.position += self.samples_per_step
        seconds = time.perf_counter() - start
        self.report.seconds += seconds
        self.report.samples += self.samples_per_step
        self.report.metrics["loss"] = loss
        memory_bytes = peak_memory(self.device)[0]
        compute_seconds = seconds - data_seconds
        self.progress.add_step(loss, self.samples_per_step, data_seconds, compute_seconds, memory_bytes)
        if met_bad_samples:
            self._count_bad_samples(bad_samples)
        step, every = self.state.step, self.recipe.log.every
        if self._metrics is not None and (step % every == 0 or step == self.recipe.steps):
            metrics = {
                "loss": loss,
                "learning_rate": rate,
                "gradient_norm": norm if math.isfinite(norm) else None,
                "samples": self.state.position,
                "samples_per_second": self.samples_per_step / seconds,
                "data_seconds": data_seconds,
                "compute_seconds": compute_seconds,
                "memory_bytes": memory_bytes,
                "bad": len(self.report.bad_samples),
            }
            self._metrics.log("train", step, metrics)
        if signalled:
            self._save_and_stop()

    def validate(self) -> None:
        """Log validation losses and a sheet of samples, both with the averaged weights.

        Raises:
            KeyboardInterrupt: a signal came to one of the processes; the last step is saved.
        """
        self.progress.activity, step = "validating", self.state.step
        samples = [self.validation_samples[number] for number in self._evaluated_numbers()]
        with self._averaged_weights():
            local_losses = validation_losses(
                self.loss, samples, NoiseSampler.for_model(self.recipe.objective, self.model), self.recipe.seed,
                bins=self.recipe.validation.bins, batch_size=self.recipe.batch_size, device=self.device,
                should_stop=signal_pending,
            )  # fmt: skip
        all_losses = self.ranks.all_gather(local_losses)
        if any(losses is None for losses in all_losses):
            self._save_and_stop()
        metrics = summarise(flat) if (flat := [sample for losses in all_losses for sample in losses]) else {}
        self.report.metrics |= {f"validation_{name}": value for name, value in metrics.items()}
        if self._metrics is not None and metrics:
            self._metrics.log("validation", step, metrics)
            if (sheet := self._draw_sheet()) is not None:
                self._metrics.log_sheet(step, sheet)
            logger.info("step %s: %s", f"{step:,}", describe(metrics))
        self.ranks.all_gather(None)
        self.last_validated_step = step
        self.progress.activity = ""

    def save(self) -> None:
        """Write a checkpoint of the current step and delete those that are not to be kept.

        Raises:
            PicsError: it cannot be written.
        """
        self.progress.activity = "saving"
        libraries = ("torch", "diffusers", "transformers", "accelerate")
        metadata = {
            "identity": self.identity,
            "recipe": plain_recipe(self.recipe),
            "base": self.state.base_sha256,
            "world": self.world,
            "precision": self.accelerator.mixed_precision,
            "looked": self.last_validated_step,
            "bad": self.report.bad_samples,
            "versions": {
                "pics": __version__,
                "python": platform.python_version(),
                **{name: version(name) for name in libraries},
            },
        }

        def write() -> None:
            if self.ranks.rank == 0:
                self.state.save(checkpoint.path_of(self.root, self.state.step), metadata)
                checkpoint.remove_old(self.root, self.recipe.checkpoints)

        self.ranks.run_on_all(write)
        self.last_saved_step = self.state.step
        self.progress.activity = ""

    def _accumulate_gradients(
        self, batches: Iterator[dict[str, Any]]
    ) -> tuple[torch.Tensor, list[str], list[dict[str, str]], float]:
        """Losses and keys of this process's samples, unreadable samples, and seconds spent waiting for data."""
        count, data_seconds = self.recipe.accumulation, 0.0
        losses: list[torch.Tensor] = []
        keys: list[str] = []
        bad_samples: list[dict[str, str]] = []
        for number in range(count):
            start = time.perf_counter()
            batch = next(batches)
            data_seconds += time.perf_counter() - start
            bad_samples += batch.pop("bad")
            keys += batch["keys"]
            # Gradients of several processes are averaged with the last batch of a step only.
            is_last = number + 1 == count or self.ranks.size == 1
            with contextlib.nullcontext() if is_last else self.accelerator.no_sync(self.loss.network):
                weighted = self.loss(batch, self.device).weighted
                self.accelerator.backward(weighted.mean() / count)
            losses.append(weighted.detach())
        return torch.cat(losses).cpu(), keys, bad_samples, data_seconds

    def _reduce(self, losses: torch.Tensor, bad_samples: list[dict[str, str]]) -> tuple[float, bool, bool, bool]:
        """Over all processes: the mean loss; whether a loss is nan or inf, a signal came, bad samples were met."""
        mean = losses.double().mean()
        values = [mean, ~torch.isfinite(losses).all(), torch.tensor(signal_pending()), torch.tensor(bool(bad_samples))]
        sums = torch.stack([value.double() for value in values])
        if self.ranks.size > 1:
            sums = sums.to(self.device)
            torch.distributed.all_reduce(sums)
        total, nans, signals, bad = sums.tolist()
        return total / self.ranks.size, nans != 0, signals > 0, bad > 0

    def _stop_at_nan(self, losses: torch.Tensor, keys: list[str]) -> None:
        local_keys = [key for key, loss in zip(keys, losses.tolist(), strict=True) if not math.isfinite(loss)]
        nan_keys = [key for rank_keys in self.ranks.all_gather(local_keys) for key in rank_keys]
        last = self.last_saved_step
        last_good = "none yet" if last < 0 else str(checkpoint.path_of(self.root, last))
        raise SharedError(
            f"step {self.state.step + 1:,}: the loss or its gradient is nan or inf; samples: {abbreviate(nan_keys)}",
            f"nothing was saved since; last good checkpoint: {last_good}. Look at these samples; or lower "
            "--learning-rate, or --set precision=fp32",
            FAILED,
        )

    def _count_overflows(self, norm: float) -> None:
        """Stop after too many half-precision gradients in a row that overflowed; the scaler leaves their steps out."""
        self._overflows = 0 if math.isfinite(norm) else self._overflows + 1
        if self._overflows > _MAX_OVERFLOWS:
            raise SharedError(
                f"step {self.state.step + 1:,}: the gradient has overflowed in {self._overflows} steps in a row",
                "take --set precision=bf16 or fp32, or a smaller --learning-rate; what was saved is kept",
                FAILED,
            )

    def _count_bad_samples(self, local_bad_samples: list[dict[str, str]]) -> None:
        """Record samples that could not be read, each once, and stop where there are too many."""
        recorded = self.report.bad_samples
        for sample in [sample for rank_samples in self.ranks.all_gather(local_bad_samples) for sample in rank_samples]:
            if sample not in recorded:
                recorded.append(sample)
        if self.ranks.rank == 0:
            write_json(self.root / BAD_SAMPLES, recorded)
        items = [{"item": f"{sample['set']} {sample['key']}", **sample} for sample in recorded]
        self.ranks.run_on_all(
            lambda: stop_at_max_bad(self.max_bad, self.data.samples, items, what="samples", kept="checkpoints are kept")
        )

    def _save_and_stop(self) -> None:
        """Save, and stop every process, after a signal to one of them."""
        if self.last_saved_step != self.state.step:
            self.save()
        self.ranks.all_gather(None)
        process_pending_signals()
        raise KeyboardInterrupt

    def _validation_is_due(self) -> bool:
        """Whether to validate after this step; before the first, too."""
        return self.state.step % self.recipe.validation.every == 0 or self.state.step == self.recipe.steps

    def _evaluated_numbers(self) -> range:
        """Validation samples whose losses this process computes."""
        return range(self.ranks.rank, len(self.data.validation_items), self.ranks.size)

    def _drawn_numbers(self) -> range:
        """Validation samples on the sheet."""
        return range(min(self.recipe.validation.sheet, len(self.data.validation_items)))

    def _draw_sheet(self) -> RGB | None:
        samples = [self.validation_samples[number] for number in self._drawn_numbers()]
        if not samples:
            return None
        self.model.clear_cache()
        with self._averaged_weights(), self.accelerator.autocast():
            results = composite_samples(self.model, samples, self.recipe.seed, self.recipe.validation.steps)
        self.model.clear_cache()
        return draw_validation_sheet(f"{self.recipe.name}, step {self.state.step:,}", samples, results)

    def _averaged_weights(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self.state.ema is None else self.state.ema.applied()
