"""Readers: one file per annotation format, all with the same face."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, Protocol

from pics_cli.core.datasets.labels import BLOCK, HIDDEN
from pics_cli.core.datasets.readers.cityscapes import CityscapesReader
from pics_cli.core.datasets.readers.coco import CocoReader
from pics_cli.core.datasets.readers.files import find_place
from pics_cli.core.datasets.readers.parse_map import ParseMapReader
from pics_cli.core.datasets.readers.sam_labels import LabelBlockReader, LabelReader
from pics_cli.core.datasets.readers.scalabel import ScalabelReader
from pics_cli.core.datasets.readers.vistas import VistasReader
from pics_cli.core.datasets.scene import Item, Scene
from pics_cli.core.recipes.dataset import (
    CityscapesSource,
    CocoSource,
    DatasetRecipe,
    ParseMapSource,
    ScalabelSource,
    SynthSource,
    VistasSource,
)
from pics_cli.core.runtime.manifest import read_manifest
from pics_cli.errors import PicsError


class Reader(Protocol):
    """One split of a raw dataset. Opening one is cheap, so that every worker opens its own.

    Attributes:
        place: the file or folder that the annotations are read from; None where scenes are drawn.
        source: what tells this input from another, for the manifest.
        bad: records left out while indexing: `counts` by reason, and `lines` on them.
        categories: every category name, in the data's order; empty where the data names none.
    """

    @property
    def place(self) -> Path | None: ...

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


def open_reader(
    recipe: DatasetRecipe, split: str, raw: Path | None, on_index: Callable[[Path], None] | None = None
) -> Reader:
    """Open the reader that a recipe asks for.

    Raises:
        PicsError: the folder or its annotations are missing, unreadable or of another dataset.
    """
    source, compat = recipe.source, recipe.compat
    if isinstance(source, SynthSource):
        from pics_cli.core.datasets.readers.drawn_scenes import SynthReader

        return SynthReader(recipe, split)
    if raw is None:
        raise PicsError(f"{recipe.name}: no raw folder named", "name the dataset's folder with --raw DIR")
    place = find_place(source, split, raw, recipe.name)
    match source:
        case ParseMapSource():
            return ParseMapReader(place, source, compat)
        case CityscapesSource():
            return CityscapesReader(place, source, compat)
        case VistasSource():
            return VistasReader(place, source, compat)
        case CocoSource() | ScalabelSource() if place.path.is_dir():
            if any(map(BLOCK.fullmatch, map(attrgetter("name"), place.path.iterdir()))):
                return LabelBlockReader(place, source.sam)
            _refuse_unfinished(place.path)
            return LabelReader(place, compat)
        case ScalabelSource():
            return ScalabelReader(place, compat, on_index)
        case CocoSource():
            return CocoReader(place, on_index)


def _refuse_unfinished(folder: Path) -> None:
    """Raise PicsError for label files of a picture each that `pics annotate` is not done with."""
    manifest = read_manifest(folder / HIDDEN)
    if manifest is not None and not manifest["complete"]:
        raise PicsError(
            f"{folder}: labels of {manifest.get('pictures', 0):,} pictures, and the rest is missing",
            "finish them: run the same `pics annotate` again",
        )
