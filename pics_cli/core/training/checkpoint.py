"""Checkpoints: everything a run needs to go on, in folders that are whole or not there."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from pics_cli.core.model.model_folder import whole_folder
from pics_cli.core.recipes.training import TrainingRecipe
from pics_cli.core.recipes.training_sections import CheckpointSettings
from pics_cli.core.recipes.validation import error_line
from pics_cli.core.runtime.files import apply_umask, file_sha256, write_json
from pics_cli.errors import PicsError, read_error

FOLDER, STATE = "checkpoints", "state.json"
WEIGHTS, EMA, OPTIMIZER, RANDOM = (
    "weights.safetensors",
    "ema.safetensors",
    "optimizer.safetensors",
    "random.safetensors",
)
_NAME = re.compile(r"step_([0-9]{8,})")
_LEFT = re.compile(r"step_[0-9]{8,}\.[0-9]+\.tmp")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was found whole.

    Attributes:
        folder: where it is.
        state: `step`, `position`, the recipe, and what else belongs to no tensor.
    """

    folder: Path
    state: dict[str, Any]

    @property
    def step(self) -> int:
        """Optimiser steps behind it."""
        return int(self.state["step"])

    @property
    def recipe(self) -> TrainingRecipe:
        """Of the run that wrote it."""
        plain = json.dumps(self.state["recipe"])
        try:
            return TypeAdapter(TrainingRecipe).validate_json(plain, strict=True)
        except ValidationError as error:
            where = self.folder / STATE
            lines = [error_line(TrainingRecipe, where, detail, {}) for detail in error.errors()]
            raise PicsError("\n".join(lines), "it was saved by another version of pics") from None

    def tensors(self, file: str) -> dict[str, Tensor]:
        """The tensors of one of its files, by name, on the CPU."""
        with safe_open(self.folder / file, "pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  (no mapping)


def path_of(root: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return root / FOLDER / f"step_{step:08d}"


def save(folder: Path, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
    """Write a checkpoint.

    Args:
        folder: its name; must not exist.
        tensors: by file and name.
        state: plain data.

    Raises:
        PicsError: it cannot be written; what was there before is untouched.
    """
    with whole_folder(folder) as place:
        hashes = {}
        for file, contents in tensors.items():
            save_file({name: value.detach().cpu().contiguous() for name, value in contents.items()}, place / file)
            apply_umask(place / file)
            with (place / file).open("rb") as written:
                os.fsync(written.fileno())
            hashes[file] = file_sha256(place / file)
        write_json(place / STATE, {**state, "sha256": hashes})


def read(folder: Path) -> Checkpoint:
    """A checkpoint, with every file compared with its hash.

    Raises:
        PicsError: no checkpoint, or a damaged one; says what of it.
    """
    try:
        state = json.loads((folder / STATE).read_text())
        hashes, step = state["sha256"], state["step"]
    except (FileNotFoundError, NotADirectoryError):
        raise Damaged(f"{folder}: no checkpoint ({STATE} is missing)", _WHICH) from None
    except OSError as error:
        raise read_error(folder / STATE, error, _WHICH) from None
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{folder / STATE}: unreadable: {error}", _WHICH) from None
    if not isinstance(step, int) or not isinstance(hashes, dict) or not {WEIGHTS, OPTIMIZER} <= hashes.keys():
        raise Damaged(f"{folder / STATE}: not the state of a checkpoint", _WHICH)
    for file, expected in hashes.items():
        if not (folder / file).is_file():
            raise Damaged(f"{folder}: {file} is missing", _WHICH)
        if file_sha256(folder / file) != expected:
            raise Damaged(f"{folder / file}: damaged: not the contents that were written (sha256 differs)", _WHICH)
    return Checkpoint(folder, state)


_NEEDED = {"position", "trained", "identity", "recipe", "base", "world", "precision", "looked", "bad"}
_WHICH = "name the folder of a checkpoint, ROOT/checkpoints/step_…, or take --resume auto"


def check_facts(found: Checkpoint) -> None:
    """Whether a checkpoint says all that is asked of it.

    Raises:
        PicsError: another version of pics saved it.
    """
    if missing := _NEEDED - found.state.keys():
        raise PicsError(
            f"{found.folder / STATE}: holds no {', '.join(sorted(missing))}", "it was saved by another version of pics"
        )


class Damaged(PicsError):
    """A checkpoint that is not what was written."""


def newest(root: Path, say: Callable[[str], None], set_aside: bool = True) -> Checkpoint | None:
    """The newest good checkpoint of a run, None where there is none at all.

    Args:
        root: of the run.
        say: told of damaged ones.
        set_aside: give those another name, so that the step can be saved again; only for the folder's one writer.

    Raises:
        PicsError: there are some, and all are damaged; or one cannot be read.
    """
    damaged = 0
    for step, folder in reversed(list(found(root))):
        try:
            return read(folder)
        except Damaged as error:
            damaged += 1
            words = f"{error.message}; looking for one before step {step:,}"
            if set_aside:
                aside = folder.with_name(f"{folder.name}.damaged")
                shutil.rmtree(aside, ignore_errors=True)
                folder.rename(aside)
                words += f"; set aside as {aside.name}"
            say(words)
    if damaged:
        raise PicsError(
            f"{root}: no good checkpoint, {damaged} damaged",
            "start anew with the same command, which keeps nothing of that run; or choose another --root-dir",
        )
    return None


def found(root: Path) -> Iterator[tuple[int, Path]]:
    """Steps and folders of the checkpoints of a run, oldest first; whether they are whole is not looked at."""
    folder = root / FOLDER
    named = ((match, path) for path in folder.glob("step_*") if (match := _NAME.fullmatch(path.name)))
    yield from sorted((int(match[1]), path) for match, path in named)


def tidy(root: Path, options: CheckpointSettings) -> None:
    """Remove checkpoints that are not to be kept. Only for whoever holds the folder's lock."""
    steps = list(found(root))
    for step, folder in steps[: -options.keep]:
        if options.keep_every is None or step % options.keep_every:
            gone = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")  # whoever reads it keeps what is open
            folder.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)


def remove_temporaries(root: Path) -> None:
    """Delete what an interrupted writer left behind. Only for whoever holds the folder's lock."""
    for path in (root / FOLDER).glob("step_*.tmp"):
        if _LEFT.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: list[str]) -> dict[str, Tensor]:
    """The optimiser's state as `kind/parameter`, for parameters in the optimiser's order."""
    state = optimizer.state_dict()["state"]
    return {
        f"{kind}/{names[index]}": torch.as_tensor(value)
        for index, values in state.items()
        for kind, value in values.items()
    }


def load_optimizer(optimizer: torch.optim.Optimizer, names: list[str], tensors: Mapping[str, Tensor]) -> None:
    """Take over what `optimizer_tensors` gave."""
    place = {name: index for index, name in enumerate(names)}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        kind, _, name = key.partition("/")
        parameter = parameters[place[name]]
        if value.shape == parameter.shape and value.ndim:
            # In the parameter's own layout (channels last): fused kernels want that.
            state.setdefault(place[name], {})[kind] = torch.empty_like(parameter, requires_grad=False).copy_(value)
        else:
            state.setdefault(place[name], {})[kind] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
