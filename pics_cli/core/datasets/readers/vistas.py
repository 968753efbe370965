"""Reader of 16-bit instance maps, label * 256 + instance: Mapillary Vistas v1.2 and v2.0."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import cv2
import msgspec
import numpy as np

from pics_cli.core.datasets.json_scanner import JSON_ERRORS
from pics_cli.core.datasets.readers.base import FolderReader
from pics_cli.core.datasets.readers.label_maps import LabelMap, Region, check_map_size, region_mask, tabulate
from pics_cli.core.datasets.readers.split_files import SplitFiles
from pics_cli.core.datasets.scene import Instance, ItemId, Scene
from pics_cli.core.images.image_files import decoding, open_image
from pics_cli.core.recipes.sources import VistasSource
from pics_cli.core.runtime.files import read_file
from pics_cli.errors import BadSample, PicsError, read_error


class _Label(msgspec.Struct):
    name: str
    instances: bool = True


class _Config(msgspec.Struct):
    labels: list[_Label]


class VistasReader(FolderReader):
    """Images in the order of their instance maps' names; every value of a label that has instances is one object."""

    def __init__(self, files: SplitFiles, source: VistasSource) -> None:
        super().__init__(files, "vistas", source.suffix, "name the folder that holds the instance pictures")
        self._labels = _read_config(files, source)
        self.categories = tuple(label.name for label in self._labels if label.instances)
        self._objects = np.zeros(1 << 16, np.int64)  # an object's number is its value + 1
        for i, label in enumerate(self._labels):
            if label.instances:
                self._objects[i << 8 : (i + 1) << 8] = np.arange(i << 8, (i + 1) << 8) + 1

    def scene(self, item_id: ItemId) -> Scene:
        """The image of an instance map."""
        path = self._path(item_id)
        values_HW = _decode_map(self._read(item_id), path)
        if (highest := int(values_HW.max()) >> 8) >= len(self._labels):
            raise BadSample("unknown_label", f"{path}: label {highest}, the config names {len(self._labels)} labels")
        instances = [
            Instance(
                box=region.box,
                area=region.area,
                category=self._labels[value >> 8].name,
                category_id=value >> 8,
                annotation_id=value & 255,
                mask=partial(region_mask, values_HW, region.box, [value]),
                mask_source="parse",
            )
            for value, region in self._tabulate(values_HW).items()
        ]
        height, width = values_HW.shape
        key = self._key(item_id)
        return Scene(key, key, self._image_paths(item_id), width, height, tuple(instances))

    def _tabulate(self, values_HW: LabelMap) -> Mapping[int, Region]:
        """Regions of the objects, by value."""
        return {number - 1: region for number, region in tabulate(values_HW, self._objects).items()}


def _read_config(files: SplitFiles, source: VistasSource) -> list[_Label]:
    path = files.find_names(source.configs, "configs", "labels")
    try:
        config = msgspec.json.decode(read_file(path), type=_Config)
    except JSON_ERRORS as error:
        raise PicsError(f"{path}: {error}", "download it again") from None
    except OSError as error:
        raise read_error(path, error) from None
    if len(config.labels) > 256:
        raise PicsError(f"{path}: {len(config.labels)} labels, at most 256 fit into an instance picture")
    return config.labels


def _decode_map(data: bytes, path: Path) -> LabelMap:
    """uint16 [H, W]."""
    with decoding(f"{path}: ", "bad_label_map"):
        width, height = open_image(data).size
    check_map_size(width, height, "bad_label_map", path)
    with decoding(f"{path}: ", "bad_label_map"):
        values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None:
        raise BadSample("bad_label_map", f"{path}: not a picture, or cut short")
    if values.dtype != np.uint16 or values.ndim != 2:
        shape = "x".join(map(str, values.shape))
        raise BadSample("bad_label_map", f"{path}: {values.dtype} {shape}, expected one channel of 16 bits")
    return values
