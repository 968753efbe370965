"""The model that training starts from: one made from a base model, a model of pics, or a new small network."""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

from pics_cli.core.inference.record import model_fingerprint
from pics_cli.core.model.base_models import (
    DEFAULT_BASE,
    DEFAULT_DINOV2,
    find_base,
    find_base_model,
    find_dinov2,
    find_local_base_model,
)
from pics_cli.core.model.bundled import is_bundled
from pics_cli.core.model.config import CONFIG_FILE, DOWNLOAD_PATTERNS, checked_config
from pics_cli.core.model.find_model import PUBLISHED_NAME, find_model
from pics_cli.core.model.hub import is_local
from pics_cli.core.model.load_weights import check_image_size
from pics_cli.core.model.new_model import blank_model, new_model
from pics_cli.core.model.part_checks import find_mismatches
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.model.schedulers import pixel_scheduler
from pics_cli.core.model.small_model import blank_small_parts, new_small_model, small_config
from pics_cli.core.recipes.base import digest
from pics_cli.core.recipes.training import TrainingRecipe
from pics_cli.core.recipes.training_sections import ModelSettings
from pics_cli.errors import PicsError

logger = logging.getLogger(__name__)
_CHANGE_HINT = "take another hint, or a new network: model.shape"


class InitialModel(NamedTuple):
    """A model to be trained.

    Attributes:
        model: in float32, on the CPU.
        new_network: no base model holds any of its weights.
        base_sha256: of the base model's files or the new network's shape; must be the same when a run is resumed.
    """

    model: PicsModel
    new_network: bool
    base_sha256: str


def load_initial_model(recipe: TrainingRecipe) -> InitialModel:
    """Load or create the model that training starts from.

    Args:
        recipe: of the run.

    Raises:
        PicsError: a base model is not found, not what is expected, or has changed since its first use; a value of the
            recipe does not fit it.
    """
    section, overrides = recipe.model, config_overrides(recipe.model)
    if recipe.train == "lora" and section.base is None:
        raise PicsError(
            "train: lora adapts a trained model of pics, and none is named",
            "name one: --base pics, pics-mini, PATH or REPO",
        )
    if section.shape is not None:
        if section.base is not None or section.dinov2 is not None:
            raise PicsError("model.shape: a new network, but model.base or model.dinov2 is given", "leave one out")
        model = new_small_model(section.shape, overrides, recipe.seed)
        return InitialModel(model, True, digest(asdict(section.shape)))
    base = section.base or DEFAULT_BASE
    folder = find_named_base(base) or find_base_model(base, "--base", DOWNLOAD_PATTERNS)
    if (folder / CONFIG_FILE).is_file():
        if section.dinov2 is not None:
            raise PicsError(f"--base {base}: a model of pics has its own encoder", "leave out model.dinov2")
        return _load_pics_model(base, folder, overrides)
    if recipe.train == "lora":
        raise PicsError(
            f"--base {base}: no model of pics (no {CONFIG_FILE} in it), and train: lora adapts a trained one",
            "name one, such as pics or pics-mini; or train all new layers first: --set train=experts",
        )
    if overrides.get("hint") == "layers":
        raise PicsError(
            "model.hint: got layers, which a network from a base model has no inputs and outputs for", _CHANGE_HINT
        )
    if overrides.get("noise_schedule", "published") != "published":
        raise PicsError(
            f"model.noise_schedule: got {overrides['noise_schedule']}, but Stable Diffusion keeps its own",
            "leave it out, or take a new network: model.shape",
        )
    dinov2 = section.dinov2 or DEFAULT_DINOV2
    config = checked_config(overrides)
    model = new_model(base, dinov2, config=config, keep=overrides, seed=recipe.seed)
    files = {"base": find_base(base).sha256, "dinov2": find_dinov2(dinov2).sha256}
    return InitialModel(model, False, digest(files))


def blank_initial_model(section: ModelSettings) -> tuple[PicsModel, str]:
    """The model that training would start from, on the meta device: from configuration files alone.

    Returns:
        The model, and a line on where its shapes come from.

    Raises:
        PicsError: a path that does not exist or holds something else, or values that do not fit each other.
    """
    overrides = config_overrides(section)
    if section.shape is not None:
        config = small_config(section.shape, overrides)
        blank_parts = blank_small_parts(config, section.shape)
        scheduler = pixel_scheduler(config.noise_schedule == "zero_terminal_snr")
        return PicsModel(config, **blank_parts, scheduler=scheduler, device="meta"), "a new network of model.shape"
    base = section.base or DEFAULT_BASE
    folder = find_named_base(base) or find_local_base_model(base, "--base", DOWNLOAD_PATTERNS, CONFIG_FILE)
    if folder is None or not (folder / CONFIG_FILE).is_file():
        return blank_model(base, section.dinov2 or DEFAULT_DINOV2, overrides)
    model = PicsModel.from_pretrained(folder, weights=False)
    model.config = checked_config(overrides, model.config)
    parts: dict[str, Any] = dict(model.parts)
    if errors := find_mismatches(model.config, **parts):
        raise PicsError("\n".join(f"{folder}: {error}" for error in errors), "leave these out of the recipe's model")
    return model, f"configuration of {folder}"


def find_named_base(name: str) -> Path | None:
    """The folder of a base model that is one of pics by its name alone: the bundled or the published one, which is
    converted if it was not yet; None: another name."""
    is_published = name == PUBLISHED_NAME and not Path(name).exists()
    return find_model(name, flag="--base") if is_published or is_bundled(name) else None


def config_overrides(section: ModelSettings) -> dict[str, Any]:
    """The values of a recipe's model section that replace those of the model's configuration."""
    kept = ("base", "dinov2", "shape")
    return {key: value for key, value in asdict(section).items() if value is not None and key not in kept}


def _load_pics_model(name: str, folder: Path, overrides: dict[str, Any]) -> InitialModel:
    model = PicsModel.from_pretrained(folder, flag="--base")
    config = model.config
    levels = len(model.unet.config.block_out_channels)
    check_image_size(overrides.get("image_size", config.image_size), config.downsampling, levels)
    for key in sorted({"reference_size", "latent_scale", "share_grid", "shadows", "noise_schedule"} & overrides.keys()):
        if overrides[key] != (fixed := getattr(config, key)):
            raise PicsError(
                f"model.{key}: got {overrides[key]}, but {name} was made with {fixed}", f"leave out model.{key}"
            )
    hint = overrides.get("hint", config.hint)
    if hint != config.hint and "layers" in (hint, config.hint):
        raise PicsError(f"model.hint: got {hint}, but the network of {name} has the inputs of {config.hint}",
                        _CHANGE_HINT)  # fmt: skip
    base_models = config.base_models if is_local(name) else list(dict.fromkeys([name, *config.base_models]))
    model.config = replace(checked_config(overrides, config), base_models=base_models)
    return InitialModel(model, False, model_fingerprint(folder))
