"""Where cases come from: drawn on the spot, or samples of shards."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pics_cli.core.evaluation.examples import (
    OTHER_SCENES,
    Case,
    FolderCases,
    case_of,
    check_common,
    make_case,
    other_cases,
)
from pics_cli.core.evaluation.job import Peer
from pics_cli.core.recipes.evaluation import DrawnScenes, EvaluationRecipe, ShardSamples
from pics_cli.core.recipes.training_sections import DataSettings, TrainingSet
from pics_cli.core.runtime.manifest import read_manifest
from pics_cli.core.scenes.drawn.spec import SceneSettings
from pics_cli.core.shards.shard_sets import ShardSet, resolve_shard_sets
from pics_cli.core.shards.tar_index import read_sample
from pics_cli.errors import BadSample, PicsError

_CACHE_GB = 50.0


class Cases(Protocol):
    """Cases by number, the same whoever asks.

    Attributes:
        provenance: what tells this source from another.
        warnings: what a reader of the results should know of it.
    """

    @property
    def provenance(self) -> Mapping[str, Any]: ...

    @property
    def warnings(self) -> Sequence[str]: ...

    def __len__(self) -> int: ...

    def case(self, number: int) -> Case:
        """Raises BadSample."""
        ...

    def others(self) -> list[Case]:
        """Cases whose references objects are told apart from; however many are measured."""
        ...


class DrawnCases:
    """Scenes of `synth`; see `Cases`."""

    def __init__(self, scenes: DrawnScenes, seed: int, fill: float) -> None:
        view = scenes.view
        weights = tuple(scenes.relations.items())
        self.style = SceneSettings(scenes.size, 2, weights, view.turn, view.light, view.detail)
        self.scenes, self.seed, self.fill = scenes, seed, fill
        self.provenance = {"kind": "scenes", "seed": seed, "fill": fill, **dataclasses.asdict(scenes)}
        del self.provenance["count"]
        seen = "these scenes have training's shapes, colours and textures: models trained on drawn scenes know them"
        self.warnings = [seen] if scenes.pool == "train" else []

    def __len__(self) -> int:
        return self.scenes.count

    def case(self, number: int) -> Case:
        """Scene of that number."""
        try:
            return make_case(self.style, self.seed, number, self.fill, self.scenes.pool)
        except PicsError as error:
            raise BadSample("no_room", error.message) from None

    def others(self) -> list[Case]:
        """Scenes that are not measured."""
        return other_cases(self.style, self.seed, self.fill, self.scenes.pool)


class ShardCases:
    """Samples of a set of shards, in their order; see `Cases`."""

    def __init__(self, samples: ShardSamples, fill: float) -> None:
        self.shards, self.fill = _shards(samples), fill
        self._ends = np.cumsum(self.shards.counts)
        self.provenance = {
            "kind": "samples", "fill": fill, "samples": self.shards.samples,
            "contents": self.shards.contents_sha256,
        }  # fmt: skip
        self.warnings = _warnings(self.shards, samples)

    def __len__(self) -> int:
        return self.shards.samples

    def case(self, number: int) -> Case:
        """The sample of that number."""
        shard = int(np.searchsorted(self._ends, number, side="right"))
        path = self.shards.local_path(shard, _CACHE_GB)
        at = number - int(self._ends[shard]) + self.shards.counts[shard]
        index = self.shards.load_index(shard, path)
        key, members = read_sample(path, int(index[at]), int(index[at + 1]))
        return case_of(key, members, self.fill)

    def others(self) -> list[Case]:
        """The first samples of the set that can be read."""
        found = list[Case]()
        for number in range(len(self)):
            if len(found) == OTHER_SCENES:
                break
            try:
                found.append(self.case(number))
            except BadSample:
                continue
        return found


def open_cases(recipe: EvaluationRecipe, fill: float, peers: Sequence[Peer] = ()) -> Cases:
    """The cases of a recipe.

    Args:
        recipe: which.
        fill: share of a region's sides that an object's place takes.
        peers: methods of others, which must have pictures of some of them.

    Raises:
        PicsError: its shards are not there, or none of pics.
    """
    if recipe.scenes is not None:
        return DrawnCases(recipe.scenes, recipe.seed, fill)
    if recipe.pictures is not None:
        pictures = FolderCases(Path(recipe.pictures))
        check_common(pictures, peers)
        return pictures
    assert recipe.samples is not None
    return ShardCases(recipe.samples, fill)


def _shards(samples: ShardSamples) -> ShardSet:
    """Of the split, as training finds them."""
    name = samples.shards.replace("{split}", samples.split)
    data = DataSettings(root=samples.root, sets={"samples": TrainingSet(shards=name)})
    try:
        return resolve_shard_sets(data, "train")[0]
    except PicsError as error:
        raise PicsError(error.message, "name a folder of .tar shards with --shards DIR") from None


def _warnings(shards: ShardSet, samples: ShardSamples) -> list[str]:
    folders = {Path(source).parent for source in shards.sources if not shards.remote}
    splits = {str((read_manifest(folder) or {}).get("split", "")) for folder in folders} | {samples.split}
    if "train" in splits:
        return ["these samples are of a training split: models that were trained on them have seen the answers"]
    return []
