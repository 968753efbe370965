"""Index of a COCO-style json: columns of numbers on disk, memory-mapped, and where each segmentation stands."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable
from functools import cached_property
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt

from pics_cli.core.datasets.json_records import BLOCK_BYTES, JSON_ERRORS, RecordBatch, read_arrays
from pics_cli.core.datasets.readers.index_cache import INDEX_METADATA, open_cached_index, plain_json
from pics_cli.core.images.image_files import MAX_PIXELS
from pics_cli.core.runtime.bad_samples import BadRecords
from pics_cli.errors import BadSample, PicsError

Array = npt.NDArray[Any]

NONE, POLYGON, RLE = 0, 1, 2
_VERSION = "coco 4"
_SHORTEST = 16  # bytes of a segmentation that can be drawn; shorter ones are looked at


# What the columns can hold, in the form that most files have; `_Texts` mends records of another form, or they are bad.
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


class _LooseImage(msgspec.Struct, gc=False):
    id: Any = None
    width: Any = None
    height: Any = None
    file_name: str | None = ""
    coco_url: str | None = ""


class _LooseAnnotation(msgspec.Struct, gc=False):
    image_id: Any = None
    bbox: Any = None
    category_id: Any = None
    id: Any = None
    area: Any = None
    iscrowd: Any = None
    ignore: Any = None
    segmentation: msgspec.Raw = msgspec.Raw()
    segments_info: msgspec.Raw = msgspec.Raw()


class _LooseCategory(msgspec.Struct):
    id: Any = None
    name: Any = None


FIRST_TEXT = (1 << 62) + 1  # ids that are texts have the numbers from here on
_LARGEST = 1 << 62
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}(\.0+)?")
CROWD, IGNORED = 1, 2  # bits of `flags`
_RECORD_TYPES = {"images": _Image, "annotations": _Annotation, "categories": _Category}
_BAD_RECORD = {
    "images": "bad_image_record",
    "annotations": "bad_annotation_record",
    "categories": "bad_category_record",
}
_COLUMNS: dict[str, Any] = {
    "image_id": np.int64, "id": np.int64, "category_id": np.int64, "x": np.float64, "y": np.float64, "w": np.float64,
    "h": np.float64, "area": np.float64, "flags": np.uint8, "kind": np.uint8, "offset": np.int64, "length": np.int32,
}  # fmt: skip


class CocoIndex:
    """A COCO json opened through its index.

    Attributes:
        image_id, width, height: int64 [images], sorted by id (see `given_id`); sides are 0 where they are not given.
        first: int64 [images + 1]; image i owns the annotation rows first[i]:first[i + 1].
        columns: annotation columns by name (see `_COLUMNS`), [annotations]; ids and areas that are not given are -1,
            boxes NaN, `flags` is 1 for crowds plus 2 for ignored ones, `kind` of the segmentation NONE, POLYGON or RLE.
        categories: id to name.
        source: size and fingerprint of the json.
        bad_records: records left out.
    """

    def __init__(self, json_path: Path, folder: Path) -> None:
        metadata = json.loads((folder / INDEX_METADATA).read_text())
        self.json_path = plain_json(json_path, folder)
        self.categories: dict[int, str] = {int(key): name for key, name in metadata["categories"].items()}
        self.source: dict[str, Any] = metadata["source"]
        self.bad_records = BadRecords(**metadata["bad"])

        def load(name: str) -> Array:
            return np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r"))

        self.image_id, self.width, self.height = load("images.id"), load("images.width"), load("images.height")
        self.first, self._names, self._name_ends = load("first"), load("names"), load("name_ends")
        self.columns = {name: load(f"annotations.{name}") for name in _COLUMNS}
        self._texts, self._text_ends = load("texts"), load("text_ends")
        self._json: int | None = None

    def __len__(self) -> int:
        return len(self.image_id)

    def names(self, row: int) -> tuple[str, str]:
        """`file_name` and `coco_url` of an image, "" where it has none."""
        start = int(self._name_ends[2 * row - 1]) if row else 0
        middle, end = int(self._name_ends[2 * row]), int(self._name_ends[2 * row + 1])
        text = self._names[start:end].tobytes()
        return text[: middle - start].decode(), text[middle - start :].decode()

    def given_id(self, number: int) -> int | str:
        """An id of the columns as the file has it: the number itself, or the text that it stands for."""
        at = int(number) - FIRST_TEXT
        if at < 0:
            return int(number)
        start = int(self._text_ends[at - 1]) if at else 0
        return self._texts[start : int(self._text_ends[at])].tobytes().decode("utf-8", "replace")

    def image_number(self, image_id: int | str) -> int:
        """The number that the columns have for an image's id."""
        return image_id if isinstance(image_id, int) else self._numbers_of_texts[image_id]

    @cached_property
    def _numbers_of_texts(self) -> dict[str, int]:
        """Of the images whose ids are texts."""
        first = int(np.searchsorted(self.image_id, FIRST_TEXT))
        return {str(self.given_id(number)): int(number) for number in self.image_id[first:]}

    def crowds(self) -> int:
        """Annotations that are marked `iscrowd`."""
        return int(np.count_nonzero(self.columns["flags"] & CROWD))

    def segmentation(self, annotation: int) -> object:
        """The segmentation of an annotation row, as parsed JSON.

        Raises:
            BadSample: `bad_mask` where it is no JSON, or holds numbers beyond all range.
        """
        if self._json is None:
            self._json = os.open(self.json_path, os.O_RDONLY)
        text = os.pread(self._json, int(self.columns["length"][annotation]), int(self.columns["offset"][annotation]))
        try:
            return msgspec.json.decode(text)
        except JSON_ERRORS as error:
            raise BadSample("bad_mask", f"annotation {self.columns['id'][annotation]}: {error}") from None

    def has_masks(self) -> bool:
        """Whether any annotation holds a segmentation."""
        return bool(np.any(self.columns["kind"] != NONE))


