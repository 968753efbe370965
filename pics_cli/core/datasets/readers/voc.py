"""Reader of Pascal VOC's segmentation: a list of pictures, and label maps of their objects and classes."""

from __future__ import annotations

from functools import cached_property, partial
from pathlib import Path

import numpy as np

from pics_cli.core.datasets.readers.base import FolderReader, read_annotation
from pics_cli.core.datasets.readers.label_maps import (
    LabelMap,
    Region,
    decode_label_map,
    find_map,
    region_mask,
    tabulate,
)
from pics_cli.core.datasets.readers.split_files import SplitFiles
from pics_cli.core.datasets.scene import Instance, ItemId, Scene
from pics_cli.core.recipes.sources import VocSource
from pics_cli.errors import BadSample, PicsError, read_error

_VOID = 255
_OBJECTS = np.arange(256, dtype=np.int64)
_OBJECTS[_VOID] = 0
# Of an object's pixels so many must be of one class, else the two maps contradict each other.
_MIN_AGREEMENT = 0.9


class VocReader(FolderReader):
    """Images in the order of the split's list, which names them without their ending."""

    def __init__(self, files: SplitFiles, source: VocSource) -> None:
        super().__init__(files, "voc", ".png", "name the list of the split's pictures")
        self.categories = source.labels
        self._object_maps = files._replace(image_patterns=source.objects)
        self._class_maps = files._replace(image_patterns=source.classes)

    @cached_property
    def _names(self) -> list[str]:
        try:
            lines = self.annotations.read_text(encoding="utf-8-sig").splitlines()
        except OSError as error:
            raise read_error(self.annotations, error) from None
        except UnicodeDecodeError as error:
            raise PicsError(f"{self.annotations}: no text: {error.reason}", self._hint) from None
        names = [line.strip() for line in lines if line.strip()]
        return [f"{name}{self._suffix}" for name in dict.fromkeys(names)]

    def _path(self, item_id: ItemId) -> Path:
        return self._find_map(self._object_maps, item_id)

    def scene(self, item_id: ItemId) -> Scene:
        """The image of a name."""
        path, class_path = self._path(item_id), self._find_map(self._class_maps, item_id)
        objects_HW, classes_HW = (decode_label_map(read_annotation(each), each) for each in (path, class_path))
        if objects_HW.shape != classes_HW.shape:
            sizes = " and ".join(f"{values.shape[1]}x{values.shape[0]}" for values in (objects_HW, classes_HW))
            raise BadSample("bad_label_map", f"{path} and {class_path} are {sizes}")
        instances = []
        for number, region in tabulate(objects_HW, _OBJECTS).items():
            mask = partial(region_mask, objects_HW, region.box, [number])
            category_id = _class_of(number, region, objects_HW, classes_HW, path)
            if not 1 <= category_id <= len(self.categories):
                what = f"class {category_id}, the recipe names {len(self.categories)}"
                raise BadSample("unknown_label", f"{class_path}: object {number} is of {what}")
            name = self.categories[category_id - 1]
            instances.append(
                Instance(region.box, region.area, name, category_id, number, mask=mask, mask_source="parse")
            )
        height, width = objects_HW.shape
        key = self._key(item_id)
        return Scene(key, key, self._image_paths(item_id), width, height, tuple(instances))

    def _find_map(self, files: SplitFiles, item_id: ItemId) -> Path:
        """Where a label map lies."""
        return find_map(files, str(item_id), self._suffix)


def _class_of(number: int, region: Region, objects_HW: LabelMap, classes_HW: LabelMap, path: Path) -> int:
    """The class of an object's pixels."""
    x0, y0, x1, y1 = region.box
    values = classes_HW[y0:y1, x0:x1][objects_HW[y0:y1, x0:x1] == number]
    counts = np.bincount(values)
    category_id = int(counts.argmax())
    if counts[category_id] < _MIN_AGREEMENT * region.area:
        share = counts[category_id] / region.area
        what = f"{share:.0%} of object {number} is of class {category_id}, the rest of others"
        raise BadSample("bad_label_map", f"{path}: {what}")
    return category_id
