"""How far a training run is, and how it went."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pics_cli.core.runtime.progress import Progress

# Weight of the past in smoothed values.
_SMOOTHING = 0.95


@dataclass
class TrainingProgress(Progress):
    """Optimizer steps done, and how fast they are; smoothed over the last steps.

    Attributes:
        loss: None before the first step.
        samples_per_second: of all processes.
        data_seconds, compute_seconds: of a step, spent waiting for samples and computing.
        memory_bytes: at the peak.
    """

    loss: float | None = None
    samples_per_second: float = 0.0
    data_seconds: float = 0.0
    compute_seconds: float = 0.0
    memory_bytes: int = 0

    @property
    def detail(self) -> str:
        """Current activity, loss, speed and memory."""
        words = [self.activity] if self.activity else []
        if self.loss is not None:
            words += [
                f"loss {self.loss:.4f}",
                f"{self.samples_per_second:,.1f} samples/s",
                f"data {self.data_seconds:.2f} + compute {self.compute_seconds:.2f} s/step",
                f"{self.memory_bytes / 1e9:,.1f} GB",
            ]
        return ", ".join(words)

    def add_step(
        self, loss: float, samples: int, data_seconds: float, compute_seconds: float, memory_bytes: int
    ) -> None:
        """Count a step."""
        past = 0.0 if self.loss is None else _SMOOTHING
        self.loss = past * (self.loss or 0.0) + (1 - past) * loss
        self.data_seconds = past * self.data_seconds + (1 - past) * data_seconds
        self.compute_seconds = past * self.compute_seconds + (1 - past) * compute_seconds
        self.samples_per_second = samples / max(self.data_seconds + self.compute_seconds, 1e-9)
        self.memory_bytes = memory_bytes
        self.done += 1


@dataclass
class TrainingReport:
    """How a run went.

    Attributes:
        step: optimizer steps that the model has been trained for.
        new_steps: how many of them this run made.
        seconds: of training, without validation and saving.
        samples: used by this run.
        peak_memory: bytes, and whose: `cuda` or `process`.
        metrics: newest values of the log, by name.
        bad_samples: unreadable samples: set, key, reason, detail.
        model: folder of the trained model or adapter.
    """

    step: int = 0
    new_steps: int = 0
    seconds: float = 0.0
    samples: int = 0
    peak_memory: tuple[int, str] = (0, "process")
    metrics: dict[str, float] = field(default_factory=dict)
    bad_samples: list[dict[str, str]] = field(default_factory=list)
    model: Path = Path()