def open_coco_index(path: Path, block_bytes: int = BLOCK_BYTES) -> CocoIndex:
    """Open the index of a json file, building it first where the cache has none for this very file.

    Args:
        path: a COCO-style json with `images`, `annotations` and, usually, `categories`.
        block_bytes: how much of the json is decoded at a time.

    Raises:
        PicsError: the json cannot be read, or none of its records; or the cache folder not written.
    """

    def build(folder: Path, source: dict[str, Any]) -> None:
        _IndexBuilder(folder).build(plain_json(path, folder), source, block_bytes)

    index = open_cached_index(path, _VERSION, build, lambda folder: CocoIndex(path, folder))
    bad = index.bad_records
    for name, kept in (("images", len(index)), ("annotations", len(index.columns["id"]))):
        if bad.counts and not kept:
            raise PicsError(
                f"{path}: none of its {name} can be used; {bad.summary}",
                "mend the file; docs/data.md says what a record needs",
            )
    return index


class _IndexBuilder:
    """Columns are appended to files while reading and sorted one at a time: memory holds one column and one block."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bad_records = folder, BadRecords()
        self.images: dict[str, list[Array]] = {name: [np.zeros(0, np.int64)] for name in ("id", "width", "height")}
        self.name_lengths = [np.zeros(0, np.int64)]
        self.texts = _Texts()

    def build(self, path: Path, source: dict[str, Any], block_bytes: int) -> None:
        categories: dict[int, str] = {}
        files = {name: (self.folder / f"{name}.raw").open("wb") for name in (*_COLUMNS, "names")}
        mend = {"images": self.texts.image, "annotations": self.texts.annotation, "categories": self.texts.category}
        try:
            for batch in read_arrays(path, _RECORD_TYPES, block_bytes, optional={"categories"}, mend=mend):
                self.bad_records.extend(_BAD_RECORD[batch.section], batch.errors)
                if batch.section == "categories":
                    categories.update((record.id, record.name) for record in batch.records)
                elif batch.section == "images":
                    files["names"].write(self.add_images(batch.records))
                else:
                    for name, column in _annotation_columns(batch).items():
                        column.tofile(files[name])
        except _PanopticError:
            raise PicsError(
                f"{path}: COCO panoptic annotations (segments_info): their masks are in PNG files beside it",
                "build it with source.format: coco_panoptic (see docs/data.md), or take the file of instances",
            ) from None
        finally:
            for file in files.values():
                file.close()
        self.sort_annotations(self.sort_images())
        texts = [text.encode("utf-8", "replace") for text in self.texts.numbers]
        self.save("texts", np.frombuffer(b"".join(texts), np.uint8))
        self.save("text_ends", np.cumsum(np.array(list(map(len, texts)), np.int64)))
        metadata = {"source": source, "categories": categories, "bad": self.bad_records.as_dict()}
        (self.folder / INDEX_METADATA).write_text(json.dumps(metadata))

    def add_images(self, records: list[_Image]) -> bytes:
        """Append to the columns of the images; returns their names one after the other."""
        huge = [record for record in records if record.width * record.height > MAX_PIXELS]
        lines = (f"image id {record.id}: claims {record.width} x {record.height} pixels" for record in huge)
        self.bad_records.extend("bad_image_record", lines)
        records = [record for record in records if record.width * record.height <= MAX_PIXELS] if huge else records
        names = [text.encode() for r in records for text in (r.file_name or "", r.coco_url or "")]
        self.name_lengths.append(np.array(list(map(len, names)), np.int64))
        for name, parts in self.images.items():
            parts.append(_column(records, name, np.int64))
        return b"".join(names)

    def sort_images(self) -> Array:
        """Order images by id, keep the first of equal ids, and lay their names out in that order; their ids."""
        ids, lengths = np.concatenate(self.images["id"]), np.concatenate(self.name_lengths)
        order = np.argsort(ids, kind="stable")
        repeated = np.flatnonzero(np.diff(ids[order], prepend=ids[order][:1] - 1) == 0) if len(ids) else order
        lines = (f"image id {self.texts.name(i)} given twice" for i in ids[order][repeated])
        self.bad_records.extend("duplicate_image_id", lines)
        order = np.delete(order, repeated)
        ends = np.cumsum(lengths)
        starts = ends - lengths
        text = (self.folder / "names.raw").read_bytes()
        (self.folder / "names.raw").unlink()
        sorted_text = b"".join(text[starts[2 * i] : ends[2 * i + 1]] for i in order)
        self.save("names", np.frombuffer(sorted_text, np.uint8))
        self.save("name_ends", np.cumsum(lengths.reshape(-1, 2)[order].ravel()))
        for name, parts in self.images.items():
            self.save(f"images.{name}", np.concatenate(parts)[order])
        sorted_ids: Array = ids[order]
        return sorted_ids

    def sort_annotations(self, image_ids: Array) -> None:
        """Group annotations by image; those of an image that is not listed are left out and counted."""
        owner = self.load("image_id")
        row = _find_rows(image_ids, owner)
        known = row < len(image_ids)
        lines = (f"annotation of image id {self.texts.name(i)}, which is not listed" for i in owner[~known])
        self.bad_records.extend("unknown_image", lines)
        del owner
        order = np.argsort(row, kind="stable")[: int(np.count_nonzero(known))]
        self.save("first", np.searchsorted(row[order], np.arange(len(image_ids) + 1)))
        del row, known
        for name in _COLUMNS:
            self.save(f"annotations.{name}", self.load(name)[order])
            (self.folder / f"{name}.raw").unlink()

    def load(self, name: str) -> Array:
        return np.fromfile(self.folder / f"{name}.raw", _COLUMNS[name])

    def save(self, name: str, array: Array) -> None:
        np.save(self.folder / f"{name}.npy", array)


class _PanopticError(Exception):
    """An annotation is COCO's panoptic one."""


