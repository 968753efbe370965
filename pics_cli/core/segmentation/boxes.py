"""Annotated boxes of a detection dataset, one image at a time: the input of `pics annotate`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pics_cli.core.datasets.readers.coco_index import CocoIndex, open_coco_index
from pics_cli.core.datasets.readers.coco_records import FIRST_TEXT
from pics_cli.core.datasets.readers.scalabel_index import ScalabelIndex, open_scalabel_index
from pics_cli.core.datasets.readers.split_files import DEFAULT_LABELS, SplitFiles, find_split_files
from pics_cli.core.recipes.dataset import DatasetRecipe
from pics_cli.core.recipes.sources import CocoSource, ScalabelSource
from pics_cli.errors import PicsError

# Pixels: a box that is narrower than this after it is clipped to the image covers no pixel.
_MIN_SIDE = 1.0


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


class BoxSource(ABC):
    """Images and boxes of one split. Opening one is cheap, so that every worker opens its own.

    Attributes:
        annotations: the annotation file.
        source: identity of that file, for the manifest.
        bad_records: records left out while indexing.
        categories: every category name, in the data's order; empty where the data names none.
    """

    categories: Sequence[str]

    def __init__(self, files: SplitFiles, format_name: str, index: CocoIndex | ScalabelIndex) -> None:
        self._files, self.annotations, self._length = files, files.annotations, len(index)
        self.source = {"format": format_name, "file": files.annotations.name, **index.source}
        self.bad_records = index.bad_records

    def __len__(self) -> int:
        return self._length

    @abstractmethod
    def picture(self, row: int) -> AnnotatedImage:
        """Image number `row`, from 0.

        Raises:
            BadSample: its record cannot be read.
        """


class CocoBoxSource(BoxSource):
    """Boxes of a COCO json: images in the order of their ids."""

    def __init__(self, files: SplitFiles) -> None:
        self._index = open_coco_index(files.annotations)
        self.categories = list(self._index.categories.values())
        super().__init__(files, "coco", self._index)

    def picture(self, row: int) -> AnnotatedImage:
        """The image of a row of the index."""
        index = self._index
        rows = slice(int(index.first[row]), int(index.first[row + 1]))
        columns = [index.columns[name][rows].tolist() for name in ("id", "category_id", "x", "y", "w", "h", "flags")]
        boxes = tuple(
            AnnotatedBox(
                None if annotation_id < 0 else index.given_id(annotation_id),
                index.categories.get(category_id),
                None if category_id < 0 or category_id >= FIRST_TEXT else category_id,
                (x, y, x + w, y + h),
                bool(flags),
                bool(index.categories) and category_id not in index.categories,
            )
            for annotation_id, category_id, x, y, w, h, flags in zip(*columns, strict=True)
        )
        name, url = index.names(row)
        size = (int(index.width[row]), int(index.height[row])) if index.width[row] else None
        image_id = index.given_id(index.image_id[row])
        paths = self._files.image_paths(name, url, is_shared=index.is_shared)
        return AnnotatedImage(image_id, name, url, paths, size, boxes)


class ScalabelBoxSource(BoxSource):
    """Boxes (`box2d`) of a Scalabel json: images in the order of its frames."""

    def __init__(self, files: SplitFiles) -> None:
        self._index = open_scalabel_index(files.annotations)
        self.categories = self._index.categories
        super().__init__(files, "scalabel", self._index)

    def picture(self, row: int) -> AnnotatedImage:
        """The image of a frame; labels without a box are left out."""
        frame = self._index.frame(row)
        name, boxes = frame.file_name, []
        for label in frame.labels or ():
            if (box := label.box2d) is None:
                continue
            # Scalabel's last corner belongs to the box.
            corners = (box.x1, box.y1, box.x2 + 1, box.y2 + 1)
            boxes.append(AnnotatedBox(label.id, label.category, None, corners, label.ignored or label.crowd))
        size = None if frame.size is None else (frame.size.width, frame.size.height)
        return AnnotatedImage(frame.name, name, "", self._files.image_paths(name), size, tuple(boxes))


def open_boxes(recipe: DatasetRecipe, split: str, raw: Path | None) -> BoxSource:
    """Open the boxes of a recipe's annotation file, whether labels exist already or not.

    Raises:
        PicsError: the recipe's format has no boxes; the folder or its annotations are missing or unreadable.
    """
    source, files = _find_annotations(recipe, split, raw)
    return CocoBoxSource(files) if isinstance(source, CocoSource) else ScalabelBoxSource(files)


def default_label_folder(recipe: DatasetRecipe, split: str, raw: Path | None) -> Path:
    """The folder in which build-shards looks for a split's labels first.

    Raises:
        PicsError: as `open_boxes`.
    """
    source, files = _find_annotations(recipe, split, raw)
    pattern = (*source.splits[split].labels, DEFAULT_LABELS)[0]
    return files.root / pattern.format(split=split, version="")


def annotation_file(recipe: DatasetRecipe, split: str, raw: Path | None) -> Path:
    """The file with a split's boxes.

    Raises:
        PicsError: as `open_boxes`.
    """
    return _find_annotations(recipe, split, raw)[1].annotations


def _find_annotations(
    recipe: DatasetRecipe, split: str, raw: Path | None
) -> tuple[CocoSource | ScalabelSource, SplitFiles]:
    """The recipe's source and the files of a split, whose annotations are those with boxes, not the labels."""
    source = recipe.source
    if not isinstance(source, (CocoSource, ScalabelSource)):
        raise PicsError(
            f"{recipe.name}: its format, {source.format}, has masks already, or no boxes",
            "annotate takes datasets of format coco or scalabel",
        )
    if split in source.splits and not source.splits[split].annotations:
        raise PicsError(
            f"{recipe.name} {split}: its recipe names labels and no annotation file with boxes",
            f"name it with --set source.splits.{split}.annotations=[FILE.json]",
        )
    files = find_split_files(source, split, raw, recipe.name, labels=False)
    if files.more:
        raise PicsError(
            f"{recipe.name} {split}: {len(files.more) + 1} annotation files fit, and annotate takes one",
            f"name it with --set source.splits.{split}.annotations=[FILE.json]",
        )
    return source, files


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
        if clipped[2] - clipped[0] < min(_MIN_SIDE, x1 - x0) or clipped[3] - clipped[1] < min(_MIN_SIDE, y1 - y0):
            reasons.append("outside")
            continue
        kept.append(annotated)
        corners.append(clipped)
    return kept, np.array(corners, np.float64).reshape(-1, 4), reasons
