"""Reader of label maps beside images, each id a garment or a region of the body: VITON-HD."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import numpy as np

from pics_cli.core.datasets.readers.base import FolderReader
from pics_cli.core.datasets.readers.label_maps import decode_label_map, region_mask, tabulate
from pics_cli.core.datasets.readers.split_files import SplitFiles
from pics_cli.core.datasets.scene import Instance, ItemId, Scene
from pics_cli.core.recipes.sources import ParseMapSource
from pics_cli.errors import BadSample

_EVERY_ID = np.arange(256, dtype=np.uint16)


class ParseMapReader(FolderReader):
    """Images in the order of their label maps' names; an object is the union of its region's ids."""

    def __init__(self, files: SplitFiles, source: ParseMapSource) -> None:
        super().__init__(files, "parse_map", source.suffix, "name the folder that holds the label maps")
        self.categories = tuple(source.regions)
        self._regions, self._void = source.regions, source.void

    def scene(self, item_id: ItemId) -> Scene:
        """The image of a label map."""
        ids_HW = decode_label_map(self._read(item_id), self._path(item_id))
        regions = tabulate(ids_HW, _EVERY_ID)
        instances = []
        for name, category_id, ids in self._group_ids(item_id, regions):
            x0, y0, x1, y1 = zip(*(regions[i].box for i in ids), strict=True)
            box = min(x0), min(y0), max(x1), max(y1)
            instances.append(
                Instance(
                    box=box,
                    area=sum(regions[i].area for i in ids),
                    category=name,
                    category_id=category_id,
                    mask=partial(region_mask, ids_HW, box, ids),
                    mask_source="parse",
                )
            )
        height, width = ids_HW.shape
        key = self._key(item_id)
        return Scene(key, key, self._image_paths(item_id), width, height, tuple(instances))

    def _group_ids(self, item_id: ItemId, ids: Iterable[int]) -> list[tuple[str | None, int, list[int]]]:
        """Name, category id and the ids that occur of the map's objects, in the order of the recipe's regions."""
        present = set(ids)
        known = {0, *self._void, *(i for members in self._regions.values() for i in members)}
        if unknown := sorted(present - known):
            raise BadSample(
                "unknown_label",
                f"{self._path(item_id)}: ids {unknown} are in neither regions nor void of the recipe",
            )
        groups = ((name, members[0], [i for i in members if i in present]) for name, members in self._regions.items())
        return [group for group in groups if group[2]]
