"""Index of a Scalabel json: where each frame's record stands, so that a worker reads single ones."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt

from pics_cli.core.datasets.readers.index_cache import META, Faults, open_cached
from pics_cli.core.datasets.readers.json_records import BLOCK_BYTES, JSON_FAULTS, address, read_arrays

_VERSION = "scalabel 1"


Coordinate = Annotated[float, msgspec.Meta(ge=-1e9, le=1e9)]


class Box2d(msgspec.Struct, gc=False):
    """Corners, the last of which belong to the box."""

    x1: Coordinate
    y1: Coordinate
    x2: Coordinate
    y2: Coordinate


class Poly2d(msgspec.Struct, gc=False):
    """A polygon, or a line where not `closed`; `types` has a letter a vertex: C begins a cubic Bezier curve, of two
    control points and an end, L is the end of a straight line."""

    vertices: list[tuple[float, float]]
    types: str | None = None
    closed: bool | None = True


class Label(msgspec.Struct, gc=False):
    """One object of a frame; everything but its category may be missing or null."""

    category: str | None = None
    id: str | int | None = None
    attributes: dict[str, Any] | None = None
    box2d: Box2d | None = None
    poly2d: list[Poly2d] | None = None
    rle: dict[str, Any] | None = None


class Size(msgspec.Struct, gc=False):
    """Of the picture, in pixels."""

    width: int
    height: int


class Frame(msgspec.Struct, gc=False):
    """One picture; `labels` may be missing or null."""

    name: str
    videoName: str | None = None
    size: Size | None = None
    labels: list[Label] | None = None


class _Name(msgspec.Struct, gc=False):
    name: str
    videoName: str | None = None


class _Category(msgspec.Struct, gc=False):
    category: str | None = None


class _Categories(msgspec.Struct, gc=False):
    labels: list[_Category] | None = None


_FRAME = msgspec.json.Decoder(Frame)
_NAME, _CATEGORIES = msgspec.json.Decoder(_Name), msgspec.json.Decoder(_Categories)


def frame_key(name: str, video: str | None) -> str:
    """The key of a frame's sample: the video's name and the picture's, without its ending."""
    return (f"{video}/" if video else "") + (name.rpartition(".")[0] or name)


class FrameIndex:
    """A Scalabel json opened through its index.

    Attributes:
        categories: names that occur, in alphabetical order.
        source: size and fingerprint of the json.
        bad: frames left out, by reason, with lines on them.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        meta = json.loads((folder / META).read_text())
        self.path = path
        self.categories: list[str] = meta["categories"]
        self.source: dict[str, Any] = meta["source"]
        self.bad: dict[str, Any] = meta["bad"]
        self._spans: npt.NDArray[np.int64] = np.load(folder / "spans.npy", mmap_mode="r")
        self._file: int | None = None

    def __len__(self) -> int:
        return len(self._spans)

    def frame(self, number: int) -> Frame:
        """A frame's record. Raises one of JSON_FAULTS where it is none."""
        if self._file is None:
            self._file = os.open(self.path, os.O_RDONLY)
        offset, length = self._spans[number].tolist()
        return _FRAME.decode(os.pread(self._file, length, offset))


def open_frames(path: Path, on_build: Callable[[Path], None] | None = None) -> FrameIndex:
    """Open the index of a Scalabel json (an object with `frames`, or a bare list), building it first where needed.

    Raises:
        PicsError: the json cannot be read, or the cache folder not written.
    """

    def build(folder: Path, source: dict[str, Any]) -> None:
        _build(path, folder, source)

    return open_cached(path, _VERSION, build, lambda folder: FrameIndex(path, folder), on_build)


def _build(path: Path, folder: Path, source: dict[str, Any]) -> None:
    faults, names, categories = Faults(), set[str](), set[str]()
    spans: list[tuple[int, int]] = []
    for batch in read_arrays(path, {"frames": msgspec.Raw}, BLOCK_BYTES, bare="frames"):
        for line in batch.bad:
            faults.note("bad_frame_record", line)
        start = address(batch.data)
        for record in batch.records:
            text = memoryview(record)
            offset = batch.offset + address(text) - start - 1
            try:
                found = _NAME.decode(text)
            except JSON_FAULTS as error:
                faults.note("bad_frame_record", f"byte {offset:,}: {error}")
                continue
            key = frame_key(found.name, found.videoName)
            if key in names:
                faults.note("duplicate_frame", f"byte {offset:,}: {found.name} given twice")
                continue
            names.add(key)
            spans.append((offset, len(text)))
            try:
                labels = _CATEGORIES.decode(text).labels or ()
            except JSON_FAULTS:
                continue  # the reader names it as a bad picture
            categories.update(label.category for label in labels if label.category)
    np.save(folder / "spans.npy", np.array(spans, np.int64).reshape(-1, 2))
    meta = {"source": source, "categories": sorted(categories), "bad": faults.plain()}
    (folder / META).write_text(json.dumps(meta))
