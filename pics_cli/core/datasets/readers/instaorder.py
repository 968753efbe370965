"""Reader of InstaOrder: who hides whom, and who is nearer, among the objects of COCO's pictures, by people.

Lee and Park, "Instance-wise Occlusion and Depth Orders in Natural Scenes", CVPR 2022. A record is a picture: ids of its
annotations in COCO's file, and pairs of places in that list. `0<1`: the first hides the second, or is nearer; two of
them joined by `&`: each hides a part of the other; `0=1`: equally near.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from pics_cli.core.datasets.json_records import read_arrays
from pics_cli.core.datasets.json_scanner import JSON_ERRORS
from pics_cli.core.datasets.readers.base import Reader
from pics_cli.core.datasets.readers.coco import CocoReader
from pics_cli.core.datasets.readers.index_cache import INDEX_METADATA, SpanIndex, open_cached_index
from pics_cli.core.datasets.readers.split_files import SplitFiles
from pics_cli.core.datasets.scene import ItemId, KnownPair, Scene
from pics_cli.core.recipes.sources import InstaOrderSource
from pics_cli.core.runtime.bad_samples import BadRecords
from pics_cli.errors import BadSample, PicsError

_VERSION = "instaorder 1"
_ORDER = re.compile(r"([0-9]{1,4})([<=])([0-9]{1,4})(?: & ([0-9]{1,4})<([0-9]{1,4}))?")


class Occlusion(msgspec.Struct, gc=False):
    """Who hides whom."""

    order: str


class Depth(msgspec.Struct, gc=False):
    """Who is nearer; `overlap`: each has parts that are nearer than some of the other's."""

    order: str
    overlap: bool = False


class OrderRecord(msgspec.Struct, gc=False):
    """Orders of one picture."""

    image_id: int
    instance_ids: list[int | str]
    occlusion: list[Occlusion] = []
    depth: list[Depth] = []


_DECODER = msgspec.json.Decoder(OrderRecord, strict=False)


class InstaOrderReader(Reader):
    """COCO's images in the order of their ids, with the pairs whose order is known; see `Reader` for the attributes."""

    def __init__(self, files: SplitFiles, source: InstaOrderSource, trusting: bool = False) -> None:
        self._coco, self._nearer = CocoReader(files, trusting), source.nearer
        self.annotations: Path = files.annotations
        self._orders_file = files.find_names(source.orders, "orders", "orders of the objects")
        self._orders = open_cached_index(
            self._orders_file, _VERSION, _build_index, lambda folder: OrderIndex(self._orders_file, folder)
        )
        if not len(self._orders):
            raise PicsError(f"{self._orders_file}: none of its records can be used; {self._orders.bad_records.summary}")
        self.source = {**self._coco.source, "format": "instaorder", "orders": self._orders.source}
        self.categories, self.crowds = self._coco.categories, self._coco.crowds
        self.bad_records = BadRecords()
        self.bad_records.add(self._coco.bad_records, files.annotations.name)
        self.bad_records.add(self._orders.bad_records, self._orders_file.name)

    @property
    def annotation_files(self) -> Sequence[Path]:
        """COCO's file and the one of orders."""
        return [self.annotations, self._orders_file]

    def __len__(self) -> int:
        return len(self._coco)

    def item_ids(self, start: int, stop: int) -> Sequence[ItemId]:
        """COCO's image ids."""
        return self._coco.item_ids(start, stop)

    def scene(self, item_id: ItemId) -> Scene:
        """The image of a COCO id."""
        scene, record = self._coco.scene(item_id), self._orders.record(item_id)
        return replace(scene, known_pairs={} if record is None else self._known_pairs(scene, record))

    def _known_pairs(self, scene: Scene, record: OrderRecord) -> dict[tuple[int, int], KnownPair]:
        places = {str(instance.annotation_id): i for i, instance in enumerate(scene.instances)}
        known = {}
        for pair, front in find_fronts(record, self._nearer).items():
            ids = [str(record.instance_ids[k]) for k in pair]
            if unknown := [each for each in ids if each not in places]:
                detail = f"{self._orders_file}: image id {scene.image_id}: no annotation {unknown[0]} in COCO's file"
                raise BadSample("unknown_instance", detail)
            low, high = sorted(places[each] for each in ids)
            known[low, high] = KnownPair(front=places[str(record.instance_ids[front])])
        return known


