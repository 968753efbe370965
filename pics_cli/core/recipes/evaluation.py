"""Evaluation recipes: which examples are composited by which methods, and which metrics are computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError
from typing_extensions import Self

from pics_cli.core.recipes.base import Override, find_recipe, load_recipe, plain_recipe
from pics_cli.core.recipes.sources import Pool, ReferenceView, SceneRelation
from pics_cli.core.recipes.training_sections import NonNegativeFloat, NonNegativeInt, PositiveInt
from pics_cli.core.recipes.validation import (
    CONFIG,
    NOT_EMPTY,
    SOME_WEIGHT,
    Folder,
    FolderPattern,
    Name,
    Text,
    UserPath,
    between,
)

# Keys that may change: a later run may measure more examples, in a folder of another name.
_NOT_IN_IDENTITY = ("out", "limit", "name", "features", "published")
Method = Literal["parallel", "sequential", "paste", "poisson"]


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class DrawnScenes:
    """Scenes that `synth` draws on the spot: references seen differently, everything known."""

    count: PositiveInt = 1000
    """Number of scenes."""
    objects: Annotated[tuple[Annotated[int, between(2, 6, True)], ...], NOT_EMPTY] = (2,)
    """Number of objects; of several, scenes take them in turn."""
    size: Annotated[int, between(64, 1024, True)] = 256
    """Side of a picture, in pixels."""
    pool: Pool = "held_out"
    """Shapes, colours and textures: those that are never trained on, or those that are."""
    view: ReferenceView = field(default_factory=lambda: ReferenceView(turn=5.0, light=0.3, detail=2.0))
    """How references differ from the objects in the picture."""
    relations: Annotated[dict[SceneRelation, NonNegativeFloat], SOME_WEIGHT]
    """How objects stand to each other, with weights."""


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class ShardSamples:
    """Samples of shards, in their order."""

    root: UserPath = "data"
    """Folder that the shards are looked for in."""
    shards: UserPath
    """Folder of .tar files, or files with {00000..00010}, * or ? in their names; under `root` unless it is an absolute
    path. {split} stands for the split."""
    split: Literal["train", "val", "test"] = "val"
    """What {split} stands for."""


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class ShadowPairs:
    """Pictures with an object's shadow and without it, as DESOBAv2 has them: folders of files of the same names."""

    root: UserPath
    """Folder of the data set."""
    split: Name = "test"
    """What {split} stands for."""
    names: FolderPattern = "{split}.txt"
    """List of the pairs, one name a line, with or without the ending of its files."""
    shadow: Folder = "shadow_imgs"
    """Pictures with the shadow: the truth."""
    shadow_free: Folder = "shadowfree_imgs"
    """The same without the shadow."""
    object_masks: Folder = "object_masks"
    """Masks of the object: white, or any value from 128 on."""
    shadow_masks: Folder = "shadow_masks"
    """Masks of its shadow."""


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class GivenRegions:
    """How carelessly the regions are drawn that models are given. Metrics go by the true ones."""

    shape: Literal["box", "blob"] = "box"
    """Around the object: its box, or the box of a smooth random shape, about a fifth larger."""
    grow: Annotated[float, between(1, 4, True)] = 1.0
    """Factor on their sides, about their middle."""


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class PublishedFigures:
    """Figures that a paper prints, shown below one's own. They change nothing that is measured."""

    source: Text
    """Where they are from."""
    differs: Text
    """What may differ from how `pics eval` measures, in a line."""
    columns: Annotated[dict[Text, Text | None], NOT_EMPTY]
    """The paper's headings, and the metric beside each: its name in results, `fid`, or none where there is none."""
    rows: Annotated[dict[Text, tuple[float | None, ...]], NOT_EMPTY]
    """By the paper's methods, a figure for each column; none: it is not known."""

    @model_validator(mode="after")
    def _has_a_figure_for_each_column(self) -> Self:
        for method, figures in self.rows.items():
            if len(figures) != len(self.columns):
                counts = {"method": method, "got": len(figures), "expected": len(self.columns)}
                raise PydanticCustomError("rows", "{expected} figures of {method}, one a column; it has {got}", counts)
        return self


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class EvaluationRecipe:
    """What is evaluated, and how."""

    kind: Literal["evaluation"]
    """Evaluation recipes are run with `pics eval`."""
    name: Text
    """Name of the evaluation, in results."""
    out: UserPath
    """Folder of the results, when --output is not given."""
    seed: NonNegativeInt = 2026
    """Seed of scenes, noise and confidence intervals."""
    seeds: PositiveInt = 1
    """Composites of each example by each model, with noise of its own."""
    limit: PositiveInt | None = None
    """Number of examples, the first ones; none: all."""
    methods: tuple[Method, ...] = ("parallel", "sequential", "paste", "poisson")
    """By model: all objects in one pass, or one after the other; without: pasted, or Poisson blending."""
    metrics: tuple[str, ...] = ()
    """Metrics, by name; empty: all."""
    reverse_every: PositiveInt = 1
    """`order_dependence` is measured on every nth example, from the first: it needs all pictures of models twice."""
    features: tuple[UserPath, ...] = ()
    """Weights of learnt metrics: inception, alexnet, files of those, and DINOv2 and CLIP as folders or repositories.
    Without, what needs them is left out."""
    preset: Literal["published"] | None = None
    """Settings of the models, as `pics infer --preset`; `published`: the research project's, whose steps and guidance
    small models were not made for. None: the model's own."""
    steps: PositiveInt | None = None
    """Denoising steps; none: the preset's or the model's."""
    fill: Annotated[float, between(0.5, 1, True)] | None = None
    """Share of a region's sides that an object takes; none: the model's, 1 where there is no model."""
    scenes: DrawnScenes | None = None
    """Drawn scenes …"""
    samples: ShardSamples | None = None
    """… or samples of shards …"""
    shadows: ShadowPairs | None = None
    """… or pictures with and without the shadow of an object …"""
    pictures: UserPath | None = None
    """… or a folder of pictures, the truth of those that other methods made: one of the four."""
    references: Literal["truth"] | None = None
    """`truth`: cut out of the true picture itself, so that objects are put back as they were, in their own light, and
    what a method changes in them it does harm to; needs true backgrounds. None: as the data has them."""
    regions: GivenRegions = field(default_factory=GivenRegions)
    """How models are told where objects go: as exactly as the data know it, or carelessly."""
    published: PublishedFigures | None = None
    """Figures of a paper to lay beside."""

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        sources = self.scenes, self.samples, self.shadows, self.pictures
        if sum(source is not None for source in sources) != 1:
            raise PydanticCustomError("source", "one of scenes, samples, shadows and pictures")
        if self.references and self.pictures is not None:
            raise PydanticCustomError("source", "references of scenes, samples or shadows: pictures alone have none")
        if self.regions != GivenRegions() and self.pictures is not None:
            raise PydanticCustomError("source", "regions of scenes, samples or shadows: pictures alone have none")
        return self


