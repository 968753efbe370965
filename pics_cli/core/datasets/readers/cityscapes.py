"""Reader of polygon files in paint order: Cityscapes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated

import msgspec
import numpy as np
from PIL import Image, ImageDraw

from pics_cli.core.datasets.readers.base import FolderReader
from pics_cli.core.datasets.readers.label_maps import LabelMap, check_map_size, region_mask, tabulate
from pics_cli.core.datasets.readers.split_files import SplitFiles
from pics_cli.core.datasets.scene import Instance, ItemId, Scene
from pics_cli.core.recipes.sources import CityscapesSource
from pics_cli.errors import BadSample

# Vertices may leave the frame, but not by kilometres: Pillow goes through every line between them.
_Coordinate = Annotated[float, msgspec.Meta(gt=-1e6, lt=1e6)]


class Polygon(msgspec.Struct, gc=False):
    """One object of a polygon file."""

    label: str
    polygon: list[tuple[_Coordinate, _Coordinate]]
    deleted: int | bool | None = 0


class Polygons(msgspec.Struct, gc=False):
    """A polygon file: objects from back to front."""

    imgHeight: int
    imgWidth: int
    objects: list[Polygon]


_DECODER = msgspec.json.Decoder(Polygons)


class CityscapesReader(FolderReader):
    """Images in the order of their polygon files' names.

    Objects are painted back to front, so that each keeps what is visible of it; deleted ones are not painted, groups
    hide what is behind them and are no objects. Polygons are filled by Pillow, as the dataset's own label images were.
    """

    def __init__(self, files: SplitFiles, source: CityscapesSource) -> None:
        super().__init__(files, "cityscapes", source.suffix, "name the folder that holds the polygon files")
        self.categories, self._transparent = source.labels, frozenset(source.transparent)

    def scene(self, item_id: ItemId) -> Scene:
        """The image of a polygon file."""
        path, polygons = self._path(item_id), self._decode(item_id, _DECODER)
        width, height = polygons.imgWidth, polygons.imgHeight
        check_map_size(width, height, "bad_annotation_file", path)
        if len(polygons.objects) >= 1 << 16:
            raise BadSample("bad_annotation_file", f"{path}: {len(polygons.objects):,} objects")
        key, instances = self._key(item_id), tuple(self._instances(polygons))
        return Scene(key, key.rpartition("/")[2], self._image_paths(item_id), width, height, instances)

    def _instances(self, polygons: Polygons) -> list[Instance]:
        shown = [entry for entry in polygons.objects if not entry.deleted and entry.label not in self._transparent]
        numbers_HW = paint(polygons, shown)
        objects = np.zeros(len(shown) + 1, np.uint16)
        for number, entry in enumerate(shown, 1):
            objects[number] = number if entry.label in self.categories else 0
        instances = []
        for number, (area, box) in tabulate(numbers_HW, objects).items():
            mask = partial(region_mask, numbers_HW, box, [number])
            instances.append(Instance(box, area, shown[number - 1].label, mask=mask, mask_source="polygon"))
        return instances


def paint(polygons: Polygons, entries: Sequence[Polygon]) -> LabelMap:
    """uint8 or int32 [H, W]: the number (from 1) of the last entry that covers a pixel, 0 where none does."""
    canvas = Image.new("L" if len(entries) < 256 else "I", (polygons.imgWidth, polygons.imgHeight))
    draw = ImageDraw.Draw(canvas)
    for number, entry in enumerate(entries, 1):
        if len(entry.polygon) > 2:
            draw.polygon(entry.polygon, fill=number)
    return np.asarray(canvas)
