"""A checkpoint as a model folder that `pics infer` takes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch import nn

from pics_cli.core.model.config import FILE
from pics_cli.core.model.devices import DTYPES
from pics_cli.core.model.model_folder import check_new, whole_folder
from pics_cli.core.recipes.base import digest
from pics_cli.core.recipes.training import TrainingRecipe, plain_recipe
from pics_cli.core.training.checkpoint import EMA, WEIGHTS, Checkpoint
from pics_cli.core.training.optimizer import named
from pics_cli.core.training.starting_model import start_model
from pics_cli.core.training.state import load_weights
from pics_cli.errors import PicsError


def export(
    recipe: TrainingRecipe, found: Checkpoint, out: Path, say: Callable[[str], None], replace_it: bool = False
) -> None:
    """Write the model of a checkpoint: the moving average of its weights where there is one.

    Args:
        recipe: of the run.
        found: the checkpoint.
        out: the model folder.
        replace_it: whether a model folder of that name, which the same run wrote, may be replaced; else it must be new.
        say: told what is being done.

    Raises:
        PicsError: the base model is not the one trained from, or `out` exists or cannot be written.
    """
    if not replace_it or not (out / FILE).is_file():
        check_new(out)
    start = start_model(recipe, lambda _text: None)
    if found.state["base"] != start.base:
        raise PicsError(f"{found.folder}: was trained from another base model", "name that one: --base PATH|REPO")
    load_weights(start, found.tensors(WEIGHTS), found.folder)
    if recipe.ema.enabled and EMA in found.state["sha256"]:
        here = dict(named(start.pipeline))
        for name, value in found.tensors(EMA).items():
            here[name].data.copy_(value)
    pipeline = start.pipeline
    seen = {one["contents"] for one in found.state["identity"]["data"].values()}
    pipeline.config = replace(
        pipeline.config, trained_steps=found.step, recipe_hash=digest(plain_recipe(recipe)), links={},
        trained_on=sorted({*pipeline.config.trained_on, *seen}),
    )  # fmt: skip
    for part in pipeline.parts.values():
        nn.Module.to(part, DTYPES[recipe.export.dtype])  # diffusers' own `to` warns of nothing
    if not out.exists():
        with whole_folder(out) as folder:
            pipeline.save_pretrained(folder)
    else:
        fresh, aside = (out.with_name(f"{out.name}.{word}") for word in ("new", "old"))
        for left in (fresh, aside):  # by an export that was interrupted
            shutil.rmtree(left, ignore_errors=True)
        with whole_folder(fresh) as folder:
            pipeline.save_pretrained(folder)
        out.rename(aside)
        fresh.rename(out)
        shutil.rmtree(aside, ignore_errors=True)
    say(f"wrote {out}")
