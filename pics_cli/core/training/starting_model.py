"""What training starts from: a base model, a model of pics, or a new small network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from pics_cli.core.inference.record import model_fingerprint
from pics_cli.core.model.base_models import BASE, DINOV2, find, find_base, find_dinov2, find_local
from pics_cli.core.model.config import FILE, PATTERNS, checked
from pics_cli.core.model.load_weights import check_image_size
from pics_cli.core.model.model_folder import misfits
from pics_cli.core.model.new_model import blank_model, new_model
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.model.schedulers import small_scheduler
from pics_cli.core.model.small_model import blank_parts, small_config, small_pipeline
from pics_cli.core.recipes.base import digest
from pics_cli.core.recipes.training import TrainingRecipe
from pics_cli.core.recipes.training_sections import ModelSettings
from pics_cli.errors import PicsError

_NEW = "take another hint, or a new network: model.shape"


class Start(NamedTuple):
    """A model to be trained.

    Attributes:
        pipeline: in float32, on the CPU.
        new: all of it is new: no base model holds any of its weights.
        base: sha256 of what it was made from, to be the same when a run is resumed.
    """

    pipeline: PicsModel
    new: bool
    base: str


def start_model(recipe: TrainingRecipe, say: Callable[[str], None]) -> Start:
    """Load or make the model that training starts from.

    Raises:
        PicsError: a base model is not found, not what is expected, or has changed since its first use; a value of the
            recipe does not fit it.
    """
    model, given = recipe.model, overrides(recipe.model)
    if model.shape is not None:
        if model.base is not None or model.dinov2 is not None:
            raise PicsError("model.shape: a new network, but model.base or model.dinov2 is given", "leave one out")
        shape = asdict(model.shape)
        return Start(small_pipeline(small_config(shape, given), shape, recipe.seed), True, digest(shape))
    base = model.base or BASE
    place = find(base, "--base", PATTERNS)
    if (place / FILE).is_file():
        if model.dinov2 is not None:
            raise PicsError(f"--base {base}: a model of pics has its own encoder", "leave out model.dinov2")
        return _go_on(base, place, given)
    if given.get("hint") == "layers":
        raise PicsError("model.hint: got layers, which a network from a base model has no inputs and outputs for", _NEW)
    dinov2 = model.dinov2 or DINOV2
    pipeline = new_model(base, dinov2, config=checked(given), keep=given, seed=recipe.seed, say=say)
    files = {"base": find_base(base, _silence).sha256, "dinov2": find_dinov2(dinov2, _silence).sha256}
    return Start(pipeline, False, digest(files))


def blank_start(model: ModelSettings) -> tuple[PicsModel, str]:
    """The model that training would start from, on the meta device: from configuration files alone.

    Returns:
        The model, and a line on where its shapes come from.

    Raises:
        PicsError: a path that does not exist, something else there, or values that do not fit each other.
    """
    given = overrides(model)
    if model.shape is not None:
        shape = asdict(model.shape)
        config = small_config(shape, given)
        blank = PicsModel(config, **blank_parts(config, shape), scheduler=small_scheduler(), device="meta")
        return blank, "a new network of model.shape"
    base = model.base or BASE
    place = find_local(base, "--base", PATTERNS, FILE)
    if place is None or not (place / FILE).is_file():
        return blank_model(base, model.dinov2 or DINOV2, given)
    pipeline = PicsModel.from_pretrained(place, weights=False)
    pipeline.config = checked(given, pipeline.config)
    parts: dict[str, Any] = dict(pipeline.parts)
    if errors := misfits(pipeline.config, **parts):
        raise PicsError("\n".join(f"{place}: {error}" for error in errors), "leave these out of the recipe's model")
    return pipeline, f"configuration of {place}"


def overrides(model: ModelSettings) -> dict[str, Any]:
    """What the recipe says of the model's configuration."""
    kept = {key: value for key, value in asdict(model).items() if key not in ("base", "dinov2", "shape")}
    return {key: value for key, value in kept.items() if value is not None}


def _go_on(name: str, place: Path, given: dict[str, Any]) -> Start:
    pipeline = PicsModel.from_pretrained(place, flag="--base")
    levels = len(pipeline.unet.config.block_out_channels)
    check_image_size(given.get("image_size", pipeline.config.image_size), pipeline.config.downsampling, levels)
    fixed = {"reference_size", "latent_scale", "share_grid"} & given.keys()
    if different := [key for key in sorted(fixed) if given[key] != getattr(pipeline.config, key)]:
        key = different[0]
        there = getattr(pipeline.config, key)
        raise PicsError(f"model.{key}: got {given[key]}, but {name} was made with {there}", f"leave out model.{key}")
    if "layers" in (hints := {given.get("hint", pipeline.config.hint), pipeline.config.hint}) and len(hints) > 1:
        there = pipeline.config.hint
        raise PicsError(f"model.hint: got {given['hint']}, but the network of {name} has the inputs of {there}", _NEW)
    pipeline.config = checked(given, pipeline.config)
    return Start(pipeline, False, model_fingerprint(place))


def _silence(_text: str) -> None:
    pass
