"""Builds the index of a COCO-style json: columns of numbers on disk, one block of the json in memory."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from pics_cli.core.datasets.readers.index_cache import META, Faults, open_cached
from pics_cli.core.datasets.readers.json_records import BLOCK_BYTES, Batch, address, read_arrays
from pics_cli.core.images.image_io import MAX_PIXELS

Array = npt.NDArray[Any]

NONE, POLYGON, RLE = 0, 1, 2
SHORTEST = 16  # of a segmentation that can be drawn; shorter ones are looked at
CROWD = 1


# What the columns can hold; anything else makes a record bad.
_Id = Annotated[int, msgspec.Meta(ge=-(1 << 62), le=1 << 62)]
_Side = Annotated[int, msgspec.Meta(ge=1, le=1 << 17)]
_Coordinate = Annotated[float, msgspec.Meta(ge=-1e9, le=1e9)]


class _Image(msgspec.Struct, gc=False):
    id: _Id
    width: _Side
    height: _Side
    file_name: str | None = ""
    coco_url: str | None = ""


class _Annotation(msgspec.Struct, gc=False):
    image_id: _Id
    bbox: tuple[_Coordinate, _Coordinate, _Coordinate, _Coordinate]
    category_id: _Id | None = -1
    id: _Id | None = -1
    area: float | None = -1.0
    iscrowd: _Id | bool | None = 0
    ignore: _Id | bool | None = 0
    segmentation: msgspec.Raw = msgspec.Raw()


class _Category(msgspec.Struct):
    id: int
    name: str


_Record = TypeVar("_Record", _Image, _Annotation)

COLUMNS: dict[str, Any] = {
    "image_id": np.int64, "id": np.int64, "category_id": np.int64, "x": np.float64, "y": np.float64, "w": np.float64,
    "h": np.float64, "area": np.float64, "flags": np.uint8, "kind": np.uint8, "offset": np.int64, "length": np.int32,
}  # fmt: skip


def build_index(path: Path, folder: Path, source: dict[str, Any], block_bytes: int) -> None:
    """Write the index of a json into an empty folder. See `CocoIndex` for what is in it."""
    _Builder(folder).build(path, source, block_bytes)


_BAD_RECORD = {
    "images": "bad_image_record",
    "annotations": "bad_annotation_record",
    "categories": "bad_category_record",
}


class _Builder:
    """Columns are appended to files while reading and sorted one at a time: memory holds one column and one block."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.faults = Faults()

    def build(self, path: Path, source: dict[str, Any], block_bytes: int) -> None:
        categories: dict[int, str] = {}
        files = {name: (self.work / f"{name}.raw").open("wb") for name in (*COLUMNS, "names")}
        images: list[list[Array]] = [[], [], [], []]
        kinds = {"images": _Image, "annotations": _Annotation, "categories": _Category}
        optional = {"categories"}
        try:
            for batch in read_arrays(path, kinds, block_bytes, optional):
                self.note(_BAD_RECORD[batch.section], batch.bad)
                if batch.section == "categories":
                    categories.update((record.id, record.name) for record in batch.records)
                elif batch.section == "images":
                    self.add_images(batch.records, images, files["names"].write)
                else:
                    for name, column in _annotation_columns(batch).items():
                        column.tofile(files[name])
        finally:
            for file in files.values():
                file.close()
        ids = self.sort_images(*(np.concatenate(part) if part else np.zeros(0, np.int64) for part in images))
        self.sort_annotations(ids)
        meta = {"source": source, "categories": categories, "bad": self.faults.plain()}
        (self.work / META).write_text(json.dumps(meta))

    def note(self, reason: str, lines: Iterable[str]) -> None:
        for line in lines:
            self.faults.note(reason, line)

    def add_images(self, records: list[_Image], images: list[list[Array]], write: Callable[[bytes], int]) -> None:
        huge = [record for record in records if record.width * record.height > MAX_PIXELS]
        self.note("bad_image_record", (f"image id {r.id}: claims {r.width} x {r.height} pixels" for r in huge))
        records = [record for record in records if record.width * record.height <= MAX_PIXELS] if huge else records
        names = [((record.file_name or "").encode(), (record.coco_url or "").encode()) for record in records]
        write(b"".join(name + url for name, url in names))
        lengths = [length for name, url in names for length in (len(name), len(url))]
        for part, name in zip(images, ("id", "width", "height"), strict=False):
            part.append(_column(records, name, np.int64))
        images[3].append(np.array(lengths, np.int64))

    def sort_images(self, ids: Array, width: Array, height: Array, lengths: Array) -> Array:
        """Order pictures by id, keep the first of equal ids, and lay their names out in that order."""
        order = np.argsort(ids, kind="stable")
        again = np.flatnonzero(np.diff(ids[order], prepend=ids[order][:1] - 1) == 0) if len(ids) else order
        self.note("duplicate_image_id", (f"image id {i} given twice" for i in ids[order][again]))
        order = np.delete(order, again)
        ends = np.cumsum(lengths)
        text = (self.work / "names.raw").read_bytes()
        starts = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
        (self.work / "names.raw").unlink()
        sorted_text = b"".join(text[starts[2 * i] : ends[2 * i + 1]] for i in order)
        self.save("names", np.frombuffer(sorted_text, np.uint8))
        self.save("name_ends", np.cumsum(lengths.reshape(-1, 2)[order].ravel()))
        for name, column in (("id", ids), ("width", width), ("height", height)):
            self.save(f"images.{name}", column[order])
        sorted_ids: Array = ids[order]
        return sorted_ids

    def sort_annotations(self, ids: Array) -> None:
        """Group annotations by picture; those of a picture that is not listed are left out and counted."""
        wanted = self.load("image_id")
        row = _rows(ids, wanted)
        known = row < len(ids)
        self.note("unknown_image", (f"annotation of image id {i}, which is not listed" for i in wanted[~known]))
        del wanted
        order = np.argsort(row, kind="stable")[: int(np.count_nonzero(known))]
        self.save("first", np.searchsorted(row[order], np.arange(len(ids) + 1)))
        del row, known
        for name in COLUMNS:
            self.save(f"annotations.{name}", self.load(name)[order])
            (self.work / f"{name}.raw").unlink()

    def load(self, name: str) -> Array:
        return np.fromfile(self.work / f"{name}.raw", COLUMNS[name])

    def save(self, name: str, array: Array) -> None:
        np.save(self.work / f"{name}.npy", array)


