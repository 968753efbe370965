"""Annotated boxes of a detection dataset, one image at a time: what `pics annotate` segments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from pics_cli.core.datasets.readers.coco_index import open_coco_index
from pics_cli.core.datasets.readers.scalabel_index import open_scalabel_index
from pics_cli.core.datasets.readers.split_files import SplitFiles, find_split_files
from pics_cli.core.recipes.dataset import CocoSource, DatasetRecipe, ScalabelSource
from pics_cli.core.runtime.bad_samples import BadRecords
from pics_cli.errors import PicsError

# Pixels: a box narrower than this, once it is clipped to the image, covers no pixel.
MIN_SIDE = 1.0


class AnnotatedBox(NamedTuple):
    """An annotated box.

    Attributes:
        box: float `x0, y0, x1, y1`, half-open, as given: it may leave the picture.
        unknown: whether the dataset does not list its category.
    """

    id: int | str | None
    category: str | None
    category_id: int | None
    box: tuple[float, float, float, float]
    crowd: bool
    unknown: bool = False


@dataclass(frozen=True)
class AnnotatedImage:
    """An image of the dataset with its boxes.

    Attributes:
        image_id: the dataset's own id.
        file_name, url: as the annotation gives them.
        files: paths where the image may lie; the first that exists counts.
        size: (width, height) as annotated; None where it is not.
        boxes: its boxes, in the order of the annotation.
    """

    image_id: int | str
    file_name: str
    url: str
    files: tuple[Path, ...]
    size: tuple[int, int] | None
    boxes: tuple[AnnotatedBox, ...]


class BoxSource(Protocol):
    """Pictures and boxes of one split. Opening one is cheap, so that every worker opens its own.

    Attributes:
        place: the annotation file.
        source: what identifies this input, for the manifest.
        bad_records: records left out while indexing.
        categories: every category name, in the data's order; empty where the data names none.
    """

    @property
    def place(self) -> Path: ...

    @property
    def categories(self) -> Sequence[str]: ...

    @property
    def source(self) -> Mapping[str, Any]: ...

    @property
    def bad_records(self) -> BadRecords: ...

    def __len__(self) -> int: ...

    def picture(self, row: int) -> AnnotatedImage:
        """The picture of that number, from 0. Raises BadSample."""
        ...


class CocoBoxSource:
    """Boxes of a COCO json: images in the order of their ids; see `BoxSource`."""

    def __init__(self, place: SplitFiles) -> None:
        self.place = place.annotations
        self._index = open_coco_index(place.annotations)
        self._files = place
        self.source = {"format": "coco", "file": place.annotations.name, **self._index.source}
        self.bad_records, self.categories = self._index.bad_records, list(self._index.categories.values())

    def __len__(self) -> int:
        return len(self._index)

    def picture(self, row: int) -> AnnotatedImage:
        """The picture of a row of the index."""
        index = self._index
        rows = slice(int(index.first[row]), int(index.first[row + 1]))
        columns = [index.columns[name][rows].tolist() for name in ("id", "category_id", "x", "y", "w", "h", "flags")]
        boxes = tuple(
            AnnotatedBox(
                None if annotation_id < 0 else annotation_id,
                index.categories.get(category_id),
                None if category_id < 0 else category_id,
                (x, y, x + w, y + h),
                bool(flags),
                bool(index.categories) and category_id not in index.categories,
            )
            for annotation_id, category_id, x, y, w, h, flags in zip(*columns, strict=True)
        )
        name, url = index.names(row)
        size = int(index.width[row]), int(index.height[row])
        return AnnotatedImage(int(index.image_id[row]), name, url, self._files.image_paths(name, url), size, boxes)


class ScalabelBoxSource:
    """Boxes (`box2d`) of a Scalabel json: images in the order of its frames; see `BoxSource`."""

    def __init__(self, place: SplitFiles) -> None:
        self.place = place.annotations
        self._index = open_scalabel_index(place.annotations)
        self._files = place
        self.source = {"format": "scalabel", "file": place.annotations.name, **self._index.source}
        self.bad_records, self.categories = self._index.bad_records, self._index.categories

    def __len__(self) -> int:
        return len(self._index)

    def picture(self, row: int) -> AnnotatedImage:
        """The picture of a frame; labels without a box are left out."""
        frame = self._index.frame(row)
        name, boxes = frame.file_name, []
        for label in frame.labels or ():
            if (box := label.box2d) is None:
                continue
            # Scalabel's last corner belongs to the box.
            corners = (box.x1, box.y1, box.x2 + 1, box.y2 + 1)
            boxes.append(AnnotatedBox(label.id, label.category, None, corners, label.ignored))
        size = None if frame.size is None else (frame.size.width, frame.size.height)
        return AnnotatedImage(frame.name, name, "", self._files.image_paths(name), size, tuple(boxes))


def open_boxes(recipe: DatasetRecipe, split: str, raw: Path | None) -> BoxSource:
    """Open the boxes of a recipe's annotation file, whether labels exist already or not.

    Raises:
        PicsError: the recipe's format has no boxes; the folder or its annotations are missing or unreadable.
    """
    source = _source_with_boxes(recipe)
    place = _annotation_place(recipe, source, split, raw)
    return CocoBoxSource(place) if isinstance(source, CocoSource) else ScalabelBoxSource(place)


def default_label_folder(recipe: DatasetRecipe, split: str, raw: Path | None) -> Path:
    """Where build-shards looks for a split's labels first.

    Raises:
        PicsError: the recipe names no such place; as `open_boxes`.
    """
    source = _source_with_boxes(recipe)
    place = _annotation_place(recipe, source, split, raw)
    if not source.splits[split].labels:
        raise PicsError(
            f"{recipe.name} {split}: its recipe names no folder for labels",
            f"name one with --out DIR, or --set source.splits.{split}.labels=[labels/{split}]",
        )
    return place.root / source.splits[split].labels[0].format(split=split, version="")


def _source_with_boxes(recipe: DatasetRecipe) -> CocoSource | ScalabelSource:
    if not isinstance(recipe.source, (CocoSource, ScalabelSource)):
        raise PicsError(
            f"{recipe.name}: its format, {recipe.source.format}, has masks already, or no boxes",
            "annotate takes datasets of format coco or scalabel",
        )
    return recipe.source


def _annotation_place(
    recipe: DatasetRecipe, source: CocoSource | ScalabelSource, split: str, raw: Path | None
) -> SplitFiles:
    """The annotation file, not the labels."""
    splits = dict(source.splits)
    if split in splits:
        if not splits[split].annotations:
            raise PicsError(
                f"{recipe.name} {split}: its recipe names labels and no annotation file with boxes",
                f"name it with --set source.splits.{split}.annotations=[FILE.json]",
            )
        splits[split] = replace(splits[split], labels=())
    return find_split_files(replace(source, splits=splits), split, raw, recipe.name)


def clip_boxes(
    boxes: Sequence[AnnotatedBox], width: int, height: int
) -> tuple[list[AnnotatedBox], npt.NDArray[np.float64], list[str]]:
    """Clip boxes to an image of this size, and drop those that cover nothing of it.

    Returns:
        The boxes that are kept, in order; their corners clipped to the image, float64 [n, 4], `x0, y0, x1, y1`; and for
        each dropped box the reason: `no_size` (zero, negative or no number), `outside` the image.
    """
    kept, corners, reasons = list[AnnotatedBox](), list[tuple[float, float, float, float]](), list[str]()
    for annotated in boxes:
        x0, y0, x1, y1 = annotated.box
        if not (np.isfinite(annotated.box).all() and x1 > x0 and y1 > y0):
            reasons.append("no_size")
            continue
        clipped = max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))
        if clipped[2] - clipped[0] < min(MIN_SIDE, x1 - x0) or clipped[3] - clipped[1] < min(MIN_SIDE, y1 - y0):
            reasons.append("outside")
            continue
        kept.append(annotated)
        corners.append(clipped)
    return kept, np.array(corners, np.float64).reshape(-1, 4), reasons
