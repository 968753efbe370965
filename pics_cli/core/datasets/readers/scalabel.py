"""Reader of Scalabel json files with run lengths or polygons: BDD100K."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pics_cli.core.datasets.readers.files import ImagePaths, Place
from pics_cli.core.datasets.readers.frame_index import Frame, Label, Poly2d, frame_key, open_frames
from pics_cli.core.datasets.readers.json_records import JSON_FAULTS
from pics_cli.core.datasets.scene import Instance, Item, Scene
from pics_cli.core.images.image_io import MAX_PIXELS, first_image_size
from pics_cli.core.images.masks import BoxMask, decode_segmentation, segmentation_area
from pics_cli.errors import BadSample

_BEZIER_STEPS = 16


class ScalabelReader:
    """Pictures in the order of their frames; see `Reader` for the attributes.

    A label without box and without mask is left out; one without a box takes its mask's. In compat crowds and ignored
    labels count (the choice sees to that), and boxes end one pixel short, as in the research code.
    """

    def __init__(self, place: Place, compat: bool, on_index: Callable[[Path], None] | None) -> None:
        self.place = place.path
        self._index = open_frames(place.path, on_index)
        self._paths, self._compat = ImagePaths(place), compat
        self.source = {"format": "scalabel", "file": place.path.name, **self._index.source}
        self.bad = self._index.bad
        self.categories = self._index.categories

    def __len__(self) -> int:
        return len(self._index)

    def items(self, start: int, stop: int) -> Sequence[Item]:
        """Numbers of the frames start to stop, from 0."""
        return range(start, min(stop, len(self)))

    def scene(self, item: Item) -> Scene:
        """The picture of a frame."""
        try:
            frame = self._index.frame(int(item))
        except JSON_FAULTS as error:
            raise BadSample("bad_frame_record", f"{self.place}: frame {item}: {error}") from None
        name = f"{frame.videoName}/{frame.name}" if frame.videoName else frame.name
        files = self._paths.files(name)
        width, height = _frame_size(frame, files)
        found = [self._instance(label, width, height) for label in frame.labels or ()]
        instances = tuple(thing for thing in found if thing is not None)
        return Scene(frame_key(frame.name, frame.videoName), frame.name, files, width, height, instances)

    def _instance(self, label: Label, width: int, height: int) -> Instance | None:
        segmentation: dict[str, Any] | list[list[float]] | None = label.rle or _polygons(label.poly2d)
        mask = partial(decode_segmentation, segmentation, height, width) if segmentation else None
        if label.box2d is not None:
            given, beyond = label.box2d, 0 if self._compat else 1
            box = (given.x1, given.y1, given.x2 + beyond, given.y2 + beyond)
        else:
            tight = _box(mask)
            if tight is None:
                return None
            box = tight
        if segmentation is None:
            area = max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])
        else:
            area = segmentation_area(segmentation, height, width)
        flags = label.attributes or {}
        return Instance(
            box=box,
            area=area,
            category=label.category,
            annotation_id=label.id,
            ignored=bool(flags.get("crowd") or flags.get("ignored")),
            mask=mask,
            mask_source=None if not segmentation else "rle" if label.rle else "polygon",
        )


def _frame_size(frame: Frame, files: tuple[Path, ...]) -> tuple[int, int]:
    """Width and height: as the frame says, or its first run lengths, or the picture."""
    if frame.size is not None:
        width, height = frame.size.width, frame.size.height
    else:
        size = next((label.rle.get("size") for label in frame.labels or () if label.rle), None)
        if not isinstance(size, list) or len(size) != 2 or not all(isinstance(side, int) for side in size):
            return first_image_size(files)
        height, width = size
    if min(width, height) < 1 or width * height > MAX_PIXELS:
        raise BadSample("bad_frame_record", f"{frame.name}: claims {width} x {height} pixels")
    return width, height


def _box(mask: Callable[[], BoxMask] | None) -> tuple[float, float, float, float] | None:
    """Box of a mask; None where there is none, or none that can be decoded."""
    try:
        found = mask() if mask else None
    except BadSample:
        return None
    if found is None or not found.area:
        return None
    x0, y0, x1, y1 = found.box
    return x0, y0, x1, y1


def _polygons(parts: Sequence[Poly2d] | None) -> list[list[float]] | None:
    """COCO's polygons, curves drawn as short lines; open lines are no areas."""
    drawn = [flat for part in parts or () if part.closed is not False and len(flat := _flatten(part)) >= 6]
    return drawn or None


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
