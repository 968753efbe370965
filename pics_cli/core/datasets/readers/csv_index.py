"""Indexes of CSV files of annotations, one a line: where the lines of each image stand."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from pics_cli.core.datasets.readers.index_cache import INDEX_METADATA, SpanIndex, open_cached_index
from pics_cli.core.runtime.bad_samples import BadRecords
from pics_cli.core.runtime.files import open_file
from pics_cli.errors import PicsError

_VERSION = "csv 1"
# Bytes of the longest id of an image, and of the longest line: longer ones are no annotations.
_LONGEST_ID, _LONGEST_LINE = 64, 1 << 20
_LINES = 1 << 16

Row = dict[str, str]


class CsvIndex(SpanIndex):
    """A CSV file opened through its index.

    Attributes:
        images: ids of the images that have lines, bytes [images], sorted.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        super().__init__(path, folder)
        self.images: npt.NDArray[np.bytes_] = np.load(folder / "images.npy", mmap_mode="r")
        self._first: npt.NDArray[np.int64] = np.load(folder / "first.npy", mmap_mode="r")
        self._names: list[str] = self.metadata["columns"]

    def rows(self, image: str) -> list[Row]:
        """Lines of an image in the file's order, as texts by column."""
        key = np.bytes_(image.encode())
        at = int(np.searchsorted(self.images, key))
        if at == len(self.images) or self.images[at] != key:
            return []
        spans = self._spans[int(self._first[at]) : int(self._first[at + 1])].tolist()
        return [dict(zip(self._names, split_line(self.read(*span)), strict=True)) for span in spans]


def split_line(line: bytes) -> list[str]:
    """Values of a line. The files have no quotes: no value holds a comma.

    Raises:
        ValueError: it is no UTF-8.
    """
    return line.decode().rstrip("\r\n").split(",")


def open_csv_index(
    path: Path, columns: Sequence[str], check: Callable[[Row], bool], kind: str, image: str = "ImageID"
) -> CsvIndex:
    """Open the index of a CSV file, building it first where the cache has none for this very file.

    Memory holds the id and the place of each line that counts.

    Args:
        path: the file, its first line the names of the columns.
        columns: that it must have.
        check: whether a line counts; raises ValueError for one that is no annotation.
        kind: what `check` looks at, for the cache.
        image: column of the image's id.

    Raises:
        PicsError: the file cannot be read, lacks a column or holds no line that can be used.
    """

    def build(plain: Path, folder: Path, source: dict[str, Any]) -> None:
        with open_file(plain) as file:
            names = _read_names(path, file.readline(_LONGEST_LINE), columns)
            _build(file, names, folder, source, check, image)

    index = open_cached_index(path, f"{_VERSION} {kind}", build, lambda folder: CsvIndex(path, folder))
    if index.bad_records.counts and not index.metadata["read"]:
        raise PicsError(f"{path}: none of its lines can be used; {index.bad_records.summary}")
    return index


def _read_names(path: Path, line: bytes, columns: Sequence[str]) -> list[str]:
    try:
        names = split_line(line.removeprefix(b"\xef\xbb\xbf"))
    except ValueError:
        raise PicsError(f"{path}: no text", "is this another dataset's file?") from None
    missing = [name for name in columns if name not in names]
    if missing or len(set(names)) < len(names):
        found = ", ".join(names)[:200] or "nothing"
        what = f"no column {', '.join(missing)}" if missing else "a column given twice"
        raise PicsError(f"{path}: line 1: {what}; found {found}", "is this another dataset's file?")
    return names


def _build(
    file: BinaryIO, names: list[str], folder: Path, source: dict[str, Any], check: Callable[[Row], bool], image: str
) -> None:
    bad_records, read = BadRecords(), 0
    ids: list[npt.NDArray[np.bytes_]] = []
    spans, block = array("q"), list[bytes]()
    for number, offset, line in _lines(file):
        try:
            values = split_line(line)
            if len(values) != len(names):
                raise ValueError(f"{len(values)} values, expected {len(names)}")
            row = dict(zip(names, values, strict=True))
            key = row[image].encode()
            if not key or len(key) > _LONGEST_ID:
                raise ValueError(f"{image} is {row[image][:40]!r}, expected 1 to {_LONGEST_ID} letters")
            counts = check(row)
        except ValueError as error:  # UnicodeDecodeError among them
            bad_records.extend("bad_csv_line", [f"line {number:,}: {error}"])
            continue
        read += 1
        if counts:
            spans.extend((offset, len(line)))
            block.append(key)
            if len(block) == _LINES:
                ids.append(np.array(block, np.bytes_))
                block = []
    every = np.concatenate([*ids, np.array(block, np.bytes_ if block else "S1")])
    order = np.argsort(every, kind="stable")
    images, first = np.unique(every[order], return_index=True)
    np.save(folder / "images.npy", images)
    np.save(folder / "first.npy", np.append(first, len(order)).astype(np.int64))
    np.save(folder / "spans.npy", np.frombuffer(spans, np.int64).reshape(-1, 2)[order])
    metadata = {"source": source, "bad": bad_records.as_dict(), "columns": names, "read": read}
    (folder / INDEX_METADATA).write_text(json.dumps(metadata))


def _lines(file: BinaryIO) -> Iterator[tuple[int, int, bytes]]:
    """Number, offset and bytes of each line behind the first, empty ones left out; of a line without end, pieces."""
    number, offset = 2, file.tell()
    while line := file.readline(_LONGEST_LINE):
        if line.strip():
            yield number, offset, line
        number += line.endswith(b"\n")
        offset += len(line)