def load_evaluation(name: str, overrides: Sequence[Override] = ()) -> EvaluationRecipe:
    """An evaluation recipe by name or path.

    Raises:
        PicsError: no such recipe, or with one line for every error.
    """
    return load_recipe(find_recipe(name), EvaluationRecipe, overrides)


def recipe_identity(recipe: EvaluationRecipe) -> dict[str, Any]:
    """What of a recipe a resumed run must share with the first, as plain data."""
    plain = {key: value for key, value in plain_recipe(recipe).items() if key not in _NOT_IN_IDENTITY}
    # Folders begun earlier do not have these keys, and were made with their defaults.
    for key, default in (("references", None), ("regions", GivenRegions())):
        if getattr(recipe, key) == default:
            del plain[key]
    if recipe.scenes is not None:
        del plain["scenes"]["count"]
        if recipe.scenes.objects == (2,):
            del plain["scenes"]["objects"]
    plain["pictures"] = bool(plain["pictures"])
    for key in ("samples", "shadows"):
        if plain[key]:
            plain[key] = {"split": plain[key]["split"]}  # what they hold is compared, not where they lie
    return plain


def evaluation_from_options(name: str, overrides: Sequence[Override]) -> EvaluationRecipe:
    """An evaluation recipe made of the command line's options alone, without a file.

    Raises:
        PicsError: with one line for every error.
    """
    data = {"kind": "evaluation", "name": name, "out": f"results/{name}"}
    return load_recipe(Path("pics eval"), EvaluationRecipe, overrides, data)
