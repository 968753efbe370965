"""Reader of polygon files in paint order: Cityscapes."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from pics_cli.core.datasets.compat import published_box
from pics_cli.core.datasets.readers.files import FolderReader, Place
from pics_cli.core.datasets.readers.json_records import JSON_FAULTS
from pics_cli.core.datasets.readers.label_maps import MAX_MAP_PIXELS, region_mask, tabulate
from pics_cli.core.datasets.scene import Instance, Item, Scene
from pics_cli.core.images.masks import box_mask
from pics_cli.core.recipes.dataset import CityscapesSource
from pics_cli.errors import BadSample

_GROUP = "group"
# Vertices may leave the frame, but not by kilometres: Pillow goes through every line between them.
_Coordinate = Annotated[float, msgspec.Meta(gt=-1e6, lt=1e6)]


class _Object(msgspec.Struct, gc=False):
    label: str
    polygon: list[tuple[_Coordinate, _Coordinate]]
    deleted: int | bool | None = 0


class _Polygons(msgspec.Struct, gc=False):
    imgHeight: int
    imgWidth: int
    objects: list[_Object]


_DECODER = msgspec.json.Decoder(_Polygons)


class CityscapesReader(FolderReader):
    """Pictures in the order of their polygon files' names; see `Reader` for the attributes.

    Objects are painted back to front, so that each keeps what is visible of it; deleted ones are not painted, groups
    hide what is behind them and are no objects. In compat nothing is hidden, groups and deleted ones count, as in the
    research code. Polygons are filled by Pillow, as the dataset's own label pictures were.
    """

    format = "cityscapes"

    def __init__(self, place: Place, source: CityscapesSource, compat: bool) -> None:
        super().__init__(place, source.suffix, compat, "name the folder that holds the polygon files")
        self.categories = source.labels
        self._wanted, self._transparent = frozenset(source.labels), frozenset(source.transparent)

    def scene(self, item: Item) -> Scene:
        """The picture of a polygon file."""
        path, data = self.place / str(item), self._read(item)
        try:
            polygons = _DECODER.decode(data)
        except JSON_FAULTS as error:
            raise BadSample("bad_annotation_file", f"{path}: {error}") from None
        width, height = polygons.imgWidth, polygons.imgHeight
        if min(width, height) < 1 or width * height > MAX_MAP_PIXELS:
            raise BadSample("bad_annotation_file", f"{path}: claims {width} x {height} pixels")
        if len(polygons.objects) >= 1 << 16:
            raise BadSample("bad_annotation_file", f"{path}: {len(polygons.objects):,} objects")
        found = self._whole(polygons) if self._compat else self._visible(polygons)
        files = self._files(item)
        key = self._key(item, files)
        return Scene(key, key.rpartition("/")[2], files, width, height, tuple(found))

    def _visible(self, polygons: _Polygons) -> list[Instance]:
        shown = [entry for entry in polygons.objects if not entry.deleted and entry.label not in self._transparent]
        numbers_HW = _paint(polygons, shown)
        objects = np.zeros(len(shown) + 1, np.uint16)
        for i, entry in enumerate(shown, 1):
            objects[i] = i if entry.label in self._wanted else 0
        instances = []
        for number, (area, box) in tabulate(numbers_HW, objects).items():
            mask = partial(region_mask, numbers_HW, box, [number])
            instances.append(Instance(box, area, shown[number - 1].label, mask=mask, mask_source="polygon"))
        return instances

    def _whole(self, polygons: _Polygons) -> list[Instance]:
        instances = []
        for entry in polygons.objects:
            label = entry.label.removesuffix(_GROUP)
            if label not in self._wanted:
                continue
            mask = box_mask(_paint(polygons, [entry]) > 0)
            if mask.area:
                box = published_box(mask.box)
                instances.append(
                    Instance(box, mask.area, label, mask=lambda mask=mask: mask, mask_source="polygon")  # type: ignore[misc]
                )
        return instances


def _paint(polygons: _Polygons, entries: list[_Object]) -> npt.NDArray[Any]:
    """uint8 or int32 [H, W]: the number (from 1) of the last entry that covers a pixel, 0 where none does."""
    canvas = Image.new("L" if len(entries) < 256 else "I", (polygons.imgWidth, polygons.imgHeight))
    draw = ImageDraw.Draw(canvas)
    for number, entry in enumerate(entries, 1):
        if len(entry.polygon) > 2:
            draw.polygon(entry.polygon, fill=number)
    return np.asarray(canvas)
