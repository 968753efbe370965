"""Methods by name: how each makes its picture of an example.

A new baseline is a function of a background, boxes, references and order with a line in `BASELINES`, and its name in
the recipe's `Method`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from pics_cli.core.evaluation.baselines import blend_poisson, paste_references
from pics_cli.core.evaluation.examples import Example, Reference
from pics_cli.core.evaluation.external_results import ExternalResults
from pics_cli.core.images.geometry import Box, clip_box, scale_box
from pics_cli.core.images.image_io import RGB
from pics_cli.core.inference.composite import composite
from pics_cli.core.inference.record import model_fingerprint, settings_record
from pics_cli.core.inference.sample import PRESETS, CompositeOptions, CompositeSample, Mode
from pics_cli.core.model.adapters import Adapter, AdapterChoice, load_adapter, warn_of_other_base
from pics_cli.core.model.config import ModelConfig
from pics_cli.core.model.find_model import find_model_together
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.recipes.evaluation import EvaluationRecipe
from pics_cli.core.runtime.ranks import Ranks

Baseline = Callable[[RGB, Sequence[Box], Sequence[Reference], Sequence[int]], RGB]

MODEL_METHODS: tuple[Mode, ...] = ("parallel", "sequential")
BASELINES: dict[str, Baseline] = {"paste": paste_references, "poisson": blend_poisson}


@dataclass(frozen=True)
class Method:
    """How pictures of examples are made.

    Attributes:
        composite: an example to its picture, uint8 [H, W, 3], with the noise of a seed; raises BadSample.
        seeds: how many pictures it makes of an example: one where there is no noise in it.
        by_model: whether a model makes them.
        file_sha256: of the file of an example by its key, None where there is none, if the pictures are external files.
    """

    composite: Callable[[Example, int], RGB]
    seeds: int = 1
    by_model: bool = False
    file_sha256: Callable[[str], str | None] | None = None


@dataclass(frozen=True)
class ModelFolder:
    """A model to be evaluated.

    Attributes:
        label: prefix of its methods' names; empty for the first.
        name: as the user gave it: folder, repository, or name of the bundled one.
        folder: where its files are.
        adapters: added to its weights.
        dtype: that it computes in.
    """

    label: str
    name: str
    folder: Path
    adapters: tuple[Adapter, ...] = ()
    dtype: torch.dtype = torch.float32

    @cached_property
    def config(self) -> ModelConfig:
        """Its `pics.json`."""
        return ModelConfig.load(self.folder)


def find_models(
    recipe: EvaluationRecipe,
    names: Mapping[str, str],
    ranks: Ranks,
    adapters: Mapping[str, Sequence[AdapterChoice]] | None = None,
) -> list[ModelFolder]:
    """The models that the recipe's methods need, of those named (by label); none where no method needs one. Called by
    all processes.

    Args:
        recipe: names the methods.
        names: of the models, by label.
        ranks: the processes.
        adapters: added to their weights, likewise.

    Raises:
        PicsError: one does not exist.
    """
    if not set(recipe.methods) & set(MODEL_METHODS):
        return []
    folders = {label: find_model_together(name, ranks) for label, name in names.items()}

    def with_adapters(label: str, folder: Path) -> ModelFolder:
        loaded = tuple(load_adapter(choice) for choice in (adapters or {}).get(label, ()))
        if ranks.rank == 0:
            warn_of_other_base(loaded, names[label], model_fingerprint(folder))
        return ModelFolder(label, names[label], folder, loaded)

    return ranks.run_local(lambda: [with_adapters(*entry) for entry in folders.items()])


def describe_model(model: ModelFolder, device: torch.device) -> dict[str, Any]:
    """A model's entry in `results.json`."""
    config = model.config
    # A resumed run may have another name of the model, not other adapters.
    adapters = [{"sha256": adapter.sha256, "weight": adapter.weight} for adapter in model.adapters]
    names = [model.name, *(f"{adapter.name}:{adapter.weight:g}" for adapter in model.adapters)]
    return {
        "label": model.label,
        "name": " + ".join(names),
        "fingerprint": model_fingerprint(model.folder),
        **({"adapters": adapters} if adapters else {}),
        "recipe_hash": config.recipe_hash,
        "trained_steps": config.trained_steps,
        "image_size": config.image_size,
        "device": device.type,
        "dtype": str(model.dtype).removeprefix("torch."),
    }


def open_methods(
    recipe: EvaluationRecipe,
    models: Sequence[ModelFolder],
    external: Sequence[ExternalResults],
    device: torch.device,
) -> tuple[dict[str, Method], dict[str, dict[str, Any]]]:
    """Methods by name, those of models first, then baselines, then external results; and models' settings by label.

    Methods of the first model are called `parallel` and `sequential`, those of others `LABEL:parallel`. The models are
    put on `device`.
    """
    methods, settings = dict[str, Method](), dict[str, dict[str, Any]]()
    for model in models:
        network = PicsModel.from_pretrained(model.folder, dtype=model.dtype, device=device, adapters=model.adapters)
        options = model_options(recipe).resolve(model.config)
        settings[model.label] = {**settings_record(options, None, model.dtype), "device": device.type}
        modes = [mode for mode in MODEL_METHODS if mode in recipe.methods]
        for mode in sorted(modes, key=recipe.methods.index):
            name = f"{model.label}:{mode}" if model.label else mode
            by_mode = partial(composite_by_model, network, replace(options, mode=mode))
            methods[name] = Method(by_mode, recipe.seeds, by_model=True)
    for name in recipe.methods:
        if name in BASELINES:
            methods[name] = Method(partial(composite_by_baseline, name))
    for results in external:
        methods[results.name] = Method(results.read, file_sha256=results.sha256)
    return methods, settings


def model_options(recipe: EvaluationRecipe) -> CompositeOptions:
    """What a recipe says of the settings of its models."""
    preset = dict(PRESETS[recipe.preset]) if recipe.preset else {}
    preset.pop("obj_thr", None)  # of how many objects a sample has, which examples decide
    steps = {"steps": recipe.steps} if recipe.steps else {}
    return CompositeOptions(seed=recipe.seed, **{**preset, **steps})


def composite_by_baseline(name: str, example: Example, _seed: int = 0) -> RGB:
    """The picture of a baseline of that name: objects in their own boxes, in the order that models are given."""
    return BASELINES[name](example.background, example.paste_boxes, example.references, example.order)


def composite_by_model(model: PicsModel, options: CompositeOptions, example: Example, seed: int = 0) -> RGB:
    """The picture of a model: what `pics infer` makes with the same options, so that what users get is measured.

    The noise has the options' seed plus `seed`.

    Raises:
        BadSample: the sample cannot be composited; see `composite`.
    """
    height, width = example.background.shape[:2]
    # Regions with the room that this model leaves around objects, so that all methods make them equally large.
    factor, boxes = 1 / model.config.fill, example.given_boxes or example.paste_boxes
    regions = tuple(clip_box(scale_box(box, factor), width, height) for box in boxes)
    sample = CompositeSample(example.key, example.background, regions, example.references)
    (result,) = composite(model, [sample], replace(options, seed=options.seed + seed))
    return result.image
