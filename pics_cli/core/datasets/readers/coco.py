"""Reader of COCO-style annotation files: COCO, LVIS, Objects365 with masks, and users' own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from pics_cli.core.datasets.readers.base import Reader
from pics_cli.core.datasets.readers.coco_index import CROWD, IGNORED, NONE, POLYGON, open_coco_index
from pics_cli.core.datasets.readers.coco_records import FIRST_TEXT
from pics_cli.core.datasets.readers.split_files import SplitFiles
from pics_cli.core.datasets.scene import FloatBox, Instance, ItemId, Scene
from pics_cli.core.images.image_io import first_image_size
from pics_cli.core.images.masks import BoxMask, decode_segmentation, segmentation_area
from pics_cli.errors import BadSample, PicsError

_COLUMNS = ("id", "category_id", "x", "y", "w", "h", "area", "flags", "kind")


class CocoReader(Reader):
    """Images in the order of their ids; see `Reader` for the attributes."""

    def __init__(self, files: SplitFiles) -> None:
        self.annotations, self._files = files.annotations, files
        self._index = open_coco_index(files.annotations)
        boxes = len(self._index.columns["id"])
        if boxes and not self._index.has_masks():
            raise PicsError(
                f"{files.annotations}: {boxes:,} boxes and no masks (no segmentation in any annotation)",
                "run `pics annotate` to make masks from the boxes, then build again",
            )
        self.source = {"format": "coco", "file": files.annotations.name, **self._index.source}
        self.bad_records = self._index.bad_records
        self.categories = list(self._index.categories.values())
        self.crowds = self._index.crowds(), boxes

    def __len__(self) -> int:
        return len(self._index)

    def item_ids(self, start: int, stop: int) -> Sequence[ItemId]:
        """COCO's image ids."""
        return [self._index.given_id(number) for number in self._index.image_id[start:stop].tolist()]

    def scene(self, item_id: ItemId) -> Scene:
        """The image of a COCO id."""
        index = self._index
        row = int(index.image_id.searchsorted(index.image_number(item_id)))
        paths = self._files.image_paths(*index.names(row))
        height, width = int(index.height[row]), int(index.width[row])
        if not width:  # not given
            width, height = first_image_size(paths)
        rows = slice(int(index.first[row]), int(index.first[row + 1]))
        columns = [index.columns[name][rows].tolist() for name in _COLUMNS]
        instances = []
        annotations = enumerate(zip(*columns, strict=True), rows.start)
        for i, (annotation_id, category_id, x, y, w, h, given_area, flags, kind) in annotations:
            mask = None if kind == NONE else partial(self._decode_mask, i, height, width)
            area, box = given_area, (x, y, x + w, y + h)
            # COCO always gives box and area, users' own files not always.
            if mask is not None and not (w > 0 and h > 0):
                box = _box_of(mask)
            if area <= 0:
                area = _area_of(partial(index.segmentation, i), height, width) if mask is not None else w * h
            instances.append(
                Instance(
                    box=box,
                    area=area,
                    category=index.categories.get(category_id),
                    category_id=None if category_id < 0 or category_id >= FIRST_TEXT else category_id,
                    annotation_id=None if annotation_id < 0 else index.given_id(annotation_id),
                    ignored=bool(flags & IGNORED),
                    crowd=bool(flags & CROWD),
                    mask=mask,
                    mask_source={NONE: None, POLYGON: "polygon"}.get(kind, "rle"),
                )
            )
        # COCO's own files are named by the id in twelve digits: so are our samples, and ids are unique where names
        # need not be.
        key = f"{item_id:012d}" if isinstance(item_id, int) else item_id
        return Scene(key, item_id, paths, width, height, tuple(instances))

    def _decode_mask(self, annotation: int, height: int, width: int) -> BoxMask:
        return decode_segmentation(self._index.segmentation(annotation), height, width)


def _box_of(mask: Callable[[], BoxMask]) -> FloatBox:
    """Box of a mask; an empty one, which is never chosen, where the mask is empty or invalid."""
    try:
        x0, y0, x1, y1 = mask().box
    except BadSample:
        return 0.0, 0.0, 0.0, 0.0
    return float(x0), float(y0), float(x1), float(y1)


def _area_of(segmentation: Callable[[], object], height: int, width: int) -> float:
    """Pixels of a segmentation; 0, so that it is never chosen, where it is invalid."""
    try:
        return segmentation_area(segmentation(), height, width)
    except BadSample:
        return 0.0