class _Texts:
    """Makes records of forms that many programs write and that leave no doubt; and numbers ids that are texts.

    Numbers may be texts and have a fraction of zeros, boxes, areas and sizes may be missing, flags be words. Raises
    ValueError for what else there is.
    """

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self._names: list[str] = []
        self._image: msgspec.json.Decoder[_LooseImage] = msgspec.json.Decoder(_LooseImage)
        self._annotation: msgspec.json.Decoder[_LooseAnnotation] = msgspec.json.Decoder(_LooseAnnotation)
        self._category: msgspec.json.Decoder[_LooseCategory] = msgspec.json.Decoder(_LooseCategory)

    def name(self, number: int) -> int | str:
        """What an id is in the file."""
        at = int(number) - FIRST_TEXT
        return int(number) if at < 0 else self._names[at]

    def image(self, text: msgspec.Raw | memoryview) -> _Image:
        record = self._image.decode(text)
        width, height = _side(record.width, "width"), _side(record.height, "height")
        if not (width and height):
            width = height = 0
        return _Image(self.id(record.id, "id"), width, height, record.file_name, record.coco_url)

    def annotation(self, text: msgspec.Raw | memoryview) -> _Annotation:
        record = self._annotation.decode(text)
        if memoryview(record.segments_info):
            raise _PanopticError
        box = _box(record.bbox)
        if box is None and len(memoryview(record.segmentation)) < _SHORTEST:
            raise ValueError("neither `bbox` nor `segmentation` is given")
        return _Annotation(
            self.id(record.image_id, "image_id"), box or (math.nan,) * 4,
            -1 if record.category_id is None else self.id(record.category_id, "category_id"),
            -1 if record.id is None else self.id(record.id, "id"), _area(record.area),
            _flag(record.iscrowd, "iscrowd"), _flag(record.ignore, "ignore"), record.segmentation,
        )  # fmt: skip

    def category(self, text: msgspec.Raw | memoryview) -> _Category:
        record = self._category.decode(text)
        if not isinstance(record.name, str | int | float):
            raise ValueError(f"name is {_shown(record.name)}, expected a text")
        return _Category(self.id(record.id, "id"), str(record.name))

    def id(self, value: Any, what: str) -> int:
        """The number of an id: an integer however written, or one of ours for a text."""
        number = _integer(value)
        if number is None and isinstance(value, str) and value.strip():
            if value not in self.numbers:
                self.numbers[value] = FIRST_TEXT + len(self._names)
                self._names.append(value)
            return self.numbers[value]
        if number is None:
            raise ValueError(f"{what} is {_shown(value)}, expected an integer or a text")
        return number


