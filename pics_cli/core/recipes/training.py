"""Training recipes: what is trained on which data, how, and which checkpoints, logs and models it leaves."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Any, Literal

from pydantic import model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

from pics_cli.core.recipes.base import Override, find_recipe, load_recipe, read_recipe, recipe_kind
from pics_cli.core.recipes.dataset import load_dataset
from pics_cli.core.recipes.training_sections import (
    AugmentSettings,
    CheckpointSettings,
    DataSettings,
    EmaSettings,
    ExportSettings,
    LogSettings,
    LoraSettings,
    ModelSettings,
    NonNegativeInt,
    ObjectiveSettings,
    OptimizerSettings,
    PositiveInt,
    Precision,
    TrainedParts,
    ValidationSettings,
)
from pics_cli.core.recipes.validation import CONFIG, Text, UserPath
from pics_cli.core.runtime.storage import is_address

# Model settings that are defaults of `pics infer` alone: training does not depend on them.
INFERENCE_DEFAULTS = ("share_sharpness", "scheduler", "steps", "guidance")


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class TrainingRecipe:
    """Data, model and optimisation of a training run."""

    kind: Literal["training"]
    """Training recipes are trained with `pics train`."""
    name: Text
    """Name of the run, in logs."""
    out: UserPath
    """Folder of logs and checkpoints, when --root-dir is not given."""
    seed: NonNegativeInt = 0
    """Seed of everything random."""
    steps: PositiveInt = 100_000
    """Optimiser steps."""
    batch_size: PositiveInt = 16
    """Samples of one process at a time."""
    accumulation: PositiveInt = 1
    """Batches whose gradients are summed up for one step."""
    train: TrainedParts = "experts"
    """`published`: ControlNet and UNet decoder; `experts`: those, every new layer elsewhere and the projector; `full`:
    both networks and the projector; `lora`: an adapter of a trained model, whose own weights stay as they are."""
    lora: LoraSettings | None = None
    """The adapter of `train: lora`; none: as its defaults are."""
    train_encoder: bool = False
    """Whether the encoder of the references is trained, too."""
    precision: Precision = "auto"
    """What the networks compute in; weights that are trained are float32 always. auto: on a GPU bf16 where it
    can, else fp16; on a CPU fp32, but bf16 for a full-size model where the CPU computes in it."""
    gradient_checkpointing: bool = False
    """Compute blocks again for the gradient instead of keeping what they computed: less memory, more time."""
    data: DataSettings
    """The mixture, and how it is read."""
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    """How references and boxes are varied, for sets that do not say it themselves."""
    model: ModelSettings = field(default_factory=ModelSettings)
    """What training starts from."""
    objective: ObjectiveSettings = field(default_factory=ObjectiveSettings)
    """What is minimised."""
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    """AdamW and its learning rate."""
    ema: EmaSettings = field(default_factory=EmaSettings)
    """A moving average of the trained weights."""
    validation: ValidationSettings = field(default_factory=ValidationSettings)
    """Validation while it trains."""
    checkpoints: CheckpointSettings = field(default_factory=CheckpointSettings)
    """When checkpoints are saved, and which are kept."""
    log: LogSettings = field(default_factory=LogSettings)
    """What is recorded."""
    export: ExportSettings = field(default_factory=ExportSettings)
    """The model folder written at the end."""

    @model_validator(mode="after")
    def _lora_is_meant(self) -> TrainingRecipe:
        if self.lora is not None and self.train != "lora":
            raise PydanticCustomError("lora", "train: lora where there are values of lora")
        if self.train == "lora" and self.train_encoder:
            raise PydanticCustomError("lora", "train_encoder: false with train: lora, which trains an adapter alone")
        return self

    @property
    def lora_settings(self) -> LoraSettings:
        """Of the adapter."""
        return self.lora or LoraSettings()


def load_training(name: str, overrides: Sequence[Override] = ()) -> TrainingRecipe:
    """A training recipe by name or path; a dataset recipe stands for training on that set alone, as `joint` does.

    Raises:
        PicsError: no such recipe, or with one line for every error.
    """
    path = find_recipe(name)
    if recipe_kind(path) != "dataset":
        return load_recipe(path, TrainingRecipe, overrides)
    dataset, joint = load_dataset(path), find_recipe("joint")
    data = read_recipe(joint)
    sets = {
        str(name): {**entry, "repeat": 1}
        for name, entry in data["data"]["sets"].items()
        if entry.get("recipe") == path.stem
    }
    if not sets:
        root = data["data"].get("root", "data")
        whole = is_address(dataset.out) or Path(dataset.out).is_absolute()
        shards = dataset.out if whole else os.path.relpath(dataset.out, root)
        sets = {dataset.name: {"shards": shards, "recipe": path.stem}}
    data["data"]["sets"] = sets
    data["name"], data["out"] = path.stem, f"LOGS/{path.stem}"
    return load_recipe(joint, TrainingRecipe, overrides, data)


def training_identity(plain: dict[str, Any]) -> dict[str, Any]:
    """The part of a plain recipe that must be the same when a run is resumed: what decides the trained weights.

    How long it trains, on how many samples at a time, how often it validates and saves, the defaults of `pics infer`,
    and where files lie may change.
    """
    free = {"out", "name", "steps", "batch_size", "accumulation", "validation", "checkpoints", "log", "export",
            "gradient_checkpointing", "precision"}  # fmt: skip
    kept = {key: value for key, value in plain.items() if key not in free}
    kept["data"] = {key: value for key, value in kept["data"].items() if key not in ("root", "workers", "cache_gb")}
    # What the shards hold and what the base models are is compared by hash, wherever they lie.
    kept["data"]["sets"] = {
        name: {key: value for key, value in entry.items() if key not in ("shards", "recipe", "fetch")}
        for name, entry in kept["data"]["sets"].items()
    }
    kept["model"] = {
        key: value for key, value in kept["model"].items() if key not in ("base", "dinov2", *INFERENCE_DEFAULTS)
    }
    if plain["train"] != "lora":
        kept.pop("lora", None)  # which runs of earlier versions did not have
    kept["validation"] = {"samples": plain["validation"]["samples"]}  # which are held out of training
    return kept