def _rows(ids: Array, wanted: Array) -> Array:
    """Where each wanted id stands in the sorted ids; `len(ids)` where it does not."""
    if len(ids) and ids[0] >= 0 and ids[-1] < 16 * len(ids) + (1 << 20):  # dense ids: a table is three times as fast
        table = np.full(int(ids[-1]) + 2, len(ids))
        table[ids] = np.arange(len(ids))
        rows: Array = table[np.clip(wanted, -1, len(table) - 1)]
        return rows
    rows = np.searchsorted(ids, wanted)
    found = rows < len(ids)
    found[found] = ids[rows[found]] == wanted[found]
    return np.where(found, rows, len(ids))


def _annotation_columns(batch: Batch) -> dict[str, Array]:
    records: list[_Annotation] = batch.records
    corners = chain.from_iterable(map(attrgetter("bbox"), records))
    box = np.fromiter(corners, np.float64, 4 * len(records)).reshape(-1, 4)
    columns = {name: np.ascontiguousarray(box[:, i]) for i, name in enumerate("xywh")}
    columns["image_id"] = _column(records, "image_id", np.int64)
    columns["id"] = _column(records, "id", np.int64, -1)
    columns["category_id"] = _column(records, "category_id", np.int64, -1)
    columns["area"] = _column(records, "area", np.float64, -1)
    ignored = _column(records, "iscrowd", np.int64, 0) != 0
    if b'"ignore"' in batch.data:
        ignored |= _column(records, "ignore", np.int64, 0) != 0
    columns["flags"] = ignored.astype(np.uint8) * CROWD
    columns["kind"], columns["offset"], columns["length"] = _segmentations(batch)
    return columns


