"""Reader of COCO-style annotation files: COCO, LVIS, Objects365 with masks, and users' own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from pics_cli.core.datasets.readers.base import Reader, known_mask
from pics_cli.core.datasets.readers.coco_index import CROWD, IGNORED, NONE, POLYGON, open_coco_index
from pics_cli.core.datasets.readers.coco_records import FIRST_TEXT
from pics_cli.core.datasets.readers.split_files import SplitFiles
from pics_cli.core.datasets.scene import FloatBox, Instance, ItemId, Scene
from pics_cli.core.images.image_io import first_image_size
from pics_cli.core.images.masks import BoxMask, decode_segmentation, segmentation_area
from pics_cli.errors import BadSample, PicsError

Mask = Callable[[], BoxMask]
_COLUMNS = ("id", "category_id", "x", "y", "w", "h", "area", "flags", "kind")
# Shares of a box that its object's area has: outside of these one of the two is of another scale, or of none.
_LEAST_AREA, _MOST_AREA = 0.05, 4.0
# A box of this share of the picture, less than half of which is the object, may stand for "somewhere in the picture".
_NEARLY_ALL = 0.9
# By which factor area or box must differ from the mask's to be replaced: rasters differ from outlines by less.
_OTHER_SCALE = 2.0


class CocoReader(Reader):
    """Images in the order of their ids; see `Reader` for the attributes.

    Args:
        files: where the json and its images lie.
        trusting: take every box and area as it is given.
    """

    def __init__(self, files: SplitFiles, trusting: bool = False) -> None:
        self.annotations, self._files, self._trusting = files.annotations, files, trusting
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
        paths = self._files.image_paths(*index.names(row), is_shared=index.is_shared)
        height, width = int(index.height[row]), int(index.width[row])
        if not width:  # not given
            width, height = first_image_size(paths)
        rows = slice(int(index.first[row]), int(index.first[row + 1]))
        columns = [index.columns[name][rows].tolist() for name in _COLUMNS]
        instances, measured = [], 0
        annotations = enumerate(zip(*columns, strict=True), rows.start)
        for i, (annotation_id, category_id, x, y, w, h, given_area, flags, kind) in annotations:
            mask: Mask | None = None if kind == NONE else partial(self._decode_mask, i, height, width)
            area, box = given_area, (x, y, x + w, y + h)
            # COCO always gives box and area, users' own files not always.
            if area <= 0:
                area = _area_of(partial(index.segmentation, i), height, width) if mask is not None else w * h
            if mask is not None and not (w > 0 and h > 0):
                box, _, mask = _measure(mask, (0.0, 0.0, 0.0, 0.0), area)  # never chosen where the mask has none
            elif mask is not None and not self._trusting and _is_doubtful(w, h, area, height * width):
                given, (box, area, mask) = (box, area), _measure(mask, box, area)
                measured += given != (box, area)
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
        notes = {"measured_by_mask": measured} if measured else {}
        return Scene(key, item_id, paths, width, height, tuple(instances), notes=notes)

    def _decode_mask(self, annotation: int, height: int, width: int) -> BoxMask:
        return decode_segmentation(self._index.segmentation(annotation), height, width)


def _is_doubtful(w: float, h: float, area: float, picture: int) -> bool:
    """Whether width and height of a box or the area of its object may be wrong: shares of the picture instead of
    pixels, of a picture of another size, or the whole picture's. Otherwise a mask need not be looked at."""
    box = w * h
    if max(w, h) <= 1 or not _LEAST_AREA * box <= area <= _MOST_AREA * box:
        return True
    return box >= _NEARLY_ALL * picture and area < box / _OTHER_SCALE


def _measure(decode: Mask, box: FloatBox, area: float) -> tuple[FloatBox, float, Mask]:
    """Box and area, the mask's where that has them on another scale; and the mask."""
    mask = known_mask(decode)
    if mask is None:  # told where it is chosen
        return box, area, decode
    left, top, right, bottom = map(float, mask.box)
    if _differ((right - left) * (bottom - top), (box[2] - box[0]) * (box[3] - box[1])):
        box = left, top, right, bottom
    return box, float(mask.area) if _differ(mask.area, area) else area, lambda: mask


def _differ(a: float, b: float) -> bool:
    return max(a, b) > _OTHER_SCALE * min(a, b)


def _area_of(segmentation: Callable[[], object], height: int, width: int) -> float:
    """Pixels of a segmentation; 0, so that it is never chosen, where it is invalid."""
    try:
        return segmentation_area(segmentation(), height, width)
    except BadSample:
        return 0.0
