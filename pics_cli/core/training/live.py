"""A run in memory: what is trained, on what, and looking at it."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import torch
from accelerate import Accelerator

from pics_cli import __version__
from pics_cli.core.images.image_io import RGB
from pics_cli.core.recipes.training import plain_recipe, training_identity
from pics_cli.core.runtime.ranks import Ranks
from pics_cli.core.runtime.signals import signal_pending
from pics_cli.core.training import validation
from pics_cli.core.training.data import Sources, batches, collated, draws_of, training_data
from pics_cli.core.training.job import Job
from pics_cli.core.training.objective import Step
from pics_cli.core.training.state import State
from pics_cli.core.training.validation import Held


@dataclass
class Run:
    """A run that is ready to train.

    Attributes:
        job, ranks: what was asked for, and who does it.
        device: where the networks are.
        state: what changes.
        step: forward pass and losses.
        sources: samples to train on and to look at.
        held: of the latter those that this process looks at, composed, by number.
        resumed: whether it goes on from a checkpoint.
        looked, saved: the last step that was validated, and that lies in the folder; -1: none.
        bad: unreadable samples that were met before.
    """

    job: Job
    ranks: Ranks
    accelerator: Accelerator
    device: torch.device
    state: State
    step: Step
    sources: Sources
    held: dict[int, Held]
    resumed: bool = False
    looked: int = -1
    saved: int = -1
    bad: list[dict[str, str]] = field(default_factory=list)

    @property
    def samples_a_step(self) -> int:
        """G: samples of all processes that go into an optimiser step."""
        return self.job.recipe.batch_size * self.job.recipe.accumulation * self.ranks.size

    @property
    def samples(self) -> int:
        """Samples there are to train on, each counted once."""
        return self.sources.samples

    @contextlib.contextmanager
    def batches(self) -> Iterator[Iterator[dict[str, Any]]]:
        """This process's batches, from where the run is."""
        data = training_data(self.job.recipe, self.sources, self.state.start.pipeline)
        with batches(self.job.recipe, data, self.state.position, self.ranks, self.device) as found:
            yield found

    def facts(self, looked: int, bad: list[dict[str, str]]) -> dict[str, Any]:
        """What a checkpoint belongs to, besides its tensors; the last step validated, and bad samples so far."""
        return {
            "identity": self.identity,
            "recipe": plain_recipe(self.job.recipe),
            "base": self.state.start.base,
            "world": self.world,
            "precision": self.accelerator.mixed_precision,
            "looked": looked,
            "bad": bad,
            "versions": {"pics": __version__, "python": platform.python_version(),
                         **{name: version(name) for name in ("torch", "diffusers", "transformers", "accelerate")}},
        }  # fmt: skip

    @property
    def world(self) -> dict[str, int]:
        """What makes the samples of a step."""
        recipe = self.job.recipe
        return {
            "processes": self.ranks.size,
            "batch_size": recipe.batch_size,
            "accumulation": recipe.accumulation,
        }

    @property
    def identity(self) -> dict[str, Any]:
        """What must be the same for a later run to go on from this one."""
        return {"recipe": training_identity(plain_recipe(self.job.recipe)), "data": self.sources.contents}

    def validate(self) -> dict[str, float] | None:
        """Figures of the samples held out, with the averaged weights; None where a signal came to a process."""
        recipe = self.job.recipe
        draws = draws_of(recipe, self.state.start.pipeline)
        numbers = range(self.ranks.rank, len(self.sources.held), self.ranks.size)
        samples = [self.held[number] for number in numbers]
        with self._averaged():
            mine = validation.look(
                self.step, samples, draws, recipe.seed,
                bins=recipe.validation.bins, batch=recipe.batch_size, device=self.device, collate=collated,
                stop=signal_pending,
            )  # fmt: skip
        shares = self.ranks.all_gather(mine)
        if any(share is None for share in shares):
            return None
        everyone = [one for share in shares for one in share]
        return validation.summarise(everyone) if everyone else {}

    def draw(self) -> RGB | None:
        """What the model, with the averaged weights, makes of the first samples held out."""
        options, recipe = self.job.recipe.validation, self.job.recipe
        shown = [self.held[number] for number in range(min(options.sheet, len(self.sources.held)))]
        if not shown:
            return None
        pipeline = self.state.start.pipeline
        pipeline.forget()
        with self._averaged(), self.accelerator.autocast():
            made = validation.results(pipeline, shown, recipe.seed, options.steps)
        pipeline.forget()
        return validation.draw(f"{recipe.name}, step {self.state.step:,}", shown, made)

    def verdict(self, values: dict[str, float]) -> str:
        """A validation in words."""
        return validation.verdict(values)

    @contextlib.contextmanager
    def _averaged(self) -> Iterator[None]:
        """With the moving average in the place of the weights."""
        if self.state.average is None:
            yield
            return
        self.state.average.swap()
        try:
            yield
        finally:
            self.state.average.swap()
