"""Reader of label maps beside pictures, each id a garment or a region of the body: VITON-HD."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import partial

import numpy as np
from PIL import Image, UnidentifiedImageError

from pics_cli.core.datasets.compat import published_box
from pics_cli.core.datasets.readers.files import FolderReader, Place
from pics_cli.core.datasets.readers.label_maps import MAX_MAP_PIXELS, LabelMap, region_mask, tabulate
from pics_cli.core.datasets.scene import Instance, Item, Scene
from pics_cli.core.images.geometry import Box
from pics_cli.core.recipes.dataset import ParseMapSource
from pics_cli.errors import BadSample

_EVERY_ID = np.arange(256, dtype=np.uint16)


class ParseMapReader(FolderReader):
    """Pictures in the order of their label maps' names; see `Reader` for the attributes.

    A region is the union of its ids. In compat every id but 0 is an object of its own, as in the research code.
    """

    format = "parse_map"

    def __init__(self, place: Place, source: ParseMapSource, compat: bool) -> None:
        super().__init__(place, source.suffix, compat, "name the folder that holds the label maps")
        self.categories = tuple(source.regions)
        self._regions = source.regions
        self._names_of = {i: name for name, ids in source.regions.items() for i in ids}
        self._known = {*self._names_of, *source.void, 0}

    def scene(self, item: Item) -> Scene:
        """The picture of a label map."""
        ids_HW = _decode(self._read(item), f"{self.place / str(item)}")
        found = tabulate(ids_HW, _EVERY_ID)
        if self._compat:
            groups = [(self._names_of.get(i), i, [i]) for i in found]
        else:
            if unknown := sorted(found.keys() - self._known):
                raise BadSample(
                    "unknown_label",
                    f"{self.place / str(item)}: ids {unknown} are in neither regions nor void of the recipe",
                )
            present = {name: [i for i in ids if i in found] for name, ids in self._regions.items()}
            groups = [(name, self._regions[name][0], ids) for name, ids in present.items() if ids]
        instances = []
        for name, category_id, ids in groups:
            box = _union([found[i].box for i in ids])
            instances.append(
                Instance(
                    box=published_box(box) if self._compat else box,
                    area=sum(found[i].area for i in ids),
                    category=name,
                    category_id=category_id,
                    mask=partial(region_mask, ids_HW, box, ids),
                    mask_source="parse",
                )
            )
        files, (height, width) = self._files(item), ids_HW.shape
        key = self._key(item, files)
        return Scene(key, key, files, width, height, tuple(instances))


def _decode(data: bytes, path: str) -> LabelMap:
    """uint8 [H, W] of a palette or grey picture."""
    try:
        image = Image.open(io.BytesIO(data))
        if image.mode not in ("P", "L"):
            raise BadSample(
                "bad_label_map",
                f"{path}: stored as {image.mode}, expected palette or grey: ids cannot be told from colours",
            )
        if image.width * image.height > MAX_MAP_PIXELS:
            raise BadSample("bad_label_map", f"{path}: claims {image.width} x {image.height} pixels")
        return np.asarray(image)
    except UnidentifiedImageError:  # its text holds an address in memory
        why = "not a picture of a known kind" if data else "the file is empty"
        raise BadSample("bad_label_map", f"{path}: {why}") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise BadSample("bad_label_map", f"{path}: {error}") from None


def _union(boxes: Sequence[Box]) -> Box:
    x0, y0, x1, y1 = zip(*boxes, strict=True)
    return min(x0), min(y0), max(x1), max(y1)