def find_fronts(record: OrderRecord, nearer: bool) -> dict[tuple[int, int], int]:
    """Which of two objects, by their places i < j in the record, is in front of the other.

    One that hides a part of the other and of which the other hides none; with `nearer` also one that is nearer, of two
    that do not hide each other and whose distances do not overlap.
    """
    hiding = {order for each in record.occlusion for order in parse_order(each.order)}
    touched = {(min(order), max(order)) for order in hiding}
    fronts = {(min(order), max(order)): order[0] for order in hiding if order[::-1] not in hiding}
    for each in record.depth if nearer else ():
        for first, second in parse_order(each.order):
            pair = min(first, second), max(first, second)
            if not each.overlap and pair not in touched:
                fronts[pair] = first
    return dict(sorted(fronts.items()))


def parse_order(text: str) -> list[tuple[int, int]]:
    """What an order says: pairs of places, the first in front of the second; none of two that are equally near.

    Raises:
        ValueError: it says something else.
    """
    if not (match := _ORDER.fullmatch(text)):
        raise ValueError(f"order is {text[:40]!r}, expected such as '0<1', '0<1 & 1<0' or '0=1'")
    first, sign, second, *back = match.groups()
    orders = [(int(first), int(second))] if sign == "<" else []
    return orders + ([(int(back[0]), int(back[1]))] if back[0] is not None else [])


class OrderIndex(SpanIndex):
    """A json of orders opened through its index.

    Attributes:
        image_id: int64 [records], sorted.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        super().__init__(path, folder)
        self.image_id: npt.NDArray[np.int64] = np.load(folder / "image_id.npy", mmap_mode="r")

    def record(self, image_id: ItemId) -> OrderRecord | None:
        """The orders of an image, if there are any."""
        if not isinstance(image_id, int):
            return None
        row = int(self.image_id.searchsorted(image_id))
        if row == len(self) or self.image_id[row] != image_id:
            return None
        return _DECODER.decode(self.read(*self._spans[row].tolist()))


def _build_index(path: Path, folder: Path, source: dict[str, Any]) -> None:
    bad_records, spans = BadRecords(), dict[int, tuple[int, int]]()
    for batch in read_arrays(path, {"annotations": msgspec.Raw}):
        errors = list(batch.errors)
        for raw in batch.records:
            offset, length = batch.span(raw)
            try:
                image_id = _image_id(_DECODER.decode(raw))
                if spans.setdefault(image_id, (offset, length)) != (offset, length):
                    raise ValueError(f"image id {image_id} given twice")
            except (*JSON_ERRORS, ValueError) as error:
                errors.append(f"byte {offset:,}: {error}")
        bad_records.extend("bad_order_record", errors)
    ids = sorted(spans)
    np.save(folder / "image_id.npy", np.array(ids, np.int64))
    np.save(folder / "spans.npy", np.array([spans[i] for i in ids], np.int64).reshape(-1, 2))
    (folder / INDEX_METADATA).write_text(json.dumps({"source": source, "bad": bad_records.as_dict()}))


def _image_id(record: OrderRecord) -> int:
    """The image's id of a record; one that cannot be used raises ValueError."""
    count = len(record.instance_ids)
    if len(set(map(str, record.instance_ids))) < count:
        raise ValueError(f"image id {record.image_id}: an annotation given twice in instance_ids")
    for text in (*(each.order for each in record.occlusion), *(each.order for each in record.depth)):
        for order in parse_order(text):
            if order[0] == order[1] or max(order) >= count:
                expected = f"of {count} objects, expected two of 0 to {count - 1}"
                raise ValueError(f"image id {record.image_id}: order {text!r} {expected}")
    return record.image_id
