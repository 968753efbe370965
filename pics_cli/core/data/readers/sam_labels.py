"""Reader of label folders: one json a picture, as the research project's SAM script writes them.

`{"image_id", "annotations": [{"segmentation": [[x, y, …]], "bbox": [x, y, w, h], "area", "category_id": 1}]}` in
`patchN/X.json`. The category is always 1 there, whatever the object: it says nothing and is not passed on.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec

from pics_cli.core.data.masks import decode_segmentation, has_polygon, segmentation_area
from pics_cli.core.data.pictures import first_size
from pics_cli.core.data.readers.folder import FolderReader
from pics_cli.core.data.readers.frames import Coordinate
from pics_cli.core.data.readers.paths import Place
from pics_cli.core.data.scene import Instance, Item, Scene
from pics_cli.core.records import JSON_FAULTS
from pics_cli.errors import BadSample


class _Label(msgspec.Struct, gc=False):
    bbox: tuple[Coordinate, Coordinate, Coordinate, Coordinate]
    area: float | None = None
    segmentation: list[list[float]] | dict[str, Any] | None = None


class _Labels(msgspec.Struct, gc=False):
    annotations: list[_Label]
    image_id: int | str | None = None


_DECODER = msgspec.json.Decoder(_Labels)


class LabelReader(FolderReader):
    """Pictures in the order of their label files' names; see `Reader` for the attributes."""

    format = "labels"

    def __init__(self, place: Place, compat: bool) -> None:
        super().__init__(place, ".json", compat, "run `pics annotate` to make them")

    def scene(self, item: Item) -> Scene:
        """The picture of a label file."""
        data = self._read(item)
        try:
            labels = _DECODER.decode(data)
        except JSON_FAULTS as error:
            raise BadSample("bad_annotation_file", f"{self.place / str(item)}: {error}") from None
        name = str(item).removesuffix(".json")
        files = self._paths.files(f"{name}.jpg")
        width, height = first_size(files)
        instances = []
        for label in labels.annotations:
            if not label.segmentation or (isinstance(label.segmentation, list) and not has_polygon(label.segmentation)):
                continue
            area = segmentation_area(label.segmentation, height, width) if label.area is None else label.area
            (x, y, w, h), mask = label.bbox, partial(decode_segmentation, label.segmentation, height, width)
            instances.append(
                Instance(
                    box=(x, y, x + w, y + h),
                    area=area,
                    mask=mask,
                    mask_source="sam",
                )
            )
        image_id = labels.image_id if labels.image_id is not None else name
        return Scene(self._key(item, files), image_id, files, width, height, tuple(instances))
