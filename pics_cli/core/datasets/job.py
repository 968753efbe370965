"""What a build is asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pics_cli.core.recipes.dataset import DatasetRecipe


@dataclass(frozen=True)
class Input:
    """Which pictures: a recipe, a split of it and the raw folder (None where the format needs none)."""

    recipe: DatasetRecipe
    split: str
    raw: Path | None


@dataclass(frozen=True)
class Job:
    """One split of a raw dataset to be built into one folder.

    Attributes:
        limit: look at the first so many pictures only.
        max_bad: unreadable pictures and records that are put up with; None: 1 % of the pictures, at least 100.
        overwrite: remove the shards that an earlier build left in the folder.
    """

    source: Input
    folder: Path
    limit: int | None = None
    max_bad: int | None = None
    overwrite: bool = False
