"""Readers: one file per annotation format, all with the same face."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from pics_cli.core.data.readers.coco import CocoReader
from pics_cli.core.data.readers.labels import LabelReader
from pics_cli.core.data.readers.paths import find_base
from pics_cli.core.data.scene import Item, Scene
from pics_cli.core.recipe import DatasetRecipe


class Reader(Protocol):
    """One split of a raw dataset. Opening one is cheap, so that every worker opens its own.

    Attributes:
        place: the file or folder that the annotations are read from.
        source: what tells this input from another, for the manifest.
        bad: records left out while indexing: `counts` by reason, and `lines` on them.
        categories: every category name, in the data's order; empty where the data names none.
    """

    @property
    def place(self) -> Path: ...

    @property
    def source(self) -> Mapping[str, Any]: ...

    @property
    def bad(self) -> Mapping[str, Any]: ...

    @property
    def categories(self) -> Sequence[str]: ...

    def __len__(self) -> int: ...

    def items(self, start: int, stop: int) -> Sequence[Item]:
        """Names of the pictures start to stop, in the split's order."""
        ...

    def scene(self, item: Item) -> Scene:
        """The picture of that name, masks not decoded yet. Raises BadSample."""
        ...


def open_reader(recipe: DatasetRecipe, split: str, raw: Path, on_index: Callable[[Path], None] | None = None) -> Reader:
    """Open the reader that a recipe asks for.

    Raises:
        PicsError: the folder or its annotations are missing, unreadable or of another dataset.
    """
    base, place = find_base(recipe.source, split, raw, recipe.name)
    patterns = recipe.source.splits[split].images
    if place.is_dir():
        return LabelReader(base, place, patterns, split)
    return CocoReader(base, place, patterns, split, on_index)
