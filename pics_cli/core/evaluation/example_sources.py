"""Where examples come from: scenes drawn on the spot, samples of shards, pairs with and without a shadow, or pictures.

A new source is a subclass of `ExampleSource`, and a line in `open_examples`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pics_cli.core.evaluation.coarse_regions import CoarseRegions
from pics_cli.core.evaluation.examples import Example, draw_example, example_from_sample
from pics_cli.core.evaluation.external_results import ExternalResults, find_pictures, read_picture
from pics_cli.core.evaluation.pasted_back import PastedBack
from pics_cli.core.evaluation.shadow_examples import ShadowExamples
from pics_cli.core.evaluation.source_base import (
    NUM_DISTRACTORS,
    ExampleSource,
    hash_listing,
    readable_examples,
)
from pics_cli.core.evaluation.subsets import UNKNOWN
from pics_cli.core.recipes.evaluation import DrawnScenes, EvaluationRecipe, GivenRegions, ShardSamples
from pics_cli.core.recipes.training_sections import DataSettings, TrainingSet
from pics_cli.core.runtime.manifest import read_manifest
from pics_cli.core.runtime.storage import CACHE_GB, location
from pics_cli.core.scenes.drawn.spec import SceneSettings
from pics_cli.core.shards.shard_paths import is_url
from pics_cli.core.shards.shard_sets import resolve_shard_sets
from pics_cli.core.shards.tar_index import read_sample
from pics_cli.errors import BadSample, PicsError

# Drawn scenes that serve as distractors are numbered from here: beyond those that are measured.
_FIRST_DISTRACTOR = 10_000_000


def open_examples(
    recipe: EvaluationRecipe, object_scale: float, external: Sequence[ExternalResults] = ()
) -> ExampleSource:
    """The examples that a recipe names.

    Args:
        recipe: with one of `scenes`, `samples`, `shadows` and `pictures`.
        object_scale: share of a region's sides that an object takes.
        external: results that must have pictures of some of them, where they are a folder of pictures.

    Raises:
        PicsError: its shards or pictures do not exist, or are no shards of pics.
    """
    source = _open_source(recipe, object_scale, external)
    if recipe.references is not None:
        source = PastedBack(source, object_scale)
    if recipe.regions != GivenRegions():
        source = CoarseRegions(source, recipe.regions, recipe.seed, object_scale)
    return source


def _open_source(recipe: EvaluationRecipe, object_scale: float, external: Sequence[ExternalResults]) -> ExampleSource:
    if recipe.scenes is not None:
        return DrawnExamples(recipe.scenes, recipe.seed, object_scale)
    if recipe.pictures is not None:
        pictures = PictureExamples(location(recipe.pictures))
        for results in external:
            if not set(results.files) & set(pictures.keys):
                own, other = (", ".join(list(keys)[:3]) for keys in (pictures.keys, results.files))
                raise PicsError(
                    f"--input {results.folder}: no sample in common with --reference: {other}, … against {own}, …",
                    "pictures are paired by their names without suffix",
                )
        return pictures
    if recipe.shadows is not None:
        return ShadowExamples(recipe.shadows, object_scale)
    assert recipe.samples is not None
    return ShardExamples(recipe.samples, object_scale)


class DrawnExamples(ExampleSource):
    """Scenes of `synth`."""

    def __init__(self, scenes: DrawnScenes, seed: int, object_scale: float) -> None:
        view = scenes.view
        self.settings = [
            SceneSettings(scenes.size, count, tuple(scenes.relations.items()), view.turn, view.light, view.detail)
            for count in scenes.objects
        ]
        self.scenes, self.seed, self.object_scale = scenes, seed, object_scale
        options = {name: value for name, value in dataclasses.asdict(scenes).items() if name != "count"}
        if scenes.objects == (2,):  # so that results from before there were other numbers still compare
            del options["objects"]
        self.provenance = {"kind": "scenes", "seed": seed, "fill": object_scale, **options}
        seen = "these scenes have training's shapes, colours and textures: models trained on drawn scenes know them"
        self.warnings = [seen] if scenes.pool == "train" else []

    def __len__(self) -> int:
        return self.scenes.count

    def __getitem__(self, number: int) -> Example:
        try:
            settings = self.settings[number % len(self.settings)]
            return draw_example(settings, self.seed, number, self.object_scale, self.scenes.pool)
        except PicsError as error:
            raise BadSample("no_room", error.message) from None

    def distractors(self) -> list[Example]:
        """Scenes that are not measured."""
        return list(readable_examples(self, range(_FIRST_DISTRACTOR, _FIRST_DISTRACTOR + NUM_DISTRACTORS)))


class ShardExamples(ExampleSource):
    """Samples of a set of shards, in their order."""

    def __init__(self, samples: ShardSamples, object_scale: float) -> None:
        name = samples.shards.replace("{split}", samples.split)
        data = DataSettings(root=samples.root, sets={"samples": TrainingSet(shards=name)})
        try:
            (self.shards,) = resolve_shard_sets(data, "train")
        except PicsError as error:
            raise PicsError(error.message, "name a folder of .tar shards with --shards DIR") from None
        self.object_scale = object_scale
        self._ends = np.cumsum(self.shards.counts)
        self.provenance = {
            "kind": "samples", "fill": object_scale, "samples": self.shards.samples,
            "contents": self.shards.contents_sha256,
        }  # fmt: skip
        self.folders = {Path(source).parent for source in self.shards.sources if not self.shards.remote}
        folders = {location(str(name)).parent for name in self.shards.sources if not is_url(str(name))}
        splits = {str((read_manifest(folder) or {}).get("split", "")) for folder in folders} | {samples.split}
        seen = "these samples are of a training split: models that were trained on them have seen the answers"
        self.warnings = [seen] if "train" in splits else []

    def __len__(self) -> int:
        return self.shards.samples

    def __getitem__(self, number: int) -> Example:
        shard = int(np.searchsorted(self._ends, number, side="right"))
        path = self.shards.local_path(shard, CACHE_GB)
        row = number - int(self._ends[shard]) + self.shards.counts[shard]
        index = self.shards.load_index(shard, path)
        key, members = read_sample(path, int(index[row]), int(index[row + 1]))
        return example_from_sample(key, members, self.object_scale)


class PictureExamples(ExampleSource):
    """A folder of true pictures, of which nothing else is known; keys are their names.

    Raises:
        PicsError: no such folder, or no picture in it.
    """

    def __init__(self, folder: Path) -> None:
        self.files, self.folders = find_pictures(folder, "--reference"), [folder]
        self.keys = list(self.files)
        self.provenance = {"kind": "pictures", "pictures": len(self.keys), "listing": hash_listing(self.files)}

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, number: int) -> Example:
        key = self.keys[number]
        truth = read_picture(self.files[key])
        return Example(key=key, background=np.zeros_like(truth), truth=truth, relation=UNKNOWN)

    def distractors(self) -> list[Example]:
        """None: there are no objects to tell apart."""
        return []
