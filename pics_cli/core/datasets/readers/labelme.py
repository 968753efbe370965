"""Reader of LabelMe's json files, one a picture."""

from __future__ import annotations

import base64
import math
import posixpath
from collections.abc import Iterator, Sequence
from functools import cached_property, partial

import msgspec
import numpy as np

from pics_cli.core.datasets.readers.base import FolderReader
from pics_cli.core.datasets.readers.label_maps import check_map_size, decode_label_map
from pics_cli.core.datasets.readers.scalabel_index import Coordinate
from pics_cli.core.datasets.readers.split_files import SplitFiles
from pics_cli.core.datasets.scene import FloatBox, Instance, ItemId, Scene
from pics_cli.core.images.image_io import first_image_size
from pics_cli.core.images.masks import BoxMask, Mask, box_mask, decode_segmentation, segmentation_area
from pics_cli.errors import BadSample

_CIRCLE_POINTS = 64
_WITHOUT_AREA = ("point", "points", "line", "linestrip")
_POLYGONS = (None, "", "polygon", "rectangle", "rotation", "oriented_rectangle")


class _Label(msgspec.Struct, gc=False):
    label: str


class _Shape(_Label, gc=False):
    points: list[tuple[Coordinate, Coordinate]]
    shape_type: str | None = None
    group_id: int | str | None = None
    mask: str | None = None


class _Labels(msgspec.Struct, gc=False):
    shapes: list[_Label]


class _LabelFile(msgspec.Struct, gc=False):
    shapes: list[_Shape]
    imagePath: str | None = None
    imageWidth: int | None = None
    imageHeight: int | None = None


_DECODER, _LABELS = msgspec.json.Decoder(_LabelFile), msgspec.json.Decoder(_Labels)


class LabelMeReader(FolderReader):
    """Images in the order of their files' names; shapes of one label and `group_id` are one object.

    Polygons, rectangles, circles and masks are objects; points and lines have no area and are none.
    """

    def __init__(self, files: SplitFiles) -> None:
        super().__init__(files, "labelme", ".json", "name the folder that holds LabelMe's json files")

    @cached_property
    def categories(self) -> Sequence[str]:  # type: ignore[override]
        """Labels that occur, in alphabetical order: every file is read for them, so only where they are asked for."""
        return sorted(set(self._occurring_labels()))

    def _occurring_labels(self) -> Iterator[str]:
        for name in self._names:
            try:
                yield from (shape.label for shape in self._decode(name, _LABELS).shapes)
            except BadSample:
                continue  # named when its scene is read

    def scene(self, item_id: ItemId) -> Scene:
        """The image of a file."""
        path, labels = self._path(item_id), self._decode(item_id, _DECODER)
        key = self._key(item_id)
        folder = posixpath.join(*self.annotations.relative_to(self._files.root).parts, posixpath.dirname(key))
        file_name = (labels.imagePath or posixpath.basename(key)).replace("\\", "/")
        file_name = posixpath.normpath(posixpath.join(folder, file_name))
        paths = self._files.image_paths(file_name, is_shared=self._is_shared)
        if labels.imageWidth is None or labels.imageHeight is None:
            width, height = first_image_size(paths)
        else:
            width, height = labels.imageWidth, labels.imageHeight
        check_map_size(width, height, "bad_annotation_file", path)
        groups: dict[tuple[str, object], list[_Shape]] = {}
        for number, shape in enumerate(labels.shapes):
            if shape.shape_type not in _WITHOUT_AREA:
                group = (number,) if shape.group_id is None else shape.group_id
                groups.setdefault((shape.label, group), []).append(shape)
        try:
            instances = tuple(_instance(label, shapes, height, width) for (label, _), shapes in groups.items())
        except BadSample as error:
            raise BadSample(error.reason, f"{path}: {error.detail}") from None
        return Scene(key, key, paths, width, height, instances)


def _instance(label: str, shapes: Sequence[_Shape], height: int, width: int) -> Instance:
    outlines = [_outline(shape) for shape in shapes if shape.shape_type != "mask"]
    if len(outlines) == len(shapes):
        mask = partial(decode_segmentation, outlines, height, width)
        return Instance(
            _box(outlines), segmentation_area(outlines, height, width), label, mask=mask, mask_source="polygon"
        )
    pixels_HW = np.zeros((height, width), np.bool_)
    if outlines:
        pixels_HW |= decode_segmentation(outlines, height, width).full()
    for shape in shapes:
        if shape.shape_type == "mask":
            _paste(shape, pixels_HW)
    found: BoxMask = box_mask(pixels_HW)
    return Instance(found.box, found.area, label, mask=lambda: found, mask_source="parse")


def _outline(shape: _Shape) -> list[float]:
    """`x, y, …` of a shape with an area."""
    points = shape.points
    if shape.shape_type == "circle" and len(points) == 2:  # its centre, and a point on it
        (x, y), radius = points[0], math.dist(*points)
        turns = (2 * math.pi * i / _CIRCLE_POINTS for i in range(_CIRCLE_POINTS))
        points = [(x + radius * math.cos(turn), y + radius * math.sin(turn)) for turn in turns]
    elif shape.shape_type == "rectangle" and len(points) == 2:
        (x0, y0), (x1, y1) = points
        points = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    elif shape.shape_type not in _POLYGONS or len(points) < 3:
        what = f"shape_type {shape.shape_type!r} with {len(points)} points"
        raise BadSample("bad_mask", f"{what}: expected a polygon, rectangle, circle or mask")
    return [value for point in points for value in point]


def _box(outlines: Sequence[Sequence[float]]) -> FloatBox:
    xs, ys = ([value for outline in outlines for value in outline[axis::2]] for axis in (0, 1))
    return min(xs), min(ys), max(xs), max(ys)


def _paste(shape: _Shape, pixels_HW: Mask) -> None:
    """Set the pixels of a mask: a PNG that fills a box, of which the last row and column are part."""
    try:
        data = base64.b64decode(shape.mask or "", validate=True)
    except ValueError:
        raise BadSample("bad_mask", f"the mask of {shape.label!r} is no base64 text") from None
    part_HW = decode_label_map(data, f"the mask of {shape.label!r}", ("1", "L", "P"))
    corners = [int(value) for point in shape.points for value in point]
    if len(corners) != 4:
        raise BadSample("bad_mask", f"the mask of {shape.label!r} has {len(shape.points)} points, expected 2")
    x0, y0, x1, y1 = corners[0], corners[1], corners[2] + 1, corners[3] + 1
    height, width = pixels_HW.shape
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height and part_HW.shape == (y1 - y0, x1 - x0)):
        stored = f"{part_HW.shape[1]}x{part_HW.shape[0]}"
        raise BadSample("bad_mask", f"the mask of {shape.label!r} is {stored}, its corners are {corners}")
    pixels_HW[y0:y1, x0:x1] |= part_HW != 0
