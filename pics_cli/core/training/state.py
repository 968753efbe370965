"""The training state: everything that changes while a model trains, saved to and restored from a checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.recipes.base import digest
from pics_cli.core.training import checkpoint
from pics_cli.core.training.checkpoint import EMA, OPTIMIZER, RANDOM, WEIGHTS, Checkpoint
from pics_cli.core.training.ema import ModelEma
from pics_cli.core.training.networks import named_parameters, new_parameters
from pics_cli.errors import PicsError

logger = logging.getLogger(__name__)


@dataclass
class TrainingState:
    """Model, optimizer, moving average and counters of a run.

    Attributes:
        model: on the device where it is trained.
        new_network: no base model holds any of its weights, so that checkpoints hold them all.
        base_sha256: of what the model was made from; see `InitialModel`.
        trained: its trained parameters by name.
        optimizer: of these, in this order.
        ema: of these; None: there is none.
        accelerator: whose gradient scaler, if any, belongs to the state.
        step: optimizer steps done.
        position: samples of the endless stream that were used.
    """

    model: PicsModel
    new_network: bool
    base_sha256: str
    trained: dict[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    ema: ModelEma | None
    accelerator: Accelerator
    step: int = 0
    position: int = 0

    def save(self, folder: Path, metadata: Mapping[str, Any]) -> None:
        """Write a checkpoint, with `metadata` on the run in its `state.json`.

        Raises:
            PicsError: it cannot be written.
        """
        # Nothing of training draws from torch's generators, but a library might.
        random = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            random["cuda"] = torch.cuda.get_rng_state()
        tensors: dict[str, Mapping[str, Tensor]] = {
            WEIGHTS: checkpoint_weights(self.model, self.new_network, self.trained),
            OPTIMIZER: optimizer_tensors(self.optimizer, list(self.trained)),
            RANDOM: random,
        }
        state = {"step": self.step, "position": self.position, "trained": self._trained_digest(), **metadata}
        if self.ema is not None:
            tensors[EMA], state["ema_steps"] = self.ema.state()
        if self.accelerator.scaler is not None:
            state["scaler"] = self.accelerator.scaler.state_dict()
        checkpoint.save(folder, tensors, state)

    def load(self, saved: Checkpoint) -> None:
        """Restore a checkpoint.

        Raises:
            PicsError: it is of another architecture, or of other trained parts.
        """
        if saved.state["trained"] != self._trained_digest():
            raise PicsError(
                f"{saved.folder}: is of a run that trained other parameters",
                "take the same train: and train_encoder: as that run, or start anew: --resume none, another --root-dir",
            )
        load_weights(self.model, self.new_network, saved)
        load_optimizer(self.optimizer, list(self.trained), saved.tensors(OPTIMIZER))
        if self.ema is not None:
            if "ema_steps" in saved.state:
                self.ema.load(saved.tensors(EMA), saved.state["ema_steps"])
            else:
                self.ema = ModelEma(self.trained, self.ema.options)
                logger.warning("%s: holds no moving average: it begins with the weights as they are", saved.folder)
        if self.accelerator.scaler is not None and "scaler" in saved.state:
            self.accelerator.scaler.load_state_dict(saved.state["scaler"])
        random = saved.tensors(RANDOM)
        torch.set_rng_state(random["cpu"])
        if "cuda" in random and torch.cuda.is_available():
            torch.cuda.set_rng_state(random["cuda"])
        self.step, self.position = saved.step, int(saved.state["position"])

    def _trained_digest(self) -> str:
        return digest({"names": list(self.trained)})


def checkpoint_weights(model: PicsModel, new_network: bool, trained: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """The parameters that a checkpoint holds: trained ones, and new ones that no base model has."""
    held = trained.keys() | new_parameters(model, new_network)
    return {name: value.data for name, value in named_parameters(model) if name in held}


@torch.no_grad()
def load_weights(model: PicsModel, new_network: bool, saved: Checkpoint) -> None:
    """Copy a checkpoint's weights into the model.

    Raises:
        PicsError: the model has no such parameters, or of other shapes, or new ones that the checkpoint lacks.
    """
    parameters, tensors = dict(named_parameters(model)), saved.tensors(WEIGHTS)
    if unknown := sorted(tensors.keys() - parameters.keys()):
        raise _other_architecture(saved, f"this model has no {unknown[0]}")
    for name, value in tensors.items():
        if parameters[name].shape != value.shape:
            shapes = f"{list(value.shape)} in it, {list(parameters[name].shape)} in this model"
            raise _other_architecture(saved, f"{name} is {shapes}")
    if missing := sorted(new_parameters(model, new_network) - tensors.keys()):
        raise _other_architecture(saved, f"it holds no {missing[0]}")
    for name, value in tensors.items():
        parameters[name].copy_(value)


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: list[str]) -> dict[str, Tensor]:
    """The optimizer's state as `kind/parameter`, such as `exp_avg/unet.conv_in.weight`; `names`: in its order."""
    state = optimizer.state_dict()["state"]
    return {
        f"{kind}/{names[index]}": torch.as_tensor(value)
        for index, values in state.items()
        for kind, value in values.items()
    }


def load_optimizer(optimizer: torch.optim.Optimizer, names: list[str], tensors: Mapping[str, Tensor]) -> None:
    """Restore what `optimizer_tensors` returned."""
    indices = {name: index for index, name in enumerate(names)}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        kind, _, name = key.partition("/")
        index = indices[name]
        restored = value
        if value.shape == parameters[index].shape and value.ndim:
            # In the parameter's own layout (channels last), which fused kernels need.
            restored = torch.empty_like(parameters[index], requires_grad=False).copy_(value)
        state.setdefault(index, {})[kind] = restored
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _other_architecture(saved: Checkpoint, difference: str) -> PicsError:
    return PicsError(
        f"{saved.folder}: a checkpoint of another architecture: {difference}",
        "take the recipe and --base of that run, or start anew: --resume none and another --root-dir",
    )
