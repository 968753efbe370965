"""Checkpoints on disk: everything a run needs to be resumed, in folders that are complete or do not exist."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pics_cli.core.model.model_folder import atomic_folder
from pics_cli.core.recipes.base import digest
from pics_cli.core.recipes.training import TrainingRecipe
from pics_cli.core.recipes.training_sections import CheckpointSettings
from pics_cli.core.recipes.validation import error_line
from pics_cli.core.runtime.files import apply_umask, file_sha256, load_json, read_file, write_json
from pics_cli.errors import PicsError, read_error

logger = logging.getLogger(__name__)
FOLDER, STATE = "checkpoints", "state.json"
WEIGHTS, EMA, OPTIMIZER, RANDOM = (f"{name}.safetensors" for name in ("weights", "ema", "optimizer", "random"))
_NAME = re.compile(r"step_([0-9]{8,})")
_TEMPORARY_NAME = re.compile(r"step_[0-9]{8,}\.[0-9]+\.tmp")
_CHECKSUM = "state_sha256"
_STATE_KEYS = {"position", "trained", "identity", "recipe", "base", "world", "precision", "looked", "bad"}
_HINT = "name the folder of a checkpoint, ROOT/checkpoints/step_…, or take --resume auto"
_OTHER_VERSION = "it was saved by another version of pics"


class DamagedCheckpoint(PicsError):
    """A checkpoint whose files are not those that were written."""


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint, whose files had the hashes that were written.

    Attributes:
        state: contents of `state.json`: `step`, `position`, the recipe, and what else belongs to no tensor.
    """

    folder: Path
    state: dict[str, Any]

    @property
    def step(self) -> int:
        """Optimizer steps it includes."""
        return int(self.state["step"])

    @property
    def recipe(self) -> TrainingRecipe:
        """Of the run that wrote it.

        Raises:
            PicsError: another version of pics wrote it.
        """
        text = json.dumps(self.state["recipe"])
        try:
            return TypeAdapter(TrainingRecipe).validate_json(text, strict=True)
        except ValidationError as error:
            path = self.folder / STATE
            lines = [error_line(TrainingRecipe, path, detail, {}) for detail in error.errors()]
            raise PicsError("\n".join(lines), _OTHER_VERSION) from None

    def tensors(self, file: str) -> dict[str, Tensor]:
        """The tensors of one of its files, by name, on the CPU."""
        return load_file(self.folder / file)

    def check_state(self) -> None:
        """Check that `state.json` has all keys that resuming and exporting need.

        Raises:
            PicsError: another version of pics wrote it.
        """
        if missing := _STATE_KEYS - self.state.keys():
            raise PicsError(f"{self.folder / STATE}: holds no {', '.join(sorted(missing))}", _OTHER_VERSION)


def path_of(root: Path, step: int) -> Path:
    """Folder of the checkpoint of a step."""
    return root / FOLDER / f"step_{step:08d}"


def save(folder: Path, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
    """Write a checkpoint.

    Args:
        folder: its path; must not exist.
        tensors: by file and name.
        state: plain data.

    Raises:
        PicsError: it cannot be written; existing checkpoints are untouched.
    """
    with atomic_folder(folder) as temporary:
        hashes = {}
        for file, named in tensors.items():
            path = temporary / file
            save_file({name: value.detach().cpu().contiguous() for name, value in named.items()}, path)
            apply_umask(path)
            with path.open("rb") as written:
                os.fsync(written.fileno())
            hashes[file] = file_sha256(path)
        contents = json.loads(json.dumps({**state, "sha256": hashes}))  # as it will be read
        write_json(temporary / STATE, {**contents, _CHECKSUM: digest(contents)})


def read(folder: Path) -> Checkpoint:
    """Open a checkpoint, comparing every file with its hash.

    Raises:
        DamagedCheckpoint: no checkpoint, or a damaged one; the message names the file.
        PicsError: it cannot be read.
    """
    path = folder / STATE
    try:
        state = load_json(read_file(path))
        hashes, step = state["sha256"], state["step"]
    except (FileNotFoundError, NotADirectoryError):
        raise DamagedCheckpoint(f"{folder}: no checkpoint ({STATE} is missing)", _HINT) from None
    except OSError as error:
        raise read_error(path, error, _HINT) from None
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedCheckpoint(f"{path}: unreadable: {error}", _HINT) from None
    if not isinstance(step, int) or not isinstance(hashes, dict) or not {WEIGHTS, OPTIMIZER} <= hashes.keys():
        raise DamagedCheckpoint(f"{path}: not the state of a checkpoint", _HINT)
    written = state.pop(_CHECKSUM, None)  # checkpoints of earlier versions have none
    if written not in (None, digest(state)):
        raise DamagedCheckpoint(f"{path}: damaged: not the contents that were written (sha256 differs)", _HINT)
    for file, expected in hashes.items():
        if not (folder / file).is_file():
            raise DamagedCheckpoint(f"{folder}: {file} is missing", _HINT)
        if file_sha256(folder / file) != expected:
            raise DamagedCheckpoint(
                f"{folder / file}: damaged: not the contents that were written (sha256 differs)", _HINT
            )
    return Checkpoint(folder, state)


def newest(root: Path, set_aside: bool = True) -> Checkpoint | None:
    """The newest undamaged checkpoint of a run, None where the run has none at all.

    Args:
        set_aside: rename damaged ones, so that their steps can be saved again; only for the folder's one writer.

    Raises:
        PicsError: all are damaged; or one cannot be read.
    """
    damaged = 0
    for step, folder in reversed(list(list_folders(root))):
        try:
            return read(folder)
        except DamagedCheckpoint as error:
            damaged += 1
            text = f"{error.message}; looking for one before step {step:,}"
            if set_aside:
                target = folder.with_name(f"{folder.name}.damaged")
                shutil.rmtree(target, ignore_errors=True)
                folder.rename(target)
                text += f"; set aside as {target.name}"
            logger.warning(text)
    if damaged:
        raise PicsError(
            f"{root}: no good checkpoint, {damaged} damaged",
            "start anew with the same command, which keeps nothing of that run; or choose another --root-dir",
        )
    return None


def list_folders(root: Path) -> Iterator[tuple[int, Path]]:
    """Steps and folders of a run's checkpoints, oldest first; they are not checked."""
    folder = root / FOLDER
    matches = ((_NAME.fullmatch(path.name), path) for path in folder.glob("step_*"))
    yield from sorted((int(match[1]), path) for match, path in matches if match)


def remove_old(root: Path, options: CheckpointSettings) -> None:
    """Delete checkpoints that are not to be kept; only for the folder's one writer."""
    for step, folder in list(list_folders(root))[: -options.keep]:
        if options.keep_every is None or step % options.keep_every:
            temporary = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")  # never half a checkpoint by its name
            folder.rename(temporary)
            shutil.rmtree(temporary, ignore_errors=True)


def remove_temporaries(root: Path) -> None:
    """Delete what an interrupted writer left behind; only for the folder's one writer."""
    for path in (root / FOLDER).glob("step_*.tmp"):
        if _TEMPORARY_NAME.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)