def _integer(value: Any) -> int | None:
    """An integer of the columns' range, or None."""
    if isinstance(value, str):
        value = int(value.strip().partition(".")[0]) if _INTEGER.fullmatch(value.strip()) else None
    elif isinstance(value, float) and value.is_integer():
        value = int(value)
    is_integer = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _LARGEST
    return value if is_integer else None


def _side(value: Any, what: str) -> int:
    """Width or height; 0 where it is not given."""
    side = 0 if value in (None, "") else _integer(value)
    if side is None or not 0 <= side <= 1 << 17:
        raise ValueError(f"{what} is {_shown(value)}, expected 1 to {1 << 17} pixels")
    return side


def _box(value: Any) -> tuple[float, float, float, float] | None:
    """`x, y, width, height`; None where it is not given, or not in numbers."""
    if not value or (isinstance(value, list) and len(value) == 4 and "" in value):
        return None
    try:
        x, y, width, height = map(float, value)
    except (TypeError, ValueError):
        raise ValueError(f"bbox is {_shown(value)}, expected [x, y, width, height]") from None
    if not all(abs(side) <= 1e9 for side in (x, y, width, height)):
        raise ValueError(f"bbox is {_shown(value)}, expected numbers up to 1e9")
    return x, y, width, height


def _area(value: Any) -> float:
    """An area; -1 where it is not given."""
    try:
        area = -1.0 if value in (None, "") else float(value)
    except (TypeError, ValueError):
        raise ValueError(f"area is {_shown(value)}, expected a number") from None
    return area if math.isfinite(area) else -1.0


