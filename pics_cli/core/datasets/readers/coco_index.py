"""Index of a COCO-style json: columns of numbers on disk, memory-mapped, and where each segmentation stands."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cached_property
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from pics_cli.core.datasets.json_records import RecordBatch, read_arrays
from pics_cli.core.datasets.json_scanner import BLOCK_BYTES, JSON_ERRORS
from pics_cli.core.datasets.readers.coco_records import (
    BAD_RECORD,
    FIRST_TEXT,
    SHORTEST_SEGMENTATION,
    AnnotationRecord,
    CategoryRecord,
    ImageRecord,
    PanopticError,
    RecordMender,
)
from pics_cli.core.datasets.readers.index_cache import INDEX_METADATA, open_cached_index, plain_json
from pics_cli.core.images.image_files import MAX_PIXELS
from pics_cli.core.runtime.bad_samples import BadRecords
from pics_cli.core.runtime.files import load_json, open_handle, read_at
from pics_cli.errors import BadSample, PicsError

Array = npt.NDArray[Any]

NONE, POLYGON, RLE = 0, 1, 2
_VERSION = "coco 4"
CROWD, IGNORED = 1, 2  # bits of `flags`
_RECORD_TYPES = {"images": ImageRecord, "annotations": AnnotationRecord, "categories": CategoryRecord}
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
        metadata = load_json((folder / INDEX_METADATA).read_bytes())
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

    def is_shared(self, name: str) -> bool:
        """Whether images of several folders have a file name."""
        return name in self._shared_names

    @cached_property
    def _shared_names(self) -> set[str]:
        first, shared = dict[str, str](), set[str]()
        for row in range(len(self)):
            file_name = self.names(row)[0].replace("\\", "/")
            name = file_name.rpartition("/")[2]
            if first.setdefault(name, file_name) != file_name:
                shared.add(name)
        return shared

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
            self._json = open_handle(self.json_path)
        text = read_at(self._json, int(self.columns["length"][annotation]), int(self.columns["offset"][annotation]))
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

    def build(plain: Path, folder: Path, source: dict[str, Any]) -> None:
        _IndexBuilder(folder).build(plain, source, block_bytes)

    index = open_cached_index(path, _VERSION, build, lambda folder: CocoIndex(path, folder))
    bad = index.bad_records
    for name, kept in (("images", len(index)), ("annotations", len(index.columns["id"]))):
        if bad.counts and not kept:
            raise PicsError(
                f"{path}: none of its {name} can be used; {bad.summary}",
                "images need id and file_name or coco_url, annotations image_id, category_id and segmentation or bbox",
            )
    return index


class _IndexBuilder:
    """Columns are appended to files while reading and sorted one at a time: memory holds one column and one block."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bad_records = folder, BadRecords()
        self.images: dict[str, list[Array]] = {name: [np.zeros(0, np.int64)] for name in ("id", "width", "height")}
        self.name_lengths = [np.zeros(0, np.int64)]
        self.texts = RecordMender()

    def build(self, path: Path, source: dict[str, Any], block_bytes: int) -> None:
        categories: dict[int, str] = {}
        files = {name: (self.folder / f"{name}.raw").open("wb") for name in (*_COLUMNS, "names")}
        mend = {"images": self.texts.image, "annotations": self.texts.annotation, "categories": self.texts.category}
        try:
            for batch in read_arrays(path, _RECORD_TYPES, block_bytes, optional={"categories"}, mend=mend):
                self.bad_records.extend(BAD_RECORD[batch.section], batch.errors)
                if batch.section == "categories":
                    categories.update((record.id, record.name) for record in batch.records)
                elif batch.section == "images":
                    files["names"].write(self.add_images(batch.records))
                else:
                    for name, column in _annotation_columns(batch).items():
                        column.tofile(files[name])
        except PanopticError:
            raise PicsError(
                f"{path}: COCO panoptic annotations (segments_info): their masks are in PNG files beside it",
                "build it by recipe coco_panoptic, or one of that source.format, or take the file of instances",
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

    def add_images(self, records: list[ImageRecord]) -> bytes:
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
    records: list[AnnotationRecord] = batch.records
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
        if len(text) < SHORTEST_SEGMENTATION and not any(
            0x30 <= byte <= 0x39 for byte in text
        ):  # "", "[]", "[ [ ] ]", null
            continue
        kind[i] = POLYGON if text[0] == 0x5B else RLE
        offset[i], length[i] = batch.span(text)
    return kind, offset, length
