"""Readers of `--compat`: objects, boxes and names as the research code has them, with its faults."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property, partial

from pics_cli.core.datasets.labels import has_label_blocks
from pics_cli.core.datasets.readers.base import FolderReader, Reader
from pics_cli.core.datasets.readers.cityscapes import CityscapesReader, Polygons, paint
from pics_cli.core.datasets.readers.label_maps import LabelMap, Region
from pics_cli.core.datasets.readers.parse_map import ParseMapReader
from pics_cli.core.datasets.readers.sam_labels import LabelFileReader
from pics_cli.core.datasets.readers.scalabel import ScalabelReader
from pics_cli.core.datasets.readers.scalabel_index import Box2d
from pics_cli.core.datasets.readers.split_files import SplitFiles
from pics_cli.core.datasets.readers.vistas import VistasReader
from pics_cli.core.datasets.scene import FloatBox, Instance, ItemId, Scene
from pics_cli.core.images.masks import BoxMask, box_mask
from pics_cli.core.recipes.sources import CityscapesSource, FileSource, ParseMapSource, ScalabelSource, VistasSource
from pics_cli.errors import PicsError

_GROUP = "group"


def open_compat_reader(source: FileSource, files: SplitFiles) -> Reader | None:
    """The reader of `--compat`; None where it is the same."""
    match source:
        case ParseMapSource():
            return CompatParseMapReader(files, source)
        case CityscapesSource():
            return CompatCityscapesReader(files, source)
        case VistasSource():
            return CompatVistasReader(files, source)
    if files.annotations.is_dir():
        return None if has_label_blocks(files.annotations) else CompatLabelFileReader(files)
    return CompatScalabelReader(files) if isinstance(source, ScalabelSource) else None


class _NamedByImage(FolderReader):
    """Names samples by the image's file name alone."""

    @cached_property
    def _names(self) -> list[str]:
        names = super()._names
        stem, count = Counter(name.rpartition("/")[2] for name in names).most_common(1)[0]
        if count > 1:
            raise PicsError(
                f"{self.annotations}: {count} files are called {stem}, and the research code names samples by that "
                "alone",
                "build without --compat, which keeps the folder in the name",
            )
        return names

    def _key(self, item_id: ItemId) -> str:
        paths = self._image_paths(item_id)
        return paths[0].stem if paths else super()._key(item_id)


class _BoxedByLastPixel(_NamedByImage):
    """Takes boxes from masks, and lets them end at the last pixel instead of behind it."""

    def scene(self, item_id: ItemId) -> Scene:
        scene = super().scene(item_id)  # type: ignore[safe-super]
        boxes = [(x0, y0, x1 - 1, y1 - 1) for x0, y0, x1, y1 in (instance.box for instance in scene.instances)]
        instances = [replace(instance, box=box) for instance, box in zip(scene.instances, boxes, strict=True)]
        return replace(scene, instances=tuple(instances))


class CompatLabelFileReader(_NamedByImage, LabelFileReader):
    """Objects365's labels."""


class CompatParseMapReader(_BoxedByLastPixel, ParseMapReader):
    """VITON-HD: every id but 0 is an object of its own."""

    def _group_ids(self, _item_id: ItemId, ids: Iterable[int]) -> list[tuple[str | None, int, list[int]]]:
        names = {i: name for name, members in self._regions.items() for i in members}
        return [(names.get(i), i, [i]) for i in ids]


class CompatCityscapesReader(_BoxedByLastPixel, CityscapesReader):
    """Cityscapes: nothing is hidden; groups and deleted objects count."""

    def _instances(self, polygons: Polygons) -> list[Instance]:
        instances = []
        for entry in polygons.objects:
            label = entry.label.removesuffix(_GROUP)
            if label in self.categories and (mask := box_mask(paint(polygons, [entry]) > 0)).area:
                decode = partial(_decoded, mask)
                instances.append(Instance(mask.box, mask.area, label, mask=decode, mask_source="polygon"))
        return instances


class CompatVistasReader(_BoxedByLastPixel, VistasReader):
    """Mapillary Vistas: the highest instance id of the whole image is lost, and all of them where that is 0."""

    def _tabulate(self, values_HW: LabelMap) -> Mapping[int, Region]:
        highest = int((values_HW & 255).max())
        return {value: region for value, region in super()._tabulate(values_HW).items() if value & 255 < highest}


class CompatScalabelReader(ScalabelReader):
    """BDD100K: given boxes end one pixel short."""

    def _corners(self, box: Box2d) -> FloatBox:
        return box.x1, box.y1, box.x2, box.y2


def _decoded(mask: BoxMask) -> BoxMask:
    return mask