def _flag(value: Any, what: str) -> int:
    """0 or 1; 0 where it is not given."""
    flag = {"true": 1, "false": 0, "": 0}.get(value.strip().lower()) if isinstance(value, str) else None
    flag = 0 if value is None else int(value) if isinstance(value, bool) else flag
    flag = _integer(value) if flag is None else flag
    if flag is None:
        raise ValueError(f"{what} is {_shown(value)}, expected 0 or 1")
    return int(flag != 0)


def _shown(value: Any) -> str:
    text = "missing" if value is None else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _find_rows(sorted_ids: Array, ids: Array) -> Array:
    """Where ids stand among the sorted ids; `len(sorted_ids)` where they do not."""
    count = len(sorted_ids)
    if count and sorted_ids[0] >= 0 and sorted_ids[-1] < 16 * count + (1 << 20):  # dense: a table is thrice as fast
        table = np.full(int(sorted_ids[-1]) + 2, count)
        table[sorted_ids] = np.arange(count)
        rows: Array = table[np.clip(ids, -1, len(table) - 1)]
        return rows
    rows = np.searchsorted(sorted_ids, ids)
    known = rows < count
    known[known] = sorted_ids[rows[known]] == ids[known]
    return np.where(known, rows, count)


def _annotation_columns(batch: RecordBatch) -> dict[str, Array]:
    records: list[_Annotation] = batch.records
    corners = chain.from_iterable(map(attrgetter("bbox"), records))
    box = np.fromiter(corners, np.float64, 4 * len(records)).reshape(-1, 4)
    columns = {name: np.ascontiguousarray(box[:, i]) for i, name in enumerate("xywh")}
    columns["image_id"] = _column(records, "image_id", np.int64)
    columns["id"] = _column(records, "id", np.int64, -1)
    columns["category_id"] = _column(records, "category_id", np.int64, -1)
    columns["area"] = _column(records, "area", np.float64, -1)
    flags = (_column(records, "iscrowd", np.int64, 0) != 0).astype(np.uint8) * CROWD
    if b'"ignore"' in batch.data:
        flags |= (_column(records, "ignore", np.int64, 0) != 0).astype(np.uint8) * IGNORED
    columns["flags"] = flags
    columns["kind"], columns["offset"], columns["length"] = _segmentation_spans(batch)
    return columns


def _column(records: list[Any], name: str, dtype: Any, missing: float = 0) -> Array:
    """A field of all records; null becomes `missing`."""
    values: Iterable[Any] = map(attrgetter(name), records)
    try:
        column: Array = np.fromiter(values, dtype, len(records))
        return np.nan_to_num(column, copy=False, nan=missing) if dtype is np.float64 else column
    except TypeError:  # a null among them: rare, and looking for it in every value costs as much as the decoding
        values = (missing if value is None else value for value in map(attrgetter(name), records))
        return np.fromiter(values, dtype, len(records))


def _segmentation_spans(batch: RecordBatch) -> tuple[Array, Array, Array]:
    """Kind, offset in the file and length of the records' segmentations."""
    count = len(batch.records)
    kind, offset, length = np.zeros(count, np.uint8), np.zeros(count, np.int64), np.zeros(count, np.int32)
    if b'"segmentation"' not in batch.data:
        return kind, offset, length
    for i, record in enumerate(batch.records):
        text = memoryview(record.segmentation)
        if len(text) < _SHORTEST and not any(0x30 <= byte <= 0x39 for byte in text):  # "", "[]", "[ [ ] ]", null
            continue
        kind[i] = POLYGON if text[0] == 0x5B else RLE
        offset[i], length[i] = batch.span(text)
    return kind, offset, length
