"""What a training run is asked to do, how far it is, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pics_cli.core.recipes.training import TrainingRecipe


@dataclass(frozen=True)
class Job:
    """A run.

    Attributes:
        recipe: data, model and optimisation.
        root: folder of logs, checkpoints and the trained model.
        resume: `auto`: from the newest good checkpoint there, if any; `none`: from the start; else a checkpoint.
        allow_missing: train on the sets that are there.
        allow_pipe: run the commands of `pipe:` addresses.
        max_bad: unreadable samples to put up with; None: 1 % of all, at least 100.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
    """

    recipe: TrainingRecipe
    root: Path
    resume: str = "auto"
    allow_missing: bool = False
    allow_pipe: bool = False
    max_bad: int | None = None
    device: str = "auto"


@dataclass
class Progress:
    """How far the run is; read by whoever displays it.

    Attributes:
        step, steps: optimiser steps.
        begun: steps that earlier runs made.
        loss: of late, smoothed; None before the first.
        rate: samples a second, of all processes, of late.
        data, compute: seconds of a step spent waiting for samples and computing, of late.
        memory: bytes at the peak.
        doing: what goes on instead of training, if something does.
    """

    step: int = 0
    steps: int = 0
    begun: int = 0
    loss: float | None = None
    rate: float = 0.0
    data: float = 0.0
    compute: float = 0.0
    memory: int = 0
    doing: str = ""

    def passed(self, loss: float, samples: int, data: float, compute: float, memory: int) -> None:
        """After a step: its loss, samples, seconds of both kinds, and the peak of the memory."""
        kept = 0.0 if self.loss is None else 0.95
        self.loss = kept * (self.loss or 0.0) + (1 - kept) * loss
        self.data = kept * self.data + (1 - kept) * data
        self.compute = kept * self.compute + (1 - kept) * compute
        self.rate = samples / max(self.data + self.compute, 1e-9)
        self.step, self.memory = self.step + 1, memory


@dataclass
class Report:
    """How a run went.

    Attributes:
        steps: optimiser steps behind the model, and how many of them this run made.
        seconds: of training, without validation and saving.
        samples: seen by this run.
        peak: bytes of memory, and whose: `cuda` or `process`.
        last: newest figures of the log, by name.
        bad: unreadable samples met by this run: set, key, reason, detail.
        model: folder of the trained model.
    """

    steps: tuple[int, int] = (0, 0)
    seconds: float = 0.0
    samples: int = 0
    peak: tuple[int, str] = (0, "process")
    last: dict[str, float] = field(default_factory=dict)
    bad: list[dict[str, str]] = field(default_factory=list)
    model: Path = Path()
