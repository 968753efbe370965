"""Reader of COCO-style annotation files: COCO, LVIS, Objects365 with masks, and users' own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from pics_cli.core.datasets.readers.coco_index import NONE, POLYGON, CocoIndex, open_index
from pics_cli.core.datasets.readers.files import ImagePaths, Place
from pics_cli.core.datasets.scene import Instance, Item, Scene
from pics_cli.core.images.masks import BoxMask, decode_segmentation, segmentation_area
from pics_cli.errors import PicsError


class CocoReader:
    """Pictures in the order of their ids; see `Reader` for the attributes."""

    def __init__(self, place: Place, on_index: Callable[[Path], None] | None) -> None:
        self.place = place.path
        self._index = open_index(place.path, on_index)
        if not self._index.has_masks():
            raise PicsError(
                f"{place.path}: {len(self._index.columns['id']):,} boxes and no masks "
                "(no segmentation in any annotation)",
                "run `pics annotate` to make masks from the boxes, then build again",
            )
        self._paths = ImagePaths(place)
        self.source = {"format": "coco", "file": place.path.name, **self._index.source}
        self.bad = self._index.bad
        self.categories = list(self._index.categories.values())

    def __len__(self) -> int:
        return len(self._index)

    def items(self, start: int, stop: int) -> Sequence[Item]:
        ids: list[Item] = self._index.image_id[start:stop].tolist()
        return ids

    def scene(self, item: Item) -> Scene:
        image_id, index = int(item), self._index
        row = int(index.image_id.searchsorted(image_id))
        height, width = int(index.height[row]), int(index.width[row])
        rows = slice(int(index.first[row]), int(index.first[row + 1]))
        columns = [index.columns[name][rows].tolist() for name in _READ]
        instances = []
        for i, (annotation_id, category_id, x, y, w, h, given, flags, kind) in enumerate(zip(*columns, strict=True)):
            mask = None if kind == NONE else partial(_decode, index, rows.start + i, height, width)
            area = given
            if area < 0:  # COCO always gives it, users' own files not always
                drawn = mask is not None and not flags
                area = _area(index, rows.start + i, height, width) if drawn else w * h
            instances.append(
                Instance(
                    box=(x, y, x + w, y + h),
                    area=area,
                    category=index.categories.get(category_id),
                    category_id=None if category_id < 0 else category_id,
                    annotation_id=None if annotation_id < 0 else annotation_id,
                    ignored=bool(flags),
                    mask=mask,
                    mask_source={NONE: None, POLYGON: "polygon"}.get(kind, "rle"),
                )
            )
        files = self._paths.files(*index.names(row))
        # COCO's own files are named by the id in twelve digits: so are our samples, and ids are unique where names
        # need not be.
        return Scene(f"{image_id:012d}", image_id, files, width, height, tuple(instances))


_READ = ("id", "category_id", "x", "y", "w", "h", "area", "flags", "kind")


def _area(index: CocoIndex, annotation: int, height: int, width: int) -> float:
    return segmentation_area(index.segmentation(annotation), height, width)


def _decode(index: CocoIndex, annotation: int, height: int, width: int) -> BoxMask:
    return decode_segmentation(index.segmentation(annotation), height, width)
