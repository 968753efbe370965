"""Dataset recipes: the raw files (see `sources`), how objects are chosen and how shards are packed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError
from typing_extensions import Self

from pics_cli.core.recipes.base import Override, load_recipe, plain_recipe
from pics_cli.core.recipes.sources import Source
from pics_cli.core.recipes.validation import CONFIG, NOT_EMPTY, Text, UserPath, between


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class ClassFilter:
    """Which categories take part, by name. Empty: all."""

    include: tuple[str, ...] = ()
    """Take these categories only."""
    exclude: tuple[str, ...] = ()
    """Leave these categories out."""


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class PairSettings:
    """How the interacting objects of a picture are chosen."""

    rule: Literal["max_iou", "largest"] = "max_iou"
    """`max_iou`: the two boxes that overlap most; `largest`: the two largest objects, overlapping or not."""
    objects: Annotated[int, between(1, 4, True)] = 2
    """Objects a sample holds (K)."""
    min_area_ratio: Annotated[float, between(0, 1, False)] = 0.02
    """An object's area must be strictly greater than this share of the picture's."""
    contained: Literal["drop", "keep"] = "drop"
    """Whether a pair counts in which one box lies inside the other (within 2 px)."""
    crowd: Literal["drop", "keep"] = "drop"
    """Whether objects marked as crowds count; CVAT's brush masks are all marked so."""
    box_mask_disagree: Literal["drop", "mask", "keep"] = "drop"
    """What becomes of an object whose box has an IoU below 0.5 with its mask's: left out; taken with the mask's box; or
    taken as it is."""
    classes: ClassFilter = field(default_factory=ClassFilter)
    """Which categories take part."""


Layout = Literal["published", "compact"]


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class ShardSettings:
    """How samples are packed."""

    size: Annotated[int, between(1, math.inf, True)] = 1000
    """Candidates a shard is built from; those that fail on decoding make it shorter."""
    layout: Layout = "published"
    """`published`: patches and masks as PNG members; `compact`: masks in the json, patches cut anew on reading."""


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class PatchSettings:
    """How reference patches are cut."""

    padding: Annotated[tuple[Annotated[float, between(1, 2, True)], ...], NOT_EMPTY] = (1.1, 1.2, 1.3, 1.4)
    """Ratios by which a crop is widened with white; each object's is drawn from this list."""


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class DatasetRecipe:
    """A raw dataset and how training shards are built from it."""

    kind: Literal["dataset"]
    """Dataset recipes are built into shards."""
    name: Text
    """The dataset's name in manifests and samples."""
    raw: UserPath | None = None
    """Folder of the raw files, when --raw is not given; none where the format needs no files."""
    out: UserPath
    """Folder of the shards, when --out is not given; {split} stands for the split."""
    seed: Annotated[int, between(0, math.inf, True)] = 0
    """Seed of everything random: the padding of the reference patches, and drawn scenes."""
    compat: bool = False
    """Choose and cut as the research code does, with its faults, to reproduce the published choice."""
    source: Source
    """The raw files and their format."""
    pairs: PairSettings = field(default_factory=PairSettings)
    """How the interacting objects of a picture are chosen."""
    patches: PatchSettings = field(default_factory=PatchSettings)
    """How reference patches are cut."""
    shards: ShardSettings = field(default_factory=ShardSettings)
    """How samples are packed."""

    @model_validator(mode="after")
    def _known_pairs_are_two(self) -> Self:
        if self.source.known_pairs:
            what = f"format {self.source.format}, of whose pairs people say how they stand to each other"
            if self.pairs.objects != 2 or self.pairs.rule != "max_iou":
                raise PydanticCustomError("pairs", "pairs of 2 objects by max_iou for {what}", {"what": what})
            if self.compat:
                raise PydanticCustomError("compat", "no compat for {what}", {"what": what})
        return self


def load_dataset(path: Path, overrides: Sequence[Override] = ()) -> DatasetRecipe:
    """Read and validate a dataset recipe; see `load_recipe`."""
    return load_recipe(path, DatasetRecipe, overrides)


def dataset_identity(recipe: DatasetRecipe) -> dict[str, Any]:
    """The recipe as plain data, without the folders: what decides the bytes of a shard."""
    plain = {key: value for key, value in plain_recipe(recipe).items() if key not in ("raw", "out")}
    return plain
