"""A run's state between its tensors and a checkpoint's files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from pics_cli.core.recipes.base import digest
from pics_cli.core.training import checkpoint
from pics_cli.core.training.checkpoint import EMA, OPTIMIZER, RANDOM, WEIGHTS, Checkpoint
from pics_cli.core.training.optimizer import Average, is_new, named
from pics_cli.core.training.starting_model import Start
from pics_cli.errors import PicsError


@dataclass
class State:
    """What changes while a run trains.

    Attributes:
        start: the model.
        trained: its trained parameters by name.
        optimizer: of these, in this order.
        average: of these; None: not kept.
        accelerator: whose gradient scaler, if any, belongs to the state.
        step: optimiser steps behind.
        position: samples of the endless stream behind.
    """

    start: Start
    trained: dict[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    average: Average | None
    accelerator: Accelerator
    step: int = 0
    position: int = 0

    def save(self, folder: Path, facts: Mapping[str, Any]) -> None:
        """Write a checkpoint; `facts` say what it belongs to.

        Raises:
            PicsError: it cannot be written.
        """
        tensors: dict[str, Mapping[str, Tensor]] = {
            WEIGHTS: kept_weights(self.start, self.trained),
            OPTIMIZER: checkpoint.optimizer_tensors(self.optimizer, list(self.trained)),
            RANDOM: _random_state(),
        }
        state: dict[str, Any] = {"step": self.step, "position": self.position, "trained": self._names(), **facts}
        if self.average is not None:
            tensors[EMA], state["ema_steps"] = self.average.state()
        if self.accelerator.scaler is not None:
            state["scaler"] = self.accelerator.scaler.state_dict()
        checkpoint.save(folder, tensors, state)

    def load(self, found: Checkpoint, say: Callable[[str], None]) -> None:
        """Go on from a checkpoint.

        Raises:
            PicsError: it is of another architecture, or of other trained parts.
        """
        if found.state["trained"] != self._names():
            raise PicsError(
                f"{found.folder}: other parameters were trained there",
                "take the same train: and train_encoder: as that run, or start anew: --resume none, another --root-dir",
            )
        load_weights(self.start, found.tensors(WEIGHTS), found.folder)
        checkpoint.load_optimizer(self.optimizer, list(self.trained), found.tensors(OPTIMIZER))
        if self.average is not None:
            if "ema_steps" in found.state:
                self.average.load(found.tensors(EMA), found.state["ema_steps"])
            else:
                self.average = Average(self.trained, self.average.options)
                say(f"{found.folder}: holds no moving average: it begins with the weights as they are")
        if self.accelerator.scaler is not None and "scaler" in found.state:
            self.accelerator.scaler.load_state_dict(found.state["scaler"])
        _restore_random_state(found.tensors(RANDOM))
        self.step, self.position = found.step, int(found.state["position"])

    def _names(self) -> str:
        """Which parameters are trained, as a hash."""
        return digest({"names": list(self.trained)})


def kept_weights(start: Start, trained: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """The parameters that a checkpoint holds: trained ones, and new ones that no base model has."""
    return {name: value.data for name, value in named(start.pipeline) if name in trained or is_new(name, start.new)}


@torch.no_grad()
def load_weights(start: Start, tensors: Mapping[str, Tensor], where: Path) -> None:
    """Copy weights into the model.

    Raises:
        PicsError: it has no such parameters, or others of them.
    """
    here = dict(named(start.pipeline))
    if unknown := sorted(tensors.keys() - here.keys()):
        raise _other_architecture(where, f"this model has no {unknown[0]}")
    for name, value in tensors.items():
        if here[name].shape != value.shape:
            sizes = f"{list(value.shape)} there, {list(here[name].shape)} here"
            raise _other_architecture(where, f"{name} is {sizes}")
    if missing := [name for name in here if is_new(name, start.new) and name not in tensors]:
        raise _other_architecture(where, f"it holds no {missing[0]}")
    for name, value in tensors.items():
        here[name].copy_(value)


def _other_architecture(where: Path, why: str) -> PicsError:
    return PicsError(
        f"{where}: a checkpoint of another architecture: {why}",
        "take the recipe and --base of that run, or start anew: --resume none and another --root-dir",
    )


def _random_state() -> dict[str, Tensor]:
    """torch's generators: nothing of training draws from them, but a library might."""
    found = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        found["cuda"] = torch.cuda.get_rng_state()
    return found


def _restore_random_state(tensors: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(tensors["cpu"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])