def _column(records: list[_Record], name: str, dtype: Any, missing: float = 0) -> Array:
    """A field of all records; null becomes `missing`."""
    values: Iterable[Any] = map(attrgetter(name), records)
    try:
        column: Array = np.fromiter(values, dtype, len(records))
        return np.nan_to_num(column, copy=False, nan=missing) if dtype is np.float64 else column
    except TypeError:  # a null among them: rare, and looking for it in every value costs as much as the decoding
        values = (missing if value is None else value for value in map(attrgetter(name), records))
        return np.fromiter(values, dtype, len(records))


def _segmentations(batch: Batch) -> tuple[Array, Array, Array]:
    """Kind, offset in the file and length of each record's segmentation."""
    count = len(batch.records)
    kind, offset, length = np.zeros(count, np.uint8), np.zeros(count, np.int64), np.zeros(count, np.int32)
    if b'"segmentation"' not in batch.data:
        return kind, offset, length
    start = address(batch.data)
    for i, record in enumerate(batch.records):
        text = memoryview(record.segmentation)
        if len(text) < SHORTEST and not any(0x30 <= byte <= 0x39 for byte in text):  # "", "[]", "[ [ ] ]", null
            continue
        kind[i] = POLYGON if text[0] == 0x5B else RLE
        # Raw is a view of what was decoded: its address tells where the value stands.
        offset[i] = batch.offset + address(text) - start - 1
        length[i] = len(text)
    return kind, offset, length


VERSION = "coco 3"


class CocoIndex:
    """A COCO json opened through its index.

    Attributes:
        image_id, width, height: int64 [pictures], sorted by id.
        first: int64 [pictures + 1]; picture i owns the annotation rows first[i]:first[i + 1].
        columns: annotation columns by name (see `COLUMNS`), [annotations]; ids and areas that are not given are -1.
        categories: id to name.
        source: size and fingerprint of the json.
        bad: records left out, by reason, with up to 1000 lines on them.
    """

    def __init__(self, json_path: Path, folder: Path) -> None:
        meta = json.loads((folder / META).read_text())
        self.json_path = json_path
        self.categories: dict[int, str] = {int(key): name for key, name in meta["categories"].items()}
        self.source: dict[str, Any] = meta["source"]
        self.bad: dict[str, Any] = meta["bad"]

        def load(name: str) -> Array:
            return np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r"))

        self.image_id, self.width, self.height = load("images.id"), load("images.width"), load("images.height")
        self.first, self._names, self._name_ends = load("first"), load("names"), load("name_ends")
        self.columns = {name: load(f"annotations.{name}") for name in COLUMNS}
        self._json: int | None = None

    def __len__(self) -> int:
        return len(self.image_id)

    def names(self, row: int) -> tuple[str, str]:
        """`file_name` and `coco_url` of a picture, "" where it has none."""
        start = int(self._name_ends[2 * row - 1]) if row else 0
        middle, end = int(self._name_ends[2 * row]), int(self._name_ends[2 * row + 1])
        text = self._names[start:end].tobytes()
        return text[: middle - start].decode(), text[middle - start :].decode()

    def segmentation(self, annotation: int) -> object:
        """The segmentation of an annotation row, as parsed JSON."""
        if self._json is None:
            self._json = os.open(self.json_path, os.O_RDONLY)
        text = os.pread(self._json, int(self.columns["length"][annotation]), int(self.columns["offset"][annotation]))
        return msgspec.json.decode(text)

    def has_masks(self) -> bool:
        """Whether any annotation holds a segmentation."""
        return bool(np.any(self.columns["kind"] != NONE))


def open_index(path: Path, on_build: Callable[[Path], None] | None = None, block_bytes: int = BLOCK_BYTES) -> CocoIndex:
    """Open the index of a json file, building it first where the cache has none for this very file.

    Args:
        path: a COCO-style json with `images`, `annotations` and, usually, `categories`.
        on_build: called before an index is built, which takes a second for every 60 MB or so.
        block_bytes: how much of the json is read at a time.

    Raises:
        PicsError: the json cannot be read, or the cache folder not written.
    """

    def build(folder: Path, source: dict[str, Any]) -> None:
        build_index(path, folder, source, block_bytes)

    return open_cached(path, VERSION, build, lambda folder: CocoIndex(path, folder), on_build)
