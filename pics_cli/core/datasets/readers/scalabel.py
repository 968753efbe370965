"""Reader of Scalabel json files with run lengths or polygons: BDD100K."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pics_cli.core.datasets.readers.base import Reader, known_mask
from pics_cli.core.datasets.readers.scalabel_index import Box2d, Frame, Label, Poly2d, open_scalabel_index
from pics_cli.core.datasets.readers.split_files import SplitFiles
from pics_cli.core.datasets.scene import FloatBox, Instance, ItemId, Scene
from pics_cli.core.images.image_files import MAX_PIXELS
from pics_cli.core.images.image_io import first_image_size
from pics_cli.core.images.masks import BoxMask, decode_segmentation, segmentation_area
from pics_cli.errors import BadSample

_BEZIER_STEPS = 16


class ScalabelReader(Reader):
    """Images in the order of their frames; see `Reader` for the attributes.

    A label without box and without mask is left out; one without a box takes its mask's.
    """

    def __init__(self, files: SplitFiles) -> None:
        self.annotations, self._files = files.annotations, files
        self._index = open_scalabel_index(files.annotations)
        self.source = {"format": "scalabel", "file": files.annotations.name, **self._index.source}
        self.bad_records = self._index.bad_records
        self.categories = self._index.categories

    def __len__(self) -> int:
        return len(self._index)

    def scene(self, item_id: ItemId) -> Scene:
        """The image of a frame."""
        frame = self._index.frame(int(item_id))
        paths = self._files.image_paths(frame.file_name)
        width, height = _frame_size(frame, paths)
        instances = [self._instance(label, width, height) for label in frame.labels or ()]
        return Scene(frame.key, frame.name, paths, width, height, tuple(filter(None, instances)))

    def _instance(self, label: Label, width: int, height: int) -> Instance | None:
        segmentation: dict[str, Any] | list[list[float]] | None = label.rle or _coco_polygons(label.poly2d)
        mask: Callable[[], BoxMask] | None = None
        if segmentation:
            mask = partial(decode_segmentation, segmentation, height, width)
        if label.box2d is not None:
            box = self._corners(label.box2d)
        elif mask is not None and (found := known_mask(mask)) is not None:
            box, mask = found.box, lambda: found
        else:
            return None
        if segmentation is None:
            area = max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])
        else:
            area = segmentation_area(segmentation, height, width)
        return Instance(
            box=box,
            area=area,
            category=label.category,
            annotation_id=label.id,
            ignored=label.ignored,
            crowd=label.crowd,
            mask=mask,
            mask_source=None if not segmentation else "rle" if label.rle else "polygon",
        )

    def _corners(self, box: Box2d) -> FloatBox:
        return box.x1, box.y1, box.x2 + 1, box.y2 + 1


def _frame_size(frame: Frame, paths: tuple[Path, ...]) -> tuple[int, int]:
    """Width and height: as the frame says, or its first run lengths, or the image."""
    if frame.size is not None:
        width, height = frame.size.width, frame.size.height
    else:
        size = next((label.rle.get("size") for label in frame.labels or () if label.rle), None)
        if not isinstance(size, list) or len(size) != 2 or not all(isinstance(side, int) for side in size):
            return first_image_size(paths)
        height, width = size
    if min(width, height) < 1 or width * height > MAX_PIXELS:
        raise BadSample("bad_frame_record", f"{frame.name}: claims {width} x {height} pixels")
    return width, height


def _coco_polygons(parts: Sequence[Poly2d] | None) -> list[list[float]] | None:
    """COCO's polygons, curves drawn as short lines; open lines are no areas."""
    outlines = [flat for part in parts or () if part.vertices and part.is_area and len(flat := _flatten(part)) >= 6]
    return outlines or None


def _flatten(part: Poly2d) -> list[float]:
    """`x, y, …` of a closed outline, as Scalabel draws it: a curve takes three vertices, whatever the last one is."""
    points, types = part.vertices, part.types or ""
    if "C" not in types:
        return [value for point in points for value in point]
    points = [*points, points[0]]
    flat, i = [*points[0]], 1
    while i < len(points):
        if types[i : i + 1] == "C" and i + 2 < len(points):
            flat += _curve(points[i - 1 : i + 3])
            i += 3
        else:
            flat += points[i]
            i += 1
    return flat


def _curve(ends: Sequence[tuple[float, float]]) -> list[float]:
    """`x, y, …` along a cubic Bezier curve of four points, without the first."""
    flat = []
    for step in range(1, _BEZIER_STEPS + 1):
        t = step / _BEZIER_STEPS
        weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
        flat += [sum(w * end[axis] for w, end in zip(weights, ends, strict=True)) for axis in (0, 1)]
    return flat
