"""Reader of 16-bit instance pictures, label * 256 + instance: Mapillary Vistas v1.2 and v2.0."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import cv2
import msgspec
import numpy as np

from pics_cli.core.datasets.compat import published_box
from pics_cli.core.datasets.readers.files import FolderReader, Place
from pics_cli.core.datasets.readers.json_records import JSON_FAULTS
from pics_cli.core.datasets.readers.label_maps import MAX_MAP_PIXELS, LabelMap, region_mask, tabulate
from pics_cli.core.datasets.scene import Instance, Item, Scene
from pics_cli.core.images.image_io import upright_size
from pics_cli.core.recipes.dataset import VistasSource
from pics_cli.errors import BadSample, PicsError, read_error


class _Label(msgspec.Struct):
    name: str
    instances: bool = True


class _Config(msgspec.Struct):
    labels: list[_Label]


class VistasReader(FolderReader):
    """Pictures in the order of their instance pictures' names; see `Reader` for the attributes.

    Every value of a label that has instances is one object. In compat the highest instance id of the whole picture is
    lost, and all of them where that is 0, as in the research code.
    """

    format = "vistas"

    def __init__(self, place: Place, source: VistasSource, compat: bool) -> None:
        super().__init__(place, source.suffix, compat, "name the folder that holds the instance pictures")
        self._labels = _read_config(place, source)
        self.categories = tuple(label.name for label in self._labels if label.instances)
        self._objects = np.zeros(1 << 16, np.int64)
        for i, label in enumerate(self._labels):
            if label.instances:
                self._objects[i << 8 : (i + 1) << 8] = np.arange(i << 8, (i + 1) << 8) + 1

    def scene(self, item: Item) -> Scene:
        """The picture of an instance picture."""
        path = self.place / str(item)
        values_HW = _decode(self._read(item), path)
        if (highest := int(values_HW.max()) >> 8) >= len(self._labels):
            raise BadSample("unknown_label", f"{path}: label {highest}, the config names {len(self._labels)} labels")
        below = int((values_HW & 255).max()) if self._compat else 256
        instances = []
        for number, (area, box) in tabulate(values_HW, self._objects).items():
            label, instance = divmod(number - 1, 256)
            if instance >= below:
                continue
            instances.append(
                Instance(
                    box=published_box(box) if self._compat else box,
                    area=area,
                    category=self._labels[label].name,
                    category_id=label,
                    annotation_id=instance,
                    mask=partial(region_mask, values_HW, box, [number - 1]),
                    mask_source="parse",
                )
            )
        files, (height, width) = self._files(item), values_HW.shape
        key = self._key(item, files)
        return Scene(key, key, files, width, height, tuple(instances))


def _read_config(place: Place, source: VistasSource) -> list[_Label]:
    fields = {"split": place.split, "version": place.version}
    names = [name.format_map(fields) for name in source.configs if place.version or "{version}" not in name]
    found = next((place.base / name for name in names if (place.base / name).is_file()), None)
    if found is None:
        raise PicsError(
            f"{place.base}: no {' or '.join(names)}, which names the labels of {place.path}",
            "it comes with the dataset; its place can be given with --set source.configs=[FILE]",
        )
    try:
        config = msgspec.json.decode(found.read_bytes(), type=_Config)
    except JSON_FAULTS as error:
        raise PicsError(f"{found}: {error}", "download it again") from None
    except OSError as error:
        raise read_error(found, error) from None
    if len(config.labels) > 256:
        raise PicsError(f"{found}: {len(config.labels)} labels, at most 256 fit into an instance picture")
    return config.labels


def _decode(data: bytes, path: Path) -> LabelMap:
    """uint16 [H, W]."""
    try:
        width, height = upright_size(data, turn=False)
    except BadSample as error:
        raise BadSample("bad_label_map", f"{path}: {error.detail}") from None
    try:
        if width * height > MAX_MAP_PIXELS:
            raise BadSample("bad_label_map", f"{path}: claims {width} x {height} pixels")
        values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:  # a header that claims more pixels than OpenCV allows
        values = None
    if values is None:
        raise BadSample("bad_label_map", f"{path}: not a picture, or cut short")
    if values.dtype != np.uint16 or values.ndim != 2:
        shape = "x".join(map(str, values.shape))
        raise BadSample("bad_label_map", f"{path}: {values.dtype} {shape}, expected one channel of 16 bits")
    return values
