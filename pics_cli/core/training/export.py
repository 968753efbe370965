"""Export of a checkpoint to a model folder or an adapter, which `pics infer` takes."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from pics_cli.core.model import adapters
from pics_cli.core.model.adapters import Adapter
from pics_cli.core.model.config import CONFIG_FILE
from pics_cli.core.model.devices import DTYPES
from pics_cli.core.model.model_card import keep_own_card
from pics_cli.core.model.model_folder import atomic_folder, check_not_existing
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.recipes.base import digest, plain_recipe
from pics_cli.core.recipes.training import INFERENCE_DEFAULTS, TrainingRecipe
from pics_cli.core.training import checkpoint
from pics_cli.core.training.adapters import adapter_config, adapter_tensors
from pics_cli.core.training.checkpoint import EMA, WEIGHTS, Checkpoint
from pics_cli.core.training.initial_model import load_initial_model
from pics_cli.core.training.networks import named_parameters
from pics_cli.core.training.state import load_weights
from pics_cli.errors import PicsError

logger = logging.getLogger(__name__)
# Files that tell a folder as a model or an adapter.
_MARKS = (CONFIG_FILE, adapters.CONFIG_FILE)


def export(recipe: TrainingRecipe, saved: Checkpoint, out: Path, overwrite: bool = False, merge: bool = False) -> None:
    """Write what a run's checkpoint has trained to a folder, the moving average of its weights where there is one: the
    model, or the adapter of `train: lora`.

    Args:
        recipe: of the run.
        saved: the checkpoint.
        out: the folder.
        overwrite: one of that name, which the same run wrote, may be replaced; else it must be new.
        merge: of an adapter: write the base model with the adapter in it.

    Raises:
        PicsError: the base model is not the one trained from, or `out` exists or cannot be written.
    """
    adapter_alone = recipe.train == "lora" and not merge
    if overwrite:
        _settle_swap(out)
    if not overwrite or not (out / (adapters.CONFIG_FILE if adapter_alone else CONFIG_FILE)).is_file():
        check_not_existing(out)
    if adapter_alone:
        trained = _trained_adapter(recipe, saved)
        _write_folder(out, lambda folder: adapters.save_adapter(folder, trained.config, trained.tensors))
    else:
        model, record = _trained_model(recipe, saved), training_record(recipe, saved)
        _write_folder(out, lambda folder: model.save_pretrained(folder, training=record))
    logger.info("wrote %s", out)


def _trained_adapter(recipe: TrainingRecipe, saved: Checkpoint) -> Adapter:
    tensors = saved.tensors(EMA if _has_average(recipe, saved) else WEIGHTS)
    config = adapter_config(recipe, saved.state["base"], saved.step)
    return Adapter(str(saved.folder), 1.0, config, adapter_tensors(tensors))


def _has_average(recipe: TrainingRecipe, saved: Checkpoint) -> bool:
    return recipe.ema.enabled and EMA in saved.state["sha256"]


def _trained_model(recipe: TrainingRecipe, saved: Checkpoint) -> PicsModel:
    """The model of a checkpoint, an adapter merged."""
    model, new_network, base_sha256 = load_initial_model(recipe)
    if saved.state["base"] != base_sha256:
        raise PicsError(f"{saved.folder}: was trained from another base model", "name that one: --base PATH|REPO")
    if recipe.train == "lora":
        adapters.merge_adapters(model.parts, [_trained_adapter(recipe, saved)])
    else:
        load_weights(model, new_network, saved)
        if _has_average(recipe, saved):
            parameters = dict(named_parameters(model))
            for name, average in saved.tensors(EMA).items():
                parameters[name].data.copy_(average)
    contents = {shards["contents"] for shards in saved.state["identity"]["data"].values()}
    model.config = replace(
        model.config,
        trained_steps=saved.step,
        recipe_hash=digest(plain_recipe(recipe)),
        links={},
        trained_on=sorted({*model.config.trained_on, *contents}),
    )
    for part in model.parts.values():
        nn.Module.to(part, DTYPES[recipe.export.dtype])  # diffusers' own `to` warns of nothing
    return model


def _write_folder(out: Path, write: Callable[[Path], None]) -> None:
    """Write a folder, whole or not at all, in place of an earlier one."""
    new, old = _swapped(out)
    if not out.exists():
        with atomic_folder(out) as folder:
            write(folder)
    else:
        with atomic_folder(new) as folder:
            keep_own_card(out, folder)
            write(folder)
        out.rename(old)
        new.rename(out)
        _remove(old)


def _swapped(out: Path) -> tuple[Path, Path]:
    """What a folder is called before it gets its name, and the one that it replaces after it has lost it."""
    new, old = (out.with_name(f".{out.name}.pics-{suffix}") for suffix in ("new", "old"))
    return new, old


def _settle_swap(out: Path) -> None:
    """Undo an export that was interrupted: an earlier folder that has lost its name is the only one, and gets it back.

    Raises:
        PicsError: something of such a name is neither a model nor an adapter.
    """
    new, old = _swapped(out)
    for path in (new, old):
        is_empty = path.is_dir() and not any(path.iterdir())
        if path.exists() and not is_empty and not any((path / name).is_file() for name in _MARKS):
            raise PicsError(f"{path}: in the way, and no model folder that pics wrote", "move it away")
    if old.exists() and not out.exists():
        old.rename(out)
    _remove(new)
    _remove(old)


def _remove(folder: Path) -> None:
    """Delete a model or an adapter; what tells it as such goes last, should this be interrupted."""
    for path in folder.iterdir() if folder.exists() else ():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name not in _MARKS:
            path.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def training_record(recipe: TrainingRecipe, saved: Checkpoint) -> dict[str, Any]:
    """The contents of `training.json` of a model folder: plain data on its training, without paths.

    Args:
        recipe: that it was trained with.
        saved: the checkpoint exported.
    """
    data, world = saved.state["identity"]["data"], saved.state["world"]
    return {
        "recipe": recipe.name,
        "recipe_hash": digest(plain_recipe(recipe)),
        "steps": saved.step,
        "batch_size": world["processes"] * world["batch_size"] * world["accumulation"],
        "data": {name: {key: shards[key] for key in ("samples", "contents")} for name, shards in data.items()},
    }


def export_run(recipe: TrainingRecipe, root: Path, out: Path, named: Path | None = None, merge: bool = False) -> None:
    """Write the model or the adapter of a run's newest checkpoint.

    Args:
        recipe: whose base model, inference defaults and data type are used; all else is the checkpoint's.
        out: the folder, which must be new.
        named: folder of the checkpoint to take instead of the newest.
        merge: see `export`.

    Raises:
        PicsError: there is no checkpoint, or as in `export`.
    """
    saved = checkpoint.read(named) if named is not None else checkpoint.newest(root, set_aside=False)
    if saved is None:
        raise PicsError(f"{root}: no checkpoint to export", "name the run with --root-dir, or train first")
    saved.check_state()
    # Base models may have moved since; what `pics infer` does by default is not trained.
    changes = {name: getattr(recipe.model, name) for name in INFERENCE_DEFAULTS}
    if recipe.model.base is not None:
        changes["base"] = recipe.model.base
    trained = saved.recipe
    if merge and trained.train != "lora":
        raise PicsError(f"--merge: {root} trains no adapter (train: {trained.train})", "leave it out")
    export(replace(trained, export=recipe.export, model=replace(trained.model, **changes)), saved, out, merge=merge)
