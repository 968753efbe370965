"""Reader of COCO-style annotation files: COCO, LVIS, Objects365 with masks, and users' own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from pics_cli.core.datasets.readers.base import Reader
from pics_cli.core.datasets.readers.coco_index import NONE, POLYGON, open_coco_index
from pics_cli.core.datasets.readers.split_files import SplitFiles
from pics_cli.core.datasets.scene import Instance, ItemId, Scene
from pics_cli.core.images.masks import BoxMask, decode_segmentation, segmentation_area
from pics_cli.errors import PicsError

_COLUMNS = ("id", "category_id", "x", "y", "w", "h", "area", "flags", "kind")


class CocoReader(Reader):
    """Images in the order of their ids; see `Reader` for the attributes."""

    def __init__(self, files: SplitFiles) -> None:
        self.annotations, self._files = files.annotations, files
        self._index = open_coco_index(files.annotations)
        if not self._index.has_masks():
            raise PicsError(
                f"{files.annotations}: {len(self._index.columns['id']):,} boxes and no masks "
                "(no segmentation in any annotation)",
                "run `pics annotate` to make masks from the boxes, then build again",
            )
        self.source = {"format": "coco", "file": files.annotations.name, **self._index.source}
        self.bad_records = self._index.bad_records
        self.categories = list(self._index.categories.values())

    def __len__(self) -> int:
        return len(self._index)

    def item_ids(self, start: int, stop: int) -> Sequence[ItemId]:
        """COCO's image ids."""
        ids: list[ItemId] = self._index.image_id[start:stop].tolist()
        return ids

    def scene(self, item_id: ItemId) -> Scene:
        """The image of a COCO id."""
        image_id, index = int(item_id), self._index
        row = int(index.image_id.searchsorted(image_id))
        height, width = int(index.height[row]), int(index.width[row])
        rows = slice(int(index.first[row]), int(index.first[row + 1]))
        columns = [index.columns[name][rows].tolist() for name in _COLUMNS]
        instances = []
        annotations = enumerate(zip(*columns, strict=True), rows.start)
        for i, (annotation_id, category_id, x, y, w, h, given_area, flags, kind) in annotations:
            mask = None if kind == NONE else partial(self._decode_mask, i, height, width)
            area = given_area
            if area < 0:  # COCO always gives it, users' own files not always
                drawn = mask is not None and not flags
                area = segmentation_area(index.segmentation(i), height, width) if drawn else w * h
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
        paths = self._files.image_paths(*index.names(row))
        # COCO's own files are named by the id in twelve digits: so are our samples, and ids are unique where names
        # need not be.
        return Scene(f"{image_id:012d}", image_id, paths, width, height, tuple(instances))

    def _decode_mask(self, annotation: int, height: int, width: int) -> BoxMask:
        return decode_segmentation(self._index.segmentation(annotation), height, width)
