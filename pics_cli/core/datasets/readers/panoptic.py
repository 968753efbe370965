"""Reader of COCO's panoptic format: a json of segments, and PNG files of their ids (R + 256 G + 65,536 B)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from pics_cli.core.datasets.readers.base import Reader, read_annotation
from pics_cli.core.datasets.readers.label_maps import LabelMap, decode_label_map, find_map, region_mask, tabulate
from pics_cli.core.datasets.readers.panoptic_index import MAX_SEGMENT, Segment, open_panoptic_index
from pics_cli.core.datasets.readers.split_files import SplitFiles
from pics_cli.core.datasets.scene import Instance, ItemId, Scene
from pics_cli.core.recipes.sources import PanopticSource
from pics_cli.errors import BadSample


class PanopticReader(Reader):
    """Images in the order of their ids; things are objects, stuff is not. See `Reader` for the attributes.

    Boxes and areas are those of the PNG files.
    """

    def __init__(self, files: SplitFiles, source: PanopticSource) -> None:
        self.annotations, self._files = files.annotations, files
        self._maps = files._replace(image_patterns=source.maps)
        self._index = open_panoptic_index(files.annotations)
        self.source = {"format": "coco_panoptic", "file": files.annotations.name, **self._index.source}
        self.bad_records = self._index.bad_records
        self.categories = [category.name for category in self._index.categories.values() if category.isthing]
        self._numbers = np.zeros(MAX_SEGMENT + 1, np.uint16)  # of an image's segments, by id; zeros but for its time

    def __len__(self) -> int:
        return len(self._index)

    def item_ids(self, start: int, stop: int) -> Sequence[ItemId]:
        """COCO's image ids."""
        ids: list[ItemId] = self._index.image_id[start:stop].tolist()
        return ids

    def scene(self, item_id: ItemId) -> Scene:
        """The image of a COCO id."""
        image, annotation = self._index.records(int(item_id))
        instances: tuple[Instance, ...] = ()
        if annotation is not None:
            path = find_map(self._maps, annotation.file_name)
            numbers_HW = self._number_pixels(path, annotation.segments_info)
            if numbers_HW.shape != (image.height, image.width):
                stored = f"{numbers_HW.shape[1]}x{numbers_HW.shape[0]}"
                raise BadSample("size_mismatch", f"{path} is {stored}, annotated as {image.width}x{image.height}")
            instances = tuple(self._instances(path, numbers_HW, annotation.segments_info))
        paths = self._files.image_paths(image.file_name)
        return Scene(f"{image.id:012d}", image.id, paths, image.width, image.height, instances)

    def _number_pixels(self, path: Path, segments: Sequence[Segment]) -> LabelMap:
        """uint16 [H, W]: the number (from 1) of the segment that a pixel belongs to, 0 where it is void.

        Raises:
            BadSample: `bad_label_map`: the PNG has segments that are not listed.
        """
        rgb_HWC = decode_label_map(read_annotation(path), path, ("RGB",)).astype(np.uint32)
        ids_HW = rgb_HWC @ np.array([1, 1 << 8, 1 << 16], np.uint32)
        ids = [segment.id for segment in segments]
        self._numbers[ids] = np.arange(1, len(ids) + 1)
        numbers_HW: LabelMap = self._numbers[ids_HW]
        self._numbers[ids] = 0
        if (unlisted := ids_HW[(numbers_HW == 0) & (ids_HW != 0)]).size:
            raise BadSample("bad_label_map", f"{path}: segment {unlisted[0]} is not in segments_info")
        return numbers_HW

    def _instances(self, path: Path, numbers_HW: LabelMap, segments: Sequence[Segment]) -> list[Instance]:
        regions = tabulate(numbers_HW, np.arange(len(segments) + 1))
        instances = []
        for number, segment in enumerate(segments, 1):
            if (category := self._index.categories.get(segment.category_id)) is None:
                raise BadSample("unknown_label", f"{path}: segment {segment.id} is of category {segment.category_id}")
            if (region := regions.get(number)) is None:
                raise BadSample("bad_label_map", f"{path}: segment {segment.id} of segments_info has no pixel")
            if category.isthing:
                instances.append(
                    Instance(
                        box=region.box,
                        area=region.area,
                        category=category.name,
                        category_id=segment.category_id,
                        annotation_id=segment.id,
                        crowd=bool(segment.iscrowd),
                        mask=partial(region_mask, numbers_HW, region.box, [number]),
                        mask_source="parse",
                    )
                )
        return instances
